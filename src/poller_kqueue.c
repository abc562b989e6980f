/* The poller over kqueue (macOS, the BSDs; libkqueue on Linux where the build
 * defines FASTCORE_HAVE_KQUEUE).  It knows the kernel only: no Python, no
 * channels.  Level-triggered: handlers may leave data behind.
 *
 * - Reading and writing are two filters of a descriptor, each with its own
 *   event.  One wait's events of one token are merged into one, since the
 *   caller reads before it writes, and decides about both together.
 * - A change adds every filter of the new interest, also those that should be
 *   there already: adding is idempotent, it refreshes the token, and it mends
 *   what the kernel dropped when a number was closed and opened again.
 * - Regular files are "readable" only before their end, and some devices and
 *   broken pipes are refused.  select() calls them ready at any time, and so
 *   does this poller: they are kept aside and reported on every wait.
 * - Urgent data has a filter on some systems (EVFILT_EXCEPT).  Where it is
 *   missing or refused, urgent data is not reported.
 * - The library does not forget a closed descriptor by itself, so that
 *   removing always asks it to; that the kernel has none left is no error.
 * - A forked child does not inherit the queue, and its number may mean another
 *   file there: close() must leave that alone.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "poller_private.h"

#ifdef POLLER_HAS_KQUEUE

#include <sys/types.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/event.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "poller_files.h"

#if defined(EVFILT_EXCEPT) && defined(NOTE_OOB)
#define HAS_URGENT 1
#endif

enum { FILTERS = 3 }; /* the most that one descriptor can have */

typedef struct {
    uint32_t generation;
    int place; /* in the batch at hand; checked before use, never cleared */
} slot;

struct poller {
    int fd;
    poller_file behind;
    pid_t owner;
    struct kevent *buffer;
    uint32_t room;
    slot *slots; /* by token.index */
    uint32_t slots_room;
    poller_files files;
};

static poller *
kqueue_poller_open(void)
{
    poller *self = calloc(1, sizeof(*self));

    if (self == NULL)
        return NULL;
    self->fd = kqueue();
    if (self->fd < 0) {
        free(self);
        return NULL;
    }
    fcntl(self->fd, F_SETFD, FD_CLOEXEC);
    self->behind = poller_file_behind(self->fd);
    self->owner = getpid();
    return self;
}

static int
kqueue_poller_is_own(poller *self)
{
#ifndef __linux__ /* the library's is an ordinary descriptor */
    if (self->owner != getpid())
        return 0;
#endif
    return poller_is_file(self->fd, self->behind);
}

static void
kqueue_poller_close(poller *self)
{
    if (kqueue_poller_is_own(self))
        close(self->fd);
    poller_list_free(&self->files.list);
    free(self->buffer);
    free(self->slots);
    free(self);
}

static int
kqueue_poller_fileno(poller *self)
{
    return self->fd;
}

/* udata is a pointer.  With 64 bits it holds the whole token; with 32 it holds
 * the index, and the generation is looked up. */
static void *
pack(poller_token token)
{
#if UINTPTR_MAX > UINT32_MAX
    return (void *)((uintptr_t)token.index << 32 | token.generation);
#else
    return (void *)(uintptr_t)token.index;
#endif
}

static poller_token
unpack(const poller *self, void *udata)
{
    poller_token token;

#if UINTPTR_MAX > UINT32_MAX
    (void)self;
    token.index = (uint32_t)((uintptr_t)udata >> 32);
    token.generation = (uint32_t)(uintptr_t)udata;
#else
    token.index = (uint32_t)(uintptr_t)udata;
    token.generation =
        token.index < self->slots_room ? self->slots[token.index].generation : 0;
#endif
    return token;
}

/* Make room in the table by index; remember the generation. */
static int
remember(poller *self, poller_token token)
{
    uint32_t room = self->slots_room;
    slot *larger;

    if (token.index >= room) {
        if (token.index == UINT32_MAX)
            return ENOMEM;
        larger = poller_grow(self->slots, sizeof(slot), token.index + 1, &room);
        if (larger == NULL)
            return ENOMEM;
        memset(larger + self->slots_room, 0, (room - self->slots_room) * sizeof(slot));
        self->slots = larger;
        self->slots_room = room;
    }
    self->slots[token.index].generation = token.generation;
    return 0;
}

/* Submit the changes and put an errno value for each into errors. */
static void
submit(poller *self, struct kevent *changes, int count, int *errors)
{
    const struct timespec at_once = {0, 0};
    int position;
#ifdef EV_RECEIPT
    struct kevent receipts[FILTERS];
    int received;

    for (position = 0; position < count; position++)
        changes[position].flags |= EV_RECEIPT;
    do
        received = kevent(self->fd, changes, count, receipts, count, &at_once);
    while (received < 0 && errno == EINTR);
    for (position = 0; position < count; position++) {
        if (received < 0)
            errors[position] = errno;
        else if (position < received && (receipts[position].flags & EV_ERROR))
            errors[position] = (int)receipts[position].data;
        else
            errors[position] = 0;
    }
#else
    /* Without receipts an error is only told apart in a call of its own. */
    for (position = 0; position < count; position++) {
        int status;

        do
            status = kevent(self->fd, &changes[position], 1, NULL, 0, &at_once);
        while (status < 0 && errno == EINTR);
        errors[position] = status < 0 ? errno : 0;
    }
#endif
}

/* Remove the filters of that interest; none of them left is no error. */
static void
remove_filters(poller *self, int fd, poller_token token, int interest)
{
    struct kevent changes[FILTERS];
    int errors[FILTERS], count = 0;

    if (interest & POLLER_READ)
        EV_SET(&changes[count++], fd, EVFILT_READ, EV_DELETE, 0, 0, pack(token));
    if (interest & POLLER_WRITE)
        EV_SET(&changes[count++], fd, EVFILT_WRITE, EV_DELETE, 0, 0, pack(token));
#ifdef HAS_URGENT
    if (interest & POLLER_URGENT)
        EV_SET(&changes[count++], fd, EVFILT_EXCEPT, EV_DELETE, 0, 0, pack(token));
#endif
    if (count > 0)
        submit(self, changes, count, errors);
}

/* Bring the kernel from old to new, which is not none.  Returns 0 or what
 * adding a filter for reading or writing met. */
static int
change_filters(poller *self, int fd, poller_token token, int old, int new_)
{
    const int wanted[] = {POLLER_READ, POLLER_WRITE};
    const short filters[] = {EVFILT_READ, EVFILT_WRITE};
    struct kevent changes[FILTERS];
    int errors[FILTERS], matters[FILTERS] = {0}, count = 0, position;

    for (position = 0; position < 2; position++) {
        if (new_ & wanted[position]) {
            matters[count] = 1;
            EV_SET(&changes[count++], fd, filters[position], EV_ADD, 0, 0, pack(token));
        } else if (old & wanted[position])
            EV_SET(&changes[count++], fd, filters[position], EV_DELETE, 0, 0,
                   pack(token));
    }
#ifdef HAS_URGENT
    EV_SET(&changes[count++], fd, EVFILT_EXCEPT,
           new_ & POLLER_MUTED ? EV_DELETE : EV_ADD, NOTE_OOB, 0, pack(token));
#endif
    submit(self, changes, count, errors);
    for (position = 0; position < count; position++)
        if (matters[position] && errors[position] != 0)
            return errors[position];
    return 0;
}

static int
kqueue_poller_set(poller *self, poller_fd fd, poller_token token, int old, int new_)
{
    int kept = self->files.list.count > 0 &&
               poller_list_find(&self->files.list, token.index) >= 0;
    int status;
    struct stat about;

    if (new_ == 0) {
        if (kept)
            poller_list_drop(&self->files.list, token.index);
        else
            remove_filters(self, fd, token, old | POLLER_URGENT);
        return 0;
    }
    if ((old == 0 || kept) && fstat(fd, &about) < 0)
        return errno; /* before memory is spent on a number that is none */
    status = remember(self, token);
    if (status != 0)
        return status;
    if (old == 0 || kept) { /* what the descriptor is, is asked once */
        if (S_ISREG(about.st_mode))
            return poller_files_put(&self->files, fd, token, new_) < 0 ? ENOMEM : 0;
    }
    status = change_filters(self, fd, token, old, new_);
    if (status == EINVAL || status == EPERM || status == ENODEV || status == EPIPE) {
        remove_filters(self, fd, token, old | new_ | POLLER_URGENT);
        return poller_files_put(&self->files, fd, token, new_) < 0 ? ENOMEM : 0;
    }
    /* The same owner may have closed a file and opened a socket. */
    if (status == 0 && kept)
        poller_list_drop(&self->files.list, token.index);
    return status == ENOENT ? EBADF : status;
}

static int
kqueue_poller_look(poller *self, poller_fd fd, poller_token token, int interest)
{
    int status = 0;

    /* Adding what should be there mends what closing the number has dropped. */
    if (poller_list_find(&self->files.list, token.index) < 0)
        status = change_filters(self, fd, token, interest, interest);
    return poller_is_open(fd) && status != ENOENT && status != EBADF;
}

static int
is_pipe(int fd)
{
    struct stat about;

    return fstat(fd, &about) == 0 && S_ISFIFO(about.st_mode);
}

static int
mask_of(const struct kevent *event)
{
    int mask;

    if (event->flags & EV_ERROR)
        return event->data == EBADF ? POLLER_INVALID : POLLER_ERROR;
#ifdef HAS_URGENT
    if (event->filter == EVFILT_EXCEPT)
        return POLLER_URGENT;
#endif
    mask = event->filter == EVFILT_WRITE ? POLLER_WRITE : POLLER_READ;
    /* EV_EOF for reading is an end of data, which reading will tell; it is not
     * POLLER_HANGUP, since the peer may still be listening, but on a pipe.  An
     * error that ended the connection is in fflags. */
    if ((event->flags & EV_EOF) && event->fflags != 0)
        mask |= POLLER_ERROR;
    if ((event->flags & EV_EOF) && mask == POLLER_READ && is_pipe((int)event->ident))
        mask |= POLLER_HANGUP;
    return mask;
}

/* Turn the kernel's events into ours, one for each token. */
static int
merge(poller *self, int count, poller_event *events)
{
    int position, place, filled = 0;
    poller_token token;

    for (position = 0; position < count; position++) {
        token = unpack(self, self->buffer[position].udata);
        if (token.index >= self->slots_room)
            continue;
        place = self->slots[token.index].place;
        if (place >= filled || events[place].token.index != token.index ||
            events[place].token.generation != token.generation) {
            place = filled++;
            self->slots[token.index].place = place;
            events[place].token = token;
            events[place].mask = 0;
        }
        events[place].mask |= mask_of(&self->buffer[position]);
    }
    return filled;
}

static int
kqueue_poller_wait(poller *self, int64_t timeout_ns, poller_event *events, int capacity)
{
    int wanted = poller_files_leave(&self->files, capacity);
    int endless = timeout_ns < 0 && self->files.list.count == 0;
    struct timespec timeout = {0, 0};
    int count = 0;

    if ((uint32_t)wanted > self->room) {
        void *larger = poller_grow(self->buffer, sizeof(*self->buffer),
                                   (uint32_t)wanted, &self->room);
        if (larger == NULL) {
            errno = ENOMEM;
            return -1;
        }
        self->buffer = larger;
    }
    if (!endless && self->files.list.count == 0)
        timeout = poller_timespec(timeout_ns);
    if (wanted > 0) {
        count =
            kevent(self->fd, NULL, 0, self->buffer, wanted, endless ? NULL : &timeout);
        if (count < 0)
            return -1;
        count = merge(self, count, events);
    }
    if (self->files.list.count > 0)
        count +=
            poller_list_report(&self->files.list, events + count, capacity - count);
    return count;
}

const poller_kind poller_kind_kqueue = {
    .name = "kqueue",
    .open = kqueue_poller_open,
    .close = kqueue_poller_close,
    .is_own = kqueue_poller_is_own,
    .set = kqueue_poller_set,
    .look = kqueue_poller_look,
    .wait = kqueue_poller_wait,
    .fileno = kqueue_poller_fileno,
};

#endif /* POLLER_HAS_KQUEUE */
