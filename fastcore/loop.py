"""The public loop: one for each map, over whichever engine was chosen.

Knows the engine and the process (signals, logging); must not know dispatchers or protocols.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import weakref
from collections.abc import Callable, MutableMapping
from functools import partial
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from . import _namesake as _namesake  # warns
from ._engine import Engine, Handle, Mode, pollers

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._watch import Watcher

__all__ = ["ExitNow", "Handle", "Loop", "get_loop"]

_log = logging.getLogger("fastcore")

# How a loop is driven.
_RUN_UNTIL_IDLE = Mode(until_idle=True, contained=True)
_RUN_UNTIL_STOPPED = Mode(contained=True)
HOSTED = Mode(contained=True, hosted=True)  # by another loop
# By asyncore.loop(), without and with use_poll.
ASYNCORE = Mode(until_empty=True)
ASYNCORE_BY_POLL = Mode(until_empty=True, disconnect_closes=True)


class ExitNow(Exception):
    """Raised in a handler or callback to leave the loop."""


_INTEREST = ("adaptive", "strict")

# What FASTCORE_DEBUG=1 calls slow, in seconds; asyncio's debug mode has the same.
SLOW = 0.1


def _default_interest() -> str:
    interest = os.environ.get("FASTCORE_INTEREST") or "adaptive"
    if interest not in _INTEREST:
        raise ValueError(f"FASTCORE_INTEREST={interest!r}: choose from {', '.join(_INTEREST)}")
    return interest


def _default_slow() -> float | None:
    debug = os.environ.get("FASTCORE_DEBUG") or "0"
    if debug not in ("0", "1"):
        raise ValueError(f"FASTCORE_DEBUG={debug!r}: choose from 0, 1")
    return SLOW if debug == "1" else None


def _checked_slow(seconds: Any) -> float:
    try:
        if not isinstance(seconds, (str, bytes, bool)) and float(seconds) >= 0:
            return float(seconds)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"slow_callback_duration must be a number of seconds >= 0, not {seconds!r}")


def _default_poller() -> str:
    return os.environ.get("FASTCORE_POLLER") or pollers()[0]


class Loop:
    """Runs the channels of one map, timers and callbacks.

    `poller` is one of `fastcore.pollers()` (default: the environment's FASTCORE_POLLER, else the
    best one).  `map` is the mapping of descriptors to channels (default: a new dict); the loop of
    a map that is given stays the one behind that map until close().  `interest` is "adaptive" or
    "strict" (default: the environment's FASTCORE_INTEREST, else adaptive): strict asks every
    channel's `readable()` and `writable()` on every turn, as the standard library's loop did.
    `slow_callback_duration`, in seconds, has handlers and callbacks that take longer logged, and
    channels that spin (default: 0.1 where the environment's FASTCORE_DEBUG is 1, else nobody looks;
    docs/debugging.md).

    Raises ValueError for an unknown poller or interest, for a negative duration, and where the map
    has a loop that is running or has timers.  Close the loop with `close()` or a `with` block.
    """

    passed_through: tuple[type[BaseException], ...] = (ExitNow, KeyboardInterrupt, SystemExit)

    def __init__(
        self,
        *,
        poller: str | None = None,
        map: MutableMapping[int, Any] | None = None,
        interest: Literal["adaptive", "strict"] | None = None,
        slow_callback_duration: float | None = None,
    ) -> None:
        if hasattr(self, "_engine"):
            raise RuntimeError("a loop is initialised once")
        chosen = _default_interest() if interest is None else interest
        if chosen not in _INTEREST:
            raise ValueError(f'interest is "adaptive" or "strict", not {interest!r}')
        slow = slow_callback_duration
        slow = _default_slow() if slow is None else _checked_slow(slow)
        self._made_for_map = map is not None
        map = {} if map is None else map
        poller = _default_poller() if poller is None else poller
        strict = chosen == "strict"
        self._engine = Engine(map, poller, strict, self.passed_through, *_hooks(self))
        self._callbacks = self._engine.callbacks
        self._map = map
        self._signals: dict[int, Any] = {}
        self._attachment: Any = None  # what has another loop serve this one; see aio.py
        # Of what was seen, and of what mix-ins have done.
        self._counts: dict[str, int] = {"slow_callbacks": 0, "spinning_channels": 0}
        self._watcher: Watcher | None = None
        self._take_turns: Callable[[Mode, float, float], None] = self._engine.drive
        if slow is not None:
            self._watch(slow)
        with _making:
            _replace(_loops.get(id(map)), map)
            _loops[id(map)] = self
            home = _homes.get(id(map))
            if home is not None:
                home.loop = self
        if self._made_for_map:
            self._keep()

    @property
    def map(self) -> MutableMapping[int, Any]:
        """The channels by descriptor; may be changed by anyone at any time."""
        return self._map

    @property
    def poller(self) -> str:
        """The name of the kernel mechanism."""
        return self._engine.poller

    # -- running -----------------------------------------------------------------------------

    def run(self) -> None:
        """Run until stop(), or until what there was to do is done.

        That is: the map is empty and no callback, timer or signal handler is left.  A loop that
        has none of these when run() is called serves other threads, and runs until stop().
        Exceptions of callbacks and handlers go to exception_handler(); ExitNow, KeyboardInterrupt
        and SystemExit leave run().
        """
        has_work = bool(self._map) or self._engine.has_pending()
        self._drive(_RUN_UNTIL_IDLE if has_work else _RUN_UNTIL_STOPPED)

    def run_once(self, timeout: float | None = None) -> None:
        """Take one turn: wait at most `timeout` seconds (None: without limit), then dispatch.

        A turn ends with the first events, timer, wake-up or signal; where another thread is in the
        loop, it goes by after at most 10 ms with nothing done.  Raises ValueError for a negative
        timeout.
        """
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be a number of seconds >= 0, not {timeout!r}")
        self._drive(_RUN_UNTIL_STOPPED, inf if timeout is None else timeout, 1)

    def stop(self) -> None:
        """Make run() return after the current turn; from any thread or signal handler."""
        self._engine.stop()

    def wakeup(self) -> None:
        """End a wait that blocks, or the next one; from any thread or signal handler."""
        self._engine.wakeup()

    @property
    def running(self) -> bool:
        """Whether the loop is being run, here or in another thread."""
        return self._engine.is_running()

    # -- callbacks and timers ------------------------------------------------------------------

    def time(self) -> float:
        """Return the loop's clock in seconds (monotonic, with an arbitrary zero)."""
        return self._engine.time()

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> Handle:
        """Run `callback(*args)` in the next turn; return its Handle.

        Raises TypeError where it is not callable, and RuntimeError where the loop is closed.
        """
        handle = self._callbacks.call_soon(callback, args)
        self._keep()
        return handle

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any) -> Handle:
        """As call_soon(), from any thread or signal handler; wakes a wait that blocks."""
        handle = self._callbacks.call_soon(callback, args)
        self._keep()
        self._engine.wakeup()
        return handle

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Handle:
        """Run `callback(*args)` once, `delay` seconds from now; return its Handle.

        Raises as call_soon(), and ValueError for a time that is NaN.
        """
        handle = self._callbacks.call_later(delay, callback, args)
        self._keep()
        return handle

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> Handle:
        """Run `callback(*args)` once, at `when` in seconds of time(); return its Handle.

        Raises as call_later().
        """
        handle = self._callbacks.call_at(when, callback, args)
        self._keep()
        return handle

    def call_every(self, interval: float, callback: Callable[..., Any], *args: Any) -> Handle:
        """Run `callback(*args)` every `interval` seconds (> 0) until its Handle is cancelled.

        The beats stay where they were laid; beats that were missed are left out.  Raises as
        call_soon(), and ValueError for an interval that is not positive and finite.
        """
        handle = self._callbacks.call_every(interval, callback, args)
        self._keep()
        return handle

    def exception_handler(self, context: dict[str, Any]) -> None:
        """Take note of an exception that a callback or a channel's handle_error() raised.

        `context` holds "message" (str), "exception" and "source" (the callback or channel).  The
        default logs it with its traceback to the logger "fastcore".  Override it in a subclass or
        assign another callable to the instance.
        """
        error: BaseException = context["exception"]
        _log.error(
            "%s: %r",
            context["message"],
            context["source"],
            exc_info=(type(error), error, error.__traceback__),
        )

    # -- signals -------------------------------------------------------------------------------

    def add_signal_handler(self, number: int, callback: Callable[..., Any], *args: Any) -> None:
        """Run `callback(*args)` in the loop whenever the signal `number` arrives.

        Only in the main thread (ValueError elsewhere).  Replaces an earlier handler.
        """
        if not callable(callback):
            raise TypeError(f"a callback must be callable, not {callback!r}")

        def arrived(_number: int, _frame: Any) -> None:
            self.call_soon_threadsafe(callback, *args)

        previous = signal.signal(number, arrived)
        self._signals.setdefault(number, previous)
        self._engine.signals = len(self._signals)
        self._keep()

    def remove_signal_handler(self, number: int) -> bool:
        """Put back what the signal did before; return whether a handler was there."""
        if number not in self._signals:
            return False
        previous = self._signals.pop(number)
        self._engine.signals = len(self._signals)
        signal.signal(number, signal.SIG_DFL if previous is None else previous)
        if self.running:
            self.wakeup()
        else:
            self._tidy()
        return True

    # -- inside another loop -------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the descriptor that is readable when the kernel has events for the loop.

        For a loop that serves this one, as fastcore.aio has asyncio's do.  It says nothing of
        timers (see next_deadline()), nor of what was asked for outside of a turn, which has to be
        followed by one.  Ask again after every turn: after a fork, or when a closed file goes on
        firing, the loop starts a new kernel set.  Raises ValueError on pollers that have none (poll
        and select).
        """
        return self._engine.fileno()

    def next_deadline(self) -> float | None:
        """Return the loop time at which run_once() has something to do by itself, or None."""
        return self._engine.next_deadline()

    def stats(self) -> dict[str, Any]:
        """Return counts since the loop was made: turns, events, sweeps, kernel changes, ...

        What has happened of it: "timeouts", and "refused" by a limit (docs/servers.md).  What
        docs/debugging.md is about is counted as "slow_callbacks" and "spinning_channels".
        """
        return {**self._engine.stats(), **self._counts}

    def close(self) -> None:
        """Give the kernel's objects back and forget timers and signal handlers.

        The channels of the map stay open (see `asyncore.close_all`).  Raises RuntimeError while
        the loop runs; closing again does nothing.
        """
        if self._attachment is not None and not self.running:
            self._attachment.close()
        self._engine.close()
        for number in list(self._signals):
            self.remove_signal_handler(number)
        if _loops.get(id(self._map)) is self:
            del _loops[id(self._map)]
        home = _homes.get(id(self._map))
        if home is not None and home.loop is self:
            home.loop = None
        self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "running" if self.running else "closed" if self._engine.closed else "idle"
        return f"<fastcore.Loop {self.poller} {state}, {len(self._map)} channels>"

    # -- how it is driven ----------------------------------------------------------------------

    def _drive(self, mode: Mode, timeout: float = inf, count: float = inf) -> None:
        try:
            self._take_turns(mode, timeout, count)
        finally:
            self._tidy()

    def _watch(self, slow: float) -> None:
        """Have all that is called timed, and spinning channels looked for."""
        global _watching
        from ._watch import Watcher  # here: nobody else needs it

        _watching = True

        engine = weakref.ref(self._engine)

        def is_readable(number: int) -> bool:
            known = engine()
            return known is not None and known.is_readable(number)

        self._watcher = watcher = Watcher(slow, self._counts, is_readable)
        self._take_turns = partial(watcher.apart, self._engine.drive)
        self._engine.watch(watcher)

    def _wake_fileno(self) -> int:
        """Return the descriptor to which a byte is written that ends a wait."""
        return self._engine.wake_fileno()

    def _tidy(self) -> None:
        """Hold nothing, and be held by nothing, that nobody needs any more."""
        if not self._map:
            self._release_if_idle()
        if self in _kept and not self.running and not self._engine.has_pending():
            self._let_go()

    def _detach(self, fd: int) -> None:
        """Note that `map[fd]` is gone; before its descriptor is closed."""
        self._engine.detach(fd)
        if self._attachment is not None:
            self._attachment._note_gone(fd)
        if not self._map:
            self._release_if_idle()

    def _release_if_idle(self) -> None:
        """Hold nothing for a map that is empty."""
        if self._engine.release_if_idle():
            self._let_go()

    # A loop that has something to do stays, though nobody else may hold it.
    def _keep(self) -> None:
        _kept.add(self)

    def _let_go(self) -> None:
        if not self._signals and (self._engine.closed or not self._made_for_map):
            _kept.discard(self)


def _hooks(loop: Loop) -> tuple[Callable[[BaseException, Any, str], None], Callable[[], None]]:
    """Return what an engine calls of its loop, which does not hold the loop."""
    reference = weakref.ref(loop)

    def report(error: BaseException, source: Any, message: str) -> None:
        known = reference()
        if known is not None:
            known.exception_handler({"message": message, "exception": error, "source": source})

    def idle() -> None:
        known = reference()
        if known is not None:
            known._tidy()

    return report, idle


class Home:
    """What the channels of one map hold, so that the loop behind that map lives as they do.

    In a copy or a pickle of a channel there is None instead: it stands in no map.
    """

    __slots__ = ("__weakref__", "loop", "map")

    def __init__(self, map: Any, loop: Loop | None) -> None:
        self.map: Any = map
        self.loop: Loop | None = loop

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()


# The loop of each map, and its home, by the map's identity: both hold the map, so that stays valid.
# The channels hold their home, and a loop with something pending is kept here: a map that nobody
# uses any more is garbage with everything that belongs to it.
_loops: weakref.WeakValueDictionary[int, Loop] = weakref.WeakValueDictionary()
_homes: weakref.WeakValueDictionary[int, Home] = weakref.WeakValueDictionary()
_kept: set[Loop] = set()

# Whether any loop was ever watched, or is to be.
_watching: bool = False

# Held while a loop is made for a map that has none: two threads must not make one each.
_making = threading.RLock()


def _replace(known: Loop | None, map: Any) -> None:
    """Make room for a loop that was asked for by name, where the old one has nothing to do."""
    if known is None:
        return
    if known.running or known._attachment is not None or known._engine.has_pending():
        raise ValueError("this map has a loop already: fastcore.get_loop(map) returns it")
    known.close()


def get_loop(map: MutableMapping[int, Any]) -> Loop:
    """Return the loop of a map, made where there is none."""
    return _loops.get(id(map)) or _make_loop(map)


def get_home(map: Any) -> Home:
    """Return what the channels of `map` hold; asks nothing of the map, and makes no loop."""
    global _watching
    home = _homes.get(id(map))
    if home is None:
        with _making:
            home = _homes.get(id(map))
            if home is None:
                home = _homes[id(map)] = Home(map, _loops.get(id(map)))
        if not _watching and _default_slow() is not None:
            _watching = True  # also where a program takes its turns by itself
    return home


def watcher_of(map: Any) -> Watcher | None:
    """Return what watches the loop of a map, made where it is to be watched."""
    known = _loops.get(id(map))
    if known is None and type(map) is dict and _default_slow() is not None:
        known = _make_loop(map)
    return None if known is None else known._watcher


def _make_loop(map: Any) -> Loop:
    with _making:
        loop = _loops.get(id(map))
        if loop is None:
            loop = Loop(map=map)
            # Nobody asked for just this one: it may go when its channels have gone.
            loop._made_for_map = False
            loop._let_go()
        return loop


def _after_fork_in_child() -> None:
    global _making
    _making = threading.RLock()  # another thread may have held the old one


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
