"""The types of _python/lines.py."""

cimport cython


cdef class Received:
    cdef object _data
    cdef Py_ssize_t _at
    cdef object _piece_of
    cdef Py_ssize_t _begin
    cdef Py_ssize_t _end

    cpdef rest(self)
    cpdef assign(self, data)
    cpdef feed(self, data)
    cpdef Py_ssize_t size(self) except -1
    cpdef take(self, Py_ssize_t size)
    @cython.locals(end=Py_ssize_t)
    cpdef only_line(self, terminator)
    cpdef bint pass_over(self) except -1
