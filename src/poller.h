/* The seam between the accelerated engine and the kernel.
 *
 * A poller keeps the kernel's set of descriptors and reports what is ready.
 * It knows kernels only: it must not include Python.h, never calls back and
 * never learns what a channel is.  It fills an array of (token, mask); the
 * engine alone decides what to do with them.  One kernel mechanism a file.
 */
#ifndef FASTCORE_POLLER_H
#define FASTCORE_POLLER_H

#include <stdint.h>

#ifdef _WIN32
#include <winsock2.h>
typedef SOCKET poller_fd;
#else
typedef int poller_fd;
#endif

/* Interest (set) uses READ, WRITE and MUTED only; urgent data is included where
 * there is any interest, as select() in the standard loop does, unless it is
 * muted.  The values are those of poll() and epoll on Linux: see fastcore/_codes.py. */
enum {
    POLLER_READ = 1,
    POLLER_URGENT = 2,  /* out-of-band data */
    POLLER_WRITE = 4,
    POLLER_ERROR = 8,   /* an error is pending on the descriptor */
    POLLER_HANGUP = 16, /* the peer is gone in both directions */
    POLLER_INVALID = 32, /* the descriptor is closed */
    POLLER_MUTED = 64    /* in interest: but not in urgent data */
};

/* What the caller wants back with an event: `index` is the descriptor (the
 * pollers keep tables by it), `generation` tells a reused index apart. */
typedef struct {
    uint32_t index;
    uint32_t generation;
} poller_token;

typedef struct {
    poller_token token;
    int mask;
} poller_event;

typedef struct poller poller; /* opaque: each kind defines its own */

typedef struct {
    const char *name;

    /* A new, empty set, or NULL with errno set. */
    poller *(*open)(void);
    /* Closes no descriptor that others have closed and opened anew. */
    void (*close)(poller *self);

    /* Whether the set's descriptor is still what was opened. */
    int (*is_own)(poller *self);

    /* Change the interest in fd from old to new (0 is none: the descriptor
     * then leaves the kernel's set).  Returns 0 or an errno value:
     * EBADF for a closed descriptor, ERANGE for one that this mechanism
     * cannot hold.  Heals ENOENT and EEXIST by itself. */
    int (*set)(poller *self, poller_fd fd, poller_token token, int old, int new_);

    /* Whether what is watched under that number is still the file that it
     * means; 1 also where this mechanism cares for numbers only, or where the
     * system cannot tell. */
    int (*look)(poller *self, poller_fd fd, poller_token token, int interest);

    /* Wait at most timeout_ns nanoseconds (negative: without limit) and fill
     * events.  Returns how many, or -1 with errno set (EINTR included). */
    int (*wait)(poller *self, int64_t timeout_ns, poller_event *events, int capacity);

    /* The descriptor of the kernel's set, or -1 where there is none. */
    int (*fileno)(poller *self);
} poller_kind;

/* What this platform has, in order of preference; ends with NULL. */
extern const poller_kind *const poller_kinds[];

/* The kind of that name, or NULL. */
const poller_kind *poller_find(const char *name);

/* One descriptor of a one-off question: fill fd and mask (READ, WRITE). */
typedef struct {
    poller_fd fd;
    int mask;  /* in: interest (urgent data is added); out: what is ready */
} poller_query;

/* Ask about all of them at once, without waiting.  Returns how many are
 * ready, or -1 with errno set. */
int poller_query_now(poller_query *queries, int count);

#endif
