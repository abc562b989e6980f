"""fastcore: asyncore and asynchat programs, unmodified, on a C event loop.

The public names live in other modules and are loaded when first asked for:
the engine is chosen once in a process, and `python -m fastcore run --engine`
has to be able to speak first, after this module was imported.
"""

from __future__ import annotations

from os.path import dirname as _dirname, exists as _exists

from fastcore._shim import install
from fastcore._version import __version__

TYPE_CHECKING = False  # the module `typing` takes longer to load than all else here
if TYPE_CHECKING:
    from fastcore import asynchat, asyncore
    from fastcore._default import get_loop
    from fastcore._engine import name as engine, pollers
    from fastcore.loop import Handle, Loop

# A file of another project that is imported under this name.
if _exists(_dirname(__file__) + "/basics.py"):
    from fastcore import _namesake as _namesake  # warns

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

if not TYPE_CHECKING:  # or any name at all would pass a type check

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value = _find(name)
        return value

    def _find(name: str) -> object:
        # Statements, not names in a table: tools that freeze programs follow them.
        # Not `from fastcore import ...`, which would ask here.
        if name == "asyncore":
            import fastcore.asyncore

            return fastcore.asyncore
        if name == "asynchat":
            import fastcore.asynchat

            return fastcore.asynchat
        if name == "get_loop":
            from fastcore._default import get_loop

            return get_loop
        if name == "engine":
            from fastcore._engine import name as engine

            return engine
        if name == "pollers":
            from fastcore._engine import pollers

            return pollers
        import fastcore.loop

        return getattr(fastcore.loop, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
