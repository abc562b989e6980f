"""`doctor --fix`: imports of the old names become imports from fastcore; all other text stays."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import libcst as cst

from fastcore._doctor.imports import condition, fallback
from fastcore._doctor.source import Source, dotted, module_of
from fastcore._doctor.unit import Unit
from fastcore._finder import NAMES

_FASTCORE = cst.Name("fastcore")


@dataclass(frozen=True, order=True)
class Change:
    """One line that was changed, or left although it has an old name, and why."""

    path: Path
    line: int
    done: bool
    what: str


def fix(unit: Unit) -> list[Change]:
    """Change the imports of a program; return what was done and what was left."""
    changes: list[Change] = []
    for source in unit.sources.values():
        if source.path not in unit.copies:
            changes += fix_file(unit, source)
    return sorted(changes)


def fix_file(unit: Unit, source: Source) -> list[Change]:
    """Change the imports of one file, as a whole or not at all."""
    rewriter = _Rewriter(unit, source)
    module = source.module.visit(rewriter)
    changes = rewriter.changes
    if not any(each.done for each in changes):
        return changes
    mark = b"\xef\xbb\xbf" if source.data.startswith(b"\xef\xbb\xbf") else b""
    try:
        if mark + source.module.bytes.removeprefix(mark) != source.data:
            raise OSError("its text would not be kept")
        _write(source.path, mark + module.bytes.removeprefix(mark))
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        return [Change(each.path, each.line, False, f"not changed: {why}") for each in changes]
    return changes


def _write(path: Path, data: bytes) -> None:
    """Put that in the file's place in one step; a link stays a link."""
    path = path.resolve()
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
        os.chmod(name, path.stat().st_mode & 0o7777)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


class _Rewriter(cst.CSTTransformer):
    """Changes statements, never less: what stands around them keeps its spaces and comments."""

    def __init__(self, unit: Unit, source: Source) -> None:
        super().__init__()
        self.changes: list[Change] = []
        self._unit, self._source = unit, source

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.BaseStatement | cst.FlattenSentinel[cst.BaseStatement]:
        body = self._changed(original_node.body)
        if body is None:
            return updated_node
        if len(original_node.body) > 1:
            return updated_node.with_changes(body=_joined(body))
        # One statement has become several: a line for each, the comments where they were.
        lines = [cst.SimpleStatementLine([each]) for each in body]
        lines[0] = lines[0].with_changes(leading_lines=updated_node.leading_lines)
        lines[-1] = lines[-1].with_changes(trailing_whitespace=updated_node.trailing_whitespace)
        return cst.FlattenSentinel(lines)

    def leave_SimpleStatementSuite(
        self, original_node: cst.SimpleStatementSuite, updated_node: cst.SimpleStatementSuite
    ) -> cst.BaseSuite:
        body = self._changed(original_node.body)
        return updated_node if body is None else updated_node.with_changes(body=_joined(body))

    def _changed(
        self, body: Sequence[cst.BaseSmallStatement]
    ) -> list[cst.BaseSmallStatement] | None:
        """The statements of a line with their imports changed, None where none is."""
        made: list[cst.BaseSmallStatement] = []
        any_changed = False
        for each in body:
            new = self._of_statement(each)
            any_changed |= new is not None
            made += [each] if new is None else new
        return made if any_changed else None

    def _of_statement(self, node: cst.CSTNode) -> list[cst.BaseSmallStatement] | None:
        if isinstance(node, cst.Import):
            old = [each for each in node.names if self._is_old(dotted(each.name))]
            if not old or self._is_left(node, ", ".join(dotted(each.name) for each in old)):
                return None
            return self._of_import(node, old)
        if isinstance(node, cst.ImportFrom):
            module = module_of(node)
            if not self._is_old(module) or self._is_left(node, module):
                return None
            new = node.with_changes(module=cst.Attribute(_FASTCORE, cst.Name(module)))
            self._say(node, True, f"from {module} -> from fastcore.{module}")
            return [new]
        return None

    def _of_import(
        self, node: cst.Import, old: list[cst.ImportAlias]
    ) -> list[cst.BaseSmallStatement]:
        rest = [each for each in node.names if each not in old]
        made: list[cst.BaseSmallStatement] = []
        if rest:
            rest[-1] = rest[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
            made.append(node.with_changes(names=rest, semicolon=cst.MaybeSentinel.DEFAULT))
        comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
        names = [each.with_changes(comma=comma) for each in old]
        names[-1] = names[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
        made.append(cst.ImportFrom(module=_FASTCORE, names=names))
        made[-1] = made[-1].with_changes(semicolon=node.semicolon)
        shown = self._source.module.code_for_node(
            made[-1].with_changes(semicolon=cst.MaybeSentinel.DEFAULT)
        )
        self._say(node, True, f"import {', '.join(dotted(each.name) for each in old)} -> {shown}")
        return made

    def _is_old(self, module: str) -> bool:
        return module in NAMES and self._unit.old_name(module, self._source.path) is not None

    def _is_left(self, node: cst.CSTNode, names: str) -> bool:
        """Whether that import is better left to somebody who knows what it is for; says so."""
        tried = fallback(self._source, node)
        if tried is not None:
            if "fastcore" not in self._source.module.code_for_node(tried.body):
                why = "it is made where another has failed"
                self._say(node, False, f"import of {names} left: {why}")
            return True
        text = condition(self._source, node)
        if text:
            self._say(node, False, f"import of {names} left: it depends on `{text}`")
        return bool(text)

    def _say(self, node: cst.CSTNode, done: bool, what: str) -> None:
        self.changes.append(Change(self._source.path, self._source.line(node), done, what))


def _joined(body: list[cst.BaseSmallStatement]) -> list[cst.BaseSmallStatement]:
    """Statements of one line, with semicolons between them."""
    between = cst.Semicolon(whitespace_after=cst.SimpleWhitespace(" "))
    kept = cst.MaybeSentinel.DEFAULT
    return [
        each.with_changes(semicolon=between)
        if each.semicolon is kept and each is not body[-1]
        else each
        for each in body
    ]
