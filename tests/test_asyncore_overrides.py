"""What programs replace counts: methods, sockets, module globals, whole channels."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from support import Site, needs_polled_pipes


@pytest.fixture
def site(fast: Any) -> Iterator[Site]:
    with Site(fast) as site:
        yield site


# -- overrides -------------------------------------------------------------------------------


def test_methods_may_be_replaced_on_one_instance(site: Site) -> None:
    ours, peer = site.pair()
    channel = site.channel(ours)
    seen: list[Any] = []
    channel.recv = lambda size: seen.append(size) or b"patched"
    channel.writable = lambda: True
    channel.handle_write = lambda: seen.append("write")
    peer.send(b"x")
    site.turn()
    assert seen[:2] == [65536, "write"]
    assert set(channel.events) == {("read", b"patched")}
    channel.writable = lambda: False
    channel.readable = lambda: False
    channel.events.clear()
    site.turn()
    assert channel.events == []


def test_methods_may_be_replaced_in_the_class_while_the_loop_runs(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Channel(site.asyncore.dispatcher):  # type: ignore[misc, name-defined]
        received = b""

        def handle_read(self) -> None:
            self.received += self.recv(100)

    ours, peer = site.pair()
    channel = Channel(ours, site.map)
    asked = []
    for name in ("readable", "writable"):
        monkeypatch.setattr(site.asyncore.dispatcher, name, lambda self: asked.append(1) or True)
    monkeypatch.setattr(site.asyncore.dispatcher, "recv", lambda self, size: b"patched")
    peer.send(b"x")
    site.turn()
    assert channel.received.startswith(b"patched")
    assert asked


def test_event_methods_may_be_wrapped(site: Site) -> None:
    wrapped = []

    class Wrapping(site.recorder()):  # type: ignore[misc]
        def handle_read_event(self) -> None:
            wrapped.append("read")
            super().handle_read_event()

        def handle_write_event(self) -> None:
            wrapped.append("write")
            super().handle_write_event()

    ours, peer = site.pair()
    peer.send(b"x")
    channel = Wrapping(ours, site.map)
    channel.writable = lambda: True
    site.turn()
    assert wrapped[:2] == ["read", "write"]
    assert channel.names[:2] == ["read", "write"]


@pytest.mark.parametrize("mixin_first", [True, False])
def test_other_bases_may_come_first_or_last(site: Site, mixin_first: bool) -> None:
    class Mixin:
        def greet(self) -> str:
            return "hello"

        def handle_read(self: Any) -> None:
            self.seen = self.recv(10)

    plain = site.asyncore.dispatcher
    bases = (Mixin, plain) if mixin_first else (plain, Mixin)
    kind = type("Mixed", bases, {"writable": lambda self: False, "ignore_log_types": ("warning",)})
    ours, peer = site.pair()
    channel = kind(ours, site.map)
    peer.send(b"x")
    site.turn()
    assert channel.greet() == "hello"
    assert getattr(channel, "seen", None) == (b"x" if mixin_first else None)


@pytest.mark.parametrize("dict_first", [True, False])
def test_a_channel_may_be_a_dict_as_well_and_false(site: Site, dict_first: bool) -> None:
    bases = (dict, site.recorder()) if dict_first else (site.recorder(), dict)
    kind = type("Both", bases, {"__init__": site.recorder().__init__})
    ours, peer = site.pair()
    channel = kind.__new__(kind)
    channel.events = []
    site.asyncore.dispatcher.__init__(channel, ours, site.map)
    assert not channel
    peer.send(b"x")
    site.turn()
    assert channel.events == [("read", b"x")]


def test_a_channel_may_have_its_own_hash_and_equality(site: Site) -> None:
    def fail(*_: Any) -> Any:
        raise AssertionError("nobody needs it")

    ours, peer = site.pair()
    channel = site.channel(ours, __hash__=fail, __eq__=fail, __bool__=fail)
    peer.send(b"x")
    site.turn(count=2)
    channel.close()
    assert channel.events == [("read", b"x")]


def test_a_channel_may_be_a_thread_as_well(site: Site) -> None:
    class Both(site.asyncore.dispatcher, threading.Thread):  # type: ignore[misc, name-defined]
        def __init__(self, sock: Any, map: Any) -> None:
            threading.Thread.__init__(self)
            site.asyncore.dispatcher.__init__(self, sock, map)
            self.seen = b""

        def handle_read(self) -> None:
            self.seen += self.recv(10)

        def run(self) -> None:
            site.asyncore.loop(timeout=10, map=self._map, count=2)

    ours, peer = site.pair()
    channel = Both(ours, site.map)
    channel.writable = lambda: False
    channel.start()
    peer.send(b"x")
    peer.shutdown(socket.SHUT_WR)
    channel.join(20)
    assert channel.seen == b"x"


# -- early and late ---------------------------------------------------------------------------


def test_attributes_may_be_set_before_init(site: Site) -> None:
    class Early(site.asyncore.dispatcher):  # type: ignore[misc, name-defined]
        def __init__(self, sock: Any, map: Any) -> None:
            self.seen = []
            self.connected = False
            self.debug = True
            self.ignore_log_types = ()
            super().__init__(sock, map)

        def handle_read(self) -> None:
            self.seen.append(self.recv(10))

    ours, peer = site.pair()
    channel = Early(ours, site.map)
    peer.send(b"x")
    channel.writable = lambda: False
    site.turn()
    assert (channel.seen, channel.connected) == ([b"x"], True)


def test_init_may_run_later_and_in_another_thread(site: Site) -> None:
    kind = site.recorder()
    channel = kind.__new__(kind)
    channel.events = []
    ours, peer = site.pair()
    thread = threading.Thread(
        target=site.asyncore.dispatcher.__init__, args=(channel, ours, site.map)
    )
    thread.start()
    thread.join()
    peer.send(b"x")
    site.turn()
    assert channel.received == b"x"


def test_a_channel_added_by_another_thread_is_served_by_a_blocked_loop(site: Site) -> None:
    idle, _ = site.pair()
    site.channel(idle)
    ours, peer = site.pair()
    peer.send(b"x")
    added = []

    def add() -> None:
        added.append(site.channel(ours))

    site.loop.call_later(0.01, lambda: threading.Thread(target=add).start())
    site.turn(timeout=20.0)  # the timer
    site.run_until(lambda: added and added[0].received == b"x")


def test_init_may_never_run(site: Site) -> None:
    class Bare(site.asyncore.dispatcher):  # type: ignore[misc, name-defined]
        def __init__(self, sock: Any) -> None:
            self.seen = b""
            self.socket = sock

        def writable(self) -> bool:
            return False

        def handle_read(self) -> None:
            self.seen += self.recv(10)

    ours, peer = site.pair()
    channel = Bare(ours)
    site.map[ours.fileno()] = channel
    peer.send(b"x")
    site.turn()
    assert channel.seen == b"x"
    other, peer = site.pair()
    channel = Bare(None)
    channel.set_socket(other, site.map)
    peer.send(b"y")
    site.turn()
    assert channel.seen == b"y"


def test_a_channel_may_be_used_again_after_close(site: Site) -> None:
    channel = site.channel()
    for _ in range(3):
        ours, peer = site.pair()
        channel.set_socket(ours, site.map)
        channel.connected = True
        peer.send(b"x")
        site.turn()
        channel.close()
        assert site.map == {}
        channel.close()
    assert channel.received == b"xxx"


def test_connected_may_be_0(site: Site) -> None:
    ours, peer = site.pair()
    channel = site.channel(ours, connected=0)
    assert channel.connected is True
    channel.connected = 0
    channel.connecting = 0
    peer.send(b"x")
    site.turn()
    assert channel.names == ["read"]


def test_add_channel_may_register_nothing(site: Site) -> None:
    ours, peer = site.pair()
    channel = site.channel(
        ours, add_channel=lambda self, map=None: None, del_channel=lambda self, map=None: None
    )
    assert site.map == {}
    site.map[ours.fileno()] = channel
    peer.send(b"x")
    site.turn()
    assert channel.received == b"x"
    channel.close()
    del site.map[channel._fileno]
    assert site.map == {}


def test_add_channel_may_take_more_parameters(site: Site) -> None:
    calls = []

    class More(site.recorder()):  # type: ignore[misc]
        def add_channel(self, map: Any = None, events: str = "r") -> None:
            calls.append(events)
            site.asyncore.dispatcher.add_channel(self, map)

        def del_channel(self, map: Any = None, events: str = "d") -> None:
            calls.append(events)
            super().del_channel(map)

    ours, peer = site.pair()
    channel = More(ours, site.map)
    peer.send(b"x")
    site.turn()
    channel.close()
    assert (calls, channel.received, site.map) == (["r", "d"], b"x", {})


# -- sockets and channels of other kinds -----------------------------------------------------


def test_a_mock_may_stand_in_for_a_socket(site: Site) -> None:
    ours, peer = site.pair()
    sock = mock.Mock()
    sock.fileno.return_value = ours.fileno()
    sock.recv.return_value = b"mocked"
    channel = site.channel(sock)
    peer.send(b"x")
    site.turn()
    assert channel.received == b"mocked"
    assert channel.addr is sock.getpeername.return_value
    sock.setblocking.assert_called_once_with(False)
    channel.close()
    sock.close.assert_called_once_with()


@needs_polled_pipes
def test_a_pipe_wrapper_needs_little(site: Site) -> None:
    class PipeEnd:
        def __init__(self, number: int) -> None:
            self.number = number

        def fileno(self) -> int:
            return self.number

        def close(self) -> None:
            self.number = -1

        def getsockopt(self, *_: int) -> int:
            return 0

    read_end, write_end = site.pipe()
    channel = site.channel(
        handle_read=lambda self: self.events.append(os.read(self.socket.fileno(), 10))
    )
    channel.set_socket(PipeEnd(read_end), site.map)
    os.write(write_end, b"x")
    site.turn()
    assert channel.events == [b"x"]


def test_the_map_may_hold_whatever_answers(site: Site) -> None:
    class Duck:
        __hash__ = None  # type: ignore[assignment]
        __slots__ = ("seen", "sock")
        accepting = False

        def __init__(self, sock: socket.socket) -> None:
            self.sock, self.seen = sock, b""

        def readable(self) -> bool:
            return True

        def writable(self) -> bool:
            return False

        def handle_read_event(self) -> None:
            self.seen += self.sock.recv(10)

    ours, peer = site.pair()
    duck = Duck(ours)
    site.map[ours.fileno()] = duck
    for _ in range(3):
        peer.send(b"x")
        site.turn()
    assert duck.seen == b"xxx"


def test_a_socket_may_be_detached_from_its_descriptor(site: Site) -> None:
    ours, peer = site.pair()
    channel = site.channel(ours, handle_read=lambda self: self.events.append(self.other.recv(10)))
    channel.other = site.keep(socket.socket(fileno=ours.detach()))
    peer.send(b"x")
    site.turn(count=2)
    assert channel.events == [b"x"]
    assert site.map
