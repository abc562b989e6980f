"""Coroutines wait for channels of a map that asyncio serves, and handlers begin tasks."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from typing import Any

import pytest
from aio_stage import (
    Stage,
    rest,
    stage as stage,  # the fixture
    until,
)

# -- channels for coroutines ---------------------------------------------------------------------


def test_connected_and_closed(stage: Stage) -> None:
    server = stage.server()
    order: list[str] = []

    async def main() -> None:
        with stage.attach():
            channel = stage.channel()
            channel.writable = lambda: not channel.connected
            channel.handle_connect = lambda: order.append("handle_connect")
            channel.create_socket()
            channel.connect(server.getsockname())
            await stage.aio.connected(channel)
            order.append("connected")
            assert channel.connected
            await stage.aio.connected(channel)
            assert not {"handle_error", "handle_read"} & vars(channel).keys()
            peer = stage.keep(server.accept()[0])
            waiting = [asyncio.ensure_future(stage.aio.closed(channel)) for _ in range(2)]
            await asyncio.sleep(0.02)
            assert not any(one.done() for one in waiting)
            peer.close()
            await asyncio.gather(*waiting)
            assert channel.names == ["write", "close"]
            await stage.aio.closed(channel)

    stage.run(main())
    assert order == ["handle_connect", "connected"]


def test_connecting_in_vain_raises_why(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()

    async def main() -> None:
        with stage.attach():
            channel = stage.channel()
            channel.create_socket()
            channel.connect(address)
            with pytest.raises(ConnectionRefusedError):
                await stage.aio.connected(channel)
            assert channel.names == ["error"]
            assert "handle_error" not in vars(channel)
            with pytest.raises(ConnectionAbortedError):
                await stage.aio.connected(channel)
            closing = stage.channel(stage.pair()[0])
            closing.connected = False
            stage.loop.call_later(0.01, closing.close)
            with pytest.raises(ConnectionAbortedError):
                await stage.aio.connected(closing)

    stage.run(main())


def test_waiting_for_a_channel_may_be_cut_short(stage: Stage) -> None:
    ours, _peer = stage.pair()
    channel = stage.channel(ours)

    async def main() -> None:
        with stage.attach() as attachment:
            connecting = stage.channel(stage.pair()[0])
            connecting.connected = False
            for what in (
                stage.aio.closed(channel),
                stage.aio.connected(connecting),
                attachment.wait(),
            ):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(what, 0.01)
            assert not (attachment._ending or attachment._connecting or attachment._emptied)

    stage.run(main())


def test_waiting_for_a_channel_whose_map_is_not_served(stage: Stage) -> None:
    ours, _peer = stage.pair()
    channel = stage.channel(ours)

    async def main() -> None:
        with pytest.raises(RuntimeError, match="attach"):
            await stage.aio.closed(channel)
        with pytest.raises(RuntimeError, match="attach"):
            stage.aio.received(channel)
        attachment = stage.attach()
        waiting = asyncio.ensure_future(stage.aio.closed(channel))
        await asyncio.sleep(0.01)
        attachment.close()
        with pytest.raises(RuntimeError, match="no longer served"):
            await waiting

    stage.run(main())


def test_many_may_wait_for_the_ends_of_idle_channels(stage: Stage) -> None:
    """And what they wait for costs a turn nothing until it happens."""
    pairs = [stage.pair() for _ in range(50)]
    channels = [stage.channel(ours) for ours, _ in pairs]

    async def main() -> None:
        with stage.attach() as attachment:
            waiting = [asyncio.ensure_future(stage.aio.closed(one)) for one in channels]
            await rest(attachment)
            pairs[7][1].close()
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert done == {waiting[7]}
            stage.asyncore.close_all(stage.map)
            await asyncio.gather(*waiting)

    stage.run(main())


def test_pieces_that_a_dispatcher_receives(stage: Stage) -> None:
    ours, peer = stage.pair()
    channel = stage.channel(ours)

    async def main() -> list[bytes]:
        with stage.attach():
            stage.loop.call_later(0.01, peer.send, b"first")
            stage.loop.call_later(0.05, peer.send, b"second")
            stage.loop.call_later(0.09, peer.close)
            return [data async for data in stage.aio.received(channel)]

    assert stage.run(main()) == [b"first", b"second"]
    assert channel.names == ["close"]
    assert not {"handle_read", "readable"} & vars(channel).keys()


def test_messages_that_an_async_chat_receives(stage: Stage) -> None:
    ours, peer = stage.pair()
    chat = stage.fast.asynchat.async_chat(ours, stage.map)
    chat.set_terminator(b"\r\n")
    chat.handle_error = pytest.fail
    lines = [b"line %d" % number for number in range(100)]

    async def main() -> None:
        with stage.attach():
            peer.send(b"\r\n".join(lines) + b"\r\n\r\nhalf")
            stage.loop.call_later(0.05, peer.close)
            received = [line async for line in stage.aio.received(chat)]
            assert received == [*lines, b"", b"half"]

    stage.run(main())


def test_what_is_not_taken_is_not_read(stage: Stage) -> None:
    ours, peer = stage.pair()
    channel = stage.channel(ours)
    peer.settimeout(0)

    async def main() -> None:
        host = asyncio.get_running_loop()
        with stage.attach():
            data = os.urandom(1 << 20)
            received = stage.aio.received(channel, size=1024, waiting=4)
            sending = asyncio.ensure_future(host.sock_sendall(peer, data))
            await asyncio.sleep(0.1)
            assert len(received._pieces) == 4
            assert not sending.done()
            parts = []
            async for part in received:
                parts.append(part)
                if len(parts) == 1024:
                    break
            assert b"".join(parts) == data
            await sending
            received.close()
            received.close()
            peer.send(b"for the handler")
            await until(lambda: channel.received == b"for the handler")
            assert not {"handle_read", "readable"} & vars(channel).keys()

    stage.run(main())


def test_only_one_coroutine_takes_what_is_received(stage: Stage) -> None:
    ours, _peer = stage.pair()
    channel = stage.channel(ours)

    async def main() -> None:
        with stage.attach():
            received = stage.aio.received(channel)
            first = asyncio.ensure_future(anext(received))
            await asyncio.sleep(0.01)
            with pytest.raises(RuntimeError, match="another coroutine"):
                await anext(received)
            channel.close()
            with pytest.raises(StopAsyncIteration):
                await first

    stage.run(main())


# -- coroutines for channels ---------------------------------------------------------------------


def test_a_handler_may_begin_what_awaits(stage: Stage) -> None:
    ours, peer = stage.pair()
    channel = stage.channel(ours)
    peer.settimeout(0)

    async def answer(question: bytes) -> None:
        await asyncio.sleep(0.01)
        channel.send(question.upper())

    channel.handle_read = lambda: stage.aio.create_task(answer(channel.recv(100)), channel=channel)

    async def main() -> None:
        host = asyncio.get_running_loop()
        with stage.attach():
            for question in (b"what", b"why"):
                await host.sock_sendall(peer, question)
                gc.collect()
                assert await host.sock_recv(peer, 100) == question.upper()

    stage.run(main())
    assert not stage.aio._tasks


def test_what_a_handlers_task_raises_goes_to_handle_error(stage: Stage) -> None:
    ours, peer = stage.pair()
    channel = stage.channel(ours)

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    def handle_read() -> None:
        channel.recv(100)
        stage.aio.create_task(fails(), channel=channel, name="failing")

    channel.handle_read = handle_read

    async def main() -> None:
        with stage.attach() as attachment:
            peer.send(b"x")
            await attachment.wait()
            task = stage.aio.create_task(fails())
            assert isinstance(task, asyncio.Task)
            with pytest.raises(ZeroDivisionError):
                await task

    stage.run(main())
    [(name, error)] = channel.events
    assert name == "error"
    assert isinstance(error, ZeroDivisionError)


def test_exit_now_of_a_handlers_task_detaches(stage: Stage) -> None:
    ours, _peer = stage.pair()
    channel = stage.channel(ours)

    async def leaves() -> None:
        raise stage.asyncore.ExitNow

    async def main() -> None:
        with stage.attach() as attachment:
            stage.aio.create_task(leaves(), channel=channel)
            with pytest.raises(stage.asyncore.ExitNow):
                await attachment.wait()

    stage.run(main())
    assert channel.events == []
    assert [type(one) for one in stage.failures] == [stage.asyncore.ExitNow]
    stage.failures.clear()


def test_without_asyncio_there_are_no_tasks(fast: Any) -> None:
    async def nothing() -> None:
        pass

    with pytest.raises(RuntimeError, match="no running event loop"):
        fast.aio.create_task(nothing())
