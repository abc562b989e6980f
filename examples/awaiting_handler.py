"""A line server whose handler awaits.

Each line is a name; the answer comes from a directory that can only be asked
with `await`, as a database driver or an HTTP client would be.  Here it is a
second server, on asyncio's streams, which takes its time.  A client may send
many lines at once: their answers come in order, and those of other clients do
not wait for them.
"""

import argparse
import asyncio
import socket

from fastcore import aio, asynchat, asyncore


class Directory:
    """Asks a server that is slow to answer."""

    def __init__(self, address):
        self.address = address

    async def look_up(self, name):
        """Return what the directory says of a name."""
        reader, writer = await asyncio.open_connection(*self.address)
        writer.write(name + b"\n")
        answer = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return answer


class Asker(asynchat.async_chat):
    """One client: the answer to each line is awaited."""

    def __init__(self, sock, directory):
        super().__init__(sock)
        self.directory = directory
        self.line = []
        self.turn = asyncio.Lock()  # the answers come in the order of the questions
        self.set_terminator(b"\n")

    def collect_incoming_data(self, data):
        self.line.append(data)

    def found_terminator(self):
        name = b"".join(self.line).strip()
        self.line.clear()
        aio.create_task(self.answer(name), channel=self)

    async def answer(self, name):
        """Look up a name and send what was found."""
        async with self.turn:
            if not name:
                raise ValueError("a name is needed")  # goes to handle_error()
            self.push(await self.directory.look_up(name))

    def handle_error(self):
        self.push(b"error\n")
        self.close_when_done()


class AskServer(asyncore.dispatcher):
    """Accepts clients."""

    def __init__(self, host, directory):
        super().__init__()
        self.directory = directory
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.set_reuse_addr()
        self.bind((host, 0))
        self.listen(128)

    def handle_accepted(self, sock, addr):
        Asker(sock, self.directory)


def slow_directory(delay):
    """Return what answers one question, after a while."""

    async def answer(reader, writer):
        name = (await reader.readline()).strip().decode()
        await asyncio.sleep(delay)
        writer.write(f"{name} has {len(name)} letters\n".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    return answer


async def serve(host, delay):
    """Serve until interrupted."""
    directory = await asyncio.start_server(slow_directory(delay), host, 0)
    server = AskServer(host, Directory(directory.sockets[0].getsockname()))
    async with directory:
        with aio.attach():
            print("listening on {} port {}".format(*server.socket.getsockname()), flush=True)
            await aio.closed(server)


def main():
    """Read the command line, and serve."""
    parser = argparse.ArgumentParser(description="A line server whose handler awaits.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--delay", type=float, default=0.05, help="of the directory, in seconds")
    options = parser.parse_args()
    try:
        asyncio.run(serve(options.host, options.delay))
    except KeyboardInterrupt:
        pass
    finally:
        asyncore.close_all()


if __name__ == "__main__":
    main()
