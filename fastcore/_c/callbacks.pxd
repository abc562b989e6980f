"""The types of _python/callbacks.py."""

cimport cython

from .inbox cimport Guard
from .interest cimport Interest
from .kernel cimport get_ident, monotonic
from .timers cimport Handle, Timers

cdef double SOON


@cython.final
cdef class Callbacks:
    cdef bint closed
    cdef object watch
    cdef Timers _timers
    cdef Guard _guard
    cdef Interest _interest
    cdef tuple _passed_through
    cdef object _report

    cpdef Handle call_soon(self, callback, tuple args)
    cpdef Handle call_later(self, double delay, callback, tuple args)
    cpdef Handle call_at(self, double when, callback, tuple args)
    cpdef Handle call_every(self, double interval, callback, tuple args)
    @cython.locals(handle=Handle)
    cdef Handle _call_at(self, double when, double interval, callback, tuple args)
    cdef Handle _handle(self, double when, double interval, callback, tuple args)
    @cython.locals(handle=Handle)
    cdef call_ready(self)
    @cython.locals(handle=Handle, args=tuple)
    cpdef _call_next(self)
