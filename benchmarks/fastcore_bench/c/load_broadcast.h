/* Broadcast: one peer's message goes to all of them.
 *
 * The busy peers send in turn, one message at a time; it is answered when
 * every peer, idle ones included, has it.  A request is one delivery; the
 * quota counts messages.
 */
#ifndef LOAD_BROADCAST_H
#define LOAD_BROADCAST_H

#include "load_connection.h"
#include "load_histogram.h"

enum { MESSAGE_SLACK = 4096 };
static char *messages; /* a message begins somewhere in its first MESSAGE_SLACK bytes */
static const char *message;
static connection *sender;
static uint64_t message_count, message_started;

static void broadcast_prepare(void)
{
    uint32_t random = 88675123u;
    messages = allocate(options.size + MESSAGE_SLACK, 1);
    for (uint64_t i = 0; i < options.size + MESSAGE_SLACK; i++) {
        random ^= random << 13, random ^= random >> 17, random ^= random << 5;
        messages[i] = (char)random;
    }
}

static void broadcast_send(connection *c)
{
    c->sent += send_some(c, message + c->sent, options.size - c->sent);
    if (c->state != CLOSED)
        watch(c, c->sent < options.size ? WANT_READ | WANT_WRITE : WANT_READ);
}

/* Everyone waits for the next message, of the next sender that is there. */
static void broadcast_next(void)
{
    if (issued >= quota)
        return;
    sender = NULL;
    for (int i = 0; !sender && i < options.busy; i++, message_count++) {
        sender = &connections[options.idle + (int)(message_count % (uint64_t)options.busy)];
        if (sender->state != OPEN)
            sender = NULL;
    }
    if (!sender)
        return;
    issued++;
    message = messages + message_count * 37 % MESSAGE_SLACK;
    for (int i = 0; i < total; i++)
        if (connections[i].state == OPEN) {
            connections[i].received = connections[i].sent = 0;
            connections[i].waiting = 1;
            waiting++;
        }
    message_started = now();
    broadcast_send(sender);
}

static void broadcast_readable(connection *c)
{
    size_t n = receive_some(c);
    if (n && (!c->waiting || n > options.size - c->received))
        drop(c, "the server sent more than one message");
    else if (n && memcmp(input, message + c->received, n) != 0)
        drop(c, "the message differs from what was sent");
    else if (n && (c->received += n) == options.size) {
        histogram_add(now() - message_started);
        answered(c);
    }
    if (!waiting)
        broadcast_next();
}

static void broadcast_begin(void)
{
    for (int i = 0; i < total; i++)
        if (connections[i].state == OPEN)
            watch(&connections[i], WANT_READ);
    broadcast_next();
}

#endif
