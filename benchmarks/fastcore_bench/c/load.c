/* A load generator: one thread, many connections, one line of JSON.
 *
 * Opens idle and busy connections, keeps the busy ones working in one of
 * several protocols, checks every byte that comes back, and prints rates,
 * latencies, and the CPU time and memory that the server spent on it.
 *
 * It must not know which server it drives: all it uses is a host, a port and,
 * for CPU time and memory, a process id.  It ends in bounded time whatever the
 * server does.  load.py is the same program, for echo only, for machines
 * without a compiler; what one of them prints, the other must print too.
 */
#define _GNU_SOURCE
#include <signal.h>

#include "load_broadcast.h"
#include "load_churn.h"
#include "load_process.h"
#include "load_stream.h"
#include "load_transfer.h"

static const protocol protocols[] = {
    {"echo", "?", "?", 1, 1, stream_prepare, stream_begin, stream_readable, stream_send,
     NULL, NULL, 0, 0},
    {"line", "?\r\n", "?\r\n", 3, 3, stream_prepare, stream_begin, stream_readable, stream_send,
     NULL, NULL, 0, 0},
    {"broadcast", "", "+", 0, 1, broadcast_prepare, broadcast_begin, broadcast_readable,
     broadcast_send, NULL, NULL, 0, 0},
    {"churn", "?", "?", 1, 1, stream_prepare, churn_begin, churn_readable, stream_send,
     churn_connected, NULL, 1, 0},
    {"accept", "", "+", 0, 1, stream_prepare, accept_begin, accept_readable, no_writing,
     NULL, accept_welcomed, 1, 1},
    {"download", "1\r\n", "\0", 3, 1, transfer_prepare, transfer_begin, download_readable,
     no_writing, NULL, NULL, 0, 1},
    {"upload", "1\r\n\0", "OK\r\n", 4, 4, transfer_prepare, transfer_begin, upload_readable,
     upload_writable, NULL, NULL, 0, 1},
};

/* ---- the figures ------------------------------------------------------- */

/* One key of the JSON object; below zero: not known. */
static void print_figure(const char *name, double value, int digits)
{
    if (value < 0)
        printf("\"%s\": null, ", name);
    else
        printf("\"%s\": %.*f, ", name, digits, value);
}

static void print_latency(const char *name, double share)
{
    double value = histogram_percentile(share);
    print_figure(name, value < 0 ? -1 : value / 1000, 1);
}

/* What the JSON counts as requests: MiB for transfers. */
static double work_done(void)
{
    int transfer = is_protocol("download") || is_protocol("upload");
    double each = transfer ? (double)options.size / (1 << 20) : 1;
    return (double)histogram_count * each;
}

static double per_request(double before, double after, double work)
{
    return before < 0 || after < 0 || work <= 0 ? -1 : (after - before) / 1000 / work;
}

/* ---- the measurement --------------------------------------------------- */

/* Lets what was begun end, so that every request is answered or an error. */
static void finish(void)
{
    char byte;
    quota = issued;
    run_for(options.timeout, options.patience);
    for (int i = 0; i < total; i++) {
        connection *c = &connections[i];
        if (c->waiting && c->state != CLOSED)
            drop(c, "a busy connection got no answer");
        else if (c->state == OPEN && recv(c->fd, &byte, 1, MSG_PEEK) >= 0)
            drop(c, is_busy(c) ? "the server closed a connection or wrote too much"
                               : "the server closed or wrote to an idle connection");
    }
}

static void start(void)
{
    quota = UINT64_MAX;
    if (options.warmup > 0 && !speaks->counts) {
        speaks->begin();
        run_for(options.warmup, options.warmup);
        if (options.requests) /* those in flight count as well */
            quota = issued + options.requests;
    } else {
        quota = options.requests ? options.requests : UINT64_MAX;
        speaks->begin();
    }
}

static void measure(void)
{
    double before = server_memory(options.pid);
    open_connections(speaks->opens_late ? options.idle : total);
    double after = server_memory(options.pid);
    int by_count = options.requests > 0;
    cpu_time cpu = server_cpu(options.pid);
    uint64_t begin = now();
    start();
    if (options.warmup > 0 && !speaks->counts) {
        histogram_clear();
        cpu = server_cpu(options.pid);
        begin = now();
    }
    run_for(by_count ? options.timeout : options.seconds,
            by_count ? options.patience : options.seconds);
    double seconds = (double)(now() - begin) / 1e9, work = work_done();
    cpu_time used = server_cpu(options.pid);
    if (is_protocol("accept"))
        after = server_memory(options.pid);
    printf("{\"requests\": %.10g, \"seconds\": %.3f, \"requests_per_second\": %.1f, ", work,
           seconds, seconds > 0 ? work / seconds : 0.0);
    print_figure("cpu_us_per_request", per_request(cpu.main_ns, used.main_ns, work), 3);
    print_figure("process_cpu_us_per_request",
                 per_request(cpu.process_ns, used.process_ns, work), 3);
    print_latency("p50_us", 0.50);
    print_latency("p99_us", 0.99);
    print_latency("p999_us", 0.999);
    finish();
    printf("\"errors\": %llu, \"busy\": %d, \"idle\": %d, ", (unsigned long long)errors,
           options.busy, options.idle);
    print_figure("rss_before", before, 0);
    printf(after < 0 ? "\"rss_after\": null}\n" : "\"rss_after\": %.0f}\n", after);
}

int main(int count, char **arguments)
{
    read_arguments(count, arguments);
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < sizeof protocols / sizeof *protocols; i++)
        if (is_protocol(protocols[i].name))
            speaks = &protocols[i];
    if (!speaks)
        fail("unknown protocol %s (see --help)", options.protocol);
    total = options.idle + options.busy;
    connections = allocate((size_t)total, sizeof *connections);
    speaks->prepare();
    input = allocate(input_size, 1);
    if (wait_open(total) < 0)
        fail("cannot wait for connections: %s", strerror(errno));
    measure();
    return 0;
}
