/* The protocols about connections: churn and accept.
 *
 * churn: each busy slot connects, sends, receives all of it back, closes, and
 * begins anew.  accept: many connects at once, each answered by a greeting.
 */
#ifndef LOAD_CHURN_H
#define LOAD_CHURN_H

#include "load_stream.h"

/* ---- churn: an echo on each connection --------------------------------- */

static void churn_connect(connection *c)
{
    c->sent = c->received = c->limit = 0;
    if (may_issue(c) && !begin_connect(c))
        fail("connect: no local port is left");
}

static void churn_connected(connection *c)
{
    c->limit = options.size;
    stream_send(c);
}

static void churn_readable(connection *c)
{
    size_t n = receive_some(c);
    if (n == 0)
        return;
    if (n > c->sent - c->received) {
        drop(c, "the server sent more than it was sent");
    } else if (memcmp(input, text_at(c, c->received), n) != 0) {
        drop(c, "the echo differs from what was sent");
    } else if ((c->received += n) == options.size) {
        histogram_add(now() - c->started);
        answered(c);
        close_connection(c);
        churn_connect(c);
    }
}

static void churn_begin(void)
{
    for (int i = options.idle; i < total; i++)
        churn_connect(&connections[i]);
}

/* ---- accept: a greeting on each connection ----------------------------- */

static int accept_begun;

static void accept_next(void)
{
    if (options.idle + accept_begun == total)
        return;
    connection *c = &connections[options.idle + accept_begun++];
    if (may_issue(c) && !begin_connect(c))
        fail("connect: no local port is left");
}

static void accept_welcomed(connection *c)
{
    histogram_add(now() - c->started);
    answered(c);
    accept_next();
}

static void accept_begin(void)
{
    for (int i = 0; i < options.window; i++)
        accept_next();
}

/* An open connection is watched no more; what comes later is found at the end. */
static void accept_readable(connection *c)
{
    receive_some(c);
}

#endif
