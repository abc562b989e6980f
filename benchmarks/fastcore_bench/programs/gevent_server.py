"""Servers on gevent's StreamServer: a greenlet for each client, with blocking calls.

gevent leaves TCP_NODELAY unset, unless --no-delay is given.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from gevent.server import StreamServer
from serving import BACKLOG, BLOCK, DONE, GREETING, announce, parser, set_no_delay

Service = Callable[[Any], None]


def echo(sock: Any) -> None:
    """Send back what comes."""
    while data := sock.recv(65536):
        sock.sendall(data)


def lines(sock: Any) -> None:
    """Send back each line."""
    with sock.makefile("rb") as file:
        while line := file.readline():
            sock.sendall(line)


def greet(sock: Any) -> None:
    """Greet, and ignore what comes."""
    sock.sendall(GREETING)
    while sock.recv(65536):
        pass


class Room:
    """All peers of a broadcast."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.sockets: set[Any] = set()

    def peer(self, sock: Any) -> None:
        """Send each message of one peer to all of them."""
        self.sockets.add(sock)  # who was greeted misses no message
        sock.sendall(GREETING)
        try:
            with sock.makefile("rb") as file:
                while message := file.read(self.size):
                    for each in list(self.sockets):
                        each.sendall(message)
        finally:
            self.sockets.discard(sock)


def download(sock: Any) -> None:
    """Send as many bytes as a line asks for."""
    with sock.makefile("rb") as file:
        while line := file.readline():
            left = int(line)
            while left:
                data = BLOCK if left >= len(BLOCK) else BLOCK[:left]
                left -= len(data)
                sock.sendall(data)


def upload(sock: Any) -> None:
    """Receive as many bytes as a line announces, and say so."""
    with sock.makefile("rb") as file:
        while line := file.readline():
            left = int(line)
            while left:
                left -= len(file.read1(min(left, 65536)))
            sock.sendall(DONE)


def service_of(options: argparse.Namespace) -> Service:
    """What to do with a client; one that goes away is no error."""
    services: dict[str, Service] = {
        "echo": echo,
        "line": lines,
        "greet": greet,
        "broadcast": Room(options.size).peer,
        "download": download,
        "upload": upload,
    }
    service = services[options.protocol]

    def serve(sock: Any) -> None:
        if options.no_delay:
            set_no_delay(sock)
        try:
            service(sock)
        except OSError:
            pass

    return serve


def main() -> None:
    """Serve until standard input closes."""
    options = parser("Servers on gevent.").parse_args()
    service = service_of(options)
    server = StreamServer(("127.0.0.1", 0), lambda sock, address: service(sock), backlog=BACKLOG)
    server.start()
    announce(options, server.server_port)
    server.serve_forever()


if __name__ == "__main__":
    main()
