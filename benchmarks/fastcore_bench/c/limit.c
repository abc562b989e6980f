/* The smallest sensible servers on epoll: the limit that others are held to.
 *
 * Listens on a loopback port of the kernel's choice, prints its number, and
 * ends when its standard input closes or, whatever happens, after ten minutes.
 * Linux only.  It must stay as plain as this: anything clever here would make
 * the limit mean nothing.
 *
 * After accepting, `greet` and `broadcast` say "+".  The protocols are those of
 * programs/serving.py.
 *
 *     limit [--protocol echo|line|greet|broadcast|download|upload] [--size BYTES]
 *     limit --protocol relay --upstream PORT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <time.h>

#include "limit_client.h"

enum { LIFETIME = 600, PATTERN = 251, BLOCK = PATTERN * 261 };

typedef struct {
    const char *name;
    int no_delay;             /* what is sent in pieces should not wait for an ACK */
    void (*greet)(client *c); /* if set: once accepted */
    void (*input)(client *c);
    void (*output)(client *c); /* if set: sends more of what it makes itself */
} protocol;

static char buffer[262144], block[BLOCK];
static size_t message_size = 1024;
static int upstream; /* the port behind a relay */

/* ---- the protocols ----------------------------------------------------- */

static void echo(client *c)
{
    ssize_t got = receive_some(c, buffer, sizeof buffer);
    if (got > 0)
        send_all(c, buffer, (size_t)got);
}

/* Puts what came behind the client's partial request; 0 where nothing came. */
static int receive_behind_partial(client *c)
{
    ssize_t got = receive_some(c, buffer, sizeof buffer);
    if (got <= 0)
        return 0;
    keep_partial(c, buffer, (size_t)got);
    return 1;
}

/* Answers each whole line; the replies of one read leave together. */
static void line(client *c)
{
    char *begin = buffer, *end;
    ssize_t got;
    if (c->partial_size) {
        if (!receive_behind_partial(c))
            return;
        begin = c->partial;
        got = (ssize_t)c->partial_size;
    } else if ((got = receive_some(c, buffer, sizeof buffer)) <= 0) {
        return;
    }
    char *stop = begin + got, *from = begin;
    while ((end = memmem(from, (size_t)(stop - from), "\r\n", 2)))
        from = end + 2; /* the reply to a line is that line */
    if (from > begin)
        send_all(c, begin, (size_t)(from - begin));
    if (begin == c->partial)
        drop_partial(c, (size_t)(from - begin));
    else if (from < stop)
        keep_partial(c, from, (size_t)(stop - from));
}

static void greet(client *c)
{
    send_all(c, "+", 1);
}

static void ignore(client *c)
{
    receive_some(c, buffer, sizeof buffer);
}

static void broadcast(client *c)
{
    if (!receive_behind_partial(c))
        return;
    while (c->fd >= 0 && c->partial_size >= message_size) {
        for (client *to = clients, *next; to; to = next) {
            next = to->next; /* sending may finish `to` */
            send_all(to, c->partial, message_size);
        }
        drop_partial(c, message_size);
    }
}

static void download_output(client *c)
{
    while (c->left) {
        size_t begin = c->done % BLOCK, size = BLOCK - begin;
        ssize_t sent = send_some(c, block + begin, size < c->left ? size : c->left);
        if (sent < 0)
            return;
        if (sent == 0) {
            watch(c, EPOLLOUT);
            return;
        }
        c->left -= (uint64_t)sent;
        c->done += (uint64_t)sent;
    }
    watch(c, EPOLLIN);
}

/* The number in the line that the partial request begins with; 0: none yet. */
static uint64_t take_number(client *c)
{
    char *end = memmem(c->partial, c->partial_size, "\r\n", 2);
    if (!end)
        return 0;
    uint64_t value = strtoull(c->partial, NULL, 10);
    drop_partial(c, (size_t)(end + 2 - c->partial));
    return value;
}

static void download(client *c)
{
    if (!receive_behind_partial(c))
        return;
    c->left = take_number(c);
    c->done = 0;
    download_output(c);
}

static void upload(client *c)
{
    ssize_t got = 0;
    if (c->left) {
        if ((got = receive_some(c, buffer, sizeof buffer)) <= 0)
            return;
    } else {
        if (!receive_behind_partial(c) || !(c->left = take_number(c)))
            return;
        got = (ssize_t)c->partial_size;
        c->partial_size = 0;
    }
    c->left -= (uint64_t)got < c->left ? (uint64_t)got : c->left;
    if (!c->left)
        send_all(c, "OK\r\n", 4);
}

static struct sockaddr_in loopback(int port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* Connects to the server behind the relay: on loopback that does not take long. */
static void relay_open(client *c)
{
    struct sockaddr_in address = loopback(upstream);
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        fcntl(fd, F_SETFL, O_NONBLOCK) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0)
        fail("upstream");
    c->other = new_client(fd);
    c->other->other = c;
}

static void relay(client *c)
{
    ssize_t got = receive_some(c, buffer, sizeof buffer);
    if (got > 0)
        send_all(c->other, buffer, (size_t)got);
}

static const protocol protocols[] = {
    {"echo", 1, NULL, echo, NULL},
    {"line", 1, NULL, line, NULL},
    {"greet", 0, greet, ignore, NULL},
    {"broadcast", 1, greet, broadcast, NULL},
    {"download", 1, NULL, download, download_output},
    {"upload", 0, NULL, upload, NULL},
    {"relay", 1, relay_open, relay, NULL},
};

/* ---- the server -------------------------------------------------------- */

static void accept_all(int listener, const protocol *p)
{
    int one = 1;
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0 && errno == EAGAIN)
            return;
        if (fd < 0)
            fail("accept");
        client *c = new_client(fd);
        if (p->no_delay && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0)
            fail("TCP_NODELAY");
        if (p->greet)
            p->greet(c);
    }
}

static int listen_on_loopback(void)
{
    struct sockaddr_in address = loopback(0);
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(fd, 65535) < 0 || getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        fail("listen");
    printf("listening on 127.0.0.1 port %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static const protocol *read_arguments(int count, char **arguments)
{
    const char *name = "echo";
    const protocol *found = NULL;
    for (int i = 1; i + 1 < count; i += 2) {
        if (strcmp(arguments[i], "--protocol") == 0)
            name = arguments[i + 1];
        if (strcmp(arguments[i], "--size") == 0)
            message_size = strtoull(arguments[i + 1], NULL, 10);
        if (strcmp(arguments[i], "--upstream") == 0)
            upstream = atoi(arguments[i + 1]);
    }
    for (size_t i = 0; i < sizeof protocols / sizeof *protocols; i++)
        if (strcmp(protocols[i].name, name) == 0)
            found = &protocols[i];
    if (!found || !message_size || count % 2 == 0) {
        fprintf(stderr, "limit: wrong arguments; see the first lines of limit.c\n");
        exit(2);
    }
    return found;
}

static void serve(client *c, const protocol *p)
{
    if (!(c->events & EPOLLOUT))
        p->input(c);
    else if (c->rest)
        send_rest(c);
    else
        p->output(c);
}

static void run(int listener, const protocol *p)
{
    static client input_mark, listener_mark = {.fd = -1};
    struct epoll_event events[1024];
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = &listener_mark};
    if (epoll_ctl(kernel_set, EPOLL_CTL_ADD, listener, &e) < 0)
        fail("epoll_ctl");
    e.data.ptr = &input_mark;
    /* A file or /dev/null is no pipe: then only the clock ends the server. */
    if (epoll_ctl(kernel_set, EPOLL_CTL_ADD, 0, &e) < 0 && errno != EPERM)
        fail("standard input");
    for (time_t end = time(NULL) + LIFETIME; time(NULL) < end;) {
        int n = epoll_wait(kernel_set, events, 1024, 1000);
        if (n < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int i = 0; i < n; i++) {
            client *c = events[i].data.ptr;
            if (c == &listener_mark) {
                accept_all(listener, p);
            } else if (c == &input_mark) {
                if (read(0, buffer, sizeof buffer) <= 0)
                    return;
            } else if (c->fd >= 0) {
                serve(c, p);
            }
        }
        free_finished();
    }
}

int main(int count, char **arguments)
{
    const protocol *p = read_arguments(count, arguments);
    for (int i = 0; i < BLOCK; i++)
        block[i] = (char)(i % PATTERN);
    kernel_set = epoll_create1(EPOLL_CLOEXEC);
    if (kernel_set < 0)
        fail("epoll_create1");
    run(listen_on_loopback(), p);
    return 0;
}
