"""The contract of a kernel: what every engine's promises to the engine above it, on every poller.

The two kernels are all that is written twice beside the socket; these tests hold them together.
What a poller alone has to do is in poller_cases.py.
"""

from __future__ import annotations

import errno
import importlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from math import inf
from typing import Any

import pytest
from conftest import ENGINES, tested_pollers as pollers_of
from support import PATIENCE, SIGNAL, fill, needs_fork, needs_numbers, send_signal

READ, URGENT, WRITE, INVALID = 1, 2, 4, 32
CASES = [(engine, poller) for engine in ENGINES for poller in pollers_of(engine)]


class Bench:
    """A kernel, and descriptors to watch."""

    def __init__(self, engine: str, poller: str) -> None:
        self.module = importlib.import_module(f"fastcore._{engine}.kernel")
        self.kernel = self.module.Kernel(poller)
        self.poller = poller
        self._sockets: list[socket.socket] = []

    def pair(self) -> tuple[socket.socket, socket.socket]:
        pair = socket.socketpair()
        for one in pair:
            one.setblocking(False)
        self._sockets += pair
        return pair

    def tcp_pair(self) -> tuple[socket.socket, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            pair = socket.create_connection(server.getsockname(), PATIENCE), server.accept()[0]
        self._sockets += pair
        return pair

    def watched(self, sock: socket.socket | int, interest: int = 0) -> Any:
        """A descriptor, watched for `interest` if there is any."""
        one = self.module.Watched()
        one.fd = sock if isinstance(sock, int) else sock.fileno()
        one.want, one.registered, one.fired = interest, 0, 0
        if interest:
            self.kernel.set(one, interest)
        return one

    def wait(self, seconds: float = 0.0) -> dict[Any, int]:
        return {one: one.fired for one in self.kernel.wait(seconds)}

    def close(self) -> None:
        self.kernel.close()
        for one in self._sockets:
            one.close()


@pytest.fixture(params=CASES, ids=["-".join(case) for case in CASES])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(*request.param)
    yield made
    made.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_an_unknown_poller_is_refused_with_the_list(engine: str) -> None:
    module = importlib.import_module(f"fastcore._{engine}.kernel")
    with pytest.raises(ValueError, match=r"no poller 'steam' here; there are: .*select"):
        module.Kernel("steam")


def test_what_is_ready_is_reported_with_what_has_fired(bench: Bench) -> None:
    left, right = bench.pair()
    reader, writer = bench.watched(left, READ), bench.watched(right, WRITE)
    assert bench.wait() == {writer: WRITE}
    right.send(b"x")
    assert bench.wait() == {reader: READ, writer: WRITE}
    assert (reader.registered, writer.registered) == (READ, WRITE)


def test_interest_is_changed_and_given_up(bench: Bench) -> None:
    left, right = bench.pair()
    right.send(b"x")
    one = bench.watched(left, READ)
    before = bench.kernel.changes
    bench.kernel.set(one, READ | WRITE)
    assert bench.wait() == {one: READ | WRITE}
    bench.kernel.set(one, 0)
    assert (one.registered, bench.wait()) == (0, {})
    bench.kernel.set(one, 0)  # once more does nothing
    assert bench.kernel.changes == before + 3


def test_a_wait_lasts_as_long_as_it_is_told(bench: Bench) -> None:
    bench.watched(bench.pair()[0], READ)
    start = time.monotonic()
    assert bench.wait(0.02) == {}
    assert time.monotonic() - start >= 0.02
    assert bench.kernel.woken is False


@pytest.mark.parametrize("seconds", [inf, 1e12, PATIENCE])
def test_wake_ends_a_wait_from_another_thread(bench: Bench, seconds: float) -> None:
    thread = threading.Timer(0.02, bench.kernel.wake)
    thread.start()
    start = time.monotonic()
    assert bench.wait(seconds) == {}
    assert bench.kernel.woken is True
    assert time.monotonic() - start < PATIENCE
    thread.join()
    assert (bench.kernel.is_woken(), bench.wait(), bench.kernel.woken) == (False, {}, False)


def test_wake_before_a_wait_ends_that(bench: Bench) -> None:
    """Also where nothing was opened yet; and events are delivered all the same."""
    bench.kernel.wake()
    bench.kernel.wake()
    assert bench.kernel.is_woken()
    left, right = bench.pair()
    one = bench.watched(left, READ)
    right.send(b"x")
    assert bench.wait(PATIENCE) == {one: READ}
    assert bench.kernel.woken
    right.close()


def test_a_byte_to_the_wake_descriptor_ends_a_wait(bench: Bench) -> None:
    number = bench.kernel.wake_fileno()
    with socket.socket(fileno=os.dup(number)) if os.name != "nt" else socket.socket() as sender:
        if os.name == "nt":
            bench.kernel.wake()
        else:
            sender.send(b"\0")
        assert bench.wait(PATIENCE) == {}
        assert bench.kernel.woken


def test_the_descriptor_of_the_set_is_readable_when_something_is_ready(bench: Bench) -> None:
    left, right = bench.pair()
    one = bench.watched(left, READ)
    number = bench.kernel.fileno()
    if bench.poller in ("poll", "select"):
        assert number == -1
        return
    assert not select.select([number], [], [], 0)[0]
    right.send(b"x")
    assert select.select([number], [], [], PATIENCE)[0]
    assert bench.wait() == {one: READ}


def test_a_closed_descriptor_is_refused_and_not_watched(bench: Bench) -> None:
    left, _ = bench.pair()
    one = bench.watched(left)
    bench.kernel.open()  # or the number would be its own
    left.close()
    for number in (one.fd, -1):
        one.fd = number
        with pytest.raises(OSError) as refused:
            bench.kernel.set(one, READ)
        assert (refused.value.errno, one.registered) == (errno.EBADF, 0)
    assert bench.wait() == {}


@needs_numbers
def test_a_number_that_is_used_again_is_its_new_owners(bench: Bench) -> None:
    """The old registration lives on in a duplicate, and nobody hears of it."""
    left, right = bench.pair()
    old = bench.watched(left, READ)
    right.send(b"for the old one")
    with socket.socket(fileno=os.dup(left.fileno())):
        number = left.detach()
        other, other_peer = bench.pair()
        os.dup2(other.fileno(), number)
        bench.kernel.set(old, 0)
        new = bench.watched(number, READ)
        for _ in range(3):
            assert old not in bench.wait()
        other_peer.send(b"for the new one")
        assert bench.wait(PATIENCE) == {new: READ}
        assert bench.wait() == {new: READ}
        os.close(number)


@needs_numbers
def test_a_stranger_makes_the_set_anew_and_costs_nobody_his_events(bench: Bench) -> None:
    left, right = bench.pair()
    one = bench.watched(left, READ)
    stranger, stranger_peer = bench.pair()
    watched = bench.watched(stranger, READ)
    with socket.socket(fileno=os.dup(stranger.fileno())):
        stranger.close()  # without a word: it goes on firing in its duplicate
        bench.kernel.set(watched, 0)
        stranger_peer.send(b"x")
        right.send(b"x")
        for _ in range(3):
            assert bench.wait(PATIENCE) == {one: READ}
        left.recv(1)
        start = time.monotonic()
        assert bench.wait(0.02) == {}
        assert time.monotonic() - start >= 0.02


def test_ready_now_asks_without_watching(bench: Bench) -> None:
    (full, _), (left, right) = bench.pair(), bench.pair()
    fill(full)
    right.send(b"x")
    asked = [bench.watched(full), bench.watched(left), bench.watched(right)]
    for one, want in zip(asked, (WRITE, READ | WRITE, READ), strict=True):
        one.want = want
    ready = bench.kernel.ready_now(asked)
    assert [(one, one.fired) for one in ready] == [(asked[1], READ | WRITE)]
    assert bench.wait() == {}


def test_ready_now_with_many(bench: Bench) -> None:
    pairs = [bench.pair() for _ in range(300)]
    asked = [bench.watched(left) for left, _ in pairs]
    for one in asked:
        one.want = WRITE
    assert bench.kernel.ready_now(asked) == asked


def test_one_descriptor_is_looked_at(bench: Bench) -> None:
    left, right = bench.pair()
    one = bench.watched(left)
    assert bench.kernel.readiness(one.fd) == 0
    right.send(b"x")
    assert bench.kernel.readiness(one.fd) == READ
    left.close()
    assert bench.kernel.readiness(one.fd) == INVALID


def test_urgent_data_that_is_muted_is_reported_again_after_other_data(bench: Bench) -> None:
    left, right = bench.tcp_pair()
    one = bench.watched(left, READ)
    bench.kernel.mute(one)  # there is none: that means nothing
    for _ in range(2):
        right.send(b"!", socket.MSG_OOB)
        assert bench.wait(PATIENCE)[one] & URGENT
        bench.kernel.mute(one)
        for _ in range(2):
            bench.kernel.look(one)
            assert bench.wait() == {}
        right.send(b"x")
        assert bench.wait(PATIENCE)[one] & READ
        left.recv(10)  # and what was urgent is skipped
        assert bench.wait() == {}


def test_close_gives_all_back_and_it_may_be_used_again(bench: Bench) -> None:
    left, right = bench.pair()
    one = bench.watched(left, READ)
    bench.kernel.close()
    bench.kernel.close()
    assert one.registered == 0
    right.send(b"x")
    assert bench.wait() == {}
    bench.kernel.set(one, READ)
    assert bench.wait() == {one: READ}


@needs_fork
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("spare", [0, 2])
def test_a_child_watches_with_a_set_of_its_own(bench: Bench, spare: int) -> None:
    """It may give the number of a closed socket to its wake-ups, or to its set."""
    left, right = bench.pair()
    lower = [os.dup(0) for _ in range(spare)]
    gone, _ = bench.pair()
    one, lost = bench.watched(left, READ), bench.watched(gone, READ)
    bench.wait()
    child = os.fork()
    if child == 0:
        try:
            gone.close()
            for number in lower:
                os.close(number)
            right.send(b"x")
            bench.kernel.after_fork()
            seen = bench.wait(PATIENCE)
            os._exit(0 if seen == {one: READ, lost: INVALID} else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for number in lower:
        os.close(number)
    assert bench.wait(PATIENCE) == {one: READ}
    assert left.recv(2) == b"x"


def test_a_signal_handler_may_change_the_set_within_the_wait(bench: Bench) -> None:
    """Nothing is reported of what has left it, whatever the wait had found."""
    left, right = bench.pair()
    one = bench.watched(left, READ)
    other = bench.watched(bench.pair()[0])

    def handler(_number: int, _frame: Any) -> None:
        right.send(b"x")
        bench.kernel.set(one, 0)
        bench.kernel.set(other, WRITE)

    before = signal.signal(SIGNAL, handler)
    timer = threading.Timer(0.02, send_signal)
    try:
        timer.start()
        end = time.monotonic() + PATIENCE
        seen: dict[Any, int] = {}
        while not seen and time.monotonic() < end:
            seen = bench.wait(0.2)
    finally:
        timer.join()
        signal.signal(SIGNAL, before)
    assert seen == {other: WRITE}


@needs_numbers
def test_a_look_finds_what_a_number_means_by_now(bench: Bench) -> None:
    """The old file lives on in a duplicate, which is a stranger from then on."""
    left, right = bench.pair()
    one = bench.watched(left, READ)
    bench.kernel.look(one)
    assert (one.registered, bench.wait()) == (READ, {})
    fresh, fresh_peer = bench.pair()
    with socket.socket(fileno=os.dup(left.fileno())):
        os.dup2(fresh.fileno(), left.fileno())
        bench.kernel.look(one)
        right.send(b"for the duplicate")
        for _ in range(3):
            assert bench.wait() == {}
        fresh_peer.send(b"x")
        assert bench.wait(PATIENCE) == {one: READ}
    left.close()
    if bench.poller in ("poll", "select"):
        assert bench.wait() == {one: INVALID}  # they ask by the number each time
    else:
        with pytest.raises(OSError) as refused:
            bench.kernel.look(one)
        assert (refused.value.errno, one.registered) == (errno.EBADF, 0)


# -- its own descriptors, closed by others: a program that becomes a daemon closes all there are ---


def _own_of(kernel: Any) -> list[int]:
    """Have the kernel open what it needs; return the descriptors of it."""
    before = {number for number in range(200) if _is_open(number)}
    kernel.open()
    return [number for number in range(200) if number not in before and _is_open(number)]


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


@needs_numbers
@pytest.mark.parametrize("heirs", ["none", "files", "sockets"])
def test_a_kernel_whose_descriptors_others_have_closed_goes_on(bench: Bench, heirs: str) -> None:
    """With new ones; whoever has the old numbers now loses nothing, neither then nor later."""
    left, right = bench.pair()
    own = _own_of(bench.kernel)
    one = bench.watched(left, READ)
    assert bench.wait() == {}
    for number in own:
        os.close(number)
    heir, heir_peer = bench.pair() if heirs == "sockets" else (None, None)
    if heirs == "files":
        kept = [os.open(os.devnull, os.O_RDONLY) for _ in own]
    elif heir is not None and heir_peer is not None:
        kept = [heir.fileno(), heir_peer.fileno()]
        heir_peer.send(b"for the heir")
    else:
        kept = []
    right.send(b"x")
    end = time.monotonic() + PATIENCE
    while bench.wait(0.1) != {one: READ} and time.monotonic() < end:
        bench.kernel.look_at_own()
    assert bench.wait(PATIENCE) == {one: READ}
    assert bench.kernel.is_whole()
    left.recv(1)
    thread = threading.Timer(0.02, bench.kernel.wake)
    thread.start()
    assert (bench.wait(PATIENCE), bench.kernel.woken) == ({}, True)
    thread.join()
    bench.kernel.close()
    assert all(_is_open(number) for number in kept)
    if heir is not None:
        assert heir.recv(100) == b"for the heir"
    elif heirs == "files":
        for number in kept:
            os.close(number)


@needs_numbers
def test_interest_is_taken_though_others_have_closed_the_set(bench: Bench) -> None:
    left, right = bench.pair()
    for number in _own_of(bench.kernel):
        os.close(number)
    right.send(b"x")
    one = bench.watched(left)
    keep = os.dup(0)
    bench.kernel.set(one, READ)
    assert one.registered == READ
    end = time.monotonic() + PATIENCE
    while bench.wait(0.1) != {one: READ}:
        assert time.monotonic() < end
    os.close(keep)


@needs_numbers
def test_close_and_collection_leave_the_numbers_of_others_alone(bench: Bench) -> None:
    other = bench.module.Kernel(bench.poller)
    kept = []
    for end in (bench.kernel.close, other.close):
        own = _own_of(end.__self__)
        for number in own:
            os.close(number)
        kept += [os.dup(0) for _ in own]
        end()
    del end, other
    assert all(_is_open(number) for number in kept)
    for number in kept:
        os.close(number)


@needs_numbers
def test_a_wake_into_a_number_of_others_is_not_written(bench: Bench) -> None:
    own = _own_of(bench.kernel)
    for number in own:
        os.close(number)
    ends = [bench.pair() for _ in own]
    bench.kernel.wake()
    assert (bench.wait(PATIENCE), bench.kernel.woken) == ({}, True)
    for one in [one for pair in ends for one in pair]:
        with pytest.raises(BlockingIOError):
            one.recv(1)


# -- where the system refuses ---------------------------------------------------------------------


@needs_numbers
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seconds", [PATIENCE, inf])
def test_select_hears_of_wake_ups_beyond_what_it_can_hold(engine: str, seconds: float) -> None:
    resource = importlib.import_module("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < 1200:
        pytest.skip("no process may have that many descriptors here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1200, limits[1]))
    bench = Bench(engine, "select")
    left, right = bench.pair()
    lower = [os.dup(0)]
    while lower[-1] < 1030:
        lower.append(os.dup(0))
    try:
        one = bench.watched(left, READ)
        assert bench.kernel.wake_fileno() > 1024
        thread = threading.Timer(0.02, bench.kernel.wake)
        thread.start()
        assert (bench.wait(seconds), bench.kernel.woken) == ({}, True)
        thread.join()
        assert (bench.wait(0.05), bench.kernel.woken) == ({}, False)
        right.send(b"x")
        assert bench.wait(seconds) == {one: READ}
    finally:
        bench.close()
        for number in lower:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("engine", ENGINES)
def test_clock_thread_and_identity(engine: str) -> None:
    module = importlib.import_module(f"fastcore._{engine}.kernel")
    assert abs(module.monotonic() - time.monotonic()) < PATIENCE
    assert module.get_ident() == threading.get_ident()
    thing = object()
    assert module.identity(thing) == id(thing)
