"""Runs the demo once, in small.

The figures themselves are not judged here: they depend on the machine.  What is: that the table
and the file appear, and that missing pieces are named.  The load generator is in test_load.py.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bench_support import TIMEOUT, build, exchange, needs_compiler, run

ENGINES = os.environ.get("FASTCORE_TEST_ENGINES", "c,python").split(",")


def run_demo(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The demo with its smallest numbers, from a folder of no source tree."""
    line = [sys.executable, "-W", "error", "-m", "fastcore", "bench", "demo", "--quick"]
    return run(folder, [*line, "--seconds", "0.2", *arguments], **more)


def engine(cell: dict[str, Any]) -> str:
    """Short for the server of a cell: c, python, pyasyncore or limit."""
    return str(cell["server"]).removeprefix("fastcore-").removesuffix("-tutorial")


@needs_compiler
@pytest.mark.slow
def test_demo(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    done = run_demo(tmp_path, "--json", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("requests/s", "p99", "/peer", "10 busy + 20 idle", "fastcore, C", "[1/"):
        assert word in done.stdout
    assert "\u2026" not in done.stdout, "figures that are cut short"
    for column in ("limit: ", "CPU us: ", "p50, p99: ", "/limit: ", "/peer: "):
        assert column in done.stdout.replace("\n", " "), column
    cells = json.loads(path.read_text())["cells"]
    answered = {engine(cell) for cell in cells if cell["rounds"]}
    assert {*ENGINES, "pyasyncore"} <= answered, done.stdout
    for cell in cells:
        for figures in cell["rounds"]:
            assert figures["errors"] == 0
            assert figures["requests_per_second"] > 0
        if engine(cell) in answered:
            assert cell["failure"] is None
        else:  # a build without the C engine says so and goes on
            assert cell["failure"].startswith("missing")
            assert "missing" in done.stdout
    numbers = {(r["busy"], r["idle"]) for cell in cells for r in cell["rounds"]}
    assert numbers == {(1, 0), (10, 20)}


@pytest.mark.skipif(os.name != "posix", reason="the load generator is for Unix")
@pytest.mark.parametrize("how", ["none", "not there", "fails"])
def test_demo_without_compiler(tmp_path: Path, how: str) -> None:
    path = tmp_path / "figures.json"
    more = {
        "none": {"PATH": str(tmp_path), "CC": ""},
        "not there": {"CC": "no-such-compiler"},
        "fails": {"CC": shutil.which("false") or "false"},
    }[how]
    done = run_demo(tmp_path, "--json", str(path), **more)
    assert (done.returncode, done.stdout) == (2, "")
    assert "the load generator needs a C compiler" in done.stderr
    assert "apt install gcc" in done.stderr
    assert not path.exists()


@needs_compiler
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="descriptor limits are a Unix matter")
def test_demo_scales_down(tmp_path: Path) -> None:
    code = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (90, 90));"
        "sys.argv[1:] = ['bench', 'demo', '--quick', '--seconds', '0.1'];"
        "runpy.run_module('fastcore', run_name='__main__')"
    )
    done = run(tmp_path, [sys.executable, "-c", code])
    assert (done.returncode, done.stderr) == (0, "")
    assert "limit of 90 open files" in done.stdout
    assert "scaled down to echo 1 KiB, 10 busy + 16 idle" in " ".join(done.stdout.split())


def test_demo_explains_mistakes(tmp_path: Path) -> None:
    for wrong in (("--seconds", "0"), ("--connections", "0"), ("--connections", "ten")):
        done = run_demo(tmp_path, *wrong)
        assert (done.returncode, done.stdout) == (2, "")
        assert wrong[0] in done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limit.c is for Linux")
def test_limit_ends_with_its_input(tmp_path: Path) -> None:
    program = build("limit.c", tmp_path)
    if program is None:
        pytest.skip("limit.c needs a C compiler")
    with subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        port = int(process.stdout.readline().split()[-1])
        text = os.urandom(3_000_000)
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as client:
            assert exchange(client, text) == text
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0
