"""Drives every server of the benchmarks in every protocol, with the load generator, in small.

Each must answer correctly, say nothing on its standard error, and end when its input closes.
How fast it is is not judged.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from bench_support import KEYS, PROGRAMS, TIMEOUT, build, environment, exchange, run, run_load

ENGINES = os.environ.get("FASTCORE_TEST_ENGINES", "c,python").split(",")
ALL = ("echo", "line", "greet", "broadcast", "download", "upload")
HANDLERS = {
    "direct": ("echo", "greet"),
    "tutorial": ("echo", "greet", "broadcast", "answered"),
    "with-send": ("echo",),
    "chat": ("line", "download", "upload"),
}
LOOPS = ("asyncio", "uvloop", "rloop")
# Load for each protocol of a server, and the "requests" it must report.  Sizes are odd, so that
# nothing fits by chance, and those of echo and line beyond what one recv takes.
LOADS: dict[str, list[tuple[str, float]]] = {
    "echo": [
        ("--busy 5 --idle 3 --requests 50 --size 1001", 50),
        ("--busy 2 --requests 10 --size 200003 --in-flight 3", 10),
        ("--protocol churn --busy 4 --idle 2 --requests 20 --size 501", 20),
    ],
    "line": [
        ("--protocol line --busy 3 --idle 2 --requests 48 --size 33 --in-flight 16", 48),
        ("--protocol line --busy 2 --requests 6 --size 30011 --in-flight 3", 6),
    ],
    "greet": [("--protocol accept --requests 60 --idle 10", 60)],
    "broadcast": [("--protocol broadcast --busy 4 --idle 3 --requests 6 --size 101", 42)],
    "download": [("--protocol download --busy 2 --idle 1 --size 1048576 --requests 4", 4)],
    "upload": [("--protocol upload --busy 2 --idle 1 --size 1048576 --requests 4", 4)],
}
LOADS["answered"] = LOADS["relay"] = LOADS["echo"]


def plain(program: str, *arguments: str, warnings: str = "error") -> list[str]:
    """A program under this interpreter."""
    return [sys.executable, "-W", warnings, str(PROGRAMS / program), *arguments]


def on_loop(loop: str, *arguments: str) -> list[str]:
    """asyncio_servers.py on one of its loops."""
    return plain("asyncio_servers.py", "--loop", loop, *arguments)


def runners(name: str = "channels.py") -> dict[str, list[str]]:
    """What channels.py runs on: each engine, and the asyncore that people use today."""
    program = str(PROGRAMS / name)
    fastcore = [sys.executable, "-W", "error", "-m", "fastcore", "run", "--engine"]
    engines = {f"fastcore-{engine}": [*fastcore, engine, program] for engine in ENGINES}
    return {**engines, "pyasyncore": plain(name, warnings="ignore")}


def servers() -> Iterator[tuple[str, list[str], Sequence[str], str]]:
    """Name, command, protocols and the third-party library that it needs."""
    for runner, command in runners().items():
        for handler, protocols in HANDLERS.items():
            yield f"{runner}-{handler}", [*command, "--handler", handler], protocols, ""
    for loop in LOOPS:
        for flavour in ("protocol", "streams"):
            if (loop, flavour) != ("rloop", "streams"):
                yield f"{loop}-{flavour}", on_loop(loop, "--flavour", flavour), ALL, loop
    for engine in ENGINES:
        for host in ("asyncio", "uvloop"):
            command = [*runners("attached_server.py")[f"fastcore-{engine}"], "--host", host]
            yield f"attached-{engine}-{host}", command, ("echo",), host
    # Deprecations inside these two libraries are theirs.
    yield "gevent", plain("gevent_server.py", warnings="ignore"), ALL, "gevent"
    yield "pyftpdlib", plain("pyftpdlib_server.py", warnings="ignore"), ALL, "pyftpdlib"
    yield "threading", plain("socketserver_server.py", "--flavour", "threading"), ALL, ""
    if hasattr(os, "fork"):
        command = plain("socketserver_server.py", "--flavour", "forking")
        yield "forking", command, [p for p in ALL if p != "broadcast"], ""


CASES = [
    pytest.param(command, protocol, library, id=f"{name}-{protocol}")
    for name, command, protocols, library in servers()
    for protocol in protocols
]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> str:
    """load.c."""
    program = build("load.c", tmp_path_factory.mktemp("load"))
    if program is None:
        pytest.skip("load.c needs a C compiler and POSIX")
    return program


@pytest.fixture(scope="module")
def limit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """limit.c."""
    program = None
    if sys.platform.startswith("linux"):
        program = build("limit.c", tmp_path_factory.mktemp("limit"))
    if program is None:
        pytest.skip("limit.c needs Linux and a C compiler")
    return program


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of channels.py on floor.c."""
    include, folder = sysconfig.get_path("include"), tmp_path_factory.mktemp("floor")
    if not sys.platform.startswith("linux") or not Path(include, "Python.h").is_file():
        pytest.skip("floor.c needs Linux and Python.h")
    extension = build("floor.c", folder, "-shared", "-fPIC", f"-I{include}")
    if extension is None:
        pytest.skip("floor.c needs a C compiler")
    return plain("floor_server.py", extension)


def need(library: str) -> None:
    """Skip where a third-party library is missing."""
    if library and importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")


@contextlib.contextmanager
def running(command: Sequence[str], folder: Path, **more: str) -> Iterator[tuple[int, int]]:
    """Start a server; its process id and port.  It must end with its input, and in silence."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment(**more),
    ) as process:
        guard = threading.Timer(TIMEOUT, process.kill)
        guard.start()
        try:
            assert process.stdout is not None
            match = re.search(r"(\d+)\s*$", process.stdout.readline())
            assert match, process.communicate()
            yield process.pid, int(match[1])
            output, complaints = process.communicate(timeout=TIMEOUT)
            assert (process.returncode, output, complaints) == (0, "", "")
        finally:
            guard.cancel()
            if process.poll() is None:
                process.kill()


def drive(load: str, address: tuple[int, int], arguments: str, requests: float) -> None:
    """Every answer must be right, and there must be so many."""
    pid, port = address
    common = ["--warmup", "0", "--patience", "10", "--pid", str(pid)]
    done = run_load(load, port, *common, *arguments.split())
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads(done.stdout)
    assert set(figures) == KEYS
    assert (figures["requests"], figures["errors"]) == (requests, 0)


def drive_all(load: str, command: Sequence[str], protocol: str, folder: Path, **more: str) -> None:
    """All the load that there is for a protocol, on one server process."""
    line = [*command, "--protocol", protocol, "--size", "101"]
    with running(line, folder, **more) as address:
        for arguments, requests in LOADS[protocol]:
            drive(load, address, arguments, requests)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "protocol", "library"), CASES)
def test_server(load: str, tmp_path: Path, command: list[str], protocol: str, library: str) -> None:
    need(library)
    drive_all(load, command, protocol, tmp_path)


@pytest.mark.parametrize("protocol", ALL)
def test_limit(load: str, limit: str, tmp_path: Path, protocol: str) -> None:
    drive_all(load, [limit], protocol, tmp_path)


@pytest.mark.parametrize("handler", ["direct", "tutorial"])
def test_floor(load: str, floor: list[str], tmp_path: Path, handler: str) -> None:
    drive_all(load, [*floor, "--handler", handler], "echo", tmp_path)


def check_that_nothing_is_lost(command: list[str], folder: Path) -> None:
    """A client that takes nothing for a while gets everything all the same."""
    text = os.urandom(3_000_000)
    with (
        running(command, folder) as (_, port),
        socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as client,
    ):
        assert exchange(client, text) == text


def test_limit_keeps_what_a_client_does_not_take(limit: str, tmp_path: Path) -> None:
    check_that_nothing_is_lost([limit], tmp_path)


def test_floor_keeps_what_a_client_does_not_take(floor: list[str], tmp_path: Path) -> None:
    check_that_nothing_is_lost([*floor, "--handler", "direct"], tmp_path)


def drive_relay(load: str, command: list[str], folder: Path) -> None:
    """Behind a relay is an ordinary echo."""
    with running(on_loop("asyncio"), folder) as (_, port):
        drive_all(load, [*command, "--upstream", str(port)], "relay", folder)


@pytest.mark.parametrize("name", runners())
def test_relay_of_channels(load: str, tmp_path: Path, name: str) -> None:
    drive_relay(load, [*runners()[name], "--handler", "tutorial"], tmp_path)


@pytest.mark.parametrize("loop", LOOPS)
def test_relay_of_protocols(load: str, tmp_path: Path, loop: str) -> None:
    need(loop)
    drive_relay(load, on_loop(loop), tmp_path)


def test_relay_of_the_limit(load: str, limit: str, tmp_path: Path) -> None:
    drive_relay(load, [limit], tmp_path)


BESIDE = {
    **{name: ([*command, "--handler", "direct"], "") for name, command in runners().items()},
    **{loop: (on_loop(loop), loop) for loop in LOOPS},
    "gevent": (plain("gevent_server.py", warnings="ignore"), "gevent"),
    "pyftpdlib": (plain("pyftpdlib_server.py", warnings="ignore"), "pyftpdlib"),
    "threading": (plain("socketserver_server.py"), ""),
}


@pytest.mark.parametrize("name", BESIDE)
def test_beside_a_computing_thread(load: str, tmp_path: Path, name: str) -> None:
    command, library = BESIDE[name]
    need(library)
    with running([*command, "--busy-thread"], tmp_path) as address:
        drive(load, address, "--busy 3 --idle 2 --requests 9", 9)


@pytest.mark.parametrize("name", [name for name in BESIDE if name not in LOOPS])
def test_without_delay(load: str, tmp_path: Path, name: str) -> None:
    command, library = BESIDE[name]
    need(library)
    with running([*command, "--no-delay"], tmp_path) as address:
        drive(load, address, "--busy 3 --requests 9", 9)


@pytest.mark.parametrize("name", [n for n in BESIDE if n.startswith("fastcore") or n in LOOPS])
def test_beside_pending_timers(load: str, tmp_path: Path, name: str) -> None:
    command, library = BESIDE[name]
    need(library)
    with running([*command, "--pending-timers", "1000"], tmp_path) as address:
        drive(load, address, "--busy 3 --requests 30", 30)


@pytest.mark.parametrize(
    "command",
    [
        [*runners()[f"fastcore-{ENGINES[0]}"], "--handler", "direct", "--protocol", "line"],
        [*plain("socketserver_server.py", "--flavour", "forking"), "--protocol", "broadcast"],
        on_loop("asyncio", "--flavour", "streams", "--protocol", "relay"),
    ],
    ids=["handler", "forking", "streams"],
)
def test_says_what_it_cannot_do(tmp_path: Path, command: list[str]) -> None:
    done = run(tmp_path, command)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r".+ does not do the protocol \w+\n", done.stderr)


@pytest.mark.parametrize("loop", [*ENGINES, *LOOPS])
@pytest.mark.parametrize(("program", "count"), [("timers.py", 3000), ("wakeups.py", 300)])
def test_in_process(tmp_path: Path, program: str, count: int, loop: str) -> None:
    need(loop if loop in LOOPS else "")
    more = {"FASTCORE_ENGINE": loop} if loop in ENGINES else {}
    name = "fastcore" if loop in ENGINES else loop
    warnings = "ignore" if loop == "rloop" else "error"  # its sockets are its own to close
    line = plain(program, "--loop", name, "--count", str(count), warnings=warnings)
    done = run(tmp_path, line, **more)
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads(done.stdout)
    assert set(figures) == KEYS
    assert (figures["requests"], figures["errors"]) == (count, 0)
    assert (figures["p50_us"] is None) == (program == "timers.py")
