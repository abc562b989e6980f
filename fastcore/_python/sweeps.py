"""When all channels are asked, and what is learnt from their answers.

What a channel wants can change because other code ran: a thread that then pulls a trigger, the
other half of a relay, a timer.  A sweep, which asks everybody, finds that out, and it is worth its
cost after the handlers of some classes only.  So classes begin as suspects, after which a sweep
follows at once; each sweep that finds nothing makes those that ran since the last one less suspect,
and one that finds a change that nobody announced makes suspects of them again.

Knows classes and the clock; must not know who is asked, nor how.
"""

from __future__ import annotations

from math import inf
from weakref import WeakKeyDictionary

from .kernel import monotonic

# A sweep after which suspects ran is followed by a pause as long as itself, and each doubt less
# doubles it: up to a hundred times as long.
_TRUSTED = 7
_LONGEST_PAUSE = 0.1  # seconds


class Sweeps:
    """The rhythm of the sweeps over one map."""

    def __init__(self) -> None:
        self.count: int = 0
        self.suspects: bool = False  # they ran since the last sweep
        self.caught: bool = False  # an answer was another one, and nobody had announced that
        self._ran: set[type] = set()  # the classes whose handlers ran since the last sweep
        self._trust: WeakKeyDictionary[type, int] = WeakKeyDictionary()  # 0 to _TRUSTED
        self._least = _TRUSTED  # of those that ran
        self.began: float = 0.0  # 0: none is under way
        self._ended = 0.0
        self._took = 0.0

    def note(self, kind: type) -> None:
        """Note that a handler of that class is going to run."""
        if kind in self._ran:
            return
        self._ran.add(kind)
        trust: int = self._trust.get(kind, 0)
        if trust < self._least:
            self._least = trust
            self.suspects = True

    def is_due(self, now: float) -> bool:
        """Whether a sweep may begin."""
        return now >= self._ended + self._pause()

    def _pause(self) -> float:
        return min(self._took * (1 << self._least), _LONGEST_PAUSE)

    def next_due(self) -> float:
        """Return the time at which one should begin by itself, inf where nothing has run."""
        if not self._ran:
            return inf
        # A timer in each wait would cost more than the sweep.
        return self._ended + (self._pause() if self.suspects else _LONGEST_PAUSE)

    def hasten(self) -> None:
        """Have one begin in the next turn: nothing has happened until the timeout of this one."""
        self._ended = 0.0

    def begin(self, now: float) -> None:
        """Note that one begins."""
        self.count += 1
        self.began = now

    def end(self, told: bool) -> None:
        """Learn from one; `told`: it took longer, because the kernel was told of changes."""
        self._ended = monotonic()
        took = self._ended - self.began
        if not told or took < self._took or not self._took:
            self._took = took
        self.began = 0.0
        for kind in self._ran:
            self._trust[kind] = 0 if self.caught else min(self._trust.get(kind, 0) + 1, _TRUSTED)
        self.forget()

    def forget(self) -> None:
        """Forget who ran."""
        self._ran.clear()
        self._least = _TRUSTED
        self.suspects = self.caught = False
