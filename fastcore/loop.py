"""The public loop: one for each map, over whichever engine was chosen.

Knows the engine's class and the process (signals, logging); must not know dispatchers or
protocols.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import weakref
from collections.abc import Callable, MutableMapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from ._engine import Engine, Handle, pollers

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ExitNow", "Handle", "Loop", "get_loop"]

_log = logging.getLogger("fastcore")


class ExitNow(Exception):
    """Raised in a handler or callback to leave the loop."""


def _default_poller() -> str:
    return os.environ.get("FASTCORE_POLLER") or pollers()[0]


class Loop(Engine):
    """Runs the channels of one map, timers and callbacks.

    `poller` is one of `fastcore.pollers()` (default: the environment's FASTCORE_POLLER, else the
    best one).  `map` is the mapping of descriptors to channels (default: a new dict); the loop of
    a map that is given stays the one behind that map until close().  `interest` is "adaptive" or
    "strict": strict asks every channel's `readable()` and `writable()` on every turn, as the
    standard library's loop did.

    Raises ValueError for an unknown poller or interest, and where the map has a loop that is
    running or has timers.  Close the loop with `close()` or a `with` block.
    """

    map: MutableMapping[int, Any]
    passed_through: tuple[type[BaseException], ...] = (ExitNow, KeyboardInterrupt, SystemExit)

    def __init__(
        self,
        *,
        poller: str | None = None,
        map: MutableMapping[int, Any] | None = None,
        interest: Literal["adaptive", "strict"] = "adaptive",
    ) -> None:
        if interest not in ("adaptive", "strict"):
            raise ValueError(f'interest is "adaptive" or "strict", not {interest!r}')
        self._made_for_map = map is not None
        map = {} if map is None else map
        super().__init__(map, _default_poller() if poller is None else poller, interest == "strict")
        self._signals: dict[int, Any] = {}
        with _making:
            _replace(_loops.get(id(map)), map)
            _loops[id(map)] = self
        for channel in list(map.values()):
            if isinstance(getattr(channel, "_fastcore_loop", None), Loop):
                channel._fastcore_loop = self
        if self._made_for_map:
            self._keep()

    def run(self) -> None:
        """Run until stop(), or until what there was to do is done.

        That is: the map is empty and no callback, timer or signal handler is left.  A loop that
        has none of these when run() is called serves other threads, and runs until stop().
        Exceptions of callbacks and handlers go to exception_handler(); ExitNow, KeyboardInterrupt
        and SystemExit leave run().
        """
        has_work = bool(self.map) or self._has_pending()
        self._watch(None, None, False, has_work, True, False)

    def run_once(self, timeout: float | None = None) -> None:
        """Take one turn: wait at most `timeout` seconds (None: without limit), then dispatch.

        A turn ends with the first events, timer, wake-up or signal.  Raises ValueError for a
        negative timeout.
        """
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be a number of seconds >= 0, not {timeout!r}")
        self._watch(timeout, 1, False, False, True, False)

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
        self._keep()

    def remove_signal_handler(self, number: int) -> bool:
        """Put back what the signal did before; return whether a handler was there."""
        if number not in self._signals:
            return False
        previous = self._signals.pop(number)
        signal.signal(number, signal.SIG_DFL if previous is None else previous)
        if self.running:
            self.wakeup()
        return True

    def close(self) -> None:
        """Give the kernel's objects back and forget timers and signal handlers.

        The channels of the map stay open (see `asyncore.close_all`).  Raises RuntimeError while
        the loop runs; closing again does nothing.
        """
        super().close()
        for number in list(self._signals):
            self.remove_signal_handler(number)
        if _loops.get(id(self.map)) is self:
            del _loops[id(self.map)]
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
        state = "running" if self.running else "closed" if self._closed else "idle"
        return f"<fastcore.Loop {self.poller} {state}, {len(self.map)} channels>"

    def _watch(
        self,
        timeout: float | None,
        count: float | None,
        until_empty: bool,
        until_idle: bool,
        reports: bool,
        disconnect_closes: bool,
    ) -> None:
        """Drive the engine while signals wake it: one that comes just before a wait is not lost."""
        arguments = (timeout, count, until_empty, until_idle, reports, disconnect_closes)
        short = count is not None and timeout is not None and timeout < 0.1
        # Who drives the loop in short turns from outside would pay for each of them.
        own = -1 if short else self._wake_fileno()
        previous = None if short else _set_wakeup_fd(own)
        if previous is None:
            try:
                self._drive(*arguments)
            finally:
                self._rest_from_driving()
            return
        if previous != -1 and previous not in _watching:
            _set_wakeup_fd(previous)  # somebody else's: asyncio would miss its signals
        _watching.append(own)
        try:
            self._drive(*arguments)
        finally:
            _watching.pop()
            if previous == -1 or previous in _watching:
                _set_wakeup_fd(previous)
            self._rest_from_driving()

    def _rest_from_driving(self) -> None:
        if not self.map:
            self._release_if_idle()
        if self in _kept and not self.running and not self._has_pending():
            self._let_go()

    def _after_fork(self) -> None:
        # The child gets its own wake-up: signals must no longer write into the parent's.
        if _watching and threading.current_thread() is threading.main_thread():
            _watching[:] = [-1] * len(_watching)
            _set_wakeup_fd(-1)
        super()._after_fork()

    def _has_pending(self) -> bool:
        return bool(self._signals) or super()._has_pending()

    def _keep(self) -> None:
        _kept.add(self)

    def _let_go(self) -> None:
        if not self._signals and (self._closed or not self._made_for_map):
            _kept.discard(self)


def _set_wakeup_fd(number: int) -> int | None:
    """Let signals write to `number`; return what they wrote to before, -1 for nothing.

    Does nothing and returns None in a thread that gets no signals.
    """
    if threading.get_ident() != threading.main_thread().ident:
        return None
    try:
        return signal.set_wakeup_fd(number, warn_on_full_buffer=False)
    except ValueError:
        return None  # the main thread of a sub-interpreter


# The loop of each map, by the map's identity: a loop holds its map, so the identity stays valid.
# The channels hold their loop (`_fastcore_loop`), and a loop with something pending is kept here:
# a map that nobody uses any more is garbage with everything that belongs to it.
_loops: weakref.WeakValueDictionary[int, Loop] = weakref.WeakValueDictionary()
_kept: set[Loop] = set()

# Held while a loop is made for a map that has none: two threads must not make one each.
_making = threading.RLock()

# The wake-up descriptors of the loops that the main thread is in, outermost first.
_watching: list[int] = []


def _replace(known: Loop | None, map: Any) -> None:
    """Make room for a loop that was asked for by name, where the old one has nothing to do."""
    if known is None:
        return
    if known.running or known._has_pending():
        raise ValueError("this map has a loop already: fastcore.get_loop(map) returns it")
    known.close()


def _default_map() -> Any:
    """Return the map of get_loop() without arguments; asyncore replaces this function."""
    return _own_map


_own_map: dict[int, Any] = {}


def get_loop(map: MutableMapping[int, Any] | None = None) -> Loop:
    """Return the loop behind `asyncore.loop(map=map)`, made where there is none.

    Without a map: the loop of `asyncore.socket_map`.
    """
    if map is None:
        map = _default_map()
    return _loops.get(id(map)) or _make_loop(map)


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
