"""The C sources compile without a word for systems that are not at hand.

`ziglang` brings a compiler and the headers of all of them.  It is part of the
test requirements: where it can be installed, its absence is an error.
"""

import importlib.util
import os
import platform
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

SOURCES = sorted((Path(__file__).parents[2] / "src").glob("poller*.c"))
SUPPORT = SOURCES[0].with_name("platform.h")
STRICT = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror"]

BSD = {"kqueue", "poll", "select"}
LINUX = {"epoll", "poll", "select"}
WINDOWS = {"poll", "select"}
TARGETS = {
    "x86_64-macos": BSD,
    "aarch64-macos": BSD,
    "x86_64-freebsd": BSD,
    "x86_64-openbsd": BSD,
    "x86_64-netbsd": BSD,
    "x86_64-windows-gnu": WINDOWS,
    "aarch64-windows-gnu": WINDOWS,
    "x86-linux-gnu": LINUX,
    "arm-linux-gnueabihf": LINUX,
    "aarch64-linux-musl": LINUX,
}

AT_HAND = (sys.platform, platform.machine()) == ("linux", "x86_64")


@pytest.mark.skipif(not AT_HAND, reason="one system is enough to compile for all others")
def test_ziglang_is_installed():
    assert importlib.util.find_spec("ziglang") is not None, "pip install ziglang"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The environment for the cross compiler: it caches headers between targets."""
    cache = str(tmp_path_factory.mktemp("zig"))
    return {**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}


@pytest.mark.skipif(not AT_HAND, reason="one system is enough to compile for all others")
@pytest.mark.parametrize("target", TARGETS)
def test_compiles_for(target, environment, tmp_path):
    """Every file compiles everywhere, and is empty where its mechanism is missing."""
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", target]
    compile_all(compiler, tmp_path, environment)
    found = {
        path.stem.removeprefix("poller_")
        for path in SOURCES
        if path.stem.replace("poller_", "poller_kind_").encode()
        in (tmp_path / f"{path.stem}.o").read_bytes()
    }
    assert found - {"poller"} == TARGETS[target]


@pytest.mark.skipif(sys.platform == "win32", reason="these are options of gcc and clang")
def test_compiles_here(tmp_path):
    compile_all(shlex.split(sysconfig.get_config_var("CC") or "cc"), tmp_path, None)


@pytest.mark.parametrize("path", sorted(SUPPORT.parent.iterdir()), ids=lambda path: path.name)
def test_the_c_knows_no_python(path):
    assert "Python.h>" not in path.read_text() and '"Python.h' not in path.read_text()


def compile_all(compiler, folder, environment):
    assert len(SOURCES) >= 5
    support = folder / "support.c"
    # Python.h, which stands before it in the extensions, defines this.
    support.write_text(f'#define _GNU_SOURCE 1\n#include "{SUPPORT.as_posix()}"\n')
    for path in [*SOURCES, support]:
        command = [*compiler, *STRICT, "-c", str(path), "-o", str(folder / f"{path.stem}.o")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
