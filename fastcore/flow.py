"""Back-pressure: water marks for what waits to be sent, pauses of reading, and relays.

    class Session(flow.FlowControl, asynchat.async_chat):
        high_water = 1 << 20

        def pause_writing(self):
            self.source.pause_reading()

        def resume_writing(self):
            self.source.resume_reading()

Knows dispatchers and chats; must not know loops or engines.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

from . import asyncore
from ._mixins import MixIn, is_chat, is_open, waiting_bytes

__all__ = ["FlowControl", "Relay", "relay"]

_PIECE = 65536  # bytes


class FlowControl(MixIn):
    """A mix-in for any dispatcher, named before or after it among the bases.

    More than `high_water` bytes wait to be sent: pause_writing() is called, once; no more than
    `low_water` (None: a quarter of that): resume_writing().  Nothing that was pushed is refused or
    lost.  Set them on the class or on an instance.
    """

    high_water: int = 65536
    low_water: int | None = None

    _fastcore_parts: tuple[type[Any], type[Any]]
    _fastcore_most = 0  # bytes that wait, at most: counted anew when it is above the mark
    _fastcore_writing_paused = False
    _fastcore_reading_paused = False

    # -- told -------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """More than `high_water` bytes wait: stop making more.  Override it."""

    def resume_writing(self) -> None:
        """No more than `low_water` bytes wait: go on.  Override it."""

    # -- asked ------------------------------------------------------------------------------

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait to be sent.

        A producer counts for what it has made.  A dispatcher keeps nothing by itself: a program
        that does so overrides this, and calls `check_write_buffer()` when it has added to it.
        """
        return waiting_bytes(self, float("inf"))

    def pause_reading(self) -> None:
        """Read no more: the peer is slowed down.  What was received already is passed on.

        A listener accepts no more.
        """
        self._fastcore_reading_paused = True
        asyncore._touch(self)

    def resume_reading(self) -> None:
        """Read again."""
        self._fastcore_reading_paused = False
        asyncore._touch(self)

    def is_reading(self) -> bool:
        """Whether reading is not paused."""
        return not self._fastcore_reading_paused

    def check_write_buffer(self) -> None:
        """Call pause_writing() or resume_writing() where that is due."""
        if self._fastcore_writing_paused:
            low = self.high_water // 4 if self.low_water is None else self.low_water
            if not _exceeds(self, low):
                self._fastcore_writing_paused = False
                self._fastcore_most = low
                self.resume_writing()
        elif _exceeds(self, self.high_water):
            self._fastcore_writing_paused = True
            self.pause_writing()

    # -- noted ------------------------------------------------------------------------------

    def add_channel(self: Any, map: Any = None) -> None:
        """Begin to note what waits."""
        self._fastcore_most = 0  # now: what an instance gets later than others makes it slow
        super().add_channel(map)  # type: ignore[misc]

    def readable(self: Any) -> Any:
        """Not while reading is paused."""
        return not self._fastcore_reading_paused and super().readable()  # type: ignore[misc]

    def handle_read_event(self: Any) -> None:
        """Note what waits now, where the answers to lines have left together."""
        super().handle_read_event()  # type: ignore[misc]
        if self._fastcore_writing_paused:
            self.check_write_buffer()

    def handle_write_event(self: Any) -> None:
        """Note what waits now."""
        super().handle_write_event()  # type: ignore[misc]
        if self._fastcore_writing_paused:
            self.check_write_buffer()


class _OfOthers(FlowControl):
    """For channels that are no chats."""

    def send(self: Any, data: Any) -> Any:
        """Note what waits now."""
        sent = super().send(data)  # type: ignore[misc]
        self.check_write_buffer()
        return sent  # pyright: ignore


class _OfChats(FlowControl):
    """For chats.  Not send(): where that is overridden, answers do not leave together."""

    def push(self: Any, data: Any) -> None:
        """Note what waits now."""
        super().push(data)  # type: ignore[misc]
        self._fastcore_most += len(data) if type(data) is bytes else memoryview(data).nbytes
        if self._fastcore_writing_paused or self._fastcore_most > self.high_water:
            self.check_write_buffer()

    def push_with_producer(self: Any, producer: Any) -> None:
        """Note what waits now."""
        super().push_with_producer(producer)  # type: ignore[misc]
        self.check_write_buffer()

    def discard_buffers(self: Any) -> None:
        """Note that nothing waits."""
        super().discard_buffers()  # type: ignore[misc]
        if self._fastcore_writing_paused:
            self.check_write_buffer()


FlowControl._fastcore_parts = _OfOthers, _OfChats


def _exceeds(channel: Any, mark: int) -> bool:
    """Whether more than so many bytes wait; that many pieces are looked at, and no more."""
    kind: type[Any] = type(channel)  # pyright: ignore
    if kind.get_write_buffer_size is FlowControl.get_write_buffer_size:
        size = waiting_bytes(channel, mark)
    else:
        size = channel.get_write_buffer_size()
    channel._fastcore_most = size
    return size > mark


# -- relays -----------------------------------------------------------------------------------


def relay(a: Any, b: Any, limit: int = _PIECE) -> Relay:
    """Pass on to `b` what `a` receives, and to `a` what `b` receives; return the Relay.

    `a` and `b` are channels of any class in one map; one of them may still be connecting.  At most
    `limit` bytes wait for each of them.  What `a` has received and not handled goes to `b`, after
    what was pushed to that before.  The end of one peer's output is passed on to the other; when
    both have ended, and when one is closed or fails, both are closed, by their handle_close().
    Raises ValueError where one of them is closed.
    """
    if not (is_open(a) and is_open(b)) or a is b or limit <= 0:
        raise ValueError("a relay joins two channels that are open, with room for a byte or more")
    return Relay(a, b, limit)


class Relay:
    """Two channels that are joined; relay() makes it."""

    def __init__(self, a: Any, b: Any, limit: int) -> None:
        self.closed: bool = False
        self._limit = limit
        self._ends = _End(self, a), _End(self, b)
        self._ends[0].join(self._ends[1])
        self._ends[1].join(self._ends[0])
        for end in self._ends:
            end.begin()

    def close(self) -> None:
        """Close both channels at once."""
        if self.closed:
            return
        self.closed = True
        for end in self._ends:
            end.leave()
        for end in self._ends:
            end.close()


class _End:
    """One channel of a relay, and what the relay does in the place of its methods."""

    other: _End

    def __init__(self, owner: Relay, channel: Any) -> None:
        self._relay = owner
        self.channel = channel
        self.ended: bool = False  # its peer sends no more
        self.told = False  # its peer was told that no more comes
        self._reads = False
        self._waiting = b""  # for a dispatcher, which keeps nothing by itself
        self._keeps = is_chat(channel) or isinstance(channel, asyncore.dispatcher_with_send)
        self._inner: dict[str, Any] = {}

    def join(self, other: _End) -> None:
        """Put the relay's methods into the place of the channel's."""
        self.other = other
        names = ["readable", "handle_read", "handle_write", "handle_close", "close"]
        if is_chat(self.channel):
            names.append("collect_incoming_data")
        if not self._keeps:
            names.append("writable")
        for name in names:
            self._inner[name] = getattr(self.channel, name)
            setattr(self.channel, name, getattr(self, name))

    def begin(self) -> None:
        """Pass on what was received before."""
        channel = self.channel
        if is_chat(channel):
            channel.set_terminator(None)
            received, channel.ac_in_buffer = channel.ac_in_buffer, b""
            if received:
                self.other.send(received)
        asyncore._touch(channel)

    def leave(self) -> None:
        """Give the channel its own methods back."""
        for name in self._inner:
            with contextlib.suppress(AttributeError):
                delattr(self.channel, name)

    def close(self) -> None:
        """Close the channel; called by the relay, or in the place of its own method."""
        if not self._relay.closed:
            self._relay.close()
        elif is_open(self.channel):
            try:
                self.channel.handle_close()
            finally:
                self.channel.close()

    # -- in the place of the channel's methods --------------------------------------------------

    def readable(self) -> bool:
        """While nothing waits for the other one."""
        other = self.other
        if self.ended or not other.channel.connected or other.waits():
            return False
        return bool(self._inner["readable"]())

    def writable(self) -> bool:
        """While something waits."""
        return bool(self._waiting) or not self.channel.connected

    def handle_read(self) -> None:
        """Pass on a piece."""
        self._reads = True
        try:
            data = self.channel.recv(self._relay._limit)
        except BlockingIOError:
            return
        finally:
            self._reads = False
        if data:
            self.other.send(data)
        asyncore._touch(self.other.channel)  # it may wait for this one to be connected

    def collect_incoming_data(self, data: bytes) -> None:
        """Pass on what was left of the buffer."""
        self.other.send(data)

    def handle_write(self) -> None:
        """Send what waits, and have the other one read again."""
        if self._keeps:
            self._inner["handle_write"]()
        else:
            self._flush()
        self._look()

    def handle_close(self) -> None:
        """The peer has ended its output, or the connection is gone."""
        if not self._reads or self.ended or not self._is_connected():
            self._relay.close()
            return
        self.ended = True
        self.other._look()

    # -- output ---------------------------------------------------------------------------------

    def waits(self) -> bool:
        """Whether something waits to be sent to the peer."""
        if self._keeps:
            return waiting_bytes(self.channel, 0) > 0 or bool(
                getattr(self.channel, "producer_fifo", False)
            )
        return bool(self._waiting)

    def send(self, data: bytes) -> None:
        """Send to the peer, now or later."""
        channel = self.channel
        if is_chat(channel):
            channel.push(data)
        elif self._keeps:
            channel.send(data)
        else:
            self._waiting += data
            if channel.connected:
                self._flush()
            asyncore._touch(channel)
        self._look()

    def _flush(self) -> None:
        sent = self.channel.send(self._waiting)
        self._waiting = self._waiting[sent:]

    def _look(self) -> None:
        """Do what is due when nothing waits any more: read again, or pass on the end."""
        if self._relay.closed or self.waits() or not self.channel.connected:
            return
        if not self.other.ended:
            asyncore._touch(self.other.channel)
        elif not self.told:
            self.told = True
            if self.ended:
                self._relay.close()
            else:
                self._end_output()

    def _end_output(self) -> None:
        own: Callable[[], Any] | None = getattr(self.channel, "write_eof", None)
        if own is not None:
            own()
            return
        shutdown = getattr(self.channel.socket, "shutdown", None)  # a file has none
        try:
            if shutdown is not None:
                shutdown(socket.SHUT_WR)
        except OSError:
            self._relay.close()

    def _is_connected(self) -> bool:
        """Whether this is an end, and not a reset: after that a socket has no peer."""
        try:
            self.channel.socket.getpeername()
        except OSError:
            return False
        except AttributeError:
            pass  # a file
        return True
