"""Reading and writing plain sockets without going through the socket object.

A standard socket whose methods nobody replaced is read and written by its descriptor, with the
GIL held, since these calls do not block; every other object is asked as Python would.  Knows
sockets only: no channels, no loop.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetFromErrno
from cpython.object cimport PyObject
from libc.errno cimport errno

import os
import socket
from errno import (
    EBADF,
    ECONNABORTED,
    ECONNRESET,
    ENOTCONN,
    ENOTSOCK,
    EPIPE,
    ESHUTDOWN,
    EWOULDBLOCK,
)

from .._secure import is_wait


cdef extern from "poller.h" nogil:
    ctypedef int poller_fd


cdef extern from "platform.h" nogil:
    Py_ssize_t platform_recv(poller_fd, char *, size_t) noexcept
    Py_ssize_t platform_send(poller_fd, const char *, size_t) noexcept
    bint platform_is_blocking(poller_fd) noexcept
    int PLATFORM_NEVER_BLOCKS


cdef extern from *:
    """
    static inline unsigned int socket_type_version(PyObject *type)
    {
        return ((PyTypeObject *)type)->tp_version_tag;
    }
    static inline int socket_is_exactly(PyObject *obj, PyObject *type)
    {
        return (PyObject *)Py_TYPE(obj) == type;
    }
    /* How much is read at a time by way of the one buffer for all; where there is no GIL, for all
     * of a thread.  Copying out of it is cheap: to read into an object and cut that to size costs
     * four times as much, in memory got and given back. */
    #define SOCKETS_RECEIVED 262144
    #ifndef Py_GIL_DISABLED
    #define SOCKETS_EACH_THREAD
    #elif defined(_MSC_VER)
    #define SOCKETS_EACH_THREAD __declspec(thread)
    #else
    #define SOCKETS_EACH_THREAD _Thread_local
    #endif
    static SOCKETS_EACH_THREAD char sockets_received[SOCKETS_RECEIVED];

    /* CPython keeps a socket's descriptor first, in all its versions; checked at import. */
    static inline poller_fd socket_descriptor(PyObject *sock)
    {
        return *(poller_fd *)((char *)sock + sizeof(PyObject));
    }
    """
    enum:
        SOCKETS_RECEIVED
    char sockets_received[]
    bint socket_is_exactly(PyObject *, PyObject *)
    poller_fd socket_descriptor(PyObject *)
    unsigned int socket_type_version(PyObject *)


DISCONNECTED = frozenset({ECONNRESET, ENOTCONN, ESHUTDOWN, ECONNABORTED, EPIPE, EBADF})
if os.name == "nt":
    DISCONNECTED |= {ENOTSOCK}
GONE = object()  # what transmit() returns where the peer is gone

cdef type _socket_class = socket.socket
cdef int _wouldblock = EWOULDBLOCK
cdef frozenset _disconnected = DISCONNECTED
# The versions of the class that were seen last: one with the standard methods, and one with others.
cdef unsigned int _plain_version = 0
cdef unsigned int _other_version = 0


cdef bint _is_plain(object sock) except -1:
    """Whether `sock` is a standard socket whose methods nobody has replaced."""
    if not socket_is_exactly(<PyObject *> sock, <PyObject *> _socket_class):
        return False
    cdef unsigned int version = socket_type_version(<PyObject *> _socket_class)
    if version == 0 or (version != _plain_version and version != _other_version):
        return _look_at_sockets()
    return version == _plain_version


cdef bint _look_at_sockets() except -1:
    global _plain_version, _other_version
    # Before the look: who changes the class meanwhile gives it another version.
    cdef unsigned int version = socket_type_version(<PyObject *> _socket_class)
    base = _socket_class.__mro__[1]
    cdef bint plain = (
        PLATFORM_NEVER_BLOCKS
        and _socket_fd_is_known
        and base.__module__ == "_socket"
        and _socket_class.recv is base.recv
        and _socket_class.send is base.send
        and _socket_class.fileno is base.fileno
    )
    if plain:
        _plain_version = version
    else:
        _other_version = version
    return plain


def _find_socket_fd():
    """Whether a socket object holds its descriptor where socket_descriptor() looks."""
    sock = socket.socket()
    try:
        open_ = socket_descriptor(<PyObject *> sock) == sock.fileno()
    finally:
        sock.close()
    return open_ and socket_descriptor(<PyObject *> sock) == -1


cdef bint _socket_fd_is_known = _find_socket_fd()


@cython.binding(False)
@cython.embedsignature(True)  # for stubtest, since there is no binding
@cython.embedsignature.format("clinic")
def receive(sock, buffer_size):
    """Return at most `buffer_size` bytes from `sock`, or `b""` where the peer is gone.

    None: the socket is not a plain one, and nothing was done.  Raises BlockingIOError where nothing
    is there, and OSError for what is not a disconnect.
    """
    cdef Py_ssize_t got
    if not _is_plain(sock):
        return None
    if type(buffer_size) is int and 0 < <Py_ssize_t> buffer_size <= SOCKETS_RECEIVED:
        got = platform_recv(socket_descriptor(<PyObject *> sock), sockets_received, buffer_size)
        if got >= 0:
            return PyBytes_FromStringAndSize(sockets_received, got)
        if errno != _wouldblock:
            if errno in _disconnected:
                return b""
            PyErr_SetFromErrno(OSError)
    return _receive_by_object(sock, buffer_size)


@cython.binding(False)
@cython.embedsignature(True)  # for stubtest, since there is no binding
@cython.embedsignature.format("clinic")
def receive_by_object(sock, buffer_size):
    """Do so by the object's own method."""
    return _receive_by_object(sock, buffer_size)


cdef object _receive_by_object(sock, buffer_size):
    try:
        return sock.recv(buffer_size)
    except OSError as error:
        if error.errno not in _disconnected:
            raise
    return b""


@cython.binding(False)
@cython.embedsignature(True)  # for stubtest, since there is no binding
@cython.embedsignature.format("clinic")
def transmit(sock, data):
    """Send what the kernel takes of `data`; return how many bytes, or GONE.

    Raises OSError for what is neither a disconnect nor a lack of room.
    """
    sent = _transmit_plainly(sock, data)
    if sent is not None:
        return sent
    try:
        return sock.send(data)
    except Exception as error:
        if not isinstance(error, OSError):
            if is_wait(error):
                return 0
            raise
        if error.errno == _wouldblock or is_wait(error):
            return 0
        if error.errno not in _disconnected:
            raise
    return GONE


@cython.binding(False)
@cython.embedsignature(True)  # for stubtest, since there is no binding
@cython.embedsignature.format("clinic")
def transmit_plainly(sock, data):
    """Do so where `data` is bytes, the socket a plain one, and there is room; None else.

    Nobody else's code runs in it, and where it returns None nothing was sent.
    """
    return _transmit_plainly(sock, data)


cdef object _transmit_plainly(sock, data):
    cdef Py_ssize_t sent
    cdef poller_fd fd
    if type(data) is not bytes or not _is_plain(sock):
        return None
    fd = socket_descriptor(<PyObject *> sock)
    sent = platform_send(fd, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    if sent == PyBytes_GET_SIZE(data):
        return sent
    if sent >= 0:
        return _transmit_rest(sock, data, sent) if platform_is_blocking(fd) else sent
    if errno == _wouldblock:
        return None
    if errno in _disconnected:
        return GONE
    PyErr_SetFromErrno(OSError)


cdef object _transmit_rest(sock, data, sent):
    """Have a socket that blocks take the rest, as one send() would; return how many of all."""
    try:
        return sent + sock.send(data[sent:])
    except OSError:
        return sent  # the next call meets it
