"""The pair of sockets through which a wait is ended; used by the kernels of both engines.

Others may close its descriptors (a program that becomes a daemon closes all that there are), and
the numbers then mean files of theirs.  So what each number meant is remembered, and a number that
means something else by now is neither read, nor written, nor closed.  Must not know who waits.
"""

from __future__ import annotations

import _socket
import os
import socket
import stat
from collections.abc import Callable


def file_behind(number: int) -> tuple[int, int, int] | None:
    """Return what tells the open file behind a descriptor from others, None for a closed one."""
    try:
        found = os.fstat(number)
    except (OSError, ValueError, OverflowError):
        return None
    return found.st_dev, found.st_ino, stat.S_IFMT(found.st_mode)


# In one piece: a signal handler may raise between the two sockets of the other one.
_socketpair: Callable[[], tuple[_socket.socket, _socket.socket]]
_socketpair = getattr(_socket, "socketpair", socket.socketpair)

# On Windows sockets are no files: there it is taken for granted that nobody closes them.
_CAN_TELL = os.name != "nt"


class WakeUp:
    """A receiver, which a kernel watches, and a sender."""

    def __init__(self) -> None:
        pair = _socketpair()
        self._receiver, self._sender = pair
        self._receiver.setblocking(False)
        self._sender.setblocking(False)
        self.receiver: int = self._receiver.fileno()
        self.sender: int = self._sender.fileno()
        self._behind = [file_behind(one.fileno()) if _CAN_TELL else None for one in pair]

    def _is_own(self, which: int, number: int) -> bool:
        return not _CAN_TELL or file_behind(number) == self._behind[which]

    def is_whole(self) -> bool:
        """Whether both descriptors are still what was opened."""
        return self._is_own(0, self.receiver) and self._is_own(1, self.sender)

    def send(self) -> None:
        """Make the receiver readable; from any thread or signal handler."""
        if self._is_own(1, self.sender):
            try:
                self._sender.send(b"\0")
            except OSError:
                pass  # just closed: nobody waits; full: it wakes anyway

    def take(self) -> bool:
        """Read what was sent; False: the receiver has become another file."""
        if not self._is_own(0, self.receiver):
            return False
        try:
            while len(self._receiver.recv(4096)) == 4096:
                pass
        except OSError:
            pass
        return True

    def close(self) -> None:
        """Close what is still ours."""
        for which, one in enumerate((self._receiver, self._sender)):
            if one.fileno() >= 0:
                if self._is_own(which, one.fileno()):
                    one.close()
                else:
                    one.detach()
