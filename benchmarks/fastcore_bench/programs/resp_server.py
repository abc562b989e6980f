"""A small key-value server that speaks RESP, the protocol of redis, on `async_chat`.

It knows PING, ECHO, SET, GET, CONFIG GET and QUIT, as arrays of strings or as inline commands,
any number of them in flight: enough for redis-cli and redis-benchmark.  The terminator is a line's
end or, for the strings in an array, a number of bytes.  It trusts its clients to read what they
ask for.  The imports are the standard library's own names: see echo_server.py.

    python -m fastcore run examples/resp_server.py 6380
    redis-benchmark -p 6380 -t ping,set,get -P 16
"""

import argparse
import asynchat
import asyncore
import socket

MAX_LINE = 65_536  # bytes of an inline command, or of a number
MAX_ARGUMENTS = 1024
MAX_STRING = 64 * 1024 * 1024  # bytes
SETTINGS = {b"save": b"", b"appendonly": b"no"}  # what redis-benchmark asks for

OK = b"+OK\r\n"
PONG = b"+PONG\r\n"
NOTHING = b"$-1\r\n"


class ProtocolError(Exception):
    """What the client sent is not RESP: nothing that follows can be understood."""


def string(data):
    """Encode a string."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


def array(items):
    """Encode an array of strings."""
    return b"*%d\r\n" % len(items) + b"".join(map(string, items))


def error(text):
    """Encode an error."""
    return f"-ERR {text}\r\n".encode("ascii", "replace")


def printable(data):
    """What a client sent, quoted, as a part of an error: one line of plain text."""
    return ascii(data[:64].decode("latin-1"))


def number(data, largest, what):
    """The number in a line such as *3 or $11."""
    if not data.isdigit() or len(data) > 10 or int(data) > largest:
        raise ProtocolError(f"invalid {what}")
    return int(data)


class RespChannel(asynchat.async_chat):
    """One client."""

    def __init__(self, sock, store):
        super().__init__(sock)
        # Several small answers to one segment: none of them may wait for an acknowledgement.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.store = store
        self.received = []
        self.line_size = 0
        self.arguments = []
        self.missing = 0  # strings that the array still lacks
        self.in_string = False
        self.ending = False  # nothing more is read from this client
        self.set_terminator(b"\r\n")

    def collect_incoming_data(self, data):
        if self.ending:
            return
        self.received.append(data)
        if not self.in_string:
            self.line_size += len(data)
            if self.line_size > MAX_LINE:
                self.received.clear()
                self.refuse("too big inline request")

    def found_terminator(self):
        if self.ending:
            return
        data = b"".join(self.received)
        self.received.clear()
        self.line_size = 0
        try:
            if self.in_string:
                self.end_string(data)
            elif self.missing:
                self.begin_string(data)
            elif data.startswith(b"*"):
                self.missing = number(data[1:], MAX_ARGUMENTS, "multibulk length")
            elif words := data.split():
                self.execute(words)
        except ProtocolError as reason:
            self.refuse(reason)

    def begin_string(self, line):
        """A line such as $11: that many bytes follow."""
        if not line.startswith(b"$"):
            raise ProtocolError(f"expected '$', got {printable(line[:1])}")
        self.in_string = True
        # Its line end counts too, so that there is always something to wait for.
        self.set_terminator(number(line[1:], MAX_STRING, "bulk length") + 2)

    def end_string(self, data):
        """One string is complete, and perhaps the whole command."""
        if not data.endswith(b"\r\n"):
            raise ProtocolError("expected the end of a line after a bulk string")
        self.in_string = False
        self.set_terminator(b"\r\n")
        self.arguments.append(data[:-2])
        self.missing -= 1
        if not self.missing:
            arguments, self.arguments = self.arguments, []
            self.execute(arguments)

    def refuse(self, reason):
        """Say what is wrong, and close once that has been sent."""
        self.push(error(f"Protocol error: {reason}"))
        self.end()

    def end(self):
        """Close once all answers have been sent; ignore what comes in the meantime."""
        self.ending = True
        self.set_terminator(None)
        self.close_when_done()

    # the commands

    def execute(self, arguments):
        """Answer one command."""
        name, *rest = arguments
        method, fewest, most = COMMANDS.get(name.upper(), (None, 0, 0))
        if method is None:
            self.push(error(f"unknown command {printable(name)}"))
        elif not fewest <= len(rest) <= most:
            self.push(error(f"wrong number of arguments for {printable(name.lower())} command"))
        else:
            method(self, *rest)

    def do_ping(self, text=None):
        """PING [text]"""
        self.push(PONG if text is None else string(text))

    def do_echo(self, text):
        """ECHO text"""
        self.push(string(text))

    def do_set(self, key, value):
        """SET key value"""
        self.store[key] = value
        self.push(OK)

    def do_get(self, key):
        """GET key"""
        value = self.store.get(key)
        self.push(NOTHING if value is None else string(value))

    def do_config(self, action, name):
        """CONFIG GET name"""
        if action.upper() != b"GET":
            self.push(error("only CONFIG GET is known here"))
            return
        name = name.lower()
        self.push(array([name, SETTINGS[name]] if name in SETTINGS else []))

    def do_quit(self):
        """QUIT"""
        self.push(OK)
        self.end()


# For each name the method, and how many arguments it takes.
COMMANDS = {
    b"PING": (RespChannel.do_ping, 0, 1),
    b"ECHO": (RespChannel.do_echo, 1, 1),
    b"SET": (RespChannel.do_set, 2, 2),
    b"GET": (RespChannel.do_get, 1, 1),
    b"CONFIG": (RespChannel.do_config, 2, 2),
    b"QUIT": (RespChannel.do_quit, 0, 0),
}


class RespServer(asyncore.dispatcher):
    """Accepts clients, and holds the values that they all share."""

    def __init__(self, host, port):
        super().__init__()
        self.store = {}
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.set_reuse_addr()
        self.bind((host, port))
        self.listen(1024)

    def handle_accepted(self, sock, addr):
        RespChannel(sock, self.store)


def main():
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Keep values for clients that speak RESP.")
    parser.add_argument("port", nargs="?", type=int, default=0, help="default: any free port")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument(
        "--poll", action="store_true", help="loop(use_poll=True): more than 1024 descriptors"
    )
    options = parser.parse_args()
    server = RespServer(options.host, options.port)
    host, port = server.socket.getsockname()
    print(f"listening on {host} port {port}", flush=True)
    try:
        asyncore.loop(use_poll=options.poll)
    except KeyboardInterrupt:
        pass
    finally:
        asyncore.close_all()


if __name__ == "__main__":
    main()
