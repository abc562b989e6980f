"""Enables fastcore in an environment: there `import asyncore` finds it in every process.

That is a file that the module `site` reads when Python starts.  Knows where packages are installed,
and must not know what is in them.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

from fastcore._finder import NAMES

#: The name of the file, beside the packages.
FILE = "fastcore-asyncore.pth"

# One line, or `site` would take the others for folders.  Where the package has gone without this
# file, nothing happens.
_LINE = (
    "import sys; exec('try:\\n import fastcore._finder\\n fastcore._finder.install()\\n"
    "except ImportError: pass')\n"
)


class Refused(Exception):
    """The environment cannot be changed; the text says why, and what to do."""


def folders() -> list[Path]:
    """Return the folders of this environment in which `site` reads such files."""
    found = [sysconfig.get_path("purelib")]
    if sys.prefix == sys.base_prefix and site.ENABLE_USER_SITE:
        found.append(site.getusersitepackages())
    return [Path(each) for each in found]


def find_file() -> Path | None:
    """Return the file that enables this environment, None where it is not enabled."""
    return next((path for each in folders() if (path := each / FILE).is_file()), None)


def others() -> list[str]:
    """Return the installed packages that bring modules of the old names, with their versions."""
    found: set[str] = set()
    for package in metadata.distributions(path=[str(each) for each in folders()]):
        if brings_old_names(package):
            found.add(f"{package.metadata['Name']} {package.version}")
    return sorted(found)


def brings_old_names(package: metadata.Distribution) -> bool:
    """Whether an installed package brings a module asyncore or asynchat of its own."""
    return any(Path(each.parts[0]).stem in NAMES for each in package.files or ())


def enable() -> str:
    """Write the file; return what was done.  Raises Refused."""
    known = find_file()
    if known is not None:
        return f"already enabled, by {known}"
    taken = others()
    if taken:
        raise Refused(
            f"{' and '.join(taken)} would no longer be found: python -m pip uninstall "
            f"{' '.join(each.split()[0] for each in taken)}, then try again"
        )
    for folder in folders():
        if os.access(folder, os.W_OK):
            path = folder / FILE
            path.write_text(_LINE, encoding="utf-8")
            return f"enabled, by {path}: every Python of {sys.prefix} finds fastcore's modules"
    raise Refused(
        f"cannot write in {folders()[0]}: use an environment of your own (python -m venv)"
    )


def disable() -> str:
    """Remove the file; return what was done.  Raises Refused."""
    path = find_file()
    if path is None:
        return f"not enabled in {sys.prefix}"
    try:
        path.unlink()
    except OSError as error:
        raise Refused(f"cannot remove {path}: {error.strerror}") from error
    return f"disabled, {path} is gone"


def status() -> str:
    """Say whether this environment is enabled, and what else brings the modules."""
    path = find_file()
    lines = [f"enabled, by {path}" if path else f"not enabled in {sys.prefix}"]
    lines += [f"{each} brings modules of the same names" for each in others()]
    return "\n".join(lines)
