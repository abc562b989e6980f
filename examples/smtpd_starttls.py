"""STARTTLS for a library that never had it: `smtpd`, whose channels are wrapped by nobody.

The module left Python with 3.12 and is had as `standard-smtpd`; it runs as it is, on this loop.  It
prints the sender, the number of recipients and the size of each message, and whether it came
encrypted.  Certificate and key are in one PEM file, or in two.
"""

import argparse
import ssl

import fastcore

fastcore.install()  # before smtpd imports asyncore and asynchat

import asyncore  # noqa: E402
import smtpd  # noqa: E402

from fastcore.tls import TLS  # noqa: E402


class Channel(TLS, smtpd.SMTPChannel):
    """What smtpd has for a client, and one command more."""

    context = None
    encrypted = False

    def push(self, msg):
        if msg == "250 HELP" and not self.encrypted:  # the last line of the answer to EHLO
            super().push("250-STARTTLS")
        super().push(msg)

    def smtp_STARTTLS(self, arg):
        if self.encrypted:
            self.push("503 encrypted already")
            return
        self.push("220 go ahead")  # the last word in the clear
        # Mail clients end after QUIT without a word of TLS: of a message the dot tells the end.
        self.start_tls(self.context, server_side=True, suppress_ragged_eofs=True)

    def handle_handshake(self):
        self.encrypted = True
        # Nothing that was said in the clear counts.
        self.seen_greeting = ""
        self._set_rset_state()


class Server(smtpd.SMTPServer):
    """Prints what comes, and keeps nothing."""

    channel_class = Channel

    def process_message(self, peer, mailfrom, rcpttos, data, **options):
        channels = [each for each in self._map.values() if getattr(each, "peer", None) == peer]
        encrypted = ", encrypted" if any(each.encrypted for each in channels) else ""
        print(f"from {mailfrom} to {len(rcpttos)}: {len(data)} bytes{encrypted}", flush=True)


def main():
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="smtpd with STARTTLS; keeps no message.")
    parser.add_argument("certificate", help="a PEM file, with the key unless that is apart")
    parser.add_argument("port", nargs="?", type=int, default=0, help="default: any free port")
    parser.add_argument("--key", help="the PEM file of the key")
    parser.add_argument("--host", default="127.0.0.1")
    options = parser.parse_args()
    Channel.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    Channel.context.load_cert_chain(options.certificate, options.key)
    server = Server((options.host, options.port), None)
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
