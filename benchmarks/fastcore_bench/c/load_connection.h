/* Connections: opening them, watching them, giving them up, and waiting.
 *
 * A connection counts as open once the server has answered a probe on it: only
 * then has the server really accepted it.  What is said after that is up to
 * the protocol in use, of which this file knows the table of functions only.
 */
#ifndef LOAD_CONNECTION_H
#define LOAD_CONNECTION_H

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <time.h>
#include <unistd.h>

#include "load_options.h"
#include "load_wait.h"

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* SIGPIPE is ignored anyway */
#endif

enum state { CLOSED, CONNECTING, PROBING, OPEN };

typedef struct {
    int fd;
    enum state state;
    int wants;   /* what the kernel was last told to watch for */
    int waiting; /* requests that are not answered */
    uint64_t sent, received, limit; /* bytes; `limit`: what may be sent or must come by now */
    uint64_t started;               /* when the connect, or the last request, began; in ns */
} connection;

typedef struct {
    const char *name;
    const char *probe;   /* what a new connection sends ... */
    const char *welcome; /* ... and what must come back before it counts as open */
    size_t probe_size, welcome_size;
    void (*prepare)(void);           /* before the first connection */
    void (*begin)(void);             /* once all that are to be open at first are open */
    void (*readable)(connection *c); /* of an open connection, as is the next */
    void (*writable)(connection *c);
    void (*connected)(connection *c); /* if set: a busy connection is not probed but does this */
    void (*welcomed)(connection *c);  /* if set: a busy connection's probe was answered */
    int opens_late; /* busy connections are opened by begin() and not before */
    int counts;     /* the work is a number of requests, never a time */
} protocol;

static const protocol *speaks;
static connection *connections;
static int total, opening;
static uint64_t errors, next_complaint;
static uint64_t progress;      /* bytes moved: who waits can see whether anything happens */
static uint64_t issued, quota; /* requests begun, and how many may be */
static uint64_t waiting;       /* requests begun and not answered, of all connections */
static char *input;
static size_t input_size = 65536;

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (!memory)
        fail("out of memory");
    return memory;
}

static int is_busy(const connection *c)
{
    return c - connections >= options.idle;
}

static void watch(connection *c, int wants)
{
    if (wants != c->wants && wait_watch((int)(c - connections), c->fd, c->wants, wants) < 0)
        fail("cannot watch a connection: %s", strerror(errno));
    c->wants = wants;
}

static void close_connection(connection *c)
{
    wait_forget((int)(c - connections));
    close(c->fd);
    c->wants = 0;
    c->fd = -1;
    c->state = CLOSED;
}

/* Counts an error and gives the connection up. */
static void drop(connection *c, const char *why)
{
    if (errors++ == next_complaint) { /* the 1st, 10th, 100th: enough to see why */
        fprintf(stderr, "load: error %llu: %s\n", (unsigned long long)errors, why);
        next_complaint = errors * 10 - 1;
    }
    opening -= c->state == CONNECTING || c->state == PROBING;
    waiting -= (uint64_t)c->waiting;
    c->waiting = 0;
    close_connection(c);
}

/* Whether one more request may begin; it has begun, then. */
static int may_issue(connection *c)
{
    if (issued >= quota)
        return 0;
    issued++;
    waiting++;
    c->waiting++;
    return 1;
}

static void answered(connection *c)
{
    waiting--;
    c->waiting--;
}

/* send(), with an error counted: how much went, 0 where nothing did. */
static size_t send_some(connection *c, const char *data, size_t size)
{
    ssize_t n;
    do
        n = send(c->fd, data, size, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
        drop(c, strerror(errno));
    progress += n > 0 ? (uint64_t)n : 0;
    return n > 0 ? (size_t)n : 0;
}

/* A few bytes that a socket with nothing to send always takes at once. */
static void send_short(connection *c, const char *data, size_t size)
{
    if (send_some(c, data, size) != size && c->state != CLOSED)
        drop(c, "a short request could not be sent");
}

/* recv() into `input`, with an end or error counted: how much came, 0 where nothing did. */
static size_t receive_some(connection *c)
{
    ssize_t n = recv(c->fd, input, input_size, 0);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return 0;
    if (n <= 0)
        drop(c, n ? strerror(errno) : "the server closed a connection");
    progress += n > 0 ? (uint64_t)n : 0;
    return n > 0 ? (size_t)n : 0;
}

/* ---- opening ----------------------------------------------------------- */

static void open_now(connection *c)
{
    opening--;
    c->state = OPEN;
    c->sent = c->received = c->limit = 0;
    watch(c, 0);
    if (speaks->welcomed && is_busy(c))
        speaks->welcomed(c);
}

static void receive_welcome(connection *c)
{
    size_t n = receive_some(c);
    if (c->state == CLOSED || n == 0)
        return;
    if (n > speaks->welcome_size - c->received)
        drop(c, "the server sent more than it was sent");
    else if (memcmp(input, speaks->welcome + c->received, n) != 0)
        drop(c, "the first answer differs from what was expected");
    else if ((c->received += n) == speaks->welcome_size)
        open_now(c);
}

static void connected(connection *c)
{
    if (speaks->connected && is_busy(c)) {
        opening--;
        c->state = OPEN;
        speaks->connected(c);
        return;
    }
    c->state = PROBING;
    c->received = 0;
    watch(c, WANT_READ);
    if (speaks->probe_size)
        send_short(c, speaks->probe, speaks->probe_size);
}

/* Closing resets a connection: no TIME_WAIT, so that runs that follow one
 * another never use up the local ports.  Where closing is part of what is
 * measured it is the usual one, and the connections come from many loopback
 * addresses instead; only Linux has more than one of them ready. */
static void spare_ports(int fd)
{
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
#ifdef IP_BIND_ADDRESS_NO_PORT
    static uint32_t count;
    int one = 1;
    uint32_t target = options.family == AF_INET ? ntohl(options.address.four.sin_addr.s_addr) : 0;
    struct sockaddr_in from = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(0x7f000101u + count % 250)};
    if (speaks->connected && target >> 24 == 127) {
        count++;
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(fd, (struct sockaddr *)&from, sizeof from) == 0)
            return;
    }
#endif
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
}

static int new_socket(void)
{
    int one = 1;
#ifdef SOCK_NONBLOCK
    int fd = socket(options.family, SOCK_STREAM | SOCK_NONBLOCK, 0);
#else
    int fd = socket(options.family, SOCK_STREAM, 0);
#endif
    if (fd < 0 && (errno == EMFILE || errno == ENFILE))
        fail("too few descriptors for %d connections (raise ulimit -n)", total);
    if (fd < 0)
        fail("socket: %s", strerror(errno));
#ifndef SOCK_NONBLOCK
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
#endif
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    spare_ports(fd);
    return fd;
}

/* Linux searches long for a free port once half of an address's are in use, so
 * each 8,000 connections over loopback come from an address of their own. */
static void choose_source(const connection *c, int fd)
{
#ifdef IP_BIND_ADDRESS_NO_PORT
    uint32_t number = (uint32_t)((c - connections) / 8000);
    struct sockaddr_in source = {.sin_family = AF_INET};
    int one = 1;
    if (number == 0 || options.address.four.sin_addr.s_addr != htonl(INADDR_LOOPBACK))
        return;
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + number);
    /* Where it is refused the kernel's own choice is as good, if slower. */
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    (void)!bind(fd, (struct sockaddr *)&source, sizeof source);
#else
    (void)c, (void)fd;
#endif
}

/* Begins one connect.  0: the kernel or the server wants us to wait. */
static int begin_connect(connection *c)
{
    int fd = new_socket();
    choose_source(c, fd);
    c->started = now();
    int done = connect(fd, &options.address.any, options.address_length) == 0;
    if (!done && errno != EINPROGRESS && errno != EINTR) {
        int error = errno;
        close(fd);
        if (error == EAGAIN || error == EADDRNOTAVAIL)
            return 0;
        fail("connect: %s", strerror(error));
    }
    c->fd = fd;
    c->state = CONNECTING;
    opening++;
    if (done)
        connected(c);
    else
        watch(c, WANT_WRITE);
    return 1;
}

/* ---- waiting ----------------------------------------------------------- */

static void serve(connection *c, int ready)
{
    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error)
            drop(c, strerror(error));
        else
            connected(c);
        return;
    }
    if (c->state == PROBING) {
        receive_welcome(c);
        return;
    }
    if (ready & WANT_READ && c->state == OPEN)
        speaks->readable(c);
    if (ready & WANT_WRITE && c->state == OPEN && c->wants & WANT_WRITE)
        speaks->writable(c);
}

static int run_until(uint64_t deadline)
{
    event events[EVENTS];
    uint64_t time = now();
    if (time >= deadline)
        return 0;
    int n = wait_events(events, (int)((deadline - time) / 1000000) + 1);
    for (int i = 0; i < n; i++)
        if (connections[events[i].index].state != CLOSED)
            serve(&connections[events[i].index], events[i].ready);
    return 1;
}

/* Opens the first `count`, at most `window` unanswered at a time: a listener's
 * backlog is short, and a connect that overflows it waits a second for its
 * next try. */
static void open_connections(int count)
{
    uint64_t deadline = now() + (uint64_t)(options.connect_timeout * 1e9);
    int begun = 0;
    while (begun < count || opening) {
        while (begun < count && opening < options.window && begin_connect(&connections[begun]))
            begun++;
        uint64_t soon = now() + 20000000;
        if (now() >= deadline)
            fail("no answer: %d of %d connections were answered within %g s", begun - opening,
                 count, options.connect_timeout);
        run_until(soon < deadline ? soon : deadline);
    }
}

/* Serves for so long, or until every request is answered; gives up where
 * nothing moves, which `patient` allows for. */
static void run_for(double seconds, double patience)
{
    uint64_t time = now(), deadline = time + (uint64_t)(seconds * 1e9), seen = progress;
    uint64_t bored = time + (uint64_t)(patience * 1e9);
    while (waiting && run_until(deadline < bored ? deadline : bored)) {
        if (progress != seen) {
            seen = progress;
            bored = now() + (uint64_t)(patience * 1e9);
        }
    }
}

#endif
