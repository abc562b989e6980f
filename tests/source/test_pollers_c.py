"""The pollers in C, built into a library of their own and driven by ctypes.

Where the system has no kqueue, that poller runs over `kqueue_double`.
"""

import ctypes
import errno
import os
import shlex
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import poller_cases
import pytest
from poller_cases import (
    ERROR,
    HANGUP,
    INVALID,
    READ,
    URGENT,
    WRITE,
    PollerCases,
    Probe,
    QueryCases,
    resources as resources,  # a fixture
)
from support import needs_numbers, needs_polled_pipes

SOURCES = Path(__file__).parents[2] / "src"
DOUBLE = Path(__file__).parent / "kqueue_double"
LINUX = sys.platform == "linux"
WINDOWS = sys.platform == "win32"
NAMES = (
    ["epoll", "kqueue", "poll", "select"] if LINUX
    else ["select", "poll"] if WINDOWS
    else ["kqueue", "poll", "select"]
)  # fmt: skip
# A socket of Windows is as wide as a pointer.
DESCRIPTOR = ctypes.c_size_t if WINDOWS else ctypes.c_int
BIG_INDEX = 100_000


class Token(ctypes.Structure):
    _fields_ = [("index", ctypes.c_uint32), ("generation", ctypes.c_uint32)]


class Event(ctypes.Structure):
    _fields_ = [("token", Token), ("mask", ctypes.c_int)]


class Query(ctypes.Structure):
    _fields_ = [("fd", DESCRIPTOR), ("mask", ctypes.c_int)]


class KernelEvent(ctypes.Structure):
    """struct kevent of the double."""

    _fields_ = [
        ("ident", ctypes.c_size_t),
        ("filter", ctypes.c_short),
        ("flags", ctypes.c_ushort),
        ("fflags", ctypes.c_uint),
        ("data", ctypes.c_ssize_t),
        ("udata", ctypes.c_void_p),
    ]


def method(result, *arguments):
    return ctypes.CFUNCTYPE(result, *arguments, use_errno=True)


class Kind(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("open", method(ctypes.c_void_p)),
        ("close", method(None, ctypes.c_void_p)),
        ("is_own", method(ctypes.c_int, ctypes.c_void_p)),
        (
            "set",
            method(ctypes.c_int, ctypes.c_void_p, DESCRIPTOR, Token, ctypes.c_int, ctypes.c_int),
        ),
        ("look", method(ctypes.c_int, ctypes.c_void_p, DESCRIPTOR, Token, ctypes.c_int)),
        (
            "wait",
            method(
                ctypes.c_int, ctypes.c_void_p, ctypes.c_int64, ctypes.POINTER(Event), ctypes.c_int
            ),
        ),
        ("fileno", method(ctypes.c_int, ctypes.c_void_p)),
    ]


def build(folder, *options):
    """Compile the pollers (on Linux with the kqueue double) and load them."""
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")
    sources = [str(path) for path in sorted(SOURCES.glob("poller*.c"))]
    if LINUX:
        options = ("-DFASTCORE_HAVE_KQUEUE", f"-I{DOUBLE}", *options)
        sources.append(str(DOUBLE / "double.c"))
    library = folder / "pollers.so"
    command = [*compiler, "-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fPIC"]
    command += [*options, "-shared", "-o", str(library), *sources, "-pthread"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return load(library)


def load(path):
    loaded = ctypes.CDLL(str(path), use_errno=True)
    loaded.poller_find.restype = ctypes.POINTER(Kind)
    return loaded


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The pollers; FASTCORE_TEST_LIBRARY names them where they were built on another machine."""
    built = os.environ.get("FASTCORE_TEST_LIBRARY")
    return load(built) if built else build(tmp_path_factory.mktemp("pollers"))


class CProbe(Probe):
    """A C poller; the index of a token is its descriptor."""

    def __init__(self, library, name):
        self.name = name
        self.has_urgent = name != "kqueue" or LINUX or sys.platform == "darwin"
        self.kind = library.poller_find(name.encode()).contents
        self.self = self.kind.open()
        assert self.self
        self.generation = 1
        self.descriptors = {}

    def close(self):
        self.kind.close(self.self)

    def fileno(self):
        return self.kind.fileno(self.self)

    def set(self, fd, old, new):
        index = fd if fd >= 0 else BIG_INDEX
        self.descriptors[index] = fd
        error = self.kind.set(self.self, fd, Token(index, self.generation), old, new)
        if error:
            raise OSError(error, os.strerror(error))

    def wait_tokens(self, timeout_ns, capacity=256):
        events = (Event * capacity)()
        count = self.kind.wait(self.self, timeout_ns, events, capacity)
        if count < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return [(e.token.index, e.token.generation, e.mask) for e in events[:count]]

    def wait(self, timeout, capacity=256):
        nanoseconds = -1 if timeout is None else int(timeout * 1e9)
        return [
            (self.descriptors[index], mask)
            for index, _, mask in self.wait_tokens(nanoseconds, capacity)
        ]


@pytest.fixture(params=NAMES)
def probe(request, library):
    if LINUX:
        library.double_reset()
    probe = CProbe(library, request.param)
    yield probe
    probe.close()


class TestPollers(PollerCases):
    """What the Python pollers do as well."""


class TestSeam:
    """What only the C interface has: tokens, capacity, errors."""

    def test_a_new_generation_replaces_the_old(self, probe, resources):
        left, _ = poller_cases.socket_pair(resources)
        probe.set(left.fileno(), 0, WRITE)
        assert probe.wait_tokens(-1) == [(left.fileno(), 1, WRITE)]
        probe.generation = 0xFFFFFFFF
        probe.set(left.fileno(), WRITE, 0)
        probe.set(left.fileno(), 0, WRITE)
        assert probe.wait_tokens(-1) == [(left.fileno(), 0xFFFFFFFF, WRITE)]

    def test_an_index_need_not_be_small(self, probe, resources):
        left, right = poller_cases.socket_pair(resources)
        set_, token = probe.kind.set, Token(BIG_INDEX, 7)
        assert set_(probe.self, left.fileno(), token, 0, WRITE) == 0
        assert set_(probe.self, right.fileno(), Token(70_000, 9), 0, WRITE) == 0
        assert sorted(probe.wait_tokens(-1)) == [(70_000, 9, WRITE), (BIG_INDEX, 7, WRITE)]

    def test_an_index_that_moves_to_another_descriptor(self, probe, resources):
        first, _ = poller_cases.socket_pair(resources)
        second, _ = poller_cases.socket_pair(resources)
        set_ = probe.kind.set
        assert set_(probe.self, first.fileno(), Token(0, 1), 0, WRITE) == 0
        assert set_(probe.self, first.fileno(), Token(0, 1), WRITE, 0) == 0
        assert set_(probe.self, second.fileno(), Token(0, 2), 0, WRITE) == 0
        assert probe.wait_tokens(-1) == [(0, 2, WRITE)]

    def test_more_events_than_room(self, probe, resources):
        ends = [poller_cases.socket_pair(resources)[0].fileno() for _ in range(10)]
        for fd in ends:
            probe.set(fd, 0, WRITE)
        seen = set()
        for _ in range(3):
            events = probe.wait(5, capacity=4)
            assert len(events) == 4
            seen.update(fd for fd, mask in events)
        assert seen == set(ends)

    @needs_polled_pipes
    def test_files_and_sockets_share_the_room(self, probe, resources, tmp_path):
        ends = [poller_cases.socket_pair(resources)[0].fileno() for _ in range(3)]
        files = [resources.enter_context(open(tmp_path / str(n), "wb")).fileno() for n in range(3)]
        for fd in [*files, *ends]:
            probe.set(fd, 0, WRITE)
        for capacity, waits in ((1, 12), (2, 6), (4, 3)):
            seen = set()
            for _ in range(waits):
                events = probe.wait(5, capacity)
                assert 0 < len(events) <= capacity
                seen.update(fd for fd, mask in events)
            assert seen == {*files, *ends}

    @pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers here")
    def test_a_signal_ends_the_wait(self, probe, resources):
        left, _ = poller_cases.socket_pair(resources)
        probe.set(left.fileno(), 0, READ)
        previous = signal.signal(signal.SIGALRM, lambda *args: None)
        resources.callback(signal.signal, signal.SIGALRM, previous)
        resources.callback(signal.setitimer, signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        with pytest.raises(OSError) as caught:
            probe.wait(30)
        assert caught.value.errno == errno.EINTR

    @needs_numbers
    def test_a_duplicate_keeps_a_closed_descriptor_alive(self, probe, resources):
        left, right = poller_cases.socket_pair(resources)
        number = left.fileno()
        probe.set(number, 0, READ)
        duplicate = left.dup()
        resources.callback(duplicate.close)
        left.close()
        probe.set(number, READ, 0)  # too late, and no error
        right.send(b"x")
        # epoll cannot forget; the others never know of duplicates.
        stale = [(number, 1, READ)] if probe.name == "epoll" else []
        assert probe.wait_tokens(0) == stale
        # The number comes back to another owner: the two are told apart.
        other, _ = poller_cases.socket_pair(resources)
        if other.fileno() != number:
            poller_cases.move_to(other.fileno(), number)
            resources.callback(os.close, number)
        probe.generation = 2
        probe.set(number, 0, WRITE)
        assert sorted(probe.wait_tokens(5_000_000_000)) == [*stale, (number, 2, WRITE)]


class TestTable:
    """Which pollers there are."""

    def test_order_of_preference(self, library):
        table = (ctypes.POINTER(Kind) * (len(NAMES) + 1)).in_dll(library, "poller_kinds")
        assert [kind.contents.name.decode() for kind in table[:-1]] == NAMES
        assert not table[len(NAMES)]

    def test_find(self, library):
        for name in NAMES:
            assert library.poller_find(name.encode()).contents.name == name.encode()
        assert not library.poller_find(b"devpoll")


class TestQuery(QueryCases):
    """poller_query_now"""

    @pytest.fixture
    def query(self, library):
        def ask(queries):
            array = (Query * len(queries))(*queries)
            count = library.poller_query_now(array, len(queries))
            masks = [item.mask for item in array]
            assert count == sum(mask != 0 for mask in masks)
            return masks

        return ask


# The double's numbers.
EVFILT_READ, EVFILT_WRITE, EVFILT_EXCEPT = -1, -2, -3
EV_ADD, EV_DELETE, EV_RECEIPT, EV_ERROR, EV_EOF = 1, 2, 0x40, 0x4000, 0x8000
NOTE_OOB = 4


class Kqueue(CProbe):
    """The kqueue poller over the double, whose records it reads."""

    def __init__(self, library):
        super().__init__(library, "kqueue")
        self.library = library
        library.double_reset()

    def changes(self):
        """(filter, flags) of what was submitted since the last time, and the calls."""
        entries, calls = ctypes.POINTER(KernelEvent)(), ctypes.c_int()
        count = self.library.double_log(ctypes.byref(entries), ctypes.byref(calls))
        result = [(e.filter, e.flags & ~EV_RECEIPT) for e in entries[:count]]
        self.library.double_reset()
        return result, calls.value

    def event(self, fd, filter_, flags=0, fflags=0, data=0, generation=None):
        generation = self.generation if generation is None else generation
        event = KernelEvent(fd, filter_, flags, fflags, data, fd << 32 | generation)
        self.library.double_event(ctypes.byref(event))


@pytest.mark.skipif(not LINUX, reason="the double is only used where there is no kqueue")
class TestKqueueChanges:
    """What the kqueue poller asks of the kernel, and how it reads the answers."""

    @pytest.fixture
    def queue(self, library):
        queue = Kqueue(library)
        yield queue
        queue.close()

    @pytest.fixture
    def fd(self, resources):
        return poller_cases.socket_pair(resources)[0].fileno()

    def test_one_call_for_each_change_of_interest(self, queue, fd):
        except_ = (EVFILT_EXCEPT, EV_ADD)
        queue.set(fd, 0, READ)
        assert queue.changes() == ([(EVFILT_READ, EV_ADD), except_], 1)
        queue.set(fd, READ, READ | WRITE)
        assert queue.changes() == ([(EVFILT_READ, EV_ADD), (EVFILT_WRITE, EV_ADD), except_], 1)
        queue.set(fd, READ | WRITE, WRITE)
        assert queue.changes() == ([(EVFILT_READ, EV_DELETE), (EVFILT_WRITE, EV_ADD), except_], 1)
        queue.set(fd, WRITE, 0)
        assert queue.changes() == ([(EVFILT_WRITE, EV_DELETE), (EVFILT_EXCEPT, EV_DELETE)], 1)

    def test_a_closed_descriptor_is_deleted_all_the_same(self, queue, resources):
        left, _ = poller_cases.socket_pair(resources)
        number = left.fileno()
        queue.set(number, 0, READ)
        queue.changes()
        left.close()
        queue.set(number, READ, 0)
        assert queue.changes() == ([(EVFILT_READ, EV_DELETE), (EVFILT_EXCEPT, EV_DELETE)], 1)

    def test_plain_files_are_never_submitted(self, queue, resources):
        plain = resources.enter_context(open(__file__, "rb"))
        queue.set(plain.fileno(), 0, READ)
        queue.set(plain.fileno(), READ, 0)
        assert queue.changes() == ([], 0)

    @pytest.mark.parametrize("error", [errno.EINVAL, errno.EPERM, errno.ENODEV, errno.EPIPE])
    def test_what_is_refused_is_always_ready(self, queue, fd, error):
        queue.library.double_fail(fd, EVFILT_WRITE, error)
        queue.set(fd, 0, READ | WRITE)
        changes, _ = queue.changes()
        assert (EVFILT_READ, EV_DELETE) in changes[3:]  # no half registration stays
        assert queue.wait(None) == [(fd, READ | WRITE)]
        queue.set(fd, READ | WRITE, 0)
        assert queue.wait(0) == []

    @pytest.mark.parametrize("error", [errno.ENOMEM, errno.EBADF])
    def test_other_errors_are_the_callers(self, queue, fd, error):
        queue.library.double_fail(fd, EVFILT_WRITE, error)
        with pytest.raises(OSError) as caught:
            queue.set(fd, 0, WRITE)
        assert caught.value.errno == error

    def test_missing_urgent_data_is_no_error(self, queue, fd):
        queue.library.double_fail(fd, EVFILT_EXCEPT, errno.EINVAL)
        queue.set(fd, 0, WRITE)
        assert queue.wait(5) == [(fd, WRITE)]

    def test_filters_of_one_token_are_one_event(self, queue, resources):
        first, second = (end.fileno() for end in poller_cases.socket_pair(resources))
        for fd in (first, second):
            queue.set(fd, 0, READ | WRITE)
        queue.event(first, EVFILT_WRITE)
        queue.event(second, EVFILT_READ)
        queue.event(first, EVFILT_EXCEPT, fflags=NOTE_OOB)
        queue.event(first, EVFILT_READ)
        assert queue.wait(5) == [(first, READ | WRITE | URGENT), (second, READ)]

    def test_generations_are_not_merged(self, queue, fd):
        queue.generation = 5
        queue.set(fd, 0, READ | WRITE)
        queue.event(fd, EVFILT_READ, generation=4)
        queue.event(fd, EVFILT_WRITE)
        assert queue.wait_tokens(0) == [(fd, 4, READ), (fd, 5, WRITE)]

    @pytest.mark.parametrize(
        "event, mask",
        [
            ({"filter_": EVFILT_READ, "flags": EV_EOF}, READ),
            ({"filter_": EVFILT_READ, "flags": EV_EOF, "fflags": errno.ECONNRESET}, READ | ERROR),
            ({"filter_": EVFILT_WRITE, "flags": EV_EOF}, WRITE),
            (
                {"filter_": EVFILT_WRITE, "flags": EV_EOF, "fflags": errno.ECONNREFUSED},
                WRITE | ERROR,
            ),
            ({"filter_": EVFILT_READ, "flags": EV_ERROR, "data": errno.EBADF}, INVALID),
            ({"filter_": EVFILT_READ, "flags": EV_ERROR, "data": errno.EIO}, ERROR),
        ],
    )
    def test_ends_and_errors(self, queue, fd, event, mask):
        queue.set(fd, 0, READ | WRITE)
        queue.event(fd, **event)
        assert queue.wait(0) == [(fd, mask)]

    def test_the_end_of_a_pipe_is_a_hang_up(self, queue):
        for fd in os.pipe():
            queue.set(fd, 0, READ)
            queue.event(fd, EVFILT_READ, EV_EOF)
            assert queue.wait(0) == [(fd, READ | HANGUP)]
            queue.set(fd, READ, 0)
            os.close(fd)

    def test_an_event_of_an_unknown_index_is_dropped(self, queue):
        queue.event(BIG_INDEX, EVFILT_READ)
        assert queue.wait(0) == []

    def test_without_receipts_and_urgent_data(self, tmp_path, resources):
        """The branches for systems that lack EV_RECEIPT and EVFILT_EXCEPT."""
        lean = build(tmp_path, "-DDOUBLE_WITHOUT_RECEIPT", "-DDOUBLE_WITHOUT_EXCEPT")
        queue = Kqueue(lean)
        resources.callback(queue.close)
        left, right = poller_cases.socket_pair(resources)
        queue.set(left.fileno(), 0, READ | WRITE)
        assert queue.changes() == ([(EVFILT_READ, EV_ADD), (EVFILT_WRITE, EV_ADD)], 2)
        assert queue.wait(5) == [(left.fileno(), WRITE)]
        queue.set(left.fileno(), WRITE | READ, READ)
        assert queue.wait(0) == []
        right.send(b"x")
        assert queue.wait(5) == [(left.fileno(), READ)]
        queue.library.double_fail(left.fileno(), EVFILT_WRITE, errno.ENOMEM)
        with pytest.raises(OSError) as caught:
            queue.set(left.fileno(), READ, WRITE)
        assert caught.value.errno == errno.ENOMEM
