"""What a chat has received and not yet passed on, and how lines are taken off.

Knows bytes and terminators only: no channels, no sockets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class Received:
    """The bytes that were received and not yet passed on, and how they are taken off.

    Lines are taken off by moving an offset, or a burst of them would be copied once for each.
    A piece is first given out and then passed over, so that whoever looks at rest() meanwhile
    sees what the standard library shows.
    """

    __slots__ = (
        "_at",  # what is not yet passed on begins here
        "_begin",  # of the piece that was given out
        "_data",
        "_end",  # of that piece, with its terminator
        "_piece_of",  # the data that these two numbers are about
    )

    def __init__(self, data: Any) -> None:
        self._data = data
        self._at = 0
        self._piece_of: Any = None
        self._begin = self._end = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def rest(self) -> Any:
        """Return all that is there."""
        at = self._at
        return self._data[at:] if at else self._data

    def assign(self, data: Any) -> None:
        """Forget what is there, and have `data` instead."""
        self._data = data
        self._at = 0

    def feed(self, data: Any) -> None:
        """Add what was received."""
        self._data = self.rest() + data if self._at < len(self._data) else data
        self._at = 0

    def size(self) -> int:
        """Return how many bytes are there."""
        return len(self._data) - self._at

    def take(self, size: int) -> Any:
        """Give out the next `size` bytes, or what there is of them."""
        self._piece_of = self._data
        self._begin, self._end = self._at, min(self._at + size, len(self._data))
        return self._data[self._begin : self._end]

    def only_line(self, terminator: Any) -> Any:
        """Give out the line that is all there is, or None where there is more or less."""
        data = self._data
        if self._at or type(data) is not bytes or type(terminator) is not bytes:
            return None
        end = len(data) - len(terminator)
        if not terminator or end < 0 or data.find(terminator) != end:
            return None
        self._piece_of, self._begin, self._end = data, 0, len(data)
        return data[:end]

    def lines(self, terminator: Any) -> Iterator[Any]:
        """Give out line after line, while others change neither this nor what is left."""
        data = self._piece_of = self._data
        size = len(terminator)
        self._end = self._at
        while self._data is data and self._at == self._end:
            found = data.find(terminator, self._at)
            if found < 0:
                return
            self._begin, self._end = self._at, found + size
            yield data[self._begin : found]

    def pass_over(self) -> bool:
        """Take off the piece that was given out; return whether anything is left."""
        if self._data is self._piece_of:
            self._at = self._end
        else:  # changed meanwhile: as much is taken off what is there now
            self._at = min(self._at + self._end - self._begin, len(self._data))
        return self._at < len(self._data)
