/* Small things that the compiled engine needs of the platform, beside the pollers:
 * a clock, and socket calls that never block.  Knows nothing of Python. */
#ifndef FASTCORE_PLATFORM_H
#define FASTCORE_PLATFORM_H

#include <errno.h>
#include <stddef.h>

#include "poller.h"

#ifdef _WIN32
#include <windows.h>
#else
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>
#endif

#ifdef __VERSION__
#define PLATFORM_COMPILER __VERSION__
#else
#define PLATFORM_COMPILER "unknown"
#endif

#ifdef FASTCORE_HAVE_KQUEUE
#define PLATFORM_KQUEUE "libkqueue"
#else
#define PLATFORM_KQUEUE ""
#endif

/* The clock of time.monotonic(), in seconds. */
static inline double
platform_monotonic(void)
{
#ifdef _WIN32
    LARGE_INTEGER count, frequency;
    QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&count);
    return (double)count.QuadPart / (double)frequency.QuadPart;
#else
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
#endif
}

/* A flag that several threads raise and one lowers.  Who finds it raised already may rely on the
 * other to look, after lowering it, at everything that was done before the flag was raised. */
#ifdef _MSC_VER
#include <intrin.h>
static inline int
platform_flag_raise(int *flag)
{
    return _InterlockedExchange((volatile long *)flag, 1);
}

static inline void
platform_flag_lower(int *flag)
{
    _InterlockedExchange((volatile long *)flag, 0);
}
#else
static inline int
platform_flag_raise(int *flag)
{
    return __atomic_exchange_n(flag, 1, __ATOMIC_SEQ_CST);
}

static inline void
platform_flag_lower(int *flag)
{
    __atomic_exchange_n(flag, 0, __ATOMIC_SEQ_CST);
}
#endif

/* Where a call can be told not to block whatever the socket's mode, it may be made with the GIL
 * held; what a socket in blocking mode does more is then done through the socket object. */
#if defined(MSG_DONTWAIT) && !defined(_WIN32)
#define PLATFORM_NEVER_BLOCKS 1

static inline ptrdiff_t
platform_recv(poller_fd fd, char *buffer, size_t size)
{
    ptrdiff_t got;
    do
        got = recv(fd, buffer, size, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    return got;
}

static inline ptrdiff_t
platform_send(poller_fd fd, const char *data, size_t size)
{
    ptrdiff_t sent;
    do
        sent = send(fd, data, size, MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    return sent;
}

/* Whether the descriptor is in blocking mode: who shares it may have changed that. */
static inline int
platform_is_blocking(poller_fd fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags != -1 && !(flags & O_NONBLOCK);
}
#else
#define PLATFORM_NEVER_BLOCKS 0

static inline ptrdiff_t
platform_recv(poller_fd fd, char *buffer, size_t size)
{
    (void)fd, (void)buffer, (void)size;
    errno = ENOSYS;
    return -1;
}

static inline ptrdiff_t
platform_send(poller_fd fd, const char *data, size_t size)
{
    (void)fd, (void)data, (void)size;
    errno = ENOSYS;
    return -1;
}

static inline int
platform_is_blocking(poller_fd fd)
{
    (void)fd;
    return 0;
}
#endif

#endif
