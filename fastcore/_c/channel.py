"""What every dispatcher does to its socket: `recv` and `send`, its methods.

The twin of `_python/channel.py`.  Not compiled: the interpreter calls a method that is written in
Python for a third of what the same costs from C.  Knows sockets only: no loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._secure import look_for_unread
from .push import held_back as held_back, push_short as push_short
from .sockets import GONE, receive, receive_by_object, transmit

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def recv(self: Any, buffer_size: int) -> bytes:
    """Read at most `buffer_size` bytes; `b""` after the end, when handle_close() has run.

    Raises BlockingIOError where nothing is there, and OSError for what is not a disconnect.
    """
    sock = self.socket
    data = receive(sock, buffer_size)
    if not data:
        if data is None:
            data = receive_by_object(sock, buffer_size)
            if data:
                look_for_unread(self, sock)
                return data
        self.handle_close()
        return b""
    return data


def send(self: Any, data: ReadableBuffer) -> int:
    """Send what the kernel takes of `data`; return how many bytes (0: none now, or closed).

    A socket that was left blocking takes all of it.
    """
    if held_back and id(self) in held_back:
        held_back[id(self)].release(self)
    sent: int = transmit(self.socket, data)
    if sent is GONE:
        self.handle_close()
        return 0
    return sent
