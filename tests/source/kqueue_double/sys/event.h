/* A stand-in for <sys/event.h>, so that src/poller_kqueue.c can be compiled and
 * run where the system has no kqueue: see ../double.c.  The names are those of
 * the real interface; the numbers are not meant to agree with any system. */
#ifndef KQUEUE_DOUBLE_SYS_EVENT_H
#define KQUEUE_DOUBLE_SYS_EVENT_H

#include <stdint.h>
#include <time.h>

struct kevent {
    uintptr_t ident;
    short filter;
    unsigned short flags;
    unsigned int fflags;
    intptr_t data;
    void *udata;
};

enum { EVFILT_READ = -1, EVFILT_WRITE = -2 };
enum { EV_ADD = 1, EV_DELETE = 2, EV_ERROR = 0x4000, EV_EOF = 0x8000 };

/* The poller asks the preprocessor for these two. */
#ifndef DOUBLE_WITHOUT_RECEIPT
#define EV_RECEIPT 0x40
#endif
#ifndef DOUBLE_WITHOUT_EXCEPT
#define EVFILT_EXCEPT (-3)
#define NOTE_OOB 4
#endif

#define EV_SET(event, identifier, kind, what, extra, amount, user) \
    do {                                                           \
        struct kevent *event_ = (event);                           \
        event_->ident = (uintptr_t)(identifier);                   \
        event_->filter = (kind);                                   \
        event_->flags = (what);                                    \
        event_->fflags = (extra);                                  \
        event_->data = (amount);                                   \
        event_->udata = (user);                                    \
    } while (0)

int kqueue(void);
int kevent(int queue, const struct kevent *changes, int change_count, struct kevent *events,
           int event_count, const struct timespec *timeout);

#endif
