"""Shows which lines of fastcore the tests of behaviour reach, with each engine.

    python covered.py                  with the best poller of each engine; some minutes
    python covered.py --all-pollers    with every poller

coverage.py counts the lines of the engine in Python, and those of the engine in C by way of Cython,
in a build with FASTCORE_TRACE=1.  Each engine is tested in a copy of the sources and an environment
of its own, both at the same time; nothing is left of them.  Programs that tests start are not
counted.  The exit status is 1 where tests fail, or where they reach less than LIMIT of a file that
both engines share.  This file must not know how the engines work.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import venv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
ENGINES = ("python", "c")
# Percent of the lines of each shared file, with each engine.  The lowest is inbox.py with 88: what
# runs in a forked child is not seen.
LIMIT = 87.0
TIMEOUT = 2000  # seconds for the tests of one engine; those with the best poller take five minutes
# Tests that have no meaning here, because of what traces.
LEFT_OUT = {
    # They set a trace function, and there can be only one.
    "tests/test_interrupts.py": ENGINES,
    # It measures time.
    "tests/test_buffers_mended.py::test_pushes_to_a_peer_that_does_not_read_are_not_quadratic": (
        "c",
    ),
    # Between the statements of a traced build Python runs, which changes errno: where a signal
    # handler raised, the error of the system call has no number any more.
    "tests/test_kernel_traps.py::test_the_exception_of_a_signal_handler_leaves_the_loop": ("c",),
    "tests/test_threads_signals.py::test_a_handler_that_raises_leaves_the_loop": ("c",),
}
FOLDERS = ("fastcore", "src", "tests", "examples")
FILES = ("setup.py", "pyproject.toml", "LICENSE", "README.md")
MADE = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd", "_no_extension.txt", ".hypothesis")


@dataclass(frozen=True)
class Row:
    """What of one file the tests reach with one engine."""

    file: str
    engine: str
    lines: int
    missing: list[int]

    @property
    def percent(self) -> float:
        return 100.0 * (self.lines - len(self.missing)) / self.lines

    @property
    def is_short(self) -> bool:
        return is_shared(self.file) and self.percent < LIMIT

    def __str__(self) -> str:
        reached = f"{self.lines - len(self.missing)}/{self.lines}"
        start = f"{self.file:32}{self.engine:8}{reached:>9}{self.percent:7.1f} %"
        return f"{start}  {ranges(self.missing)}".rstrip()


def is_shared(file: str) -> bool:
    """Whether that file is the source of both engines: the types beside it say so."""
    types = PROJECT / "fastcore" / "_c" / Path(file).with_suffix(".pxd").name
    compiled_alone = types.with_suffix(".pyx").exists()
    return file.startswith("fastcore/_python/") and types.exists() and not compiled_alone


def belongs(file: str, engine: str) -> bool:
    """Whether that engine runs the file: each has some that the other has no use for."""
    if file.startswith("fastcore/_c/"):
        return engine == "c"
    return engine == "python" or not file.startswith("fastcore/_python/") or is_shared(file)


def ranges(numbers: list[int]) -> str:
    """Lines as a person writes them: 3, 7-9."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)


class Measurement:
    """The tests of behaviour with one engine, in a folder of its own."""

    def __init__(self, engine: str, folder: Path, all_pollers: bool) -> None:
        self.engine = engine
        self.tree = folder / engine
        self.environment = folder / f"{engine}-environment"
        self.variables = {
            **os.environ,
            "CFLAGS": "-O1 -g0",  # it is built for once
            "FASTCORE_BUILD": "require",
            "FASTCORE_TRACE": "1",
            "FASTCORE_TEST_ENGINES": engine,
            "FASTCORE_TEST_POLLERS": "all" if all_pollers else "best",
        }

    @property
    def python(self) -> str:
        names = ("Scripts", "python.exe") if sys.platform == "win32" else ("bin", "python")
        return str(self.environment.joinpath(*names))

    def prepare(self) -> None:
        """Copy the sources, build the engine in C if it is that, let its Python find them."""
        self.tree.mkdir()
        for name in FOLDERS:
            shutil.copytree(PROJECT / name, self.tree / name, ignore=MADE)
        for name in FILES:
            shutil.copy(PROJECT / name, self.tree / name)
        for name in ("source", "benchmarks"):
            shutil.rmtree(self.tree / "tests" / name, ignore_errors=True)
        venv.create(self.environment, with_pip=False)
        # Programs that tests start with -I find the package by this, and nothing by PYTHONPATH.
        base = {"base": str(self.environment), "platbase": str(self.environment)}
        packages = Path(sysconfig.get_path("purelib", "venv", vars=base))
        lines = (str(self.tree), sysconfig.get_path("purelib"))
        (packages / "covered.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
        if self.engine == "c":
            self.run("setup.py", "--quiet", "build_ext", "--inplace", "--parallel", "2")

    def measure(self) -> bool:
        """Run the tests; return whether all of them passed."""
        left_out = [f"--deselect={name}" for name, of in LEFT_OUT.items() if self.engine in of]
        line = ["-I", "-m", "coverage", "run", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        return self.run(*line, *left_out, check=False) == 0

    def rows(self) -> list[Row]:
        """Return what was reached."""
        self.run("-I", "-m", "coverage", "json", "--quiet", "-o", "covered.json")
        report: dict[str, Any] = json.loads((self.tree / "covered.json").read_text("utf-8"))
        rows = []
        for name, found in report["files"].items():
            file = name.replace(os.sep, "/")
            lines = len(found["executed_lines"]) + len(found["missing_lines"])
            if lines and belongs(file, self.engine):
                rows.append(Row(file, self.engine, lines, found["missing_lines"]))
        return rows

    def run(self, *arguments: str, check: bool = True) -> int:
        """Run this environment's Python in the tree, showing what it says; return its status."""
        process = subprocess.Popen(
            [self.python, *arguments],
            cwd=self.tree,
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        watch = threading.Timer(TIMEOUT, process.kill)
        watch.start()
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                print(f"{self.engine:6} | {line}", end="", flush=True)
        watch.cancel()
        if check and process.returncode:
            raise SystemExit(f"covered: {' '.join(arguments)}: status {process.returncode}")
        return process.returncode


def show(rows: Sequence[Row]) -> None:
    print(f"\n{'file':32}{'engine':8}{'lines':>9}{'reached':>9}  not reached")
    for row in sorted(rows, key=lambda row: (row.file, row.engine)):
        print(row)


def main() -> int:
    parser = argparse.ArgumentParser(description="Shows which lines the tests reach.")
    parser.add_argument("--all-pollers", action="store_true", help="not only the best of each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fastcore-covered-") as folder:
        both = [Measurement(engine, Path(folder), options.all_pollers) for engine in ENGINES]
        for one in both:
            one.prepare()
        with ThreadPoolExecutor(len(both)) as pool:
            passed = list(pool.map(Measurement.measure, both))
        rows = [row for one in both for row in one.rows()]
    show(rows)
    short = [row for row in rows if row.is_short]
    for row in short:
        print(f"covered: {row.file} with {row.engine}: {row.percent:.1f} %, less than {LIMIT:g} %")
    for one, well in zip(both, passed, strict=True):
        if not well:
            print(f"covered: tests failed with {one.engine}")
    return 1 if short or not all(passed) else 0


if __name__ == "__main__":
    sys.exit(main())
