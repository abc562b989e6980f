"""What a chat has to send: pieces in a deque, which are joined, cut, and taken off.

Knows pieces only: no chats, no sockets.
"""

from __future__ import annotations

from collections import deque
from itertools import islice, takewhile
from typing import Any

_JOINED = 256  # pieces that are joined at a time, at most
_LONG = 65536  # bytes; a longer piece is not joined to others
_SHORT = 4096  # bytes; a shorter one is joined to what follows, however little that is
_CUT = 262144  # bytes; what waits in one piece is cut into such ones, or copied for each send


def take_off(fifo: Any, first: Any, sent: Any) -> None:
    """Take what was sent off the first that waits."""
    rest = first[sent:]
    if not rest:
        del fifo[0]
        return
    fifo[0] = rest
    if type(rest) is bytes and len(rest) > 2 * _CUT and type(fifo) is deque:
        cut(fifo, _CUT)  # pyright: ignore


def cut(fifo: deque[Any], size: int) -> bytes:
    """Cut the first that waits into pieces of that size, once; return the first of them.

    Else what is left of it would be copied for each send.
    """
    whole: bytes = fifo.popleft()
    last = (len(whole) - 1) // size * size
    for start in range(last, -1, -size):
        fifo.appendleft(whole[start : start + size])
    return fifo[0]  # type: ignore[no-any-return]


def is_to_be_joined(fifo: Any, first: bytes, size: Any) -> bool:
    """Whether joining what follows to the first that waits is worth the copying.

    Each push() to a peer that does not read asks that: so much must follow that what waits is not
    copied again and again.
    """
    if len(first) >= size or type(fifo) is not deque:
        return False
    if len(first) <= _SHORT:
        return True
    if len(first) >= _LONG:
        return False
    return len(fifo) > 64 or 4 * sum(map(_size_of_bytes, islice(fifo, 1, 9))) >= len(first)  # pyright: ignore


def join(fifo: deque[Any], size: int) -> bytes:
    """Make one of the pieces that wait first, as far as they are bytes; return it."""
    # Not more than 256 pieces of 64 KiB, or as much in fewer.
    pieces = list(islice(fifo, _JOINED if size <= _LONG else max(2, _JOINED * _LONG // size)))
    try:
        joined = b"".join(pieces)
    except TypeError:  # there is a producer among them, or the end
        pieces = list(takewhile(_is_bytes, pieces))
        joined = b"".join(pieces)
    for _ in pieces:  # not clear(): another thread may have pushed meanwhile
        fifo.popleft()
    fifo.appendleft(joined)
    return joined


def _size_of_bytes(piece: Any) -> int:
    return len(piece) if type(piece) is bytes else 0


def _is_bytes(piece: Any) -> bool:
    return type(piece) is bytes
