/* A kqueue for tests, over poll(2).  It knows the documented behaviour of the
 * real one and nothing of the poller above it.
 *
 * Every change submitted is recorded (double_log).  A test may let a change
 * fail (double_fail) and put events before the real ones (double_event).  A
 * filter whose descriptor was closed is forgotten, as real kernels do.
 *
 * One mutex is enough: it is not held while waiting. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/event.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILTERS = 4096, LOG = 1024, SCRIPT = 64 };

#ifndef EV_RECEIPT
#define EV_RECEIPT 0
#endif
#ifndef EVFILT_EXCEPT
#define EVFILT_EXCEPT (-3)
#define NOTE_OOB 4
#endif

static struct filter {
    int used, queue;
    dev_t device;
    ino_t inode;
    struct kevent event;
} filters[FILTERS];

struct failure {
    int ident, filter, error;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct kevent log_entries[LOG], scripted[SCRIPT];
static struct failure failures[SCRIPT];
static int log_count, call_count, scripted_count, failure_count;

void
double_reset(void)
{
    log_count = call_count = scripted_count = failure_count = 0;
}

/* The recorded changes, and how many calls brought changes. */
int
double_log(struct kevent **entries, int *calls)
{
    *entries = log_entries;
    *calls = call_count;
    return log_count;
}

/* Adding that filter to that descriptor fails from now on. */
void
double_fail(int ident, int filter, int error)
{
    failures[failure_count++] = (struct failure){ident, filter, error};
}

/* The next wait returns this event first. */
void
double_event(const struct kevent *event)
{
    scripted[scripted_count++] = *event;
}

int
kqueue(void)
{
    int queue = epoll_create1(0); /* only for its number */
    int position;

    pthread_mutex_lock(&mutex);
    for (position = 0; position < FILTERS && queue >= 0; position++)
        if (filters[position].queue == queue)
            filters[position].used = 0;
    pthread_mutex_unlock(&mutex);
    return queue;
}

static struct filter *
find(int queue, const struct kevent *event)
{
    int position;

    for (position = 0; position < FILTERS; position++)
        if (filters[position].used && filters[position].queue == queue &&
            filters[position].event.ident == event->ident &&
            filters[position].event.filter == event->filter)
            return &filters[position];
    return NULL;
}

static int
still_open(const struct filter *filter)
{
    struct stat about;

    return fstat((int)filter->event.ident, &about) == 0 && about.st_dev == filter->device &&
           about.st_ino == filter->inode;
}

/* Apply one change; returns an errno value. */
static int
apply(int queue, const struct kevent *change)
{
    struct filter *filter;
    struct stat about;
    int position;

    if (log_count < LOG)
        log_entries[log_count++] = *change;
    if (fstat((int)change->ident, &about) < 0)
        return EBADF;
    for (position = 0; position < failure_count && change->flags & EV_ADD; position++)
        if (failures[position].ident == (int)change->ident &&
            failures[position].filter == change->filter)
            return failures[position].error;
    filter = find(queue, change);
    if (filter != NULL && !still_open(filter)) {
        filter->used = 0;
        filter = NULL;
    }
    if (change->flags & EV_DELETE) {
        if (filter == NULL)
            return ENOENT;
        filter->used = 0;
        return 0;
    }
    if (S_ISCHR(about.st_mode) && !isatty((int)change->ident))
        return EINVAL; /* as for /dev/null */
    if (change->filter == EVFILT_EXCEPT && !S_ISSOCK(about.st_mode))
        return EINVAL;
    for (position = 0; position < FILTERS && filter == NULL; position++)
        if (!filters[position].used)
            filter = &filters[position];
    if (filter == NULL)
        return ENOMEM;
    *filter = (struct filter){1, queue, about.st_dev, about.st_ino, *change};
    return 0;
}

static int
answer(const struct filter *filter, short bits, struct kevent *event)
{
    int wanted = filter->event.filter == EVFILT_READ    ? POLLIN | POLLHUP | POLLERR
                 : filter->event.filter == EVFILT_WRITE ? POLLOUT | POLLHUP | POLLERR
                                                        : POLLPRI;
    int end = filter->event.filter == EVFILT_READ ? POLLHUP | POLLERR | POLLRDHUP
                                                  : POLLHUP | POLLERR;
    struct stat about;

    if (!(bits & wanted))
        return 0;
    *event = filter->event;
    event->flags = bits & end ? EV_EOF : 0;
    event->fflags = filter->event.filter == EVFILT_EXCEPT ? NOTE_OOB : 0;
    /* The real one tells a socket's error and leaves it in place; any error
     * number will do. */
    if (bits & POLLERR && fstat((int)event->ident, &about) == 0 && S_ISSOCK(about.st_mode))
        event->fflags = ECONNREFUSED;
    return 1;
}

static int
collect(int queue, struct kevent *events, int event_count, const struct timespec *timeout)
{
    static __thread struct pollfd asked[FILTERS];
    static __thread struct filter copies[FILTERS];
    int position, count = 0, filled = 0, found;

    pthread_mutex_lock(&mutex);
    for (; filled < scripted_count && filled < event_count; filled++)
        events[filled] = scripted[filled];
    scripted_count = 0;
    for (position = 0; position < FILTERS; position++) {
        struct filter *filter = &filters[position];

        if (!filter->used || filter->queue != queue)
            continue;
        if (!still_open(filter)) {
            filter->used = 0;
            continue;
        }
        asked[count].fd = (int)filter->event.ident;
        asked[count].events = filter->event.filter == EVFILT_READ    ? POLLIN | POLLRDHUP
                              : filter->event.filter == EVFILT_WRITE ? POLLOUT
                                                                     : POLLPRI;
        asked[count].revents = 0;
        copies[count++] = *filter;
    }
    pthread_mutex_unlock(&mutex);
    if (filled > 0)
        return filled;
    found = ppoll(asked, (nfds_t)count, timeout, NULL);
    if (found < 0)
        return -1;
    for (position = 0; position < count && filled < event_count; position++)
        filled += answer(&copies[position], asked[position].revents, &events[filled]);
    if (filled == event_count) {
        /* The first in line goes to the end, so that none starves. */
        pthread_mutex_lock(&mutex);
        for (position = 0; position < filled; position++) {
            struct filter *filter = find(queue, &events[position]), moved;

            if (filter == NULL)
                continue;
            moved = *filter;
            memmove(filter, filter + 1, (size_t)(&filters[FILTERS - 1] - filter) * sizeof(*filter));
            filters[FILTERS - 1] = moved;
        }
        pthread_mutex_unlock(&mutex);
    }
    return filled;
}

int
kevent(int queue, const struct kevent *changes, int change_count, struct kevent *events,
       int event_count, const struct timespec *timeout)
{
    int position, error, filled = 0;

    if (change_count == 0)
        return collect(queue, events, event_count, timeout);
    pthread_mutex_lock(&mutex);
    call_count++;
    for (position = 0; position < change_count; position++) {
        error = apply(queue, &changes[position]);
        if (error == 0 && !(changes[position].flags & EV_RECEIPT))
            continue;
        if (filled == event_count) { /* no room to tell: the call fails */
            errno = error;
            filled = -1;
            break;
        }
        events[filled] = changes[position];
        events[filled].flags = EV_ERROR;
        events[filled++].data = error;
    }
    pthread_mutex_unlock(&mutex);
    return filled;
}
