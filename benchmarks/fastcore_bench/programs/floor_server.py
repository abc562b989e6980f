"""channels.py on the floor: on floor.c, in the place of asyncore.

    python floor_server.py FLOOR.so --handler tutorial

FLOOR.so is what floor.c was compiled to, for this Python.  Here are the few names of asyncore that
the program needs for its echo, and nothing more.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import socket
import sys
from types import ModuleType
from typing import Any


def load_floor(path: str) -> ModuleType:
    """The module that was compiled to that file."""
    loader = importlib.machinery.ExtensionFileLoader("floor", path)
    spec = importlib.util.spec_from_loader("floor", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def make_asyncore(floor: Any) -> ModuleType:
    """A module with what channels.py uses of asyncore."""

    class Dispatcher(floor.channel):  # type: ignore[misc]
        """A socket and its handlers."""

        def __init__(self, sock: socket.socket | None = None) -> None:
            if sock is not None:
                self.set_socket(sock)

        def set_socket(self, sock: socket.socket) -> None:
            sock.setblocking(False)
            self.socket = sock
            self.open(sock.fileno())

        def create_socket(self, family: int, kind: int) -> None:
            self.set_socket(socket.socket(family, kind))

        def bind(self, address: tuple[str, int]) -> None:
            self.socket.bind(address)

        def listen(self, backlog: int) -> None:
            self.socket.listen(backlog)

        def handle_read(self) -> None:
            """What a listening socket does; all others have a handler of their own."""
            self.handle_accepted(*self.socket.accept())

        def close(self) -> None:
            self.forget()
            self.socket.close()

    asyncore = ModuleType("asyncore")
    vars(asyncore).update(
        dispatcher=Dispatcher,
        dispatcher_with_send=Dispatcher,
        file_dispatcher=Dispatcher,
        loop=lambda use_poll: floor.run(),
    )
    return asyncore


def main() -> None:
    """Put the floor in the place of asyncore, and be channels.py."""
    asyncore = make_asyncore(load_floor(sys.argv.pop(1)))
    asynchat = ModuleType("asynchat")
    vars(asynchat).update(async_chat=vars(asyncore)["dispatcher"])
    sys.modules.update(asyncore=asyncore, asynchat=asynchat)
    import channels

    channels.main()


if __name__ == "__main__":
    main()
