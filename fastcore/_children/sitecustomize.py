"""Lets `import asyncore` find fastcore in the children of `python -m fastcore run`.

A module of this name is run when Python starts; PYTHONPATH names this folder, and FASTCORE_RUN the
kind of Python that it is meant for.  Others read this file, too: so it has no syntax that they
might not know, and makes room for the sitecustomize that they would have had without it.
"""

import os
import sys

_FOLDER = os.path.dirname(os.path.abspath(__file__))
_PACKAGE = os.path.dirname(_FOLDER)


class _Finder:
    """Finds fastcore's modules under the old names.  They are imported when they are asked for."""

    def find_spec(self, name, path=None, target=None):
        if name not in ("asyncore", "asynchat"):
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        from importlib import import_module

        if "fastcore" not in sys.modules:
            _load_package()
        # The import system returns what stands here when this is done.
        sys.modules[module.__name__] = import_module("fastcore." + module.__name__)


def _load_package():
    """Load the package from where it is: who started this process may have found it otherwise."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(
        "fastcore", os.path.join(_PACKAGE, "__init__.py"), submodule_search_locations=[_PACKAGE]
    )
    package = sys.modules["fastcore"] = module_from_spec(spec)
    try:
        spec.loader.exec_module(package)
    except BaseException:
        del sys.modules["fastcore"]
        raise


def _make_room():
    """Run the other sitecustomize, if there is one, and leave nothing of this one in sys.path."""
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _FOLDER]
    own = sys.modules.pop(__name__)
    try:
        __import__(__name__)
    except ImportError:
        if getattr(sys.exc_info()[1], "name", __name__) != __name__:
            raise
        sys.modules[__name__] = own


_implementation = getattr(sys, "implementation", None)
if getattr(_implementation, "cache_tag", None) == os.environ.get("FASTCORE_RUN"):
    sys.meta_path.insert(0, _Finder())
_make_room()
