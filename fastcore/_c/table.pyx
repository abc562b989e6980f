# cython: freethreading_compatible=True
"""What is kept by descriptor.

The twin of `_python/table.py`: a list by number, since a dict costs each channel 37 to 74 bytes.
Values are not None, and come in the order of their numbers; a key that is no int but equal to one
is another key.  Knows neither channels nor kernels.
"""

cimport cython

cdef extern from "Python.h":
    long PyLong_AsLongAndOverflow(object, int *overflow) except? -1

# Larger numbers are kept as what is no number at all: one alone must not cost megabytes.
cdef enum:
    LISTED = 1 << 20


@cython.final
cdef class Table:
    """Objects by descriptor, or by whatever else is hashable."""

    def __cinit__(self):
        self._by_number = []
        self._others = {}

    cdef Py_ssize_t _place(self, key) except -2:
        """Return the place of a key in the list, -1 where it has none."""
        cdef int overflow = 0
        cdef long number
        if not isinstance(key, int):
            return -1
        number = PyLong_AsLongAndOverflow(key, &overflow)
        return number if overflow == 0 and 0 <= number < LISTED else -1

    def __len__(self):
        return self._count

    def __contains__(self, key):
        return self.get(key) is not None

    cpdef get(self, key):
        """Return what is kept under `key`, or None."""
        cdef Py_ssize_t place = self._place(key)
        if place < 0:
            return self._others.get(key)
        return self._by_number[place] if place < len(self._by_number) else None

    def __setitem__(self, key, value):
        cdef Py_ssize_t place = self._place(key), more
        if self.get(key) is None:
            self._count += 1
        if place < 0:
            self._others[key] = value
            return
        more = place + 1 - len(self._by_number)
        if more > 0:
            self._by_number.extend([None] * more)
        self._by_number[place] = value

    def __delitem__(self, key):
        cdef Py_ssize_t place = self._place(key)
        if self.get(key) is None:
            raise KeyError(key)
        self._count -= 1
        if place < 0:
            del self._others[key]
        else:
            self._by_number[place] = None

    cpdef list to_list(self):
        """Return all that is kept, as a list of its own."""
        cdef list kept = [value for value in self._by_number if value is not None]
        if self._others:
            kept.extend(self._others.values())
        return kept
