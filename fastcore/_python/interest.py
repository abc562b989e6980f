"""Interest: what the channels of a map want, what the kernel was told of it, who is asked when.

Interest is remembered.  A channel is asked again where its answer may have changed: those that are
dirty (their handler ran, they are new, one of their methods was called) before the next wait, and
all others in sweeps, which take a bounded share of the time.  Knows the map and the kernel; asking
itself and what exceptions mean is the engine's business.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from operator import index
from typing import Any

from .._codes import NOBODY
from .kernel import LARGEST, Kernel, Watched, identity, monotonic
from .table import Table

# A sweep may take one part in SWEEP_SHARE of the time, and comes after a pause (in seconds);
# SWEEP_ALWAYS channels and fewer are swept on every turn.
SWEEP_SHARE = 20
SWEEP_PAUSE = 0.001
SWEEP_ALWAYS = 16


class Registration(Watched):
    """One entry of the map as it was last seen.

    It does not hold the channel: `identity` says which object stood in the map under `key`, NOBODY
    once the entry is dropped.  `dirty`: it will be asked; `paused`: it takes no part for now.
    """

    __slots__ = ("dirty", "identity", "key", "paused")

    key: Any
    identity: int
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
        self.sweeps: int = 0
        self.sweep_wanted: bool = False  # an answer may have changed since the last one
        self.sweep_due: float = 0.0
        self.sweep_began: float = 0.0  # 0: that is not measured

    # -- what becomes of an entry ------------------------------------------------------------

    def attach(self, key: Any, channel: Any) -> None:
        """Note that `map[key]` is `channel` from now on."""
        known = self.registrations.get(key)
        if known is not None:
            self.drop(known)
        registration = Registration.__new__(Registration)
        registration.key = key
        registration.fd = key if type(key) is int and 0 <= key <= LARGEST else -1
        registration.want = registration.registered = registration.fired = 0
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
        known = self.registrations.get(key)
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
        size = len(self.map)
        if len(self.registrations) != size:
            self.reconcile()
        if size > SWEEP_ALWAYS and not self.strict:
            now = monotonic()
            if now < self.sweep_due:
                self.sweep_wanted = True
                return self.take_dirty()
            self.sweep_began = now
        self.sweep_wanted = False
        self.sweeps += 1
        if self.dirty:
            self.dirty = []
        return self.registrations.to_list()

    def take_dirty(self) -> list[Registration]:
        """Return those that are dirty, and begin to note new ones."""
        if len(self.registrations) != len(self.map):
            self.reconcile()
        asked = self.dirty
        if asked:
            self.dirty = []
        return asked

    def end_sweep(self) -> None:
        """Note what it took, and so when the next one is due."""
        now = monotonic()
        self.sweep_due = now + max((now - self.sweep_began) * SWEEP_SHARE, SWEEP_PAUSE)
        self.sweep_began = 0.0

    def next_sweep(self) -> float:
        """Return the time at which a sweep is due, inf where there is nothing to sweep for."""
        return self.sweep_due if self.sweep_wanted and self.registrations else inf

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
        before = monotonic() if self.sweep_began > 0 else 0.0
        try:
            self.kernel.set(registration, registration.want)
        except OSError:
            registration.paused = True  # or it would fail again on every turn
            raise
        finally:
            if before > 0:
                # Newcomers are no part of what the next sweep will cost.
                self.sweep_began += monotonic() - before


def _number_of(key: Any) -> int:
    """Return the descriptor that a key of the map stands for."""
    number = index(key)
    if number > LARGEST:
        raise OverflowError(f"{number} is no descriptor")
    return number
