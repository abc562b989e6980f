"""One file, parsed: its nodes with their places, and what the names in it mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import libcst as cst
from libcst.helpers import get_full_name_for_node
from libcst.metadata import (
    MetadataWrapper,
    ParentNodeProvider,
    PositionProvider,
    QualifiedNameProvider,
    QualifiedNameSource,
)

from fastcore._doctor.files import Unreadable, check_syntax
from fastcore._doctor.findings import Finding

Node = TypeVar("Node", bound=cst.CSTNode)


class Source:
    """A file's tree, and questions about it.  Raises Unreadable where there is none."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path = path
        self.data = data
        check_syntax(data)
        try:
            wrapper = MetadataWrapper(cst.parse_module(data), unsafe_skip_copy=True)
            self._places: Mapping[cst.CSTNode, Any] = wrapper.resolve(PositionProvider)
            self._parents: Mapping[cst.CSTNode, Any] = wrapper.resolve(ParentNodeProvider)
            self._names: Mapping[cst.CSTNode, Any] = wrapper.resolve(QualifiedNameProvider)
        except RecursionError:
            raise Unreadable("its expressions are nested too deeply") from None
        except Exception as error:
            raise Unreadable(f"does not parse: {str(error).splitlines()[0]}") from None
        self.module = wrapper.module
        self._by_kind: dict[type[cst.CSTNode], list[cst.CSTNode]] = {}
        for node in self._places:
            self._by_kind.setdefault(type(node), []).append(node)

    def nodes(self, kind: type[Node]) -> list[Node]:
        """Return all nodes of exactly that class."""
        return self._by_kind.get(kind, [])  # type: ignore[return-value]

    def names(self, node: cst.CSTNode) -> set[str]:
        """Return what the name may mean: `asyncore.loop`, with leading dots where relative."""
        return {
            name for name, is_local in self._meant(node) if "<locals>" not in name or not is_local
        }

    def imported(self, node: cst.CSTNode) -> set[str]:
        """Return the same without what is defined in the file."""
        return {name for name, is_local in self._meant(node) if not is_local}

    def _meant(self, node: cst.CSTNode) -> list[tuple[str, bool]]:
        """Names that it may have, each with whether the file defines it."""
        found: Any = self._names.get(node, ())
        if callable(found):
            found = found()  # some are looked up when they are asked for
        return [
            (
                each.name.replace("asynchat.asyncore.", "asyncore."),
                each.source is QualifiedNameSource.LOCAL,
            )
            for each in found or ()
        ]

    def parents(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """Yield what the node is in, from the inside out."""
        while (found := self._parents.get(node)) is not None:
            yield found
            node = found

    def inside(self, node: cst.CSTNode, kind: type[Node]) -> Node | None:
        """Return the innermost node of that class which the node is in."""
        return next((each for each in self.parents(node) if isinstance(each, kind)), None)

    def line(self, node: cst.CSTNode) -> int:
        """Return the number of the line that it begins in."""
        return int(self._places[node].start.line)

    def text(self, node: cst.CSTNode) -> str:
        """Return how it is written, on one line and not too long."""
        text = " ".join(self.module.code_for_node(node).split())
        return text if len(text) <= 60 else text[:57] + "..."

    def finding(
        self, node: cst.CSTNode, rule: str, verdict: str, what: str, fix: str = ""
    ) -> Finding:
        """Return a finding at the place of that node."""
        start = self._places[node].start
        return Finding(self.path, start.line, start.column + 1, rule, verdict, what, fix)


def dotted(node: cst.CSTNode | None) -> str:
    """Return a name with its dots, the empty string where it is none."""
    return (get_full_name_for_node(node) or "") if node is not None else ""


def module_of(statement: cst.ImportFrom) -> str:
    """Return the module that `from ... import` names, with its leading dots."""
    return "." * len(statement.relative) + dotted(statement.module)


def literal(node: cst.CSTNode | None) -> str:
    """Return what is between the quotes of a plain string, the empty string for all else."""
    return node.raw_value if isinstance(node, cst.SimpleString) else ""


def is_text(node: cst.CSTNode | None) -> bool:
    """Whether an expression is text rather than bytes, as far as that can be seen."""
    if isinstance(node, cst.SimpleString):
        return "b" not in node.prefix.lower()
    if isinstance(node, cst.FormattedString):
        return True
    if isinstance(node, cst.ConcatenatedString):
        return is_text(node.left)
    if isinstance(node, cst.BinaryOperation):
        if isinstance(node.operator, cst.Modulo):
            return is_text(node.left)
        return isinstance(node.operator, cst.Add) and (is_text(node.left) or is_text(node.right))
    if isinstance(node, cst.Call):
        function = node.func
        if isinstance(function, cst.Name):
            return function.value in ("str", "repr")
        if isinstance(function, cst.Attribute):
            return function.attr.value in ("format", "join") and is_text(function.value)
    return False


def argument(call: cst.Call, position: int, name: str) -> cst.BaseExpression | None:
    """Return an argument of a call, given by position or by name."""
    for each in call.args:
        if each.keyword is not None and each.keyword.value == name:
            return each.value
    plain: Sequence[cst.Arg] = [each for each in call.args if each.keyword is None]
    if len(plain) > position and not any(each.star for each in plain[: position + 1]):
        return plain[position].value
    return None
