"""The benchmark's child processes: compilers, servers and load generators.

Everything started here is bounded in time and ended by its own process handle;
nothing is ever looked up by name.  It must not know tables, workloads or
frameworks: others decide what is run, this module runs it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .result import Round

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE / "programs"
START_TIMEOUT = 15.0  # seconds until a server must have named its port
GET_COMPILER = (
    "install one (Debian: apt install gcc libc6-dev, Fedora: dnf install gcc, macOS: xcode-select"
    " --install), or name it in the environment variable CC"
)
NOT_STARTED = "did not start: "  # how a Failure of a server that never served begins


class Failure(Exception):
    """A child could not do its work; the text says why, in one line."""


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
    """Keep a process, and what it will start, on one core."""
    if core is not None:
        with contextlib.suppress(OSError):  # it has ended already, or may not be pinned
            os.sched_setaffinity(process.pid, {core})


def last_line(text: str) -> str:
    """The line of a traceback or of a compiler's output that says what was wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def compiler_command() -> list[str] | None:
    """The C compiler: $CC, else cc or gcc; None where there is none."""
    found = os.environ.get("CC", "").split()
    return found or [name for name in [shutil.which("cc") or shutil.which("gcc")] if name] or None


def compile_c(source: str, directory: Path, *flags: str, suffix: str = "") -> Path:
    """Compile one of the C programs of the folder c; with more flags, to a file of that suffix."""
    if os.name != "posix":
        raise Failure("the load generator is for Unix; on Windows, run the benchmarks in WSL")
    compiler = compiler_command()
    if compiler is None:
        raise Failure(f"the load generator needs a C compiler, and there is none: {GET_COMPILER}")
    program = directory / Path(source).with_suffix(suffix)
    line = [*compiler, "-O2", *flags, "-o", str(program), str(HERE / "c" / source)]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"the load generator needs a C compiler ({error}): {GET_COMPILER}") from error
    if done.returncode:
        reason = last_line(done.stderr) if done.stderr else f"exit status {done.returncode}"
        raise Failure(
            f"the load generator needs a C compiler, and {compiler[0]} failed ({reason}):"
            f" {GET_COMPILER}"
        )
    return program


@contextlib.contextmanager
def running(
    command: Sequence[str],
    cores: Cores,
    directory: Path,
    timeout: float = START_TIMEOUT,
    *,
    kill: bool = True,
) -> Iterator[tuple[int, int]]:
    """Start a server; gives its process id and port, and ends it afterwards.

    Without `kill` it has time to end by itself, as servers do whose input closes.  The working
    directory should be an empty one: the installed package is what gets measured, not a source
    tree that happens to be the current directory.
    """
    with tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            cwd=directory,
            start_new_session=True,  # a group of its own, see `kill_group`
        )
        pin(process, cores.server)
        guard = threading.Timer(timeout, kill_group, [process])
        guard.start()
        port = None
        try:
            assert process.stdout is not None
            match = re.search(r"(\d+)\s*$", process.stdout.readline())
            guard.cancel()
            if match is None:
                kill_group(process)
                process.wait()
                complaints.seek(0)
                raise Failure(NOT_STARTED + last_line(complaints.read()))
            port = int(match[1])
            yield process.pid, port
            if not kill and process.stdin is not None:
                process.stdin.close()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout)
        except Failure as failure:
            # A server that ended by itself has a better reason to give; it may
            # be at it just now.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
            if port is None or process.poll() is None:
                raise
            complaints.seek(0)
            reason = f"exit status {process.returncode}, {last_line(complaints.read())}"
            raise Failure(f"no answer; the server ended: {reason}") from failure
        finally:
            guard.cancel()
            end(process)


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a child and the children that it forked."""
    if process.returncode is None:  # once waited for, its number could be another's
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)


def end(process: subprocess.Popen[str]) -> None:
    """End a child, and close what led to it."""
    kill_group(process)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    process.wait()


def run_to_end(
    command: Sequence[str], core: int | None, directory: Path, timeout: float
) -> tuple[int, str, str]:
    """Run a program; its exit status and what it wrote to stdout and stderr.

    Raises subprocess.TimeoutExpired where it takes longer than `timeout` (seconds); it is ended.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=directory,
        start_new_session=True,
    )
    pin(process, core)
    try:
        output, complaints = process.communicate(timeout=timeout)
    finally:
        if process.returncode is None:
            end(process)
    return process.returncode, output, complaints


def run_json(command: Sequence[str], core: int | None, directory: Path, timeout: float) -> Round:
    """Run a program that prints one line of JSON at its end; that JSON."""
    try:
        status, output, complaints = run_to_end(command, core, directory, timeout)
    except subprocess.TimeoutExpired as expired:
        raise Failure(f"no answer within {timeout:.0f} s") from expired
    if status:
        raise Failure(last_line(complaints).removeprefix("load: "))
    figures: Round = json.loads(output)
    if not figures["requests"]:
        raise Failure(f"no answer; {last_line(complaints)}")
    return figures
