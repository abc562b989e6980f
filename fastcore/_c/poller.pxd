"""What the engine uses of src/poller.h, which says what each part promises."""

from libc.stdint cimport int64_t, uint32_t

cdef extern from "poller.h" nogil:
    ctypedef int poller_fd
    enum:
        POLLER_READ
        POLLER_URGENT
        POLLER_INVALID
        POLLER_MUTED
    ctypedef struct poller_token:
        uint32_t index
        uint32_t generation
    ctypedef struct poller_event:
        poller_token token
        int mask
    ctypedef struct poller:
        pass
    ctypedef struct poller_kind:
        const char *name
        poller *(*open)() noexcept nogil
        void (*close)(poller *) noexcept nogil
        int (*is_own)(poller *) noexcept nogil
        int (*set)(poller *, poller_fd, poller_token, int, int) noexcept nogil
        int (*look)(poller *, poller_fd, poller_token, int) noexcept nogil
        int (*wait)(poller *, int64_t, poller_event *, int) noexcept nogil
        int (*fileno)(poller *) noexcept nogil
    ctypedef struct poller_query:
        poller_fd fd
        int mask
    const poller_kind **poller_kinds
    const poller_kind *poller_find(const char *)
    int poller_query_now(poller_query *, int) noexcept
