"""The seam between the engine and the system: what is ready, what time it is, which thread this is.

The twin of `_c/kernel.pyx`, which says the same over the pollers in C; one test holds both.  Knows
descriptors and the interest in them; must not know channels, maps or why anybody waits.
"""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Iterable, Sequence
from math import inf
from threading import get_ident as get_ident  # for those who import it from here
from typing import TypeVar

from .. import _codes
from .._originals import monotonic as monotonic, sleep
from .._wakeup import WakeUp
from . import pollers as _pollers
from .pollers import LARGEST as LARGEST

name = "python"
build_info: dict[str, str] = {}

READ, URGENT, INVALID, MUTED = _codes.READ, _codes.URGENT, _codes.INVALID, _codes.MUTED

# How long a wait rests, in seconds, that the system has no memory for.
PAUSE = 0.01

# What a wait takes to hear of signals is more than a short one is worth: so many seconds are waited
# before.  A signal that comes in these is handled, but ends nothing.
DEAF = 0.02

# The number that tells one object from all others while it lives.
identity = id


def pollers() -> tuple[str, ...]:
    """Return the names of the pollers this platform has, best first."""
    return tuple(_pollers.kinds)


class Watched:
    """A descriptor and the interest in it; what a kernel is told of, and what it reports.

    `want` is the interest asked for, `registered` what the kernel's set holds, `fired` what the
    last wait found: masks of _codes.py.  Extended by those who watch.
    """

    __slots__ = ("fd", "fired", "registered", "want")

    fd: int
    want: int
    registered: int
    fired: int


_Watched = TypeVar("_Watched", bound=Watched)


class Kernel:
    """A set of watched descriptors, and the wait for what happens to them.

    It opens what it needs of the system when it is first used, and opens it anew where that is
    called for: after close(), after a fork, and when a file that is no longer watched goes on
    firing.  One thread at a time may use it, but for wake().
    """

    # Whether wake() or a signal ended the last wait.
    woken: bool = False

    def __init__(self, poller: str) -> None:
        if poller not in _pollers.kinds:
            raise ValueError(f"no poller {poller!r} here; there are: {', '.join(pollers())}")
        self.changes: int = 0  # how often the kernel's set was changed
        self.sets: int = 0  # how many were opened
        self._kind = _pollers.kinds[poller]
        self._poller: _pollers.Poller | None = None
        self._wakeup: WakeUp | None = None  # while open
        self._close_wakeup: weakref.finalize[[], Kernel] | None = None
        self._wake_pending = False
        self._watched: dict[int, Watched] = {}
        self._lost: list[Watched] = []  # found closed while the set was made anew
        self._fired: list[Watched] = []  # what the last wait returned
        self._muted: set[Watched] = set()  # their urgent data is not reported
        self._waits = False

    def set(self, watched: Watched, interest: int) -> None:
        """Tell the kernel of the interest in a descriptor (READ, WRITE; 0 is none).

        Raises OSError where the kernel refuses it, which is then not watched at all: EBADF for a
        closed descriptor, ERANGE for one that the poller cannot hold.
        """
        if interest and self._poller is None:
            self.open()
        fd, old = watched.fd, watched.registered
        self.changes += 1
        if self._muted:
            self._muted.discard(watched)
        watched.registered = 0
        if not interest:
            self._forget(watched)
            if self._poller is not None:
                try:
                    self._poller.set(fd, old, 0)
                except OSError:
                    pass  # it is closed: the kernel has forgotten it
            return
        try:
            if fd < 0:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            try:
                self._opened().set(fd, old, interest)
            except OSError:
                if self.is_whole():
                    raise
                self._forget(watched)
                self._renew()  # it was our own descriptor that is closed
                self._opened().set(fd, 0, interest)
        except BaseException:
            self._forget(watched)
            if old:  # what was asked for before may still hold
                watched.registered = old
                self.set(watched, 0)
            raise
        watched.registered = interest
        self._watched[fd] = watched

    def look(self, watched: Watched) -> None:
        """See to it that what is watched is the file that the number means by now.

        Raises OSError as set() does: EBADF where it is closed.
        """
        interest = watched.registered
        if not interest or self._poller is None:
            return
        muted = MUTED if watched in self._muted else 0
        if not self._poller.look(watched.fd, interest | muted):
            self.set(watched, 0)
            self.set(watched, interest)

    def _forget(self, watched: Watched) -> None:
        if self._watched.get(watched.fd) is watched:
            del self._watched[watched.fd]

    def wait(self, seconds: float) -> list[Watched]:
        """Wait at most that long for something to happen; return what did, with its `fired`."""
        poller = self._poller
        if poller is None:
            poller = self._opened()
        self.woken = False
        fired: list[Watched] = []
        self._fired = fired
        changes = self.changes
        outer = self._waits
        try:
            self._waits = True
            if self._wake_pending:
                events = poller.wait(0.0)
            else:
                events = poller.wait(min(seconds, DEAF))
                if not events and seconds > DEAF:
                    events = self._wait_hearing(poller, seconds - DEAF)
        except OSError as error:
            events = self._after_failure(error, seconds)
        finally:
            self._waits = outer
        # Where a signal handler has changed the set within the wait, a number may have another
        # owner by now: nothing is taken, and what still holds is reported again.
        if changes == self.changes:
            watched = self._watched
            for fd, mask in events:
                try:
                    one = watched[fd]
                except KeyError:
                    self._take_own(fd, mask)
                    continue
                one.fired = mask
                fired.append(one)
        if fired is not self._fired:
            fired.clear()  # it has waited, and met them
        if self._muted:
            self._unmute(fired)
        if self._lost:
            fired += self._lost
            self._lost.clear()
        if self._wake_pending:
            self._take_wakeups()
        return fired

    def _wait_hearing(self, poller: _pollers.Poller, seconds: float) -> list[tuple[int, int]]:
        """Wait until a signal comes, too, be it just before."""
        wakeup = self._wakeup
        assert wakeup is not None
        # Twice, as all that a signal handler's exception may cut short.
        try:
            try:
                wakeup.hear_signals()
                return poller.wait(None if seconds == inf else seconds)
            finally:
                wakeup.ignore_signals()
        finally:
            wakeup.ignore_signals()

    def _after_failure(self, error: OSError, seconds: float) -> list[tuple[int, int]]:
        """Go on after a wait that failed: with a new set, or a moment later; else raise it."""
        if not self.is_whole():
            self._renew()
        elif error.errno in _codes.SHORT_FOR_NOW:
            sleep(min(seconds, PAUSE))
        else:
            raise error
        return []

    def is_whole(self) -> bool:
        """Whether the descriptors that it has opened are still its own: others may close them."""
        poller, wakeup = self._poller, self._wakeup
        if wakeup is not None and not wakeup.is_whole():
            return False
        if poller is None:
            return True
        # One set looks like another, but only its own holds the receiver.
        return poller.is_own() and (wakeup is None or poller.look(wakeup.receiver, READ))

    def look_at_own(self) -> None:
        """Open anew what others have closed of the kernel's own descriptors."""
        if not self.is_whole():
            self._renew()

    def _renew(self) -> None:
        self._give_back()
        self.open()

    def begin_nested(self) -> None:
        """Take back what the last wait found: a loop within that one meets it, perhaps."""
        self._fired.clear()

    def end_nested(self) -> None:
        """End the wait in which a signal handler has run a loop: that may have set things going."""
        if self._waits:
            self.wake()

    def ready_now(self, asked: Sequence[_Watched]) -> list[_Watched]:
        """Return those to which what they want can happen at once, with its `fired`."""
        try:
            answers = _pollers.query_now({one.fd: one.want for one in asked})
        except OSError:
            return []  # none is ready now: they are watched instead
        ready: list[_Watched] = []
        for one in asked:
            mask = answers.get(one.fd, 0)
            if mask:
                one.fired = mask
                ready.append(one)
        return ready

    def readiness(self, fd: int) -> int:
        """Return what can be read of a descriptor now, and its errors, as a mask; 0: unknown."""
        try:
            return _pollers.query_now({fd: READ}).get(fd, 0)
        except OSError:
            return 0  # EINTR, ENOMEM: that says nothing of the descriptor

    def mute(self, watched: Watched) -> None:
        """Report urgent data that nobody reads no more, until there is something to read, too."""
        registered = watched.registered
        if self._poller is not None and registered and self.readiness(watched.fd) & URGENT:
            self._muted.add(watched)
            self._poller.set(watched.fd, registered, registered | MUTED)

    def _unmute(self, fired: Iterable[Watched]) -> None:
        for one in self._muted.intersection(fired):
            if one.fired & READ and self._poller is not None:
                self._muted.discard(one)
                self._poller.set(one.fd, one.registered, one.registered)

    def wake(self) -> None:
        """End a wait, or the next one; from any thread or signal handler."""
        if self._wake_pending:
            return
        self._wake_pending = True
        wakeup = self._wakeup
        if wakeup is not None:  # else nobody waits
            wakeup.send()

    def is_woken(self) -> bool:
        """Whether the next wait will end at once, because of wake()."""
        return self._wake_pending

    def wake_fileno(self) -> int:
        """Return the descriptor to which a byte is written that ends a wait, as signals do."""
        self.open()
        assert self._wakeup is not None
        return self._wakeup.sender

    def fileno(self) -> int:
        """Return the descriptor of the kernel's set, or -1 where the poller has none."""
        return self._opened().fileno()

    def is_open(self) -> bool:
        """Whether all that a wait needs is there."""
        return self._poller is not None and self._wakeup is not None

    def open(self) -> None:
        """Have all that a wait needs; does nothing where it is there."""
        wakeup = self._wakeup
        if wakeup is None:
            wakeup = self._open_wakeup()
        if self._poller is not None:
            return
        poller = self._kind()
        try:
            try:
                poller.set(wakeup.receiver, 0, READ)
            except OSError as error:
                if error.errno != errno.ERANGE:
                    raise
                poller = _pollers.SelectInSlices(wakeup.receiver)
            own = (poller.fileno(), wakeup.receiver, wakeup.sender)
            self._muted.clear()
            for one in list(self._watched.values()):
                self._watch_again(poller, one, one.fd in own)
        except BaseException:
            poller.close()
            raise
        self._poller = poller
        self.sets += 1

    def _opened(self) -> _pollers.Poller:
        self.open()
        assert self._poller is not None
        return self._poller

    def _open_wakeup(self) -> WakeUp:
        wakeup = WakeUp()
        # In a cycle that is collected the sockets may be finalised before this object, and would
        # complain of not being closed.
        self._close_wakeup = weakref.finalize(self, wakeup.close)
        self._close_wakeup.atexit = False
        self._wakeup = wakeup
        if self._wake_pending:
            wakeup.send()  # asked for while nothing was open
        return wakeup

    def _watch_again(self, poller: _pollers.Poller, one: Watched, lost: bool) -> None:
        """Put it into a new set; `lost`: it was closed, and its number given to us."""
        try:
            if lost:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            poller.set(one.fd, 0, one.registered)
        except OSError as error:
            # What was refused for another reason is asked again, and told why.
            del self._watched[one.fd]
            one.registered = 0
            one.fired = INVALID if error.errno == errno.EBADF else 0
            self._lost.append(one)

    def close(self) -> None:
        """Give all back to the system and forget who was watched; may be used again."""
        self._give_back()
        for one in self._watched.values():
            one.registered = 0
        self._watched.clear()
        self._muted.clear()
        self._lost.clear()

    def after_fork(self) -> None:
        """In a child: leave the parent's set and wake-ups alone; what is watched stays watched."""
        self._give_back()
        self._wake_pending = False

    def _give_back(self) -> None:
        if self._poller is not None:
            poller, self._poller = self._poller, None
            poller.close()
        if self._wakeup is not None:
            self._wakeup = None
            assert self._close_wakeup is not None
            self._close_wakeup()

    def _take_own(self, fd: int, mask: int) -> None:
        """Take an event that is of no watched descriptor."""
        if fd < 0:
            # A file that is no longer watched goes on firing: only a new set is rid of it.
            assert self._poller is not None
            poller, self._poller = self._poller, None
            poller.close()
            self.open()
        elif self._wakeup is not None and fd == self._wakeup.receiver:
            self._take_wakeups()
        elif mask & INVALID and self._poller is not None:
            # Closed while it was told to the kernel: left there it would be reported for ever.
            self._poller.set(fd, READ, 0)

    def _take_wakeups(self) -> None:
        if self._wakeup is not None and not self._wakeup.take():
            self._renew()
        self._wake_pending = False
        self.woken = True
