"""Which engine is chosen, and what is said where it cannot be had.

Each case runs in an interpreter of its own: the engine is chosen once in a process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastcore

ENGINES = os.environ.get("FASTCORE_TEST_ENGINES", "c,python").split(",")
PACKAGE = Path(fastcore.__file__).parent
SAY = "import fastcore; print(fastcore.engine)"


def python(
    program: str, *options: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if key != "FASTCORE_ENGINE"}
    return subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", program],
        env={**inherited, **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def without_extension(tmp_path: Path) -> Path:
    """A folder with the package as it is where nothing could be compiled."""
    (tmp_path / "fastcore").mkdir()
    for file in PACKAGE.rglob("*.py"):
        copy = tmp_path / "fastcore" / file.relative_to(PACKAGE)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(file.read_text())
    return tmp_path


@pytest.mark.parametrize("engine", ENGINES)
def test_the_environment_chooses(engine: str) -> None:
    done = python(SAY, FASTCORE_ENGINE=engine)
    assert (done.stdout, done.stderr) == (f"{engine}\n", "")


@pytest.mark.parametrize("choice", ["auto", "", None])
def test_the_best_one_is_the_default(choice: str | None) -> None:
    done = python(SAY, **({} if choice is None else {"FASTCORE_ENGINE": choice}))
    assert done.stdout == ("c\n" if "c" in ENGINES else "python\n")


def test_an_unknown_engine_is_refused_with_the_list() -> None:
    done = python(SAY, FASTCORE_ENGINE="steam")
    assert done.returncode
    assert "ValueError" in done.stderr
    assert "auto, c, python" in done.stderr


@pytest.mark.parametrize("choice", ["auto", "python"])
def test_without_the_extension_python_it_is(without_extension: Path, choice: str) -> None:
    done = python(SAY, cwd=without_extension, FASTCORE_ENGINE=choice)
    assert (done.stdout, done.stderr) == ("python\n", "")


def test_a_build_that_failed_is_told_of(without_extension: Path) -> None:
    note = without_extension / "fastcore" / "_no_extension.txt"
    note.write_text("its build failed (no compiler)\n")
    done = python(SAY, "-W", "always", cwd=without_extension)
    assert done.stdout == "python\n"
    assert "RuntimeWarning: fastcore uses its Python engine: its build failed" in done.stderr
    done = python(SAY, cwd=without_extension, FASTCORE_ENGINE="python")
    assert (done.stdout, done.stderr) == ("python\n", "")
    note.write_text("it was built with FASTCORE_BUILD=skip\n")
    done = python(SAY, cwd=without_extension)
    assert (done.stdout, done.stderr) == ("python\n", "")


def test_asking_for_c_where_it_is_missing_says_how_to_build_it(without_extension: Path) -> None:
    done = python(SAY, cwd=without_extension, FASTCORE_ENGINE="c")
    assert done.returncode
    assert "ImportError" in done.stderr
    assert "FASTCORE_BUILD=require" in done.stderr


def broken(folder: Path) -> None:
    """An extension that is there but cannot be imported."""
    (folder / "fastcore" / "_c" / "engine.py").write_text("raise ImportError('wrong binary')\n")


def test_a_broken_extension_is_not_passed_over_in_silence(without_extension: Path) -> None:
    broken(without_extension)
    done = python(SAY, "-W", "always", cwd=without_extension)
    assert done.stdout == "python\n"
    assert "wrong binary" in done.stderr


def test_asking_for_c_where_it_is_broken_says_why(without_extension: Path) -> None:
    broken(without_extension)
    done = python(SAY, cwd=without_extension, FASTCORE_ENGINE="c")
    assert done.returncode
    assert "ImportError" in done.stderr
    assert "wrong binary" in done.stderr


@pytest.mark.parametrize("engine", ENGINES)
def test_one_engine_is_behind_all_modules(engine: str) -> None:
    program = """
import sys, fastcore, fastcore._engine as chosen
from fastcore import asyncore
print(chosen.Engine.__module__, asyncore.dispatcher.recv.__module__)
print(*sorted(name for name in sys.modules if name.endswith((".engine", ".kernel"))))
"""
    done = python(program, FASTCORE_ENGINE=engine)
    package = f"fastcore._{engine}"
    assert done.stdout.splitlines() == [
        f"{package}.engine {package}.channel",
        f"{package}.engine {package}.kernel",
    ]


def test_importing_the_package_loads_no_engine() -> None:
    program = "import sys, fastcore; print([one for one in sys.modules if '_engine' in one])"
    assert python(program).stdout == "[]\n"


def test_both_engines_have_the_same_pollers() -> None:
    said = {engine: python("import fastcore; print(*fastcore.pollers())", FASTCORE_ENGINE=engine)
            for engine in ENGINES}  # fmt: skip
    pollers = {engine: done.stdout.split() for engine, done in said.items()}
    if os.name == "nt":
        assert pollers.get("python", ["select"]) == ["select"]  # Python has no WSAPoll
        assert pollers.get("c", ["select", "poll"]) == ["select", "poll"]
    else:
        assert len(set(map(tuple, pollers.values()))) == 1
        assert all("select" in names for names in pollers.values())
