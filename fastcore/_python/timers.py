"""Timers and callbacks: what is to be called, and when.

Knows the clock and the door of the loop; calling, and what exceptions mean, is the engine's
business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any

from .heap import Heap, Timed
from .inbox import Guard
from .kernel import monotonic

SOON = -inf  # the time of a callback that runs as soon as possible

# Cancelled timers stay in the heap until their time, or until they are this many and most of it.
_CANCELLED_KEPT = 64


class Handle(Timed):
    """A callback that was asked for, now or at a time; what a loop's call_...() methods return."""

    __slots__ = (
        "_args",
        "_callback",
        "_cancelled",
        "_interval",
        "_scheduled",
        "_timers",
    )

    def __init__(
        self,
        timers: Timers,
        time: float,
        interval: float,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> None:
        self._timers: Timers = timers
        self._time = time
        self._interval: float = interval  # 0: it runs once
        self._callback: Callable[..., Any] | None = callback
        self._args: tuple[Any, ...] = args
        self._cancelled: bool = False
        self._scheduled: bool = False  # it stands in the heap
        self._number = 0  # timers of one moment run in the order in which they were set

    def when(self) -> float | None:
        """Return the loop time at which it runs, in seconds; None is as soon as possible."""
        return None if self._time == SOON else self._time

    def cancelled(self) -> bool:
        """Return whether it was cancelled before it had run."""
        return self._cancelled

    def cancel(self) -> None:
        """Forget the callback; does nothing where it has run or was cancelled before."""
        if self._cancelled or self._callback is None:
            return
        self._cancelled = True
        self._timers.guard.do(self._timers.forget, self)

    def __repr__(self) -> str:
        # Not the callback: the loop's thread may be letting go of it.
        state = "cancelled" if self._cancelled else "done" if self._callback is None else "pending"
        return f"<Handle when={self.when()} {state}>"


class Timers:
    """The timers of a loop, and what is ready to be called.

    Of a handle it counts whether it still has its callback: another thread may have cancelled it
    while its word is in the inbox, and a signal handler may do so at any moment.  `idle()` is
    called when the last one was cancelled while nobody drives the loop.
    """

    def __init__(self, guard: Guard, idle: Callable[[], None]) -> None:
        self.guard: Guard = guard
        self.ready: deque[Handle] = deque()
        self.next_due: float = inf  # the time of the first timer, perhaps a cancelled one
        self._heap: Heap[Handle] = Heap()
        self._idle = idle
        self._cancelled = 0  # about how many of those in the heap
        self._count = 0  # how often one was put into it

    def schedule(self, handle: Handle) -> None:
        """Have it called at its time."""
        self._count += 1
        handle._number = self._count
        handle._scheduled = True
        self._put(handle)

    def _put(self, handle: Handle) -> None:
        self._heap.push(handle)
        if handle._time < self.next_due:
            self.next_due = handle._time

    def forget(self, handle: Handle) -> None:
        """Let go of what a cancelled one would have called."""
        handle._callback = None
        handle._args = ()
        if handle._scheduled:
            self._cancelled += 1
            if self._cancelled > _CANCELLED_KEPT and 2 * self._cancelled > len(self._heap):
                self._drop_cancelled()
        if not self.guard.drivers:
            self.first_due()  # or has_any() would go through the cancelled ones again each time
            if not self.has_any():
                self._idle()

    def _drop_cancelled(self) -> None:
        count = self._count
        kept: Heap[Handle] = Heap()
        for handle in self._heap.all():
            if handle._callback is not None:
                kept.push(handle)
        self._cancelled = 0
        if count == self._count:  # else a signal handler has set one: the next time
            self._heap = kept

    def first_due(self) -> float:
        """Return the time of the first timer that is not cancelled, inf where there is none."""
        self.next_due = inf
        handle = self._heap.first()
        while handle is not None and handle._callback is None:
            self._take(handle)
            self._cancelled -= 1
            handle = self._heap.first()
        if handle is not None:
            self.next_due = handle._time
        return self.next_due

    def _take(self, first: Handle) -> bool:
        """Take the first one out of the heap, if it is that; a signal handler may have done so."""
        handle = self._heap.pop()
        if handle is first:
            first._scheduled = False
            return True
        if handle is not None:
            self._put(handle)
        return False

    def collect_due(self) -> None:
        """Make those ready whose time has come."""
        now = monotonic()
        while self.first_due() <= now:
            handle = self._heap.first()
            if handle is not None and handle._time <= now and self._take(handle):
                self.ready.append(handle)

    def schedule_next_beat(self, handle: Handle) -> None:
        """Have it called again; beats that were missed are left out."""
        now = monotonic()
        handle._time += handle._interval
        if handle._time <= now:
            handle._time = now + handle._interval - (now - handle._time) % handle._interval
        self.schedule(handle)

    def has_any(self) -> bool:
        """Whether anything is still to be called."""
        handle = self._heap.first()
        if handle is not None and handle._callback is not None:
            return True
        try:
            ready = list(self.ready)
        except RuntimeError:
            return True  # another thread adds to it at this moment, where there is no GIL
        found = False
        for handle in self._heap.all() + ready:
            if handle._callback is not None:
                found = True
                break
        return found

    def count(self) -> int:
        """Return how many timers there are."""
        found = 0
        for handle in self._heap.all():
            if handle._callback is not None:
                found += 1
        return found

    def clear(self) -> None:
        """Forget them all."""
        for handle in self._heap.all():
            handle._scheduled = False
        self._heap = Heap()
        self.ready.clear()
        self._cancelled = 0
        self.next_due = inf
