"""What is installed beside a program: other asyncores, and the other fastcore."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from fastcore._doctor.findings import BREAKS, SETTING, Finding
from fastcore._environment import brings_old_names

OURS = "fastcore-loop"


def name_of(package: metadata.Distribution) -> str:
    """Return the name of an installed package, as the index compares names."""
    # A folder left by a broken uninstallation has no name.
    try:
        found = (package.metadata.get_all("Name") or [""])[0]
    except (OSError, TypeError, ValueError):
        found = ""
    return re.sub(r"[-_.]+", "-", found).lower()


def packages() -> list[metadata.Distribution]:
    """Return what is installed, each package once, those that come first on the path."""
    found: dict[str, metadata.Distribution] = {}
    for package in metadata.distributions():
        found.setdefault(name_of(package), package)
    found.pop("", None)
    return [found[name] for name in sorted(found)]


def files(package: metadata.Distribution) -> list[Path]:
    """Return the Python files of an installed package that are there."""
    paths = [Path(str(package.locate_file(each))) for each in package.files or ()]
    return [path for path in paths if path.suffix == ".py" and path.is_file()]


def check() -> Iterator[Finding]:
    """Yield what of the environment gets in fastcore's way."""
    for package in packages():
        name, where = name_of(package), Path(str(package.locate_file("")))
        if name == "fastcore":
            yield Finding(
                where, 0, 0, "fast-ai", BREAKS,
                f"fastcore {package.version}, of fast.ai, is installed in the folder of this one",
                f"use an environment for each; here: python -m pip uninstall fastcore {OURS}, "
                f"then python -m pip install {OURS}",
            )  # fmt: skip
        elif name != OURS and brings_old_names(package):
            yield Finding(
                where, 0, 0, "two-asyncores", SETTING,
                f"{name} {package.version} brings modules of the old names",
                f"python -m pip uninstall {name}, then python -m fastcore enable; or start "
                "programs with `python -m fastcore run`, which comes first",
            )  # fmt: skip
