"""Every behaviour test runs on every engine and poller: the fixtures that see to it.

`fast` is the package as one engine sees it, with its default poller set; a missing engine is an
error, never a skip.  FASTCORE_TEST_ENGINES (default "c,python") names the engines to test;
FASTCORE_TEST_POLLERS=best leaves out all pollers but each engine's default, =others just that one.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from support import SIGNAL

ENGINES = os.environ.get("FASTCORE_TEST_ENGINES", "c,python").split(",")
OPT_IN = ("aio", "deadlines", "flow", "limits", "draining", "logs", "tls")
_packages: dict[str, SimpleNamespace] = {}


def is_compiled(name: str) -> bool:
    """Whether that module belongs to the C engine."""
    return (name + ".").startswith("fastcore._c.")


def load_package(engine: str) -> SimpleNamespace:
    """Import fastcore's modules once more, over `engine`, beside those of other engines."""
    if engine not in _packages:
        names = [name for name in sys.modules if name.partition(".")[0] == "fastcore"]
        # An extension can be initialised once in a process.
        saved = {name: sys.modules.pop(name) for name in names if not is_compiled(name)}
        before = os.environ.get("FASTCORE_ENGINE")
        os.environ["FASTCORE_ENGINE"] = engine
        try:
            modules: dict[str, ModuleType] = {
                name: importlib.import_module(f"fastcore.{name}")
                for name in ("loop", "asyncore", "asynchat", "_engine", *OPT_IN)
            }
            package = importlib.import_module("fastcore")
            assert package.engine == engine
            for name in package.__all__:
                getattr(package, name)  # loaded when asked for: later it would be another's
            _packages[engine] = SimpleNamespace(
                package=package, engine=engine, Loop=modules["loop"].Loop, **modules
            )
        finally:
            if before is None:
                del os.environ["FASTCORE_ENGINE"]
            else:
                os.environ["FASTCORE_ENGINE"] = before
            for name in [name for name in sys.modules if name.partition(".")[0] == "fastcore"]:
                if not is_compiled(name):
                    del sys.modules[name]
            sys.modules.update(saved)
    return _packages[engine]


def tested_pollers(engine: str) -> tuple[str, ...]:
    """The pollers to test an engine with: all of them, unless asked otherwise."""
    pollers: tuple[str, ...] = load_package(engine).package.pollers()
    asked = os.environ.get("FASTCORE_TEST_POLLERS")
    return pollers[:1] if asked == "best" else pollers[1:] if asked == "others" else pollers


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "fast" in metafunc.fixturenames:
        pairs = [(engine, poller) for engine in ENGINES for poller in tested_pollers(engine)]
        metafunc.parametrize("fast", pairs, indirect=True, ids=["-".join(pair) for pair in pairs])


@pytest.fixture
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """One engine with one poller: `.asyncore`, `.asynchat`, `.Loop`, `.loop`, `.tls`, `.package`.

    Checks that the test has left neither channels in the default map nor descriptors.
    """
    engine, poller = request.param
    package = load_package(engine)
    monkeypatch.setenv("FASTCORE_POLLER", poller)
    before = open_descriptors()
    package.poller = poller
    yield package
    package.asyncore.close_all(ignore_all=True)
    loop = package.loop._loops.get(id(package.asyncore.socket_map))
    if loop is not None:
        loop.close()
    del loop
    # Cycles of a map and its channels are garbage: collected, they close nothing by surprise.
    import gc

    gc.collect()
    leaked = open_descriptors() - before
    assert not leaked, f"the test left descriptors open: {leaked}"


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """What an ordinary handler of SIGNAL was called with."""
    numbers: list[int] = []
    before = signal.signal(SIGNAL, lambda number, frame: numbers.append(number))
    yield numbers
    signal.signal(SIGNAL, before)


def open_descriptors() -> set[str]:
    """The descriptors of this process and what they are, where the system can say."""
    if sys.platform != "linux":
        return set()
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
        except OSError:
            pass  # the descriptor of the listing itself
    return found
