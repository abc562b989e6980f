"""`python -m fastcore enable`, `disable` and `status`, in environments made for the test."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

import fastcore

pytestmark = pytest.mark.slow

WHO = "import asyncore, asynchat; print(asyncore.__name__, asynchat.__name__)"
OURS = "fastcore.asyncore fastcore.asynchat\n"


class Environment:
    """One without packages of its own but for fastcore, which is that under test."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, symlinks=sys.platform != "win32")
        self.python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
        self.packages = Path(self("-c", ask).stdout.strip())
        installed = Path(fastcore.__file__).parents[1]
        (self.packages / "under_test.pth").write_text(f"{installed}\n")

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.python), "-I", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    def fastcore(self, command: str) -> str:
        done = self("-m", "fastcore", command)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def files(self) -> set[str]:
        return {path.name for path in self.packages.iterdir()}


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "environment")


def test_all_processes_find_fastcore_until_it_is_disabled(environment: Environment) -> None:
    before = environment.files()
    assert environment.fastcore("status").startswith("not enabled in ")
    assert environment.fastcore("enable").startswith("enabled, by ")
    assert environment.fastcore("enable").startswith("already enabled, by ")
    assert environment.fastcore("status").startswith("enabled, by ")
    assert environment("-W", "error", "-c", WHO).stdout == OURS
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WHO!r}], check=True)"
    assert environment("-c", child).stdout == OURS
    assert environment.fastcore("disable").startswith("disabled, ")
    assert environment.files() == before
    assert environment.fastcore("disable").startswith("not enabled in ")
    assert environment("-c", WHO).stdout != OURS


def test_nothing_is_loaded_before_it_is_asked_for(environment: Environment) -> None:
    environment.fastcore("enable")
    program = "import sys; print([name for name in sys.modules if 'fastcore.' in name])"
    loaded = "['fastcore._shim', 'fastcore._version', 'fastcore._finder']\n"
    assert environment("-c", program).stdout == loaded


def test_where_the_package_has_gone_nothing_happens(environment: Environment) -> None:
    environment.fastcore("enable")
    (environment.packages / "under_test.pth").unlink()
    done = environment("-c", "print('well')")
    assert (done.stdout, done.stderr) == ("well\n", "")


@pytest.mark.parametrize("form", ["asyncore.py", "asynchat/__init__.py"])
def test_another_package_with_these_modules_is_in_the_way(
    environment: Environment, form: str
) -> None:
    module = environment.packages / form
    module.parent.mkdir(exist_ok=True)
    module.touch()
    information = environment.packages / "pyother-1.2.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: pyother\nVersion: 1.2\n")
    (information / "RECORD").write_text(f"{form},,\n")
    done = environment("-m", "fastcore", "enable")
    assert done.returncode == 2
    assert "pyother 1.2 would no longer be found: python -m pip uninstall pyother" in done.stderr
    assert "pyother 1.2 brings modules of the same names" in environment.fastcore("status")
