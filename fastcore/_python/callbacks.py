"""Callbacks: what the loop is asked to call, in the next turn or at a time, and the calling.

Knows the timers, the door of the loop, and that callbacks may change what channels want; must not
know turns, nor channels.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isnan
from typing import Any

from .._calls import Watch
from .inbox import Guard, Report
from .interest import Interest
from .kernel import get_ident, monotonic
from .timers import SOON, Handle, Timers


class Callbacks:
    """Takes callbacks from anybody, and calls those that are ready.

    Exceptions go to `report(error, callback, message)`, but for those of `passed_through`.
    """

    def __init__(
        self,
        timers: Timers,
        guard: Guard,
        interest: Interest,
        passed_through: tuple[type[BaseException], ...],
        report: Report,
    ) -> None:
        self.closed: bool = False
        self.watch: Watch | None = None  # is told of each callback
        self._timers = timers
        self._guard = guard
        self._interest = interest
        self._passed_through = passed_through
        self._report = report

    def call_soon(self, callback: Callable[..., Any], args: tuple[Any, ...]) -> Handle:
        """Run `callback(*args)` in the next turn; from any thread or signal handler."""
        handle = self._handle(SOON, 0.0, callback, args)
        self._timers.ready.append(handle)
        self._guard.tell_driver()
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., Any], args: tuple[Any, ...]
    ) -> Handle:
        """Run `callback(*args)` once, `delay` seconds from now."""
        return self._call_at(monotonic() + delay, 0.0, callback, args)

    def call_at(self, when: float, callback: Callable[..., Any], args: tuple[Any, ...]) -> Handle:
        """Run `callback(*args)` once, at `when` in seconds of the loop's clock."""
        return self._call_at(when, 0.0, callback, args)

    def call_every(
        self, interval: float, callback: Callable[..., Any], args: tuple[Any, ...]
    ) -> Handle:
        """Run `callback(*args)` every `interval` seconds (> 0)."""
        if not 0 < interval < inf:
            raise ValueError(f"the interval must be positive and finite, not {interval!r}")
        return self._call_at(monotonic() + interval, interval, callback, args)

    def _call_at(
        self, when: float, interval: float, callback: Callable[..., Any], args: tuple[Any, ...]
    ) -> Handle:
        if isnan(when):
            raise ValueError("a timer needs a time, not NaN")
        handle = self._handle(float(when), interval, callback, args)
        if self._guard.owner == get_ident():
            self._timers.schedule(handle)
        else:
            self._guard.do(self._schedule_outside, handle)
        return handle

    def _schedule_outside(self, handle: Handle) -> None:
        self._timers.schedule(handle)

    def _handle(
        self, when: float, interval: float, callback: Callable[..., Any], args: tuple[Any, ...]
    ) -> Handle:
        if self.closed:
            raise RuntimeError("the loop is closed")
        if not callable(callback):
            raise TypeError(f"a callback must be callable, not {callback!r}")
        return Handle(self._timers, when, interval, callback, args)

    def call_ready(self) -> None:
        """Call what is ready; what that makes ready is for the next turn."""
        ready, watch = self._timers.ready, self.watch
        for _ in range(len(ready)):
            if not ready:
                return  # a nested loop called them
            if watch is None:
                self._call_next()
            else:
                handle = ready[0]
                watch.call(handle._callback, self._call_next)

    def _call_next(self) -> None:
        """Call the first that is ready, if there is one and nobody has cancelled it."""
        ready = self._timers.ready
        if not ready:
            return
        handle = ready.popleft()
        # Taken before the question: a signal handler may cancel it in between.
        callback, args = handle._callback, handle._args
        if handle._cancelled or callback is None:
            return
        if handle._interval > 0:
            self._timers.schedule_next_beat(handle)
        else:
            handle._callback = None
        if self._interest.learning:
            self._interest.sweeps.note(type(callback))
        try:
            callback(*args)
        except self._passed_through:
            raise
        except BaseException as error:
            self._report(error, callback, "a callback of the loop raised")
