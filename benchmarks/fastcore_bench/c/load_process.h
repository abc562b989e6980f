/* What the server's process has used so far: CPU time and memory.
 *
 * All of it is read from the kernel by process id, without the server's help.
 * Knows nothing of connections; -1 stands for "not known here".
 */
#ifndef LOAD_PROCESS_H
#define LOAD_PROCESS_H

#include <stdio.h>
#include <sys/types.h>
#include <time.h>

typedef struct {
    double main_ns;    /* of the process's main thread */
    double process_ns; /* of all its threads, ended ones too, without children */
} cpu_time;

/* The number behind `key` in a file of /proc; behind nothing: its first number. */
static double proc_number(long pid, const char *file, const char *key)
{
    char path[64], line[256], format[32];
    double value = -1;
    snprintf(path, sizeof path, "/proc/%ld/%s", pid, file);
    snprintf(format, sizeof format, "%s%%lf", key);
    FILE *f = pid > 0 ? fopen(path, "r") : NULL;
    if (!f)
        return -1;
    while (fgets(line, sizeof line, f) && sscanf(line, format, &value) != 1)
        ;
    fclose(f);
    return value;
}

static cpu_time server_cpu(long pid)
{
    cpu_time used = {proc_number(pid, "schedstat", ""), -1};
#ifdef __linux__
    clockid_t clock;
    struct timespec t;
    if (pid > 0 && clock_getcpuclockid((pid_t)pid, &clock) == 0 && clock_gettime(clock, &t) == 0)
        used.process_ns = (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
#endif
    return used;
}

/* Resident bytes.  The kernel's quick figure (VmRSS) may be off by half a
 * megabyte; the one of smaps_rollup is counted. */
static double server_memory(long pid)
{
    double kilobytes = proc_number(pid, "smaps_rollup", "Rss:");
    if (kilobytes < 0)
        kilobytes = proc_number(pid, "status", "VmRSS:");
    return kilobytes < 0 ? -1 : kilobytes * 1024;
}

#endif
