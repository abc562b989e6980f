"""What every server here does besides serving: its arguments, its port, its end.

The protocols:

echo       what comes is sent back
line       a line that ends in CRLF is sent back, with its CRLF
greet      a byte "+" for each new connection, then nothing
broadcast  "+" as above; each message of --size bytes from any peer goes to all peers
download   a line "N" CRLF is answered by N bytes of a pattern that repeats
upload     a line "N" CRLF and N bytes are answered by "OK" CRLF

and of some servers:

answered   what comes is sent back, by a pool of threads
relay      what comes is sent on to the server --upstream, and what that sends, back

It must not know any framework.
"""

from __future__ import annotations

import argparse
import os
import socket
import stat
import sys
import threading
from collections.abc import Iterable
from typing import NoReturn

PROTOCOLS = ("echo", "line", "greet", "broadcast", "download", "upload")
BACKLOG = 65535  # the system makes it as small as it must
GREETING = b"+"
DONE = b"OK\r\n"
# Byte i of a download is i % 251.  As a whole number of patterns, any piece may begin here.
BLOCK = bytes(range(251)) * 261


def parser(
    description: str, *, no_delay: bool = True, more: Iterable[str] = ()
) -> argparse.ArgumentParser:
    """The arguments that all servers take; --no-delay for those that do not always set it.

    `more` are protocols that this one knows besides.
    """
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--protocol", choices=(*PROTOCOLS, *more), default="echo")
    if "relay" in more:
        result.add_argument("--upstream", type=int, metavar="PORT", help="behind a relay")
    result.add_argument("--size", type=int, default=1024, help="bytes of a broadcast message")
    result.add_argument(
        "--busy-thread", action="store_true", help="compute in pure Python beside the loop"
    )
    if no_delay:
        result.add_argument("--no-delay", action="store_true", help="set TCP_NODELAY")
    return result


def set_no_delay(sock: socket.socket) -> None:
    """Let what is sent in pieces leave at once."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def refuse(options: argparse.Namespace, server: str) -> NoReturn:
    """End: this server cannot do that protocol sensibly."""
    print(f"{server} does not do the protocol {options.protocol}", file=sys.stderr)
    sys.exit(2)


def announce(options: argparse.Namespace, port: int, *, watch: bool = True) -> None:
    """Say where the server listens; start what runs beside it.

    With `watch` a thread, which blocks all the time and so costs nothing, ends the process when
    its standard input closes.
    """
    if watch and input_is_pipe():
        threading.Thread(target=end_with_input, daemon=True).start()
    if options.busy_thread:
        threading.Thread(target=compute, daemon=True).start()
    print(f"listening on 127.0.0.1 port {port}", flush=True)


def input_is_pipe() -> bool:
    """Whether standard input is a pipe or socket: a file or terminal does not end a server."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def end_with_input() -> None:
    """Wait for the end of standard input, then end the process."""
    while os.read(0, 4096):
        pass
    os._exit(0)


def compute() -> None:
    """Use the interpreter for ever."""
    number = 1
    while True:
        number = number * 31 % 65521
