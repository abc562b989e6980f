"""A load generator in Python, for echo only: stands in for load.c where there is no compiler.

Takes the same arguments and prints the same line of JSON.  Being Python it is
itself slower than a fast server, so that requests per second and latencies
measure the generator too; CPU time per request stays meaningful.  Like load.c
it must not know which server it drives, and ends whatever that server does.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import random
import selectors
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass, field

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
PERIOD = 4093  # bytes after which what is sent repeats: a prime does not fit requests
PROBE = b"?"


class Failure(Exception):
    """The measurement is not possible; the text says why."""


# ---- the server's process -------------------------------------------------


def cpu_of_thread(pid: int | None, thread: str = "") -> int | None:
    """CPU time in ns of one thread, the main one by default, where the kernel tells it."""
    try:
        with open(f"/proc/{pid}/{thread}schedstat") as file:
            return int(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def cpu_of_process(pid: int | None) -> int | None:
    """CPU time in ns of all threads that there are."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return None
    return sum(cpu_of_thread(pid, f"task/{thread}/") or 0 for thread in threads)


def memory_of(pid: int | None) -> int | None:
    """Resident bytes, where the kernel tells them; smaps_rollup is the exact one."""
    for name, key in (("smaps_rollup", "Rss:"), ("status", "VmRSS:")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/{name}") as file:
            for line in file:
                if line.startswith(key):
                    return int(line.split()[1]) * 1024
    return None


def per_request(before: int | None, after: int | None, count: int) -> float | None:
    """Microseconds of a difference in ns."""
    if before is None or after is None or not count:
        return None
    return round((after - before) / 1000 / count, 3)


def percentile(latencies: list[float], share: float) -> float | None:
    """The latency in microseconds that `share` of the sorted list stays below."""
    if not latencies:
        return None
    index = min(int(share * len(latencies)), len(latencies) - 1)
    return round(latencies[index] * 1e6, 1)


# ---- the load -------------------------------------------------------------


@dataclass(eq=False)
class Connection:
    """One connection; `sent`, `received` and `limit` are positions in its stream of bytes."""

    sock: socket.socket
    index: int
    idle: bool
    state: str = "connecting"  # then probing, open, closed
    wants: int = 0
    sent: int = 0
    received: int = 0
    limit: int = 0
    started: deque[float] = field(default_factory=deque)  # of each request in flight


class Load:
    """All connections of one measurement."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.selector = selectors.DefaultSelector()
        self.connections: list[Connection] = []
        self.opening = self.errors = self.waiting = self.issued = self.progress = 0
        self.quota: float = float("inf")
        self.latencies: list[float] = []
        pattern = random.Random(1).randbytes(PERIOD)
        flight = options.size * options.in_flight
        self.text = memoryview(pattern * (flight // PERIOD + 2))

    def close(self) -> None:
        """Close everything; the sockets are set to reset, see `begin_connect`."""
        for connection in self.connections:
            connection.sock.close()
        self.selector.close()

    # one connection

    def watch(self, connection: Connection, wants: int) -> None:
        """Tell the selector what to report, where that changed."""
        if wants == connection.wants:
            return
        if not wants:
            self.selector.unregister(connection.sock)
        elif connection.wants:
            self.selector.modify(connection.sock, wants, connection)
        else:
            self.selector.register(connection.sock, wants, connection)
        connection.wants = wants

    def drop(self, connection: Connection, why: object) -> None:
        """Count an error and give the connection up."""
        self.errors += 1
        if str(self.errors).strip("0") == "1":  # the 1st, 10th, 100th: enough to see why
            print(f"load: error {self.errors}: {why}", file=sys.stderr)
        self.opening -= connection.state in ("connecting", "probing")
        self.waiting -= len(connection.started)
        connection.started.clear()
        self.watch(connection, 0)
        connection.sock.close()
        connection.state = "closed"

    def piece(self, connection: Connection, begin: int, end: int) -> memoryview:
        """What the connection sends, and so must receive, from one position to another."""
        offset = (connection.index * 101 + begin) % PERIOD
        return self.text[offset : offset + end - begin]

    def send_more(self, connection: Connection) -> None:
        """Send what is left of the requests that have begun."""
        while connection.sent < connection.limit:
            data = self.piece(connection, connection.sent, connection.limit)
            try:
                sent = connection.sock.send(data)
            except BlockingIOError:
                break
            except OSError as error:
                self.drop(connection, error)
                return
            connection.sent += sent
            self.progress += sent
        complete = connection.sent == connection.limit
        self.watch(connection, READ if complete else READ | WRITE)

    def issue(self, connection: Connection, count: int) -> None:
        """Begin so many requests, where so many may begin."""
        for _ in range(count):
            if self.issued >= self.quota:
                break
            self.issued += 1
            self.waiting += 1
            connection.started.append(time.perf_counter())
            connection.limit += self.options.size
        self.send_more(connection)

    def receive(self, connection: Connection) -> bytes:
        """Take what is there, with an end or an error counted."""
        flight = self.options.size * self.options.in_flight
        try:
            data = connection.sock.recv(max(65536, flight + 1))
        except BlockingIOError:
            return b""
        except OSError as error:
            self.drop(connection, error)
            return b""
        if not data:
            self.drop(connection, "the server closed a connection")
        self.progress += len(data)
        return data

    def receive_welcome(self, connection: Connection) -> None:
        """The answer to the probe: the server has really accepted this one."""
        data = self.receive(connection)
        if data == PROBE:
            self.opening -= 1
            connection.state = "open"
            self.watch(connection, 0)
        elif data:
            self.drop(connection, "the first answer differs from what was expected")

    def receive_answers(self, connection: Connection) -> None:
        """Compare what is there with what was sent; begin as many requests as were answered."""
        data = self.receive(connection)
        begin, end = connection.received, connection.received + len(data)
        if end > connection.sent:
            self.drop(connection, "the server sent more than it was sent")
            return
        if self.piece(connection, begin, end) != data:
            self.drop(connection, "the echo differs from what was sent")
            return
        connection.received = end
        complete = 0
        first = connection.limit - len(connection.started) * self.options.size
        while connection.started and end - first >= self.options.size:
            self.latencies.append(time.perf_counter() - connection.started.popleft())
            first += self.options.size
            complete += 1
        self.waiting -= complete
        if complete:
            self.issue(connection, complete)

    def connected(self, connection: Connection) -> None:
        """Ask for an echo of one byte."""
        error = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self.drop(connection, os.strerror(error))
            return
        connection.state = "probing"
        self.watch(connection, READ)
        try:
            connection.sock.send(PROBE)
        except OSError as problem:
            self.drop(connection, problem)

    def serve(self, connection: Connection, ready: int) -> None:
        """Handle what the selector reported for one connection."""
        if connection.state == "connecting":
            self.connected(connection)
        elif connection.state == "probing":
            self.receive_welcome(connection)
        else:
            if ready & READ and connection.state == "open":
                self.receive_answers(connection)
            if ready & WRITE and connection.state == "open" and connection.wants & WRITE:
                self.send_more(connection)

    def run_until(self, deadline: float) -> bool:
        """One wait and what it brought; False when the time is over."""
        left = deadline - time.perf_counter()
        if left <= 0:
            return False
        if not self.selector.get_map():  # select() on Windows refuses an empty set
            time.sleep(min(left, 0.02))
            return True
        for key, ready in self.selector.select(left):
            self.serve(key.data, ready)
        return True

    # the phases

    def begin_connect(self) -> bool:
        """Begin one connect; False when the kernel wants us to wait."""
        index = len(self.connections)
        family = socket.AF_INET6 if ":" in self.options.host else socket.AF_INET
        total = self.options.idle + self.options.busy
        try:
            sock = socket.socket(family)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise Failure(f"too few descriptors for {total} connections") from error
            raise
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Closing resets the connection: no TIME_WAIT, so that runs that follow
        # one another never use up the local ports.
        linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        result = sock.connect_ex((self.options.host, self.options.port))
        if result not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR):
            sock.close()
            if result in (errno.EAGAIN, errno.EADDRNOTAVAIL):
                return False
            raise Failure(f"connect: {os.strerror(result)}")
        connection = Connection(sock, index, idle=index < self.options.idle)
        self.connections.append(connection)
        self.opening += 1
        self.watch(connection, WRITE)
        return True

    def open_connections(self) -> None:
        """Open all, at most `window` unanswered at a time: backlogs are short."""
        timeout, window = self.options.connect_timeout, self.options.window
        total = self.options.idle + self.options.busy
        deadline = time.perf_counter() + timeout
        while len(self.connections) < total or self.opening:
            while len(self.connections) < total and self.opening < window:
                if not self.begin_connect():
                    break
            if time.perf_counter() >= deadline:
                done = len(self.connections) - self.opening
                raise Failure(
                    f"no answer: {done} of {total} connections were answered within {timeout:g} s"
                )
            self.run_until(min(time.perf_counter() + 0.02, deadline))

    def run_for(self, seconds: float, patience: float) -> None:
        """Serve for so long, or until all is answered; give up where nothing moves any more."""
        deadline, seen = time.perf_counter() + seconds, -1
        while self.waiting:
            if self.progress != seen:
                seen, bored = self.progress, time.perf_counter() + patience
            if not self.run_until(min(deadline, bored)):
                return

    def begin(self) -> None:
        """Let every busy connection send its first requests."""
        for connection in self.connections:
            if connection.state == "open" and not connection.idle:
                self.issue(connection, self.options.in_flight)

    def finish(self) -> None:
        """Let what was begun end, so that every request is answered or an error."""
        self.quota = self.issued
        self.run_for(self.options.timeout, self.options.patience)
        for connection in self.connections:
            if connection.started:
                self.drop(connection, "a busy connection got no answer")
            elif connection.state == "open":
                try:
                    connection.sock.recv(1, socket.MSG_PEEK)
                except BlockingIOError:
                    continue
                except OSError:
                    pass
                kind = "an idle" if connection.idle else "a busy"
                self.drop(connection, f"the server closed or wrote to {kind} connection")

    def measure(self) -> dict[str, object]:
        """Open, warm up, measure, and return the figures."""
        options, pid = self.options, self.options.pid
        rss_before = memory_of(pid)
        self.open_connections()
        rss_after = memory_of(pid)
        wanted = options.requests or float("inf")
        if options.warmup:
            self.begin()
            self.run_for(options.warmup, options.warmup)
            self.latencies.clear()
        self.quota = self.issued + wanted  # those in flight count as well
        cpu, process_cpu = cpu_of_thread(pid), cpu_of_process(pid)
        begin = time.perf_counter()
        if not options.warmup:
            self.begin()
        if options.requests:
            self.run_for(options.timeout, options.patience)
        else:
            self.run_for(options.seconds, options.seconds)
        seconds, count = time.perf_counter() - begin, len(self.latencies)
        used, process_used = cpu_of_thread(pid), cpu_of_process(pid)
        latencies = sorted(self.latencies)
        self.finish()
        return {
            "requests": count,
            "seconds": round(seconds, 3),
            "requests_per_second": round(count / seconds, 1) if seconds else 0.0,
            "cpu_us_per_request": per_request(cpu, used, count),
            "process_cpu_us_per_request": per_request(process_cpu, process_used, count),
            "p50_us": percentile(latencies, 0.50),
            "p99_us": percentile(latencies, 0.99),
            "p999_us": percentile(latencies, 0.999),
            "errors": self.errors,
            "busy": options.busy,
            "idle": options.idle,
            "rss_before": rss_before,
            "rss_after": rss_after,
        }


def read_arguments() -> argparse.Namespace:
    """The arguments of load.c, as far as they make sense for echo."""
    parser = argparse.ArgumentParser(prog="load.py", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("host", help="numeric address or localhost")
    add("port", type=int)
    add("--protocol", default="echo", help="echo; the others need load.c")
    add("--busy", type=int, default=1, help="connections that send and wait")
    add("--idle", type=int, default=0, help="connections that stay silent")
    add("--size", type=int, default=1024, help="bytes of one request")
    add("--in-flight", type=int, default=1, help="requests of a connection sent at a time")
    add("--seconds", type=float, default=2.0, help="time to measure")
    add("--warmup", type=float, default=0.5, help="time before measuring")
    add("--requests", type=int, default=0, help="measure so many requests, not a time")
    add("--pid", type=int, help="the server's process, for its CPU time and memory")
    add("--connect-timeout", type=float, default=20.0)
    add("--window", type=int, default=64, help="unanswered connects at a time")
    add("--patience", type=float, default=5.0, help="give up where nothing moves for so long")
    add("--timeout", type=float, default=120.0, help="give up a number of requests")
    options = parser.parse_args()
    counts = (options.busy, options.size, options.in_flight, options.window)
    if min(counts) < 1 or min(options.idle, options.requests) < 0:
        parser.error("counts must be positive")
    return options


def main() -> int:
    """Run one measurement; the exit status is 1 where it was not possible."""
    options = read_arguments()
    if options.protocol != "echo":
        print(f"load: {options.protocol} needs load.c, and so a C compiler", file=sys.stderr)
        return 1
    load = Load(options)
    try:
        result = load.measure()
    except Failure as failure:
        print(f"load: {failure}", file=sys.stderr)
        return 1
    finally:
        load.close()
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
