"""A typed server of lines and counted bodies, and its typed client, over a pair of sockets.

For type checkers: async_chat with each kind of terminator, with producers and class attributes.
"""

from __future__ import annotations

import socket

from fastcore import asynchat, asyncore


class Countdown:
    """A producer of lines, the last one empty."""

    def __init__(self, start: int) -> None:
        self.number = start

    def more(self) -> bytes:
        self.number -= 1
        return b"" if self.number < 0 else b"%d\r\n" % self.number


class Server(asynchat.async_chat):
    """Takes `size CRLF body`, answers with lines."""

    ac_in_buffer_size = 512
    ac_out_buffer_size = 512
    ac_max_line_size = 4096

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock=sock)
        self.received: list[bytes] = []
        self.set_terminator(b"\r\n")

    def collect_incoming_data(self, data: bytes) -> None:
        self.received.append(data)

    def found_terminator(self) -> None:
        text = b"".join(self.received)
        self.received.clear()
        if self.get_terminator() == b"\r\n":
            self.set_terminator(int(text))
            return
        self.push(b"body " + text + b"\r\n")
        self.push_with_producer(Countdown(2))
        self.push_with_producer(asynchat.simple_producer(b"end\r\n", buffer_size=2))
        self.close_when_done()


class Client(asynchat.async_chat):
    """Collects all that comes."""

    use_encoding = False

    def __init__(self, sock: socket.socket) -> None:
        asynchat.async_chat.__init__(self, sock)
        self.answer = b""
        self.set_terminator(None)

    def collect_incoming_data(self, data: bytes) -> None:
        self._collect_incoming_data(data)

    def found_terminator(self) -> None:
        raise AssertionError("there is no terminator")

    def handle_close(self) -> None:
        self.answer = self._get_data()
        super().handle_close()


def main() -> None:
    ours, theirs = socket.socketpair()
    Server(ours)
    client = Client(theirs)
    client.push(b"4\r\n")
    client.push(b"abcd")
    asyncore.loop(timeout=5)
    assert client.answer == b"body abcd\r\n1\r\n0\r\nend\r\n", client.answer


if __name__ == "__main__":
    main()
