"""A mail server that takes every message and keeps none, with STARTTLS on `async_chat`.

It prints the sender, the number of recipients and the size of each message, and whether it came
encrypted.  Certificate and key are in one PEM file, or in two.  Try it with
`openssl s_client -starttls smtp -connect 127.0.0.1:PORT`.
"""

import argparse
import socket
import ssl
import sys

from fastcore import asynchat, asyncore
from fastcore.tls import TLS


class MailChannel(TLS, asynchat.async_chat):
    """One client: commands line by line, and messages that end with a dot."""

    handshake_timeout = 30  # seconds

    def __init__(self, sock, context):
        super().__init__(sock)
        self.context = context
        self.encrypted = False
        self.piece = []
        self.forget()
        self.await_command()
        self.answer("220 mail sink")

    def forget(self):
        """Forget sender and recipients: the next message begins."""
        self.sender, self.recipients = None, []

    def await_command(self):
        self.handle, self.size = self.command, 0
        self.ac_max_line_size = 1000
        self.set_terminator(b"\r\n")

    def answer(self, text):
        self.push(text.encode() + b"\r\n")

    def collect_incoming_data(self, data):
        self.size += len(data)
        if self.handle == self.command:
            self.piece.append(data)

    def found_terminator(self):
        line = b"".join(self.piece).decode("utf-8", "replace")
        self.piece.clear()
        self.handle(line)

    def handle_handshake(self):
        self.encrypted = True
        self.forget()  # nothing that was said in the clear counts

    def handle_error(self):
        print(f"error: {sys.exc_info()[1]}", file=sys.stderr)
        self.close()

    # what was received

    def command(self, line):
        name, _, rest = line.partition(" ")
        method = getattr(self, "do_" + name.lower(), None)
        if method is None:
            self.answer("502 no such command")
        else:
            method(rest)
        if self.handle == self.command:
            self.size = 0

    def message(self, _):
        print(
            f"from {self.sender} to {len(self.recipients)}: {self.size} bytes"
            f"{', encrypted' if self.encrypted else ''}",
            flush=True,
        )
        self.forget()
        self.await_command()
        self.answer("250 taken")

    # the commands

    def do_helo(self, rest):
        self.forget()
        self.answer("250 hello")

    def do_ehlo(self, rest):
        self.forget()
        offers = ["hello"] if self.encrypted else ["hello", "STARTTLS"]
        for offer in offers[:-1]:
            self.answer(f"250-{offer}")
        self.answer(f"250 {offers[-1]}")

    def do_starttls(self, rest):
        if self.encrypted:
            self.answer("503 encrypted already")
            return
        self.answer("220 go ahead")  # the last word in the clear
        # Mail clients end after QUIT without a word of TLS: of a message the dot tells the end.
        self.start_tls(self.context, server_side=True, suppress_ragged_eofs=True)

    def do_mail(self, rest):
        self.sender = rest.partition(":")[2].strip()
        self.answer("250 ok")

    def do_rcpt(self, rest):
        self.recipients.append(rest)
        self.answer("250 ok")

    def do_data(self, rest):
        if not self.recipients:
            self.answer("503 for whom?")
            return
        self.handle, self.size = self.message, 0
        self.ac_max_line_size = None
        self.set_terminator(b"\r\n.\r\n")
        self.answer("354 go ahead")

    def do_rset(self, rest):
        self.forget()
        self.answer("250 ok")

    def do_noop(self, rest):
        self.answer("250 ok")

    def do_quit(self, rest):
        self.answer("221 bye")
        self.close_when_done()


class MailServer(asyncore.dispatcher):
    """Accepts clients."""

    def __init__(self, host, port, context):
        super().__init__()
        self.context = context
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.set_reuse_addr()
        self.bind((host, port))
        self.listen(128)

    def handle_accepted(self, sock, addr):
        MailChannel(sock, self.context)


def main():
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="A mail server that keeps nothing.")
    parser.add_argument("certificate", help="a PEM file, with the key unless that is apart")
    parser.add_argument("port", nargs="?", type=int, default=0, help="default: any free port")
    parser.add_argument("--key", help="the PEM file of the key")
    parser.add_argument("--host", default="127.0.0.1")
    options = parser.parse_args()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options.certificate, options.key)
    server = MailServer(options.host, options.port, context)
    host, port = server.socket.getsockname()
    print(f"listening on {host} port {port}", flush=True)
    try:
        asyncore.loop()
    except KeyboardInterrupt:
        pass
    finally:
        asyncore.close_all()


if __name__ == "__main__":
    main()
