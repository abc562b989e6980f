"""A map of channels that a running asyncio loop, its host, serves; aio.py is its public face.

Knows the public loop and the host; must not know kernels, nor who waits for what in coroutines.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import MutableMapping
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import loop as _loop
from ._default import get_loop

if TYPE_CHECKING:
    from typing_extensions import Self

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
            future = self.new_future()
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
                wake(future)
        for future, channel in self._connecting.items():
            if channel.connected or not stands(channel):
                wake(future)
        if everybody or self._all_in_doubt:
            self._all_in_doubt = False
            self._gone.extend(self._ending)
        while self._gone:
            for future, channel in self._ending.get(self._gone.popleft(), {}).items():
                if not stands(channel):
                    wake(future)

    def _end_waiting(self, error: Exception | None) -> None:
        for future in self._emptied:
            wake(future, error)
        lost = error or RuntimeError("the channel's map is no longer served here")
        for futures in [self._connecting, *self._ending.values()]:
            for future in futures:
                wake(future, lost)

    def new_future(self) -> asyncio.Future[None]:
        """Return a future of the host's."""
        return self._host.create_future()

    async def connected_or_gone(self, channel: Any) -> None:
        """Wait until `channel` is connected, or has left the map."""
        future = self.new_future()
        self._connecting[future] = channel
        try:
            await future
        finally:
            del self._connecting[future]

    async def gone_or(self, channel: Any, future: asyncio.Future[None]) -> None:
        """Wait until `channel` has left the map, or for `future`, which somebody else may wake."""
        fd = channel._fileno
        self._ending.setdefault(fd, {})[future] = channel
        try:
            await future
        finally:
            del self._ending[fd][future]
            if not self._ending[fd]:
                del self._ending[fd]


def wake(future: asyncio.Future[None], error: Exception | None = None) -> None:
    """Wake who waits for it, by `error` where there is one; does nothing where it is done."""
    if not future.done():
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def stands(channel: Any) -> bool:
    """Whether a channel stands in its map."""
    fd = channel._fileno
    return fd is not None and channel._map.get(fd) is channel


def attachment_of(channel: Any) -> Attachment:
    """Return what serves a channel's map in the running loop, else raise RuntimeError."""
    loop = _loop._loops.get(id(channel._map))
    attachment: Attachment | None = None if loop is None else loop._attachment
    if attachment is None or attachment._host is not asyncio.get_running_loop():
        raise RuntimeError(f"attach() the map of {channel!r} to this asyncio loop first")
    return attachment
