"""Ending well: who has something to send sends it, within a deadline, and the map is empty then.

    draining.drain_on_signals(timeout=20.0)
    asyncore.loop()

Knows dispatchers and the public loop; must not know engines.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from . import asyncore, loop as _loop
from ._mixins import waits_to_send

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Drain", "DrainOnSignals", "drain", "drain_on_signals", "is_busy"]

# How often those that were busy are asked, in seconds.
_LOOK_EVERY = 0.02

# By the identity of the map, which they hold.
_drains: dict[int, Drain] = {}


def is_busy(channel: Any) -> bool:
    """Whether a channel has something to finish: what its own `is_busy()` says, if it has one.

    Else it is busy while it connects, and while something waits to be sent: while it is connected
    and its `writable()` says yes, but for a dispatcher whose `writable()` is the standard one.
    """
    own = getattr(channel, "is_busy", None)
    if callable(own):
        return bool(own())
    if getattr(channel, "connecting", False) and not getattr(channel, "connected", False):
        return True
    return waits_to_send(channel)


def drain(
    map: MutableMapping[int, Any] | None = None,
    timeout: float = 30.0,
    busy: Callable[[Any], bool] = is_busy,
) -> Drain:
    """End a map well; does not wait for that: the loop goes on, and `asyncore.loop()` returns.

    Listeners are closed at once, and so are channels that are not `busy(channel)`; the others when
    they no longer are, and after `timeout` seconds all that are left.  Files and sockets without a
    connection (pipes, triggers, UDP) stay while anybody is busy.  They are closed by `close()`.
    `map` defaults to asyncore's.  Call it in the loop's thread, or by call_soon_threadsafe().
    While a map is being drained, the earlier of two deadlines counts.
    """
    if map is None:
        map = asyncore.socket_map
    if not timeout >= 0:
        raise ValueError(f"timeout must be a number of seconds >= 0, not {timeout!r}")
    known = _drains.get(id(map))
    if known is None:
        known = _drains[id(map)] = Drain(map, busy)
    known._begin(timeout)
    return known


class Drain:
    """What drain() has set going: `finished`, and how many channels were closed in which way.

    `idle`: closed at once.  `done`: were busy, and have finished or have closed by themselves.
    `cut`: were busy to the end.
    """

    def __init__(self, map: MutableMapping[int, Any], busy: Callable[[Any], bool]) -> None:
        self.finished: bool = False
        self.idle: int = 0
        self.done: int = 0
        self.cut: int = 0
        self._map = map
        self._busy = busy
        self._waited_for: set[int] = set()  # the identities of those that were busy
        self._loop: Any = None
        self._deadline = float("inf")
        self._timer: Any = None
        self._keeper: Any = None
        self._then: list[Callable[[], Any]] = []

    def then(self, callback: Callable[[], Any]) -> None:
        """Call `callback()` when it is finished, and before the loop returns."""
        self._then.append(callback)

    def _begin(self, timeout: float) -> None:
        self._loop = _loop.get_loop(self._map)
        self._deadline = min(self._deadline, self._loop.time() + timeout)
        if self._timer is None:
            self._timer = self._loop.call_every(_LOOK_EVERY, self._look)
            self._keeper = _Keeper(self)
        self._look()

    def _look(self) -> None:
        """Close those that are not busy, and at the end all."""
        late = self._loop.time() >= self._deadline
        busy: list[Any] = []
        helpers: list[Any] = []
        for channel in list(self._map.values()):
            if channel is self._keeper:
                continue
            if getattr(channel, "accepting", False):
                self._close(channel)
            elif self._is_busy(channel):
                busy.append(channel)
            elif _is_connection(channel):
                self._count(channel)
                self._close(channel)
            else:
                helpers.append(channel)
        self._waited_for |= set(map(id, busy))
        if late or not busy:
            for channel in busy:
                self.cut += 1
                self._waited_for.discard(id(channel))
                self._close(channel)
            for channel in helpers:
                self._close(channel)
            if late:
                asyncore.close_all(self._map, ignore_all=True)
            if len(self._map) <= 1:
                self._keeper.close()

    def _is_busy(self, channel: Any) -> bool:
        try:
            return self._busy(channel)
        except (asyncore.ExitNow, KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            self._close(channel)
            return False

    def _count(self, channel: Any) -> None:
        if id(channel) not in self._waited_for:
            self.idle += 1

    def _close(self, channel: Any) -> None:
        try:
            channel.close()
        except (asyncore.ExitNow, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            message = "a channel could not be closed"
            self._loop.exception_handler(
                {"message": message, "exception": error, "source": channel}
            )

    def _end(self) -> None:
        if self.finished:
            return
        self.finished = True
        self.done = len(self._waited_for)
        self._timer.cancel()
        if _drains.get(id(self._map)) is self:
            del _drains[id(self._map)]
        for callback in self._then:
            callback()


class _Keeper(asyncore.dispatcher):
    """Keeps the map from being empty, and so the loop from returning, before all is done."""

    def __init__(self, owner: Drain) -> None:
        self._owner = owner
        asyncore.dispatcher.__init__(self, None, owner._map)
        self.create_socket(socket.AF_INET, socket.SOCK_DGRAM)

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return False

    def close(self) -> None:
        asyncore.dispatcher.close(self)
        self._owner._end()


def _is_connection(channel: Any) -> bool:
    """Whether it is a channel with a peer, and no file."""
    file_dispatcher = getattr(asyncore, "file_dispatcher", ())
    return getattr(channel, "connected", False) and not isinstance(channel, file_dispatcher)


def drain_on_signals(
    map: MutableMapping[int, Any] | None = None,
    timeout: float = 30.0,
    signals: Iterable[int] = (signal.SIGTERM, signal.SIGINT),
    busy: Callable[[Any], bool] = is_busy,
) -> DrainOnSignals:
    """Have drain() called when one of `signals` arrives; a second one closes all at once.

    Only in the main thread (ValueError elsewhere).  The signals do what they did before once the
    map was drained, and after close() of what is returned, which a `with` block calls.
    """
    chosen = asyncore.socket_map if map is None else map
    return DrainOnSignals(chosen, timeout, tuple(signals), busy)


class DrainOnSignals:
    """The signals of drain_on_signals(); `drain` is the Drain, None as long as none has come."""

    def __init__(
        self,
        map: MutableMapping[int, Any],
        timeout: float,
        signals: tuple[int, ...],
        busy: Callable[[Any], bool],
    ) -> None:
        self.drain: Drain | None = None
        self._map = map
        self._timeout = timeout
        self._signals = signals
        self._busy = busy
        self._loop = _loop.get_loop(map)
        for number in signals:
            self._loop.add_signal_handler(number, self._arrived)

    def _arrived(self) -> None:
        timeout = self._timeout if self.drain is None else 0.0
        self.drain = drain(self._map, timeout, self._busy)
        self.drain.then(self.close)

    def close(self) -> None:
        """Have the signals do what they did before; closing again does nothing."""
        signals, self._signals = self._signals, ()
        for number in signals:
            self._loop.remove_signal_handler(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
