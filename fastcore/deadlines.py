"""Deadlines for channels: idle, connect, handshake and write progress; a mix-in.

    class Session(deadlines.Deadlines, asynchat.async_chat):
        idle_timeout = 300.0
        write_timeout = 30.0

An event stores the time and moves no timer.  One wheel for each map has a look at a channel when
its deadline would be over if nothing had happened, and lays it down again if something has.
Knows the public loop; must not know engines.
"""

from __future__ import annotations

import heapq
import math
import weakref
from typing import TYPE_CHECKING, Any

from . import asyncore, loop as _loop
from ._mixins import MixIn, channel_behind, count, is_open, waits_to_send
from ._originals import monotonic

__all__ = ["Deadlines"]

# The wheel's slots are that long, in seconds: a deadline is told that much late, at most.
_SLOT = 1 / 64

# Where an instance keeps what was set on it, in the place of the class's number.
_KINDS = ("idle", "connect", "write")


class _Seconds:
    """An attribute in seconds, None for no limit; setting it on an instance has it looked at."""

    def __init__(self, kind: str, seconds: float | None) -> None:
        self.seconds = _checked(kind, seconds)
        self._kind = kind
        self._kept = f"_fastcore_{kind}_timeout"

    def __get__(self, channel: Any, owner: Any = None) -> float | None:
        if channel is None:
            return self.seconds
        seconds: float | None = getattr(channel, self._kept, self.seconds)
        return seconds

    def __set__(self, channel: Any, seconds: float | None) -> None:
        setattr(channel, self._kept, _checked(self._kind, seconds))
        _lay(channel)


def _checked(kind: str, seconds: float | None) -> float | None:
    if seconds is None or seconds > 0:
        return seconds
    raise ValueError(f"{kind}_timeout is a number of seconds above 0, or None, not {seconds!r}")


class Deadlines(MixIn):
    """A mix-in for any dispatcher, named before or after it among the bases.

    `idle_timeout`: nothing is received, and nothing sent.  `connect_timeout`: from connect() on.
    `handshake_timeout`: from `start_deadline("handshake")` to `stop_deadline("handshake")`.
    `write_timeout`: something waits to be sent, and the peer takes none of it.  All are in seconds,
    None (the default) is no limit; set them on the class, or at any time on an instance.  Listeners
    have none.
    """

    # Not made here: where another mix-in has this, it stays what that one says.
    handshake_timeout: float | None

    if TYPE_CHECKING:
        idle_timeout: float | None
        connect_timeout: float | None
        write_timeout: float | None
    else:
        idle_timeout = _Seconds("idle", None)
        connect_timeout = _Seconds("connect", None)
        write_timeout = _Seconds("write", None)

    _fastcore_parts: tuple[type[Any], type[Any]]

    # Times of the loop's clock: of the last event to read; of the last output; and since when
    # output waits, where that is known (it may be sent by now).
    _fastcore_read_at = -math.inf
    _fastcore_sent_at = -math.inf
    _fastcore_waits_since: float | None = None
    _fastcore_began: dict[str, float] | None = None  # by the kind of deadline
    _fastcore_slot: int | None = None  # of the wheel, where it is in one

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for kind in _KINDS:
            seconds = vars(cls).get(f"{kind}_timeout", ())
            if seconds is None or isinstance(seconds, (int, float)):
                setattr(cls, f"{kind}_timeout", _Seconds(kind, seconds))

    # -- told -------------------------------------------------------------------------------

    def handle_timeout(self: Any, kind: str) -> None:
        """The deadline of that kind ("idle", "connect", "handshake", "write") is over: close.

        Calls handle_close(), and close().  Override it to do something else: if the channel is
        open afterwards, the time begins anew.
        """
        self.log_info(f"{kind} timeout, closing {self!r}", "error")
        self.handle_close()
        self.close()

    def start_deadline(self, kind: str) -> None:
        """Have the deadline of that kind run from now on, `<kind>_timeout` seconds.

        For "handshake", and for kinds of the program's own ("login": `login_timeout`).
        """
        if self._fastcore_began is None:
            self._fastcore_began = {}
        self._fastcore_began[kind] = monotonic()
        _lay(self)

    def stop_deadline(self, kind: str) -> None:
        """Have it run no longer; does nothing where it does not run."""
        if self._fastcore_began is not None:
            self._fastcore_began.pop(kind, None)

    # -- noted ------------------------------------------------------------------------------

    def handle_read_event(self: Any) -> None:
        """Note the time."""
        self._fastcore_read_at = monotonic()
        super().handle_read_event()  # type: ignore[misc]

    def handle_write_event(self: Any) -> None:
        """Note the time, if there is something to write."""
        if waits_to_send(self):
            self._fastcore_sent_at = monotonic()
        super().handle_write_event()  # type: ignore[misc]
        if self._fastcore_waits_since is not None and not waits_to_send(self):
            self._fastcore_waits_since = None

    def handle_connect_event(self: Any) -> None:
        """Have the other deadlines run."""
        super().handle_connect_event()  # type: ignore[misc]
        self.stop_deadline("connect")
        self._fastcore_read_at = monotonic()
        _lay(self)

    def connect(self: Any, address: Any) -> None:
        """Have the deadline of connecting run."""
        self.start_deadline("connect")
        super().connect(address)  # type: ignore[misc]
        _lay(self)  # only now it is connecting

    def add_channel(self: Any, map: Any = None) -> None:
        """Begin to look at the channel."""
        # All of them now: what an instance gets later than others makes it slow.
        self._fastcore_read_at = self._fastcore_sent_at = monotonic()
        self._fastcore_waits_since = self._fastcore_slot = None
        super().add_channel(map)  # type: ignore[misc]
        _lay(self)

    def del_channel(self: Any, map: Any = None) -> None:
        """No longer do so."""
        _take_up(self)
        super().del_channel(map)  # type: ignore[misc]


class _OfOthers(Deadlines):
    """For channels that are no chats."""

    def send(self: Any, data: Any) -> Any:
        """Note the time, if the peer took something."""
        sent = super().send(data)  # type: ignore[misc]
        if sent:
            self._fastcore_sent_at = monotonic()
        elif sent is None:  # dispatcher_with_send does not say how much
            if not waits_to_send(self):
                self._fastcore_sent_at = monotonic()
                self._fastcore_waits_since = None
            elif self._fastcore_waits_since is None:
                self._fastcore_sent_at = self._fastcore_waits_since = monotonic()
        return sent  # pyright: ignore


class _OfChats(Deadlines):
    """For chats.  Not send(): where that is overridden, answers do not leave together."""

    def push(self: Any, data: Any) -> None:
        """Note the time, if nothing waited."""
        if not self.producer_fifo:
            self._fastcore_sent_at = self._fastcore_waits_since = monotonic()
        super().push(data)  # type: ignore[misc]

    def push_with_producer(self: Any, producer: Any) -> None:
        """Note the time, if nothing waited."""
        if not self.producer_fifo:
            self._fastcore_sent_at = self._fastcore_waits_since = monotonic()
        super().push_with_producer(producer)  # type: ignore[misc]


Deadlines._fastcore_parts = _OfOthers, _OfChats


# -- what is due ------------------------------------------------------------------------------


def _deadlines(channel: Any, now: float) -> list[tuple[float, str]]:
    """Return when which deadline of a channel is over, if nothing happens before."""
    found: list[tuple[float, str]] = []
    if channel.accepting:
        return found
    began = channel._fastcore_began
    connecting = channel.connecting and not channel.connected
    for kind, since in list(began.items()) if began else ():
        seconds = getattr(channel, f"{kind}_timeout", None)
        if seconds is not None and (connecting or kind != "connect"):
            found.append((since + seconds, kind))
    if connecting:
        return found
    if channel.idle_timeout is not None:
        last = max(channel._fastcore_read_at, channel._fastcore_sent_at)
        if last == -math.inf:  # it came into the map by another way
            last = channel._fastcore_read_at = now
        found.append((last + channel.idle_timeout, "idle"))
    if channel.write_timeout is not None:
        found.append((_stuck_since(channel, now) + channel.write_timeout, "write"))
    return found


def _stuck_since(channel: Any, now: float) -> float:
    """Return since when the peer takes nothing of what waits."""
    if not waits_to_send(channel):
        channel._fastcore_waits_since = None
        return now
    if channel._fastcore_waits_since is None:
        channel._fastcore_waits_since = now  # of its output nobody has told us
    since: float = max(channel._fastcore_waits_since, channel._fastcore_sent_at)
    return since


def _begin_anew(channel: Any, kind: str, now: float) -> None:
    if kind == "idle":
        channel._fastcore_read_at = now
    elif kind == "write":
        channel._fastcore_waits_since = now
    elif channel._fastcore_began and kind in channel._fastcore_began:
        channel._fastcore_began[kind] = now


# -- the wheel --------------------------------------------------------------------------------


class _Wheel:
    """When the channels of one map are looked at: sets of descriptors, by slots of time.

    It holds no channel: the map does that, and who stands there is known by its slot.
    """

    def __init__(self, map: Any) -> None:
        self.map = map
        self.slots: dict[int, set[int]] = {}
        self.order: list[int] = []  # a heap of the slots
        self.count = 0
        self._armed: int | None = None  # the slot
        self._handle: Any = None
        self._loop: weakref.ref[_loop.Loop] | None = None

    def put(self, channel: Any, slot: int) -> None:
        """Have it looked at then."""
        known = self.slots.get(slot)
        if known is None:
            known = self.slots[slot] = set()
            heapq.heappush(self.order, slot)
        known.add(channel._fileno)
        channel._fastcore_slot = slot
        self.count += 1
        self._arm()

    def take(self, channel: Any) -> None:
        """Have it not looked at."""
        known = self.slots.get(channel._fastcore_slot)
        if known is not None and channel._fileno in known:
            known.remove(channel._fileno)
            self.count -= 1
            if not self.count:
                self._end()

    def _end(self) -> None:
        if _wheels.get(id(self.map)) is self:
            del _wheels[id(self.map)]
        self.slots.clear()
        self.order.clear()
        self._armed = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self) -> None:
        if not self.order:
            return
        slot = self.order[0]
        loop = _loop.get_loop(self.map)
        same = self._loop is not None and self._loop() is loop
        if same and self._armed is not None and self._armed <= slot:
            return
        if self._handle is not None:
            self._handle.cancel()
        self._loop = weakref.ref(loop)
        self._armed = slot
        self._handle = loop.call_at(slot * _SLOT, self._look)

    def _look(self) -> None:
        """Look at the channels whose slot is over."""
        self._armed = None
        try:
            while self.order and self.order[0] * _SLOT <= monotonic():
                slot = self.order[0]
                known = self.slots.get(slot)
                while known:
                    number = known.pop()
                    self.count -= 1
                    channel = channel_behind(self.map.get(number))
                    if getattr(channel, "_fastcore_slot", None) == slot:
                        channel._fastcore_slot = None
                        _look_at(channel)
                if self.order and self.order[0] == slot:
                    heapq.heappop(self.order)
                    self.slots.pop(slot, None)
        finally:
            if self.count:
                self._arm()
            else:
                self._end()


def _look_at(channel: Any) -> None:
    """Tell a channel of its deadline, if that is over, and lay it down for the next one."""
    due = now = monotonic()
    try:
        due, kind = min(_deadlines(channel, now), default=(math.inf, ""))
        if due <= now:
            count(channel._map, "timeouts")
            _begin_anew(channel, kind, now)
            channel.handle_timeout(kind)
    except (asyncore.ExitNow, KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        channel.handle_error()
    finally:
        if due <= now:
            _lay(channel)
        else:
            _lay_until(channel, due)


# By the identity of the map, which they hold; those that have somebody to look at.
_wheels: dict[int, _Wheel] = {}


def _lay(channel: Any) -> None:
    """Have the wheel look at a channel when its next deadline may be over."""
    if is_open(channel):
        _lay_until(channel, min(_deadlines(channel, monotonic()), default=(math.inf, ""))[0])


def _lay_until(channel: Any, due: float) -> None:
    if due == math.inf:
        return
    slot, known = math.ceil(due / _SLOT), channel._fastcore_slot
    if known is not None and known <= slot:
        return  # it is looked at before that
    _take_up(channel)
    wheel = _wheels.get(id(channel._map))
    if wheel is None:
        wheel = _wheels[id(channel._map)] = _Wheel(channel._map)
    wheel.put(channel, slot)


def _take_up(channel: Any) -> None:
    """Have the wheel not look at it."""
    if channel._fastcore_slot is not None:
        wheel = _wheels.get(id(channel._map))
        if wheel is not None:
            wheel.take(channel)
        channel._fastcore_slot = None
