"""Random programs of channel operations: every engine calls the same handlers in the same order.

The programs are in JSON and run by differential_programs.py; the standard library's asyncore runs
them in a process of its own, under a Python 3.11 where there is one, else under the first
interpreter that can import `asyncore`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import differential_programs
import pytest
from conftest import ENGINES, load_package
from hypothesis import HealthCheck, given, settings, strategies as st

PROGRAM = Path(differential_programs.__file__)
CHANNEL = st.sampled_from([0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6])  # seldom one opened later
SIZE = st.integers(1, 60)
EVENT = st.sampled_from(["read", "write"])

BOUNDED = settings(
    max_examples=300,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.differing_executors,
    ],
)

STIMULI = st.one_of(
    st.tuples(st.just("peer_write"), CHANNEL, SIZE),
    st.tuples(st.just("write"), CHANNEL, SIZE),
    st.tuples(st.just("peer_write"), CHANNEL, SIZE),
    st.tuples(st.just("write"), CHANNEL, SIZE),
    st.tuples(st.just("peer_half_close"), CHANNEL),
    st.tuples(st.just("peer_close"), CHANNEL),
    st.tuples(st.just("half_close"), CHANNEL),
    st.tuples(st.just("close"), CHANNEL),
    st.tuples(st.just("reopen"), CHANNEL),
    st.tuples(st.just("want_read"), CHANNEL, st.booleans()),
    st.tuples(st.just("want_write"), CHANNEL, st.booleans()),
    st.tuples(st.just("open"), st.booleans()),
)
ACTIONS = st.one_of(
    st.tuples(st.just("close"), CHANNEL),
    st.tuples(st.just("reopen"), CHANNEL),
    st.tuples(st.just("open"), st.booleans()),
    st.tuples(st.sampled_from(["want_read", "want_write"]), CHANNEL, st.just(False)),
    st.tuples(st.sampled_from(["want_read", "want_write"]), CHANNEL, st.booleans()),
    st.tuples(st.just("write"), CHANNEL, SIZE),
    st.tuples(st.just("half_close"), CHANNEL),
    st.tuples(st.just("nest")),
    st.tuples(st.just("raise")),
)
SCRIPTS = st.tuples(CHANNEL, EVENT, ACTIONS)


def programs(
    stimuli: tuple[int, int], scripts: tuple[int, int], fillers: Any
) -> st.SearchStrategy[dict[str, Any]]:
    """Programs of steps with at least and at most so many stimuli and scripts each."""
    step = st.fixed_dictionaries(
        {
            "stimuli": st.lists(STIMULI, min_size=stimuli[0], max_size=stimuli[1]),
            "scripts": st.lists(SCRIPTS, min_size=scripts[0], max_size=scripts[1]),
        }
    )
    steps = st.lists(step, min_size=3, max_size=12)
    return st.fixed_dictionaries({"fillers": fillers, "steps": steps})


def by_channel(trace: list[list[Any]]) -> dict[Any, list[Any]]:
    """What each channel was told, in its order, with the steps between."""
    found: dict[Any, list[Any]] = {}
    step = 0
    for event in trace:
        if event[0] == "step":
            step += 1
        else:
            who = (event[0] == "peer", event[1] if len(event) > 1 else None)
            found.setdefault(who, []).append([step, event[0], *event[2:]])
    return found


# -- one engine against the other -------------------------------------------------------------


# With these the order of events between channels is the kernel's, the same for both engines.  Each
# engine has its own order with poll and select: there the test below must do.
POLLERS = [
    name for name in load_package(ENGINES[0]).package.pollers() if name in ("epoll", "kqueue")
]


@pytest.mark.parametrize("poller", POLLERS)
@BOUNDED
@given(program=programs(stimuli=(3, 6), scripts=(2, 6), fillers=st.just(0)))
def test_the_engines_agree(
    poller: str, monkeypatch: pytest.MonkeyPatch, program: dict[str, Any]
) -> None:
    monkeypatch.setenv("FASTCORE_POLLER", poller)
    program = json.loads(json.dumps(program))
    traces = [
        by_channel(differential_programs.run(load_package(engine).asyncore, program))
        for engine in ENGINES
    ]
    assert all(trace == traces[0] for trace in traces)
    assert (False, None) not in traces[0]  # "never quiet"


# -- the engines against the standard library ---------------------------------------------------


class Reference:
    """The standard library's asyncore in a process of its own."""

    def __init__(self) -> None:
        for name in ("python3.11", sys.executable, "python3.10"):
            path = shutil.which(name)
            if path is not None and self.start(path):
                return
        pytest.skip("no interpreter here has a module asyncore")

    def start(self, path: str) -> bool:
        self.process = subprocess.Popen(
            [path, "-W", "ignore", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline():  # it says which module it found
            return True
        self.stop()
        return False

    def run(self, program: dict[str, Any]) -> list[list[Any]]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(program) + "\n")
        self.process.stdin.flush()
        trace: list[list[Any]] = json.loads(self.process.stdout.readline())
        return trace

    def stop(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(20)


@pytest.fixture(scope="module")
def reference() -> Iterator[Reference]:
    reference = Reference()
    yield reference
    reference.stop()


def comparable(trace: list[list[Any]]) -> dict[Any, list[Any]]:
    """As by_channel(), without what is mended and what the contract leaves open."""
    found = by_channel(trace)
    for who, events in found.items():
        merged: list[Any] = []
        for event in events:
            # Mended: an event that a nested loop has used up, or whose reason another handler has
            # taken away, is not delivered any more.
            if event[1].startswith("nothing to"):
                continue
            # Open: how many turns bytes take that other channels write in the meantime.
            if merged and event[1] in ("read", "write") and merged[-1][:2] == event[:2]:
                merged[-1] = [*event[:2], merged[-1][2] + event[2]]
            else:
                merged.append(event)
        found[who] = merged
    return {who: events for who, events in found.items() if events}


# One stimulus and one script a step.  With more, one handler of a batch decides what becomes of
# the other events of that batch, and there the old loop was wrong (mended: an event for a channel
# that was closed or replaced in the same batch reached the wrong object) or merely had an order
# between channels, select()'s, that is no part of the contract.
@BOUNDED
@given(program=programs(stimuli=(1, 1), scripts=(0, 1), fillers=st.sampled_from([0, 0, 20])))
def test_the_engines_do_what_the_standard_library_did(
    fast: Any, reference: Reference, program: dict[str, Any]
) -> None:
    program = json.loads(json.dumps(program))
    ours = comparable(differential_programs.run(fast.asyncore, program))
    assert ours == comparable(reference.run(program))


# -- that the programs do something -------------------------------------------------------------


def test_a_program_does_what_it_says(fast: Any) -> None:
    program = {
        "fillers": 0,
        "steps": [
            {"stimuli": [["peer_write", 0, 3]], "scripts": [[0, "read", ["write", 1, 2]]]},
            {"stimuli": [["write", 2, 1]], "scripts": [[2, "write", ["reopen", 1]]]},
            {"stimuli": [["peer_write", 5, 1]], "scripts": [[5, "read", ["raise"]]]},
            {"stimuli": [["half_close", 3]], "scripts": []},
        ],
    }
    trace = differential_programs.run(fast.asyncore, program)
    assert [event for event in trace if event[2:] != [""]] == [
        ["step"],
        ["read", 0, "abc"],
        ["write", 1, "ab"],
        ["peer", 1, "ab"],
        ["step"],
        ["write", 2, "a"],
        ["read", 3, "a"],
        ["step"],
        ["read", 5, "a"],
        ["error", 5, "ValueError"],
        ["step"],
        ["close", 2],
        ["close", 3],
    ]
