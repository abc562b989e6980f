"""Runs the demo once, in small, and sets bad servers before its load generators.

The figures themselves are not judged here: they depend on the machine.  What
is: that the table and the file appear, that missing pieces are named, and that
both load generators notice wrong answers and never wait for ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fastcore

ENGINES = os.environ.get("FASTCORE_TEST_ENGINES", "c,python").split(",")
BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
TIMEOUT = 60
KEYS = {
    "requests",
    "seconds",
    "requests_per_second",
    "cpu_us_per_request",
    "p50_us",
    "p99_us",
    "p999_us",
    "errors",
    "busy",
    "idle",
}


def environment(**more: str) -> dict[str, str]:
    """The children import the very fastcore that this process imported."""
    package_parent = str(Path(fastcore.__file__).resolve().parent.parent)
    paths = [package_parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    clean = {name: value for name, value in os.environ.items() if name != "FASTCORE_ENGINE"}
    return {**clean, "PYTHONPATH": os.pathsep.join(paths), **more}


def run_demo(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The demo with its smallest numbers."""
    line = [sys.executable, "-W", "error", str(BENCHMARKS / "demo.py"), "--quick"]
    return subprocess.run(
        [*line, "--seconds", "0.2", *arguments],
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


def test_demo(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    done = run_demo("--json", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("requests/s", "p99", "/peer", "10 busy + 20 idle", "fastcore, C", "[1/"):
        assert word in done.stdout
    report = json.loads(path.read_text())
    answered = {r["engine"] for r in report["results"] if r["requests_per_second"]}
    assert {*ENGINES, "peer"} <= answered, done.stdout
    for result in report["results"]:
        assert result["errors"] == 0
        if result["engine"] in answered:
            assert result["failure"] is None
        else:  # a build without the C engine says so and goes on
            assert result["failure"].startswith("did not start")
            assert "missing" in done.stdout
    assert {(r["busy"], r["idle"]) for r in report["results"]} == {(1, 0), (10, 20)}


def test_demo_without_compiler(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    done = run_demo("--json", str(path), CC="/bin/false")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Load by load.py" in done.stdout
    assert "the C compiler /bin/false failed" in " ".join(done.stdout.split())
    report = json.loads(path.read_text())
    assert "limit" not in report["about"]["servers"]
    assert any(r["engine"] == "python" and r["requests_per_second"] for r in report["results"])


@pytest.mark.skipif(sys.platform == "win32", reason="descriptor limits are a Unix matter")
def test_demo_scales_down(tmp_path: Path) -> None:
    code = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (90, 90));"
        "sys.argv[1:] = ['--quick', '--seconds', '0.1'];"
        f"sys.path.insert(0, {str(BENCHMARKS)!r});"
        f"runpy.run_path({str(BENCHMARKS / 'demo.py')!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "limit of 90 open files" in done.stdout
    assert "scaled down to 10 busy + 16 idle" in " ".join(done.stdout.split())


# ---- the load generators before bad servers --------------------------------


@pytest.fixture(scope="module")
def compiled_load(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """load.c, built with every warning an error."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if os.name != "posix" or compiler is None:
        return []
    program = tmp_path_factory.mktemp("load") / "load"
    warnings = ["-Wall", "-Wextra", "-Werror"]
    subprocess.run(
        [compiler, "-O1", *warnings, "-o", str(program), str(BENCHMARKS / "load.c")],
        check=True,
        timeout=TIMEOUT,
    )
    return [str(program)]


@pytest.fixture(params=["load.c", "load.py"])
def generator(request: pytest.FixtureRequest, compiled_load: list[str]) -> list[str]:
    """Both generators take the same arguments; Python stands in for a missing one."""
    python = [sys.executable, "-W", "error", str(BENCHMARKS / "load.py")]
    return (compiled_load or python) if request.param == "load.c" else python


Answer = Callable[[bytes, int], "bytes | None"]


def serve_client(client: socket.socket, answer: Answer) -> None:
    """Answer each piece until `answer` gives None or the client has gone."""
    count = 0
    with client, contextlib.suppress(OSError):
        while data := client.recv(65536):
            reply = answer(data, count)
            count += 1
            if reply is None:
                return
            client.sendall(reply)


@contextlib.contextmanager
def server(answer: Answer) -> Iterator[int]:
    """A threaded server with an answer of its own to each piece; its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        threads = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client = listener.accept()[0]
                    thread = threading.Thread(target=serve_client, args=(client, answer))
                    thread.start()
                    threads.append(thread)

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            with contextlib.suppress(OSError):  # not every system shuts listeners down
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            for thread in [accepting, *threads]:
                thread.join(TIMEOUT)


def run_load(generator: list[str], port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One measurement."""
    return subprocess.run(
        [*generator, "127.0.0.1", str(port), *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


SHORT = ("--busy", "3", "--idle", "2", "--seconds", "0.2", "--warmup", "0.1")


def test_load(generator: list[str]) -> None:
    with server(lambda data, count: data) as port:
        done = run_load(generator, port, *SHORT, "--size", "200000", "--pid", str(os.getpid()))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    result = json.loads(done.stdout)
    assert set(result) == KEYS
    assert (result["errors"], result["busy"], result["idle"]) == (0, 3, 2)
    assert result["requests"] > 0
    assert 0 < result["p50_us"] <= result["p99_us"] <= result["p999_us"]
    assert result["seconds"] == pytest.approx(0.2, abs=5)
    if os.path.exists("/proc/self/schedstat"):
        assert result["cpu_us_per_request"] >= 0
    else:
        assert result["cpu_us_per_request"] is None


def flip(data: bytes, count: int) -> bytes:
    """Wrong in the last byte, though not in the answer to the first piece."""
    return data if count < 5 else data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (flip, "differs"),
        (lambda data, count: data + (b"x" if count > 4 else b""), "more than"),
        (lambda data, count: data if count < 5 else None, "closed a connection"),
        (lambda data, count: data if count < 1 else b"", "no answer"),
    ],
    ids=["wrong bytes", "too many bytes", "closes", "stops answering"],
)
def test_load_notices_bad_answers(generator: list[str], answer: Answer, reason: str) -> None:
    with server(answer) as port:
        done = run_load(generator, port, *SHORT)
    assert done.returncode == 0
    assert json.loads(done.stdout)["errors"] == 3
    assert reason in done.stderr


def test_load_ends_before_a_silent_server(generator: list[str]) -> None:
    begin = time.monotonic()
    with server(lambda data, count: b"") as port:
        done = run_load(generator, port, *SHORT, "--connect-timeout", "0.5")
    assert time.monotonic() - begin < TIMEOUT / 2
    assert (done.returncode, done.stdout) == (1, "")
    assert "no answer: 0 of 5 connections" in done.stderr


def test_load_ends_before_a_server_that_never_accepts(generator: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        port = listener.getsockname()[1]
        done = run_load(generator, port, *SHORT, "--connect-timeout", "0.5")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no answer: 0 of 5 connections" in done.stderr


def test_load_says_when_nobody_listens(generator: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    done = run_load(generator, port, *SHORT)
    assert "refused" in done.stderr
    assert done.stdout == "" or json.loads(done.stdout)["requests"] == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="echo_epoll.c is for Linux")
def test_limit_ends_with_its_input(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return
    program = tmp_path / "echo_epoll"
    source = str(BENCHMARKS / "echo_epoll.c")
    flags = ["-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, "-o", str(program), source], check=True, timeout=TIMEOUT)
    with subprocess.Popen(
        [str(program), "60"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        port = int(process.stdout.readline())
        text = os.urandom(3_000_000)
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as client:
            sender = threading.Thread(target=client.sendall, args=(text,))
            sender.start()
            received = bytearray()
            while len(received) < len(text):
                received += client.recv(65536)
            sender.join(TIMEOUT)
        assert received == text
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0
