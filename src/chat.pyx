"""The input of a chat, and the short way out for its pushes, in C.

`Received` is the mirror of the one in `fastcore/_chat_py.py`, name by name and in the same order:
that file is the specification.  push_short() does what async_chat.push() does, where nobody can
tell; it exists here only.  Knows bytes and the attributes of a chat: no loop.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.string cimport memchr, memcmp

from collections import deque

from fastcore._sockets_c import GONE, transmit


cdef extern from *:
    """
    static inline unsigned int chat_type_version(PyObject *type)
    {
        return ((PyTypeObject *)type)->tp_version_tag;
    }
    /* Whether `attribute`, got of `object`, is its class's `function`. */
    static inline int chat_is_method(PyObject *attribute, PyObject *object, PyObject *function)
    {
        return PyMethod_Check(attribute) && PyMethod_GET_SELF(attribute) == object &&
               PyMethod_GET_FUNCTION(attribute) == function;
    }
    """
    unsigned int chat_type_version(object)
    bint chat_is_method(object, object, object)


cdef Py_ssize_t _find(bytes data, bytes wanted, Py_ssize_t start) noexcept:
    """As `data.find(wanted, start)`, for a `wanted` that is not empty."""
    cdef const char *begin = PyBytes_AS_STRING(data)
    cdef const char *end = begin + PyBytes_GET_SIZE(data)
    cdef const char *text = PyBytes_AS_STRING(wanted)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(wanted)
    cdef const char *found = begin + start
    while end - found >= size:
        found = <const char *> memchr(found, text[0], end - found - size + 1)
        if found == NULL:
            return -1
        if memcmp(found, text, size) == 0:
            return found - begin
        found += 1
    return -1


cdef class Received:
    """The bytes that were received and not yet passed on, and how they are taken off.

    Lines are taken off by moving an offset, or a burst of them would be copied once for each.
    A piece is first given out and then passed over, so that whoever looks at rest() meanwhile
    sees what the standard library shows.
    """

    cdef object _data
    cdef Py_ssize_t _at
    cdef object _piece_of
    cdef Py_ssize_t _begin
    cdef Py_ssize_t _end
    cdef object _terminator
    cdef object _joins
    cdef bint _holds
    cdef bint _held

    def __init__(self, data):
        self._data = data
        self._at = 0
        self._piece_of = None
        self._begin = self._end = 0
        self._terminator = b""
        self._joins = None
        self._holds = self._held = False

    @cython.critical_section
    def __bool__(self):
        return self._at < len(self._data)

    @cython.critical_section
    def rest(self):
        """Return all that is there."""
        return self._data[self._at :] if self._at else self._data

    @cython.critical_section
    def assign(self, data):
        """Forget what is there, and have `data` instead."""
        self._data = data
        self._at = 0

    @cython.critical_section
    def feed(self, data):
        """Add what was received."""
        self._data = self.rest() + data if self._at < len(self._data) else data
        self._at = 0
        self._joins = None

    @cython.critical_section
    def size(self):
        """Return how many bytes are there."""
        return len(self._data) - self._at

    @cython.critical_section
    def take(self, size):
        """Give out the next `size` bytes, or what there is of them."""
        self._piece_of = self._data
        self._begin, self._end = self._at, min(self._at + size, len(self._data))
        return self._piece()

    @cython.critical_section
    def only_line(self, terminator):
        """Give out the line that is all there is, or None where there is more or less."""
        cdef Py_ssize_t end
        if self._at or type(self._data) is not bytes or type(terminator) is not bytes:
            return None
        end = len(self._data) - len(terminator)
        if not terminator or end < 0 or _find(self._data, terminator, 0) != end:
            return None
        self._piece_of, self._begin, self._end = self._data, 0, len(self._data)
        return self._data[:end]

    @cython.critical_section
    def lines(self, terminator):
        """Give out line after line, while others change neither this nor what is left."""
        self._piece_of = self._data
        self._end = self._at
        self._terminator = terminator
        return self

    def __iter__(self):
        return self

    @cython.critical_section
    def __next__(self):
        cdef Py_ssize_t found
        if self._data is not self._piece_of or self._at != self._end:
            raise StopIteration
        if type(self._data) is bytes and type(self._terminator) is bytes:
            found = _find(<bytes> self._data, <bytes> self._terminator, self._at)
        else:
            found = self._data.find(self._terminator, self._at)
        if found < 0:
            raise StopIteration
        self._begin, self._end = self._at, found
        line = self._piece()
        self._end += len(self._terminator)
        return line

    @cython.critical_section
    def pass_over(self):
        """Take off the piece that was given out; return whether anything is left."""
        if self._data is self._piece_of:
            self._at = self._end
        else:  # changed meanwhile: as much is taken off what is there now
            self._at = min(self._at + self._end - self._begin, len(self._data))
        cdef bint left = self._at < len(self._data)
        self._holds = left and self._joins is True
        self._held = self._held or self._holds
        return left

    @cython.critical_section
    def undecided(self):
        """Whether nobody has said since the last feed() if answers may wait for further lines."""
        return self._joins is None

    @cython.critical_section
    def hold(self, joins):
        """Say whether answers may wait for those to further lines."""
        self._joins = self._holds = joins
        self._held = self._held or self._holds

    @cython.critical_section
    def holds(self):
        """Whether answers wait just now."""
        return self._holds

    @cython.critical_section
    def held(self):
        """Whether answers had to wait, and nobody has said since that they were sent."""
        return self._held

    @cython.critical_section
    def release(self):
        """Say that no answer waits any longer."""
        self._holds = self._held = False

    cdef object _piece(self):
        if type(self._data) is bytes:
            return PyBytes_FromStringAndSize(
                PyBytes_AS_STRING(self._data) + self._begin, self._end - self._begin
            )
        return self._data[self._begin : self._end]


# The class, in its last known version, whose pushes come to a send() of the socket, and its methods:
# in one tuple, in a list, since several threads may replace it.
cdef list _plain = [(None, 0, None, None)]
cdef object _append = deque.append


cdef bint _sends_plainly(chat) except -1:
    """Whether a push comes to nothing but a send() of the socket, in the class and the instance."""
    cdef type kind = type(chat)
    cdef unsigned int version = chat_type_version(kind)
    known, known_version, send, initiate_send = <tuple> _plain[0]
    if kind is not known or version != <unsigned int> known_version or version == 0:
        if not chat._fastcore_sends_plainly():
            return False
        send, initiate_send = kind.send, kind.initiate_send
        _plain[0] = kind, version, send, initiate_send
    return chat_is_method(chat.send, chat, send) and chat_is_method(
        chat.initiate_send, chat, initiate_send
    )


@cython.binding(False)
@cython.embedsignature(True)  # for stubtest, since there is no binding
@cython.embedsignature.format("clinic")
def push_short(chat, data):
    """Push `data` where that comes to keeping it for now, or to one send(); say whether it did."""
    if type(data) is not bytes:
        return False
    received = getattr(chat, "_fastcore_received", None)
    fifo = chat.producer_fifo
    if type(received) is not Received or type(fifo) is not deque:
        return False
    if (<Received> received)._holds:
        _append(fifo, data)
        return True
    if (
        fifo
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
