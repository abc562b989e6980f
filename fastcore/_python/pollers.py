"""The pollers of the pure-Python engine, over the standard `select` module.

A poller keeps the kernel's set of descriptors and reports what is ready, as
`(descriptor, mask)`.  It knows kernels only: never a channel, a map or a
handler.  The C pollers (`src/poller_*.c`) behave alike; what is said there
about each mechanism's ways holds here too.

The event `(-1, 0)` is special: a descriptor that is not registered keeps
firing, and only a new set can be rid of it.
"""

from __future__ import annotations

import errno
import math
import os
import socket
import stat
import sys
from collections.abc import Iterable
from typing import Any, ClassVar, Protocol

from .. import _codes
from .._descriptors import file_behind
from .._originals import monotonic, original, sleep

_fcntl: Any
try:
    import fcntl as _fcntl
except ImportError:  # Windows
    _fcntl = None

READ, URGENT, WRITE, MUTED = _codes.READ, _codes.URGENT, _codes.WRITE, _codes.MUTED
ERROR, HANGUP, INVALID = _codes.ERROR, _codes.HANGUP, _codes.INVALID

STRANGER = (-1, 0)

# Not those of the module that all have: programs replace its functions, and what
# they put there may know nothing of the descriptors that are ours.  Which of
# them exist depends on the platform.
_select_module: Any = original("select")
_select = _select_module.select
_new_poll = getattr(_select_module, "poll", None)
_new_epoll = getattr(_select_module, "epoll", None)
_new_kqueue = getattr(_select_module, "kqueue", None)
_new_kevent = getattr(_select_module, "kevent", None)

# Kernels refuse very long timeouts; ending a wait early is always allowed.
_LONGEST = 1_000_000.0

# No descriptor is larger: the C type is an int.
LARGEST = 2**31 - 1

# How many events of a kqueue are fetched at once.
_BATCH = 1024


class Poller(Protocol):
    """What an engine uses of a poller; one of `kinds` is made empty, without arguments."""

    name: ClassVar[str]

    def close(self) -> None:
        """Release the kernel's set; may be called twice."""

    def is_own(self) -> bool:
        """Whether the set's descriptor is still what was opened."""
        ...

    def fileno(self) -> int:
        """Return the descriptor of the kernel's set, or -1 where there is none."""
        ...

    def set(self, fd: int, old: int, new: int) -> None:
        """Change the interest in fd from old to new, 0 being none (READ, WRITE and MUTED).

        Raises OSError: EBADF for a closed descriptor, ERANGE for one that this
        mechanism cannot hold.
        """

    def look(self, fd: int, interest: int) -> bool:
        """Whether what is watched under that number is still the file that it means.

        True also where this mechanism cares for numbers only, or where the system cannot tell.
        """
        ...

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait at most timeout seconds (None: without limit) for (fd, mask)."""
        ...


def _bad_descriptor() -> OSError:
    return OSError(errno.EBADF, os.strerror(errno.EBADF))


def _is_open(fd: int) -> bool:
    try:
        if _fcntl is not None:
            _fcntl.fcntl(fd, _fcntl.F_GETFD)
        else:
            _select([fd], [], [], 0)
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _is_pipe(fd: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return False


def _limited(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    return min(max(timeout, 0), _LONGEST)


class _Masks(dict[int, int]):
    """Kernel masks to ours; each combination is worked out once."""

    def __init__(self, pairs: Iterable[tuple[int, int]]) -> None:
        super().__init__()
        self._pairs = tuple(pairs)

    def __missing__(self, bits: int) -> int:
        mask = 0
        for bit, ours in self._pairs:
            if bits & bit:
                mask |= ours
        self[bits] = mask
        return mask


def _masks(prefix: str) -> _Masks:
    names = {"IN": READ, "OUT": WRITE, "PRI": URGENT, "ERR": ERROR, "HUP": HANGUP, "NVAL": INVALID}
    return _Masks(
        (getattr(_select_module, prefix + name), mask)
        for name, mask in names.items()
        if hasattr(_select_module, prefix + name)
    )


def _requests(prefix: str) -> dict[int, int]:
    """What to ask the kernel for, by interest (READ, WRITE and MUTED)."""
    urgent, readable, writable = (
        getattr(_select_module, prefix + name, 0) for name in ("PRI", "IN", "OUT")
    )
    return {
        reading | writing | muted: (readable if reading else 0)
        | (writable if writing else 0)
        | (0 if muted else urgent)
        for reading in (0, READ)
        for writing in (0, WRITE)
        for muted in (0, MUTED)
    }


_poll_masks = _masks("POLL")
_poll_requests = _requests("POLL")
_epoll_masks = _masks("EPOLL")
_epoll_requests = _requests("EPOLL")

# On Linux the kernel's masks are ours, and its events are taken as they come.
_epoll_is_ours = all(bits == mask for bits, mask in _epoll_masks.items())
_poll_is_ours = all(bits == mask for bits, mask in _poll_masks.items())


def query_now(interest: dict[int, int]) -> dict[int, int]:
    """Ask about all of `{fd: interest}` at once, without waiting; return `{fd: ready}`."""
    if _new_poll is None:
        return _query_by_select(interest)
    asked = _new_poll()
    try:
        for fd, mask in interest.items():
            asked.register(fd, _poll_requests[mask])
    except (ValueError, OverflowError):  # a number that no descriptor can have
        possible = {fd: mask for fd, mask in interest.items() if 0 <= fd <= LARGEST}
        ready = query_now(possible) if len(possible) < len(interest) else {}
        return dict.fromkeys(interest.keys() - possible.keys(), INVALID) | ready
    if _poll_is_ours:
        return dict(asked.poll(0))
    return {fd: _poll_masks[bits] for fd, bits in asked.poll(0)}


def _query_by_select(interest: dict[int, int]) -> dict[int, int]:
    try:
        return _ask_select(interest, 0)
    except (ValueError, OverflowError):  # beyond what select() holds: one by one
        found: dict[int, int] = {}
        for fd, mask in interest.items():
            found.update(_ask_select({fd: mask}, 0) if _is_open(fd) else {fd: INVALID})
        return found


def _ask_select(interest: dict[int, int], timeout: float | None) -> dict[int, int]:
    """One select() over `{fd: interest}`; return `{fd: ready}`."""
    found: dict[int, int] = {}
    if not interest and sys.platform == "win32":  # where select() refuses that
        sleep(_LONGEST if timeout is None else timeout)
        return found
    readers = [fd for fd, mask in interest.items() if mask & READ]
    writers = [fd for fd, mask in interest.items() if mask & WRITE]
    audible = [fd for fd, mask in interest.items() if not mask & MUTED]
    try:
        answer = _select(readers, writers, audible, timeout)
    except OSError as error:
        # One closed descriptor fails the call for all: name the culprits.
        found = {fd: INVALID for fd in interest if not _is_open(fd)}
        if not found and error.errno not in (errno.EBADF, errno.ENOTSOCK):
            raise
        return found  # none: another thread has opened the number again since
    for fds, mask in zip(answer, (READ, WRITE, URGENT), strict=True):
        for fd in fds:
            # On Windows the third list also holds sockets whose connect failed.
            failed = mask == URGENT and sys.platform == "win32" and _is_unconnected(fd)
            found[fd] = found.get(fd, 0) | (ERROR if failed else mask)
    return found


def _is_unconnected(fd: int) -> bool:
    # Not by SO_ERROR: to ask takes the error away from the handler.
    sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 0, fd)
    try:
        sock.getpeername()
    except OSError as error:
        return error.errno == errno.ENOTCONN
    finally:
        sock.detach()
    return False


def _leave_alone(kept: Any) -> None:
    """Keep an object whose number has become another's: it would close that when it goes."""
    # Held where all modules have gone before it goes, and asking it its number does no harm.
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=kept.fileno)


class _OwnSet:
    """A set that the kernel keeps, behind a descriptor: what epoll and kqueue have in common."""

    def __init__(self, opened: Any) -> None:
        self._opened = opened
        self._behind = file_behind(opened.fileno())

    def close(self) -> None:
        """Release the kernel's set; may be called twice."""
        if self.is_own():
            self._opened.close()
        else:
            _leave_alone(self._opened)

    def is_own(self) -> bool:
        """Whether the set's descriptor is still what was opened."""
        return self._opened.closed or file_behind(self._opened.fileno()) == self._behind

    def fileno(self) -> int:
        """Return the descriptor of the kernel's set."""
        return -1 if self._opened.closed else int(self._opened.fileno())


class EpollPoller(_OwnSet):
    """The poller over Linux epoll; see `src/poller_epoll.c` about its vices.

    An event of `select.epoll` tells a number and not which of its owners was
    registered.  Numbers whose registration was found missing are remembered
    (`_lost`), and only their events are looked at twice.
    """

    name: ClassVar[str] = "epoll"

    def __init__(self) -> None:
        assert _new_epoll is not None
        self._epoll = _new_epoll()
        super().__init__(self._epoll)
        self._interest: dict[int, int] = {}
        self._files: dict[int, int] = {}  # always ready, refused by the kernel
        self._lost: set[int] = set()
        self._plain = _epoll_is_ours  # until one of these is needed: what the kernel says holds

    def set(self, fd: int, old: int, new: int) -> None:
        """Change the interest in fd from old to new, 0 being none."""
        if new == 0:
            self._remove(fd)
            return
        if old == 0 and fd in self._interest and fd not in self._files:
            # The number was closed and is used again; its old registration
            # may live on in a duplicate.
            self._lose(fd)
        request = _epoll_requests[new]
        try:
            try:
                if old == 0 or fd in self._files:
                    self._epoll.register(fd, request)
                else:
                    self._epoll.modify(fd, request)
            except FileExistsError:
                self._epoll.modify(fd, request)
            except FileNotFoundError:
                self._lose(fd)
                self._epoll.register(fd, request)
        except PermissionError:
            if fd in self._interest and fd not in self._files:
                self._lose(fd)
            self._files[fd] = new
            self._plain = False
        except OSError as error:
            if error.errno == errno.EBADF and fd in self._interest:
                self._lose(fd)
            raise
        except (ValueError, OverflowError):
            raise _bad_descriptor() from None
        else:
            self._files.pop(fd, None)
        self._interest[fd] = new

    def look(self, fd: int, interest: int) -> bool:
        """Whether what is watched under that number is still the file that it means."""
        request = _epoll_requests[interest]
        try:
            if fd not in self._files:
                self._epoll.modify(fd, request)  # to what it is
                return True
            self._epoll.register(fd, request)
            self._epoll.unregister(fd)
        except OSError as error:
            missing = (
                (errno.EBADF,) if fd in self._files else (errno.EBADF, errno.ENOENT, errno.EPERM)
            )
            return error.errno not in missing
        return False

    def _lose(self, fd: int) -> None:
        self._lost.add(fd)
        self._plain = False

    def _remove(self, fd: int) -> None:
        self._interest.pop(fd, None)
        if self._files.pop(fd, None) is not None:
            return
        try:
            self._epoll.unregister(fd)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EBADF, errno.EPERM):
                raise
            self._lose(fd)
        except (ValueError, OverflowError):
            pass

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait at most timeout seconds (None: without limit) for (fd, mask)."""
        if timeout is None:
            timeout = -1  # which means the same, and PyPy's takes no None
        if self._plain:
            try:
                return self._epoll.poll(timeout)  # type: ignore[no-any-return]
            except OverflowError:
                pass
        limit = 0 if self._files else min(timeout, _LONGEST)
        events = [(fd, _epoll_masks[bits]) for fd, bits in self._epoll.poll(limit)]
        events = self._without_strangers(events)
        events.extend(self._files.items())
        return events

    def _without_strangers(self, events: list[tuple[int, int]]) -> list[tuple[int, int]]:
        doubtful = [event for event in events if event[0] in self._lost]
        if not doubtful:
            return events
        kernel = self._interest.keys() - self._files.keys()
        answers = query_now({fd: self._interest[fd] for fd, _ in doubtful if fd in kernel})
        sure = [event for event in events if event[0] not in self._lost]
        # What the number itself says replaces what its namesakes said; two
        # events of one number are one too many.
        sure.extend(answers.items())
        if len(sure) < len(events):
            sure.append(STRANGER)
        return sure


class KqueuePoller(_OwnSet):
    """The poller over kqueue; see `src/poller_kqueue.c` about its ways."""

    name: ClassVar[str] = "kqueue"

    # Urgent data: (filter, NOTE_OOB).  `select` does not name them.
    _urgent: ClassVar[tuple[int, int] | None] = (
        (-15, 0x2) if sys.platform == "darwin"
        else (-9, 0x4) if sys.platform.startswith("openbsd")
        else None
    )  # fmt: skip
    _refusals: ClassVar[tuple[int, ...]] = (errno.EINVAL, errno.EPERM, errno.ENODEV, errno.EPIPE)

    def __init__(self) -> None:
        assert _new_kqueue is not None
        self._kqueue = _new_kqueue()
        super().__init__(self._kqueue)
        self._filters: tuple[tuple[int, int], ...] = (
            (READ, _select_module.KQ_FILTER_READ),
            (WRITE, _select_module.KQ_FILTER_WRITE),
        )
        self._add: int = _select_module.KQ_EV_ADD
        self._delete: int = _select_module.KQ_EV_DELETE
        self._eof: int = _select_module.KQ_EV_EOF
        self._error: int = _select_module.KQ_EV_ERROR
        self._files: dict[int, int] = {}  # always ready, whatever the kernel says

    def set(self, fd: int, old: int, new: int) -> None:
        """Change the interest in fd from old to new, 0 being none."""
        if fd < 0:
            raise _bad_descriptor()
        kept = fd in self._files
        if new == 0:
            if self._files.pop(fd, None) is None:
                self._remove(fd, old)
            return
        if (old == 0 or kept) and self._is_regular(fd):
            self._files[fd] = new
            return
        try:
            self._change_filters(fd, old, new)
        except OSError as error:
            if error.errno not in self._refusals:
                raise
            self._remove(fd, old | new)
            self._files[fd] = new
            return
        self._files.pop(fd, None)

    def look(self, fd: int, interest: int) -> bool:
        """Whether that number is open; adding mends what closing it has dropped."""
        try:
            if fd not in self._files:
                self._change_filters(fd, interest, interest)
        except OSError as error:
            return error.errno != errno.EBADF
        return _is_open(fd)

    @staticmethod
    def _is_regular(fd: int) -> bool:
        try:
            return stat.S_ISREG(os.fstat(fd).st_mode)
        except OverflowError:
            raise _bad_descriptor() from None

    def _change(self, fd: int, kind: int, flags: int, fflags: int = 0) -> None:
        assert _new_kevent is not None
        self._kqueue.control([_new_kevent(fd, kind, flags, fflags)], 0, 0)

    def _change_filters(self, fd: int, old: int, new: int) -> None:
        # All that is wanted is added, also what should be there: the kernel
        # drops it when a number is closed and opened again.
        for mask, kind in self._filters:
            if new & mask:
                try:
                    self._change(fd, kind, self._add)
                except FileNotFoundError:
                    raise _bad_descriptor() from None
            elif old & mask:
                self._try_change(fd, kind, self._delete)
        if self._urgent is not None:
            change = self._delete if new & MUTED else self._add
            self._try_change(fd, self._urgent[0], change, self._urgent[1])

    def _remove(self, fd: int, interest: int) -> None:
        for mask, kind in self._filters:
            if interest & mask:
                self._try_change(fd, kind, self._delete)
        if self._urgent is not None:
            self._try_change(fd, self._urgent[0], self._delete)

    def _try_change(self, fd: int, kind: int, flags: int, fflags: int = 0) -> None:
        try:
            self._change(fd, kind, flags, fflags)
        except OSError:
            pass  # nothing left to delete, or no urgent data to be had

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait at most timeout seconds (None: without limit) for (fd, mask)."""
        timeout = 0 if self._files else _limited(timeout)
        merged: dict[int, int] = {}
        for event in self._kqueue.control(None, _BATCH, timeout):
            merged[event.ident] = merged.get(event.ident, 0) | self._mask(event)
        events = list(merged.items())
        events.extend(self._files.items())
        return events

    def _mask(self, event: Any) -> int:
        if event.flags & self._error:
            return INVALID if event.data == errno.EBADF else ERROR
        if self._urgent is not None and event.filter == self._urgent[0]:
            return URGENT
        mask = WRITE if event.filter == self._filters[1][1] else READ
        if event.flags & self._eof:
            if event.fflags:
                mask |= ERROR
            elif mask == READ and _is_pipe(event.ident):
                mask |= HANGUP  # that of a socket may still be listening
        return mask


class PollPoller:
    """The poller over poll(2)."""

    name: ClassVar[str] = "poll"

    def __init__(self) -> None:
        assert _new_poll is not None
        self._poll = _new_poll()
        self._interest: dict[int, int] = {}
        self._waits = False

    def close(self) -> None:
        """Forget all descriptors; there is nothing to release."""
        self.__init__()  # type: ignore[misc]

    def is_own(self) -> bool:
        """Return True: it has no descriptor."""
        return True

    def fileno(self) -> int:
        """Return -1: the kernel keeps no set."""
        return -1

    def set(self, fd: int, old: int, new: int) -> None:
        """Change the interest in fd from old to new, 0 being none."""
        if new == 0:
            if self._interest.pop(fd, None) is not None:
                self._poll.unregister(fd)
            return
        # poll() itself would say so only later.
        if (old == 0 or fd not in self._interest) and not _is_open(fd):
            raise _bad_descriptor()
        self._poll.register(fd, _poll_requests[new])
        self._interest[fd] = new

    def look(self, fd: int, interest: int) -> bool:
        """Return True: each wait asks by the number."""
        return True

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait at most timeout seconds (None: without limit) for (fd, mask)."""
        if timeout is not None:
            # Rounded up here, because PyPy cuts the fraction off.
            timeout = math.ceil(min(max(timeout, 0), _LONGEST) * 1000)
        masks = _poll_masks
        events = [(fd, masks[bits]) for fd, bits in self._ask(timeout)]
        if sys.platform == "darwin":
            # Devices that poll() cannot watch look closed; select() calls
            # them ready.
            for place, (fd, mask) in enumerate(events):
                if mask & INVALID and _is_open(fd):
                    events[place] = (fd, self._interest[fd])
        return events

    def _ask(self, timeout: float | None) -> list[tuple[int, int]]:
        # A poll object refuses to be asked within its own wait, where a signal handler may be.
        outer, poll = self._waits, self._poll
        if outer:
            assert _new_poll is not None
            poll = _new_poll()
            for fd, interest in self._interest.items():
                poll.register(fd, _poll_requests[interest])
        try:
            self._waits = True
            return poll.poll(timeout)  # type: ignore[no-any-return]
        finally:
            self._waits = outer


class SelectPoller:
    """The poller over select(), where there is nothing else."""

    name: ClassVar[str] = "select"

    # POSIX limits the number of a descriptor, Windows how many there are (as
    # the interpreter is built; the C engine's select() has no limit there).
    _limit: ClassVar[int] = 512 if sys.platform == "win32" else 1024

    def __init__(self) -> None:
        self._interest: dict[int, int] = {}

    def close(self) -> None:
        """Forget all descriptors; there is nothing to release."""
        self._interest.clear()

    def is_own(self) -> bool:
        """Return True: it has no descriptor."""
        return True

    def fileno(self) -> int:
        """Return -1: the kernel keeps no set."""
        return -1

    def set(self, fd: int, old: int, new: int) -> None:
        """Change the interest in fd from old to new, 0 being none."""
        if new == 0:
            self._interest.pop(fd, None)
            return
        if old == 0 or fd not in self._interest:
            self._check(fd)
        self._interest[fd] = new

    def _check(self, fd: int) -> None:
        if not _is_open(fd):
            raise _bad_descriptor()
        if sys.platform == "win32":
            beyond = len(self._interest) >= self._limit
        else:
            beyond = fd >= self._limit
        if beyond:
            raise OSError(
                errno.ERANGE,
                f"descriptor {fd} is beyond what select() can hold ({self._limit}); "
                f"use another {'engine' if sys.platform == 'win32' else 'poller'}",
            )

    def look(self, fd: int, interest: int) -> bool:
        """Return True: each wait asks by the number."""
        return True

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait at most timeout seconds (None: without limit) for (fd, mask)."""
        found = _ask_select(self._interest, _limited(timeout))
        if _new_poll is not None:
            # select() calls an end readable, and a hang-up is more than that.
            readable = {fd: READ for fd, mask in found.items() if mask & READ}
            for fd, mask in query_now(readable).items():
                found[fd] |= mask & _codes.ENDED
        return list(found.items())


class SelectInSlices(SelectPoller):
    """Watches one descriptor more, which is beyond what select() can hold, by asking in between."""

    # How long a wait may not hear of it, in seconds.
    _slice: ClassVar[float] = 0.02

    def __init__(self, apart: int) -> None:
        super().__init__()
        self._apart = apart

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait at most timeout seconds (None: without limit) for (fd, mask)."""
        end = math.inf if timeout is None else monotonic() + timeout
        while True:
            left = end - monotonic()
            events = super().wait(min(left, self._slice))
            if query_now({self._apart: READ}):
                events.append((self._apart, READ))
            if events or left <= self._slice:
                return events


def _available() -> dict[str, type[Poller]]:
    found: dict[str, type[Poller]] = {}
    if _new_epoll is not None:
        found["epoll"] = EpollPoller
    if _new_kqueue is not None:
        found["kqueue"] = KqueuePoller
    if _new_poll is not None:
        found["poll"] = PollPoller
    found["select"] = SelectPoller
    return found


#: What this platform has, in order of preference.
kinds: dict[str, type[Poller]] = _available()
