"""Numbers that kernels, engines and channels share: said once, here.

Knows the platform's numbers only.
"""

from __future__ import annotations

import errno
import sys

# What a descriptor is watched for (READ and WRITE), and what has happened to it.  The values are
# those of poll() and epoll on Linux, and those of src/poller.h.
READ = 1
URGENT = 2  # out-of-band data
WRITE = 4
ERROR = 8  # an error is pending on the descriptor
HANGUP = 16  # the peer is gone in both directions
INVALID = 32  # the descriptor is closed
MUTED = 64  # with what it is watched for: but not for urgent data

# What select() on Linux calls readable and writable (see docs/compatibility.md).
READABLE = READ | HANGUP | ERROR
WRITABLE = WRITE | ERROR

# What poll() reports for as long as nobody closes the descriptor.
ENDED = ERROR | HANGUP

# The peer is gone: not an error, but the end of the connection.
DISCONNECTED = frozenset(
    {
        errno.ECONNRESET,
        errno.ENOTCONN,
        errno.ESHUTDOWN,
        errno.ECONNABORTED,
        errno.EPIPE,
        errno.EBADF,
    }
)

NOBODY = 0  # the identity of no object

# accept() had nothing left to hold a connection in; it will again, later.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

# What a kernel says where a wait, or to watch one more, may well succeed a moment later.
SHORT_FOR_NOW = EXHAUSTED | {errno.ENOSPC, errno.EAGAIN}

if sys.platform == "win32":
    DISCONNECTED |= {errno.ENOTSOCK}  # what winsock says of a closed descriptor
    EXHAUSTED |= {errno.WSAEMFILE}  # which is not EMFILE
