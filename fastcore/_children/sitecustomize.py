"""Lets `import asyncore` find fastcore in the children of `python -m fastcore run`.

A module of this name is run when Python starts; PYTHONPATH names this folder, and FASTCORE_RUN the
kind of Python that it is meant for.  Others read this file, too: so it has no syntax that they
might not know, and makes room for the sitecustomize that they would have had without it.
"""

import os
import sys

_FOLDER = os.path.dirname(os.path.abspath(__file__))
_PACKAGE = os.path.dirname(_FOLDER)


def _install():
    """Have the old names found by fastcore/_finder.py, loaded from where it is."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("fastcore._finder", os.path.join(_PACKAGE, "_finder.py"))
    finder = module_from_spec(spec)
    spec.loader.exec_module(finder)
    finder.install()


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
    _install()
_make_room()
