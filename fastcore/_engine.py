"""Chooses the engine: the only place that does.

FASTCORE_ENGINE is read once, when this module is first imported:

    auto     (default) the C engine where there is one, else the Python one
    c        the C engine; an ImportError where there is none
    python   the Python engine

This module must not know what an engine does, nor who uses it.
"""

from __future__ import annotations

import os
import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

CHOICES = ("auto", "c", "python")
_MODULES = {"c": "fastcore._engine_c", "python": "fastcore._engine_py"}
_PARTS = {"c": "fastcore._chat_c", "python": "fastcore._chat_py"}

_HOW_TO_BUILD = (
    "fastcore was installed without its C engine (fastcore._engine_c). To build it, install a "
    "C compiler and Python's headers, then run: FASTCORE_BUILD=require python -m pip install "
    "--force-reinstall --no-binary fastcore-loop fastcore-loop"
)


def _load(wanted: str) -> tuple[ModuleType, str]:
    """The engine's module, and why it is this one."""
    if wanted not in CHOICES:
        raise ValueError(f"FASTCORE_ENGINE={wanted!r}: choose from {', '.join(CHOICES)}")
    if wanted == "python":
        return import_module(_MODULES["python"]), "FASTCORE_ENGINE=python"
    if _spec is None:
        if wanted == "c":
            raise ImportError(_HOW_TO_BUILD, name=_MODULES["c"])
        return import_module(_MODULES["python"]), "the C extension is not installed"
    try:
        return import_module(_MODULES["c"]), f"FASTCORE_ENGINE={wanted}"
    except Exception as error:
        reason = f"the C extension is installed but cannot be imported: {error!r}"
        if wanted == "c":
            raise ImportError(f"FASTCORE_ENGINE=c: {reason}", name=_MODULES["c"]) from error
        # Silence would hide a broken installation behind a slower program.
        warnings.warn(f"fastcore uses its Python engine: {reason}", RuntimeWarning, stacklevel=2)
        return import_module(_MODULES["python"]), reason


_spec = find_spec(_MODULES["c"])
found = None if _spec is None else _spec.origin  # the file of the C engine, also where unused
module, why = _load(os.environ.get("FASTCORE_ENGINE") or "auto")

if TYPE_CHECKING:
    # The Python engine is the reference, and so the type of both.
    from fastcore._chat_py import Received, push_short
    from fastcore._engine_py import Channel, Engine, Handle, name, pollers
else:
    _chat = import_module(_PARTS[module.name])
    Received = _chat.Received
    push_short = _chat.push_short
    Channel = module.Channel
    Engine = module.Engine
    Handle = module.Handle
    name = module.name
    pollers = module.pollers

build_info: dict[str, str] = dict(getattr(module, "build_info", {}))

__all__ = [
    "CHOICES",
    "Channel",
    "Engine",
    "Handle",
    "Received",
    "build_info",
    "found",
    "module",
    "name",
    "pollers",
    "push_short",
    "why",
]
