"""The types of kernel.pyx, for the modules that are compiled against it."""


cpdef double monotonic() noexcept
cpdef unsigned long get_ident() noexcept
cpdef size_t identity(object thing) noexcept


cdef class Watched:
    cdef public int fd
    cdef unsigned int generation
    cdef public unsigned char want
    cdef public unsigned char registered
    cdef public unsigned char fired
    # Of those who watch: behind this class they would cost each channel 8 bytes more.
    cdef unsigned char dirty
    cdef unsigned char paused
    cdef unsigned char period


cdef class Kernel:
    cdef readonly bint woken
    cdef readonly long long changes
    cdef readonly long long sets
    cdef object __weakref__
    cdef const void *_kind
    cdef void *_poller
    cdef list _wakeup
    cdef object _close_wakeup
    cdef int _wake_pending
    cdef int _contended
    cdef bint _apart
    cdef unsigned int _generation
    cdef list _watched
    cdef set _muted
    cdef list _lost

    cpdef int set(self, Watched watched, int interest) except -1
    cpdef int look(self, Watched watched) except -1
    cpdef list wait(self, double seconds)
    cpdef bint is_whole(self) except -1
    cpdef int look_at_own(self) except -1
    cpdef int begin_nested(self) except -1
    cpdef int end_nested(self) except -1
    cpdef list ready_now(self, list asked)
    cpdef int readiness(self, Py_ssize_t fd) except -1
    cpdef int mute(self, Watched watched) except -1
    cpdef int wake(self) except -1
    cpdef bint is_woken(self) noexcept
    cpdef bint is_open(self) noexcept
    cpdef int open(self) except -1
    cpdef int close(self) except -1
    cpdef int after_fork(self) except -1

    cdef int _forget(self, Watched watched) except -1
    cdef int _keep(self, Watched watched) except -1
    cdef int _unmute(self, list fired) except -1
    cdef int _set_again(self, Watched watched, int interest) noexcept
    cdef int _wait_hearing(self, long long nanoseconds, void *events) except -1
    cdef int _wait_for(self, long long nanoseconds, void *events) except -1
    cdef int _wait(self, long long nanoseconds, void *events) except -1
    cdef Watched _find(self, void *event)
    cdef int _open_wakeup(self) except -1
    cdef int _watch_again(self, void *made, Watched one, bint lost) except -1
    cdef int _give_back(self) except -1
    cdef int _renew(self) except -1
    cdef int _renew_set(self) except -1
    cdef int _wait_in_slices(self, long long nanoseconds, void *events) except -1
    cdef int _after_failure(self, int failure, long long nanoseconds) except -1
    cdef int _take_wakeups(self) except -1
