"""The drop-in for the standard library's asynchat, as it stood in Python 3.11.

Every name of that module is here, with its signature and its behaviour, except for what
docs/compatibility.md lists as mended.  Knows terminators and producers; must not know the loop.
"""

from __future__ import annotations

import socket
from collections import deque
from typing import Any

from . import asyncore


class async_chat(asyncore.dispatcher):
    """A channel of commands and answers, told apart by terminators.

    Derive from it, call set_terminator() and define collect_incoming_data() and
    found_terminator().
    """

    ac_in_buffer_size = 65536  # bytes read at once, at most
    ac_out_buffer_size = 65536  # bytes sent at once, at most

    # More bytes than this without the terminator: handle_line_too_long().  None: no limit.
    ac_max_line_size: int | None = None

    # str is sent and matched as bytes of `encoding`; off, because it hides mistakes.
    use_encoding: Any = 0
    encoding = "latin-1"

    terminator: Any

    # What was received and not yet passed on is _fastcore_in from _fastcore_at: lines are taken
    # off by moving the offset, or a burst of lines would be copied once for each of them.
    _fastcore_in: bytes = b""
    _fastcore_at = 0
    _fastcore_line = 0  # bytes passed on since the last terminator
    _fastcore_holds = False  # pushes wait: there is another line to handle first

    def __init__(self, sock: Any = None, map: Any = None) -> None:
        self.ac_in_buffer = b""
        self.incoming: list[Any] = []
        self.producer_fifo: deque[Any] = deque()
        asyncore.dispatcher.__init__(self, sock, map)

    @property
    def ac_in_buffer(self) -> bytes:
        """What was received and is not yet passed on; may be assigned."""
        if self._fastcore_at:
            self._fastcore_in = self._fastcore_in[self._fastcore_at :]
            self._fastcore_at = 0
        return self._fastcore_in

    @ac_in_buffer.setter
    def ac_in_buffer(self, data: Any) -> None:
        self._fastcore_in, self._fastcore_at = data, 0

    def collect_incoming_data(self, data: bytes) -> None:
        """Take a piece of what was received; to be defined."""
        raise NotImplementedError("collect_incoming_data() must be defined by the subclass")

    def _collect_incoming_data(self, data: bytes) -> None:
        self.incoming.append(data)

    def _get_data(self) -> bytes:
        data = b"".join(self.incoming)
        self.incoming.clear()
        return data

    def found_terminator(self) -> None:
        """The terminator was met; to be defined."""
        raise NotImplementedError("found_terminator() must be defined by the subclass")

    def set_terminator(self, term: Any) -> None:
        """Set what ends the input: bytes, a number of bytes, or None for no end at all.

        Raises ValueError for a negative number.
        """
        if isinstance(term, str) and self.use_encoding:
            term = bytes(term, self.encoding)
        elif isinstance(term, int) and term < 0:
            raise ValueError("the number of received bytes must be positive")
        self.terminator = term

    def get_terminator(self) -> Any:
        """Return the terminator."""
        return self.terminator

    # -- input -----------------------------------------------------------------------------

    def handle_read(self) -> None:
        """Read, and pass on what came: pieces to collect_incoming_data(), ends to
        found_terminator()."""
        try:
            data: Any = self.recv(self.ac_in_buffer_size)
        except BlockingIOError:
            return
        except OSError:
            self.handle_error()
            return
        if isinstance(data, str) and self.use_encoding:
            data = bytes(data, self.encoding)
        waiting = self.ac_in_buffer
        self.ac_in_buffer = waiting + data if waiting else data
        try:
            while self._fastcore_at < len(self._fastcore_in) and self._fastcore_pass_on():
                pass
        finally:
            self._fastcore_send_held()

    def _fastcore_pass_on(self) -> bool:
        """Pass on one piece of the input; return whether there may be another."""
        terminator = self.get_terminator()
        if not terminator:
            self.collect_incoming_data(self.ac_in_buffer)
            self.ac_in_buffer = b""
            return True
        if isinstance(terminator, int):
            waiting = len(self._fastcore_in) - self._fastcore_at
            if waiting < terminator:
                self.collect_incoming_data(self.ac_in_buffer)
                self.ac_in_buffer = b""
                self.terminator = self.terminator - waiting
            else:
                start = self._fastcore_at
                self.collect_incoming_data(self._fastcore_in[start : start + terminator])
                self._fastcore_advance(terminator)
                self.terminator = 0
                self._fastcore_line = 0
                if self._fastcore_at >= len(self._fastcore_in):
                    self._fastcore_send_held()
                self.found_terminator()
            return True
        return self._fastcore_pass_on_line(terminator)

    def _fastcore_pass_on_line(self, terminator: Any) -> bool:
        buffer, start = self._fastcore_in, self._fastcore_at
        index = buffer.find(terminator, start)
        if index < 0:
            # The end of the buffer may be the beginning of a terminator: that part stays.
            tail = buffer[max(start, len(buffer) - len(terminator) + 1) :]
            kept = find_prefix_at_end(tail, terminator) if tail else 0
            if kept < len(buffer) - start:
                self._fastcore_collect(start, len(buffer) - kept)
            return kept == 0
        if index > start and not self._fastcore_collect(start, index):
            return False
        self._fastcore_advance(len(terminator))
        self._fastcore_line = 0
        # Where another whole line waits, its answer can leave with this one's.  With nothing more
        # to handle, a push is sent at once: a program may replace the socket right after it.
        self._fastcore_holds = (
            self._fastcore_in.find(terminator, self._fastcore_at) >= 0 and self._fastcore_joins()
        )
        self.found_terminator()
        return True

    def _fastcore_collect(self, start: int, end: int) -> bool:
        """Pass on a part of the buffer, within the limit of a line; False if that closed."""
        self._fastcore_line += end - start
        if self.ac_max_line_size is not None and self._fastcore_line > self.ac_max_line_size:
            self._fastcore_line = 0
            self.handle_line_too_long()
            if self._fileno is None:
                self.discard_buffers()
                return False
        self.collect_incoming_data(self._fastcore_in[start:end])
        self._fastcore_advance(end - start)
        return True

    def _fastcore_advance(self, size: int) -> None:
        # The handler may have assigned the buffer: what it left is what is advanced in.
        self._fastcore_at = min(self._fastcore_at + size, len(self._fastcore_in))

    def handle_line_too_long(self) -> None:
        """More than `ac_max_line_size` bytes came without the terminator: close.

        Override it to do something else; if the channel is still open afterwards, the input
        is passed on and counting starts anew.
        """
        self.log_info(f"line longer than {self.ac_max_line_size} bytes, closing", "error")
        self.handle_close()

    # -- output ----------------------------------------------------------------------------

    def handle_write(self) -> None:
        """Send more of what waits."""
        self.initiate_send()

    def handle_close(self) -> None:
        """The connection is gone: close."""
        self.close()

    def close(self) -> None:
        """Send what pushes of this handler hold back, leave the map and close the socket."""
        self._fastcore_send_held()
        asyncore.dispatcher.close(self)

    def _fastcore_send_held(self) -> None:
        """Send what pushes of this handler hold back, as far as the kernel takes it."""
        if not self._fastcore_holds:
            return
        self._fastcore_holds = False
        before = -1
        while self.producer_fifo and self.connected and len(self.producer_fifo) != before:
            before = len(self.producer_fifo)
            self.initiate_send()

    def send(self, data: Any) -> int:
        """Send what the kernel takes of `data`, after what pushes of this handler hold back."""
        if self._fastcore_holds:
            self._fastcore_send_held()
        return super().send(data)

    def push(self, data: Any) -> None:
        """Send `data` (bytes, bytearray or memoryview), after what already waits.

        Raises TypeError for anything else.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data argument must be byte-ish ({type(data)!r})")
        data = asyncore._as_bytes(data)
        size = self.ac_out_buffer_size
        if len(data) > size:
            for start in range(0, len(data), size):
                self.producer_fifo.append(data[start : start + size])
        else:
            self.producer_fifo.append(data)
        self._fastcore_send_soon()

    def push_with_producer(self, producer: Any) -> None:
        """Send what `producer.more()` returns until that is empty; bytes will do as well."""
        self.producer_fifo.append(producer)
        self._fastcore_send_soon()

    def close_when_done(self) -> None:
        """Close as soon as everything pushed so far is sent."""
        self.producer_fifo.append(None)
        self._fastcore_touch()

    def _fastcore_send_soon(self) -> None:
        if self._fastcore_holds:
            return
        self.initiate_send()
        if self.producer_fifo:
            self._fastcore_touch()

    def readable(self) -> Any:
        """Always want to read."""
        return 1

    def writable(self) -> Any:
        """Want to write while connecting, and while something waits."""
        return self.producer_fifo or (not self.connected)

    def initiate_send(self) -> None:
        """Send what waits, at most `ac_out_buffer_size` bytes."""
        self._fastcore_holds = False
        fifo = self.producer_fifo
        while fifo and self.connected:
            first = fifo[0]
            if not first:
                del fifo[0]
                if first is None:
                    self.handle_close()
                    return
                continue
            size = self.ac_out_buffer_size
            try:
                data = first[:size]
            except TypeError:
                data = first.more()
                if data:
                    fifo.appendleft(data)
                else:
                    del fifo[0]
                continue
            if isinstance(data, str) and self.use_encoding:
                data = bytes(data, self.encoding)
            count = 1
            if len(fifo) > 1 and type(data) is bytes and len(data) < size:
                data, count = self._fastcore_join(data, size)
            try:
                sent = self.send(data)
            except OSError:
                self.handle_error()
                return
            if sent and fifo and fifo[0] is first:
                self._fastcore_sent_of(count, sent, len(data))
            return

    def _fastcore_join(self, data: bytes, size: int) -> tuple[bytes, int]:
        """Add what waits behind `data`, as far as it is bytes and `size` allows."""
        parts, total = [data], len(data)
        if self._fastcore_joins():
            fifo = self.producer_fifo
            for position in range(1, len(fifo)):
                part = fifo[position]
                if type(part) is not bytes or not part or total + len(part) > size:
                    break
                parts.append(part)
                total += len(part)
        return (b"".join(parts), len(parts)) if len(parts) > 1 else (data, 1)

    def _fastcore_joins(self) -> bool:
        """Whether pieces may be joined: in a stream, and where nobody sees the pieces."""
        kind = type(self)
        return (
            kind.send is async_chat.send
            and super(async_chat, kind).send is asyncore.dispatcher.send
            and kind.initiate_send is async_chat.initiate_send
            and self.__dict__.keys().isdisjoint(("send", "initiate_send"))
            and type(self.socket) is socket.socket
            and self.socket.type == socket.SOCK_STREAM
        )

    def _fastcore_sent_of(self, count: int, sent: int, size: int) -> None:
        """Take what was sent off the queue: `sent` of `size` bytes of its first `count`."""
        fifo = self.producer_fifo
        if count == 1:
            first = fifo[0]
            if sent < size or size < len(first):
                if type(first) is bytes and len(first) > 2 * size:
                    first = memoryview(first)  # or each slice would copy all the rest
                fifo[0] = first[sent:]
            else:
                del fifo[0]
            return
        while sent:
            first = fifo[0]
            if sent < len(first):
                fifo[0] = first[sent:]
                return
            sent -= len(first)
            del fifo[0]

    def discard_buffers(self) -> None:
        """Forget what was received and what waits to be sent."""
        self.ac_in_buffer = b""
        self.incoming.clear()
        self.producer_fifo.clear()


class simple_producer:
    """Produces `data` in pieces of `buffer_size` (bytes)."""

    def __init__(self, data: Any, buffer_size: int = 512) -> None:
        self.data = data
        self.buffer_size = buffer_size

    def more(self) -> Any:
        """Return the next piece; empty after the last one."""
        piece = self.data[: self.buffer_size]
        self.data = self.data[self.buffer_size :]
        return piece


def find_prefix_at_end(haystack: Any, needle: Any) -> int:
    """Return how long a beginning of `needle` stands at the end of `haystack` (not all of it)."""
    size = len(needle) - 1
    while size and not haystack.endswith(needle[:size]):
        size -= 1
    return size
