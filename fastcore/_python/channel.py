"""What every dispatcher does to its socket: `recv` and `send`, its methods.

The twin of `_c/channel.py`, which reads and writes plain sockets in C.  Knows sockets only: no
loop.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EWOULDBLOCK
from typing import TYPE_CHECKING, Any

from .._codes import DISCONNECTED

if TYPE_CHECKING:
    from typing import Protocol

    from _typeshed import ReadableBuffer

    class Held(Protocol):
        """Output that a channel holds back for a moment."""

        def release(self, channel: Any, /) -> None:
            """Send it, as far as the kernel takes it."""
            ...


# async_chat.push() where that comes to very little: a matter of speed, for C alone.
push_short: Callable[[Any, Any, Callable[[Any], bool], Any], bool | None] | None = None


# What is held back, by the identity of its channel: it goes before what is sent at once.
held_back: dict[int, Held] = {}


def recv(self: Any, buffer_size: int) -> bytes:
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


def send(self: Any, data: ReadableBuffer) -> int:
    """Send what the kernel takes of `data`; return how many bytes (0: none now, or closed).

    A socket that was left blocking takes all of it.
    """
    if held_back and id(self) in held_back:
        held_back[id(self)].release(self)
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
