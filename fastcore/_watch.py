"""What stands between a loop and all that it calls, where slow and spinning handlers are looked for.

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
        want: list[int] = []
        what = "readable() and writable()"
        self._time(what, channel, lambda: want.append(_calls.ask(channel, judge)))
        self._spinning.note_want(channel, want[0])
        return want[0]

    def tell_readable(self, channel: Any, judge: Judge) -> None:
        """Call the read handler, if the channel still wants to read."""
        self.tell(READ_EVENT, channel, _calls.tell_readable, judge)

    def tell_writable(self, channel: Any, judge: Judge) -> None:
        """Call the write handler, if the channel still wants to write."""
        self.tell(WRITE_EVENT, channel, _calls.tell_writable, judge)

    def tell_urgent(self, channel: Any, judge: Judge) -> None:
        """Call the handler for urgent data."""
        self._time("handle_expt()", channel, _calls.tell_urgent, channel, judge)

    def tell_closed(self, channel: Any, judge: Judge) -> None:
        """Call the handler for the end of the connection."""
        self.tell(CLOSE, channel, _calls.tell_closed, judge)

    def tell(self, kind: str, channel: Any, function: Callable[..., Any], *args: Any) -> None:
        """Do `function(channel, *args)`, which tells the channel of an event of that kind."""
        accepting = bool(attribute(channel, "accepting", False))

        def name() -> str:
            return name_of_handler(channel, kind, accepting=accepting)

        self._time(name, channel, self._spinning.tell, kind, channel, function, args)

    def call(self, callback: Any, call: Callable[[], None]) -> None:
        """Do `call()`, which calls `callback`."""
        self._time(lambda: name_of_callback(callback), channel_of(callback), call)

    # -- time ------------------------------------------------------------------------------------

    def apart(self, drive: Callable[..., Any], *args: Any) -> None:
        """Do `drive(*args)`, which takes turns: a handler around it does not hold the loop."""
        elsewhere = self._elsewhere
        before, start = elsewhere.seconds, monotonic()
        try:
            drive(*args)
        finally:
            elsewhere.seconds = before + monotonic() - start

    def _time(self, what: Any, channel: Any, function: Callable[..., Any], *args: Any) -> None:
        """Do `function(*args)`, and log if it takes long: without what is timed by itself."""
        elsewhere = self._elsewhere
        before, start = elsewhere.seconds, monotonic()
        try:
            function(*args)
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
