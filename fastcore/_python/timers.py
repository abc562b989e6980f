"""Timers and callbacks: what is to be called, and when.

Knows the clock and the door of the loop; calling, and what exceptions mean, is the engine's
business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any

from .inbox import Guard
from .kernel import monotonic

SOON = -inf  # the time of a callback that runs as soon as possible

# Cancelled timers stay in the heap until their time, or until they are this many and most of it.
_CANCELLED_KEPT = 64


class Handle:
    """A callback that was asked for, now or at a time; what a loop's call_...() methods return."""

    __slots__ = (
        "_args",
        "_callback",
        "_cancelled",
        "_interval",
        "_number",
        "_scheduled",
        "_time",
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
        self._time: float = time
        self._interval: float = interval  # 0: it runs once
        self._callback: Callable[..., Any] | None = callback
        self._args: tuple[Any, ...] = args
        self._cancelled: bool = False
        self._scheduled: bool = False  # it stands in the heap
        self._number: int = 0  # timers of one moment run in the order in which they were asked for

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


# A heap of our own: typed, it costs the engine in C a third of heapq.  Two entries change places in
# one piece, so that an exception out of a signal handler loses none.


def _rise(heap: list[Handle], position: int) -> None:
    """Bring an entry before those that come after it, up to the first."""
    handle = heap[position]
    while position > 0:
        parent = (position - 1) >> 1
        other = heap[parent]
        if other._time < handle._time or (
            other._time == handle._time and other._number < handle._number
        ):
            return
        heap[position], heap[parent] = other, handle
        position = parent


def _sink(heap: list[Handle], position: int) -> None:
    """Bring an entry behind those that come before it, down to the last."""
    handle = heap[position]
    size = len(heap)
    child = 2 * position + 1
    while child < size:
        first = heap[child]
        if child + 1 < size:
            other = heap[child + 1]
            if other._time < first._time or (
                other._time == first._time and other._number < first._number
            ):
                first = other
                child += 1
        if handle._time < first._time or (
            handle._time == first._time and handle._number < first._number
        ):
            return
        heap[position], heap[child] = first, handle
        position = child
        child = 2 * position + 1


class Timers:
    """The timers of a loop, and what is ready to be called."""

    def __init__(self, guard: Guard) -> None:
        self.guard: Guard = guard
        self.heap: list[Handle] = []
        self.ready: deque[Handle] = deque()
        self.cancelled: int = 0  # of those in the heap
        self.next_due: float = inf  # the time of the first timer, perhaps a cancelled one
        self._count = 0

    def schedule(self, handle: Handle) -> None:
        """Have it called at its time."""
        self._count += 1
        handle._number = self._count
        handle._scheduled = True
        self.heap.append(handle)
        _rise(self.heap, len(self.heap) - 1)
        if handle._time < self.next_due:
            self.next_due = handle._time

    def forget(self, handle: Handle) -> None:
        """Let go of what a cancelled one would have called."""
        handle._callback = None
        handle._args = ()
        if not handle._scheduled:
            return
        self.cancelled += 1
        if self.cancelled > _CANCELLED_KEPT and 2 * self.cancelled > len(self.heap):
            self._drop_cancelled()

    def _drop_cancelled(self) -> None:
        kept: list[Handle] = []
        for handle in self.heap:
            if handle._callback is not None:
                kept.append(handle)
        self.heap[:] = kept
        for position in range(len(kept) // 2 - 1, -1, -1):
            _sink(self.heap, position)
        self.cancelled = 0

    def first_due(self) -> float:
        """Return the time of the first timer that is not cancelled, inf where there is none."""
        # Not by `cancelled`: another thread may have said so and its word still be in the inbox.
        self.next_due = inf
        while self.heap:
            handle = self.heap[0]
            if handle._callback is not None:
                self.next_due = handle._time
                break
            self._remove_first()
            self.cancelled -= 1
        return self.next_due

    def _remove_first(self) -> Handle:
        last = self.heap.pop()
        first = last
        if self.heap:
            first = self.heap[0]
            self.heap[0] = last
            _sink(self.heap, 0)
        first._scheduled = False
        return first

    def collect_due(self) -> None:
        """Make those ready whose time has come."""
        now = monotonic()
        while self.first_due() <= now:
            self.ready.append(self._remove_first())

    def schedule_next_beat(self, handle: Handle) -> None:
        """Have it called again; beats that were missed are left out."""
        now = monotonic()
        handle._time += handle._interval
        if handle._time <= now:
            handle._time = now + handle._interval - (now - handle._time) % handle._interval
        self.schedule(handle)

    def count(self) -> int:
        """Return how many timers there are."""
        return len(self.heap) - self.cancelled

    def clear(self) -> None:
        """Forget them all."""
        for handle in self.heap:
            handle._scheduled = False
        self.heap.clear()
        self.ready.clear()
        self.cancelled = 0
        self.next_due = inf
