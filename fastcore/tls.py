"""TLS for channels: the mix-in `TLS`, whose start_tls() begins it, at once or in mid-stream.

    class Server(TLS, asynchat.async_chat):
        def __init__(self, sock, map=None):
            super().__init__(sock, map)
            self.start_tls(context, server_side=True)

While the handshake lasts, and whenever TLS waits for something that the channel does not know of, a
stand-in takes the channel's place in the map.  So the channel's own readable(), writable() and
handlers are none of this module's business.  Knows channels and the loop; must not know protocols.
"""

from __future__ import annotations

import ssl
import weakref
from collections.abc import Callable
from itertools import takewhile
from typing import Any, Literal

from . import asynchat, asyncore, loop as _loop
from ._engine import held_back
from ._tls_errors import ClearTextRefused, HandshakeTimeout, NotYet
from ._tls_socket import NOTHING, READ, TLSSocket

__all__ = ["TLS", "ClearTextRefused", "HandshakeTimeout", "NotYet", "TLSSocket"]

_DEFAULT: Any = object()


class TLS:
    """A mix-in for dispatchers of any kind, before or after them among the bases.

    `handshake_timeout` (seconds; None: no limit) stands for that of start_tls() where none is
    given.
    """

    handshake_timeout: float | None = 60.0

    _fastcore_tls: Any = None  # makes the socket that was asked for, while there is none

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        inherited = cls.add_channel
        if inherited is TLS.add_channel:
            return

        def add_channel(self: Any, *args: Any, **named: Any) -> None:
            inherited(self, *args, **named)
            _stand_in(self)

        add_channel.__doc__ = inherited.__doc__
        cls.add_channel = add_channel  # type: ignore[method-assign]

    def add_channel(self, map: Any = None) -> None:
        """Stand in `map`, as any dispatcher; while a handshake lasts, a stand-in does so."""
        further: Any = super()
        if hasattr(further, "add_channel"):
            further.add_channel(map)
        else:  # this class comes after the dispatcher
            asyncore.dispatcher.add_channel(self, map)  # type: ignore[arg-type]
        _stand_in(self)

    def start_tls(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        handshake_timeout: float | None = _DEFAULT,
        session: ssl.SSLSession | None = None,
        received: Literal["refuse", "keep"] | bytes = "refuse",
        suppress_ragged_eofs: bool = False,
    ) -> None:
        """Encrypt from now on: whatever is sent after this call, and whatever comes.

        May be called before the channel has a socket, before it is connected, and in mid-stream:
        what was pushed before is sent first, in the clear.  `context`, `server_side`,
        `server_hostname` and `session` are what SSLContext.wrap_bio() takes.

        `handshake_timeout`, in seconds (None: no limit; default: the attribute), counts from the
        moment when the connection stands; then handle_error() is told of HandshakeTimeout.
        handle_handshake() is called when the handshake is done; where it fails, handle_error() has
        the SSLError.

        `received` is about what the peer has sent behind the command that begins TLS, in an
        async_chat: "refuse" raises ClearTextRefused, and drops it; "keep" takes it for the first
        bytes of TLS, and so are bytes taken that are given here.  `suppress_ragged_eofs`: where
        the connection ends without a word of TLS, recv() returns b"", instead of raising
        SSLEOFError.

        Raises RuntimeError for a listener, and where TLS has begun before; ValueError where a
        `server_hostname` is missing that the context wants to check, or given by a server.
        """
        channel: Any = self
        sock = getattr(channel, "socket", None)
        has_tls = isinstance(sock, ssl.SSLSocket) or (
            isinstance(sock, TLSSocket) and not sock.closed
        )
        if has_tls or self._fastcore_tls is not None:
            raise RuntimeError("this channel has TLS already")
        if channel.accepting:
            raise RuntimeError("a listener has no TLS: what it accepts has")
        if server_side and server_hostname is not None:
            raise ValueError("server_hostname is for clients")
        if context.check_hostname and not server_side and not server_hostname:
            raise ValueError("the context checks names: it needs a server_hostname")
        first = _take_received(channel, received)
        before = _take_waiting(channel) if sock is not None else []
        timeout = self.handshake_timeout if handshake_timeout is _DEFAULT else handshake_timeout

        def make(sock: Any, stuck: Callable[[], None]) -> TLSSocket:
            secure = TLSSocket(
                sock,
                context,
                server_side=server_side,
                server_hostname=server_hostname,
                session=session,
                before=before,
                received=first,
                ragged=suppress_ragged_eofs,
                stuck=stuck,
            )
            secure.handshake_timeout = timeout
            return secure

        self._fastcore_tls = make
        _stand_in(channel)

    def handle_handshake(self) -> None:
        """The handshake is done; to be overridden.  `self.socket` knows what was agreed upon."""


# -- what has been received, and what waits to be sent ---------------------------------------------


def _take_received(channel: Any, received: Any) -> bytes:
    """Return what of the peer's TLS was read before; raise where it was clear text."""
    if not isinstance(received, str):
        return bytes(received)
    if received not in ("refuse", "keep"):
        raise ValueError(f'received is "refuse", "keep" or bytes, not {received!r}')
    if not isinstance(channel, asynchat.async_chat):
        return b""
    data: bytes = getattr(channel, "ac_in_buffer", b"")
    if not data:
        return b""
    channel.ac_in_buffer = b""
    if received == "keep":
        return data
    raise ClearTextRefused(
        1,
        f"the peer has sent {len(data)} bytes in the clear behind the command that begins TLS "
        '(received="keep" takes them for the beginning of TLS)',
    )


def _take_waiting(channel: Any) -> list[Any]:
    """Return what waits to be sent in the clear, and have it wait no longer where it did."""
    if id(channel) in held_back:
        held_back[id(channel)].release(channel)
    waiting: list[Any] = []
    if isinstance(channel, asynchat.async_chat):
        fifo: Any = getattr(channel, "producer_fifo", ())
        for piece in takewhile(lambda each: each is not None, list(fifo)):
            fifo.popleft()
            if isinstance(piece, str) and channel.use_encoding:
                piece = bytes(piece, channel.encoding)
            waiting.append(piece)
    elif isinstance(channel, asyncore.dispatcher_with_send):
        waiting.append(channel.out_buffer)
        channel.out_buffer = b""
    return waiting


# -- the channel's place in the map ----------------------------------------------------------------


def _replace(channel: Any, ours: Any) -> None:
    """Let `ours` stand in the map where the channel or its stand-in stands."""
    channel._map[channel._fileno] = ours
    home = _loop.get_home(channel._map)
    if home.loop is not None:
        home.loop._engine.attach(channel._fileno, ours)


def _stand_in(channel: Any) -> None:
    """Let a stand-in take the place of a channel whose TLS has something to do by itself."""
    sock = getattr(channel, "socket", None)
    if sock is None:
        return
    if not isinstance(sock, TLSSocket) or sock.closed:
        if channel._fastcore_tls is None:
            return
        sock = channel.socket = channel._fastcore_tls(sock, _stuck(weakref.ref(channel)))
        del channel._fastcore_tls
    if (
        getattr(channel, "_fileno", None) is not None
        and _is_busy(sock)
        and (channel.connected or channel.connecting or sock.has_peer())
        # Not for one that has left the map, or in whose place another object stands.
        and channel._map.get(channel._fileno) is channel
    ):
        _replace(channel, _StandIn(channel, sock))


def _stuck(reference: weakref.ref[Any]) -> Callable[[], None]:
    """Return what a socket calls that waits for the kernel; it does not hold the channel."""

    def stuck() -> None:
        channel = reference()
        if channel is not None:
            _stand_in(channel)

    return stuck


def _is_busy(sock: TLSSocket) -> bool:
    """Whether it waits for something that its channel does not know of."""
    if sock.ended and not sock.established:
        return False
    return not sock.established or sock.wants_to_flush() or sock.write_waits


class _StandIn:
    """Stands in the map for a channel whose TLS has something to do by itself.

    For everything else that somebody may ask of a channel in the map it is that channel.
    """

    accepting = False

    def __init__(self, channel: Any, sock: TLSSocket) -> None:
        self._channel = channel
        self.socket = sock
        self._waits_for = NOTHING
        if channel.connected:
            self._begin()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def __repr__(self) -> str:
        return repr(self._channel)

    def _is_current(self) -> bool:
        channel = self._channel
        fileno = getattr(channel, "_fileno", None)
        return fileno is not None and channel._map.get(fileno) is self

    # -- what the loop asks and tells ----------------------------------------------------------

    def readable(self) -> Any:
        """Want what the handshake waits for; after that what the channel wants."""
        if self.socket.established:
            return self.socket.write_waits or self._channel.readable()
        return self._channel.connected and self._waits_for == READ

    def writable(self) -> bool:
        """Want what the handshake waits for; after that, to send what is encrypted already."""
        if self.socket.established:
            return self.socket.wants_to_flush()
        return self._waits_for != READ or not self._channel.connected

    def handle_read_event(self) -> None:
        """Go on with the handshake; after that the channel reads."""
        if not self._is_connected():
            return
        if self.socket.established:
            self.socket.write_waits = False
            try:
                self._channel.handle_read_event()
            finally:
                self._leave_if_done()
        else:
            self._shake_hands()

    def handle_write_event(self) -> None:
        """Go on with the handshake, or send what is encrypted already."""
        if not self._is_connected():
            return
        if self.socket.established:
            try:
                self.socket.flush()
            except ConnectionError:  # as a send() of the channel would have it
                self._channel.handle_close()
            else:
                self._leave_if_done()
        else:
            self._shake_hands()

    def handle_expt_event(self) -> None:
        """There is urgent data, or an error of the connection."""
        self._channel.handle_expt_event()

    def handle_close(self) -> None:
        """The connection is gone."""
        try:
            self._channel.handle_close()
        finally:
            self._give_up()

    def handle_error(self) -> None:
        """Something was raised: the channel is told, while that is active."""
        try:
            self._channel.handle_error()
        finally:
            self._give_up()

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    # -- its work ------------------------------------------------------------------------------

    def _is_connected(self) -> bool:
        """Whether the connection stands; have the channel find that out where it is connecting."""
        channel = self._channel
        if not channel.connected and channel.connecting:
            channel.handle_connect_event()
            if not self._is_current():
                return False
        if channel.connected and not self.socket.established:
            self._begin()
        return bool(channel.connected)

    def _begin(self) -> None:
        """Give the handshake its time."""
        sock = self.socket
        if sock.handshake_timeout is not None and sock.deadline is None:
            loop = _loop.get_loop(self._channel._map)
            sock.deadline = loop.call_later(
                sock.handshake_timeout, _expire, weakref.ref(self._channel), weakref.ref(sock)
            )

    def _shake_hands(self) -> None:
        self._waits_for = self.socket.shake_hands()
        if self.socket.established:
            self.socket.forget_deadline()
            self._leave_if_done()
            self._channel.handle_handshake()

    def _leave_if_done(self) -> None:
        if not _is_busy(self.socket):
            self._leave()

    def _give_up(self) -> None:
        """Leave, if the handshake has failed, and the channel was not closed for that."""
        if not self.socket.established:
            self.socket.ended = True
            self.socket.forget_deadline()
            self._leave()

    def _leave(self) -> None:
        """Give the channel its place back."""
        if not self._is_current():
            return
        channel = self._channel
        _replace(channel, channel)
        home = _loop.get_home(channel._map)
        if home.loop is not None and self.socket.pending():
            home.loop._engine.read_again(channel._fileno)


def _expire(channel_reference: weakref.ref[Any], sock_reference: weakref.ref[TLSSocket]) -> None:
    """Tell a channel, as the loop would, that the handshake was not done in time."""
    channel, sock = channel_reference(), sock_reference()
    if channel is None or sock is None or sock.established or sock.ended or sock.closed:
        return
    there = channel._map.get(channel._fileno)
    told = there if isinstance(there, _StandIn) else channel
    try:
        raise HandshakeTimeout(
            1, f"the handshake was not done within {sock.handshake_timeout} seconds"
        )
    except HandshakeTimeout:
        sock.ended = True
        told.handle_error()
