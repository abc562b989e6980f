"""Servers as asyncore and asynchat programs have them, for every loop that runs such programs.

    python -m fastcore run channels.py --handler tutorial      on fastcore
    python channels.py --handler tutorial                      on Python 3.11, or on pyasyncore

The program must not know on which of them it runs; only --pending-timers is for fastcore alone.
Sockets are left as asyncore makes them, that is without TCP_NODELAY, unless --no-delay is given.
"""

import argparse
import asynchat
import asyncore
import os
import queue
import socket
import threading

from serving import BACKLOG, BLOCK, DONE, GREETING, announce, parser, refuse, set_no_delay

RECEIVE = 65536  # bytes at a time; --receive changes it
TUTORIAL_RECEIVE = 8192
POOL = 4  # threads


class Closing(asyncore.dispatcher):
    """A client's channel: closed when the client closes."""

    def __init__(self, sock, server):
        super().__init__(sock)
        self.server = server

    def handle_close(self):
        self.close()


class DirectEcho(Closing):
    """Receives and sends at once; keeps only what the client does not take."""

    rest = b""

    def writable(self):
        return self.rest

    def handle_read(self):
        data = self.recv(RECEIVE)
        if self.rest:
            self.rest += data
        elif data:
            sent = self.send(data)
            if sent < len(data):
                self.rest = data[sent:]

    def handle_write(self):
        self.rest = self.rest[self.send(self.rest) :]


class TutorialEcho(Closing):
    """The tutorial's handler: a buffer of its own, and writable() says whether it holds any."""

    def __init__(self, sock, server):
        super().__init__(sock, server)
        self.buffer = b""

    def writable(self):
        return len(self.buffer) > 0

    def handle_read(self):
        self.buffer += self.recv(TUTORIAL_RECEIVE)

    def handle_write(self):
        sent = self.send(self.buffer)
        self.buffer = self.buffer[sent:]


class WithSendEcho(asyncore.dispatcher_with_send):
    """Leaves the buffer to the library."""

    def __init__(self, sock, server):
        super().__init__(sock)

    def handle_read(self):
        data = self.recv(RECEIVE)
        if data:
            self.send(data)

    def handle_close(self):
        self.close()


class DirectGreeter(Closing):
    """Greets, and ignores what comes."""

    def __init__(self, sock, server):
        super().__init__(sock, server)
        self.send(GREETING)

    def writable(self):
        return False

    def handle_read(self):
        self.recv(RECEIVE)


class TutorialGreeter(TutorialEcho):
    """The same by way of a buffer."""

    def __init__(self, sock, server):
        super().__init__(sock, server)
        self.buffer = GREETING

    def handle_read(self):
        self.recv(TUTORIAL_RECEIVE)


class Peer(TutorialEcho):
    """One of many that get each other's messages, each through its own buffer."""

    def __init__(self, sock, server):
        super().__init__(sock, server)
        self.buffer = GREETING
        self.message = b""
        server.peers.add(self)

    def handle_read(self):
        self.message += self.recv(RECEIVE)
        size = self.server.size
        while len(self.message) >= size:
            message, self.message = self.message[:size], self.message[size:]
            for peer in self.server.peers:
                peer.buffer += message

    def handle_close(self):
        self.server.peers.discard(self)
        self.close()


class Trigger(asyncore.file_dispatcher):
    """What frameworks with threads wake their loop by: a pipe among the channels."""

    def __init__(self):
        reading, self.writing = os.pipe()
        super().__init__(reading)
        os.close(reading)  # file_dispatcher has made its own of it

    def writable(self):
        return False

    def handle_read(self):
        self.recv(RECEIVE)

    def pull(self):
        os.write(self.writing, b"x")


class Pool:
    """Threads that answer requests, and pull the trigger for each answer."""

    def __init__(self):
        self.trigger = Trigger()
        self.asking = queue.SimpleQueue()
        for _ in range(POOL):
            threading.Thread(target=self.work, daemon=True).start()

    def work(self):
        while True:
            self.asking.get().answer()
            self.trigger.pull()


class Answered(TutorialEcho):
    """Hands what it reads to a pool of threads, which leave the answer in its buffer."""

    def __init__(self, sock, server):
        super().__init__(sock, server)
        self.lock = threading.Lock()
        self.asked = []

    def handle_read(self):
        data = self.recv(TUTORIAL_RECEIVE)
        if data:
            with self.lock:
                self.asked.append(data)
            self.server.pool.asking.put(self)

    def answer(self):
        """In one of the threads: whichever comes first answers all that was asked, in order."""
        with self.lock:
            self.buffer += b"".join(self.asked)
            self.asked.clear()

    def handle_write(self):
        with self.lock:
            super().handle_write()


class Relay(TutorialEcho):
    """Passes on what it reads: the other channel of the pair is to send it."""

    def __init__(self, sock, server):
        super().__init__(sock, server)
        self.other = Far(self)

    def handle_read(self):
        self.other.buffer += self.recv(TUTORIAL_RECEIVE)

    def handle_close(self):
        self.close()
        self.other.close()


class Far(Relay):
    """The channel of a relay that leads to the server behind it."""

    def __init__(self, near):
        TutorialEcho.__init__(self, None, near.server)
        self.other = near
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        if near.server.no_delay:
            set_no_delay(self.socket)
        self.connect(("127.0.0.1", near.server.upstream))


class Chat(asynchat.async_chat):
    """Sends each line back; the base of what begins with a line."""

    def __init__(self, sock, server):
        super().__init__(sock)
        self.set_terminator(b"\r\n")
        self.parts = []

    def collect_incoming_data(self, data):
        self.parts.append(data)

    def take_line(self):
        """What was collected."""
        line = b"".join(self.parts)
        self.parts = []
        return line

    def found_terminator(self):
        self.push(self.take_line() + b"\r\n")


class Pattern:
    """A producer of so many bytes."""

    def __init__(self, size):
        self.left = size

    def more(self):
        data = BLOCK if self.left >= len(BLOCK) else BLOCK[: self.left]
        self.left -= len(data)
        return data


class Download(Chat):
    """Sends as many bytes as a line asks for."""

    def found_terminator(self):
        self.push_with_producer(Pattern(int(self.take_line())))


class Upload(Chat):
    """Receives as many bytes as a line announces, and says so."""

    receiving = False

    def collect_incoming_data(self, data):
        if not self.receiving:
            self.parts.append(data)

    def found_terminator(self):
        if self.receiving:
            self.push(DONE)
            self.set_terminator(b"\r\n")
        else:
            self.set_terminator(int(self.take_line()))
        self.receiving = not self.receiving


HANDLERS = {
    ("echo", "direct"): DirectEcho,
    ("echo", "tutorial"): TutorialEcho,
    ("echo", "with-send"): WithSendEcho,
    ("greet", "direct"): DirectGreeter,
    ("greet", "tutorial"): TutorialGreeter,
    ("broadcast", "tutorial"): Peer,
    ("answered", "tutorial"): Answered,
    ("relay", "tutorial"): Relay,
    ("line", "chat"): Chat,
    ("download", "chat"): Download,
    ("upload", "chat"): Upload,
}


class Server(asyncore.dispatcher):
    """The listening socket: makes a handler of each client."""

    def __init__(self, handler, options):
        super().__init__()
        self.handler = handler
        self.size = options.size
        self.no_delay = options.no_delay
        self.upstream = options.upstream
        self.pool = Pool() if options.protocol == "answered" else None
        self.peers = set()
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.bind(("127.0.0.1", 0))
        self.listen(BACKLOG)

    def writable(self):
        return False

    def handle_accepted(self, sock, addr):
        if self.no_delay:
            set_no_delay(sock)
        self.handler(sock, self)


def set_timers(count):
    """Let so many timers wait, of which none comes to its end."""
    import fastcore

    loop = fastcore.get_loop()
    for number in range(count):
        loop.call_later(3600 + number / 1000, print)


def make_parser() -> argparse.ArgumentParser:
    """The arguments."""
    arguments = parser("Servers in the style of asyncore.", more=("answered", "relay"))
    arguments.add_argument("--handler", choices=sorted({handler for _, handler in HANDLERS}))
    arguments.add_argument("--receive", type=int, default=RECEIVE, metavar="BYTES")
    arguments.add_argument("--pending-timers", type=int, default=0, metavar="N")
    return arguments


def make_server(options):
    """A server that listens; a protocol has a handler that is usual for it."""
    global RECEIVE
    RECEIVE = options.receive
    if options.handler is None:
        options.handler = next(h for protocol, h in HANDLERS if protocol == options.protocol)
    handler = HANDLERS.get((options.protocol, options.handler))
    if handler is None:
        refuse(options, f"the handler {options.handler}")
    return Server(handler, options)


def main():
    """Serve until standard input closes."""
    options = make_parser().parse_args()
    server = make_server(options)
    if options.pending_timers:
        set_timers(options.pending_timers)
    announce(options, server.socket.getsockname()[1])
    asyncore.loop(use_poll=True)


if __name__ == "__main__":
    main()
