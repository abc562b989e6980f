"""The types of _python/waits.py."""

cimport cython

from .dispatch cimport Dispatch
from .interest cimport Interest
from .kernel cimport Kernel, monotonic
from .timers cimport Timers

cdef double QUIET, ASLEEP, SLEEP


@cython.final
cdef class Waits:
    cdef double idle
    cdef Kernel _kernel
    cdef Interest _interest
    cdef Dispatch _dispatch
    cdef Timers _timers

    @cython.locals(timers=Timers, fired=list)
    cdef list wait(self, double timeout, bint at_once)
    @cython.locals(
        now=double, deadline=double, look=double, sweep=double, due=double, fired=list
    )
    cdef list _wait_for_what_is_due(self, double timeout, double quiet)
    cdef bint sleeps(self, double waited) except -1
