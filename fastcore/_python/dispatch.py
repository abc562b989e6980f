"""Dispatch: questions to channels, what happened told to them, and where their exceptions go.

Knows channels by the names of their methods, their interest, and the kernel; must not know turns,
timers or threads.
"""

from __future__ import annotations

import _socket
import socket
from collections.abc import Callable
from errno import EBADF
from math import inf
from typing import Any

from .. import _calls
from .._calls import UNKNOWN, Calls, find_socket
from .._codes import (
    DISCONNECTED,
    ENDED,
    EXHAUSTED,
    HANGUP,
    INVALID,
    NOBODY,
    READ,
    READABLE,
    SHORT_FOR_NOW,
    URGENT,
    WRITABLE,
    WRITE,
)
from .._descriptors import count_unread
from .._secure import holds_unread, is_secure, is_wait
from .inbox import Report
from .interest import Interest, Registration
from .kernel import Kernel, identity, monotonic

# The look for sockets that were closed by others takes one part in LOOK_SHARE of the time at most,
# where there are more than LOOK_ALWAYS channels.
LOOK_SHARE = 100
LOOK_ALWAYS = 16

_socket_class = socket.socket
_number_of = _socket.socket.fileno  # of any subclass, and no code of the program's runs


class Mode:
    """How a loop is driven: what ends it, and where exceptions go.

    `until_empty`: it ends when the map is empty; `until_idle`: when there is no timer, callback or
    signal handler either.  `contained`: what predicates and error handlers raise stays in the loop,
    where it is reported.  `disconnect_closes`: a lost connection is handle_close()'s business, not
    handle_error()'s.  `hosted`: a turn at a time, without a wait, by a loop that waits in its own
    way.
    """

    __slots__ = ("contained", "disconnect_closes", "hosted", "until_empty", "until_idle")

    def __init__(
        self,
        *,
        until_empty: bool = False,
        until_idle: bool = False,
        contained: bool = False,
        disconnect_closes: bool = False,
        hosted: bool = False,
    ) -> None:
        self.until_empty: bool = until_empty
        self.until_idle: bool = until_idle
        self.contained: bool = contained
        self.disconnect_closes: bool = disconnect_closes
        self.hosted: bool = hosted


class Dispatch:
    """Asks the channels of one map, and calls their handlers."""

    def __init__(
        self,
        interest: Interest,
        kernel: Kernel,
        passed_through: tuple[type[BaseException], ...],
        report: Report,
        rest: Callable[[Registration], None],
        again: Callable[[Any], None],
    ) -> None:
        self.mode: Mode = Mode()
        self._interest = interest
        self._kernel = kernel
        self._passed_through = passed_through
        self._report = report
        self._rest = rest  # lets a paused one take part again, a moment later
        self._again = again  # calls read_again() in the next turn
        self._unread: dict[Any, int] = {}  # key and identity of those whose socket holds data
        self._secure: dict[Any, int] = {}  # of those whose socket may hold some
        self._writers: list[Registration] = []  # they came to want to write
        self._fired: list[Any] = []  # what is being delivered
        self._serving: Registration | None = None  # whose handler runs
        self.looks = 0  # for what others have closed
        self._look_due = 0.0
        self.look_missed: float = inf  # when one is due that was asked for too early
        self._failures = 0  # how many exceptions channels were told of
        self.call_through(_calls)

    def call_through(self, calls: Calls) -> None:
        """Ask and call channels by these functions from now on."""
        self._ask_channel = calls.ask
        self._tell_readable = calls.tell_readable
        self._tell_writable = calls.tell_writable
        self._tell_urgent = calls.tell_urgent
        self._tell_closed = calls.tell_closed

    # -- questions, and writes at once ---------------------------------------------------------

    def settle(self) -> bool:
        """Ask those that are dirty, and have written what can be written at once.

        Returns whether a handler ran.
        """
        return self.ask_and_write(self._interest.take_dirty())

    def ask_and_write(self, asked: list[Registration]) -> bool:
        """Do so for these."""
        if not asked:
            return False
        interest, changes = self._interest, self._kernel.changes
        self._ask(asked, True)
        if interest.dirty:  # entries of the map that others replaced
            self._ask(interest.take_dirty(), True)
        if interest.sweeps.began > 0:
            interest.sweeps.end(changes != self._kernel.changes)
        if self._writers:
            return self._write_now()
        return False

    def _ask(self, asked: list[Registration], eager: bool) -> None:
        """Ask channels what they want, and tell the kernel.

        With `eager`, those that came to want to write are not told but noted as writers.
        """
        interest = self._interest
        plain, look_up, ask_channel = interest.plain, interest.look_up, self._ask_channel
        try:
            for registration in asked:
                announced = registration.dirty
                registration.dirty = False
                key = registration.key
                channel = plain.get(key) if plain is not None else look_up(key)
                if identity(channel) != registration.identity or registration.paused:
                    interest.set_aside(registration, channel)
                    continue
                want = ask_channel(channel, self)
                if want == registration.registered:
                    registration.want = want
                elif want != UNKNOWN and registration.identity != NOBODY:
                    # Else it could not answer, or its answer has closed it.
                    if not announced and want != registration.want:
                        interest.sweeps.caught = True
                    registration.want = want
                    if eager and want & WRITE & ~registration.registered and registration.fd >= 0:
                        self._writers.append(registration)
                    else:
                        self._tell_kernel(registration, channel)
        except BaseException:
            # Nobody may be forgotten because one channel cannot answer.
            self._writers.clear()
            interest.sweeps.began = 0.0
            for registration in asked:
                interest.mark(registration)
            raise

    def _tell_kernel(self, registration: Registration, channel: Any) -> None:
        """Tell the kernel what the channel wants, and the channel if it may not have that."""
        if not registration.registered and is_secure(find_socket(channel)):
            self._secure[registration.key] = registration.identity
        try:
            self._interest.tell(registration)
        except OSError as error:
            if not self._tell_refused(registration, channel, error):
                raise
        if self._unread and registration.want & READ and registration.key in self._unread:
            self._again(registration.key)  # it did not want to read, and now it does

    def _tell_refused(self, registration: Registration, channel: Any, error: OSError) -> bool:
        """Tell the channel, while that is active, that the kernel does not watch it, or not yet.

        Returns False where the error is to leave the loop.
        """
        if error.errno == EBADF:
            self._tell_closed(channel, self)
            return True
        if error.errno in SHORT_FOR_NOW:
            self._rest(registration)
        outer, self._serving = self._serving, None  # in a nested loop: that one has no part in it
        try:
            return self.failed(channel, error)
        finally:
            self._serving = outer

    def _write_now(self) -> bool:
        """Let the writers write at once that can; return whether a handler ran.

        Only a channel that really cannot write enters the kernel's write set: that saves two
        system calls and one turn for each message of a server that answers.
        """
        interest = self._interest
        writers = self._writers
        self._writers = []
        acted = False
        try:
            ready = self._kernel.ready_now(writers)
            if ready:
                acted = True
                self.deliver(ready)
        finally:
            for registration in writers:
                interest.mark(registration)
        self._ask(interest.next_after_writes(), False)
        return acted

    # -- delivery ------------------------------------------------------------------------------

    def deliver(self, fired: list[Any]) -> None:
        """Call the handlers of those to which something happened, each when it is its turn.

        Nobody hears what is not for him: the map must still hold the very object that was watched.
        A nested loop takes back what is left of the list.
        """
        interest = self._interest
        plain, look_up = interest.plain, interest.look_up
        learning, kind = interest.learning, None
        outer_fired, outer_serving = self._fired, self._serving
        self._fired = fired
        try:
            for registration in fired:
                self._serving = registration
                if not registration.dirty:
                    registration.dirty = True
                    interest.dirty.append(registration)
                key = registration.key
                channel = plain.get(key) if plain is not None else look_up(key)
                if identity(channel) != registration.identity:
                    continue
                if learning:
                    if registration.period != interest.period:
                        interest.note_event(registration)
                    if type(channel) is not kind:
                        kind = type(channel)  # pyright: ignore
                        interest.sweeps.note(kind)  # pyright: ignore
                if registration.fired == READ:
                    if registration.want & READ:
                        self._tell_readable(channel, self)
                elif registration.fired == WRITE:
                    if registration.want & WRITE:
                        self._tell_writable(channel, self)
                else:
                    self._serve(registration, channel)
        finally:
            self._fired, self._serving = outer_fired, outer_serving
        if self._secure:
            self._look_into(fired)

    def _serve(self, registration: Registration, channel: Any) -> None:
        """Call the handlers of one channel: read, write, urgent data, end."""
        fired, want = registration.fired, registration.want
        writing = fired & WRITABLE and want & WRITE
        ended = self.mode.disconnect_closes and fired & ENDED
        unread = count_unread(registration.fd) if ended and want & READ else 0
        failures = self._failures
        if fired & READABLE and want & READ:
            self._tell_readable(channel, self)
            if not self._is_current(registration, channel):
                return
        elif fired & HANGUP and want & WRITE:
            writing = WRITE  # nobody reads here: only a write can meet the end
        if writing:
            self._tell_writable(channel, self)
        if fired & (URGENT | INVALID) and self._is_current(registration, channel):
            if fired & INVALID:
                self._tell_closed(channel, self)
            elif want:
                self._tell_urgent(channel, self)
                if self._is_current(registration, channel):
                    self._kernel.mute(registration)
        if ended and failures == self._failures and self._is_current(registration, channel):
            self._tell_unmet_end(registration, channel, unread)

    def _tell_unmet_end(self, registration: Registration, channel: Any, unread: int) -> None:
        """Tell a channel of an end that its handlers have not met, once what came before is read.

        `unread` is how many bytes there were before they were called.
        """
        reads_on = registration.want & READ and 0 < count_unread(registration.fd) < unread
        if holds_unread(find_socket(channel)):
            return
        if not reads_on and self._kernel.readiness(registration.fd) & ENDED:
            self._tell_closed(channel, self)

    def _is_current(self, registration: Registration, channel: Any) -> bool:
        """Whether the map still holds the very object that was watched."""
        return (
            registration.identity == identity(channel)
            and self._interest.look_up(registration.key) is channel
        )

    # -- data that a socket object holds -------------------------------------------------------

    def note_unread(self, key: Any) -> None:
        """Have who stands in the map read in the next turn: no kernel tells of what it holds."""
        channel = self._interest.look_up(key)
        if self._unread.get(key) != identity(channel):
            self._unread[key] = identity(channel)
            self._again(key)

    def _look_into(self, fired: list[Any]) -> None:
        """Note those whose secure socket holds data, however their handler has read it."""
        for registration in fired:
            known = self._secure.get(registration.key)
            if known is None:
                continue
            channel = self._interest.look_up(registration.key)
            if known != identity(channel):
                del self._secure[registration.key]
            elif holds_unread(find_socket(channel)):
                self.note_unread(registration.key)

    def read_again(self, key: Any) -> None:
        """Tell such a channel that it can be read, again and again while it leaves something.

        While it does not want to read it stays noted, until it does: see _tell_kernel().
        """
        known = self._unread.get(key)
        registration = self._interest.registrations.get(key)
        channel = self._interest.look_up(key)
        if (
            registration is None
            or known != identity(channel)
            or registration.identity != known
            or not ((sock := find_socket(channel)) is None or holds_unread(sock))
        ):
            self._unread.pop(key, None)
        elif registration.want & READ:
            del self._unread[key]
            registration.fired = READ
            self.deliver([registration])
            if self._is_current(registration, channel) and holds_unread(find_socket(channel)):
                self.note_unread(key)

    # -- nested loops --------------------------------------------------------------------------

    def begin_nested(self) -> None:
        """Take back what the turn around a nested loop has to deliver: that one delivers it."""
        # Readiness is level-triggered: what still holds is reported again.
        for registration in self._fired:
            registration.fired = 0
            self._interest.mark(registration)
        self._fired.clear()
        self._kernel.begin_nested()

    def end_nested(self) -> None:
        """Let the turn around a nested loop go on."""
        self._kernel.end_nested()

    def look_for_closed(self) -> None:
        """Close the channels whose descriptor was closed by others, and watch what replaced it.

        epoll and kqueue forget such a descriptor silently.  Looked for when nothing happens, and
        now and then.  (One that was only detached from its socket object is still open.)
        """
        start = monotonic()
        if start < self._look_due:
            self.look_missed = self._look_due
            return
        self.look_missed = inf
        self.looks += 1
        self._kernel.look_at_own()
        interest = self._interest
        for registration in interest.registrations.to_list():
            channel = interest.look_up(registration.key)
            if registration.paused or identity(channel) != registration.identity:
                continue
            if registration.registered:
                self._look_at(registration, channel)
                continue
            sock = find_socket(channel)
            if not issubclass(type(sock), _socket_class) or _number_of(sock) >= 0:
                continue
            if self._kernel.readiness(registration.fd) & INVALID:
                registration.paused = True
                interest.mark(registration)
                self._tell_closed(channel, self)
        if len(interest.registrations) > LOOK_ALWAYS:
            end = monotonic()
            self._look_due = end + (end - start) * LOOK_SHARE

    def _look_at(self, registration: Registration, channel: Any) -> None:
        """See to it that the kernel watches the file that the number means by now."""
        try:
            self._kernel.look(registration)
        except OSError as error:
            registration.paused = True
            self._interest.mark(registration)
            if not self._tell_refused(registration, channel, error):
                raise

    # -- exceptions ----------------------------------------------------------------------------

    def failed_to_answer(self, channel: Any, error: BaseException) -> bool:
        """Tell the channel of what its predicate raised; False: it is to leave the loop."""
        return self.mode.contained and self.failed(channel, error)

    def failed(self, channel: Any, error: BaseException) -> bool:
        """Tell the channel of its exception, while that is active; False: it leaves the loop."""
        self._failures += 1
        if isinstance(error, self._passed_through):
            return False
        if is_wait(error):
            return True  # nothing now, and nothing wrong
        closes = False
        if isinstance(error, OSError):
            serving = self._serving
            if serving is not None and serving.paused and error.errno in EXHAUSTED:
                return True  # accept() has seen to it
            closes = self.mode.disconnect_closes and error.errno in DISCONNECTED
        if not self.mode.contained:
            (channel.handle_close if closes else channel.handle_error)()
            return True
        try:
            (channel.handle_close if closes else channel.handle_error)()
        except self._passed_through:
            raise
        except BaseException as failure:
            self._report(failure, channel, "a channel's handler raised")
        return True
