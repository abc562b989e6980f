"""Loop: what becomes of exceptions, life inside another loop, counts, threads and garbage."""

from __future__ import annotations

import gc
import logging
import os
import select
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from loop_channels import reader

WITH_DESCRIPTOR = ("epoll", "kqueue")  # pollers that are a descriptor themselves


@pytest.fixture
def loop(fast: Any) -> Iterator[Any]:
    """A loop over a map of its own."""
    with fast.Loop() as loop:
        yield loop


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
    assert loop.next_deadline() == sooner.when()
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
    before = set(os.listdir("/proc/self/fd")) if sys.platform == "linux" else set()
    channels: Any = {}
    channel, peer = reader(fast, channels)
    channel.cycle = channel
    peer.send(b"x")
    fast.asyncore.loop(timeout=10, map=channels, count=1)
    gone = weakref.ref(fast.package.get_loop(channels)), weakref.ref(channel)
    peer.close()
    del channels, channel
    for _ in range(2):  # PyPy closes the descriptors of what it found only in the next turn
        gc.collect()
    assert [reference() for reference in gone] == [None, None]
    if before:
        assert set(os.listdir("/proc/self/fd")) <= before | {str(max(map(int, before)) + 1)}


def test_an_idle_loop_over_an_empty_map_holds_no_descriptor(fast: Any) -> None:
    if sys.platform != "linux":
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
