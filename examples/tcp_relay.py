"""A relay of TCP connections: what comes to one port goes on to another host.

What waits is bounded: a peer that does not read stops the one that sends, whatever its size.  The
end of one side's output is passed on, and the other may go on; a reset closes both.
Try it with `python tcp_relay.py example.org 80`, and a browser or `nc` on the port it prints.
"""

import argparse
import logging
import socket

from fastcore import asyncore
from fastcore.deadlines import Deadlines
from fastcore.draining import drain_on_signals
from fastcore.flow import relay
from fastcore.logs import use_logging


class End(Deadlines, asyncore.dispatcher):
    """One of the two connections."""

    connect_timeout = 10.0
    idle_timeout = 600.0
    write_timeout = 60.0

    def handle_connect(self):
        pass

    def handle_close(self):
        self.close()


class Listener(asyncore.dispatcher):
    """Accepts connections, and makes one to the target for each."""

    def __init__(self, address, target, limit):
        super().__init__()
        self.target = target
        self.limit = limit
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.set_reuse_addr()
        self.bind(address)
        self.listen(128)

    def handle_accepted(self, sock, addr):
        near, far = End(sock), End()
        far.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            far.connect(self.target)
        except OSError:
            far.handle_error()
            near.close()
            return
        relay(near, far, self.limit)


def main():
    """Relay until a signal comes."""
    parser = argparse.ArgumentParser(description="A relay of TCP connections.")
    parser.add_argument("host", help="where to")
    parser.add_argument("port", type=int)
    parser.add_argument("--listen", type=int, default=0, help="the port; default: any free one")
    parser.add_argument("--limit", type=int, default=65536, help="bytes that wait, each way")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    use_logging()
    target = (socket.gethostbyname(options.host), options.port)
    listener = Listener(("127.0.0.1", options.listen), target, options.limit)
    host, port = listener.socket.getsockname()
    with drain_on_signals(timeout=10.0):
        print(f"listening on {host} port {port}", flush=True)
        asyncore.loop()


if __name__ == "__main__":
    main()
