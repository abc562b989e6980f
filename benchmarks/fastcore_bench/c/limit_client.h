/* The limit's clients: sockets with what they have not taken yet.
 *
 * Knows epoll and sockets, and nothing of what is said over them.
 */
#ifndef LIMIT_CLIENT_H
#define LIMIT_CLIENT_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct client {
    int fd;               /* -1: finished */
    uint32_t events;      /* what epoll watches for */
    char *rest;           /* what could not be sent yet; reading waits while there is any */
    size_t rest_size;
    char *partial;        /* the beginning of a request whose end has not come yet */
    size_t partial_size;
    uint64_t left, done;  /* bytes of a transfer */
    struct client *other; /* of a relay: where what comes is sent on to */
    struct client *next, **link; /* the list of all clients */
} client;

static int kernel_set;
static client *clients, *finished;

static void fail(const char *what)
{
    fprintf(stderr, "limit: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void watch(client *c, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = c};
    int operation = c->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (events != c->events && epoll_ctl(kernel_set, operation, c->fd, &e) < 0)
        fail("epoll_ctl");
    c->events = events;
}

static client *new_client(int fd)
{
    client *c = calloc(1, sizeof *c);
    if (!c)
        fail("calloc");
    c->fd = fd;
    c->next = clients;
    c->link = &clients;
    if (clients)
        clients->link = &c->next;
    clients = c;
    watch(c, EPOLLIN);
    return c;
}

/* Closes, the other one of a pair too; the memory stays until no event of this batch can name it. */
static void finish(client *c)
{
    client *other = c->other;
    *c->link = c->next;
    if (c->next)
        c->next->link = c->link;
    close(c->fd);
    c->fd = -1;
    c->next = finished;
    finished = c;
    c->other = NULL;
    if (other) {
        other->other = NULL;
        finish(other);
    }
}

static void free_finished(void)
{
    while (finished) {
        client *c = finished;
        finished = c->next;
        free(c->rest);
        free(c->partial);
        free(c);
    }
}

/* How much was taken; -1 where the client is gone, and finished. */
static ssize_t send_some(client *c, const char *data, size_t size)
{
    ssize_t sent = send(c->fd, data, size, MSG_NOSIGNAL);
    if (sent >= 0 || errno == EAGAIN || errno == EINTR)
        return sent < 0 ? 0 : sent;
    finish(c);
    return -1;
}

/* recv(): how much came, 0 for nothing yet; -1 where the client is finished. */
static ssize_t receive_some(client *c, char *data, size_t size)
{
    ssize_t got = recv(c->fd, data, size, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (got > 0)
        return got;
    finish(c);
    return -1;
}

static void keep_partial(client *c, const char *data, size_t size)
{
    c->partial = realloc(c->partial, c->partial_size + size);
    if (!c->partial)
        fail("realloc");
    memcpy(c->partial + c->partial_size, data, size);
    c->partial_size += size;
}

static void drop_partial(client *c, size_t size)
{
    c->partial_size -= size;
    memmove(c->partial, c->partial + size, c->partial_size);
}

/* Sends, and keeps what is not taken for send_rest(). */
static void send_all(client *c, const char *data, size_t size)
{
    ssize_t sent = c->rest ? 0 : send_some(c, data, size);
    if (sent < 0 || (size_t)sent == size)
        return;
    size_t more = size - (size_t)sent;
    c->rest = realloc(c->rest, c->rest_size + more);
    if (!c->rest)
        fail("realloc");
    memcpy(c->rest + c->rest_size, data + sent, more);
    c->rest_size += more;
    watch(c, EPOLLOUT);
}

static void send_rest(client *c)
{
    ssize_t sent = send_some(c, c->rest, c->rest_size);
    if (sent < 0)
        return;
    c->rest_size -= (size_t)sent;
    memmove(c->rest, c->rest + sent, c->rest_size);
    if (c->rest_size)
        return;
    free(c->rest);
    c->rest = NULL;
    watch(c, EPOLLIN);
}

#endif
