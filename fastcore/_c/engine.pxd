"""The types of _python/engine.py."""

cimport cython

from .dispatch cimport Dispatch, Mode
from .inbox cimport Guard
from .interest cimport Interest, Registration
from .kernel cimport Kernel, get_ident, monotonic
from .timers cimport Handle, Timers

cdef double QUIET, ASLEEP, SLEEP, STEP_ASIDE, REST, SOON
cdef long long LOOK_EVERY
cdef Py_ssize_t DEEPEST


@cython.final
cdef class Engine:
    cdef object __weakref__
    cdef readonly object map
    cdef readonly str poller
    cdef readonly bint closed
    cdef bint exposed
    cdef public int signals
    cdef Kernel _kernel
    cdef Guard _guard
    cdef Interest _interest
    cdef Dispatch _dispatch
    cdef Timers _timers
    cdef tuple _passed_through
    cdef object _report
    cdef bint _stopping
    cdef long long _turns
    cdef long long _events
    cdef double _idle
    cdef object _watch

    @cython.locals(drivers=dict, outer=Py_ssize_t)
    cpdef drive(self, Mode mode, double timeout, double count)
    @cython.locals(drivers=dict)
    cdef _end_driving(self, driver, Py_ssize_t outer)
    @cython.locals(guard=Guard, patience=double, entered=bint)
    cdef _drive_when_free(self, Mode mode, double timeout, double count, bint nested)
    @cython.locals(
        outer_mode=Mode, outer_stops=bint, dispatch=Dispatch, counted=bint, hosted=bint,
        turns=cython.longlong
    )
    cdef _drive(self, Mode mode, double timeout, double count, bint nested)
    cdef _end_drive(self, Mode outer_mode, bint outer_stops, bint nested)
    @cython.locals(dispatch=Dispatch, timers=Timers, acted=bint, waited=double, fired=list)
    cdef bint _turn(self, double timeout, bint counted, bint hosted) except -1
    cdef bint _sleeps(self, double waited) except -1
    @cython.locals(mode=Mode)
    cdef bint _is_done(self) except -1
    @cython.locals(timers=Timers, fired=list)
    cdef list _wait(self, double timeout, bint at_once)
    @cython.locals(
        now=double, deadline=double, look=double, sweep=double, due=double, fired=list
    )
    cdef list _wait_for_what_is_due(self, double timeout, double quiet)

    cpdef attach(self, key, channel)
    cpdef detach(self, key)
    cpdef touch(self, key, channel)
    cpdef pause(self, key, channel, double seconds)
    @cython.locals(registration=Registration)
    cpdef _pause(self, key, channel, double seconds)

    cpdef Handle call_soon(self, callback, tuple args)
    cpdef Handle call_later(self, double delay, callback, tuple args)
    cpdef Handle call_at(self, double when, callback, tuple args)
    cpdef Handle call_every(self, double interval, callback, tuple args)
    @cython.locals(handle=Handle)
    cdef Handle _call_at(self, double when, double interval, callback, tuple args)
    cdef Handle _handle(self, double when, double interval, callback, tuple args)
    @cython.locals(handle=Handle)
    cdef _call_watched(self, watch)
    @cython.locals(handle=Handle, args=tuple)
    cdef _call_ready(self, Py_ssize_t count)

    cpdef bint has_pending(self) except -1
    cpdef next_deadline(self)
    cpdef set_host(self, tell)
    cpdef tuple serve(self, Mode mode)
    cdef double _due_for_host(self) except? -1
    cpdef ask_all(self)
    cdef bint _is_idle(self) except -1
