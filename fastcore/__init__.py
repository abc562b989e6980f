"""fastcore: asyncore and asynchat programs, unmodified, on a C event loop.

The public names live in other modules and are loaded when first asked for:
the engine is chosen once in a process, and `python -m fastcore run --engine`
has to be able to speak first, after this module was imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fastcore._shim import install
from fastcore._version import __version__

if TYPE_CHECKING:
    from fastcore import asynchat, asyncore
    from fastcore._default import get_loop
    from fastcore._engine import name as engine, pollers
    from fastcore.loop import Handle, Loop

__all__ = [
    "Handle",
    "Loop",
    "__version__",
    "asynchat",
    "asyncore",
    "engine",
    "get_loop",
    "install",
    "pollers",
]

# public name -> (module, name there, or None for the module itself)
_LAZY = {
    "Handle": ("fastcore.loop", "Handle"),
    "Loop": ("fastcore.loop", "Loop"),
    "asynchat": ("fastcore.asynchat", None),
    "asyncore": ("fastcore.asyncore", None),
    "engine": ("fastcore._engine", "name"),
    "get_loop": ("fastcore._default", "get_loop"),
    "pollers": ("fastcore._engine", "pollers"),
}


if not TYPE_CHECKING:  # or any name at all would pass a type check

    def __getattr__(name: str) -> object:
        try:
            module_name, attribute = _LAZY[name]
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
        module = import_module(module_name)
        value = module if attribute is None else getattr(module, attribute)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
