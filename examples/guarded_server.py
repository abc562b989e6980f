"""A server of lines with every deadline and limit, for the open network.

Who connects too often is told so and let go; who says nothing, takes nothing or sends too much
before `login NAME` is closed.  SIGTERM or Ctrl-C ends it well: nobody new, answers are finished.
Try it with `nc 127.0.0.1 PORT` and the commands `login`, `say`, `count` and `quit`.
"""

import argparse
import logging
import socket

from fastcore import asynchat, asyncore
from fastcore.deadlines import Deadlines
from fastcore.draining import drain_on_signals
from fastcore.flow import FlowControl
from fastcore.limits import AcceptLimits, LoginLimit
from fastcore.logs import use_logging


class Session(Deadlines, LoginLimit, FlowControl, asynchat.async_chat):
    """One client."""

    login_timeout = 10.0
    idle_timeout = 300.0
    write_timeout = 30.0
    max_bytes_before_login = 1000
    ac_max_line_size = 4000
    high_water = 1 << 16
    refusal = b"421 log in first\r\n"

    def __init__(self, sock, server):
        super().__init__(sock)
        self.server = server
        self.name = None
        self.line = []
        self.set_terminator(b"\n")
        self.start_deadline("login")
        self.answer("220 log in, please")

    def answer(self, text):
        """Send one line."""
        self.push(text.encode() + b"\r\n")

    def collect_incoming_data(self, data):
        self.line.append(data)

    def found_terminator(self):
        text = b"".join(self.line).decode("utf-8", "replace").strip()
        self.line.clear()
        command, _, rest = text.partition(" ")
        if command == "quit":
            self.answer("221 goodbye")
            self.close_when_done()
        elif command == "login" and rest:
            self.name = rest
            self.login_done()  # the limit of bytes is over
            self.stop_deadline("login")
            self.answer(f"230 hello {rest}")
        elif self.name is None:
            self.answer("530 log in first")
        elif command == "say":
            for session in list(self.server.sessions):
                session.answer(f"250 {self.name}: {rest}")
        elif command == "count" and rest.isdigit():
            # As much as the client cares to read: it is made only as fast as that is read.
            self.push_with_producer(Numbers(int(rest)))
        else:
            self.answer("500 what?")

    def handle_timeout(self, kind):
        self.answer(f"421 {kind} timeout")
        super().handle_timeout(kind)

    def handle_line_too_long(self):
        self.answer("500 line too long")
        super().handle_line_too_long()

    # Who does not read the answers is not asked for more questions.
    def pause_writing(self):
        self.pause_reading()

    def resume_writing(self):
        self.resume_reading()

    def close(self):
        self.server.sessions.discard(self)
        super().close()


class Numbers:
    """Produces the lines 1 to `last`."""

    def __init__(self, last):
        self.next, self.last = 1, last

    def more(self):
        first, self.next = self.next, min(self.next + 1000, self.last + 1)
        return b"".join(b"%d\r\n" % number for number in range(first, self.next))


class Server(AcceptLimits, asyncore.dispatcher):
    """Accepts clients within the limits."""

    max_connections = 1000
    max_connections_per_address = 50
    max_accepts_per_second = 200
    refusal = b"421 too many connections\r\n"

    def __init__(self, host, port):
        super().__init__()
        self.sessions = set()
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.set_reuse_addr()
        self.bind((host, port))
        self.listen(128)

    def handle_accepted(self, sock, addr):
        self.sessions.add(Session(sock, self))


def main():
    """Serve until a signal comes, and then until all answers have left."""
    parser = argparse.ArgumentParser(description="A server of lines that guards itself.")
    parser.add_argument("port", nargs="?", type=int, default=0, help="default: any free port")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--idle", type=float, default=300.0, help="seconds")
    parser.add_argument("--login", type=float, default=10.0, help="seconds")
    parser.add_argument("--write", type=float, default=30.0, help="seconds")
    parser.add_argument("--drain", type=float, default=30.0, help="seconds")
    parser.add_argument("--each", type=int, default=50, help="connections of one address")
    options = parser.parse_args()
    Session.idle_timeout = options.idle
    Session.login_timeout = options.login
    Session.write_timeout = options.write
    Server.max_connections_per_address = options.each
    logging.basicConfig(level=logging.INFO)
    use_logging()
    server = Server(options.host, options.port)
    host, port = server.socket.getsockname()
    with drain_on_signals(timeout=options.drain):
        print(f"listening on {host} port {port}", flush=True)
        asyncore.loop()


if __name__ == "__main__":
    main()
