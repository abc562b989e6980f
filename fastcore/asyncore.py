"""The drop-in for the standard library's asyncore, as it stood in Python 3.11.

Every name of that module is here, with its signature and its behaviour, except for what
docs/compatibility.md lists as mended.  Knows dispatchers; must not know kernels or engines.
"""

from __future__ import annotations

import _socket
import contextlib
import os
import select
import socket
import sys
import time
import warnings
from collections.abc import Callable
from errno import (
    EAGAIN,
    EALREADY,
    EBADF,
    ECONNABORTED,
    ECONNRESET,
    EINPROGRESS,
    EINVAL,
    EISCONN,
    ENOTCONN,
    EPIPE,
    ESHUTDOWN,
    EWOULDBLOCK,
    errorcode,
)
from math import inf as _inf
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import loop as _loop
from ._codes import DISCONNECTED as _DISCONNECTED, EXHAUSTED as _EXHAUSTED
from ._engine import held_back as _held_back, recv as _recv, send as _send
from ._originals import is_original
from ._secure import is_wait as _is_wait
from .loop import ExitNow

if TYPE_CHECKING:
    # What is overridden is typed as typeshed had it, so that a program which was checked with the
    # standard library's asyncore is checked with this one; `| Any` and Any where it was too narrow.
    from collections.abc import MutableMapping
    from socket import socket as _Socket
    from typing import TypeAlias

    from _typeshed import FileDescriptorLike, ReadableBuffer

    from ._engine import Mode as _Mode

    _Map: TypeAlias = MutableMapping[int, Any]

# What `from asyncore import *` brings: what it ever brought, imported modules included.
__all__ = [
    "EAGAIN",
    "EALREADY",
    "EBADF",
    "ECONNABORTED",
    "ECONNRESET",
    "EINPROGRESS",
    "EINVAL",
    "EISCONN",
    "ENOTCONN",
    "EPIPE",
    "ESHUTDOWN",
    "EWOULDBLOCK",
    "ExitNow",
    "close_all",
    "compact_traceback",
    "dispatcher",
    "dispatcher_with_send",
    "errorcode",
    "loop",
    "os",
    "poll",
    "poll2",
    "poll3",
    "read",
    "readwrite",
    "select",
    "socket",
    "socket_map",
    "sys",
    "time",
    "warnings",
    "write",
]
if sys.platform != "win32":
    __all__ += ["file_dispatcher", "file_wrapper"]

# accept() has none after all: another took it, or it was reset in the meantime, for which Windows
# has a word of its own, and wine another.
_NONE_TO_ACCEPT = {EWOULDBLOCK, ECONNABORTED, EAGAIN}
if os.name == "nt":
    _NONE_TO_ACCEPT |= {ECONNRESET, ENOTCONN}

# How long a listener rests where there was nothing left to hold a connection in.
_REST_FIRST, _REST_LONGEST = 0.01, 1.0  # seconds

# Kept by importlib.reload(), so that the channels are not forgotten.
socket_map: dict[int, Any] = globals().get("socket_map", {})

_reraised_exceptions = (ExitNow, KeyboardInterrupt, SystemExit)


# What os.strerror() does not know on Windows.
_winsock_texts: dict[int, str] = getattr(socket, "errorTab", {})


def _strerror(err: int) -> str:
    if err in _winsock_texts:
        return _winsock_texts[err]
    try:
        return os.strerror(err)
    except (ValueError, OverflowError, NameError):
        return errorcode.get(err, f"Unknown error {err}")


# -- one object, one event ---------------------------------------------------------------


def read(obj: Any) -> None:
    """Tell `obj` that it can be read; its exceptions go to its handle_error()."""
    try:
        obj.handle_read_event()
    except _reraised_exceptions:
        raise
    except:
        obj.handle_error()


def write(obj: Any) -> None:
    """Tell `obj` that it can be written; its exceptions go to its handle_error()."""
    try:
        obj.handle_write_event()
    except _reraised_exceptions:
        raise
    except:
        obj.handle_error()


def _exception(obj: Any) -> None:
    try:
        obj.handle_expt_event()
    except _reraised_exceptions:
        raise
    except:
        obj.handle_error()


def readwrite(obj: Any, flags: int) -> None:
    """Tell `obj` what the poll() flags say; a disconnect goes to its handle_close()."""
    try:
        if flags & select.POLLIN:
            obj.handle_read_event()
        if flags & select.POLLOUT:
            obj.handle_write_event()
        if flags & select.POLLPRI:
            obj.handle_expt_event()
        if flags & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
            obj.handle_close()
    except OSError as error:
        if error.errno in _DISCONNECTED:
            obj.handle_close()
        else:
            obj.handle_error()
    except _reraised_exceptions:
        raise
    except:
        obj.handle_error()


# -- the standard library's own turns, for those who call them directly -------------------


def poll(timeout: float | None = 0.0, map: _Map | None = None) -> None:
    """Take one turn over `map` with select(), exactly as the standard library did.

    `timeout` is in seconds.  loop() does not use it, unless a program has replaced it.
    """
    if map is None:
        map = socket_map
    if _loop._watching and (watcher := _watcher_of(map)) is not None:
        watcher.apart(_poll, timeout, watcher.view(map))
        return
    if not map:
        return
    readers: list[int] = []
    writers: list[int] = []
    both: list[int] = []
    for fd, obj in list(map.items()):
        wants_read = obj.readable()
        wants_write = obj.writable()
        if wants_read:
            readers.append(fd)
        if wants_write and not obj.accepting:
            writers.append(fd)
        if wants_read or wants_write:
            both.append(fd)
    if not both:
        time.sleep(timeout)  # type: ignore[arg-type]
        return
    ready = select.select(readers, writers, both, timeout)
    for fds, tell in zip(ready, (read, write, _exception), strict=True):
        for fd in fds:
            obj = map.get(fd)
            if obj is not None:
                tell(obj)


def poll2(timeout: float | None = 0.0, map: _Map | None = None) -> None:
    """Take one turn over `map` with poll(), exactly as the standard library did.

    `timeout` is in seconds.  loop() does not use it, unless a program has replaced it.
    """
    if map is None:
        map = socket_map
    if _loop._watching and (watcher := _watcher_of(map)) is not None:
        watcher.apart(_poll2, timeout, watcher.view(map))
        return
    milliseconds = None if timeout is None else int(timeout * 1000)
    pollster = select.poll()
    if not map:
        return
    for fd, obj in list(map.items()):
        flags = 0
        if obj.readable():
            flags |= select.POLLIN | select.POLLPRI
        if obj.writable() and not obj.accepting:
            flags |= select.POLLOUT
        if flags:
            pollster.register(fd, flags)
    for fd, flags in pollster.poll(milliseconds):
        obj = map.get(fd)
        if obj is not None:
            readwrite(obj, flags)


def _watcher_of(map: Any) -> Any:
    """Return what watches a map, None where a program has its own way to tell channels."""
    return _loop.watcher_of(map) if _parts()[2:] == _OUR_PARTS[2:] else None


poll3 = poll2  # an old name
_poll, _poll2 = poll, poll2  # as they are here: a program may replace them


def _parts() -> tuple[Any, ...]:
    return poll, poll2, read, write, readwrite, _exception


_OUR_PARTS = _parts()


def _is_replaced() -> bool:
    """Whether a program has replaced a part of the loop, which must be the standard library's then.

    Of `select` and its functions it may have done so before this module was imported.
    """
    return (
        _parts() != _OUR_PARTS
        or not is_original(getattr(select, "select", None), "select")
        or (hasattr(select, "poll") and not is_original(select.poll, "select"))
    )


def loop(
    timeout: float | None = 30.0,
    use_poll: bool = False,
    map: _Map | None = None,
    count: float | None = None,
) -> None:
    """Serve the channels of `map` until it is empty, or for `count` turns.

    A turn waits at most `timeout` seconds (None: without limit).  `map` defaults to socket_map.
    `use_poll` no longer chooses the kernel's mechanism (see fastcore.pollers); with it a handler's
    disconnect error goes to handle_close(), without it to handle_error(), as ever.  Raises what
    a channel's handle_error() raises, and ExitNow, KeyboardInterrupt and SystemExit.
    """
    if map is None:
        map = socket_map
    if not map and map is socket_map:
        _look_for_another()
    by_poll = bool(use_poll) and hasattr(select, "poll")
    mode = _loop.ASYNCORE_BY_POLL if by_poll else _loop.ASYNCORE
    if _is_replaced():
        _loop_over(poll2 if by_poll else poll, timeout, map, count, mode)
        return
    if not map or (count is not None and not count > 0):
        return
    if timeout is not None and not timeout >= 0:
        if not by_poll or timeout != timeout:
            raise ValueError("timeout must be non-negative")
        timeout = None
    seconds = _inf if timeout is None else timeout
    _loop.get_loop(map)._drive(mode, seconds, _inf if count is None else count)


_told_of_another = False


def _look_for_another() -> None:
    """Warn, once, where the channels that are to be served stand in another module's map."""
    global _told_of_another
    other = sys.modules.get("asyncore")
    # Nothing is looked up on a module that may answer for itself.
    if _told_of_another or type(other) is not ModuleType or other.__name__ == __name__:
        return
    channels = vars(other).get("socket_map")
    if channels and channels is not socket_map:
        _told_of_another = True
        warnings.warn(
            f"{__name__}.loop() has nothing to serve, and another asyncore has channels, that in "
            f"{vars(other).get('__file__')}: fastcore.install(), before anything imports asyncore, "
            "joins them",
            RuntimeWarning,
            stacklevel=3,
        )


def _loop_over(
    turn: Callable[[float | None, Any], None],
    timeout: float | None,
    map: Any,
    count: float | None,
    mode: _Mode,
) -> None:
    """Drive turns that are not ours: a patched poll(), or a patched select module.

    The timers and callbacks of the loop have their time, too.
    """
    while map and (count is None or count > 0):
        known = _loop._loops.get(id(map))
        if known is None or not known._engine.has_pending():
            turn(timeout, map)
        else:
            turn(_until_due(known, timeout), map)
            known._drive(mode, 0.0, 1)
        if count is not None:
            count -= 1


def _until_due(known: _loop.Loop, timeout: float | None) -> float | None:
    due = known.next_deadline()
    if due is None:
        return timeout
    seconds = max(0.0, due - known.time())
    return seconds if timeout is None else min(timeout, seconds)


def _is_standard(function: Any) -> bool:
    """Whether it is of the module `socket`: no decorator can give itself its globals."""
    return getattr(function, "__globals__", None) is vars(socket)


# As they are here: a program may replace them, or have replaced them before (None, then).  The
# numbers behind `socket.family` and `socket.type`, which make enumeration members of them.
_SOCKET = socket.socket
_SOCKET_ACCEPT = _SOCKET.accept if _is_standard(_SOCKET.accept) else None
_FAMILY = _socket.socket.family.__get__
_TYPE = _socket.socket.type.__get__

_ACCEPTED_AT_ONCE = 64


def _accept(sock: Any) -> Any:
    """Do what `sock.accept()` does, in half the time for a standard socket."""
    if (
        type(sock) is not _SOCKET
        or _SOCKET.accept is not _SOCKET_ACCEPT
        or socket.socket is not _SOCKET
    ):
        return sock.accept()
    fd, addr = sock._accept()  # type: ignore[attr-defined]
    conn = _SOCKET(_FAMILY(sock), _TYPE(sock), sock.proto, fileno=fd)  # pyright: ignore
    if sock.gettimeout() and socket.getdefaulttimeout() is None:
        conn.setblocking(True)
    return conn, addr


def _close_socket(sock: Any) -> None:
    try:
        sock.close()
    except OSError as error:
        if error.errno not in (ENOTCONN, EBADF):
            raise


# Of a listener, by its identity: how long it rested last, in seconds; and, while it is told of
# those who wait, whether it took one.
_rests: dict[int, float] = {}
_accepted: dict[int, bool] = {}

# Finds an attribute without any code of the program's, but for a property that it has itself.
_look_up = object.__getattribute__


def _home_of(channel: Any) -> _loop.Home | None:
    """Return what a channel in a map holds of that; None where it is in none.

    Asked of whatever calls or borrows a dispatcher's methods.
    """
    try:
        home = _look_up(channel, "_fastcore_home")
    except AttributeError:
        return None
    return home if type(home) is _loop.Home else None


def _touch(channel: Any) -> None:
    """Tell the loop that what this channel wants may have changed."""
    home = _home_of(channel)
    if home is not None and home.loop is not None and channel._fileno is not None:
        home.loop._engine.touch(channel._fileno, channel)


def _rest_from_accepting(channel: Any, error: OSError) -> None:
    """Have a listener left alone for a while, longer each time."""
    home = _home_of(channel)
    if home is None or home.loop is None or channel._fileno is None:
        return
    rested = _rests.get(id(channel), 0.0)
    if not rested:
        channel.log_info(f"cannot accept for now, will try again: {error}", "error")
    _rests[id(channel)] = rest = min(rested * 2 or _REST_FIRST, _REST_LONGEST)
    home.loop._engine.pause(channel._fileno, channel, rest)


def _accept_waiting(channel: Any) -> None:
    """Call handle_accept() for each connection that waits, while it takes them."""
    ours = id(channel)
    for _ in range(_ACCEPTED_AT_ONCE):
        _accepted[ours] = False
        try:
            channel.handle_accept()
        finally:
            took_one = _accepted.pop(ours, False)
        if not took_one:
            return
        home = _home_of(channel)
        if (
            home is None
            or home.loop is None
            or channel._fileno is None
            or not channel.accepting
            or not home.loop._engine.is_readable(channel._fileno)
            or not channel.readable()
        ):
            return


class dispatcher:
    """A channel around a socket: override its handlers, and `readable()` and `writable()`.

    `sock` is a connected socket (it is made non-blocking) or None; `map` is the map to stand in
    (default: socket_map).  Raises the OSError of a socket that is broken.
    """

    debug: bool = False
    connected: bool = False
    accepting: bool = False
    connecting: bool = False
    closing: bool = False
    addr: Any = None
    ignore_log_types: Any = frozenset({"warning"})

    _map: Any
    _fileno: int | None
    family_and_type: tuple[int, int]

    recv = _recv
    send = _send

    def __init__(self, sock: Any = None, map: _Map | None = None) -> None:
        self._map = socket_map if map is None else map
        self._fileno = None
        if not sock:
            self.socket: _Socket | Any = None
            return
        sock.setblocking(False)
        self.set_socket(sock, map)
        self.connected = True
        try:
            self.addr = sock.getpeername()
        except OSError as error:
            if error.errno not in (ENOTCONN, EINVAL):
                self.del_channel(map)
                raise
            self.connected = False

    def __repr__(self) -> str:
        status = [f"{type(self).__module__}.{type(self).__qualname__}"]
        if self.accepting and self.addr:
            status.append("listening")
        elif self.connected:
            status.append("connected")
        if self.addr is not None:
            try:
                status.append("%s:%d" % self.addr)
            except TypeError:
                status.append(repr(self.addr))
        return f"<{' '.join(status)} at {id(self):#x}>"

    def add_channel(self, map: Any = None) -> None:
        """Stand in `map` (default: the channel's own) under the socket's descriptor."""
        if map is None:
            map = self._map
        fd: Any = self._fileno
        map[fd] = self
        if _rests:
            _rests.pop(id(self), None)
        home = _loop.get_home(map)
        if issubclass(type(self), dispatcher):
            try:
                object.__setattr__(self, "_fastcore_home", home)
            except TypeError:
                pass  # it has a base in C that sets attributes in its own way
        if home.loop is not None:
            home.loop._engine.attach(fd, self)

    def del_channel(self, map: Any = None) -> None:
        """Leave `map` (default: the channel's own)."""
        if _rests:
            _rests.pop(id(self), None)
        # Without __init__ there is neither; defaults in the class would slow every look at them.
        fd = getattr(self, "_fileno", None)
        if map is None:
            map = getattr(self, "_map", None)
        if map is not None and fd is not None:
            if fd in map:
                del map[fd]
            known = _loop._loops.get(id(map))
            if known is not None:
                known._detach(fd)
        self._fileno = None

    def create_socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM) -> None:
        """Make a non-blocking socket and stand in the map with it."""
        self.family_and_type = family, type
        sock = socket.socket(family, type)
        sock.setblocking(False)
        self.set_socket(sock)

    def set_socket(self, sock: Any, map: Any = None) -> None:
        """Use `sock` from now on and stand in the map with it."""
        self.socket = sock
        self._fileno = sock.fileno()
        self.add_channel(map)

    def set_reuse_addr(self) -> None:
        """Allow the address of a socket that was closed a moment ago, where the system can."""
        try:
            known = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, known | 1)
        except OSError:
            pass

    # -- what sockets do -------------------------------------------------------------------

    def listen(self, num: int) -> Any:
        """Listen, with a backlog of `num` connections."""
        self.accepting = True
        _touch(self)
        return self.socket.listen(num)

    def bind(self, addr: tuple[Any, ...] | str) -> Any:
        """Bind the socket to `addr`."""
        self.addr = addr
        return self.socket.bind(addr)

    def connect(self, address: tuple[Any, ...] | str) -> None:
        """Begin to connect; handle_connect() tells when it is done.  Raises OSError."""
        self.connected = False
        self.connecting = True
        err = self.socket.connect_ex(address)
        _touch(self)
        if err in (EINPROGRESS, EALREADY, EWOULDBLOCK) or (err == EINVAL and os.name == "nt"):
            self.addr = address
        elif err in (0, EISCONN):
            self.addr = address
            self.handle_connect_event()
        else:
            raise OSError(err, errorcode.get(err, _strerror(err)))

    def accept(self) -> tuple[_Socket, Any] | None:
        """Return the new socket and its address, or None where there is none after all.

        Where the system has no descriptor or memory left, raises the OSError; in a loop the
        channel then rests for a moment instead of being closed (10 ms, doubling up to 1 s).
        """
        try:
            conn, addr = _accept(self.socket)
        except TypeError:
            return None
        except OSError as error:
            if error.errno in _NONE_TO_ACCEPT:
                return None
            if error.errno in _EXHAUSTED:
                _rest_from_accepting(self, error)
            raise
        if _rests:
            _rests.pop(id(self), None)
        if id(self) in _accepted:
            _accepted[id(self)] = True
        return conn, addr

    def close(self) -> None:
        """Leave the map and close the socket; closing again does nothing."""
        if _held_back and id(self) in _held_back:
            _held_back[id(self)].release(self)
        self.connected = False
        # Set only where they differ: an attribute that an instance has beside its class is slow to
        # read, on all instances, and most channels never have these two.
        borrowed = not issubclass(type(self), dispatcher)
        if borrowed or self.accepting:
            self.accepting = False
        if borrowed or self.connecting:
            self.connecting = False
        self.del_channel()
        if getattr(self, "socket", None) is None:
            return
        home = _home_of(self)
        if home is None or home.loop is None:
            _close_socket(self.socket)
        else:
            home.loop._engine.do(_close_socket, self.socket)

    # -- events ----------------------------------------------------------------------------

    def readable(self) -> bool:
        """Say whether the channel wants to read; asked by the loop.  Default: True."""
        return True

    def writable(self) -> bool:
        """Say whether the channel wants to write; asked by the loop.  Default: True."""
        return True

    def handle_read_event(self) -> None:
        """Turn readiness to read into handle_accept(), handle_connect() or handle_read()."""
        if self.accepting:
            _accept_waiting(self)
            return
        try:
            # First: `connected`, which instances have beside their class, is slow to read.
            connecting = self.connecting
        except AttributeError:
            connecting = not self.connected and self.connecting
        if connecting and not self.connected:
            self.handle_connect_event()
        self.handle_read()

    def handle_write_event(self) -> None:
        """Turn readiness to write into handle_connect() and handle_write()."""
        if self.accepting:
            return  # a listening socket is never writable: some kernels say so all the same
        try:
            # First: `connected`, which instances have beside their class, is slow to read.
            connecting = self.connecting
        except AttributeError:
            connecting = not self.connected and self.connecting
        if connecting and not self.connected:
            self.handle_connect_event()
        self.handle_write()

    def handle_connect_event(self) -> None:
        """Find out how the connecting went: handle_connect(), or the OSError is raised."""
        err = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if err != 0:
            raise OSError(err, _strerror(err))
        self.handle_connect()
        self.connected = True
        self.connecting = False

    def handle_expt_event(self) -> None:
        """Tell an error from urgent data: handle_close() or handle_expt()."""
        if self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0:
            self.handle_close()
        else:
            self.handle_expt()

    def handle_error(self) -> None:
        """Log the exception that is being handled, and close.

        Not where it says that a secure socket has to wait for the kernel.
        """
        _where, kind, value, trace = compact_traceback()
        if _is_wait(value):
            return
        try:
            name = repr(self)
        except:
            name = "<__repr__(self) failed for object at %0x>" % id(self)
        self.log_info(
            f"uncaptured python exception, closing channel {name} ({kind!s}:{value!s} {trace})",
            "error",
        )
        self.handle_close()

    def handle_expt(self) -> None:
        """Urgent data has arrived; override it."""
        self.log_info("unhandled incoming priority event", "warning")

    def handle_read(self) -> None:
        """There is something to read; override it."""
        self.log_info("unhandled read event", "warning")

    def handle_write(self) -> None:
        """There is room to write; override it."""
        self.log_info("unhandled write event", "warning")

    def handle_connect(self) -> None:
        """The connection stands; override it."""
        self.log_info("unhandled connect event", "warning")

    def handle_accept(self) -> None:
        """A connection waits: accept it and pass it to handle_accepted()."""
        pair = self.accept()
        if pair is not None:
            self.handle_accepted(*pair)

    def handle_accepted(self, sock: Any, addr: Any) -> None:
        """A connection was accepted; override it."""
        sock.close()
        self.log_info("unhandled accepted event", "warning")

    def handle_close(self) -> None:
        """The connection is gone: close."""
        self.log_info("unhandled close event", "warning")
        self.close()

    # -- logging ---------------------------------------------------------------------------

    def log(self, message: Any) -> None:
        """Log a hit, to stderr."""
        sys.stderr.write(f"log: {message!s}\n")

    def log_info(self, message: Any, type: str = "info") -> None:
        """Print a message, unless its type is in `ignore_log_types`."""
        if type not in self.ignore_log_types:
            print(f"{type!s}: {message!s}")


def _as_bytes(data: Any) -> bytes:
    """Return a copy that no owner of a buffer can change; TypeError where it is none."""
    if type(data) is bytes:
        return data
    with memoryview(data) as view:  # else PyPy would keep the owner's buffer until it collects
        return bytes(view)


_PIECE = 65536  # bytes that one send is given, at most

# More bytes than this are not copied for each send(); see _Backlog.
_MUCH = 1 << 17

# The channels that have a backlog, by identity (some of them may be gone).
_backlogged: set[int] = set()


class _Backlog:
    """What waits in a dispatcher_with_send where that is much: added to and taken off in place.

    It is then the channel's attribute in the place of `out_buffer`, which is made of it when
    somebody reads it.  In a pickle it is bytes; a copy of the channel reads what its owner has.
    """

    __slots__ = ("_data", "_sent", "owner")

    def __init__(self, owner: Any, waiting: bytes) -> None:
        self.owner = id(owner)
        self._data = bytearray(waiting)
        self._sent = 0

    def __len__(self) -> int:
        return len(self._data) - self._sent

    def __bytes__(self) -> bytes:
        return bytes(self._data[self._sent :])

    def __reduce__(self) -> tuple[type[bytes], tuple[bytes]]:
        return bytes, (bytes(self),)

    def add(self, data: Any) -> None:
        """Add what came to be sent."""
        self._data += _as_bytes(data)

    def piece(self) -> bytes:
        """Return what is to be sent next."""
        return bytes(self._data[self._sent : self._sent + _PIECE])

    def take(self, count: int) -> None:
        """Take off what was sent."""
        self._sent += count
        if self._sent > len(self._data) // 2:
            del self._data[: self._sent]
            self._sent = 0


class _OutBuffer:
    """`out_buffer` of a channel that has a backlog in its place."""

    def __get__(self, channel: Any, owner: Any) -> Any:
        if channel is None:
            return self
        waiting = _look_up(channel, "_fastcore_backlog")
        if waiting is not None:
            return bytes(waiting)
        # A class that comes after this one may have it, as ever.
        return super(dispatcher_with_send, channel).out_buffer  # type: ignore[misc]


_OUT_BUFFER: Any = _OutBuffer()


def _backlog_of(channel: Any) -> _Backlog | None:
    """Return the backlog of a channel; None where it has none, and `out_buffer` is an attribute."""
    try:
        backlog = _look_up(channel, "_fastcore_backlog")
    except AttributeError:
        return None
    if type(backlog) is not _Backlog or backlog.owner != id(channel):
        return None
    attributes: dict[str, Any] = _look_up(channel, "__dict__")
    if "out_buffer" in attributes:  # the program has set it
        _end_backlog(channel, attributes["out_buffer"])
        return None
    return backlog


def _begin_backlog(channel: Any, waiting: bytes) -> None:
    """Have much that waits added to in place, if `out_buffer` is what it is by default."""
    kind = type(channel)  # pyright: ignore
    if (
        not issubclass(kind, dispatcher_with_send)
        or kind.out_buffer is not _OUT_BUFFER
        or kind.__getattribute__ is not object.__getattribute__
    ):
        return
    attributes: dict[str, Any] = _look_up(channel, "__dict__")
    if attributes.get("out_buffer") is waiting:
        attributes["_fastcore_backlog"] = _Backlog(channel, waiting)
        del attributes["out_buffer"]
        _backlogged.add(id(channel))


def _end_backlog(channel: Any, waiting: Any) -> None:
    """Make `out_buffer` an attribute again."""
    attributes: dict[str, Any] = _look_up(channel, "__dict__")
    attributes["out_buffer"] = waiting
    attributes.pop("_fastcore_backlog", None)
    _backlogged.discard(id(channel))


class dispatcher_with_send(dispatcher):
    """A dispatcher whose send() never loses anything: what is left waits in `out_buffer`."""

    # An attribute of each instance; this one stands behind it.
    out_buffer: bytes = _OUT_BUFFER
    _fastcore_backlog: Any = None

    def __init__(self, sock: Any = None, map: _Map | None = None) -> None:
        dispatcher.__init__(self, sock, map)
        self.out_buffer = b""

    def initiate_send(self) -> None:
        """Send a part of what waits, as much as the kernel takes."""
        backlog = _backlog_of(self) if _backlogged else None
        if backlog is None:
            sent = dispatcher.send(self, self.out_buffer[:_PIECE])
        else:
            sent = dispatcher.send(self, backlog.piece())
            if _backlog_of(self) is backlog:  # the program has not set it meanwhile
                backlog.take(sent or 0)
                if len(backlog) <= _MUCH // 2:
                    _end_backlog(self, bytes(backlog))
                return
        self.out_buffer = self.out_buffer[sent:]

    def handle_write(self) -> None:
        """Send more of what waits."""
        self.initiate_send()

    def writable(self) -> bool:
        """Want to write while connecting, and while something waits."""
        if not self.connected:
            return True
        backlog = _backlog_of(self) if _backlogged else None
        waiting = self.out_buffer if backlog is None else backlog
        return len(waiting)  # type: ignore[return-value]

    def send(self, data: ReadableBuffer) -> Any:
        """Send `data`; what the kernel does not take now is kept and sent later."""
        if self.debug:
            self.log_info(f"sending {data!r}")
        backlog = _backlog_of(self) if _backlogged else None
        if backlog is None:
            self.out_buffer = waiting = self.out_buffer + data
            if type(waiting) is bytes and len(waiting) > _MUCH:
                _begin_backlog(self, waiting)
        else:
            backlog.add(data)
        self.initiate_send()
        _touch(self)


# -- helpers -----------------------------------------------------------------------------


def compact_traceback() -> tuple[tuple[str, str, str], Any, Any, str]:
    """Return where the active exception was raised, its type, its value and its path.

    Raises AssertionError where no exception is being handled.
    """
    kind, value, trace = sys.exc_info()
    if not trace:
        raise AssertionError("traceback does not exist")
    steps: list[tuple[str, str, str]] = []
    while trace:
        code = trace.tb_frame.f_code
        steps.append((code.co_filename, code.co_name, str(trace.tb_lineno)))
        trace = trace.tb_next
    return steps[-1], kind, value, " ".join("[%s|%s|%s]" % step for step in steps)


def close_all(map: _Map | None = None, ignore_all: bool = False) -> None:
    """Close every channel of `map` (default: socket_map) and empty it.

    The first exception, other than that of a closed descriptor, is raised when all were
    tried; with `ignore_all` it is not.  ExitNow, KeyboardInterrupt and SystemExit are raised at
    once.  The map is empty afterwards in any case.
    """
    if map is None:
        map = socket_map
    first: BaseException | None = None
    try:
        for channel in list(map.values()):
            try:
                channel.close()
            except _reraised_exceptions:
                raise
            except BaseException as error:
                closed = isinstance(error, OSError) and error.errno == EBADF
                if first is None and not closed and not ignore_all:
                    first = error
    finally:
        map.clear()
        known = _loop._loops.get(id(map))
        if known is not None and not known.running:
            known._release_if_idle()
    if first is not None:
        raise first


if sys.platform != "win32":

    class file_wrapper:
        """What a dispatcher needs of a socket, around a duplicate of the descriptor `fd`."""

        def __init__(self, fd: int) -> None:
            self.fd: int = os.dup(fd)

        def __del__(self) -> None:
            if self.fd >= 0:
                warnings.warn(f"unclosed file {self!r}", ResourceWarning, source=self)
            self.close()

        def recv(self, *args: Any) -> bytes:
            """Read from the file, as os.read()."""
            return os.read(self.fd, *args)

        def send(self, *args: Any) -> int:
            """Write to the file, as os.write()."""
            return os.write(self.fd, *args)

        def getsockopt(self, level: int, optname: int, buflen: int | None = None) -> int:
            """Answer that there is no error; nothing else can be asked (NotImplementedError)."""
            if level == socket.SOL_SOCKET and optname == socket.SO_ERROR and not buflen:
                return 0
            raise NotImplementedError("a file has no socket option but SO_ERROR")

        read = recv
        write = send

        def close(self) -> None:
            """Close the file; closing again does nothing."""
            if self.fd < 0:
                return
            fd, self.fd = self.fd, -1
            os.close(fd)

        def fileno(self) -> int:
            """Return the descriptor, -1 after close()."""
            return self.fd

    class file_dispatcher(dispatcher):
        """A dispatcher around a file: a pipe, a terminal, a plain file.

        `fd` is a descriptor or a file object; it is duplicated and made non-blocking.
        """

        def __init__(self, fd: FileDescriptorLike, map: _Map | None = None) -> None:
            dispatcher.__init__(self, None, map)
            self.connected = True
            number: Any = fd
            with contextlib.suppress(AttributeError):
                number = number.fileno()
            self.set_file(number)
            os.set_blocking(number, False)

        def set_file(self, fd: int) -> None:
            """Use a duplicate of `fd` from now on and stand in the map with it."""
            self.socket: Any = file_wrapper(fd)
            self._fileno = self.socket.fileno()
            self.add_channel()
