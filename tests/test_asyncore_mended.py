"""Where the old modules lost data, spun or stalled: every line of the table of what is mended."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from support import (
    PATIENCE,
    SIGNAL,
    Site,
    elapsed,
    names_of,
    needs_numbers,
    needs_polled_pipes,
    room_for_descriptors,
    send_signal,
)


@pytest.fixture
def site(fast: Any) -> Iterator[Site]:
    with Site(fast) as site:
        yield site


# -- events for the wrong object -------------------------------------------------------------


def test_a_channel_closed_by_another_in_the_same_batch_hears_nothing(site: Site) -> None:
    channels: list[Any] = []

    def handle_read(self: Any) -> None:
        self.events.append("read")
        for other in channels:
            if other is not self:
                other.close()

    peers = []
    for _ in range(5):
        ours, peer = site.pair()
        peers.append(peer)
        channels.append(site.channel(ours, handle_read=handle_read))
    site.turn()
    for peer in peers:
        peer.send(b"x")
    site.turn()
    assert sorted(names_of(channels)) == [[], [], [], [], ["read"]]


@needs_numbers
@pytest.mark.parametrize("use_poll", [False, True])
def test_an_event_is_not_for_another_channel_under_the_same_number(
    site: Site, use_poll: bool
) -> None:
    channels: list[Any] = []
    reborn: list[Any] = []

    def handle_read(self: Any) -> None:
        self.events.append(self.recv(10))
        for other in channels:
            if other is not self and not reborn:
                number = other.socket.fileno()
                ours, peer = site.pair()
                other.close()
                os.dup2(ours.fileno(), number)
                again = site.keep(socket.socket(fileno=number))
                reborn.extend([site.channel(again), peer])

    for _ in range(2):
        ours, peer = site.pair()
        channels.append(site.channel(ours, handle_read=handle_read))
        peer.send(b"x")
    site.turn(use_poll=use_poll)
    channel, peer = reborn
    assert channel.events == []
    peer.send(b"y")
    site.turn(use_poll=use_poll)
    assert channel.events == [("read", b"y")]


def test_a_channel_that_closes_while_reading_is_not_written(site: Site) -> None:
    ours, peer = site.tcp_pair()
    peer.send(b"!", socket.MSG_OOB)
    peer.send(b"x")
    channel = site.channel(
        ours,
        handle_read=lambda self: (self.events.append("read"), self.close()),
        writable=lambda self: True,
    )
    site.run_until(lambda: channel.events)
    site.turn()
    assert channel.events == ["read"]


def test_a_channel_replaced_while_reading_is_not_written(site: Site) -> None:
    """The same map entry and number, but another object."""
    ours, peer = site.pair()
    heir = site.recorder()(None, site.map)
    heir.socket = ours

    def handle_read(self: Any) -> None:
        self.events.append("read")
        site.map[ours.fileno()] = heir

    peer.send(b"x")
    channel = site.channel(ours, handle_read=handle_read, writable=lambda self: True)
    site.turn()
    assert channel.events == ["read"]
    site.turn()
    assert heir.events == [("read", b"x")]


# -- data before a hang-up -----------------------------------------------------------------------


@pytest.mark.parametrize("use_poll", [False, True])
@pytest.mark.parametrize("writes", [False, True])
def test_data_before_a_hang_up_is_read_to_its_end(site: Site, use_poll: bool, writes: bool) -> None:
    def handle_read(self: Any) -> None:
        data = self.recv(4096)
        if data:
            self.events.append(("read", data))

    ours, peer = site.pair()
    channel = site.channel(ours, handle_read=handle_read, writable=lambda self: writes)
    data = os.urandom(50_000)
    peer.sendall(data)
    peer.close()
    site.run_until(lambda: not site.map, use_poll=use_poll)
    assert channel.received == data
    assert channel.names[-1] == "close"
    assert channel.names.count("close") == 1


# -- many descriptors ----------------------------------------------------------------------------


@pytest.fixture
def high(site: Site) -> Iterator[tuple[Any, Any]]:
    """A socket under a number that select() cannot hold, and its peer."""
    with room_for_descriptors(4000):
        ours, peer = site.pair()
        os.dup2(ours.fileno(), 2500)
        yield site.keep(socket.socket(fileno=2500)), peer


@needs_numbers
def test_high_descriptors_are_no_limit_or_refused_alone(
    site: Site, high: tuple[socket.socket, socket.socket]
) -> None:
    ours, peer = site.pair()
    low = site.channel(ours)
    channel = site.channel(high[0])
    peer.send(b"low")
    high[1].send(b"high")
    site.turn(count=2)
    assert low.received == b"low"
    if site.fast.poller == "select":
        ((kind, error),) = channel.events
        assert (kind, error.errno) == ("error", errno.ERANGE)
        assert "2500" in str(error)
        assert "select" in str(error)
        assert list(site.map.values()) == [low]
    else:
        assert channel.received == b"high"


@needs_numbers
def test_a_refused_channel_that_stays_is_told_once(
    site: Site, high: tuple[socket.socket, socket.socket]
) -> None:
    channel = site.channel(high[0], handle_error=lambda self: self.events.append("error"))
    site.turn(count=5)
    assert channel.events == (["error"] if site.fast.poller == "select" else [])


# -- out of descriptors in accept ----------------------------------------------------------------

ACCEPTING = """
import os, resource, socket, sys, time
from fastcore import asyncore
accepted = []
class Listener(asyncore.dispatcher):
    def writable(self):
        return False
    def handle_accepted(self, sock, addr):
        accepted.append(sock)
listener = Listener(socket.create_server(("127.0.0.1", 0)))
listener.accepting = True
asyncore.loop(timeout=0, count=1)
clients = [socket.create_connection(listener.socket.getsockname()) for _ in range(2)]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
fillers = []
try:
    while True:
        fillers.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
start = time.monotonic()
turns = 0
cpu = time.process_time()
while time.monotonic() < start + 0.3:
    asyncore.loop(timeout=0.1, count=1)
    turns += 1
assert not accepted
assert listener.accepting and asyncore.socket_map, "the listener has closed itself"
assert turns < 30, f"it spins: {turns} turns"
for number in fillers:
    os.close(number)
deadline = time.monotonic() + 10
while len(accepted) < 2 and time.monotonic() < deadline:
    asyncore.loop(timeout=1, count=1)
assert len(accepted) == 2
print("accepted")
for sock in [*accepted, *clients]:
    sock.close()
listener.close()
"""


@pytest.mark.skipif(os.name == "nt", reason="on Windows descriptors cannot be made scarce")
def test_a_listener_rests_where_there_are_no_descriptors(fast: Any) -> None:
    environment = dict(os.environ, FASTCORE_ENGINE=fast.engine, FASTCORE_POLLER=fast.poller)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ACCEPTING],
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()  # it logs once, not once for each try
    assert first.startswith("error: cannot accept for now")
    assert last == "accepted"


def test_the_rest_of_a_listener_doubles_up_to_a_second(site: Site) -> None:
    listener = site.channel(site.server())
    listener.accepting = True
    listener.log_info = mock.Mock()
    listener.socket = mock.Mock()
    listener.socket.accept.side_effect = OSError(errno.EMFILE, "full")
    home, loop = listener._fastcore_home, mock.Mock()
    listener._fastcore_home = site.fast.loop.Home(site.map, loop)
    for _ in range(9):
        with pytest.raises(OSError, match="full"):
            listener.accept()
    listener.socket.accept.side_effect = [("socket", "address"), OSError(errno.ENFILE, "full")]
    assert listener.accept() == ("socket", "address")
    with pytest.raises(OSError, match="full"):
        listener.accept()
    rests = [call.args[2] for call in loop._engine.pause.call_args_list]
    listener._fastcore_home = home
    assert rests == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0, 0.01]
    assert listener.log_info.call_count == 2


# -- nothing to wait for -------------------------------------------------------------------------


def test_a_wait_for_nothing_is_ended_by_a_timer(site: Site) -> None:
    ours, _ = site.pair()
    site.channel(ours, readable=lambda self: False)
    fired: list[int] = []
    site.loop.call_later(0.01, fired.append, 1)
    assert elapsed(lambda: site.turn(timeout=30)) < PATIENCE
    assert fired == [1]


def test_a_wait_for_nothing_is_ended_by_a_wake_up(site: Site) -> None:
    ours, _ = site.pair()
    site.channel(ours, readable=lambda self: False)
    loop = site.loop
    thread = threading.Timer(0.05, loop.wakeup)
    thread.start()
    assert elapsed(lambda: site.turn(timeout=30)) < PATIENCE
    thread.join()


def test_a_wait_for_nothing_is_ended_by_a_signal(site: Site) -> None:
    ours, _ = site.pair()
    site.channel(ours, readable=lambda self: False)
    arrived: list[int] = []
    before = signal.signal(SIGNAL, lambda number, frame: arrived.append(number))
    thread = threading.Timer(0.05, send_signal)
    try:
        thread.start()
        assert elapsed(lambda: site.turn(timeout=30)) < PATIENCE
    finally:
        thread.join()
        signal.signal(SIGNAL, before)
    assert arrived == [SIGNAL]


def test_a_wait_for_nothing_takes_its_time(site: Site) -> None:
    ours, _ = site.pair()
    site.channel(ours, readable=lambda self: False)
    assert elapsed(lambda: site.turn(timeout=0.05)) >= 0.049


# -- listen --------------------------------------------------------------------------------------


def test_the_backlog_is_as_asked_everywhere(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    channel = site.channel()
    channel.socket = mock.Mock()
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        channel.listen(100)
    channel.socket.listen.assert_called_once_with(100)


# -- closing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        ("asyncore", "dispatcher"),
        ("asyncore", "dispatcher_with_send"),
        pytest.param("asyncore", "file_dispatcher", marks=needs_polled_pipes),
        ("asynchat", "async_chat"),
    ],
)
def test_close_before_init_closes(fast: Any, module: str, kind: str) -> None:
    cls = getattr(getattr(fast, module), kind)
    channel = cls.__new__(cls)
    channel.close()
    channel.socket = sock = mock.Mock()
    channel.close()
    sock.close.assert_called_once_with()


@pytest.mark.parametrize("problem", [OSError(errno.EIO, "no"), ValueError("no")])
def test_close_all_empties_the_map_and_raises(site: Site, problem: Exception) -> None:
    def fail(self: Any) -> None:
        self.socket.close()
        raise problem

    pairs = [site.pair() for _ in range(3)]
    site.channel(pairs[0][0])
    site.channel(pairs[1][0], close=fail)
    last = site.channel(pairs[2][0])
    with pytest.raises(type(problem)):
        site.asyncore.close_all(site.map)
    assert site.map == {}
    assert last.socket.fileno() == -1


def test_close_all_may_ignore_errors_but_not_exits(site: Site) -> None:
    def fail(self: Any) -> None:
        raise self.problem

    ours, _ = site.pair()
    channel = site.channel(ours, close=fail)
    channel.problem = ValueError()
    site.asyncore.close_all(site.map, ignore_all=True)
    assert site.map == {}
    site.map[ours.fileno()] = channel
    channel.problem = site.asyncore.ExitNow()
    with pytest.raises(site.asyncore.ExitNow):
        site.asyncore.close_all(site.map, ignore_all=True)
    assert site.map == {}
