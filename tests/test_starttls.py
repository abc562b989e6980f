"""A socket that turns into an SSL socket while the loop runs: STARTTLS inside a handler."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import PATIENCE, Site, receive_exactly

CERTIFICATE = Path(__file__).with_name("localhost.pem")  # self-signed, with its key


@pytest.fixture
def site(fast: Any) -> Iterator[Site]:
    with Site(fast) as site:
        yield site


def _server_class(base: type[Any]) -> type[Any]:
    """Lines of text over `base` (an async_chat); STARTTLS changes the socket."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)

    class Server(base):  # type: ignore[misc]
        handshaking = False

        def __init__(self, sock: Any, map: Any) -> None:
            self.lines: list[bytes] = []
            super().__init__(sock, map)
            self.set_terminator(b"\n")

        def collect_incoming_data(self, data: bytes) -> None:
            self._collect_incoming_data(data)

        def found_terminator(self) -> None:
            line = self._get_data()
            self.lines.append(line)
            self.push(b"ok " + line + b"\n")
            if line == b"STARTTLS":
                self.del_channel()
                self.socket = context.wrap_socket(
                    self.socket, server_side=True, do_handshake_on_connect=False
                )
                self.set_socket(self.socket)
                self.handshaking = True

        def readable(self) -> Any:
            if isinstance(self.socket, ssl.SSLSocket) and not self.handshaking:
                while self.socket.pending():
                    self.handle_read_event()
            return super().readable()

        def handle_read_event(self) -> None:
            if self.handshaking:
                self._shake_hands()
            else:
                super().handle_read_event()

        def handle_write_event(self) -> None:
            if self.handshaking:
                self._shake_hands()
            else:
                super().handle_write_event()

        def _shake_hands(self) -> None:
            try:
                self.socket.do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            self.handshaking = False

        def recv(self, size: int) -> bytes:
            try:
                data: bytes = super().recv(size)
                return data
            except ssl.SSLWantReadError:
                raise BlockingIOError from None
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                self.handle_close()
                return b""

    return Server


@pytest.mark.parametrize("tcp", [False, True])
def test_starttls_in_a_handler(site: Site, tcp: bool) -> None:
    ours, peer = site.tcp_pair() if tcp else site.pair()
    server = _server_class(site.fast.asynchat.async_chat)(ours, site.map)
    answers: list[bytes] = []
    context = ssl.create_default_context(cafile=CERTIFICATE)

    def talk() -> None:
        peer.sendall(b"plain\n")
        answers.append(receive_exactly(peer, 9))
        peer.sendall(b"STARTTLS\n")
        answers.append(receive_exactly(peer, 12))
        with context.wrap_socket(peer, server_hostname="localhost") as secure:
            secure.sendall(b"secret\n" * 3)
            answers.append(secure.recv(10))
            data = secure.recv(100)
            while len(data) < 20:
                data += secure.recv(100)
            answers.append(data)
            secure.sendall(b"x" * 100_000 + b"\n")
            size = 0
            while size < 100_004:
                size += len(secure.recv(1 << 16))
            answers.append(b"%d" % size)

    client = threading.Thread(target=talk)
    client.start()
    site.run_until(lambda: not site.map or not client.is_alive())
    client.join(PATIENCE)
    assert [line[:10] for line in server.lines] == [
        b"plain", b"STARTTLS", b"secret", b"secret", b"secret", b"x" * 10,
    ]  # fmt: skip
    assert answers[:2] == [b"ok plain\n", b"ok STARTTLS\n"]
    assert b"".join(answers[2:4]) == b"ok secret\n" * 3
    assert answers[4:] == [b"100004"]


def test_recv_and_send_follow_a_replaced_socket(site: Site) -> None:
    """The fast path for plain sockets notices that `self.socket` is another object."""
    ours, peer = site.pair()
    other, other_peer = site.pair()
    channel = site.channel(ours)
    peer.send(b"first")
    site.turn()
    channel.socket = other
    other_peer.send(b"second")
    assert channel.recv(100) == b"second"
    channel.send(b"answer")
    assert other_peer.recv(100) == b"answer"
    channel.socket = ours
    assert channel.events == [("read", b"first")]
