"""fastcore.install(): which module `import asyncore` finds, and when it refuses.

Each case runs in an interpreter of its own, because it is about sys.modules.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

OTHER = "who = 'other'\n"


def run(folder: Path, program: str) -> str:
    """The output of a program that must succeed, with every warning an error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture
def other_modules(tmp_path: Path) -> Path:
    """A folder whose asyncore and asynchat shadow any that are installed."""
    for name in ("asyncore", "asynchat"):
        (tmp_path / f"{name}.py").write_text(OTHER)
    return tmp_path


def test_import_finds_fastcore(tmp_path: Path) -> None:
    # Python 3.11 would warn on importing its own: -W error sees that it is not.
    program = """
import fastcore
fastcore.install()
import asyncore, asynchat
from asyncore import dispatcher
print(asyncore is fastcore.asyncore, asynchat is fastcore.asynchat)
print(dispatcher is fastcore.asyncore.dispatcher)
print(issubclass(asynchat.async_chat, dispatcher))
"""
    assert run(tmp_path, program).split() == ["True"] * 4


def test_nothing_happens_before_install(other_modules: Path) -> None:
    program = "import fastcore.asyncore, fastcore.asynchat, asyncore; print(asyncore.who)"
    assert run(other_modules, program) == "other\n"


def test_twice_is_once(tmp_path: Path) -> None:
    program = """
import fastcore, sys
fastcore.install()
first = sys.modules["asyncore"]
fastcore.install()
fastcore.install(force=True)
print(sys.modules["asyncore"] is first)
"""
    assert run(tmp_path, program) == "True\n"


@pytest.mark.parametrize("taken", ["asyncore", "asynchat"])
def test_refuses_to_replace_what_is_imported(other_modules: Path, taken: str) -> None:
    program = f"""
import {taken}, fastcore, sys
try:
    fastcore.install()
except RuntimeError as error:
    print(error)
print([sys.modules[name].who for name in ("asyncore", "asynchat") if name in sys.modules])
"""
    message, after = run(other_modules, program).splitlines()
    assert "install(force=True)" in message
    assert f"{taken}.py" in message
    # Nothing changed, for the name that was free neither.
    assert after == "['other']"


def test_force_replaces(other_modules: Path) -> None:
    program = """
import asyncore as before, fastcore
fastcore.install(force=True)
import asyncore, asynchat
print(before.who, asyncore is fastcore.asyncore, asynchat is fastcore.asynchat)
"""
    assert run(other_modules, program) == "other True True\n"


def test_a_blocked_name_is_free(tmp_path: Path) -> None:
    program = """
import sys
sys.modules["asyncore"] = None
import fastcore
fastcore.install()
import asyncore
print(asyncore is fastcore.asyncore)
"""
    assert run(tmp_path, program) == "True\n"


def test_public_names_are_lazy_and_complete(tmp_path: Path) -> None:
    program = """
import sys
import fastcore
print("fastcore._engine" in sys.modules)
print(set(fastcore.__all__) <= set(dir(fastcore)))
for name in fastcore.__all__:
    getattr(fastcore, name)
print(fastcore.engine in ("c", "python"), len(fastcore.pollers()) > 0)
try:
    fastcore.nothing
except AttributeError as error:
    print(error)
"""
    lines = run(tmp_path, program).splitlines()
    assert lines[:3] == ["False", "True", "True True"]
    assert "nothing" in lines[3]
