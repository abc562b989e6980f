"""Servers on the standard socketserver: a thread or a process for each client.

TCP_NODELAY stays unset, as it is by default there, unless --no-delay is given.  A process of its
own for each client cannot broadcast.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import socketserver
import sys
import threading
from typing import Any

from serving import (
    BACKLOG,
    BLOCK,
    DONE,
    GREETING,
    announce,
    input_is_pipe,
    parser,
    refuse,
    set_no_delay,
)

CHILD_LIFETIME = 600  # seconds after which a forked child ends, whatever its client does


class Handler(socketserver.BaseRequestHandler):
    """One client, by the protocol that the server speaks."""

    server: Any

    def setup(self) -> None:
        if self.server.options.no_delay:
            set_no_delay(self.request)

    def handle(self) -> None:
        try:
            getattr(self, self.server.options.protocol)()
        except OSError:
            pass  # the client has gone

    def echo(self) -> None:
        """Send back what comes."""
        while data := self.request.recv(65536):
            self.request.sendall(data)

    def line(self) -> None:
        """Send back each line."""
        with self.request.makefile("rb") as file:
            while line := file.readline():
                self.request.sendall(line)

    def greet(self) -> None:
        """Greet, and ignore what comes."""
        self.request.sendall(GREETING)
        while self.request.recv(65536):
            pass

    def broadcast(self) -> None:
        """Send each message of one peer to all of them."""
        server = self.server
        with server.lock:  # who was greeted misses no message
            server.peers.add(self.request)
            self.request.sendall(GREETING)
        try:
            with self.request.makefile("rb") as file:
                while message := file.read(server.options.size):
                    with server.lock:  # also keeps messages whole
                        for peer in server.peers:
                            peer.sendall(message)
        finally:
            with server.lock:
                server.peers.discard(self.request)

    def download(self) -> None:
        """Send as many bytes as a line asks for."""
        with self.request.makefile("rb") as file:
            while line := file.readline():
                left = int(line)
                while left:
                    data = BLOCK if left >= len(BLOCK) else BLOCK[:left]
                    left -= len(data)
                    self.request.sendall(data)

    def upload(self) -> None:
        """Receive as many bytes as a line announces, and say so."""
        with self.request.makefile("rb") as file:
            while line := file.readline():
                left = int(line)
                while left:
                    left -= len(file.read1(min(left, 65536)))
                self.request.sendall(DONE)


class Server(socketserver.TCPServer):
    """What both flavours have in common."""

    request_queue_size = BACKLOG
    daemon_threads = True
    block_on_close = False

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.options = options
        self.peers: set[Any] = set()
        self.lock = threading.Lock()
        self.watched = [0] if input_is_pipe() else []

    def service_actions(self) -> None:
        super().service_actions()
        self.end_with_input()

    def end_with_input(self) -> None:
        """End when standard input closes: a thread that watches it would not go well with fork."""
        if self.watched and select.select(self.watched, [], [], 0)[0] and not os.read(0, 4096):
            sys.exit(0)


class ThreadingServer(socketserver.ThreadingMixIn, Server):
    """A thread for each client."""


def forking_server() -> type[Server]:
    """A process for each client; only where there is fork()."""

    class ForkingServer(socketserver.ForkingMixIn, Server):
        max_children = 1 << 20

        def finish_request(self, request: Any, client_address: Any) -> None:
            signal.alarm(CHILD_LIFETIME)
            super().finish_request(request, client_address)

        def service_actions(self) -> None:
            super().service_actions()  # collects children, and does nothing else
            self.end_with_input()

        def server_close(self) -> None:
            super().server_close()
            for child in self.active_children or ():
                os.kill(child, signal.SIGTERM)

    return ForkingServer


def main() -> None:
    """Serve until standard input closes."""
    arguments = parser("Servers on socketserver.")
    arguments.add_argument("--flavour", choices=("threading", "forking"), default="threading")
    options = arguments.parse_args()
    forking = options.flavour == "forking"
    if forking and options.protocol == "broadcast":
        refuse(options, "a process for each client")
    if forking and not hasattr(os, "fork"):
        sys.exit("this system has no fork()")
    with (forking_server() if forking else ThreadingServer)(options) as server:
        announce(options, server.server_address[1], watch=False)
        server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
