"""What `make` would run, where that depends on the folder it runs in.

`make -n` says it and runs nothing.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The Makefile beside as much as it looks at."""
    shutil.copy(SOURCE / "Makefile", tmp_path)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(SOURCE / ".ci", tmp_path / ".ci", ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        (tmp_path / name).touch()
    return tmp_path


def commands(folder: Path, target: str) -> str:
    done = subprocess.run(
        ["make", "-n", target], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_only_scripts_are_linted_as_such(folder: Path) -> None:
    """Tests leave a cache behind beside them."""
    (folder / ".ci" / "__pycache__").mkdir()
    (line,) = (line for line in commands(folder, "lint").splitlines() if "/shellcheck " in line)
    linted = [word for word in line.split() if word.startswith(".ci/")]
    assert ".ci/run" in linted and ".ci/common" in linted
    assert [name for name in linted if not (folder / name).is_file() or name.endswith(".py")] == []


@pytest.mark.parametrize("target", ["demo", "bench", "test", "test-fallback"])
def test_the_benchmarks_are_those_of_the_folder_or_the_indexs(folder: Path, target: str) -> None:
    """The source distribution of fastcore is without them."""
    assert " fastcore-bench" in commands(folder, target)
    (folder / "benchmarks").mkdir()
    assert " ./benchmarks" in commands(folder, target)
