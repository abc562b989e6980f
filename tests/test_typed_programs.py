"""Runs the programs of typing/ that can be run, on every engine: they are right not only in type.

`make types` checks their types.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENGINES = os.environ.get("FASTCORE_TEST_ENGINES", "c,python").split(",")
FOLDER = Path(__file__).resolve().parent / "typing"
FOR_CHECKERS_ALONE = {"exact.py", "wrong.py"}
PROGRAMS = sorted({path.name for path in FOLDER.glob("*.py")} - FOR_CHECKERS_ALONE)


def test_there_are_programs() -> None:
    assert {"chat.py", "echo.py", "timers.py", "unchanged.py"} <= set(PROGRAMS)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_typed_program_does_what_it_says(program: str, engine: str) -> None:
    # With `run`, so that the program that imports the standard library's modules finds these.
    line = ["-I", "-W", "error", "-m", "fastcore", "run", "--engine", engine, str(FOLDER / program)]
    done = subprocess.run([sys.executable, *line], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
