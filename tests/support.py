"""What the behaviour tests share: a private map, sockets that get closed, loops that end.

Knows nothing of any single test.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

import pytest

# What a system may not have, for the tests that are about it.
needs_poll = pytest.mark.skipif(
    not hasattr(select, "poll"), reason="the module select has no poll() here"
)
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork() here")
needs_numbers = pytest.mark.skipif(
    os.name == "nt", reason="on Windows the system alone gives sockets their numbers"
)
needs_polled_pipes = pytest.mark.skipif(
    os.name == "nt", reason="on Windows only sockets can be waited for"
)

# Windows as wine plays it: where one of wine's own defects is in the way, and only there.
ON_WINE = os.name == "nt" and hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")

SIGNAL = getattr(signal, "SIGUSR1", None) or signal.SIGBREAK  # pytest-timeout has SIGALRM


def send_signal() -> None:
    """Let SIGNAL arrive at this process, from any thread."""
    if os.name == "nt":
        signal.raise_signal(SIGNAL)  # os.kill() would end the process
    else:
        os.kill(os.getpid(), SIGNAL)


PATIENCE = 10.0  # seconds until a test that waits for something gives up


class Site:
    """A private map on one engine and poller, and what must be closed at the end."""

    def __init__(self, fast: Any) -> None:
        self.fast = fast
        self.asyncore = fast.asyncore
        self.map: dict[int, Any] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Site:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(Exception):
            self.asyncore.close_all(self.map, ignore_all=True)
        self._stack.close()
        known = self.fast.loop._loops.get(id(self.map))
        if known is not None:
            known.close()

    @property
    def loop(self) -> Any:
        """The fastcore.Loop of the map."""
        return self.fast.loop.get_loop(self.map)

    def keep(self, thing: Any) -> Any:
        """Close `thing` at the end; return it."""
        self._stack.callback(_close, thing)
        return thing

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Two connected sockets; the second is for the test's own, blocking, use."""
        ours, peer = socket.socketpair()
        peer.settimeout(PATIENCE)
        ours.setblocking(False)
        return self.keep(ours), self.keep(peer)

    def tcp_pair(self) -> tuple[socket.socket, socket.socket]:
        """As pair(), over TCP."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            peer = socket.create_connection(server.getsockname(), PATIENCE)
            ours, _ = server.accept()
        peer.settimeout(PATIENCE)
        ours.setblocking(False)
        return self.keep(ours), self.keep(peer)

    def server(self) -> socket.socket:
        """A listening TCP socket on loopback."""
        return self.keep(socket.create_server(("127.0.0.1", 0)))

    def client(self, address: Any) -> socket.socket:
        """A TCP socket connected to `address`, for the test's own, blocking, use."""
        return self.keep(socket.create_connection(address, PATIENCE))

    def pipe(self) -> tuple[int, int]:
        """The descriptors of a pipe: read from the first, write to the second."""
        ends = os.pipe()
        for end in ends:
            self.keep(end)
        return ends

    def turn(self, count: float = 1, timeout: float | None = 0.0, **options: Any) -> None:
        """Take `count` turns of asyncore.loop()."""
        self.asyncore.loop(timeout, map=self.map, count=count, **options)

    def run_until(self, condition: Callable[[], Any], **options: Any) -> None:
        """Take turns until `condition()` is true; fail where that takes too long."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "what the test waits for did not happen"
            self.turn(timeout=0.05, **options)

    def recorder(self, kind: str = "dispatcher", **attributes: Any) -> type[Any]:
        """A dispatcher class that notes in `events` what it was told.

        It wants to read only, unless `attributes` (of the class) say otherwise.
        """
        return type("Recorder", (_Recording, getattr(self.asyncore, kind)), attributes)

    def channel(self, sock: socket.socket | None = None, **attributes: Any) -> Any:
        """An instance of recorder() in the map."""
        return self.recorder(**attributes)(sock, self.map)


class _Recording:
    """The handlers of Site.recorder()."""

    def __init__(self: Any, sock: Any = None, map: Any = None) -> None:
        self.events: list[Any] = []
        super().__init__(sock, map)

    @property
    def names(self) -> list[str]:
        return [event if isinstance(event, str) else event[0] for event in self.events]

    @property
    def received(self) -> bytes:
        return b"".join(event[1] for event in self.events if event[0] == "read")

    def writable(self) -> Any:
        return False

    def handle_read(self: Any) -> None:
        data = self.recv(65536)
        if data:
            self.events.append(("read", data))

    def handle_write(self) -> None:
        self.events.append("write")

    def handle_connect(self) -> None:
        self.events.append("connect")

    def handle_expt(self) -> None:
        self.events.append("expt")

    def handle_close(self: Any) -> None:
        self.events.append("close")
        self.close()

    def handle_error(self: Any) -> None:
        self.events.append(("error", sys.exc_info()[1]))
        self.close()


def _close(thing: Any) -> None:
    if isinstance(thing, int):
        with contextlib.suppress(OSError):
            os.close(thing)
    else:
        thing.close()


@contextlib.contextmanager
def room_for_descriptors(number: int) -> Iterator[None]:
    """Allow this process `number` descriptors at least, if the system lets it."""
    try:
        import resource
    except ImportError:  # Windows sets no such limit
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, number)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    """Read `size` bytes from a blocking socket, fewer at its end."""
    parts = []
    while size > 0:
        data = sock.recv(min(size, 1 << 16))
        if not data:
            break
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def elapsed(action: Callable[[], Any]) -> float:
    """How many seconds `action()` took."""
    start = time.monotonic()
    action()
    return time.monotonic() - start


def fill(sock: socket.socket) -> int:
    """Send to a non-blocking socket until it takes no more; return how many bytes it took."""
    total = refused = 0
    # On Windows a pair is of TCP, which makes room again when it moves on what it was given.
    while refused < (3 if os.name == "nt" else 1):
        try:
            total += sock.send(b"\0" * 65536)
            refused = 0
        except BlockingIOError:
            refused += 1
            if os.name == "nt":
                select.select([], [sock], [], 0.1)
    return total


def close_now(sock: socket.socket) -> None:
    """Close a TCP socket so that its peer gets a reset."""
    linger = struct.pack("HH" if os.name == "nt" else "ii", 1, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    sock.close()


def names_of(channels: Iterable[Any]) -> list[list[str]]:
    """What recorders were told, without the data."""
    return [channel.names for channel in channels]
