"""What programs put in the place of the system's functions, before fastcore is imported or after.

`select` and its likes: then turns are the standard library's, and call what stands there.  The
clock: the loop's own time goes on.  Each case runs in an interpreter of its own.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import ENGINES
from support import Site, needs_poll

from fastcore import _originals as originals

engines = pytest.mark.parametrize("engine", ENGINES)
moments = pytest.mark.parametrize("before", [True, False], ids=["before", "after"])


def run(folder: Path, engine: str, program: str) -> list[str]:
    """The lines that a program prints, which must end by itself and without a word."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=folder,
        env={**os.environ, "FASTCORE_ENGINE": engine},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def in_order(before: bool, change: str, program: str) -> str:
    ours = "from fastcore import asyncore\nimport fastcore\n"
    return (change + ours if before else ours + change) + program


TURN = """
import socket
ours, peer = socket.socketpair()
got = []
class Channel(asyncore.dispatcher):
    def writable(self):
        return False
    def handle_read(self):
        got.append(self.recv(10))
Channel(ours)
peer.send(b"x")
asyncore.loop(0.0, use_poll=USE_POLL, count=1)
print(calls, got)
peer.close()
asyncore.close_all()
"""


@engines
@moments
@pytest.mark.parametrize("use_poll", [False, pytest.param(True, marks=needs_poll)])
def test_another_select_is_called(
    tmp_path: Path, engine: str, before: bool, use_poll: bool
) -> None:
    name = "poll" if use_poll else "select"
    change = f"""
import select
calls = []
real = select.{name}
def replaced(*args):
    calls.append({name!r})
    return real(*args)
select.{name} = replaced
"""
    program = in_order(before, change, TURN.replace("USE_POLL", str(use_poll)))
    assert run(tmp_path, engine, program) == [f"['{name}'] [b'x']"]


@engines
@moments
def test_the_engine_itself_uses_none_of_what_was_replaced(
    tmp_path: Path, engine: str, before: bool
) -> None:
    """Another map of theirs is theirs: a Loop has the system's own functions."""
    change = """
import select, socket, time
def refuse(*args):
    raise AssertionError("called")
for name in ("select", "poll", "epoll", "kqueue", "devpoll"):
    if hasattr(select, name):
        setattr(select, name, refuse)
real_pair = socket.socketpair
socket.socketpair = refuse
"""
    program = """
for poller in fastcore.pollers():
    with fastcore.Loop(poller=poller) as loop:
        done = []
        loop.call_later(0.001, done.append, poller)
        loop.run()
        print(done == [poller])
"""
    said = run(tmp_path, engine, in_order(before, change, program))
    assert said and set(said) == {"True"}


# A module's clock that stands still, in all modules that have it: as tests freeze it.
FREEZE = """
import sys, time
real = time.monotonic
def frozen():
    return 1000.0
for module in list(sys.modules.values()):
    for name, value in list(vars(module).items()):
        if value is real:
            setattr(module, name, frozen)
assert time.monotonic is frozen
"""


@engines
@moments
def test_the_time_of_the_loop_is_not_what_a_test_froze(
    tmp_path: Path, engine: str, before: bool
) -> None:
    program = """
loop = fastcore.get_loop()
fired = []
loop.call_later(0.001, fired.append, 1)
ticking = loop.call_every(0.001, lambda: fired.append(2) or len(fired) > 3 and ticking.cancel())
start = loop.time()
loop.run()
print(fired[:2], loop.time() > start, time.monotonic())
import socket
ours, peer = socket.socketpair()
asyncore.dispatcher(ours).writable = lambda: False
asyncore.loop(timeout=0.01, count=3)
peer.close()
asyncore.close_all()
"""
    said = run(tmp_path, engine, in_order(before, FREEZE, program))
    assert said[0].endswith("True 1000.0"), said


@engines
@moments
def test_freezegun(tmp_path: Path, engine: str, before: bool) -> None:
    if find_spec("freezegun") is None:
        pytest.skip("freezegun is not installed")
    change = "import freezegun\nfreezegun.freeze_time('2024-01-01').start()\n"
    program = (
        "with fastcore.Loop() as loop:\n    loop.call_later(0.01, print, 'due')\n    loop.run()"
    )
    assert run(tmp_path, engine, in_order(before, change, program)) == ["due"]


BESIDE_GREENLETS = """
import socket
ticks, got = [], []
class Echo(asyncore.dispatcher_with_send):
    def handle_read(self):
        self.send(self.recv(100).upper())
def tick():
    while len(ticks) < 5:
        ticks.append(1)
        green.sleep(0.001)
ours, peer = socket.socketpair()
def ask():
    peer.sendall(b"ping")
    got.append(peer.recv(100))
echo = Echo(ours)
green.spawn(tick)
green.spawn(ask)
while len(ticks) < 5 or not got:
    asyncore.loop(timeout=0.1, count=1)
print(got)
echo.close()
peer.close()
"""


@engines
@moments
@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_beside_greenlets(tmp_path: Path, engine: str, before: bool, library: str) -> None:
    """While asyncore.loop() waits, greenlets run: its select() is theirs."""
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    patch = {
        "gevent": "import gevent as green\nfrom gevent import monkey\nmonkey.patch_all()\n",
        "eventlet": "import eventlet as green\ngreen.monkey_patch()\n",
    }[library]
    # What these libraries deprecate of themselves is not ours.
    patch = f"import warnings\nwarnings.simplefilter('ignore')\n{patch}"
    assert run(tmp_path, engine, in_order(before, patch, BESIDE_GREENLETS)) == ["[b'PING']"]


# -- another asyncore -----------------------------------------------------------------------------


@pytest.fixture
def site(fast: Any) -> Any:
    with Site(fast) as site:
        yield site


@pytest.fixture
def other(site: Site, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Another module of that name, which has a channel; ours has none."""
    module: Any = ModuleType("asyncore")
    module.__file__ = "somewhere/asyncore.py"
    module.socket_map = {1: object()}
    monkeypatch.setitem(sys.modules, "asyncore", module)
    monkeypatch.setattr(site.asyncore, "socket_map", {})
    monkeypatch.setattr(site.asyncore, "_told_of_another", False)
    return module


def test_a_loop_with_nothing_to_do_tells_once_of_another_asyncore(site: Site, other: Any) -> None:
    with pytest.warns(
        RuntimeWarning, match=r"(?s)somewhere/asyncore.*fastcore\.install\(\)"
    ) as told:
        site.asyncore.loop()
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        site.asyncore.loop()


@pytest.mark.parametrize("case", ["no channels", "no map", "ours", "not a module", "a private map"])
def test_it_says_nothing_where_nothing_is_wrong(
    site: Site, other: Any, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case == "no channels":
        other.socket_map = {}
    elif case == "no map":
        del other.socket_map
    elif case == "ours":
        monkeypatch.setitem(sys.modules, "asyncore", site.asyncore)
    elif case == "not a module":

        class Answers:
            def __getattr__(self, name: str) -> Any:
                raise AssertionError(name)

        sys.modules["asyncore"] = Answers()  # type: ignore[assignment]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        site.asyncore.loop(map={} if case == "a private map" else None)


def test_what_is_the_systems_own_is_told_by_what_it_is() -> None:
    assert originals.is_original(select.select, "select")
    assert not originals.is_original(lambda: None, "select")
    assert not originals.is_original(len, "select")
    assert not originals.is_original(None, "select")
    copy = originals.original("select")
    assert copy.select is not None and originals.original("time").monotonic() > 0
