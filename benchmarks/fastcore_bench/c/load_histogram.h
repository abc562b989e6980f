/* Latencies in a histogram whose buckets grow with the value.
 *
 * Recording costs an addition, and the memory is the same for any number of
 * requests; a percentile is right to 1.6 %.  Knows nothing of connections.
 */
#ifndef LOAD_HISTOGRAM_H
#define LOAD_HISTOGRAM_H

#include <stdint.h>
#include <string.h>

enum { SUB_BITS = 6, SUB = 1 << SUB_BITS }; /* buckets are 1/64 of their value wide */
static uint64_t histogram[64 * SUB], histogram_count;

static void histogram_clear(void)
{
    memset(histogram, 0, sizeof histogram);
    histogram_count = 0;
}

static void histogram_add(uint64_t value)
{
    unsigned shift = 0;
    while (value >> shift >= 2 * SUB)
        shift++;
    histogram[shift * SUB + (unsigned)(value >> shift)]++;
    histogram_count++;
}

static double bucket_middle(unsigned bucket)
{
    if (bucket < 2 * SUB)
        return bucket;
    unsigned shift = bucket / SUB - 1;
    return ((double)(bucket - shift * SUB) + 0.5) * (double)(1ull << shift);
}

/* The value that `share` of all stay below; -1 where there are none. */
static double histogram_percentile(double share)
{
    uint64_t wanted = (uint64_t)(share * (double)histogram_count), seen = 0;
    for (unsigned i = 0; histogram_count && i < 64 * SUB; i++) {
        seen += histogram[i];
        if (seen > wanted || seen == histogram_count)
            return bucket_middle(i);
    }
    return -1;
}

#endif
