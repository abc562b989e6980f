/* Waiting for many descriptors: epoll on Linux, poll(2) elsewhere.
 *
 * Descriptors are named by a small index of the caller's.  Knows nothing of
 * what is done with them.
 */
#ifndef LOAD_WAIT_H
#define LOAD_WAIT_H

enum { WANT_READ = 1, WANT_WRITE = 2, EVENTS = 512 };

typedef struct {
    int index, ready;
} event;

#ifdef __linux__
#include <stdint.h>
#include <sys/epoll.h>

static int kernel_set = -1;

/* 0, or -1 with errno, as in wait_watch. */
static int wait_open(int count)
{
    (void)count;
    kernel_set = epoll_create1(EPOLL_CLOEXEC);
    return kernel_set < 0 ? -1 : 0;
}

static int wait_watch(int index, int fd, int old, int new)
{
    struct epoll_event e = {.events = (new & WANT_READ ? EPOLLIN : 0u) |
                                      (new & WANT_WRITE ? EPOLLOUT : 0u),
                            .data.u32 = (uint32_t)index};
    return epoll_ctl(kernel_set, !new ? EPOLL_CTL_DEL : !old ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd,
                     &e);
}

/* A descriptor about to be closed: the kernel forgets it by itself. */
static void wait_forget(int index)
{
    (void)index;
}

/* How many events there are; 0, too, after a signal. */
static int wait_events(event *out, int timeout_ms)
{
    struct epoll_event found[EVENTS];
    int n = epoll_wait(kernel_set, found, EVENTS, timeout_ms);
    for (int i = 0; i < n; i++) {
        int broken = found[i].events & (EPOLLERR | EPOLLHUP) ? WANT_READ | WANT_WRITE : 0;
        out[i].index = (int)found[i].data.u32;
        out[i].ready = (found[i].events & EPOLLIN ? WANT_READ : 0) |
                       (found[i].events & EPOLLOUT ? WANT_WRITE : 0) | broken;
    }
    return n < 0 ? 0 : n;
}
#else
#include <poll.h>
#include <stdlib.h>

static struct pollfd *watched; /* by index; fd -1: not watched */
static int watched_count;

static int wait_open(int count)
{
    watched = malloc((size_t)count * sizeof *watched);
    watched_count = count;
    for (int i = 0; watched && i < count; i++)
        watched[i].fd = -1;
    return watched ? 0 : -1;
}

static int wait_watch(int index, int fd, int old, int new)
{
    (void)old;
    watched[index].fd = new ? fd : -1;
    watched[index].events =
        (short)((new & WANT_READ ? POLLIN : 0) | (new & WANT_WRITE ? POLLOUT : 0));
    return 0;
}

static void wait_forget(int index)
{
    watched[index].fd = -1;
}

static int wait_events(event *out, int timeout_ms)
{
    static int first; /* begins elsewhere each time: all get their turn */
    int n = 0;
    if (poll(watched, (nfds_t)watched_count, timeout_ms) <= 0)
        return 0;
    for (int k = 0; k < watched_count && n < EVENTS; k++) {
        int i = (first + k) % watched_count;
        short got = watched[i].fd < 0 ? 0 : watched[i].revents;
        if (got)
            out[n++] = (event){i, (got & ~POLLOUT ? WANT_READ : 0) |
                                      (got & ~POLLIN ? WANT_WRITE : 0)};
    }
    first = (first + 1) % watched_count;
    return n;
}
#endif

#endif
