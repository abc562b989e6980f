/* The poller over poll(2), and the one-off question of poller_query_now, which
 * is a poll(2) too.  It knows the kernel only: no Python, no channels.
 *
 * The array that the kernel reads is kept from wait to wait, beside a list
 * that finds an entry by its token's index.
 *
 * On Windows this is WSAPoll, and the second choice after select(): before
 * Windows 10 2004 it never reports that a connect failed, and in all versions
 * it calls a peer that has only ended its own side hung up and goes on saying
 * so, which keeps a wait for room to write from waiting. */
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
#include <poll.h>
typedef struct pollfd poll_entry;
#define ASK_READ POLLIN
#define ASK_WRITE POLLOUT
#define ASK_URGENT POLLPRI
#endif

static short
bits_of(int mask)
{
    int bits = mask & POLLER_MUTED ? 0 : ASK_URGENT;

    if (mask & POLLER_READ)
        bits |= ASK_READ;
    if (mask & POLLER_WRITE)
        bits |= ASK_WRITE;
    return (short)bits;
}

/* What the kernel answered about a descriptor. */
static int
mask_of(const poll_entry *answer)
{
    short bits = answer->revents;
    int mask = 0;

    if (bits & ASK_READ)
        mask |= POLLER_READ;
    if (bits & ASK_WRITE)
        mask |= POLLER_WRITE;
    if (bits & ASK_URGENT)
        mask |= POLLER_URGENT;
    if (bits & POLLERR)
        mask |= POLLER_ERROR;
    if (bits & POLLNVAL)
        mask |= POLLER_INVALID;
#ifdef _WIN32
    /* The peer may still read: all that is sure is that our reading ends. */
    if ((bits & POLLHUP) && (answer->events & ASK_READ))
        mask |= POLLER_READ;
#else
    if (bits & POLLHUP)
        mask |= POLLER_HANGUP;
#endif
    return mask;
}

#ifdef _WIN32

/* WSAPoll() itself leaves out those that are no sockets. */
static int
count_answers(const poll_entry *entries, int count)
{
    int position, found = 0;

    for (position = 0; position < count; position++)
        if (entries[position].revents != 0)
            found++;
    return found;
}

/* Where none is a socket, WSAPoll() fails. */
static int
note_invalid(poll_entry *entries, int count)
{
    int position;

    for (position = 0; position < count; position++)
        entries[position].revents = poller_is_open(entries[position].fd) ? 0 : POLLNVAL;
    return count_answers(entries, count);
}

static int
call_poll(poll_entry *entries, int count, int64_t timeout_ns)
{
    int ms = poller_milliseconds(timeout_ns);
    int found;

    if (count == 0) {
        poller_sleep(ms);
        return 0;
    }
    if (WSAPoll(entries, (ULONG)count, ms) >= 0)
        return count_answers(entries, count);
    errno = poller_errno();
    found = note_invalid(entries, count);
    return found > 0 ? found : -1;
}

#else

static int
call_poll(poll_entry *entries, int count, int64_t timeout_ns)
{
#if defined(__linux__) || defined(__FreeBSD__) || defined(__OpenBSD__) || \
    defined(__DragonFly__)
    struct timespec timeout = poller_timespec(timeout_ns < 0 ? 0 : timeout_ns);

    return ppoll(entries, (nfds_t)count, timeout_ns < 0 ? NULL : &timeout, NULL);
#else
    return poll(entries, (nfds_t)count, poller_milliseconds(timeout_ns));
#endif
}

#endif

int
poller_query_now(poller_query *queries, int count)
{
    poll_entry few[64], *entries = few;
    int position, ready, saved;

    if (count <= 0)
        return 0;
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
    ready = call_poll(entries, count, 0);
    for (position = 0; position < count && ready >= 0; position++)
        queries[position].mask = mask_of(&entries[position]);
    if (entries != few) {
        saved = errno;
        free(entries);
        errno = saved;
    }
    return ready;
}

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
poll_poller_is_own(poller *self)
{
    (void)self; /* it has no descriptor */
    return 1;
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
    /* poll() itself would say so only later. */
    if (old == 0 && !poller_is_open(fd))
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
answer_of(const poll_entry *answer)
{
    int mask = mask_of(answer);

#ifdef __APPLE__
    /* Devices that poll() cannot watch look closed; select() calls them
     * ready. */
    if ((mask & POLLER_INVALID) && poller_is_open(answer->fd)) {
        mask = answer->events & ASK_READ ? POLLER_READ : 0;
        mask |= answer->events & ASK_WRITE ? POLLER_WRITE : 0;
    }
#endif
    return mask;
}

static int
poll_poller_look(poller *self, poller_fd fd, poller_token token, int interest)
{
    (void)self, (void)fd, (void)token, (void)interest;
    return 1; /* each wait asks by the number */
}

static int
poll_poller_wait(poller *self, int64_t timeout_ns, poller_event *events, int capacity)
{
    int found = call_poll(self->entries, self->list.count, timeout_ns);
    int filled = 0, looked = 0, seen, mask, position = self->list.next;

    /* Begin where the last wait had to stop, so that none starves. */
    for (seen = 0; seen < self->list.count && looked < found && filled < capacity;
         seen++) {
        if (position >= self->list.count)
            position = 0;
        if (self->entries[position].revents != 0) {
            looked++;
            mask = answer_of(&self->entries[position]);
            if (mask != 0) {
                events[filled].token = self->list.entries[position].token;
                events[filled].mask = mask;
                filled++;
            }
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
    .is_own = poll_poller_is_own,
    .set = poll_poller_set,
    .look = poll_poller_look,
    .wait = poll_poller_wait,
    .fileno = poll_poller_fileno,
};
