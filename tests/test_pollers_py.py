"""The pollers in Python.  Where the system has no kqueue, that one runs over a
stand-in for the `select` module's kqueue, which is in this file.
"""

import errno
import importlib.util
import math
import os
import select
import socket
import stat
import sys
import types
from typing import ClassVar

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
from support import needs_poll

from fastcore import _originals
from fastcore._python import pollers as pollers

LINUX = sys.platform == "linux"
HAS_KQUEUE = hasattr(select, "kqueue")
HAS_POLL = hasattr(select, "poll")  # of which the stand-in is made
NAMES = [*pollers.kinds, *(("kqueue",) if HAS_POLL and not HAS_KQUEUE else ())]

EVFILT_READ, EVFILT_WRITE, EVFILT_EXCEPT = -1, -2, -3
EV_ADD, EV_DELETE, EV_ERROR, EV_EOF = 1, 2, 0x4000, 0x8000
NOTE_OOB = 4


class FakeEvent:
    """select.kevent"""

    def __init__(self, ident, filter=EVFILT_READ, flags=EV_ADD, fflags=0, data=0, udata=0):
        self.ident, self.filter, self.flags = ident, filter, flags
        self.fflags, self.data, self.udata = fflags, data, udata


class FakeKqueue:
    """select.kqueue over poll(2), with a record of the changes."""

    # Filters that a test lets fail, and events that it puts before the real
    # ones; of all queues, since the poller opens its own.
    failures: ClassVar = {}
    events: ClassVar = []
    changes: ClassVar = []

    def __init__(self):
        self.filters = {}
        self.number = os.open(os.devnull, os.O_RDONLY)
        self.closed = False

    def fileno(self):
        return self.number

    def close(self):
        if not self.closed:
            self.closed = True
            os.close(self.number)

    def control(self, changes, max_events, timeout=None):
        for change in changes or ():
            self.changes.append((change.filter, change.flags))
            error = self.apply(change)
            if error:
                raise OSError(error, os.strerror(error))
        if max_events == 0:
            return []
        if self.events:
            scripted = list(self.events)
            self.events.clear()
            return scripted
        return self.collect(timeout)[:max_events]

    def apply(self, change):
        key = (change.ident, change.filter)
        try:
            about = os.fstat(change.ident)
        except OSError:
            return errno.EBADF
        if change.flags & EV_DELETE:
            self.forget_closed()
            return 0 if self.filters.pop(key, None) else errno.ENOENT
        if key in self.failures:
            return self.failures[key]
        if stat.S_ISCHR(about.st_mode):
            return errno.EINVAL
        if change.filter == EVFILT_EXCEPT and not stat.S_ISSOCK(about.st_mode):
            return errno.EINVAL
        self.filters[key] = (about.st_dev, about.st_ino)
        return 0

    def forget_closed(self):
        for key, identity in list(self.filters.items()):
            try:
                about = os.fstat(key[0])
            except OSError:
                del self.filters[key]
            else:
                if identity != (about.st_dev, about.st_ino):
                    del self.filters[key]

    def collect(self, timeout):
        self.forget_closed()
        requests = {EVFILT_READ: select.POLLIN, EVFILT_WRITE: select.POLLOUT}
        asked = {}
        for fd, kind in self.filters:
            asked[fd] = asked.get(fd, 0) | requests.get(kind, select.POLLPRI)
        poll = select.poll()
        for fd, bits in asked.items():
            poll.register(fd, bits)
        found = dict(poll.poll(None if timeout is None else math.ceil(timeout * 1000)))
        ends = select.POLLHUP | select.POLLERR
        result = []
        for fd, kind in self.filters:
            bits = found.get(fd, 0)
            if kind == EVFILT_EXCEPT:
                if bits & select.POLLPRI:
                    result.append(FakeEvent(fd, kind, 0, NOTE_OOB))
            elif bits & (requests[kind] | ends):
                flags = EV_EOF if bits & ends else 0
                result.append(FakeEvent(fd, kind, flags, errno.EIO if flags else 0))
        return result


def load_with(**names):
    """The module under test as it is where `select` has just these names."""
    fake = types.ModuleType("select")
    fake.select = select.select
    vars(fake).update(names)
    spec = importlib.util.spec_from_file_location(
        "fastcore._python.pollers_over_a_double", pollers.__file__
    )
    module = importlib.util.module_from_spec(spec)
    real = _originals.original
    _originals.original = lambda name: fake if name == "select" else real(name)
    try:
        spec.loader.exec_module(module)
    finally:
        _originals.original = real
    return module


@pytest.fixture(scope="module")
def elsewhere():
    """The module on a system with kqueue."""
    if not HAS_POLL:
        pytest.skip("the stand-in for kqueue is made of poll(), which is not here")
    module = load_with(
        poll=select.poll,
        **{name: value for name, value in vars(select).items() if name.startswith("POLL")},
        kqueue=FakeKqueue,
        kevent=FakeEvent,
        KQ_FILTER_READ=EVFILT_READ,
        KQ_FILTER_WRITE=EVFILT_WRITE,
        KQ_EV_ADD=EV_ADD,
        KQ_EV_DELETE=EV_DELETE,
        KQ_EV_EOF=EV_EOF,
        KQ_EV_ERROR=EV_ERROR,
    )
    module.KqueuePoller._urgent = (EVFILT_EXCEPT, NOTE_OOB)
    return module


@pytest.fixture(autouse=True)
def forget_the_script():
    for record in (FakeKqueue.failures, FakeKqueue.events, FakeKqueue.changes):
        record.clear()


class PythonProbe(Probe):
    def __init__(self, poller):
        self.poller = poller
        self.name = poller.name
        self.set, self.wait = poller.set, poller.wait
        self.fileno, self.close = poller.fileno, poller.close
        self.has_urgent = poller.name != "kqueue" or poller._urgent is not None


@pytest.fixture(params=NAMES)
def probe(request):
    known = request.param in pollers.kinds
    kinds = pollers.kinds if known else request.getfixturevalue("elsewhere").kinds
    probe = PythonProbe(kinds[request.param]())
    yield probe
    probe.close()


class TestPollers(PollerCases):
    """What the C pollers do as well."""

    def test_closing_twice(self, probe):
        probe.close()
        probe.close()
        assert probe.fileno() == -1

    def test_a_number_that_no_descriptor_can_have(self, probe):
        with pytest.raises(OSError) as caught:
            probe.set(1 << 40, 0, READ)
        assert caught.value.errno in (errno.EBADF, errno.ERANGE)


class TestQuery(QueryCases):
    """query_now, over poll() and over select()"""

    @pytest.fixture(params=[pytest.param("poll", marks=needs_poll), "select"])
    def query(self, request):
        query_now = (pollers if request.param == "poll" else load_with()).query_now

        def query(queries):
            interest = {}
            for fd, mask in queries:
                interest[fd] = interest.get(fd, 0) | mask
            ready = query_now(interest)
            return [ready.get(fd, 0) for fd, _ in queries]

        return query

    def test_a_number_that_no_descriptor_can_have(self, query):
        assert query([(-1, READ), (1 << 40, WRITE)]) == [INVALID, INVALID]


class TestTable:
    """Which pollers there are."""

    def test_order_of_preference(self, elsewhere):
        order = ["epoll", "kqueue", "poll", "select"]
        assert list(pollers.kinds) == [name for name in order if name in pollers.kinds]
        assert list(elsewhere.kinds) == ["kqueue", "poll", "select"]
        assert list(load_with().kinds) == ["select"]
        assert all(kind.name == name for name, kind in elsewhere.kinds.items())

    def test_functions_are_captured(self, monkeypatch, resources):
        """What a program puts into the select module is not ours to call."""
        for name in ("select", "poll", "epoll", "kqueue", "kevent"):
            monkeypatch.delattr(select, name, raising=False)
        left, _ = poller_cases.socket_pair(resources)
        for kind in pollers.kinds.values():
            poller = kind()
            resources.callback(poller.close)
            poller.set(left.fileno(), 0, WRITE)
            assert poller.wait(5) == [(left.fileno(), WRITE)]
        assert pollers.query_now({left.fileno(): WRITE}) == {left.fileno(): WRITE}

    def test_what_select_refuses_says_why(self, resources):
        poller = pollers.SelectPoller()
        left, _ = poller_cases.socket_pair(resources)
        poller._limit = 0 if os.name == "nt" else left.fileno()  # how many; which number
        with pytest.raises(OSError, match=rf"descriptor {left.fileno()} is beyond what select\(\)"):
            poller.set(left.fileno(), 0, READ)


@pytest.mark.skipif(not LINUX, reason="only epoll watches files rather than descriptors")
class TestStrangers:
    """A closed descriptor that goes on firing, because a duplicate lives."""

    @pytest.fixture
    def poller(self):
        poller = pollers.EpollPoller()
        yield poller
        poller.close()

    @pytest.fixture
    def orphan(self, poller, resources):
        """A readable socket in the set whose number is free; returns the number."""
        left, right = poller_cases.socket_pair(resources)
        number = left.fileno()
        poller.set(number, 0, READ)
        duplicate = left.dup()
        resources.callback(duplicate.close)
        left.close()
        right.send(b"x")
        return number

    @pytest.fixture
    def successor(self, orphan, resources):
        """Another socket under that number, and its peer."""
        left, right = poller_cases.socket_pair(resources)
        if left.fileno() != orphan:
            poller_cases.move_to(left.fileno(), orphan)
            left.close()
            left = socket.socket(fileno=orphan)
            resources.callback(left.close)
        return left, right

    def test_an_unregistered_number(self, poller, orphan):
        poller.set(orphan, READ, 0)
        assert poller.wait(0) == [(-1, 0)]

    def test_the_others_are_reported_too(self, poller, orphan, resources):
        other, _ = poller_cases.socket_pair(resources)
        poller.set(orphan, READ, 0)
        poller.set(other.fileno(), 0, WRITE)
        assert sorted(poller.wait(0)) == [(-1, 0), (other.fileno(), WRITE)]

    @pytest.mark.parametrize("told", ["before", "after", "never", "changed"])
    def test_a_number_used_again(self, poller, orphan, request, told):
        """However the poller learns of it, the stranger's event is not the successor's."""
        if told == "before":
            poller.set(orphan, READ, 0)
        _, right = request.getfixturevalue("successor")
        if told == "after":
            poller.set(orphan, READ, 0)
        poller.set(orphan, READ if told == "changed" else 0, READ)
        assert poller.wait(0) == [(-1, 0)]
        right.send(b"x")
        assert sorted(poller.wait(0)) == [(-1, 0), (orphan, READ)]

    def test_a_number_whose_duplicate_is_gone(self, poller, resources):
        left, _ = poller_cases.socket_pair(resources)
        number = left.fileno()
        poller.set(number, 0, READ)
        left.close()
        poller.set(number, READ, 0)
        other, _ = poller_cases.socket_pair(resources)
        if other.fileno() != number:
            poller_cases.move_to(other.fileno(), number)
            resources.callback(os.close, number)
        poller.set(number, 0, READ | WRITE)
        assert poller.wait(5) == [(number, WRITE)]

    def test_closed_while_it_is_changed(self, poller, orphan):
        with pytest.raises(OSError) as caught:
            poller.set(orphan, READ, READ | WRITE)
        assert caught.value.errno == errno.EBADF
        poller.set(orphan, READ, 0)
        assert poller.wait(0) == [(-1, 0)]

    def test_ordinary_closing_leaves_nothing_to_check(self, poller, resources):
        """Deregistered before it is closed, a number is never looked at twice."""
        left, _ = poller_cases.socket_pair(resources)
        poller.set(left.fileno(), 0, READ)
        poller.set(left.fileno(), READ, 0)
        left.close()
        assert not poller._lost


@pytest.mark.skipif(HAS_KQUEUE, reason="the stand-in is only used where there is no kqueue")
class TestKqueueChanges:
    """What the kqueue poller asks of the kernel, and how it reads the answers."""

    @pytest.fixture
    def queue(self, elsewhere):
        queue = elsewhere.KqueuePoller()
        yield queue
        queue.close()

    @pytest.fixture
    def fd(self, resources):
        return poller_cases.socket_pair(resources)[0].fileno()

    @staticmethod
    def changes():
        changes = list(FakeKqueue.changes)
        FakeKqueue.changes.clear()
        return changes

    def test_changes_of_interest(self, queue, fd):
        except_ = (EVFILT_EXCEPT, EV_ADD)
        queue.set(fd, 0, READ)
        assert self.changes() == [(EVFILT_READ, EV_ADD), except_]
        queue.set(fd, READ, READ | WRITE)
        assert self.changes() == [(EVFILT_READ, EV_ADD), (EVFILT_WRITE, EV_ADD), except_]
        queue.set(fd, READ | WRITE, WRITE)
        assert self.changes() == [(EVFILT_READ, EV_DELETE), (EVFILT_WRITE, EV_ADD), except_]
        queue.set(fd, WRITE, 0)
        assert self.changes() == [(EVFILT_WRITE, EV_DELETE), (EVFILT_EXCEPT, EV_DELETE)]

    def test_without_urgent_data(self, queue, fd, monkeypatch):
        monkeypatch.setattr(type(queue), "_urgent", None)
        queue.set(fd, 0, WRITE)
        assert queue.wait(5) == [(fd, WRITE)]
        queue.set(fd, WRITE, 0)
        assert self.changes() == [(EVFILT_WRITE, EV_ADD), (EVFILT_WRITE, EV_DELETE)]

    @pytest.mark.parametrize("error", [errno.EINVAL, errno.EPERM, errno.ENODEV, errno.EPIPE])
    def test_what_is_refused_is_always_ready(self, queue, fd, error):
        FakeKqueue.failures[fd, EVFILT_WRITE] = error
        queue.set(fd, 0, READ | WRITE)
        assert (EVFILT_READ, EV_DELETE) in self.changes()  # no half registration stays
        assert queue.wait(None) == [(fd, READ | WRITE)]
        queue.set(fd, READ | WRITE, 0)
        assert queue.wait(0) == []

    @pytest.mark.parametrize("error", [errno.ENOMEM, errno.EBADF])
    def test_other_errors_are_the_callers(self, queue, fd, error):
        FakeKqueue.failures[fd, EVFILT_WRITE] = error
        with pytest.raises(OSError) as caught:
            queue.set(fd, 0, WRITE)
        assert caught.value.errno == error

    def test_filters_of_one_descriptor_are_one_event(self, queue):
        FakeKqueue.events += [
            FakeEvent(7, EVFILT_WRITE),
            FakeEvent(8, EVFILT_READ, 0),
            FakeEvent(7, EVFILT_EXCEPT, 0, NOTE_OOB),
            FakeEvent(7, EVFILT_READ, 0),
        ]
        assert queue.wait(0) == [(7, READ | WRITE | URGENT), (8, READ)]

    @pytest.mark.parametrize(
        "event, mask",
        [
            ((EVFILT_READ, EV_EOF), READ),
            ((EVFILT_READ, EV_EOF, errno.ECONNRESET), READ | ERROR),
            ((EVFILT_WRITE, EV_EOF), WRITE),
            ((EVFILT_WRITE, EV_EOF, errno.ECONNREFUSED), WRITE | ERROR),
            ((EVFILT_READ, EV_ERROR, 0, errno.EBADF), INVALID),
            ((EVFILT_READ, EV_ERROR, 0, errno.EIO), ERROR),
        ],
    )
    def test_ends_and_errors(self, queue, fd, event, mask):
        FakeKqueue.events.append(FakeEvent(fd, *event))
        assert queue.wait(0) == [(fd, mask)]

    def test_the_end_of_a_pipe_is_a_hang_up(self, queue):
        for fd in os.pipe():
            FakeKqueue.events.append(FakeEvent(fd, EVFILT_READ, EV_EOF))
            assert queue.wait(0) == [(fd, READ | HANGUP)]
            os.close(fd)
