"""An asyncore server inside an asyncio program.

The line server is a classic one, on `async_chat`.  The rest of the program is
asyncio's: a small web server on its streams, which tells what the line server
has done, and which sends a line to every client.  Both run in one thread, so
that they share what they like.  Try it with `nc 127.0.0.1 PORT` and a browser.
"""

import argparse
import asyncio
import socket
import urllib.parse

from fastcore import aio, asynchat, asyncore


class LineChannel(asynchat.async_chat):
    """One client: each of its lines goes to all clients."""

    def __init__(self, sock, server):
        super().__init__(sock)
        self.server = server
        self.line = []
        self.set_terminator(b"\n")

    def collect_incoming_data(self, data):
        self.line.append(data)

    def found_terminator(self):
        line = b"".join(self.line)
        self.line.clear()
        self.server.say(line)

    def handle_close(self):
        self.server.clients.discard(self)
        self.close()


class LineServer(asyncore.dispatcher):
    """Accepts clients and knows them all."""

    def __init__(self, host):
        super().__init__()
        self.clients = set()
        self.said = 0
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.set_reuse_addr()
        self.bind((host, 0))
        self.listen(128)

    def handle_accepted(self, sock, addr):
        self.clients.add(LineChannel(sock, self))

    def say(self, line):
        """Send a line to every client."""
        self.said += 1
        for client in self.clients:
            client.push(line + b"\n")


class Website:
    """Answers `GET /` with what has happened, and says what is behind `GET /say?`."""

    def __init__(self, lines):
        self.lines = lines

    async def answer(self, reader, writer):
        """Answer one request."""
        request = await reader.readuntil(b"\r\n\r\n")
        path = request.split()[1].decode()
        if path.startswith("/say?"):
            self.lines.say(urllib.parse.unquote_plus(path[5:]).encode())
        text = b"%d clients, %d lines\n" % (len(self.lines.clients), self.lines.said)
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + text)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


async def serve(host):
    """Serve until interrupted."""
    lines = LineServer(host)
    web = await asyncio.start_server(Website(lines).answer, host, 0)
    print("listening on {} port {}".format(*lines.socket.getsockname()), flush=True)
    print("website on {} port {}".format(*web.sockets[0].getsockname()), flush=True)
    with aio.attach() as attachment:
        async with web:
            await attachment.wait()


def main():
    """Read the command line, and serve."""
    parser = argparse.ArgumentParser(description="An asyncore server in an asyncio program.")
    parser.add_argument("--host", default="127.0.0.1")
    options = parser.parse_args()
    try:
        asyncio.run(serve(options.host))
    except KeyboardInterrupt:
        pass
    finally:
        asyncore.close_all()


if __name__ == "__main__":
    main()
