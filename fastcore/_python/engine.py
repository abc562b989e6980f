"""The engine: one turn after another over the channels of a map.

A turn, in its order: what others asked for; questions, and writes that can be done at once; the
wait; delivery of what fired; timers and callbacks (docs/architecture.md has the picture).  Must not
know how a channel is called, nor who chose this engine.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from math import inf
from typing import Any

from .._calls import Watch
from .._codes import READ
from .callbacks import Callbacks
from .dispatch import Dispatch, Mode
from .inbox import Guard, Report
from .interest import Interest, Registration
from .kernel import Kernel, get_ident, monotonic, name
from .timers import SOON, Timers
from .waits import Waits

# Every LOOK_EVERY turns the engine looks for sockets that were closed without its knowledge.
LOOK_EVERY = 256

# How long a thread waits for its turn where another one is in the loop, in seconds.
STEP_ASIDE = 0.01

# How long a channel rests that the kernel had no memory to watch, in seconds.
REST = 0.1

# How many loops may be nested: the C stack has an end, which not every Python looks for.
DEEPEST = 500

_RUNS = "a running loop cannot be closed: stop() it first"


class Engine:
    """The loop over one map; `Loop` in loop.py is its public face.

    `map` holds the channels by descriptor and may be changed by anyone at any time; `poller` names
    a kernel mechanism; `strict` asks every channel on every turn.  Exceptions that nobody handles
    go to `report(error, source, message)`; those of `passed_through` leave the loop.  `idle()` is
    called when the last timer or callback was cancelled while nobody drives the loop.
    """

    def __init__(
        self,
        map: Any,
        poller: str,
        strict: bool,
        passed_through: tuple[type[BaseException], ...],
        report: Report,
        idle: Callable[[], None],
    ) -> None:
        kernel = Kernel(poller)
        guard = Guard(kernel, passed_through, report)
        interest = Interest(map, kernel, strict)
        timers = Timers(guard, idle)
        self.callbacks: Callbacks = Callbacks(timers, guard, interest, passed_through, report)
        self.map: Any = map
        self.poller: str = poller
        self.closed: bool = False
        self.exposed: bool = False  # somebody waits on fileno()
        self.signals: int = 0  # how many signal handlers the loop is kept for
        self._kernel = kernel
        self._guard = guard
        self._interest = interest
        self._dispatch = Dispatch(interest, kernel, passed_through, report, *_hooks(self))
        self._timers = timers
        self._waits = Waits(kernel, interest, self._dispatch, timers)
        self._stopping = False
        self._turns = 0
        self._events = 0
        _engines.add(self)

    # -- a turn ------------------------------------------------------------------------------

    def drive(self, mode: Mode, timeout: float, count: float) -> None:
        """Take turns until stop(), until `count` of them, or until the mode says that it is done.

        A turn waits at most `timeout` seconds.
        """
        drivers = self._guard.drivers
        driver = get_ident()
        outer: int = drivers.get(driver, 0)  # in how many loops the thread is around this one
        if outer >= DEEPEST:
            raise RecursionError(f"{DEEPEST} loops, each within a handler of another")
        # Twice, as all that a signal handler's exception may cut short: see inbox.py.
        try:
            try:
                drivers[driver] = outer + 1
                if self._guard.is_in():
                    self._drive(mode, timeout, count, outer > 0)
                else:
                    self._drive_when_free(mode, timeout, count, outer > 0)
            finally:
                self._end_driving(driver, outer)
        finally:
            self._end_driving(driver, outer)

    def _end_driving(self, driver: int, outer: int) -> None:
        drivers = self._guard.drivers
        if outer:
            drivers[driver] = outer
        else:
            drivers.pop(driver, None)
        if not drivers:
            self._stopping = False
            self._guard.tell_host()

    def _drive_when_free(self, mode: Mode, timeout: float, count: float, nested: bool) -> None:
        guard = self._guard
        # Where turns are not counted nobody outside waits for the end of one.
        patience = STEP_ASIDE if count == inf else min(timeout, STEP_ASIDE)
        try:
            try:
                entered = guard.come_in(patience)
                while not entered:
                    # Another thread is in the loop, and delivers what comes: a turn goes by.
                    count -= 1
                    if self._stopping or count <= 0 or (mode.until_empty and not self.map):
                        break
                    entered = guard.come_in(patience)
                if entered:
                    self._drive(mode, timeout, count, nested)
            finally:
                guard.leave()
        finally:
            guard.go_out()
            guard.take_if_free()  # what came while we were on our way out

    def _drive(self, mode: Mode, timeout: float, count: float, nested: bool) -> None:
        if self.closed:
            raise RuntimeError("the loop is closed")
        dispatch = self._dispatch
        outer_mode, outer_stops = dispatch.mode, self._stopping
        counted, hosted = count < inf, mode.hosted
        turns = 0
        self._waits.idle = 0.0  # whoever drives may have closed what he likes
        if self._interest.learning:
            self._interest.sweeps.note(Engine)  # for all that ran outside
        try:
            try:
                dispatch.mode = mode
                if nested:
                    self._stopping = False  # that is about the outer one
                    dispatch.begin_nested()
                while turns < count and self._turn(timeout, turns == 0 or counted, hosted):
                    turns += 1
                    if self._stopping:
                        break
                if self.exposed:  # others wait now: for all that would be asked before a wait
                    dispatch.ask_and_write(self._interest.next_to_ask())
                else:
                    dispatch.settle()
            finally:
                self._end_drive(outer_mode, outer_stops, nested)
        finally:
            self._end_drive(outer_mode, outer_stops, nested)

    def _end_drive(self, outer_mode: Mode, outer_stops: bool, nested: bool) -> None:
        self._dispatch.mode = outer_mode
        if nested:
            self._dispatch.end_nested()
            self._stopping = self._stopping or outer_stops

    def _turn(self, timeout: float, counted: bool, hosted: bool) -> bool:
        """Take one turn; return False where the mode says that there is nothing left to do.

        A handler that ran before the wait was this turn's work where turns are `counted`: then it
        does not wait, nor where it is `hosted`.
        """
        dispatch, timers = self._dispatch, self._timers
        if self._guard.inbox:
            self._guard.take()
        if hosted:  # the turn before has asked the others at its end
            acted = dispatch.settle()
        else:
            acted = dispatch.ask_and_write(self._interest.next_to_ask())
        if not self.map and self._is_done():
            return False
        self._turns += 1
        looks = self._turns % LOOK_EVERY == 0
        fired = self._waits.wait(timeout, hosted or self._stopping or (acted and counted))
        if fired:
            self._events += len(fired)
            self._waits.idle = 0.0
            dispatch.deliver(fired)
        elif hosted or not self._waits.sleeps(0.0 if acted else timeout):
            looks = True
        if looks:
            dispatch.look_for_closed()
        if timers.next_due < inf:
            timers.collect_due()
        if timers.ready:
            self._waits.idle = 0.0
            self.callbacks.call_ready()
        return True

    def _is_done(self) -> bool:
        mode = self._dispatch.mode
        return mode.until_empty or (mode.until_idle and not self.has_pending())

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
            self.callbacks.call_later(seconds, self._resume, (registration,))

    def _resume(self, registration: Registration) -> None:
        self._interest.resume(registration)

    def _rest(self, registration: Registration) -> None:
        self.callbacks.call_later(REST, self._resume, (registration,))

    def read_again(self, key: Any) -> None:
        """Have what stands in the map read in the next turn: its socket holds data already."""
        self._guard.do(self._note_unread, key)

    def _note_unread(self, key: Any) -> None:
        self._dispatch.note_unread(key)

    def _read_again(self, key: Any) -> None:
        self._dispatch.read_again(key)

    def is_readable(self, fd: int) -> bool:
        """Whether `fd` can be read just now."""
        return bool(self._kernel.readiness(fd) & READ)

    def do(self, action: Callable[..., Any], *args: Any) -> None:
        """Do `action(*args)` here, or where that could meet a handler: in the loop's thread."""
        self._guard.do(action, *args)

    def time(self) -> float:
        """Return the loop's clock in seconds."""
        return monotonic()

    # -- for those outside ------------------------------------------------------------------------

    def has_pending(self) -> bool:
        """Whether there is a callback, a timer or a signal handler."""
        return self.signals > 0 or self._timers.has_any()

    def next_deadline(self) -> float | None:
        """Return the loop time at which a turn has something to do by itself, or None."""
        if self._timers.ready or self._guard.inbox or self._kernel.is_woken():
            return monotonic()
        answer: list[float] = []
        if not self._guard.enter(0.0, self._note_deadline, answer):
            answer.append(self._timers.next_due)  # perhaps that of a cancelled timer
        return None if answer[0] == inf else answer[0]

    def _note_deadline(self, answer: list[float]) -> None:
        if self._interest.dirty:
            answer.append(monotonic())
        else:
            answer.append(min(self._timers.first_due(), self._interest.sweeps.next_due()))

    # -- a host: the loop of somebody else, which waits on fileno() ------------------------------

    def set_host(self, tell: Callable[[], None] | None) -> None:
        """Have `tell()` called, from any thread, once until the next serve(), to want a turn.

        Raises RuntimeError within a handler of a loop that is no host's turn.
        """
        within = get_ident() in self._guard.drivers and not self._dispatch.mode.hosted
        if tell is not None and within:
            raise RuntimeError("a handler of this map's loop is running, and waits for its end")
        self._guard.told = False
        self._guard.host = tell
        self.exposed = tell is not None

    def serve(self, mode: Mode) -> tuple[int, float]:
        """Take a turn for the host, without a wait; whatever it changes is not told.

        Returns how many kernel sets were opened (another one is watched again, though its number
        may be the old one), and the loop time at which the next turn is due by itself: -inf for at
        once, inf for never.
        """
        self._guard.told = True
        self.drive(mode, 0.0, 1)
        self._guard.told = False
        return self._kernel.sets, self._due_for_host()

    def _due_for_host(self) -> float:
        if self._guard.drivers:
            return inf  # another thread: the host is told when it ends
        answer: list[float] = []
        if self._timers.ready or not self._guard.enter(0.0, self._note_deadline, answer):
            return SOON
        return SOON if self._interest.dirty else min(answer[0], self._dispatch.look_missed)

    def ask_all(self) -> None:
        """Note that any channel may answer otherwise by now."""
        self._guard.do(self._hasten)

    def _hasten(self) -> None:
        self._interest.sweeps.hasten()

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
        number = self._ask_kernel(self._kernel.fileno)
        if number < 0:
            raise ValueError(f"the {self.poller} poller has no descriptor to wait on")
        self.exposed = True
        return number

    def wake_fileno(self) -> int:
        """Return the descriptor to which a byte is written that ends a wait."""
        return self._ask_kernel(self._kernel.wake_fileno)

    def _ask_kernel(self, question: Callable[[], int]) -> int:
        if self.closed:
            raise RuntimeError("the loop is closed")
        answer: list[int] = []
        while not self._guard.enter(STEP_ASIDE, lambda: answer.append(question())):
            # Another thread is in the loop: what that has opened can be asked without the door.
            if self._kernel.is_open():
                return question()
        return answer[0]

    def stats(self) -> dict[str, Any]:
        """Return counts since the loop was made: turns, events, sweeps, kernel changes, ..."""
        return {
            "engine": name,
            "poller": self.poller,
            "turns": self._turns,
            "events": self._events,
            "sweeps": self._interest.sweeps.count,
            "interest_changes": self._kernel.changes,
            "kernel_sets": self._kernel.sets,
            "looks": self._dispatch.looks,
            "channels": len(self._interest.registrations),
            "timers": self._timers.count(),
            "callbacks": len(self._timers.ready),
        }

    def watch(self, watch: Watch) -> None:
        """Have all handlers and callbacks called through `watch` from now on."""
        self.callbacks.watch = watch
        self._dispatch.call_through(watch)

    def release_if_idle(self) -> bool:
        """Hold nothing for a map that is empty, since a program may use a new map every time.

        Returns whether nothing is held.
        """
        if not self._is_idle():
            return False
        released: list[bool] = []
        self._guard.enter(0.0, self._release, released)
        return bool(released)

    def _is_idle(self) -> bool:
        return not (self.map or self.exposed or self._guard.drivers or self.has_pending())

    def _release(self, released: list[bool]) -> None:
        if self._is_idle():
            self._interest.drop_all()
            self._kernel.close()
            released.append(True)

    def close(self) -> None:
        """Give the kernel's objects back and forget all timers; the channels stay open."""
        if self._guard.drivers or not self._guard.enter(STEP_ASIDE, self._close):
            raise RuntimeError(_RUNS)

    def _close(self) -> None:
        if self._guard.drivers:
            raise RuntimeError(_RUNS)
        self.closed = self.callbacks.closed = True
        self._timers.clear()
        self._interest.drop_all()
        self._kernel.close()

    def after_fork(self) -> None:
        """In a child: leave the parent's kernel set alone; the other threads are not here."""
        self._guard.after_fork()
        self._kernel.after_fork()
        self._guard.take_if_free()
        self._guard.tell_host()


def _hooks(engine: Engine) -> tuple[Callable[[Registration], None], Callable[[Any], None]]:
    """Return what lets a channel take part again after a rest, and what has one read again.

    They do not hold the engine.
    """
    reference = weakref.ref(engine)

    def rest(registration: Registration) -> None:
        known = reference()
        if known is not None:
            known._rest(registration)

    def again(key: Any) -> None:
        known = reference()
        if known is not None and not known.closed:
            known.callbacks.call_soon(known._read_again, (key,))

    return rest, again


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for engine in list(_engines):
        engine.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
