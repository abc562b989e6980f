"""Lines of one piece of data, passed on one after another without cutting off what follows each.

Meanwhile a chat has no `ac_in_buffer` of its own, and whoever looks at it is given what follows.
Knows the names of a chat's methods; must not know sockets or loops.
"""

from __future__ import annotations

from typing import Any

from .kernel import get_ident

_UNSET = object()


class Burst:
    """Lines that are taken off one piece of data, and how far that has come."""

    __slots__ = ("at", "checker", "data", "following")

    def __init__(self, chat: Any, data: Any) -> None:
        self.data: Any = data
        self.at: int = 0
        self.following: int = 0  # where the line after this one begins
        self.checker: int = 0  # the thread in which is_set() looks
        bursts[id(chat)] = self
        del chat.ac_in_buffer

    def end(self, chat: Any) -> None:
        """Give the chat back what follows, where nobody has set that."""
        try:
            if not self.is_set(chat):
                chat.ac_in_buffer = self.data[self.at :]
        finally:
            del bursts[id(chat)]

    def next_line(self, chat: Any, terminator: Any) -> Any:
        """Return the next line, but not the last one; None where somebody has set what follows."""
        if self.is_set(chat):
            return None
        size: int = len(terminator)
        end: int = self.data.find(terminator, self.at)
        if end < 0 or end >= len(self.data) - size:
            return None
        self.following = end + size
        return self.data[self.at : end]

    def go_on(self, chat: Any) -> bool:
        """Have the line behind us, which was collected; False where somebody has set what follows.

        That is then cut off what was set.
        """
        done, self.at = self.at, self.following
        if not self.is_set(chat):
            return True
        chat.ac_in_buffer = chat.ac_in_buffer[self.at - done :]
        return False

    def rest(self) -> Any:
        """Return what follows; to is_set() something else."""
        if self.checker and self.checker == get_ident():
            return _UNSET
        return self.data[self.at :]

    def is_set(self, chat: Any) -> bool:
        """Whether somebody has set the chat's ac_in_buffer."""
        self.checker = get_ident()  # any other thread may look at the same moment
        found = chat.ac_in_buffer
        self.checker = 0
        return found is not _UNSET


# By the identity of their chats.
bursts: dict[int, Burst] = {}


class Rest:
    """What stands in a class for `ac_in_buffer`, which its instances have of their own.

    But for those of which a burst is passed on: theirs is what follows.  `owner` is the class; one
    that comes after it may have such an attribute, too.
    """

    __slots__ = ("owner",)

    def __init__(self) -> None:
        self.owner: Any = None

    def __get__(self, chat: Any, kind: Any) -> Any:
        if chat is None:
            return self
        burst = bursts.get(id(chat))
        if burst is None:
            return super(self.owner, chat).ac_in_buffer  # type: ignore[misc]
        return burst.rest()
