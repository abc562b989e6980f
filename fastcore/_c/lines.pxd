"""The types of _python/lines.py."""

cimport cython

from .kernel cimport get_ident, identity

cdef object _UNSET
cdef dict bursts
cdef list _latest


@cython.final
cdef class Burst:
    cdef size_t chat
    cdef object data
    cdef Py_ssize_t at
    cdef Py_ssize_t following
    cdef unsigned long checker

    cpdef end(self, chat)
    @cython.locals(size=Py_ssize_t, end=Py_ssize_t)
    cpdef next_line(self, chat, terminator)
    @cython.locals(done=Py_ssize_t)
    cpdef bint go_on(self, chat) except -1
    cpdef rest(self)
    cpdef bint is_set(self, chat) except -1


@cython.final
cdef class Rest:
    cdef public object owner


@cython.locals(burst=Burst)
cdef Burst find_burst(chat)
