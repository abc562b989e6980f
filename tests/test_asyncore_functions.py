"""The module's functions called directly, and its globals replaced by programs and tests."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from support import Site, needs_poll


@pytest.fixture
def site(fast: Any) -> Iterator[Site]:
    with Site(fast) as site:
        yield site


# -- the module's functions, called directly -----------------------------------------------


@pytest.mark.parametrize(
    ("function", "event"),
    [
        ("read", "handle_read_event"),
        ("write", "handle_write_event"),
        ("_exception", "handle_expt_event"),
    ],
)
def test_read_write_and_exception_tell_one_object(fast: Any, function: str, event: str) -> None:
    tell = getattr(fast.asyncore, function)
    obj = mock.Mock()
    tell(obj)
    assert obj.method_calls == [getattr(mock.call, event)()]
    getattr(obj, event).side_effect = LookupError
    tell(obj)
    obj.handle_error.assert_called_once_with()
    getattr(obj, event).side_effect = fast.asyncore.ExitNow
    with pytest.raises(fast.asyncore.ExitNow):
        tell(obj)


@needs_poll
def test_readwrite_follows_the_flags(fast: Any) -> None:
    obj = mock.Mock()
    fast.asyncore.readwrite(obj, select.POLLIN | select.POLLOUT | select.POLLPRI | select.POLLHUP)
    assert [call[0] for call in obj.method_calls] == [
        "handle_read_event",
        "handle_write_event",
        "handle_expt_event",
        "handle_close",
    ]
    cases = ((BrokenPipeError(32, "p"), "handle_close"), (ValueError(), "handle_error"))
    for error, answer in cases:
        obj = mock.Mock()
        obj.handle_read_event.side_effect = error
        fast.asyncore.readwrite(obj, select.POLLIN)
        assert obj.method_calls[1:] == [getattr(mock.call, answer)()]


@pytest.mark.parametrize(
    "function",
    ["poll", pytest.param("poll2", marks=needs_poll), pytest.param("poll3", marks=needs_poll)],
)
def test_poll_called_directly_takes_one_turn(site: Site, function: str) -> None:
    ours, peer = site.pair()
    channel = site.channel(ours, writable=lambda self: True)
    peer.send(b"x")
    getattr(site.asyncore, function)(0.0, site.map)
    assert channel.names == ["read", "write"]
    getattr(site.asyncore, function)(map={})


def test_poll_sleeps_where_nothing_wants_anything(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = mock.Mock()
    monkeypatch.setattr(site.asyncore, "time", clock)
    ours, _ = site.pair()
    site.channel(ours, readable=lambda self: False)
    site.asyncore.poll(0.25, site.map)
    clock.sleep.assert_called_once_with(0.25)


def test_poll_asks_select_with_three_lists(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = mock.Mock()
    fake.select.return_value = ([], [], [])
    monkeypatch.setattr(site.asyncore, "select", fake)
    one, _ = site.pair()
    two, _ = site.pair()
    site.channel(one)
    site.channel(two, readable=lambda self: False, writable=lambda self: True)
    site.asyncore.poll(1.5, site.map)
    numbers = one.fileno(), two.fileno()
    fake.select.assert_called_once_with([numbers[0]], [numbers[1]], list(numbers), 1.5)


# -- patched globals -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use_poll", "name"),
    [(False, "poll"), pytest.param(True, "poll2", marks=needs_poll)],
)
def test_the_loop_drives_a_patched_poll(
    site: Site, monkeypatch: pytest.MonkeyPatch, use_poll: bool, name: str
) -> None:
    ours, _ = site.pair()
    site.channel(ours)
    patched = mock.Mock()
    monkeypatch.setattr(site.asyncore, name, patched)
    site.turn(count=2, timeout=7, use_poll=use_poll)
    assert patched.call_args_list == [mock.call(7, site.map)] * 2


def test_the_loop_uses_a_patched_select(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = site.pair()
    channel = site.channel(ours, handle_read=lambda self: self.events.append("read"))
    fake = mock.Mock()
    fake.select.return_value = ([ours.fileno()], [], [])
    with monkeypatch.context() as patch:
        patch.setattr(site.asyncore, "select", fake)
        site.turn(count=2)
    assert channel.events == ["read"] * 2
    site.turn()
    assert channel.events == ["read"] * 2, "the patch is gone, and so is the event"


def test_a_patched_read_is_called(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, peer = site.pair()
    channel = site.channel(ours)
    patched = mock.Mock()
    monkeypatch.setattr(site.asyncore, "read", patched)
    peer.send(b"x")
    site.turn()
    patched.assert_called_once_with(channel)


def test_create_socket_uses_a_patched_socket_module(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, peer = site.pair()
    fake = mock.Mock()
    fake.socket.return_value = ours
    monkeypatch.setattr(site.asyncore, "socket", fake)
    channel = site.channel()
    channel.create_socket()
    fake.socket.assert_called_once_with(socket.AF_INET, socket.SOCK_STREAM)
    peer.send(b"x")
    site.turn()
    assert channel.received == b"x"


def test_a_rebound_socket_map_is_the_default(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.asyncore, "socket_map", site.map)
    ours, peer = site.pair()
    channel = site.recorder()(ours)
    assert site.map == {ours.fileno(): channel}
    peer.send(b"x")
    site.asyncore.loop(timeout=0, count=1)
    assert channel.received == b"x"
    site.asyncore.close_all()
    assert site.map == {}
