"""The types of _python/engine.py."""

cimport cython

from .callbacks cimport Callbacks
from .dispatch cimport Dispatch, Mode
from .inbox cimport Guard
from .interest cimport Interest, Registration
from .kernel cimport Kernel, get_ident, monotonic
from .timers cimport Timers
from .waits cimport Waits

cdef double STEP_ASIDE, REST, SOON
cdef long long LOOK_EVERY
cdef Py_ssize_t DEEPEST


@cython.final
cdef class Engine:
    cdef object __weakref__
    cdef readonly Callbacks callbacks
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
    cdef Waits _waits
    cdef bint _stopping
    cdef long long _turns
    cdef long long _events

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
    @cython.locals(dispatch=Dispatch, timers=Timers, acted=bint, looks=bint, fired=list)
    cdef bint _turn(self, double timeout, bint counted, bint hosted) except -1
    @cython.locals(mode=Mode)
    cdef bint _is_done(self) except -1
    cpdef attach(self, key, channel)
    cpdef detach(self, key)
    cpdef touch(self, key, channel)
    cpdef pause(self, key, channel, double seconds)
    @cython.locals(registration=Registration)
    cpdef _pause(self, key, channel, double seconds)

    cpdef bint has_pending(self) except -1
    cpdef next_deadline(self)
    cpdef set_host(self, tell)
    cpdef tuple serve(self, Mode mode)
    cdef double _due_for_host(self) except? -1
    cpdef ask_all(self)
    cdef bint _is_idle(self) except -1
