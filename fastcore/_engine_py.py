"""The fallback engine: interest bookkeeping, waiting, dispatch and timers in plain Python.

This file is the specification.  `src/engine.pyx` is its mirror, name by name and in the same
order, and must be indistinguishable from it.  An engine knows channels (whatever stands in a
map and answers `readable()` and `writable()`) and pollers; it must not know protocols, nor who
chose it.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import socket
import sys
import sysconfig
import weakref
from collections import deque
from collections.abc import Callable
from errno import (
    EBADF,
    ECONNABORTED,
    ECONNRESET,
    EMFILE,
    ENFILE,
    ENOBUFS,
    ENOMEM,
    ENOTCONN,
    ENOTSOCK,
    EPIPE,
    ESHUTDOWN,
    EWOULDBLOCK,
)
from functools import wraps
from itertools import count
from math import inf, isnan
from operator import index
from threading import RLock, get_ident
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import _pollers_py
from ._pollers_py import ERROR, HANGUP, INVALID, READ, URGENT, WRITE

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

name = "python"

# The peer is gone: not an error, but the end of the connection.
DISCONNECTED = frozenset({ECONNRESET, ENOTCONN, ESHUTDOWN, ECONNABORTED, EPIPE, EBADF})
if sys.platform == "win32":
    DISCONNECTED |= {ENOTSOCK}  # what winsock says of a closed descriptor

# accept() had nothing left to hold a connection in; it will again, later.
EXHAUSTED = frozenset({EMFILE, ENFILE, ENOBUFS, ENOMEM})
if sys.platform == "win32":
    EXHAUSTED |= {errno.WSAEMFILE}  # which is not EMFILE

# What select() on Linux calls readable and writable (see docs/compatibility.md).
_READABLE = READ | HANGUP | ERROR
_WRITABLE = WRITE | ERROR

# A sweep may take one part in SWEEP_SHARE of the time and comes after a pause (in seconds);
# SWEEP_ALWAYS channels and fewer are swept on every turn.
SWEEP_SHARE = 20
SWEEP_PAUSE = 0.001
SWEEP_ALWAYS = 16

# When nothing happened for QUIET seconds, and every LOOK_EVERY turns, the engine looks for sockets
# that were closed without its knowledge.
QUIET = 0.1
LOOK_EVERY = 256
# And for what share of the time, at most: a hundredth.
LOOK_SHARE = 100

# How long a thread rests where another one waits for the same loop already.
STEP_ASIDE = 0.01

# Why a registration takes no part.
RESTING = 1
GONE = 2
_NOBODY: Any = object()  # stands in no map

_socket_class = socket.socket

# Without a GIL another thread could look at the loop's own state at any moment: what others do to
# it while a thread is in the loop is handed over to that thread.  The GIL of others than CPython
# does not help: heapq is written in Python there, and gives way.
_HANDS_OVER = sys.implementation.name != "cpython" or bool(
    sysconfig.get_config_var("Py_GIL_DISABLED")
)

_Method = TypeVar("_Method", bound=Callable[..., None])


def _from_any_thread(method: _Method) -> _Method:
    """Have `method` done by the thread that is in the loop, where that is another one."""
    if not _HANDS_OVER:
        return method

    @wraps(method)
    def do(self: Engine, *args: Any) -> None:
        with self._lock:  # nobody comes into the loop meanwhile, or leaves it
            if self._is_elsewhere():
                self._hand_over(do, self, *args)
            else:
                method(self, *args)

    return cast(_Method, do)


# Timers of one moment run in the order in which they were asked for.
_timer_numbers = count()


def pollers() -> tuple[str, ...]:
    """Return the names of the pollers this platform has, best first."""
    return tuple(_pollers_py.kinds)


class Channel:
    """What every dispatcher inherits: the part of it that must be fast."""

    socket: Any

    def recv(self, buffer_size: int) -> bytes:
        """Read at most `buffer_size` bytes; `b""` after the end, when handle_close() has run.

        Raises BlockingIOError where nothing is there, and OSError for what is not a disconnect.
        """
        try:
            data: bytes = self.socket.recv(buffer_size)
        except OSError as error:
            if error.errno not in DISCONNECTED:
                raise
            data = b""
        if not data:
            self.handle_close()
            return b""
        return data

    def send(self, data: ReadableBuffer) -> int:
        """Send what the kernel takes of `data`; return how many bytes (0: none now, or closed)."""
        try:
            sent: int = self.socket.send(data)
            return sent
        except OSError as error:
            if error.errno == EWOULDBLOCK:
                return 0
            if error.errno not in DISCONNECTED:
                raise
        self.handle_close()
        return 0

    # Defined by the dispatcher.
    handle_close: Callable[[], Any]


class Handle:
    """A callback that was asked for: `cancel()` forgets it, `when` is its loop time in seconds.

    `when` is None for a callback that runs as soon as possible.
    """

    __slots__ = ("_args", "_callback", "_engine", "_interval", "cancelled", "when")

    def __init__(
        self,
        engine: Engine,
        when: float | None,
        interval: float | None,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> None:
        self._engine = engine
        self.when: float | None = when
        self._interval = interval
        self._callback: Callable[..., Any] | None = callback
        self._args = args
        self.cancelled: bool = False

    def cancel(self) -> None:
        """Forget the callback; does nothing where it has run or was cancelled before."""
        if self.cancelled or self._callback is None:
            return
        self.cancelled = True
        self._callback = None
        self._args = ()
        if self.when is not None:
            self._engine._timer_cancelled()

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled else repr(self._callback)
        return f"<Handle when={self.when} {state}>"


class _Registration:
    """One entry of the map as the engine last saw it, and what the kernel was told."""

    __slots__ = ("apart", "asked", "born", "fd", "kernel", "obj", "present", "touched", "want")

    def __init__(self, fd: int, obj: Any, born: int) -> None:
        self.fd = fd
        self.obj = self.present = obj  # present: nobody, where it is set apart
        self.born = born  # the batch it appeared in: older events are not for it
        self.want = 0  # what the predicates last said
        self.kernel = 0  # what the kernel's set holds
        self.asked = -1  # the moment of that
        self.touched = False  # it will be asked again
        self.apart = 0  # RESTING: it takes no part for now; GONE: the engine has dropped it

    def set_apart(self, why: int) -> None:
        self.apart |= why
        self.present = _NOBODY


class _Counts:
    """What happened since the loop was made."""

    __slots__ = ("changes", "events", "sweeps", "turns")

    def __init__(self) -> None:
        self.turns = self.events = self.sweeps = self.changes = 0


class Engine:
    """The loop over one map.  `Loop` in loop.py is its public face.

    `map` holds the channels by descriptor and may be changed by anyone at any time; `poller` names
    a kernel mechanism; `strict` asks every channel on every turn.
    """

    # These leave the loop instead of going to handle_error() or exception_handler().
    passed_through: tuple[type[BaseException], ...] = (KeyboardInterrupt, SystemExit)

    # There before __init__, which may be left by an exception: __del__ looks at them.
    _poller: Any = None
    _wake: tuple[socket.socket, socket.socket, Any] | None = None  # receiver, sender, closer

    def __init__(self, map: Any, poller: str, strict: bool) -> None:
        if hasattr(self, "_registrations"):
            raise RuntimeError("a loop is initialised once")
        if poller not in _pollers_py.kinds:
            raise ValueError(f"no poller {poller!r} here; there are: {', '.join(pollers())}")
        self.map: Any = map
        self.poller: str = poller
        self._strict = strict
        self._registrations: dict[int, _Registration] = {}
        self._touched: list[_Registration] = []
        self._wake_pending = False
        self._waiting = 0  # the thread that waits on the kernel's set
        self._forgotten: list[tuple[int, int]] = []
        self._drivers: list[int] = []  # the threads that drive the loop, once for each nesting
        self._exposed = False
        self._closed = False
        self._stopping = False
        self._manner = False, False  # _drive()'s `reports` and `disconnect_closes`
        self._batch = 0
        self._moment = 0  # counts the handlers and callbacks that ran
        self._sweep_wanted = False
        self._sweep_due = 0.0
        self._look_due = 0.0
        self._timers: list[tuple[float, int, Handle]] = []
        self._cancelled = 0
        self._ready: deque[Handle] = deque()
        self._handed: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._lock = RLock()  # held by who comes or leaves, not by who is in the loop
        self._scheduled = False  # whether there may be timers, or something ready
        self._counts = _Counts()
        _engines.add(self)

    def __del__(self) -> None:
        self._release()

    # -- callbacks and timers ------------------------------------------------------------

    def time(self) -> float:
        """Return the loop's clock in seconds (monotonic, with an arbitrary zero)."""
        return monotonic()

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> Handle:
        """Run `callback(*args)` in the next turn; return its Handle."""
        handle = self._handle(None, None, callback, args)
        self._ready.append(handle)
        self._scheduled = True
        self._tell_driver()
        return handle

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any) -> Handle:
        """As call_soon(), from any thread or signal handler; wakes a wait that blocks."""
        handle = self._handle(None, None, callback, args)
        self._ready.append(handle)
        self._scheduled = True
        self.wakeup()
        return handle

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Handle:
        """Run `callback(*args)` once, `delay` seconds from now; return its Handle."""
        return self.call_at(monotonic() + delay, callback, *args)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> Handle:
        """Run `callback(*args)` once, at `when` in seconds of time(); return its Handle."""
        if isnan(when):
            raise ValueError("a timer needs a time, not NaN")
        handle = self._handle(float(when), None, callback, args)
        self._schedule(handle)
        return handle

    def call_every(self, interval: float, callback: Callable[..., Any], *args: Any) -> Handle:
        """Run `callback(*args)` every `interval` seconds (> 0) until its Handle is cancelled.

        The beats stay where they were laid; beats that were missed are left out.
        """
        if not 0 < interval < inf:
            raise ValueError(f"the interval must be positive and finite, not {interval!r}")
        handle = self._handle(monotonic() + interval, float(interval), callback, args)
        self._schedule(handle)
        return handle

    def next_deadline(self) -> float | None:
        """Return the loop time at which run_once() has something to do by itself, or None."""
        if self._ready or self._wake_pending or self._touched:
            return monotonic()
        if self._is_elsewhere():
            first = self._timers[:1]  # perhaps a cancelled one; the heap is the loop's
            deadline = first[0][0] if first else inf
        else:
            deadline = self._next_timer()
        if self._sweep_wanted and self._registrations:
            deadline = min(deadline, self._sweep_due)
        return None if deadline == inf else deadline

    def _handle(
        self,
        when: float | None,
        interval: float | None,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> Handle:
        if self._closed:
            raise RuntimeError("the loop is closed")
        if not callable(callback):
            raise TypeError(f"a callback must be callable, not {callback!r}")
        self._keep()
        return Handle(self, when, interval, callback, args)

    @_from_any_thread
    def _schedule(self, handle: Handle) -> None:
        assert handle.when is not None
        heapq.heappush(self._timers, (handle.when, next(_timer_numbers), handle))
        self._scheduled = True
        self._tell_driver()

    @_from_any_thread
    def _timer_cancelled(self) -> None:
        # Cancelled timers stay in the heap until their time, or until they are most of it.
        if self._closed:
            return
        self._cancelled += 1
        if self._cancelled > 64 and self._cancelled > len(self._timers) // 2:
            self._cancelled -= len(self._timers)
            self._timers = [entry for entry in self._timers if not entry[2].cancelled]
            self._cancelled += len(self._timers)
            heapq.heapify(self._timers)

    def _next_timer(self) -> float:
        timers = self._timers
        while timers and timers[0][2].cancelled:
            heapq.heappop(timers)
            self._cancelled -= 1
        return timers[0][0] if timers else inf

    def _run_timers(self) -> None:
        now = monotonic()
        while self._next_timer() <= now:
            handle = heapq.heappop(self._timers)[2]
            self._ready.append(handle)

    def _run_ready(self) -> None:
        self._moment += 1
        for _ in range(len(self._ready)):
            if not self._ready:
                return  # a nested loop ran them
            handle = self._ready.popleft()
            callback, args = handle._callback, handle._args
            if callback is None:
                # Cancelled after it had left the heap: it is counted there no longer.
                if handle.when is not None:
                    self._cancelled -= 1
                continue
            if handle._interval is not None:
                self._schedule_next_beat(handle)
            else:
                handle._callback = None
            try:
                callback(*args)
            except self.passed_through:
                raise
            except BaseException as error:
                self._report(error, callback, "a callback of the loop raised")

    def _schedule_next_beat(self, handle: Handle) -> None:
        assert handle.when is not None
        assert handle._interval is not None
        now = monotonic()
        handle.when += handle._interval
        if handle.when <= now:
            handle.when = now + handle._interval - (now - handle.when) % handle._interval
        self._schedule(handle)

    # -- waking and stopping -------------------------------------------------------------

    def wakeup(self) -> None:
        """End a wait that blocks, or the next one; from any thread or signal handler."""
        if self._wake_pending:
            return
        self._wake_pending = True
        wake = self._wake
        if wake is not None:
            try:
                wake[1].send(b"\0")
            except OSError:
                pass  # full: it wakes anyway; closed: nobody waits

    def _tell_driver(self) -> None:
        """Wake the loop where another thread is in it: it may wait, or be just about to."""
        driver = self._drivers[-1:]
        if self._waiting or (driver and driver[0] != get_ident()):
            self.wakeup()

    def _is_elsewhere(self) -> bool:
        """Whether only other threads are in the loop, and no GIL keeps them from our state."""
        return _HANDS_OVER and bool(self._drivers) and get_ident() not in self._drivers

    def _do(self, action: Callable[..., Any], *args: Any) -> None:
        """Do `action(*args)` here, or where that could meet a handler: in the loop's thread."""
        if self._is_elsewhere():
            self._hand_over(action, *args)
        else:
            action(*args)

    def _hand_over(self, action: Callable[..., Any], *args: Any) -> None:
        """Let the thread that is in the loop do `action(*args)`, before it asks anyone again."""
        self._handed.append((action, args))
        if self._drivers:
            self.wakeup()
        else:
            self._take_handed()  # it has just left

    def _take_handed(self) -> None:
        """Do what other threads have handed over."""
        for _ in range(len(self._handed)):
            try:
                action, args = self._handed.popleft()
            except IndexError:
                return  # another thread was faster
            try:
                action(*args)
            except self.passed_through:
                raise
            except BaseException as error:
                self._report(error, action, "what another thread asked for raised")

    def stop(self) -> None:
        """Make run() return after the current turn; from any thread or signal handler."""
        self._stopping = True
        self.wakeup()

    @property
    def running(self) -> bool:
        """Whether the loop is being run, here or in another thread."""
        return bool(self._drivers)

    def fileno(self) -> int:
        """Return the descriptor that is readable when the kernel has events for the loop.

        Ask again after every turn: after a fork, or when a closed file goes on firing, the loop
        starts a new kernel set.  Raises ValueError on pollers that have none (poll and select).
        """
        with self._lock:
            self._open()
            number: int = self._poller.fileno()
            self._exposed = self._exposed or number >= 0
        if number < 0:
            raise ValueError(f"the {self.poller} poller has no descriptor to wait on")
        return number

    def stats(self) -> dict[str, Any]:
        """Return counts since the loop was made: turns, events, sweeps, kernel changes, ..."""
        return {
            "engine": name,
            "poller": self.poller,
            "turns": self._counts.turns,
            "events": self._counts.events,
            "sweeps": self._counts.sweeps,
            "interest_changes": self._counts.changes,
            "channels": len(self._registrations),
            "timers": len(self._timers) - self._cancelled,
            "callbacks": len(self._ready),
        }

    def close(self) -> None:
        """Give the kernel's objects back and forget all timers; the channels stay open.

        Raises RuntimeError while the loop runs.
        """
        with self._lock:
            if self._drivers:
                raise RuntimeError("a running loop cannot be closed: stop() it first")
            self._closed = True
            self._timers.clear()
            self._ready.clear()
            self._cancelled = 0
            self._release()
            for registration in self._registrations.values():
                registration.kernel = 0
            self._registrations.clear()
            self._touched.clear()

    # -- the kernel's objects --------------------------------------------------------------

    def _open(self) -> None:
        if self._closed:
            raise RuntimeError("the loop is closed")
        if self._wake is None:
            receiver, sender = socket.socketpair()
            receiver.setblocking(False)
            sender.setblocking(False)
            # In a cycle that is collected the sockets may be finalised before the engine, and
            # would complain of not being closed.
            closer = weakref.finalize(self, _close_both, receiver, sender)
            closer.atexit = False
            if self._wake is None:
                self._wake = receiver, sender, closer
                if self._wake_pending:
                    sender.send(b"\0")  # asked for while nothing was open
            else:
                closer()  # type: ignore[unreachable]  # another thread was faster
        if self._poller is None:
            poller = _pollers_py.kinds[self.poller]()
            try:
                poller.set(self._wake[0].fileno(), 0, READ)
            except OSError:
                poller.close()
                raise
            if self._poller is not None:
                poller.close()  # type: ignore[unreachable]
                return
            self._poller = poller
            for registration in self._registrations.values():
                registration.kernel = 0
                self._mark(registration)

    def _release(self) -> None:
        if self._poller is not None:
            poller, self._poller = self._poller, None
            poller.close()
            self._forgotten.clear()
        if self._wake is not None:
            closer, self._wake = self._wake[2], None
            closer()

    def _release_if_idle(self) -> None:
        """Hold nothing for a map that is empty: a program may use a new map every time."""
        with self._lock:
            if self._drivers or self.map or self._exposed or self._has_pending():
                return
            for registration in list(self._registrations.values()):
                self._drop(registration)
            self._forget_dropped()
            self._release()
        self._let_go()

    def _rebuild(self) -> None:
        """Start a new kernel set, where the old one holds a file that was closed."""
        if self._waiting:
            return  # another thread waits on it; the stranger will come again
        if self._poller is not None:
            poller, self._poller = self._poller, None
            poller.close()
        self._open()

    def _wake_fileno(self) -> int:
        with self._lock:
            self._open()
            assert self._wake is not None
            return self._wake[1].fileno()

    def _drain_wakeups(self) -> None:
        assert self._wake is not None
        try:
            while len(self._wake[0].recv(4096)) == 4096:
                pass
        except OSError:
            pass
        self._wake_pending = False

    # Overridden by Loop, which keeps the loop of a map alive while it has something to do.
    def _keep(self) -> None: ...

    def _let_go(self) -> None: ...

    # -- interest ------------------------------------------------------------------------

    @_from_any_thread
    def _attach(self, fd: int, obj: Any) -> None:
        """Note that `map[fd]` is `obj` from now on."""
        known = self._registrations.get(fd)
        if known is not None:
            self._drop(known)
        # What another thread's wait brings, or has just brought, may be about an earlier owner of
        # the number.
        others = self._waiting or (self._drivers and self._drivers[-1] != get_ident())
        registration = _Registration(fd, obj, self._batch + (1 if others else 0))
        self._registrations[fd] = registration
        self._mark(registration)
        if not self._drivers:
            self._forget_dropped()

    @_from_any_thread
    def _detach(self, fd: int) -> None:
        """Note that `map[fd]` is gone; before its descriptor is closed."""
        known = self._registrations.get(fd)
        if known is not None:
            self._drop(known)
        if not self._drivers:
            self._forget_dropped()
            self._release_if_idle()

    @_from_any_thread
    def _touch(self, fd: int, obj: Any) -> None:
        """Note that what `obj` wants may have changed."""
        known = self._registrations.get(fd)
        if known is not None and known.obj is obj:
            self._mark(known)

    def _is_readable(self, fd: int) -> bool:
        """Whether `fd` can be read just now."""
        return bool(_pollers_py.query_now({fd: READ}).get(fd, 0) & READ)

    @_from_any_thread
    def _rest(self, fd: int, obj: Any, seconds: float) -> None:
        """Leave `obj` alone for that long."""
        known = self._registrations.get(fd)
        if known is not None and known.obj is obj and not known.apart:
            known.set_apart(RESTING)
            self._mark(known)
            self.call_later(seconds, self._resume, known)

    def _resume(self, registration: _Registration) -> None:
        registration.apart &= ~RESTING
        if not registration.apart:
            registration.present = registration.obj
        self._mark(registration)

    def _mark(self, registration: _Registration) -> None:
        if not registration.touched:
            registration.touched = True
            self._touched.append(registration)
            self._tell_driver()

    def _drop(self, registration: _Registration) -> None:
        if not registration.apart & GONE:
            registration.set_apart(GONE)
            del self._registrations[registration.fd]
        self._forget_kernel(registration)

    def _forget_dropped(self) -> None:
        """Keep nothing of what went while nobody drives the loop."""
        # A program may take turns by itself (`asyncore.poll()`): then nobody asks the touched.
        if len(self._touched) > 2 * len(self._registrations):
            self._touched = [one for one in self._touched if not one.apart & GONE]

    def _forget_kernel(self, registration: _Registration) -> None:
        if registration.kernel and self._poller is not None:
            if self._waiting:
                # Another thread waits on the kernel's set: it will do this when it comes back.
                self._forgotten.append((registration.fd, registration.kernel))
                registration.kernel = 0
                self.wakeup()
                return
            self._counts.changes += 1
            try:
                self._poller.set(registration.fd, registration.kernel, 0)
            except OSError:
                pass  # its descriptor is closed: the kernel has forgotten it
        registration.kernel = 0

    def _is_current(self, registration: _Registration) -> bool:
        """Whether the map still holds the very object that was polled for."""
        return not registration.apart & GONE and self.map.get(registration.fd) is registration.obj

    def _reconcile(self) -> None:
        """Follow what others did to the map."""
        registrations = self._registrations
        for fd, obj in list(self.map.items()):
            known = registrations.get(fd)
            if known is None or known.obj is not obj:
                self._attach(fd, obj)
        if len(registrations) != len(self.map):
            for fd in [fd for fd in registrations if fd not in self.map]:
                self._drop(registrations[fd])

    def _take_touched(self) -> list[_Registration]:
        """Return those that are to be asked, and begin to note new ones."""
        if len(self._registrations) != len(self.map):
            self._reconcile()
        touched, self._touched = self._touched, []
        return touched

    def _ask(self, asked: list[_Registration], eager: bool) -> list[_Registration]:
        """Ask channels what they want, in the order of the standard loop, and tell the kernel.

        With `eager`, those that came to want to write are not told but returned.
        """
        writers: list[_Registration] = []
        channels, moment = self.map, self._moment
        try:
            for registration in asked:
                registration.touched = False
                obj = registration.present
                if channels.get(registration.fd) is not obj:
                    if not self._is_current(registration):
                        fd = registration.fd
                        self._drop(registration)
                        known = self.map.get(fd)
                        if known is not None and fd not in self._registrations:
                            self._attach(fd, known)
                        continue
                    want = 0  # it rests
                else:
                    try:
                        want = READ if obj.readable() else 0
                        if obj.writable() and not obj.accepting:
                            want += WRITE
                    except BaseException as error:
                        if not self._caught(registration, error, True):
                            raise
                        continue
                registration.asked = moment
                registration.want = want
                if want != registration.kernel:
                    if eager and want >= WRITE > registration.kernel:
                        writers.append(registration)
                    else:
                        self._apply(registration)
        except BaseException:
            # Nobody may be forgotten because one channel cannot answer.
            for one in [*writers, *asked[asked.index(registration) :]]:  # pyright: ignore
                one.touched = False
                self._mark(one)
            raise
        return writers

    def _apply(self, registration: _Registration) -> None:
        """Tell the kernel what the channel wants."""
        if self._waiting:  # another thread waits on the kernel's set
            registration.want &= registration.kernel  # what may come is not for more than that
            self._mark(registration)
            return
        if self._poller is None:
            self._open()
        self._counts.changes += 1
        fd = index(registration.fd)
        if fd > _pollers_py.LARGEST:
            raise OverflowError(f"{fd} is no descriptor")
        try:
            self._poller.set(fd, registration.kernel, registration.want)  # pyright: ignore
            registration.kernel = registration.want
        except OSError as error:
            registration.kernel = 0
            registration.set_apart(RESTING)  # or it would fail again on every turn
            if error.errno == EBADF:
                self._call(registration, registration.obj.handle_close)
            else:
                self._failed(registration, error)

    def _write_now(self, writers: list[_Registration]) -> bool:
        """Let those write at once that can; return whether a handler ran.

        Only a channel that really cannot write enters the kernel's write set: that saves two
        system calls and one turn for each message of a server that answers.
        """
        acted = False
        batch = self._batch
        ready = _pollers_py.query_now({one.fd: one.want for one in writers})
        try:
            for registration in writers:
                mask = ready.get(registration.fd, 0)
                if not mask or registration.apart or self._batch != batch:
                    self._mark(registration)  # or a nested loop ran, as in _deliver_all()
                else:
                    acted = True
                    self._deliver(registration, mask)
        except BaseException:
            for registration in writers:
                self._mark(registration)
            raise
        self._ask(self._take_touched(), False)
        return acted

    def _settle(self) -> bool:
        """Bring the kernel in line with all that was touched; return whether a handler ran."""
        if not self._touched and len(self._registrations) == len(self.map):
            return False
        writers = self._ask(self._take_touched(), True)
        return self._write_now(writers) if writers else False

    def _sweep(self) -> bool:
        """Ask every channel; return whether a handler ran."""
        start = monotonic() if self._sweep_wanted else 0.0
        self._counts.sweeps += 1
        if len(self._registrations) != len(self.map):
            self._reconcile()
        self._touched = []
        writers = self._ask([*self._registrations.values()], True)
        if self._touched:  # by predicates, or entries of the map that others replaced
            writers += self._ask(self._take_touched(), True)
        if start:
            end = monotonic()
            self._sweep_wanted = False
            self._sweep_due = end + max((end - start) * SWEEP_SHARE, SWEEP_PAUSE)
        return self._write_now(writers) if writers else False

    def _look_for_closed(self) -> None:
        """Close the channels whose socket was closed by others.

        epoll and kqueue forget such a descriptor silently.  Looked for when nothing happens, and
        now and then.  (One that was only detached from its socket object is still open.)
        """
        start = monotonic()
        if start < self._look_due:
            return
        for registration in list(self._registrations.values()):
            if registration.apart:
                continue
            sock = getattr(registration.obj, "socket", None)
            if type(sock) is not _socket_class or sock.fileno() >= 0:
                continue
            fd = registration.fd
            if _pollers_py.query_now({fd: READ}).get(fd, 0) & INVALID:
                registration.set_apart(RESTING)
                self._mark(registration)
                self._call(registration, registration.obj.handle_close)
        if len(self._registrations) > SWEEP_ALWAYS:
            end = monotonic()
            self._look_due = end + (end - start) * LOOK_SHARE

    def _prepare(self) -> bool:
        """Ask those that were touched, and all others where that is affordable.

        Returns whether a handler ran.
        """
        self._sweep_wanted = True
        if self._strict or monotonic() >= self._sweep_due:
            return self._sweep()
        return self._settle()

    # -- one turn ------------------------------------------------------------------------

    def _drive(
        self,
        timeout: float | None,
        count: float | None,
        until_empty: bool,
        until_idle: bool,
        reports: bool,
        disconnect_closes: bool,
    ) -> None:
        """Take turns until stop(), until `count` of them, until the map is empty or all is idle."""
        driver = get_ident()
        with self._lock:
            self._open()
            nested = driver in self._drivers
            self._drivers.append(driver)
        outer, self._manner = self._manner, (reports, disconnect_closes)
        outer_stops = self._stopping
        if nested:
            self._stopping = False  # that is about the outer one
        self._moment += 1  # the program's own code ran since the last call
        turns = 0
        sweep, turn = self._sweep, self._turn
        try:
            while count is None or turns < count:
                if self._handed:
                    self._take_handed()
                acted = sweep() if len(self.map) <= SWEEP_ALWAYS else self._prepare()
                if not self.map and (until_empty or (until_idle and not self._has_pending())):
                    return
                # A handler that ran just now was this turn's work, if turns are counted.
                turn(timeout, acted and (turns == 0 or count is not None))
                turns += 1
                if self._stopping:
                    break
            self._settle()
        finally:
            with self._lock:
                self._drivers.remove(driver)
            if nested:
                if outer_stops or self._stopping:
                    self.stop()  # the outer one too, and it must not wait
            elif not self._drivers:
                self._stopping = False
            else:
                self.wakeup()  # it may be in a wait whose wake-up was taken here
            self._manner = outer
            self._batch += 1  # what an outer turn has still to deliver may be stale
            if not self._drivers:
                self._take_handed()

    def _has_pending(self) -> bool:
        return bool(self._ready) or self._next_timer() != inf

    def _turn(self, timeout: float | None, at_once: bool) -> None:
        """Wait until something happens and deliver it; do not wait if it is to be `at_once`."""
        self._counts.turns = turns = self._counts.turns + 1
        if at_once or self._scheduled or self._sweep_wanted:
            events = self._wait_for_what_is_due(timeout, at_once)
        elif timeout is not None and timeout <= QUIET:
            events = self._wait(timeout)
        else:
            events = self._wait(QUIET)
            if not events:
                self._look_for_closed()
                rest = None if timeout is None else timeout - QUIET
                events = self._wait_for_what_is_due(rest, bool(self._touched))
        if events:
            self._deliver_all(events)
            if turns % LOOK_EVERY == 0:
                self._look_for_closed()
        else:
            self._look_for_closed()
        if self._scheduled:
            if self._timers:
                self._run_timers()
            if self._ready:
                self._run_ready()
            # In this order: a signal handler or another thread may schedule something meanwhile.
            self._scheduled = False
            if self._timers or self._ready:
                self._scheduled = True

    def _wait_for_what_is_due(self, timeout: float | None, at_once: bool) -> list[tuple[int, int]]:
        """Wait for events until the timeout, the next timer or the sweep that is due."""
        deadline = inf if timeout is None else monotonic() + timeout
        while True:
            due = min(deadline, self._next_timer())
            if self._sweep_wanted:
                due = min(due, self._sweep_due)
            at_once = at_once or self._stopping or bool(self._ready)
            if at_once:
                events = self._wait(0.0)
            else:
                events = self._wait(None if due == inf else max(0.0, due - monotonic()))
            if events or at_once or self._ready:
                return events
            now = monotonic()
            if self._next_timer() <= now:
                return events
            if self._sweep_wanted and (now >= self._sweep_due or now >= deadline):
                at_once = self._sweep()
            elif now >= deadline:
                return events

    def _wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait for events, at most `timeout` seconds."""
        if self._poller is None:
            self._open()
            self._settle()
        driver, outer = get_ident(), self._waiting
        if outer and outer != driver:
            # Another thread waits, and delivers what it finds: the kernel's set is for one.
            sleep(STEP_ASIDE if timeout is None else min(max(timeout, 0.0), STEP_ASIDE))
            return []
        self._waiting = driver
        try:
            events: list[tuple[int, int]] = self._poller.wait(timeout)  # pyright: ignore
        finally:
            self._waiting = outer  # the same thread, where a signal handler waits within the wait
            if self._forgotten:
                self._forget_late()
        return events

    def _forget_late(self) -> None:
        """Do what was left undone while other threads waited on the kernel's set."""
        while self._forgotten and not self._waiting:
            fd, kernel = self._forgotten.pop()
            with contextlib.suppress(OSError):
                self._poller.set(fd, kernel, 0)

    def _deliver_all(self, events: list[tuple[int, int]]) -> None:
        self._batch = batch = self._batch + 1
        self._counts.events += len(events)
        registrations, touched, channels = self._registrations, self._touched, self.map
        for fd, mask in events:
            try:
                registration = registrations[fd]
            except KeyError:
                self._take_own(fd, mask)
                continue
            if mask != READ or registration.want != READ:
                if registration.born < batch:
                    self._deliver(registration, mask)
            else:
                # What most events are, without the call of _deliver().  It is not newly born: it
                # was asked, and the kernel told.
                if not registration.touched:
                    registration.touched = True
                    touched.append(registration)
                obj = registration.obj
                if channels.get(fd) is not obj:
                    continue
                asking = True
                try:
                    if registration.asked == self._moment or obj.readable():
                        asking = False
                        self._moment += 1
                        obj.handle_read_event()
                except BaseException as error:
                    if not self._caught(registration, error, asking):
                        raise
            if self._batch != batch:
                # A nested loop ran and may have taken what the rest of this batch is about.
                # Readiness is level-triggered: what still holds is reported again.
                return

    def _take_own(self, fd: int, mask: int) -> None:
        """Take an event that is no channel's: a wake-up, or a sign to make the set anew."""
        if fd < 0:
            self._rebuild()
        elif self._wake is not None and fd == self._wake[0].fileno():
            self._drain_wakeups()
        elif mask & INVALID and self._poller is not None:
            # Closed by another thread while this one told the kernel of it: left in the set it
            # would be reported for ever, and with select() nothing else.
            self._poller.set(fd, READ, 0)

    def _deliver(self, registration: _Registration, mask: int) -> None:
        """Call the handlers of one channel: read, write, urgent data; never a stranger's."""
        if not registration.touched:
            registration.touched = True
            self._touched.append(registration)
        obj = registration.obj
        if self.map.get(registration.fd) is not obj:
            return
        want = registration.want
        writing = mask != READ and mask & _WRITABLE and want & WRITE
        if mask != WRITE and mask & _READABLE and want & READ:
            asking = True
            try:
                # Asked once more, if a handler ran since: it may have changed the answer.
                if registration.asked == self._moment or obj.readable():
                    asking = False
                    self._moment += 1
                    obj.handle_read_event()
            except BaseException as error:
                if not self._caught(registration, error, asking):
                    raise
            if mask == READ or not self._is_current(registration):
                return
        elif mask & HANGUP and want & WRITE:
            writing = WRITE  # nobody reads here: only a write can meet the end
        if writing:
            asking = True
            try:
                if registration.asked == self._moment or obj.writable():
                    asking = False
                    self._moment += 1
                    obj.handle_write_event()
            except BaseException as error:
                if not self._caught(registration, error, asking):
                    raise
        if mask != WRITE and mask & (URGENT | INVALID) and self._is_current(registration):
            if mask & INVALID:
                self._call(registration, obj.handle_close)
            elif want:
                self._call(registration, obj.handle_expt_event)

    def _call(self, registration: _Registration, handler: Callable[[], Any]) -> None:
        self._moment += 1
        try:
            handler()
        except BaseException as error:
            if not self._caught(registration, error, False):
                raise

    def _caught(self, registration: _Registration, error: BaseException, asking: bool) -> bool:
        """Tell the channel of its exception, if it is one that stays here."""
        if isinstance(error, self.passed_through) or (asking and not self._manner[0]):
            return False
        self._failed(registration, error)
        return True

    def _failed(self, registration: _Registration, error: BaseException) -> None:
        """Tell the channel of its exception, while that is active."""
        obj = registration.obj
        if isinstance(error, OSError):
            if registration.apart & RESTING and error.errno in EXHAUSTED:
                return  # accept() has seen to it
            if self._manner[1] and error.errno in DISCONNECTED:
                handler = obj.handle_close
            else:
                handler = obj.handle_error
        else:
            handler = obj.handle_error
        if not self._manner[0]:
            handler()
            return
        try:
            handler()
        except self.passed_through:
            raise
        except BaseException as failure:
            self._report(failure, obj, "a channel's handler raised")

    def _report(self, error: BaseException, source: Any, message: str) -> None:
        self.exception_handler({"message": message, "exception": error, "source": source})

    def exception_handler(self, context: dict[str, Any]) -> None:
        """Take note of an exception that nobody handled; defined by Loop."""
        raise NotImplementedError

    def _after_fork(self) -> None:
        """In a child: leave the parent's kernel set alone and start an own one when needed."""
        self._lock = RLock()  # another thread may have held the old one
        self._release()
        self._waiting = 0  # the other threads are not here
        self._drivers = [driver for driver in self._drivers if driver == get_ident()]
        for registration in self._registrations.values():
            registration.kernel = 0
            self._mark(registration)
        if not self._drivers:
            self._take_handed()


def _close_both(receiver: socket.socket, sender: socket.socket) -> None:
    receiver.close()
    sender.close()


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for engine in list(_engines):
        engine._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
