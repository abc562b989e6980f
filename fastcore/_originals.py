"""The system's own functions, whatever a program has put in their place, and whenever.

gevent and eventlet replace functions of `select`, tests replace those of `time`: before fastcore is
imported as well as after.  So what is the system's own is told by what it is, and where the engine
needs it for itself it is taken from a copy of the module that nobody else knows.

Must not know what the functions are for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.machinery import BuiltinImporter, ExtensionFileLoader, PathFinder
from importlib.util import module_from_spec
from types import BuiltinFunctionType, ModuleType
from typing import Any


def is_original(function: Any, module: str) -> bool:
    """Whether `function` is one that the module of that name, written in C, is made with."""
    return type(function) is BuiltinFunctionType and function.__module__ == module


def original(name: str) -> ModuleType:
    """Return a copy of a module written in C, as it was before anyone replaced a part of it.

    Where the interpreter makes no copies (PyPy), or the module is not found where modules are,
    return the module that everybody has.
    """
    if sys.implementation.name == "cpython":
        spec = BuiltinImporter.find_spec(name) or PathFinder.find_spec(name)
        loader: Any = None if spec is None else spec.loader  # BuiltinImporter: the class
        if spec is not None and (
            loader is BuiltinImporter or isinstance(loader, ExtensionFileLoader)
        ):
            module = module_from_spec(spec)
            loader.exec_module(module)
            return module
    return import_module(name)


_time: Any = original("time")


def _clock() -> Callable[[], float]:
    is_shared = _time is sys.modules.get("time")
    if is_shared and hasattr(_time, "clock_gettime"):
        return partial(_time.clock_gettime, _time.CLOCK_MONOTONIC)
    function: Callable[[], float] = _time.monotonic
    return function


# The clock of `time.monotonic()`, in seconds, but another object: a test that stops the time
# replaces that function in all modules that have it.
monotonic = _clock()

sleep: Callable[[float], None] = _time.sleep
