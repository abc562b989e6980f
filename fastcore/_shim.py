"""Makes `import asyncore` and `import asynchat` mean fastcore's modules.

It works on sys.modules and knows nothing of what the modules contain.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # the module `typing` takes longer to load than all else here
if TYPE_CHECKING:
    from collections.abc import Mapping


def install(force: bool = False, replace: Mapping[str, str] | None = None) -> None:
    """Let `import asyncore` and `import asynchat` find fastcore's modules in this process.

    `replace` names copies that other packages bring, and which of the two each is a copy of:
    {"waitress.wasyncore": "asyncore"} has them replaced, too, with what known copies add.  Raises
    ValueError where that is neither.

    Call it before anything imports those names.  Where another module already
    holds one of them (the standard library's, or an installed copy), somebody
    may have taken classes from it: then nothing is changed and RuntimeError is
    raised, unless force is true.  Calling it again does nothing.
    """
    from fastcore import _finder, asynchat, asyncore

    copies = dict(replace or {})
    for name, kind in copies.items():
        if not _finder.can_replace(name, kind):
            raise ValueError(f"fastcore.install(): cannot replace {name!r} with {kind!r}")
    ours = {"asyncore": asyncore, "asynchat": asynchat}
    taken = {
        name: found
        for name in (*ours, *copies)
        if (found := sys.modules.get(name)) is not None and not _is_ours(found)
    }
    if taken and not force:
        shown = [
            f"{name} ({getattr(found, '__file__', None) or repr(found)})"
            for name, found in taken.items()
        ]
        raise RuntimeError(
            f"fastcore.install(): already imported: {', '.join(shown)}. Call install() "
            "before anything imports these names, or install(force=True) to replace them "
            "for later imports; what was taken from them stays as it is"
        )
    sys.modules.update(ours)
    if copies:
        _finder.replace(copies, [name for name in taken if name in copies])


def _is_ours(module: object) -> bool:
    """Whether it is one of fastcore's modules, or stands for a copy of one."""
    from fastcore import asynchat, asyncore

    return module in (asyncore, asynchat) or type(module).__module__ == "fastcore._copies"
