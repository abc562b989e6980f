"""How the extensions are built: the modules of the C engine.

The metadata is in pyproject.toml, but for the description, which is made of
README.md, and the addresses of the project.  FASTCORE_BUILD decides what happens to them:

    auto      (default) build them; where that fails, warn and go on without
    require   any failure ends the build
    skip      leave them out

FASTCORE_TRACE=1 builds an engine whose lines coverage.py sees, for `make
coverage`: slow, and with the C files left beside the sources, where
coverage.py looks for them.

FASTCORE_KQUEUE_CFLAGS and FASTCORE_KQUEUE_LIBS add a kqueue that is not part
of the system (a libkqueue on Linux).  Which pollers a platform has is decided
in C: this file may run on another machine than the compiler does.
"""

import os
import platform
import re
import shlex
import sys
from pathlib import Path
from textwrap import shorten

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

MODES = ("auto", "require", "skip")
# The modules of the C engine: those that are the Python engine's too, and those that are not.
SHARED = (
    "engine",
    "waits",
    "callbacks",
    "dispatch",
    "interest",
    "sweeps",
    "timers",
    "inbox",
    "lines",
)
C_ALONE = ("kernel", "table", "heap", "sockets", "push")
POLLERS = ("poller", "poller_epoll", "poller_kqueue", "poller_poll", "poller_select")
# Where an installation without the extension says why: `python -m fastcore
# info` shows it, because pip shows the output of successful builds to nobody.
NOTE = Path("fastcore", "_no_extension.txt")


def build_mode() -> str:
    mode = os.environ.get("FASTCORE_BUILD") or "auto"
    if mode not in MODES:
        sys.exit(f"FASTCORE_BUILD={mode!r}: choose from {', '.join(MODES)}")
    return mode


def extensions() -> list[Extension]:
    """The files of fastcore/_python, compiled with the types in fastcore/_c, and those of _c."""
    cflags = shlex.split(os.environ.get("FASTCORE_KQUEUE_CFLAGS", ""))
    libs = shlex.split(os.environ.get("FASTCORE_KQUEUE_LIBS", ""))
    sources = {
        **{name: [f"fastcore/_python/{name}.py"] for name in SHARED},
        **{name: [f"fastcore/_c/{name}.pyx"] for name in C_ALONE},
    }
    sources["kernel"] += [f"src/{name}.c" for name in POLLERS]
    macros = [("FASTCORE_HAVE_KQUEUE", "1")] if cflags or libs else []
    if TRACE:
        # Newer Pythons have another way to see lines, which coverage.py's plugin does not know.
        macros += [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")]
        macros += [("CYTHON_USE_SYS_MONITORING", "0")]
    depends = [*Path("src").glob("*.h"), *Path("fastcore/_c").glob("*.pxd")]
    made = [
        Extension(
            f"fastcore._c.{name}",
            sources=files,
            depends=sorted(path.as_posix() for path in depends),
            include_dirs=["src"],
            define_macros=macros,
            libraries=["ws2_32"] if sys.platform == "win32" else [],
            extra_compile_args=cflags,
            extra_link_args=libs if name == "kernel" else [],
            language="c",
        )
        for name, files in sources.items()
    ]
    for extension in made:
        # Read by Cython's half of build_ext.
        extension.cython_c_in_temp = not TRACE
        extension.cython_directives = {
            "language_level": 3,
            "binding": True,
            "auto_pickle": False,
            "embedsignature": False,
            "annotation_typing": False,  # the types are those of the .pxd files
            "nonecheck": True,  # None where an object should be is an AttributeError, not a crash
            "freethreading_compatible": True,
            "linetrace": TRACE,
        }
    return made


class BuildExtension(build_ext):
    """build_ext that knows the three modes."""

    def finalize_options(self) -> None:
        super().finalize_options()
        # Time stamps say nothing of changed flags, compilers or Cythons.
        self.force = True

    def run(self) -> None:
        note = Path(self.build_lib, NOTE)
        note.unlink(missing_ok=True)
        if MODE == "skip":
            self.leave_out("it was built with FASTCORE_BUILD=skip")
            return
        implementation = platform.python_implementation()
        if MODE == "auto" and implementation != "CPython":
            # An emulated C interface is slower than the Python engine.
            self.leave_out(f"on {implementation} the Python engine is the faster one")
            return
        inplace = self.inplace
        try:
            import Cython.Compiler.Main  # noqa: F401  (else a missing engine.c is reported)

            super().run()
        except Exception as error:
            # The compiler's own words are above; the command line may be long.
            reason = shorten(f"{type(error).__name__}: {error}", 100)
            if MODE == "require":
                raise SystemExit(
                    f"fastcore: FASTCORE_BUILD=require, and the C extension cannot be built: "
                    f"{reason}\nIt needs a C compiler, Python's headers and Cython."
                ) from error
            warn(reason)
            self.inplace = inplace  # a build that fails halfway has forgotten it
            self.leave_out(f"its build failed ({reason})")

    def leave_out(self, reason: str) -> None:
        """Go on as a pure Python distribution."""
        for extension in self.extensions or ():
            # An earlier build in this folder may have left one.
            Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
        self.extensions = []
        self.distribution.ext_modules = None
        note = Path(self.build_lib, NOTE)
        if not (self.inplace or self.editable_mode):
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(reason + "\n", encoding="utf-8")


class BuildWheel(bdist_wheel):
    """bdist_wheel that names the wheel after the build, not before."""

    def run(self) -> None:
        if not self.skip_build:
            self.run_command("build")
            self.skip_build = True  # the installation step would build again
        # Only now is it known whether there is an extension: without one the
        # wheel serves every platform and has to say so.
        self.root_is_pure = not self.distribution.has_ext_modules()
        super().run()


def warn(reason: str) -> None:
    line = "*" * 72
    print(
        f"{line}\nWARNING: the C extension of fastcore could not be built:\n  {reason}\n"
        "fastcore is installed without it and will run on its Python engine, which\n"
        "behaves the same and is slower.  With a C compiler and Python's headers\n"
        "installed, FASTCORE_BUILD=require shows the failure in full.\n" + line,
        file=sys.stderr,
        flush=True,
    )


def said(file: str, pattern: str) -> str:
    """What a file says by itself, where no Python that can build has a parser for it."""
    found = re.search(pattern, Path(file).read_text(encoding="utf-8"), flags=re.MULTILINE)
    if found is None:
        sys.exit(f"{file}: nothing there is like {pattern}")
    return found[1]


def addresses() -> dict[str, str]:
    """Where the project is, from the one place that says so."""
    repository = said("pyproject.toml", r'^repository = "(.+)"').rstrip("/")
    return {
        "Documentation": said("pyproject.toml", r'^documentation = "(.+)"'),
        "Source": repository,
        "Issues": f"{repository}/issues",
        "Changelog": f"{repository}/blob/main/CHANGELOG.md",
    }


def description() -> str:
    """README.md for a package index, where a link to a file has to lead to the repository."""
    text = Path("README.md").read_text(encoding="utf-8")
    version = said("fastcore/_version.py", r'^__version__ = "(.+)"')
    of_release = addresses()["Source"] + "/{kind}/v" + version + "/"
    kinds = {"!": of_release.format(kind="raw"), "": of_release.format(kind="blob")}
    return re.sub(
        r"(!?)(\[[^][]+\]\()(?![a-z]+:|#)",
        lambda match: match[0] + kinds[match[1]],
        text,
    )


MODE = build_mode()
TRACE = os.environ.get("FASTCORE_TRACE") == "1"

setup(
    long_description=description(),
    long_description_content_type="text/markdown",
    project_urls=addresses(),
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildExtension, "bdist_wheel": BuildWheel},
)
