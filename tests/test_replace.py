"""Copies of asyncore and asynchat that are replaced: `install(replace=...)`, `run --replace`.

Each case runs in an interpreter of its own, on a small package with copies in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SWITCHES = ("FASTCORE_ENGINE", "FASTCORE_POLLER", "FASTCORE_INTEREST")
WHO = "from package import server; print(server.copied.__name__)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One with a package that has copies, under names of no meaning."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("loaded = True\n")
    (package / "copied.py").write_text("who = 'the copy'\n")
    (package / "server.py").write_text("from . import copied\n")
    return tmp_path


def python(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if key not in SWITCHES}
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env={**inherited, **more},
        capture_output=True,
        text=True,
        timeout=60,
    )


def output(folder: Path, *arguments: str) -> str:
    done = python(folder, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_copy_is_replaced_by_its_name(folder: Path) -> None:
    program = """
import fastcore
fastcore.install(replace={"package.copied": "asyncore"})
import package.server
print(package.copied is fastcore.asyncore, package.server.copied is fastcore.asyncore)
from package.copied import dispatcher
import sys
print("package.copied" in sys.modules, package.loaded)
fastcore.install(replace={"package.copied": "asyncore"})
print(sys.modules["package.copied"] is fastcore.asyncore)
"""
    assert output(folder, "-c", program).split() == ["True"] * 5


def test_one_that_is_imported_already_is_not(folder: Path) -> None:
    program = """
import fastcore, package.copied, sys
try:
    fastcore.install(replace={"package.copied": "asyncore"})
except RuntimeError as error:
    print("package.copied (" in str(error), "copied.py" in str(error))
print(package.copied.who, "asyncore" in sys.modules)
fastcore.install(replace={"package.copied": "asyncore"}, force=True)
print(package.copied is fastcore.asyncore)
"""
    lines = output(folder, "-c", program).splitlines()
    assert lines == ["True True", "the copy False", "True"]


@pytest.mark.parametrize(
    "replace", [{"package.copied": "smtpd"}, {"": "asyncore"}, {"a..b": "asyncore"}, {"a-b": "x"}]
)
def test_what_cannot_be_meant_is_refused(folder: Path, replace: dict[str, str]) -> None:
    program = f"""
import fastcore, sys
try:
    fastcore.install(replace={replace})
except ValueError as error:
    print(str(error).startswith("fastcore.install(): cannot replace"), "asyncore" in sys.modules)
"""
    assert output(folder, "-c", program) == "True False\n"


def test_run_replaces_here_and_in_children(folder: Path) -> None:
    (folder / "program.py").write_text(
        "import multiprocessing, subprocess, sys\n"
        "def who():\n"
        "    from package import server\n"
        "    print(server.copied.__name__, flush=True)\n"
        "if __name__ == '__main__':\n"
        "    who()\n"
        f"    subprocess.run([sys.executable, '-c', {WHO!r}], check=True)\n"
        "    child = multiprocessing.get_context('spawn').Process(target=who)\n"
        "    child.start()\n"
        "    child.join()\n"
    )
    options = ("--replace", "package.copied=asyncore", "--replace=package.other=asynchat")
    done = output(folder, "-m", "fastcore", "run", *options, "program.py")
    assert done == "fastcore.asyncore\n" * 3


def test_run_without_the_option_replaces_nothing(folder: Path) -> None:
    (folder / "program.py").write_text(WHO + "\n")
    assert output(folder, "-m", "fastcore", "run", "program.py") == "package.copied\n"


@pytest.mark.parametrize("wrong", ["package.copied", "package.copied=smtpd", "=asyncore", "a b=x"])
def test_run_refuses_other_forms(folder: Path, wrong: str) -> None:
    done = python(folder, "-m", "fastcore", "run", "--replace", wrong, "program.py")
    assert done.returncode == 2
    assert "is not of the form package.copy=asyncore" in done.stderr


# -- what known copies add ------------------------------------------------------------------------


def known(folder: Path, name: str) -> None:
    """Make a package with an empty module of that name."""
    path = folder.joinpath(*name.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True)
    for parent in list(path.relative_to(folder).parents)[:-1]:
        (folder / parent / "__init__.py").write_text("")
    path.write_text("")


def test_wasyncore(tmp_path: Path) -> None:
    known(tmp_path, "waitress.wasyncore")
    program = """
import fastcore, logging, socket
fastcore.install(replace={"waitress.wasyncore": "asyncore"})
from waitress import wasyncore
from fastcore import asyncore
logging.basicConfig(format="%(name)s %(levelname)s %(message)s", stream=__import__("sys").stdout)
print(wasyncore.socket_map is asyncore.socket_map, wasyncore.loop is asyncore.loop)
one, other = socket.socketpair()
class Channel(wasyncore.dispatcher):
    def handle_read(self):
        print(self.recv(10))
        print(self.send(b"well", do_close=False))
        self.log_info("heard", "warning")
        self.close()
channel = Channel(one)
other.send(b"hello")
wasyncore.loop(timeout=1, count=1)
print(other.recv(10), other.recv(10), wasyncore.socket_map)
other.close()
class Gone(wasyncore.dispatcher):
    def handle_close(self):
        print("closed")
        self.close()
one, other = socket.socketpair()
channel = Gone(one)
other.close()
print(channel.send(b"x", do_close=False), channel.send(b"x"))
print(repr(wasyncore.dispatcher()).startswith("<waitress.wasyncore.dispatcher at "))
wasyncore.select = None
print(asyncore.select)
del wasyncore.select
print(hasattr(asyncore, "select"), wasyncore.dispatcher is asyncore.dispatcher)
"""
    assert output(tmp_path, "-c", program).splitlines() == [
        "True True",
        "b'hello'",
        "4",
        "waitress WARNING heard",
        "b'well' b'' {}",
        "closed",
        "0 0",
        "True",
        "None",
        "False False",
    ]


def test_the_copies_of_medusa(tmp_path: Path) -> None:
    known(tmp_path, "supervisor.medusa.asynchat_25")
    (tmp_path / "supervisor" / "medusa" / "asyncore_25.py").write_text("")
    program = """
import fastcore, socket
fastcore.install(replace={"supervisor.medusa.asynchat_25": "asynchat",
                          "supervisor.medusa.asyncore_25": "asyncore"})
from supervisor.medusa import asynchat_25 as asynchat, asyncore_25 as asyncore
class Refills(asynchat.async_chat):
    refilled = 0
    def refill_buffer(self):
        self.refilled += 1
        super().refill_buffer()
    def collect_incoming_data(self, data):
        self.data = data
    def found_terminator(self):
        self.push("text and ")
        self.push_with_producer(asynchat.simple_producer(self.data))
        self.close_when_done()
one, other = socket.socketpair()
chat = Refills(one)
chat.set_terminator(b"\\n")
other.send(b"bytes\\n")
while asyncore.socket_map:
    asyncore.loop(timeout=1, count=1)
with other:
    print(other.recv(100), other.recv(100), chat.refilled > 2)
one, other = socket.socketpair()
channel = asyncore.dispatcher(one)
print(channel.getsockname() == one.getsockname())
channel.close()
other.close()
queue = asynchat.fifo()
queue.push(1)
print(queue.first(), len(queue), queue.pop(), queue.pop(), queue.is_empty())
"""
    assert output(tmp_path, "-c", program).splitlines() == [
        "b'text and bytes' b'' True",
        "True",
        "1 1 (1, 1) (0, None) True",
    ]
