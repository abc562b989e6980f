# cython: freethreading_compatible=True
"""What has a time, first things first.

The twin of `_python/heap.py`, which says what each method promises.  Nothing here runs bytecode,
and so no signal handler comes between.  Knows times; must not know what is to happen then.
"""

cimport cython


cdef class Timed:
    """What has a time in seconds, and a number by which those of one time are in order."""


cdef inline bint _comes_before(Timed one, Timed other) noexcept:
    return one._time < other._time or (one._time == other._time and one._number < other._number)


@cython.final
cdef class Heap:
    """Holds what has a time."""

    def __cinit__(self):
        self._entries = []

    def __len__(self):
        return len(self._entries)

    cpdef int push(self, Timed one) except -1:
        """Put one in; its time and number must not change while it is there."""
        self._entries.append(one)
        return self._rise(len(self._entries) - 1)

    cpdef Timed first(self):
        """Return the one whose time comes first; None where there is none."""
        return <Timed> self._entries[0] if self._entries else None

    cpdef Timed pop(self):
        """Take that one out."""
        cdef Timed last, first
        if not self._entries:
            return None
        last = <Timed> self._entries.pop()
        if not self._entries:
            return last
        first = <Timed> self._entries[0]
        self._entries[0] = last
        self._sink(0)
        return first

    cpdef list all(self):
        """Return all, in no order."""
        return self._entries[:]

    cdef int _rise(self, Py_ssize_t position) except -1:
        """Bring an entry before those that come after it, up to the first."""
        cdef Timed one = <Timed> self._entries[position], other
        cdef Py_ssize_t parent
        while position > 0:
            parent = (position - 1) >> 1
            other = <Timed> self._entries[parent]
            if _comes_before(other, one):
                break
            self._entries[position] = other
            position = parent
        self._entries[position] = one
        return 0

    cdef int _sink(self, Py_ssize_t position) except -1:
        """Bring an entry behind those that come before it, down to the last."""
        cdef Timed one = <Timed> self._entries[position], first, other
        cdef Py_ssize_t size = len(self._entries), child = 2 * position + 1
        while child < size:
            first = <Timed> self._entries[child]
            if child + 1 < size:
                other = <Timed> self._entries[child + 1]
                if _comes_before(other, first):
                    first = other
                    child += 1
            if _comes_before(one, first):
                break
            self._entries[position] = first
            position = child
            child = 2 * position + 1
        self._entries[position] = one
        return 0
