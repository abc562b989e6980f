"""Loop: how it runs, ends, waits and closes, and which loop belongs to a map.

Exceptions, outer loops and memory are in test_loop_inside.py, timers in test_timers.py, threads and
signals in test_threads_signals.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from loop_channels import reader
from support import Site


@pytest.fixture
def loop(fast: Any) -> Iterator[Any]:
    """A loop over a map of its own."""
    with fast.Loop() as loop:
        yield loop


# -- run ----------------------------------------------------------------------------------


def test_run_ends_with_stop(fast: Any, loop: Any) -> None:
    channel, peer = reader(fast, loop.map)
    loop.call_soon(loop.stop)
    loop.run()
    assert loop.map  # it did not end for want of channels
    channel.close()
    peer.close()


def test_stop_before_run_lets_one_turn_pass(loop: Any) -> None:
    ran: list[int] = []
    loop.call_soon(ran.append, 1)
    loop.stop()
    loop.run()
    assert ran == [1]


def test_run_after_stop_runs_again(loop: Any) -> None:
    ran: list[int] = []
    for number in range(3):
        loop.call_soon(ran.append, number)
        loop.call_soon(loop.stop)
        loop.run()
    assert ran == [0, 1, 2]


def test_run_ends_when_the_map_is_empty(fast: Any, loop: Any) -> None:
    channel, peer = reader(fast, loop.map)
    peer.send(b"last words")
    peer.close()
    loop.run()
    assert channel.received == b"last words"
    assert not loop.map


def test_run_ends_only_when_nothing_is_pending_either(fast: Any, loop: Any) -> None:
    _channel, peer = reader(fast, loop.map)
    peer.close()
    ran: list[str] = []
    loop.call_later(0.02, ran.append, "timer")
    loop.run()
    assert ran == ["timer"]


def test_run_that_starts_with_nothing_serves_threads(loop: Any) -> None:
    ran: list[str] = []
    first = threading.Event()

    def other_thread() -> None:
        while not loop.running:
            time.sleep(0)  # lets the other thread run
        loop.call_soon_threadsafe(lambda: (ran.append("one"), first.set()))
        assert first.wait(10)
        loop.call_soon_threadsafe(ran.append, "two")
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=other_thread, daemon=True)
    thread.start()
    loop.run()
    thread.join(10)
    assert ran == ["one", "two"]


def test_running_says_whether_it_runs(loop: Any) -> None:
    seen: list[bool] = []
    assert not loop.running
    loop.call_soon(lambda: seen.append(loop.running))
    loop.run()
    assert seen == [True]
    assert not loop.running


def test_run_inside_a_callback(loop: Any) -> None:
    ran: list[str] = []

    def outer() -> None:
        loop.call_soon(ran.append, "inner")
        loop.run_once(0)
        assert loop.running
        ran.append("outer")

    loop.call_soon(outer)
    loop.run()
    assert ran == ["inner", "outer"]


# -- run_once -----------------------------------------------------------------------------


def test_run_once_without_time_returns_at_once(loop: Any) -> None:
    start = time.monotonic()
    for _ in range(10):
        loop.run_once(0)
    assert time.monotonic() - start < 5


def test_run_once_waits_its_timeout(fast: Any, loop: Any) -> None:
    channel, peer = reader(fast, loop.map)
    start = time.monotonic()
    loop.run_once(0.05)
    assert 0.04 <= time.monotonic() - start < 5
    channel.close()
    peer.close()


def test_run_once_ends_with_the_first_event(fast: Any, loop: Any) -> None:
    channel, peer = reader(fast, loop.map)
    peer.send(b"now")
    start = time.monotonic()
    loop.run_once(60)
    assert time.monotonic() - start < 30
    assert channel.received == b"now"
    channel.close()
    peer.close()


def test_run_once_without_limit_ends_with_a_timer(loop: Any) -> None:
    ran: list[int] = []
    loop.call_later(0.01, ran.append, 1)
    loop.run_once()
    assert ran == [1]


def test_run_once_after_wakeup_does_not_block(loop: Any) -> None:
    loop.wakeup()
    loop.run_once()  # would be for ever


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan")])
def test_run_once_refuses_what_is_no_time(loop: Any, timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        loop.run_once(timeout)


# -- close, and what it is made of ----------------------------------------------------------


def test_close_refuses_a_running_loop(loop: Any) -> None:
    caught: list[BaseException] = []

    def close() -> None:
        with pytest.raises(RuntimeError, match="running") as failure:
            loop.close()
        caught.append(failure.value)

    loop.call_soon(close)
    loop.run()
    assert caught


def test_close_twice_is_once(fast: Any) -> None:
    loop = fast.Loop()
    loop.run_once(0)
    loop.close()
    loop.close()


def test_with_closes(fast: Any) -> None:
    with fast.Loop() as loop:
        loop.run_once(0)
    with pytest.raises(RuntimeError, match="closed"):
        loop.run_once(0)


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
def test_a_closed_loop_takes_no_callback(fast: Any, method: str) -> None:
    loop = fast.Loop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        getattr(loop, method)(print)
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_later(1, print)


def test_close_leaves_the_channels_open(fast: Any) -> None:
    loop = fast.Loop()
    channel, peer = reader(fast, loop.map)
    loop.run_once(0)
    loop.close()
    assert list(loop.map.values()) == [channel]
    peer.send(b"still here")
    fast.asyncore.loop(timeout=10, map=loop.map, count=1)  # on a new loop
    assert channel.received == b"still here"
    channel.close()
    peer.close()


def test_close_forgets_callbacks(fast: Any) -> None:
    loop = fast.Loop()
    loop.call_soon(pytest.fail)
    loop.call_later(0, pytest.fail)
    loop.close()
    assert loop.stats()["timers"] == loop.stats()["callbacks"] == 0


def test_it_has_its_own_map_and_the_default_poller(fast: Any) -> None:
    with fast.Loop() as one, fast.Loop() as two:
        assert one.map == {}
        assert one.map is not two.map
        assert one.poller == fast.poller  # from FASTCORE_POLLER


def test_it_takes_a_map_and_a_poller(fast: Any) -> None:
    channels: dict[int, Any] = {}
    with fast.Loop(map=channels, poller="select") as loop:
        assert loop.map is channels
        assert loop.poller == "select"


def test_the_best_poller_is_the_default(fast: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTCORE_POLLER")
    with fast.Loop() as loop:
        assert loop.poller == fast.package.pollers()[0]


def test_an_unknown_poller_is_refused_with_the_list(fast: Any) -> None:
    with pytest.raises(ValueError, match="no poller 'carrier pigeon'") as failure:
        fast.Loop(poller="carrier pigeon")
    assert all(name in str(failure.value) for name in fast.package.pollers())


def test_an_unknown_poller_in_the_environment_is_refused(
    fast: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTCORE_POLLER", "none")
    with pytest.raises(ValueError, match="none"):
        fast.Loop()


def test_an_unknown_interest_is_refused(fast: Any) -> None:
    with pytest.raises(ValueError, match="lazy"):
        fast.Loop(interest="lazy")


def test_the_environment_chooses_the_interest(fast: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCORE_INTEREST", "strict")
    with Site(fast) as site:
        channels = [site.recorder()(site.pair()[0], site.map) for _ in range(20)]
        with fast.Loop(map=site.map) as loop:
            for channel in channels:
                channel.writable = lambda: False
            sweeps = loop.stats()["sweeps"]
            for _ in range(3):
                loop.run_once(0)
            assert loop.stats()["sweeps"] == sweeps + 3
    monkeypatch.setenv("FASTCORE_INTEREST", "lazy")
    with pytest.raises(ValueError, match="FASTCORE_INTEREST='lazy'"):
        fast.Loop()


def test_a_callback_must_be_callable(loop: Any) -> None:
    with pytest.raises(TypeError, match="callable"):
        loop.call_soon("not me")


def test_repr_says_what_it_is(fast: Any) -> None:
    loop = fast.Loop()
    assert repr(loop) == f"<fastcore.Loop {fast.poller} idle, 0 channels>"
    loop.close()
    assert "closed" in repr(loop)


# -- get_loop -------------------------------------------------------------------------------


def test_get_loop_is_one_for_each_map(fast: Any) -> None:
    channels: dict[int, Any] = {}
    loop = fast.package.get_loop(channels)
    assert fast.package.get_loop(channels) is loop
    assert loop.map is channels
    other = fast.package.get_loop({})
    assert other is not loop
    loop.close()
    other.close()


def test_get_loop_finds_the_loop_that_was_made(fast: Any, loop: Any) -> None:
    assert fast.package.get_loop(loop.map) is loop


def test_get_loop_after_close_is_a_new_one(fast: Any) -> None:
    channels: dict[int, Any] = {}
    loop = fast.package.get_loop(channels)
    loop.close()
    again = fast.package.get_loop(channels)
    assert again is not loop
    again.run_once(0)
    again.close()


def test_get_loop_without_a_map_serves_socket_map(
    fast: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fast.package.get_loop().map is fast.asyncore.socket_map
    rebound: dict[int, Any] = {}
    monkeypatch.setattr(fast.asyncore, "socket_map", rebound)
    loop = fast.package.get_loop()
    assert loop.map is rebound
    loop.close()


def test_a_second_loop_for_a_busy_map_is_refused(fast: Any, loop: Any) -> None:
    loop.call_later(60, print)
    with pytest.raises(ValueError, match="get_loop"):
        fast.Loop(map=loop.map)


def test_a_second_loop_replaces_an_idle_one(fast: Any) -> None:
    channels: dict[int, Any] = {}
    channel, peer = reader(fast, channels)
    first = fast.package.get_loop(channels)
    with fast.Loop(map=channels, interest="strict") as second:
        assert fast.package.get_loop(channels) is second
        with pytest.raises(RuntimeError):
            first.run_once(0)
        peer.send(b"x")
        second.run_once(10)
        assert channel.received == b"x"
    channel.close()
    peer.close()
