"""Servers on asyncio or a loop in its place, uvloop or rloop: as Protocols or with streams.

All three set TCP_NODELAY by themselves.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
from collections.abc import Awaitable, Callable
from typing import ClassVar, TypeAlias

from serving import BACKLOG, BLOCK, DONE, GREETING, announce, parser, refuse

LOOPS = ("asyncio", "uvloop", "rloop")  # libraries that have a new_event_loop()

# ---- Protocols ------------------------------------------------------------


class Echo(asyncio.Protocol):
    """Sends back what comes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Lines(Echo):
    """Sends back each line, parsed here."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer + data if self.buffer else data
        start = 0
        while (end := buffer.find(b"\r\n", start)) >= 0:
            line = buffer[start:end]
            start = end + 2
            self.line_received(line)
        self.buffer = buffer[start:]

    def line_received(self, line: bytes) -> None:
        """Answer one line."""
        self.transport.write(line + b"\r\n")


class Greeter(Echo):
    """Greets, and ignores what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(GREETING)

    def data_received(self, data: bytes) -> None:
        pass


class Peer(Greeter):
    """One of many that get each other's messages."""

    transports: ClassVar[set[asyncio.Transport]] = set()

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.message = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transports.add(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transports.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        self.message += data
        while len(self.message) >= self.size:
            message, self.message = self.message[: self.size], self.message[self.size :]
            for transport in self.transports:
                transport.write(message)


class Download(Lines):
    """Sends as many bytes as a line asks for, as fast as the transport wants them."""

    left = 0
    paused = False

    def line_received(self, line: bytes) -> None:
        self.left = int(line)
        self.send_more()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.send_more()

    def send_more(self) -> None:
        """Write until the transport has enough."""
        while self.left and not self.paused:
            data = BLOCK if self.left >= len(BLOCK) else BLOCK[: self.left]
            self.left -= len(data)
            self.transport.write(data)


class Upload(Echo):
    """Receives as many bytes as a line announces, and says so."""

    line = b""
    left = 0

    def data_received(self, data: bytes) -> None:
        if not self.left:
            self.line, end, data = (self.line + data).partition(b"\r\n")
            if not end:
                return
            self.left = int(self.line)
            self.line = b""
        self.left -= len(data)
        if not self.left:
            self.transport.write(DONE)


class Relay(Echo):
    """Passes on what comes to the server behind it, once it is connected to that."""

    upstream = 0  # the port of that server, for all
    other: asyncio.Transport | None = None
    early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.connecting = asyncio.ensure_future(self.connect())

    async def connect(self) -> None:
        """Make the other half of the pair."""
        loop = asyncio.get_running_loop()
        far, _ = await loop.create_connection(lambda: Far(self), "127.0.0.1", self.upstream)
        self.other = far
        far.write(self.early)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early += data
        else:
            self.other.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.close()


class Far(asyncio.Protocol):
    """The half of a relay that leads to the server behind it."""

    def __init__(self, near: Relay) -> None:
        self.near = near.transport

    def data_received(self, data: bytes) -> None:
        self.near.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.near.close()


HANDLERS = {
    "echo": Echo,
    "line": Lines,
    "greet": Greeter,
    "broadcast": Peer,
    "download": Download,
    "upload": Upload,
    "relay": Relay,
}

# ---- streams --------------------------------------------------------------

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter


async def echo(reader: Reader, writer: Writer) -> None:
    """Send back what comes."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def lines(reader: Reader, writer: Writer) -> None:
    """Send back each line."""
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()


async def greet(reader: Reader, writer: Writer) -> None:
    """Greet, and ignore what comes."""
    writer.write(GREETING)
    while await reader.read(65536):
        pass


class Room:
    """All peers of a broadcast."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.writers: set[Writer] = set()

    async def peer(self, reader: Reader, writer: Writer) -> None:
        """Send each message of one peer to all of them."""
        writer.write(GREETING)
        self.writers.add(writer)
        try:
            while message := await reader.readexactly(self.size):
                for each in self.writers:
                    each.write(message)
                await writer.drain()
        finally:
            self.writers.discard(writer)


async def download(reader: Reader, writer: Writer) -> None:
    """Send as many bytes as a line asks for."""
    while line := await reader.readline():
        left = int(line)
        while left:
            data = BLOCK if left >= len(BLOCK) else BLOCK[:left]
            left -= len(data)
            writer.write(data)
            await writer.drain()


async def upload(reader: Reader, writer: Writer) -> None:
    """Receive as many bytes as a line announces, and say so."""
    while line := await reader.readline():
        left = int(line)
        while left:
            left -= len(await reader.read(min(left, 65536)))
        writer.write(DONE)
        await writer.drain()


Service: TypeAlias = Callable[[Reader, Writer], Awaitable[None]]


def closing(service: Service) -> Service:
    """Close the connection when the service ends or the client has gone."""

    async def serve(reader: Reader, writer: Writer) -> None:
        try:
            await service(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    return serve


# ---- the server -----------------------------------------------------------


async def listen(options: argparse.Namespace) -> asyncio.Server:
    """Start to listen, in the flavour that is asked for."""
    address = ("127.0.0.1", 0)
    if options.flavour == "protocol":
        Relay.upstream = options.upstream
        handler = HANDLERS[options.protocol]
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: handler(options.size), *address, backlog=BACKLOG)
    services: dict[str, Service] = {
        "echo": echo,
        "line": lines,
        "greet": greet,
        "broadcast": Room(options.size).peer,
        "download": download,
        "upload": upload,
    }
    service = closing(services[options.protocol])
    return await asyncio.start_server(service, *address, backlog=BACKLOG)


async def serve(options: argparse.Namespace) -> None:
    """Serve until standard input closes."""
    server = await listen(options)
    loop = asyncio.get_running_loop()
    for number in range(options.pending_timers):
        loop.call_later(3600 + number / 1000, print)
    announce(options, server.sockets[0].getsockname()[1])
    await loop.create_future()  # it serves already; rloop's serve_forever() would end that


def main() -> None:
    """Read the arguments and serve on the loop that is asked for."""
    arguments = parser("Servers on asyncio or the like.", no_delay=False, more=("relay",))
    arguments.add_argument("--flavour", choices=("protocol", "streams"), default="protocol")
    arguments.add_argument("--loop", choices=LOOPS, default="asyncio")
    arguments.add_argument("--pending-timers", type=int, default=0, metavar="N")
    options = arguments.parse_args()
    if options.flavour == "streams" and options.protocol == "relay":
        refuse(options, "a server with streams")
    importlib.import_module(options.loop).new_event_loop().run_until_complete(serve(options))


if __name__ == "__main__":
    main()
