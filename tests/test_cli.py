"""`python -m fastcore`: what it prints, and that programs cannot tell it from python.

The second part runs each program twice, plainly and through `run`, and compares
all that can be seen from outside.
"""

from __future__ import annotations

import json
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import fastcore

SWITCHES = ("FASTCORE_ENGINE", "FASTCORE_POLLER", "FASTCORE_INTEREST", "FASTCORE_DEBUG")


def python(folder: Path, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if key not in SWITCHES}
    return subprocess.run(
        [sys.executable, *args],
        cwd=folder,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def cli(folder: Path, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return python(folder, "-m", "fastcore", *args, **environment)


# The command line itself


def test_info_names_everything(tmp_path: Path) -> None:
    done = cli(tmp_path, "info", FASTCORE_ENGINE="python")
    assert done.returncode == 0, done.stderr
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert rows["fastcore"].startswith(fastcore.__version__)
    assert rows["engine"] == "python (FASTCORE_ENGINE=python)"
    assert "select" in rows["pollers"]
    assert rows["pollers"].split(",")[0].endswith("(default)")


def test_info_shows_the_chosen_poller(tmp_path: Path) -> None:
    done = cli(tmp_path, "info", FASTCORE_ENGINE="python", FASTCORE_POLLER="select")
    assert "select (default)" in done.stdout


def test_info_says_why_there_is_no_c_engine(tmp_path: Path) -> None:
    done = cli(tmp_path, "info")
    assert done.returncode == 0, done.stderr
    engine = next(line for line in done.stdout.splitlines() if line.startswith("engine"))
    assert engine.split()[1] in ("c", "python")
    if engine.split()[1] == "c":
        assert "built: " in done.stdout
    else:
        assert "not installed" in engine


@pytest.mark.parametrize("has_extension", [True, False])
def test_info_says_when_a_source_folder_hides_the_c_engine(
    tmp_path: Path, has_extension: bool
) -> None:
    """From a checkout's folder its package is found first, which has no extension."""
    checkout, site = tmp_path / "checkout", tmp_path / "site"
    ignored = shutil.ignore_patterns("*.so", "*.pyd", "_no_extension.txt", "__pycache__")
    for parent in (checkout, site):
        shutil.copytree(Path(fastcore.__file__).parent, parent / "fastcore", ignore=ignored)
    if has_extension:
        (site / "fastcore" / f"anything{sysconfig.get_config_var('EXT_SUFFIX')}").touch()
    # The installed package stays out: it may have an extension.
    code = f"import sys, runpy; sys.path[1:] = [{str(site)!r}, *sys.path[1:]]\n"
    code += "sys.argv[1:] = ['info']; runpy.run_module('fastcore', run_name='__main__')"
    done = python(checkout, "-S", "-c", code, PYTHONPATH="")
    assert (done.returncode, done.stderr) == (0, "")
    notes = [line for line in done.stdout.splitlines() if line.startswith("note")]
    assert len(notes) == has_extension, done.stdout
    for word in (str(checkout), f"{site / 'fastcore'} has one", "python -I"):
        assert all(word in note for note in notes)


def test_info_says_that_it_is_the_source_tree(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("*.so", "*.pyd", "_no_extension.txt", "__pycache__")
    shutil.copytree(Path(fastcore.__file__).parent, tmp_path / "fastcore", ignore=ignored)
    (tmp_path / "setup.py").touch()
    done = python(tmp_path, "-S", "-m", "fastcore", "info", PYTHONPATH="")
    (note,) = [line for line in done.stdout.splitlines() if line.startswith("note")]
    assert f"this is the source tree in {tmp_path}" in note
    assert f"python -m pip install {tmp_path}" in note


def test_info_for_programs(tmp_path: Path) -> None:
    done = cli(tmp_path, "info", "--json", FASTCORE_ENGINE="python", FASTCORE_POLLER="select")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fastcore"] == fastcore.__version__
    assert (found["engine"], found["poller"]) == ("python", "select")
    assert found["pollers"][-1] == "select" and found["notes"] == []


# What the two projects of the name make of one folder, by who was installed last.
NAMESAKE = {"ours last": None, "theirs last": '__version__ = "1.8.0"\n'}


@pytest.mark.parametrize("first", NAMESAKE.values(), ids=NAMESAKE)
def test_another_project_of_the_name_is_told_of(tmp_path: Path, first: str | None) -> None:
    package = tmp_path / "fastcore"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(fastcore.__file__).parent, package, ignore=ignored)
    program = "import fastcore.asyncore\nprint(fastcore.asyncore.dispatcher.__name__)"
    plain = python(tmp_path, "-c", program)
    assert (plain.stdout, plain.stderr) == ("dispatcher\n", "")
    (package / "basics.py").touch()
    if first is not None:
        (package / "__init__.py").write_text(first)
    done = python(tmp_path, "-c", program)
    assert done.stdout == "dispatcher\n", done.stderr
    assert done.stderr.count("RuntimeWarning") == 1
    assert "an environment of its own" in done.stderr
    told = python(tmp_path, "-W", "ignore", "-m", "fastcore", "info")
    (note,) = [line for line in told.stdout.splitlines() if line.startswith("note")]
    assert "an environment of its own" in note and str(package) in note
    info = package.parent / "fastcore-1.8.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fastcore\nVersion: 1.8.0\n")
    told = python(tmp_path, "-W", "ignore", "-m", "fastcore", "info")
    assert "fastcore 1.8.0 is installed, too" in told.stdout


def test_alone_it_shows_the_help(tmp_path: Path) -> None:
    done = cli(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == cli(tmp_path, "--help").stdout


def test_help_is_helpful(tmp_path: Path) -> None:
    assert "info" in cli(tmp_path, "--help").stdout
    usage = cli(tmp_path, "run", "--help").stdout
    for word in ("--engine", "--poller", "--interest", "--debug", "-m module"):
        assert word in usage


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run"], "what is to be run"),
        (["run", "-m"], "what is to be run"),
        (["run", "--engine", "rust", "x.py"], "choose from auto, c, python"),
        (["run", "--engine", "python", "--poller", "magic", "x.py"], "available: "),
        (["run", "--interest", "lazy", "x.py"], "choose from adaptive, strict"),
        (["run", "--unknown", "x.py"], "unrecognized arguments: --unknown"),
        (["walk"], "invalid choice: walk"),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, args: list[str], message: str) -> None:
    done = cli(tmp_path, *args)
    assert done.returncode == 2
    assert message in done.stderr.replace("'", "")  # newer Pythons quote no choices
    assert "Traceback" not in done.stderr


def test_an_unknown_engine_in_the_environment_lists_the_choices(tmp_path: Path) -> None:
    done = python(tmp_path, "-c", "import fastcore.asyncore", FASTCORE_ENGINE="rust")
    assert done.returncode == 1
    assert "FASTCORE_ENGINE='rust': choose from auto, c, python" in done.stderr


@pytest.mark.parametrize("option", ["--poller=select", "--poller select"])
def test_switches_reach_the_program_and_its_children(tmp_path: Path, option: str) -> None:
    (tmp_path / "child.py").write_text(
        "import fastcore, os\n"
        "print(fastcore.engine, fastcore.get_loop({}).poller, os.environ['FASTCORE_INTEREST'])\n"
        "print(os.environ['FASTCORE_DEBUG'])\n"
    )
    (tmp_path / "parent.py").write_text(
        "import subprocess, sys\n"
        "exec(open('child.py').read())\n"
        "sys.stdout.flush()\n"
        "subprocess.run([sys.executable, 'child.py'], check=True)\n"
    )
    options = ["--engine", "python", *option.split(), "--interest", "strict", "--debug"]
    done = cli(tmp_path, "run", *options, "parent.py")
    assert done.stdout.splitlines() == ["python select strict", "1"] * 2, done.stderr


def test_programs_get_our_modules(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import asyncore, asynchat\nprint(asyncore.__name__, asynchat.__name__)\n"
    )
    done = cli(tmp_path, "run", "program.py")
    assert done.stdout.split() == ["fastcore.asyncore", "fastcore.asynchat"]
    assert done.stderr == ""


# A program under `run` and under plain python

SHOW = """
import sys
names = {name: value for name, value in globals().items() if name != "sys"}
for name in sorted(names):
    value = names[name]
    print(name, value if isinstance(value, (str, dict, type(None))) else type(value).__name__)
print(sys.argv, sys.path[0], sys.modules["__main__"].__dict__ is globals())
print(getattr(__spec__, "name", None))
"""

FAIL = """
def fail():
    try:
        {}["missing"]
    except KeyError as error:
        raise ValueError("wrong") from error
fail()
"""

PROGRAMS = {
    "show": SHOW,
    "fail": FAIL,
    "ends": "print('done')",
    "exit_status": "import sys; sys.exit(3)",
    "exit_text": "import sys; sys.exit('a reason')",
    "exit_none": "raise SystemExit",
    "exit_in_a_function": "def f():\n    raise SystemExit(4)\nf()",
    "interrupted": "def f():\n    raise KeyboardInterrupt\nf()",
    "syntax": "x = = 1\n",
    "encoding": "# coding: latin-1\nprint(ascii('\\xe9'))\n1/0 # \\xe9",
    "hook": "import sys, traceback\n"
    "def hook(kind, value, tb):\n"
    "    print(kind, [frame.name for frame in traceback.extract_tb(tb)])\n"
    "sys.excepthook = hook\n"
    "1/0\n",
    "hook_untouched": "import sys; print(sys.excepthook is sys.__excepthook__)",
    "at_exit": "import atexit, threading\n"
    "atexit.register(print, 'last')\n"
    "threading.Timer(0.01, print, ['thread']).start()\n"
    "1/0\n",
    "group": "import sys\n"
    "if sys.version_info < (3, 11): raise SystemExit\n"
    "raise ExceptionGroup('several', [ValueError('a'), OSError('b')])\n",
    "source": "import inspect\ndef f():\n    return 1\nprint(inspect.getsource(f))\n",
    "pickled": "import pickle\nclass C: pass\nprint(type(pickle.loads(pickle.dumps(C()))) is C)\n",
    "future": "def f(x: undefined): pass\n",
    "stdin": "print(input())",
}
ARGS = ["one", "--engine", "c", "-m", "--help", "--", ""]


def same(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    plain = python(folder, *args)
    ours = cli(folder, "run", *args)
    assert ours.stdout == plain.stdout
    assert ours.stderr == plain.stderr
    assert ours.returncode == plain.returncode
    return ours


@pytest.mark.parametrize("name", PROGRAMS)
def test_script(tmp_path: Path, name: str) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / f"{name}.py").write_text(PROGRAMS[name], encoding="latin-1")
    same(tmp_path, os.path.join("below", f"{name}.py"), *ARGS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_module(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}_module.py").write_text(PROGRAMS[name], encoding="latin-1")
    same(tmp_path, "-m", f"{name}_module", *ARGS)


def test_package(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text("from . import other\n" + SHOW + FAIL)
    (package / "other.py").write_text("")
    same(tmp_path, "-m", "package", *ARGS)
    same(tmp_path, "-mpackage", *ARGS)


@pytest.mark.parametrize("args", [["-m", "no_such_module"], ["no_such_script.py"], ["-m", "a.b"]])
def test_nothing_to_run(tmp_path: Path, args: list[str]) -> None:
    assert same(tmp_path, *args).returncode != 0


def test_the_command(tmp_path: Path) -> None:
    """The console script is the same as -m fastcore."""
    script = tmp_path / "bin" / "fastcore"
    script.parent.mkdir()
    script.write_text("import sys\nfrom fastcore.__main__ import command\nsys.exit(command())\n")
    (tmp_path / "module.py").write_text(SHOW + FAIL)
    for args in (["module.py", *ARGS], ["-m", "module", *ARGS]):
        plain = python(tmp_path, *args)
        ours = python(tmp_path, str(script), "run", *args)
        assert (ours.stdout, ours.stderr) == (plain.stdout, plain.stderr)
        assert ours.returncode == plain.returncode


# A module that left the standard library as one that could be run, and came back as a package.
FORMER = """
import asyncore, sys
program = sys.argv[0]
class Debugging: pass
if __name__ == "__main__":
    import __main__
    print(asyncore.__name__, sys.argv, program == __file__, __main__.Debugging is Debugging)
    print(__spec__.name, repr(__package__))
    fail()
"""


def test_smtpd_can_be_run_though_it_is_a_package(tmp_path: Path) -> None:
    package = tmp_path / "smtpd"
    package.mkdir()
    (package / "__init__.py").write_text(FORMER)
    done = cli(tmp_path, "run", "-m", "smtpd", "-n", "localhost:0")
    first, second = done.stdout.splitlines()
    argv = [str(package / "__init__.py"), "-n", "localhost:0"]
    assert first == f"fastcore.asyncore {argv} True True"
    assert second == "smtpd ''"
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n  File ")
    assert done.stderr.splitlines()[1].strip().startswith(f'File "{argv[0]}"')
    (package / "__main__.py").write_text("print('its own')")  # who has one, is run by that
    assert cli(tmp_path, "run", "-m", "smtpd").stdout == "its own\n"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the standard library has it")
def test_smtpd_is_missing(tmp_path: Path) -> None:
    done = python(tmp_path, "-c", "import smtpd")
    if done.returncode == 0:
        pytest.skip("it is installed here")
    done = cli(tmp_path, "run", "-m", "smtpd", "-n")
    assert (done.returncode, done.stdout) == (1, "")
    assert "No module named smtpd: python -m pip install standard-smtpd" in done.stderr


def test_folder_and_archive(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__main__.py").write_text("import beside\n" + SHOW + FAIL)
    (tmp_path / "folder" / "beside.py").write_text("")
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        for file in sorted((tmp_path / "folder").iterdir()):
            archive.write(file, file.name)
    (tmp_path / "empty").mkdir()
    same(tmp_path, "folder", *ARGS)
    same(tmp_path, "archive.zip", *ARGS)
    same(tmp_path, "empty")


def test_compiled_script(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SHOW + FAIL)
    py_compile.compile(str(tmp_path / "script.py"), cfile=str(tmp_path / "script.pyc"))
    same(tmp_path, "script.pyc", *ARGS)


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege on Windows")
def test_a_linked_script_imports_from_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "script.py").write_text("import beside\n" + SHOW)
    (tmp_path / "real" / "beside.py").write_text("")
    (tmp_path / "link.py").symlink_to(tmp_path / "real" / "script.py")
    assert same(tmp_path, "link.py").returncode == 0


def test_isolated(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SHOW.replace("sys.path[0]", "'here' in sys.path"))
    plain = python(tmp_path, "-I", "script.py")
    ours = python(tmp_path, "-I", "-m", "fastcore", "run", "script.py")
    if "No module named fastcore" in ours.stderr:
        pytest.skip("fastcore is found through PYTHONPATH, which -I ignores")
    assert (ours.stdout, ours.stderr) == (plain.stdout, plain.stderr)
