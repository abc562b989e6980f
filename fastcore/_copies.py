"""What known copies of asyncore and asynchat have and the originals have not.

Where a program replaces such a copy with fastcore's module (`install(replace=...)`), these stand
there too.  A copy that is not named here is replaced with fastcore's module itself.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from errno import EWOULDBLOCK
from types import ModuleType
from typing import Any

from fastcore import asynchat, asyncore


class Copy(ModuleType):
    """A module with names of its own; all others are the original's, and are set there."""

    def __init__(self, name: str, original: ModuleType, added: dict[str, Any]) -> None:
        super().__init__(name, f"{original.__name__}, with what {name} adds to it.")
        self.__dict__.update(added, _original=original)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_original"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            super().__setattr__(name, value)
        else:
            setattr(self.__dict__["_original"], name, value)

    def __delattr__(self, name: str) -> None:
        if name in self.__dict__:
            super().__delattr__(name)
        else:
            delattr(self.__dict__["_original"], name)

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *dir(self.__dict__["_original"])})


def find(name: str, kind: str) -> ModuleType:
    """Return the module that stands for a copy of that name; `kind` is the original's."""
    original = asyncore if kind == "asyncore" else asynchat
    added = KNOWN.get(name)
    if added is None:
        return original
    names = added()
    for each in names.values():
        each.__module__, each.__qualname__ = name, each.__name__  # as logs and pickles have them
    return Copy(name, original, names)


def _for_files(dispatcher: Any) -> dict[str, Any]:
    """A copy's file_dispatcher, over its dispatcher, where the system has such channels."""
    if not hasattr(asyncore, "file_dispatcher"):
        return {}

    class file_dispatcher(dispatcher, asyncore.file_dispatcher):  # type: ignore[misc]
        pass

    return {"file_dispatcher": file_dispatcher}


# -- waitress.wasyncore ---------------------------------------------------------------------------


def _waitress() -> dict[str, Any]:
    """Channels that log to waitress's logger, and whose `send()` can leave a channel open."""

    lost_or_full = {*vars(asyncore)["_DISCONNECTED"], EWOULDBLOCK}

    class dispatcher(asyncore.dispatcher):
        logger = logging.getLogger("waitress")
        compact_traceback = staticmethod(asyncore.compact_traceback)

        def send(self, data: Any, do_close: bool = True) -> Any:
            if do_close:
                return super().send(data)
            try:
                return self.socket.send(data)
            except OSError as error:
                if error.errno not in lost_or_full:
                    raise
                return 0

        def log(self, message: Any) -> None:
            self.logger.log(logging.DEBUG, message)

        def log_info(self, message: Any, type: str = "info") -> None:
            severities = {"warning": logging.WARNING, "error": logging.ERROR}
            self.logger.log(severities.get(type, logging.INFO), message)

    return {"dispatcher": dispatcher, **_for_files(dispatcher)}


# -- supervisor.medusa ----------------------------------------------------------------------------


class _Forwards:
    """A channel that hands on to its socket what it does not have itself."""

    def __getattr__(self, name: str) -> Any:
        sock = self.__dict__.get("socket")
        if sock is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(sock, name)


def _close(channel: Any, close: Callable[[], None]) -> None:
    """End the connection for other processes that hold it as well, and close."""
    sock = channel.__dict__.get("socket")
    try:
        if sock is not None:
            sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # nobody is connected
    close()


def _medusa_asyncore() -> dict[str, Any]:
    class dispatcher(_Forwards, asyncore.dispatcher):
        def close(self) -> None:
            _close(self, super().close)

    class dispatcher_with_send(_Forwards, asyncore.dispatcher_with_send):
        def close(self) -> None:
            _close(self, super().close)

    return {
        "dispatcher": dispatcher,
        "dispatcher_with_send": dispatcher_with_send,
        **_for_files(dispatcher),
    }


class fifo:
    """A queue whose `pop()` says whether there was something."""

    def __init__(self, list: Any = None) -> None:
        self.list: Any = list or []

    def __len__(self) -> int:
        return len(self.list)

    def is_empty(self) -> bool:
        return not self.list

    def first(self) -> Any:
        return self.list[0]

    def push(self, data: Any) -> None:
        self.list.append(data)

    def pop(self) -> tuple[int, Any]:
        return (1, self.list.pop(0)) if self.list else (0, None)


def _medusa_asynchat() -> dict[str, Any]:
    """Output by `refill_buffer()`, which programs override, and text that may be pushed."""

    class async_chat(_Forwards, asynchat.async_chat):
        def __init__(self, conn: Any = None, map: Any = None) -> None:
            super().__init__(conn, map)
            self.ac_out_buffer = b""
            self.producer_fifo: Any = fifo()

        def close(self) -> None:
            _close(self, super().close)

        def push(self, data: Any) -> None:
            data = data.encode("utf-8") if isinstance(data, str) else data
            self.push_with_producer(asynchat.simple_producer(data))

        def push_with_producer(self, producer: Any) -> None:
            self.producer_fifo.push(producer)
            self.initiate_send()

        def close_when_done(self) -> None:
            self.producer_fifo.push(None)

        def readable(self) -> bool:
            return len(self.ac_in_buffer) <= self.ac_in_buffer_size

        def writable(self) -> bool:
            return bool(self.ac_out_buffer or len(self.producer_fifo) or not self.connected)

        def refill_buffer(self) -> None:
            """Take from the first producer that has something, or close where the end is meant."""
            while len(self.producer_fifo):
                first = self.producer_fifo.first()
                if first is None:
                    if not self.ac_out_buffer:
                        self.producer_fifo.pop()
                        self.close()
                    return
                is_data = isinstance(first, bytes)
                data = first if is_data else first.more()
                if is_data or not data:
                    self.producer_fifo.pop()
                if is_data or data:
                    self.ac_out_buffer += data
                    return

        def initiate_send(self) -> None:
            size = self.ac_out_buffer_size
            if len(self.ac_out_buffer) < size:
                self.refill_buffer()
            if not (self.ac_out_buffer and self.connected):
                return
            try:
                sent = self.send(self.ac_out_buffer[:size])
            except OSError:
                self.handle_error()
            else:
                self.ac_out_buffer = self.ac_out_buffer[sent:] if sent else self.ac_out_buffer

        def discard_buffers(self) -> None:
            self.ac_in_buffer = self.ac_out_buffer = b""
            self.producer_fifo = fifo()

    return {"async_chat": async_chat, "fifo": fifo}


KNOWN: dict[str, Callable[[], dict[str, Any]]] = {
    "waitress.wasyncore": _waitress,
    "supervisor.medusa.asyncore_25": _medusa_asyncore,
    "supervisor.medusa.asynchat_25": _medusa_asynchat,
}
