"""When channels are asked what they want, and when the kernel is told."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support import PATIENCE, Site, elapsed, fill, room_for_descriptors

MANY = 400  # channels: more than are always swept, fewer than select() can hold


@pytest.fixture
def site(fast: Any) -> Iterator[Site]:
    with Site(fast) as site:
        yield site


class Asked:
    """A mixin that counts how often the predicates are asked."""

    asked = 0
    wants_read: Any = True
    wants_write: Any = False

    def readable(self) -> Any:
        self.asked += 1
        return self.wants_read

    def writable(self) -> Any:
        return self.wants_write


@pytest.fixture
def crowd(site: Site) -> Iterator[list[tuple[Any, socket.socket]]]:
    """Many channels with overridden predicates, and their peers; known to the loop."""
    kind = type("Counted", (Asked, site.recorder()), {})
    made = []
    with room_for_descriptors(4096):
        for _ in range(MANY):
            ours, peer = site.pair()
            made.append((kind(ours, site.map), peer))
        site.turn()
        yield made


def _counts(site: Site, name: str, action: Any) -> int:
    before = site.loop.stats()[name]
    action()
    return int(site.loop.stats()[name] - before)


# -- asking ------------------------------------------------------------------------------------


def test_with_few_channels_all_are_asked_on_every_turn(site: Site) -> None:
    kind = type("Counted", (Asked, site.recorder()), {})
    channels = [kind(site.pair()[0], site.map) for _ in range(5)]
    for turns in range(1, 4):
        site.turn()
        assert [channel.asked for channel in channels] == [turns] * 5


def test_with_many_channels_sweeps_take_a_small_share_of_the_turns(
    site: Site, crowd: list[tuple[Any, socket.socket]]
) -> None:
    busy, peer = crowd[0]
    idle, _ = crowd[1]
    idle.asked = sweeps = turns = 0
    deadline = time.monotonic() + PATIENCE
    while sweeps < 3 and time.monotonic() < deadline:
        peer.send(b"x")
        sweeps += _counts(site, "sweeps", lambda: site.turn(timeout=5))
        turns += 1
    assert len(busy.events) == turns
    assert 3 <= sweeps < turns / 2
    assert idle.asked <= sweeps


def test_strict_interest_asks_all_on_every_turn(
    site: Site, crowd: list[tuple[Any, socket.socket]]
) -> None:
    strict = site.fast.Loop(map=site.map, interest="strict")
    idle, _ = crowd[1]
    busy, peer = crowd[0]
    site.turn()
    idle.asked = 0
    for _ in range(20):
        peer.send(b"x")
        site.turn(timeout=5)
    assert site.loop is strict
    assert idle.asked == 20
    assert len(busy.events) == 20


def test_a_channel_whose_handler_ran_is_asked_in_the_same_turn(
    site: Site, crowd: list[tuple[Any, socket.socket]]
) -> None:
    channel, peer = crowd[0]
    channel.handle_read = lambda: (channel.recv(10), setattr(channel, "wants_write", True))
    peer.send(b"x")
    site.turn(timeout=5)
    assert "write" in channel.events


def test_a_channel_is_asked_just_before_its_handler(site: Site) -> None:
    """No handler runs against the word of its own predicate."""
    channels: list[Any] = []

    def handle_read(self: Any) -> None:
        self.events.append("read")
        for other in channels:
            if other is not self:
                other.wants_read = False

    kind = type("Counted", (Asked, site.recorder()), {"handle_read": handle_read})
    for _ in range(4):
        ours, peer = site.pair()
        channels.append(kind(ours, site.map))
        peer.send(b"x")
    site.turn()
    assert sum(len(channel.events) for channel in channels) == 1


def test_a_write_is_not_delivered_against_the_word_of_writable(site: Site) -> None:
    channels: list[Any] = []

    def handle_write(self: Any) -> None:
        self.events.append("write")
        for other in channels:
            other.wants_write = False

    kind = type("Counted", (Asked, site.recorder()), {"handle_write": handle_write})
    for _ in range(4):
        channel = kind(site.pair()[0], site.map)
        channel.wants_write = True
        channels.append(channel)
    site.turn(count=3)
    assert sum(len(channel.events) for channel in channels) == 1


def test_what_changes_between_two_calls_of_loop_counts(
    site: Site, crowd: list[tuple[Any, socket.socket]]
) -> None:
    """Programs drive the loop turn by turn: their own code runs in between, without a handler."""
    for channel, peer in crowd[:50]:
        site.turn()
        channel.wants_read = False
        peer.send(b"x")
        site.turn()
        site.turn()
        assert channel.events == []


def test_what_a_callback_changes_counts(site: Site, crowd: list[tuple[Any, socket.socket]]) -> None:
    for channel, peer in crowd[:50]:
        site.turn()
        peer.send(b"x")
        site.loop.call_soon(setattr, channel, "wants_read", False)
        channel.handle_read = lambda: None  # the event may come before the callback
        site.turn()
        channel.handle_read = lambda channel=channel: channel.events.append("late")
        site.turn(count=2)
        assert channel.events == []


def test_an_added_channel_is_asked_at_once(
    site: Site, crowd: list[tuple[Any, socket.socket]]
) -> None:
    added: list[Any] = []

    def handle_read(self: Any) -> None:
        self.recv(10)
        ours, peer = site.pair()
        peer.send(b"x")
        added.append(site.channel(ours))

    channel, peer = crowd[0]
    channel.handle_read = lambda: handle_read(channel)
    peer.send(b"x")
    site.turn(timeout=5)
    site.turn(timeout=5)
    assert added[0].events == [("read", b"x")]


def test_a_changed_attribute_of_an_idle_channel_is_noticed(
    site: Site, crowd: list[tuple[Any, socket.socket]]
) -> None:
    """Whatever code changed it: before the loop blocks, the sweep is due."""
    idle, idle_peer = crowd[7]
    site.turn()
    idle.wants_write = True
    assert elapsed(lambda: site.turn(timeout=20)) < PATIENCE
    site.run_until(lambda: idle.events)
    assert "write" in idle.names
    idle.wants_write = idle.wants_read = False
    site.run_until(lambda: site.turn() or elapsed(lambda: site.turn(timeout=0.02)) >= 0.02)
    idle.events.clear()
    idle_peer.send(b"x")
    for _ in range(5):
        site.turn()
    assert idle.events == []
    idle.wants_read = True
    started = time.monotonic()
    site.run_until(lambda: idle.events)
    assert time.monotonic() - started < PATIENCE / 2


def test_who_changes_the_answers_of_others_is_followed_by_a_question_to_all(
    site: Site, crowd: list[tuple[Any, socket.socket]]
) -> None:
    """The loop learns that of a class, whatever others did meanwhile that change nothing."""

    class Relay(site.recorder()):  # type: ignore[misc]
        def handle_read(self) -> None:
            self.recv(10)
            self.other.wants_write = True

    ours, peer = site.pair()
    relay = Relay(ours, site.map)
    busy, busy_peer = crowd[0]
    for other, _ in crowd[1:]:
        busy_peer.send(b"x")
        site.turn(timeout=PATIENCE)
        relay.other = other
        peer.send(b"x")
        site.turn(timeout=PATIENCE)
        site.turn(timeout=PATIENCE)  # it waits no longer than until all may be asked
        assert "write" in other.names
        other.wants_write = False
    assert len(busy.events) == len(crowd) - 1


def test_a_timer_changes_the_answer_of_an_idle_channel(
    site: Site, crowd: list[tuple[Any, socket.socket]]
) -> None:
    for other, _ in crowd:
        site.loop.call_soon(setattr, other, "wants_write", True)
        site.turn()
        site.turn(timeout=PATIENCE)
        assert "write" in other.names
        other.wants_write = False


def test_a_change_is_noticed_while_others_are_busy(
    site: Site, crowd: list[tuple[Any, socket.socket]]
) -> None:
    _, peer = crowd[0]
    idle, _ = crowd[7]
    deadline = time.monotonic() + PATIENCE
    idle.wants_write = True
    while not idle.events and time.monotonic() < deadline:
        peer.send(b"x")
        site.turn(timeout=5)
    assert idle.events


def test_a_closed_socket_among_many_is_noticed(
    site: Site, crowd: list[tuple[Any, socket.socket]]
) -> None:
    channel, _ = crowd[3]
    channel.socket.close()
    site.run_until(lambda: channel.events)
    assert channel.events == ["close"]
    assert len(site.map) == MANY - 1


# -- telling the kernel ------------------------------------------------------------------------


def test_the_tutorials_echo_changes_nothing_in_the_kernel(site: Site) -> None:
    class EchoHandler(site.asyncore.dispatcher):  # type: ignore[misc, name-defined]
        def __init__(self, sock: Any, map: Any) -> None:
            self.buffer: list[bytes] = []
            super().__init__(sock, map)

        def handle_read(self) -> None:
            self.buffer.append(self.recv(1024))

        def writable(self) -> bool:
            return bool(self.buffer)

        def handle_write(self) -> None:
            data = self.buffer.pop(0)
            sent = self.send(data)
            if sent < len(data):
                self.buffer.insert(0, data[sent:])

    ours, peer = site.pair()
    EchoHandler(ours, site.map)

    def serve() -> None:
        for _ in range(50):
            peer.send(b"hello")
            site.turn(timeout=5)
            assert peer.recv(100) == b"hello"

    serve()
    assert _counts(site, "interest_changes", serve) == 0


def test_only_a_channel_that_cannot_write_enters_the_kernels_set(site: Site) -> None:
    kind = type("Counted", (Asked, site.recorder()), {"handle_write": lambda self: None})
    ours, peer = site.pair()
    channel = kind(ours, site.map)
    site.turn()
    fill(ours)

    def want() -> None:
        channel.wants_write = True
        site.turn(count=3)

    assert _counts(site, "interest_changes", want) == 1
    assert elapsed(lambda: site.turn(timeout=0.03)) >= 0.029
    channel.wants_write = False
    assert _counts(site, "interest_changes", lambda: site.turn(count=3)) == 1
    peer.close()


def test_idle_turns_change_nothing_in_the_kernel(
    site: Site, crowd: list[tuple[Any, socket.socket]]
) -> None:
    assert _counts(site, "interest_changes", lambda: site.turn(count=20)) == 0


# -- maps that others change -------------------------------------------------------------------


def test_a_cleared_map_ends_the_loop(site: Site) -> None:
    ours, peer = site.pair()
    site.channel(ours, handle_read=lambda self: site.map.clear())
    other, _ = site.pair()
    site.channel(other)
    peer.send(b"x")
    assert elapsed(lambda: site.asyncore.loop(timeout=30, map=site.map)) < PATIENCE


def test_a_cleared_map_may_be_filled_again(site: Site) -> None:
    ours, peer = site.pair()
    channel = site.channel(ours)
    site.turn()
    site.map.clear()
    peer.send(b"x")
    site.turn()
    assert channel.events == []
    site.map[ours.fileno()] = channel
    site.turn(timeout=5)
    assert channel.events == [("read", b"x")]


def test_a_deleted_channel_hears_nothing(site: Site) -> None:
    ours, peer = site.pair()
    gone = site.channel(ours)
    other, other_peer = site.pair()
    stays = site.channel(other)
    site.turn()
    peer.send(b"x")
    other_peer.send(b"y")
    del site.map[ours.fileno()]
    site.turn(count=2)
    assert (gone.events, stays.events) == ([], [("read", b"y")])
    assert elapsed(lambda: site.turn(timeout=0.03)) >= 0.029


def test_a_rebound_key_belongs_to_the_new_object(site: Site) -> None:
    ours, peer = site.pair()
    first = site.channel(ours)
    site.turn()
    second = site.recorder()(None, site.map)
    second.socket = ours
    for channel, other in ((second, first), (first, second)) * 2:
        site.map[ours.fileno()] = channel
        peer.send(b"x")
        other.events.clear()
        channel.events.clear()
        site.turn(timeout=5)
        assert (channel.events, other.events) == ([("read", b"x")], [])


def test_a_rebound_key_among_many_belongs_to_the_new_object(
    site: Site, crowd: list[tuple[Any, socket.socket]]
) -> None:
    first, peer = crowd[0]
    second = site.recorder()(None, site.map)
    second.socket = first.socket
    site.map[first.socket.fileno()] = second
    peer.send(b"x")
    site.run_until(lambda: second.events)
    assert (first.events, second.events) == ([], [("read", b"x")])


def test_objects_added_to_the_map_are_served(
    site: Site, crowd: list[tuple[Any, socket.socket]]
) -> None:
    class Foreign:
        accepting = False

        def __init__(self, sock: socket.socket) -> None:
            self.sock, self.data = sock, b""

        def readable(self) -> bool:
            return True

        def writable(self) -> bool:
            return False

        def handle_read_event(self) -> None:
            self.data += self.sock.recv(100)

    ours, peer = site.pair()
    foreign = site.map[ours.fileno()] = Foreign(ours)  # type: ignore[assignment]
    peer.send(b"x")
    site.turn(timeout=5)
    assert foreign.data == b"x"
    first, first_peer = crowd[0]
    replaced = site.map[first.socket.fileno()] = Foreign(first.socket)  # type: ignore[assignment]
    first_peer.send(b"y")
    site.run_until(lambda: replaced.data)
    del site.map[ours.fileno()]
    site.map[first.socket.fileno()] = first


@pytest.mark.parametrize("kind", ["dict", "other"])
def test_the_map_may_be_of_another_class(site: Site, kind: str) -> None:
    from collections import OrderedDict, UserDict

    map: Any = OrderedDict() if kind == "dict" else UserDict()
    ours, peer = site.pair()
    channel = site.recorder()(None, map)
    channel.set_socket(ours, map)
    channel.connected = True
    peer.send(b"x")
    site.asyncore.loop(timeout=5, map=map, count=1)
    assert channel.events == [("read", b"x")]
    channel.close()
    assert len(map) == 0
