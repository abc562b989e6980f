"""A map and an asyncio loop to serve it, for the tests of fastcore.aio."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from support import PATIENCE, Site

try:
    import uvloop
except ImportError:
    uvloop = None

if uvloop is not None:
    uvloop.new_event_loop().close()  # libuv opens a pipe with the first loop, and keeps it

WITH_DESCRIPTOR = ("epoll", "kqueue")  # pollers that a host can wait for

HOSTS = [
    "asyncio",
    "debug",
    pytest.param("uvloop", marks=pytest.mark.skipif(not uvloop, reason="no uvloop")),
]


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
        assert signal.set_wakeup_fd(-1) == -1


async def until(condition: Callable[[], Any]) -> None:
    """Let the host run until `condition()` is true; it is asked often."""
    while not condition():
        await asyncio.sleep(0.001)


async def rest(attachment: Any) -> None:
    """Wait until the quiet look is over, and the next turn is for an event."""
    await until(lambda: attachment._timer is None and not attachment._queued)
