"""Interest: what the channels of a map want, what the kernel was told of it, who is asked when.

Interest is remembered.  A channel is asked again where its answer may have changed: those that are
dirty (their handler ran, they are new, one of their methods was called) before the next wait, all
others in sweeps (sweeps.py says when), and between these those with an event lately.  Knows the map
and the kernel; asking itself and what exceptions mean is the engine's business.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import index
from typing import Any

from .._codes import NOBODY
from .kernel import LARGEST, Kernel, Watched, identity, monotonic
from .sweeps import Sweeps
from .table import Table

# SWEEP_ALWAYS channels and fewer are swept on every turn.
SWEEP_ALWAYS = 16

# So many channels with an event end a period: "lately" is this one and the one before.
LATELY = 16
PERIODS = 250  # until their numbers begin again


class Registration(Watched):
    """One entry of the map as it was last seen.

    It does not hold the channel: `identity` says which object stood in the map under `key`, NOBODY
    once the entry is dropped.  `dirty`: it will be asked; `paused`: it takes no part for now;
    `period`: when it had its last event.
    """

    __slots__ = ("dirty", "identity", "key", "paused", "period")

    key: Any
    identity: int
    period: int
    dirty: bool
    paused: bool


class Interest:
    """The registrations of one map, and those of them that are to be asked."""

    def __init__(self, map: Any, kernel: Kernel, strict: bool) -> None:
        self.map: Any = map
        self.look_up: Callable[[Any], Any] = map.get
        self.plain: dict[Any, Any] | None = map if type(map) is dict else None  # the quick way
        self.kernel: Kernel = kernel
        self.strict: bool = strict
        self.registrations: Table = Table()  # of Registration, by the keys of the map
        self.dirty: list[Registration] = []
        self.sweeps: Sweeps = Sweeps()
        self.learning: bool = False  # there are so many that not all are asked on every turn
        self.period: int = 1
        self._recent: list[Registration] = []  # with an event in this period
        self._before: list[Registration] = []  # or in the one before
        self._postponed = False  # the sweep that is due

    # -- what becomes of an entry ------------------------------------------------------------

    def attach(self, key: Any, channel: Any) -> None:
        """Note that `map[key]` is `channel` from now on."""
        known = self.registrations.get(key)
        if known is not None:
            self.drop(known)
        registration = Registration.__new__(Registration)
        registration.key = key
        registration.fd = key if type(key) is int and 0 <= key <= LARGEST else -1
        registration.want = registration.registered = registration.fired = registration.period = 0
        registration.identity = identity(channel)
        registration.dirty = registration.paused = False
        self.registrations[key] = registration
        self.mark(registration)

    def detach(self, key: Any) -> None:
        """Note that `map[key]` is gone; before its descriptor is closed."""
        known = self.registrations.get(key)
        if known is not None:
            self.drop(known)

    def touch(self, key: Any, channel: Any) -> None:
        """Note that what `channel` wants may have changed."""
        known = self.registrations.get(key)
        if known is not None and known.identity == identity(channel):
            self.mark(known)

    def pause(self, key: Any, channel: Any) -> Registration | None:
        """Leave `channel` alone until resume(); return its registration if that is news."""
        known: Registration | None = self.registrations.get(key)
        if known is None or known.identity != identity(channel) or known.paused:
            return None
        known.paused = True
        self.mark(known)
        return known

    def resume(self, registration: Registration) -> None:
        """Let it take part again."""
        registration.paused = False
        self.mark(registration)

    def mark(self, registration: Registration) -> None:
        """Have it asked before the next wait."""
        if not registration.dirty:
            registration.dirty = True
            self.dirty.append(registration)

    def drop(self, registration: Registration) -> None:
        """Forget an entry, and have the kernel forget it."""
        if registration.identity != NOBODY:
            registration.identity = NOBODY
            registration.want = 0
            del self.registrations[registration.key]
        if registration.registered:
            self.kernel.set(registration, 0)

    def drop_all(self) -> None:
        """Forget all entries."""
        for registration in self.registrations.to_list():
            self.drop(registration)
        self.dirty.clear()
        self._recent, self._before = [], []

    def forget_dropped(self) -> None:
        """Keep nothing of what went while nobody drives the loop."""
        # A program may take turns by itself (`asyncore.poll()`): then nobody asks the dirty ones.
        if len(self.dirty) > 2 * len(self.registrations):
            kept: list[Registration] = []
            for registration in self.dirty:
                if registration.identity != NOBODY:
                    kept.append(registration)
            self.dirty = kept

    def reconcile(self) -> None:
        """Follow what others did to the map."""
        for key, channel in list(self.map.items()):
            known = self.registrations.get(key)
            if known is None or known.identity != identity(channel):
                self.attach(key, channel)
        if len(self.registrations) != len(self.map):
            for registration in self.registrations.to_list():
                if registration.key not in self.map:
                    self.drop(registration)

    # -- who is asked when -------------------------------------------------------------------

    def next_to_ask(self) -> list[Registration]:
        """Return those that are asked before the next wait: the dirty ones, or in a sweep all."""
        if len(self.map) <= SWEEP_ALWAYS or self.strict:
            if self.learning:
                self.learning = False
                self.sweeps.forget()
            self.sweeps.count += 1
            return self._all()
        self.learning = True
        if len(self._recent) >= LATELY:
            self.period = self.period % PERIODS + 1
            self._before, self._recent = self._recent, []
        now = monotonic()
        if self.sweeps.is_due(now):
            # First those with an event lately: what a thread has answered is for one of them.
            self._postponed = self.sweeps.suspects and not self._postponed
            if not self._postponed:
                return self.begin_sweep(now)
        asked = self.take_dirty()
        return self._with_recent(asked) if self.sweeps.suspects else asked

    def take_dirty(self) -> list[Registration]:
        """Return those that are dirty, and begin to note new ones."""
        if len(self.registrations) != len(self.map):
            self.reconcile()
        asked = self.dirty
        if asked:
            self.dirty = []
        return asked

    def next_after_writes(self) -> list[Registration]:
        """Return those that are asked when others have just written, which may change answers."""
        if self.learning:
            return self.take_dirty()  # and a sweep will follow, if they are suspects
        return self._all()

    def begin_sweep(self, now: float) -> list[Registration]:
        """Return all, and begin to note those that are dirty."""
        self._postponed = False
        self.sweeps.begin(now)
        return self._all()

    def _all(self) -> list[Registration]:
        if len(self.registrations) != len(self.map):
            self.reconcile()
        if self.dirty:
            self.dirty = []
        return self.registrations.to_list()

    def note_event(self, registration: Registration) -> None:
        """Note that it had an event in this period."""
        registration.period = self.period
        self._recent.append(registration)

    def _with_recent(self, asked: list[Registration]) -> list[Registration]:
        """Return also those that had an event lately: the answers of threads and relays."""
        asked = list(asked)
        for registration in self._before:
            if registration.period != self.period and not registration.dirty:
                asked.append(registration)
        for registration in self._recent:
            if not registration.dirty:
                asked.append(registration)
        return asked

    def set_aside(self, registration: Registration, channel: Any) -> None:
        """Let one take no part that is paused, or in whose place `channel` stands in the map."""
        key = registration.key
        if identity(channel) != registration.identity:
            self.drop(registration)
            if channel is not None and key not in self.registrations:
                self.attach(key, channel)
        else:
            registration.want = 0
            if registration.registered:
                self.kernel.set(registration, 0)

    # -- what the kernel is told ---------------------------------------------------------------

    def tell(self, registration: Registration) -> None:
        """Tell the kernel what a channel wants; raises OSError where that is refused."""
        if registration.fd < 0:
            registration.fd = _number_of(registration.key)  # an odd one
        try:
            self.kernel.set(registration, registration.want)
        except OSError:
            registration.paused = True  # or it would fail again on every turn
            raise


def _number_of(key: Any) -> int:
    """Return the descriptor that a key of the map stands for."""
    number = index(key)
    if number > LARGEST:
        raise OverflowError(f"{number} is no descriptor")
    return number
