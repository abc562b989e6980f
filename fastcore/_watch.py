"""What stands between a loop and all that it calls, to name what is slow and what spins.

A watched loop's engine calls channels and callbacks through a `Watcher`; any other never meets this
module.  The clock is the loop's own: a test that stops the time does not stop it.  Must not know
engines, nor how it came to be asked for.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from . import _calls
from ._calls import Judge
from ._codes import READ, WRITE
from ._names import (
    CLOSE,
    READ_EVENT,
    WRITE_EVENT,
    attribute,
    channel_of,
    describe,
    name_of_callback,
    name_of_handler,
)
from ._originals import monotonic
from ._spinning import Spinning

_log = logging.getLogger("fastcore")


class _Elsewhere(threading.local):
    """How long, in all, this thread was in what is timed by itself, in seconds."""

    seconds = 0.0


class Watcher:
    """Times each handler, predicate and callback, and looks for channels that spin.

    What takes longer than `slow` seconds is logged.  `counts` has `slow_callbacks` and
    `spinning_channels` added to; `is_readable` says whether a descriptor can be read just now.
    """

    def __init__(
        self, slow: float, counts: dict[str, int], is_readable: Callable[[int], bool]
    ) -> None:
        self._slow = slow
        self._counts = counts
        self._elsewhere = _Elsewhere()
        self._spinning = Spinning(is_readable, counts)

    # -- in the place of the functions of _calls.py --------------------------------------------

    def ask(self, channel: Any, judge: Judge) -> int:
        """Return what the channel wants."""
        want: int = self.time("readable() and writable()", channel, _calls.ask, channel, judge)
        self.note_want(channel, want)
        return want

    def note_want(self, channel: Any, want: int) -> None:
        """Note what a channel has answered."""
        self._spinning.note_want(channel, want)

    def tell_readable(self, channel: Any, judge: Judge) -> None:
        """Call the read handler, if the channel still wants to read."""
        self.tell(READ_EVENT, channel, _calls.tell_readable, judge)

    def tell_writable(self, channel: Any, judge: Judge) -> None:
        """Call the write handler, if the channel still wants to write."""
        self.tell(WRITE_EVENT, channel, _calls.tell_writable, judge)

    def tell_urgent(self, channel: Any, judge: Judge) -> None:
        """Call the handler for urgent data."""
        self.time("handle_expt()", channel, _calls.tell_urgent, channel, judge)

    def tell_closed(self, channel: Any, judge: Judge) -> None:
        """Call the handler for the end of the connection."""
        self.tell(CLOSE, channel, _calls.tell_closed, judge)

    def tell(self, kind: str, channel: Any, function: Callable[..., Any], *args: Any) -> None:
        """Do `function(channel, *args)`, which tells the channel of an event of that kind."""
        accepting = bool(attribute(channel, "accepting", False))

        def name() -> str:
            return name_of_handler(channel, kind, accepting=accepting)

        self.time(name, channel, self._spinning.tell, kind, channel, function, args)

    def call(self, callback: Any, call: Callable[[], None]) -> None:
        """Do `call()`, which calls `callback`."""
        self.time(lambda: name_of_callback(callback), channel_of(callback), call)

    def view(self, map: Any) -> View:
        """Return what stands for a map where the loop is not this package's engine."""
        return View(self, map)

    # -- time ------------------------------------------------------------------------------------

    def apart(self, drive: Callable[..., Any], *args: Any) -> None:
        """Do `drive(*args)`, which takes turns: a handler around it does not hold the loop."""
        elsewhere = self._elsewhere
        before, start = elsewhere.seconds, monotonic()
        try:
            drive(*args)
        finally:
            elsewhere.seconds = before + monotonic() - start

    def time(self, what: Any, channel: Any, function: Callable[..., Any], *args: Any) -> Any:
        """Return `function(*args)`, and log if it takes long: without what is timed by itself.

        `what` is its name, or what returns that.
        """
        elsewhere = self._elsewhere
        before, start = elsewhere.seconds, monotonic()
        try:
            return function(*args)
        finally:
            passed = monotonic() - start
            taken = passed - (elsewhere.seconds - before)
            if taken > self._slow:
                self._note_slow(what, channel, taken)
            elsewhere.seconds = before + monotonic() - start

    def _note_slow(self, what: Any, channel: Any, seconds: float) -> None:
        self._counts["slow_callbacks"] += 1
        name = what if isinstance(what, str) else what()
        owner = "" if channel is None else f" of {describe(channel)}"
        _log.warning(
            "slow: %s%s held the loop for %.3f seconds",
            name,
            owner,
            seconds,
            extra={"channel": channel},
        )


class View:
    """A map whose channels are asked and called through a watcher; for `asyncore.poll()`."""

    def __init__(self, watcher: Watcher, map: Any) -> None:
        self._watcher = watcher
        self._map = map

    def __len__(self) -> int:
        return len(self._map)

    def items(self) -> list[tuple[int, Told]]:
        """Return the descriptors, each with its channel's stand-in."""
        return [(fd, Told(self._watcher, channel)) for fd, channel in list(self._map.items())]

    def get(self, fd: int) -> Told | None:
        """Return the stand-in of the channel that stands there now."""
        channel = self._map.get(fd)
        return None if channel is None else Told(self._watcher, channel)


class Told:
    """Stands for a channel in one turn; what it raises goes the way that it always goes."""

    __slots__ = ("_channel", "_want", "_watcher")

    def __init__(self, watcher: Watcher, channel: Any) -> None:
        self._watcher = watcher
        self._channel = channel
        self._want = 0

    @property
    def accepting(self) -> Any:
        """Whether it is a listener."""
        return self._channel.accepting

    def readable(self) -> Any:
        """Return what the channel answers."""
        answer = self._watcher.time("readable()", self._channel, self._channel.readable)
        self._want = READ if answer else 0
        return answer

    def writable(self) -> Any:
        """Return what the channel answers."""
        answer = self._watcher.time("writable()", self._channel, self._channel.writable)
        self._watcher.note_want(self._channel, self._want | (WRITE if answer else 0))
        return answer

    def handle_read_event(self) -> None:
        """Have the channel read."""
        self._watcher.tell(READ_EVENT, self._channel, _read)

    def handle_write_event(self) -> None:
        """Have the channel write."""
        self._watcher.tell(WRITE_EVENT, self._channel, _write)

    def handle_expt_event(self) -> None:
        """Have the channel told of urgent data."""
        self._watcher.time("handle_expt()", self._channel, self._channel.handle_expt_event)

    def handle_close(self) -> None:
        """Have the channel told of the end."""
        self._watcher.tell(CLOSE, self._channel, _close)

    def handle_error(self) -> None:
        """Have the channel told of its exception, while that is active."""
        self._watcher.time("handle_error()", self._channel, self._channel.handle_error)


def _read(channel: Any) -> None:
    channel.handle_read_event()


def _write(channel: Any) -> None:
    channel.handle_write_event()


def _close(channel: Any) -> None:
    channel.handle_close()
