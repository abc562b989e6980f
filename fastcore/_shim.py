"""Makes `import asyncore` and `import asynchat` mean fastcore's modules.

It works on sys.modules and knows nothing of what the modules contain.
"""

from __future__ import annotations

import sys


def install(force: bool = False) -> None:
    """Let `import asyncore` and `import asynchat` find fastcore's modules in this process.

    Call it before anything imports those names.  Where another module already
    holds one of them (the standard library's, or an installed copy), somebody
    may have taken classes from it: then nothing is changed and RuntimeError is
    raised, unless force is true.  Calling it again does nothing.
    """
    from fastcore import asynchat, asyncore

    ours = {"asyncore": asyncore, "asynchat": asynchat}
    if not force:
        taken = [
            f"{name} ({getattr(found, '__file__', None) or found!r})"
            for name, module in ours.items()
            if (found := sys.modules.get(name)) is not None and found is not module
        ]
        if taken:
            raise RuntimeError(
                f"fastcore.install(): already imported: {', '.join(taken)}. Call install() "
                "before anything imports these names, or install(force=True) to replace them "
                "for later imports; what was taken from them stays as it is"
            )
    sys.modules.update(ours)
