/* The poller over poll(2), and the one-off question of poller_query_now, which
 * is a poll(2) too.  It knows the kernel only: no Python, no channels.
 *
 * The array that the kernel reads is kept from wait to wait, beside a list
 * that finds an entry by its token's index. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#if defined(_WIN32) && !defined(_WIN32_WINNT)
#define _WIN32_WINNT 0x0600
#endif

#include <errno.h>
#include <stdlib.h>

#include "poller_list.h"
#include "poller_private.h"

#ifdef _WIN32
typedef WSAPOLLFD poll_entry;
#define ASK_READ POLLRDNORM
#define ASK_WRITE POLLWRNORM
#define ASK_URGENT POLLRDBAND /* winsock refuses POLLPRI */
#else
#include <fcntl.h>
#include <poll.h>
typedef struct pollfd poll_entry;
#define ASK_READ POLLIN
#define ASK_WRITE POLLOUT
#define ASK_URGENT POLLPRI
#endif

static short
bits_of(int mask)
{
    int bits = ASK_URGENT;

    if (mask & POLLER_READ)
        bits |= ASK_READ;
    if (mask & POLLER_WRITE)
        bits |= ASK_WRITE;
    return (short)bits;
}

static int
mask_of(short bits)
{
    int mask = 0;

    if (bits & ASK_READ)
        mask |= POLLER_READ;
    if (bits & ASK_WRITE)
        mask |= POLLER_WRITE;
    if (bits & ASK_URGENT)
        mask |= POLLER_URGENT;
    if (bits & POLLERR)
        mask |= POLLER_ERROR;
    if (bits & POLLHUP)
        mask |= POLLER_HANGUP;
    if (bits & POLLNVAL)
        mask |= POLLER_INVALID;
    return mask;
}

int
poller_query_now(poller_query *queries, int count)
{
    poll_entry few[64], *entries = few;
    int position, ready, saved;

    if (count <= 0)
        return 0; /* winsock refuses an empty question */
    if (count > 64) {
        entries = malloc((size_t)count * sizeof(*entries));
        if (entries == NULL) {
            errno = ENOMEM;
            return -1;
        }
    }
    for (position = 0; position < count; position++) {
        entries[position].fd = queries[position].fd;
        entries[position].events = bits_of(queries[position].mask);
        entries[position].revents = 0;
    }
#ifdef _WIN32
    ready = WSAPoll(entries, (ULONG)count, 0);
    if (ready < 0)
        errno = WSAGetLastError() == WSAENOBUFS ? ENOMEM : EINVAL;
#else
    ready = poll(entries, (nfds_t)count, 0);
#endif
    for (position = 0; position < count && ready >= 0; position++)
        queries[position].mask = mask_of(entries[position].revents);
    if (entries != few) {
        saved = errno;
        free(entries);
        errno = saved;
    }
    return ready;
}

#ifdef POLLER_HAS_POLL

struct poller {
    poller_list list;
    poll_entry *entries; /* parallel to the list's */
    uint32_t room;
};

static poller *
poll_poller_open(void)
{
    return calloc(1, sizeof(poller));
}

static void
poll_poller_close(poller *self)
{
    poller_list_free(&self->list);
    free(self->entries);
    free(self);
}

static int
poll_poller_fileno(poller *self)
{
    (void)self;
    return -1;
}

static int
poll_poller_set(poller *self, poller_fd fd, poller_token token, int old, int new_)
{
    int position;

    if (new_ == 0) {
        position = poller_list_drop(&self->list, token.index);
        if (position >= 0)
            self->entries[position] = self->entries[self->list.count];
        return 0;
    }
    /* poll() itself would say so only later, and ignores a negative number. */
    if (fd < 0 || (old == 0 && fcntl(fd, F_GETFD) < 0))
        return EBADF;
    if ((uint32_t)self->list.count == self->room) {
        void *larger = poller_grow(self->entries, sizeof(*self->entries),
                                   self->room + 1, &self->room);
        if (larger == NULL)
            return ENOMEM;
        self->entries = larger;
    }
    position = poller_list_put(&self->list, fd, token, new_);
    if (position < 0)
        return ENOMEM;
    self->entries[position].fd = fd;
    self->entries[position].events = bits_of(new_);
    self->entries[position].revents = 0;
    return 0;
}

static int
call_poll(poller *self, int64_t timeout_ns)
{
    nfds_t count = (nfds_t)self->list.count;
#if defined(__linux__) || defined(__FreeBSD__) || defined(__OpenBSD__) || defined(__DragonFly__)
    struct timespec timeout = poller_timespec(timeout_ns < 0 ? 0 : timeout_ns);

    return ppoll(self->entries, count, timeout_ns < 0 ? NULL : &timeout, NULL);
#else
    return poll(self->entries, count, poller_milliseconds(timeout_ns));
#endif
}

static int
answer_of(const poll_entry *answer, const poller_entry *entry)
{
    int mask = mask_of(answer->revents);

#ifdef __APPLE__
    /* Devices that poll() cannot watch look closed; select() calls them
     * ready. */
    if ((mask & POLLER_INVALID) && fcntl(answer->fd, F_GETFD) >= 0)
        return entry->mask;
#endif
    (void)entry;
    return mask;
}

static int
poll_poller_wait(poller *self, int64_t timeout_ns, poller_event *events, int capacity)
{
    int found = call_poll(self, timeout_ns);
    int filled = 0, seen, position = self->list.next;

    /* Begin where the last wait had to stop, so that none starves. */
    for (seen = 0; seen < self->list.count && filled < found && filled < capacity; seen++) {
        if (position >= self->list.count)
            position = 0;
        if (self->entries[position].revents != 0) {
            events[filled].token = self->list.entries[position].token;
            events[filled].mask =
                answer_of(&self->entries[position], &self->list.entries[position]);
            filled++;
        }
        position++;
    }
    self->list.next = position;
    return found < 0 ? -1 : filled;
}

const poller_kind poller_kind_poll = {
    .name = "poll",
    .open = poll_poller_open,
    .close = poll_poller_close,
    .set = poll_poller_set,
    .wait = poll_poller_wait,
    .fileno = poll_poller_fileno,
};

#endif /* POLLER_HAS_POLL */
