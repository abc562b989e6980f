"""Limits of a server: how many connections, from where, how fast, and what they send unasked.

    class Server(limits.AcceptLimits, asyncore.dispatcher):
        max_connections = 1000
        refusal = b"421 too many connections\\r\\n"

    class Session(limits.LoginLimit, asynchat.async_chat):
        max_bytes_before_login = 10_000

Knows dispatchers and the public loop; must not know engines.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import weakref
from typing import Any

from . import asyncore, loop as _loop
from ._descriptors import file_behind
from ._mixins import MixIn, count, is_open
from ._originals import monotonic

__all__ = ["AcceptLimits", "LoginLimit"]

# A refused peer that has sent something would lose the message to a reset: it is read on, for that
# many seconds and bytes, and not more than so many peers at a time.
_FAREWELL = 1.0
_FAREWELL_BYTES = 65536
_FAREWELLS = 64

# As many peers are refused before others have their turn.
_REFUSED_AT_ONCE = 64

# With more connections than that, a look for those that have ended takes a tenth of the time.
_LOOK_ALWAYS = 256
_LOOK_SHARE = 10


class AcceptLimits(MixIn):
    """A mix-in for a listening dispatcher, named before or after it among the bases.

    `max_connections`: at a time, in all.  `max_connections_per_address`: at a time, by the host of
    the peer's address.  `max_accepts_per_second`: on average, with a burst of as many.  None is no
    limit.  A connection beyond them is not returned by accept(): handle_refused() is called.
    A connection counts until its socket is closed, whatever has become of it meanwhile.
    """

    max_connections: int | None = None
    max_connections_per_address: int | None = None
    max_accepts_per_second: float | None = None

    # What a refused peer is told; and whether it is reset instead.
    refusal: bytes = b""
    refuse_by_reset: bool = False

    _fastcore_census: _Census | None = None
    _fastcore_none_left = False  # accept() has returned None last

    def handle_read_event(self: Any) -> None:
        """As ever; a handle_accept() that was written for accept() without None is no error."""
        further: Any = super()
        try:
            further.handle_read_event()
        except (TypeError, AttributeError) as error:
            if not (self._fastcore_none_left and "NoneType" in str(error)):
                raise

    def handle_refused(self: Any, sock: Any, addr: Any, reason: str) -> None:
        """A connection was refused; `reason` is the name of the limit.

        The default sends `refusal` and closes, or resets where `refuse_by_reset` is true.  Override
        it to do something else with the socket, or call it in the end.
        """
        if self.refuse_by_reset:
            reset(sock)
        else:
            part(sock, self.refusal, self._map)

    def accept(self: Any) -> Any:
        """As ever, but for the connections that are refused; None where no other one waits."""
        further: Any = super()
        self._fastcore_none_left = False
        for _ in range(_REFUSED_AT_ONCE):
            pair = further.accept()
            if pair is None:
                break
            sock, addr = pair
            reason = self._fastcore_admit(sock, addr)
            if reason is None:
                return pair
            count(self._map, "refused")
            try:
                self.handle_refused(sock, addr, reason)
            except BaseException:
                sock.close()
                raise
        self._fastcore_none_left = True
        return None

    def limit_stats(self) -> dict[str, int]:
        """Return how many there are ("connections"), and how many were "accepted" and "refused".

        The refused ones by the names of the limits, too.
        """
        census = self._fastcore_census or _Census()
        census.forget_ended()
        refused = sum(census.refused.values())
        return {
            "connections": len(census.known),
            "accepted": census.accepted,
            "refused": refused,
            **census.refused,
        }

    def _fastcore_admit(self, sock: Any, addr: Any) -> str | None:
        census = self._fastcore_census
        if census is None:
            census = self._fastcore_census = _Census()
        host = addr[0] if isinstance(addr, tuple) and addr else addr  # pyright: ignore
        reason = None
        if census.is_too_fast(self.max_accepts_per_second):
            reason = "max_accepts_per_second"
        elif census.is_full(self.max_connections):
            reason = "max_connections"
        elif census.is_full_of(host, self.max_connections_per_address):
            reason = "max_connections_per_address"
        if reason is None:
            census.add(sock, host)
        else:
            census.refused[reason] = census.refused.get(reason, 0) + 1
        return reason


class _Connection:
    """One connection: its file, whatever objects there are for it."""

    __slots__ = ("file", "host", "number", "sock")

    def __init__(self, sock: Any, host: Any) -> None:
        self.number: int = sock.fileno()
        self.file = None if os.name == "nt" else file_behind(self.number)
        self.sock = weakref.ref(sock)
        self.host = host

    def has_ended(self) -> bool:
        """Whether its descriptor is closed, or another's by now."""
        if self.file is not None:
            return file_behind(self.number) != self.file
        sock = self.sock()
        return sock is None or sock.fileno() < 0


class _Census:
    """The connections of one listener."""

    def __init__(self) -> None:
        self.known: dict[int, _Connection] = {}  # by descriptor
        self.hosts: dict[Any, set[int]] = {}  # their descriptors
        self.accepted = 0
        self.refused: dict[str, int] = {}  # by reason
        self._next_look = 0.0
        self._budget: float | None = None  # accepts that are left of what a second allows
        self._budget_of = 0.0  # the time

    def add(self, sock: Any, host: Any) -> None:
        """Count a connection."""
        new = _Connection(sock, host)
        self._forget(new.number)
        self.known[new.number] = new
        self.hosts.setdefault(host, set()).add(new.number)
        self.accepted += 1
        if len(self.known) >= _LOOK_ALWAYS:
            self._look_when_due()

    def is_full(self, most: int | None) -> bool:
        """Whether there are so many."""
        if most is not None and len(self.known) >= most:
            self._look_when_due()
        return most is not None and len(self.known) >= most

    def is_full_of(self, host: Any, most: int | None) -> bool:
        """Whether there are so many from one address."""
        if most is None or len(self.hosts.get(host, ())) < most:
            return False
        for number in list(self.hosts[host]):
            if self.known[number].has_ended():
                self._forget(number)
        return len(self.hosts.get(host, ())) >= most

    def is_too_fast(self, rate: float | None) -> bool:
        """Whether this one is more than the rate allows; else it is counted."""
        if rate is None:
            return False
        now, most = monotonic(), max(1.0, rate)
        left = most if self._budget is None else self._budget + (now - self._budget_of) * rate
        left = min(left, most)
        self._budget, self._budget_of = (left - 1 if left >= 1 else left), now
        return left < 1

    def forget_ended(self) -> None:
        """Count those no more that have ended."""
        for number, connection in list(self.known.items()):
            if connection.has_ended():
                self._forget(number)

    def _look_when_due(self) -> None:
        start = monotonic()
        if len(self.known) <= _LOOK_ALWAYS or start >= self._next_look:
            self.forget_ended()
            end = monotonic()
            self._next_look = end + (end - start) * _LOOK_SHARE

    def _forget(self, number: int) -> None:
        connection = self.known.pop(number, None)
        if connection is not None:
            numbers = self.hosts[connection.host]
            numbers.discard(number)
            if not numbers:
                del self.hosts[connection.host]


class LoginLimit(MixIn):
    """A mix-in for the channel of a connection, named before or after it among the bases.

    `max_bytes_before_login`: how many bytes recv() may bring until `login_done()` is called, None
    for no limit.  When more comes handle_limit() is called, which closes.
    """

    max_bytes_before_login: int | None = None

    # What the peer is told then; and whether it is reset instead.
    refusal: bytes = b""
    refuse_by_reset: bool = False

    _fastcore_before_login: int | None = 0  # bytes; None: it has logged in

    def login_done(self) -> None:
        """The peer has logged in: the limit is over."""
        self._fastcore_before_login = None

    def handle_limit(self: Any, reason: str) -> None:
        """The limit of that name is reached; the default tells the peer `refusal`, and closes.

        Or it resets, where `refuse_by_reset` is true; in both cases handle_close() is called.
        Override it to do something else: if the channel is open afterwards, counting starts anew.
        """
        self.log_info(f"{reason} reached, closing {self!r}", "error")
        if self.refuse_by_reset:
            with contextlib.suppress(OSError):
                _set_reset(self.socket)
        elif self.refusal:
            with contextlib.suppress(OSError):
                self.send(self.refusal)
                _read_out(self.socket)
        self.handle_close()
        self.close()

    def recv(self: Any, buffer_size: int) -> Any:
        """Count what comes; `b""` where it was too much, and the channel is closed."""
        further: Any = super()
        most, before = self.max_bytes_before_login, self._fastcore_before_login
        if before is None or most is None:
            return further.recv(buffer_size)
        # What is within the limit is passed on first: it may be the login.
        data = further.recv(min(buffer_size, max(most - before, 1)))
        if before < most or not data:
            self._fastcore_before_login = before + len(data)
            return data
        self._fastcore_before_login = len(data)
        count(self._map, "refused")
        self.handle_limit("max_bytes_before_login")
        return data if is_open(self) else b""


# -- how peers are let go ---------------------------------------------------------------------


def reset(sock: Any) -> None:
    """Close a socket so that its peer gets a reset."""
    with contextlib.suppress(OSError):
        _set_reset(sock)
    sock.close()


def _set_reset(sock: Any) -> None:
    linger = struct.pack("HH" if os.name == "nt" else "ii", 1, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


def part(sock: Any, message: bytes, map: Any) -> None:
    """Tell the peer of a fresh connection a few bytes, and close, without waiting for it.

    `map` is where what the peer sends meanwhile is read and forgotten, for a second at most.
    """
    sock.setblocking(False)
    try:
        if message:
            sock.send(message)
        sock.shutdown(socket.SHUT_WR)
        _read_out(sock)
    except OSError:
        sock.close()
        return
    if not message or _Farewell.many >= _FAREWELLS:
        sock.close()
    else:
        _Farewell(sock, map)


def _read_out(sock: Any) -> None:
    """Read what has come: if it is left unread, closing resets, and the message may be lost."""
    left = _FAREWELL_BYTES
    with contextlib.suppress(BlockingIOError):
        while left > 0:
            data = sock.recv(left)
            if not data:
                return
            left -= len(data)


class _Farewell(asyncore.dispatcher):
    """A refused peer, until it has closed."""

    many = 0

    def __init__(self, sock: Any, map: Any) -> None:
        self.left = _FAREWELL_BYTES
        try:
            asyncore.dispatcher.__init__(self, sock, map)
        except OSError:
            sock.close()
            return
        _Farewell.many += 1
        self.timer = _loop.get_loop(self._map).call_later(_FAREWELL, self.close)

    def writable(self) -> bool:
        return False

    def handle_read(self) -> None:
        try:
            self.left -= len(self.recv(self.left))
        except BlockingIOError:
            return
        if self.left <= 0:
            self.close()

    def handle_close(self) -> None:
        self.close()

    def handle_error(self) -> None:
        self.close()

    def close(self) -> None:
        if self._fileno is not None:
            _Farewell.many -= 1
            self.timer.cancel()
        asyncore.dispatcher.close(self)
