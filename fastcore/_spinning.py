"""Which channels spin: their events lead to nothing, again and again, and come again at once.

A channel whose events of one kind go on while it wants the same is under suspicion, as every busy
one is.  Then a few of its handlers run under a profile function, which sees whether they do
anything to any file at all; the suspicion is dropped where one does.  Must not know engines.
"""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Callable
from typing import Any

from ._activity import Activity, can_be_seen
from ._calls import find_socket
from ._codes import READ, WRITE
from ._descriptors import count_unread, is_at_end
from ._names import CLOSE, HANDLERS, READ_EVENT, WRITE_EVENT, attribute, describe
from ._secure import holds_unread

_log = logging.getLogger("fastcore")

# So many events of one kind, one after the other while the channel wants the same, are looked into,
# and then so many of them have to lead to nothing.  Each time that one does not, twice as many are
# let go by, up to the last number: a busy channel is hardly ever looked into.
SUSPECT_AFTER = 100
LOOKED_INTO = 20
SUSPECT_AT_MOST = 12800

_METHODS = (*HANDLERS[READ_EVENT], *HANDLERS[WRITE_EVENT], "handle_close", "handle_error")


class _Streak:
    """The events of one kind that have come to a channel while it wanted the same."""

    __slots__ = ("count", "fruitless", "patience")

    def __init__(self) -> None:
        self.count = 0
        self.fruitless = 0
        self.patience = SUSPECT_AFTER

    def begin_again(self) -> None:
        self.count = self.fruitless = 0


class _Suspect:
    """What is known of one channel; it does not hold it."""

    __slots__ = ("named", "reference", "streaks", "want")

    def __init__(self, reference: weakref.ref[Any]) -> None:
        self.reference = reference
        self.want = -1
        self.named = False
        self.streaks: dict[str, _Streak] = {}


class Spinning:
    """Tells channels of events, and names those that spin, each once."""

    def __init__(self, is_readable: Callable[[int], bool], counts: dict[str, int]) -> None:
        self._is_readable = is_readable
        self._counts = counts
        self._suspects: dict[int, _Suspect] = {}  # by the identity of their channels

    def note_want(self, channel: Any, want: int) -> None:
        """Note what a channel has answered: where that is something else, it does not spin."""
        suspect = self._suspects.get(id(channel))
        if suspect is not None and suspect.want != want:
            suspect.want = want
            for streak in suspect.streaks.values():
                streak.begin_again()

    def tell(
        self, kind: str, channel: Any, function: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        """Do `function(channel, *args)`, which tells the channel of an event of that kind."""
        suspect = self._suspects.get(id(channel)) or self._new_suspect(channel)
        if suspect is None or suspect.named:
            function(channel, *args)
            return
        streak = suspect.streaks.get(kind)
        if streak is None:
            streak = suspect.streaks[kind] = _Streak()
        streak.count += 1
        if streak.count <= streak.patience or sys.getprofile() is not None:
            function(channel, *args)
            return
        number = attribute(channel, "_fileno")
        unread = count_unread(number) if type(number) is int else 0
        activity = Activity({name: attribute(channel, name) for name in _METHODS})
        try:
            activity.watch(function, channel, *args)
        except BaseException as error:
            activity.note_error(error)
            raise
        finally:
            if self._is_fruitless(kind, channel, number, unread, activity):
                streak.fruitless += 1
                if streak.fruitless >= LOOKED_INTO:
                    suspect.named = True
                    self._name(kind, channel, number, suspect.want, activity)
            else:
                streak.begin_again()
                streak.patience = min(2 * streak.patience, SUSPECT_AT_MOST)

    def _new_suspect(self, channel: Any) -> _Suspect | None:
        ours, known = id(channel), self._suspects
        try:
            reference = weakref.ref(channel, lambda _: known.pop(ours, None))
        except TypeError:
            return None  # nobody could say when it is gone
        suspect = known[ours] = _Suspect(reference)
        return suspect

    def _is_fruitless(
        self, kind: str, channel: Any, number: Any, unread: int, activity: Activity
    ) -> bool:
        """Whether an event of that kind has led to nothing, and comes again at once."""
        if activity.did_something or not activity.seen or _is_gone(channel, number):
            return False
        if not all(can_be_seen(attribute(channel, name)) for name in HANDLERS[kind]):
            return False
        if kind != READ_EVENT or type(number) is not int:
            return not activity.has_read
        if count_unread(number) != unread:
            return False
        if unread == 0 and _has_ended(channel, number):
            return True
        return not activity.has_read and self._is_readable(number)

    def _name(self, kind: str, channel: Any, number: Any, want: int, activity: Activity) -> None:
        self._counts["spinning_channels"] += 1
        _log.warning(
            "spinning: %s events of %s lead to nothing (%s): %s",
            kind,
            describe(channel),
            _state(channel, number, want),
            _mistake(kind, channel, number, activity),
            extra={"channel": channel},
        )


def _has_ended(channel: Any, number: int) -> bool:
    """Whether nothing is left to be read of what the channel stands for, but its end."""
    sock = find_socket(channel)
    return is_at_end(number, sock) and not holds_unread(sock)


def _is_gone(channel: Any, number: Any) -> bool:
    """Whether a channel stands in its map no more, or there under another number."""
    return bool(attribute(channel, "_fileno", number) != number)


def _state(channel: Any, number: Any, want: int) -> str:
    """Return what can be said of a channel without asking it."""
    names = ("accepting", "connecting", "connected", "closing")
    found = [name for name in names if attribute(channel, name, False)]
    if "connected" not in found and "accepting" not in found:
        found.append("not connected")
    if want > 0:
        wishes = [word for bit, word in ((READ, "read"), (WRITE, "write")) if want & bit]
        found.append(f"wants to {' and '.join(wishes)}")
    if type(number) is int:
        found.append(f"descriptor {number}")
        found.append(f"{count_unread(number)} bytes unread")
    return ", ".join(found)


def _mistake(kind: str, channel: Any, number: Any, activity: Activity) -> str:
    """Return what is likely to be wrong with it."""
    if activity.error:
        return f"a handler raises {activity.error}, and handle_error() does not close()"
    if kind == CLOSE:
        return "handle_close() does not close()"
    predicate = "readable" if kind == READ_EVENT else "writable"
    if f"handle_{kind}_event" not in activity.called:
        return f"{predicate}() says True, and False when it is asked again just before the handler"
    if kind != READ_EVENT:
        return "writable() says True but handle_write() sends nothing"
    if attribute(channel, "accepting", False):
        return "handle_accept() does not accept()"
    if _has_ended(channel, number) and (activity.has_read or "handle_close" in activity.called):
        return "the peer has ended the connection, and handle_close() does not close()"
    return "handle_read() does not read, while readable() says True"
