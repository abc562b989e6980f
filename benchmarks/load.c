/* A load generator for echo servers: one thread, many connections.
 *
 * Opens idle and busy connections, lets every busy one send `size` bytes,
 * waits for the whole echo, checks it byte for byte, and repeats.  Prints one
 * line of JSON with rates, latencies and the CPU time the server spent on it.
 *
 * It must not know which server it drives: all it uses is a host, a port and,
 * for the CPU time, a process id.  It ends in bounded time whatever the server
 * does.  load.py is the same program for machines without a compiler; what
 * one of them takes and prints, the other must take and print too.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "load_histogram.h"
#include "load_wait.h"

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* SIGPIPE is ignored anyway */
#endif

enum state { CLOSED, CONNECTING, PROBING, IDLE, BUSY };

typedef struct {
    int fd;
    enum state state;
    int wants;          /* what the kernel was last told to watch for */
    size_t sent, received;
    const char *text;   /* what this request sends and expects back */
    uint32_t sequence;  /* moves `text` along, so that a stale echo is noticed */
    uint64_t started;
    int answered;       /* completed at least one request since the warm-up began */
} connection;

static struct {
    union {
        struct sockaddr any;
        struct sockaddr_in four;
        struct sockaddr_in6 six;
    } address;
    socklen_t address_length;
    int family, busy, idle, window;
    long pid;
    size_t size;
    double seconds, warmup, connect_timeout;
} options = {.busy = 1, .size = 1024, .seconds = 2, .warmup = 0.5,
             .connect_timeout = 20, .window = 64};

static connection *connections;
static int total, open_busy, opening;
static uint64_t errors, next_complaint;
static char *pattern, *input;
static size_t input_size;
enum { PATTERN_SLACK = 4096 };

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

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void print_percentile(const char *name, double share)
{
    double value = histogram_percentile(share);
    if (value < 0)
        printf("\"%s\": null, ", name);
    else
        printf("\"%s\": %.1f, ", name, value / 1000);
}

/* ---- one connection ---------------------------------------------------- */

static void watch(connection *c, int wants)
{
    if (wants != c->wants && wait_watch((int)(c - connections), c->fd, c->wants, wants) < 0)
        fail("cannot watch a connection: %s", strerror(errno));
    c->wants = wants;
}

static void drop(connection *c, const char *why)
{
    if (errors++ == next_complaint) { /* the 1st, 10th, 100th: enough to see why */
        fprintf(stderr, "load: error %llu: %s\n", (unsigned long long)errors, why);
        next_complaint = errors * 10 - 1;
    }
    if (c->state == CONNECTING || c->state == PROBING)
        opening--;
    if (c->state == BUSY)
        open_busy--;
    watch(c, 0);
    close(c->fd);
    c->fd = -1;
    c->state = CLOSED;
}

static size_t request_size(const connection *c)
{
    return c->state == PROBING ? 1 : options.size;
}

static void send_more(connection *c)
{
    size_t size = request_size(c);
    while (c->sent < size) {
        ssize_t n = send(c->fd, c->text + c->sent, size - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (n < 0) {
            drop(c, strerror(errno));
            return;
        }
        c->sent += (size_t)n;
    }
    watch(c, c->sent < size ? WANT_READ | WANT_WRITE : WANT_READ);
}

static void start_request(connection *c, uint64_t time)
{
    c->text = pattern + (c->sequence++ * 37u + (uint32_t)(c - connections) * 101u) % PATTERN_SLACK;
    c->sent = c->received = 0;
    c->started = time;
    send_more(c);
}

static void finish_request(connection *c)
{
    uint64_t time = now();
    if (c->state == PROBING) { /* the server has really accepted this one */
        opening--;
        c->state = c - connections < options.idle ? IDLE : BUSY;
        open_busy += c->state == BUSY;
        watch(c, 0);
        return;
    }
    c->answered = 1;
    histogram_add(time - c->started);
    start_request(c, time);
}

static void receive(connection *c)
{
    ssize_t n = recv(c->fd, input, input_size, 0);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (n < 0) {
        drop(c, strerror(errno));
    } else if (n == 0) {
        drop(c, "the server closed a connection");
    } else if ((size_t)n > c->sent - c->received) {
        drop(c, "the server sent more than it was sent");
    } else if (memcmp(input, c->text + c->received, (size_t)n) != 0) {
        drop(c, "the echo differs from what was sent");
    } else {
        c->received += (size_t)n;
        if (c->received == request_size(c))
            finish_request(c);
    }
}

static void serve(connection *c, int ready)
{
    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error) {
            drop(c, strerror(error));
            return;
        }
        c->state = PROBING;
        start_request(c, now());
        return;
    }
    if (ready & WANT_READ)
        receive(c);
    if (ready & WANT_WRITE && c->state != CLOSED && c->wants & WANT_WRITE)
        send_more(c);
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

/* ---- opening ----------------------------------------------------------- */

/* Begins one connect.  0: the kernel or the server wants us to wait. */
static int begin_connect(connection *c)
{
    int one = 1;
    /* Closing resets the connection: no TIME_WAIT, so that runs that follow
     * one another never use up the local ports. */
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    int fd = socket(options.family, SOCK_STREAM, 0);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE))
        fail("too few descriptors for %d connections (raise ulimit -n)", total);
    if (fd < 0)
        fail("socket: %s", strerror(errno));
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (connect(fd, &options.address.any, options.address_length) < 0 &&
        errno != EINPROGRESS && errno != EINTR) {
        int error = errno;
        close(fd);
        if (error == EAGAIN || error == EADDRNOTAVAIL)
            return 0;
        fail("connect: %s", strerror(error));
    }
    c->fd = fd;
    c->state = CONNECTING;
    opening++;
    watch(c, WANT_WRITE);
    return 1;
}

/* At most `window` connections are unanswered at a time: a listener's backlog
 * is short, and a connect that overflows it waits a second for its next try. */
static void open_connections(void)
{
    uint64_t deadline = now() + (uint64_t)(options.connect_timeout * 1e9);
    int begun = 0;
    while (begun < total || opening) {
        while (begun < total && opening < options.window && begin_connect(&connections[begun]))
            begun++;
        uint64_t soon = now() + 20000000;
        if (now() >= deadline)
            fail("no answer: %d of %d connections were answered within %g s",
                 begun - opening, total, options.connect_timeout);
        run_until(soon < deadline ? soon : deadline);
    }
}

/* ---- the measurement --------------------------------------------------- */

/* CPU time in ns that the server's main thread has used; -1 if not known. */
static double server_cpu(void)
{
    char path[64];
    double value = -1;
    if (options.pid <= 0)
        return -1;
    snprintf(path, sizeof path, "/proc/%ld/schedstat", options.pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return -1;
    if (fscanf(f, "%lf", &value) != 1)
        value = -1;
    fclose(f);
    return value;
}

static void run_for(double seconds)
{
    uint64_t deadline = now() + (uint64_t)(seconds * 1e9);
    while (open_busy && run_until(deadline))
        ;
}

static void count_silent(void)
{
    char byte;
    for (int i = 0; i < total; i++) {
        connection *c = &connections[i];
        if (c->state == BUSY && !c->answered)
            drop(c, "a busy connection got no answer");
        else if (c->state == IDLE && recv(c->fd, &byte, 1, MSG_PEEK) >= 0)
            drop(c, "the server closed or wrote to an idle connection");
    }
}

static void measure(void)
{
    for (int i = options.idle; i < total; i++)
        if (connections[i].state == BUSY)
            start_request(&connections[i], now());
    run_for(options.warmup);
    histogram_clear();
    double cpu = server_cpu();
    uint64_t begin = now();
    run_for(options.seconds);
    double seconds = (double)(now() - begin) / 1e9, cpu_after = server_cpu();
    uint64_t requests = histogram_count;
    count_silent();
    printf("{\"requests\": %llu, \"seconds\": %.3f, \"requests_per_second\": %.1f, ",
           (unsigned long long)requests, seconds,
           seconds > 0 ? (double)requests / seconds : 0.0);
    if (cpu >= 0 && cpu_after >= 0 && requests)
        printf("\"cpu_us_per_request\": %.3f, ", (cpu_after - cpu) / 1000 / (double)requests);
    else
        printf("\"cpu_us_per_request\": null, ");
    print_percentile("p50_us", 0.50);
    print_percentile("p99_us", 0.99);
    print_percentile("p999_us", 0.999);
    printf("\"errors\": %llu, \"busy\": %d, \"idle\": %d}\n", (unsigned long long)errors,
           options.busy, options.idle);
}

/* ---- the command line -------------------------------------------------- */

static const char usage[] =
    "usage: load HOST PORT [--busy N] [--idle N] [--size BYTES] [--seconds S] [--warmup S]\n"
    "            [--pid PID] [--connect-timeout S] [--window N]\n"
    "HOST is a numeric address or localhost; PID the server's, for its CPU time.\n";

static double number(const char *name, const char *text, double low, double high)
{
    char *end;
    double value = text ? strtod(text, &end) : 0;
    if (!text || end == text || *end || !(value >= low && value <= high))
        fail("%s needs a number from %g to %g, not %s", name, low, high, text ? text : "nothing");
    return value;
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
        const char *v = i + 1 < count ? arguments[++i] : NULL;
        if (strcmp(a, "--busy") == 0)
            options.busy = (int)number(a, v, 1, 1e6);
        else if (strcmp(a, "--idle") == 0)
            options.idle = (int)number(a, v, 0, 1e6);
        else if (strcmp(a, "--size") == 0)
            options.size = (size_t)number(a, v, 1, 1 << 26);
        else if (strcmp(a, "--seconds") == 0)
            options.seconds = number(a, v, 0.001, 3600);
        else if (strcmp(a, "--warmup") == 0)
            options.warmup = number(a, v, 0, 3600);
        else if (strcmp(a, "--pid") == 0)
            options.pid = (long)number(a, v, 1, 1e9);
        else if (strcmp(a, "--connect-timeout") == 0)
            options.connect_timeout = number(a, v, 0.01, 3600);
        else if (strcmp(a, "--window") == 0)
            options.window = (int)number(a, v, 1, 4096);
        else
            fail("unknown option %s (see --help)", a);
    }
    if (plain_count < 2)
        fail("needs a host and a port (see --help)");
    set_address(plain[0], (int)number("PORT", plain[1], 1, 65535));
}

int main(int count, char **arguments)
{
    read_arguments(count, arguments);
    signal(SIGPIPE, SIG_IGN);
    total = options.idle + options.busy;
    /* Room beyond one echo: a server that answers too much is noticed. */
    input_size = options.size < 65536 ? 65536 : options.size + 1;
    connections = calloc((size_t)total, sizeof *connections);
    pattern = malloc(options.size + PATTERN_SLACK);
    input = malloc(input_size);
    if (!connections || !pattern || !input)
        fail("out of memory");
    uint32_t random = 2463534242u;
    for (size_t i = 0; i < options.size + PATTERN_SLACK; i++) {
        random ^= random << 13, random ^= random >> 17, random ^= random << 5;
        pattern[i] = (char)random;
    }
    if (wait_open(total) < 0)
        fail("cannot wait for connections: %s", strerror(errno));
    open_connections();
    measure();
    return 0;
}
