"""Who is in the loop, and what all others want of it meanwhile.

A loop is for one thread at a time.  The thread that is in it does as it likes; what another one
wants done to the loop's channels and timers goes into the inbox, and the thread that is in takes it
out before it waits again.  Where nobody is in, whoever comes does it at once.  Signal handlers run
in the thread that they interrupt, and so are in the loop where that is.

A signal handler may raise at any moment, also here.  So whatever is changed for a while is put back
twice, in a `finally` within a `finally`, by what does no harm when it is done again; and who holds
the door is asked of the door, which takes and gives itself in one piece.

Must not know what is wanted.
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
    door to do so, with the number of loops that each is in.  Exceptions of what was in the inbox go
    to `report`, but for those of `passed_through`, which are raised.  Where something was wanted
    while nobody takes turns, `host()` is called, once until `told` is taken back.
    """

    def __init__(
        self, kernel: Kernel, passed_through: tuple[type[BaseException], ...], report: Report
    ) -> None:
        self.owner: int = 0
        self.drivers: dict[int, int] = {}
        self.inbox: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self.passed_through: tuple[type[BaseException], ...] = passed_through
        self.report: Report = report
        self.host: Callable[[], None] | None = None
        self.told: bool = False
        self._kernel = kernel
        self._door: Any = RLock()

    # -- in and out --------------------------------------------------------------------------

    def is_in(self) -> bool:
        """Whether this thread is in the loop."""
        return bool(self._door._is_owned())

    def come_in(self, seconds: float) -> bool:
        """Come in; wait at most that long for another thread to leave.

        To be called within a `try` whose `finally` calls leave(), within one that calls go_out().
        """
        if not (self._door.acquire(True, seconds) if seconds > 0 else self._door.acquire(False)):
            return False
        self.owner = get_ident()
        return True

    def leave(self) -> None:
        """Go out, when all is done that is in the inbox; does nothing for who is not in."""
        if self.inbox and self._door._is_owned():
            try:
                self.take()
            finally:
                self.go_out()
        else:
            self.go_out()

    def go_out(self) -> None:
        """Go out at once; does nothing for who is not in."""
        if self._door._is_owned():
            self.owner = 0
            self._door.release()

    def enter(self, seconds: float, action: Callable[..., Any], *args: Any) -> bool:
        """Do `action(*args)` in the loop; wait at most that long for another thread to leave.

        Returns whether it was done.
        """
        if self._door._is_owned():
            action(*args)
            return True
        try:
            return self._visit(seconds, action, args)
        finally:
            self.take_if_free()  # what came while we were on our way out

    def _visit(self, seconds: float, action: Callable[..., Any], args: tuple[Any, ...]) -> bool:
        entered = False
        # Without a return within: the way out of that is outside both.
        try:
            try:
                entered = self.come_in(seconds)
                if entered:
                    self.take()
                    action(*args)
            finally:
                self.leave()
        finally:
            self.go_out()
        return entered

    # -- what others want --------------------------------------------------------------------

    def take(self) -> None:
        """Do what is in the inbox; to be called by who is in."""
        while self.inbox:
            action, args = self.inbox.popleft()
            try:
                action(*args)
            except self.passed_through:
                raise
            except BaseException as error:
                self.report(error, action, "what another thread asked for raised")

    def take_if_free(self) -> None:
        """Do what is in the inbox, where nobody is in the loop to do it."""
        while self.inbox and not self._door._is_owned():
            if not self._visit(0.0, _nothing, ()):
                return

    def do(self, action: Callable[..., Any], *args: Any) -> None:
        """Do `action(*args)`: now, or in the thread that is in the loop, where that is another."""
        if self.owner == get_ident():
            action(*args)
        elif self.enter(0.0, action, *args):
            self.tell_host()
        else:
            self.inbox.append((action, args))
            self._kernel.wake()
            self.take_if_free()  # it may have just left

    def tell_driver(self) -> None:
        """End the wait of another thread that is in the loop, or tell the host that nobody is."""
        if not self.owner:
            self.tell_host()
        elif self.owner != get_ident():
            self._kernel.wake()

    def tell_host(self) -> None:
        """Have the host take a turn, where there is one, and nobody takes turns."""
        if self.host is not None and not (self.told or self.drivers):
            self.told = True
            self.host()

    def after_fork(self) -> None:
        """In a child: the other threads are not here, nor what they held."""
        self.told = False
        held = self._door._is_owned()
        self._door = RLock()
        for one in list(self.drivers):
            if one != get_ident():
                del self.drivers[one]
        if held:
            self._door.acquire()
        else:
            self.owner = 0


def _nothing() -> None:
    """What is in the inbox is all that there is to do."""
