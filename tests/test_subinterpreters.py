"""In a sub-interpreter the C engine refuses to be loaded, and the Python engine works.

Knows no single test of an engine: that it works means that sockets and timers do.
"""

from __future__ import annotations

import os
import subprocess
import sys
from textwrap import dedent

import pytest

ENGINES = os.environ.get("FASTCORE_TEST_ENGINES", "c,python").split(",")

# Runs `program` in a sub-interpreter; the ways to one are the standard library's own, by version.
IN_A_SUB_INTERPRETER = """
import sys
if sys.version_info >= (3, 14):
    from concurrent import interpreters
    interpreters.create().exec(program)
else:
    if sys.version_info >= (3, 13):
        import _interpreters as interpreters
    else:
        import _xxsubinterpreters as interpreters
    failed = interpreters.run_string(interpreters.create(), program)
    assert failed is None, failed
"""

SERVE = """
import socket, threading
import fastcore
from fastcore import asyncore, asynchat

class Echo(asynchat.async_chat):
    def __init__(self, sock):
        super().__init__(sock)
        self.set_terminator(b"\\n")
        self.line = b""
    def collect_incoming_data(self, data):
        self.line += data
    def found_terminator(self):
        self.push(self.line + b"!")
        self.close_when_done()

here, there = socket.socketpair()
Echo(here)
there.send(b"hello\\n")
fastcore.get_loop().call_later(0.01, print, "timer")
fastcore.get_loop().run()
print(there.recv(100).decode(), fastcore.engine, flush=True)
there.close()
"""

pytestmark = pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="sub-interpreters are CPython's"
)


def run(program: str, main: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `main` in the main interpreter, then `program` in a sub-interpreter."""
    inherited = {key: value for key, value in os.environ.items() if key != "FASTCORE_ENGINE"}
    lines = f"{main}\nprogram = {dedent(program)!r}\n{IN_A_SUB_INTERPRETER}"
    return subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", lines],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("choice", ["auto", "python"])
def test_the_python_engine_works(choice: str) -> None:
    """Also beside a main interpreter that uses the C engine."""
    done = run(SERVE, "import fastcore; fastcore.engine", FASTCORE_ENGINE=choice)
    assert (done.stdout.split(), done.stderr) == (["timer", "hello!", "python"], "")


@pytest.mark.skipif("c" not in ENGINES, reason="only the Python engine is to be tested")
def test_the_c_engine_refuses_and_says_why() -> None:
    program = """
    try:
        import fastcore
        fastcore.engine
    except ImportError as error:
        print(error, flush=True)
    """
    done = run(program, "import fastcore; fastcore.engine", FASTCORE_ENGINE="c")
    assert "FASTCORE_ENGINE=c: the C extension is installed but cannot be imported" in done.stdout
    assert "nterpreter" in done.stdout
    assert done.stderr == ""
