"""What distributions must hold and say before anyone may have them.

    python .ci/artefacts.py [--tag v1.2.3] FOLDER

looks through all source distributions and wheels in FOLDER, whoever built
them, beside the source tree that this file is in.  It builds and installs
nothing.  Each function returns what it found wrong, a line for each fault.
"""

from __future__ import annotations

import argparse
import posixpath
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from email.message import Message
from email.parser import HeaderParser
from html.parser import HTMLParser
from pathlib import Path

from markdown_it import MarkdownIt
from packaging.utils import parse_sdist_filename, parse_wheel_filename

SOURCE = Path(__file__).resolve().parents[1]
PROJECTS = ("fastcore-loop", "fastcore-bench")  # released together, with one version
BENCHMARKS = "benchmarks/"  # the folder of the second
NOT_IN_SDIST = {".gitignore"}
# What the build adds to the files that are tracked.
MADE_IN_SDIST = ("PKG-INFO", "setup.cfg", "fastcore_loop.egg-info/", "fastcore_bench.egg-info/")
FOR_COMPILERS = (".pyx", ".pxd")  # a wheel holds the extension that is made of them
PURE = {"fastcore/_no_extension.txt"}  # the reason, which `python -m fastcore info` gives
# Links that lead to the same place wherever the document is.
ANYWHERE = ("https://", "http://", "mailto:", "#")


def tracked_files(source: Path) -> set[str]:
    """The names of the files under version control; one that was just removed is not there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=source, check=True, stdout=subprocess.PIPE, text=True
    )
    return {name for name in listed.stdout.split("\0") if name and (source / name).exists()}


def declared_version(source: Path) -> str:
    """The version as the one file that names it has it."""
    text = (source / "fastcore" / "_version.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, flags=re.MULTILINE)
    if found is None:
        raise SystemExit("fastcore/_version.py names no version")
    return found[1]


def repository(source: Path) -> str:
    """Where the project is, as the one place that names it has it."""
    text = (source / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^repository = "([^"]+)"$', text, flags=re.MULTILINE)
    if found is None:
        raise SystemExit("pyproject.toml names no repository")
    return found[1]


def differences(where: str, found: set[str], expected: set[str]) -> list[str]:
    """What is there and should not be, and the other way round."""
    return [f"{where}: {name} is missing" for name in sorted(expected - found)] + [
        f"{where}: {name} should not be there" for name in sorted(found - expected)
    ]


def is_of_benchmarks(path: Path) -> bool:
    """Which of the two projects a distribution is of."""
    return path.name.startswith("fastcore_bench-")


def files_of_benchmarks(tracked: set[str]) -> set[str]:
    """The tracked files of that project, named from its folder."""
    return {name.removeprefix(BENCHMARKS) for name in tracked if name.startswith(BENCHMARKS)}


def check_sdist(path: Path, tracked: set[str]) -> list[str]:
    """A source distribution holds what is tracked of its project, and what the build adds."""
    with tarfile.open(path) as archive:
        names = {one.name.partition("/")[2] for one in archive.getmembers() if one.isfile()}
    found = {name for name in names if not name.startswith(MADE_IN_SDIST)}
    expected = files_of_benchmarks(tracked)
    if not is_of_benchmarks(path):
        expected = {name for name in tracked - NOT_IN_SDIST if not name.startswith(BENCHMARKS)}
    return differences(path.name, found, expected)


def check_wheel(path: Path, tracked: set[str]) -> list[str]:
    """A wheel holds one package, and that of fastcore the extensions or none."""
    if is_of_benchmarks(path):
        files = files_of_benchmarks(tracked)
        expected = {name for name in files if name.startswith("fastcore_bench/")}
    else:
        package = {name for name in tracked if name.startswith("fastcore/")}
        sources = {name for name in package if name.endswith(FOR_COMPILERS)}
        # A .pxd with neither a .pyx nor a text in Python declares C that others use.
        text = {name.replace("/_python/", "/_c/").partition(".")[0] for name in package - sources}
        text |= {name.partition(".")[0] for name in sources if name.endswith(".pyx")}
        extensions = {name.partition(".")[0] for name in sources} & text
        expected = package - sources
        expected |= PURE if path.name.endswith("-none-any.whl") else extensions
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    # The information beside the package is the build's and the repair tools' business.
    found = {
        name.partition(".")[0] if name.endswith((".so", ".pyd")) else name
        for name in names
        if ".dist-info/" not in name
    }
    faults = differences(path.name, found, expected)
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        faults.append(f"{path.name}: the licence is missing")
    return faults


def metadata(path: Path) -> Message:
    """The metadata in a distribution."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("-info/METADATA"))
            content = archive.read(name)
    else:
        with tarfile.open(path) as archive:
            member = archive.extractfile(f"{path.name.removesuffix('.tar.gz')}/PKG-INFO")
            assert member is not None, "a directory of that name"
            content = member.read()
    return HeaderParser().parsestr(content.decode())


def check_metadata(path: Path, version: str) -> list[str]:
    """File name and metadata name this project and its version; the description needs no files."""
    said = metadata(path)
    if path.suffix == ".whl":
        named, in_name, _, _ = parse_wheel_filename(path.name)
    else:
        named, in_name = parse_sdist_filename(path.name)
    faults = []
    for name in (named, said["Name"]):
        if name not in PROJECTS:
            faults.append(f"{path.name}: it is of {name}, not of {' or '.join(PROJECTS)}")
    for number in (str(in_name), said["Version"]):
        if number != version:
            faults.append(f"{path.name}: it is version {number}, the sources are {version}")
    for link in links(str(said.get_payload())):
        if not link.startswith(ANYWHERE):
            faults.append(f"{path.name}: its description links to {link}: not on an index")
    return faults


class _Links(HTMLParser):
    """Collects where links and images lead."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("href", "src")]


def links(text: str) -> list[str]:
    """Where the links and images of a Markdown text lead."""
    parser = _Links()
    parser.feed(MarkdownIt().render(text))
    return parser.found


def check_documents(source: Path, tracked: set[str]) -> list[str]:
    """No document links to a file that is not there."""
    faults = []
    for name in sorted(name for name in tracked if name.endswith(".md")):
        for link in links((source / name).read_text(encoding="utf-8")):
            if link.startswith(ANYWHERE):
                continue
            target = posixpath.normpath(
                posixpath.join(posixpath.dirname(name), link.partition("#")[0])
            )
            if target not in tracked:
                faults.append(f"{name}: there is no {target} to link to")
    return faults


def check_changes(source: Path, tracked: set[str], version: str, tag: str) -> list[str]:
    """The change log is ready: for a tag it has that version, else it may be in fragments."""
    text = (source / "CHANGELOG.md").read_text(encoding="utf-8")
    top = re.search(r"^## (\S+)", text, flags=re.MULTILINE)
    newest = top[1] if top else "no version"
    fragments = sorted(name for name in tracked if name.startswith("docs/changes/+"))
    faults = [
        f"{name} says nothing"
        for name in fragments
        if not (source / name).read_text("utf-8").strip()
    ]
    if tag and tag != f"v{version}":
        faults.append(f"the tag is {tag}, the sources are {version}")
    if tag and "OWNER" in repository(source):
        faults.append(f"pyproject.toml: {repository(source)} is no address of a repository")
    if tag and fragments:
        faults.append(f"not in CHANGELOG.md yet: {', '.join(fragments)}")
    if newest != version and (tag or not fragments):
        faults.append(f"CHANGELOG.md begins with {newest}, the sources are {version}")
    return faults


def check_all(source: Path, distributions: Iterable[Path], tag: str) -> list[str]:
    """Everything above, for a source tree and what was built of it."""
    tracked = tracked_files(source)
    version = declared_version(source)
    faults = check_documents(source, tracked) + check_changes(source, tracked, version, tag)
    for path in distributions:
        faults += check_metadata(path, version)
        faults += (check_wheel if path.suffix == ".whl" else check_sdist)(path, tracked)
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description="Look through the distributions in a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tag", default="", help="the tag they are to be published under")
    options = parser.parse_args()
    found = sorted([*options.folder.glob("*.tar.gz"), *options.folder.glob("*.whl")])
    if not found:
        sys.exit(f"no distributions in {options.folder}")
    faults = check_all(SOURCE, found, options.tag)
    for tool in (["twine", "check", "--strict"], ["check_wheel_contents"]):
        paths = [path for path in found if tool[0] == "twine" or path.suffix == ".whl"]
        if paths and subprocess.run([sys.executable, "-m", *tool, *map(str, paths)]).returncode:
            faults.append(f"{tool[0]} has objections, see above")
    for fault in faults:
        print(f"FAULT: {fault}")
    if faults:
        sys.exit(1)
    print(f"{len(found)} distributions are as they should be")


if __name__ == "__main__":
    main()
