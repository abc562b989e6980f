"""A socket that encrypts: what a TLS channel has as its `socket`.

It reads and writes a plain socket that does not block, and never waits: it says what it waits for.
The encryption is that of the module `ssl`, over two buffers in memory.  Knows sockets only: no
channels, no loop.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ._tls_errors import NotYet, explain

READ, WRITE, NOTHING = 1, 2, 0  # what it waits for

_RECEIVED = 65536  # bytes taken from the kernel at once
_ENCRYPTED = 65536  # bytes of the program's encrypted at once
_FIRST = 16  # bytes kept of what came first, for explanations

# What others may ask of the plain socket, and of the encryption; anything else would go past it.
_OF_SOCKET = frozenset(
    """bind connect family getpeername getsockname getsockopt gettimeout ioctl proto
    set_inheritable get_inheritable setblocking setsockopt settimeout timeout type""".split()
)
_OF_TLS = frozenset(
    """cipher compression context get_channel_binding get_unverified_chain get_verified_chain
    getpeercert selected_alpn_protocol server_hostname server_side session session_reused
    shared_ciphers version""".split()
)


class TLSSocket:
    """A plain socket with TLS over it, for a channel.

    `sock` is a non-blocking socket; `before` is sent first, in the clear: bytes and producers;
    `received` is what of the peer's TLS was read already.  `stuck()` is called when something waits
    for the kernel that the channel does not know of.  `ragged`: an end of the connection
    without a word of TLS is an ordinary end.
    """

    def __init__(
        self,
        sock: Any,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None,
        session: ssl.SSLSession | None,
        before: Iterable[Any],
        received: bytes,
        ragged: bool,
        stuck: Callable[[], None],
    ) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side, server_hostname, session
        )
        self._before = deque(before)
        self._leaving: bytes | memoryview = b""  # what the kernel has not taken yet
        self._ahead, self._at = b"", 0  # decrypted, and from where on not read yet
        self._failure: ssl.SSLError | None = None  # met while decrypting ahead
        self._first = b""
        self._ragged = ragged
        self._stuck = stuck
        self._reset = False
        self._closed = False
        self._told = False  # recv() has told of the end
        self.established: bool = False
        self.ended: bool = False  # the peer has said that this is all, or something has failed
        self.write_waits: bool = False  # a write waits for the peer
        self.handshake_timeout: float | None = None  # seconds
        self.deadline: Any = None  # the timer of the handshake
        if received:
            self._take(received)

    # -- the handshake -----------------------------------------------------------------------

    def shake_hands(self) -> int:
        """Go on with the handshake; return what it waits for, NOTHING when it is done.

        Raises SSLError, with what it means added to its text.
        """
        while True:
            if not self.flush():
                return WRITE
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                if not self.flush():
                    return WRITE
                if not self._receive():
                    return READ
            except ssl.SSLError as error:
                self._fail(error)
                raise
            else:
                break
        self.established = True
        if self._incoming.pending or self._incoming.eof:
            self._decrypt()
        if not self.flush():
            self._stuck()
        return NOTHING

    def _fail(self, error: ssl.SSLError) -> None:
        """Explain an error, and let the peer know."""
        self.ended = True
        name = self._tls.server_hostname
        explain(error, self._first, name, self.established, self._reset)
        with contextlib.suppress(OSError):
            self.flush()  # the alert

    # -- between the kernel and the buffers --------------------------------------------------

    def flush(self) -> bool:
        """Give the kernel what waits for it; return whether it took all."""
        while True:
            if not self._leaving:
                clear = self._next_before() if self._before else b""
                self._leaving = clear or self._outgoing.read()
                if not self._leaving:
                    return True
            try:
                sent = self._sock.send(self._leaving)
            except (BlockingIOError, InterruptedError):
                return False
            except ConnectionError:
                if self.established:
                    raise
                # What the peer has said before it went is the better error.
                self._reset = True
                self._before.clear()
                sent = len(self._leaving)
            if sent < len(self._leaving):
                self._leaving = memoryview(self._leaving)[sent:]  # not copied again and again
            else:
                self._leaving = b""
                if not self._before and not self._outgoing.pending:
                    return True

    def _next_before(self) -> bytes:
        """Return the next piece that goes out in the clear; empty after the last one."""
        while self._before:
            first = self._before[0]
            if isinstance(first, (bytes, bytearray, memoryview)):
                self._before.popleft()
                data = bytes(first)  # pyright: ignore
            else:
                data = bytes(first.more())
                if not data:
                    self._before.popleft()
            if data:
                return data
        return b""

    def _receive(self) -> bool:
        """Take what the kernel has; return False where that is nothing yet."""
        try:
            data = self._sock.recv(_RECEIVED)
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionError:
            self._reset = True
            data = b""
        self._take(data)
        return True

    def _take(self, data: bytes) -> None:
        if not self._first:
            self._first = data[:_FIRST]
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        self.write_waits = False

    def _decrypt(self) -> None:
        """Decrypt all that has come.  Nobody would tell of it later: the kernel has it no more."""
        parts = [self._ahead[self._at :]] if self._at < len(self._ahead) else []
        while True:
            try:
                part = self._tls.read(_RECEIVED)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:  # instead of nothing, where we have said so, too
                self.ended = True
                break
            except ssl.SSLError as error:
                if not (self._ragged and isinstance(error, ssl.SSLEOFError)):
                    self._fail(error)
                    self._failure = error
                self.ended = True
                break
            if not part:
                self.ended = True
                break
            parts.append(part)
            if not self._incoming.pending and not self._incoming.eof:
                break
        self._ahead, self._at = parts[0] if len(parts) == 1 else b"".join(parts), 0

    # -- what a channel does -----------------------------------------------------------------

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return at most `size` bytes; empty once the peer has said that this is all.

        Raises NotYet (a BlockingIOError) where nothing is there, SSLEOFError where the connection
        ended without that word, and SSLError for what is no TLS.
        """
        if self._at >= len(self._ahead):
            if not self.established and not self.ended:
                raise NotYet
            while not self.ended:
                if not self._receive():
                    raise NotYet
                self._decrypt()
                if self._ahead:
                    break
            if self._outgoing.pending and not self.ended:
                with contextlib.suppress(ConnectionError):  # what has come is read first
                    if not self.flush():
                        self._stuck()
            if not self._ahead:
                self._told = True
                failure, self._failure = self._failure, None
                if failure is not None:
                    raise failure
                return b""
        start = self._at
        end = min(start + size, len(self._ahead))
        data = self._ahead if size >= len(self._ahead) and not start else self._ahead[start:end]
        if end == len(self._ahead):
            self._ahead, self._at = b"", 0
        else:
            self._at = end
        return data

    def pending(self) -> int:
        """Return how many bytes recv() has without the kernel; 1 where it has an end or error."""
        left = len(self._ahead) - self._at
        return left or (1 if self.ended and not self._told else 0)

    fastcore_pending = pending  # by which the loop knows such a socket

    def send(self, data: Any, flags: int = 0) -> int:
        """Encrypt and send of `data` what there is room for; return how many bytes.

        Raises NotYet (a BlockingIOError) where there is no room.
        """
        if self.ended and not self.established:
            raise BrokenPipeError(32, "the handshake has failed")
        if not self.established or (self.wants_to_flush() and not self.flush()):
            raise NotYet
        if type(data) is not bytes or len(data) > _ENCRYPTED:
            with memoryview(data) as view, view.cast("B") as octets:
                data = bytes(octets[:_ENCRYPTED])
        if not data:
            return 0
        try:
            sent = self._tls.write(data)
        except ssl.SSLWantReadError:
            self.write_waits = True
            self._stuck()
            raise NotYet from None
        except ssl.SSLError as error:
            self._fail(error)
            raise
        if not self.flush():
            self._stuck()
        return sent

    def close(self) -> None:
        """Tell the peer that this is all, as far as there is room for that now, and close."""
        self.forget_deadline()
        if not self._closed:
            self._closed = self._told = True
            with contextlib.suppress(OSError):
                self._say_end()
                # Tickets that nobody has read would reset the connection, and what waits in it.
                self._sock.recv(_RECEIVED)
        self._sock.close()

    def shutdown(self, how: int) -> None:
        """End one direction or both; the peer is told that nothing more will come."""
        if how != socket.SHUT_RD:
            with contextlib.suppress(OSError):
                self._say_end()
        self._sock.shutdown(how)

    def _say_end(self) -> None:
        if self.established and self._failure is None:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self.flush()

    def forget_deadline(self) -> None:
        """Cancel the timer of the handshake."""
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    def connect_ex(self, address: Any) -> int:
        """Connect the plain socket."""
        result: int = self._sock.connect_ex(address)
        self._stuck()
        return result

    def has_peer(self) -> bool:
        """Whether the plain socket is connected."""
        try:
            self._sock.getpeername()
        except OSError:
            return False
        return True

    def fileno(self) -> int:
        """Return the descriptor of the plain socket."""
        number: int = self._sock.fileno()
        return number

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._closed

    @property
    def ssl_object(self) -> ssl.SSLObject:
        """The encryption: certificates, versions, ciphers."""
        return self._tls

    def wants_to_flush(self) -> bool:
        """Whether something waits for room in the kernel."""
        return bool(self._leaving or self._before or self._outgoing.pending)

    def __getattr__(self, name: str) -> Any:
        if name in _OF_SOCKET:
            return getattr(self._sock, name)
        if name in _OF_TLS:
            return getattr(self._tls, name)
        raise AttributeError(f"a TLS socket has no attribute {name!r}", name=name, obj=self)

    def __repr__(self) -> str:
        state = self._tls.version() if self.established else "no handshake yet"
        return f"<fastcore.tls.TLSSocket {state}, over {self._sock!r}>"
