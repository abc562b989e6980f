"""A server that answers commands line by line, on `async_chat`.

`async_chat` collects what arrives and calls `found_terminator` once a line is
complete; `push` sends without waiting.  Try it with `nc 127.0.0.1 PORT` and
the command `help`.
"""

import argparse
import socket

from fastcore import asynchat, asyncore


class LineChannel(asynchat.async_chat):
    """One client: each line is a command with arguments."""

    def __init__(self, sock, server):
        super().__init__(sock)
        self.server = server
        self.line = []
        self.set_terminator(b"\n")
        self.answer("hello, try help")

    def collect_incoming_data(self, data):
        self.line.append(data)

    def found_terminator(self):
        text = b"".join(self.line).decode("utf-8", "replace")
        self.line.clear()
        name, _, rest = text.strip().partition(" ")
        if not name:
            return
        command = getattr(self, "do_" + name.lower(), None)
        if command is None:
            self.answer(f"error: no command {name}")
        else:
            command(rest.strip())

    def answer(self, text):
        """Send one line."""
        self.push(text.encode() + b"\n")

    def handle_close(self):
        self.server.clients.discard(self)
        self.close()

    # the commands

    def do_help(self, rest):
        """List the commands."""
        names = sorted(name[3:] for name in dir(self) if name.startswith("do_"))
        self.answer("commands: " + " ".join(names))

    def do_say(self, rest):
        """Send a line to every client, ourselves included."""
        for client in self.server.clients:
            client.answer(rest)

    def do_sum(self, rest):
        """Add numbers."""
        try:
            self.answer(f"{sum(map(int, rest.split()))}")
        except ValueError:
            self.answer("error: sum needs whole numbers")

    def do_clients(self, rest):
        """Count the clients."""
        self.answer(f"{len(self.server.clients)}")

    def do_quit(self, rest):
        """Say goodbye; the connection closes once that has been sent."""
        self.answer("bye")
        self.server.clients.discard(self)
        self.close_when_done()

    def do_shutdown(self, rest):
        """End the server: no new clients, and goodbye to all there are."""
        self.server.close()
        for client in list(self.server.clients):
            client.do_quit("")


class LineServer(asyncore.dispatcher):
    """Accepts clients and knows them all."""

    def __init__(self, host, port):
        super().__init__()
        self.clients = set()
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.set_reuse_addr()
        self.bind((host, port))
        self.listen(128)

    def handle_accepted(self, sock, addr):
        self.clients.add(LineChannel(sock, self))


def main():
    """Serve until interrupted or told to shut down."""
    parser = argparse.ArgumentParser(description="A server that answers commands.")
    parser.add_argument("port", nargs="?", type=int, default=0, help="default: any free port")
    parser.add_argument("--host", default="127.0.0.1")
    options = parser.parse_args()
    server = LineServer(options.host, options.port)
    host, port = server.socket.getsockname()
    print(f"listening on {host} port {port}", flush=True)
    try:
        asyncore.loop()
    except KeyboardInterrupt:
        pass
    finally:
        asyncore.close_all()


if __name__ == "__main__":
    main()
