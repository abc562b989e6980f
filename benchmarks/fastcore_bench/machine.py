"""What the figures depend on: the machine, the limit of open files, what is installed.

It must not know what is measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from .children import Cores, Failure, last_line, run_to_end

PACKAGES = ("pyasyncore", "pyasynchat", "uvloop", "rloop", "gevent", "pyftpdlib")
# A program for any interpreter: which fastcore its servers will run on.
PROBE = """
import json, os, platform
os.environ["FASTCORE_ENGINE"] = "auto"
import fastcore, fastcore._engine as engine
built = {f"engine {key}": str(value) for key, value in engine.build_info.items()}
versions = {"fastcore": fastcore.__version__, "python": platform.python_version(), **built}
print(json.dumps({"has_c": engine.found is not None, "versions": versions}))
"""


@dataclass(frozen=True)
class Installed:
    """A Python, whether the fastcore it has comes with the C engine, and what that was built of."""

    python: str
    has_c: bool
    versions: Mapping[str, str]


def installed(python: str, folder: Path) -> Installed:
    """Ask a Python for its fastcore; Failure where it has none.

    In an empty folder, as servers run: a source tree that is the current folder counts for
    neither.
    """
    line = [python, "-W", "ignore", "-c", PROBE]
    try:
        status, output, complaints = run_to_end(line, None, folder, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"{python}: {error}") from error
    if status:
        raise Failure(f"{python} has no fastcore to run: {last_line(complaints)}")
    return Installed(python, **json.loads(output))


def raise_descriptor_limit() -> int:
    """Raise our soft limit of open files as far as we may; the limit, which children inherit."""
    try:
        import resource
    except ImportError:  # not Unix
        return 512
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = 65536  # also where the hard limit is "infinite" but the kernel's is not
    for wanted in (enough, 10240):
        target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft != resource.RLIM_INFINITY and soft < target:
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
                return target
    return enough if soft == resource.RLIM_INFINITY else soft


def cpu_name() -> str:
    """The processor's model, or at least its kind."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory_bytes() -> int | None:
    """How much memory the machine has."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def describe(descriptor_limit: int, cores: Cores) -> dict[str, Any]:
    """The machine, as the result file has it; memory in bytes."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "memory_bytes": memory_bytes(),
        "descriptor_limit": descriptor_limit,
        "pinned": cores.server is not None,
    }


def versions(fastcores: Mapping[str, Installed]) -> dict[str, str]:
    """What is compared, by name; what is not installed is not there."""
    free_threaded = not getattr(sys, "_is_gil_enabled", lambda: True)()
    python = {"python": platform.python_version() + " free-threaded" * free_threaded}
    found = {**python}
    for name, one in fastcores.items():
        found.update({f"{key}{name}": version for key, version in one.versions.items()})
    found.update(python)
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
