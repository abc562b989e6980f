"""How connections begin and end: refused, reset, half-closed, urgent data, accept."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from support import Site, close_now


@pytest.fixture
def site(fast: Any) -> Iterator[Site]:
    with Site(fast) as site:
        yield site


# -- connections ---------------------------------------------------------------------------------


@pytest.mark.parametrize("use_poll", [False, True])
def test_a_refused_connect_is_an_error_not_a_connection(site: Site, use_poll: bool) -> None:
    server = site.server()
    address = server.getsockname()
    server.close()
    channel = site.channel(writable=lambda self: True)
    channel.create_socket()
    channel.connect(address)
    site.run_until(lambda: not site.map, use_poll=use_poll)
    ((kind, error),) = channel.events
    assert (kind, error.errno) == ("error", errno.ECONNREFUSED)
    assert channel.connected is False


def test_a_refused_connect_is_met_by_who_does_not_want_to_write(site: Site) -> None:
    server = site.server()
    address = server.getsockname()
    server.close()
    channel = site.channel()
    channel.create_socket()
    channel.connect(address)
    site.run_until(lambda: not site.map)
    assert channel.names == ["error"]


@pytest.mark.parametrize("readable", [True, False])
def test_a_reset_in_the_middle_of_a_write_closes(site: Site, readable: bool) -> None:
    def handle_write(self: Any) -> None:
        self.sent += self.send(b"x" * 100_000)

    ours, peer = site.tcp_pair()
    channel = site.channel(
        ours,
        sent=0,
        readable=lambda self: readable,
        writable=lambda self: True,
        handle_write=handle_write,
    )
    site.run_until(lambda: not select.select([], [ours], [], 0)[1])
    assert channel.sent
    close_now(peer)
    site.run_until(lambda: not site.map)
    assert channel.events == ["close"]


def test_a_reset_is_read_as_the_end(site: Site) -> None:
    ours, peer = site.tcp_pair()
    channel = site.channel(ours)
    site.turn()
    close_now(peer)
    site.run_until(lambda: not site.map)
    assert channel.events == ["close"]


def test_urgent_data_is_told_beside_the_rest(site: Site) -> None:
    def handle_expt(self: Any) -> None:
        self.events.append(("expt", self.socket.recv(1, socket.MSG_OOB)))

    ours, peer = site.tcp_pair()
    channel = site.channel(ours, handle_expt=handle_expt)
    peer.send(b"!", socket.MSG_OOB)
    site.run_until(lambda: "expt" in channel.names)
    peer.send(b"data")
    site.run_until(lambda: "read" in channel.names)
    assert [event for event in channel.events if event[0] == "expt"] == [("expt", b"!")]
    assert channel.received == b"data"


def test_urgent_data_that_nobody_reads_is_told_once_until_more_comes(site: Site) -> None:
    ours, peer = site.tcp_pair()
    channel = site.channel(ours, handle_expt=lambda self: self.events.append(("expt",)))
    for number in (1, 2):
        peer.send(b"!", socket.MSG_OOB)
        site.run_until(lambda number=number: channel.names.count("expt") == number)
        site.turn(count=20)
        assert channel.names.count("expt") == number
        peer.send(b"data")
        site.run_until(lambda number=number: channel.received == b"data" * number)


def _hung_up(site: Site, kind: str, data: bytes) -> socket.socket | int:
    """What is readable or in error for ever, after that much data."""
    if kind == "pipe":
        read, write = os.pipe()
        os.write(write, data)
        os.close(write)
        return read
    ours, peer = site.pair() if kind == "pair" else site.tcp_pair()
    if data:
        peer.send(data)
    if kind == "reset":
        close_now(peer)
    peer.close()
    return ours


HUNG_UP = ["pair", "reset"] + ["pipe"] * hasattr(select, "poll")


@pytest.mark.skipif(not hasattr(select, "poll"), reason="no use_poll here")
@pytest.mark.parametrize("kind", HUNG_UP)
@pytest.mark.parametrize("reads", [True, False])
def test_a_hang_up_that_no_handler_meets_closes_under_use_poll(
    site: Site, kind: str, reads: bool
) -> None:
    """After all that came before has been read, and once."""

    data = b"" if kind == "reset" else b"x" * 95
    received: list[bytes] = []

    def handle_read(self: Any) -> None:
        if data:
            received.append(os.read(self._fileno, 10))

    base = "file_dispatcher" if kind == "pipe" else "dispatcher"
    recorder = site.recorder(
        base,
        readable=lambda self: reads,
        writable=lambda self: not reads,
        handle_read=handle_read,
        handle_write=lambda self: None,
    )
    end = _hung_up(site, kind, data)
    channel = recorder(end, site.map)
    if isinstance(end, int):
        os.close(end)
    site.run_until(lambda: not site.map, use_poll=True)
    assert channel.names == ["close"]
    assert b"".join(received) == (data if reads else b"")


@pytest.mark.skipif(not hasattr(select, "poll"), reason="no use_poll here")
def test_who_reads_nothing_before_a_hang_up_is_told_of_it(site: Site) -> None:
    """As the standard loop told him: it would be reported for ever."""
    channel = site.channel(_hung_up(site, "pair", b"x"), handle_read=lambda self: None)
    site.run_until(lambda: not site.map, use_poll=True)
    assert channel.names == ["close"]


@pytest.mark.skipif(not hasattr(select, "poll"), reason="no use_poll here")
def test_an_exception_at_a_hang_up_is_what_the_channel_is_told(site: Site) -> None:
    def handle_read(self: Any) -> None:
        raise ValueError("at the end")

    channel = site.channel(_hung_up(site, "pair", b""), handle_read=handle_read)
    site.run_until(lambda: not site.map, use_poll=True)
    assert channel.names == ["error"]


def test_an_error_is_no_urgent_data(site: Site) -> None:
    ours, peer = site.tcp_pair()
    channel = site.channel(ours, handle_read=lambda self: self.events.append("read"))
    close_now(peer)
    select.select([ours], [], [], 10)
    site.turn()
    assert "expt" not in channel.names


def test_a_half_closed_peer_still_gets_its_answer(site: Site) -> None:
    class Answering(site.recorder()):  # type: ignore[misc]
        answer = b"x" * 3_000_000

        def writable(self) -> bool:
            return "end" in self.events and bool(self.answer)

        def readable(self) -> bool:
            return "end" not in self.events

        def handle_close(self) -> None:
            self.events.append("end")

        def handle_write(self) -> None:
            self.answer = self.answer[self.send(self.answer) :]
            if not self.answer:
                self.close()

    ours, peer = site.tcp_pair()
    channel = Answering(ours, site.map)
    peer.send(b"ask")
    peer.shutdown(socket.SHUT_WR)
    sizes: list[int] = []

    def read() -> None:
        while data := peer.recv(1 << 16):
            sizes.append(len(data))

    reader = threading.Thread(target=read)
    reader.start()
    site.run_until(lambda: not site.map)
    reader.join()
    assert sum(sizes) == 3_000_000
    assert channel.names == ["read", "end"]


# -- accepting -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        OSError(errno.ECONNABORTED, "aborted"),
        BlockingIOError(errno.EAGAIN, "nobody there"),
        TypeError("None"),
    ],
)
def test_an_accept_that_finds_nobody_is_no_error(site: Site, answer: Exception) -> None:
    accepted: list[Any] = []
    channel = site.channel(handle_accepted=lambda self, sock, addr: accepted.append(sock))
    channel.socket = mock.Mock()
    channel.socket.accept.side_effect = answer
    channel.accepting = True
    assert channel.accept() is None
    channel.handle_read_event()
    assert (accepted, channel.events) == ([], [])
    channel.socket = None


def test_an_accepted_connection_may_have_no_address(site: Site) -> None:
    accepted: list[Any] = []
    channel = site.channel(handle_accepted=lambda self, *pair: accepted.append(pair))
    channel.socket = mock.Mock()
    channel.socket.accept.return_value = ("socket", None)
    channel.accepting = True
    channel.handle_read_event()
    assert accepted == [("socket", None)]
    channel.socket = None


def test_a_connection_reset_before_it_was_accepted(site: Site) -> None:
    channels: list[Any] = []
    listener = site.channel(
        site.server(),
        handle_accepted=lambda self, sock, addr: channels.append(site.channel(site.keep(sock))),
    )
    listener.accepting = True
    close_now(site.client(listener.socket.getsockname()))
    other = site.client(listener.socket.getsockname())
    other.send(b"x")
    site.run_until(lambda: channels and channels[-1].received == b"x")
    assert listener.events == []
    assert [channel for channel in channels[:-1] if channel.socket.fileno() >= 0] == []


def test_a_listener_is_never_written(site: Site) -> None:
    listener = site.channel(site.server(), writable=lambda self: True)
    listener.accepting = True
    site.turn(count=3)
    assert listener.events == []


# -- many connections that wait ------------------------------------------------------------------


class Taking:
    """A listener that takes connections in the way of old programs, and counts its calls."""

    wanted = 1000

    def readable(self: Any) -> bool:
        return len(self.taken) < self.wanted

    def handle_accept(self: Any) -> None:
        self.calls += 1
        sock, _addr = self.accept()  # no test for None: it is called where one waits only
        sock.close()
        self.taken.append(sock)


def listener(site: Site, **attributes: Any) -> tuple[Any, Any]:
    """A Taking listener in the map, and its address."""
    kind = type("Listener", (Taking, site.asyncore.dispatcher), attributes)
    server = kind.__new__(kind)
    server.taken, server.calls = [], 0
    site.asyncore.dispatcher.__init__(server, map=site.map)
    server.create_socket()
    server.bind(("127.0.0.1", 0))
    server.listen(50)
    return server, server.socket.getsockname()


def test_connections_that_wait_are_accepted_in_one_turn(site: Site) -> None:
    server, address = listener(site)
    clients = [site.client(address) for _ in range(20)]
    site.turn(timeout=1)
    assert (len(server.taken), server.calls) == (len(clients), len(clients))
    site.turn()
    assert server.calls == len(clients)


def test_a_listener_that_wants_no_more_is_asked_in_between(site: Site) -> None:
    server, address = listener(site, wanted=3)
    for _ in range(5):
        site.client(address)
    site.turn(timeout=1)
    site.turn()
    assert (len(server.taken), server.calls) == (3, 3)


def test_a_listener_that_closes_in_between_is_left_alone(site: Site) -> None:
    def handle_accept(self: Any) -> None:
        Taking.handle_accept(self)
        self.close()

    server, address = listener(site, handle_accept=handle_accept)
    for _ in range(3):
        site.client(address)
    site.turn(timeout=1)
    assert len(server.taken) == 1
    assert not site.map


def test_a_listener_that_takes_nothing_is_told_once_a_turn(site: Site) -> None:
    def handle_accept(self: Any) -> None:
        self.calls += 1

    server, address = listener(site, handle_accept=handle_accept)
    site.client(address)
    site.turn(timeout=1)
    assert server.calls == 1


def test_an_accepted_socket_is_what_accept_gives(site: Site) -> None:
    got: list[Any] = []

    def handle_accept(self: Any) -> None:
        got.append(self.accept())

    server, address = listener(site, handle_accept=handle_accept)
    client = site.client(address)
    site.turn(timeout=1)
    [(sock, addr)] = got
    site.keep(sock)
    assert addr == client.getsockname() == sock.getpeername()
    assert type(sock) is socket.socket
    assert (sock.family, sock.type) == (server.socket.family, server.socket.type)
    assert sock.gettimeout() is None  # blocking, as ever: the dispatcher changes that
    assert not sock.get_inheritable()
