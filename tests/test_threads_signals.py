"""What comes from outside while the loop waits: threads and signals; forks are in test_fork.py."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import PATIENCE, Site, elapsed

posix_only = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="signals are POSIX's")

# pytest-timeout has SIGALRM: the tests here use another signal, sent by a thread or by ourselves.
NUMBER = getattr(signal, "SIGUSR1", None)


# Long enough for a loop that runs to be in its wait.  The tests are right whether it is or not.
LATER = 0.15


@pytest.fixture
def site(fast: Any) -> Iterator[Site]:
    with Site(fast) as site:
        yield site


def while_running(loop: Any, action: Callable[[], Any]) -> threading.Thread:
    """A thread that does `action` when the loop runs, and as far as one can tell: waits."""

    def wait_and_act() -> None:
        end = time.monotonic() + 20
        while not loop.running and time.monotonic() < end:
            time.sleep(0)  # lets the other thread run
        time.sleep(LATER)
        action()

    thread = threading.Thread(target=wait_and_act, daemon=True)
    thread.start()
    return thread


def idle(site: Site) -> Any:
    """A channel that wants nothing."""
    channel = site.channel(site.pair()[0])
    channel.readable = lambda: False
    return channel


# -- threads ----------------------------------------------------------------------------------


@pytest.mark.parametrize("wants", ["reading", "nothing"])
@pytest.mark.parametrize("how", ["wakeup", "call_soon_threadsafe", "stop"])
def test_a_thread_ends_a_wait(site: Site, wants: str, how: str) -> None:
    idle(site) if wants == "nothing" else site.channel(site.pair()[0])
    arguments = (int,) if how == "call_soon_threadsafe" else ()
    thread = while_running(site.loop, lambda: getattr(site.loop, how)(*arguments))
    assert elapsed(lambda: site.asyncore.loop(timeout=60, map=site.map, count=1)) < 30
    thread.join(10)


def test_many_threads_lose_no_callback(site: Site) -> None:
    ran: list[tuple[int, int]] = []
    loop = site.loop

    def ask(number: int) -> None:
        for turn in range(500):
            loop.call_soon_threadsafe(ran.append, (number, turn))

    threads = [while_running(loop, lambda number=number: ask(number)) for number in range(4)]
    idle(site)
    end = time.monotonic() + 30
    while len(ran) < 2000 and time.monotonic() < end:
        loop.run_once(10)
    for thread in threads:
        thread.join(10)
    for number in range(4):
        assert [turn for one, turn in ran if one == number] == list(range(500))


def test_wakeups_that_pile_up_end_one_wait(site: Site) -> None:
    idle(site)
    loop = site.loop
    for _ in range(100_000):  # more than a socket's buffer holds
        loop.wakeup()
    assert elapsed(lambda: loop.run_once(60)) < 30
    assert elapsed(lambda: loop.run_once(0.05)) >= 0.04


def test_a_thread_adds_a_channel_while_the_loop_waits(site: Site) -> None:
    idle(site)
    near, far = site.pair()
    received: list[bytes] = []
    kind = site.recorder(handle_read=lambda self: received.append(self.recv(100)))

    def add() -> None:
        far.send(b"from the other thread")
        kind(near, site.map)

    thread = while_running(site.loop, add)
    start = time.monotonic()
    while not received:
        site.turn(timeout=60)
    thread.join(10)
    assert received == [b"from the other thread"]
    assert time.monotonic() - start < 30


def test_a_thread_closes_a_channel_while_the_loop_waits(site: Site) -> None:
    idle(site)
    channel = site.channel(site.pair()[0])
    thread = while_running(site.loop, channel.close)
    assert elapsed(lambda: site.turn(timeout=60)) < 30
    thread.join(10)
    site.turn()
    assert channel.names == []


def test_a_push_of_another_thread_is_sent(site: Site) -> None:
    near, far = site.pair()
    site.map.clear()
    channel = site.fast.asyncore.dispatcher_with_send(near, site.map)
    filled = 0
    while not channel.out_buffer:
        channel.send(b"x" * 65536)
        filled += 65536
    received = 0

    def drain() -> None:
        nonlocal received
        while received < filled:
            received += len(far.recv(1 << 20))

    thread = while_running(site.loop, drain)
    site.run_until(lambda: received >= filled)
    thread.join(10)
    assert not channel.out_buffer


# -- signals ----------------------------------------------------------------------------------


@posix_only
@pytest.mark.parametrize("wants", ["reading", "nothing"])
def test_a_signal_ends_a_wait(site: Site, handled: list[int], wants: str) -> None:
    """An ordinary handler, which knows nothing of the loop."""
    idle(site) if wants == "nothing" else site.channel(site.pair()[0])
    main = threading.get_ident()
    thread = while_running(site.loop, lambda: signal.pthread_kill(main, NUMBER))  # type: ignore[arg-type]
    assert elapsed(lambda: site.turn(timeout=60)) < 30
    thread.join(10)
    assert handled == [NUMBER]


@posix_only
@pytest.mark.timeout(100, method="thread")  # the test needs SIGALRM
def test_an_alarm_at_any_moment_ends_a_wait(site: Site) -> None:
    """Also one that comes between the last look and the wait: not one of them is lost."""
    idle(site)
    loop = site.loop
    alarms: list[int] = []
    before = signal.signal(
        signal.SIGALRM, lambda number, frame: loop.call_soon_threadsafe(alarms.append, number)
    )
    try:
        for number in range(300):
            signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + number % 100))
            end = time.monotonic() + 30
            while len(alarms) <= number:
                loop.run_once(60)
            assert time.monotonic() < end, "an alarm was lost"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@posix_only
@pytest.mark.timeout(30, method="thread")  # the test needs SIGALRM
def test_an_alarm_at_any_moment_reaches_a_loop_that_runs(site: Site) -> None:
    """Its handler is called though the loop itself has no line of Python to go through."""
    loop = site.loop
    alarms: list[int] = []

    def alarm() -> None:
        alarms.append(1)
        if len(alarms) == 1000:
            loop.stop()
        else:
            signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + len(alarms) % 50))

    loop.add_signal_handler(signal.SIGALRM, alarm)
    loop.call_soon(alarm)
    try:
        loop.run()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        loop.remove_signal_handler(signal.SIGALRM)
    assert len(alarms) == 1000


@posix_only
def test_a_signal_handler_may_ask_for_callbacks(site: Site) -> None:
    loop = site.loop
    idle(site)
    ran: list[str] = []
    before = signal.signal(  # type: ignore[call-overload]
        NUMBER, lambda number, frame: loop.call_soon_threadsafe(ran.append, "callback")
    )
    try:
        loop.call_soon(os.kill, os.getpid(), NUMBER)
        while not ran:
            loop.run_once(60)
    finally:
        signal.signal(NUMBER, before)  # type: ignore[arg-type]
    assert ran == ["callback"]


@posix_only
def test_a_handler_that_raises_leaves_the_loop(site: Site) -> None:
    """KeyboardInterrupt comes like this."""
    idle(site)
    loop = site.loop

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(NUMBER, interrupt)  # type: ignore[arg-type]
    main = threading.get_ident()
    thread = while_running(loop, lambda: signal.pthread_kill(main, NUMBER))  # type: ignore[arg-type]
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run()
    finally:
        thread.join(10)
        signal.signal(NUMBER, before)  # type: ignore[arg-type]
    assert not loop.running
    loop.run_once(0)


@posix_only
def test_add_signal_handler(site: Site, handled: list[int]) -> None:
    loop = site.loop
    ran: list[Any] = []

    def callback(*args: Any) -> None:
        ran.append((args, loop.running))
        loop.stop()

    loop.add_signal_handler(NUMBER, callback, "one", 2)
    loop.call_soon(os.kill, os.getpid(), NUMBER)
    loop.run()
    assert ran == [(("one", 2), True)]
    assert loop.remove_signal_handler(NUMBER)
    os.kill(os.getpid(), NUMBER)  # type: ignore[arg-type]
    assert handled == [NUMBER]  # what it did before
    assert not loop.remove_signal_handler(NUMBER)


@posix_only
def test_a_loop_with_a_signal_handler_goes_on(site: Site, handled: list[int]) -> None:
    """It serves signals: it does not end for want of anything else."""
    loop = site.loop
    ran: list[int] = []
    loop.add_signal_handler(NUMBER, lambda: (ran.append(1), len(ran) == 2 and loop.stop()))
    main = threading.get_ident()

    def send_two() -> None:
        for number in (1, 2):
            signal.pthread_kill(main, NUMBER)  # type: ignore[arg-type]
            end = time.monotonic() + 20
            while len(ran) < number and time.monotonic() < end:
                time.sleep(0)

    thread = while_running(loop, send_two)
    loop.run()
    thread.join(10)
    assert ran == [1, 1]


@posix_only
def test_a_second_signal_handler_replaces_the_first(site: Site, handled: list[int]) -> None:
    loop = site.loop
    ran: list[str] = []
    loop.add_signal_handler(NUMBER, pytest.fail)
    loop.add_signal_handler(NUMBER, ran.append, "second")
    os.kill(os.getpid(), NUMBER)  # type: ignore[arg-type]
    loop.run_once(60)
    assert ran == ["second"]
    loop.remove_signal_handler(NUMBER)
    os.kill(os.getpid(), NUMBER)  # type: ignore[arg-type]
    assert handled == [NUMBER]  # neither of the two


@posix_only
def test_close_puts_the_signals_back(site: Site, handled: list[int]) -> None:
    loop = site.fast.Loop()
    loop.add_signal_handler(NUMBER, pytest.fail)
    loop.close()
    os.kill(os.getpid(), NUMBER)  # type: ignore[arg-type]
    assert handled == [NUMBER]


@posix_only
def test_signal_handlers_are_for_the_main_thread(site: Site) -> None:
    caught: list[BaseException] = []

    def add() -> None:
        try:
            site.loop.add_signal_handler(NUMBER, print)
        except ValueError as error:
            caught.append(error)

    thread = threading.Thread(target=add)
    thread.start()
    thread.join(10)
    assert len(caught) == 1


@posix_only
def test_the_wakeup_descriptor_of_others_is_put_back(site: Site) -> None:
    mine, _peer = site.pair()
    before = signal.set_wakeup_fd(mine.fileno())
    try:
        idle(site)
        site.turn()
        assert signal.set_wakeup_fd(before) == mine.fileno()
    finally:
        signal.set_wakeup_fd(before)


def written_to() -> int:
    """Where signals were written to; from now on nowhere."""
    return signal.set_wakeup_fd(-1)


@contextlib.contextmanager
def handling(site: Site, handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Handle the signal that arrives in a long wait."""
    before = signal.signal(NUMBER, handler)  # type: ignore[arg-type]
    thread = while_running(site.loop, lambda: os.kill(os.getpid(), NUMBER))  # type: ignore[arg-type]
    try:
        yield
    finally:
        thread.join(PATIENCE)
        signal.signal(NUMBER, before)  # type: ignore[arg-type]


@posix_only
@pytest.mark.parametrize("ends", ["wakeup", "exception"])
def test_no_wakeup_descriptor_stays_behind_a_long_wait(site: Site, ends: str) -> None:
    class End(Exception):
        pass

    def handler(_number: int, _frame: Any) -> None:
        if ends == "exception":
            raise End
        site.loop.wakeup()

    idle(site)
    with handling(site, handler), contextlib.suppress(End):
        site.turn(timeout=PATIENCE)
    assert written_to() == -1
    site.loop.close()
    assert written_to() == -1


@posix_only
def test_a_handler_finds_no_wakeup_descriptor_of_ours_and_may_set_its_own(site: Site) -> None:
    """Which is written to from then on, in the waits that follow, too."""
    mine, peer = site.pair()
    mine.setblocking(False)
    found: list[int] = []

    def handle_read(self: Any) -> None:
        found.append(signal.set_wakeup_fd(mine.fileno()))
        self.recv(10)

    ours, sender = site.pair()
    site.channel(ours, handle_read=handle_read)
    sender.send(b"x")
    try:
        site.turn(timeout=PATIENCE)
        with handling(site, lambda *_: site.loop.wakeup()):
            site.turn(timeout=PATIENCE)
        assert found == [-1]
        assert peer.recv(10) == bytes([NUMBER])  # type: ignore[list-item]
    finally:
        assert written_to() == mine.fileno()


@posix_only
def test_what_a_signal_handler_sets_within_a_long_wait_stays(site: Site) -> None:
    mine, _peer = site.pair()
    mine.setblocking(False)

    def handler(_number: int, _frame: Any) -> None:
        signal.set_wakeup_fd(mine.fileno())
        site.loop.wakeup()

    idle(site)
    with handling(site, handler):
        site.turn(timeout=PATIENCE)
    assert written_to() == mine.fileno()


def test_a_thread_that_computes_beside_the_loop_stops_neither(site: Site) -> None:
    """It makes the GIL come back late, which the C engine answers by keeping it for longer."""
    stop = threading.Event()
    counted = [0]

    def compute() -> None:
        while not stop.is_set():
            counted[0] += 1

    def handle_read(self: Any) -> None:
        self.send(self.recv(100))

    ours, peer = site.pair()
    site.channel(ours, handle_read=handle_read)
    computing = threading.Thread(target=compute)
    serving = threading.Thread(target=site.turn, args=(400,), kwargs={"timeout": 1})
    computing.start()
    serving.start()
    try:
        for number in range(100):
            peer.send(b"%d" % number)
            assert peer.recv(100) == b"%d" % number
    finally:
        site.loop.call_soon_threadsafe(site.map.clear)
        stop.set()
        computing.join()
        serving.join()
    assert counted[0] > 0
