"""What every dispatcher inherits: reading and writing its socket.

The twin of `_python/channel.py`.  Not compiled: the interpreter calls a method that is written in
Python for a third of what the same costs from C.  Knows sockets only: no loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .push import push_short as push_short
from .sockets import GONE, receive, transmit

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Channel:
    """The part of a dispatcher that must be fast."""

    socket: Any

    def recv(self, buffer_size: int) -> bytes:
        """Read at most `buffer_size` bytes; `b""` after the end, when handle_close() has run.

        Raises BlockingIOError where nothing is there, and OSError for what is not a disconnect.
        """
        data: bytes = receive(self.socket, buffer_size)
        if not data:
            self.handle_close()
            return b""
        return data

    def send(self, data: ReadableBuffer) -> int:
        """Send what the kernel takes of `data`; return how many bytes (0: none now, or closed)."""
        sent: int = transmit(self.socket, data)
        if sent is GONE:
            self.handle_close()
            return 0
        return sent

    # Defined by the dispatcher.
    handle_close: Callable[[], Any]
