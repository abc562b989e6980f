/* Noticing that a dict has changed, without looking at what is in it.
 *
 * engine_map_version() gives a number that is another one after every change of a dict that
 * engine_map_watch() accepted; it may also change for no reason.  Knows no channels.
 */
#ifndef ENGINE_MAP_H
#define ENGINE_MAP_H

#include <Python.h>
#include <stdint.h>

#ifdef Py_GIL_DISABLED

/* Here a watcher helps nobody: it is called before the change is made, and a look in between would
 * find the old state and take it for the new one.  So every look is at the dict itself. */
#define ENGINE_HAS_NO_GIL 1

static inline int engine_map_watch(PyObject *map)
{
    (void)map;
    return 1;
}

static inline uint64_t engine_map_version(PyObject *map)
{
    (void)map;
    return 0;
}

#else

#define ENGINE_HAS_NO_GIL 0

#if PY_VERSION_HEX < 0x030C0000

static inline int engine_map_watch(PyObject *map)
{
    (void)map;
    return 1;
}

static inline uint64_t engine_map_version(PyObject *map)
{
    return ((PyDictObject *)map)->ma_version_tag;
}

#else

/* One number for all watched dicts: a change of another map costs a look that finds nothing. */
static uint64_t engine_map_changes = 1;

static int engine_map_changed(PyDict_WatchEvent event, PyObject *map, PyObject *key,
                              PyObject *value)
{
    (void)event, (void)map, (void)key, (void)value;
    engine_map_changes++;
    return 0;
}

/* 0, without an exception, where the interpreter has no watcher left for us. */
static inline int engine_map_watch(PyObject *map)
{
    static int watcher = -1;
    if (watcher < 0)
        watcher = PyDict_AddWatcher(engine_map_changed);
    if (watcher < 0 || PyDict_Watch(watcher, map) < 0) {
        PyErr_Clear();
        return 0;
    }
    return 1;
}

static inline uint64_t engine_map_version(PyObject *map)
{
    (void)map;
    return engine_map_changes;
}

#endif

#endif

#endif
