"""What the figures depend on: the machine, the limit of open files, the versions.

It must not know what is measured.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from importlib import metadata
from typing import Any

import fastcore

from .children import Cores

PACKAGES = ("pyasyncore", "pyasynchat", "uvloop", "gevent", "pyftpdlib")


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


def versions() -> dict[str, str]:
    """What is compared, by name; what is not installed is not there."""
    free_threaded = not getattr(sys, "_is_gil_enabled", lambda: True)()
    found = {
        "python": platform.python_version() + " free-threaded" * free_threaded,
        "fastcore": fastcore.__version__,
    }
    with contextlib.suppress(ImportError, ValueError):  # FASTCORE_ENGINE asks for what is not there
        from fastcore import _engine

        found.update({f"engine {key}": str(value) for key, value in _engine.build_info.items()})
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
