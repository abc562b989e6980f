"""Runs a program of channel operations on an asyncore and tells what was called: JSON in and out.

Needs nothing but the standard library, because it also runs under an interpreter whose asyncore
is the standard library's:

    python differential_programs.py     reads a program a line, writes its trace a line

A program is {"fillers": n, "steps": [step, ...]}; a step is {"stimuli": [[what, channel, ...]],
"scripts": [[channel, "read" or "write", action]]}.  After the stimuli of a step the loop turns
until nothing happens any more.  An action is what a handler does when it runs next:
["close", channel], ["reopen", channel], ["open"], ["want_read", channel, bool],
["want_write", channel, bool], ["write", channel, n], ["half_close", channel], ["nest"], ["raise"].
Channels are named by the order they were opened in, modulo how many there are; five are open from
the beginning, and the third and the fourth are connected with each other.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from typing import Any

_fcntl: Any
try:
    import fcntl as _fcntl
except ImportError:  # Windows
    _fcntl = None

MOST_CHANNELS = 12
MOST_TURNS = 200


class Stage:
    """The channels of one program while it runs."""

    def __init__(self, asyncore: Any) -> None:
        self.asyncore = asyncore
        self.map: dict[int, Any] = {}
        self.channels: list[Any] = []
        self.trace: list[list[Any]] = []
        self.scripts: dict[tuple[int, str], list[Any]] = {}
        self.fillers: list[Any] = []
        self.nested = False
        self.kind = channel_class(asyncore)

    def open(self, linked: bool = False) -> None:
        """A channel with a plain socket as its peer, or two channels that are each other's."""
        if len(self.channels) + 1 + linked > MOST_CHANNELS:
            return
        near, far = socket.socketpair()
        far.setblocking(False)
        self.channels.append(self.kind(self, len(self.channels), near, None if linked else far))
        if linked:
            self.channels.append(self.kind(self, len(self.channels), far, None))

    def reopen(self, channel: Any) -> None:
        """Close, and open another channel under the same descriptor, where one can choose it."""
        number = channel._fileno
        if number is None or len(self.channels) >= MOST_CHANNELS:
            return
        channel.close()
        near, far = socket.socketpair()
        far.setblocking(False)
        if near.fileno() != number and _fcntl is not None:
            same = _fcntl.fcntl(near.fileno(), _fcntl.F_DUPFD_CLOEXEC, number)
            near.close()
            near = socket.socket(fileno=same)
        self.channels.append(self.kind(self, len(self.channels), near, far))

    def act(self, what: str, *args: Any) -> None:
        """Do one action or stimulus; nothing where its channel is closed."""
        if what == "open":
            self.open(*args)
            return
        if what == "nest":
            if not self.nested:
                self.nested = True
                try:
                    self.asyncore.loop(timeout=0.0, map=self.map, count=1)
                finally:
                    self.nested = False
            return
        if what == "raise":
            raise ValueError("as the program says")
        channel = self.channels[args[0] % len(self.channels)]
        if what == "peer_write" and channel.peer is not None:
            with contextlib.suppress(OSError):
                channel.peer.send(letters(args[1]))
        elif what == "peer_half_close" and channel.peer is not None:
            with contextlib.suppress(OSError):
                channel.peer.shutdown(socket.SHUT_WR)
        elif what == "peer_close" and channel.peer is not None:
            channel.peer.close()
        elif channel._fileno is None:
            return
        elif what == "close":
            channel.close()
        elif what == "reopen":
            self.reopen(channel)
        elif what == "want_read":
            channel.wants_read = args[1]
        elif what == "want_write":
            channel.wants_write = args[1]
        elif what == "write":
            channel.waiting += letters(args[1])
        elif what == "half_close":
            with contextlib.suppress(OSError):
                channel.socket.shutdown(socket.SHUT_WR)

    def run(self, program: dict[str, Any]) -> list[list[Any]]:
        try:
            for _ in range(program["fillers"]):
                near, far = socket.socketpair()
                self.fillers.append(self.kind(self, -1, near, far))
            for linked in (False, False, True, False):
                self.open(linked)
            for step in program["steps"]:
                self.trace.append(["step"])
                self.scripts = {
                    (channel, event): action for channel, event, action in step["scripts"]
                }
                for stimulus in step["stimuli"]:
                    self.act(*stimulus)
                self.turn_until_quiet()
            return self.trace
        finally:
            for channel in [*self.channels, *self.fillers]:
                channel.close()
                if channel.peer is not None:
                    channel.peer.close()

    def turn_until_quiet(self) -> None:
        """Turn until two turns in a row call no handler; then see what the peers got."""
        quiet = 0
        for _ in range(MOST_TURNS):
            before = len(self.trace)
            self.asyncore.loop(timeout=0.0, map=self.map, count=1)
            quiet = quiet + 1 if len(self.trace) == before else 0
            if quiet == 2:
                break
        else:
            self.trace.append(["never quiet"])
        for channel in self.channels:
            if channel.peer is not None and channel.peer.fileno() >= 0:
                with contextlib.suppress(OSError):
                    data = channel.peer.recv(1 << 20)
                    self.trace.append(["peer", channel.name, data.decode()])


def letters(size: int) -> bytes:
    return bytes(97 + position % 26 for position in range(size))


def channel_class(asyncore: Any) -> Any:
    class Channel(asyncore.dispatcher):  # type: ignore[misc]
        def __init__(self, stage: Stage, name: int, sock: socket.socket, peer: Any) -> None:
            self.stage, self.name, self.peer = stage, name, peer
            self.waiting = b""
            self.wants_read = name >= 0
            self.wants_write = True
            super().__init__(sock, stage.map)

        def readable(self) -> bool:
            return self.wants_read

        def writable(self) -> bool:
            return bool(self.wants_write and self.waiting)

        def note(self, event: str, *details: Any) -> None:
            self.stage.trace.append([event, self.name, *details])

        def perform(self, event: str) -> None:
            action = self.stage.scripts.pop((self.name, event), None)
            if action is not None:
                self.stage.act(*action)

        def handle_read(self) -> None:
            try:
                data = self.recv(65536)
            except BlockingIOError:
                self.note("nothing to read")
                return
            if data:
                self.note("read", data.decode())
                self.perform("read")

        def handle_write(self) -> None:
            if not self.waiting:
                self.note("nothing to write")
                return
            sent = self.send(self.waiting)
            if self._fileno is None:
                return  # send() has met a peer that is gone
            self.note("write", self.waiting[:sent].decode())
            self.waiting = self.waiting[sent:]
            self.perform("write")

        def handle_expt(self) -> None:
            self.note("expt")

        def handle_close(self) -> None:
            self.note("close")
            self.close()

        def handle_error(self) -> None:
            self.note("error", type(sys.exc_info()[1]).__name__)
            self.close()

    return Channel


def run(asyncore: Any, program: dict[str, Any]) -> list[list[Any]]:
    """Run `program` on the module `asyncore`; return what was called, in order."""
    return Stage(asyncore).run(program)


def main() -> None:
    import asyncore

    print(json.dumps([asyncore.__file__, list(sys.version_info)]), flush=True)
    for line in sys.stdin:
        print(json.dumps(run(asyncore, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
