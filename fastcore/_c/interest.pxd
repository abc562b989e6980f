"""The types of _python/interest.py."""

cimport cython

from .kernel cimport Kernel, Watched, identity, monotonic
from .table cimport Table

cdef size_t NOBODY
cdef Py_ssize_t SWEEP_ALWAYS
cdef double SWEEP_SHARE, SWEEP_PAUSE


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
    cdef long long sweeps
    cdef bint sweep_wanted
    cdef double sweep_due
    cdef double sweep_began

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

    @cython.locals(size=Py_ssize_t, now=double)
    cdef list next_to_ask(self)
    cdef list take_dirty(self)
    @cython.locals(now=double)
    cdef end_sweep(self)
    cdef double next_sweep(self) except? -1

    cdef set_aside(self, Registration registration, channel)
    @cython.locals(before=double)
    cdef tell(self, Registration registration)
