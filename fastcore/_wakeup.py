"""The pair of sockets through which a wait is ended; used by the kernels of both engines.

Others may close its descriptors (a program that becomes a daemon closes all that there are), and
the numbers then mean files of theirs.  So what each number meant is remembered, and a number that
means something else by now is neither read, nor written, nor closed.

A long wait is ended by signals, too, also by one that comes just before it: for so long, and no
longer, `signal.set_wakeup_fd()` is ours, unless the program has set it.  Must not know who waits.
"""

from __future__ import annotations

import _socket
import os
import signal
import socket
import threading
from collections.abc import Callable
from functools import partial

from ._descriptors import file_behind

# In one piece: a signal handler may raise between the two sockets of the other one.
_socketpair: Callable[[], tuple[_socket.socket, _socket.socket]]
_socketpair = getattr(_socket, "socketpair", socket.socketpair)

_write_signals_to = partial(signal.set_wakeup_fd, warn_on_full_buffer=False)


def _write_signals_nowhere() -> None:
    try:
        signal.set_wakeup_fd(-1)
    except ValueError:
        pass  # that is for the main thread


# The senders of all that are open: a loop may run within another one's wait.
_senders: set[int] = set()

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
        self._displaced: list[int] = []  # where signals were written before they came here
        self._left_alone = False  # the program has them written elsewhere
        _senders.add(self.sender)

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

    def hear_signals(self) -> None:
        """Have signals written here until ignore_signals(); not where the program has its own."""
        if self._left_alone or threading.get_ident() != threading.main_thread().ident:
            return
        displaced = self._displaced
        try:
            # In one step: whatever a signal handler raises, what was there before is known.
            displaced.extend(map(_write_signals_to, (self.sender,)))
        except ValueError:  # the main thread of a sub-interpreter
            return
        if displaced[0] != -1 and displaced[0] not in _senders:
            self._left_alone = True  # asyncio, for one, would miss its signals
            self.ignore_signals()

    def ignore_signals(self) -> None:
        """Have signals written where they were before, or where a handler wants them since.

        Does nothing where they are not written here, and may be called again where an exception
        has cut it short.
        """
        displaced = self._displaced
        if not displaced:
            return
        try:
            if len(displaced) == 1:
                displaced.extend(map(signal.set_wakeup_fd, displaced[:1]))
            if displaced[1] != self.sender:
                signal.set_wakeup_fd(displaced[1])
        except (OSError, ValueError):  # what they were written to has been closed
            _write_signals_nowhere()
        displaced.clear()

    def close(self) -> None:
        """Close what is still ours."""
        self.ignore_signals()
        _senders.discard(self.sender)
        for which, one in enumerate((self._receiver, self._sender)):
            if one.fileno() >= 0:
                if self._is_own(which, one.fileno()):
                    one.close()
                else:
                    one.detach()
