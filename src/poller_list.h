/* A dense list of (descriptor, token, mask) in which an entry is found by its
 * token's index: what poll and select hand to the kernel, and what epoll and
 * kqueue keep beside it (poller_files.h).  It makes no system call. */
#ifndef FASTCORE_POLLER_LIST_H
#define FASTCORE_POLLER_LIST_H

#include <stdlib.h>
#include <string.h>

#include "poller.h"

typedef struct {
    poller_fd fd;
    poller_token token;
    int mask;  /* interest */
    int ready; /* room for one wait's answer */
} poller_entry;

typedef struct {
    poller_entry *entries;
    int count;
    int room;
    int *places; /* by index: position in entries plus one, 0 for none */
    uint32_t places_room;
    int next; /* where a wait goes on that could not report all */
} poller_list;

/* The position of that index, or -1. */
static inline int
poller_list_find(const poller_list *list, uint32_t index)
{
    return index < list->places_room ? list->places[index] - 1 : -1;
}

/* Grow an array to at least `needed` members; returns it, or NULL with the
 * old one untouched. */
static inline void *
poller_grow(void *array, size_t member, uint32_t needed, uint32_t *room)
{
    uint32_t larger = *room < 32 ? 32 : *room;
    void *result;

    while (larger < needed) {
        if (larger > UINT32_MAX / 2)
            return NULL;
        larger *= 2;
    }
    if (larger > SIZE_MAX / member)
        return NULL;
    result = realloc(array, larger * member);
    if (result != NULL)
        *room = larger;
    return result;
}

static inline int
poller_list_reserve_place(poller_list *list, uint32_t index)
{
    uint32_t room = list->places_room;
    int *places;

    if (index < room)
        return 0;
    if (index == UINT32_MAX)
        return -1;
    places = poller_grow(list->places, sizeof(int), index + 1, &room);
    if (places == NULL)
        return -1;
    memset(places + list->places_room, 0, (room - list->places_room) * sizeof(int));
    list->places = places;
    list->places_room = room;
    return 0;
}

/* Add an entry, or replace the one with that index.  Returns its position, or
 * -1 where memory is short. */
static inline int
poller_list_put(poller_list *list, poller_fd fd, poller_token token, int mask)
{
    int position = poller_list_find(list, token.index);
    poller_entry *entries;
    uint32_t room = (uint32_t)list->room;

    if (position < 0) {
        if (poller_list_reserve_place(list, token.index) < 0)
            return -1;
        if (list->count == list->room) {
            entries = poller_grow(list->entries, sizeof(poller_entry),
                                  (uint32_t)list->count + 1, &room);
            if (entries == NULL)
                return -1;
            list->entries = entries;
            list->room = (int)room;
        }
        position = list->count++;
        list->places[token.index] = position + 1;
    }
    list->entries[position].fd = fd;
    list->entries[position].token = token;
    list->entries[position].mask = mask;
    list->entries[position].ready = 0;
    return position;
}

/* Remove an entry; the last one takes its place.  Returns that place, or -1
 * where there was no such entry. */
static inline int
poller_list_drop(poller_list *list, uint32_t index)
{
    int position = poller_list_find(list, index);

    if (position < 0)
        return -1;
    list->places[index] = 0;
    list->count--;
    if (position < list->count) {
        list->entries[position] = list->entries[list->count];
        list->places[list->entries[position].token.index] = position + 1;
    }
    return position;
}

/* Report entries whose `ready` is not zero until `capacity` is full, beginning
 * where the last wait had to stop, so that none starves.  Returns how many. */
static inline int
poller_list_report(poller_list *list, poller_event *events, int capacity)
{
    int filled = 0, position = list->next, seen;

    for (seen = 0; seen < list->count && filled < capacity; seen++, position++) {
        if (position >= list->count)
            position = 0;
        if (list->entries[position].ready != 0) {
            events[filled].token = list->entries[position].token;
            events[filled].mask = list->entries[position].ready;
            filled++;
        }
    }
    list->next = position;
    return filled;
}

static inline void
poller_list_free(poller_list *list)
{
    free(list->entries);
    free(list->places);
}

#endif
