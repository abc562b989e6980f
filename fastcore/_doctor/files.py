"""Which files are read, and how: nothing that lies in a folder may stop the doctor."""

from __future__ import annotations

import ast
import mmap
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

# A file without one of these words does not use the old modules itself ...
WORDS = re.compile(rb"async(?:ore|chat)|\bsmtpd\b|\bfastcore\b|^class dispatcher\b", re.M)
# ... and these are looked for where other files of the same program do.
MORE_WORDS = rb"\bwrap_socket\b|\bsys\.executable\b|\bset_start_method\b|\bget_context\b"
_DEEPEST = 300
# Files of more bytes are made by programs, and reading one would take minutes.
LARGEST = 2_000_000
_NOT_ENTERED = {"__pycache__", "node_modules", "site-packages", "build", "dist"}


class Unreadable(Exception):
    """A file that cannot be read; the text says why, and `line` where, if that is known."""

    def __init__(self, why: str, line: int = 0) -> None:
        super().__init__(why)
        self.line = line


def walk(root: Path) -> Iterator[Path]:
    """Yield the Python files of a folder, or the file itself, in a fixed order.

    Hidden folders, environments and what tools leave are not entered, links to folders neither.
    """
    if not root.is_dir():
        yield root
        return
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(each for each in folders if not _is_left_out(Path(folder, each)))
        for name in sorted(names):
            path = Path(folder, name)
            if is_python(path):
                yield path


def _is_left_out(folder: Path) -> bool:
    name = folder.name
    return name in _NOT_ENTERED or name.startswith(".") or (folder / "pyvenv.cfg").exists()


def is_python(path: Path) -> bool:
    """Whether it is a regular file that holds Python: by its name, or by its first line."""
    if path.suffix in (".py", ".pyw"):
        return path.is_file()
    if path.suffix:
        return False
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            first = file.readline(200)
    except OSError:
        return False
    return first.startswith(b"#!") and b"python" in first


def read(path: Path) -> bytes:
    """Return what is in the file.  Raises Unreadable."""
    try:
        if path.stat().st_size > LARGEST:
            if not _has_words(path):
                return b""
            raise Unreadable(f"it is larger than {LARGEST:,} bytes")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise Unreadable(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from None


def _has_words(path: Path) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return WORDS.search(data) is not None


def check_syntax(data: bytes) -> None:
    """Refuse what this Python cannot parse.  Raises Unreadable.

    libcst's own parser ends the process when brackets are nested by the thousand.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes and such
            tree = ast.parse(data)
    except SyntaxError as error:
        old = "; it looks as if it were for Python 2" if _looks_old(data) else ""
        raise Unreadable(f"does not parse: {error.msg}{old}", error.lineno or 0) from None
    except (ValueError, LookupError, RecursionError, MemoryError) as error:
        raise Unreadable(f"does not parse: {error or type(error).__name__}") from None
    if _is_deep(tree):
        raise Unreadable("its expressions are nested too deeply")


def _is_deep(tree: ast.AST) -> bool:
    """Whether it is nested deeper than people write; libcst would need minutes, or more stack."""
    level: list[ast.AST] = [tree]
    for _ in range(_DEEPEST):
        level = [inner for node in level for inner in ast.iter_child_nodes(node)]
        if not level:
            return False
    return True


def _looks_old(data: bytes) -> bool:
    return (
        re.search(rb"(?m)^\s*(?:print\s+[\"'\w]|except\s+[\w.]+\s*,\s*\w+\s*:)", data) is not None
    )
