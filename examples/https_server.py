"""A web server over TLS that serves a few pages of text, with deadlines and limits.

HTTP/1.1 with persistent connections, GET and HEAD; no request may have a body.  Certificate and key
are in one PEM file, or in two.  SIGTERM or Ctrl-C ends it well: answers are finished.  Try it with
`curl --insecure https://127.0.0.1:PORT/`.
"""

import argparse
import logging
import socket
import ssl
import sys
from email.utils import formatdate
from http import HTTPStatus

from fastcore import asynchat, asyncore
from fastcore.deadlines import Deadlines
from fastcore.draining import drain_on_signals
from fastcore.limits import AcceptLimits
from fastcore.logs import use_logging
from fastcore.tls import TLS

PAGES = {
    "/": "This server is one thread, one loop, and no framework.\n",
    "/numbers.txt": "".join(f"{number}\n" for number in range(200_000)),
}


class Session(Deadlines, TLS, asynchat.async_chat):
    """One client: a request after another."""

    handshake_timeout = 10.0
    request_timeout = 10.0  # from the first byte of a connection or request to its head's end
    idle_timeout = 60.0
    write_timeout = 30.0
    ac_max_line_size = 8192  # of a whole head

    def __init__(self, sock, addr, context):
        super().__init__(sock)
        self.client = addr[0]
        self.head = []
        self.ends = False  # this request was the last one of the connection
        self.set_terminator(b"\r\n\r\n")
        self.start_deadline("request")
        self.start_tls(context, server_side=True)

    def collect_incoming_data(self, data):
        if not self.head:
            self.start_deadline("request")
        self.head.append(data)

    def found_terminator(self):
        head = b"".join(self.head).decode("latin-1")
        self.head.clear()
        self.stop_deadline("request")
        if self.ends:
            return  # nobody waits for another answer
        line, *fields = head.lstrip("\r\n").split("\r\n")
        words = line.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            self.refuse(HTTPStatus.BAD_REQUEST)
            return
        method, target, version = words
        named = {name.strip().lower(): text.strip() for name, _, text in map(split_field, fields)}
        connection = named.get("connection", "").lower()
        if version == "HTTP/1.0":
            self.ends = connection != "keep-alive"
        else:
            self.ends = connection == "close"
        if version == "HTTP/1.1" and "host" not in named:
            self.refuse(HTTPStatus.BAD_REQUEST)
        elif "transfer-encoding" in named or named.get("content-length", "0") != "0":
            self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        elif method not in ("GET", "HEAD"):
            self.refuse(HTTPStatus.METHOD_NOT_ALLOWED, "Allow: GET, HEAD")
        else:
            page = PAGES.get(target.partition("?")[0])
            status = HTTPStatus.OK if page is not None else HTTPStatus.NOT_FOUND
            self.answer(status, f"{status.phrase}\n" if page is None else page, method != "HEAD")

    def answer(self, status, text, with_body=True, *fields):
        """Send one answer; then close, where it was the last one."""
        body = text.encode()
        lines = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            f"Date: {formatdate(usegmt=True)}",
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            f"Connection: {'close' if self.ends else 'keep-alive'}",
            *fields,
        ]
        self.push("\r\n".join(lines).encode() + b"\r\n\r\n" + (body if with_body else b""))
        self.log_info(f"{self.client}: {status.value}, {len(body)} bytes")
        if self.ends:
            self.close_when_done()

    def refuse(self, status, *fields):
        """Say what is wrong with a request, and hear nothing more."""
        self.ends = True
        self.answer(status, f"{status.phrase}\n", True, *fields)

    def handle_error(self):
        error = sys.exc_info()[1]
        if isinstance(error, OSError):  # of the network, or of what the client calls TLS
            self.log_info(f"{self.client}: {error}")
            self.close()
        else:
            super().handle_error()

    def handle_line_too_long(self):
        self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)


def split_field(line):
    """Return the name of a header field, the colon and its text."""
    return line.partition(":")


class Server(AcceptLimits, asyncore.dispatcher):
    """Accepts clients within the limits; who is one too many is reset, before any TLS."""

    max_connections = 1000
    max_connections_per_address = 50
    max_accepts_per_second = 200
    refuse_by_reset = True

    def __init__(self, host, port, context):
        super().__init__()
        self.context = context
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.set_reuse_addr()
        self.bind((host, port))
        self.listen(128)

    def handle_accepted(self, sock, addr):
        Session(sock, addr, self.context)


def main():
    """Serve until a signal comes, and then until all answers have left."""
    parser = argparse.ArgumentParser(description="A web server over TLS.")
    parser.add_argument("certificate", help="a PEM file, with the key unless that is apart")
    parser.add_argument("port", nargs="?", type=int, default=0, help="default: any free port")
    parser.add_argument("--key", help="the PEM file of the key")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--request", type=float, default=10.0, help="seconds")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds")
    parser.add_argument("--each", type=int, default=50, help="connections of one address")
    options = parser.parse_args()
    Session.request_timeout = options.request
    Session.idle_timeout = options.idle
    Server.max_connections_per_address = options.each
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options.certificate, options.key)
    context.set_alpn_protocols(["http/1.1"])
    logging.basicConfig(level=logging.INFO)
    use_logging()
    server = Server(options.host, options.port, context)
    host, port = server.socket.getsockname()
    with drain_on_signals():
        print(f"listening on {host} port {port}", flush=True)
        asyncore.loop()


if __name__ == "__main__":
    main()
