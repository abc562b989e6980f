"""Which wheels are built: the selectors in pyproject.toml, and the jobs that build by them.

A selector that matches nothing is no error to cibuildwheel, and a job that nobody wrote fails
nowhere: so both are compared with the list of what there should be.  Builds nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="cibuildwheel runs on Python 3.11 and newer"
)

PYTHONS = ("cp310", "cp311", "cp312", "cp313", "cp314", "cp314t", "cp315", "cp315t")
ARCHITECTURES = ("x86_64", "aarch64", "armv7l", "ppc64le", "s390x", "riscv64")
PLATFORMS = {
    "linux": [f"{libc}_{one}" for libc in ("manylinux", "musllinux") for one in ARCHITECTURES],
    "macos": ["macosx_x86_64", "macosx_arm64"],
    "windows": ["win_amd64", "win_arm64"],
}
# The runners of GitHub are named after their systems.
RUNNERS = {"ubuntu": "linux", "macos": "macos", "windows": "windows"}


def project() -> dict[str, Any]:
    """What pyproject.toml says."""
    import tomllib  # Python 3.11

    return tomllib.loads((SOURCE / "pyproject.toml").read_text(encoding="utf-8"))


def identifiers(platform: str, architectures: str, skip: str | None = None) -> list[str]:
    """What cibuildwheel would build, by its own names."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CIBW_")}
    if skip is not None:
        environment["CIBW_SKIP"] = skip
    line = [sys.executable, "-I", "-m", "cibuildwheel", "--print-build-identifiers"]
    done = subprocess.run(
        [*line, "--platform", platform, "--archs", architectures, str(SOURCE)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def expected(platform: str) -> list[str]:
    return sorted(f"{python}-{one}" for python in PYTHONS for one in PLATFORMS[platform])


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_selectors(platform: str) -> None:
    assert sorted(identifiers(platform, "all")) == expected(platform)


def test_the_jobs_build_each_wheel_once() -> None:
    workflow = (SOURCE / ".github" / "workflows" / "wheels.yml").read_text(encoding="utf-8")
    rows = re.findall(r"- { os: ([a-z]+)[\w.-]*, archs: (\w+)(.*) }", workflow)
    assert len(rows) == workflow.count(" archs: "), "a row is written in another way"
    built: dict[str, list[str]] = {platform: [] for platform in PLATFORMS}
    for system, architecture, more in rows:
        skip = re.search(r'skip: "(.*)"', more)
        # The job sets the variable, if to nothing.
        names = identifiers(RUNNERS[system], architecture, skip[1] if skip else "")
        built[RUNNERS[system]] += names
    for platform, names in built.items():
        assert sorted(names) == expected(platform)


def test_the_promised_pythons_are_the_built_ones() -> None:
    said = " ".join(project()["project"]["classifiers"])
    promised = re.findall(r"Python :: 3\.(\d+)", said)
    assert [f"cp3{minor}" for minor in promised] == [one for one in PYTHONS if one[-1] != "t"]


def test_the_tests_of_wheels_need_nothing_that_the_others_lack() -> None:
    assert {"include-group": "test-wheel"} in project()["dependency-groups"]["test"]


def test_what_is_for_developers_is_no_extra() -> None:
    assert project()["project"]["optional-dependencies"].keys() == {"bench", "doctor"}


def test_what_the_demo_needs_the_benchmarks_need() -> None:
    """`make demo` installs them without what the demo has no use for."""
    import tomllib

    text = (SOURCE / "benchmarks" / "pyproject.toml").read_text(encoding="utf-8")
    needed = tomllib.loads(text)["project"]["dependencies"]
    assert set(project()["dependency-groups"]["demo"]) < set(needed)
    assert "fastcore-loop" in needed
