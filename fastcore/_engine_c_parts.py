"""The parts of the C engine that are Python: what calls channels, and what channels call.

In Python on purpose.  Since 3.11 the interpreter looks an attribute up, and calls a method that is
written in Python, for a third of what the same costs from C.  Knows only the names of the methods;
which channels are called, and what an exception means, is the engine's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from ._sockets_c import GONE, receive, transmit

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

READ, WRITE = 1, 4  # as in src/poller.h


class Channel:
    """What every dispatcher inherits: the part of it that must be fast."""

    socket: Any

    def recv(self, buffer_size: int) -> bytes:
        """Read at most `buffer_size` bytes; `b""` after the end, when handle_close() has run.

        Raises BlockingIOError where nothing is there, and OSError for what is not a disconnect.
        """
        data: bytes = receive(self.socket, buffer_size)
        if not data:
            self.handle_close()
            return b""
        return data

    def send(self, data: ReadableBuffer) -> int:
        """Send what the kernel takes of `data`; return how many bytes (0: none now, or closed)."""
        sent: int = transmit(self.socket, data)
        if sent is GONE:
            self.handle_close()
            return 0
        return sent

    # Defined by the dispatcher.
    handle_close: Callable[[], Any]


class Ready(Protocol):
    """The channels that are ready, each given out when it is its turn."""

    asking: bool

    def __iter__(self) -> Iterator[Any]: ...


def ask(asking: Iterator[Any], answer: list[int]) -> None:
    """Put into `answer[0]` what each channel wants, in the order of the standard loop.

    What a predicate raises is raised; the rest of `asking` can be asked by another call.
    """
    for channel in asking:
        want = READ if channel.readable() else 0
        if channel.writable() and not channel.accepting:
            want |= WRITE
        answer[0] = want


def deliver_reads(ready: Ready) -> None:
    """Tell each channel that still wants to read that it can.

    What is raised is raised, with `ready.asking` saying whether it was the question that failed.
    """
    asking = False
    try:
        for channel in ready:
            asking = True
            if channel.readable():
                asking = False
                channel.handle_read_event()
    except BaseException:
        ready.asking = asking
        raise


def deliver_writes(ready: Ready) -> None:
    """As deliver_reads(), for those that can write."""
    asking = False
    try:
        for channel in ready:
            asking = True
            if channel.writable():
                asking = False
                channel.handle_write_event()
    except BaseException:
        ready.asking = asking
        raise
