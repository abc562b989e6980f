"""The files that belong together, what their imports mean, and which classes are channels.

Modules are known by their files, because a folder need not say what it is called when imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import libcst as cst

from fastcore._doctor.files import MORE_WORDS, WORDS, Unreadable, read
from fastcore._doctor.findings import UNREAD, Finding
from fastcore._doctor.source import Source, dotted, module_of

OLD = ("asyncore", "asynchat", "smtpd")
CHAT, DISPATCHER, SMTP = "async_chat", "dispatcher", "smtpd"
COPIED = "copy"  # of a class that inherits from a copy, which may take what the original refuses
# What classes are by their bases; the last are known from other packages.
KINDS = {
    "asyncore.dispatcher": {DISPATCHER},
    "asyncore.dispatcher_with_send": {DISPATCHER},
    "asyncore.file_dispatcher": {DISPATCHER},
    "asynchat.async_chat": {DISPATCHER, CHAT},
    "smtpd.SMTPServer": {DISPATCHER, SMTP},
    "smtpd.DebuggingServer": {DISPATCHER, SMTP},
    "smtpd.PureProxy": {DISPATCHER, SMTP},
    "smtpd.SMTPChannel": {DISPATCHER, CHAT, SMTP},
    "pyinotify.AsyncNotifier": {DISPATCHER},
}
_COPIES = {
    "asyncore": (rb"^class dispatcher\b", rb"^(?:    )?socket_map\b", rb"^def (?:loop|poll)\b"),
    "asynchat": (rb"^class async_chat\b", rb"^    def set_terminator\b"),
}


@dataclass
class Class:
    """A class of the program: where it is, what it inherits and defines."""

    source: Source
    node: cst.ClassDef
    bases: list[str]
    methods: dict[str, cst.FunctionDef]
    assigned: set[str]
    kinds: set[str] = field(default_factory=set[str])


@dataclass(frozen=True)
class Imported:
    """One module that a statement names, with its leading dots where relative."""

    node: cst.Import | cst.ImportFrom
    module: str
    name: str  # what is taken from it, empty where it is the module itself

    def modules(self) -> list[str]:
        """Return which modules that may be: what is taken from one can be one."""
        if not self.name or self.name == "*":
            return [self.module]
        return [
            self.module,
            f"{self.module.rstrip('.')}.{self.name}"
            if self.module.strip(".")
            else self.module + self.name,
        ]


class Unit:
    """A program: files that may import each other."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.unread: list[Finding] = []
        self.sources: dict[Path, Source] = {}
        self.copies: dict[Path, str] = {}
        self.classes: dict[str, Class] = {}
        self._paths = [path for path in paths if not _is_ours(path)]
        self._by_stem: dict[str, list[Path]] = {}
        for path in self._paths:
            stem = path.parent.name if path.name == "__init__.py" else path.stem
            self._by_stem.setdefault(stem, []).append(path)
        self._aliases: dict[str, str] = {}
        self._left = list(self._paths)
        pattern = WORDS
        while self._take(pattern) and self.uses_old():
            self._find_kinds()
            found = {each.node.name.value for each in self.classes.values() if each.kinds}
            found |= {self.module_name(path).rpartition(".")[2] for path in self.copies}
            words = [rb"\b" + re.escape(each.encode()) + rb"\b" for each in sorted(found)]
            pattern = re.compile(b"|".join([MORE_WORDS, *words]))

    def uses_old(self) -> bool:
        """Whether any file is a copy of the old modules, or names one in an import."""
        return bool(self.copies) or any(
            self.old_name(name, source.path)
            for source in self.sources.values()
            for each in imports(source)
            for name in each.modules()
        )

    def _take(self, pattern: re.Pattern[bytes]) -> bool:
        """Parse those that have such a word; whether there were any."""
        left, taken = self._left, False
        self._left = list[Path]()
        for path in left:
            try:
                data = read(path)
                if not pattern.search(data):
                    self._left.append(path)
                    continue
                taken = True
                for name, signs in _COPIES.items():
                    if all(re.search(sign, data, re.M) for sign in signs):
                        self.copies[path] = name
                source = self.sources[path] = Source(path, data)
            except Unreadable as error:
                self.unread.append(Finding(path, error.line, 0, "unread", UNREAD, str(error)))
            else:
                self._learn(source)
        return taken

    def _learn(self, source: Source) -> None:
        """Remember the file's classes, and what it has imported under which name."""
        for node in source.nodes(cst.ClassDef):
            names = [each for each in source.names(node.name) if "<locals>" not in each]
            key = f"{source.path}:{names[0] if names else node.name.value}"
            bases: list[str] = []
            for base in node.bases:
                bases += source.imported(base.value)
                bases += [
                    f":{each}" for each in source.names(base.value) - source.imported(base.value)
                ]
            body = node.body.body
            methods = {each.name.value: each for each in body if isinstance(each, cst.FunctionDef)}
            self.classes[key] = Class(source, node, bases, methods, set(_assigned(node)))
        for each in imports(source):
            if isinstance(each.node, cst.ImportFrom) and each.name and each.name != "*":
                self._aliases[f"{source.path}:{_bound(each)}"] = each.modules()[1]

    def _find_kinds(self) -> None:
        """Say of each class which kinds of channel it is, through its bases."""
        changed = True
        while changed:
            changed = False
            for each in self.classes.values():
                found = set(each.kinds)
                for base in each.bases:
                    found |= self.kinds_of(base, each.source.path)
                changed |= found != each.kinds
                each.kinds = found

    def kinds_of(self, name: str, path: Path) -> set[str]:
        """Return which kinds of channel a class is that a file names so."""
        meant = self.meaning(name, path)
        if meant in self.classes:
            return self.classes[meant].kinds
        original = meant.removeprefix("copy:")
        return KINDS.get(original, set()) | ({COPIED} if original != meant else set())

    def bases(self, each: Class) -> list[Class]:
        """Return the class and those that it inherits from, as far as they are in the unit."""
        found: list[Class] = []
        waiting = [each]
        while waiting:
            one = waiting.pop(0)
            if one not in found:
                found.append(one)
                meant = [self.meaning(base, one.source.path) for base in one.bases]
                waiting += [self.classes[key] for key in meant if key in self.classes]
        return found

    def meaning(self, name: str, path: Path, depth: int = 0) -> str:
        """Return what a name of a file means: `asyncore.loop`, `copy:asyncore.loop` if a copy's.

        A class or function of the unit is returned as `path:name`, all else as it is.
        """
        if name.startswith(":"):
            key = f"{path}{name}"
            return (
                self.meaning(self._aliases[key], path, depth + 1) if key in self._aliases else key
            )
        if name.startswith(("fastcore.asyncore", "fastcore.asynchat")):
            return name.removeprefix("fastcore.")
        if not name.strip("."):
            return name
        if name.partition(".")[0] in OLD and self.old_name(name.partition(".")[0], path):
            return name
        dots = name[: len(name) - len(name.lstrip("."))]
        parts = name.lstrip(".").split(".")
        for end in range(len(parts), 0, -1):
            found = self.find(dots + ".".join(parts[:end]), path)
            rest = ".".join(parts[end:])
            if found is None:
                continue
            if found in self.copies:
                return f"copy:{self.copies[found]}.{rest}".rstrip(".")
            key = f"{found}:{rest}"
            if key in self._aliases and depth < 20:
                return self.meaning(self._aliases[key], found, depth + 1)
            return key
        return name

    def old_name(self, module: str, path: Path) -> str | None:
        """Return which of the old modules an import names, None where it is another."""
        name = module.removeprefix("fastcore.")
        if name not in OLD or self.find(module, path) is not None:
            return None
        return name

    def find(self, module: str, path: Path) -> Path | None:
        """Return the file that an import in another file means, None where it is not here."""
        dots = len(module) - len(module.lstrip("."))
        parts = [each for each in module.lstrip(".").split(".") if each]
        if dots:
            folder = path.parent
            for _ in range(dots - 1):
                folder = folder.parent
            return _module_file(folder.joinpath(*parts))
        if len(parts) == 1:
            # A script finds what lies beside it.
            beside = None if (path.parent / "__init__.py").exists() else path.parent / parts[0]
            return _module_file(beside) if beside is not None else self._top(parts[0])
        fitting = [
            each
            for each in self._by_stem.get(parts[-1], ())
            if _module_parts(each)[-len(parts) :] == parts
        ]
        return max(fitting, key=lambda each: _common(each, path), default=None)

    def _top(self, name: str) -> Path | None:
        """Return the package of that name that is not in another one."""
        for each in self._by_stem.get(name, ()):
            if each.name == "__init__.py" and not (each.parents[1] / "__init__.py").exists():
                return each
        return None

    def module_name(self, path: Path) -> str:
        """Return how a file is imported, as far as packages have an `__init__.py`."""
        parts = [] if path.name == "__init__.py" else [path.stem]
        folder = path.parent
        while (folder / "__init__.py").exists():
            parts.insert(0, folder.name)
            folder = folder.parent
        return ".".join(parts)


def imports(source: Source) -> list[Imported]:
    """Return the modules that a file imports; `from a import b` counts as a, with its name b."""
    found: list[Imported] = []
    for statement in source.nodes(cst.Import):
        found += [Imported(statement, dotted(each.name), "") for each in statement.names]
    for taken in source.nodes(cst.ImportFrom):
        module = module_of(taken)
        if isinstance(taken.names, cst.ImportStar):
            found.append(Imported(taken, module, "*"))
        else:
            found += [Imported(taken, module, dotted(each.name)) for each in taken.names]
    return found


def _bound(imported: Imported) -> str:
    """The name that `from ... import` gives to what it takes."""
    assert isinstance(imported.node, cst.ImportFrom)
    assert not isinstance(imported.node.names, cst.ImportStar)
    for each in imported.node.names:
        if dotted(each.name) == imported.name and each.asname is not None:
            return dotted(each.asname.name)
    return imported.name


def _assigned(node: cst.ClassDef) -> Iterable[str]:
    """The names that are assigned in the body of a class, and the attributes of self."""
    for line in node.body.body:
        if isinstance(line, cst.SimpleStatementLine):
            for small in line.body:
                if isinstance(small, cst.Assign):
                    yield from (dotted(each.target) for each in small.targets)
                elif isinstance(small, cst.AnnAssign):
                    yield dotted(small.target)


def _is_ours(path: Path) -> bool:
    """Whether it is a file of this package, here or elsewhere."""
    return any(each.name == "fastcore" and (each / "_doctor").is_dir() for each in path.parents)


def _module_file(base: Path) -> Path | None:
    for path in (base.parent / f"{base.name}.py", base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _module_parts(path: Path) -> list[str]:
    return list(path.parent.parts if path.name == "__init__.py" else path.with_suffix("").parts)


def _common(one: Path, other: Path) -> int:
    count = 0
    for first, second in zip(one.parts, other.parts, strict=False):
        if first != second:
            break
        count += 1
    return count
