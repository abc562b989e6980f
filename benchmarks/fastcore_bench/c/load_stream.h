/* The protocols whose answer is what was sent: echo and line.
 *
 * What a connection sends is a stream that repeats after `period` bytes, with
 * a beginning of its own, so that a stale, lost or mixed-up answer is noticed;
 * a request is the next `size` bytes of it.  For `line` each of these ends in
 * CRLF.  With several in flight, echo keeps that many going, while line sends
 * them in one piece and waits for all of the replies.
 */
#ifndef LOAD_STREAM_H
#define LOAD_STREAM_H

#include "load_connection.h"
#include "load_histogram.h"

enum { ECHO_PERIOD = 4093, LINE_PERIOD = 61 }; /* bytes, lines: primes do not fit requests */
static char *text;
static uint64_t period;
static uint64_t *started; /* of each connection's requests in flight */

static const char *text_at(const connection *c, uint64_t position)
{
    uint64_t index = (uint64_t)(c - connections);
    uint64_t begin = is_protocol("line") ? index * 7 * options.size : index * 101;
    return text + (begin + position) % period;
}

static uint64_t *start_of(const connection *c, uint64_t position)
{
    uint64_t slot = position / options.size % (uint64_t)options.in_flight;
    return started + (uint64_t)(c - connections) * (uint64_t)options.in_flight + slot;
}

static void stream_prepare(void)
{
    int lines = is_protocol("line");
    uint64_t flight = options.size * (uint64_t)options.in_flight;
    uint32_t random = 2463534242u;
    period = lines ? LINE_PERIOD * options.size : ECHO_PERIOD;
    text = allocate(period + flight, 1);
    started = allocate((size_t)total * (size_t)options.in_flight, sizeof *started);
    for (uint64_t i = 0; i < period; i++) {
        random ^= random << 13, random ^= random >> 17, random ^= random << 5;
        text[i] = lines ? (char)('a' + random % 26) : (char)random;
    }
    for (uint64_t end = options.size; lines && end <= period; end += options.size)
        memcpy(text + end - 2, "\r\n", 2);
    for (uint64_t i = period; i < period + flight; i++)
        text[i] = text[i - period];
    /* Room beyond one answer: a server that answers too much is noticed. */
    input_size = flight < 65536 ? 65536 : flight + 1;
}

static void stream_send(connection *c)
{
    while (c->sent < c->limit) {
        size_t n = send_some(c, text_at(c, c->sent), c->limit - c->sent);
        if (n == 0)
            break;
        c->sent += n;
    }
    if (c->state != CLOSED)
        watch(c, c->sent < c->limit ? WANT_READ | WANT_WRITE : WANT_READ);
}

static void stream_issue(connection *c, int count, uint64_t time)
{
    for (; count > 0 && may_issue(c); count--) {
        *start_of(c, c->limit) = time;
        c->limit += options.size;
    }
    stream_send(c);
}

static void stream_readable(connection *c)
{
    size_t n = receive_some(c);
    if (n == 0)
        return;
    if (n > c->sent - c->received) {
        drop(c, "the server sent more than it was sent");
        return;
    }
    if (memcmp(input, text_at(c, c->received), n) != 0) {
        drop(c, "the echo differs from what was sent");
        return;
    }
    c->received += n;
    uint64_t first = c->limit - (uint64_t)c->waiting * options.size, time = now();
    int complete = 0;
    for (; c->received - first >= options.size; first += options.size, complete++) {
        histogram_add(time - *start_of(c, first));
        answered(c);
    }
    if (is_protocol("line"))
        complete = c->waiting ? 0 : options.in_flight;
    if (complete)
        stream_issue(c, complete, time);
}

static void stream_begin(void)
{
    for (int i = options.idle; i < total; i++)
        if (connections[i].state == OPEN)
            stream_issue(&connections[i], options.in_flight, now());
}

#endif
