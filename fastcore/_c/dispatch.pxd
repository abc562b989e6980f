"""The types of _python/dispatch.py."""

cimport cython

from .interest cimport Interest, Registration
from .kernel cimport Kernel, identity, monotonic

cdef int READ, WRITE, URGENT, HANGUP, ENDED, INVALID, READABLE, WRITABLE, UNKNOWN
cdef size_t NOBODY
cdef int LOOK_SHARE, LOOK_ALWAYS


@cython.final
cdef class Mode:
    cdef readonly bint until_empty
    cdef readonly bint until_idle
    cdef readonly bint contained
    cdef readonly bint disconnect_closes
    cdef readonly bint hosted


@cython.final
cdef class Dispatch:
    cdef Mode mode
    cdef Interest _interest
    cdef Kernel _kernel
    cdef tuple _passed_through
    cdef object _report
    cdef object _rest
    cdef object _again
    cdef dict _unread
    cdef dict _secure
    cdef list _writers
    cdef list _fired
    cdef Registration _serving
    cdef long long looks
    cdef double _look_due
    cdef double look_missed
    cdef long long _failures
    cdef object _ask_channel, _tell_readable, _tell_writable, _tell_urgent, _tell_closed

    cdef call_through(self, calls)
    cdef bint settle(self) except -1
    @cython.locals(interest=Interest, changes=cython.longlong)
    cdef bint ask_and_write(self, list asked) except -1
    @cython.locals(
        interest=Interest, plain=dict, registration=Registration, want=int, announced=bint
    )
    cdef _ask(self, list asked, bint eager)
    cdef _tell_kernel(self, Registration registration, channel)
    @cython.locals(outer=Registration)
    cdef bint _tell_refused(self, Registration registration, channel, error) except -1
    @cython.locals(
        interest=Interest, writers=list, acted=bint, ready=list, registration=Registration
    )
    cdef bint _write_now(self) except -1

    @cython.locals(
        interest=Interest, plain=dict, outer_fired=list, outer_serving=Registration,
        registration=Registration, learning=bint
    )
    cdef deliver(self, list fired)
    @cython.locals(fired=int, want=int, writing=int, ended=int, failures=cython.longlong)
    cdef _serve(self, Registration registration, channel)
    cdef _tell_unmet_end(self, Registration registration, channel, unread)
    cdef bint _is_current(self, Registration registration, channel) except -1
    cdef note_unread(self, key)
    @cython.locals(registration=Registration)
    cdef _look_into(self, list fired)
    @cython.locals(registration=Registration, known=object)
    cdef read_again(self, key)
    @cython.locals(registration=Registration)
    cdef begin_nested(self)
    cdef end_nested(self)
    @cython.locals(start=double, end=double, registration=Registration, interest=Interest)
    cdef look_for_closed(self)
    cdef _look_at(self, Registration registration, channel)
