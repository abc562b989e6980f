"""Counts the instructions that a request costs the C engine, and compares them with limits.

    python instructions.py              compares; the exit status is 1 where one rose
    python instructions.py --update     writes the counts as the new limits

callgrind counts the programs of counted.py, each with few requests and with many: the difference is
what requests cost, start-up and end cancel out.  What is counted is this Python's fastcore.  The
limits are in instructions.json, for some versions of Python on some machines; for others nothing is
compared.  A C type of a local variable that a .pxd forgets shows in nothing else than in these.

This file must not know how the engine works.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIMITS = HERE / "instructions.json"
TIMEOUT = 100  # seconds for one run; it takes five
TOLERANCE = 0.015  # of a limit
# A version of Python on a kind of machine: counts of others say nothing.
VERSION = ".".join(map(str, sys.version_info[:2]))
MACHINE = f"{platform.python_implementation()} {VERSION}, {platform.machine()}"
ECHO = b"x" * 1024
TWO_LINES = b"the first\r\nlast\r\n"


@dataclass(frozen=True)
class Counted:
    """One program of counted.py, and how it is made to work."""

    what: str
    program: str
    clients: int  # 0: it needs none
    few: int  # requests of the first run
    many: int  # and of the second one
    request: bytes = ECHO

    def count(self) -> float:
        """Return the instructions that a request costs."""
        few, many = (self.run(requests) for requests in (self.few, self.many))
        return (many - few) / (self.many - self.few)

    def run(self, requests: int) -> int:
        """Return the instructions of one run with so many requests."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "counted")
            line = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={file}"]
            line += [sys.executable, "-I", str(HERE / "counted.py"), self.program]
            if self.clients:
                self.drive(line, requests)
            else:
                with started([*line, str(requests)]) as process:
                    end(process)
            match = re.search(r"^(?:totals|summary): (\d+)", file.read_text(), re.MULTILINE)
            if match is None:
                raise SystemExit("instructions: callgrind wrote no totals")
            return int(match[1])

    def drive(self, line: list[str], requests: int) -> None:
        """Run a server, and be its clients."""
        with contextlib.ExitStack() as stack:
            pairs = [socket.socketpair() for _ in range(self.clients)]
            ours, theirs = zip(*pairs, strict=True)
            for one in ours:
                one.settimeout(TIMEOUT)
                stack.enter_context(one)
            reading, writing = os.pipe()
            numbers = [reading, *(one.fileno() for one in theirs)]
            self.send_all(ours)
            process = stack.enter_context(started([*line, *map(str, numbers)], numbers))
            os.close(reading)
            for one in theirs:
                one.close()
            stack.callback(os.close, writing)
            for position in range(requests // self.clients):
                for one in ours:
                    receive(one, len(self.request))
                if position + 1 < requests // self.clients:
                    self.send_all(ours)
                else:
                    for one in ours:
                        one.shutdown(socket.SHUT_RDWR)
                os.write(writing, b"\n")
            end(process)

    def send_all(self, ours: tuple[socket.socket, ...]) -> None:
        """Send a request on each connection."""
        for one in ours:
            one.sendall(self.request)


# With one connection the counts differ by two percent from run to run; these repeat.
COUNTED = (
    Counted("echo, recv/send", "direct", 40, 400, 4400),
    Counted("echo, tutorial's handler", "tutorial", 40, 400, 4400),
    Counted("two lines, async_chat", "lines", 40, 400, 4400, TWO_LINES),
    Counted("timer, set and cancelled", "cancelled", 0, 1000, 11000),
)


@contextlib.contextmanager
def started(line: list[str], numbers: Sequence[int] = ()) -> Iterator[subprocess.Popen[str]]:
    """A counted process, which ends with the block at the latest."""
    environment = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0", "FASTCORE_ENGINE": "c"}
    process = subprocess.Popen(
        line,
        pass_fds=numbers,
        env=environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def end(process: subprocess.Popen[str]) -> None:
    """Wait for the end of a counted process, and fail as it failed."""
    _, words = process.communicate(timeout=TIMEOUT)
    if process.returncode:
        raise SystemExit(f"instructions: what was counted has failed:\n{words}")


def receive(sock: socket.socket, size: int) -> None:
    """Read an answer of that many bytes."""
    while size:
        data = sock.recv(size)
        if not data:
            raise SystemExit("instructions: the server has closed a connection")
        size -= len(data)


def compare(counts: dict[str, int], limits: dict[str, int]) -> list[str]:
    """Return a line for each count that is over its limit."""
    return [
        f"{what}: {counts[what]:,} instructions, {counts[what] / limit - 1:.1%} more than {limit:,}"
        for what, limit in limits.items()
        if counts[what] > limit * (1 + TOLERANCE)
    ]


def main() -> None:
    """Count, and compare or write."""
    if shutil.which("valgrind") is None:
        raise SystemExit("instructions: this needs valgrind (Debian: the package valgrind)")
    with ThreadPoolExecutor(2) as executor:
        found = list(executor.map(Counted.count, COUNTED))
    counts = {one.what: round(count) for one, count in zip(COUNTED, found, strict=True)}
    for what, count in counts.items():
        print(f"{what:30} {count:8,}")
    known: dict[str, dict[str, int]] = json.loads(LIMITS.read_text()) if LIMITS.exists() else {}
    if "--update" in sys.argv[1:]:
        known[MACHINE] = counts
        LIMITS.write_text(json.dumps(known, indent=4, sort_keys=True) + "\n")
        print(f"these are the limits of {MACHINE} now")
    elif MACHINE not in known:
        print(f"there are no limits for {MACHINE}; there are for: {', '.join(known)}")
    elif risen := compare(counts, known[MACHINE]):
        print(*risen, sep="\n")
        raise SystemExit(
            "instructions: look for a local variable that has lost its C type in a .pxd; where the"
            " rise is meant, run `make instructions-update` and say why in the same commit"
        )


if __name__ == "__main__":
    main()
