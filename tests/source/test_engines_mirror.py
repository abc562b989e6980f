"""The two engines are mirrors of one another: the same names, signatures and docstrings.

Reads the sources, because most of the C engine cannot be seen from outside.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fastcore._engine_py as python_engine

if "c" not in os.environ.get("FASTCORE_TEST_ENGINES", "c,python").split(","):
    pytest.skip("only the Python engine is to be tested", allow_module_level=True)

import fastcore._engine_c as c_engine

ROOT = Path(__file__).parents[2]
CLASSES = ("Channel", "Handle", "Engine")

# What only one of them needs, and why.
ONLY_C = {
    "__dealloc__": "frees the kernel's set",
    "when": "an attribute in Python; without a GIL it is read under a lock",
    "_take": "two attributes in Python, which C has to read and write under that lock",
    "_give_back": "what _release() does while it holds the engine's lock",
    "_add": "what _attach() does while it holds the engine's lock",
    "_take_turns": "what _drive() does while it holds the engine's lock",
    "_hear": "its loop is in Python, and goes on where a channel failed",
    "_deliver_run": "its loop is in Python, too",
}

Functions = dict[str, tuple[list[str], str | None]]  # name: parameters, docstring


def python_functions(owner: str, file: str = "_engine_py.py") -> Functions:
    tree = ast.parse((ROOT / "fastcore" / file).read_text())
    [found] = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == owner]
    functions: Functions = {}
    for node in found.body:
        if isinstance(node, ast.FunctionDef):
            parameters = [one.arg for one in node.args.args]
            if node.args.vararg:
                parameters.append("*" + node.args.vararg.arg)
            functions[node.name] = parameters, ast.get_docstring(node)
    return functions


_FUNCTION = re.compile(
    r"^    (?:def|cdef(?: inline)? [\w *]*?)\s?\b(\w+)\(([^)]*)\)[^:\n]*:\n(?:\s*(\"{3}.*?\"{3}))?",
    re.MULTILINE | re.DOTALL,
)


def c_functions(owner: str) -> Functions:
    if owner == "Channel":
        return python_functions(owner, "_engine_c_parts.py")
    text = (ROOT / "src" / "engine.pyx").read_text()
    start = re.search(rf"^(?:cdef )?class {owner}\b[^\n]*:\n", text, re.MULTILINE)
    assert start is not None
    end = re.search(r"^\S", text[start.end() :], re.MULTILINE)
    body = text[start.end() : start.end() + end.start() if end else None]
    functions: Functions = {}
    for name, parameters, doc in _FUNCTION.findall(body):
        names = [one.split("=")[0].split()[-1] for one in parameters.split(",") if one.strip()]
        # C's own: where the events of a wait lie and how many they are; a token names a channel.
        names = ["fd" if one == "token" else one for one in names]
        names = [one for one in names if one not in ("*events", "fired")]
        functions[name] = names, inspect.cleandoc(doc.strip('"')) if doc else None
    return functions


def test_the_parser_sees_methods_of_both_kinds() -> None:
    found = c_functions("Engine")
    assert {"call_soon", "_schedule", "_drive", "_deliver", "_is_current"} <= found.keys()
    assert found["call_soon"][0] == ["self", "callback", "*args"]
    assert found["_schedule"][0] == ["self", "handle"]


@pytest.mark.parametrize("owner", CLASSES)
def test_methods_are_the_same_in_the_same_order(owner: str) -> None:
    python = list(python_functions(owner))
    c = [name for name in c_functions(owner) if name not in ONLY_C]
    assert c == python


@pytest.mark.parametrize("owner", CLASSES)
def test_parameters_are_the_same(owner: str) -> None:
    python, c = python_functions(owner), c_functions(owner)
    without_events = {
        # `mask` tells _take_own() what the C engine's generations tell it.
        name: [
            one for one in parameters if (one, name) != ("mask", "_take_own") and one != "events"
        ]
        for name, (parameters, _doc) in python.items()
    }
    shared = python.keys() & c.keys()
    assert {name: c[name][0] for name in shared} == {name: without_events[name] for name in shared}


@pytest.mark.parametrize("owner", CLASSES)
def test_docstrings_are_the_same(owner: str) -> None:
    python, c = python_functions(owner), c_functions(owner)
    shared = python.keys() & c.keys()
    assert {name: c[name][1] for name in shared} == {name: python[name][1] for name in shared}
    assert inspect.getdoc(getattr(c_engine, owner)) == inspect.getdoc(getattr(python_engine, owner))


def public(thing: Any) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


@pytest.mark.parametrize("owner", CLASSES)
def test_public_attributes_are_the_same(owner: str) -> None:
    made = {}
    for engine in (python_engine, c_engine):
        one = engine.Engine({}, "select", False)
        things = {"Engine": one, "Channel": engine.Channel(), "Handle": one.call_soon(print)}
        made[engine.__name__] = public(things[owner])
    python, c = made.values()
    assert c == python


def test_public_docstrings_can_be_seen_at_run_time() -> None:
    for owner in CLASSES:
        for name in public(getattr(c_engine, owner)) & public(getattr(python_engine, owner)):
            documented = inspect.getdoc(getattr(getattr(python_engine, owner), name))
            assert inspect.getdoc(getattr(getattr(c_engine, owner), name)) == documented, name


def constants(engine: ModuleType) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(engine).items()
        if name.isupper() and isinstance(value, (int, float, frozenset))
    }


def test_constants_are_the_same() -> None:
    python, c = constants(python_engine), constants(c_engine)
    for name in ("DISCONNECTED", "EXHAUSTED", "SWEEP_SHARE", "SWEEP_ALWAYS"):
        assert c[name] == python[name]
    assert c_engine.Engine.passed_through == python_engine.Engine.passed_through
    assert (python_engine.name, c_engine.name) == ("python", "c")


def test_both_refuse_an_unknown_poller_in_the_same_words() -> None:
    said = set()
    for engine in (python_engine, c_engine):
        with pytest.raises(ValueError, match="no poller 'x' here") as failure:
            engine.Engine({}, "x", False)
        said.add(str(failure.value))
    assert len(said) == 1


def test_both_inputs_of_a_chat_are_mirrors() -> None:
    from fastcore import _chat_c, _chat_py

    tree = ast.parse((ROOT / "fastcore" / "_chat_py.py").read_text())
    [found] = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    python = [node.name for node in found.body if isinstance(node, ast.FunctionDef)]
    text = (ROOT / "src" / "chat.pyx").read_text()
    body = text[text.index("cdef class Received:") :].split("\n\n\n")[0]
    c = re.findall(r"^    def (\w+)\(", body, re.MULTILINE)
    assert [name for name in c if name not in ("__iter__", "__next__")] == python
    for name in python:
        if not name.startswith("_"):
            ours, reference = getattr(_chat_c.Received, name), getattr(_chat_py.Received, name)
            assert inspect.getdoc(ours) == inspect.getdoc(reference)
