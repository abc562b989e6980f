"""An HTTP/1.1 server that keeps connections open, on `async_chat`.

It answers GET and HEAD with a few pages that it holds in memory, and any number of requests on one
connection, also ones sent ahead of their turn.  The terminator is the empty line after a head and
then, where a body follows, its number of bytes; bodies are skipped.  The imports are the standard
library's own names: see echo_server.py.

    python -m fastcore run examples/http_server.py 8080
    wrk -c 100 http://127.0.0.1:8080/
"""

import argparse
import asynchat
import asyncore
import email.utils
import http
import re
import socket
import time
import urllib.parse

MAX_HEAD = 16_384  # bytes of a request line and its fields
PAGES = {
    "/": b"Hello, world!\n",
    "/about": b"This server runs on asynchat.\n",
}
REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP/(\d)\.(\d)")
FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0\r\n]*)")


class Refused(Exception):
    """A request that cannot be answered; `status` says why, and the connection closes."""

    def __init__(self, status):
        super().__init__(status)
        self.status = status


class Request:
    """The head of a request."""

    def __init__(self, head):
        line, *fields = head.decode("latin-1").split("\r\n")
        match = REQUEST_LINE.fullmatch(line)
        if match is None:
            raise Refused(400)
        self.method, target, major, minor = match.groups()
        if major != "1":
            raise Refused(505)
        self.fields = {}
        for field in fields:
            self.add_field(field)
        self.old = minor == "0"  # HTTP/1.0: the client says when to keep the connection
        options = self.options()
        self.close = "keep-alive" not in options if self.old else "close" in options
        if "host" not in self.fields and not self.old:
            raise Refused(400)
        self.path = self.find_path(target)
        self.length = self.find_length()

    def add_field(self, field):
        """Take one line; a field that comes twice is a list."""
        match = FIELD.fullmatch(field)
        if match is None:
            raise Refused(400)
        name, value = match[1].lower(), match[2].rstrip(" \t")
        if name in self.fields:
            value = f"{self.fields[name]}, {value}"
        self.fields[name] = value

    def options(self):
        """The words of the field Connection."""
        return [word.strip(" \t") for word in self.fields.get("connection", "").lower().split(",")]

    def find_path(self, target):
        """The path of /path?query, and of http://host/path as clients of a proxy send it."""
        if target.startswith("/"):
            return urllib.parse.unquote(target.partition("?")[0])
        try:
            return urllib.parse.unquote(urllib.parse.urlsplit(target).path) or "/"
        except ValueError:
            raise Refused(400) from None

    def find_length(self):
        """The bytes of the body that follows."""
        if "transfer-encoding" in self.fields:
            raise Refused(501)
        lengths = {text.strip(" \t") for text in self.fields.get("content-length", "0").split(",")}
        length = lengths.pop()
        if lengths or not re.fullmatch("[0-9]{1,18}", length):
            raise Refused(400)
        return int(length)


class HttpChannel(asynchat.async_chat):
    """One client."""

    def __init__(self, sock, server):
        super().__init__(sock)
        # Several small answers to one segment: none of them may wait for an acknowledgement.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server = server
        self.head = []
        self.head_size = 0
        self.request = None  # the one whose body is being skipped
        self.ending = False  # nothing more is read from this client
        self.set_terminator(b"\r\n\r\n")

    def collect_incoming_data(self, data):
        if self.request is not None or self.ending:
            return
        self.head.append(data)
        self.head_size += len(data)
        if self.head_size > MAX_HEAD:
            self.head.clear()
            self.respond(431, close=True)

    def found_terminator(self):
        if self.ending:
            return
        if self.request is not None:
            request, self.request = self.request, None
            self.set_terminator(b"\r\n\r\n")
            self.answer(request)
            return
        # Empty lines between requests are no request.
        head = b"".join(self.head).lstrip(b"\r\n")
        self.head.clear()
        self.head_size = 0
        if not head:
            return
        try:
            request = Request(head)
        except Refused as refused:
            self.respond(refused.status, close=True)
            return
        if not request.length:
            self.answer(request)
            return
        if request.fields.get("expect", "").lower() == "100-continue" and not request.old:
            self.push(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.request = request
        self.set_terminator(request.length)

    def answer(self, request):
        """Answer a request that is complete."""
        if request.method not in ("GET", "HEAD"):
            status, body = 405, None
        elif request.path in PAGES:
            status, body = 200, PAGES[request.path]
        else:
            status, body = 404, None
        self.respond(status, body, close=request.close, request=request)

    def respond(self, status, body=None, close=False, request=None):
        """Send one answer; without a body of its own it says its status in words."""
        phrase = http.HTTPStatus(status).phrase
        if body is None:
            body = f"{status} {phrase}\n".encode()
        extra = "Allow: GET, HEAD\r\n" if status == 405 else ""
        if close:
            extra += "Connection: close\r\n"
        elif request.old:
            extra += "Connection: keep-alive\r\n"
        head = (
            f"HTTP/1.1 {status} {phrase}\r\nDate: {self.server.date()}\r\n"
            f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        ).encode("ascii")
        self.push(head if request is not None and request.method == "HEAD" else head + body)
        if close:
            self.ending = True
            self.set_terminator(None)
            self.close_when_done()


class HttpServer(asyncore.dispatcher):
    """Accepts clients."""

    def __init__(self, host, port):
        super().__init__()
        self.second = 0
        self.text = ""
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.set_reuse_addr()
        self.bind((host, port))
        self.listen(1024)

    def handle_accepted(self, sock, addr):
        HttpChannel(sock, self)

    def date(self):
        """The time as HTTP writes it, made once a second."""
        now = int(time.time())
        if now != self.second:
            self.second, self.text = now, email.utils.formatdate(now, usegmt=True)
        return self.text


def main():
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Serve a few pages over HTTP/1.1.")
    parser.add_argument("port", nargs="?", type=int, default=0, help="default: any free port")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument(
        "--poll", action="store_true", help="loop(use_poll=True): more than 1024 descriptors"
    )
    options = parser.parse_args()
    server = HttpServer(options.host, options.port)
    host, port = server.socket.getsockname()
    print(f"listening on {host} port {port}", flush=True)
    try:
        asyncore.loop(use_poll=options.poll)
    except KeyboardInterrupt:
        pass
    finally:
        asyncore.close_all()


if __name__ == "__main__":
    main()
