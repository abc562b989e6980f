"""What every poller does, whichever language it is written in.

`PollerCases` is inherited by the test classes of the C and of the Python
pollers; `Probe` is what they put around a poller.  Nothing here knows how the
kernel is asked.
"""

import errno
import os
import socket
import threading
import time
from contextlib import ExitStack

import pytest
from support import needs_numbers, needs_polled_pipes, room_for_descriptors

READ, URGENT, WRITE, ERROR, HANGUP, INVALID = 1, 2, 4, 8, 16, 32
HOLDS_NUMBERS = ("poll", "select")  # they report a closed descriptor as INVALID


class Probe:
    """A poller, driven by descriptor; events are `(descriptor, mask)`."""

    name = ""
    has_urgent = True

    def set(self, fd, old, new):
        raise NotImplementedError

    def wait(self, timeout):
        raise NotImplementedError

    def fileno(self):
        raise NotImplementedError

    def close(self):
        raise NotImplementedError


@pytest.fixture
def resources():
    """Whatever a test opens, closed at its end."""
    with ExitStack() as stack:
        yield stack


def socket_pair(resources):
    """Two connected non-blocking sockets."""
    pair = socket.socketpair()
    for end in pair:
        end.setblocking(False)
        resources.callback(end.close)
    return pair


def pipe(resources):
    """The two ends of a pipe as unbuffered files."""
    reading, writing = os.pipe()
    return (
        resources.enter_context(open(reading, "rb", buffering=0)),
        resources.enter_context(open(writing, "wb", buffering=0)),
    )


def tcp_pair(resources):
    """Two ends of a loopback TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = resources.enter_context(socket.create_connection(listener.getsockname()))
        server = resources.enter_context(listener.accept()[0])
    return client, server


def move_to(fd, number):
    """Put the open file of fd on a number, as a later open() might."""
    os.dup2(fd, number, inheritable=False)


class PollerCases:
    """The behaviour that all pollers share."""

    def test_readable(self, probe, resources):
        left, right = socket_pair(resources)
        probe.set(left.fileno(), 0, READ)
        assert probe.wait(0) == []
        right.send(b"x")
        assert probe.wait(5) == [(left.fileno(), READ)]
        # Level-triggered: what was not read is reported again.
        assert probe.wait(5) == [(left.fileno(), READ)]
        left.recv(1)
        assert probe.wait(0) == []

    def test_writable(self, probe, resources):
        left, _ = socket_pair(resources)
        probe.set(left.fileno(), 0, WRITE)
        assert probe.wait(5) == [(left.fileno(), WRITE)]
        probe.set(left.fileno(), WRITE, READ)
        assert probe.wait(0) == []

    def test_readable_and_writable_is_one_event(self, probe, resources):
        left, right = socket_pair(resources)
        right.send(b"x")
        probe.set(left.fileno(), 0, READ)
        probe.set(left.fileno(), READ, READ | WRITE)
        assert probe.wait(5) == [(left.fileno(), READ | WRITE)]
        probe.set(left.fileno(), READ | WRITE, WRITE)
        assert probe.wait(5) == [(left.fileno(), WRITE)]

    def test_urgent_data(self, probe, resources):
        client, server = tcp_pair(resources)
        probe.set(server.fileno(), 0, READ)
        client.send(b"!", socket.MSG_OOB)
        if probe.has_urgent:
            ((fd, mask),) = probe.wait(5)
            assert fd == server.fileno()
            assert mask & URGENT
        client.send(b"x")
        assert any(mask & READ for fd, mask in probe.wait(5))

    @pytest.mark.parametrize("timeout", [0.0013, 0.02])
    def test_a_timeout_is_never_cut_short(self, probe, resources, timeout):
        left, _ = socket_pair(resources)
        probe.set(left.fileno(), 0, READ)
        started = time.monotonic()
        assert probe.wait(timeout) == []
        assert time.monotonic() - started >= timeout

    def test_an_empty_set_waits_too(self, probe):
        started = time.monotonic()
        assert probe.wait(0.01) == []
        assert time.monotonic() - started >= 0.01

    def test_a_wait_without_limit_is_ended_by_an_event(self, probe, resources):
        left, right = socket_pair(resources)
        probe.set(left.fileno(), 0, READ)
        sender = threading.Thread(target=right.send, args=(b"x",))
        sender.start()
        assert probe.wait(None) == [(left.fileno(), READ)]
        sender.join()

    def test_a_very_long_timeout_is_accepted(self, probe, resources):
        left, right = socket_pair(resources)
        right.send(b"x")
        probe.set(left.fileno(), 0, READ)
        assert probe.wait(1e9) == [(left.fileno(), READ)]

    @needs_polled_pipes
    def test_a_pipe_whose_writer_is_gone(self, probe, resources):
        reading, writing = pipe(resources)
        probe.set(reading.fileno(), 0, READ)
        writing.write(b"left behind")
        writing.close()
        ((fd, mask),) = probe.wait(5)
        assert fd == reading.fileno()
        assert mask & READ
        reading.read(100)
        ((fd, mask),) = probe.wait(5)
        assert mask & (READ | HANGUP)

    @needs_polled_pipes
    def test_a_pipe_whose_reader_is_gone(self, probe, resources):
        reading, writing = pipe(resources)
        probe.set(writing.fileno(), 0, WRITE)
        reading.close()
        ((fd, mask),) = probe.wait(5)
        assert fd == writing.fileno()
        assert mask & (WRITE | ERROR)

    def test_a_half_closed_peer_is_readable_and_not_gone(self, probe, resources):
        client, server = tcp_pair(resources)
        probe.set(server.fileno(), 0, READ)
        client.shutdown(socket.SHUT_WR)
        assert probe.wait(5) == [(server.fileno(), READ)]

    def test_a_refused_connect_is_writable_or_an_error(self, probe, resources):
        closed = resources.enter_context(socket.socket())
        closed.bind(("127.0.0.1", 0))
        client = resources.enter_context(socket.socket())
        client.setblocking(False)
        probe.set(client.fileno(), 0, 0)  # nothing known: no error
        begun = (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.ECONNREFUSED)
        assert client.connect_ex(closed.getsockname()) in begun
        probe.set(client.fileno(), 0, READ | WRITE)
        ((fd, mask),) = probe.wait(5)
        assert fd == client.fileno()
        assert mask & (WRITE | ERROR)
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED

    @needs_polled_pipes
    def test_files_and_devices_are_always_ready(self, probe, resources, tmp_path):
        plain = resources.enter_context(open(tmp_path / "plain", "w+b", buffering=0))
        device = resources.enter_context(open(os.devnull, "r+b", buffering=0))
        left, right = socket_pair(resources)
        right.send(b"x")
        probe.set(plain.fileno(), 0, READ)
        probe.set(device.fileno(), 0, READ | WRITE)
        probe.set(left.fileno(), 0, READ)
        for _ in range(2):
            ready = dict(probe.wait(None))
            assert ready[plain.fileno()] == READ
            assert ready[device.fileno()] & (READ | WRITE) == READ | WRITE
            assert ready[left.fileno()] == READ
        probe.set(plain.fileno(), READ, WRITE)
        assert dict(probe.wait(None))[plain.fileno()] == WRITE
        probe.set(plain.fileno(), WRITE, 0)
        probe.set(device.fileno(), READ | WRITE, 0)
        assert probe.wait(None) == [(left.fileno(), READ)]

    @needs_numbers
    def test_a_socket_on_the_number_of_a_file(self, probe, resources, tmp_path):
        plain = resources.enter_context(open(tmp_path / "plain", "w+b", buffering=0))
        left, right = socket_pair(resources)
        probe.set(plain.fileno(), 0, READ)
        assert probe.wait(None) == [(plain.fileno(), READ)]
        move_to(left.fileno(), plain.fileno())
        probe.set(plain.fileno(), READ, READ | WRITE)
        assert probe.wait(None) == [(plain.fileno(), WRITE)]
        probe.set(plain.fileno(), READ | WRITE, READ)
        assert probe.wait(0) == []
        right.send(b"x")
        assert probe.wait(5) == [(plain.fileno(), READ)]

    @needs_numbers
    def test_a_file_on_the_number_of_a_socket(self, probe, resources, tmp_path):
        plain = resources.enter_context(open(tmp_path / "plain", "w+b", buffering=0))
        left, _ = socket_pair(resources)
        number = left.fileno()
        probe.set(number, 0, READ)
        move_to(plain.fileno(), number)
        probe.set(number, READ, 0)
        probe.set(number, 0, READ)
        assert probe.wait(None) == [(number, READ)]
        probe.set(number, READ, 0)
        assert probe.wait(0) == []

    def test_no_interest_silences_a_hang_up(self, probe, resources):
        left, right = socket_pair(resources)
        probe.set(left.fileno(), 0, READ)
        probe.set(left.fileno(), READ, 0)
        right.close()
        assert probe.wait(0) == []
        probe.set(left.fileno(), 0, READ)
        ((fd, mask),) = probe.wait(5)
        assert fd == left.fileno()
        assert mask & READ

    @needs_numbers
    def test_the_same_number_opened_again(self, probe, resources):
        left, right = socket_pair(resources)
        other, _ = socket_pair(resources)
        probe.set(left.fileno(), 0, READ)
        move_to(other.fileno(), left.fileno())
        # The kernel has forgotten; a caller that has not must be helped.
        probe.set(left.fileno(), READ, READ | WRITE)
        assert probe.wait(5) == [(left.fileno(), WRITE)]
        right.close()

    def test_adding_what_is_there(self, probe, resources):
        left, right = socket_pair(resources)
        right.send(b"x")
        probe.set(left.fileno(), 0, WRITE)
        probe.set(left.fileno(), 0, READ | WRITE)
        assert probe.wait(5) == [(left.fileno(), READ | WRITE)]

    def test_changing_what_is_not_there(self, probe, resources):
        left, _ = socket_pair(resources)
        probe.set(left.fileno(), READ, WRITE)
        assert probe.wait(5) == [(left.fileno(), WRITE)]

    def test_removing_what_is_not_there(self, probe, resources):
        left, _ = socket_pair(resources)
        probe.set(left.fileno(), READ, 0)
        number = left.fileno()
        left.close()
        probe.set(number, READ, 0)
        assert probe.wait(0) == []

    def test_a_closed_descriptor_is_refused(self, probe, resources):
        left, _ = socket_pair(resources)
        number = left.fileno()
        left.close()
        for fd in (number, -1):
            with pytest.raises(OSError) as caught:
                probe.set(fd, 0, READ)
            assert caught.value.errno == errno.EBADF
        assert probe.wait(0) == []

    def test_closed_while_registered(self, probe, resources):
        left, right = socket_pair(resources)
        other, _ = socket_pair(resources)
        number = left.fileno()
        probe.set(number, 0, READ)
        probe.set(other.fileno(), 0, READ)
        left.close()
        expected = [(number, INVALID)] if probe.name in HOLDS_NUMBERS else []
        assert probe.wait(0) == expected
        probe.set(number, READ, 0)
        assert probe.wait(0) == []
        right.close()

    @needs_numbers
    def test_a_high_descriptor(self, probe, resources):
        import fcntl  # of POSIX systems only

        resources.enter_context(room_for_descriptors(1100))
        left, right = socket_pair(resources)
        high = fcntl.fcntl(left.fileno(), fcntl.F_DUPFD_CLOEXEC, 1024)
        resources.callback(os.close, high)
        right.send(b"x")
        if probe.name == "select":
            for old in (0, READ):
                with pytest.raises(OSError) as caught:
                    probe.set(high, old, READ | WRITE)
                assert caught.value.errno == errno.ERANGE
            probe.set(left.fileno(), 0, READ)  # the others go on
            assert probe.wait(5) == [(left.fileno(), READ)]
        else:
            probe.set(high, 0, READ)
            assert probe.wait(5) == [(high, READ)]

    def test_the_descriptor_of_the_set(self, probe):
        if probe.name in HOLDS_NUMBERS:
            assert probe.fileno() == -1
        else:
            assert not os.get_inheritable(probe.fileno())

    def test_many_descriptors(self, probe, resources):
        # More than the 64 of a plain fd_set on Windows.
        pairs = [socket_pair(resources) for _ in range(200)]
        for left, _ in pairs:
            probe.set(left.fileno(), 0, READ)
        for _, right in pairs[::3]:
            right.send(b"x")
        assert sorted(probe.wait(5)) == sorted((left.fileno(), READ) for left, _ in pairs[::3])
        for left, _ in pairs[::2]:
            probe.set(left.fileno(), READ, 0)
        expected = [left for place, (left, _) in enumerate(pairs) if place % 3 == 0 and place % 2]
        assert sorted(probe.wait(5)) == sorted((left.fileno(), READ) for left in expected)


class QueryCases:
    """The one-off question; `query` is a function of a list of (fd, interest)."""

    def test_nothing_asked(self, query):
        assert query([]) == []

    def test_each_answer_stands_in_its_place(self, query, resources):
        left, right = socket_pair(resources)
        right.send(b"x")
        assert query([(left.fileno(), WRITE), (right.fileno(), READ)]) == [WRITE, 0]
        assert query([(right.fileno(), READ), (left.fileno(), READ)]) == [0, READ]
        assert query([(left.fileno(), READ | WRITE)]) == [READ | WRITE]

    def test_a_closed_descriptor(self, query, resources):
        left, right = socket_pair(resources)
        number = left.fileno()
        left.close()
        assert query([(number, WRITE), (right.fileno(), WRITE)])[0] == INVALID

    def test_more_than_a_few(self, query, resources):
        pairs = [socket_pair(resources) for _ in range(100)]
        assert query([(left.fileno(), READ | WRITE) for left, _ in pairs]) == [WRITE] * 100
