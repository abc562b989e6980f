"""Slow handlers and spinning channels are named, and nobody else is (docs/debugging.md)."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from support import ON_WINE, Site, needs_poll, needs_polled_pipes

ENOUGH = 200  # turns: more than it takes to name a channel that spins


@pytest.fixture
def site(fast: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A map whose loop is watched."""
    monkeypatch.setenv("FASTCORE_DEBUG", "1")
    with Site(fast) as site:
        yield site


def said(caplog: pytest.LogCaptureFixture, word: str = "") -> list[str]:
    """What was logged of slow and spinning handlers."""
    found = [record.getMessage() for record in caplog.records if record.name == "fastcore"]
    return [text for text in found if text.startswith(word or ("slow:", "spinning:"))]


def take_turns(site: Site, how: str, count: int = ENOUGH) -> None:
    """Take turns, in each of the ways in which programs do."""
    if how == "loop":
        site.turn(count)
    elif how == "run_once":
        for _ in range(count):
            site.loop.run_once(0)
    elif how == "run":
        left = iter(range(count))

        def look() -> None:
            if next(left, None) is None:
                site.loop.stop()
            else:
                site.loop.call_soon(look)

        site.loop.call_soon(look)
        site.loop.run()
    elif how == "aio":
        asyncio.run(attached(site, count))
    else:
        for _ in range(count):
            getattr(site.asyncore, how)(0.0, site.map)


async def attached(site: Site, count: int) -> None:
    with site.fast.aio.attach(site.map):
        for _ in range(10 * count):
            await asyncio.sleep(0)


WAYS = ["loop", "run_once", "run", "poll", pytest.param("poll2", marks=needs_poll), "aio"]


@pytest.fixture(params=WAYS)
def how(request: pytest.FixtureRequest, fast: Any) -> str:
    """A way to take turns, that the poller has."""
    if request.param == "aio" and fast.poller in ("poll", "select"):
        pytest.skip("no other loop can wait for this poller")
    way: str = request.param
    return way


# -- slow -----------------------------------------------------------------------------------------


def rest(_: Any) -> None:
    time.sleep(0.11)


def test_a_slow_handler_is_named(site: Site, how: str, caplog: pytest.LogCaptureFixture) -> None:
    ours, peer = site.pair()

    def handle_read(channel: Any) -> None:
        channel.recv(100)
        rest(channel)

    channel = site.channel(ours, handle_read=handle_read)
    peer.send(b"x")
    take_turns(site, how, 3)
    (text,) = said(caplog)
    assert f"slow: handle_read() of {channel!r} held the loop for 0.1" in text
    assert site.loop.stats()["slow_callbacks"] == 1
    record = next(record for record in caplog.records if record.name == "fastcore")
    assert record.levelno == logging.WARNING and vars(record)["channel"] is channel


@pytest.mark.parametrize("name", ["readable", "writable", "handle_write", "handle_close"])
def test_each_method_is_named(site: Site, name: str, caplog: pytest.LogCaptureFixture) -> None:
    ours, peer = site.pair()
    slow = {"once": True}

    def method(channel: Any) -> bool:
        if slow.pop("once", False):
            rest(channel)
        if name == "handle_write":
            channel.writable = lambda: False
        if name == "handle_close":
            channel.close()
        return False

    attributes: dict[str, Any] = {name: method}
    if name == "handle_write":
        attributes["writable"] = lambda channel: True
    site.channel(ours, **attributes)
    if name == "handle_close":
        peer.close()
    site.turn(3)
    (text,) = said(caplog)
    assert name in text or (name == "handle_close" and "handle_read" in text)


def test_a_slow_listener_is_named(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    def handle_accepted(channel: Any, sock: Any, addr: Any) -> None:
        sock.close()
        rest(channel)

    server = site.server()
    listener = site.recorder(handle_accepted=handle_accepted)(server, site.map)
    listener.accepting = True
    site.client(server.getsockname())
    site.run_until(lambda: said(caplog))
    assert said(caplog)[0].startswith("slow: handle_accepted() of ")


def test_a_slow_chat_is_named_by_what_it_overrides(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    class Chat(site.fast.asynchat.async_chat):  # type: ignore[misc]
        def collect_incoming_data(self, data: bytes) -> None:
            pass

        def found_terminator(self) -> None:
            rest(self)

    ours, peer = site.pair()
    Chat(ours, site.map).set_terminator(b"\n")
    peer.send(b"line\n")
    site.turn(3)
    (text,) = said(caplog)
    assert "handle_read() with collect_incoming_data() and found_terminator()" in text


def test_slow_callbacks_and_timers_are_named(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    def tick(number: int = 0) -> None:
        rest(number)

    loop = site.loop
    loop.call_soon(tick)
    loop.call_later(0.0, partial(partial(tick), 1))
    loop.run()
    assert loop.stats()["slow_callbacks"] == 2
    for text in said(caplog):
        assert "tick() at " in text and "test_debugging.py:" in text


def test_a_callback_that_raises_is_told_of_as_ever(fast: Any) -> None:
    seen: list[Any] = []
    with fast.Loop(slow_callback_duration=0) as loop:
        loop.exception_handler = seen.append

        def fail() -> None:
            raise ValueError

        handle = loop.call_soon(fail)
        later = loop.call_soon(seen.append, "after")
        loop.run()
    assert seen[0]["source"] is fail and seen[1] == "after"
    assert not handle.cancelled() and "done" in repr(later)


def test_what_passes_through_leaves_the_loop(fast: Any) -> None:
    def leave() -> None:
        raise fast.asyncore.ExitNow

    with fast.Loop(slow_callback_duration=0) as loop:
        loop.call_soon(leave)
        with pytest.raises(fast.asyncore.ExitNow):
            loop.run()


def test_a_nested_loop_does_not_hold_the_loop(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    ours, peer = site.pair()
    after: list[Any] = []

    def handle_read(channel: Any) -> None:
        channel.recv(100)
        site.loop.call_later(0.15, after.append, 1)
        while not after:
            site.asyncore.loop(1.0, map=site.map, count=1)

    site.channel(ours, handle_read=handle_read)
    peer.send(b"x")
    site.turn(2)
    assert after and not said(caplog)


def test_a_nested_handler_is_named_by_itself(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    def outer() -> None:
        site.loop.call_soon(inner)
        site.loop.run_once(0)

    def inner() -> None:
        rest(None)

    site.loop.call_soon(outer)
    site.loop.run()
    (text,) = said(caplog)
    assert "inner()" in text


def test_a_repr_that_raises_is_no_matter(fast: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Odd:
        def __repr__(self) -> str:
            raise ZeroDivisionError

        def __call__(self) -> None:
            pass

    with Site(fast) as site, fast.Loop(map=site.map, slow_callback_duration=0) as loop:
        ours, peer = site.pair()
        site.channel(ours, __repr__=Odd.__repr__)
        peer.send(b"x")
        loop.call_soon(Odd())
        loop.run_once(0)
        assert loop.stats()["slow_callbacks"] >= 2
    assert any("Recorder" in text and "ZeroDivisionError" in text for text in said(caplog))
    assert any("Odd" in text for text in said(caplog))


def test_a_clock_that_stands_still_does_not_matter(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)
    site.loop.call_soon(rest, None)
    site.loop.run_once(0)
    assert len(said(caplog)) == 1


# -- spinning -------------------------------------------------------------------------------------


def nothing(channel: Any) -> None:
    pass


def no(channel: Any) -> bool:
    return False


def yes(channel: Any) -> bool:
    return True


def fails(channel: Any) -> None:
    raise ZeroDivisionError


def answers_in_turn() -> Callable[[Any], bool]:
    """A predicate that says True where it is asked first, and then False."""
    answers = iter([True, False] * 10_000)
    return lambda channel: next(answers)


SPINNING: dict[str, tuple[dict[str, Any], bytes | None, str]] = {
    "it does not read": ({"handle_read": nothing}, b"x", "handle_read() does not read"),
    "it does not write": (
        {"writable": yes, "handle_write": nothing},
        b"",
        "writable() says True but handle_write() sends nothing",
    ),
    "it does not close": ({"handle_close": nothing}, None, "handle_close() does not close()"),
    "it raises": (
        {"handle_read": fails, "handle_error": nothing},
        b"x",
        "raises ZeroDivisionError, and handle_error() does not close()",
    ),
}


@pytest.mark.parametrize("mistake", SPINNING)
def test_a_spinning_channel_is_named_once(
    site: Site, how: str, mistake: str, caplog: pytest.LogCaptureFixture
) -> None:
    attributes, sent, text = SPINNING[mistake]
    ours, peer = site.pair()
    channel = site.channel(ours, **attributes)
    if sent is None:
        peer.close()
    else:
        peer.send(sent)
    take_turns(site, how, 2 * ENOUGH)
    (found,) = said(caplog)
    assert found.startswith("spinning: ") and repr(channel) in found and text in found
    assert f"descriptor {channel._fileno}, " in found and "connected, wants to " in found
    assert site.loop.stats()["spinning_channels"] == 1


def test_an_answer_that_is_taken_back_is_named(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    ours, peer = site.pair()
    site.channel(ours, readable=answers_in_turn())
    peer.send(b"x")
    site.turn(ENOUGH)
    (found,) = said(caplog)
    assert "readable() says True, and False when it is asked again" in found


def test_a_listener_that_does_not_accept_is_named(
    site: Site, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Listener(site.asyncore.dispatcher):  # type: ignore[misc]
        def handle_accept(self) -> None:
            pass

    listener = Listener(map=site.map)
    listener.create_socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(5)
    site.client(listener.socket.getsockname())
    take_turns(site, how)
    (found,) = said(caplog)
    assert "handle_accept() does not accept()" in found


@needs_polled_pipes
def test_a_pipe_at_its_end_is_named(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    class Pipe(site.asyncore.file_dispatcher):  # type: ignore[misc]
        def writable(self) -> bool:
            return False

        def handle_read(self) -> None:
            self.recv(100)

        def handle_close(self) -> None:
            pass

    near, far = os.pipe()
    os.close(far)
    Pipe(near, site.map)
    os.close(near)  # the channel has one of its own
    site.turn(ENOUGH)
    assert "handle_close() does not close()" in said(caplog)[0]


def test_another_channel_that_spins_is_named_too(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        ours, peer = site.pair()
        channel = site.channel(ours, handle_read=nothing)
        peer.send(b"x")
        site.turn(ENOUGH)
        channel.close()
        del channel
    assert len(said(caplog)) == 2
    assert site.loop.stats()["spinning_channels"] == 2


# -- nobody else ----------------------------------------------------------------------------------


BUSY: dict[str, Callable[[Any], Any]] = {
    "by the channel": lambda channel: channel.recv(4),
    "by the socket": lambda channel: channel.socket.recv(4),
    "into a buffer": lambda channel: channel.socket.recv_into(bytearray(4)),
    "in C": lambda channel: list(map(channel.socket.recv, [4])),
    "by a partial": lambda channel: partial(channel.socket.recv, 4)(),
}


@pytest.mark.parametrize("reads", BUSY)
def test_a_busy_channel_is_not_named(
    site: Site, reads: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Though in each event it is ready with as many bytes as in the last, and wants the same."""
    ours, peer = site.pair()
    site.channel(ours, handle_read=BUSY[reads])
    for _ in range(20 * ENOUGH):
        peer.send(b"1234")
        site.turn()
    assert not said(caplog)


def test_a_channel_that_sends_all_the_time_is_not_named(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    for send in ("send", "socket"):
        ours, peer = site.pair()

        def handle_write(channel: Any, send: str = send) -> None:
            (channel if send == "send" else channel.socket).send(b"1234")

        site.channel(ours, writable=yes, handle_write=handle_write)
        for _ in range(10 * ENOUGH):
            site.turn()
            peer.recv(4)
    assert not said(caplog)


def test_datagrams_of_one_length_are_not_named(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    ours = site.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    ours.bind(("127.0.0.1", 0))
    ours.setblocking(False)
    peer = site.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    site.channel(ours, handle_read=lambda channel: channel.socket.recv(100))
    for data in (b"1234", b""):
        for _ in range(2 * ENOUGH):
            peer.sendto(data, ours.getsockname())
            site.turn()
    assert not said(caplog)


def test_a_listener_that_accepts_is_not_named(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    server = site.server()
    listener = site.recorder(handle_accepted=lambda channel, sock, addr: sock.close())
    listener(server, site.map).accepting = True
    for _ in range(2 * ENOUGH):
        site.client(server.getsockname()).close()
        site.turn()
    assert not said(caplog)


def test_whoever_profiles_is_left_alone(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    ours, peer = site.pair()
    site.channel(ours, handle_read=nothing)
    peer.send(b"x")
    before = sys.getprofile()
    ours_too = lambda frame, event, argument: None  # noqa: E731
    sys.setprofile(ours_too)
    try:
        site.turn(ENOUGH)
        assert sys.getprofile() is ours_too
    finally:
        sys.setprofile(before)
    assert not said(caplog)
    site.turn(ENOUGH)
    assert len(said(caplog)) == 1 and sys.getprofile() is before


# -- asked for, or not ----------------------------------------------------------------------------


def test_nobody_looks_unless_asked(
    fast: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for value in (None, "", "0"):
        if value is None:
            monkeypatch.delenv("FASTCORE_DEBUG", raising=False)
        else:
            monkeypatch.setenv("FASTCORE_DEBUG", value)
        with Site(fast) as site:
            ours, peer = site.pair()
            site.channel(ours, handle_read=nothing)
            peer.send(b"x")
            site.loop.call_soon(rest, None)
            site.turn(ENOUGH)
            stats = site.loop.stats()
            assert stats["slow_callbacks"] == stats["spinning_channels"] == 0
    assert not said(caplog)


def test_a_duration_is_seconds(fast: Any, caplog: pytest.LogCaptureFixture) -> None:
    for seconds, expected in ((0.05, 1), (0, 1), (1, 0), (float("inf"), 0)):
        with fast.Loop(slow_callback_duration=seconds) as loop:
            loop.call_soon(rest, None)
            loop.run()
            assert loop.stats()["slow_callbacks"] == expected


@pytest.mark.parametrize("wrong", [-1, float("nan"), "1", b"1", True, (), 10**400])
def test_a_wrong_duration_is_refused(fast: Any, wrong: Any) -> None:
    with pytest.raises(ValueError, match="slow_callback_duration must be a number of seconds"):
        fast.Loop(slow_callback_duration=wrong)


def test_a_wrong_switch_is_refused(fast: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCORE_DEBUG", "yes")
    with pytest.raises(ValueError, match="FASTCORE_DEBUG='yes': choose from 0, 1"):
        fast.Loop()


@pytest.mark.skipif(ON_WINE, reason="starts a process, which takes wine too long")
def test_the_module_is_not_loaded_unless_asked() -> None:
    program = (
        "import sys, fastcore; fastcore.Loop().close(); print('fastcore._watch' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["False"]
