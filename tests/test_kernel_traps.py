"""What kernels do to an event loop: duplicates, forks, numbers used again, resets, signals."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support import (
    PATIENCE,
    SIGNAL,
    Site,
    elapsed,
    fill,
    needs_fork,
    needs_numbers,
    needs_poll,
    send_signal,
)


@pytest.fixture
def site(fast: Any) -> Iterator[Site]:
    with Site(fast) as site:
        yield site


def _turns_that_wait(site: Site) -> int:
    """How many of five turns waited for their timeout: all but one or two, unless it spins."""
    return sum(elapsed(lambda: site.turn(timeout=0.03)) >= 0.029 for _ in range(5))


# -- who hears of what ---------------------------------------------------------------------------


def test_a_channel_that_wants_nothing_does_not_hear_of_a_hang_up(site: Site) -> None:
    ours, peer = site.pair()
    channel = site.channel(ours)
    site.turn()
    channel.readable = lambda: False
    site.turn()
    peer.close()
    assert _turns_that_wait(site) == 5
    assert channel.events == []
    channel.readable = lambda: True
    site.turn()
    assert channel.events == ["close"]


@needs_numbers
@pytest.mark.parametrize("use_poll", [False, True])
def test_a_duplicate_of_a_closed_descriptor_is_a_stranger(site: Site, use_poll: bool) -> None:
    """Its events reach nobody, not even the next owner of the number, and it does not spin."""
    idle, _ = site.pair()
    bystander = site.channel(idle)
    ours, peer = site.pair()
    channel = site.channel(ours)
    site.turn()
    number = ours.fileno()
    site.keep(os.dup(number))
    peer.send(b"for the duplicate")
    fresh, fresh_peer = site.pair()
    del site.map[number]
    os.dup2(fresh.fileno(), number)  # closes it behind the loop's back
    heir = site.channel(site.keep(socket.socket(fileno=number)))
    ours.detach()
    assert _turns_that_wait(site) >= 3
    assert (channel.events, heir.events, bystander.events) == ([], [], [])
    fresh_peer.send(b"mine")
    site.turn(timeout=5, use_poll=use_poll)
    assert heir.events == [("read", b"mine")]


@needs_numbers
def test_a_duplicate_of_a_closed_channel_does_not_spin(site: Site) -> None:
    idle, _ = site.pair()
    site.channel(idle)
    ours, peer = site.pair()
    channel = site.channel(ours)
    site.turn()
    duplicate = site.keep(os.dup(ours.fileno()))
    peer.send(b"x")
    channel.close()
    assert _turns_that_wait(site) == 5
    assert os.read(duplicate, 10) == b"x"


def test_a_socket_closed_behind_the_loops_back_closes_its_channel(site: Site) -> None:
    idle, peer = site.pair()
    bystander = site.channel(idle)
    ours, _ = site.pair()
    channel = site.channel(ours)
    site.turn()
    ours.close()
    peer.send(b"x")
    site.turn(count=2)
    assert channel.events == ["close"]
    assert bystander.events == [("read", b"x")]


@needs_numbers
def test_a_channel_may_close_and_open_again_under_its_number(site: Site) -> None:
    peers = []

    def handle_read(self: Any) -> None:
        self.events.append(self.recv(100))
        number = self.socket.fileno()
        fresh, peer = site.pair()
        self.close()
        os.dup2(fresh.fileno(), number)
        fresh.close()
        self.set_socket(site.keep(socket.socket(fileno=number)), site.map)
        self.connected = True
        peers.append(peer)

    ours, peer = site.pair()
    channel = site.channel(ours, handle_read=handle_read)
    peers.append(peer)
    for count in range(1, 5):
        peers[-1].send(b"x")
        site.turn(timeout=5)
        assert channel.events == [b"x"] * count
        assert list(site.map.values()) == [channel]


def test_an_object_may_take_the_place_of_another_under_its_number(site: Site) -> None:
    """The channel changes, the socket does not."""
    ours, peer = site.pair()
    first = site.channel(ours)
    site.turn()
    second = site.recorder()(None, site.map)
    second.socket = ours
    site.map[ours.fileno()] = second
    peer.send(b"x")
    site.turn(timeout=5)
    assert (first.events, second.events) == ([], [("read", b"x")])


@needs_numbers
def test_a_channel_that_cannot_be_watched_for_now_is_told_and_served_later(site: Site) -> None:
    """There is no descriptor left, just when the loop needs its own."""
    import resource

    ours, peer = site.pair()
    told = []

    def handle_error(self: Any) -> None:
        error = sys.exc_info()[1]
        assert isinstance(error, OSError)
        told.append(error.errno)

    channel = site.channel(ours, handle_error=handle_error)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with contextlib.suppress(OSError):  # the wait itself needs one, too
            site.loop.run_once(0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert told == [errno.EMFILE]
    peer.send(b"x")
    site.run_until(lambda: channel.events)
    assert channel.events == [("read", b"x")]


class _SubclassedSocket(socket.socket):
    """As TLS has one, and many programs."""


@needs_numbers
@pytest.mark.parametrize("close", [socket.socket.close, lambda sock: os.close(sock.detach())])
@pytest.mark.parametrize("wants", [True, False])
def test_a_socket_of_any_class_closed_by_others_closes_its_channel(
    site: Site, close: Any, wants: bool
) -> None:
    ours, _ = site.pair()
    sock = _SubclassedSocket(fileno=ours.detach())
    channel = site.channel(sock, readable=lambda self: wants)
    site.turn(count=2)
    close(sock)
    site.turn(count=2)
    assert channel.events == ["close"]


@needs_numbers
def test_a_socket_closed_by_others_is_found_while_a_timer_is_pending(site: Site) -> None:
    ours, _ = site.pair()
    channel = site.channel(ours)
    site.loop.call_later(3600, pytest.fail)
    site.turn()
    ours.close()
    assert elapsed(lambda: site.turn(timeout=PATIENCE)) < PATIENCE / 2
    assert channel.events == ["close"]


def test_an_idle_loop_looks_no_longer_for_what_others_have_closed(site: Site) -> None:
    """So it makes no system call but that of its wait."""
    site.channel(site.pair()[0])
    looks: list[int] = []

    def note(turns: float) -> None:
        site.turn(turns, timeout=0.11)
        looks.append(site.loop.stats()["looks"])

    note(1)
    note(25)
    note(1)  # whoever drives the loop may have closed something
    assert looks[0] > 0
    assert 5 < looks[1] - looks[0] < 16 * 2
    assert looks[2] > looks[1]


@needs_numbers
def test_a_descriptor_replaced_by_others_is_read_on(site: Site) -> None:
    """`os.dup2()` over a living channel's: the number stays, the file behind it changes."""
    ours, peer = site.pair()
    channel = site.channel(ours)
    peer.send(b"one")
    site.turn(count=2)
    fresh, fresh_peer = site.pair()
    os.dup2(fresh.fileno(), ours.fileno())
    fresh_peer.send(b"two")
    site.turn(count=3)
    assert channel.events == [("read", b"one"), ("read", b"two")]


# -- fork ----------------------------------------------------------------------------------------


def _in_child(action: Any) -> int:
    """Run `action()` in a forked child; return its exit status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@needs_fork
def test_a_child_may_close_its_channels_without_making_the_parent_deaf(site: Site) -> None:
    ours, peer = site.pair()
    channel = site.channel(ours)
    site.turn()
    assert _in_child(lambda: site.asyncore.close_all(site.map)) == 0
    peer.send(b"x")
    site.turn(timeout=5)
    assert channel.events == [("read", b"x")]


@needs_fork
def test_a_child_has_a_loop_of_its_own(site: Site) -> None:
    ours, peer = site.pair()
    channel = site.channel(ours)
    site.turn()

    def serve() -> None:
        own, own_peer = socket.socketpair()
        own_channel = site.recorder()(own, site.map)
        own_peer.send(b"own")
        peer.send(b"inherited")
        site.run_until(lambda: own_channel.events and channel.events)
        assert own_channel.events == [("read", b"own")]
        assert channel.events == [("read", b"inherited")]
        channel.readable = lambda: False
        site.turn()

    assert _in_child(serve) == 0
    assert _turns_that_wait(site) == 5, "the child's channel is not the parent's"
    peer.send(b"x")
    site.turn(timeout=5)
    assert channel.events == [("read", b"x")]


@needs_fork
def test_a_fork_inside_a_handler_leaves_both_loops_running(site: Site) -> None:
    status = []

    def handle_read(self: Any) -> None:
        self.events.append(self.recv(1))
        if not status:
            status.append(_in_child(self.in_child))

    ours, peer = site.pair()
    channel = site.channel(ours, handle_read=handle_read)

    def in_child() -> None:
        status.append(0)
        site.run_until(lambda: len(channel.events) == 2)
        peer.send(b"c")
        site.run_until(lambda: len(channel.events) == 3)

    channel.in_child = in_child
    peer.send(b"ab")
    site.turn(timeout=5)
    assert status == [0]
    peer.send(b"d")
    site.run_until(lambda: len(channel.events) == 2)
    assert channel.events == [b"a", b"d"]


# -- nesting, signals, readiness that is none ----------------------------------------------------


@pytest.mark.parametrize(
    "how", ["loop", "poll", pytest.param("poll2", marks=needs_poll), "run_once"]
)
def test_a_handler_may_wait_for_another_channel(site: Site, how: str) -> None:
    ours, peer = site.pair()
    other_sock, other_peer = site.pair()
    other = site.channel(other_sock)

    def handle_read(self: Any) -> None:
        self.events.append(self.recv(10))
        other_peer.send(b"answer")
        deadline = time.monotonic() + PATIENCE
        while not other.events and time.monotonic() < deadline:
            if how == "loop":
                site.turn()
            elif how == "run_once":
                site.loop.run_once(0)
            else:
                getattr(site.asyncore, how)(0.0, site.map)
        self.events.append(other.received)

    channel = site.channel(ours, handle_read=handle_read)
    for count in range(1, 4):
        other.events.clear()
        peer.send(b"ask")
        site.turn(timeout=5)
        assert channel.events == [b"ask", b"answer"] * count


@pytest.mark.parametrize("writes", [False, True])
def test_what_a_nested_loop_has_read_is_not_delivered_again(site: Site, writes: bool) -> None:
    channels: list[Any] = []

    def handle_read(self: Any) -> None:
        data = self.recv(10)  # raises where nothing is there
        self.events.append(("read", data))
        if len(self.events) == 1:
            site.turn()

    peers = []
    for _ in range(4):
        ours, peer = site.pair()
        channels.append(
            site.channel(ours, handle_read=handle_read, writable=lambda self: writes,
                         handle_write=lambda self: None)
        )  # fmt: skip
        peers.append(peer)
    for peer in peers:
        peer.send(b"x")
    site.turn(count=3)
    assert [channel.events for channel in channels] == [[("read", b"x")]] * 4


def test_a_nested_loop_may_close_what_the_outer_one_works_on(site: Site) -> None:
    ours, peer = site.pair()
    other, other_peer = site.pair()

    def handle_read(self: Any) -> None:
        self.events.append(self.recv(10))
        other_peer.send(b"x")
        site.turn(timeout=5)
        self.events.append("closed")

    channel = site.channel(ours, handle_read=handle_read, writable=lambda self: True)
    site.channel(other, handle_read=lambda self: channel.close())
    peer.send(b"x")
    site.run_until(lambda: "closed" in channel.events)
    site.turn()
    assert channel.events[-1] == "closed"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no interval timers here")
def test_a_signal_interrupts_no_delivery(site: Site) -> None:
    ours, peer = site.pair()
    channel = site.channel(ours)
    ticks: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: ticks.append(number))
    timer = threading.Timer(0.05, peer.send, (b"x",))
    before_timer = signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    timer.start()
    try:
        site.run_until(lambda: channel.events)
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before_timer)
        timer.join()
        signal.signal(signal.SIGALRM, before)
    assert channel.events == [("read", b"x")]
    assert ticks


def test_the_exception_of_a_signal_handler_leaves_the_loop(site: Site) -> None:
    ours, _ = site.pair()
    site.channel(ours)

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(SIGNAL, interrupt)
    timer = threading.Timer(0.05, send_signal)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            site.turn(timeout=30)
    finally:
        timer.join()
        signal.signal(SIGNAL, before)
    assert site.map


def test_a_chat_forgives_readiness_that_is_none(site: Site) -> None:
    ours, _ = site.pair()
    chat = site.fast.asynchat.async_chat(ours, site.map)
    chat.set_terminator(b"\n")
    chat.handle_read_event()
    fill(ours)
    chat.push(b"waits")
    chat.handle_write_event()
    assert site.map
    assert chat.producer_fifo
