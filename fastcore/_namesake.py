"""Warns where another project of the same name has files in this package's folder.

fast.ai's distribution `fastcore` is imported under that name too, and pip writes both into one
folder, where each overwrites files of the other.  Loaded once in a process: by the package, where
it sees such a file, and by loop.py, where the package's first file may be the other project's.
Must not know what is installed besides.
"""

from __future__ import annotations

import os
import warnings

_FOLDER = os.path.dirname(os.path.abspath(__file__))

#: What to say where `is_there`.
ADVICE = (
    f"fast.ai's distribution `fastcore` has files in {_FOLDER}, too: it and `fastcore-loop` "
    "overwrite each other. Give each an environment of its own (python -m venv); "
    "`python -m pip uninstall fastcore` takes files of both away, so install fastcore-loop "
    "again after it"
)

# A file that each of its releases has, and this package has not.
is_there = os.path.exists(os.path.join(_FOLDER, "basics.py"))
if is_there:
    warnings.warn(ADVICE, RuntimeWarning, stacklevel=2)
