"""What the system says of a descriptor, whoever opened it; must not know what it is for."""

from __future__ import annotations

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
