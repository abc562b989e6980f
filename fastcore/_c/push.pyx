# cython: freethreading_compatible=True
"""async_chat.push() where that comes to very little: keeping the data, or one send().

Does what the method does, where nobody can tell; it exists in C only, as a matter of speed.  Knows
the attributes of a chat: no loop.
"""

cimport cython
from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Next
from cpython.object cimport PyObject

from collections import deque

from .sockets import GONE, transmit_plainly


cdef extern from *:
    """
    static inline unsigned int push_type_version(PyObject *type)
    {
        return ((PyTypeObject *)type)->tp_version_tag;
    }
    /* Whether `attribute`, got of `object`, is its class's `function`. */
    static inline int push_is_method(PyObject *attribute, PyObject *object, PyObject *function)
    {
        return PyMethod_Check(attribute) && PyMethod_GET_SELF(attribute) == object &&
               PyMethod_GET_FUNCTION(attribute) == function;
    }
    #ifdef Py_GIL_DISABLED
    #define PUSH_HAS_NO_GIL 1
    #else
    #define PUSH_HAS_NO_GIL 0
    #endif
    """
    bint PUSH_HAS_NO_GIL
    unsigned int push_type_version(object)
    bint push_is_method(object, object, object)


# What is held back, by the identity of its channel: it goes before what is sent at once.
cdef dict held_back = {}
globals()["held_back"] = held_back

cdef object _append = deque.append

# The class that was met last, its version, and its methods where its pushes come to a send() of the
# socket, else None: in one tuple, in a list, since several threads may replace it.
cdef list _known = [(None, 0, None, None)]


cdef object _find_held(size_t identity):
    """Return what stands in `held_back` for that channel: mostly there is one in it, or none."""
    cdef Py_ssize_t position = 0
    cdef PyObject *key
    cdef PyObject *held
    if PUSH_HAS_NO_GIL or len(held_back) != 1:
        return held_back.get(identity)
    PyDict_Next(held_back, &position, &key, &held)
    return <object> held if <size_t> <object> key == identity else None


cdef bint _sends_plainly(chat, test) except -1:
    """Whether a push comes to nothing but a send() of the socket, in the class and the instance."""
    cdef type kind = type(chat)
    cdef unsigned int version = push_type_version(kind)
    known, known_version, send, initiate_send = <tuple> _known[0]
    if kind is not known or version != <unsigned int> known_version or version == 0:
        send = initiate_send = None
        if test(kind):
            send, initiate_send = kind.send, kind.initiate_send
        _known[0] = kind, version, send, initiate_send
    return (
        send is not None
        and push_is_method(chat.send, chat, send)
        and push_is_method(chat.initiate_send, chat, initiate_send)
    )


@cython.binding(False)
@cython.embedsignature(True)  # for stubtest, since there is no binding
@cython.embedsignature.format("clinic")
def push_short(chat, data, test, corked):
    """Push `data` where that comes to keeping it, or to one send(): it takes some, or fails.

    `test(kind)` tells whether the pushes of a class come to that; `corked` stands in `held_back`
    for chats whose output waits.  Returns whether something is left to send, and None where
    nothing was done.
    """
    if type(data) is not bytes:
        return None
    fifo = chat.producer_fifo
    if held_back and _find_held(<size_t> <void *> chat) is corked:
        if 0 < PyBytes_GET_SIZE(data) <= chat.ac_out_buffer_size:
            if type(fifo) is deque:
                _append(fifo, data)
            else:
                fifo.append(data)
            return False
        return None
    if (
        fifo
        or type(fifo) is not deque
        or not 0 < PyBytes_GET_SIZE(data) <= chat.ac_out_buffer_size
        or not _sends_plainly(chat, test)
        or not chat.connected
    ):
        return None
    try:
        sock = chat.socket
    except Exception:
        return None  # with the data where it belongs, it is raised once more
    try:
        sent = transmit_plainly(sock, data)
    except OSError:
        fifo.append(data)
        chat.handle_error()
        return False
    except BaseException:  # what a signal handler raised, while a blocking socket was sending
        fifo.append(data)
        raise
    if sent is None:
        return None
    if sent is GONE:
        fifo.append(data)
        chat.handle_close()
    elif sent < PyBytes_GET_SIZE(data):
        fifo.append(data[sent:])
        return True
    return False
