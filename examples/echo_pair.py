"""An echo server and its clients in one process, on one loop.

Nobody stops the loop: each side closes what it no longer needs, and `loop`
returns once nothing is left to watch.
"""

import argparse
import socket

from fastcore import asyncore


class Echo(asyncore.dispatcher_with_send):
    """The server's end of one connection; `send` keeps what does not fit yet."""

    def handle_read(self):
        data = self.recv(4096)
        if data:
            self.send(data)

    def handle_close(self):
        self.close()


class Listener(asyncore.dispatcher):
    """Accepts as many clients as it was told to expect, then closes."""

    def __init__(self, expected):
        super().__init__()
        self.expected = expected
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.bind(("127.0.0.1", 0))
        self.listen(expected)

    def handle_accepted(self, sock, addr):
        Echo(sock)
        self.expected -= 1
        if not self.expected:
            self.close()


class Client(asyncore.dispatcher):
    """Sends one message and reads until all of it has come back."""

    def __init__(self, name, address, message):
        super().__init__()
        self.name = name
        self.unsent = self.expected = message
        self.received = b""
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.connect(address)

    def writable(self):
        # A connect in progress completes as "writable", so ask for that too.
        return not self.connected or bool(self.unsent)

    def handle_write(self):
        self.unsent = self.unsent[self.send(self.unsent) :]

    def handle_read(self):
        self.received += self.recv(4096)
        if len(self.received) >= len(self.expected):
            verdict = "intact" if self.received == self.expected else "changed"
            print(f"{self.name}: {len(self.received)} bytes came back {verdict}")
            self.close()

    def handle_close(self):
        print(f"{self.name}: closed after {len(self.received)} bytes")
        self.close()


def main():
    """Let a few clients talk to a server of our own."""
    parser = argparse.ArgumentParser(description="Echo server and clients in one process.")
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--size", type=int, default=100_000, help="bytes of each message")
    options = parser.parse_args()
    if options.clients < 1 or options.size < 1:
        parser.error("--clients and --size must be at least 1")
    listener = Listener(options.clients)
    address = listener.socket.getsockname()
    for number in range(1, options.clients + 1):
        text = f"{number}, ".encode() * options.size
        Client(f"client {number}", address, text[: options.size])
    asyncore.loop(timeout=5)
    print("nothing left to watch")


if __name__ == "__main__":
    main()
