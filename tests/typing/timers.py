"""Typed timers, callbacks and signals, in a loop of one's own and in the loop behind asyncore's.

For type checkers: Loop and Handle, a subclass of Loop, install().
"""

from __future__ import annotations

import signal
from collections.abc import MutableMapping
from typing import Any

import fastcore
from fastcore import Handle
from fastcore.loop import ExitNow


class Recording(fastcore.Loop):
    """A loop that keeps what callbacks raise."""

    def __init__(self, poller: str | None = None) -> None:
        super().__init__(poller=poller, interest="strict")
        self.raised: list[BaseException] = []

    def exception_handler(self, context: dict[str, Any]) -> None:
        self.raised.append(context["exception"])


def fail(number: int) -> None:
    raise LookupError(number)


def in_a_loop_of_its_own() -> None:
    names: list[str] = []
    with Recording(fastcore.pollers()[-1]) as loop:
        beat: Handle = loop.call_every(0.001, names.append, "beat")
        late = loop.call_later(60.0, names.append, "late")
        loop.call_at(loop.time() + 0.01, fail, 7)
        loop.call_soon_threadsafe(names.append, "soon")
        due = late.when()
        if due is not None and due > loop.time() and not late.cancelled():
            late.cancel()
        loop.add_signal_handler(signal.SIGINT, names.append, "signal")
        loop.remove_signal_handler(signal.SIGINT)
        loop.call_later(0.02, beat.cancel)
        loop.run()
        raised = loop.raised
    assert [type(error) for error in raised] == [LookupError]
    assert names[0] == "soon"
    assert "late" not in names


def in_the_loop_behind_asyncore() -> None:
    loop: fastcore.Loop = fastcore.get_loop()
    channels: MutableMapping[int, Any] = loop.map
    assert channels is fastcore.asyncore.socket_map
    loop.call_soon(loop.stop)
    loop.run_once(timeout=0.0)
    deadline: float | None = loop.next_deadline()
    assert deadline is None or deadline > 0
    loop.close()


def leaves_a_loop() -> None:
    def leave() -> None:
        raise ExitNow

    with fastcore.Loop(map={}) as loop:
        loop.call_soon(leave)
        try:
            loop.run()
        except ExitNow:
            return
    raise AssertionError("ExitNow did not leave the loop")


def main() -> None:
    fastcore.install()
    in_a_loop_of_its_own()
    in_the_loop_behind_asyncore()
    leaves_a_loop()
    assert fastcore.engine in ("c", "python")
    assert fastcore.__version__


if __name__ == "__main__":
    main()
