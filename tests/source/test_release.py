"""The checks before a release find what is wrong with a release.

Each fault is planted in a small project of this one's shape, next to a run
without it.  `make release-check` does the checks on the real thing.
"""

from __future__ import annotations

import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git says what is tracked")


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, SOURCE / ".ci" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


artefacts = load("artefacts")

FILES = {
    ".gitignore": "/dist/\n",
    "CHANGELOG.md": "# Changelog\n\n## 1.2.3 (2026-01-02)\n\n- New.\n",
    "README.md": "[more](docs/more.md), [elsewhere](https://example.org), [below](#below)\n",
    "docs/more.md": "[back](../README.md#top) ![a plot](plot.svg)\n",
    "docs/plot.svg": "<svg/>",
    "pyproject.toml": '[tool.fastcore]\nrepository = "https://code.example.net/fastcore"\n',
    "fastcore/__init__.py": "",
    "fastcore/_c/__init__.py": "",
    "fastcore/_c/engine.pxd": "",
    "fastcore/_c/engine.pyi": "",
    "fastcore/_c/kernel.pxd": "",
    "fastcore/_c/platform.pxd": "",
    "fastcore/_c/kernel.pyx": "",
    "fastcore/_c/push.pyx": "",
    "fastcore/_python/engine.py": "",
    "fastcore/_version.py": '"""The version."""\n\n__version__ = "1.2.3"\n',
    "fastcore/py.typed": "",
    "src/poller.c": "",
    "benchmarks/README.md": "",
    "benchmarks/pyproject.toml": "",
    "benchmarks/fastcore_bench/c/load.c": "",
    "benchmarks/fastcore_bench/page.html": "",
    "examples/echo.py": "",
}
OF_BENCHMARKS = {name.removeprefix("benchmarks/") for name in FILES if "benchmarks/" in name}
IN_SDIST = {name for name in FILES if not name.startswith((".gitignore", "benchmarks/"))}
IN_PURE_WHEEL = {
    "fastcore/__init__.py",
    "fastcore/_c/__init__.py",
    "fastcore/_c/engine.pyi",
    "fastcore/_python/engine.py",
    "fastcore/_version.py",
    "fastcore/_no_extension.txt",
    "fastcore/py.typed",
}
IN_BENCH_WHEEL = {"fastcore_bench/c/load.c", "fastcore_bench/page.html"}
LICENCE = "fastcore_loop-1.2.3.dist-info/licenses/LICENSE"
METADATA = "Metadata-Version: 2.4\nName: fastcore-loop\nVersion: 1.2.3\n\n"
BENCH, BENCH_METADATA = "fastcore_bench-1.2.3", METADATA.replace("fastcore-loop", "fastcore-bench")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A project under version control."""
    folder = tmp_path / "source"
    for name, text in FILES.items():
        write(folder, name, text)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    return folder


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def make_sdist(
    folder: Path, names: set[str], said: str = METADATA, name: str = "fastcore_loop-1.2.3"
) -> Path:
    path = folder / f"{name}.tar.gz"
    contents = dict.fromkeys(names, "") | {"PKG-INFO": said, "setup.cfg": ""}
    with tarfile.open(path, "w:gz") as archive:
        for each, text in contents.items():
            member = tarfile.TarInfo(f"{name}/{each}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def make_wheel(
    folder: Path,
    names: set[str],
    said: str = METADATA,
    tags: str = "py3-none-any",
    name: str = "fastcore_loop-1.2.3",
) -> Path:
    path = folder / f"{name}-{tags}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for each in sorted(names):
            archive.writestr(each, "")
        archive.writestr(f"{name}.dist-info/METADATA", said)
        archive.writestr(f"{name}.dist-info/RECORD", "")
    return path


def make_bench_wheel(folder: Path, names: set[str]) -> Path:
    licence = f"{BENCH}.dist-info/licenses/LICENSE"
    return make_wheel(folder, names | {licence}, BENCH_METADATA, name=BENCH)


def faults(source: Path, *distributions: Path, tag: str = "") -> list[str]:
    subprocess.run(["git", "add", "--all"], cwd=source, check=True)
    return list(artefacts.check_all(source, distributions, tag))


def test_nothing_is_found_where_nothing_is_wrong(source: Path, tmp_path: Path) -> None:
    platform = IN_PURE_WHEEL - {"fastcore/_no_extension.txt"}
    platform |= {f"fastcore/_c/{part}.cp313-win_amd64.pyd" for part in ("engine", "kernel")}
    platform |= {"fastcore/_c/push.abi3.so"}
    built = [
        make_sdist(tmp_path, IN_SDIST),
        make_wheel(tmp_path, IN_PURE_WHEEL | {LICENCE}),
        make_wheel(tmp_path, platform | {LICENCE}, tags="cp313-cp313-win_amd64"),
        make_sdist(tmp_path, OF_BENCHMARKS, BENCH_METADATA, BENCH),
        make_bench_wheel(tmp_path, IN_BENCH_WHEEL),
    ]
    assert faults(source, *built) == []
    assert faults(source, *built, tag="v1.2.3") == []


@pytest.mark.parametrize(
    "lost", ["src/poller.c", "fastcore/_c/kernel.pyx", "fastcore/py.typed", "README.md"]
)
def test_a_file_missing_in_the_source_distribution(source: Path, tmp_path: Path, lost: str) -> None:
    sdist = make_sdist(tmp_path, IN_SDIST - {lost})
    assert faults(source, sdist) == [f"fastcore_loop-1.2.3.tar.gz: {lost} is missing"]


def test_a_stranger_in_the_source_distribution(source: Path, tmp_path: Path) -> None:
    made = "fastcore/_c/engine.c"
    sdist = make_sdist(tmp_path, IN_SDIST | {made})
    assert faults(source, sdist) == [f"fastcore_loop-1.2.3.tar.gz: {made} should not be there"]


@pytest.mark.parametrize("lost", sorted(IN_PURE_WHEEL))
def test_a_file_missing_in_a_wheel(source: Path, tmp_path: Path, lost: str) -> None:
    wheel = make_wheel(tmp_path, IN_PURE_WHEEL - {lost} | {LICENCE})
    assert faults(source, wheel) == [f"{wheel.name}: {lost} is missing"]


@pytest.mark.parametrize(
    "stranger",
    [
        "tests/test_loop.py",
        "src/poller.c",
        "fastcore/_c/engine.pxd",
        "fastcore/_c/kernel.pyx",
        "fastcore/old.py",
        "fastcore/_c/engine.abi3.so",
        "fastcore_bench/c/load.c",
    ],
)
def test_a_stranger_in_a_wheel(source: Path, tmp_path: Path, stranger: str) -> None:
    wheel = make_wheel(tmp_path, IN_PURE_WHEEL | {stranger, LICENCE})
    said = stranger.removesuffix(".abi3.so")
    assert faults(source, wheel) == [f"{wheel.name}: {said} should not be there"]


def test_distributions_of_the_benchmarks(source: Path, tmp_path: Path) -> None:
    """They hold that folder and that package: no more, no less."""
    sdist = make_sdist(
        tmp_path, OF_BENCHMARKS - {"README.md"} | {"setup.py"}, BENCH_METADATA, BENCH
    )
    assert faults(source, sdist) == [
        f"{BENCH}.tar.gz: README.md is missing",
        f"{BENCH}.tar.gz: setup.py should not be there",
    ]
    names = {"fastcore_bench/page.html", "fastcore/__init__.py"}
    assert faults(source, make_bench_wheel(tmp_path, names)) == [
        f"{BENCH}-py3-none-any.whl: fastcore_bench/c/load.c is missing",
        f"{BENCH}-py3-none-any.whl: fastcore/__init__.py should not be there",
    ]


def test_a_platforms_wheel_without_an_extension(source: Path, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, IN_PURE_WHEEL | {LICENCE}, tags="cp313-cp313-win_amd64")
    found = faults(source, wheel)
    for part in ("engine", "kernel", "push"):
        assert f"{wheel.name}: fastcore/_c/{part} is missing" in found
    assert f"{wheel.name}: fastcore/_no_extension.txt should not be there" in found


def test_a_wheel_without_the_licence(source: Path, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, IN_PURE_WHEEL)
    assert faults(source, wheel) == [f"{wheel.name}: the licence is missing"]


def test_versions_that_differ(source: Path, tmp_path: Path) -> None:
    names = IN_SDIST
    sdist = make_sdist(tmp_path, names, METADATA.replace("1.2.3", "1.2.4"))
    expected = "fastcore_loop-1.2.3.tar.gz: it is version 1.2.4, the sources are 1.2.3"
    assert faults(source, sdist) == [expected]
    sdist = make_sdist(tmp_path, names, name="fastcore_loop-1.2.5")
    expected = "fastcore_loop-1.2.5.tar.gz: it is version 1.2.5, the sources are 1.2.3"
    assert faults(source, sdist) == [expected]


def test_a_distribution_of_something_else(source: Path, tmp_path: Path) -> None:
    names = IN_SDIST
    sdist = make_sdist(tmp_path, names, name="fastcore-1.2.3")
    sdist_said = make_sdist(tmp_path, names, METADATA.replace("fastcore-loop", "fastcore"))
    assert faults(source, sdist) == [
        "fastcore-1.2.3.tar.gz: it is of fastcore, not of fastcore-loop or fastcore-bench"
    ]
    assert faults(source, sdist_said) == [
        "fastcore_loop-1.2.3.tar.gz: it is of fastcore, not of fastcore-loop or fastcore-bench"
    ]


def test_a_tag_of_another_version(source: Path) -> None:
    assert faults(source, tag="v1.2.4") == ["the tag is v1.2.4, the sources are 1.2.3"]


def test_changes_that_are_not_in_the_change_log(source: Path) -> None:
    write(source, "docs/changes/+new.added.md", "Something new.\n")
    assert faults(source) == []  # they wait for the next version
    assert faults(source, tag="v1.2.3") == ["not in CHANGELOG.md yet: docs/changes/+new.added.md"]
    write(source, "docs/changes/+new.added.md", "\n")
    assert faults(source) == ["docs/changes/+new.added.md says nothing"]


def test_a_change_log_without_the_version(source: Path) -> None:
    write(source, "fastcore/_version.py", '__version__ = "1.3.0"\n')
    assert faults(source) == ["CHANGELOG.md begins with 1.2.3, the sources are 1.3.0"]
    write(source, "docs/changes/+new.added.md", "Something new.\n")
    assert faults(source) == []


@pytest.mark.parametrize("broken", ["[this](docs/none.md)", "![plot](none.svg)", "<a href='x.md'>"])
def test_a_document_that_links_to_nothing(source: Path, broken: str) -> None:
    write(source, "README.md", broken)
    (fault,) = faults(source)
    assert re.fullmatch(r"README\.md: there is no \S+ to link to", fault)


def test_a_description_that_links_to_a_file(source: Path, tmp_path: Path) -> None:
    said = METADATA + "[here](https://example.org), [there](docs/more.md)\n"
    sdist = make_sdist(tmp_path, IN_SDIST, said)
    assert faults(source, sdist) == [
        "fastcore_loop-1.2.3.tar.gz: its description links to docs/more.md: not on an index"
    ]


def test_the_description_is_the_readme_with_links_to_the_repository() -> None:
    done = subprocess.run(
        [sys.executable, "-B", "setup.py", "--long-description"],
        cwd=SOURCE,
        env={**os.environ, "FASTCORE_BUILD": "skip"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    readme = (SOURCE / "README.md").read_text(encoding="utf-8")
    repository = artefacts.repository(SOURCE)
    release = f"v{artefacts.declared_version(SOURCE)}"
    expected = []
    for link in artefacts.links(readme):
        kind = "raw" if link.endswith(".svg") else "blob"
        is_file = not link.startswith(artefacts.ANYWHERE)
        expected.append(f"{repository}/{kind}/{release}/{link}" if is_file else link)
    assert artefacts.links(done.stdout) == expected
    assert f"{repository}/blob/{release}/docs/compatibility.md" in expected
    # What looks like a link in a program is none.
    programs = re.compile(r"^```.*?^```", flags=re.MULTILINE | re.DOTALL)
    assert programs.findall(done.stdout) == programs.findall(readme) != []


def test_the_readme_is_short_and_says_what_is_not_there_yet() -> None:
    readme = (SOURCE / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) < 120
    changes = (SOURCE / "CHANGELOG.md").read_text(encoding="utf-8")
    is_released = re.search(r"^## \d", changes, flags=re.MULTILINE) is not None
    assert ("There is no release on the package index yet." in readme) != is_released


def test_a_release_with_a_placeholder_for_its_address(source: Path) -> None:
    write(source, "pyproject.toml", '[tool.fastcore]\nrepository = "https://example.org/OWNER/x"\n')
    assert faults(source) == []
    assert faults(source, tag="v1.2.3") == [
        "pyproject.toml: https://example.org/OWNER/x is no address of a repository"
    ]
