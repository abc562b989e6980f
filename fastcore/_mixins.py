"""What the opt-in mix-ins share: their place among the bases, and what of a channel waits.

Knows dispatchers and chats; must not know what a mix-in is for.
"""

from __future__ import annotations

from typing import Any

from . import asynchat, asyncore, loop

_ALWAYS = asyncore.dispatcher.writable


class MixIn:
    """A base of mix-ins for channels, which may be named before or after the channel's class.

    A mix-in that is named after it would be asked last; so the bases are put in order.  One that
    overrides what only chats have, or what chats are to do without, has parts: subclasses of it,
    one for chats and one for all others, that stand in its place where it meets a channel's class.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        _put_in_order(cls)  # first: what others do here may be about what a class inherits
        super().__init_subclass__(**options)


def _put_in_order(cls: type[Any]) -> None:
    """Have the mix-ins come first among the bases of a channel's class, by their parts."""
    bases = cls.__bases__
    channels = [base for base in bases if _is_channel(base)]
    if not channels:
        return
    kinds = [base for base in cls.__mro__ if "_fastcore_parts" in vars(base)]
    parts = [vars(kind)["_fastcore_parts"][is_chat(cls)] for kind in kinds]
    parts = [part for part in parts if not issubclass(cls, part)]
    mixins = [base for base in bases if issubclass(base, MixIn) and base not in channels]
    first = [base for base in mixins if not any(issubclass(part, base) for part in parts)]
    ordered = (*first, *parts, *(base for base in bases if base not in mixins))
    if ordered != bases:
        cls.__bases__ = ordered


def _is_channel(kind: type[Any]) -> bool:
    return issubclass(kind, asyncore.dispatcher)


def waiting_bytes(channel: Any, enough: float) -> int:
    """Return how many bytes wait in a channel to be sent; it stops counting beyond `enough`.

    What producers have not yet made is not counted, nor what a program keeps by itself.
    """
    if isinstance(channel, asyncore.dispatcher_with_send):
        backlog = asyncore._backlog_of(channel)
        return len(channel.out_buffer if backlog is None else backlog)
    total = 0
    pieces: Any = getattr(channel, "producer_fifo", ())
    for piece in pieces:
        if isinstance(piece, (bytes, bytearray, memoryview, str)):
            total += len(piece)  # pyright: ignore
            if total > enough:
                break
    return total


def waits_to_send(channel: Any) -> bool:
    """Whether a connected channel has something to send.

    That is what its `writable()` says, but for a dispatcher that never says no.
    """
    if not channel.connected:
        return False
    writable = channel.writable
    return getattr(writable, "__func__", None) is not _ALWAYS and bool(writable())


def is_chat(channel: Any) -> bool:
    """Whether a channel, or a class of channels, is an async_chat."""
    return issubclass(channel if isinstance(channel, type) else type(channel), asynchat.async_chat)


def channel_behind(there: Any) -> Any:
    """Return the channel for which something stands in a map: itself, as a rule.

    Where another object has taken its place for a while, that one's methods are the channel's.
    """
    return getattr(getattr(there, "add_channel", None), "__self__", there)


def is_open(channel: Any) -> bool:
    """Whether a channel still stands in its map."""
    number = getattr(channel, "_fileno", None)
    if number is None:
        return False
    there = channel._map.get(number)
    return there is channel or channel_behind(there) is channel


def count(map: Any, name: str) -> None:
    """Count one more in the stats() of a map's loop."""
    counts = loop.get_loop(map)._counts
    counts[name] = counts.get(name, 0) + 1
