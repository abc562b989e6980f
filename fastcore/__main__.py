"""The command line: `python -m fastcore info`, `run`, `enable`, `doctor` and `bench`.

It sets the switches before anything loads the engine, and leaves the work to
other modules; how a program is run is in _run.py, the benchmarks are a project
of their own, fastcore_bench, which is loaded for `bench` alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import sysconfig
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

# Not from the package itself: its first file may be another project's, see _namesake.py.
from fastcore import _namesake
from fastcore._finder import can_replace
from fastcore._version import __version__

ENGINES = ("auto", "c", "python")  # not from _engine.py: that would load one
INTERESTS = ("adaptive", "strict")
HERE = Path(__file__).resolve().parent

DESCRIPTION = "asyncore and asynchat programs, unmodified, on a fast event loop."
ENVIRONMENT = {
    "enable": "let `import asyncore` find fastcore in every process of this environment",
    "disable": "undo that",
    "status": "say whether it is enabled, and what else brings modules of these names",
}
RUN_DESCRIPTION = """\
Run a program with fastcore's modules in the place of asyncore and asynchat.
The program is a script, a folder or archive with a __main__.py, or with -m a
module; it sees the arguments, the __main__ module, the exit status and the
tracebacks that it would see under plain python.  Python programs that it
starts find fastcore's modules, too.
"""
RUN_USAGE = """\
python -m fastcore run [option ...] script.py [argument ...]
       python -m fastcore run [option ...] -m module [argument ...]"""
# Options of `run` itself that are followed by a value.
TAKES_VALUE = ("--engine", "--poller", "--interest", "--replace")


def make_parser() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """The parser, and the one of `run`, which reports errors of its own."""
    parser = argparse.ArgumentParser(
        prog="python -m fastcore", description=DESCRIPTION, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"fastcore {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    info = commands.add_parser(
        "info",
        help="show the engine, its pollers, the versions and how it was built",
        description="Show the engine, its pollers, the versions and how it was built.",
    )
    info.add_argument("--json", action="store_true", help="the same for programs")
    run = commands.add_parser(
        "run",
        help="run an unmodified asyncore or asynchat program",
        usage=RUN_USAGE,
        description=RUN_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    run.add_argument(
        "--engine",
        choices=ENGINES,
        metavar="NAME",
        help=f"one of {', '.join(ENGINES)}; sets FASTCORE_ENGINE for the program and its children",
    )
    run.add_argument(
        "--poller",
        metavar="NAME",
        help="one that `info` lists; sets FASTCORE_POLLER for the program and its children",
    )
    run.add_argument(
        "--interest",
        choices=INTERESTS,
        metavar="NAME",
        help="adaptive, or strict: every channel is asked what it wants on every turn; sets "
        "FASTCORE_INTEREST for the program and its children",
    )
    run.add_argument(
        "--replace",
        action="append",
        default=[],
        type=copy_and_original,
        metavar="NAME=MODULE",
        help="put fastcore's asyncore or asynchat in the place of a copy that a package brings: "
        "waitress.wasyncore=asyncore; may be given more than once; sets FASTCORE_REPLACE for "
        "children",
    )
    run.add_argument(
        "--debug",
        action="store_true",
        help="name handlers that hold the loop, and channels that spin; sets FASTCORE_DEBUG for "
        "the program and its children",
    )
    for command, text in ENVIRONMENT.items():
        commands.add_parser(command, help=text, description=f"{text.capitalize()}.")
    commands.add_parser(
        "bench",
        help="measure it beside everything one could use instead",
        add_help=False,  # `main` passes on whatever follows
    )
    commands.add_parser(
        "doctor",
        help="read programs, and say what becomes of them on fastcore",
        add_help=False,  # as of `bench`
    )
    run.add_argument("-m", dest="module", action="store_true", help="the program is a module")
    return parser, run


def copy_and_original(text: str) -> tuple[str, str]:
    """The two sides of NAME=MODULE."""
    name, _, original = text.partition("=")
    if not can_replace(name, original):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form package.copy=asyncore")
    return name, original


def split_command_line(argv: list[str]) -> tuple[list[str], list[str]]:
    """Our own arguments, and from the program's name on those of the program.

    By hand, because whatever follows the program's name is the program's, also
    where it looks like an option of ours.
    """
    if "run" not in argv[:1]:
        return argv, []
    index = 1
    while index < len(argv):
        argument = argv[index]
        if argument in TAKES_VALUE:
            index += 2
        elif argument == "--":
            return argv[:index], argv[index + 1 :]
        elif argument.startswith("-m") and argument != "-m":
            return [*argv[:index], "-m"], [argument[2:], *argv[index + 1 :]]
        elif argument == "-m":
            return argv[: index + 1], argv[index + 1 :]
        elif argument.startswith("-"):
            index += 1
        else:
            break
    return argv[:index], argv[index:]


def choose(
    engine: str | None,
    poller: str | None,
    interest: str | None,
    debug: bool,
    parser: argparse.ArgumentParser,
) -> None:
    """Set the switches, and load the engine to see that they can be had."""
    if engine is not None:
        os.environ["FASTCORE_ENGINE"] = engine
    if poller is not None:
        os.environ["FASTCORE_POLLER"] = poller
    if interest is not None:
        os.environ["FASTCORE_INTEREST"] = interest
    if debug:
        os.environ["FASTCORE_DEBUG"] = "1"
    try:
        from fastcore._engine import pollers

        available = pollers()
    except (ImportError, ValueError) as error:
        parser.error(str(error))
    if poller is not None and poller not in available:
        parser.error(f"no poller {poller!r} here; available: {', '.join(available)}")


def facts() -> dict[str, Any]:
    """What a bug report should contain."""
    from fastcore import _engine

    pollers = list(_engine.pollers())
    return {
        "fastcore": __version__,
        "folder": str(HERE),
        "python": interpreter(),
        "platform": platform.platform(),
        "engine": _engine.name,
        "why": _engine.why,
        "pollers": pollers,
        "poller": os.environ.get("FASTCORE_POLLER") or pollers[0],
        "extension": _engine.found,
        "missing": _engine.missing,
        "notes": [*shadowing(), *namesake()],
        "built": dict(_engine.build_info),
    }


def info(found: dict[str, Any]) -> str:
    """The same for people."""
    default = found["poller"]
    listed = [f"{name} (default)" if name == default else name for name in found["pollers"]]
    if default not in found["pollers"]:
        listed.append(f"(FASTCORE_POLLER={default} is not one of them)")
    rows = [
        ("fastcore", f"{found['fastcore']} in {found['folder']}"),
        ("python", found["python"]),
        ("platform", found["platform"]),
        ("engine", f"{found['engine']} ({found['why']})"),
        ("pollers", ", ".join(listed)),
        # Where it is, or the reason that its build left behind.
        ("extension", found["extension"] or f"none: {found['missing']}"),
        *(("note", note) for note in found["notes"]),
        *((f"built: {key}", value) for key, value in found["built"].items()),
    ]
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {value}" for label, value in rows)


def interpreter() -> str:
    """Which Python this is, and whether it has its GIL."""
    named = f"{platform.python_implementation()} {platform.python_version()}"
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        return named
    is_on = getattr(sys, "_is_gil_enabled", lambda: True)()
    return f"{named}, free-threaded, the GIL is {'on' if is_on else 'off'}"


def shadowing() -> list[str]:
    """Whether this is a package without the extension that hides one that has it, or a checkout."""
    from fastcore import _engine

    if _engine.found is not None:
        return []
    for entry in sys.path:
        other = Path(entry or ".", "fastcore").resolve()
        if other != HERE and (other / "__init__.py").is_file() and has_extension(other):
            return [
                f"the package in {HERE} comes first here and has no extension; the one in {other}"
                " has one: run this in another folder, or with python -I -m fastcore"
            ]
    if (HERE.parent / "setup.py").is_file():
        return [
            f"this is the source tree in {HERE.parent}, where Python has looked first; nothing is "
            f"compiled there: python -m pip install {HERE.parent}, and run this in another folder"
        ]
    return []


def namesake() -> list[str]:
    """Whether the other project of this name is installed, or has left files here."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return [f"fastcore {version('fastcore')} is installed, too. {_namesake.ADVICE}"]
    except PackageNotFoundError:
        return [_namesake.ADVICE] if _namesake.is_there else []


def has_extension(package: Path) -> bool:
    """Whether there is any extension module in a package."""
    return any(path.name.endswith(tuple(EXTENSION_SUFFIXES)) for path in package.rglob("*.*"))


def bench(argv: list[str], parser: argparse.ArgumentParser) -> int:
    """Hand over to the benchmarks, which are not installed everywhere, nor always as a whole."""
    try:
        command = import_module("fastcore_bench.command")
    except ModuleNotFoundError as error:
        if error.name != "fastcore_bench":
            parser.error(f"the benchmarks need {error.name}: python -m pip install {error.name}")
        # In a checkout they are at hand, and of the same version.
        project = HERE.parent / "benchmarks"
        is_checkout = (project / "pyproject.toml").is_file()
        what = f"{HERE.parent} {project}" if is_checkout else "'fastcore-loop[bench]'"
        parser.error(f"the benchmarks are not installed: python -m pip install {what}")
    return int(command.main(argv))


def doctor(argv: list[str], parser: argparse.ArgumentParser) -> int:
    """Hand over to the doctor, whose libraries are an extra."""
    try:
        command = import_module("fastcore._doctor.command")
    except ModuleNotFoundError as error:
        if (error.name or "fastcore").partition(".")[0] == "fastcore":
            raise
        parser.error(
            f"the doctor needs {error.name}: python -m pip install 'fastcore-loop[doctor]', "
            "or python -m pip install libcst rich"
        )
    return int(command.main(argv))


def change_environment(command: str, parser: argparse.ArgumentParser) -> None:
    """Enable or disable the environment, or say how it is."""
    from fastcore import _environment

    try:
        print(getattr(_environment, command)())
    except _environment.Refused as error:
        parser.error(str(error))


def main(argv: list[str]) -> None:
    parser, run_parser = make_parser()
    if argv[:1] == ["bench"]:
        sys.exit(bench(argv[1:], parser))
    if argv[:1] == ["doctor"]:
        sys.exit(doctor(argv[1:], parser))
    own, program = split_command_line(argv)
    options = parser.parse_args(own)
    if options.command is None:
        parser.print_help()
        return
    if options.command in ENVIRONMENT:
        change_environment(options.command, parser)
        return
    if options.command == "info":
        try:
            found = facts()
            print(json.dumps(found, indent=2) if options.json else info(found))
        except (ImportError, ValueError) as error:
            parser.error(str(error))
        return
    if not program:
        run_parser.error("what is to be run? Name a script, or a module after -m")
    choose(options.engine, options.poller, options.interest, options.debug, run_parser)
    from fastcore import _run

    target, *rest = program
    if options.module:
        _run.run_module(target, rest, dict(options.replace))
    else:
        _run.run_script(target, rest, dict(options.replace))


def command() -> None:
    """The console script: `fastcore run ...` is `python -m fastcore run ...`."""
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path[0] = os.getcwd()  # as for -m; it was the folder of the script
    main(sys.argv[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
