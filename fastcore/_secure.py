"""Sockets that a program wraps with TLS: what they raise and hold, which plain ones do not.

Asks the classes of the modules `ssl` and OpenSSL (pyOpenSSL), and only where a program has imported
these; no attribute of any other object is looked at.  Knows such sockets, and how a channel's loop
is found.
"""

from __future__ import annotations

import sys
from typing import Any

_NAMES = {
    "ssl": ("SSLSocket", ("SSLWantReadError", "SSLWantWriteError")),
    "OpenSSL.SSL": ("Connection", ("WantReadError", "WantWriteError")),
}


def _classes(module: str, names: tuple[str, ...]) -> tuple[type, ...]:
    """Return those of the classes that there are."""
    attributes = getattr(sys.modules.get(module), "__dict__", {})
    return tuple(each for name in names if isinstance(each := attributes.get(name), type))


def is_wait(error: BaseException) -> bool:
    """Whether `error` says that a secure socket has to wait for the kernel: nothing has failed."""
    return any(isinstance(error, _classes(each, _NAMES[each][1])) for each in _NAMES)


def is_secure(sock: Any) -> bool:
    """Whether `sock` is one that may hold received data itself."""
    kind: Any = type(sock)
    return "fastcore_pending" in vars(kind) or any(
        issubclass(kind, _classes(module, (name,))) for module, (name, _) in _NAMES.items()
    )


def holds_unread(sock: Any) -> bool:
    """Whether `sock` is a secure socket that holds received data, of which no kernel tells."""
    kind: Any = type(sock)
    pending = vars(kind).get("fastcore_pending")
    if pending is not None:
        return bool(pending(sock) > 0)
    for module, (name, _) in _NAMES.items():
        if issubclass(kind, _classes(module, (name,))):
            try:
                return bool(sock.pending() > 0)
            except Exception:  # it is closed, or was unwrapped
                return False
    return False


def look_for_unread(channel: Any, sock: Any) -> None:
    """Have `channel` read again by its loop, if `sock`, from which it has read, holds more."""
    if not holds_unread(sock):
        return
    try:
        home = object.__getattribute__(channel, "_fastcore_home")
        key = object.__getattribute__(channel, "_fileno")
    except AttributeError:
        return  # it borrows a dispatcher's method, and stands in no map
    loop = getattr(home, "loop", None)
    if loop is not None and key is not None:
        loop._engine.read_again(key)
