"""What docs/architecture.md says of the source is so, and links lead to a place that is there.

The page is read as it is: what it names in backticks, its table of imports, its words.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[2]
PACKAGE = SOURCE / "fastcore"
PAGE = (SOURCE / "docs" / "architecture.md").read_text(encoding="utf-8")
# Where a path of the page may begin: the name of most files is enough.
ROOTS = (SOURCE, PACKAGE, PACKAGE / "_python")
NOT_OURS = re.compile(r"^(\.venv.*|\.git|\..*_cache|build|dist|.*\.egg-info|__pycache__)$")

# Who may import whom: each only those that come after it.
ORDER = """aio _attachment deadlines flow limits draining logs _mixins
    tls _tls_socket _tls_errors asynchat _default asyncore loop
    _watch _spinning _activity _names _engine
    engine waits callbacks dispatch timers heap interest sweeps table inbox
    channel push sockets lines kernel pollers poller platform
    _wakeup _descriptors _calls _secure _codes _originals _fifo _namesake""".split()
# And these are beside the loop: the ways in.
BESIDE = {"__init__", "__main__", "_copies", "_environment", "_finder", "_run", "_shim", "_version"}


# -- what is named in backticks -------------------------------------------------------------------


def spans() -> list[str]:
    """What stands in backticks, outside of drawings."""
    text = re.sub(r"^```.*?^```", "", PAGE, flags=re.M | re.S)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def named(form: str) -> list[Any]:
    """What of the spans has that form, each once and in order."""
    return list(dict.fromkeys(found for span in spans() for found in re.findall(form, span)))


def find(path: str) -> Path | None:
    return next((root / path for root in ROOTS if (root / path).exists()), None)


def names_in_python(path: Path) -> set[str]:
    """Functions, classes, their methods and attributes, and what a module assigns."""
    found: set[str] = set()

    def collect(body: list[ast.stmt], before: str) -> None:
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found.add(before + node.name)
                if isinstance(node, ast.ClassDef):
                    collect(node.body, f"{before}{node.name}.")
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found.update(before + each.id for each in targets if isinstance(each, ast.Name))
            elif isinstance(node, (ast.If, ast.Try)):
                collect(node.body, before)

    collect(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return found


def has(path: Path, name: str) -> bool:
    if path.suffix == ".py":
        return name in names_in_python(path)
    text = path.read_text(encoding="utf-8")  # Cython
    return all(re.search(rf"^(cdef class|def) {part}\b", text, re.M) for part in name.split("."))


PATHS = named(r"^([\w./]+(?:\.(?:pyx|pxd|py|md|h|c)|/))$")
PLACES = named(r"^([\w./]+\.(?:pyx|py)): ([\w.]+)$")


@pytest.mark.parametrize("path", PATHS)
def test_a_path_of_the_page_is_there(path: str) -> None:
    assert find(path) is not None


@pytest.mark.parametrize(("path", "name"), PLACES)
def test_a_function_of_the_page_is_there(path: str, name: str) -> None:
    found = find(path)
    assert found is not None
    assert has(found, name)


def test_the_page_names_places() -> None:
    assert len(PATHS) > 20 and len(PLACES) > 40  # else their form has changed


def test_the_drawing_of_a_turn_names_methods() -> None:
    (drawing,) = re.findall(r"^  1 inbox.*?^```", PAGE, flags=re.M | re.S)
    drawn = re.findall(r"\b([A-Z]\w+\.\w+|_calls\.\w+)", drawing)
    known = {name for path in PACKAGE.glob("_python/*.py") for name in names_in_python(path)}
    known |= {f"_calls.{name}" for name in names_in_python(PACKAGE / "_calls.py")}
    assert len(drawn) > 10
    assert set(drawn) - known == set()


# -- the imports ----------------------------------------------------------------------------------


def rows_after(heading: str) -> list[list[str]]:
    """The rows of the first table whose heading begins so."""
    lines = iter(PAGE.splitlines())
    for line in lines:
        if line.startswith(heading):
            break
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    assert rows, f"no table begins with {heading}"
    return rows


SAID = {
    row[0].strip("`"): set(re.findall(r"`(\w+)`", row[1])) for row in rows_after("| room | imports")
}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """The level (0: absolute) and the module of each import of this package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for each in node.names:
                if each.name.partition(".")[0] == "fastcore":
                    yield 0, each.name.rpartition(".")[2]
        elif isinstance(node, ast.ImportFrom):
            if (node.level and not node.module) or node.module == "fastcore._c":
                yield from ((node.level, each.name) for each in node.names)
            elif node.level or (node.module or "").partition(".")[0] == "fastcore":
                yield node.level, (node.module or "").rpartition(".")[2]


def cimports(path: Path) -> set[str]:
    text = path.read_text(encoding="utf-8")
    return set(re.findall(r"^from \.(\w+) c?import ", text, flags=re.M))


def modules() -> list[str]:
    paths = [*PACKAGE.glob("*.py"), *PACKAGE.glob("_python/*.py"), *PACKAGE.glob("_c/*.py")]
    return sorted(path.relative_to(PACKAGE).as_posix() for path in paths if path.stem not in BESIDE)


def test_the_table_has_every_module() -> None:
    assert sorted(SAID) == modules()


@pytest.mark.parametrize("module", modules())
def test_the_imports_of_a_module_are_those_of_the_page(module: str) -> None:
    found = {name for _, name in imports(PACKAGE / module)}
    if module == "_engine.py":
        # By name; and for type checkers, and tools that freeze programs: modules of an engine.
        assert found <= {path.stem for path in PACKAGE.glob("_[pc]*/*.py*")}
    else:
        assert found == SAID[module]


@pytest.mark.parametrize(
    "path", [*modules(), *(f"_c/{path.name}" for path in sorted(PACKAGE.glob("_c/*.p?[xd]")))]
)
def test_imports_run_one_way(path: str) -> None:
    file = PACKAGE / path
    found = {name for _, name in imports(file)} if file.suffix == ".py" else cimports(file)
    place = ORDER.index(file.stem)
    assert found - {file.stem} <= set(ORDER[place + 1 :])  # (a .pyx has a .pxd of its own)


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("_c/*.pxd")), ids=lambda path: path.name)
def test_types_come_from_where_the_text_imports(path: Path) -> None:
    if path.stem in {"kernel", "poller", "platform"}:  # the last two are of headers in C
        assert cimports(path) == set()
    else:
        assert cimports(path) <= SAID[f"_python/{path.stem}.py"]


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("_python/*.py")), ids=lambda path: path.name)
def test_the_shared_text_imports_by_relative_names(path: Path) -> None:
    """Or what is compiled as `fastcore._c` would use what is in `fastcore._python`."""
    assert [name for level, name in imports(path) if level == 0] == []


# -- the words ------------------------------------------------------------------------------------


def test_the_words_are_those_of_the_code() -> None:
    files = [path for kind in ("py", "pyx", "pxd") for path in PACKAGE.rglob(f"*.{kind}")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in files).lower()
    entries = [row[0] for row in rows_after("| word | meaning")]
    words = [word for entry in entries for word in entry.split(", ")]
    assert len(words) > 30 and entries == sorted(entries)
    assert [word for word in words if not re.search(rf"(\b|_){word}", code)] == []


# -- links ----------------------------------------------------------------------------------------


def documents() -> dict[str, str]:
    """All documents, by their paths."""
    found = {}
    for folder, inner, names in os.walk(SOURCE):
        inner[:] = [name for name in inner if not NOT_OURS.match(name)]
        for name in names:
            if name.endswith(".md"):
                path = Path(folder, name)
                found[path.relative_to(SOURCE).as_posix()] = path.read_text(encoding="utf-8")
    return found


def load_artefacts() -> Any:
    """The release check, which knows what a link is."""
    path = SOURCE / ".ci" / "artefacts.py"
    spec = importlib.util.spec_from_file_location("artefacts", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchor(heading: str) -> str:
    """What a link to a heading is called."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


needs_checkout = pytest.mark.skipif(
    not (SOURCE / "benchmarks").is_dir(), reason="the benchmarks are linked to, and are not here"
)


@needs_checkout
def test_links_lead_to_files_and_headings() -> None:
    artefacts = load_artefacts()
    texts = documents()
    faults = []
    for name, text in texts.items():
        for link in artefacts.links(text):
            if ":" in link:  # not in this repository
                continue
            path, _, heading = link.partition("#")
            target = (SOURCE / name).parent / path if path else SOURCE / name
            if not target.exists():
                faults.append(f"{name}: {link} leads to no file")
            elif heading:
                headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.M)
                if heading not in map(anchor, headings):
                    faults.append(f"{name}: {link} leads to no heading")
    assert len(texts) > 10
    assert faults == []


@needs_checkout
def test_every_decision_is_in_the_index() -> None:
    folder = SOURCE / "docs" / "decisions"
    index = load_artefacts().links((folder / "README.md").read_text(encoding="utf-8"))
    there = sorted(path.name for path in folder.glob("*.md") if path.name != "README.md")
    assert sorted(link for link in index if "/" not in link) == there
