"""What a chat has received and not yet passed on.

The reference of `src/chat.pyx`, which mirrors it name by name and in the same order.  Knows bytes
and terminators only: no channels, no sockets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

# async_chat.push() where that comes to very little: a matter of speed, for C alone.
push_short: Callable[[Any, Any], bool] | None = None


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
        "_held",
        "_holds",
        "_joins",  # what hold() was told, None: nothing yet
        "_piece_of",  # the data that these two numbers are about
    )

    def __init__(self, data: Any) -> None:
        self._data = data
        self._at = 0
        self._piece_of: Any = None
        self._begin = self._end = 0
        self._joins: bool | None = None
        self._holds = self._held = False

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
        self._joins = None

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
        left = self._at < len(self._data)
        self._holds = left and self._joins is True
        self._held = self._held or self._holds
        return left

    def undecided(self) -> bool:
        """Whether nobody has said since the last feed() if answers may wait for further lines."""
        return self._joins is None

    def hold(self, joins: bool) -> None:
        """Say whether answers may wait for those to further lines."""
        self._joins = self._holds = joins
        self._held = self._held or joins

    def holds(self) -> bool:
        """Whether answers wait just now."""
        return self._holds

    def held(self) -> bool:
        """Whether answers had to wait, and nobody has said since that they were sent."""
        return self._held

    def release(self) -> None:
        """Say that no answer waits any longer."""
        self._holds = self._held = False
