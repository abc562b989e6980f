"""The types of _python/timers.py."""

cimport cython

from .inbox cimport Guard
from .kernel cimport monotonic

cdef Py_ssize_t _CANCELLED_KEPT


@cython.final
cdef class Handle:
    cdef Timers _timers
    cdef double _time
    cdef double _interval
    cdef object _callback
    cdef tuple _args
    cdef bint _cancelled
    cdef bint _scheduled
    cdef long long _number


@cython.locals(handle=Handle, other=Handle, parent=Py_ssize_t)
cdef _rise(list heap, Py_ssize_t position)
@cython.locals(handle=Handle, first=Handle, other=Handle, size=Py_ssize_t, child=Py_ssize_t)
cdef _sink(list heap, Py_ssize_t position)


@cython.final
cdef class Timers:
    cdef Guard guard
    cdef list heap
    cdef object ready
    cdef Py_ssize_t cancelled
    cdef double next_due
    cdef long long _count

    cdef schedule(self, Handle handle)
    cpdef forget(self, Handle handle)
    @cython.locals(handle=Handle, position=Py_ssize_t)
    cdef _drop_cancelled(self)
    @cython.locals(first=Handle, last=Handle)
    cdef Handle _remove_first(self)
    @cython.locals(handle=Handle)
    cdef double first_due(self) except? -1
    @cython.locals(now=double, handle=Handle)
    cdef collect_due(self)
    @cython.locals(now=double)
    cdef schedule_next_beat(self, Handle handle)
    cdef Py_ssize_t count(self) except -1
    @cython.locals(handle=Handle)
    cdef clear(self)
