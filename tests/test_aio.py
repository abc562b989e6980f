"""A running asyncio loop serves a map; coroutines wait for channels, and handlers begin tasks."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from support import PATIENCE, Site, needs_fork, receive_exactly

try:
    import uvloop
except ImportError:
    uvloop = None

if uvloop is not None:
    uvloop.new_event_loop().close()  # libuv opens a pipe with the first loop, and keeps it

WITH_DESCRIPTOR = ("epoll", "kqueue")  # pollers that a host can wait for

HOSTS = ["asyncio", "debug", pytest.param("uvloop", marks=pytest.mark.skipif(not uvloop, reason="no uvloop"))]


class Stage(Site):
    """A private map, and an asyncio loop of one kind to serve it."""

    def __init__(self, fast: Any, kind: str) -> None:
        super().__init__(fast)
        self.kind = kind
        self.aio = fast.aio

    def new_host(self) -> asyncio.AbstractEventLoop:
        host = uvloop.new_event_loop() if self.kind == "uvloop" else asyncio.SelectorEventLoop()
        host.set_debug(self.kind == "debug")
        return host

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in a new host, for a bounded time."""
        host = self.new_host()
        self.failures: list[BaseException] = []
        host.set_exception_handler(lambda _, context: self.failures.append(context["exception"]))
        try:
            return host.run_until_complete(asyncio.wait_for(coroutine, PATIENCE))
        finally:
            host.run_until_complete(host.shutdown_asyncgens())
            host.close()

    def attach(self) -> Any:
        return self.aio.attach(self.map)


@pytest.fixture(params=HOSTS)
def stage(fast: Any, request: pytest.FixtureRequest) -> Iterator[Stage]:
    if fast.poller not in WITH_DESCRIPTOR:
        pytest.skip(f"{fast.poller} has no descriptor: another test is about that")
    with Stage(fast, request.param) as stage:
        yield stage
        assert stage.failures == []


async def until(condition: Callable[[], Any]) -> None:
    """Let the host run until `condition()` is true; it is asked often."""
    while not condition():
        await asyncio.sleep(0.001)


async def at_rest(loop: Any) -> int:
    """Wait until no turn is taken any more; return how many there were."""
    while True:
        before = loop.stats()["turns"]
        await asyncio.sleep(0.35)
        if loop.stats()["turns"] == before:
            return int(before)


# -- what is served ------------------------------------------------------------------------------


def test_timers_callbacks_and_events_are_served(stage: Stage) -> None:
    ours, peer = stage.pair()
    channel = stage.channel(ours)
    seen: list[str] = []

    async def main() -> None:
        with stage.attach() as attachment:
            stage.loop.call_later(0.02, seen.append, "timer")
            stage.loop.call_soon(seen.append, "soon")
            peer.send(b"x")
            await until(lambda: channel.received == b"x" and len(seen) == 2)
            channel.close()
            await attachment.wait()

    stage.run(main())
    assert seen == ["soon", "timer"]


def test_a_large_push_from_a_coroutine_arrives(stage: Stage) -> None:
    size = 10 << 20
    ours, peer = stage.tcp_pair()
    chat = stage.fast.asynchat.async_chat(ours, stage.map)
    received: list[bytes] = []
    reading = threading.Thread(target=lambda: received.append(receive_exactly(peer, size)))
    reading.start()

    async def main() -> None:
        with stage.attach() as attachment:
            await at_rest(stage.loop)
            chat.push(b"x" * size)
            chat.close_when_done()
            await attachment.wait()

    stage.run(main())
    reading.join(PATIENCE)
    assert len(received[0]) == size


def test_another_threads_callbacks_are_served(stage: Stage) -> None:
    seen: list[int] = []

    async def main() -> None:
        with stage.attach():
            for call in (stage.loop.call_soon_threadsafe, stage.loop.call_soon):
                await at_rest(stage.loop)
                thread = threading.Thread(target=call, args=(lambda: seen.append(threading.get_ident()),))
                thread.start()
                await until(lambda: seen)
                thread.join()
                assert seen.pop() == threading.get_ident()

    stage.run(main())
