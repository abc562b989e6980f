/* The table of pollers that this platform has.  It knows their names and
 * nothing of how they work; POLLER_HAS_* in poller_private.h decides. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <string.h>

#include "poller_private.h"

const poller_kind *const poller_kinds[] = {
#ifdef POLLER_HAS_EPOLL
    &poller_kind_epoll,
#endif
#ifdef POLLER_HAS_KQUEUE
    &poller_kind_kqueue,
#endif
#ifdef _WIN32
    &poller_kind_select,
    &poller_kind_poll,
#else
    &poller_kind_poll,
    &poller_kind_select,
#endif
    NULL,
};

const poller_kind *
poller_find(const char *name)
{
    const poller_kind *const *kind;

    for (kind = poller_kinds; *kind != NULL; kind++)
        if (strcmp((*kind)->name, name) == 0)
            return *kind;
    return NULL;
}
