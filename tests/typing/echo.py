"""A typed echo server and a typed client of it; the client's answer ends the program.

For type checkers: each method of a dispatcher that is usually overridden is, with types.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from fastcore import asyncore

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MESSAGE = b"hello, loop"


class EchoHandler(asyncore.dispatcher):
    """Sends back what it receives."""

    def __init__(self, sock: socket.socket, channels: dict[int, Any]) -> None:
        super().__init__(sock, channels)
        self.waiting = bytearray()
        self.received = self.sent = 0

    def recv(self, buffer_size: int) -> bytes:
        data = super().recv(buffer_size)
        self.received += len(data)
        return data

    def send(self, data: ReadableBuffer) -> int:
        size = super().send(data)
        self.sent += size
        return size

    def handle_read(self) -> None:
        self.waiting += self.recv(8192)

    def writable(self) -> bool:
        return bool(self.waiting)

    def handle_write(self) -> None:
        sent: int = self.send(self.waiting)
        del self.waiting[:sent]

    def handle_close(self) -> None:
        assert self.sent == self.received == len(MESSAGE)
        self.close()


class EchoServer(asyncore.dispatcher):
    """Accepts connections, and one more method than a program needs."""

    def __init__(self, address: tuple[str, int], channels: dict[int, Any]) -> None:
        super().__init__(map=channels)
        self.channels = channels
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.set_reuse_addr()
        self.bind(address)
        self.listen(5)

    def address(self) -> tuple[str, int]:
        host, port = self.socket.getsockname()
        return host, port

    def handle_accepted(self, sock: socket.socket, addr: tuple[str, int]) -> None:
        EchoHandler(sock, self.channels)
        self.log_info(f"accepted from {addr[0]}", type="warning")


class Client(asyncore.dispatcher_with_send):
    """Sends one message and collects the answer."""

    def __init__(self, server: EchoServer) -> None:
        super().__init__(map=server.channels)
        self.server = server
        self.answer = b""
        self.create_socket()
        self.connect(server.address())

    def handle_connect(self) -> None:
        self.send(MESSAGE)

    def handle_read(self) -> None:
        self.answer += self.recv(8192)
        if len(self.answer) == len(MESSAGE):
            assert not self.out_buffer
            self.close()
            self.server.close()


def main() -> None:
    channels: dict[int, Any] = {}
    server = EchoServer(("127.0.0.1", 0), channels)
    client = Client(server)
    asyncore.loop(timeout=5.0, use_poll=True, map=channels, count=None)
    assert client.answer == MESSAGE
    asyncore.close_all(channels)


if __name__ == "__main__":
    main()
