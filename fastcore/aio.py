"""asyncio beside asyncore, in one thread: a running asyncio loop serves the channels of a map.

`attach()` has it do so; `connected()`, `closed()` and `received()` let a coroutine wait for what
happens to a channel, and `create_task()` lets a handler begin what awaits.  Any asyncio loop that
has `add_reader()` will do: uvloop's, too.

Knows the public loop and the names of a channel's methods; must not know kernels or engines.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import deque
from collections.abc import Coroutine, Generator, MutableMapping
from functools import partial
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from . import loop as _loop
from ._default import get_loop

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Attachment", "Received", "attach", "closed", "connected", "create_task", "received"]

_Result = TypeVar("_Result")

# When nothing has happened for that many seconds there is one turn more, in which sockets are found
# that were closed without the loop's knowledge, and answers that changed without it.
QUIET = 0.1

# The host's timer is set for that many seconds at most: not every host takes more.
LONGEST = 86400.0


def attach(map: MutableMapping[int, Any] | None = None) -> Attachment:
    """Have the running asyncio loop serve `map` (default: asyncore.socket_map).

    Its channels, timers and callbacks are served as things happen, in this thread, until the
    returned Attachment is closed.  Raises RuntimeError where no asyncio loop runs, where one serves
    the map already, and within a handler that asyncore.loop() has called; ValueError where the
    map's poller has no descriptor to wait on (poll and select); NotImplementedError where the
    asyncio loop has no `add_reader()`.
    """
    host = asyncio.get_running_loop()
    loop = get_loop(map)
    known: Attachment | None = loop._attachment
    if known is not None:
        if not known._is_stale(host):
            raise RuntimeError("this map is attached already: close() that attachment first")
        known._drop(None)
    return Attachment(loop, host)


class Attachment:
    """A map that a running asyncio loop, its host, serves; made by attach().

    `close()` ends it, or the end of a `with` block.  It may be called, from any thread: that tells
    it that something has changed without any method of a channel.
    """

    def __init__(self, loop: _loop.Loop, host: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._host = host
        self._engine = loop._engine
        self._pid = os.getpid()
        self._attached = True
        self._fd = -1  # what the host waits for
        self._sets = -1  # how many kernel sets there were when that was told to the host
        self._queued = False  # a turn is among the host's callbacks
        self._timer: asyncio.TimerHandle | None = None
        self._armed = inf  # the time of the host's timer, on the engine's clock
        self._looks = False  # a quiet look follows that timer, or is what it is for
        self._is_for_look = False
        self._active = False  # there was a turn since
        self._all_in_doubt = False  # somebody has changed something by hand
        self._emptied: set[asyncio.Future[None]] = set()  # these wait for an empty map,
        self._connecting: dict[asyncio.Future[None], Any] = {}  # for a channel to be connected,
        self._ending: dict[int, dict[asyncio.Future[None], Any]] = {}  # or to leave the map
        self._gone: deque[int] = deque()  # descriptors that have left it
        self._engine.set_host(self._tell)
        try:
            self._watch()
        except BaseException:
            self._engine.set_host(None)
            raise
        loop._attachment = self
        self._tell()

    # -- for everybody -------------------------------------------------------------------------

    @property
    def attached(self) -> bool:
        """Whether the map is still served."""
        return self._attached

    def __call__(self) -> None:
        """Note that answers of channels, or the map, have changed by hand; from any thread."""
        self._all_in_doubt = True
        self._engine.ask_all()

    async def wait(self) -> None:
        """Wait until the map is empty, or no longer served.

        Raises ExitNow where that has left the loop meanwhile.
        """
        if self._attached and self._loop.map:
            future = self._host.create_future()
            self._emptied.add(future)
            try:
                await future
            finally:
                self._emptied.discard(future)

    def close(self) -> None:
        """Have the host serve the map no longer; closing again does nothing.

        Channels and timers stay, for asyncore.loop() or another attach().
        """
        if self._is_elsewhere():
            self._host.call_soon_threadsafe(self._drop, None)
        else:
            self._drop(None)

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
        state = "attached" if self._attached else "closed"
        return f"<fastcore.aio.Attachment {state}, of {self._loop!r}>"

    # -- turns -----------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Have a turn taken soon; called by the engine, in any thread."""
        self._queued = True
        try:
            if self._is_elsewhere():
                self._host.call_soon_threadsafe(self._take_queued_turn)
            else:
                self._host.call_soon(self._take_queued_turn)
        except RuntimeError:
            if not self._host.is_closed():
                raise
            self._drop(None)

    def _is_elsewhere(self) -> bool:
        """Whether the host runs in another thread."""
        if asyncio._get_running_loop() is self._host:
            return False
        # In a child of fork it seems to run, and may go on when the code that forked returns.
        return self._host.is_running() and os.getpid() == self._pid

    def _is_stale(self, host: asyncio.AbstractEventLoop) -> bool:
        """Whether its own host will serve no more, now that `host` runs."""
        left_behind = os.getpid() != self._pid and host is not self._host
        return self._host.is_closed() or left_behind

    def _take_queued_turn(self) -> None:
        if self._queued:
            self._turn()

    def _take_timed_turn(self) -> None:
        self._timer, self._armed, self._looks = None, inf, False
        is_for_look, self._is_for_look = self._is_for_look, False
        self._turn(self._active or not is_for_look)

    def _turn(self, looks: bool = True) -> None:
        """Take a turn that does not wait, and see to it that the next one comes in time.

        With `looks` a quiet look follows, unless one is going to already.
        """
        self._queued = False
        if not self._attached:
            return
        if self._engine.closed:
            self._drop(None)
            return
        try:
            sets, due = self._engine.serve(_loop.HOSTED)
        except BaseException as error:
            self._drop(error)
            raise
        if not self.attached:  # a handler has closed it
            self._loop._tidy()
            return
        if sets != self._sets:
            self._sets = sets
            self._watch()
        if self._emptied or self._connecting or self._ending:
            self._tell_waiting(not looks)
        self._active = looks
        if due < self._armed or (looks and not self._looks):
            self._arm(due, looks)

    def _watch(self) -> None:
        """Have the host wait for the kernel's set, perhaps another one under the old number."""
        try:
            number = self._engine.fileno()
        except ValueError as error:
            raise ValueError(
                f"{error}: choose epoll or kqueue with FASTCORE_POLLER, or make the map's loop "
                "before, fastcore.Loop(map=map, poller=...)"
            ) from None
        if self._fd >= 0:
            self._host.remove_reader(self._fd)
        self._host.add_reader(number, self._turn)
        self._fd = number

    def _arm(self, due: float, looks: bool) -> None:
        """Set the host's timer, where what it is to be set for comes before what it is set for."""
        now = self._engine.time()
        if due <= now:
            if not self._queued:
                self._queued = True
                self._host.call_soon(self._take_queued_turn)
            return
        look = now + QUIET if looks and not self._looks else inf
        when = min(due, look, now + LONGEST)
        if when >= self._armed or min(due, look) == inf:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._host.call_later(when - now, self._take_timed_turn)
        self._armed, self._is_for_look = when, look < due
        self._looks, self._active = when <= now + QUIET, False

    def _drop(self, error: BaseException | None) -> None:
        """Serve the map no longer; `error` is what has left the loop."""
        if not self._attached:
            return
        self._attached = False
        self._engine.set_host(None)
        self._loop._attachment = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._host.is_closed():
            self._host.remove_reader(self._fd)
            self._end_waiting(error if isinstance(error, Exception) else None)
        self._loop._tidy()

    # -- for those who wait ----------------------------------------------------------------------

    def _note_gone(self, fd: int) -> None:
        """Note that `map[fd]` is gone; called by the loop, in any thread."""
        if fd in self._ending:
            self._gone.append(fd)

    def _tell_waiting(self, everybody: bool) -> None:
        """Wake those for whom something has happened; look at `everybody`, or where it was told."""
        if not self._loop.map:
            for future in self._emptied:
                _wake(future)
        for future, channel in self._connecting.items():
            if channel.connected or not _stands(channel):
                _wake(future)
        if everybody or self._all_in_doubt:
            self._all_in_doubt = False
            self._gone.extend(self._ending)
        while self._gone:
            for future, channel in self._ending.get(self._gone.popleft(), {}).items():
                if not _stands(channel):
                    _wake(future)

    def _end_waiting(self, error: Exception | None) -> None:
        for future in self._emptied:
            _wake(future, error)
        lost = error or RuntimeError("the channel's map is no longer served here")
        for futures in [self._connecting, *self._ending.values()]:
            for future in futures:
                _wake(future, lost)

    async def _connected_or_gone(self, channel: Any) -> None:
        future = self._host.create_future()
        self._connecting[future] = channel
        try:
            await future
        finally:
            del self._connecting[future]

    async def _gone_or(self, channel: Any, future: asyncio.Future[None]) -> None:
        """Wait until `channel` has left the map, or for `future`, which somebody else may wake."""
        fd = channel._fileno
        self._ending.setdefault(fd, {})[future] = channel
        try:
            await future
        finally:
            del self._ending[fd][future]
            if not self._ending[fd]:
                del self._ending[fd]


def _wake(future: asyncio.Future[None], error: Exception | None = None) -> None:
    if not future.done():
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def _stands(channel: Any) -> bool:
    """Whether a channel stands in its map."""
    fd = channel._fileno
    return fd is not None and channel._map.get(fd) is channel


def _attachment_of(channel: Any) -> Attachment:
    loop = _loop._loops.get(id(channel._map))
    attachment: Attachment | None = None if loop is None else loop._attachment
    if attachment is None or attachment._host is not asyncio.get_running_loop():
        raise RuntimeError(f"attach() the map of {channel!r} to this asyncio loop first")
    return attachment


# -- channels for coroutines ---------------------------------------------------------------------


async def connected(channel: Any) -> None:
    """Wait until a channel that is connecting is connected, and handle_connect() has run.

    Its map must be attached (RuntimeError).  Raises the OSError with which connecting has failed,
    after the channel's handle_error(), or ConnectionAbortedError where the channel was closed.
    """
    if channel.connected:
        return
    with _noting_errors(channel) as errors:
        while not channel.connected:
            if not _stands(channel):
                error = errors[-1] if errors else None
                if isinstance(error, OSError):
                    raise error
                raise ConnectionAbortedError(f"{channel!r} was closed, not connected") from error
            await _attachment_of(channel)._connected_or_gone(channel)


@contextlib.contextmanager
def _noting_errors(channel: Any) -> Generator[list[BaseException | None], None, None]:
    """Note what the channel's handle_error() is called for."""
    errors: list[BaseException | None] = []
    original = channel.handle_error

    def handle_error() -> None:
        errors.append(sys.exc_info()[1])
        original()

    replaced = _Replaced(channel, {"handle_error": handle_error})
    try:
        yield errors
    finally:
        replaced.put_back()


class _Replaced:
    """Methods that an instance has of its own for a while."""

    def __init__(self, channel: object, methods: dict[str, Any]) -> None:
        self._channel = channel
        self._methods = methods
        own = vars(channel)
        self._before: dict[str, Any] = {name: own[name] for name in methods if name in own}
        for name, method in methods.items():
            setattr(channel, name, method)

    def put_back(self) -> None:
        """Take away those that are still there; doing so again does nothing."""
        methods, self._methods = self._methods, {}
        own = vars(self._channel)
        for name, method in methods.items():
            if own.get(name) is not method:
                continue  # somebody has put another one in its place
            if name in self._before:
                setattr(self._channel, name, self._before[name])
            else:
                delattr(self._channel, name)


async def closed(channel: Any) -> None:
    """Wait until a channel has left its map: it was closed, or taken out.

    Its map must be attached (RuntimeError).
    """
    while _stands(channel):
        attachment = _attachment_of(channel)
        await attachment._gone_or(channel, attachment._host.create_future())


def received(channel: Any, *, size: int = 65536, waiting: int = 16) -> Received:
    """Return an asynchronous iterator of what a channel receives.

    Of a `dispatcher` that is pieces of at most `size` bytes; of an `async_chat`, what came up to
    each terminator, without it, and at the end what came behind the last one.  It ends when the
    channel does.  The channel is not read while `waiting` pieces or more wait to be taken.

    From now until the end, or `close()`, the channel's handle_read() (of an async_chat,
    collect_incoming_data() and found_terminator()) and readable() are replaced on this instance.
    Its map must be attached (RuntimeError).
    """
    return Received(_attachment_of(channel), channel, size, waiting)


class Received:
    """What a channel receives, piece by piece; made by received()."""

    def __init__(self, attachment: Attachment, channel: Any, size: int, waiting: int) -> None:
        self._attachment = attachment
        self._channel = channel
        self._size = size
        self._most = waiting
        self._pieces: deque[bytes] = deque()
        self._partial: list[bytes] = []
        self._ended = False
        self._future: asyncio.Future[None] | None = None  # the one that waits
        self._may_read = channel.readable
        methods: dict[str, Any] = {"readable": self._readable}
        if hasattr(channel, "collect_incoming_data"):
            methods["collect_incoming_data"] = self._collect
            methods["found_terminator"] = self._add_collected
        else:
            methods["handle_read"] = self._read
        self._replaced = _Replaced(channel, methods)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._future is not None:
            raise RuntimeError("another coroutine waits for what this channel receives")
        while not self._pieces:
            if self._ended or not _stands(self._channel):
                return self._take_last()
            self._future = self._attachment._host.create_future()
            try:
                await self._attachment._gone_or(self._channel, self._future)
            finally:
                self._future = None
        if len(self._pieces) == self._most:
            self._ask_again()  # it is read from now on
        return self._pieces.popleft()

    def _take_last(self) -> bytes:
        self.close()
        if not self._partial:
            raise StopAsyncIteration
        self._add_collected()
        return self._pieces.popleft()

    def close(self) -> None:
        """End it: the channel has its own methods again."""
        self._ended = True
        self._replaced.put_back()
        self._ask_again()

    def _ask_again(self) -> None:
        if _stands(self._channel):
            self._attachment._engine.touch(self._channel._fileno, self._channel)

    # -- in the place of the channel's methods ---------------------------------------------------

    def _readable(self) -> Any:
        return len(self._pieces) < self._most and self._may_read()

    def _read(self) -> None:
        try:
            data = self._channel.recv(self._size)
        except BlockingIOError:
            return
        if data:
            self._add(data)
        else:
            self._ended = True
            self._wake()

    def _collect(self, data: bytes) -> None:
        if self._channel.get_terminator():
            self._partial.append(data)
        else:
            self._add(data)

    def _add_collected(self) -> None:
        piece = b"".join(self._partial)
        self._partial.clear()
        self._add(piece)

    def _add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._wake()

    def _wake(self) -> None:
        if self._future is not None:
            _wake(self._future)


# -- coroutines for channels ---------------------------------------------------------------------

_tasks: set[asyncio.Task[Any]] = set()  # asyncio itself does not hold them


def create_task(
    coroutine: Coroutine[Any, Any, _Result], *, channel: Any = None, name: str | None = None
) -> asyncio.Task[_Result]:
    """Begin a coroutine from a handler or callback of an attached map; return its task.

    The task is held until it is done.  What it raises goes to the handle_error() of `channel`, as
    if a handler had raised it; without one, to whoever awaits the task, else asyncio logs it.
    Raises RuntimeError where no asyncio loop runs in this thread.
    """
    try:
        host = asyncio.get_running_loop()
    except RuntimeError:
        coroutine.close()  # or Python would complain that nobody awaits it
        raise
    task = host.create_task(coroutine, name=name)
    _tasks.add(task)
    task.add_done_callback(partial(_end_task, channel))
    return task


def _end_task(channel: Any, task: asyncio.Task[Any]) -> None:
    _tasks.discard(task)
    if channel is None or task.cancelled():
        return
    error = task.exception()
    if error is None:
        return
    try:
        raise error
    except _loop.ExitNow:
        loop = _loop._loops.get(id(channel._map))
        if loop is not None and loop._attachment is not None:
            loop._attachment._drop(error)
        raise
    except BaseException:
        channel.handle_error()
