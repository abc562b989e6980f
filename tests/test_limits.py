"""Limits of a server: connections in all and by address, accepts a second, bytes before a login."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support import Site, receive_exactly

KINDS = ("dispatcher", "dispatcher_with_send", "async_chat")


@pytest.fixture
def site(fast: Any) -> Iterator[Site]:
    with Site(fast) as site:
        yield site


def base_of(site: Site, kind: str) -> Any:
    return getattr(site.fast.asynchat if kind == "async_chat" else site.asyncore, kind)


def serve(site: Site, after: bool = False, **own: Any) -> Any:
    """A server with limits, whose connections are recorders in `sessions`."""

    def handle_accepted(self: Any, sock: Any, addr: Any) -> None:
        self.sessions.append(site.channel(sock))

    def handle_refused(self: Any, sock: Any, addr: Any, reason: str) -> None:
        self.reasons.append(reason)
        mixin.handle_refused(self, sock, addr, reason)

    base, mixin = site.asyncore.dispatcher, site.fast.limits.AcceptLimits
    names = {"handle_accepted": handle_accepted, "handle_refused": handle_refused}
    kind = type("Server", (base, mixin) if after else (mixin, base), names | own)
    server = kind(None, site.map)
    server.sessions, server.reasons = [], []
    server.create_socket()
    server.bind(("127.0.0.1", 0))
    server.listen(50)
    return server


def connect(site: Site, server: Any) -> socket.socket:
    return site.client(server.socket.getsockname())


def ended(sock: socket.socket, after: bytes = b"") -> bool:
    """Whether the peer has sent just that, and the end."""
    try:
        return receive_exactly(sock, 100) == after
    except ConnectionResetError:
        return False


def unpacks(server: Any) -> None:
    sock, addr = server.accept()
    server.handle_accepted(sock, addr)


def takes_by_number(server: Any) -> None:
    pair = server.accept()
    server.handle_accepted(pair[0], pair[1])


def passes_on(server: Any) -> None:
    server.handle_accepted(*server.accept())


def looks(server: Any) -> None:
    pair = server.accept()
    if pair is not None:
        server.handle_accepted(*pair)


@pytest.mark.parametrize("how", ["loop", "use_poll", "poll"])
@pytest.mark.parametrize("handle_accept", [unpacks, takes_by_number, passes_on, looks])
def test_a_refusal_does_no_harm_to_old_ways_to_accept(
    site: Site, handle_accept: Any, how: str
) -> None:
    """Many programs have never thought of an accept() that returns None."""
    server = serve(site, max_connections=1, handle_accept=handle_accept)

    def turn() -> None:
        if how == "poll":
            site.asyncore.poll(0.05, site.map)
        else:
            site.turn(timeout=0.05, use_poll=how == "use_poll")

    clients = []
    for refused in range(3):
        clients.append(connect(site, server))
        for _ in range(100):
            turn()
            if len(server.reasons) == refused and server.sessions:
                break
        assert (len(server.sessions), len(server.reasons)) == (1, refused)
    assert server.accepting and server._fileno is not None
    server.sessions[0].close()
    connect(site, server)
    for _ in range(100):
        turn()
        if len(server.sessions) == 2:
            break
    assert len(server.sessions) == 2


def test_any_other_mistake_is_told_as_ever(site: Site) -> None:
    def handle_accept(server: Any) -> None:
        site.keep(server.accept()[0])
        len(None)  # type: ignore[arg-type]

    def handle_error(server: Any) -> None:
        server.errors = server.errors + 1

    server = serve(site, handle_accept=handle_accept, handle_error=handle_error, errors=0)
    connect(site, server)
    site.run_until(lambda: server.errors)


@pytest.mark.parametrize("after", [False, True])
def test_connections_in_all(site: Site, after: bool) -> None:
    server = serve(site, after, max_connections=2, refusal=b"421 too many\r\n")
    clients = [connect(site, server) for _ in range(4)]
    site.run_until(lambda: len(server.reasons) == 2)
    assert len(server.sessions) == 2
    assert server.reasons == ["max_connections"] * 2
    assert all(ended(client, b"421 too many\r\n") for client in clients[2:])
    assert site.loop.stats()["refused"] == 2
    stats = server.limit_stats()
    assert stats == {"connections": 2, "accepted": 2, "refused": 2, "max_connections": 2}
    # When one of them has closed there is room for another.
    server.sessions[0].close()
    connect(site, server)
    site.run_until(lambda: len(server.sessions) == 3)
    assert server.limit_stats()["connections"] == 2


def test_a_connection_counts_whatever_becomes_of_its_socket_object(site: Site) -> None:
    server = serve(site, max_connections=1)
    connect(site, server)
    site.run_until(lambda: server.sessions)
    session = server.sessions[0]
    # As wrap_socket() does: another object for the same connection.
    session.socket = socket.socket(fileno=session.socket.detach())
    connect(site, server)
    site.run_until(lambda: server.reasons)
    session.close()
    connect(site, server)
    site.run_until(lambda: len(server.sessions) == 2)


def test_connections_by_address(site: Site) -> None:
    server = serve(site, max_connections_per_address=1)
    connect(site, server)
    connect(site, server)
    site.run_until(lambda: server.sessions and server.reasons)
    assert server.reasons == ["max_connections_per_address"]
    other = site.keep(socket.socket())
    try:
        other.bind(("127.0.0.2", 0))
    except OSError:
        pytest.skip("this system has one address of its own")
    other.connect(server.socket.getsockname())
    site.run_until(lambda: len(server.sessions) == 2)
    server.sessions[0].close()
    connect(site, server)
    site.run_until(lambda: len(server.sessions) == 3)
    assert server.limit_stats()["max_connections_per_address"] == 1


def test_accepts_a_second(site: Site) -> None:
    server = serve(site, max_accepts_per_second=5)
    for _ in range(8):
        connect(site, server)
    start = time.monotonic()
    site.run_until(lambda: len(server.sessions) + len(server.reasons) == 8)
    if time.monotonic() - start < 0.2:
        assert len(server.sessions) == 5
    assert set(server.reasons) == {"max_accepts_per_second"}
    accepted = len(server.sessions)

    def try_again() -> None:
        connect(site, server)

    timer = site.loop.call_every(0.1, try_again)
    site.run_until(lambda: len(server.sessions) > accepted)
    timer.cancel()


def test_refused_by_reset(site: Site) -> None:
    server = serve(site, max_connections=0, refuse_by_reset=True, refusal=b"unsaid")
    client = connect(site, server)
    site.run_until(lambda: server.reasons)
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert len(site.map) == 1


def test_a_refused_peer_that_goes_on_sending_reads_the_message(site: Site) -> None:
    server = serve(site, max_connections=0, refusal=b"421 bye\r\n")
    client = connect(site, server)
    client.sendall(b"HELO " * 100)
    site.run_until(lambda: server.reasons)
    client.sendall(b"MAIL " * 100)
    site.turn(3, timeout=0.01)
    client.sendall(b"QUIT")
    assert ended(client, b"421 bye\r\n")
    client.close()
    site.run_until(lambda: len(site.map) == 1)


def test_a_refused_peer_that_stays_is_closed(site: Site) -> None:
    server = serve(site, max_connections=0, refusal=b"421 bye\r\n")
    client = connect(site, server)
    site.run_until(lambda: server.reasons)
    assert len(site.map) == 2
    site.run_until(lambda: len(site.map) == 1)
    assert ended(client, b"421 bye\r\n")
    assert site.loop.stats()["timers"] == 0


def test_a_hook_that_raises_leaves_no_socket_open(site: Site) -> None:
    def handle_refused(self: Any, sock: Any, addr: Any, reason: str) -> None:
        raise RuntimeError(reason)

    errors: list[int] = []
    server = serve(
        site,
        max_connections=0,
        handle_refused=handle_refused,
        handle_error=lambda self: errors.append(1),
    )
    client = connect(site, server)
    site.run_until(lambda: errors)
    assert ended(client)


def test_without_limits_nothing_is_refused(site: Site) -> None:
    server = serve(site)
    for _ in range(5):
        connect(site, server)
    site.run_until(lambda: len(server.sessions) == 5)
    assert server.limit_stats() == {"connections": 5, "accepted": 5, "refused": 0}


# -- before a login -----------------------------------------------------------------------------


def session(site: Site, kind: str, after: bool = False, **own: Any) -> tuple[Any, Any]:
    """A channel of that kind with such a limit, which collects in `got`; and its peer."""

    def handle_read(self: Any) -> None:
        self.got += self.recv(65536)

    base, mixin = base_of(site, kind), site.fast.limits.LoginLimit
    names = {"handle_read": handle_read, "got": b"", "ignore_log_types": ("error", "warning")}
    names |= {"writable": lambda self: False, "refusal": b"too much"}
    ours, peer = site.tcp_pair()
    kind_of = type("Session", (base, mixin) if after else (mixin, base), names | own)
    return kind_of(ours, site.map), peer


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_bytes_before_a_login(site: Site, kind: str, after: bool) -> None:
    channel, peer = session(site, kind, after, max_bytes_before_login=100)
    peer.sendall(b"x" * 100)
    site.run_until(lambda: len(channel.got) == 100)
    peer.sendall(b"y" * 1000)
    site.run_until(lambda: not site.map)
    assert channel.got == b"x" * 100
    assert ended(peer, b"too much")


def test_a_login_ends_the_limit(site: Site) -> None:
    channel, peer = session(site, "dispatcher", max_bytes_before_login=10)
    peer.sendall(b"login")
    site.run_until(lambda: channel.got)
    channel.login_done()
    peer.sendall(b"x" * 1000)
    site.run_until(lambda: len(channel.got) == 1005)


def test_what_follows_the_login_in_one_go_does_not_count(site: Site) -> None:
    class Session(site.fast.limits.LoginLimit, site.fast.asynchat.async_chat):  # type: ignore[misc,name-defined]
        max_bytes_before_login = 20

        def collect_incoming_data(self, data: bytes) -> None:
            self.incoming.append(data)

        def found_terminator(self) -> None:
            self.login_done()

    ours, peer = site.tcp_pair()
    channel = Session(ours, site.map)
    channel.set_terminator(b"\n")
    peer.sendall(b"login\n" + b"x" * 1000)
    site.run_until(lambda: sum(map(len, channel.incoming)) == 1005)


def test_reset_before_a_login(site: Site) -> None:
    _, peer = session(site, "async_chat", max_bytes_before_login=10, refuse_by_reset=True)
    peer.sendall(b"x" * 100)
    site.run_until(lambda: not site.map)
    with pytest.raises(ConnectionResetError):
        peer.recv(1)


def test_the_hook_of_the_limit(site: Site) -> None:
    told: list[str] = []
    channel, peer = session(
        site,
        "dispatcher",
        max_bytes_before_login=10,
        handle_limit=lambda self, reason: told.append(reason),
    )
    peer.sendall(b"x" * 11)
    site.run_until(lambda: told)
    assert told == ["max_bytes_before_login"]
    site.run_until(lambda: len(channel.got) == 11)
    assert site.loop.stats()["refused"] == 1
