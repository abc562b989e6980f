"""The types of _python/inbox.py."""

cimport cython

from .kernel cimport Kernel, get_ident


@cython.final
cdef class Guard:
    cdef unsigned long owner
    cdef list drivers
    cdef object asked
    cdef tuple passed_through
    cdef object report
    cdef Kernel _kernel
    cdef object _door
    cdef int _depth

    cdef bint enter(self, double seconds) except -1
    cdef leave(self)
    cdef _go_out(self)
    cdef take_if_free(self)
    cdef take(self)
    cdef tell_driver(self)
    cdef after_fork(self)
