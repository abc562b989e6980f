"""The types of _python/timers.py."""

cimport cython

from .heap cimport Heap, Timed
from .inbox cimport Guard
from .kernel cimport monotonic

cdef Py_ssize_t _CANCELLED_KEPT


@cython.final
cdef class Handle(Timed):
    cdef Timers _timers
    cdef double _interval
    cdef object _callback
    cdef tuple _args
    cdef bint _cancelled
    cdef bint _scheduled


@cython.final
cdef class Timers:
    cdef Guard guard
    cdef object ready
    cdef double next_due
    cdef Heap _heap
    cdef object _idle
    cdef Py_ssize_t _cancelled
    cdef long long _count

    cdef schedule(self, Handle handle)
    cdef _put(self, Handle handle)
    cpdef forget(self, Handle handle)
    @cython.locals(kept=Heap, handle=Handle, count=cython.longlong)
    cdef _drop_cancelled(self)
    @cython.locals(handle=Handle)
    cdef double first_due(self) except? -1
    @cython.locals(handle=Handle)
    cdef bint _take(self, Handle first) except -1
    @cython.locals(now=double, handle=Handle)
    cdef collect_due(self)
    @cython.locals(now=double)
    cdef schedule_next_beat(self, Handle handle)
    @cython.locals(handle=Handle)
    cdef bint has_any(self) except -1
    @cython.locals(handle=Handle, found=Py_ssize_t)
    cdef Py_ssize_t count(self) except -1
    @cython.locals(handle=Handle)
    cdef clear(self)
