/* The command line of the load generator, and how it fails.
 *
 * Reads and checks options.  Knows which protocols there are by name only, and
 * nothing of connections.
 */
#ifndef LOAD_OPTIONS_H
#define LOAD_OPTIONS_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static struct {
    union {
        struct sockaddr any;
        struct sockaddr_in four;
        struct sockaddr_in6 six;
    } address;
    socklen_t address_length;
    int family, busy, idle, in_flight, window;
    long pid;
    uint64_t size, requests;
    double seconds, warmup, connect_timeout, patience, timeout;
    const char *protocol;
} options = {.busy = 1, .in_flight = 1, .size = 1024, .seconds = 2, .warmup = 0.5,
             .connect_timeout = 20, .patience = 5, .timeout = 120, .protocol = "echo"};

static const char usage[] =
    "usage: load HOST PORT [option value]...\n"
    "HOST is a numeric address or localhost.\n"
    "  --protocol P         echo, line, broadcast, churn, accept, download or upload (echo)\n"
    "  --busy N --idle N    connections that work, and that are only open (1, 0)\n"
    "  --size BYTES         of a request, line (with its CRLF), message or transfer (1024)\n"
    "  --in-flight N        echo, line: requests of a connection sent at a time (1)\n"
    "  --seconds S          time measured (2)\n"
    "  --warmup S           time before that; not for accept, download, upload (0.5)\n"
    "  --requests N         measure so many requests, not a time; accept: so many\n"
    "                       connections; download, upload: so many transfers (one each)\n"
    "  --pid PID            the server's process, for its CPU time and memory\n"
    "  --connect-timeout S  time for opening all connections (20)\n"
    "  --window N           connects that wait for the server at a time (64; accept: 1000)\n"
    "  --patience S         give up where nothing at all moves for so long (5)\n"
    "  --timeout S          give up a measurement of a number of requests (120)\n";

static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static double number(const char *name, const char *text, double low, double high)
{
    char *end;
    double value = text ? strtod(text, &end) : 0;
    if (!text || end == text || *end || !(value >= low && value <= high))
        fail("%s needs a number from %g to %g, not %s", name, low, high, text ? text : "nothing");
    return value;
}

static int is_protocol(const char *name)
{
    return strcmp(options.protocol, name) == 0;
}

static void set_address(const char *host, int port)
{
    struct sockaddr_in *four = &options.address.four;
    struct sockaddr_in6 *six = &options.address.six;
    if (strcmp(host, "localhost") == 0)
        host = "127.0.0.1";
    if (inet_pton(AF_INET, host, &four->sin_addr) == 1) {
        options.family = four->sin_family = AF_INET;
        four->sin_port = htons((uint16_t)port);
        options.address_length = sizeof *four;
    } else if (inet_pton(AF_INET6, host, &six->sin6_addr) == 1) {
        options.family = six->sin6_family = AF_INET6;
        six->sin6_port = htons((uint16_t)port);
        options.address_length = sizeof *six;
    } else {
        fail("%s is not a numeric address", host);
    }
}

static void set_option(const char *a, const char *v)
{
    if (strcmp(a, "--protocol") == 0)
        options.protocol = v ? v : "";
    else if (strcmp(a, "--busy") == 0)
        options.busy = (int)number(a, v, 1, 1e6);
    else if (strcmp(a, "--idle") == 0)
        options.idle = (int)number(a, v, 0, 1e6);
    else if (strcmp(a, "--size") == 0)
        options.size = (uint64_t)number(a, v, 1, 1e12);
    else if (strcmp(a, "--in-flight") == 0)
        options.in_flight = (int)number(a, v, 1, 1e6);
    else if (strcmp(a, "--seconds") == 0)
        options.seconds = number(a, v, 0.001, 3600);
    else if (strcmp(a, "--warmup") == 0)
        options.warmup = number(a, v, 0, 3600);
    else if (strcmp(a, "--requests") == 0)
        options.requests = (uint64_t)number(a, v, 1, 1e12);
    else if (strcmp(a, "--pid") == 0)
        options.pid = (long)number(a, v, 1, 1e9);
    else if (strcmp(a, "--connect-timeout") == 0)
        options.connect_timeout = number(a, v, 0.01, 3600);
    else if (strcmp(a, "--window") == 0)
        options.window = (int)number(a, v, 1, 1e6);
    else if (strcmp(a, "--patience") == 0)
        options.patience = number(a, v, 0.01, 3600);
    else if (strcmp(a, "--timeout") == 0)
        options.timeout = number(a, v, 0.01, 3600);
    else
        fail("unknown option %s (see --help)", a);
}

/* Options that make no sense together, and those that follow from others. */
static void settle_options(void)
{
    int stream = is_protocol("echo") || is_protocol("line");
    int transfer = is_protocol("download") || is_protocol("upload");
    if (options.in_flight > 1 && !stream)
        fail("--in-flight is for echo and line");
    if (!transfer && options.size * (uint64_t)options.in_flight > 1 << 28)
        fail("--size times --in-flight must stay below 256 MiB");
    if (is_protocol("line") && options.size < 2)
        fail("a line has a CRLF: --size must be 2 or more");
    if (is_protocol("accept")) {
        if (options.requests > 1000000)
            fail("--requests: at most 1000000 connections");
        options.busy = options.requests ? (int)options.requests : options.busy;
    }
    if ((is_protocol("accept") || transfer) && !options.requests)
        options.requests = (uint64_t)options.busy;
    if (!options.window) /* accept: as many as a backlog of 1,024 takes without a retry */
        options.window = is_protocol("accept") ? 1000 : 64;
}

static void read_arguments(int count, char **arguments)
{
    const char *plain[2] = {0};
    int plain_count = 0;
    for (int i = 1; i < count; i++) {
        const char *a = arguments[i];
        if (strcmp(a, "--help") == 0 || strcmp(a, "-h") == 0) {
            fputs(usage, stdout);
            exit(0);
        }
        if (strncmp(a, "--", 2) != 0) {
            if (plain_count == 2)
                fail("one argument too many: %s", a);
            plain[plain_count++] = a;
            continue;
        }
        set_option(a, i + 1 < count ? arguments[i + 1] : NULL);
        i++;
    }
    if (plain_count < 2)
        fail("needs a host and a port (see --help)");
    set_address(plain[0], (int)number("PORT", plain[1], 1, 65535));
    settle_options();
}

#endif
