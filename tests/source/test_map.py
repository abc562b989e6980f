"""The map of the tests, tests/README.md, names them all."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def test_the_map_names_all_tests() -> None:
    named = set(re.findall(r"[\w/]+\.py", (TESTS / "README.md").read_text(encoding="utf-8")))
    found = {path.relative_to(TESTS).as_posix() for path in TESTS.glob("**/test_*.py")}
    assert {name for name in found if not name.startswith("benchmarks/")} - named == set()
