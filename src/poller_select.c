/* The poller over select(), for the platforms and the programs that have
 * nothing else.  It knows the kernel only: no Python, no channels.
 *
 * The sets are built anew for every wait, since select() overwrites them.  On
 * POSIX a set is a bitmap by descriptor number, which refuses numbers from
 * FD_SETSIZE up.  On Windows it is an array of handles behind a count, and
 * winsock reads as many as the count says: there is no limit.  It is the first
 * choice there: poller_poll.c says what is wrong with the other. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <stdlib.h>

#include "poller_list.h"
#include "poller_private.h"

#define BATCH 64

#ifdef _WIN32

typedef struct {
    u_int count;
    SOCKET sockets[1]; /* and more: laid out as winsock's fd_set */
} socket_set;

struct poller {
    poller_list list;
    socket_set *sets[3]; /* readable, writable, exceptional */
    int room;
};

#else

#include <sys/select.h>

struct poller {
    poller_list list;
};

#endif

static poller *
select_poller_open(void)
{
    return calloc(1, sizeof(poller));
}

static int
select_poller_is_own(poller *self)
{
    (void)self; /* it has no descriptor */
    return 1;
}

static int
select_poller_fileno(poller *self)
{
    (void)self;
    return -1;
}

#ifdef _WIN32

static void
select_poller_close(poller *self)
{
    int which;

    for (which = 0; which < 3; which++)
        free(self->sets[which]);
    poller_list_free(&self->list);
    free(self);
}

/* 0, or why this descriptor cannot be watched. */
static int
check(poller_fd fd)
{
    return poller_is_open(fd) ? 0 : EBADF;
}

static int
reserve_sets(poller *self)
{
    size_t size = sizeof(socket_set) + (size_t)self->list.room * sizeof(SOCKET);
    socket_set *larger;
    int which;

    if (self->list.room <= self->room && self->sets[2] != NULL)
        return 0;
    for (which = 0; which < 3; which++) {
        larger = realloc(self->sets[which], size);
        if (larger == NULL) {
            errno = ENOMEM;
            return -1;
        }
        self->sets[which] = larger;
    }
    self->room = self->list.room;
    return 0;
}

/* Whether a socket that is called exceptional is so because its connect failed,
 * and not for urgent data.  To ask for the error (SO_ERROR) would take it away
 * from the handler. */
static int
is_unconnected(SOCKET fd)
{
    struct sockaddr_storage name;
    int size = sizeof(name);

    return getpeername(fd, (struct sockaddr *)&name, &size) != 0 &&
           WSAGetLastError() == WSAENOTCONN;
}

/* Note `bit` for every socket that winsock left in the set.  It leaves them in
 * our order, so that one walk finds them all; were it another order, the walk
 * would be longer and still right. */
static void
note(poller *self, const socket_set *set, int bit)
{
    int position = 0, tried;
    u_int found;

    for (found = 0; found < set->count; found++) {
        for (tried = 0; tried < self->list.count; tried++, position++) {
            if (position >= self->list.count)
                position = 0;
            if (self->list.entries[position].fd == set->sockets[found]) {
                self->list.entries[position].ready |=
                    bit == POLLER_URGENT && is_unconnected(set->sockets[found])
                        ? POLLER_ERROR
                        : bit;
                position++;
                break;
            }
        }
    }
}

/* One socket that is none makes select() fail for all: name the culprits. */
static int
note_invalid(poller *self)
{
    int position, count = 0;

    for (position = 0; position < self->list.count; position++) {
        if (check(self->list.entries[position].fd) != 0) {
            self->list.entries[position].ready = POLLER_INVALID;
            count++;
        }
    }
    return count;
}

static int
ask(poller *self, const struct timeval *limit)
{
    socket_set **sets = self->sets;
    poller_entry *entry;
    int position, found;

    if (reserve_sets(self) < 0)
        return -1;
    sets[0]->count = sets[1]->count = sets[2]->count = 0;
    for (position = 0; position < self->list.count; position++) {
        entry = &self->list.entries[position];
        entry->ready = 0;
        if (entry->mask & POLLER_READ)
            sets[0]->sockets[sets[0]->count++] = entry->fd;
        if (entry->mask & POLLER_WRITE)
            sets[1]->sockets[sets[1]->count++] = entry->fd;
        sets[2]->sockets[sets[2]->count++] = entry->fd;
    }
    found = select(0, (fd_set *)sets[0], (fd_set *)sets[1], (fd_set *)sets[2], limit);
    if (found < 0) {
        if (WSAGetLastError() == WSAENOTSOCK)
            return note_invalid(self); /* 0: the number was opened again since */
        errno = poller_errno();
        return -1;
    }
    if (found > 0) {
        note(self, sets[0], POLLER_READ);
        note(self, sets[1], POLLER_WRITE);
        note(self, sets[2], POLLER_URGENT);
    }
    return found;
}

static int
wait_for_sockets(poller *self, int64_t timeout_ns)
{
    int ms = poller_milliseconds(timeout_ns);
    struct timeval limit;

    if (self->list.count == 0) { /* which select() refuses here */
        poller_sleep(ms);
        return 0;
    }
    limit.tv_sec = ms / 1000;
    limit.tv_usec = ms % 1000 * 1000;
    return ask(self, ms < 0 ? NULL : &limit);
}

#else /* POSIX */

static void
select_poller_close(poller *self)
{
    poller_list_free(&self->list);
    free(self);
}

static int
check(poller_fd fd)
{
    if (!poller_is_open(fd))
        return EBADF;
    return fd < (int)FD_SETSIZE ? 0 : ERANGE;
}

static int
note_invalid(poller *self)
{
    int position, count = 0;

    for (position = 0; position < self->list.count; position++) {
        poller_entry *entry = &self->list.entries[position];

        entry->ready = check(entry->fd) != 0 ? POLLER_INVALID : 0;
        if (entry->ready != 0)
            count++;
    }
    return count;
}

static int
wait_for_sockets(poller *self, int64_t timeout_ns)
{
    struct timespec limit = poller_timespec(timeout_ns < 0 ? 0 : timeout_ns);
    fd_set readable, writable, exceptional;
    poller_entry *entry;
    int position, found, highest = -1;

    FD_ZERO(&readable);
    FD_ZERO(&writable);
    FD_ZERO(&exceptional);
    for (position = 0; position < self->list.count; position++) {
        entry = &self->list.entries[position];
        if (entry->mask & POLLER_READ)
            FD_SET(entry->fd, &readable);
        if (entry->mask & POLLER_WRITE)
            FD_SET(entry->fd, &writable);
        if (!(entry->mask & POLLER_MUTED))
            FD_SET(entry->fd, &exceptional);
        if (entry->fd > highest)
            highest = entry->fd;
    }
    /* pselect for its nanoseconds: a timeval would have to be rounded up. */
    found = pselect(highest + 1, &readable, &writable, &exceptional,
                    timeout_ns < 0 ? NULL : &limit, NULL);
    if (found < 0) {
        /* One closed descriptor fails the call for all: name the culprits. */
        if (errno == EBADF) {
            if ((found = note_invalid(self)) > 0)
                return found;
            errno = EINTR; /* another thread has opened the number again since */
        }
        return -1;
    }
    for (position = 0; position < self->list.count && found > 0; position++) {
        entry = &self->list.entries[position];
        entry->ready = 0;
        if (FD_ISSET(entry->fd, &readable))
            entry->ready |= POLLER_READ;
        if (FD_ISSET(entry->fd, &writable))
            entry->ready |= POLLER_WRITE;
        if (FD_ISSET(entry->fd, &exceptional))
            entry->ready |= POLLER_URGENT;
    }
    return found;
}

#endif

static int
select_poller_set(poller *self, poller_fd fd, poller_token token, int old, int new_)
{
    int status;

    if (new_ == 0) {
        poller_list_drop(&self->list, token.index);
        return 0;
    }
#ifndef _WIN32
    if (fd < 0 || fd >= (int)FD_SETSIZE)
        old = 0; /* whatever the caller thinks: FD_SET must never see it */
#endif
    status = old == 0 ? check(fd) : 0;
    if (status != 0)
        return status;
    return poller_list_put(&self->list, fd, token, new_) < 0 ? ENOMEM : 0;
}

static int
select_poller_look(poller *self, poller_fd fd, poller_token token, int interest)
{
    (void)self, (void)fd, (void)token, (void)interest;
    return 1; /* each wait asks by the number */
}

/* select() calls an end readable, and a hang-up is more than that. */
static void
add_ends(poller_event *events, int count)
{
#ifndef _WIN32 /* where poll() takes a peer that has ended its own side for one that is gone */
    poller_query queries[BATCH];
    int asked[BATCH], some, position = 0, which;

    while (position < count) {
        for (some = 0; position < count && some < BATCH; position++) {
            if (!(events[position].mask & POLLER_READ))
                continue;
            queries[some].fd = (poller_fd)events[position].token.index;
            queries[some].mask = POLLER_READ;
            asked[some++] = position;
        }
        if (poller_query_now(queries, some) <= 0)
            continue;
        for (which = 0; which < some; which++)
            events[asked[which]].mask |=
                queries[which].mask & (POLLER_ERROR | POLLER_HANGUP);
    }
#else
    (void)events, (void)count;
#endif
}

static int
select_poller_wait(poller *self, int64_t timeout_ns, poller_event *events, int capacity)
{
    int found = wait_for_sockets(self, timeout_ns);

    if (found <= 0)
        return found;
    found = poller_list_report(&self->list, events, capacity);
    add_ends(events, found);
    return found;
}

const poller_kind poller_kind_select = {
    .name = "select",
    .open = select_poller_open,
    .close = select_poller_close,
    .is_own = select_poller_is_own,
    .set = select_poller_set,
    .look = select_poller_look,
    .wait = select_poller_wait,
    .fileno = select_poller_fileno,
};
