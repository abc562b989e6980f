"""The types of _python/interest.py."""

cimport cython

from .kernel cimport Kernel, Watched, identity, monotonic
from .sweeps cimport Sweeps
from .table cimport Table

cdef size_t NOBODY
cdef Py_ssize_t SWEEP_ALWAYS, LATELY
cdef int PERIODS


@cython.final
@cython.no_gc
cdef class Registration(Watched):
    cdef object key
    cdef size_t identity


@cython.final
cdef class Interest:
    cdef object map
    cdef dict plain
    cdef object look_up
    cdef Kernel kernel
    cdef bint strict
    cdef Table registrations
    cdef list dirty
    cdef Sweeps sweeps
    cdef bint learning
    cdef int period
    cdef list _recent
    cdef list _before
    cdef bint _postponed

    @cython.locals(registration=Registration)
    cpdef attach(self, key, channel)
    @cython.locals(known=Registration)
    cpdef detach(self, key)
    @cython.locals(known=Registration)
    cpdef touch(self, key, channel)
    @cython.locals(known=Registration)
    cdef Registration pause(self, key, channel)
    cdef resume(self, Registration registration)
    cdef mark(self, Registration registration)
    cdef drop(self, Registration registration)
    @cython.locals(registration=Registration)
    cdef drop_all(self)
    @cython.locals(registration=Registration)
    cdef forget_dropped(self)
    @cython.locals(known=Registration, registration=Registration)
    cdef reconcile(self)

    @cython.locals(now=double, asked=list)
    cdef list next_to_ask(self)
    cdef list take_dirty(self)
    cdef list next_after_writes(self)
    cdef list begin_sweep(self, double now)
    cdef list _all(self)
    cdef note_event(self, Registration registration)
    @cython.locals(registration=Registration)
    cdef list _with_recent(self, list asked)

    cdef set_aside(self, Registration registration, channel)
    cdef tell(self, Registration registration)
