"""The benchmarks: what is planned and kept, what counts as slower, and small runs end to end.

No figure is judged: they depend on the machine.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_support import TIMEOUT, environment, run
from fastcore._bench import children, command, compare, measure, result, servers, show, workloads
from rich.console import Console

PLANS = workloads.full_plans() + workloads.quick_plans()


def console() -> tuple[Console, io.StringIO]:
    """A console that writes into a string."""
    text = io.StringIO()
    return Console(file=text, width=200, highlight=False), text


def bench_line(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "fastcore", "bench", *arguments]


def bench(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """`python -m fastcore bench` in a folder of its own."""
    return run(folder, bench_line(*arguments), COLUMNS="150", **more)


def made_result(figures: dict[str, list[float]], name: str = result.CPU) -> result.Result:
    """A result with one workload: a figure of each round, by server."""
    made = result.Result(about={"machine": {"cpu": "x", "cores": 2, "pinned": True}})
    made.workloads = [result.Workload("w", "the workload", "echo", "echo", figure=name)]
    for key, values in figures.items():
        family = "fastcore-c" if key.startswith("fastcore") else key
        made.servers.append(result.Server(key, key.upper(), family))
        rounds = [{"round": i, name: value, "errors": 0} for i, value in enumerate(values)]
        made.cells.append(result.Cell(key, "w", rounds))
    return made


# ---- the result file --------------------------------------------------------


def test_a_result_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    made = made_result({"limit": [5.0, 6.0], "fastcore-c-direct": [7.0]})
    made.cells[1].counts = {"syscalls_per_request": 2.0, "instructions_per_request": None}
    made.cells[1].failure = "no answer"
    made.notes = ["ünïcode"]
    result.save(made, tmp_path / "a.json")
    assert result.load(tmp_path / "a.json") == made
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_medians_spreads_and_ratios() -> None:
    made = made_result({"limit": [4.0, 5.0, 90.0], "fastcore-c-direct": [1.0, 2.0, 3.0, 4.0, 5.0]})
    made.servers.append(result.Server("gevent", "gevent", "gevent"))
    made.servers.append(result.Server("uvloop", "uvloop", "uvloop"))
    made.cells.append(result.Cell("gevent", "w", [{"round": 0, result.CPU: 12.0}]))
    made.cells.append(result.Cell("uvloop", "w", [{"round": 0, result.CPU: None, "errors": 3}]))
    cell = made.cell("fastcore-c-direct", "w")
    assert cell is not None
    assert (cell.median(result.CPU), cell.spread(result.CPU)) == (3.0, (2.0, 4.0))
    assert made.ratio_to_limit(cell) == pytest.approx(0.6)
    assert made.ratio_to_best_peer(cell) == pytest.approx(0.25)
    unknown = made.cell("uvloop", "w")
    assert unknown is not None and unknown.errors == 3
    assert unknown.median(result.CPU) is unknown.spread(result.CPU) is None
    assert made.ratio_to_limit(unknown) is None
    assert made.cell("nobody", "w") is None


def test_the_best_peer_is_the_one_with_more_where_more_is_better() -> None:
    rates = {"limit": [9.0], "gevent": [5.0], "uvloop": [7.0], "fastcore-c-direct": [8.0]}
    best = made_result(rates, result.RATE).best_peer("w", result.RATE)
    assert best is not None and best.server == "uvloop"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "No such file"),
        ("nonsense", "is no JSON"),
        ("[]", "is no result"),
        ('{"format": 99, "cells": []}', "format 99"),
        ('{"format": 1, "cells": []}', "not complete"),
    ],
)
def test_other_files_are_refused_with_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, reason: str
) -> None:
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    assert command.main(["compare", str(path), str(path)]) == 2
    assert reason in capsys.readouterr().err


def test_fields_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    made = made_result({"limit": [1.0]})
    result.save(made, tmp_path / "a.json")
    data = json.loads((tmp_path / "a.json").read_text())
    data["workloads"][0]["colour"] = "blue"
    (tmp_path / "a.json").write_text(json.dumps(data))
    assert result.load(tmp_path / "a.json") == made


# ---- what got slower --------------------------------------------------------

STEADY = [10.0, 10.1, 9.9, 10.05, 9.95]


def verdict(
    old: dict[str, list[float]], new: dict[str, list[float]], name: str = result.CPU
) -> str:
    """What is said of the first server that is not the limit."""
    (change,) = compare.changes(made_result(old, name), made_result(new, name))
    if not change.beyond_noise:
        return "same"
    return "slower" if change.worse > 0 else "faster"


@pytest.mark.parametrize(
    ("factor", "expected"), [(1.0, "same"), (1.02, "same"), (1.1, "slower"), (0.9, "faster")]
)
def test_a_change_must_be_beyond_the_noise(factor: float, expected: str) -> None:
    limit = [5.0] * 5
    new = {"limit": limit, "fastcore-c-direct": [value * factor for value in STEADY]}
    assert verdict({"limit": limit, "fastcore-c-direct": STEADY}, new) == expected


def test_noisy_rounds_hide_a_change() -> None:
    old, new = [8.0, 9.0, 10.0, 11.0, 12.0], [9.0, 10.0, 11.0, 12.0, 13.0]
    assert verdict({"fastcore-c-direct": old}, {"fastcore-c-direct": new}) == "same"


def test_a_machine_that_is_slower_today_is_no_change() -> None:
    """Rounds count by the limit's round of the same number."""
    speed = [1.0, 1.5, 2.0, 1.2, 0.8]
    new = {
        "limit": [5.0 * s for s in speed],
        "fastcore-c-direct": [v * s for v, s in zip(STEADY, speed, strict=True)],
    }
    assert verdict({"limit": [5.0] * 5, "fastcore-c-direct": STEADY}, new) == "same"
    new["fastcore-c-direct"] = [1.2 * value for value in new["fastcore-c-direct"]]
    assert verdict({"limit": [5.0] * 5, "fastcore-c-direct": STEADY}, new) == "slower"


def test_of_a_rate_less_is_worse() -> None:
    less = {"fastcore-c-direct": [value * 0.9 for value in STEADY]}
    assert verdict({"fastcore-c-direct": STEADY}, less, result.RATE) == "slower"


def test_rounds_of_different_numbers_are_not_paired() -> None:
    old = made_result({"limit": [5.0, 5.0], "fastcore-c-direct": [10.0, 10.0]})
    new = made_result({"limit": [5.0], "fastcore-c-direct": [10.0, 99.0]})
    assert [change.new for change in compare.changes(old, new)] == [2.0]


def test_compare_says_it_and_sets_the_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    result.save(made_result({"fastcore-c-direct": STEADY, "gevent": STEADY}), old)
    slower = [value * 1.5 for value in STEADY]
    result.save(made_result({"fastcore-c-direct": slower, "gevent": STEADY}), new)
    assert command.main(["compare", str(old), str(old)]) == 0
    assert "2 figures compared: 0 slower" in " ".join(capsys.readouterr().out.split())
    assert command.main(["compare", str(old), str(new)]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "Slower" in said and "+50.0%" in said and "FASTCORE-C-DIRECT" in said
    assert command.main(["compare", str(new), str(old)]) == 0
    assert "Faster" in capsys.readouterr().out


def test_what_fails_now_counts_as_slower() -> None:
    old, new = made_result({"fastcore-c-direct": STEADY}), made_result({"fastcore-c-direct": []})
    new.cells[0].failure = "no answer"
    where, text = console()
    assert compare.compare(old, new, where) == 1
    assert "no answer" in text.getvalue()


def test_results_of_different_machines_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = made_result({"limit": STEADY}), made_result({"limit": STEADY})
    new.about["machine"]["cpu"] = "another"
    result.save(old, tmp_path / "old.json")
    result.save(new, tmp_path / "new.json")
    line = ["compare", str(tmp_path / "old.json"), str(tmp_path / "new.json")]
    assert command.main(line) == 2
    assert "different machines" in capsys.readouterr().err
    assert command.main([*line, "--any-machine"]) == 0


# ---- the plans --------------------------------------------------------------


def test_every_workload_has_a_key_of_its_own() -> None:
    for plans in (workloads.full_plans(), workloads.quick_plans()):
        counted = Counter(plan.workload.key for plan in plans)
        assert [key for key, count in counted.items() if count > 1] == []
        assert all(re.fullmatch(r"[\w+-]+", key) for key in counted)


def test_what_both_runs_measure_is_the_same() -> None:
    """A quick run can be compared with a full one where the keys are the same."""
    full = {plan.workload.key: plan.workload for plan in workloads.full_plans()}
    same = [p.workload for p in workloads.quick_plans() if p.workload.key in full]
    assert len(same) > 5
    assert [w for w in same if full[w.key] != w] == []


def test_a_full_run_has_five_rounds_of_everything() -> None:
    assert {plan.rounds for plan in workloads.full_plans()} == {5}


def test_every_pattern_of_a_plan_means_a_server() -> None:
    contenders = servers.known_servers(None, None)
    for plan in PLANS:
        taking_part = [c for c in contenders if c.speaks(plan.workload) and plan.wants(c.key)]
        assert len(taking_part) > 1, plan.workload.key
        for pattern in plan.servers:
            assert any(replace(plan, servers=(pattern,)).wants(c.key) for c in contenders), pattern


def test_workloads_that_do_not_fit_are_scaled_down() -> None:
    plans, notes = workloads.fit(workloads.full_plans(), 1064)
    assert max(plan.connections for plan in plans) == 1000
    keys = [plan.workload.key for plan in plans]
    assert "idle-10+990" in keys and "accept-1000" in keys and "timers-1000000" in keys
    assert len(keys) == len(set(keys))
    assert any("limit of 1064 open files" in note and "10,000 busy" in note for note in notes)
    assert workloads.fit(workloads.full_plans(), 65536) == (workloads.full_plans(), [])


def test_sizes_are_shown_as_people_write_them() -> None:
    shown = [workloads.show_size(size) for size in (64, 1024, 102400, 1 << 20, 1 << 30, 1500)]
    assert shown == ["64 B", "1 KiB", "100 KiB", "1 MiB", "1 GiB", "1500 B"]


def test_all_programs_that_servers_name_are_there() -> None:
    for contender in servers.known_servers(None, None):
        for plan in PLANS:
            if contender.key != "limit" and contender.speaks(plan.workload):
                programs = [a for a in contender.command(plan.workload) if a.endswith(".py")]
                assert programs and all(Path(program).is_file() for program in programs)


def test_what_is_not_installed_is_named() -> None:
    first = next(c for c in servers.known_servers(None, None) if c.key == "gevent")
    missing = servers.why_missing(replace(first, needs=("no_such_module",)))
    assert missing is not None and "no_such_module is not installed (pip install" in missing


# ---- measuring --------------------------------------------------------------


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The command takes over signals of the process that it runs in."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def kit(tmp_path: Path) -> measure.Kit:
    """One server that is there and one that is not; nothing is compiled."""
    contenders = {c.key: c for c in servers.known_servers(None, "no C compiler")}
    empty = tmp_path / "empty"
    empty.mkdir()
    keys = ("limit", "fastcore-python-direct")
    generator = (sys.executable, str(children.HERE / "load.py"))
    cores = children.Cores.choose()
    return measure.Kit({key: contenders[key] for key in keys}, generator, cores, empty)


def small_plan(**more: Any) -> workloads.Plan:
    return replace(workloads.echo(64, 2, ("*",)), rounds=2, seconds=0.05, warmup=0.05, **more)


def run_small(kit: measure.Kit, plan: workloads.Plan, seconds: float) -> result.Result:
    made = measure.make_result([plan], kit.contenders.values())
    running = measure.Bench(made, [plan], kit, time.monotonic() + seconds)
    running.run(console()[0], lambda w: show.make_table(made, [w], w.label))
    return made


def test_rounds_visit_the_servers_in_turn() -> None:
    cells = [result.Cell("a", "w"), result.Cell("b", "w")]
    order = [(cell.server, number) for cell, number in measure.in_turn(cells, 2)]
    assert order == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]


def test_a_round_has_the_generators_figures(kit: measure.Kit) -> None:
    made = run_small(kit, small_plan(), 60)
    limit, ours = made.cells
    assert limit.failure == "missing: no C compiler" and not limit.rounds
    assert [figures["round"] for figures in ours.rounds] == [0, 1]
    assert all(figures["requests"] > 0 for figures in ours.rounds)
    assert (ours.failure, ours.errors) == (None, 0)
    assert "limit: C epoll: missing: no C compiler." in show.cell_notes(made)


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
    """Its stand-in in Python knows fewer options: an echo uses those alone."""
    plain = measure.load_arguments(workloads.echo(64, 10, ("*",)))
    assert plain[:6] == ["--busy", "10", "--idle", "0", "--size", "64"]
    assert not {"--protocol", "--timeout", "--in-flight", "--requests"} & {*plain}
    line, accept = (
        measure.load_arguments(plan) for plan in (workloads.lines(16), workloads.accept(50))
    )
    assert line[line.index("--in-flight") + 1] == "16" and "--requests" not in line
    assert accept[accept.index("--requests") + 1] == "50" and "--timeout" in accept


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


# ---- the command ------------------------------------------------------------


def test_list_names_servers_and_workloads(tmp_path: Path) -> None:
    done = bench(tmp_path, "--list")
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("fastcore-python-direct", "uvloop-protocol", "echo-1k-100", "computing-line-16"):
        assert word in done.stdout
    assert list(tmp_path.iterdir()) == []


SMALL = ("--server", "fastcore-python-*", "--rounds", "2", "--seconds", "0.05", "--no-counts")


@pytest.mark.slow
def test_a_small_run(tmp_path: Path) -> None:
    done = bench(tmp_path, "--workload", "echo-1k-1", "--workload", "timers-pending*", *SMALL)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "[1/" in done.stdout and "written to bench.json" in done.stdout
    made = result.load(tmp_path / "bench.json")
    assert {w.key for w in made.workloads} == {"echo-1k-1", "timers-pending-100000"}
    assert all(len(cell.rounds) == 2 and cell.failure is None for cell in made.cells), made.cells
    assert {"python", "fastcore"} <= set(made.about["versions"])
    assert {"system", "cpu", "cores", "pinned"} <= set(made.about["machine"])
    assert made.about["duration_s"] > 0
    done = bench(tmp_path, "compare", "bench.json", "bench.json")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_what_it_has(tmp_path: Path, number: signal.Signals) -> None:
    line = bench_line("--workload", "echo-1k-1*", "--server", "fastcore-python-direct")
    with subprocess.Popen(
        [*line, "--seconds", "0.05", "--no-counts"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            for text in process.stdout:
                if text.startswith("[6/"):  # the second workload begins
                    process.send_signal(number)
                    break
            output, errors = process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()
    assert (process.returncode, errors) == (130, "")
    assert "Interrupted" in output
    made = result.load(tmp_path / "bench.json")
    assert any("Interrupted" in note for note in made.notes)
    assert len(made.cells[0].rounds) == 5
    assert len(made.cells) > 1


def test_mistakes_are_explained(tmp_path: Path) -> None:
    for wrong, reason in (
        (("--workload", "nonsense"), "--list shows what there is"),
        (("--server", "nonsense"), "--list shows what there is"),
        (("--output", "nowhere/bench.json"), "no such folder"),
        (("--rounds", "0"), "must be from 1"),
        (("--seconds", "-1"), "must be from 0.01"),
        (("compare", "one"), "required"),
        (("report", "nothing.json"), "No such file"),
        (("nonsense",), "unrecognized"),
    ):
        done = bench(tmp_path, *wrong, CC="no-such-compiler")
        assert done.returncode == 2, wrong
        assert reason in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("missing", ["rich", "fastcore._bench"])
def test_an_incomplete_installation_says_what_to_install(tmp_path: Path, missing: str) -> None:
    code = (
        "import sys, runpy\n"
        "class Gone:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[:2] == {missing.split('.')!r}[:2] or name == {missing!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Gone())\n"
        "sys.argv[1:] = ['bench', '--list']\n"
        "runpy.run_module('fastcore', run_name='__main__')\n"
    )
    done = run(tmp_path, [sys.executable, "-c", code])
    assert done.returncode == 2
    assert "pip install 'fastcore-loop[bench]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_explains_the_rule(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["compare", "--help"])
    assert "than its noise" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert "compare" in capsys.readouterr().out
