/* The floor: the smallest sensible loop on epoll that calls handlers in Python.
 *
 * A module of CPython with the type `channel`, a base of classes whose handlers
 * the loop calls, and run(), the loop.  recv() and send() are methods in C;
 * all that happens besides are calls of handle_read, writable and handle_write,
 * which programs/floor_server.py has of the very programs that are compared.
 * What that costs is the least that any loop for such programs can cost.
 *
 * Linux only.  It must stay as plain as this, and it is no loop for use: a
 * handler that raises ends it, there are no timers, and nothing is asked but
 * the channel that an event has come for.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { EVENTS = 1024, DESCRIPTORS = 1 << 17, BUFFER = 1 << 18 };

typedef struct {
    PyObject_HEAD
    int fd;          /* -1: closed */
    uint32_t events; /* what epoll watches for */
} channel;

static int kernel_set = -1;
static channel *channels[DESCRIPTORS]; /* by descriptor, each one a reference */
static char buffer[BUFFER];
static PyObject *handle_read, *handle_write, *handle_close, *writable;

/* ---- channels ---------------------------------------------------------- */

static int watch(channel *c, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.fd = c->fd};
    int operation = c->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (events != c->events && epoll_ctl(kernel_set, operation, c->fd, &e) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    c->events = events;
    return 0;
}

/* Calls a method without arguments and without a result; -1 where it raised. */
static int call(channel *c, PyObject *name)
{
    PyObject *result = PyObject_CallMethodNoArgs((PyObject *)c, name);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

static PyObject *channel_open(PyObject *self, PyObject *descriptor)
{
    channel *c = (channel *)self;
    long fd = PyLong_AsLong(descriptor);
    if (fd < 0 || fd >= DESCRIPTORS || channels[fd])
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "descriptor %ld", fd);
    c->fd = (int)fd;
    c->events = 0;
    if (watch(c, EPOLLIN) < 0)
        return NULL;
    Py_INCREF(self);
    channels[fd] = c;
    Py_RETURN_NONE;
}

/* The kernel forgets a descriptor that is closed, which is for the caller to do. */
static PyObject *channel_forget(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    channel *c = (channel *)self;
    if (c->fd >= 0) {
        channels[c->fd] = NULL;
        c->fd = -1;
        Py_DECREF(self);
    }
    Py_RETURN_NONE;
}

static PyObject *channel_recv(PyObject *self, PyObject *most)
{
    channel *c = (channel *)self;
    Py_ssize_t size = PyLong_AsSsize_t(most);
    if (size < 0)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "negative size");
    ssize_t got = recv(c->fd, buffer, size < BUFFER ? (size_t)size : BUFFER, 0);
    if (got > 0)
        return PyBytes_FromStringAndSize(buffer, got);
    if ((got == 0 || errno != EAGAIN) && call(c, handle_close) < 0)
        return NULL;
    return PyBytes_FromStringAndSize(NULL, 0);
}

static PyObject *channel_send(PyObject *self, PyObject *data)
{
    channel *c = (channel *)self;
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    ssize_t sent = send(c->fd, view.buf, (size_t)view.len, MSG_NOSIGNAL);
    PyBuffer_Release(&view);
    if (sent >= 0)
        return PyLong_FromSsize_t(sent);
    if (errno != EAGAIN && call(c, handle_close) < 0)
        return NULL;
    return PyLong_FromLong(0);
}

static PyMethodDef channel_methods[] = {
    {"open", channel_open, METH_O, "Have run() serve a descriptor, which does not block."},
    {"forget", channel_forget, METH_NOARGS, "Have it serve that no longer."},
    {"recv", channel_recv, METH_O, "Receive at most so many bytes."},
    {"send", channel_send, METH_O, "Send what the kernel takes; how much that was."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject channel_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "floor.channel",
    .tp_basicsize = sizeof(channel),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_methods = channel_methods,
    .tp_new = PyType_GenericNew,
};

/* ---- the loop ---------------------------------------------------------- */

/* Whether a channel wants to write; -1 where asking raised. */
static int ask(channel *c)
{
    PyObject *answer = c->fd < 0 ? Py_NewRef(Py_False)
                                 : PyObject_CallMethodNoArgs((PyObject *)c, writable);
    int wants = answer ? PyObject_IsTrue(answer) : -1;
    Py_XDECREF(answer);
    return wants;
}

/* One event: what has come is read, and what that made the channel want to write is written. */
static int serve(channel *c, uint32_t events)
{
    int wants = 1;
    if (!(events & EPOLLOUT)) {
        if (call(c, handle_read) < 0 || (wants = ask(c)) < 0)
            return -1;
    }
    if (wants && (call(c, handle_write) < 0 || (wants = ask(c)) < 0))
        return -1;
    return c->fd < 0 ? 0 : watch(c, wants ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static PyObject *run(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(nothing))
{
    static struct epoll_event events[EVENTS];
    for (;;) {
        int count;
        Py_BEGIN_ALLOW_THREADS
        count = epoll_wait(kernel_set, events, EVENTS, -1);
        Py_END_ALLOW_THREADS
        if (count < 0 && errno != EINTR)
            return PyErr_SetFromErrno(PyExc_OSError);
        for (int i = 0; i < count; i++) {
            channel *c = channels[events[i].data.fd];
            if (!c)
                continue; /* closed by one before it */
            Py_INCREF(c);
            int status = serve(c, events[i].events);
            Py_DECREF(c);
            if (status < 0)
                return NULL;
        }
        if (PyErr_CheckSignals() < 0)
            return NULL;
    }
}

static PyMethodDef functions[] = {
    {"run", run, METH_NOARGS, "Serve for ever."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "floor",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit_floor(void)
{
    kernel_set = epoll_create1(EPOLL_CLOEXEC);
    if (kernel_set < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    handle_read = PyUnicode_InternFromString("handle_read");
    handle_write = PyUnicode_InternFromString("handle_write");
    handle_close = PyUnicode_InternFromString("handle_close");
    writable = PyUnicode_InternFromString("writable");
    if (!handle_read || !handle_write || !handle_close || !writable)
        return NULL;
    PyObject *module = PyModule_Create(&definition);
    if (!module || PyModule_AddType(module, &channel_type) < 0)
        return NULL;
#ifdef Py_GIL_DISABLED
    PyUnstable_Module_SetGIL(module, Py_MOD_GIL_NOT_USED); /* one thread has the channels */
#endif
    return module;
}
