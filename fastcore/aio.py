"""asyncio beside asyncore, in one thread: a running asyncio loop serves the channels of a map.

`attach()` has it do so; `connected()`, `closed()` and `received()` let a coroutine wait for what
happens to a channel, and `create_task()` lets a handler begin what awaits.  Any asyncio loop that
has `add_reader()` will do: uvloop's, too.

Knows the public loop and the names of a channel's methods; must not know kernels or engines.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import Coroutine, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from . import loop as _loop
from ._attachment import Attachment, attach, attachment_of, stands, wake

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Attachment", "Received", "attach", "closed", "connected", "create_task", "received"]

_Result = TypeVar("_Result")

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
            if not stands(channel):
                error = errors[-1] if errors else None
                if isinstance(error, OSError):
                    raise error
                raise ConnectionAbortedError(f"{channel!r} was closed, not connected") from error
            await attachment_of(channel).connected_or_gone(channel)


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
    while stands(channel):
        attachment = attachment_of(channel)
        await attachment.gone_or(channel, attachment.new_future())


def received(channel: Any, *, size: int = 65536, waiting: int = 16) -> Received:
    """Return an asynchronous iterator of what a channel receives.

    Of a `dispatcher` that is pieces of at most `size` bytes; of an `async_chat`, what came up to
    each terminator, without it, and at the end what came behind the last one.  It ends when the
    channel does.  The channel is not read while `waiting` pieces or more wait to be taken.

    From now until the end, or `close()`, the channel's handle_read() (of an async_chat,
    collect_incoming_data() and found_terminator()) and readable() are replaced on this instance.
    Its map must be attached (RuntimeError).
    """
    return Received(attachment_of(channel), channel, size, waiting)


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
            if self._ended or not stands(self._channel):
                return self._take_last()
            self._future = self._attachment.new_future()
            try:
                await self._attachment.gone_or(self._channel, self._future)
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
        if stands(self._channel):
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
            wake(self._future)


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
