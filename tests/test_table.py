"""What is kept by descriptor: the tables of both engines do what a dict does."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from conftest import ENGINES
from hypothesis import given, strategies as st

FEW = st.integers(0, 8)  # so that keys meet again
KEYS = FEW | st.booleans() | st.integers() | st.text(max_size=1) | st.none()
STEPS = st.lists(st.tuples(st.booleans(), KEYS))


@pytest.mark.parametrize("engine", ENGINES)
@given(steps=STEPS)
def test_a_table_does_what_a_dict_does(engine: str, steps: list[tuple[bool, Any]]) -> None:
    table = importlib.import_module(f"fastcore._{engine}.table").Table()
    expected: dict[Any, Any] = {}
    for put, key in steps:
        if put:
            table[key] = expected[key] = object()
        elif key in expected:
            del table[key], expected[key]
        else:
            with pytest.raises(KeyError):
                del table[key]
        assert table.get(key) is expected.get(key)
        assert (key in table) == (key in expected)
        assert len(table) == len(expected)
        assert sorted(map(id, table.to_list())) == sorted(map(id, expected.values()))
