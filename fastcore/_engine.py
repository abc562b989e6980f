"""Chooses the engine: the only place that does.

FASTCORE_ENGINE is read once, when this module is first imported:

    auto     (default) the C engine where there is one, else the Python one
    c        the C engine; an ImportError where there is none
    python   the Python engine

This module must not know what an engine does, nor who uses it.
"""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

CHOICES = ("auto", "c", "python")
_PACKAGES = {"c": "fastcore._c", "python": "fastcore._python"}
_EXTENSION = "fastcore._c.engine"
_PARTS = ("engine", "channel", "lines")

_HOW_TO_BUILD = (
    "fastcore was installed without its C engine (fastcore._c.engine). To build it, install a "
    "C compiler and Python's headers, then run: FASTCORE_BUILD=require python -m pip install "
    "--force-reinstall --no-binary fastcore-loop fastcore-loop"
)


def _load(wanted: str) -> tuple[str, str]:
    """Import an engine; return the package that it is in, and why it is this one."""
    if wanted not in CHOICES:
        raise ValueError(f"FASTCORE_ENGINE={wanted!r}: choose from {', '.join(CHOICES)}")
    if wanted == "python":
        return _PACKAGES["python"], "FASTCORE_ENGINE=python"
    if _spec is None:
        if wanted == "c":
            raise ImportError(_HOW_TO_BUILD, name=_EXTENSION)
        if missing is not None and missing.startswith("its build failed"):
            # Whoever built it saw nothing: installers hide the output of builds that succeed.
            _warn(f"{missing}; FASTCORE_ENGINE=python is the choice without this warning")
        return _PACKAGES["python"], "the C extension is not installed"
    try:
        for part in _PARTS:
            import_module(f"{_PACKAGES['c']}.{part}")
        return _PACKAGES["c"], f"FASTCORE_ENGINE={wanted}"
    except Exception as error:
        reason = f"the C extension is installed but cannot be imported: {error!r}"
        if wanted == "c":
            raise ImportError(f"FASTCORE_ENGINE=c: {reason}", name=_EXTENSION) from error
        if _is_main_interpreter():  # elsewhere it is no fault: it serves one of a process
            _warn(reason)
        return _PACKAGES["python"], reason


def _is_main_interpreter() -> bool:
    name = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    try:
        interpreters = import_module(name)
    except ImportError:
        return True  # there are no others
    return bool(interpreters.get_current() == interpreters.get_main())


def _warn(reason: str) -> None:
    """Say that something is wrong: silence would hide it behind a slower program."""
    warnings.warn(f"fastcore uses its Python engine: {reason}", RuntimeWarning, stacklevel=3)


def _why_missing() -> str:
    """The reason that a build without the extension left behind, as setup.py wrote it."""
    note = Path(__file__).with_name("_no_extension.txt")
    if note.is_file():
        return note.read_text(encoding="utf-8").strip()
    return "this is a source tree, or it was never built"


_spec = find_spec(_EXTENSION)
found = None if _spec is None else _spec.origin  # the file of the C engine, also where unused
missing = _why_missing() if _spec is None else None
_package, why = _load(os.environ.get("FASTCORE_ENGINE") or "auto")

if TYPE_CHECKING:
    # The Python engine is the source, and so the type, of both.
    from ._python.channel import held_back, push_short, recv, send
    from ._python.dispatch import Mode
    from ._python.engine import Engine
    from ._python.kernel import build_info, name, pollers
    from ._python.lines import Burst, Rest
    from ._python.timers import Handle
else:

    def _seen_by_freezers() -> None:
        """Name what is imported by name, or from C; never called.

        Tools that freeze programs follow import statements, and see none in an extension module.
        """
        from fastcore._c import (  # noqa: F401
            callbacks,
            channel,
            dispatch,
            engine,
            heap,
            inbox,
            interest,
            kernel,
            lines,
            push,
            sockets,
            sweeps,
            table,
            timers,
            waits,
        )

    def _part(module: str, name: str) -> object:
        return getattr(import_module(f"{_package}.{module}"), name)

    held_back = _part("channel", "held_back")
    push_short = _part("channel", "push_short")
    recv = _part("channel", "recv")
    send = _part("channel", "send")
    Mode = _part("dispatch", "Mode")
    Engine = _part("engine", "Engine")
    Burst = _part("lines", "Burst")
    Rest = _part("lines", "Rest")
    build_info = _part("kernel", "build_info")
    name = _part("kernel", "name")
    pollers = _part("kernel", "pollers")
    Handle = _part("timers", "Handle")

__all__ = [
    "CHOICES",
    "Burst",
    "Engine",
    "Handle",
    "Mode",
    "Rest",
    "build_info",
    "found",
    "held_back",
    "missing",
    "name",
    "pollers",
    "push_short",
    "recv",
    "send",
    "why",
]
