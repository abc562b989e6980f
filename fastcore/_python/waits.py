"""Waits: for how long the kernel is waited for, and what is looked after meanwhile.

Knows when timers, sweeps and the look for closed sockets are due; must not know turns, threads, or
what becomes of what happened.
"""

from __future__ import annotations

from math import inf
from typing import Any

from .dispatch import Dispatch
from .interest import Interest
from .kernel import Kernel, monotonic
from .timers import Timers

# When nothing happened for QUIET seconds the engine looks for sockets that were closed without its
# knowledge.  When it has waited ASLEEP seconds for nothing it leaves that be for SLEEP seconds: of
# the program's own code only another thread can have closed one.
QUIET = 0.1
ASLEEP = 1.5
SLEEP = 60.0


class Waits:
    """The waits of one engine."""

    def __init__(
        self, kernel: Kernel, interest: Interest, dispatch: Dispatch, timers: Timers
    ) -> None:
        self.idle: float = 0.0  # how long nothing has happened, in seconds of waits
        self._kernel = kernel
        self._interest = interest
        self._dispatch = dispatch
        self._timers = timers

    def wait(self, timeout: float, at_once: bool) -> list[Any]:
        """Wait until something happens, at most until the timeout, a timer or a sweep is due."""
        # What another thread has asked for meanwhile has woken the kernel.
        timers = self._timers
        if at_once or timers.ready:
            return self._kernel.wait(0.0)
        if timers.next_due < inf or self._interest.sweeps.suspects:
            return self._wait_for_what_is_due(timeout, QUIET if self.idle <= ASLEEP else inf)
        if self.idle > ASLEEP:
            return self._kernel.wait(timeout)
        fired = self._kernel.wait(QUIET if timeout > QUIET else timeout)
        if fired or self._kernel.woken:
            return fired
        if timeout <= QUIET:
            self._interest.sweeps.hasten()
            return fired
        self._dispatch.look_for_closed()
        if self._interest.dirty:
            return self._kernel.wait(0.0)
        return self._wait_for_what_is_due(timeout - QUIET, inf)

    def _wait_for_what_is_due(self, timeout: float, quiet: float) -> list[Any]:
        """Do so, and after `quiet` seconds look for sockets that others have closed."""
        now = monotonic()
        deadline, look = now + timeout, now + quiet
        while True:
            sweep = max(self._interest.sweeps.next_due(), now)
            due = min(deadline, look, self._timers.first_due(), sweep)
            fired = self._kernel.wait(max(0.0, due - now))
            if fired or self._kernel.woken or self._timers.ready:
                return fired
            now = monotonic()
            if self._timers.next_due <= now:
                return fired
            if now >= look:
                look = inf
                self._dispatch.look_for_closed()
                if self._interest.dirty:
                    return self._kernel.wait(0.0)
            if now >= sweep:
                if self._dispatch.ask_and_write(self._interest.begin_sweep(now)):
                    return self._kernel.wait(0.0)
            elif now >= deadline:
                self._interest.sweeps.hasten()
                return fired

    def sleeps(self, waited: float) -> bool:
        """Whether nothing has happened for so long that it is no use to look for closed sockets.

        The last wait has brought nothing in `waited` seconds.
        """
        self.idle = 0.0 if self._kernel.woken or self.idle > SLEEP else self.idle + waited
        return self.idle > ASLEEP
