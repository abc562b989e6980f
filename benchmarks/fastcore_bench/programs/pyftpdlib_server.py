"""Servers on pyftpdlib's ioloop: its Acceptor and its kind of async_chat.

The ioloop leaves TCP_NODELAY unset, unless --no-delay is given.
"""

from __future__ import annotations

import argparse
import socket

from pyftpdlib.ioloop import Acceptor, AsyncChat, IOLoop
from serving import BACKLOG, BLOCK, DONE, GREETING, announce, parser, set_no_delay


class Echo(AsyncChat):  # type: ignore[misc]
    """Sends back what comes."""

    def __init__(self, sock: socket.socket, server: Server) -> None:
        super().__init__(sock)
        self.set_terminator(None)
        self.server = server

    def collect_incoming_data(self, data: bytes) -> None:
        self.push(data)

    def handle_close(self) -> None:
        self.close()


class Lines(Echo):
    """Sends back each line; the base of what begins with a line."""

    def __init__(self, sock: socket.socket, server: Server) -> None:
        super().__init__(sock, server)
        self.set_terminator(b"\r\n")
        self.parts: list[bytes] = []

    def collect_incoming_data(self, data: bytes) -> None:
        self.parts.append(data)

    def take_line(self) -> bytes:
        """What was collected."""
        line = b"".join(self.parts)
        self.parts = []
        return line

    def found_terminator(self) -> None:
        self.push(self.take_line() + b"\r\n")


class Greeter(Echo):
    """Greets, and ignores what comes."""

    def __init__(self, sock: socket.socket, server: Server) -> None:
        super().__init__(sock, server)
        self.push(GREETING)

    def collect_incoming_data(self, data: bytes) -> None:
        pass


class Peer(Lines):
    """One of many that get each other's messages."""

    def __init__(self, sock: socket.socket, server: Server) -> None:
        super().__init__(sock, server)
        self.set_terminator(server.size)
        self.push(GREETING)
        server.peers.add(self)

    def found_terminator(self) -> None:
        message = self.take_line()
        self.set_terminator(self.server.size)
        for peer in list(self.server.peers):
            peer.push(message)

    def close(self) -> None:
        self.server.peers.discard(self)
        super().close()


class Pattern:
    """A producer of so many bytes."""

    def __init__(self, size: int) -> None:
        self.left = size

    def more(self) -> bytes:
        """The next piece; empty at the end."""
        data = BLOCK if self.left >= len(BLOCK) else BLOCK[: self.left]
        self.left -= len(data)
        return data


class Download(Lines):
    """Sends as many bytes as a line asks for."""

    def found_terminator(self) -> None:
        self.push_with_producer(Pattern(int(self.take_line())))


class Upload(Lines):
    """Receives as many bytes as a line announces, and says so."""

    receiving = False

    def collect_incoming_data(self, data: bytes) -> None:
        if not self.receiving:
            self.parts.append(data)

    def found_terminator(self) -> None:
        if self.receiving:
            self.push(DONE)
            self.set_terminator(b"\r\n")
        else:
            self.set_terminator(int(self.take_line()))
        self.receiving = not self.receiving


HANDLERS = {
    "echo": Echo,
    "line": Lines,
    "greet": Greeter,
    "broadcast": Peer,
    "download": Download,
    "upload": Upload,
}


class Server(Acceptor):  # type: ignore[misc]
    """The listening socket: makes a handler of each client."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        self.handler = HANDLERS[options.protocol]
        self.size: int = options.size
        self.no_delay: bool = options.no_delay
        self.peers: set[Peer] = set()
        self.bind_af_unspecified(("127.0.0.1", 0))
        self.listen(BACKLOG)

    def handle_accepted(self, sock: socket.socket, addr: object) -> None:
        if self.no_delay:
            set_no_delay(sock)
        self.handler(sock, self)


def main() -> None:
    """Serve until standard input closes."""
    options = parser("Servers on pyftpdlib's ioloop.").parse_args()
    server = Server(options)
    announce(options, server.socket.getsockname()[1])
    IOLoop.instance().loop()


if __name__ == "__main__":
    main()
