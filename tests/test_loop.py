"""Loop: how it runs, ends, waits and closes, and what becomes of exceptions.

Timers are in test_timers.py, threads and signals in test_threads_signals_fork.py.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

WITH_DESCRIPTOR = ("epoll", "kqueue")  # pollers that are a descriptor themselves


@pytest.fixture
def loop(fast: Any) -> Iterator[Any]:
    """A loop over a map of its own."""
    with fast.Loop() as loop:
        yield loop


def reader(fast: Any, channels: Any) -> tuple[Any, socket.socket]:
    """A channel that notes what it reads and closes at the end, and the socket of its peer."""

    class Reader(fast.asyncore.dispatcher):  # type: ignore[misc]
        def __init__(self, sock: socket.socket) -> None:
            super().__init__(sock, channels)
            self.received = b""

        def writable(self) -> bool:
            return False

        def handle_read(self) -> None:
            self.received += self.recv(100)

        def handle_close(self) -> None:
            self.close()

    near, far = socket.socketpair()
    return Reader(near), far


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


# -- exceptions -----------------------------------------------------------------------------


class Oops(Exception):
    pass


def fails() -> None:
    raise Oops("a callback's own")


@pytest.mark.parametrize("how", ["call_soon", "call_soon_threadsafe", "call_later"])
def test_a_failing_callback_is_logged_and_the_loop_goes_on(
    loop: Any, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    ran: list[int] = []
    loop.call_later(0, fails) if how == "call_later" else getattr(loop, how)(fails)
    loop.call_later(0.01, ran.append, 1)
    with caplog.at_level(logging.ERROR, "fastcore"):
        loop.run()
    assert ran == [1]
    [record] = caplog.records
    assert record.name == "fastcore"
    assert "a callback" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is Oops
    assert "fails" in (record.exc_text or "")  # the traceback


def test_exception_handler_can_be_assigned(loop: Any) -> None:
    contexts: list[dict[str, Any]] = []
    loop.exception_handler = contexts.append
    loop.call_soon(fails)
    loop.run()
    [context] = contexts
    assert isinstance(context["exception"], Oops)
    assert context["source"] is fails
    assert isinstance(context["message"], str)


def test_exception_handler_can_be_overridden(fast: Any) -> None:
    class Mine(fast.Loop):  # type: ignore[misc]
        seen: Any = None

        def exception_handler(self, context: dict[str, Any]) -> None:
            self.seen = context["exception"]

    with Mine() as loop:
        loop.call_soon(fails)
        loop.run()
        assert isinstance(loop.seen, Oops)


def test_a_channels_own_handle_error_comes_first(fast: Any, loop: Any) -> None:
    channel, peer = reader(fast, loop.map)
    loop.exception_handler = lambda context: pytest.fail("handle_error() has seen to it")
    errors: list[str] = []
    channel.handle_read = fails
    channel.handle_error = lambda: (errors.append("seen"), channel.close())
    peer.send(b"x")
    loop.run()
    assert errors == ["seen"]
    peer.close()


@pytest.mark.parametrize("where", ["handle_read", "readable"])
def test_a_failing_handle_error_does_not_end_run(fast: Any, loop: Any, where: str) -> None:
    channel, peer = reader(fast, loop.map)
    contexts: list[dict[str, Any]] = []

    def handle_error() -> None:
        channel.close()
        raise Oops("handle_error()'s own")

    setattr(channel, where, fails)
    channel.handle_error = handle_error
    loop.exception_handler = contexts.append
    peer.send(b"x")
    loop.run()
    assert [context["source"] for context in contexts] == [channel]
    assert "handle_error" in str(contexts[0]["exception"])
    peer.close()


def test_under_asyncore_loop_a_failing_handle_error_is_raised(fast: Any) -> None:
    channels: dict[int, Any] = {}
    channel, peer = reader(fast, channels)
    channel.handle_read = channel.handle_error = fails
    peer.send(b"x")
    with pytest.raises(Oops):
        fast.asyncore.loop(timeout=10, map=channels, count=1)
    channel.close()
    peer.close()


@pytest.mark.parametrize("kind", ["ExitNow", "KeyboardInterrupt", "SystemExit"])
@pytest.mark.parametrize("where", ["callback", "timer", "handler", "predicate"])
def test_exits_pass_through(fast: Any, loop: Any, kind: str, where: str) -> None:
    leave = {
        "ExitNow": fast.asyncore.ExitNow,
        "KeyboardInterrupt": KeyboardInterrupt,
        "SystemExit": SystemExit,
    }[kind]

    def leaves() -> None:
        raise leave

    channel, peer = reader(fast, loop.map)
    channel.handle_error = pytest.fail
    if where == "callback":
        loop.call_soon(leaves)
    elif where == "timer":
        loop.call_later(0, leaves)
    else:
        setattr(channel, "handle_read" if where == "handler" else "readable", leaves)
        peer.send(b"x")
    with pytest.raises(leave):
        loop.run()
    assert not loop.running
    channel.close()
    peer.close()


def test_what_was_ready_behind_an_exit_runs_later(fast: Any, loop: Any) -> None:
    ran: list[int] = []

    def leaves() -> None:
        raise fast.asyncore.ExitNow

    loop.call_soon(leaves)
    loop.call_soon(ran.append, 1)
    with pytest.raises(fast.asyncore.ExitNow):
        loop.run()
    loop.run()
    assert ran == [1]


# -- inside another loop --------------------------------------------------------------------


def test_fileno_is_readable_when_there_is_something_to_do(fast: Any, loop: Any) -> None:
    if fast.poller not in WITH_DESCRIPTOR:
        with pytest.raises(ValueError, match=fast.poller):
            loop.fileno()
        return
    channel, peer = reader(fast, loop.map)
    number = loop.fileno()
    loop.run_once(0)
    assert not select.select([number], [], [], 0)[0]
    peer.send(b"x")
    assert select.select([number], [], [], 10)[0]
    loop.run_once(0)
    assert channel.received == b"x"
    assert not select.select([number], [], [], 0)[0]
    loop.wakeup()
    assert select.select([number], [], [], 10)[0]
    loop.run_once(0)
    assert not select.select([number], [], [], 0)[0]
    channel.close()
    peer.close()


def test_an_outer_loop_over_fileno_and_next_deadline(fast: Any, loop: Any) -> None:
    if fast.poller not in WITH_DESCRIPTOR:
        pytest.skip(f"{fast.poller} has no descriptor: the test above says so")
    number = loop.fileno()
    channel, peer = reader(fast, loop.map)  # unknown to the kernel until the loop has run
    ran: list[str] = []
    loop.call_later(0.02, ran.append, "timer")
    loop.call_later(0.03, peer.send, b"x")
    end = time.monotonic() + 20
    while not channel.received and time.monotonic() < end:
        deadline = loop.next_deadline()
        left = 10.0 if deadline is None else max(0.0, deadline - loop.time())
        if select.select([number], [], [], left)[0] or deadline is not None:
            loop.run_once(0)
    assert ran == ["timer"]
    assert channel.received == b"x"
    channel.close()
    peer.close()


def test_next_deadline(fast: Any, loop: Any) -> None:
    assert loop.next_deadline() is None
    loop.call_at(loop.time() + 100, print)
    sooner = loop.call_at(loop.time() + 50, print)
    assert loop.next_deadline() == sooner.when
    sooner.cancel()
    assert loop.next_deadline() > loop.time() + 90
    loop.call_soon(int)
    assert loop.next_deadline() <= loop.time()


def test_next_deadline_is_now_while_the_kernel_does_not_know_a_channel(
    fast: Any, loop: Any
) -> None:
    channel, peer = reader(fast, loop.map)
    deadline = loop.next_deadline()
    assert deadline is not None and deadline <= loop.time()
    loop.run_once(0)
    assert loop.next_deadline() is None
    channel.close()
    peer.close()


# -- stats, threads, garbage ----------------------------------------------------------------


def test_stats_count(fast: Any, loop: Any) -> None:
    channel, peer = reader(fast, loop.map)
    handle = loop.call_later(60, print)
    peer.send(b"x")
    loop.run_once(10)
    loop.call_soon(int)
    stats = loop.stats()
    assert stats["engine"] == fast.engine
    assert stats["poller"] == fast.poller
    assert (stats["turns"], stats["events"], stats["channels"]) == (1, 1, 1)
    assert (stats["timers"], stats["callbacks"]) == (1, 1)
    assert stats["sweeps"] >= 1
    assert stats["interest_changes"] >= 1
    handle.cancel()
    assert loop.stats()["timers"] == 0
    channel.close()
    peer.close()


def test_interest_is_remembered(fast: Any, loop: Any) -> None:
    channel, peer = reader(fast, loop.map)
    loop.run_once(0)
    before = loop.stats()["interest_changes"]
    for _ in range(10):
        peer.send(b"x")
        loop.run_once(10)
    assert loop.stats()["interest_changes"] == before
    assert channel.received == b"x" * 10
    channel.close()
    peer.close()


def test_two_loops_in_two_threads(fast: Any) -> None:
    results: dict[int, bytes] = {}
    ready = threading.Barrier(2, timeout=20)

    def serve(number: int) -> None:
        channels: dict[int, Any] = {}
        channel, peer = reader(fast, channels)
        ready.wait()
        for turn in range(200):
            peer.send(b"%d" % number)
            fast.asyncore.loop(timeout=10, map=channels, count=1)
            assert len(channel.received) == turn + 1
        peer.close()
        fast.asyncore.loop(timeout=10, map=channels)  # ends with the channel
        results[number] = channel.received

    threads = [threading.Thread(target=serve, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == {1: b"1" * 200, 2: b"2" * 200}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_map_that_was_dropped_takes_its_loop_along(fast: Any) -> None:
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    channels: Any = {}
    channel, peer = reader(fast, channels)
    channel.cycle = channel
    peer.send(b"x")
    fast.asyncore.loop(timeout=10, map=channels, count=1)
    gone = weakref.ref(fast.package.get_loop(channels)), weakref.ref(channel)
    peer.close()
    del channels, channel
    gc.collect()
    assert [reference() for reference in gone] == [None, None]
    if before:
        assert set(os.listdir("/proc/self/fd")) <= before | {str(max(map(int, before)) + 1)}


def test_an_idle_loop_over_an_empty_map_holds_no_descriptor(fast: Any) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("the system does not list descriptors")
    channels: dict[int, Any] = {}
    before = len(os.listdir("/proc/self/fd"))
    channel, peer = reader(fast, channels)
    peer.close()
    fast.asyncore.loop(timeout=10, map=channels)
    assert channel.received == b""
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_loop_made_for_a_map_stays_its_loop_until_closed(fast: Any) -> None:
    channels: dict[int, Any] = {}
    fast.Loop(map=channels, interest="strict")  # held by nobody
    gc.collect()
    loop = fast.loop.get_loop(channels)
    assert loop._made_for_map
    loop.close()
    assert fast.loop.get_loop(channels) is not loop
