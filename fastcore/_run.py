"""Runs a program as `python program` would, with fastcore in asyncore's place.

It knows how an interpreter starts a program, and nothing of engines or loops.
The program should not be able to tell: the same sys.argv, sys.path, __main__
and exit status, and no frame of ours in a traceback.
"""

from __future__ import annotations

import builtins
import io
import os
import pkgutil
import runpy
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader, SourcelessFileLoader
from importlib.util import find_spec
from types import CodeType, ModuleType, TracebackType
from typing import NoReturn

from fastcore._finder import tell_children
from fastcore._shim import install

# What is in there tells the interpreters that the program starts.
_CHILDREN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_children")

# A module of the standard library that could be run, and who brings it back: as a package, which
# Python does not run.
_FORMER = {"smtpd": "standard-smtpd"}

_SAFE_PATH = bool(getattr(sys.flags, "safe_path", False) or sys.flags.isolated)


def run_script(path: str, args: list[str], replace: Mapping[str, str]) -> None:
    """Run a script, or a folder or archive with a __main__.py; `replace` is that of install()."""
    _install(replace)
    sys.argv[:] = [path, *args]
    full = os.path.abspath(path)
    if _is_container(full):
        # The interpreter puts these on the path even where it is "safe".
        sys.path[0 : 0 if _SAFE_PATH else 1] = [full]
        _run_module("__main__", alter_argv=False)
        return
    if not _SAFE_PATH:
        sys.path[0] = os.path.dirname(os.path.realpath(full))
    main = _fresh_main()
    with _AsProgram():
        exec(_compile(full, main), main.__dict__)


def run_module(name: str, args: list[str], replace: Mapping[str, str]) -> None:
    """Run a module, or a package with a __main__.py, found on sys.path; as `run_script()`."""
    _install(replace)
    sys.argv[:] = ["-m", *args]
    if name in _FORMER:
        spec = find_spec(name)
        if spec is None:
            _say(f"No module named {name}: python -m pip install {_FORMER[name]}")
            sys.exit(1)
        folders = spec.submodule_search_locations
        if folders is not None and PathFinder.find_spec(f"{name}.__main__", folders) is None:
            _run_package(spec)
            return
    _run_module(name, alter_argv=True)


def _run_package(spec: ModuleSpec) -> None:
    """Run the file of a package itself, as if it were a module."""
    assert spec.origin is not None and isinstance(spec.loader, SourceFileLoader)
    sys.argv[0] = spec.origin
    names = {"__file__": spec.origin, "__loader__": spec.loader, "__spec__": spec}
    main = _fresh_main()
    main.__dict__.update(names, __package__="")
    with _AsProgram():
        exec(spec.loader.get_code(spec.name), main.__dict__)  # type: ignore[arg-type]


def _install(replace: Mapping[str, str]) -> None:
    """Let the old names find fastcore's modules, here and in child processes of the same Python."""
    install(replace=replace)
    if replace:
        tell_children(replace)
    os.environ["FASTCORE_RUN"] = sys.implementation.cache_tag or ""
    path = os.environ.get("PYTHONPATH")
    if _CHILDREN not in (path or "").split(os.pathsep):
        os.environ["PYTHONPATH"] = f"{_CHILDREN}{os.pathsep}{path}" if path else _CHILDREN


def _run_module(name: str, alter_argv: bool) -> None:
    _fresh_main()
    with _AsProgram():
        # What the interpreter itself calls for -m: same errors, same frames.
        runpy._run_module_as_main(name, alter_argv)  # type: ignore[attr-defined]


def _fresh_main() -> ModuleType:
    """A __main__ as the interpreter makes it, in the place of our own."""
    main = ModuleType("__main__")
    names: dict[str, object] = {"__builtins__": builtins}
    if sys.version_info < (3, 14):
        names["__annotations__"] = {}
    main.__dict__.update(names)
    sys.modules["__main__"] = main
    return main


def _is_container(full: str) -> bool:
    """Whether the import system takes this path for a folder of modules."""
    return pkgutil.get_importer(full) is not None


def _compile(full: str, main: ModuleType) -> CodeType:
    """The script's code; fills in what __main__ knows of its file."""
    try:
        with io.open_code(full) as file:
            compiled: CodeType | None = None
            if full.endswith(".pyc"):
                compiled = pkgutil.read_code(file)
            source = file.read()
    except OSError as error:
        _cannot_open(full, error)
    loader = SourceFileLoader if compiled is None else SourcelessFileLoader
    main.__dict__.update(__file__=full, __loader__=loader("__main__", full))
    if sys.version_info < (3, 15):
        main.__dict__["__cached__"] = None
    if compiled is not None:
        return compiled
    return compile(source, full, "exec", dont_inherit=True)


def _cannot_open(full: str, error: OSError) -> NoReturn:
    shown = full if sys.implementation.name == "pypy" else repr(full)
    _say(f"can't open file {shown}: [Errno {error.errno}] {error.strerror}")
    sys.exit(2)


def _say(what: str) -> None:
    """As the interpreter does when there is nothing to run."""
    print(f"{sys.executable}: {what}", file=sys.stderr)


class _AsProgram:
    """What is raised within ends the program as if nothing of ours had run it."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None and not isinstance(error, SystemExit):
            _hide_frames(error)


def _hide_frames(error: BaseException) -> None:
    """Let the traceback that ends the program start where the program does.

    The interpreter reports the exception, and so keeps its own ways with exit
    statuses and signals; only the hook it calls is wrapped, at the last moment,
    because programs set and compare sys.excepthook themselves.
    """
    program: TracebackType | None = error.__traceback__
    while program is not None and program.tb_frame.f_globals is globals():
        program = program.tb_next
    hook = sys.excepthook

    def report(kind: type[BaseException], value: BaseException, _: TracebackType | None) -> None:
        sys.excepthook = hook
        sys.last_traceback = program
        hook(kind, value.with_traceback(program), program)

    sys.excepthook = report
