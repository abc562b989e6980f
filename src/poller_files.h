/* Descriptors that are always ready: regular files, /dev/null and their like,
 * which epoll and kqueue refuse or treat in their own way, while select() says
 * that they can be read and written at any time.  These pollers keep them here
 * and report them on every wait.  No system call is made here. */
#ifndef FASTCORE_POLLER_FILES_H
#define FASTCORE_POLLER_FILES_H

#include "poller_list.h"

typedef struct {
    poller_list list;
    int turn; /* who gets the odd place: 1 for the files */
} poller_files;

/* Keep a file with its interest.  Returns 0, or -1 where memory is short. */
static inline int
poller_files_put(poller_files *files, poller_fd fd, poller_token token, int mask)
{
    int position = poller_list_put(&files->list, fd, token, mask);

    if (position < 0)
        return -1;
    files->list.entries[position].ready = mask;
    return 0;
}

/* How many of `capacity` places the kernel may fill, so that neither side
 * starves the other: files are left half of them at most. */
static inline int
poller_files_leave(poller_files *files, int capacity)
{
    int share;

    if (files->list.count == 0)
        return capacity;
    share = (capacity + files->turn) / 2;
    files->turn = !files->turn;
    return capacity - (share < files->list.count ? share : files->list.count);
}

#endif
