"""Load by programs that users know: redis-benchmark and wrk, against servers of their protocols.

Makes of what they print the same figures that our own load generator gives.  The server's CPU
time comes from /proc, where there is one.  It must not know how servers are chosen or compared.
"""

from __future__ import annotations

import contextlib
import csv
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .children import PROGRAMS, Cores, Failure, last_line, run_to_end, running
from .result import CPU, RATE, Round, Workload

CLIENTS = 50
WARMUP = 2000  # requests
# Requests a second that a server may be expected to answer, for choosing how many to send.
EXPECTED = {1: 15_000, 16: 50_000}
COMMANDS = {"resp-ping": "ping_mbulk", "resp-set": "set", "resp-get": "get"}
PROTOCOLS = (*COMMANDS, "http")


@dataclass(frozen=True)
class Tool:
    """A load generator, the Debian package that has it, and the program that it drives."""

    name: str
    debian: str
    program: str


REDIS = Tool("redis-benchmark", "redis-tools", "resp_server.py")
WRK = Tool("wrk", "wrk", "http_server.py")


def tool_of(protocol: str) -> Tool:
    """Who makes the load of a protocol."""
    return WRK if protocol == "http" else REDIS


def workloads() -> list[Workload]:
    """What the tools do: each command one at a time and sixteen in flight, and keep-alive."""
    found = []
    for in_flight in (1, 16):
        for protocol in COMMANDS:
            command = protocol.removeprefix("resp-")
            found.append(
                Workload(
                    key=f"redis-{command}-{in_flight}",
                    label=f"redis-benchmark {command.upper()}, {in_flight} in flight",
                    group="tools",
                    protocol=protocol,
                    size=3,
                    busy=CLIENTS,
                    in_flight=in_flight,
                )
            )
    label = "wrk, HTTP keep-alive"
    return [*found, Workload("wrk-http", label, "tools", "http", size=14, busy=CLIENTS)]


def why_not(protocol: str) -> str | None:
    """Why the load of a protocol cannot be made here; None where it can."""
    tool = tool_of(protocol)
    if shutil.which(tool.name) is None:
        return f"{tool.name} is not installed (Debian: apt install {tool.debian})"
    return None


def server_command(runner: Sequence[str], protocol: str) -> list[str]:
    """How to start the server: `runner` is a Python, or fastcore with one of its engines."""
    return [*runner, str(PROGRAMS / tool_of(protocol).program), "--poll"]


# ---- what they print --------------------------------------------------------------


def read_redis_benchmark(text: str) -> Round:
    """The figures in the output of `redis-benchmark --csv`; its oldest form has a rate alone."""
    rows = list(csv.reader(line for line in text.splitlines() if line.startswith('"')))
    if not rows or len(rows[-1]) < 2:
        raise Failure(f"redis-benchmark gave no figures: {last_line(text)}")
    values = rows[-1]
    names = rows[0] if rows[0][0] == "test" else ["test", "rps"]
    figures = dict(zip(names, values, strict=False))
    try:
        found: Round = {RATE: float(figures["rps"])}
        for name, column in (("p50_us", "p50_latency_ms"), ("p99_us", "p99_latency_ms")):
            found[name] = round(1000 * float(figures[column]), 1) if column in figures else None
    except (KeyError, ValueError) as error:
        raise Failure(f"redis-benchmark gave no figures: {last_line(text)}") from error
    if not found[RATE] > 0:
        raise Failure(f"no answer: {last_line(text)}")
    return {**found, "errors": 0}


MICROSECONDS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6, "h": 3600e6}


def read_wrk(text: str) -> Round:
    """The figures in the output of `wrk --latency`."""
    rate = re.search(r"^Requests/sec: +([\d.]+)", text, re.MULTILINE)
    total = re.search(r"^ *(\d+) requests in", text, re.MULTILINE)
    if rate is None or total is None:
        raise Failure(f"wrk gave no figures: {last_line(text)}")
    if not int(total[1]):
        raise Failure("no answer")
    found: Round = {RATE: float(rate[1]), "requests": int(total[1])}
    for name, share in (("p50_us", "50"), ("p99_us", "99")):
        match = re.search(rf"^ *{share}% +([\d.]+)(us|ms|s|m|h)$", text, re.MULTILINE)
        found[name] = round(float(match[1]) * MICROSECONDS[match[2]], 1) if match else None
    errors = re.search(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text
    )
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    found["errors"] = sum(map(int, errors.groups() if errors else ()))
    found["errors"] += int(wrong[1]) if wrong else 0
    return found


# ---- measuring ----------------------------------------------------------------------


def cpu_time(pid: int) -> tuple[int, int] | None:
    """CPU time of a process's main thread, and of all its threads (ns)."""
    found = {}
    tasks = Path(f"/proc/{pid}/task")
    try:
        for task in tasks.iterdir():
            with contextlib.suppress(OSError):  # a thread that has just ended
                found[task.name] = int((task / "schedstat").read_text().split()[0])
    except OSError:
        return None
    return (found[str(pid)], sum(found.values())) if str(pid) in found else None


def run(line: Sequence[str], cores: Cores, folder: Path, timeout: float) -> str:
    """Run a tool to its end; what it printed."""
    try:
        status, output, complaints = run_to_end(line, cores.load, folder, timeout)
    except subprocess.TimeoutExpired as expired:
        raise Failure(f"{line[0]} did not end within {timeout:.0f} s") from expired
    if status:
        raise Failure(f"{line[0]}: {last_line(complaints or output)}")
    return output


def redis_line(port: int, workload: Workload, requests: int) -> list[str]:
    """The command line of redis-benchmark."""
    line = [REDIS.name, "-h", "127.0.0.1", "-p", str(port), "--csv"]
    line += ["-c", str(workload.busy), "-P", str(workload.in_flight), "-d", str(workload.size)]
    return [*line, "-n", str(requests), "-t", COMMANDS[workload.protocol]]


def wrk_line(port: int, workload: Workload, seconds: int) -> list[str]:
    """The command line of wrk, which takes whole seconds."""
    line = [WRK.name, "-t", "1", "-c", str(workload.busy), "-d", f"{seconds}s", "--latency"]
    return [*line, f"http://127.0.0.1:{port}/"]


def measure(
    runner: Sequence[str],
    workload: Workload,
    cores: Cores,
    folder: Path,
    seconds: float,
    timeout: float,
) -> Round:
    """One round: a server on a fresh process under a tool's load, for about so many seconds."""
    reason = why_not(workload.protocol)
    if reason is not None:
        raise Failure(reason)
    with running(server_command(runner, workload.protocol), cores, folder) as (pid, port):
        if workload.protocol == "http":
            line = wrk_line(port, workload, max(1, round(seconds)))
        else:
            requests = max(WARMUP, int(seconds * EXPECTED[workload.in_flight]))
            line = redis_line(port, workload, requests)
            run(redis_line(port, workload, WARMUP), cores, folder, timeout)
        before = cpu_time(pid)
        output = run(line, cores, folder, timeout)
        after = cpu_time(pid)
    if workload.protocol == "http":
        figures = read_wrk(output)
    else:
        figures = {"requests": requests, **read_redis_benchmark(output)}
    main = process = None
    if before is not None and after is not None:
        main, process = (
            round((end_time - begin_time) / 1000 / figures["requests"], 3)
            for begin_time, end_time in zip(before, after, strict=True)
        )
    return {
        **figures,
        "seconds": round(figures["requests"] / figures[RATE], 3),
        CPU: main,
        "process_cpu_us_per_request": process,
        "p999_us": None,  # neither tool tells
        "busy": workload.busy,
        "idle": 0,
        "rss_before": None,
        "rss_after": None,
    }
