"""The drop-in for the standard library's asynchat, as it stood in Python 3.11.

Every name of that module is here, with its signature and its behaviour, except for what
docs/compatibility.md lists as mended.  Knows terminators and producers; must not know the loop.
"""

from __future__ import annotations

import _socket
import socket
from collections import deque
from types import MethodType
from typing import Any

from . import _fifo, asyncore
from ._engine import Burst, Rest, held_back, push_short, send as _send
from ._secure import is_wait

# What `from asynchat import *` brings: what it ever brought.
__all__ = ["async_chat", "asyncore", "deque", "find_prefix_at_end", "simple_producer"]

# Not by the name that was imported: the interpreter calls methods of such a one the slow way.
_held_back = held_back


class _Cork:
    """The output of a chat that is corked: while there are more lines to handle, answers wait.

    They leave together with the last one or at the end.  Not kept on the channels: a program may
    borrow their methods for objects of its own.
    """

    def release(self, chat: Any) -> None:
        """Send what is held back, as far as the kernel takes it."""
        _uncork(chat)


_MORE, _LAST = _Cork(), _Cork()  # lines to handle

# With more bytes than this what follows a line is no longer copied: see _python/lines.py.
_BURST = 4096

_REST: Any = Rest()


class async_chat(asyncore.dispatcher):
    """A channel of commands and answers, told apart by terminators.

    Derive from it, call set_terminator() and define collect_incoming_data() and
    found_terminator().
    """

    ac_in_buffer_size: int = 65536  # bytes read at once, at most
    ac_out_buffer_size: int = 65536  # bytes sent at once, at most

    # Of each instance.  A class that has one, too, makes it slower: _REST is put there when needed.
    ac_in_buffer: bytes

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
        except OSError as error:
            if not is_wait(error):
                self.handle_error()
            return
        if type(received) is not bytes:
            received = _encoded(self, received)
        self.ac_in_buffer = data = self.ac_in_buffer + received
        ours = issubclass(type(self), async_chat)
        corked = False
        try:
            while data:
                terminator = self.get_terminator()
                if not terminator or isinstance(terminator, int):
                    _pass_on_count(self, data, terminator)
                    data = self.ac_in_buffer
                    continue
                line, end, left = data.partition(terminator)
                if not end:
                    if not _pass_on_part(self, data, terminator):
                        return
                elif left:
                    if not corked:
                        _cork(self, True)
                        corked = True
                    if len(left) > _BURST and ours and _can_rest(type(self)):
                        _pass_on_burst(self, data, terminator)
                    else:
                        _pass_on_lines(self, data, terminator, line, left)
                else:
                    if ours and self.ac_max_line_size is not None:
                        if not _collect(self, line, True):
                            return
                    elif line:
                        self.collect_incoming_data(line)
                    if self.ac_in_buffer is not data:  # somebody has set it
                        left = self.ac_in_buffer[len(data) :]
                    self.ac_in_buffer = left
                    if corked:
                        _cork(self, False)
                    self.found_terminator()
                data = self.ac_in_buffer
        finally:
            if _held_back and id(self) in _held_back:
                _uncork(self)

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

    def push(self, data: bytes) -> None:
        """Send `data` (bytes, bytearray or memoryview), after what already waits.

        Raises TypeError for anything else.
        """
        # Typed as bytes alone, as typeshed had it: so are the overrides in programs.
        if push_short is not None:
            waits = push_short(self, data, _sends_plainly, _MORE)
            if waits is not None:
                if waits:
                    asyncore._touch(self)
                return
        elif (
            _held_back
            and _held_back.get(id(self)) is _MORE
            and type(data) is bytes
            and 0 < len(data) <= self.ac_out_buffer_size
        ):
            self.producer_fifo.append(data)
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
        _send_soon(self)

    def push_with_producer(self, producer: Any) -> None:
        """Send what `producer.more()` returns until that is empty; bytes will do as well."""
        self.producer_fifo.append(producer)
        _send_soon(self)

    def close_when_done(self) -> None:
        """Close as soon as everything pushed so far is sent."""
        self.producer_fifo.append(None)
        asyncore._touch(self)

    def readable(self) -> bool:
        """Always want to read."""
        return 1  # type: ignore[return-value]

    def writable(self) -> bool:
        """Want to write while connecting, and while something waits."""
        return self.producer_fifo or (not self.connected)  # type: ignore[return-value]

    def initiate_send(self) -> None:
        """Send what waits, at most `ac_out_buffer_size` bytes."""
        if _held_back:
            _held_back.pop(id(self), None)
        fifo = self.producer_fifo
        size = self.ac_out_buffer_size
        while fifo and self.connected:
            first = fifo[0]
            data = first
            if type(first) is not bytes or len(first) > size or len(fifo) > 1 or not first:
                first, data = _next_piece(self, fifo, size)
                if first is None:
                    return
                if not data:
                    continue
            try:
                sent = self.send(data)
            except OSError as error:
                if not is_wait(error):
                    self.handle_error()
                return
            if sent and fifo and fifo[0] is first:
                if sent < len(data) or size < len(first):
                    _fifo.take_off(fifo, first, sent)
                else:
                    del fifo[0]
            return

    def discard_buffers(self) -> None:
        """Forget what was received and what waits to be sent."""
        self.ac_in_buffer = b""
        self.incoming.clear()
        self.producer_fifo.clear()


_REST.owner = async_chat


def _can_rest(kind: Any) -> bool:
    """Whether a chat of that class may do without an `ac_in_buffer` of its own for a while."""
    if "ac_in_buffer" not in vars(async_chat):
        async_chat.ac_in_buffer = _REST
    return kind.ac_in_buffer is _REST


# As it is here; a program may replace it in the class, too.
_INITIATE_SEND = async_chat.initiate_send


# -- input, passed on ----------------------------------------------------------------------


def _encoded(chat: Any, received: Any) -> Any:
    """Return what an overridden recv() returned, in bytes if it is text and that is wanted."""
    if isinstance(received, str) and chat.use_encoding:
        return bytes(received, chat.encoding)
    return received


def _pass_on_count(chat: Any, data: Any, size: Any) -> None:
    """Pass on a piece of that many bytes, or what there is of it; all, if there is no end."""
    if not size or len(data) < size:
        chat.collect_incoming_data(data)
        chat.ac_in_buffer = b""
        if size:
            chat.terminator = chat.terminator - len(data)
        return
    chat.collect_incoming_data(data[:size])
    chat.ac_in_buffer = left = chat.ac_in_buffer[size:]
    if left or _held_back:
        _cork(chat, bool(left))
    chat.terminator = 0
    chat.found_terminator()


def _pass_on_part(chat: Any, data: Any, terminator: Any) -> bool:
    """Pass on a piece of a line; return whether there may be more to do."""
    # The end of the buffer may be the beginning of a terminator: that part stays.
    tail = data[max(0, len(data) - len(terminator) + 1) :]
    kept = find_prefix_at_end(tail, terminator) if tail else 0
    if kept < len(data):
        if not _collect(chat, data[: len(data) - kept], False):
            return False
        chat.ac_in_buffer = chat.ac_in_buffer[len(data) - kept :]
    return kept == 0


def _pass_on_lines(chat: Any, data: Any, terminator: Any, line: Any, left: Any) -> None:
    """Pass on `line`, and what is whole of the lines `left`, until somebody sets something else."""
    limited = issubclass(type(chat), async_chat) and chat.ac_max_line_size is not None
    end = terminator
    while end:
        if limited:
            if not _collect(chat, line, True):
                return
        elif line:
            chat.collect_incoming_data(line)
        if chat.ac_in_buffer is not data:  # somebody has set it
            left = chat.ac_in_buffer[len(line) + len(end) :]
            terminator = None  # no other line follows here
        chat.ac_in_buffer = data = left
        if not left:
            _cork(chat, False)
        chat.found_terminator()
        if (
            not left
            or chat.ac_in_buffer is not data
            or terminator is None
            or chat.get_terminator() is not terminator
        ):
            return
        line, end, left = data.partition(terminator)


def _pass_on_burst(chat: Any, data: Any, terminator: Any) -> None:
    """As _pass_on_lines(), without copying what follows for each of them."""
    limited = issubclass(type(chat), async_chat) and chat.ac_max_line_size is not None
    burst = Burst(chat, data)
    try:
        while (line := burst.next_line(chat, terminator)) is not None:
            if limited:
                if not _collect(chat, line, True):
                    return
            elif line:
                chat.collect_incoming_data(line)
            unset = burst.go_on(chat)
            chat.found_terminator()
            if not unset or chat.get_terminator() is not terminator:
                return
    finally:
        burst.end(chat)


def _collect(chat: Any, data: Any, whole: bool) -> bool:
    """Pass on a line, or a part of one, within the limit; False if that closed the channel."""
    if issubclass(type(chat), async_chat) and chat.ac_max_line_size is not None:
        size = chat._fastcore_line + len(data)
        if size > chat.ac_max_line_size:
            size = len(data)
            chat._fastcore_line = 0
            chat.handle_line_too_long()
            if chat._fileno is None:
                chat.discard_buffers()
                return False
        chat._fastcore_line = 0 if whole else size
    if data:
        chat.collect_incoming_data(data)
    return True


# -- output --------------------------------------------------------------------------------


def _cork(chat: Any, more: bool) -> None:
    """Hold answers back while there is `more` to handle, if pieces may be joined."""
    ours = id(chat)
    if more:
        if ours in _held_back or _joins(chat):
            _held_back[ours] = _MORE
    elif ours in _held_back:
        _held_back[ours] = _LAST


def _uncork(chat: Any) -> None:
    """Send what is held back, as far as the kernel takes it."""
    del _held_back[id(chat)]
    fifo = chat.producer_fifo
    before: Any = chat
    while fifo and chat.connected and fifo[0] is not before:
        before = fifo[0]
        chat.initiate_send()


def _send_soon(chat: Any) -> None:
    if _held_back and _held_back.get(id(chat)) is _MORE:
        return
    chat.initiate_send()
    if chat.producer_fifo:
        asyncore._touch(chat)


def _next_piece(chat: Any, fifo: Any, size: Any) -> tuple[Any, Any]:
    """Return the first that waits, and what of it is to be sent now.

    Nothing of it: it was an empty one, or a producer whose next piece is first now.  Both are
    None where the end of the output was reached.
    """
    first = fifo[0]
    if not first:
        del fifo[0]
        if first is None:
            chat.handle_close()
            return None, None
        return first, b""
    if type(first) is bytes:
        if len(first) > size > 0 and type(fifo) is deque:
            first = _fifo.cut(fifo, size)  # pyright: ignore
        elif len(fifo) > 1 and _fifo.is_to_be_joined(fifo, first, size) and _joins(chat):
            first = _fifo.join(fifo, size)
    try:
        data = first[:size]
    except TypeError:
        data = first.more()  # pyright: ignore
        if data:
            fifo.appendleft(data)  # pyright: ignore
        else:
            del fifo[0]
        return first, b""
    if isinstance(data, str) and chat.use_encoding:
        data = bytes(data, chat.encoding)
    return first, data


def _joins(chat: Any) -> bool:
    """Whether pieces may be joined: in a stream, and where nobody sees the pieces."""
    if (
        not issubclass(type(chat), async_chat)
        # By way of bound methods, which know of overrides in the instance: a look into its
        # __dict__ would make that a real one, and slow every attribute from then on.
        or type(send := chat.send) is not MethodType
        or send.__func__ is not _send
        or type(initiate_send := chat.initiate_send) is not MethodType
        or initiate_send.__func__ is not _INITIATE_SEND
    ):
        return False
    try:
        sock = chat.socket  # a send() would ask for it
    except Exception:
        return False
    return (
        type(sock) is socket.socket
        and isinstance(sock, _socket.socket)
        and asyncore._TYPE(sock) == socket.SOCK_STREAM
    )


def _sends_plainly(kind: Any) -> bool:
    """Whether, by its class, what a chat pushes goes to the socket and nowhere else."""
    return (
        issubclass(kind, async_chat) and kind.send is _send and kind.initiate_send is _INITIATE_SEND
    )


# -- producers, and terminators --------------------------------------------------------------


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
