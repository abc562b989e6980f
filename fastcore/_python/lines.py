"""Lines of one piece of data, passed on one after another without cutting off what follows each.

Meanwhile a chat has no `ac_in_buffer` of its own, and whoever looks at it is given what follows.
Knows the names of a chat's methods; must not know sockets or loops.
"""

from __future__ import annotations

from typing import Any

from .kernel import get_ident, identity

_UNSET = object()


class Burst:
    """Lines that are taken off one piece of data, and how far that has come."""

    __slots__ = ("at", "chat", "checker", "data", "following")

    def __init__(self, chat: Any, data: Any) -> None:
        self.chat: int = identity(chat)
        self.data: Any = data
        self.at: int = 0
        self.following: int = 0  # where the line after this one begins
        self.checker: int = 0  # the thread in which is_set() looks
        bursts[self.chat] = self
        _latest[0] = self
        del chat.ac_in_buffer

    def end(self, chat: Any) -> None:
        """Give the chat back what follows, where nobody has set that."""
        try:
            if not self.is_set(chat):
                chat.ac_in_buffer = self.data[self.at :]
        finally:
            _latest[0] = None
            del bursts[self.chat]

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


# By the identity of their chats; and, in a list of one, that which is looked for again and again.
bursts: dict[int, Burst] = {}
_latest: list[Burst | None] = [None]


def find_burst(chat: Any) -> Burst | None:
    """Return what is passed on of a chat."""
    burst = _latest[0]
    if burst is not None and burst.chat == identity(chat):
        return burst
    return bursts.get(identity(chat))


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
        burst = find_burst(chat)
        if burst is not None:
            return burst.rest()
        # In another thread its burst may have ended since the look at the instance.
        if "ac_in_buffer" in chat.__dict__ or identity(chat) in bursts:
            return chat.ac_in_buffer
        return super(self.owner, chat).ac_in_buffer  # type: ignore[misc]
