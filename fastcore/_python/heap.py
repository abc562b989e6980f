"""What has a time, first things first.

The twin of `_c/heap.pyx`, which does the same in a third of the time of heapq.  Each operation is
done in one piece: a signal handler, which may use the heap itself or raise, comes before or after
it and finds nothing half done.  Knows times; must not know what is to happen then.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Generic, TypeVar


class Timed:
    """What has a time in seconds, and a number by which those of one time are in order."""

    __slots__ = ("_number", "_time")

    _time: float
    _number: int


_Timed = TypeVar("_Timed", bound=Timed)


class Heap(Generic[_Timed]):
    """Holds what has a time."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, _Timed]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def push(self, one: _Timed) -> None:
        """Put one in; its time and number must not change while it is there."""
        heappush(self._entries, (one._time, one._number, one))

    def first(self) -> _Timed | None:
        """Return the one whose time comes first; None where there is none."""
        try:
            return self._entries[0][2]
        except IndexError:
            return None

    def pop(self) -> _Timed | None:
        """Take that one out."""
        try:
            return heappop(self._entries)[2]
        except IndexError:
            return None

    def all(self) -> list[_Timed]:
        """Return all, in no order."""
        return [entry[2] for entry in list(self._entries)]
