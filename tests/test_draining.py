"""Ending well: listeners and idle channels close, busy ones finish, and then the loop returns."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support import SIGNAL, Site, fill, needs_polled_pipes, receive_exactly, send_signal

KINDS = ("dispatcher_with_send", "async_chat")


@pytest.fixture
def site(fast: Any) -> Iterator[Site]:
    with Site(fast) as site:
        yield site


def channel_of(site: Site, kind: str, sock: Any, **own: Any) -> Any:
    base = getattr(site.fast.asynchat if kind == "async_chat" else site.asyncore, kind)
    names = {"ignore_log_types": ("error", "warning"), "handle_close": lambda self: self.close()}
    return type("Channel", (base,), names | own)(sock, site.map)


def send(channel: Any, data: bytes) -> None:
    (channel.push if hasattr(channel, "push") else channel.send)(data)


def run(site: Site) -> None:
    """As a program does it; it must return by itself."""
    guard = threading.Timer(20, site.loop.stop)
    guard.start()
    site.asyncore.loop(map=site.map)
    guard.cancel()
    assert not site.map


@pytest.mark.parametrize("kind", KINDS)
def test_listeners_and_idle_channels_close_and_busy_ones_finish(site: Site, kind: str) -> None:
    (idle, idle_peer), (busy, busy_peer) = site.pair(), site.pair()
    channel_of(site, kind, idle)
    channel = channel_of(site, kind, busy)
    listener = site.channel()
    listener.create_socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(5)
    data = b"x" * 5_000_000
    send(channel, data)
    drain = site.fast.draining.drain(site.map)
    assert idle_peer.recv(1) == b""
    assert not listener.accepting and listener._fileno is None
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(receive_exactly(busy_peer, 6_000_000)))
    reader.start()
    run(site)
    reader.join()
    assert received == [data]
    assert drain.finished
    assert (drain.idle, drain.done, drain.cut) == (1, 1, 0)
    assert site.loop.stats()["timers"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_after_the_deadline_all_are_closed(site: Site, kind: str) -> None:
    ours, peer = site.pair()
    send(channel_of(site, kind, ours), b"x" * 5_000_000)
    drain = site.fast.draining.drain(site.map, timeout=0.1)
    start = time.monotonic()
    run(site)
    assert 0.05 < time.monotonic() - start < 5
    assert (drain.idle, drain.done, drain.cut) == (0, 0, 1)
    assert peer.recv(1)


def test_in_a_handler(site: Site) -> None:
    ours, peer = site.pair()

    def handle_read(self: Any) -> None:
        self.recv(100)
        self.push(b"bye")
        site.fast.draining.drain(site.map)

    channel_of(site, "async_chat", ours, handle_read=handle_read)
    other = site.pair()[0]
    channel_of(site, "async_chat", other)
    peer.send(b"shutdown")
    run(site)
    assert receive_exactly(peer, 10) == b"bye"


def test_what_a_channel_or_the_caller_says_counts(site: Site) -> None:
    first = channel_of(site, "async_chat", site.pair()[0], works=True)
    type(first).is_busy = lambda self: self.works
    site.fast.draining.drain(site.map)
    site.turn(2, timeout=0.05)
    assert first.connected
    site.loop.call_later(0.05, setattr, first, "works", False)
    run(site)
    busy = [1, 1, 1]
    channel_of(site, "async_chat", site.pair()[0])
    site.fast.draining.drain(site.map, busy=lambda channel: bool(busy and busy.pop()))
    run(site)
    assert busy == []


def test_a_second_call_may_shorten_it(site: Site) -> None:
    send(channel_of(site, "async_chat", site.pair()[0]), b"x" * 5_000_000)
    first = site.fast.draining.drain(site.map, timeout=1000)
    assert site.fast.draining.drain(site.map, timeout=2000) is first
    assert site.map
    site.fast.draining.drain(site.map, timeout=0)
    assert not site.map and first.finished and first.cut == 1


def test_a_map_that_was_drained_can_be_used_again(site: Site) -> None:
    channel_of(site, "async_chat", site.pair()[0])
    drain = site.fast.draining.drain(site.map)
    assert drain.finished and not site.map
    channel_of(site, "async_chat", site.pair()[0])
    site.turn(3, timeout=0.05)
    assert site.map


def test_all_closed_by_others_meanwhile(site: Site) -> None:
    send(channel_of(site, "async_chat", site.pair()[0]), b"x" * 5_000_000)
    drain = site.fast.draining.drain(site.map)
    site.asyncore.close_all(site.map)
    assert drain.finished
    assert site.loop.stats()["timers"] == 0


@needs_polled_pipes
def test_a_pipe_stays_while_anybody_is_busy(site: Site) -> None:
    """What wakes a worker's channel is such a one."""
    first, _second = site.pipe()
    pipe = site.asyncore.file_dispatcher(first, site.map)
    channel = channel_of(site, "async_chat", site.pair()[0], is_busy=lambda self: self.works)
    channel.works = True
    site.fast.draining.drain(site.map)
    assert pipe._fileno is not None
    channel.works = False
    run(site)


def test_a_channel_that_cannot_close_or_answer(site: Site, caplog: Any) -> None:
    def raises(self: Any) -> None:
        raise RuntimeError

    channel = channel_of(site, "async_chat", site.pair()[0], is_busy=raises, close=raises)
    site.fast.draining.drain(site.map, timeout=0.05)
    run(site)
    site.asyncore.dispatcher.close(channel)
    assert "could not be closed" in caplog.text


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_what_is_no_timeout(site: Site, timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        site.fast.draining.drain(site.map, timeout)


# -- by signals ---------------------------------------------------------------------------------


def test_a_signal_drains_and_the_loop_returns(site: Site) -> None:
    before = signal.getsignal(SIGNAL)
    ours, peer = site.pair()
    channel = channel_of(site, "async_chat", ours)
    fill(ours)
    channel.push(b"last words")
    site.loop.call_soon(send_signal)
    reader = threading.Thread(target=receive_exactly, args=(peer, 1 << 24))
    site.loop.call_later(0.1, reader.start)
    wired = site.fast.draining.drain_on_signals(site.map, signals=[SIGNAL])
    run(site)
    reader.join()
    assert wired.drain.finished and wired.drain.cut == 0
    assert signal.getsignal(SIGNAL) is before


def test_a_second_signal_closes_all_at_once(site: Site) -> None:
    send(channel_of(site, "async_chat", site.pair()[0]), b"x" * 5_000_000)
    wired = site.fast.draining.drain_on_signals(site.map, 1000, [SIGNAL])
    site.loop.call_soon(send_signal)
    site.loop.call_later(0.1, send_signal)
    run(site)
    assert wired.drain.cut == 1


def test_the_signals_of_a_block(site: Site) -> None:
    numbers = [signal.SIGTERM, signal.SIGINT]
    before = [signal.getsignal(number) for number in numbers]
    with site.fast.draining.drain_on_signals(site.map) as wired:
        channel_of(site, "async_chat", site.pair()[0])
        if os.name != "nt":
            site.loop.call_soon(os.kill, os.getpid(), signal.SIGTERM)
        else:
            site.loop.call_soon(signal.raise_signal, signal.SIGTERM)
        run(site)
        assert wired.drain is not None and wired.drain.idle == 1
    assert [signal.getsignal(number) for number in numbers] == before
