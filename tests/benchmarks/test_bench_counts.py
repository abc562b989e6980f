"""Counting system calls and instructions, and the load that redis-benchmark and wrk make.

What the tools print is read from kept outputs, so that reading is tested without the tools.  The
tools themselves are used where they are installed; a skip names the one that is not.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench_support import COMPILER, environment
from fastcore_bench import counts, measure, result, servers, tools
from fastcore_bench.children import Cores, Failure, running

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tools are for Unix")

FREE = Cores(None, None)
TOOLS = (counts.STRACE, counts.CALLGRIND)


def need(program: str) -> None:
    """Skip where a tool is not installed."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


@pytest.fixture(autouse=True)
def same_fastcore(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers import the very fastcore that this process imported."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("FASTCORE_ENGINE", raising=False)


# ---- reading what tools print --------------------------------------------------

STRACE_SUMMARY = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 58.82    0.042660         275       155           read
 24.13    0.017500          17      1001           sendto
  9.96    0.007220           7      1003           epoll_wait
  4.75    0.003447           3      1002         1 recvfrom
  0.01    0.000003           1         3         2 _llseek
  0.00    0.000000           0         1           clone3
------ ----------- ----------- --------- --------- ----------------
100.00    0.072524          16      3165         3 total
"""
# Before version 5.4 the last line had no time per call.
OLD_STRACE_SUMMARY = STRACE_SUMMARY.replace("        16      3165", "            3165")


@pytest.mark.parametrize("text", [STRACE_SUMMARY, OLD_STRACE_SUMMARY])
def test_read_strace(text: str) -> None:
    assert counts.read_strace(text) == 155 + 1001 + 1003 + 1002 + 3 + 1


@pytest.mark.parametrize(
    "text", ["", "strace: ptrace(PTRACE_TRACEME, ...): Operation not permitted\n"]
)
def test_read_strace_without_figures(text: str) -> None:
    with pytest.raises(Failure, match="no summary"):
        counts.read_strace(text)


def test_read_callgrind() -> None:
    text = "version: 1\n\nevents: Ir\nsummary: 217662911\n\nfn=(1)\n12 34\n\ntotals: 217662911\n"
    assert counts.read_callgrind(text) == 217_662_911
    with pytest.raises(Failure, match="no totals"):
        counts.read_callgrind("version: 1\nevents: Ir\n12 34\n")


REDIS_CSV = """\
"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
"SET","27078.26","29.371","0.736","29.103","36.575","50.143","282.111"
"""


@pytest.mark.parametrize(
    ("text", "rate", "p50", "p99"),
    [
        (REDIS_CSV, 27078.26, 29103.0, 50143.0),
        ("WARNING: Could not fetch server CONFIG\n" + REDIS_CSV, 27078.26, 29103.0, 50143.0),
        ('"GET","98039.22"\n', 98039.22, None, None),  # before version 6.2
        ('"PING (mbulk; new) x","123.00"\n', 123.0, None, None),
    ],
)
def test_read_redis_benchmark(text: str, rate: float, p50: object, p99: object) -> None:
    figures = tools.read_redis_benchmark(text)
    assert figures == {result.RATE: rate, "p50_us": p50, "p99_us": p99, "errors": 0}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Could not connect to Redis at 127.0.0.1:1: Connection refused\n",
        REDIS_CSV.splitlines()[0],
        '"GET","nan"\n',
        '"GET","0.00"\n',
        '"GET"\n',
    ],
)
def test_read_redis_benchmark_without_figures(text: str) -> None:
    with pytest.raises(Failure, match=r"redis-benchmark gave no figures|no answer"):
        tools.read_redis_benchmark(text)


WRK = """\
Running 2s test @ http://127.0.0.1:35685/
  1 threads and 50 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     3.87ms    2.68ms  19.51ms   60.93%
    Req/Sec    12.13k     1.66k   14.92k    60.00%
  Latency Distribution
     50%    3.60ms
     75%    6.01ms
     90%    7.41ms
     99%   1.16s
  24288 requests in 2.01s, 3.03MB read
Requests/sec:  12055.99
Transfer/sec:      1.51MB
"""
WRK_ERRORS = """\
  Socket errors: connect 1, read 20, write 300, timeout 4000
  Non-2xx or 3xx responses: 50000
Requests/sec:"""


def test_read_wrk() -> None:
    expected: dict[str, Any] = {
        result.RATE: 12055.99,
        "requests": 24288,
        "p50_us": 3600.0,
        "p99_us": 1_160_000.0,
        "errors": 0,
    }
    assert tools.read_wrk(WRK) == expected
    text = WRK.replace("Requests/sec:", WRK_ERRORS)
    assert tools.read_wrk(text) == {**expected, "errors": 54321}
    text = WRK.replace("3.60ms", "87.00us")
    assert tools.read_wrk(text)["p50_us"] == 87.0
    text = WRK.replace("Latency Distribution", "").replace("%   ", "")
    assert tools.read_wrk(text)["p99_us"] is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "wrk gave no figures"),
        ("unable to connect to 127.0.0.1:1 Connection refused\n", "Connection refused"),
        (WRK.replace("24288 requests", "0 requests"), "no answer"),
    ],
)
def test_read_wrk_without_figures(text: str, reason: str) -> None:
    with pytest.raises(Failure, match=reason):
        tools.read_wrk(text)


# ---- what is missing or refused --------------------------------------------------


def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    """A program of that name, alone on the PATH."""
    program = tmp_path / "bin" / name
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_reasons(
    tool: counts.Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setenv("PATH", str(tmp_path))
    assert counts.why_not(tool, tmp_path) == (
        f"{tool.name} is not installed (Debian: apt install {tool.debian})"
    )
    complaint = "ptrace(PTRACE_TRACEME, ...): Operation not permitted"
    fake(tmp_path, monkeypatch, tool.name, f"echo '{complaint}' >&2; exit 1")
    assert counts.why_not(tool, tmp_path) == f"the system refused {tool.name}: {complaint}"
    fake(tmp_path, monkeypatch, tool.name, "exit 0")
    reason = counts.why_not(tool, tmp_path)
    assert reason is not None
    assert reason.startswith(f"{tool.name} does not work here: ")
    made = result.Result()
    kit = measure.Kit({}, {}, tmp_path / "load", FREE, tmp_path)
    notes = counts.fill(made, kit, time.monotonic() + 60)
    assert len(notes) == 2
    assert all(note.startswith(("No system calls", "No instructions")) for note in notes)


def test_tools_that_are_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for workload in tools.workloads():
        name = "wrk" if workload.protocol == "http" else "redis-benchmark"
        reason = tools.why_not(workload.protocol)
        assert reason is not None
        assert reason.startswith(f"{name} is not installed (Debian: apt install ")
        with pytest.raises(Failure, match="is not installed"):
            tools.measure(servers.PLAIN, workload, FREE, tmp_path, 0.1, 10)


def test_a_tool_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own words are the reason; one that does not end is ended."""
    fake(tmp_path, monkeypatch, "wrk", "echo working; echo 'it is broken' >&2; exit 3")
    line = tools.wrk_line(1, tools.workloads()[-1], 1)
    with pytest.raises(Failure, match="wrk: it is broken"):
        tools.run(line, FREE, tmp_path, 10)
    fake(tmp_path, monkeypatch, "wrk", "exec /bin/sleep 60")
    with pytest.raises(Failure, match="wrk did not end within 0 s"):
        tools.run(line, FREE, tmp_path, 0.2)


# ---- the tools at work ------------------------------------------------------------


@pytest.fixture(scope="module")
def kit() -> Iterator[measure.Kit]:
    """What measuring takes."""
    if COMPILER is None:
        pytest.skip("load.c needs a C compiler")
    with measure.prepared() as (made, _, _):
        made.compile()
        yield made


ECHO = result.Workload("echo-1k-1", "echo 1 KiB, 1 busy", "echo", "echo")
LINES = result.Workload("line-16", "lines, 16", "line", "line", 64, 100, in_flight=16)


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_count_the_limit(tool: counts.Tool, kit: measure.Kit) -> None:
    """A request of the C server is three system calls: wait, receive, send."""
    need(tool.name)
    reason = counts.why_not(tool, kit.folder)
    if reason is not None:
        pytest.skip(reason)
    if kit.contenders["limit"].server.missing:
        pytest.skip("not Linux")
    value = counts.count(tool, kit.contenders["limit"], ECHO, kit)
    if tool is counts.STRACE:
        assert value == pytest.approx(3, abs=0.1)
    else:
        assert 30 < value < 10_000
        # The difference of two runs repeats, since what start-up costs is not in it.
        again = counts.count(tool, kit.contenders["limit"], ECHO, kit)
        assert again == pytest.approx(value, rel=0.05)


def test_fill(kit: measure.Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """All servers of a result that were measured, and only workloads that are counted."""
    need("strace")
    if counts.why_not(counts.STRACE, kit.folder) is not None:
        pytest.skip("strace is refused")
    monkeypatch.setattr(counts, "INSTRUCTIONS_OF", ("limit",))
    computing = result.Workload("c", "computing", "echo", "echo", busy_thread=True)
    keys = ("limit", "fastcore-python-direct", "fastcore-python-chat", "asyncio-protocol")
    made = result.Result(workloads=[ECHO, LINES, computing])
    made.servers = [kit.contenders[key].server for key in keys]
    for workload in made.workloads:
        for key in keys:
            if kit.contenders[key].speaks(workload):
                made.cells.append(result.Cell(key, workload.key, [{result.CPU: 1.0}]))
    made.cells[1].rounds = []  # not measured: not counted either
    said: list[str] = []
    notes = counts.fill(made, kit, time.monotonic() + 90, said.append)
    assert [note for note in notes if "valgrind" not in note] == []
    for cell in made.cells:
        if cell.workload == "c" or not cell.rounds:
            assert cell.counts is None
        else:
            assert cell.counts is not None
            calls = cell.counts["syscalls_per_request"]
            assert calls is not None
            low, high = (0.1, 1.5) if cell.workload == "line-16" else (1.9, 6.5)
            assert low < calls < high, cell
    assert "counting system calls: limit: C epoll, lines, 16" in said


def test_fill_ends_when_the_time_is_over(kit: measure.Kit) -> None:
    need("strace")
    if counts.why_not(counts.STRACE, kit.folder) is not None:
        pytest.skip("strace is refused")
    made = result.Result(workloads=[ECHO])
    made.servers = [kit.contenders["limit"].server]
    made.cells = [result.Cell("limit", "echo-1k-1", [{result.CPU: 1.0}])]
    notes = counts.fill(made, kit, time.monotonic() - 1)
    assert "System calls not counted for lack of time: 1 of 1." in notes
    assert made.cells[0].counts is None


@pytest.mark.parametrize("workload", tools.workloads(), ids=lambda workload: workload.key)
def test_tools_drive_their_servers(workload: result.Workload, tmp_path: Path) -> None:
    need(tools.tool_of(workload.protocol).name)
    runner = [sys.executable, "-m", "fastcore", "run", "--engine", "python"]
    figures = tools.measure(runner, workload, FREE, tmp_path, 0.1, 60)
    assert figures["errors"] == 0
    assert figures["requests"] > 0
    assert figures["requests"] / figures["seconds"] == pytest.approx(figures[result.RATE], rel=0.1)
    assert 0 < figures["p50_us"] <= figures["p99_us"]
    if Path("/proc/self/schedstat").exists():
        assert 0 < figures[result.CPU] <= figures["process_cpu_us_per_request"]
    else:
        assert figures[result.CPU] is None


def test_errors_of_a_server_are_counted(tmp_path: Path) -> None:
    """wrk against a page that is not there."""
    need("wrk")
    workload = tools.workloads()[-1]
    with running(tools.server_command(servers.PLAIN, "http"), FREE, tmp_path) as (_, port):
        line = tools.wrk_line(port, workload, 1)
        figures = tools.read_wrk(tools.run([*line[:-1], line[-1] + "none"], FREE, tmp_path, 30))
    assert figures["errors"] == figures["requests"]
