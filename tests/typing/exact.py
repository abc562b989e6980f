"""What the types of the public names are, exactly: a name that has become Any fails here.

For type checkers alone.  Not to be run.
"""

from __future__ import annotations

import socket
from collections.abc import MutableMapping
from typing import Any

from typing_extensions import assert_type

import fastcore
from fastcore import aio, asynchat, asyncore
from fastcore.loop import Handle


class OwnLoop(fastcore.Loop):
    """Is itself, also after `with`."""


def names() -> None:
    assert_type(fastcore.engine, str)
    assert_type(fastcore.pollers(), tuple[str, ...])
    assert_type(fastcore.install(force=True), None)
    assert_type(fastcore.get_loop(), fastcore.Loop)
    assert_type(asyncore.socket_map, dict[int, Any])


def channels(channel: asyncore.dispatcher, chat: asynchat.async_chat) -> None:
    assert_type(channel.socket, socket.socket | Any)
    assert_type(channel.connected, bool)
    assert_type(channel.recv(1), bytes)
    assert_type(channel.send(memoryview(b"")), int)
    assert_type(channel.accept(), tuple[socket.socket, Any] | None)
    assert_type(channel.readable(), bool)
    assert_type(chat.writable(), bool)
    assert_type(chat.get_terminator(), bytes | int | None)
    assert_type(chat.ac_in_buffer, bytes)
    assert_type(chat.ac_max_line_size, int | None)


async def beside_asyncio(channel: asyncore.dispatcher) -> None:
    async def number() -> int:
        return 1

    with aio.attach() as attachment:
        assert_type(attachment, aio.Attachment)
        assert_type(attachment.attached, bool)
        assert_type(await attachment.wait(), None)
    assert_type(await aio.connected(channel), None)
    assert_type(await aio.closed(channel), None)
    assert_type([data async for data in aio.received(channel)], list[bytes])
    assert_type(await aio.create_task(number(), channel=channel), int)


def loops(loop: fastcore.Loop, f: Any) -> None:
    assert_type(loop.call_soon(f), Handle)
    assert_type(loop.call_later(1, f).when(), float | None)
    assert_type(loop.call_every(1, f).cancelled(), bool)
    assert_type(loop.map, MutableMapping[int, Any])
    assert_type(loop.poller, str)
    assert_type(loop.running, bool)
    assert_type(loop.next_deadline(), float | None)
    assert_type(loop.fileno(), int)
    assert_type(loop.stats(), dict[str, Any])
    assert_type(loop.remove_signal_handler(2), bool)
    with OwnLoop() as own:
        assert_type(own, OwnLoop)
