"""TLS in quantity: a thousand handshakes at once, and a hundred megabytes both ways."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from support import Site, room_for_descriptors
from tls_peers import client_context, server_context

HANDSHAKES = 1000
TOTAL = 100_000_000  # bytes
PIECE = bytes(range(256)) * 256
LONGEST = 5000  # turns, though it takes a tenth of them


@pytest.fixture
def site(fast: Any) -> Iterator[Site]:
    if fast.poller != fast.package.pollers()[0]:
        pytest.skip("once for each engine")
    with Site(fast) as site:
        yield site


def test_handshakes_at_once(site: Site) -> None:
    done: list[Any] = []

    class Channel(site.fast.tls.TLS, site.asyncore.dispatcher):  # type: ignore[misc]
        def writable(self) -> bool:
            return False

        def handle_handshake(self) -> None:
            done.append(self)

        def handle_error(self) -> None:
            raise

    server, client = server_context(), client_context()
    with room_for_descriptors(2 * HANDSHAKES + 100):
        channels = []
        for _ in range(HANDSHAKES):
            near, far = socket.socketpair()
            channels += [Channel(near, site.map), Channel(far, site.map)]
        for first, second in zip(channels[::2], channels[1::2], strict=True):
            first.start_tls(server, server_side=True)
            second.start_tls(client, server_hostname="localhost")
        for _ in range(LONGEST):
            if len(done) == 2 * HANDSHAKES:
                break
            site.turn(timeout=1.0)
        assert set(done) == set(channels)
        for channel in channels:
            channel.close()


def test_megabytes_both_ways(site: Site) -> None:
    class Channel(site.fast.tls.TLS, site.asyncore.dispatcher):  # type: ignore[misc]
        def __init__(self, sock: Any, map: Any) -> None:
            super().__init__(sock, map)
            self.left = TOTAL
            self.received = 0
            self.digest = hashlib.sha256()

        def writable(self) -> bool:
            return self.left > 0

        def handle_write(self) -> None:
            at = (TOTAL - self.left) % len(PIECE)
            self.left -= self.send(PIECE[at : at + self.left])

        def handle_read(self) -> None:
            data = self.recv(65536)
            self.received += len(data)
            self.digest.update(data)

        def handle_error(self) -> None:
            raise

    near, far = site.tcp_pair()
    far.setblocking(False)
    ours, theirs = Channel(near, site.map), Channel(far, site.map)
    ours.start_tls(server_context(), server_side=True)
    theirs.start_tls(client_context(), server_hostname="localhost")
    for _ in range(LONGEST * 10):
        if ours.received >= TOTAL and theirs.received >= TOTAL:
            break
        site.turn(timeout=1.0)
    expected = hashlib.sha256((PIECE * (TOTAL // len(PIECE) + 1))[:TOTAL]).digest()
    assert ours.digest.digest() == theirs.digest.digest() == expected
