"""The accelerated engine: interest bookkeeping, waiting, dispatch and timers in C.

The mirror of `fastcore/_engine_py.py`, name by name and in the same order: that file is the
specification and says why things are as they are; comments here are about C alone.

Where there is no GIL, each engine has a lock that takes its place: the thread that drives the loop
holds it, and lets go of it wherever a thread would let go of the GIL (a critical section does just
that), and before 3.14 also where a section lies within a section.  What the lock does not guard is
safe by itself: the queues, the flag of a wake-up, and numbers that are read for a hint.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_get_thread_ident
from libc.errno cimport errno
from libc.math cimport INFINITY, fmod, isnan
from libc.stdint cimport int64_t, uint32_t, uint64_t

import errno as _errno
import os
import socket
import weakref
from collections import deque
from errno import EBADF, EMFILE, ENFILE, ENOBUFS, ENOMEM
from operator import index
from time import sleep

from fastcore._engine_c_parts import Channel, ask, deliver_reads, deliver_writes
from fastcore._sockets_c import DISCONNECTED


cdef extern from "poller.h" nogil:
    ctypedef int poller_fd
    enum:
        POLLER_READ
        POLLER_WRITE
        POLLER_URGENT
        POLLER_ERROR
        POLLER_HANGUP
        POLLER_INVALID
    ctypedef struct poller_token:
        uint32_t index
        uint32_t generation
    ctypedef struct poller_event:
        poller_token token
        int mask
    ctypedef struct poller:
        pass
    ctypedef struct poller_kind:
        const char *name
        poller *(*open)() noexcept nogil
        void (*close)(poller *) noexcept nogil
        int (*set)(poller *, poller_fd, poller_token, int, int) noexcept nogil
        int (*wait)(poller *, int64_t, poller_event *, int) noexcept nogil
        int (*fileno)(poller *) noexcept nogil
    ctypedef struct poller_query:
        poller_fd fd
        int mask
    const poller_kind **poller_kinds
    const poller_kind *poller_find(const char *)
    int poller_query_now(poller_query *, int) noexcept


cdef extern from "engine_support.h" nogil:
    double engine_monotonic()
    bint engine_flag_raise(int *)
    void engine_flag_lower(int *)
    const char *ENGINE_COMPILER
    const char *ENGINE_KQUEUE


cdef extern from "engine_map.h":
    bint ENGINE_HAS_NO_GIL
    bint engine_map_watch(object)
    uint64_t engine_map_version(object)


cdef extern from *:
    """
    static inline int engine_is_exactly(PyObject *obj, PyObject *type)
    {
        return (PyObject *)Py_TYPE(obj) == type;
    }
    """
    bint engine_is_exactly(PyObject *, PyObject *)
    unsigned long CYTHON_HEX_VERSION
    PyObject *PyDict_GetItemWithError(object, object) except? NULL
    PyObject *PyList_GET_ITEM(list, Py_ssize_t)


name = "c"

build_info = {
    "cython": f"{CYTHON_HEX_VERSION >> 24}.{CYTHON_HEX_VERSION >> 16 & 255}.{CYTHON_HEX_VERSION >> 8 & 255}",
    "compiler": (<bytes> ENGINE_COMPILER).decode(),
    "kqueue": (<bytes> ENGINE_KQUEUE).decode(),
}

EXHAUSTED = frozenset({EMFILE, ENFILE, ENOBUFS, ENOMEM})
if os.name == "nt":
    EXHAUSTED |= {_errno.WSAEMFILE}

cdef int _READ = POLLER_READ
cdef int _WRITE = POLLER_WRITE
cdef int _READABLE = POLLER_READ | POLLER_HANGUP | POLLER_ERROR
cdef int _WRITABLE = POLLER_WRITE | POLLER_ERROR

SWEEP_SHARE = 20
SWEEP_PAUSE = 0.001
SWEEP_ALWAYS = 16
cdef Py_ssize_t _few = SWEEP_ALWAYS

QUIET = 0.1
LOOK_EVERY = 256
LOOK_SHARE = 100

STEP_ASIDE = 0.01

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
    NUMBERS = 1 << 20  # larger keys are taken for no descriptors

cdef type _socket_class = socket.socket


def pollers():
    """Return the names of the pollers this platform has, best first."""
    names = []
    cdef int position = 0
    while poller_kinds[position] != NULL:
        names.append((<bytes> poller_kinds[position].name).decode())
        position += 1
    return tuple(names)


cdef class Engine  # forward


@cython.freelist(64)
cdef class Handle:
    """A callback that was asked for: `cancel()` forgets it, `when` is its loop time in seconds.

    `when` is None for a callback that runs as soon as possible.
    """

    cdef Engine _engine
    cdef object _when
    cdef readonly bint cancelled
    cdef object _interval
    cdef object _callback
    cdef tuple _args

    def __init__(self, Engine engine, when, interval, callback, tuple args):
        self._engine = engine
        self._when = when
        self._interval = interval
        self._callback = callback
        self._args = args
        self.cancelled = False

    @property
    @cython.critical_section
    def when(self):
        return self._when

    def cancel(self):
        """Forget the callback; does nothing where it has run or was cancelled before."""
        with cython.critical_section(self):
            if self.cancelled or self._callback is None:
                return
            self.cancelled = True
            self._callback = None
            self._args = ()
        if self._when is not None:
            self._engine._timer_cancelled()

    @cython.critical_section
    cdef tuple _take(self, bint again):
        """Return the callback and its arguments; it stays only for the next beat."""
        taken = self._callback, self._args
        if not again:
            self._callback = None
        return taken

    @cython.critical_section
    def __repr__(self):
        state = "cancelled" if self.cancelled else repr(self._callback)
        return f"<Handle when={self._when} {state}>"


@cython.freelist(64)
cdef class _Registration:
    """One entry of the map as the engine last saw it, and what the kernel was told."""

    cdef object obj
    cdef poller_token token
    cdef uint32_t asked
    cdef uint32_t seen  # the epoch of the map in which it was last found there
    cdef unsigned char want
    cdef unsigned char kernel
    cdef unsigned char touched
    cdef unsigned char resting
    cdef unsigned char gone


cdef class _OddRegistration(_Registration):
    """One whose key is no plain descriptor; `token.index` is set when the kernel is told."""

    cdef object key


cdef object _key_of(_Registration registration):
    """The key in the map."""
    if type(registration) is _OddRegistration:
        return (<_OddRegistration> registration).key
    return registration.token.index


cdef poller_fd _number_of(_Registration registration) except? -2:
    """The descriptor."""
    if type(registration) is _OddRegistration:
        return index((<_OddRegistration> registration).key)
    return <poller_fd> registration.token.index


@cython.final
cdef class _Registrations:
    """All registrations by key: a list by descriptor, since a dict costs each channel 60 bytes."""

    cdef list by_number
    cdef dict odd
    cdef list few
    cdef Py_ssize_t count

    def __cinit__(self):
        self.by_number = []
        self.odd = {}

    cdef _Registration get(self, key):
        cdef Py_ssize_t number
        if type(key) is int and 0 <= key < NUMBERS:
            number = key
            return <_Registration> self.by_number[number] if number < len(self.by_number) else None
        return <_Registration> self.odd.get(key)

    @cython.boundscheck(False)
    @cython.wraparound(False)
    cdef _Registration at(self, poller_token token):
        """Find what the kernel speaks of."""
        cdef PyObject *found
        if token.index < <size_t> len(self.by_number):
            found = PyList_GET_ITEM(self.by_number, token.index)
            if (
                found != <PyObject *> None
                and (<_Registration> found).token.generation == token.generation
            ):
                return <_Registration> found
        for one in self.odd.values():
            if (<_Registration> one).token.generation == token.generation:
                return <_Registration> one
        return None

    cdef _Registration add(self, key, uint32_t generation):
        cdef _Registration made
        cdef Py_ssize_t number
        self.count += 1
        self.few = None
        if type(key) is int and 0 <= key < NUMBERS:
            number = key
            made = _Registration.__new__(_Registration)
            made.token.index = <uint32_t> number
            if number >= len(self.by_number):
                self.by_number.extend([None] * (number + 1 - len(self.by_number)))
            self.by_number[number] = made
        else:
            made = _OddRegistration.__new__(_OddRegistration)
            (<_OddRegistration> made).key = key
            self.odd[key] = made
        made.token.generation = generation
        return made

    cdef int remove(self, _Registration registration) except -1:
        self.count -= 1
        self.few = None
        if type(registration) is _OddRegistration:
            del self.odd[(<_OddRegistration> registration).key]
        else:
            self.by_number[registration.token.index] = None
        return 0

    cdef list values(self):
        """All of them, in a list that nobody may change."""
        cdef list found = self.few
        if found is None:
            found = [one for one in self.by_number if one is not None]
            found += self.odd.values()
            if self.count <= _few:
                self.few = found  # asked for on every turn
        return found

    cdef int clear(self) except -1:
        self.by_number.clear()
        self.odd.clear()
        self.few = None
        self.count = 0
        return 0



@cython.final
@cython.freelist(4)
cdef class _Asking:
    """Gives out the channels that are to be asked, and takes down each answer with the next."""

    cdef Engine engine
    cdef list asked
    cdef Py_ssize_t position
    cdef uint32_t moment
    cdef _Registration current
    cdef list want  # where ask() leaves the answer of the current one
    cdef list changed  # those whose answer is not what the kernel knows

    def __iter__(self):
        return self

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def __next__(self):
        cdef _Registration registration
        if self.current is not None:
            self._take_down(self.current, self.want[0])
            self.current = None
        while self.position < len(self.asked):
            registration = <_Registration> self.asked[self.position]
            self.position += 1
            registration.touched = False
            if not self.engine._is_current(registration):
                self.engine._drop(registration)
            elif registration.resting:
                self._take_down(registration, 0)
            else:
                self.current = registration
                return registration.obj
        raise StopIteration

    cdef inline int _take_down(self, _Registration registration, int want) except -1:
        registration.asked = self.moment
        registration.want = want
        if want != registration.kernel:
            self.changed.append(registration)
        return 0


@cython.final
@cython.freelist(4)
cdef class _Ready:
    """Gives out the channels of a run of events of one kind, each if it is still current then."""

    cdef Engine engine
    cdef poller_event *events
    cdef int position
    cdef int fired
    cdef int mask
    cdef long long batch
    cdef _Registration current
    cdef public bint asking

    def __iter__(self):
        return self

    def __next__(self):
        cdef Engine engine = self.engine
        cdef _Registration registration
        self.current = None
        while (
            self.position < self.fired
            and self.events[self.position].mask == self.mask
            and engine._batch == self.batch
        ):
            registration = engine._registrations.at(self.events[self.position].token)
            if registration is None:
                break
            self.position += 1
            engine._mark(registration)
            if registration.want & self.mask and engine._is_current(registration):
                self.current = registration
                engine._moment += 1
                return registration.obj
        raise StopIteration


cdef class _Timer:
    """An entry of the heap of timers."""

    cdef double when
    cdef long long count
    cdef Handle handle


cdef inline bint _before(_Timer one, _Timer other):
    return one.when < other.when or (one.when == other.when and one.count < other.count)


cdef void _heap_push(list heap, _Timer entry):
    heap.append(entry)
    _heap_up(heap, len(heap) - 1)


cdef void _heap_up(list heap, Py_ssize_t position):
    cdef _Timer entry = <_Timer> heap[position]
    cdef Py_ssize_t parent
    while position > 0:
        parent = (position - 1) >> 1
        if not _before(entry, <_Timer> heap[parent]):
            break
        heap[position] = heap[parent]
        position = parent
    heap[position] = entry


cdef void _heap_down(list heap, Py_ssize_t position):
    cdef _Timer entry = <_Timer> heap[position]
    cdef Py_ssize_t size = len(heap)
    cdef Py_ssize_t child = 2 * position + 1
    while child < size:
        if child + 1 < size and _before(<_Timer> heap[child + 1], <_Timer> heap[child]):
            child += 1
        if not _before(<_Timer> heap[child], entry):
            break
        heap[position] = heap[child]
        position = child
        child = 2 * position + 1
    heap[position] = entry


cdef _Timer _heap_pop(list heap):
    cdef _Timer last = <_Timer> heap.pop()
    if not heap:
        return last
    cdef _Timer first = <_Timer> heap[0]
    heap[0] = last
    _heap_down(heap, 0)
    return first


cdef class Engine:
    """The loop over one map.  `Loop` in loop.py is its public face.

    `map` holds the channels by descriptor and may be changed by anyone at any time; `poller` names
    a kernel mechanism; `strict` asks every channel on every turn.
    """

    passed_through = (KeyboardInterrupt, SystemExit)

    cdef object __weakref__
    cdef readonly object map
    cdef readonly str poller
    cdef bint _strict
    cdef bint _map_is_watched
    cdef uint64_t _map_version
    cdef uint32_t _map_epoch  # how many changes of the map were noticed
    cdef _Registrations _registrations
    cdef list _touched
    cdef const poller_kind *_kind
    cdef poller *_poller
    cdef object _lock
    cdef list _wake  # receiver, sender, closer, or nothing
    cdef int _contended  # so many more waits begin without giving the GIL away
    cdef int _wake_pending  # a flag of engine_support.h
    cdef bint _woken
    cdef int _waiting
    cdef list _forgotten
    cdef list _drivers
    cdef bint _exposed
    cdef readonly bint _closed
    cdef bint _stopping
    cdef int _depth
    cdef unsigned long _driver
    cdef bint _reports
    cdef bint _disconnect_closes
    cdef long long _batch
    cdef uint32_t _moment
    cdef uint32_t _generation
    cdef set _dropped  # generations that went since the last wait: their events are no strangers'
    cdef bint _sweep_wanted
    cdef double _sweep_due
    cdef double _look_due
    cdef list _timers
    cdef long long _timer_count
    cdef Py_ssize_t _cancelled
    cdef object _ready
    cdef object _handed
    cdef long long _turns, _events, _sweeps, _changes

    def __init__(self, map, str poller, bint strict):
        if self._registrations is not None:
            raise RuntimeError("a loop is initialised once")
        self._kind = poller_find(poller.encode())
        if self._kind == NULL:
            raise ValueError(f"no poller {poller!r} here; there are: {', '.join(pollers())}")
        self.map = map
        self.poller = poller
        self._strict = strict
        self._map_is_watched = type(map) is dict and engine_map_watch(map)
        self._map_epoch = 1
        self._moment = 1
        self._registrations = _Registrations()
        self._touched = []
        self._lock = object()
        self._wake = []
        self._forgotten = []
        self._drivers = []
        self._dropped = set()
        self._timers = []
        self._ready = deque()
        self._handed = deque()
        _engines.add(self)

    def __dealloc__(self):
        if self._poller != NULL:
            self._kind.close(self._poller)
            self._poller = NULL

    def __del__(self):
        self._release()

    # -- callbacks and timers ------------------------------------------------------------

    def time(self):
        """Return the loop's clock in seconds (monotonic, with an arbitrary zero)."""
        return engine_monotonic()

    def call_soon(self, callback, *args):
        """Run `callback(*args)` in the next turn; return its Handle."""
        handle = self._handle(None, None, callback, args)
        self._ready.append(handle)
        self._tell_driver()
        return handle

    def call_soon_threadsafe(self, callback, *args):
        """As call_soon(), from any thread or signal handler; wakes a wait that blocks."""
        handle = self._handle(None, None, callback, args)
        self._ready.append(handle)
        self.wakeup()
        return handle

    def call_later(self, delay, callback, *args):
        """Run `callback(*args)` once, `delay` seconds from now; return its Handle."""
        return self.call_at(engine_monotonic() + delay, callback, *args)

    def call_at(self, when, callback, *args):
        """Run `callback(*args)` once, at `when` in seconds of time(); return its Handle."""
        if isnan(when):
            raise ValueError("a timer needs a time, not NaN")
        handle = self._handle(float(when), None, callback, args)
        self._schedule(handle)
        return handle

    def call_every(self, interval, callback, *args):
        """Run `callback(*args)` every `interval` seconds (> 0) until its Handle is cancelled.

        The beats stay where they were laid; beats that were missed are left out.
        """
        if not 0 < interval < INFINITY:
            raise ValueError(f"the interval must be positive and finite, not {interval!r}")
        handle = self._handle(engine_monotonic() + interval, float(interval), callback, args)
        self._schedule(handle)
        return handle

    def next_deadline(self):
        """Return the loop time at which run_once() has something to do by itself, or None."""
        cdef double deadline
        with cython.critical_section(self._lock):
            if self._ready or self._wake_pending or self._touched:
                return engine_monotonic()
            deadline = self._next_timer()
            if self._sweep_wanted and self._registrations.count:
                deadline = min(deadline, self._sweep_due)
        return None if deadline == INFINITY else deadline

    cdef Handle _handle(self, when, interval, callback, tuple args):
        if self._closed:
            raise RuntimeError("the loop is closed")
        if not callable(callback):
            raise TypeError(f"a callback must be callable, not {callback!r}")
        self._keep()
        return Handle(self, when, interval, callback, args)

    def _schedule(self, Handle handle):
        if self._is_elsewhere():
            self._hand_over(self._schedule, handle)
            return
        cdef _Timer entry = _Timer.__new__(_Timer)
        entry.when = handle._when
        entry.handle = handle
        with cython.critical_section(self._lock):
            self._timer_count += 1
            entry.count = self._timer_count
            _heap_push(self._timers, entry)
        self._tell_driver()

    def _timer_cancelled(self):
        if self._closed:
            return
        if self._is_elsewhere():
            self._hand_over(self._timer_cancelled)
            return
        cdef Py_ssize_t position
        with cython.critical_section(self._lock):
            self._cancelled += 1
            if self._cancelled > 64 and self._cancelled > len(self._timers) // 2:
                self._cancelled -= len(self._timers)
                self._timers = [
                    entry for entry in self._timers if not (<_Timer> entry).handle.cancelled
                ]
                self._cancelled += len(self._timers)
                for position in range(len(self._timers) // 2 - 1, -1, -1):
                    _heap_down(self._timers, position)

    cdef double _next_timer(self):
        while self._timers and (<_Timer> self._timers[0]).handle.cancelled:
            _heap_pop(self._timers)
            self._cancelled -= 1
        return (<_Timer> self._timers[0]).when if self._timers else INFINITY

    cdef int _run_timers(self) except -1:
        cdef double now = engine_monotonic()
        while self._next_timer() <= now:
            self._ready.append(_heap_pop(self._timers).handle)
        return 0

    cdef int _run_ready(self) except -1:
        cdef Handle handle
        self._moment += 1
        for _ in range(len(self._ready)):
            if not self._ready:
                return 0  # a nested loop ran them
            handle = <Handle> self._ready.popleft()
            callback, args = handle._take(handle._interval is not None)
            if callback is None:
                # Cancelled after it had left the heap: it is counted there no longer.
                if handle._when is not None:
                    self._cancelled -= 1
                continue
            if handle._interval is not None:
                self._schedule_next_beat(handle)
            try:
                callback(*args)
            except self.passed_through:
                raise
            except BaseException as error:
                self._report(error, callback, "a callback of the loop raised")
        return 0

    cdef int _schedule_next_beat(self, Handle handle) except -1:
        cdef double now = engine_monotonic()
        cdef double interval = handle._interval
        cdef double when = <double> handle._when + interval
        if when <= now:
            when = now + interval - fmod(now - when, interval)
        with cython.critical_section(handle):
            handle._when = when
        self._schedule(handle)
        return 0

    # -- waking and stopping -------------------------------------------------------------

    def wakeup(self):
        """End a wait that blocks, or the next one; from any thread or signal handler."""
        if engine_flag_raise(&self._wake_pending):
            return
        try:
            self._wake[1].send(b"\0")
        except (IndexError, OSError):
            pass  # not open, or closed: nobody waits; full: it wakes anyway

    @cython.final
    cdef int _tell_driver(self) except -1:
        """Wake the loop where another thread is in it: it may wait, or be just about to."""
        if self._waiting or (self._depth and self._driver != PyThread_get_thread_ident()):
            self.wakeup()
        return 0

    @cython.final
    cdef bint _is_elsewhere(self) except -1:
        """Whether only other threads are in the loop, and no GIL keeps them from our state."""
        return (
            ENGINE_HAS_NO_GIL
            and self._depth > 0
            and self._driver != PyThread_get_thread_ident()
            and PyThread_get_thread_ident() not in self._drivers
        )

    def _do(self, action, *args):
        """Do `action(*args)` here, or where that could meet a handler: in the loop's thread."""
        if self._is_elsewhere():
            self._hand_over(action, *args)
        else:
            action(*args)

    def _hand_over(self, action, *args):
        """Let the thread that is in the loop do `action(*args)`, before it asks anyone again."""
        self._handed.append((action, args))
        if self._depth > 0:
            self.wakeup()
        else:
            self._take_handed()  # it has just left

    cdef int _take_handed(self) except -1:
        """Do what other threads have handed over."""
        for _ in range(len(self._handed)):
            try:
                action, args = self._handed.popleft()
            except IndexError:
                return 0  # another thread was faster
            try:
                action(*args)
            except self.passed_through:
                raise
            except BaseException as error:
                self._report(error, action, "what another thread asked for raised")
        return 0

    def stop(self):
        """Make run() return after the current turn; from any thread or signal handler."""
        self._stopping = True
        self.wakeup()

    @property
    def running(self):
        """Whether the loop is being run, here or in another thread."""
        return self._depth > 0

    def fileno(self):
        """Return the descriptor that is readable when the kernel has events for the loop.

        Ask again after every turn: after a fork, or when a closed file goes on firing, the loop
        starts a new kernel set.  Raises ValueError on pollers that have none (poll and select).
        """
        cdef int number
        with cython.critical_section(self._lock):
            self._open()
            number = self._kind.fileno(self._poller)
            self._exposed = self._exposed or number >= 0
        if number < 0:
            raise ValueError(f"the {self.poller} poller has no descriptor to wait on")
        return number

    def stats(self):
        """Return counts since the loop was made: turns, events, sweeps, kernel changes, ..."""
        with cython.critical_section(self._lock):
            return {
                "engine": name,
                "poller": self.poller,
                "turns": self._turns,
                "events": self._events,
                "sweeps": self._sweeps,
                "interest_changes": self._changes,
                "channels": self._registrations.count,
                "timers": len(self._timers) - self._cancelled,
                "callbacks": len(self._ready),
            }

    def close(self):
        """Give the kernel's objects back and forget all timers; the channels stay open.

        Raises RuntimeError while the loop runs.
        """
        with cython.critical_section(self._lock):
            if self._depth:
                raise RuntimeError("a running loop cannot be closed: stop() it first")
            self._closed = True
            self._timers.clear()
            self._ready.clear()
            self._cancelled = 0
            self._give_back()
            for registration in self._registrations.values():
                (<_Registration> registration).kernel = 0
                (<_Registration> registration).gone = True
            self._registrations.clear()
            self._touched.clear()

    # -- the kernel's objects --------------------------------------------------------------

    cdef int _open(self) except -1:
        cdef poller_token token
        if self._kind == NULL:
            raise RuntimeError("the loop is not initialised")
        if self._closed:
            raise RuntimeError("the loop is closed")
        if not self._wake:
            receiver, sender = socket.socketpair()
            receiver.setblocking(False)
            sender.setblocking(False)
            closer = weakref.finalize(self, _close_both, receiver, sender)
            closer.atexit = False
            if not self._wake:
                self._wake += receiver, sender, closer
            else:
                closer()
        if self._poller == NULL:
            self._poller = self._kind.open()
            if self._poller == NULL:
                PyErr_SetFromErrno(OSError)
            wake = self._wake[0].fileno()
            token.index, token.generation = wake, 0
            error = self._kind.set(self._poller, wake, token, 0, _READ)
            if error:
                self._kind.close(self._poller)
                self._poller = NULL
                raise OSError(error, os.strerror(error))
            for registration in self._registrations.values():
                (<_Registration> registration).kernel = 0
                self._mark(<_Registration> registration)
        return 0

    def _release(self):
        with cython.critical_section(self._lock):
            self._give_back()

    cdef int _give_back(self) except -1:
        if self._poller != NULL:
            self._kind.close(self._poller)
            self._poller = NULL
            self._forgotten.clear()
        if self._wake:
            closer = self._wake[2]
            self._wake.clear()
            closer()
        return 0

    def _release_if_idle(self):
        """Hold nothing for a map that is empty: a program may use a new map every time."""
        with cython.critical_section(self._lock):
            # Last, whether anyone is in the loop: the questions before may let go of the lock.
            if self.map or self._has_pending() or self._exposed or self._depth:
                return
            for registration in self._registrations.values():
                self._drop(<_Registration> registration)
            self._forget_dropped()
            self._give_back()
        self._let_go()

    cdef int _rebuild(self) except -1:
        """Start a new kernel set, where the old one holds a file that was closed."""
        if self._waiting:
            return 0  # another thread waits on it; the stranger will come again
        if self._poller != NULL:
            self._kind.close(self._poller)
            self._poller = NULL
        return self._open()

    def _wake_fileno(self):
        with cython.critical_section(self._lock):
            self._open()
            sender = self._wake[1]
        return sender.fileno()

    cdef int _drain_wakeups(self) except -1:
        try:
            while len(self._wake[0].recv(4096)) == 4096:
                pass
        except OSError:
            pass
        engine_flag_lower(&self._wake_pending)
        self._woken = True
        PyErr_CheckSignals()  # a signal woke us, perhaps, and no Python code runs its handler
        return 0

    def _keep(self):
        pass

    def _let_go(self):
        pass

    # -- interest ------------------------------------------------------------------------

    def _attach(self, fd, obj):
        """Note that `map[fd]` is `obj` from now on."""
        if self._is_elsewhere():
            self._hand_over(self._attach, fd, obj)
            return
        with cython.critical_section(self._lock):
            self._add(fd, obj)

    cdef int _add(self, fd, obj) except -1:
        known = self._registrations.get(fd)
        if known is not None:
            self._drop(<_Registration> known)
        self._generation += 1
        cdef _Registration registration = self._registrations.add(fd, self._generation)
        registration.obj = obj
        self._mark(registration)
        if not self._depth:
            self._forget_dropped()
        return 0

    def _detach(self, fd):
        """Note that `map[fd]` is gone; before its descriptor is closed."""
        if self._is_elsewhere():
            self._hand_over(self._detach, fd)
            return
        with cython.critical_section(self._lock):
            known = self._registrations.get(fd)
            if known is not None:
                self._drop(<_Registration> known)
            if self._depth:
                return
            self._forget_dropped()
        self._release_if_idle()

    def _touch(self, fd, obj):
        """Note that what `obj` wants may have changed."""
        if self._is_elsewhere():
            self._hand_over(self._touch, fd, obj)
            return
        with cython.critical_section(self._lock):
            known = self._registrations.get(fd)
            if known is not None and (<_Registration> known).obj is obj:
                self._mark(<_Registration> known)

    def _is_readable(self, fd):
        """Whether `fd` can be read just now."""
        cdef poller_query query
        query.fd = fd
        query.mask = _READ
        return poller_query_now(&query, 1) > 0 and query.mask & _READ != 0

    def _rest(self, fd, obj, seconds):
        """Leave `obj` alone for that long."""
        if self._is_elsewhere():
            self._hand_over(self._rest, fd, obj, seconds)
            return
        cdef _Registration registration
        with cython.critical_section(self._lock):
            known = self._registrations.get(fd)
            if known is None:
                return
            registration = <_Registration> known
            if registration.obj is not obj or registration.resting:
                return
            registration.resting = True
            self._mark(registration)
        self.call_later(seconds, self._resume, registration)

    def _resume(self, _Registration registration):
        with cython.critical_section(self._lock):
            registration.resting = False
            self._mark(registration)

    @cython.final
    cdef int _mark(self, _Registration registration) except -1:
        if not registration.touched:
            registration.touched = True
            self._touched.append(registration)
            self._tell_driver()
        return 0

    @cython.final
    cdef int _drop(self, _Registration registration) except -1:
        if not registration.gone:
            registration.gone = True
            self._dropped.add(registration.token.generation)
            self._registrations.remove(registration)
        return self._forget_kernel(registration)

    cdef int _forget_dropped(self) except -1:
        """Keep nothing of what went while nobody drives the loop."""
        self._dropped.clear()
        if len(self._touched) > 2 * self._registrations.count:
            self._touched = [one for one in self._touched if not (<_Registration> one).gone]
        return 0

    cdef int _forget_kernel(self, _Registration registration) except -1:
        if registration.kernel and self._poller != NULL:
            if self._waiting:
                self._forgotten.append((registration, registration.kernel))
                registration.kernel = 0
                self.wakeup()
                return 0
            self._changes += 1
            self._kind.set(
                self._poller, _number_of(registration), registration.token, registration.kernel, 0
            )
        registration.kernel = 0
        return 0

    @cython.final
    cdef bint _is_current(self, _Registration registration) except -1:
        """Whether the map still holds the very object that was polled for."""
        cdef uint64_t version
        if registration.gone:
            return False
        if not self._map_is_watched:
            return self.map.get(_key_of(registration)) is registration.obj
        if not ENGINE_HAS_NO_GIL:
            version = engine_map_version(self.map)
            if version != self._map_version:
                self._map_version = version
                self._map_epoch += 1
            if registration.seen == self._map_epoch:
                return True
        if PyDict_GetItemWithError(self.map, _key_of(registration)) != <PyObject *> registration.obj:
            return False
        registration.seen = self._map_epoch
        return True

    cdef int _reconcile(self) except -1:
        """Follow what others did to the map."""
        for fd, obj in list(self.map.items()):
            known = self._registrations.get(fd)
            if known is None or (<_Registration> known).obj is not obj:
                self._add(fd, obj)
        if self._registrations.count != len(self.map):
            for registration in self._registrations.values():
                if _key_of(<_Registration> registration) not in self.map:
                    self._drop(<_Registration> registration)
        return 0

    cdef list _take_touched(self):
        """Return those that are to be asked, and begin to note new ones."""
        if self._registrations.count != len(self.map):
            self._reconcile()
        touched, self._touched = self._touched, []
        return touched

    cdef list _ask(self, list asked, bint eager):
        """Ask channels what they want, in the order of the standard loop, and tell the kernel.

        With `eager`, those that came to want to write are not told but returned.
        """
        cdef _Asking asking = _Asking.__new__(_Asking)
        cdef _Registration registration
        cdef list writers = []
        asking.engine, asking.asked, asking.moment = self, asked, self._moment
        asking.want, asking.changed = [0], []
        try:
            self._hear(asking)
            for one in asking.changed:
                registration = <_Registration> one
                if registration.gone:
                    continue  # somebody's answer closed it
                if eager and registration.want & _WRITE & ~registration.kernel:
                    writers.append(registration)
                else:
                    self._apply(registration)
        except BaseException:
            # Nobody may be forgotten because one channel cannot answer.
            for one in asked:
                self._mark(<_Registration> one)
            raise
        return writers

    cdef int _hear(self, _Asking asking) except -1:
        """Let all answer; tell those that cannot of their exception."""
        while True:
            try:
                ask(asking, asking.want)
                return 0
            except BaseException as error:
                registration, asking.current = asking.current, None
                if registration is None or not self._caught(registration, error, True):
                    raise

    cdef int _apply(self, _Registration registration) except -1:
        """Tell the kernel what the channel wants."""
        if self._waiting:
            return self._mark(registration)  # another thread waits on the kernel's set
        if self._poller == NULL:
            self._open()
        self._changes += 1
        cdef poller_fd fd = _number_of(registration)
        cdef int number = EBADF
        if fd >= 0:
            registration.token.index = <uint32_t> fd
            number = self._kind.set(
                self._poller, fd, registration.token, registration.kernel, registration.want
            )
        if number == 0:
            registration.kernel = registration.want
            return 0
        registration.kernel = 0
        registration.resting = True  # or it would fail again on every turn
        try:
            raise _refusal(number, _key_of(registration))
        except OSError as error:
            if error.errno == EBADF:
                self._call(registration, registration.obj.handle_close)
            else:
                self._failed(registration, error)
        return 0

    cdef bint _write_now(self, list writers) except -1:
        """Let those write at once that can; return whether a handler ran.

        Only a channel that really cannot write enters the kernel's write set: that saves two
        system calls and one turn for each message of a server that answers.
        """
        cdef poller_query queries[BATCH]
        cdef poller_event events[BATCH]
        cdef Py_ssize_t first, position, count
        cdef int ready
        cdef bint acted = False, stale = False
        cdef _Registration registration
        try:
            for first in range(0, len(writers), BATCH):
                count = min(<Py_ssize_t> BATCH, len(writers) - first)
                for position in range(count):
                    registration = <_Registration> writers[first + position]
                    queries[position].fd = _number_of(registration)
                    queries[position].mask = registration.want
                if stale or poller_query_now(queries, <int> count) < 0:
                    for position in range(count):
                        queries[position].mask = 0  # they enter the kernel's set instead
                ready = 0
                for position in range(count):
                    registration = <_Registration> writers[first + position]
                    if queries[position].mask:
                        events[ready].token = registration.token
                        events[ready].mask = queries[position].mask
                        ready += 1
                    else:
                        self._mark(registration)
                if ready:
                    acted = True
                    stale = self._deliver_all(events, ready)
            if stale:  # a nested loop ran: what was left out is asked again
                for one in writers:
                    self._mark(<_Registration> one)
        except BaseException:
            for one in writers:
                self._mark(<_Registration> one)
            raise
        self._ask(self._take_touched(), False)
        return acted

    cdef bint _settle(self) except -1:
        """Bring the kernel in line with all that was touched; return whether a handler ran."""
        if not self._touched and self._registrations.count == len(self.map):
            return False
        cdef list writers = self._ask(self._take_touched(), True)
        return self._write_now(writers) if writers else False

    cdef bint _sweep(self) except -1:
        """Ask every channel; return whether a handler ran."""
        cdef bint few = len(self.map) <= _few
        cdef double end, start = 0.0 if few else engine_monotonic()
        cdef list writers
        self._sweeps += 1
        self._sweep_wanted = False
        if self._registrations.count != len(self.map):
            self._reconcile()
        self._touched = []
        writers = self._ask(self._registrations.values(), True)
        if self._touched or self._registrations.count != len(self.map):
            # Entries of the map that others replaced: dropped just now, and known anew.
            writers += self._ask(self._take_touched(), True)
        if few:
            self._sweep_due = 0.0
        else:
            end = engine_monotonic()
            self._sweep_due = end + max((end - start) * <int> SWEEP_SHARE, <double> SWEEP_PAUSE)
        return self._write_now(writers) if writers else False

    cdef int _look_for_closed(self) except -1:
        """Close the channels whose socket was closed by others.

        epoll and kqueue forget such a descriptor silently.  Looked for when nothing happens, and
        now and then.  (One that was only detached from its socket object is still open.)
        """
        cdef _Registration registration
        cdef double end, start = engine_monotonic()
        if start < self._look_due:
            return 0
        for one in self._registrations.values():
            registration = <_Registration> one
            if registration.gone:
                continue
            sock = getattr(registration.obj, "socket", None)
            if not engine_is_exactly(<PyObject *> sock, <PyObject *> _socket_class):
                continue
            if sock.fileno() < 0 and not registration.resting and _is_closed(_number_of(registration)):
                registration.resting = True
                self._mark(registration)
                self._call(registration, registration.obj.handle_close)
        if self._registrations.count > _few:
            end = engine_monotonic()
            self._look_due = end + (end - start) * <int> LOOK_SHARE
        return 0

    cdef bint _prepare(self) except -1:
        """Ask those that were touched, and all others where that is affordable.

        Returns whether a handler ran.
        """
        self._sweep_wanted = True
        if (
            self._strict
            or len(self.map) <= _few
            or engine_monotonic() >= self._sweep_due
        ):
            return self._sweep()
        return self._settle()

    # -- one turn ------------------------------------------------------------------------

    def _drive(
        self,
        timeout,
        count,
        bint until_empty,
        bint until_idle,
        bint reports,
        bint disconnect_closes,
    ):
        """Take turns until stop(), until `count` of them, until the map is empty or all is idle."""
        with cython.critical_section(self._lock):
            self._take_turns(
                timeout, count, until_empty, until_idle, reports, disconnect_closes
            )

    cdef int _take_turns(
        self,
        timeout,
        count,
        bint until_empty,
        bint until_idle,
        bint reports,
        bint disconnect_closes,
    ) except -1:
        self._open()
        cdef bint outer_reports = self._reports
        cdef bint outer_closes = self._disconnect_closes
        cdef double seconds = INFINITY if timeout is None else timeout
        cdef bint endless = count is None
        cdef bint acted, last
        cdef long long turns = 0
        self._reports, self._disconnect_closes = reports, disconnect_closes
        driver = PyThread_get_thread_ident()
        cdef bint nested = driver in self._drivers
        cdef bint outer_stops = self._stopping
        if nested:
            self._stopping = False  # that is about the outer one
        self._driver = driver
        self._drivers.append(driver)
        self._depth += 1
        self._moment += 1  # the program's own code ran since the last call
        try:
            last = not endless and not count > 0
            while True:
                if self._handed:
                    self._take_handed()
                acted = self._settle() if last else self._prepare()
                if last or (until_empty and not self.map):
                    break
                if until_idle and not (self.map or self._has_pending()):
                    break
                # A handler that ran just now was this turn's work, if turns are counted.
                self._turn(seconds, acted and (turns == 0 or not endless))
                turns += 1
                last = self._stopping or (not endless and turns >= count)
        finally:
            self._depth -= 1
            self._drivers.remove(driver)
            self._driver = self._drivers[-1] if self._drivers else 0
            if nested:
                self._stopping = self._stopping or outer_stops
            elif not self._drivers:
                self._stopping = False
            else:
                self.wakeup()
            self._reports, self._disconnect_closes = outer_reports, outer_closes
            self._batch += 1  # what an outer turn has still to deliver may be stale
            if not self._drivers:
                self._take_handed()
        return 0

    def _has_pending(self):
        with cython.critical_section(self._lock):
            return bool(self._ready) or self._next_timer() != INFINITY

    cdef int _turn(self, double timeout, bint at_once) except -1:
        """Wait until something happens and deliver it; do not wait if it is to be `at_once`."""
        cdef poller_event events[BATCH]
        cdef double quiet = QUIET
        cdef int fired
        self._turns += 1
        self._woken = False
        if at_once or self._sweep_wanted or self._timers or self._ready or self._stopping:
            fired = self._wait_for_what_is_due(timeout, at_once, events)
        elif timeout <= quiet:
            fired = self._wait(timeout, events)
        else:
            fired = self._wait(quiet, events)
            if not fired and not self._woken:
                self._look_for_closed()
                fired = self._wait_for_what_is_due(timeout - quiet, len(self._touched) > 0, events)
        if fired:
            self._events += fired
            self._deliver_all(events, fired)
        if not fired or self._turns % <int> LOOK_EVERY == 0:
            self._look_for_closed()
        if self._timers:
            self._run_timers()
        if self._ready:
            self._run_ready()
        return 0

    cdef int _wait_for_what_is_due(
        self, double timeout, bint at_once, poller_event *events
    ) except -1:
        """Wait for events until the timeout, the next timer or the sweep that is due."""
        cdef double now = engine_monotonic()
        cdef double due, deadline = now + timeout
        cdef int fired
        while True:
            due = min(deadline, self._next_timer())
            if self._sweep_wanted:
                # Not less than a millisecond, which epoll cannot do in one system call.
                due = min(due, max(self._sweep_due, now + 0.001))
            at_once = at_once or self._stopping or <bint> self._ready
            fired = self._wait(0.0 if at_once else due - now, events)
            if fired or at_once or self._woken or self._ready:
                return fired
            now = engine_monotonic()
            if self._next_timer() <= now:
                return fired
            if self._sweep_wanted and (now >= self._sweep_due or now >= deadline):
                at_once = self._sweep()
            elif now >= deadline:
                return fired

    cdef int _wait(self, double timeout, poller_event *events) except -1:
        """Wait for events, at most `timeout` seconds."""
        cdef int64_t nanoseconds = -1
        cdef int fired, failure = 0
        cdef double done
        if self._poller == NULL:
            self._open()
            self._settle()
        if self._waiting:
            sleep(min(max(timeout, 0.0), <double> STEP_ASIDE))
            return 0
        if self._wake_pending or timeout <= 0:
            nanoseconds = 0
        elif timeout != INFINITY:
            nanoseconds = <int64_t> (min(timeout, 1e9) * 1e9)
        if self._dropped:
            self._dropped.clear()
        if nanoseconds == 0 and not ENGINE_HAS_NO_GIL:
            # It does not block, and handing the GIL over costs more than the call.
            fired = self._kind.wait(self._poller, 0, events, BATCH)
            failure = errno
        else:
            fired = 0
            if self._contended:
                self._contended -= 1
                fired = self._kind.wait(
                    self._poller,
                    HOLD if nanoseconds < 0 else min(nanoseconds, <int64_t> HOLD),
                    events,
                    BATCH,
                )
                failure = errno
            if fired == 0:
                self._waiting += 1
                with nogil:
                    fired = self._kind.wait(self._poller, nanoseconds, events, BATCH)
                    failure = errno
                    done = engine_monotonic()
                self._waiting -= 1
                if not ENGINE_HAS_NO_GIL and engine_monotonic() - done > CONTENTION:
                    self._contended = CONTENDED
        if self._forgotten:
            self._forget_late()
        if fired < 0:
            if failure not in _INTERRUPTED:
                raise OSError(failure, os.strerror(failure))
            PyErr_CheckSignals()
            fired = 0
        if self._wake_pending:
            self._drain_wakeups()
        return fired

    cdef int _forget_late(self) except -1:
        """Do what was left undone while other threads waited on the kernel's set."""
        while self._forgotten:
            forgotten, kernel = self._forgotten.pop()
            self._kind.set(
                self._poller,
                _number_of(<_Registration> forgotten),
                (<_Registration> forgotten).token,
                kernel,
                0,
            )
        return 0

    cdef bint _deliver_all(self, poller_event *events, int fired) except -1:
        # True where a nested loop made the rest of the events stale: it may have taken what they are
        # about.  Readiness is level-triggered: what still holds is reported again.
        cdef _Registration registration
        cdef int mask, position = 0
        self._batch += 1
        cdef long long batch = self._batch
        while position < fired:
            mask = events[position].mask
            registration = self._registrations.at(events[position].token)
            if registration is None:
                self._take_own(events[position].token)
                position += 1
            elif (
                registration.asked != self._moment
                and (mask == _READ or mask == _WRITE)
                and position + 1 < fired
                and mask == events[position + 1].mask
            ):
                position = self._deliver_run(events, position, fired)
            else:
                self._deliver(registration, mask)
                position += 1
            if self._batch != batch:
                return True
        return False

    cdef int _deliver_run(self, poller_event *events, int position, int fired) except -1:
        """Deliver some events of one kind; return the position of the first that is left."""
        cdef _Ready ready = _Ready.__new__(_Ready)
        ready.engine, ready.batch = self, self._batch
        ready.events, ready.position, ready.fired = events, position, fired
        ready.mask = events[position].mask
        try:
            if ready.mask == _READ:
                deliver_reads(ready)
            else:
                deliver_writes(ready)
        except BaseException as error:
            if ready.current is None or not self._caught(ready.current, error, ready.asking):
                raise
        finally:
            ready.fired = 0  # a traceback may keep it, the events will be gone
        return ready.position

    cdef int _take_own(self, poller_token token) except -1:
        """Take an event that is no channel's: a wake-up, or a sign to make the set anew."""
        if token.generation == 0:
            return self._drain_wakeups() if self._wake else 0
        if token.generation not in self._dropped:
            return self._rebuild()
        return 0

    cdef int _deliver(self, _Registration registration, int mask) except -1:
        """Call the handlers of one channel: read, write, urgent data; never a stranger's."""
        self._mark(registration)
        if not self._is_current(registration):
            return 0
        obj = registration.obj
        cdef int want = registration.want
        cdef bint asking = True
        cdef bint writing = mask & _WRITABLE and want & _WRITE
        if mask & _READABLE and want & _READ:
            try:
                # Asked once more, if a handler ran since: it may have changed the answer.
                if registration.asked == self._moment or obj.readable():
                    asking = False
                    self._moment += 1
                    obj.handle_read_event()
            except BaseException as error:
                if not self._caught(registration, error, asking):
                    raise
            if mask == _READ or not self._is_current(registration):
                return 0
        elif mask & POLLER_HANGUP and want & _WRITE:
            writing = True  # nobody reads here: only a write can meet the end
        if writing:
            asking = True
            try:
                if registration.asked == self._moment or obj.writable():
                    asking = False
                    self._moment += 1
                    obj.handle_write_event()
            except BaseException as error:
                if not self._caught(registration, error, asking):
                    raise
        if mask & (POLLER_URGENT | POLLER_INVALID) and self._is_current(registration):
            if mask & POLLER_INVALID:
                self._call(registration, obj.handle_close)
            elif want:
                self._call(registration, obj.handle_expt_event)
        return 0

    cdef int _call(self, _Registration registration, handler) except -1:
        self._moment += 1
        try:
            handler()
        except BaseException as error:
            if not self._caught(registration, error, False):
                raise
        return 0

    cdef bint _caught(self, _Registration registration, error, bint asking) except -1:
        """Tell the channel of its exception, if it is one that stays here."""
        if isinstance(error, self.passed_through) or (asking and not self._reports):
            return False
        self._failed(registration, error)
        return True

    cdef int _failed(self, _Registration registration, error) except -1:
        """Tell the channel of its exception, while that is active."""
        obj = registration.obj
        if isinstance(error, OSError):
            if registration.resting and error.errno in EXHAUSTED:
                return 0  # accept() has seen to it
            if self._disconnect_closes and error.errno in DISCONNECTED:
                handler = obj.handle_close
            else:
                handler = obj.handle_error
        else:
            handler = obj.handle_error
        if not self._reports:
            handler()
            return 0
        try:
            handler()
        except self.passed_through:
            raise
        except BaseException as failure:
            self._report(failure, obj, "a channel's handler raised")
        return 0

    cdef int _report(self, error, source, message) except -1:
        self.exception_handler({"message": message, "exception": error, "source": source})
        return 0

    def exception_handler(self, context):
        """Take note of an exception that nobody handled; defined by Loop."""
        raise NotImplementedError

    def _after_fork(self):
        """In a child: leave the parent's kernel set alone and start an own one when needed."""
        if PyThread_get_thread_ident() not in self._drivers:
            self._lock = object()  # another thread may have held the old one
        self._release()
        self._waiting = 0
        self._driver = PyThread_get_thread_ident()
        self._drivers = [driver for driver in self._drivers if driver == self._driver]
        self._depth = <int> len(self._drivers)
        for registration in self._registrations.values():
            (<_Registration> registration).kernel = 0
            self._mark(<_Registration> registration)
        if not self._drivers:
            self._take_handed()


cdef bint _is_closed(poller_fd fd) except -1:
    cdef poller_query query
    query.fd = fd
    query.mask = _READ
    return poller_query_now(&query, 1) < 0 or query.mask & POLLER_INVALID


_INTERRUPTED = frozenset({_errno.EINTR})


def _refusal(int number, fd):
    """Return the error of a descriptor that the poller does not take."""
    if number == _errno.ERANGE:
        return OSError(
            number, f"descriptor {fd} is beyond what select() can hold; use another poller"
        )
    return OSError(number, os.strerror(number))


def _close_both(receiver, sender):
    receiver.close()
    sender.close()


_engines = weakref.WeakSet()


def _after_fork_in_child():
    for engine in list(_engines):
        engine._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
