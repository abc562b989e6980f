"""What must not pass a type check: each line is wrong in the way its comments say.

For type checkers alone, which complain of a comment that hides nothing: a name that has lost its
types fails here.  Not to be run.
"""

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import socket
from typing import Any

import fastcore
from fastcore import asynchat, asyncore


class Server(asyncore.dispatcher):
    """Overrides that the loop could not call."""

    def readable(self) -> str:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return "yes"

    def handle_read(self, size: int) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self.recv(size)

    def handle_accepted(self, sock: socket.socket) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        sock.close()


class Chat(asynchat.async_chat):
    """Overrides that the input could not call."""

    ac_in_buffer_size = "large"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    def collect_incoming_data(self, data: str) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        print(data)


def channels(server: Server, chat: Chat) -> None:
    server.recv("8192")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    server.send("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    server.bind(8007)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    server.connect(8007)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    server.listen()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    print(server.socket.no_such)  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue]
    print(server.no_such)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    asyncore.loop(map="channels")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    asyncore.dispatcher(map={"name": server})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    chat.set_terminator(1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    chat.push("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    text: str = chat.recv(1)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(text)


def loops(f: Any) -> None:
    loop = fastcore.get_loop("channels")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    loop.call_later("x", f)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    loop.call_soon("no function")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    loop.call_at(f)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    loop.call_soon(f).cancel("now")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    loop.add_signal_handler("SIGINT", f)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    fastcore.Loop(pollers="epoll")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    fastcore.Loop(interest="eager")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    print(fastcore.no_such_name)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
