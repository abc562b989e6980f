"""What the system says of a descriptor, whoever opened it; must not know what it is for."""

from __future__ import annotations

import _socket
import os
import stat
import struct
from typing import Any

_fcntl: Any
_termios: Any
try:
    import fcntl as _fcntl
    import termios as _termios
except ImportError:  # Windows
    _fcntl = _termios = None


def file_behind(number: int) -> tuple[int, int, int] | None:
    """Return what tells the open file behind a descriptor from others, None for a closed one."""
    try:
        found = os.fstat(number)
    except (OSError, ValueError, OverflowError):
        return None
    return found.st_dev, found.st_ino, stat.S_IFMT(found.st_mode)


def count_unread(number: int) -> int:
    """Return how many bytes can be read of a descriptor, 0 where the system cannot tell."""
    if _fcntl is None:
        return 0
    try:
        answer = _fcntl.ioctl(number, _termios.FIONREAD, bytes(4))
    except OSError:
        return 0
    count: int = struct.unpack("i", answer)[0]
    return count


def is_at_end(number: int, sock: Any) -> bool:
    """Whether nothing is left to be read of a connection or a pipe but its end.

    `sock` is the socket object of the descriptor, or None; of a pipe it is known that it can be
    read.
    """
    try:
        if not isinstance(sock, _socket.socket):
            return stat.S_ISFIFO(os.fstat(number).st_mode) and count_unread(number) == 0
        if _socket.socket.gettimeout(sock) != 0 or sock.type != _socket.SOCK_STREAM:
            return False
        return not _socket.socket.recv(sock, 1, _socket.MSG_PEEK)
    except OSError:
        return False
