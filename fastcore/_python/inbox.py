"""Who is in the loop, and what all others have asked of it meanwhile.

A loop is for one thread at a time.  The thread that is in it does as it likes; what another one
wants done to the loop's channels and timers goes into the inbox, and the thread that is in takes it
out before it waits again.  Where nobody is in, whoever comes does it at once.  Signal handlers run
in the thread that they interrupt, and so are in the loop where that is.

Must not know what is asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import RLock
from typing import Any

from .kernel import Kernel, get_ident

Report = Callable[[BaseException, Any, str], None]


class Guard:
    """The door of a loop, and its inbox.

    `owner` is the thread that is in (0: none), `drivers` are those that take turns, or wait at the
    door to do so, once for each nesting.  Exceptions of what was asked for go to `report`, but for
    those of `passed_through`, which are raised.
    """

    def __init__(
        self, kernel: Kernel, passed_through: tuple[type[BaseException], ...], report: Report
    ) -> None:
        self.owner: int = 0
        self.drivers: list[int] = []
        self.asked: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self.passed_through: tuple[type[BaseException], ...] = passed_through
        self.report: Report = report
        self._kernel = kernel
        self._door: Any = RLock()
        self._depth = 0

    def enter(self, seconds: float) -> bool:
        """Come in, also once more; wait at most that long for another thread to leave."""
        if self.owner == get_ident():
            self._depth += 1
            return True
        if not (self._door.acquire(True, seconds) if seconds > 0 else self._door.acquire(False)):
            return False
        self.owner = get_ident()
        self._depth = 1
        return True

    def leave(self) -> None:
        """Go out, when all is done that others asked for."""
        if self._depth > 1:
            self._depth -= 1
            return
        try:
            self.take()
        finally:
            self._go_out()
            self.take_if_free()  # what came while we were on our way out

    def _go_out(self) -> None:
        self._depth = 0
        self.owner = 0
        self._door.release()

    def take_if_free(self) -> None:
        """Do what was asked for, where nobody is in the loop to do it."""
        while self.asked and self.enter(0.0):
            try:
                self.take()
            finally:
                self._go_out()

    def take(self) -> None:
        """Do what others have asked for; to be called by who is in."""
        while self.asked:
            action, args = self.asked.popleft()
            try:
                action(*args)
            except self.passed_through:
                raise
            except BaseException as error:
                self.report(error, action, "what another thread asked for raised")

    def do(self, action: Callable[..., Any], *args: Any) -> None:
        """Do `action(*args)`: now, or in the thread that is in the loop, where that is another."""
        if self.owner == get_ident():
            action(*args)
        elif self.enter(0.0):
            try:
                self.take()
                action(*args)
            finally:
                self.leave()
        else:
            self.asked.append((action, args))
            self._kernel.wake()
            self.take_if_free()  # it may have just left

    def tell_driver(self) -> None:
        """End the wait of another thread that is in the loop."""
        if self.owner and self.owner != get_ident():
            self._kernel.wake()

    def after_fork(self) -> None:
        """In a child: the other threads are not here, nor what they held."""
        self._door = RLock()
        ours = get_ident()
        self.drivers[:] = [one for one in self.drivers if one == ours]
        if self.owner == ours:
            self._door.acquire()
        else:
            self.owner = self._depth = 0
