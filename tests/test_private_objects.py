"""No use of the C engine's own objects, however wrong, ends the process.

They are not for programs, but a debugger, a mock or a copy comes by them all the same: objects that
were never initialised, attributes set to what they are not, methods called with anything.  Each of
that may raise, and none may follow a pointer to nowhere.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from conftest import ENGINES

PROGRAM = '''
import faulthandler, importlib, itertools, os, pkgutil, signal, socket, sys, warnings
import fastcore._c

faulthandler.enable()
warnings.simplefilter("ignore")
record = open(os.environ["RECORD"], "w")
sys.setrecursionlimit(200)


class Late(Exception):
    """What ends a wait without end."""


def late(number, frame):
    raise Late


signal.signal(signal.SIGALRM, late)


class Odd:
    """Any name leads to itself, and it can be called."""

    def __getattr__(self, name):
        return self

    def __call__(self, *args):
        return self


def tried(where, function, *args):
    """Call it; return what it returns, or None."""
    record.seek(0)
    record.truncate()
    record.write(where)
    record.flush()
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
            return function(*args)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except (Exception, SystemExit, KeyboardInterrupt):
        return None


VALUES = [None, -1, 2**70, 0.01, "text", b"bytes", object(), Odd(), [], {}, int, len]


def arguments(more):
    """What to call with: nothing, the same for all, and mixtures."""
    for count in range(6):
        for value in [*VALUES, *more]:
            yield (value,) * count
            if not count:
                break
    for values in (VALUES, VALUES[::-1], [*more, *VALUES], [*VALUES[::2], *more]):
        for count in range(2, 6):
            yield tuple(values[:count])


def make(cls):
    """Some that were never initialised, and some that were, if they could be."""
    yield lambda: tried(f"{cls}.__new__()", cls.__new__, cls)
    for args in ((), ("select",), ({},), (len, (), {}), ({}, "select"), ({}, "select", object())):
        yield lambda: tried(f"{cls}{args}", cls, *args)


modules = [
    importlib.import_module(f"fastcore._c.{each.name}")
    for each in pkgutil.iter_modules(fastcore._c.__path__)
]
classes = {
    value
    for module in modules
    for value in vars(module).values()
    if isinstance(value, type) and value.__module__.startswith("fastcore._c.")
}
classes = sorted(classes, key=str)
SKIPPED = {"__class__", "__new__", "__init_subclass__", "__subclasshook__", "__reduce__",
           "__reduce_ex__", "__dir__", "__getstate__"}
used = 0
for cls in classes:
    blanks = [tried(f"{other}.__new__()", other.__new__, other) for other in classes]
    for new in make(cls):
        one = new()
        if one is None:
            continue
        names = [name for name in dir(cls) if name not in SKIPPED]
        for name in names:
            one = new()
            got = tried(f"{cls}.{name}", getattr, one, name)
            for value in [*VALUES, *blanks]:
                tried(f"{cls}.{name} = {type(value)}", setattr, one, name, value)
            tried(f"del {cls}.{name}", delattr, one, name)
            if callable(got):
                one = new()
                for args in arguments(blanks):
                    used += 1
                    method = tried(f"{cls}.{name}", getattr, one, name)
                    tried(f"{cls}.{name}{[type(arg) for arg in args]}", method, *args)
        # And with all attributes wrong at once.
        for value in [*VALUES, *blanks]:
            one = new()
            for name in names:
                if not name.startswith("__"):
                    tried(f"{cls}.{name} = {type(value)}", setattr, one, name, value)
            for name in names:
                method = tried(f"{cls}.{name}", getattr, one, name)
                if callable(method) and not name.startswith("__"):
                    for args in ((), (None,), (value,), (None, None), (value, value)):
                        used += 1
                        tried(f"{cls}, all {type(value)}: {name}{args}", method, *args)
        one = None
for module in modules:
    functions = {
        name: value
        for name, value in vars(module).items()
        if callable(value) and not isinstance(value, type)
        and getattr(value, "__module__", "") == module.__name__
    }
    blanks = [tried(f"{other}.__new__()", other.__new__, other) for other in classes]
    for name, function in functions.items():
        for args in arguments([*blanks, socket.socket()]):
            used += 1
            tried(f"{module.__name__}.{name}{[type(arg) for arg in args]}", function, *args)
assert len(classes) > 5 and used > 1000, (classes, used)
os._exit(0)
'''


@pytest.mark.slow
@pytest.mark.skipif("c" not in ENGINES, reason="this run has no C engine")
@pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="nothing ends here what waits without end"
)
@pytest.mark.timeout(300)
def test_nothing_wrong_that_is_done_to_them_ends_the_process(tmp_path: object) -> None:
    record = os.path.join(str(tmp_path), "record")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=str(tmp_path),
        env={**os.environ, "RECORD": record},
        capture_output=True,
        text=True,
        timeout=280,  # a build without the GIL is slow, and the calls are many
        stdin=subprocess.DEVNULL,
    )
    with open(record) as file:
        assert done.returncode == 0, f"{file.read()}\n{done.stderr[-3000:]}"
