"""Rounds of the benchmarks, with small loads on one server: what they keep, and what they say.

No figure is judged: they depend on the machine.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_support import OURS, SERVERS, build
from fastcore_bench import children, measure, result, show, workloads


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """load.c."""
    program = build("load.c", tmp_path_factory.mktemp("load"))
    if program is None:
        pytest.skip("load.c needs a C compiler and POSIX")
    return Path(program)


@pytest.fixture
def kit(generator: Path, tmp_path: Path) -> measure.Kit:
    """One server that is there and one that is not."""
    contenders = {c.key: c for c in SERVERS}
    limit = contenders["limit"]
    contenders["limit"] = replace(limit, server=replace(limit.server, missing="no epoll"))
    empty = tmp_path / "empty"
    empty.mkdir()
    keys = ("limit", "fastcore-python-direct")
    chosen = {key: contenders[key] for key in keys}
    return measure.Kit({"": OURS}, chosen, generator, children.Cores.choose(), empty)


def small_plan(**more: Any) -> workloads.Plan:
    return replace(workloads.echo(64, 2, ("*",)), rounds=2, seconds=0.05, warmup=0.05, **more)


def run_small(kit: measure.Kit, plan: workloads.Plan, seconds: float) -> result.Result:
    made = measure.make_result([plan], kit.contenders.values())
    running = measure.Bench(made, [plan], kit, time.monotonic() + seconds)
    running.run(show.make_console(), lambda w: show.make_table(made, [w], w.label))
    return made


def test_rounds_visit_the_servers_in_turn() -> None:
    cells = [result.Cell("a", "w"), result.Cell("b", "w")]
    order = [(cell.server, number) for cell, number in measure.in_turn(cells, 2)]
    assert order == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]


def test_a_round_has_the_generators_figures(kit: measure.Kit) -> None:
    made = run_small(kit, small_plan(), 60)
    limit, ours = made.cells
    assert limit.failure == "missing: no epoll" and not limit.rounds
    assert (ours.failure, ours.errors) == (None, 0)
    assert [figures["round"] for figures in ours.rounds] == [0, 1]
    assert all(figures["requests"] > 0 for figures in ours.rounds)
    assert "limit: C epoll: missing: no epoll." in show.cell_notes(made)


def test_what_there_is_no_time_for_is_named(kit: measure.Kit) -> None:
    made = run_small(kit, small_plan(), 1)
    assert made.cells[1].rounds == []
    notes = show.cell_notes(made)
    assert "fastcore Python, recv/send, echo 64 B, 2 busy: left out: no time left." in notes
    made.cells = made.cells[1:]
    assert show.cell_notes(made) == ["left out: no time left: echo 64 B, 2 busy."]


def test_a_server_that_does_not_start_says_why(kit: measure.Kit) -> None:
    broken = replace(
        kit.contenders["fastcore-python-direct"], runner=(sys.executable, "-c", "1/0"), program=()
    )
    made = run_small(replace(kit, contenders={broken.key: broken}), small_plan(), 60)
    assert made.cells[0].failure == "did not start: ZeroDivisionError: division by zero"


def test_a_server_that_ends_says_why(kit: measure.Kit) -> None:
    code = (
        "import socket; s = socket.create_server(('127.0.0.1', 0));"
        "print(s.getsockname()[1], flush=True); s.accept(); raise SystemExit('enough')"
    )
    broken = replace(
        kit.contenders["fastcore-python-direct"], runner=(sys.executable, "-c", code), program=()
    )
    made = run_small(replace(kit, contenders={broken.key: broken}), small_plan(), 60)
    assert made.cells[0].failure == "no answer; the server ended: exit status 1, enough"


def test_the_load_generator_is_told_what_the_workload_says() -> None:
    plain, line, accept = (
        measure.load_arguments(plan)
        for plan in (workloads.echo(64, 10, ("*",)), workloads.lines(16), workloads.accept(50))
    )
    assert plain[:8] == "--protocol echo --busy 10 --idle 0 --size 64".split()
    assert line[line.index("--in-flight") + 1] == "16" and "--requests" not in line
    assert accept[accept.index("--requests") + 1] == "50" and "--timeout" in accept


def test_what_answers_by_threads_and_relays_is_loaded_as_an_echo_is() -> None:
    for plan in (workloads.answered(20), workloads.relay(3, idle=20)):
        assert measure.load_arguments(plan)[:2] == ["--protocol", "echo"]
    threads = {"busy": 1, "idle": 0, result.CPU: 2.0, "process_cpu_us_per_request": 3.0}
    contender = next(c for c in SERVERS if c.key == "pyasyncore-tutorial")
    assert measure.complete(threads, workloads.answered(0), contender)[result.CPU] == 3.0


def test_the_floor_is_built_for_those_that_need_it(
    kit: measure.Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def compile_c(source: str, folder: Path, *flags: str, suffix: str = "") -> None:
        asked.append((source, suffix))
        if source == "floor.c":
            raise children.Failure("no such header")

    monkeypatch.setattr(measure, "compile_c", compile_c)
    floor = result.Server("floor-direct", "the floor", "floor")
    assert kit.compile([replace(floor, missing="no epoll")]) == []
    assert ("floor.c", ".so") not in asked
    assert kit.compile([floor]) == ["The floor was not compiled: no such header"]
    assert ("floor.c", ".so") in asked


def test_figures_with_many_errors_are_none() -> None:
    figures = {"busy": 100, "idle": 0, "requests": 5000, "errors": 1}
    measure.check(figures, small_plan())
    with pytest.raises(children.Failure, match="2 of 100 connections failed"):
        measure.check({**figures, "errors": 2}, small_plan())
    measure.check({**figures, "errors": 40}, workloads.churn(100))


def test_servers_with_a_process_for_each_connection_are_spared(kit: measure.Kit) -> None:
    spared = replace(kit.contenders["fastcore-python-direct"], most=1)
    made = measure.make_result([small_plan()], [spared])
    assert str(made.cells[0].failure).startswith("left out: each of its connections")


def test_cpu_time_counts_where_the_work_is_done(kit: measure.Kit) -> None:
    plan, server = small_plan(), kit.contenders["fastcore-python-direct"]
    figures = {
        result.CPU: 2.0,
        "process_cpu_us_per_request": 10.0,
        result.RATE: 50_000.0,
        "busy": 2,
        "idle": 8,
        "rss_before": 1000,
        "rss_after": 6000,
    }
    assert measure.complete(figures, plan, server)[result.CPU] == 2.0
    assert measure.complete(figures, plan, server)[result.MEMORY] == 500.0
    threads = replace(server, whole_process=True)
    assert measure.complete(figures, plan, threads)[result.CPU] == 10.0
    forks = replace(threads, forks=True)
    assert measure.complete(figures, plan, forks)[result.CPU] is None
    beside = measure.complete(figures, workloads.beside_thread(plan), server)
    assert beside["thread_share"] == pytest.approx(0.4)
