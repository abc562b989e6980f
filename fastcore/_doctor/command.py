"""The command line of the doctor: what is to be read, and how it is said."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from fastcore._doctor import children, handlers, imports, loops, rewrite, show, surroundings
from fastcore._doctor.files import walk
from fastcore._doctor.findings import Finding, status
from fastcore._doctor.unit import Unit
from fastcore._environment import brings_old_names

_CHECKS = (imports.check, loops.check, handlers.check, children.check)

DESCRIPTION = """\
Read Python files and say, by file and line, what uses asyncore, asynchat, smtpd
or a copy of them, and what becomes of it on fastcore:

  runs as it is    nothing to do, but to start it with `python -m fastcore run`
  gains nothing    it works, and fastcore cannot make it faster
  wants a setting  an option, or a package beside it
  breaks           it fails, here or on any newer Python
  not read         the file cannot be read

Nothing of what is read is run.
"""
EPILOG = """\
exit status: 0 nothing to do; 1 something breaks, wants a setting or cannot be
read; 2 the command line is wrong, or names what is not there
"""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fastcore doctor",
        usage="python -m fastcore doctor [--fix] [--json] PATH ... | -m MODULE | --installed",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="a file or a folder")
    parser.add_argument(
        "-m", dest="module", metavar="MODULE", help="a module or package that can be imported here"
    )
    parser.add_argument(
        "--installed", action="store_true", help="all that is installed in this environment"
    )
    parser.add_argument(
        "--fix",
        action="store_true",
        help="change imports of asyncore and asynchat to fastcore's, in the files of PATH",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(argv: list[str]) -> int:
    """Run the command; return its exit status."""
    reconfigure: Any = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")  # sources may have any letters
    try:
        found = run(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read it has seen enough; the interpreter would flush once more, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return found


def run(argv: list[str]) -> int:
    """Do what the command line asks for; return the exit status."""
    parser = make_parser()
    options = parser.parse_args(argv)
    if bool(options.paths) + bool(options.module) + options.installed != 1:
        parser.error("what is to be read? Name files or folders, or -m MODULE, or --installed")
    if options.fix and not options.paths:
        parser.error("--fix changes the files of a PATH, not what is installed")
    changes: list[rewrite.Change] = []
    if options.installed:
        findings, read = examine_installed()
    elif options.module:
        try:
            unit, wanted = find_module(options.module)
        except LookupError as error:
            parser.error(str(error.args[0]))
        findings = [each for each in examine(unit) if each.path in wanted]
        findings += surroundings.check()
        read = len(wanted)
    else:
        for path in options.paths:
            if not path.exists():
                parser.error(f"no such file or folder: {path}")
        paths = [each for path in options.paths for each in walk(path.absolute())]
        unit = Unit(paths)
        if options.fix:
            changes = rewrite.fix(unit)
            unit = Unit(paths)  # what is left to be done
        findings, read = examine(unit), len(paths)
    if options.json:
        print(show.as_json(findings, changes, read))
    else:
        show.show(findings, changes, read)
    return status(findings)


def examine(unit: Unit) -> list[Finding]:
    """Return all findings of a program, in the order of its lines."""
    found = list(unit.unread)
    for check in _CHECKS:
        found += check(unit)
    return sorted(set(found))


def examine_installed() -> tuple[list[Finding], int]:
    """Return the findings of all installed packages and of the environment, and what was read."""
    findings, read = list(surroundings.check()), 0
    console = Console(stderr=True)
    for package in track(
        surroundings.packages(),
        "reading",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ):
        is_other = brings_old_names(package)
        if surroundings.name_of(package) == surroundings.OURS or is_other:
            continue
        files = surroundings.files(package)
        read += len(files)
        findings += examine(Unit(files))
    return findings, read


def find_module(name: str) -> tuple[Unit, set[Path]]:
    """Return the program that a module is part of, and the files that are meant.

    Nothing is imported, the packages around it neither.  Raises LookupError, with what to say.
    """
    search: list[str] | None = None
    top: ModuleSpec | None = None
    spec: ModuleSpec | None = None
    for part in name.split("."):
        if spec is not None:
            search = list(spec.submodule_search_locations or ())
        try:
            spec = PathFinder.find_spec(part if spec is None else f"{spec.name}.{part}", search)
        except (ImportError, ValueError) as error:
            raise LookupError(f"no module named {name}: {error}") from None
        if spec is None or (search is not None and not search):
            raise LookupError(f"no module named {name} can be found on sys.path")
        if top is None and spec.origin is not None:
            top = spec
    assert spec is not None
    wanted = set(_files(spec))
    if not wanted:
        raise LookupError(f"{name} has no Python source that could be read")
    return Unit(_files(top or spec)), wanted


def _files(spec: ModuleSpec) -> Iterable[Path]:
    if spec.submodule_search_locations is not None:
        return [path for each in spec.submodule_search_locations for path in walk(Path(each))]
    path = Path(spec.origin or "")
    return [path] if path.suffix == ".py" and path.is_file() else []
