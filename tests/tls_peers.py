"""What the tests of TLS share: contexts, channels that note what they were told, and peers.

A peer here is TLS of the module `ssl` over buffers in memory, so that a test has each byte of it in
its hands: it runs beside the loop in one thread.  Knows nothing of any single test.
"""

from __future__ import annotations

import socket
import ssl
import sys
from typing import Any

from support import Site
from tls_certificates import CA, CLIENT, SERVER


def server_context(**attributes: Any) -> ssl.SSLContext:
    """A context with the certificate of `localhost`, and these attributes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(SERVER)
    return _with(context, attributes)


def client_context(*, certificate: bool = False, **attributes: Any) -> ssl.SSLContext:
    """A context that trusts that certificate."""
    context = ssl.create_default_context()
    context.load_verify_locations(CA)
    if certificate:
        context.load_cert_chain(CLIENT)
    return _with(context, attributes)


def _with(context: ssl.SSLContext, attributes: dict[str, Any]) -> ssl.SSLContext:
    for name, value in attributes.items():
        setattr(context, name, value)
    return context


def tls_class(fast: Any, kind: str, order: str, **attributes: Any) -> type[Any]:
    """A class of channels that notes what it was told, with TLS before or after its other base."""
    module = fast.asynchat if kind == "async_chat" else fast.asyncore
    base = getattr(module, kind)
    bases = (fast.tls.TLS, base) if order == "first" else (base, fast.tls.TLS)
    recording: type = _Chat if kind == "async_chat" else _Dispatcher
    return type("Secure", (recording, *bases), attributes)


class _Recording:
    """Notes in `events` what happened; `received` is what came."""

    def __init__(self: Any, sock: Any = None, map: Any = None) -> None:
        self.events: list[str] = []
        self.received = b""
        self.error: Any = None
        super().__init__(sock, map)

    def handle_handshake(self: Any) -> None:
        self.events.append("handshake")

    def handle_connect(self: Any) -> None:
        self.events.append("connect")

    def handle_close(self: Any) -> None:
        self.events.append("close")
        self.close()

    def handle_error(self: Any) -> None:
        self.events.append("error")
        self.error = sys.exc_info()[1]
        self.close()


class _Dispatcher(_Recording):
    """Reads all, and sends what is put into `out`."""

    out = b""

    def writable(self: Any) -> Any:
        if hasattr(self, "out_buffer"):
            return super().writable() if self.connected else self.connecting  # type: ignore[misc]
        return self.connecting or bool(self.out)

    def handle_read(self: Any) -> None:
        self.received += self.recv(65536)

    def handle_write(self: Any) -> None:
        if hasattr(self, "out_buffer"):
            super().handle_write()  # type: ignore[misc]
        elif self.out:
            self.out = self.out[self.send(self.out[:200_000]) :]

    def give(self: Any, data: bytes) -> None:
        if hasattr(self, "out_buffer"):
            self.send(data)
        else:
            self.out += data


class _Chat(_Recording):
    """Collects without end."""

    def __init__(self: Any, sock: Any = None, map: Any = None) -> None:
        super().__init__(sock, map)
        self.set_terminator(None)

    def collect_incoming_data(self: Any, data: bytes) -> None:
        self.received += data

    def give(self: Any, data: bytes) -> None:
        self.push(data)


class Peer:
    """TLS of the module `ssl` over `sock`, for use beside the loop."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, **options: Any) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        if not options.get("server_side"):
            options.setdefault("server_hostname", "localhost")
        self.tls = context.wrap_bio(self.incoming, self.outgoing, **options)
        self.established = False
        self.received = b""
        self.ended = False
        self.at_once = 1 << 20  # bytes that are sent in one step
        self._leaving = b""

    def step(self) -> None:
        """Go on with what can be done now: send, receive, shake hands."""
        self.receive()
        if not self.established:
            try:
                self.tls.do_handshake()
                self.established = True
            except ssl.SSLWantReadError:
                pass
        if self.established:
            self.read()
        self.send()

    def receive(self) -> None:
        try:
            data = self.sock.recv(self.at_once)
        except BlockingIOError:
            return
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    def read(self) -> None:
        try:
            while not self.ended:
                data = self.tls.read(65536)
                self.received += data
                self.ended = not data
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True

    def send(self) -> None:
        self._leaving += self.outgoing.read()
        try:
            sent = self.sock.send(self._leaving[: self.at_once])
            self._leaving = self._leaving[sent:]
        except BlockingIOError:
            pass

    def write(self, data: bytes) -> None:
        self.tls.write(data)

    def has_sent_all(self) -> bool:
        return not self._leaving and not self.outgoing.pending


def run(site: Site, condition: Any, *peers: Peer) -> None:
    """Take turns, of the loop and of the peers, until `condition()` is true."""

    def check() -> Any:
        for peer in peers:
            peer.step()
        return condition()

    if peers:
        original = site.turn
        site.turn = lambda *_, **__: original(timeout=0.001)  # type: ignore[method-assign]
        try:
            site.run_until(check)
        finally:
            site.turn = original  # type: ignore[method-assign]
    else:
        site.run_until(check)
