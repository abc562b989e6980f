/* What the poller files share among themselves: which mechanisms this
 * platform has, their tables, and how a timeout is handed to the kernel.
 * The engine must not include it: poller.h is all that it may know. */
#ifndef FASTCORE_POLLER_PRIVATE_H
#define FASTCORE_POLLER_PRIVATE_H

#include <limits.h>
#include <stdint.h>
#include <time.h>

#include "poller.h"

#if defined(__linux__)
#define POLLER_HAS_EPOLL 1
#endif

/* Elsewhere kqueue is part of the system; on Linux it is a library which the
 * build asks for with FASTCORE_HAVE_KQUEUE. */
#if defined(__APPLE__) || defined(__FreeBSD__) || defined(__NetBSD__) || \
    defined(__OpenBSD__) || defined(__DragonFly__) || defined(FASTCORE_HAVE_KQUEUE)
#define POLLER_HAS_KQUEUE 1
#endif

/* Windows has WSAPoll, but for ten years it did not report a failed connect;
 * select does, and winsock's select has no limit either: see poller_select.c. */
#if !defined(_WIN32)
#define POLLER_HAS_POLL 1
#endif

extern const poller_kind poller_kind_epoll;
extern const poller_kind poller_kind_kqueue;
extern const poller_kind poller_kind_poll;
extern const poller_kind poller_kind_select;

/* Milliseconds for the kernel: rounded up, since a wait that ends too early
 * makes the caller spin until its timer is due; -1 is no limit. */
static inline int
poller_milliseconds(int64_t timeout_ns)
{
    int64_t ms;

    if (timeout_ns < 0)
        return -1;
    ms = timeout_ns / 1000000 + (timeout_ns % 1000000 != 0);
    return ms > INT_MAX ? INT_MAX : (int)ms;
}

/* The same as a timespec, for a timeout that is not negative.  Some kernels
 * refuse very long ones; ending a wait early is always allowed. */
static inline struct timespec
poller_timespec(int64_t timeout_ns)
{
    const int64_t longest = (int64_t)INT_MAX * 1000000;
    struct timespec result;

    if (timeout_ns > longest)
        timeout_ns = longest;
    result.tv_sec = (time_t)(timeout_ns / 1000000000);
    result.tv_nsec = (long)(timeout_ns % 1000000000);
    return result;
}

#endif
