"""Child processes of `python -m fastcore run`: they find the old names as the program does."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import cli, python

pytestmark = pytest.mark.slow

METHODS = multiprocessing.get_all_start_methods()

# Nothing is imported before the child does so itself: what is loaded is said first.
CHILD = """
import sys
early = [name for name in ("fastcore", "asyncore") if name in sys.modules]
import asynchat, asyncore
print(early, asyncore.__name__, asynchat.__name__, sys.modules["asyncore"] is asyncore)
print(issubclass(asynchat.async_chat, asyncore.dispatcher))
import fastcore
print(asyncore is fastcore.asyncore, fastcore.engine)
print([entry for entry in sys.path if "_children" in entry], sys.path[0])
"""
SAID = ["[] fastcore.asyncore fastcore.asynchat True", "True", "True python"]


@pytest.mark.parametrize("method", METHODS)
def test_of_multiprocessing(tmp_path: Path, method: str) -> None:
    (tmp_path / "program.py").write_text(f"""
import multiprocessing
import asyncore
import socket
import sys

def work(queue):
    class Echo(asyncore.dispatcher_with_send):
        def handle_read(self):
            self.send(self.recv(10))
    ours, peer = socket.socketpair()
    Echo(ours)
    peer.send(b"x")
    asyncore.loop(0.0, count=3)
    queue.put((asyncore.__name__, peer.recv(10)))
    asyncore.close_all()
    peer.close()

if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    queue = context.SimpleQueue()
    process = context.Process(target=work, args=(queue,))
    process.start()
    process.join()
    print(process.exitcode, *queue.get() if process.exitcode == 0 else [])
""")
    done = cli(tmp_path, "run", "program.py")
    assert done.stdout == "0 fastcore.asyncore b'x'\n", done.stderr


def children(folder: Path, *args: str, **environment: str) -> list[str]:
    """What a child says that a program starts by `subprocess`, with these arguments."""
    (folder / "child.py").write_text(CHILD)
    (folder / "program.py").write_text(
        f"import subprocess, sys\nsubprocess.run([sys.executable, *{args!r}], check=True)\n"
    )
    done = cli(folder, "run", "--engine", "python", "program.py", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("args", [("child.py",), ("-m", "child"), ("-c", CHILD)])
def test_of_subprocess(tmp_path: Path, args: tuple[str, ...]) -> None:
    *said, path = children(tmp_path, "-W", "error", *args)
    assert said == SAID
    # What plain Python would have there, and nothing of ours.
    first = {"child.py": str(tmp_path), "-m": str(tmp_path), "-c": ""}[args[0]]
    assert path == f"[] {first}"


def test_of_children(tmp_path: Path) -> None:
    between = "import subprocess, sys; subprocess.run([sys.executable, 'child.py'], check=True)"
    assert children(tmp_path, "-c", between)[:3] == SAID


def test_that_are_to_know_no_environment_have_their_own_asyncore(tmp_path: Path) -> None:
    child = "import sys; print([one for one in sys.meta_path if 'sitecustomize' in repr(one)])"
    assert children(tmp_path, "-E", "-c", child) == ["[]"]


def test_that_have_another_sitecustomize_run_it(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "sitecustomize.py").write_text("import sys\nsys.theirs = __file__\n")
    child = "import sys; print(sys.theirs == sys.modules['sitecustomize'].__file__)\n" + CHILD
    said = children(tmp_path, "-c", child, PYTHONPATH=str(tmp_path / "theirs"))
    assert said[:4] == ["True", *SAID]


def test_whose_sitecustomize_fails_say_so_as_ever(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "sitecustomize.py").write_text("import missing_module\n")
    (tmp_path / "program.py").write_text(
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', ''])\n"
    )
    done = cli(tmp_path, "run", "program.py", PYTHONPATH=str(theirs))
    # Once for the runner's own start, once for the child's.
    assert done.stderr.count("No module named 'missing_module'") == 2


def test_of_another_python_are_left_alone(tmp_path: Path) -> None:
    """The folder reaches them too; who is meant is said beside it."""
    folder = Path(
        python(tmp_path, "-c", "import fastcore; print(fastcore.__file__)").stdout.strip()
    )
    environment = {"PYTHONPATH": str(folder.parent / "_children"), "FASTCORE_RUN": "cpython-27"}
    done = python(tmp_path, "-c", "import sys; print(sys.meta_path[0])", **environment)
    assert "_finder" not in done.stdout
    environment["FASTCORE_RUN"] = str(sys.implementation.cache_tag)
    done = python(tmp_path, "-c", "import sys; print(sys.meta_path[0])", **environment)
    assert "_finder" in done.stdout


def test_of_a_program_that_has_no_runner_are_as_ever(tmp_path: Path) -> None:
    program = "import fastcore, os; fastcore.install(); print(os.environ.get('FASTCORE_RUN'))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "FASTCORE_RUN"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "None\n"
