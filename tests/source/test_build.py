"""What the build makes of FASTCORE_BUILD, and what the source distribution holds.

It builds copies of the source tree with this environment's setuptools and
Cython, so that nothing is downloaded and no two tests share a build folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2]
# What is made of the sources of compiled code, whatever setup.py says.
C_FOLDER = SOURCE / "fastcore" / "_c"
TEXTS = {path.stem for path in SOURCE.glob("fastcore/_python/*.py")}
EXTENSIONS = {path.stem for path in C_FOLDER.glob("*.pyx")} | (
    {path.stem for path in C_FOLDER.glob("*.pxd")} & TEXTS
)
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
FALSE = shutil.which("false")
OURS = ("FASTCORE_BUILD", "FASTCORE_ENGINE", "FASTCORE_POLLER", "CC", "PYTHONPATH")
IGNORED = shutil.ignore_patterns(
    ".git", ".venv*", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis"
)
C_ENGINE = pytest.mark.skipif(
    os.environ.get("FASTCORE_TEST_ENGINES") == "python", reason="this run has no C engine"
)

pytestmark = pytest.mark.slow


def without_ours() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in OURS}


def run(folder: Path, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args],
        cwd=folder,
        env={**without_ours(), "CFLAGS": "-O0", **environment},  # quickly built, not quick
        capture_output=True,
        text=True,
        timeout=110,
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SOURCE, tmp_path / "source", ignore=IGNORED))


def backend(folder: Path, hook: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Call one hook of the build backend as an installer does; its result is in dist/."""
    program = f"import setuptools.build_meta as backend; backend.{hook}('dist')"
    (folder / "dist").mkdir(exist_ok=True)
    # -P would be fitting, but the oldest Python has no such option.
    return run(folder, "-c", program, **environment)


def built(folder: Path, pattern: str) -> Path:
    (found,) = (folder / "dist").glob(pattern)
    return found


def extensions(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return [name for name in archive.namelist() if name.endswith((".so", ".pyd"))]


def info(wheel: Path, folder: Path) -> str:
    """What `python -m fastcore info` says of that wheel's contents."""
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    done = run(folder, "-m", "fastcore", "info")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_skip_builds_a_wheel_for_every_platform(source: Path, tmp_path: Path) -> None:
    done = backend(source, "build_wheel", FASTCORE_BUILD="skip")
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    wheel = built(source, "*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert extensions(wheel) == []
    with zipfile.ZipFile(wheel) as archive:
        assert "fastcore/py.typed" in archive.namelist()
    said = info(wheel, tmp_path / "unpacked")
    assert "python (the C extension is not installed)" in said
    assert "none: it was built with FASTCORE_BUILD=skip" in said


@pytest.mark.skipif(FALSE is None, reason="needs the command false")
def test_auto_goes_on_without_a_compiler(source: Path, tmp_path: Path) -> None:
    assert FALSE is not None
    done = backend(source, "build_wheel", CC=FALSE)
    assert done.returncode == 0, done.stderr
    assert "WARNING: the C extension of fastcore could not be built" in done.stderr
    wheel = built(source, "*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert extensions(wheel) == []
    said = info(wheel, tmp_path / "unpacked")
    assert "python (the C extension is not installed)" in said
    assert "none: its build failed (" in said


def test_auto_goes_on_after_an_error_in_cython(source: Path) -> None:
    (source / "fastcore" / "_c" / "push.pyx").write_text("def broken(:\n")
    done = backend(source, "build_wheel")
    assert done.returncode == 0, done.stderr
    assert "WARNING: the C extension of fastcore could not be built" in done.stderr
    wheel = built(source, "*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert extensions(wheel) == []  # nor those that were built before it


@pytest.mark.skipif(FALSE is None, reason="needs the command false")
def test_require_fails_without_a_compiler(source: Path) -> None:
    assert FALSE is not None
    done = backend(source, "build_wheel", CC=FALSE, FASTCORE_BUILD="require")
    assert done.returncode != 0
    assert "FASTCORE_BUILD=require" in done.stderr
    assert "C compiler" in done.stderr
    assert list((source / "dist").glob("*.whl")) == []


@pytest.fixture
def nothing_on_path(tmp_path: Path) -> str:
    """A PATH on which no compiler is found, under whatever name."""
    (tmp_path / "path").mkdir()
    return str(tmp_path / "path")


@pytest.fixture
def mistaken(source: Path) -> Path:
    """The sources with an error in C that every compiler stops at, and not the first extension."""
    path = source / "src" / "platform.h"
    path.write_text(path.read_text() + '#error "a mistake of ours"\n')
    return source


@C_ENGINE
def test_require_fails_on_the_first_error_in_our_own_sources(mistaken: Path) -> None:
    done = backend(mistaken, "build_wheel", FASTCORE_BUILD="require")
    assert done.returncode != 0
    assert "a mistake of ours" in done.stdout + done.stderr
    assert "FASTCORE_BUILD=require, and the C extension cannot be built" in done.stderr
    # What comes before it was built; the extensions that come after it were not tried any more.
    assert "building 'fastcore._c.engine'" in done.stdout
    assert "building 'fastcore._c.sockets'" not in done.stdout
    assert list((mistaken / "dist").glob("*.whl")) == []


@C_ENGINE
def test_auto_does_not_hide_an_error_in_our_own_sources(mistaken: Path, tmp_path: Path) -> None:
    done = backend(mistaken, "build_wheel")
    assert done.returncode == 0, done.stderr
    assert "a mistake of ours" in done.stdout + done.stderr
    assert "WARNING: the C extension of fastcore could not be built" in done.stderr
    wheel = built(mistaken, "*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert extensions(wheel) == []
    assert "none: its build failed (" in info(wheel, tmp_path / "unpacked")


def pip_install(source: Path, where: Path, **environment: str) -> None:
    """What `pip install` makes of the source distribution; it shows nothing of the build."""
    done = backend(source, "build_sdist")
    assert done.returncode == 0, done.stderr
    options = ["--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    archive = str(built(source, "*.tar.gz"))
    done = run(
        source, "-m", "pip", "install", *options, "--target", str(where), archive, **environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list((where / "fastcore").rglob("*.so"))


def echo(where: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Both ends of an echo, run by what was installed there."""
    example = SOURCE / "examples" / "echo_pair.py"
    done = run(where, *options, str(example), PYTHONPATH=str(where))
    assert done.returncode == 0, done.stderr
    assert done.stdout
    return done


def test_pip_without_a_compiler_installs_what_warns_and_works(
    source: Path, tmp_path: Path, nothing_on_path: str
) -> None:
    where = tmp_path / "installed"
    pip_install(source, where, PATH=nothing_on_path)
    done = echo(where)
    assert done.stderr.count("RuntimeWarning: fastcore uses its Python engine") == 1
    assert "its build failed (" in done.stderr
    # Whoever knows, and says so, is left alone.
    done = run(where, "-W", "error", "-c", "import fastcore.loop", FASTCORE_ENGINE="python")
    assert (done.returncode, done.stderr) == (0, "")


def test_pip_with_skip_installs_what_does_not_warn(
    source: Path, tmp_path: Path, nothing_on_path: str
) -> None:
    where = tmp_path / "installed"
    pip_install(source, where, PATH=nothing_on_path, FASTCORE_BUILD="skip")
    assert echo(where, "-W", "error").stderr == ""


def test_pip_with_require_fails_without_a_compiler(
    source: Path, tmp_path: Path, nothing_on_path: str
) -> None:
    with pytest.raises(AssertionError, match="C compiler"):
        pip_install(source, tmp_path / "installed", PATH=nothing_on_path, FASTCORE_BUILD="require")
    assert not (tmp_path / "installed" / "fastcore").exists()


def test_an_unknown_mode_lists_the_choices(source: Path) -> None:
    done = backend(source, "build_wheel", FASTCORE_BUILD="maybe")
    assert done.returncode != 0
    assert "FASTCORE_BUILD='maybe': choose from auto, require, skip" in done.stderr


@C_ENGINE
@pytest.mark.skipif(FALSE is None, reason="needs the command false")
def test_require_builds_and_a_later_failure_leaves_nothing_behind(
    source: Path, tmp_path: Path
) -> None:
    assert FALSE is not None
    # A warning here is an error there: in compilers of the last years.
    strict = "-O0 -Werror=incompatible-pointer-types"
    done = backend(source, "build_wheel", FASTCORE_BUILD="require", CFLAGS=strict)
    assert done.returncode == 0, done.stderr
    wheel = built(source, "*.whl")
    assert sysconfig.get_platform().split("-")[0] in wheel.name
    parts = {name.split(".")[0].removeprefix("fastcore/_c/") for name in extensions(wheel)}
    assert parts == EXTENSIONS
    assert "c (FASTCORE_ENGINE=auto)" in info(wheel, tmp_path / "unpacked")
    # What Cython makes stays in the build folder.
    assert not list((source / "fastcore").rglob("*.c"))

    wheel.unlink()
    done = backend(source, "build_wheel", CC=FALSE)
    assert done.returncode == 0, done.stderr
    wheel = built(source, "*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert extensions(wheel) == []


@pytest.mark.skipif(FALSE is None, reason="needs the command false")
@pytest.mark.parametrize("mode", ["auto", "skip"])
def test_nothing_of_an_earlier_build_in_place_is_left(source: Path, mode: str) -> None:
    """Some of it would be of other sources than the rest."""
    assert FALSE is not None
    for name in EXTENSIONS:
        (source / "fastcore" / "_c" / f"{name}{SUFFIX}").touch()
    line = ["setup.py", "--quiet", "build_ext", "--inplace"]
    done = run(source, *line, CC=FALSE, FASTCORE_BUILD=mode)
    assert done.returncode == 0, done.stderr
    assert not list((source / "fastcore").rglob(f"*{SUFFIX}"))


def test_the_source_distribution_is_complete(source: Path, tmp_path: Path) -> None:
    done = backend(source, "build_sdist")
    assert done.returncode == 0, done.stderr
    with tarfile.open(built(source, "*.tar.gz")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        # Without it Python 3.12 warns of a default that it does not have yet.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # type: ignore[assignment]
        archive.extractall(tmp_path / "unpacked")
    for folder in ("src", "fastcore", "tests", "examples", "docs"):
        kept = {
            path.relative_to(source).as_posix()
            for path in (source / folder).rglob("*")
            if path.is_file() and path.suffix in (".py", ".pyi", ".pyx", ".pxd", ".c", ".h", ".md")
        }
        assert kept <= names, folder
    assert not [name for name in names if name.startswith("benchmarks")]  # a project of its own
    assert {"Makefile", "LICENSE", "README.md", "CHANGELOG.md", "setup.py"} <= names
    # There is no version control in that folder, and none is needed.
    (again,) = (tmp_path / "unpacked").iterdir()
    done = backend(again, "build_wheel", FASTCORE_BUILD="skip")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the installed package, in a folder of its own."""
    import fastcore

    installed = Path(fastcore.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(installed, tmp_path / "fastcore", ignore=ignored))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "engine" else C_ENGINE) for name in sorted(EXTENSIONS)],
)
def test_a_broken_extension_is_not_passed_over_in_silence(package: Path, name: str) -> None:
    (package / "_c" / f"{name}{SUFFIX}").write_bytes(b"not a library")
    program = "import fastcore; print(fastcore.engine)"
    done = run(package.parent, "-c", program)
    assert done.stdout == "python\n"
    assert "RuntimeWarning: fastcore uses its Python engine" in done.stderr
    done = run(package.parent, "-c", program, FASTCORE_ENGINE="c")
    assert done.returncode == 1
    assert "ImportError: FASTCORE_ENGINE=c: the C extension is installed but" in done.stderr
    done = run(package.parent, "-W", "ignore", "-m", "fastcore", "info")
    assert "python (the C extension is installed but cannot be imported: " in done.stdout


def test_a_missing_extension_says_how_to_build_it(package: Path) -> None:
    (package / "_c" / f"engine{SUFFIX}").unlink(missing_ok=True)
    done = run(package.parent, "-W", "error", "-c", "import fastcore; print(fastcore.engine)")
    assert (done.stdout, done.stderr) == ("python\n", "")
    done = run(package.parent, "-c", "import fastcore.loop", FASTCORE_ENGINE="c")
    assert done.returncode == 1
    assert "ImportError: fastcore was installed without its C engine" in done.stderr
    assert "FASTCORE_BUILD=require" in done.stderr
