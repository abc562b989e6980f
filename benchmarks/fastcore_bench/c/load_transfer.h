/* Large transfers: download and upload.
 *
 * A request names a number of bytes; its answer is that many bytes of a known
 * pattern, or, for upload, an "OK" once the server has received them all.
 */
#ifndef LOAD_TRANSFER_H
#define LOAD_TRANSFER_H

#include "load_connection.h"
#include "load_histogram.h"

enum {
    PATTERN = 251,          /* byte i of a transfer is i % PATTERN */
    CHUNK = PATTERN * 1024, /* sent or received at a time */
    CHUNKS_AT_ONCE = 16     /* before other connections get their turn */
};
static char *pattern;
static char request[32];
static const char done[] = "OK\r\n";

static void transfer_prepare(void)
{
    input_size = CHUNK;
    pattern = allocate(CHUNK + PATTERN, 1);
    for (int i = 0; i < CHUNK + PATTERN; i++)
        pattern[i] = (char)(i % PATTERN);
    snprintf(request, sizeof request, "%llu\r\n", (unsigned long long)options.size);
}

static void transfer_next(connection *c)
{
    watch(c, WANT_READ); /* what comes uncalled for is noticed */
    if (!may_issue(c))
        return;
    c->sent = c->received = 0;
    c->limit = options.size;
    c->started = now();
    send_short(c, request, strlen(request));
    if (c->state != CLOSED && is_protocol("upload"))
        watch(c, WANT_READ | WANT_WRITE);
}

static void transfer_done(connection *c)
{
    histogram_add(now() - c->started);
    answered(c);
    transfer_next(c);
}

static void download_readable(connection *c)
{
    size_t n = receive_some(c);
    if (n == 0)
        return;
    if (!c->waiting || n > c->limit - c->received)
        drop(c, "the server sent more than it was asked for");
    else if (memcmp(input, pattern + c->received % PATTERN, n) != 0)
        drop(c, "what the server sent differs from the pattern");
    else if ((c->received += n) == c->limit)
        transfer_done(c);
}

static void upload_writable(connection *c)
{
    for (int i = 0; i < CHUNKS_AT_ONCE && c->sent < c->limit; i++) {
        uint64_t left = c->limit - c->sent;
        size_t n = send_some(c, pattern + c->sent % PATTERN, left < CHUNK ? left : CHUNK);
        if (n == 0)
            break;
        c->sent += n;
    }
    if (c->state != CLOSED && c->sent == c->limit)
        watch(c, WANT_READ);
}

static void upload_readable(connection *c)
{
    size_t n = receive_some(c);
    if (n == 0)
        return;
    if (!c->waiting || c->sent < c->limit || n > sizeof done - 1 - c->received)
        drop(c, "the server answered before it had everything, or too much");
    else if (memcmp(input, done + c->received, n) != 0)
        drop(c, "the answer is not OK");
    else if ((c->received += n) == sizeof done - 1)
        transfer_done(c);
}

static void no_writing(connection *c)
{
    watch(c, WANT_READ);
}

static void transfer_begin(void)
{
    for (int i = options.idle; i < total; i++)
        if (connections[i].state == OPEN)
            transfer_next(&connections[i]);
}

#endif
