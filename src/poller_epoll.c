/* The poller over Linux epoll.  It knows the kernel only: no Python, no
 * channels.  Level-triggered: handlers may leave data behind.
 *
 * What is awkward about epoll, and what is done about it:
 *
 * - It refuses regular files and /dev/null (EPERM), which select() calls
 *   ready at any time.  They are kept aside and reported on every wait.
 * - An interest of zero still reports hang-ups and errors, without end.  A
 *   descriptor without interest is deregistered, not modified.
 * - A registration belongs to the open file, not to the number: after close()
 *   it is gone where that was the last reference, so a change meets ENOENT
 *   although nobody deregistered.  Then the descriptor is added instead.
 * - Conversely a number may be known to the set although its owner never
 *   added it (EEXIST).  Then it is modified.
 * - Where a duplicate keeps the file open, a closed descriptor goes on firing
 *   and its number can no longer be used to stop it.  The event carries the
 *   token of its registration, generation included: the caller recognises a
 *   stranger and, if it insists, opens a new set.
 * - A forked child shares its parent's set.  It must open its own; closing
 *   this one there is harmless.
 * - The timeout counts whole milliseconds; it is rounded up.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "poller_private.h"

#ifdef POLLER_HAS_EPOLL

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "poller_files.h"

struct poller {
    int fd;
    poller_file behind;
    struct epoll_event *buffer;
    uint32_t room;
    poller_files files;
};

static poller *
epoll_poller_open(void)
{
    poller *self = calloc(1, sizeof(*self));

    if (self == NULL)
        return NULL;
    self->fd = epoll_create1(EPOLL_CLOEXEC);
    if (self->fd < 0) {
        free(self);
        return NULL;
    }
    self->behind = poller_file_behind(self->fd);
    return self;
}

static int
epoll_poller_is_own(poller *self)
{
    return poller_is_file(self->fd, self->behind);
}

static void
epoll_poller_close(poller *self)
{
    if (epoll_poller_is_own(self))
        close(self->fd);
    poller_list_free(&self->files.list);
    free(self->buffer);
    free(self);
}

static int
epoll_poller_fileno(poller *self)
{
    return self->fd;
}

static int
remove_fd(poller *self, int fd, poller_token token)
{
    struct epoll_event unused = {0};

    if (poller_list_drop(&self->files.list, token.index) >= 0)
        return 0;
    if (epoll_ctl(self->fd, EPOLL_CTL_DEL, fd, &unused) == 0)
        return 0;
    /* Closed already, or its number now means another file. */
    if (errno == ENOENT || errno == EBADF || errno == EPERM)
        return 0;
    return errno;
}

static struct epoll_event
request_of(poller_token token, int interest)
{
    struct epoll_event event = {0};

    if (!(interest & POLLER_MUTED))
        event.events |= EPOLLPRI;
    if (interest & POLLER_READ)
        event.events |= EPOLLIN;
    if (interest & POLLER_WRITE)
        event.events |= EPOLLOUT;
    event.data.u64 = (uint64_t)token.index << 32 | token.generation;
    return event;
}

static int
epoll_poller_look(poller *self, poller_fd fd, poller_token token, int interest)
{
    struct epoll_event event = request_of(token, interest);

    /* A change to what it is already meets the file that the number means. */
    if (poller_list_find(&self->files.list, token.index) < 0)
        return epoll_ctl(self->fd, EPOLL_CTL_MOD, fd, &event) == 0 ||
               (errno != ENOENT && errno != EBADF && errno != EPERM);
    if (epoll_ctl(self->fd, EPOLL_CTL_ADD, fd, &event) < 0)
        return errno != EBADF;
    epoll_ctl(self->fd, EPOLL_CTL_DEL, fd, &event);
    return 0;
}

static int
epoll_poller_set(poller *self, poller_fd fd, poller_token token, int old, int new_)
{
    struct epoll_event event = request_of(token, new_);
    int operation = old != 0 ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    int status;

    if (new_ == 0)
        return remove_fd(self, fd, token);
    status = epoll_ctl(self->fd, operation, fd, &event);
    if (status < 0 && operation == EPOLL_CTL_MOD && errno == ENOENT)
        status = epoll_ctl(self->fd, EPOLL_CTL_ADD, fd, &event);
    else if (status < 0 && operation == EPOLL_CTL_ADD && errno == EEXIST)
        status = epoll_ctl(self->fd, EPOLL_CTL_MOD, fd, &event);
    if (status < 0) {
        if (errno == EPERM)
            return poller_files_put(&self->files, fd, token, new_) < 0 ? ENOMEM : 0;
        return errno;
    }
    /* The same owner may have closed a file and opened a socket. */
    if (self->files.list.count > 0)
        poller_list_drop(&self->files.list, token.index);
    return 0;
}

static int
mask_of(uint32_t bits)
{
    int mask = 0;

    if (bits & EPOLLIN)
        mask |= POLLER_READ;
    if (bits & EPOLLOUT)
        mask |= POLLER_WRITE;
    if (bits & EPOLLPRI)
        mask |= POLLER_URGENT;
    if (bits & EPOLLERR)
        mask |= POLLER_ERROR;
    if (bits & EPOLLHUP)
        mask |= POLLER_HANGUP;
    return mask;
}

static int
epoll_poller_wait(poller *self, int64_t timeout_ns, poller_event *events, int capacity)
{
    int wanted = poller_files_leave(&self->files, capacity);
    int timeout = self->files.list.count > 0 ? 0 : poller_milliseconds(timeout_ns);
    int count = 0, position;
    uint64_t data;

    if ((uint32_t)wanted > self->room) {
        void *larger = poller_grow(self->buffer, sizeof(*self->buffer),
                                   (uint32_t)wanted, &self->room);
        if (larger == NULL) {
            errno = ENOMEM;
            return -1;
        }
        self->buffer = larger;
    }
    if (timeout == 1 && timeout_ns < 1000000) {
        /* epoll counts in milliseconds: too coarse for so short a wait. */
        struct pollfd set = {.fd = self->fd, .events = POLLIN};
        struct timespec precisely = poller_timespec(timeout_ns);
        count = ppoll(&set, 1, &precisely, NULL);
        if (count <= 0)
            return count;
        timeout = count = 0;
    }
    if (wanted > 0) {
        count = epoll_wait(self->fd, self->buffer, wanted, timeout);
        if (count < 0)
            return -1;
    }
    for (position = 0; position < count; position++) {
        data = self->buffer[position].data.u64;
        events[position].token.index = (uint32_t)(data >> 32);
        events[position].token.generation = (uint32_t)data;
        events[position].mask = mask_of(self->buffer[position].events);
    }
    if (self->files.list.count > 0)
        count +=
            poller_list_report(&self->files.list, events + count, capacity - count);
    return count;
}

const poller_kind poller_kind_epoll = {
    .name = "epoll",
    .open = epoll_poller_open,
    .close = epoll_poller_close,
    .is_own = epoll_poller_is_own,
    .set = epoll_poller_set,
    .look = epoll_poller_look,
    .wait = epoll_poller_wait,
    .fileno = epoll_poller_fileno,
};

#endif /* POLLER_HAS_EPOLL */
