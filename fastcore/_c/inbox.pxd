"""The types of _python/inbox.py."""

cimport cython

from .kernel cimport Kernel, get_ident


@cython.final
cdef class Guard:
    cdef unsigned long owner
    cdef dict drivers
    cdef object inbox
    cdef tuple passed_through
    cdef object report
    cdef object host
    cdef bint told
    cdef Kernel _kernel
    cdef object _door

    cdef bint is_in(self) except -1
    cdef bint come_in(self, double seconds) except -1
    cdef leave(self)
    cdef go_out(self)
    @cython.locals(entered=bint)
    cdef bint _visit(self, double seconds, action, tuple args) except -1
    cdef take_if_free(self)
    cdef take(self)
    cdef tell_driver(self)
    cdef tell_host(self)
    cdef after_fork(self)
