"""The drop-in for the standard library's asynchat, as it stood in Python 3.11.

Every name of that module is here, with its signature and its behaviour, except for what
docs/compatibility.md lists as mended.  Knows terminators and producers; must not know the loop.
"""

from __future__ import annotations

import _socket
import socket
from collections import deque
from itertools import islice, takewhile
from threading import get_ident
from typing import TYPE_CHECKING, Any

from . import asyncore
from ._engine import Channel, push_short

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_JOINED = 256  # pieces that are joined at a time, at most

# Chats whose output is held back, by identity: while there are more lines to handle, answers wait
# (True), and leave together with the last one or at the end (False).  Not kept on the channels: a
# program may borrow their methods for objects of its own.
_corked: dict[int, bool] = {}


# More than so many bytes of lines are a burst: what follows a line is not cut off for each of them,
# but when somebody looks at it.
_BURST = 1024
_UNSET = object()


class _Burst:
    """Lines that are passed on from one piece of data, and how far that has come."""

    __slots__ = ("at", "checker", "data")

    def __init__(self, data: Any) -> None:
        self.data = data
        self.at = 0
        self.checker = 0  # the thread in which is_set() looks

    def is_set(self, chat: Any) -> bool:
        """Whether somebody has set the chat's ac_in_buffer."""
        self.checker = get_ident()  # any other thread may look at the same moment
        found = chat.ac_in_buffer
        self.checker = 0
        return found is not _UNSET


# By the identity of their chats.
_bursts: dict[int, _Burst] = {}


class _Rest:
    """`ac_in_buffer` of a chat that has none of its own, because a burst is passed on."""

    def __get__(self, chat: Any, owner: Any) -> Any:
        burst = _bursts.get(id(chat))
        if burst is None:
            return self if chat is None else b""
        if burst.checker and burst.checker == get_ident():
            return _UNSET
        return burst.data[burst.at :]


_REST: Any = _Rest()


def _is_bytes(piece: Any) -> bool:
    return type(piece) is bytes


class async_chat(asyncore.dispatcher):
    """A channel of commands and answers, told apart by terminators.

    Derive from it, call set_terminator() and define collect_incoming_data() and
    found_terminator().
    """

    ac_in_buffer_size: int = 65536  # bytes read at once, at most
    ac_out_buffer_size: int = 65536  # bytes sent at once, at most

    # An attribute of each instance; this one stands behind it.
    ac_in_buffer: bytes = _REST

    # More bytes than this without the terminator: handle_line_too_long().  None: no limit.
    ac_max_line_size: int | None = None

    # str is sent and matched as bytes of `encoding`; off, because it hides mistakes.
    use_encoding: Any = 0
    encoding: str = "latin-1"

    terminator: Any

    _fastcore_line = 0  # bytes passed on since the last terminator, where lines have a limit

    def __init__(self, sock: Any = None, map: Any = None) -> None:
        self.ac_in_buffer = b""
        self.incoming: list[Any] = []
        self.producer_fifo: deque[Any] = deque()
        asyncore.dispatcher.__init__(self, sock, map)

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

    def set_terminator(self, term: bytes | int | None) -> None:
        """Set what ends the input: bytes, a number of bytes, or None for no end at all.

        Raises ValueError for a negative number.
        """
        end: Any = term  # a str too, which use_encoding allows
        if isinstance(end, str) and self.use_encoding:
            end = bytes(end, self.encoding)
        elif isinstance(end, int) and end < 0:
            raise ValueError("the number of received bytes must be positive")
        self.terminator = end

    def get_terminator(self) -> bytes | int | None:
        """Return the terminator."""
        return self.terminator  # type: ignore[no-any-return]

    # -- input -----------------------------------------------------------------------------

    def handle_read(self) -> None:
        """Read, and pass on what came: pieces to collect_incoming_data(), ends to
        found_terminator()."""
        try:
            received: Any = self.recv(self.ac_in_buffer_size)
        except BlockingIOError:
            return
        except OSError:
            self.handle_error()
            return
        data: Any = received if type(received) is bytes else self._fastcore_as_bytes(received)
        if self.ac_in_buffer:
            data = self.ac_in_buffer + data
        self.ac_in_buffer = data
        try:
            while data:
                terminator = self.get_terminator()
                if not terminator or isinstance(terminator, int):
                    self._fastcore_pass_on_count(data, terminator)
                elif (end := data.find(terminator)) < 0:
                    if not self._fastcore_pass_on_part(data, terminator):
                        return
                elif len(data) - end > _BURST and type(self).ac_in_buffer is _REST:
                    self._fastcore_pass_on_burst(data, terminator)
                else:
                    if self.ac_max_line_size is not None:
                        if not self._fastcore_collect(data[:end], True):
                            return
                    elif end:
                        self.collect_incoming_data(data[:end])
                    self.ac_in_buffer = left = self.ac_in_buffer[end + len(terminator) :]
                    if left or _corked:
                        self._fastcore_cork(bool(left))
                    self.found_terminator()
                data = self.ac_in_buffer
        finally:
            if _corked and id(self) in _corked:
                self._fastcore_uncork()

    def _fastcore_as_bytes(self, received: Any) -> Any:
        """Return what a program's own recv() returned: text in its encoding."""
        if isinstance(received, str) and self.use_encoding:
            return bytes(received, self.encoding)
        return received

    def _fastcore_pass_on_count(self, data: Any, size: Any) -> None:
        """Pass on a piece of that many bytes, or what there is of it; all, if there is no end."""
        if not size or len(data) < size:
            self.collect_incoming_data(data)
            self.ac_in_buffer = b""
            if size:
                self.terminator = self.terminator - len(data)
            return
        self.collect_incoming_data(data[:size])
        self.ac_in_buffer = left = self.ac_in_buffer[size:]
        if left or _corked:
            self._fastcore_cork(bool(left))
        self.terminator = 0
        self.found_terminator()

    def _fastcore_pass_on_part(self, data: Any, terminator: Any) -> bool:
        """Pass on a piece of a line; return whether there may be more to do."""
        # The end of the buffer may be the beginning of a terminator: that part stays.
        tail = data[max(0, len(data) - len(terminator) + 1) :]
        kept = find_prefix_at_end(tail, terminator) if tail else 0
        if kept < len(data):
            if not self._fastcore_collect(data[: len(data) - kept], False):
                return False
            self.ac_in_buffer = self.ac_in_buffer[len(data) - kept :]
        return kept == 0

    def _fastcore_pass_on_burst(self, data: Any, terminator: Any) -> None:
        """Pass on lines, as long as much follows them, and until somebody sets that."""
        size = len(terminator)
        burst = _bursts[id(self)] = _Burst(data)
        del self.ac_in_buffer
        try:
            while (end := data.find(terminator, burst.at)) >= 0 and len(data) - end > _BURST:
                if not self._fastcore_collect(data[burst.at : end], True):
                    return
                is_set = burst.is_set(self)
                if is_set:
                    self.ac_in_buffer = self.ac_in_buffer[end + size - burst.at :]
                burst.at = end + size
                self._fastcore_cork(True)
                self.found_terminator()
                if is_set or burst.is_set(self) or self.get_terminator() is not terminator:
                    return
        finally:
            if not burst.is_set(self):
                self.ac_in_buffer = data[burst.at :]
            del _bursts[id(self)]

    def _fastcore_collect(self, data: Any, whole: bool) -> bool:
        """Pass on a line, or a part of one, within the limit; False if that closed the channel."""
        if self.ac_max_line_size is not None:
            size = self._fastcore_line + len(data)
            if size > self.ac_max_line_size:
                size = len(data)
                self._fastcore_line = 0
                self.handle_line_too_long()
                if self._fileno is None:
                    self.discard_buffers()
                    return False
            self._fastcore_line = 0 if whole else size
        if data:
            self.collect_incoming_data(data)
        return True

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
        """Send what is held back, leave the map and close the socket."""
        if _corked and id(self) in _corked:
            self._fastcore_uncork()
        asyncore.dispatcher.close(self)

    def _fastcore_cork(self, more: bool) -> None:
        """Hold answers back while there is `more` to handle, if pieces may be joined."""
        ours = id(self)
        if more:
            if ours in _corked or self._fastcore_joins():
                _corked[ours] = True
        elif ours in _corked:
            _corked[ours] = False

    def _fastcore_uncork(self) -> None:
        """Send what is held back, as far as the kernel takes it."""
        del _corked[id(self)]
        fifo = self.producer_fifo
        before: Any = self
        while fifo and self.connected and fifo[0] is not before:
            before = fifo[0]
            self.initiate_send()

    def send(self, data: ReadableBuffer) -> int:
        """Send what the kernel takes of `data`, after what is held back."""
        if _corked and id(self) in _corked:
            self._fastcore_uncork()
        return super().send(data)

    def push(self, data: bytes) -> None:
        """Send `data` (bytes, bytearray or memoryview), after what already waits.

        Raises TypeError for anything else.
        """
        # Typed as bytes alone, as typeshed had it: so are the overrides in programs.
        if _corked and _corked.get(id(self)):
            if type(data) is bytes and 0 < len(data) <= self.ac_out_buffer_size:
                self.producer_fifo.append(data)
                return
        elif push_short is not None and push_short(self, data):
            return
        if type(data) is not bytes:
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
        if _corked and _corked.get(id(self)):
            return
        self.initiate_send()
        if self.producer_fifo:
            self._fastcore_touch()

    def readable(self) -> bool:
        """Always want to read."""
        return 1  # type: ignore[return-value]

    def writable(self) -> bool:
        """Want to write while connecting, and while something waits."""
        return self.producer_fifo or (not self.connected)  # type: ignore[return-value]

    def initiate_send(self) -> None:
        """Send what waits, at most `ac_out_buffer_size` bytes."""
        if _corked:
            _corked.pop(id(self), None)
        fifo = self.producer_fifo
        size = self.ac_out_buffer_size
        while fifo and self.connected:
            first = fifo[0]
            data = first
            if type(first) is not bytes or len(first) > size or len(fifo) > 1 or not first:
                first, data = self._fastcore_next_piece(size)
                if first is None:
                    return
                if not data:
                    continue
            try:
                sent = self.send(data)
            except OSError:
                self.handle_error()
                return
            if sent and fifo and fifo[0] is first:
                if sent == len(data) and data is first:
                    fifo.popleft()
                else:
                    self._fastcore_sent_of(first, sent)
            return

    def _fastcore_next_piece(self, size: int) -> tuple[Any, Any]:
        """Return the first that waits, and what of it is to be sent now.

        Nothing of it: it was an empty one, or a producer whose next piece is first now.  Both are
        None where the end of the output was reached.
        """
        fifo = self.producer_fifo
        first = fifo[0]
        if not first:
            del fifo[0]
            if first is None:
                self.handle_close()
                return None, None
            return first, b""
        if type(first) is bytes and len(first) < size and len(fifo) > 1 and self._fastcore_joins():
            first = self._fastcore_join()
        try:
            data = first[:size]
        except TypeError:
            data = first.more()  # pyright: ignore
            if data:
                fifo.appendleft(data)
            else:
                del fifo[0]
            return first, b""
        if isinstance(data, str) and self.use_encoding:
            data = bytes(data, self.encoding)
        return first, data

    def _fastcore_sent_of(self, first: Any, sent: int) -> None:
        """Take what was sent off the first that waits."""
        if sent >= len(first):
            del self.producer_fifo[0]
            return
        if type(first) is bytes and len(first) > 2 * self.ac_out_buffer_size:
            first = memoryview(first)  # or each slice would copy all the rest
        self.producer_fifo[0] = first[sent:]

    def _fastcore_join(self) -> bytes:
        """Make one of the pieces that wait first, as far as they are bytes; return it."""
        fifo = self.producer_fifo
        pieces = list(islice(fifo, _JOINED))
        try:
            joined = b"".join(pieces)
        except TypeError:  # there is a producer among them, or the end
            pieces = list(takewhile(_is_bytes, pieces))
            joined = b"".join(pieces)
        for _ in pieces:  # not clear(): another thread may have pushed meanwhile
            fifo.popleft()
        fifo.appendleft(joined)
        return joined

    def _fastcore_joins(self) -> bool:
        """Whether pieces may be joined: in a stream, and where nobody sees the pieces."""
        # By way of bound methods, which know of overrides in the instance: a look into its
        # __dict__ would make that a real one, and slow every attribute from then on.
        return (
            type(self.socket) is socket.socket
            and isinstance(self.socket, _socket.socket)
            and asyncore._TYPE(self.socket) == socket.SOCK_STREAM
            and getattr(self.send, "__func__", None) is _SEND
            and getattr(self.initiate_send, "__func__", None) is _INITIATE_SEND
            and super(async_chat, type(self)).send is asyncore.dispatcher.send
        )

    def _fastcore_sends_plainly(self) -> bool:
        """Whether, by the class, what is pushed goes to the socket and nowhere else."""
        kind = type(self)
        return (
            kind.send is _SEND
            and kind.initiate_send is _INITIATE_SEND
            and super(async_chat, kind).send is Channel.send
        )

    def discard_buffers(self) -> None:
        """Forget what was received and what waits to be sent."""
        self.ac_in_buffer = b""
        self.incoming.clear()
        self.producer_fifo.clear()


# As they are here; a program may replace them in the class, too.
_SEND, _INITIATE_SEND = async_chat.send, async_chat.initiate_send


class simple_producer:
    """Produces `data` in pieces of `buffer_size` (bytes)."""

    def __init__(self, data: Any, buffer_size: int = 512) -> None:
        self.data: Any = data
        self.buffer_size: int = buffer_size

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
