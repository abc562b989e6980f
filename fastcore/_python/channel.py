"""What every dispatcher does to its socket: `recv` and `send`, its methods.

The twin of `_c/channel.py`, which reads and writes plain sockets in C.  Knows sockets only: no
loop.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from errno import EWOULDBLOCK
from typing import TYPE_CHECKING, Any

from .._codes import DISCONNECTED
from .._secure import is_wait, look_for_unread

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


_SOCKET = socket.socket


def recv(self: Any, buffer_size: int) -> bytes:
    """Read at most `buffer_size` bytes; `b""` after the end, when handle_close() has run.

    Raises BlockingIOError where nothing is there, and OSError for what is not a disconnect.
    """
    sock = self.socket
    try:
        data: bytes = sock.recv(buffer_size)
    except OSError as error:
        if error.errno not in DISCONNECTED:
            raise
        data = b""
    if not data:
        self.handle_close()
        return b""
    if type(sock) is not _SOCKET:
        look_for_unread(self, sock)
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
    except Exception as error:
        if not isinstance(error, OSError):
            if is_wait(error):
                return 0
            raise
        if error.errno == EWOULDBLOCK or is_wait(error):
            return 0
        if error.errno not in DISCONNECTED:
            raise
    self.handle_close()
    return 0
