# cython: freethreading_compatible=True
"""The seam between the engine and the system: what is ready, what time it is, which thread this is.

The twin of `_python/kernel.py`, which says what each method promises; one test holds both.  Over
the pollers of src/poller.h, which give each event back with the token of its registration: an index
(the descriptor) and a generation, which tells a stranger under the same number apart.  Knows
descriptors and the interest in them; must not know channels, maps or why anybody waits.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.ref cimport Py_INCREF
from libc.errno cimport EBADF, EINTR, ERANGE, errno
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint32_t

from .platform cimport (
    CYTHON_HEX_VERSION,
    KERNEL_HAS_NO_GIL,
    PLATFORM_COMPILER,
    PLATFORM_KQUEUE,
    platform_flag_lower,
    platform_flag_raise,
    platform_monotonic,
)
from .poller cimport (
    POLLER_INVALID,
    POLLER_MUTED,
    POLLER_READ,
    POLLER_URGENT,
    poller,
    poller_event,
    poller_fd,
    poller_find,
    poller_kind,
    poller_kinds,
    poller_query,
    poller_query_now,
    poller_token,
)

import os
import weakref

from .. import _codes
from .._originals import sleep
from .._wakeup import WakeUp

name = "c"

build_info = {
    "cython": ".".join(str(CYTHON_HEX_VERSION >> shift & 255) for shift in (24, 16, 8)),
    "compiler": (<bytes> PLATFORM_COMPILER).decode(),
    "kqueue": (<bytes> PLATFORM_KQUEUE).decode(),
}

# No descriptor is larger: on Windows it is as wide as a pointer, but its tables are not.
LARGEST = 2**31 - 1

# How long a wait rests, in seconds, that the system has no memory for.
cdef double PAUSE = 0.01

# A signal ends the system call of a wait.  One for longer than that many nanoseconds is also ended
# by a signal that comes just before, or to another thread.
cdef enum:
    LONG = 100_000_000

# How long a wait may not hear of a wake-up, in seconds, where select() cannot hold the receiver.
cdef double SLICE = 0.02

cdef enum:
    BATCH = 256  # how many events one wait takes at most

# Where the GIL took longer than CONTENTION (seconds) to come back, a thread computes beside the
# loop, and each time that the loop lets go of the GIL costs it a whole switch interval: a few
# events, then 5 ms of nothing.  So it first waits HOLD (ns) with the GIL, and lets go when that
# brought nothing.  The other thread loses at most that, and takes the GIL by itself after each
# switch interval as from any other thread.
cdef double CONTENTION = 0.001
cdef enum:
    HOLD = 200000
    CONTENDED = 256  # waits until it is measured anew


cpdef double monotonic() noexcept:
    """Return the clock of time.monotonic(), in seconds."""
    return platform_monotonic()


cpdef unsigned long get_ident() noexcept:
    """Return the identity of this thread."""
    return PyThread_get_thread_ident()


cpdef size_t identity(object thing) noexcept:
    """Return the number that tells one object from all others while it lives."""
    return <size_t> <void *> thing


def pollers():
    """Return the names of the pollers this platform has, best first."""
    names = []
    cdef int position = 0
    while poller_kinds[position] != NULL:
        names.append((<bytes> poller_kinds[position].name).decode())
        position += 1
    return tuple(names)


cdef class Watched:
    """A descriptor and the interest in it; what a kernel is told of, and what it reports.

    `want` is the interest asked for, `registered` what the kernel's set holds, `fired` what the
    last wait found: masks of _codes.py.  Extended by those who watch.
    """


@cython.final
cdef class Kernel:
    """A set of watched descriptors, and the wait for what happens to them.

    It opens what it needs of the system when it is first used, and opens it anew where that is
    called for: after close(), after a fork, and when a file that is no longer watched goes on
    firing.  One thread at a time may use it, but for wake().
    """

    def __cinit__(self, str poller):  # no-cython-lint: the name is that of its twin
        self._kind = poller_find(poller.encode())
        if self._kind == NULL:
            raise ValueError(f"no poller {poller!r} here; there are: {', '.join(pollers())}")
        self._wakeup = []  # one, while open: other threads look in while it is closed
        self._watched = []
        self._muted = set()  # their urgent data is not reported
        self._lost = []

    def __dealloc__(self):
        if self._poller != NULL:
            (<poller_kind *> self._kind).close(<poller *> self._poller)

    cpdef int set(self, Watched watched, int interest) except -1:
        """Tell the kernel of the interest in a descriptor (READ, WRITE; 0 is none).

        Raises OSError where the kernel refuses it, which is then not watched at all: EBADF for a
        closed descriptor, ERANGE for one that the poller cannot hold.
        """
        cdef int number = EBADF, old = watched.registered
        cdef poller_token token
        if interest and self._poller == NULL:
            self.open()
        self.changes += 1
        if self._muted:
            self._muted.discard(watched)
        if old == 0:
            self._generation += 1
            watched.generation = self._generation
        token.index, token.generation = <uint32_t> watched.fd, watched.generation
        if watched.fd >= 0 and self._poller != NULL:
            number = (<poller_kind *> self._kind).set(
                <poller *> self._poller, <poller_fd> watched.fd, token, old, interest
            )
            if number != 0 and interest and not self.is_whole():
                self._forget(watched)
                self._renew()  # it was our own descriptor that is closed
                number = (<poller_kind *> self._kind).set(
                    <poller *> self._poller, <poller_fd> watched.fd, token, 0, interest
                )
        if interest == 0 or number != 0:
            watched.registered = 0
            self._forget(watched)
            if interest and old and self._poller != NULL:
                # What was asked for before may still hold.
                (<poller_kind *> self._kind).set(
                    <poller *> self._poller, <poller_fd> watched.fd, token, old, 0
                )
            if interest:
                raise _refusal(number, watched.fd)
            return 0  # it may be closed: the kernel has forgotten it
        watched.registered = <unsigned char> interest
        return self._keep(watched)

    cpdef int look(self, Watched watched) except -1:
        """See to it that what is watched is the file that the number means by now.

        Raises OSError as set() does: EBADF where it is closed.
        """
        cdef int interest = watched.registered
        cdef poller_token token
        if interest == 0 or self._poller == NULL:
            return 0
        token.index, token.generation = <uint32_t> watched.fd, watched.generation
        muted = POLLER_MUTED if watched in self._muted else 0
        if not (<poller_kind *> self._kind).look(
            <poller *> self._poller, <poller_fd> watched.fd, token, interest | <int> muted
        ):
            self.set(watched, 0)
            self.set(watched, interest)
        return 0

    cdef int _keep(self, Watched watched) except -1:
        cdef Py_ssize_t more = watched.fd + 1 - len(self._watched)
        if more > 0:
            self._watched.extend([None] * more)
        self._watched[watched.fd] = watched
        return 0

    cdef int _forget(self, Watched watched) except -1:
        if 0 <= watched.fd < len(self._watched) and self._watched[watched.fd] is watched:
            self._watched[watched.fd] = None
        return 0

    cpdef list wait(self, double seconds):
        """Wait at most that long for something to happen; return what did, with its `fired`."""
        cdef poller_event events[BATCH]
        cdef int64_t nanoseconds = -1
        cdef int count, position, taken = 0
        cdef Watched one
        cdef list fired
        cdef bint strangers = False
        self.woken = False
        if self._poller == NULL:
            self.open()
        if self._wake_pending or seconds <= 0:
            nanoseconds = 0
        elif seconds != INFINITY:
            nanoseconds = <int64_t> (min(seconds, 1e9) * 1e9)
        if nanoseconds < 0 or nanoseconds > LONG:
            count = self._wait_hearing(nanoseconds, events)
        else:
            count = self._wait_for(nanoseconds, events)
        fired = PyList_New(count)
        for position in range(count):
            one = self._find(&events[position])
            if one is not None:
                one.fired = <unsigned char> events[position].mask
                Py_INCREF(one)
                PyList_SET_ITEM(fired, taken, one)
                taken += 1
            elif events[position].token.generation == 0:
                self._take_wakeups()
            else:
                strangers = True
        if taken < count:
            for position in range(taken, count):  # a list has no empty places
                Py_INCREF(None)
                PyList_SET_ITEM(fired, position, None)
            del fired[taken:]
            if strangers:
                # A file that is no longer watched goes on firing: only a new set is rid of it.
                self._renew_set()
        if self._muted:
            self._unmute(fired)
        if self._lost:
            fired += self._lost
            self._lost.clear()
        if self._wake_pending:
            self._take_wakeups()
        return fired

    cdef Watched _find(self, void *event):
        cdef poller_token token = (<poller_event *> event).token
        cdef Watched found
        if token.index >= <size_t> len(self._watched):
            return None
        found = <Watched> self._watched[token.index]
        if found is None or found.generation != token.generation:
            return None
        return found

    cdef int _wait_hearing(self, long long nanoseconds, void *events) except -1:
        wakeup = self._wakeup[0]
        # Twice, as all that a signal handler's exception may cut short.
        try:
            try:
                wakeup.hear_signals()
                return self._wait_for(nanoseconds, events)
            finally:
                wakeup.ignore_signals()
        finally:
            wakeup.ignore_signals()

    cdef int _wait_for(self, long long nanoseconds, void *events) except -1:
        if self._apart and nanoseconds != 0:
            return self._wait_in_slices(nanoseconds, events)
        return self._wait(nanoseconds, events)

    cdef int _wait(self, long long nanoseconds, void *events) except -1:
        """Have the poller wait, with the GIL or without it; return how many events there are."""
        cdef const poller_kind *kind = <const poller_kind *> self._kind
        cdef poller *set = <poller *> self._poller
        cdef int count = 0, failure = 0
        cdef double done
        if nanoseconds == 0 and not KERNEL_HAS_NO_GIL:
            # It does not block, and handing the GIL over costs more than the call.
            count = kind.wait(set, 0, <poller_event *> events, BATCH)
            failure = errno
        else:
            if self._contended:
                self._contended -= 1
                count = kind.wait(
                    set,
                    HOLD if nanoseconds < 0 else min(nanoseconds, <long long> HOLD),
                    <poller_event *> events,
                    BATCH,
                )
                failure = errno
            if count == 0:
                PyErr_CheckSignals()  # no bytecode has run since the last one came, perhaps
                with nogil:
                    count = kind.wait(set, nanoseconds, <poller_event *> events, BATCH)
                    failure = errno
                    done = platform_monotonic()
                if not KERNEL_HAS_NO_GIL and platform_monotonic() - done > CONTENTION:
                    self._contended = CONTENDED
        if count < 0:
            if failure != EINTR:
                return self._after_failure(failure, nanoseconds)
            self.woken = True
            PyErr_CheckSignals()
            return 0
        return count

    cdef int _wait_in_slices(self, long long nanoseconds, void *events) except -1:
        """Wait, and ask the receiver of wake-ups in between, which the poller cannot hold."""
        cdef poller_event *wakeup = <poller_event *> events
        cdef double end = INFINITY if nanoseconds < 0 else platform_monotonic() + nanoseconds / 1e9
        cdef double left
        cdef int count
        while True:
            left = end - platform_monotonic()
            count = self._wait(<long long> (max(0.0, min(left, SLICE)) * 1e9), events)
            if count == 0 and self._wakeup and self.readiness(self._wakeup[0].receiver):
                wakeup.token.index = wakeup.token.generation = 0
                wakeup.mask = POLLER_READ
                return 1
            if count or left <= SLICE:
                return count

    cdef int _after_failure(self, int failure, long long nanoseconds) except -1:
        """Go on after a wait that failed: with a new set, or a moment later; else raise it."""
        if not self.is_whole():
            self._renew()
        elif failure in _codes.SHORT_FOR_NOW:
            sleep(PAUSE if nanoseconds < 0 else min(nanoseconds / 1e9, PAUSE))
        else:
            raise OSError(failure, os.strerror(failure))
        return 0

    cpdef bint is_whole(self) except -1:
        """Whether the descriptors that it has opened are still its own: others may close them."""
        cdef const poller_kind *kind = <const poller_kind *> self._kind
        cdef poller_token token
        if self._wakeup and not self._wakeup[0].is_whole():
            return False
        if self._poller == NULL:
            return True
        if not kind.is_own(<poller *> self._poller):
            return False
        if not self._wakeup or self._apart:
            return True
        # One set looks like another, but only its own holds the receiver.
        receiver = self._wakeup[0].receiver
        token.index, token.generation = receiver, 0
        return kind.look(
            <poller *> self._poller, <poller_fd> <Py_ssize_t> receiver, token, POLLER_READ
        ) != 0

    cpdef int look_at_own(self) except -1:
        """Open anew what others have closed of the kernel's own descriptors."""
        if not self.is_whole():
            self._renew()
        return 0

    # Here signal handlers run when the system call has ended, and where it has found nothing.

    cpdef int begin_nested(self) except -1:
        """Take back what the last wait found: a loop within that one meets it, perhaps."""
        return 0

    cpdef int end_nested(self) except -1:
        """End the wait in which a signal handler has run a loop: that may have set things going."""
        return 0

    cpdef list ready_now(self, list asked):
        """Return those to which what they want can happen at once, with its `fired`."""
        cdef poller_query queries[BATCH]
        cdef Py_ssize_t first, position, count
        cdef Watched one
        cdef list ready = []
        for first in range(0, len(asked), BATCH):
            count = min(<Py_ssize_t> BATCH, len(asked) - first)
            for position in range(count):
                one = <Watched> asked[first + position]
                queries[position].fd = <poller_fd> one.fd
                queries[position].mask = one.want
            if poller_query_now(queries, <int> count) < 0:
                continue  # none is ready now: they are watched instead
            for position in range(count):
                if queries[position].mask:
                    one = <Watched> asked[first + position]
                    one.fired = <unsigned char> queries[position].mask
                    ready.append(one)
        return ready

    cpdef int readiness(self, Py_ssize_t fd) except -1:
        """Return what can be read of a descriptor now, and its errors, as a mask; 0: unknown."""
        cdef poller_query query
        query.fd, query.mask = <poller_fd> fd, POLLER_READ
        return query.mask if poller_query_now(&query, 1) > 0 else 0

    cpdef int mute(self, Watched watched) except -1:
        """Report urgent data that nobody reads no more, until there is something to read, too."""
        if self._poller == NULL or watched.registered == 0:
            return 0
        if self.readiness(watched.fd) & POLLER_URGENT:
            self._muted.add(watched)
            self._set_again(watched, watched.registered | POLLER_MUTED)
        return 0

    cdef int _unmute(self, list fired) except -1:
        cdef Watched one
        for one in self._muted.intersection(fired):
            if one.fired & POLLER_READ and self._poller != NULL:
                self._muted.discard(one)
                self._set_again(one, one.registered)
        return 0

    cdef int _set_again(self, Watched watched, int interest) noexcept:
        """Change how the poller watches what it watches already."""
        cdef poller_token token
        token.index, token.generation = <uint32_t> watched.fd, watched.generation
        return (<poller_kind *> self._kind).set(
            <poller *> self._poller, <poller_fd> watched.fd, token, watched.registered, interest
        )

    cpdef int wake(self) except -1:
        """End a wait, or the next one; from any thread or signal handler."""
        if platform_flag_raise(&self._wake_pending):
            return 0
        for wakeup in self._wakeup:  # where there is none, nobody waits
            wakeup.send()
        return 0

    cpdef bint is_woken(self) noexcept:
        """Whether the next wait will end at once, because of wake()."""
        return self._wake_pending != 0

    def wake_fileno(self):
        """Return the descriptor to which a byte is written that ends a wait, as signals do."""
        self.open()
        return self._wakeup[0].sender

    def fileno(self):
        """Return the descriptor of the kernel's set, or -1 where the poller has none."""
        self.open()
        return (<poller_kind *> self._kind).fileno(<poller *> self._poller)

    cpdef bint is_open(self) noexcept:
        """Whether all that a wait needs is there."""
        return self._poller != NULL and len(self._wakeup) > 0

    cpdef int open(self) except -1:
        """Have all that a wait needs; does nothing where it is there."""
        cdef const poller_kind *kind = <const poller_kind *> self._kind
        cdef poller *made
        cdef poller_token token
        cdef int number
        if not self._wakeup:
            self._open_wakeup()
        if self._poller != NULL:
            return 0
        made = kind.open()
        if made == NULL:
            PyErr_SetFromErrno(OSError)
        try:
            wakeup = self._wakeup[0]
            receiver = wakeup.receiver
            token.index, token.generation = receiver, 0
            number = kind.set(made, <poller_fd> <Py_ssize_t> receiver, token, 0, POLLER_READ)
            self._apart = number == ERANGE
            if number and not self._apart:
                raise OSError(number, os.strerror(number))
            own = (kind.fileno(made), receiver, wakeup.sender)
            self._muted.clear()
            for one in list(self._watched):
                if one is not None:
                    self._watch_again(made, <Watched> one, (<Watched> one).fd in own)
        except BaseException:
            kind.close(made)
            raise
        self._poller = made
        self.sets += 1
        return 0

    cdef int _open_wakeup(self) except -1:
        wakeup = WakeUp()
        self._close_wakeup = weakref.finalize(self, wakeup.close)
        self._close_wakeup.atexit = False
        self._wakeup.append(wakeup)
        if self._wake_pending:
            wakeup.send()  # asked for while nothing was open
        return 0

    cdef int _watch_again(self, void *made, Watched one, bint lost) except -1:
        """Put it into a new set; `lost`: it was closed, and its number given to us."""
        cdef poller_token token
        cdef int number = EBADF
        token.index, token.generation = <uint32_t> one.fd, one.generation
        if not lost:
            number = (<poller_kind *> self._kind).set(
                <poller *> made, <poller_fd> one.fd, token, 0, one.registered
            )
        if number == 0:
            return 0
        # What was refused for another reason is asked again, and told why.
        self._forget(one)
        one.registered, one.fired = 0, POLLER_INVALID if number == EBADF else 0
        self._lost.append(one)
        return 0

    cpdef int close(self) except -1:
        """Give all back to the system and forget who was watched; may be used again."""
        self._give_back()
        for one in self._watched:
            if one is not None:
                (<Watched> one).registered = 0
        self._watched.clear()
        self._muted.clear()
        self._lost.clear()
        return 0

    cpdef int after_fork(self) except -1:
        """In a child: leave the parent's set and wake-ups alone; what is watched stays watched."""
        self._give_back()
        platform_flag_lower(&self._wake_pending)
        return 0

    cdef int _give_back(self) except -1:
        if self._poller != NULL:
            (<poller_kind *> self._kind).close(<poller *> self._poller)
            self._poller = NULL
        if self._wakeup:
            self._wakeup.clear()
            self._close_wakeup()
        return 0

    cdef int _renew(self) except -1:
        self._give_back()
        return self.open()

    cdef int _renew_set(self) except -1:
        if self._poller != NULL:
            (<poller_kind *> self._kind).close(<poller *> self._poller)
            self._poller = NULL
        return self.open()

    cdef int _take_wakeups(self) except -1:
        if self._wakeup and not self._wakeup[0].take():
            self._renew()
        platform_flag_lower(&self._wake_pending)
        self.woken = True
        PyErr_CheckSignals()  # a signal woke us, perhaps, and no Python code runs its handler
        return 0


def _refusal(int number, fd):
    """Return the error of a descriptor that the poller does not take."""
    if number == ERANGE:
        return OSError(
            number, f"descriptor {fd} is beyond what select() can hold; use another poller"
        )
    return OSError(number, os.strerror(number))
