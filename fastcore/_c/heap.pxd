"""The types of heap.pyx, for the modules that are compiled against it."""


cdef class Timed:
    cdef double _time
    cdef long long _number


cdef class Heap:
    cdef list _entries

    cpdef int push(self, Timed one) except -1
    cpdef Timed first(self)
    cpdef Timed pop(self)
    cpdef list all(self)

    cdef int _rise(self, Py_ssize_t position) except -1
    cdef int _sink(self, Py_ssize_t position) except -1
