"""The types of table.pyx, for the modules that are compiled against it."""

cimport cython


@cython.final
cdef class Table:
    cdef list _by_number
    cdef dict _others
    cdef Py_ssize_t _count

    cpdef get(self, key)
    cpdef list to_list(self)
    cdef Py_ssize_t _place(self, key) except -2
