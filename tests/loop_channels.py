"""A channel for tests of the loop.  Knows no test."""

from __future__ import annotations

import socket
from typing import Any


def reader(fast: Any, channels: Any) -> tuple[Any, socket.socket]:
    """A channel that notes what it reads and closes at the end, and the socket of its peer."""

    class Reader(fast.asyncore.dispatcher):  # type: ignore[misc]
        # No closure over the map: 3.13 without a GIL never frees the functions of a class.
        def __init__(self, sock: socket.socket, channels: Any) -> None:
            super().__init__(sock, channels)
            self.received = b""

        def writable(self) -> bool:
            return False

        def handle_read(self) -> None:
            self.received += self.recv(100)

        def handle_close(self) -> None:
            self.close()

    near, far = socket.socketpair()
    return Reader(near, channels), far
