"""Sockets that a program wraps with TLS: a wait closes nothing, and what they hold is read."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from support import Site
from tls_peers import Peer, client_context, run, server_context

BLOB = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def site(fast: Any) -> Iterator[Site]:
    with Site(fast) as site:
        yield site


def wrapped(site: Site) -> tuple[ssl.SSLSocket, Peer]:
    """A socket of the module ssl that does not block, after its handshake, and its peer."""
    ours, other = site.tcp_pair()
    ours.setblocking(False)
    sock = site.keep(
        server_context().wrap_socket(ours, server_side=True, do_handshake_on_connect=False)
    )
    peer = Peer(other, client_context())
    while not (peer.established and sock.version()):
        peer.step()
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            pass
    return sock, peer


def chat_class(site: Site) -> type[Any]:
    class Chat(site.fast.asynchat.async_chat):  # type: ignore[misc]
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.received = b""
            self.set_terminator(None)

        def collect_incoming_data(self, data: bytes) -> None:
            self.received += data

        def handle_error(self) -> None:
            raise  # nothing is an error here

    return Chat


@pytest.mark.parametrize("use_poll", [False, True])
def test_a_record_that_comes_in_pieces(site: Site, use_poll: bool) -> None:
    sock, peer = wrapped(site)
    channel = site.channel(sock)
    peer.at_once = 7000
    peer.write(b"x" * 16000)
    for _ in range(3):
        peer.send()
        site.turn(use_poll=use_poll)
    site.run_until(lambda: channel.received == b"x" * 16000)
    assert set(channel.names) == {"read"}


@pytest.mark.parametrize("later", [False, True])
def test_an_async_chat_over_one(site: Site, later: bool) -> None:
    sock, peer = wrapped(site)
    chat = chat_class(site)(None if later else sock, site.map)
    if later:
        chat.set_socket(sock)
        chat.connected = True
    peer.at_once = 5000
    peer.write(BLOB[:100_000])
    chat.push(BLOB)
    run(site, lambda: len(peer.received) == len(BLOB) and len(chat.received) == 100_000, peer)
    assert peer.received == BLOB
    assert chat.received == BLOB[:100_000]


def test_no_room_to_send_is_no_error(site: Site) -> None:
    sock, peer = wrapped(site)

    class Sender(site.asyncore.dispatcher_with_send):  # type: ignore[misc]
        def handle_error(self) -> None:
            raise

    sender = Sender(sock, site.map)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    sender.send(BLOB * 8)
    for _ in range(100):
        site.turn()
    assert sender.connected
    run(site, lambda: len(peer.received) == 8 * len(BLOB), peer)
    assert peer.received == 8 * BLOB


def test_what_raises_in_an_overridden_recv_or_send(site: Site) -> None:
    sock, _peer = wrapped(site)

    class Chat(chat_class(site)):  # type: ignore[misc]
        def send(self, data: bytes) -> int:
            raise ssl.SSLWantWriteError(3, "no room")

        def recv(self, size: int) -> bytes:
            raise ssl.SSLWantReadError(2, "not yet")

    chat = Chat(sock, site.map)
    chat.push(b"kept")
    chat.handle_read()
    assert list(chat.producer_fifo) == [b"kept"]
    assert chat.connected


def test_a_call_of_handle_error_is_left_alone(site: Site) -> None:
    sock, _peer = wrapped(site)

    class Channel(site.asyncore.dispatcher):  # type: ignore[misc]
        def handle_read(self) -> None:
            try:
                self.recv(10)
            except ssl.SSLError:
                self.handle_error()

    channel = Channel(sock, site.map)
    channel.handle_read()
    assert channel.connected


def reader(site: Site, sock: Any, size: int = 100) -> Any:
    """A channel that reads little at a time."""

    def handle_read(self: Any) -> None:
        self.events.append(("read", self.recv(size)))

    return site.channel(sock, handle_read=handle_read, readable=lambda self: self.reads, reads=True)


@pytest.mark.parametrize("use_poll", [False, True])
def test_what_it_holds_is_read(site: Site, use_poll: bool) -> None:
    sock, peer = wrapped(site)
    channel = reader(site, sock)
    peer.write(b"x" * 16000)
    peer.send()
    for _ in range(200):
        site.turn(timeout=1.0, use_poll=use_poll)
        if len(channel.received) == 16000:
            break
    assert channel.received == b"x" * 16000
    events = len(channel.events)
    site.turn(count=3)
    assert len(channel.events) == events


@pytest.mark.parametrize("way", ["the socket's recv", "an own recv", "a handler of events"])
def test_it_is_read_however_the_program_reads(site: Site, way: str) -> None:
    sock, peer = wrapped(site)

    class Reader(site.asyncore.dispatcher):  # type: ignore[misc]
        received = b""

        def writable(self) -> bool:
            return False

        if way == "an own recv":

            def recv(self, size: int) -> Any:
                return self.socket.read(size)

        def handle_read(self) -> None:
            read = self.recv if way == "an own recv" else self.socket.recv
            self.received += read(100)

        if way == "a handler of events":
            handle_read_event = handle_read

    channel = Reader(sock, site.map)
    peer.write(b"x" * 1000)
    peer.send()
    for _ in range(30):
        site.turn(timeout=0.2)
        if len(channel.received) == 1000:
            break
    assert len(channel.received) == 1000


def test_what_it_holds_waits_while_nobody_wants_to_read(site: Site) -> None:
    sock, peer = wrapped(site)
    channel = reader(site, sock)
    peer.write(b"x" * 300)
    peer.send()
    site.turn()
    read = len(channel.received)
    assert 0 < read < 300
    channel.reads = False
    turns = site.loop.stats()["turns"]
    site.turn(count=5)
    site.turn(timeout=0.05)
    assert len(channel.received) == read
    assert site.loop.stats()["turns"] == turns + 6
    channel.reads = True
    site.run_until(lambda: len(channel.received) == 300)


def test_what_it_holds_is_read_before_a_hang_up(site: Site) -> None:
    sock, peer = wrapped(site)
    channel = reader(site, sock)
    peer.write(b"x" * 5000)
    peer.send()
    peer.sock.close()
    site.run_until(lambda: "close" in channel.names, use_poll=True)
    assert len(channel.received) == 5000


def test_a_nested_loop_reads_it(site: Site) -> None:
    sock, peer = wrapped(site)

    def handle_read(self: Any) -> None:
        self.events.append(("read", self.recv(100)))
        if len(self.received) == 200:
            site.run_until(lambda: len(self.received) == 1000)

    channel = site.channel(sock, handle_read=handle_read)
    peer.write(b"x" * 1000)
    peer.send()
    site.run_until(lambda: len(channel.received) == 1000)


def test_a_channel_that_goes_is_told_nothing(site: Site) -> None:
    sock, peer = wrapped(site)

    def handle_read(self: Any) -> None:
        self.events.append(("read", self.recv(100)))
        self.close()

    channel = site.channel(sock, handle_read=handle_read)
    peer.write(b"x" * 1000)
    peer.send()
    site.run_until(lambda: not site.map)
    site.turn()
    assert channel.names == ["read"]
    assert not site.loop._engine.has_pending()


def test_a_failing_reader_is_told(site: Site) -> None:
    sock, peer = wrapped(site)

    def handle_read(self: Any) -> None:
        self.events.append(("read", self.recv(100)))
        if len(self.received) == 200:
            raise RuntimeError("a mistake")

    channel = site.channel(sock, handle_read=handle_read)
    peer.write(b"x" * 1000)
    peer.send()
    site.run_until(lambda: not site.map)
    assert channel.names == ["read", "read", "error"]


def test_sockets_of_another_module(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of pyOpenSSL are known by their names, and their errors are no OSError."""

    class WantReadError(Exception):
        pass

    class WantWriteError(Exception):
        pass

    class Connection:
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock
            self.held = b""
            self.is_full = True

        def __getattr__(self, name: str) -> Any:
            return getattr(self.sock, name)

        def recv(self, size: int) -> bytes:
            self.held = self.held or self.sock.recv(1000)
            data, self.held = self.held[:size], self.held[size:]
            if data == b"?":
                raise WantReadError
            return data

        def pending(self) -> int:
            return len(self.held)

        def send(self, data: bytes) -> int:
            if self.is_full:
                self.is_full = False
                raise WantWriteError
            return self.sock.send(data)

    names = {
        "Connection": Connection,
        "WantReadError": WantReadError,
        "WantWriteError": WantWriteError,
    }
    module = ModuleType("OpenSSL.SSL")
    vars(module).update(names)
    monkeypatch.setitem(sys.modules, "OpenSSL.SSL", module)
    ours, other = site.pair()
    channel = reader(site, Connection(ours), size=10)
    other.send(b"?")
    site.turn()
    other.send(b"x" * 100)
    site.turn(count=20)
    assert channel.received == b"x" * 100
    assert channel.send(b"answer") == 0
    assert channel.send(b"answer") == 6
    assert set(channel.names) == {"read"}


def test_a_blocking_client_over_it(site: Site) -> None:
    """In threads, as a program would have it."""
    ours, other = site.tcp_pair()
    got: list[bytes] = []

    def talk() -> None:
        with client_context().wrap_socket(other, server_hostname="localhost") as tls:
            tls.sendall(BLOB)
            data = b""
            while len(data) < len(BLOB):
                data += tls.recv(65536)
            got.append(data)

    client = threading.Thread(target=talk)
    client.start()
    ours.settimeout(10)
    sock = site.keep(server_context().wrap_socket(ours, server_side=True))
    chat = chat_class(site)(sock, site.map)
    chat.collect_incoming_data = chat.push
    site.run_until(lambda: not client.is_alive())
    assert got == [BLOB]
