"""Signal handlers that come at the worst moment: one after the other, at each step of the engine.

A trace function stands for the handler, since it is called in the same places and more: before each
line or bytecode of the package.  The engine in C has no such steps, but for those of its loop.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from loop_channels import reader

pytestmark = pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="elsewhere bytecode has other steps"
)


class Step:
    """Calls `action` once, before the step of that number in files for which `where` holds."""

    def __init__(
        self, number: int, where: Callable[[str], bool], action: Callable[[], Any]
    ) -> None:
        self.number = number
        self.left = number
        self.where = where
        self.action = action
        self.opcodes = False
        self.done = False

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if self.done or not self.where(frame.f_code.co_filename):
            return None
        frame.f_trace_opcodes = self.opcodes
        if event == ("opcode" if self.opcodes else "line"):
            self.left -= 1
            if self.left < 0:
                self.done = True
                sys.settrace(None)
                self.action()
        return self._trace

    def run(self, function: Callable[..., Any], *args: Any) -> None:
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            function(*args)
        finally:
            sys.settrace(before)


def is_ours(name: str) -> bool:
    return os.path.basename(os.path.dirname(name)) in ("fastcore", "_python")


def interrupt() -> None:
    raise KeyboardInterrupt


def elsewhere(action: Callable[[], Any]) -> Any:
    """What `action` returns, or None where it raises, in a thread of its own."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(action()))
    thread.start()
    thread.join(20)
    return results[0] if results else None


STRIDE = 3


def steps(
    fast: Any, action: Callable[[], Any], where: Callable[[str], bool], opcodes: bool = False
) -> Iterator[Step]:
    """A few steps further each time, until the last run had no step of that number.

    Each poller has steps of its own, since all of them would take minutes.
    """
    number = fast.package.pollers().index(fast.poller) % STRIDE
    while True:
        step = Step(number, where, action)
        step.opcodes = opcodes
        yield step
        if not step.done:
            return
        number += STRIDE


# -- an exception ------------------------------------------------------------------------------


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("nested", [False, True])
def test_an_exception_at_any_step_leaves_a_loop_that_nobody_drives(fast: Any, nested: bool) -> None:
    for step in steps(fast, interrupt, is_ours, opcodes=True):
        loop = fast.Loop()
        raised: list[bool] = []

        def turn(loop: Any = loop, step: Any = step, raised: list[bool] = raised) -> None:
            try:
                step.run(loop.run_once, 0)
            except KeyboardInterrupt:
                raised.append(True)

        if nested:
            loop.call_soon(turn)
            loop.run_once(0)
        else:
            turn()
        assert bool(raised) == step.done, step.number
        assert not loop.running, step.number
        ran: list[str] = []
        loop.call_soon(ran.append, "again")
        loop.run()
        assert ran == ["again"], step.number
        assert elsewhere(lambda loop=loop: loop.close() or "closed") == "closed", step.number


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_exception_at_any_step_leaves_no_door_locked(fast: Any) -> None:
    """Not in the loop: a thread that sets timers, closes, asks."""
    for step in steps(fast, interrupt, is_ours, opcodes=True):
        with fast.Loop() as loop:

            def ask(loop: Any = loop) -> None:
                loop.call_later(5, print).cancel()
                loop.next_deadline()

            try:
                step.run(ask)
            except KeyboardInterrupt:
                pass
            assert not loop.running
            # Where it is locked the other thread's word stays in the inbox.
            elsewhere(lambda loop=loop: loop.call_later(7, print))
            elsewhere(lambda loop=loop: loop.run_once(0))
            assert loop.stats()["timers"] >= 1, step.number


# -- a turn --------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there is no SIGUSR1 here")
def test_a_turn_of_a_signal_handler_within_a_wait(fast: Any) -> None:
    """What it sets going is not slept over by the wait around it."""
    number = signal.SIGUSR1
    channels: dict[int, Any] = {}
    with fast.Loop(map=channels) as loop:
        channel, peer = reader(fast, channels)
        ran: list[str] = []
        channel.handle_read = lambda: (
            channel.recv(10),
            loop.call_later(0.01, lambda: (ran.append("timer"), loop.stop())),
        )

        def handler(*_: Any) -> None:
            peer.send(b"x")
            loop.run_once(0)

        def send() -> None:
            end = time.monotonic() + 20
            while not loop.running and time.monotonic() < end:
                time.sleep(0)
            time.sleep(0.15)  # long enough for it to wait; the test is right if it does not
            signal.pthread_kill(threading.main_thread().ident or 0, number)

        before = signal.signal(number, handler)
        thread = threading.Thread(target=send)
        thread.start()
        try:
            start = time.monotonic()
            loop.run()
        finally:
            thread.join(20)
            signal.signal(number, before)
        assert ran == ["timer"]
        assert time.monotonic() - start < 20
        channel.close()
        peer.close()


# -- nesting without end ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["callback", "handler"])
def test_loops_nested_without_end_are_a_recursion_error(fast: Any, how: str) -> None:
    channels: dict[int, Any] = {}
    limit = sys.getrecursionlimit()
    with fast.Loop(map=channels) as loop:
        channel, peer = reader(fast, channels)
        found: list[BaseException] = []

        def nest() -> None:
            if how == "callback":
                loop.call_soon(nest)
            try:
                loop.run_once(0)
            except RecursionError as error:
                found.append(error)
                raise

        channel.handle_read = nest
        channel.handle_error = lambda: None
        loop.exception_handler = lambda context: None
        sys.setrecursionlimit(100_000)
        try:
            if how == "callback":
                loop.call_soon(nest)
            else:
                peer.send(b"x")
            loop.run_once(0)
        finally:
            sys.setrecursionlimit(limit)
        assert len(found) == 1
        assert not loop.running
        channel.close()
        peer.close()
