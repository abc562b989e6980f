"""The types of _python/sweeps.py."""

cimport cython

from .kernel cimport monotonic

cdef int _TRUSTED
cdef double _LONGEST_PAUSE


@cython.final
cdef class Sweeps:
    cdef long long count
    cdef bint suspects
    cdef bint caught
    cdef set _ran
    cdef object _trust
    cdef int _least
    cdef double began
    cdef double _ended
    cdef double _took

    @cython.locals(trust=int)
    cdef note(self, kind)
    cdef bint is_due(self, double now) except -1
    cdef double _pause(self) except? -1
    cdef double next_due(self) except? -1
    cdef hasten(self)
    cdef begin(self, double now)
    @cython.locals(took=double, trust=int)
    cdef end(self, bint told)
    cdef forget(self)
