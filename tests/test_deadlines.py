"""Deadlines: idle, connect, handshake and write progress, for every kind of channel."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support import PATIENCE, Site, elapsed, fill

KINDS = ("dispatcher", "dispatcher_with_send", "async_chat")
SHORT = 0.05  # seconds


@pytest.fixture
def site(fast: Any) -> Iterator[Site]:
    with Site(fast) as site:
        yield site


def channel_class(site: Site, kind: str = "async_chat", after: bool = False, **own: Any) -> Any:
    """A class of that kind with deadlines, told in `told`; `after`: the mix-in is the last base."""
    base = getattr(site.fast.asynchat if kind == "async_chat" else site.asyncore, kind)
    mixin = site.fast.deadlines.Deadlines

    def handle_timeout(self: Any, kind: str) -> None:
        self.told = [*getattr(self, "told", []), kind]
        mixin.handle_timeout(self, kind)

    def handle_read(self: Any) -> None:
        self.got = getattr(self, "got", b"") + self.recv(65536)

    names = {"handle_timeout": handle_timeout, "ignore_log_types": ("error", "warning")}
    names |= {"handle_read": handle_read, "handle_close": lambda self: self.close()}
    if kind == "dispatcher":
        names["writable"] = lambda self: False
    bases = (base, mixin) if after else (mixin, base)
    return type("Channel", bases, names | own)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_an_idle_channel_is_closed(site: Site, kind: str, after: bool) -> None:
    ours, peer = site.pair()
    channel = channel_class(site, kind, after, idle_timeout=SHORT)(ours, site.map)
    site.run_until(lambda: not site.map)
    assert channel.told == ["idle"]
    assert peer.recv(1) == b""
    assert site.loop.stats()["timeouts"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_who_receives_is_not_idle(site: Site, kind: str) -> None:
    ours, peer = site.pair()
    channel = channel_class(site, kind, idle_timeout=8 * SHORT)(ours, site.map)
    site.loop.call_every(SHORT, lambda: peer.send(b"x") if not channel_is_done() else None)

    def channel_is_done() -> bool:
        return len(getattr(channel, "got", b"")) >= 8

    site.run_until(lambda: not site.map)
    assert len(channel.got) >= 8
    assert channel.told == ["idle"]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_who_sends_is_not_idle(site: Site, kind: str, after: bool) -> None:
    ours, peer = site.pair()
    channel = channel_class(site, kind, after, idle_timeout=8 * SHORT)(ours, site.map)
    sent: list[int] = []

    def send() -> None:
        if len(sent) < 8:
            sent.append(1)
            (channel.push if kind == "async_chat" else channel.send)(b"x")

    site.loop.call_every(SHORT, send)
    site.run_until(lambda: not site.map)
    assert len(sent) == 8
    assert peer.recv(100) == b"x" * 8


@pytest.mark.parametrize("kind", KINDS)
def test_a_peer_that_takes_nothing(site: Site, kind: str) -> None:
    ours, _peer = site.pair()
    names: dict[str, Any] = {"write_timeout": SHORT}
    if kind == "dispatcher":
        names["writable"] = lambda self: True
        fill(ours)
        # It has something to say, and says so.
        names["writable"] = lambda self: bool(self.out)
        names["out"] = b"x" * 10
    channel = channel_class(site, kind, **names)(ours, site.map)
    if kind == "async_chat":
        channel.push(b"x" * 10_000_000)
    elif kind == "dispatcher_with_send":
        channel.send(b"x" * 10_000_000)
    site.run_until(lambda: not site.map)
    assert channel.told == ["write"]


def test_a_peer_that_takes_little_is_waited_for(site: Site) -> None:
    ours, peer = site.pair()
    channel = channel_class(site, write_timeout=12 * SHORT)(ours, site.map)
    channel.push(b"x" * 10_000_000)
    taken: list[int] = []

    def take() -> None:
        if len(taken) < 10:
            taken.append(len(peer.recv(300_000)))

    site.loop.call_every(SHORT, take)
    site.run_until(lambda: not site.map)
    assert len(taken) == 10
    assert channel.told == ["write"]


def test_nothing_to_send_is_no_lack_of_progress(site: Site) -> None:
    ours, _peer = site.pair()
    channel = channel_class(site, write_timeout=SHORT)(ours, site.map)
    channel.push(b"a")
    end = time.monotonic() + 5 * SHORT
    site.run_until(lambda: time.monotonic() > end)
    fill(channel.socket)
    channel.push(b"b")  # from now on the peer is slow
    assert elapsed(lambda: site.run_until(lambda: not site.map)) >= SHORT * 0.9
    assert channel.told == ["write"]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_connect_that_is_not_answered(site: Site, kind: str, after: bool) -> None:
    server = site.keep(socket.socket())
    server.bind(("127.0.0.1", 0))
    server.listen(0)
    address = server.getsockname()
    waiting = [site.keep(socket.socket()) for _ in range(8)]  # the backlog is full
    for sock in waiting:
        sock.setblocking(False)
        sock.connect_ex(address)
    channel = channel_class(site, kind, after, connect_timeout=SHORT, idle_timeout=SHORT / 2)(
        None, site.map
    )
    channel.create_socket()
    channel.connect(address)
    if channel.connected:
        pytest.skip("this system's backlog is longer")
    site.run_until(lambda: not site.map)
    assert channel.told == ["connect"]


def test_the_deadline_of_connecting_ends_with_it(site: Site) -> None:
    server = site.server()
    channel = channel_class(site, connect_timeout=SHORT)(None, site.map)
    channel.create_socket()
    channel.connect(server.getsockname())
    end = time.monotonic() + 4 * SHORT
    site.run_until(lambda: time.monotonic() > end)
    assert channel.connected and not hasattr(channel, "told")


def test_idle_begins_when_it_is_connected(site: Site) -> None:
    server = site.server()
    channel = channel_class(site, connect_timeout=PATIENCE, idle_timeout=SHORT)(None, site.map)
    channel.create_socket()
    channel.connect(server.getsockname())
    assert elapsed(lambda: site.run_until(lambda: not site.map)) < PATIENCE / 2
    assert channel.told == ["idle"]


def test_a_deadline_of_the_programs_own(site: Site) -> None:
    ours, _ = site.pair()
    channel = channel_class(site, login_timeout=SHORT)(ours, site.map)
    channel.start_deadline("login")
    site.run_until(lambda: not site.map)
    assert channel.told == ["login"]


def test_a_handshake_that_is_done_in_time(site: Site) -> None:
    ours, _ = site.pair()
    channel = channel_class(site, handshake_timeout=SHORT, idle_timeout=8 * SHORT)(ours, site.map)
    channel.start_deadline("handshake")
    channel.stop_deadline("handshake")
    site.run_until(lambda: not site.map)
    assert channel.told == ["idle"]


def test_set_on_an_instance(site: Site) -> None:
    ours, _ = site.pair()
    kind = channel_class(site, idle_timeout=1000)
    channel = kind(ours, site.map)
    assert (channel.idle_timeout, kind.idle_timeout, kind.write_timeout) == (1000, 1000, None)
    channel.idle_timeout = SHORT
    assert (channel.idle_timeout, kind.idle_timeout) == (SHORT, 1000)
    site.run_until(lambda: not site.map)
    assert channel.told == ["idle"]


def test_taken_back_on_an_instance(site: Site) -> None:
    ours, _ = site.pair()
    channel = channel_class(site, idle_timeout=SHORT)(ours, site.map)
    channel.idle_timeout = None
    end = time.monotonic() + 4 * SHORT
    site.run_until(lambda: time.monotonic() > end)
    assert site.map and not hasattr(channel, "told")
    assert site.loop.stats()["timers"] == 0


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
def test_what_is_no_deadline_is_refused(site: Site, seconds: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        channel_class(site, idle_timeout=seconds)
    channel = channel_class(site)(None, site.map)
    with pytest.raises(ValueError, match="above 0"):
        channel.write_timeout = seconds


def test_a_hook_that_does_not_close(site: Site) -> None:
    ours, _ = site.pair()
    told: list[str] = []
    kind = channel_class(
        site, idle_timeout=SHORT, handle_timeout=lambda self, kind: told.append(kind)
    )
    kind(ours, site.map)
    site.run_until(lambda: len(told) == 3)
    assert told == ["idle"] * 3


def test_a_hook_that_raises_ends_its_channel_alone(site: Site) -> None:
    def raises(self: Any, kind: str) -> None:
        raise RuntimeError(kind)

    errors: list[int] = []

    def handle_error(self: Any) -> None:
        errors.append(1)
        self.close()

    kind = channel_class(site, idle_timeout=SHORT, handle_timeout=raises, handle_error=handle_error)
    channels = [kind(site.pair()[0], site.map) for _ in range(3)]
    site.run_until(lambda: not site.map)
    assert len(errors) == len(channels)


def test_exit_now_leaves_the_loop_and_the_others_are_told_later(site: Site) -> None:
    def leaves(self: Any, kind: str) -> None:
        self.close()
        raise site.asyncore.ExitNow

    kind = channel_class(site, idle_timeout=SHORT, handle_timeout=leaves)
    for _ in range(3):
        kind(site.pair()[0], site.map)
    for left in (2, 1, 0):
        with pytest.raises(site.asyncore.ExitNow):
            site.asyncore.loop(0.01, map=site.map)
        assert len(site.map) == left


def test_a_listener_has_none(site: Site) -> None:
    kind = channel_class(site, "dispatcher", idle_timeout=SHORT)
    listener = kind(None, site.map)
    listener.create_socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(5)
    end = time.monotonic() + 4 * SHORT
    site.run_until(lambda: time.monotonic() > end)
    assert listener.accepting and not hasattr(listener, "told")


def test_a_closed_channel_leaves_no_timer(site: Site) -> None:
    ours, _ = site.pair()
    channel = channel_class(site, idle_timeout=1000)(ours, site.map)
    assert site.loop.stats()["timers"] == 1
    site.loop.call_soon(channel.close)
    assert elapsed(site.loop.run) < PATIENCE  # it ends with the map, not with the deadline


def test_many_channels_have_one_timer_which_no_event_moves(site: Site) -> None:
    kind = channel_class(site, idle_timeout=1000, write_timeout=500)
    channels = []
    for _ in range(50):
        ours, peer = site.pair()
        channels.append((kind(ours, site.map), peer))
    for _channel, peer in channels:
        peer.send(b"x")
    site.run_until(lambda: all(hasattr(channel, "got") for channel, _ in channels))
    assert site.loop.stats()["timers"] == 1


def test_a_descriptor_that_stands_for_another_is_not_told(site: Site) -> None:
    kind = channel_class(site, idle_timeout=SHORT)
    ours, _ = site.pair()
    first = kind(ours, site.map)
    second = site.recorder()(None, site.map)
    site.map[first._fileno] = second  # by hand, and without a word
    end = time.monotonic() + 4 * SHORT
    site.run_until(lambda: time.monotonic() > end)
    assert not hasattr(first, "told") and second.events == []
    site.map.clear()


def test_a_channel_in_whose_place_another_object_stands_for_a_while(site: Site) -> None:
    class StandIn:
        accepting = False

        def __init__(self, channel: Any) -> None:
            self._channel = channel

        def __getattr__(self, name: str) -> Any:
            return getattr(self._channel, name)

    channel = channel_class(site, idle_timeout=SHORT)(site.pair()[0], site.map)
    site.map[channel._fileno] = StandIn(channel)
    channel.start_deadline("other")
    site.run_until(lambda: not site.map)
    assert channel.told == ["idle"]


def test_a_mixin_of_others_sees_the_bases_in_order(site: Site) -> None:
    class Other:
        def __init_subclass__(cls) -> None:
            super().__init_subclass__()
            cls.seen = cls.add_channel  # type: ignore[attr-defined]

    deadlines, chat = site.fast.deadlines.Deadlines, site.fast.asynchat.async_chat
    for bases in ((chat, deadlines, Other), (Other, chat, deadlines), (deadlines, Other, chat)):
        assert type("Chat", bases, {}).seen is deadlines.add_channel  # type: ignore[attr-defined]


def test_a_channel_that_came_into_the_map_by_another_way(site: Site) -> None:
    kind = channel_class(site, add_channel=site.asyncore.dispatcher.add_channel)
    channel = kind(site.pair()[0], site.map)
    channel.idle_timeout = SHORT
    site.run_until(lambda: not site.map)
    assert channel.told == ["idle"]


def test_a_handshake_timeout_of_another_mixin_stays(site: Site) -> None:
    class Other:
        handshake_timeout = 60.0

    deadlines, chat = site.fast.deadlines.Deadlines, site.fast.asynchat.async_chat
    assert type("Chat", (deadlines, Other, chat), {})().handshake_timeout == 60.0


def test_the_mixin_leaves_answers_together(site: Site) -> None:
    """A chat with deadlines sends as plainly as one without."""
    kind = channel_class(site, idle_timeout=1000)
    assert kind.send is site.asyncore.dispatcher.send
