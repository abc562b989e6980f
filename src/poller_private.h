/* What the poller files share among themselves: which mechanisms this
 * platform has, their tables, and how a timeout is handed to the kernel.
 * The engine must not include it: poller.h is all that it may know. */
#ifndef FASTCORE_POLLER_PRIVATE_H
#define FASTCORE_POLLER_PRIVATE_H

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <time.h>

#include "poller.h"

#ifndef _WIN32
#include <fcntl.h>
#include <sys/stat.h>
#endif

#if defined(__linux__)
#define POLLER_HAS_EPOLL 1
#endif

/* Elsewhere kqueue is part of the system; on Linux it is a library which the
 * build asks for with FASTCORE_HAVE_KQUEUE. */
#if defined(__APPLE__) || defined(__FreeBSD__) || defined(__NetBSD__) || \
    defined(__OpenBSD__) || defined(__DragonFly__) || defined(FASTCORE_HAVE_KQUEUE)
#define POLLER_HAS_KQUEUE 1
#endif

extern const poller_kind poller_kind_epoll;
extern const poller_kind poller_kind_kqueue;
extern const poller_kind poller_kind_poll;
extern const poller_kind poller_kind_select;

/* Whether the descriptor is open (on Windows: a socket). */
static inline int
poller_is_open(poller_fd fd)
{
#ifdef _WIN32
    int type, size = sizeof(type);

    return getsockopt(fd, SOL_SOCKET, SO_TYPE, (char *)&type, &size) == 0 ||
           WSAGetLastError() != WSAENOTSOCK;
#else
    return fd >= 0 && fcntl(fd, F_GETFD) >= 0;
#endif
}

#ifndef _WIN32

/* What tells the open file behind a descriptor from others: a program may close
 * all descriptors that there are, and their numbers are used again. */
typedef struct {
    dev_t device;
    ino_t number;
    mode_t type;
} poller_file;

static inline poller_file
poller_file_behind(int fd)
{
    poller_file result = {0};
    struct stat about;

    if (fstat(fd, &about) == 0) {
        result.device = about.st_dev;
        result.number = about.st_ino;
        result.type = about.st_mode & S_IFMT;
    }
    return result;
}

static inline int
poller_is_file(int fd, poller_file file)
{
    poller_file now = poller_file_behind(fd);

    return poller_is_open(fd) && now.device == file.device &&
           now.number == file.number && now.type == file.type;
}

#endif

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

#ifdef _WIN32

/* A wait for no socket at all, which winsock refuses; -1 is no limit. */
static inline void
poller_sleep(int ms)
{
    Sleep(ms < 0 ? INFINITE : (DWORD)ms);
}

/* The errno value of a call to winsock that failed as a whole. */
static inline int
poller_errno(void)
{
    switch (WSAGetLastError()) {
    case WSAEINTR:
        return EINTR;
    case WSAENOBUFS:
        return ENOMEM;
    default:
        return EINVAL;
    }
}

#endif

#endif
