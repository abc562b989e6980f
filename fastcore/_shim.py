"""Makes `import asyncore` and `import asynchat` mean fastcore's modules.

It works on sys.modules and knows nothing of what the modules contain.
"""

from __future__ import annotations

import sys
from importlib import import_module

_REPLACED = ("asyncore", "asynchat")


def install(force: bool = False) -> None:
    """Let `import asyncore` and `import asynchat` find fastcore's modules in this process.

    Call it before anything imports those names.  Where another module already
    holds one of them (the standard library's, or an installed copy), somebody
    may have taken classes from it: then nothing is changed and RuntimeError is
    raised, unless force is true.  Calling it again does nothing.
    """
    ours = {name: import_module(f"fastcore.{name}") for name in _REPLACED}
    if not force:
        taken = [
            f"{name} ({getattr(found, '__file__', None) or found!r})"
            for name in _REPLACED
            if (found := sys.modules.get(name)) is not None and found is not ours[name]
        ]
        if taken:
            raise RuntimeError(
                f"fastcore.install(): already imported: {', '.join(taken)}. Call install() "
                "before anything imports these names, or install(force=True) to replace them "
                "for later imports; what was taken from them stays as it is"
            )
    sys.modules.update(ours)
