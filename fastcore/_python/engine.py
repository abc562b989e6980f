"""The engine: one turn after another over the channels of a map.

A turn, in its order: what others asked for; questions, and writes that can be done at once; the
wait; delivery of what fired; timers and callbacks (docs/architecture.md has the picture).  Must not
know how a channel is called, nor who chose this engine.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from math import inf, isnan
from typing import Any

from .dispatch import Dispatch, Mode
from .inbox import Guard, Report
from .interest import Interest, Registration
from .kernel import Kernel, get_ident, monotonic, name
from .timers import SOON, Handle, Timers

# When nothing happened for QUIET seconds, and every LOOK_EVERY turns, the engine looks for sockets
# that were closed without its knowledge.
QUIET = 0.1
LOOK_EVERY = 256

# How long a thread waits for its turn where another one is in the loop, in seconds.
STEP_ASIDE = 0.01


class Engine:
    """The loop over one map; `Loop` in loop.py is its public face.

    `map` holds the channels by descriptor and may be changed by anyone at any time; `poller` names
    a kernel mechanism; `strict` asks every channel on every turn.  Exceptions that nobody handles
    go to `report(error, source, message)`; those of `passed_through` leave the loop.
    """

    def __init__(
        self,
        map: Any,
        poller: str,
        strict: bool,
        passed_through: tuple[type[BaseException], ...],
        report: Report,
    ) -> None:
        kernel = Kernel(poller)
        guard = Guard(kernel, passed_through, report)
        interest = Interest(map, kernel, strict)
        self.map: Any = map
        self.poller: str = poller
        self.closed: bool = False
        self.exposed: bool = False  # somebody waits on fileno()
        self.signals: int = 0  # how many signal handlers the loop is kept for
        self._kernel = kernel
        self._guard = guard
        self._interest = interest
        self._dispatch = Dispatch(interest, kernel, passed_through, report)
        self._timers = Timers(guard)
        self._passed_through = passed_through
        self._report = report
        self._stopping = False
        self._turns = 0
        self._events = 0
        _engines.add(self)

    # -- a turn ------------------------------------------------------------------------------

    def drive(self, mode: Mode, timeout: float, count: float) -> None:
        """Take turns until stop(), until `count` of them, or until the mode says that it is done.

        A turn waits at most `timeout` seconds.
        """
        guard = self._guard
        driver = get_ident()
        nested = driver in guard.drivers
        guard.drivers.append(driver)
        try:
            while not guard.enter(min(timeout, STEP_ASIDE)):
                # Another thread is in the loop, and delivers what comes: a turn goes by.
                count -= 1
                if self._stopping or count <= 0 or (mode.until_empty and not self.map):
                    return
            try:
                self._drive(mode, timeout, count, nested)
            finally:
                guard.leave()
        finally:
            guard.drivers.remove(driver)
            if not guard.drivers:
                self._stopping = False

    def _drive(self, mode: Mode, timeout: float, count: float, nested: bool) -> None:
        if self.closed:
            raise RuntimeError("the loop is closed")
        dispatch = self._dispatch
        outer_mode, outer_stops = dispatch.mode, self._stopping
        dispatch.mode = mode
        if nested:
            self._stopping = False  # that is about the outer one
        turns = 0
        if self._interest.learning:
            self._interest.sweeps.note(Engine)  # for all that ran outside
        try:
            while turns < count and self._turn(timeout, turns == 0 or count < inf):
                turns += 1
                if self._stopping:
                    break
            dispatch.settle()
        finally:
            dispatch.mode = outer_mode
            if nested:
                dispatch.end_nested()
                self._stopping = self._stopping or outer_stops

    def _turn(self, timeout: float, counted: bool) -> bool:
        """Take one turn; return False where the mode says that there is nothing left to do.

        A handler that ran before the wait was this turn's work where turns are `counted`: then it
        does not wait.
        """
        dispatch, timers = self._dispatch, self._timers
        if self._guard.asked:
            self._guard.take()
        acted = dispatch.ask_and_write(self._interest.next_to_ask())
        if not self.map and self._is_done():
            return False
        self._turns += 1
        fired = self._wait(timeout, acted and counted)
        if fired:
            self._events += len(fired)
            dispatch.deliver(fired)
        if not fired or self._turns % LOOK_EVERY == 0:
            dispatch.look_for_closed()
        if timers.heap:
            timers.collect_due()
        if timers.ready:
            self._call_ready()
        return True

    def _is_done(self) -> bool:
        mode = self._dispatch.mode
        return mode.until_empty or (mode.until_idle and not self.has_pending())

    # -- the wait ------------------------------------------------------------------------------

    def _wait(self, timeout: float, at_once: bool) -> list[Any]:
        """Wait until something happens, at most until the timeout, a timer or a sweep is due."""
        # What another thread has asked for meanwhile has woken the kernel.
        timers = self._timers
        if at_once or timers.ready or self._stopping:
            return self._kernel.wait(0.0)
        if timers.heap or self._interest.sweeps.suspects:
            return self._wait_for_what_is_due(timeout)
        fired = self._kernel.wait(QUIET if timeout > QUIET else timeout)
        if fired or self._kernel.woken:
            return fired
        if timeout <= QUIET:
            self._interest.sweeps.hasten()
            return fired
        self._dispatch.look_for_closed()
        if self._interest.dirty:
            return self._kernel.wait(0.0)
        return self._wait_for_what_is_due(timeout - QUIET)

    def _wait_for_what_is_due(self, timeout: float) -> list[Any]:
        now = monotonic()
        deadline = now + timeout
        while True:
            sweep = max(self._interest.sweeps.next_due(), now)
            due = min(deadline, self._timers.first_due(), sweep)
            fired = self._kernel.wait(max(0.0, due - now))
            if fired or self._kernel.woken or self._timers.ready:
                return fired
            now = monotonic()
            if self._timers.next_due <= now:
                return fired
            if now >= sweep:
                if self._dispatch.ask_and_write(self._interest.begin_sweep(now)):
                    return self._kernel.wait(0.0)
            elif now >= deadline:
                self._interest.sweeps.hasten()
                return fired

    # -- channels ------------------------------------------------------------------------------

    def attach(self, key: Any, channel: Any) -> None:
        """Note that `map[key]` is `channel` from now on."""
        if self._guard.owner == get_ident():
            self._interest.attach(key, channel)
        else:
            self._guard.do(self._attach_outside, key, channel)

    def _attach_outside(self, key: Any, channel: Any) -> None:
        self._interest.attach(key, channel)
        self._interest.forget_dropped()

    def detach(self, key: Any) -> None:
        """Note that `map[key]` is gone; before its descriptor is closed."""
        if self._guard.owner == get_ident():
            self._interest.detach(key)
        else:
            self._guard.do(self._detach_outside, key)

    def _detach_outside(self, key: Any) -> None:
        self._interest.detach(key)
        self._interest.forget_dropped()

    def touch(self, key: Any, channel: Any) -> None:
        """Note that what `channel` wants may have changed."""
        if self._guard.owner == get_ident():
            self._interest.touch(key, channel)
        else:
            self._guard.do(self.touch, key, channel)

    def pause(self, key: Any, channel: Any, seconds: float) -> None:
        """Leave `channel` alone for that long."""
        self._guard.do(self._pause, key, channel, seconds)

    def _pause(self, key: Any, channel: Any, seconds: float) -> None:
        registration = self._interest.pause(key, channel)
        if registration is not None:
            self.call_later(seconds, self._resume, (registration,))

    def _resume(self, registration: Registration) -> None:
        self._interest.resume(registration)

    def is_readable(self, fd: int) -> bool:
        """Whether `fd` can be read just now."""
        return self._kernel.is_readable(fd)

    def do(self, action: Callable[..., Any], *args: Any) -> None:
        """Do `action(*args)` here, or where that could meet a handler: in the loop's thread."""
        self._guard.do(action, *args)

    # -- timers and callbacks --------------------------------------------------------------------

    def time(self) -> float:
        """Return the loop's clock in seconds."""
        return monotonic()

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
        """Run `callback(*args)` once, at `when` in seconds of time()."""
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

    def _call_ready(self) -> None:
        """Call what is ready; what that makes ready is for the next turn."""
        ready = self._timers.ready
        for _ in range(len(ready)):
            if not ready:
                return  # a nested loop called them
            handle = ready.popleft()
            # Taken before the question: a signal handler may cancel it in between.
            callback, args = handle._callback, handle._args
            if handle._cancelled or callback is None:
                continue
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

    # -- for those outside ------------------------------------------------------------------------

    def has_pending(self) -> bool:
        """Whether there is a callback, a timer or a signal handler."""
        return self.signals > 0 or len(self._timers.ready) > 0 or self._timers.count() > 0

    def next_deadline(self) -> float | None:
        """Return the loop time at which a turn has something to do by itself, or None."""
        if self._timers.ready or self._guard.asked or self._kernel.is_woken():
            return monotonic()
        deadline = self._timers.next_due  # perhaps that of a cancelled timer
        if self._guard.enter(0.0):
            try:
                if self._interest.dirty:
                    return monotonic()
                deadline = min(self._timers.first_due(), self._interest.sweeps.next_due())
            finally:
                self._guard.leave()
        return None if deadline == inf else deadline

    def wakeup(self) -> None:
        """End a wait that blocks, or the next one; from any thread or signal handler."""
        self._kernel.wake()

    def stop(self) -> None:
        """End the driving after the current turn; from any thread or signal handler."""
        self._stopping = True
        self._kernel.wake()

    def is_running(self) -> bool:
        """Whether the loop is being driven, here or in another thread."""
        return len(self._guard.drivers) > 0

    def fileno(self) -> int:
        """Return the descriptor of the kernel's set; ValueError where the poller has none."""
        number = self._with_kernel(self._kernel.fileno)
        if number < 0:
            raise ValueError(f"the {self.poller} poller has no descriptor to wait on")
        self.exposed = True
        return number

    def wake_fileno(self) -> int:
        """Return the descriptor to which a byte is written that ends a wait."""
        return self._with_kernel(self._kernel.wake_fileno)

    def _with_kernel(self, question: Callable[[], int]) -> int:
        if self.closed:
            raise RuntimeError("the loop is closed")
        while not self._guard.enter(STEP_ASIDE):
            # Another thread is in the loop: what that has opened can be asked without the door.
            if self._kernel.is_open():
                return question()
        try:
            return question()
        finally:
            self._guard.leave()

    def stats(self) -> dict[str, Any]:
        """Return counts since the loop was made: turns, events, sweeps, kernel changes, ..."""
        return {
            "engine": name,
            "poller": self.poller,
            "turns": self._turns,
            "events": self._events,
            "sweeps": self._interest.sweeps.count,
            "interest_changes": self._kernel.changes,
            "channels": len(self._interest.registrations),
            "timers": self._timers.count(),
            "callbacks": len(self._timers.ready),
        }

    def release_if_idle(self) -> bool:
        """Hold nothing for a map that is empty, since a program may use a new map every time.

        Returns whether nothing is held.
        """
        if self.map or self.exposed or self.has_pending() or self._guard.drivers:
            return False
        if not self._guard.enter(0.0):
            return False
        try:
            if self._guard.drivers:
                return False
            self._interest.drop_all()
            self._kernel.close()
        finally:
            self._guard.leave()
        return True

    def close(self) -> None:
        """Give the kernel's objects back and forget all timers; the channels stay open."""
        if self._guard.drivers or not self._guard.enter(STEP_ASIDE):
            raise RuntimeError("a running loop cannot be closed: stop() it first")
        try:
            if self._guard.drivers:
                raise RuntimeError("a running loop cannot be closed: stop() it first")
            self.closed = True
            self._timers.clear()
            self._interest.drop_all()
            self._kernel.close()
        finally:
            self._guard.leave()

    def after_fork(self) -> None:
        """In a child: leave the parent's kernel set alone; the other threads are not here."""
        self._guard.after_fork()
        self._kernel.after_fork()
        if not self._guard.owner:
            self._guard.take_if_free()


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for engine in list(_engines):
        engine.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
