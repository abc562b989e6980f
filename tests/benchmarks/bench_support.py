"""What the tests of the benchmarks share: building the C programs, running the load generator."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import fastcore_bench
import pytest
from fastcore_bench import machine, result, servers
from support import receive_exactly

import fastcore

BENCHMARKS = Path(fastcore_bench.__file__).resolve().parent
PROGRAMS = BENCHMARKS / "programs"
OURS = machine.Installed(sys.executable, True, {"fastcore": "1.2.3"})
SERVERS = servers.known_servers(Path("limit"), {"": OURS})
TIMEOUT = 60  # seconds for any child process
KEYS = {
    "requests",
    "seconds",
    "requests_per_second",
    "cpu_us_per_request",
    "process_cpu_us_per_request",
    "p50_us",
    "p99_us",
    "p999_us",
    "errors",
    "busy",
    "idle",
    "rss_before",
    "rss_after",
}


COMPILER = shutil.which("cc") or shutil.which("gcc")
needs_compiler = pytest.mark.skipif(
    os.name != "posix" or COMPILER is None, reason="load.c needs a C compiler and POSIX"
)


def build(source: str, directory: Path, *more: str) -> str | None:
    """Compile a C program of the benchmarks, every warning an error; None without a compiler.

    `more` are flags besides.
    """
    if os.name != "posix" or COMPILER is None:
        return None
    program = str(directory / Path(source).stem)
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", *more]
    line = [COMPILER, *flags, "-o", program, str(BENCHMARKS / "c" / source)]
    subprocess.run(line, check=True, timeout=TIMEOUT)
    return program


def run_load(generator: str, port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One measurement."""
    return subprocess.run(
        [generator, "127.0.0.1", str(port), *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


def environment(**more: str) -> dict[str, str]:
    """The children import the very fastcore that this process imported."""
    package_parent = str(Path(fastcore.__file__).resolve().parent.parent)
    paths = [package_parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    clean = {name: value for name, value in os.environ.items() if name != "FASTCORE_ENGINE"}
    return {**clean, "PYTHONPATH": os.pathsep.join(paths), **more}


def run(folder: Path, command: Sequence[str], **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command there to its end, with `more` in its environment."""
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


def exchange(client: socket.socket, text: bytes) -> bytes:
    """Send all of `text` to a server that echoes, and take what comes back meanwhile."""
    sender = threading.Thread(target=client.sendall, args=(text,))
    sender.start()
    received = receive_exactly(client, len(text))
    sender.join(TIMEOUT)
    return received


def made_result(figures: dict[str, list[float]], name: str = result.CPU) -> result.Result:
    """A result with one workload: a figure of each round, by server."""
    made = result.Result(about={"machine": {"cpu": "x", "cores": 2, "pinned": True}})
    made.workloads = [result.Workload("w", "the workload", "echo", "echo", figure=name)]
    for key, values in figures.items():
        family = "fastcore-c" if key.startswith("fastcore") else key
        made.servers.append(result.Server(key, key.upper(), family))
        rounds = [{"round": i, name: value, "errors": 0} for i, value in enumerate(values)]
        made.cells.append(result.Cell(key, "w", rounds))
    return made
