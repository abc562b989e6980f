"""The demo's child processes: compilers, servers and the load generator.

Everything started here is bounded in time and ended by its own process handle;
nothing is ever looked up by name.  Knows no tables and no workloads: demo.py
decides what is run, this module runs it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ECHO_SERVER = HERE.parent / "examples" / "echo_server.py"
START_TIMEOUT = 15.0


class Failure(Exception):
    """A child could not do its work; the text says why, in one line."""


@dataclass(frozen=True)
class Server:
    """How to start one echo server."""

    key: str
    label: str
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Cores:
    """The processor cores for the server and for the load; None: do not pin."""

    server: int | None
    load: int | None

    @classmethod
    def choose(cls) -> Cores:
        """Two cores of those that we may use, where there are two and pinning exists."""
        if not hasattr(os, "sched_setaffinity"):
            return cls(None, None)
        available = sorted(os.sched_getaffinity(0))
        return cls(available[0], available[1]) if len(available) > 1 else cls(None, None)


def pin(process: subprocess.Popen[str], core: int | None) -> None:
    """Keep a process on one core."""
    if core is not None:
        with contextlib.suppress(OSError):  # it has ended already, or may not be pinned
            os.sched_setaffinity(process.pid, {core})


def last_line(text: str) -> str:
    """The line of a traceback or of a compiler's output that says what was wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def compile_c(source: str, directory: Path) -> Path:
    """Compile one of the C programs beside this file."""
    compiler = os.environ.get("CC", "").split() or [shutil.which("cc") or shutil.which("gcc") or ""]
    if not compiler[0]:
        raise Failure("no C compiler")
    program = directory / Path(source).stem
    line = [*compiler, "-O2", "-o", str(program), str(HERE / source)]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"C compiler: {error}") from error
    if done.returncode:
        reason = last_line(done.stderr) if done.stderr else f"exit status {done.returncode}"
        raise Failure(f"the C compiler {compiler[0]} failed: {reason}")
    return program


def peer_name() -> str:
    """The asyncore that a plain `python` would import, by the name of who ships it."""
    code = "import asyncore; print(asyncore.__file__)"
    line = [sys.executable, "-W", "ignore", "-c", code]
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, cwd=directory)
    return "stdlib asyncore" if done.stdout and "-packages" not in done.stdout else "pyasyncore"


def known_servers(limit: Path | None, program: Path) -> list[Server]:
    """All servers, the limit first and the peer last; `program` runs on all but the limit."""
    example = str(program.resolve())
    fastcore = (sys.executable, "-m", "fastcore", "run", "--engine")
    peer = (sys.executable, "-W", "ignore", example, "--poll")
    servers = [
        Server("c", "fastcore, C", (*fastcore, "c", example)),
        Server("python", "fastcore, Python", (*fastcore, "python", example)),
        Server("peer", peer_name(), peer),
    ]
    if limit is not None:
        servers.insert(0, Server("limit", "limit: C epoll", (str(limit),)))
    return servers


@contextlib.contextmanager
def running(server: Server, cores: Cores, directory: Path) -> Iterator[tuple[int, int]]:
    """Start a server; gives its process id and port, and ends it afterwards.

    The working directory is an empty one: the installed package is what gets
    measured, not a source tree that happens to be the current directory.
    """
    with tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(
            server.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            cwd=directory,
            env={**os.environ, **dict(server.environment)},
        )
        pin(process, cores.server)
        guard = threading.Timer(START_TIMEOUT, process.kill)
        guard.start()
        match = None
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            guard.cancel()
            match = re.search(r"(\d+)\s*$", first)
            if match is None:
                process.kill()
                process.wait()
                complaints.seek(0)
                raise Failure(f"did not start: {last_line(complaints.read())}")
            yield process.pid, int(match[1])
        except Failure as failure:
            # A server that ended by itself has a better reason to give; it may
            # be at it just now.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
            if match is None or process.poll() is None:
                raise
            complaints.seek(0)
            raise Failure(
                f"no answer; the server ended: {last_line(complaints.read())}"
            ) from failure
        finally:
            guard.cancel()
            process.kill()
            process.communicate()


def drive(
    generator: tuple[str, ...], port: int, arguments: list[str], cores: Cores, timeout: float
) -> dict[str, float | None]:
    """Run the load generator once; its figures."""
    process = subprocess.Popen(
        [*generator, "127.0.0.1", str(port), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    pin(process, cores.load)
    try:
        output, complaints = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as expired:
        raise Failure(f"no answer within {timeout:.0f} s") from expired
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    if process.returncode:
        raise Failure(last_line(complaints).removeprefix("load: "))
    result: dict[str, float | None] = json.loads(output)
    if not result["requests"]:
        raise Failure(f"no answer; {last_line(complaints)}")
    return result
