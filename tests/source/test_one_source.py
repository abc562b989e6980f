"""The engines are one text: what is compiled is the Python engine, and what is not has a twin.

A twin offers the same names, parameters and docstrings; that it does the same is the business of
test_kernel.py, and of every test with a channel.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import runpy
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import setuptools

SOURCE = Path(__file__).resolve().parents[2]
PYTHON, C = SOURCE / "fastcore" / "_python", SOURCE / "fastcore" / "_c"
TWINS = {"kernel", "table", "heap", "channel"}
C_ALONE = {"kernel", "table", "heap", "sockets", "push"}

with_both = pytest.mark.skipif(
    "c" not in os.environ.get("FASTCORE_TEST_ENGINES", "c,python").split(","),
    reason="this run has no C engine",
)


def stems(folder: Path, suffix: str) -> set[str]:
    return {path.stem for path in folder.glob(f"*{suffix}")} - {"__init__"}


# The files that are the source of both engines: those that the C one has types for.
SHARED = sorted((stems(C, ".pxd") & stems(PYTHON, ".py")) - stems(C, ".pyx"))

# -- the sources -----------------------------------------------------------------------------


def test_what_is_compiled_is_the_python_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", said.update)
    monkeypatch.delenv("FASTCORE_BUILD", raising=False)
    monkeypatch.chdir(SOURCE)
    runpy.run_path("setup.py")
    made = {one.name: set(one.sources) for one in said["ext_modules"]}
    pollers = {f"src/{name}.c" for name in stems(SOURCE / "src", ".c")}
    assert made == {
        **{f"fastcore._c.{name}": {f"fastcore/_python/{name}.py"} for name in SHARED},
        **{f"fastcore._c.{name}": {f"fastcore/_c/{name}.pyx"} for name in C_ALONE},
        "fastcore._c.kernel": {"fastcore/_c/kernel.pyx"} | pollers,
    }


def test_nothing_else_is_written_for_one_engine_alone() -> None:
    assert stems(PYTHON, ".py") == {*SHARED, *TWINS, "pollers"}
    assert stems(C, ".py") | stems(C, ".pyx") == TWINS | C_ALONE
    assert not stems(C, ".py") & stems(C, ".pyx")
    compiled = [*SOURCE.glob("src/**/*.p*"), *SOURCE.glob("fastcore/**/*.pyx")]
    assert {path.parent for path in compiled} == {C}


def imports(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """What a file imports: how relatively, which module, which of its names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield node.level, node.module or "", [one.name for one in node.names]
        elif isinstance(node, ast.Import):
            yield from ((0, one.name, []) for one in node.names)


def test_tools_that_freeze_programs_see_every_module_of_the_c_engine() -> None:
    """They follow import statements, and see none in an extension module."""
    found = imports(SOURCE / "fastcore" / "_engine.py")
    (seen,) = [set(names) for _level, module, names in found if module == "fastcore._c"]
    assert seen == stems(C, ".py") | C_ALONE | set(SHARED)


@pytest.mark.parametrize("name", SHARED)
def test_the_one_text_names_neither_engine(name: str) -> None:
    """A relative name means the sibling in either package."""
    for _level, module, names in imports(PYTHON / f"{name}.py"):
        assert not {*module.split("."), *names} & {"fastcore", "_c", "_python", "cython"}, module


# -- what was built --------------------------------------------------------------------------


def functions(module: ModuleType) -> Iterator[Any]:
    """The functions and methods of a module, as far as Python sees them."""
    for one in vars(module).values():
        if getattr(one, "__module__", None) == module.__name__:
            for function in vars(one).values() if isinstance(one, type) else [one]:
                if hasattr(function, "__code__"):
                    yield function


@with_both
@pytest.mark.parametrize("name", SHARED)
def test_what_was_built_is_made_of_that_text(name: str) -> None:
    module = importlib.import_module(f"fastcore._c.{name}")
    files = {Path(function.__code__.co_filename) for function in functions(module)}
    assert files <= {Path(f"fastcore/_python/{name}.py")}
    # Where only C calls what is in it, there are no functions.
    assert module.__doc__ == importlib.import_module(f"fastcore._python.{name}").__doc__


# -- the twins -------------------------------------------------------------------------------


def both(twin: str) -> tuple[ModuleType, ModuleType]:
    return (
        importlib.import_module(f"fastcore._python.{twin}"),
        importlib.import_module(f"fastcore._c.{twin}"),
    )


def taken_from(twin: str) -> set[str]:
    """The names that others take from a twin: the text of both engines, and the choice."""
    names: set[str] = set()
    for path in (*PYTHON.glob("*.py"), SOURCE / "fastcore" / "_engine.py"):
        for level, module, some in imports(path):
            if level == 1 and module in (twin, f"_python.{twin}"):
                names.update(some)
    return names


def public(thing: Any) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def written_in(module: ModuleType) -> set[str]:
    """The public classes and functions that stand in a module."""
    everything = vars(module).items()
    return public(module) & {
        name for name, one in everything if getattr(one, "__module__", None) == module.__name__
    }


@with_both
@pytest.mark.parametrize("twin", sorted(TWINS))
def test_twins_offer_the_same_names(twin: str) -> None:
    python, c = both(twin)
    wanted = taken_from(twin) | written_in(python)
    assert wanted - public(python) == set()
    assert wanted - public(c) == set()
    assert written_in(c) - public(python) == set()


@with_both
@pytest.mark.parametrize("twin", sorted(TWINS))
def test_twins_are_described_in_the_same_words(twin: str) -> None:
    python, c = both(twin)
    for name in written_in(python):
        ours, other = getattr(python, name), getattr(c, name)
        pairs = [(name, ours, other)]
        if isinstance(ours, type):
            methods = {one for one in public(ours) if callable(getattr(ours, one))}
            its_methods = {one for one in public(other) if callable(getattr(other, one))}
            if issubclass(ours, dict):  # which brings more than is used, in words of its own
                assert its_methods <= methods
                methods -= public(dict)
                its_methods -= public(dict)
            assert methods == its_methods
            pairs += [(one, getattr(ours, one), getattr(other, one)) for one in methods]
        for place, mine, its in pairs:
            assert inspect.getdoc(mine), place
            assert inspect.getdoc(mine) == inspect.getdoc(its), place
            if not isinstance(mine, type):
                assert parameters(mine) == parameters(its), place


@with_both
def test_objects_of_twins_have_the_same_attributes() -> None:
    python, c = both("kernel")
    assert public(python.Kernel("select")) == public(c.Kernel("select"))
    assert public(python.Watched) == public(c.Watched)


@with_both
def test_twins_refuse_an_unknown_poller_in_the_same_words() -> None:
    said = set()
    for module in both("kernel"):
        with pytest.raises(ValueError, match="no poller 'x' here") as failure:
            module.Kernel("x")
        said.add(str(failure.value))
    assert len(said) == 1
    assert [module.name for module in both("kernel")] == ["python", "c"]
