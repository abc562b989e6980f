"""An echo server in the classic style: sends back whatever it receives.

The handler keeps a list of chunks it has yet to send; `writable` says whether
there are any.  The import is the standard library's own name, so the program
runs in three ways without a change:

    python -m fastcore run examples/echo_server.py     on fastcore
    python examples/echo_server.py                     on Python 3.11 and older
    python examples/echo_server.py                     with pyasyncore installed
"""

import argparse
import asyncore
import socket


class EchoHandler(asyncore.dispatcher):
    """One client."""

    def __init__(self, sock):
        super().__init__(sock)
        self.pending = []

    def writable(self):
        return bool(self.pending)

    def handle_read(self):
        data = self.recv(8192)
        if data:
            self.pending.append(data)

    def handle_write(self):
        chunk = self.pending.pop(0)
        sent = self.send(chunk)
        if sent < len(chunk):
            self.pending.insert(0, chunk[sent:])

    def handle_close(self):
        self.close()


class EchoServer(asyncore.dispatcher):
    """The listening socket: makes an EchoHandler of each client."""

    def __init__(self, host, port):
        super().__init__()
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.set_reuse_addr()
        self.bind((host, port))
        self.listen(1024)

    def handle_accepted(self, sock, addr):
        EchoHandler(sock)


def main():
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Send back whatever clients send.")
    parser.add_argument("port", nargs="?", type=int, default=0, help="default: any free port")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument(
        "--poll", action="store_true", help="loop(use_poll=True): more than 1024 descriptors"
    )
    options = parser.parse_args()
    server = EchoServer(options.host, options.port)
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
