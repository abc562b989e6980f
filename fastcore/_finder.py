"""Finds fastcore's modules under the old names, in processes that nobody has told to.

The children of `python -m fastcore run` have it from _children/sitecustomize.py, all processes of
an environment from the file that `python -m fastcore enable` writes.  Each of their Pythons runs
this, so nothing is imported before a program asks for it.  Must not know what the modules contain.
Copies of the modules that are to be replaced are found by it, too.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # the module `typing` takes longer to load than all else here
if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

NAMES = ("asyncore", "asynchat")
# Copies that are to be replaced, for child processes: "package.copy=asyncore,other=asynchat".
_REPLACE = "FASTCORE_REPLACE"
_PACKAGE = os.path.dirname(os.path.abspath(__file__))


class Finder:
    """Finds them before anything else does; stands in `sys.meta_path`.

    `names` has the module, asyncore or asynchat, that is to be found under each name.
    """

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return the spec of a module under its old name, None for any other."""
        if name not in self.names:
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, self)  # type: ignore[arg-type]  # pyright: ignore

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave that to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Put fastcore's module in the place of this one."""
        from importlib import import_module

        if "fastcore" not in sys.modules:
            _load_package()
        name = module.__name__
        kind = self.names[name]
        # The import system returns what stands here when this is done.
        if name in NAMES:
            sys.modules[name] = import_module("fastcore." + name)
        else:
            sys.modules[name] = import_module("fastcore._copies").find(name, kind)


def install() -> None:
    """Have the old names found from now on, and those that the environment says are copies."""
    names = {name: name for name in NAMES}
    for pair in os.environ.get(_REPLACE, "").split(","):
        name, _, kind = pair.partition("=")
        if kind in NAMES:
            names[name] = kind
    sys.meta_path.insert(0, Finder(names))


def tell_children(copies: Mapping[str, str]) -> None:
    """Have child processes replace these copies, too."""
    os.environ[_REPLACE] = ",".join(f"{name}={kind}" for name, kind in copies.items())


def can_replace(name: str, kind: str) -> bool:
    """Whether a module of that name can be a copy of `kind`: of asyncore or asynchat."""
    return kind in NAMES and all(map(str.isidentifier, name.split(".")))


def replace(copies: dict[str, str], imported: list[str]) -> None:
    """Have copies replaced from now on; those named second are imported and are so anew."""
    from importlib import import_module

    known = next((each for each in sys.meta_path if type(each) is Finder), None)
    if known is None:
        known = Finder({})
        sys.meta_path.insert(0, known)
    known.names.update(copies)
    for name in imported:
        del sys.modules[name]
        import_module(name)  # which gives it to the package that it is in


def _load_package() -> None:
    """Load the package from where it is: who started this process may have found it otherwise."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(
        "fastcore", os.path.join(_PACKAGE, "__init__.py"), submodule_search_locations=[_PACKAGE]
    )
    assert spec is not None and spec.loader is not None
    package = sys.modules["fastcore"] = module_from_spec(spec)
    try:
        spec.loader.exec_module(package)
    except BaseException:
        del sys.modules["fastcore"]
        raise
