/* The smallest sensible echo server on epoll: the limit others are held to.
 *
 * Listens on a loopback port of the kernel's choice, prints its number, and
 * ends when its standard input closes or, whatever happens, after the number
 * of seconds given (600 without an argument).  Linux only.  It must stay as
 * plain as this: anything clever here would make the limit mean nothing.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* What a client has not taken yet; reading waits while there is any. */
typedef struct {
    int fd;
    char *rest;
    size_t length;
} client;

static int kernel_set;
static char buffer[65536];

static void fail(const char *what)
{
    fprintf(stderr, "echo_epoll: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void watch(int operation, int fd, uint32_t events, void *who)
{
    struct epoll_event e = {.events = events, .data.ptr = who};
    if (epoll_ctl(kernel_set, operation, fd, &e) < 0)
        fail("epoll_ctl");
}

static void finish(client *c)
{
    close(c->fd);
    free(c->rest);
    free(c);
}

static void accept_all(int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0 && errno == EAGAIN)
            return;
        client *c = fd < 0 ? NULL : calloc(1, sizeof *c);
        if (!c)
            fail("accept");
        c->fd = fd;
        watch(EPOLL_CTL_ADD, fd, EPOLLIN, c);
    }
}

static void echo(client *c)
{
    ssize_t got = recv(c->fd, buffer, sizeof buffer, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        finish(c);
        return;
    }
    ssize_t sent = send(c->fd, buffer, (size_t)got, MSG_NOSIGNAL);
    if (sent == got)
        return;
    if (sent < 0 && errno != EAGAIN) {
        finish(c);
        return;
    }
    sent = sent < 0 ? 0 : sent;
    c->length = (size_t)(got - sent);
    c->rest = malloc(c->length);
    if (!c->rest)
        fail("malloc");
    memcpy(c->rest, buffer + sent, c->length);
    watch(EPOLL_CTL_MOD, c->fd, EPOLLOUT, c);
}

static void send_rest(client *c)
{
    ssize_t sent = send(c->fd, c->rest, c->length, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        finish(c);
        return;
    }
    sent = sent < 0 ? 0 : sent;
    c->length -= (size_t)sent;
    memmove(c->rest, c->rest + sent, c->length);
    if (c->length)
        return;
    free(c->rest);
    c->rest = NULL;
    watch(EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
}

static int listen_on_loopback(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(fd, 1024) < 0 || getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        fail("listen");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(int count, char **arguments)
{
    static char input_mark;
    struct epoll_event events[1024];
    time_t end = time(NULL) + (count > 1 ? atoi(arguments[1]) : 600);
    kernel_set = epoll_create1(EPOLL_CLOEXEC);
    if (kernel_set < 0)
        fail("epoll_create1");
    int listener = listen_on_loopback();
    watch(EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = &input_mark};
    /* A file or /dev/null is no pipe: then only the clock ends the server. */
    if (epoll_ctl(kernel_set, EPOLL_CTL_ADD, 0, &e) < 0 && errno != EPERM)
        fail("standard input");
    while (time(NULL) < end) {
        int n = epoll_wait(kernel_set, events, 1024, 1000);
        if (n < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int i = 0; i < n; i++) {
            void *who = events[i].data.ptr;
            if (who == NULL)
                accept_all(listener);
            else if (who == &input_mark) {
                if (read(0, buffer, sizeof buffer) <= 0)
                    return 0;
            } else if (((client *)who)->rest)
                send_rest(who);
            else
                echo(who);
        }
    }
    return 0;
}
