"""Programs whose instructions .ci/instructions.py counts: echoes, lines, and timers.

    python counted.py PROGRAM REQUESTS                    timers
    python counted.py PROGRAM BARRIER DESCRIPTOR...       servers

A server has the given connected sockets as clients, runs one `asyncore.loop()`, and ends when they
close.  What it answers last of each round waits at BARRIER, a pipe, for a byte that says that all
clients have sent their next request: so all of them are always ready together, and counts repeat.
The programs must not know that they are counted.
"""

from __future__ import annotations

import os
import socket
import sys

from fastcore import Loop, asynchat, asyncore


class Round:
    """The requests that are answered together."""

    def __init__(self, clients: int, barrier: int) -> None:
        self.clients = self.left = clients
        self.barrier = barrier

    def answered(self) -> None:
        """Note that one was answered; the last one waits for the next round."""
        self.left -= 1
        if self.left == 0:
            self.left = self.clients
            os.read(self.barrier, 1)


class Direct(asyncore.dispatcher):
    """Receives and sends at once."""

    def __init__(self, sock: socket.socket, round: Round) -> None:
        super().__init__(sock)
        self.round = round

    def writable(self) -> bool:
        return False

    def handle_read(self) -> None:
        data = self.recv(8192)
        if data:
            self.send(data)
            self.round.answered()

    def handle_close(self) -> None:
        self.close()


class Tutorial(asyncore.dispatcher):
    """The tutorial's handler: a buffer of its own, and writable() says whether it holds any."""

    def __init__(self, sock: socket.socket, round: Round) -> None:
        super().__init__(sock)
        self.round = round
        self.buffer = b""

    def writable(self) -> bool:
        return len(self.buffer) > 0

    def handle_read(self) -> None:
        self.buffer += self.recv(8192)

    def handle_write(self) -> None:
        sent = self.send(self.buffer)
        self.buffer = self.buffer[sent:]
        self.round.answered()

    def handle_close(self) -> None:
        self.close()


class Lines(asynchat.async_chat):
    """Sends each line back; a request is two of them."""

    def __init__(self, sock: socket.socket, round: Round) -> None:
        super().__init__(sock)
        self.round = round
        self.parts: list[bytes] = []
        self.set_terminator(b"\r\n")

    def collect_incoming_data(self, data: bytes) -> None:
        self.parts.append(data)

    def found_terminator(self) -> None:
        line = b"".join(self.parts)
        self.parts = []
        self.push(line + b"\r\n")
        if line == b"last":
            self.round.answered()


SERVERS = {"direct": Direct, "tutorial": Tutorial, "lines": Lines}


def serve(handler: type[Direct | Tutorial | Lines], barrier: int, clients: list[int]) -> None:
    """Answer until all clients have gone."""
    round = Round(len(clients), barrier)
    for number in clients:
        handler(socket.socket(fileno=number), round)
    asyncore.loop()


def cancelled(count: int) -> None:
    """Set timers in no order, a hundred at a time, and cancel them."""
    loop = Loop()

    def work() -> None:
        delay = 1
        for _ in range(count // 100):
            handles = []
            for _ in range(100):
                delay = delay * 48271 % 0x7FFFFFFF
                handles.append(loop.call_later(600 + delay % 90_000 / 1000, print))
            for handle in handles:
                handle.cancel()

    loop.call_soon(work)
    loop.run()
    loop.close()


def run(count: int) -> None:
    """Set timers that are due, a hundred at a time in the reverse of their order, and run them."""
    loop = Loop()
    left = count

    def tick() -> None:
        nonlocal left
        left -= 1
        if left % 100 == 0 and left:
            set_hundred()

    def set_hundred() -> None:
        for number in range(100):
            loop.call_at(-number, tick)

    loop.call_soon(set_hundred)
    loop.run()
    loop.close()


TIMERS = {"cancelled": cancelled, "run": run}


def main() -> None:
    """Run one of them."""
    name, first, *rest = sys.argv[1:]
    if name in TIMERS:
        TIMERS[name](int(first))
    else:
        serve(SERVERS[name], int(first), [int(number) for number in rest])


if __name__ == "__main__":
    main()
