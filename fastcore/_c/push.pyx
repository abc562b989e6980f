# cython: freethreading_compatible=True
"""async_chat.push() where that comes to very little: keeping the data, or one send().

Does what the method does, where nobody can tell; it exists in C only, as a matter of speed.  Knows
the attributes of a chat: no loop.
"""

cimport cython
from cpython.bytes cimport PyBytes_GET_SIZE

from collections import deque

from .sockets import GONE, transmit


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
    """
    unsigned int push_type_version(object)
    bint push_is_method(object, object, object)


# The class, in its last known version, whose pushes come to a send() of the socket, and its methods:
# in one tuple, in a list, since several threads may replace it.
cdef list _plain = [(None, 0, None, None)]


cdef bint _sends_plainly(chat) except -1:
    """Whether a push comes to nothing but a send() of the socket, in the class and the instance."""
    cdef type kind = type(chat)
    cdef unsigned int version = push_type_version(kind)
    known, known_version, send, initiate_send = <tuple> _plain[0]
    if kind is not known or version != <unsigned int> known_version or version == 0:
        if not chat._fastcore_sends_plainly():
            return False
        send, initiate_send = kind.send, kind.initiate_send
        _plain[0] = kind, version, send, initiate_send
    return push_is_method(chat.send, chat, send) and push_is_method(
        chat.initiate_send, chat, initiate_send
    )


@cython.binding(False)
@cython.embedsignature(True)  # for stubtest, since there is no binding
@cython.embedsignature.format("clinic")
def push_short(chat, data):
    """Push `data` where that comes to one send(); say whether it did."""
    if type(data) is not bytes:
        return False
    fifo = chat.producer_fifo
    if (
        fifo
        or type(fifo) is not deque
        or not 0 < PyBytes_GET_SIZE(data) <= chat.ac_out_buffer_size
        or not chat.connected
        or not _sends_plainly(chat)
    ):
        return False
    try:
        sent = transmit(chat.socket, data)
    except OSError:
        fifo.append(data)
        chat.handle_error()
        return True
    if sent is GONE:
        fifo.append(data)
        chat.handle_close()
    elif sent < PyBytes_GET_SIZE(data):
        fifo.append(data[sent:])
        chat._fastcore_touch()
    return True
