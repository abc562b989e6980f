"""What every dispatcher inherits: reading and writing its socket.

The twin of `_c/channel.py`, which reads and writes plain sockets in C.  Knows sockets only: no
loop.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EWOULDBLOCK
from typing import TYPE_CHECKING, Any

from .._codes import DISCONNECTED

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# async_chat.push() where that comes to very little: a matter of speed, for C alone.
push_short: Callable[[Any, Any], bool] | None = None


class Channel:
    """The part of a dispatcher that must be fast."""

    socket: Any

    def recv(self, buffer_size: int) -> bytes:
        """Read at most `buffer_size` bytes; `b""` after the end, when handle_close() has run.

        Raises BlockingIOError where nothing is there, and OSError for what is not a disconnect.
        """
        try:
            data: bytes = self.socket.recv(buffer_size)
        except OSError as error:
            if error.errno not in DISCONNECTED:
                raise
            data = b""
        if not data:
            self.handle_close()
            return b""
        return data

    def send(self, data: ReadableBuffer) -> int:
        """Send what the kernel takes of `data`; return how many bytes (0: none now, or closed)."""
        try:
            sent: int = self.socket.send(data)
            return sent
        except OSError as error:
            if error.errno == EWOULDBLOCK:
                return 0
            if error.errno not in DISCONNECTED:
                raise
        self.handle_close()
        return 0

    # Defined by the dispatcher.
    handle_close: Callable[[], Any]
