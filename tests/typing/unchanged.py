"""One program on the standard library's modules and on fastcore's: only the import differs.

For type checkers, which take the one for Python 3.11 and the other for Python 3.12: what was
right with the types of the standard library's modules is right with these.
"""

from __future__ import annotations

import select
import socket
import sys
from typing import Any

if sys.version_info >= (3, 12):
    from fastcore import asynchat, asyncore
else:
    import asynchat
    import asyncore


class Listener(asyncore.dispatcher):
    """Overrides every method that takes part in a connection, with the types it had."""

    debug = True
    connected = False
    ignore_log_types: frozenset[str] = frozenset({"warning", "info"})

    def __init__(self, channels: dict[int, Any] | None = None) -> None:
        asyncore.dispatcher.__init__(self, None, channels)
        self.channels = channels
        self.sessions: list[Session] = []
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.set_reuse_addr()
        self.bind(("127.0.0.1", 0))
        self.listen(5)

    def add_channel(self, map: dict[int, Any] | None = None) -> None:
        super().add_channel(map)

    def del_channel(self, map: dict[int, Any] | None = None) -> None:
        super().del_channel(map)

    def port(self) -> int:
        assert self.socket is not None
        number: int = self.socket.getsockname()[1]
        return number

    def fileno(self) -> int:
        if self.socket is None:
            return -1
        return self.socket.fileno()

    def readable(self) -> bool:
        return self.accepting and super().readable()

    def writable(self) -> bool:
        return not self.accepting and asyncore.dispatcher.writable(self)

    def bind(self, addr: tuple[Any, ...] | str) -> None:
        super().bind(addr)

    def listen(self, num: int) -> None:
        super().listen(num)

    def accept(self) -> tuple[socket.socket, Any] | None:
        return super().accept()

    def handle_accept(self) -> None:
        pair = self.accept()
        if pair is not None:
            sock, address = pair
            self.log_info(f"accepted from {address}")
            self.sessions.append(Session(sock, self.channels))

    def handle_error(self) -> None:
        if isinstance(sys.exc_info()[1], asyncore.ExitNow):
            raise
        where, kind, value, trace = asyncore.compact_traceback()
        self.log(f"{where[0]} {kind} {value} {trace}")
        raise

    def handle_close(self) -> None:
        self.close()


class Session(asynchat.async_chat):
    """Answers a line with that line, reversed."""

    ac_in_buffer_size = 4096

    def __init__(self, sock: socket.socket | None, channels: dict[int, Any] | None) -> None:
        super().__init__(sock, channels)
        self.pieces: list[bytes] = []
        self.set_terminator(b"\n")

    def collect_incoming_data(self, data: bytes) -> None:
        self.pieces.append(data)

    def found_terminator(self) -> None:
        line, self.pieces = b"".join(self.pieces), []
        self.push(line[::-1])
        self.push_with_producer(asynchat.simple_producer(b"\n"))
        self.close_when_done()

    def push(self, data: bytes) -> None:
        super().push(data)

    def set_terminator(self, term: bytes | int | None) -> None:
        super().set_terminator(term)

    def size_to_come(self) -> int:
        terminator = self.get_terminator()
        return terminator if isinstance(terminator, int) else 0

    def readable(self) -> bool:
        return super().readable()

    def writable(self) -> bool:
        return asynchat.async_chat.writable(self)

    def initiate_send(self) -> None:
        super().initiate_send()

    def handle_close(self) -> None:
        self.discard_buffers()
        self.close()


class Client(asyncore.dispatcher_with_send):
    """Sends a line and reads until the end."""

    def __init__(self, port: int, channels: dict[int, Any] | None) -> None:
        super().__init__(None, channels)
        self.answer = b""
        self.create_socket()
        self.connect(("127.0.0.1", port))

    def handle_connect(self) -> None:
        self.send(b"desserts\n")
        self.initiate_send()

    def handle_read(self) -> None:
        self.answer += self.recv(100)

    def is_done(self) -> bool:
        return self.answer.endswith(b"\n") and not self.connected

    def handle_close(self) -> None:
        self.close()


def main() -> None:
    channels: dict[int, Any] = {}
    listener = Listener(channels)
    client = Client(listener.port(), channels)
    while not client.is_done():
        asyncore.loop(timeout=5.0, use_poll=False, map=channels, count=1)
    assert client.answer == b"stressed\n"
    turns = (asyncore.poll, asyncore.poll2) if hasattr(select, "poll") else (asyncore.poll,)
    for turn in turns:
        turn(0.0, channels)
    tell = asyncore.read, asyncore.write
    assert all(map(callable, (*tell, asyncore.readwrite, asyncore.poll3)))
    assert not asyncore.socket_map
    asyncore.close_all(channels, ignore_all=True)


if __name__ == "__main__":
    main()
