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
    """A callback that was asked for: `cancel()` forgets it, `when` is its loop time in seconds.

    `when` is None for a callback that runs as soon as possible.
    """

    __slots__ = (
        "args",
        "callback",
        "cancelled",
        "interval",
        "number",
        "scheduled",
        "time",
        "timers",
    )

    def __init__(
        self,
        timers: Timers,
        time: float,
        interval: float,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> None:
        self.timers: Timers = timers
        self.time: float = time
        self.interval: float = interval  # 0: it runs once
        self.callback: Callable[..., Any] | None = callback
        self.args: tuple[Any, ...] = args
        self.cancelled: bool = False
        self.scheduled: bool = False  # it stands in the heap
        self.number: int = 0  # timers of one moment run in the order in which they were asked for

    @property
    def when(self) -> float | None:
        """The loop time at which it runs, in seconds."""
        return None if self.time == SOON else self.time

    def cancel(self) -> None:
        """Forget the callback; does nothing where it has run or was cancelled before."""
        if self.cancelled or self.callback is None:
            return
        self.cancelled = True
        self.timers.guard.do(self.timers.forget, self)

    def __repr__(self) -> str:
        # Not the callback: the loop's thread may be letting go of it.
        state = "cancelled" if self.cancelled else "done" if self.callback is None else "pending"
        return f"<Handle when={self.when} {state}>"


# A heap of our own: typed, it costs the engine in C a third of heapq.  Two entries change places in
# one piece, so that an exception out of a signal handler loses none.


def _rise(heap: list[Handle], position: int) -> None:
    """Bring an entry before those that come after it, up to the first."""
    handle = heap[position]
    while position > 0:
        parent = (position - 1) >> 1
        other = heap[parent]
        if other.time < handle.time or (other.time == handle.time and other.number < handle.number):
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
            if other.time < first.time or (
                other.time == first.time and other.number < first.number
            ):
                first = other
                child += 1
        if handle.time < first.time or (handle.time == first.time and handle.number < first.number):
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
        handle.number = self._count
        handle.scheduled = True
        self.heap.append(handle)
        _rise(self.heap, len(self.heap) - 1)
        if handle.time < self.next_due:
            self.next_due = handle.time

    def forget(self, handle: Handle) -> None:
        """Let go of what a cancelled one would have called."""
        handle.callback = None
        handle.args = ()
        if not handle.scheduled:
            return
        self.cancelled += 1
        if self.cancelled > _CANCELLED_KEPT and 2 * self.cancelled > len(self.heap):
            self._drop_cancelled()

    def _drop_cancelled(self) -> None:
        kept: list[Handle] = []
        for handle in self.heap:
            if handle.callback is not None:
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
            if handle.callback is not None:
                self.next_due = handle.time
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
        first.scheduled = False
        return first

    def collect_due(self) -> None:
        """Make those ready whose time has come."""
        now = monotonic()
        while self.first_due() <= now:
            self.ready.append(self._remove_first())

    def schedule_next_beat(self, handle: Handle) -> None:
        """Have it called again; beats that were missed are left out."""
        now = monotonic()
        handle.time += handle.interval
        if handle.time <= now:
            handle.time = now + handle.interval - (now - handle.time) % handle.interval
        self.schedule(handle)

    def count(self) -> int:
        """Return how many timers there are."""
        return len(self.heap) - self.cancelled

    def clear(self) -> None:
        """Forget them all."""
        for handle in self.heap:
            handle.scheduled = False
        self.heap.clear()
        self.ready.clear()
        self.cancelled = 0
        self.next_due = inf
