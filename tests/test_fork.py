"""Loops across a fork: the child opens its own kernel set, and the parent does not notice."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import Site, elapsed

NUMBER = getattr(signal, "SIGUSR1", None)  # pytest-timeout has SIGALRM


@pytest.fixture
def site(fast: Any) -> Iterator[Site]:
    with Site(fast) as site:
        yield site


def idle(site: Site) -> Any:
    """A channel that wants nothing."""
    channel = site.channel(site.pair()[0])
    channel.readable = lambda: False
    return channel


fork_only = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork() here")


def in_child(body: Callable[[], Any]) -> None:
    """Run `body` in a child; fail where it fails or does not end."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        status = 1
        try:
            body()
            status = 0
        except BaseException as error:
            os.write(write_end, f"{type(error).__name__}: {error}".encode()[:4000])
        finally:
            os._exit(status)
    os.close(write_end)
    status = os.waitpid(pid, 0)[1]
    said = os.read(read_end, 4096).decode()
    os.close(read_end)
    assert status == 0, f"the child: {said or status}"


@fork_only
def test_a_child_has_its_own_kernel_set(site: Site) -> None:
    near, far = site.pair()
    channel = site.channel(near)
    site.turn()  # the kernel knows the channel

    def serve() -> None:
        far.send(b"to the child")
        site.run_until(lambda: channel.received)
        assert channel.received == b"to the child"

    in_child(serve)
    far.send(b"to the parent")
    site.run_until(lambda: channel.received)
    assert channel.received == b"to the parent"


@fork_only
@pytest.mark.parametrize("how", ["close", "close_all", "clear the map", "loop.close"])
def test_a_child_that_closes_leaves_the_parent_alone(site: Site, how: str) -> None:
    near, far = site.pair()
    channel = site.channel(near)
    site.turn()

    def leave() -> None:
        if how == "close":
            channel.close()
        elif how == "close_all":
            site.asyncore.close_all(site.map)
        elif how == "clear the map":
            site.map.clear()
        else:
            site.loop.close()
        other = site.channel(site.pair()[0])
        site.turn()
        other.close()

    in_child(leave)
    far.send(b"still here")
    assert elapsed(lambda: site.turn(timeout=60)) < 30
    assert channel.received == b"still here"


@fork_only
def test_a_child_does_not_wake_its_parent(site: Site) -> None:
    idle(site)
    loop = site.loop
    loop.run_once(0)

    def wake() -> None:
        loop.wakeup()
        loop.call_soon_threadsafe(int)
        loop.run_once(10)

    in_child(wake)
    assert elapsed(lambda: loop.run_once(0.1)) >= 0.09


@fork_only
def test_a_fork_inside_a_handler(site: Site) -> None:
    """Both go on in the loop they are in."""
    near, far = site.pair()
    second, far_of_second = site.pair()
    other = site.channel(second)
    forked: list[str] = []

    def serve() -> None:
        far_of_second.send(b"child")
        site.run_until(lambda: other.received)
        assert other.received == b"child"

    def handle_read(self: Any) -> None:
        self.recv(100)
        in_child(serve)
        forked.append("yes")
        far_of_second.send(b"parent")

    site.channel(near, handle_read=handle_read)
    far.send(b"go")
    site.run_until(lambda: other.received)
    assert forked == ["yes"]
    assert other.received == b"parent"


@fork_only
def test_timers_are_inherited(site: Site) -> None:
    loop = site.loop
    ran: list[str] = []
    loop.call_later(0.01, ran.append, "timer")
    loop.call_soon(ran.append, "soon")

    def run() -> None:
        loop.run()
        assert ran == ["soon", "timer"]

    in_child(run)
    assert ran == []
    run()


@fork_only
def test_a_signal_in_the_child_does_not_wake_the_parent(site: Site, handled: list[int]) -> None:
    idle(site)
    loop = site.loop

    def take_signal() -> None:
        os.kill(os.getpid(), NUMBER)  # type: ignore[arg-type]
        assert handled == [NUMBER]

    loop.call_soon(in_child, take_signal)  # the fork is inside the loop: its wake-up is set
    loop.run_once(0)
    assert elapsed(lambda: loop.run_once(0.1)) >= 0.09
