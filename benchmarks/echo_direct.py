"""The echo server of the examples with a handler that sends at once.

`handle_read` receives and sends, nothing is buffered in the program: what is
left is the cost of the loop itself.  `demo.py --program` measures it, with the
same arguments and first line as examples/echo_server.py.
"""

import argparse
import asyncore
import socket


class DirectHandler(asyncore.dispatcher):
    """One client; a request is taken to fit into the socket's buffer."""

    def writable(self):
        return False

    def handle_read(self):
        data = self.recv(8192)
        if data:
            self.send(data)

    def handle_close(self):
        self.close()


class DirectServer(asyncore.dispatcher):
    """Makes a DirectHandler of each client."""

    def __init__(self):
        super().__init__()
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.bind(("127.0.0.1", 0))
        self.listen(1024)

    def handle_accepted(self, sock, addr):
        DirectHandler(sock)


def main():
    """Serve until killed."""
    parser = argparse.ArgumentParser(description="Send back what clients send, at once.")
    parser.add_argument("--poll", action="store_true", help="loop(use_poll=True)")
    options = parser.parse_args()
    server = DirectServer()
    host, port = server.socket.getsockname()
    print(f"listening on {host} port {port}", flush=True)
    asyncore.loop(use_poll=options.poll)


if __name__ == "__main__":
    main()
