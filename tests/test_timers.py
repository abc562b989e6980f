"""Timers and callbacks: order, cancelling, beats, memory, and what ends a wait."""

from __future__ import annotations

import gc
import math
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import elapsed


@pytest.fixture
def loop(fast: Any) -> Iterator[Any]:
    """A loop over a map of its own."""
    with fast.Loop() as loop:
        yield loop


def test_callbacks_run_in_order_with_their_arguments(loop: Any) -> None:
    ran: list[Any] = []
    loop.call_soon(ran.append, "one")
    loop.call_soon_threadsafe(ran.append, "two")
    loop.call_soon(lambda *args: ran.append(args), 3, 4)
    loop.run_once(0)
    assert ran == ["one", "two", (3, 4)]


def test_a_callback_of_a_callback_runs_in_the_next_turn(loop: Any) -> None:
    ran: list[str] = []

    def first() -> None:
        ran.append("first")
        loop.call_soon(ran.append, "second")

    loop.call_soon(first)
    loop.run_once(0)
    assert ran == ["first"]
    loop.run_once(60)  # does not wait
    assert ran == ["first", "second"]


def test_timers_run_in_the_order_of_their_times(loop: Any) -> None:
    ran: list[float] = []
    now = loop.time()
    for offset in (0.03, 0.01, 0.02, 0.0, 0.015):
        loop.call_at(now + offset, ran.append, offset)
    loop.run()
    assert ran == [0.0, 0.01, 0.015, 0.02, 0.03]


def test_timers_of_one_time_run_in_the_order_they_were_asked_for(loop: Any) -> None:
    ran: list[int] = []
    when = loop.time() + 0.005
    for number in range(50):
        loop.call_at(when, ran.append, number)
    loop.run()
    assert ran == list(range(50))


def test_no_timer_runs_before_its_time(loop: Any) -> None:
    early: list[float] = []
    for number in range(30):
        when = loop.time() + number / 3000
        loop.call_at(when, lambda when=when: early.append(when) if loop.time() < when else None)
    loop.run()
    assert early == []


def test_a_handle_knows_its_time(loop: Any) -> None:
    before = loop.time()
    handle = loop.call_later(5, print)
    assert before + 5 <= handle.when() <= loop.time() + 5
    assert loop.call_at(before + 7, print).when() == before + 7
    assert loop.call_soon(int).when() is None


def test_a_handle_knows_whether_it_was_cancelled(fast: Any, loop: Any) -> None:
    ran, kept, beat = loop.call_soon(int), loop.call_later(60, int), loop.call_every(60, int)
    assert all(isinstance(handle, fast.package.Handle) for handle in (ran, kept, beat))
    loop.run_once(0)
    for handle in (ran, kept, beat):
        assert handle.cancelled() is False
        handle.cancel()
    # As with asyncio's: what has run was not cancelled.
    assert [handle.cancelled() for handle in (ran, kept, beat)] == [False, True, True]


@pytest.mark.parametrize("delay", [0, -1, -math.inf])
def test_a_time_that_has_passed_is_now(loop: Any, delay: float) -> None:
    ran: list[int] = []
    loop.call_later(delay, ran.append, 1)
    assert elapsed(lambda: loop.run_once(60)) < 30
    assert ran == [1]


def test_nan_is_no_time(loop: Any) -> None:
    for ask in (loop.call_later, loop.call_at):
        with pytest.raises(ValueError, match="NaN"):
            ask(math.nan, print)
    assert loop.stats()["timers"] == 0


@pytest.mark.parametrize("interval", [0, -1, math.nan, math.inf])
def test_an_interval_is_positive_and_finite(loop: Any, interval: float) -> None:
    with pytest.raises(ValueError, match="interval"):
        loop.call_every(interval, print)


def test_a_cancelled_callback_does_not_run(loop: Any) -> None:
    handles = [
        loop.call_soon(pytest.fail),
        loop.call_soon_threadsafe(pytest.fail),
        loop.call_later(0, pytest.fail),
        loop.call_every(0.001, pytest.fail),
    ]
    for handle in handles:
        handle.cancel()
        assert handle.cancelled()
    loop.run_once(0)
    loop.run_once(0.01)
    assert loop.stats()["timers"] == loop.stats()["callbacks"] == 0


def test_cancel_twice_or_too_late_does_nothing(loop: Any) -> None:
    ran: list[int] = []
    handle = loop.call_later(0, ran.append, 1)
    other = loop.call_later(60, pytest.fail)
    loop.run_once(0)
    handle.cancel()
    handle.cancel()
    assert ran == [1]
    assert loop.stats()["timers"] == 1  # the other one, which was not miscounted
    other.cancel()
    other.cancel()
    assert loop.stats()["timers"] == 0


def test_a_callback_cancels_another_that_is_due(loop: Any) -> None:
    when = loop.time()
    handles: list[Any] = []
    loop.call_at(when, lambda: handles[0].cancel())
    handles.append(loop.call_at(when, pytest.fail))
    later = loop.call_later(60, print)
    loop.run_once(0)
    assert loop.stats()["timers"] == 1
    later.cancel()


def test_a_repeated_callback_cancels_itself(loop: Any) -> None:
    ran: list[int] = []

    def beat() -> None:
        ran.append(1)
        if len(ran) == 3:
            handle.cancel()

    handle = loop.call_every(0.002, beat)
    loop.run()
    assert len(ran) == 3
    assert loop.stats()["timers"] == 0


def test_a_cancelled_handle_keeps_nothing_alive(loop: Any) -> None:
    class Thing:
        pass

    thing = Thing()
    gone = weakref.ref(thing)
    handle = loop.call_later(60, print, thing)
    del thing
    gc.collect()
    assert gone() is not None
    handle.cancel()
    gc.collect()
    assert gone() is None


def test_cancelled_timers_do_not_pile_up(fast: Any, loop: Any) -> None:
    """A million time-outs that never come: each asked for and cancelled."""
    kept = loop.call_later(7200, print)
    gc.collect()
    before = len(gc.get_objects())
    most = 0
    for number in range(1_000_000):
        loop.call_later(3600, print).cancel()
        if number % 100_000 == 99_999:
            most = max(most, len(gc.get_objects()) - before)
    # Each timer that stays behind would be two objects at least.
    assert most < 5_000
    assert loop.stats()["timers"] == 1
    assert loop.next_deadline() == kept.when()


def test_timers_survive_the_removal_of_cancelled_ones(loop: Any) -> None:
    ran: list[int] = []
    now = loop.time()
    handles = [
        loop.call_at(now + (number * 7919 % 1000) / 1e6, ran.append, number * 7919 % 1000)
        for number in range(1000)
    ]
    for number, handle in enumerate(handles):
        if number % 10:
            handle.cancel()
    loop.run()
    assert ran == sorted(number * 7919 % 1000 for number in range(0, 1000, 10))


def test_beats_do_not_drift(loop: Any) -> None:
    """However late a beat comes, the next one is where it was laid."""
    interval = 0.005
    first = loop.call_every(interval, int)
    laid = first.when()
    first.cancel()
    times: list[float] = []

    def beat() -> None:
        times.append(handle.when())  # the next beat
        end = loop.time() + 0.001
        while loop.time() < end:
            pass  # a callback that takes its time
        if len(times) == 10:
            handle.cancel()

    handle = loop.call_every(interval, beat)
    start = handle.when()
    assert start >= laid
    loop.run()
    for when in times:
        beats = (when - start) / interval
        assert abs(beats - round(beats)) < 1e-3


def test_missed_beats_are_left_out(loop: Any) -> None:
    interval = 0.01
    ran: list[float] = []
    handle = loop.call_every(interval, lambda: ran.append(loop.time()))
    start = handle.when()
    end = start + 5.5 * interval
    while loop.time() < end:
        pass  # the loop is kept from running for five beats
    loop.run_once(0)
    loop.run_once(0)
    assert len(ran) == 1
    assert handle.when() > ran[0]
    beats = (handle.when() - start) / interval
    assert abs(beats - round(beats)) < 1e-3
    handle.cancel()


def test_a_timer_for_ever_does_not_end_a_wait(loop: Any) -> None:
    handle = loop.call_later(math.inf, pytest.fail)
    assert loop.next_deadline() is None
    assert elapsed(lambda: loop.run_once(0.03)) >= 0.02
    handle.cancel()


# -- what drives them -----------------------------------------------------------------------


def idle_channel(fast: Any, channels: Any) -> tuple[Any, socket.socket]:
    """A channel that wants nothing, and its peer."""

    class Idle(fast.asyncore.dispatcher):  # type: ignore[misc]
        def readable(self) -> bool:
            return False

        writable = readable

    near, far = socket.socketpair()
    return Idle(near, channels), far


def test_timers_fire_under_asyncore_loop(fast: Any) -> None:
    channels: dict[int, Any] = {}
    channel, peer = idle_channel(fast, channels)
    ran: list[str] = []

    def last() -> None:
        ran.append("timer")
        channel.close()

    loop = fast.loop.get_loop(channels)
    loop.call_soon(ran.append, "soon")
    loop.call_later(0.01, last)
    fast.asyncore.loop(timeout=60, map=channels)  # ends with the map
    assert ran == ["soon", "timer"]
    loop.close()
    peer.close()


def test_timers_fire_under_asyncore_loop_over_the_default_map(fast: Any) -> None:
    channel, peer = idle_channel(fast, None)
    fast.package.get_loop().call_later(0.01, channel.close)
    fast.asyncore.loop()
    assert not fast.asyncore.socket_map
    peer.close()


def test_asyncore_loop_does_not_wait_for_timers_of_an_empty_map(fast: Any) -> None:
    channels: dict[int, Any] = {}
    loop = fast.loop.get_loop(channels)
    loop.call_later(60, print)
    assert elapsed(lambda: fast.asyncore.loop(map=channels)) < 30
    loop.close()


def test_a_timer_of_a_failing_program_is_reported_not_raised(fast: Any) -> None:
    channels: dict[int, Any] = {}
    channel, peer = idle_channel(fast, channels)
    loop = fast.loop.get_loop(channels)
    seen: list[Any] = []
    loop.exception_handler = lambda context: seen.append(context["exception"])
    loop.call_soon(lambda: 1 / 0)
    loop.call_later(0.005, channel.close)
    fast.asyncore.loop(timeout=60, map=channels)
    assert [type(error) for error in seen] == [ZeroDivisionError]
    loop.close()
    peer.close()


def test_a_timer_of_a_nested_loop_runs_once(fast: Any, loop: Any) -> None:
    ran: list[str] = []

    def outer() -> None:
        ran.append("outer")
        loop.run_once(0)

    loop.call_soon(outer)
    loop.call_soon(ran.append, "inner")
    loop.run()
    assert ran == ["outer", "inner"]


@pytest.mark.parametrize("how", ["call_soon", "call_later", "call_at", "call_every"])
def test_a_callback_from_another_thread_ends_a_wait(loop: Any, how: str) -> None:
    ran = threading.Event()
    ask: dict[str, Callable[[], Any]] = {
        "call_soon": lambda: loop.call_soon_threadsafe(ran.set),
        "call_later": lambda: loop.call_later(0, ran.set),
        "call_at": lambda: loop.call_at(loop.time() + 0.01, ran.set),
        "call_every": lambda: loop.call_every(0.01, ran.set),
    }

    def other_thread() -> None:
        while not loop.running:
            time.sleep(0)  # lets the other thread run
        time.sleep(0.15)  # now it is in its wait; the test is right whether it is or not
        handles.append(ask[how]())

    handles: list[Any] = []
    thread = threading.Thread(target=other_thread, daemon=True)
    thread.start()

    def wait() -> None:
        end = time.monotonic() + 60
        while not ran.is_set() and time.monotonic() < end:
            loop.run_once(60)

    assert elapsed(wait) < 30
    thread.join(10)
    handles[0].cancel()
