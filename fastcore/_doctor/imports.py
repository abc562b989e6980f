"""What is imported under the old names, from copies, or instead of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import libcst as cst

import fastcore
from fastcore._doctor.findings import BREAKS, GAINS_NOTHING, RUNS, SETTING, Finding
from fastcore._doctor.source import Source, literal
from fastcore._doctor.unit import Imported, Unit, imports
from fastcore._finder import NAMES

_HERE = Path(fastcore.__file__).parent
# What can be imported from this package; the other project of its name has other modules.
_OURS = {path.stem for path in _HERE.iterdir()} | {"fastcore_bench", *fastcore.__all__}
_CONDITION = re.compile(r"version|\bPY[23]\w*|\bsix\b")
_DRIVES = re.compile(rb"^[^#'\"]*\b\w*async(?:ore|chat)?\w*\.loop\(", re.M)
RUN = "start it with `python -m fastcore run`, or change the import (--fix)"


def check(unit: Unit) -> Iterator[Finding]:
    """Yield what there is to say of each import, and of each copy."""
    for path in unit.copies:
        if path in unit.sources:
            yield _of_copy(unit, unit.sources[path])
    mixed = _is_mixed(unit)
    for source in unit.sources.values():
        said: set[tuple[int, str]] = set()
        for each in imports(source):
            for finding in _of_import(unit, source, each, mixed):
                if (finding.line, finding.what) not in said:
                    said.add((finding.line, finding.what))
                    yield finding
        yield from _by_name(source)


def _of_import(unit: Unit, source: Source, each: Imported, mixed: bool) -> Iterator[Finding]:
    if each.module.split(".")[0] == "fastcore" and _is_of_others(each):
        what = (
            f"{each.module} is of fast.ai's fastcore, which cannot share an environment with this"
        )
        fix = "keep the two in environments of their own: both are installed as `fastcore`"
        yield source.finding(each.node, "fast-ai", BREAKS, what, fix)
        return
    for name in each.modules():
        found = unit.find(name, source.path)
        if found in unit.copies and source.path not in unit.copies:
            yield _of_copy_import(unit, source, each.node, found)
            return
        if name == "smtpd" and unit.old_name(name, source.path):
            what = "the module smtpd left Python in 3.12"
            fix = "install standard-smtpd, and start it with `python -m fastcore run`"
            yield source.finding(each.node, "smtpd", SETTING, what, fix)
            return
        if name in NAMES and unit.old_name(name, source.path):
            yield _of_old(source, each, name, mixed)
            return


def _of_old(source: Source, each: Imported, name: str, mixed: bool) -> Finding:
    if mixed and fallback(source, each.node) is None:
        what = f"{name} and fastcore.{name}: channels of one are not in the loop of the other"
        fix = "import the same one everywhere (--fix), or call fastcore.install() first"
        return source.finding(each.node, "two-asyncores", BREAKS, what, fix)
    if fallback(source, each.node) is not None:
        what = f"imports {name}, where another import has failed"
        return source.finding(each.node, "import", RUNS, what)
    on = condition(source, each.node)
    what = f"imports {name}" + (f", depending on `{on}`" if on else "")
    return source.finding(each.node, "import", RUNS, what, RUN)


def _of_copy(unit: Unit, source: Source) -> Finding:
    """What becomes of a file that is a copy itself."""
    kind, name = unit.copies[source.path], unit.module_name(source.path)
    node = next(iter(source.nodes(cst.ClassDef)), source.module)
    for each in source.nodes(cst.ClassDef):
        if each.name.value in ("dispatcher", "async_chat"):
            node = each
    verdict, fix = _of_replacing(unit, source.path)
    return source.finding(node, "copy", verdict, f"{name} is a copy of {kind}", fix)


def _of_copy_import(unit: Unit, source: Source, node: cst.CSTNode, copy: Path) -> Finding:
    what = f"imports {unit.module_name(copy)}, a copy of {unit.copies[copy]}"
    if _is_second_choice(unit, source, node):
        return source.finding(
            node, "copy-import", RUNS, f"{what}, where {unit.copies[copy]} cannot be imported"
        )
    verdict, fix = _of_replacing(unit, copy)
    return source.finding(node, "copy-import", verdict, what, fix)


def _of_replacing(unit: Unit, copy: Path) -> tuple[str, str]:
    """The verdict on a copy, and what to do about it."""
    kind, name = unit.copies[copy], unit.module_name(copy)
    if name == kind:
        return RUNS, "not needed: `python -m fastcore run` puts fastcore in its place"
    uses = [
        _is_second_choice(unit, source, each.node)
        for source in unit.sources.values()
        if source.path not in unit.copies
        for each in imports(source)
        if copy in [unit.find(module, source.path) for module in each.modules()]
    ]
    if uses and all(uses):
        return RUNS, "used only where the old name is not found: `python -m fastcore run` is enough"
    if not any(_DRIVES.search(source.data) for source in _users(unit)):
        return GAINS_NOTHING, "nothing drives its loop() here: the program has one of its own"
    return SETTING, f"python -m fastcore run --replace {name}={kind} ..."


def _users(unit: Unit) -> list[Source]:
    """The files that import any copy, without the copies themselves."""
    return [
        source
        for path, source in unit.sources.items()
        if path not in unit.copies
        and any(
            unit.find(module, path) in unit.copies
            for each in imports(source)
            for module in each.modules()
        )
    ]


def _is_second_choice(unit: Unit, source: Source, node: cst.CSTNode) -> bool:
    """Whether that import is made only where one of the old names has failed."""
    before = fallback(source, node)
    return before is not None and any(
        unit.old_name(name, source.path)
        for each in imports(source)
        for name in each.modules()
        if before in source.parents(each.node)
        and not any(isinstance(up, cst.ExceptHandler) for up in source.parents(each.node))
    )


def _is_mixed(unit: Unit) -> bool:
    """Whether the program imports both fastcore's modules and those of the old names."""
    ours = old = False
    for source in unit.sources.values():
        for each in imports(source):
            names = each.modules()
            ours |= any(name in ("fastcore.asyncore", "fastcore.asynchat") for name in names)
            old |= any(name in NAMES and fallback(source, each.node) is None for name in names)
    return ours and old and not calls_install(unit)


def calls_install(unit: Unit) -> bool:
    """Whether the program calls `fastcore.install()` by itself."""
    return any(
        "fastcore.install" in source.names(call.func)
        for source in unit.sources.values()
        for call in source.nodes(cst.Call)
    )


def _is_of_others(each: Imported) -> bool:
    parts = each.module.split(".")
    return len(parts) > 1 and parts[1] not in _OURS


def _by_name(source: Source) -> Iterator[Finding]:
    """Imports and patches that name a module in a string."""
    for call in source.nodes(cst.Call):
        names = source.names(call.func)
        if not names & {"importlib.import_module", "builtins.__import__", "__import__"} and not any(
            each.endswith(("mock.patch", "mock.patch.object")) for each in names
        ):
            continue
        text = literal(call.args[0].value if call.args else None)
        if text.split(".")[0] in NAMES:
            what = f"names {text} in a string"
            yield source.finding(call, "by-name", RUNS, what, f"--fix leaves it; {RUN}")


def fallback(source: Source, node: cst.CSTNode) -> cst.Try | None:
    """Return the `try` in whose handler of a failed import the node is, if in any."""
    handler = source.inside(node, cst.ExceptHandler)
    if handler is None:
        return None
    caught = source.module.code_for_node(handler.type) if handler.type is not None else ""
    if caught and not re.search(r"ImportError|ModuleNotFoundError|\bException\b", caught):
        return None
    return source.inside(handler, cst.Try)


def condition(source: Source, node: cst.CSTNode) -> str:
    """Return the condition on Python's version under which a node is, empty where on none."""
    for each in source.parents(node):
        if isinstance(each, cst.If):
            text = source.text(each.test)
            if _CONDITION.search(text):
                return text
    return ""
