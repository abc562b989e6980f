"""A load generator in Python: stands in for load.c where there is no compiler.

Takes the same arguments and prints the same line of JSON.  Being Python it is
itself slower than a fast server, so that requests per second and latencies
measure the generator too; CPU time per request stays meaningful.  Like load.c
it must not know which server it drives, and ends whatever that server does.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import selectors
import socket
import struct
import sys
import time
from dataclasses import dataclass, field

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
PATTERN_SLACK = 4096


class Failure(Exception):
    """The measurement is not possible; the text says why."""


def percentile(latencies: list[float], share: float) -> float | None:
    """The latency in microseconds that `share` of the sorted list stays below."""
    if not latencies:
        return None
    index = min(int(share * len(latencies)), len(latencies) - 1)
    return round(latencies[index] * 1e6, 1)


def server_cpu(pid: int | None) -> int | None:
    """CPU time in ns of the process's main thread, where the kernel tells it."""
    try:
        with open(f"/proc/{pid}/schedstat") as file:
            return int(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return None


@dataclass(eq=False)
class Connection:
    """One connection and the request it is waiting for."""

    sock: socket.socket
    index: int
    idle: bool
    state: str = "connecting"  # then probing, idle or busy, closed
    wants: int = 0
    sequence: int = 0
    text: memoryview = field(default_factory=lambda: memoryview(b""))
    sent: int = 0
    received: int = 0
    started: float = 0.0
    answered: bool = False


class Load:
    """All connections of one measurement."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.selector = selectors.DefaultSelector()
        self.connections: list[Connection] = []
        self.opening = self.open_busy = self.errors = 0
        self.latencies: list[float] = []
        self.pattern = memoryview(random.Random(1).randbytes(options.size + PATTERN_SLACK))

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
        self.open_busy -= connection.state == "busy"
        self.watch(connection, 0)
        connection.sock.close()
        connection.state = "closed"

    def send_more(self, connection: Connection) -> None:
        """Send what is left of the request."""
        while connection.sent < len(connection.text):
            try:
                connection.sent += connection.sock.send(connection.text[connection.sent :])
            except BlockingIOError:
                break
            except OSError as error:
                self.drop(connection, error)
                return
        complete = connection.sent == len(connection.text)
        self.watch(connection, READ if complete else READ | WRITE)

    def start_request(self, connection: Connection) -> None:
        """Send a text that differs from the last one, so that a stale echo is noticed."""
        offset = (connection.sequence * 37 + connection.index * 101) % PATTERN_SLACK
        size = 1 if connection.state == "probing" else self.options.size
        connection.sequence += 1
        connection.text = self.pattern[offset : offset + size]
        connection.sent = connection.received = 0
        connection.started = time.perf_counter()
        self.send_more(connection)

    def finish_request(self, connection: Connection) -> None:
        """The whole echo is here."""
        if connection.state == "probing":  # the server has really accepted this one
            self.opening -= 1
            connection.state = "idle" if connection.idle else "busy"
            self.open_busy += not connection.idle
            self.watch(connection, 0)
            return
        self.latencies.append(time.perf_counter() - connection.started)
        connection.answered = True
        self.start_request(connection)

    def receive(self, connection: Connection) -> None:
        """Take what is there and compare it with what was sent."""
        try:
            data = connection.sock.recv(max(65536, self.options.size + 1))
        except BlockingIOError:
            return
        except OSError as error:
            self.drop(connection, error)
            return
        begin, end = connection.received, connection.received + len(data)
        if not data:
            self.drop(connection, "the server closed a connection")
        elif end > connection.sent:
            self.drop(connection, "the server sent more than it was sent")
        elif connection.text[begin:end] != data:
            self.drop(connection, "the echo differs from what was sent")
        else:
            connection.received = end
            if end == len(connection.text):
                self.finish_request(connection)

    def serve(self, connection: Connection, ready: int) -> None:
        """Handle what the selector reported for one connection."""
        if connection.state == "connecting":
            error = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                self.drop(connection, os.strerror(error))
            else:
                connection.state = "probing"
                self.start_request(connection)
            return
        if ready & READ and connection.state != "closed":
            self.receive(connection)
        if ready & WRITE and connection.state != "closed" and connection.wants & WRITE:
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

    def run_for(self, seconds: float) -> None:
        """Serve busy connections, while there are any."""
        deadline = time.perf_counter() + seconds
        while self.open_busy and self.run_until(deadline):
            pass

    def count_silent(self) -> None:
        """Count what went unanswered and what should have stayed open and quiet."""
        for connection in self.connections:
            if connection.state == "busy" and not connection.answered:
                self.drop(connection, "a busy connection got no answer")
            elif connection.state == "idle":
                try:
                    connection.sock.recv(1, socket.MSG_PEEK)
                except BlockingIOError:
                    continue
                except OSError:
                    pass
                self.drop(connection, "the server closed or wrote to an idle connection")

    def measure(self) -> dict[str, object]:
        """Warm up, measure, and return the figures."""
        for connection in self.connections:
            if connection.state == "busy":
                self.start_request(connection)
        self.run_for(self.options.warmup)
        self.latencies.clear()
        cpu = server_cpu(self.options.pid)
        begin = time.perf_counter()
        self.run_for(self.options.seconds)
        seconds = time.perf_counter() - begin
        cpu_after = server_cpu(self.options.pid)
        self.count_silent()
        count = len(self.latencies)
        latencies = sorted(self.latencies)
        per_request = None
        if cpu is not None and cpu_after is not None and count:
            per_request = round((cpu_after - cpu) / 1000 / count, 3)
        return {
            "requests": count,
            "seconds": round(seconds, 3),
            "requests_per_second": round(count / seconds, 1) if seconds else 0.0,
            "cpu_us_per_request": per_request,
            "p50_us": percentile(latencies, 0.50),
            "p99_us": percentile(latencies, 0.99),
            "p999_us": percentile(latencies, 0.999),
            "errors": self.errors,
            "busy": self.options.busy,
            "idle": self.options.idle,
        }


def main() -> int:
    """Run one measurement; the exit status is 1 where it was not possible."""
    parser = argparse.ArgumentParser(prog="load.py", description=__doc__.splitlines()[0])
    parser.add_argument("host", help="numeric address or localhost")
    parser.add_argument("port", type=int)
    parser.add_argument("--busy", type=int, default=1, help="connections that send and wait")
    parser.add_argument("--idle", type=int, default=0, help="connections that stay silent")
    parser.add_argument("--size", type=int, default=1024, help="bytes of one request")
    parser.add_argument("--seconds", type=float, default=2.0, help="time to measure")
    parser.add_argument("--warmup", type=float, default=0.5, help="time before measuring")
    parser.add_argument("--pid", type=int, help="the server's process, for its CPU time")
    parser.add_argument("--connect-timeout", type=float, default=20.0)
    parser.add_argument("--window", type=int, default=64, help="unanswered connects at a time")
    options = parser.parse_args()
    if options.busy < 1 or options.idle < 0 or options.size < 1 or options.window < 1:
        parser.error("counts must be positive")
    load = Load(options)
    try:
        load.open_connections()
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
