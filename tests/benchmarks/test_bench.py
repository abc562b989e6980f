"""The benchmarks: what is planned and kept, and small runs end to end.

No figure is judged: they depend on the machine.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bench_support import (
    OURS,
    SERVERS,
    TIMEOUT,
    environment,
    made_result,
    needs_compiler,
    run,
)
from fastcore_bench import (
    children,
    command,
    machine,
    result,
    servers,
    show,
    tools,
    workloads,
)
from rich.console import Console

import fastcore

PLANS = workloads.full_plans() + workloads.quick_plans()


def console(width: int = 200) -> tuple[Console, io.StringIO]:
    """A console that writes into a string."""
    made, text = show.make_console(), io.StringIO()
    made.file, made.width = text, width
    return made, text


def bench_line(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "fastcore", "bench", *arguments]


def bench(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """`python -m fastcore bench` in a folder of its own."""
    return run(folder, bench_line(*arguments), COLUMNS="150", **more)


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


# ---- the worst rows ---------------------------------------------------------


def unlike_peers() -> result.Result:
    """Workloads about a cost, a rate and a latency, each with fastcore and two peers."""
    made = result.Result()
    for key, name, own, other, better in (
        ("cost", result.CPU, 6.0, 9.0, 4.0),
        ("rate", result.RATE, 100.0, 150.0, 200.0),
        ("delay", result.P50, 90.0, 120.0, 100.0),
    ):
        made.workloads.append(result.Workload(key, key, "echo", "echo", figure=name))
        for server, value in (
            ("limit", own / 2), ("floor", own / 2), ("fastcore-c-direct", own),
            ("uvloop", other), ("rloop", better),
        ):  # fmt: skip
            made.cells.append(result.Cell(server, key, [{"round": 0, name: value}]))
    families = {"fastcore-c-direct": "fastcore-c"}
    for key in dict.fromkeys(cell.server for cell in made.cells):
        made.servers.append(result.Server(key, key.upper(), families.get(key, key)))
    return made


def test_the_worst_rows_come_first_whichever_direction_is_better() -> None:
    made = unlike_peers()
    rows = made.worst_rows("fastcore-c")
    assert [(cell.workload, peer.server) for _, cell, peer in rows] == [
        ("rate", "rloop"),
        ("cost", "rloop"),
        ("delay", "rloop"),
    ]
    assert [worse for worse, _, _ in rows] == pytest.approx([2.0, 1.5, 0.9])
    assert made.worst_rows("fastcore-python") == []


def test_the_worst_rows_are_shown() -> None:
    made = unlike_peers()
    made.cells[2].rounds = []
    where, text = console(80)
    where.print(show.make_worst_table(made))
    shown = [line.split() for line in text.getvalue().splitlines()]
    assert ["rate", "rate", "FASTCORE-C-DIRECT", "RLOOP", "100.00", "200.00", "2.00"] in shown
    assert ["delay", "p50", "FASTCORE-C-DIRECT", "RLOOP", "90.00", "100.00", "0.90"] in shown
    assert "cost" not in text.getvalue()


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


@pytest.mark.parametrize("plans", [workloads.full_plans(), workloads.quick_plans()])
def test_nothing_is_measured_twice(plans: list[workloads.Plan]) -> None:
    loads = Counter(replace(p.workload, key="", label="", group="", figure="") for p in plans)
    assert [load for load, count in loads.items() if count > 1] == []


def test_a_full_run_has_five_rounds_of_everything() -> None:
    assert {plan.rounds for plan in workloads.full_plans()} == {5}


def test_every_pattern_of_a_plan_means_a_server() -> None:
    for plan in PLANS:
        taking_part = [c for c in SERVERS if c.speaks(plan.workload) and plan.wants(c.key)]
        assert len(taking_part) > 1, plan.workload.key
        for pattern in plan.servers:
            assert any(replace(plan, servers=(pattern,)).wants(c.key) for c in SERVERS), pattern


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
    for contender in SERVERS:
        for plan in PLANS:
            if contender.key != "limit" and contender.speaks(plan.workload):
                programs = [a for a in contender.command(plan.workload) if a.endswith(".py")]
                assert programs and all(Path(program).is_file() for program in programs)
    for tool in (tools.REDIS, tools.WRK):
        assert (children.PROGRAMS / tool.program).is_file()


def test_what_is_not_installed_is_named() -> None:
    first = next(c for c in SERVERS if c.key == "gevent")
    missing = servers.why_missing(replace(first, needs=("no_such_module",)))
    assert (
        missing is not None
        and "no_such_module is not installed (pip install no_such_module)" in missing
    )
    old = replace(OURS, has_c=False)
    without_c = {c.key: c.server.missing for c in servers.known_servers(Path("limit"), {"": old})}
    assert "without its C engine" in str(without_c["fastcore-c-direct"])
    assert without_c["fastcore-python-direct"] is None


def test_a_floor_that_cannot_be_compiled_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(servers.sysconfig, "get_path", lambda name: str(tmp_path))
    known = {c.key: c for c in servers.known_servers(Path("limit"), {"": OURS})}
    assert "Python.h" in str(known["floor-direct"].server.missing)
    (tmp_path / "Python.h").touch()
    known = {c.key: c for c in servers.known_servers(Path("limit"), {"": OURS})}
    assert known["floor-direct"].server.missing is None
    assert str(Path("floor.so")) in known["floor-direct"].command(PLANS[0].workload)


def test_the_fastcore_of_another_python_takes_part_as_ours_does() -> None:
    other = machine.Installed("/other/python", False, {"fastcore": "0.9"})
    known = {c.key: c for c in servers.known_servers(Path("limit"), {"": OURS, "@old": other})}
    ours, old = known["fastcore-python-direct"], known["fastcore-python-direct@old"]
    assert old.server.label == "fastcore Python@old, recv/send"
    assert old.server.family not in result.PEERS
    for plan in PLANS:
        assert plan.wants(old.key) == plan.wants(ours.key)
        assert old.speaks(plan.workload) == ours.speaks(plan.workload)
        if old.speaks(plan.workload):
            line = old.command(plan.workload)
            assert line[0] == "/other/python"
            assert line[1:] == ours.command(plan.workload)[1:]
    assert known["fastcore-c-direct"].server.missing is None
    assert "without its C engine" in str(known["fastcore-c-direct@old"].server.missing)
    assert machine.versions({"": OURS, "@old": other})["fastcore@old"] == "0.9"


# ---- the command ------------------------------------------------------------


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The command takes over signals of the process that it runs in."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_list_names_servers_and_workloads(tmp_path: Path) -> None:
    done = bench(tmp_path, "--list")
    assert (done.returncode, done.stderr) == (0, "")
    for word in (
        *("floor-direct", "fastcore-python-direct", "fastcore-c-tutorial-strict"),
        *("fastcore-c-attached-uvloop", "uvloop-protocol", "rloop-protocol"),
        *("echo-1k-100", "few-1", "few-10", "answered-1+2000", "relay-1+1000"),
        "computing-line-16",
    ):
        assert word in done.stdout, word
    assert list(tmp_path.iterdir()) == []


def test_brackets_in_a_reason_are_shown() -> None:
    """They are no markup for the terminal, wherever they stand."""
    reason = "pip install 'x[bench]'"
    made = made_result({"limit": [1.0], "gevent": []})
    made.workloads = [replace(made.workloads[0], label="the [bold] workload")]
    made.servers[1] = replace(made.servers[1], label="a [bold] one", missing=reason)
    made.cells[1].failure = f"missing: {reason}"
    where, text = console()
    plan = workloads.Plan(made.workloads[0], ("*",))
    command.show_list(where, made, [plan])
    assert reason in text.getvalue()
    where.print(show.make_table(made, made.workloads, "the [bold] title"))
    show.print_notes(where, show.cell_notes(made))
    for what, count in ((reason, 2), ("a [bold] one", 3), ("the [bold] ", 2)):
        assert text.getvalue().count(what) == count, text.getvalue()


def test_narrow_tables_keep_their_digits() -> None:
    """Names give way, not figures."""
    made = made_result({"limit": [1.0] * 3, "fastcore-python-direct": [1.0] * 3})
    made.workloads = [replace(made.workloads[0], unit="connection", busy_thread=True)]
    made.servers[1] = replace(made.servers[1], label="fastcore Python@another, async_chat")
    for cell in made.cells:
        for figures in cell.rounds:
            figures.update(dict.fromkeys((result.CPU, result.RATE), 1234567.89))
            figures.update(p50_us=5_872_026, p99_us=5_872_027, thread_share=0.25)
    where, text = console(80)
    where.print(show.make_table(made, made.workloads, "the title"))
    shown = text.getvalue()
    assert "\u2026" not in shown
    for figure in ("1,234,567.89", "1,234,568", "5,872,026", "5,872,027", "0.25", "1.00"):
        assert figure in shown
    assert max(map(len, shown.splitlines())) <= 80


SMALL = ("--server", "fastcore-python-*", "--rounds", "2", "--seconds", "0.05", "--no-counts")


@needs_compiler
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


@needs_compiler
@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C server uses epoll")
def test_a_run_with_relays_threads_and_a_floor(tmp_path: Path) -> None:
    chosen = ("few-1", "answered-1+0", "relay-1+0")
    names = [word for key in chosen for word in ("--workload", key)]
    for pattern in ("limit", "floor-*", "fastcore-python-tutorial*", "asyncio-protocol"):
        names += ["--server", pattern]
    done = bench(tmp_path, *names, "--rounds", "1", "--seconds", "0.05", "--no-counts")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "worst rows" in done.stdout
    made = result.load(tmp_path / "bench.json")
    measured = {(cell.workload, cell.server) for cell in made.cells if cell.rounds}
    ours, strict = "fastcore-python-tutorial", "fastcore-python-tutorial-strict"
    expected = {
        "few-1": {"limit", "floor-direct", "floor-tutorial", ours, "asyncio-protocol"},
        "answered-1+0": {ours, strict},
        "relay-1+0": {"limit", ours, strict, "asyncio-protocol"},
    }
    missing = {s.key for s in made.servers if s.missing}
    assert measured == {(w, s) for w, keys in expected.items() for s in keys - missing}


@needs_compiler
@pytest.mark.slow
def test_a_run_beside_another_python(tmp_path: Path) -> None:
    """Here it is the same one: what matters is that both are measured and can be told apart."""
    beside = ("--beside", f"twin={sys.executable}", "--server", "fastcore-python-direct*")
    done = bench(tmp_path, "--workload", "echo-1k-1", "--workload", "wakeups*", *SMALL[2:], *beside)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    made = result.load(tmp_path / "bench.json")
    keys = {"fastcore-python-direct", "fastcore-python-direct@twin"}
    assert {cell.server for cell in made.cells} == keys
    assert all(len(cell.rounds) == 2 and cell.failure is None for cell in made.cells), made.cells
    assert made.about["versions"]["fastcore@twin"] == fastcore.__version__


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_what_it_has(tmp_path: Path, number: signal.Signals) -> None:
    # While a server is being started, nobody has it yet to wait for its end: closed input ends it.
    line = [sys.executable, "-W", "ignore::ResourceWarning", "-m", "fastcore", "bench"]
    line += ["--workload", "echo-1k-1*", "--server", "fastcore-python-direct"]
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
        (("--beside", "old"), "must be NAME=PYTHON"),
        (("--beside", "o[l]d=python"), "must be NAME=PYTHON"),
        (("--beside", "old=/no/such/python"), "No such file"),
        (("--workload", "echo-1k-1", "--seconds", "0.1"), "needs a C compiler"),
        (("compare", "one"), "required"),
        (("report", "nothing.json"), "No such file"),
        (("nonsense",), "unrecognized"),
    ):
        done = bench(tmp_path, *wrong, CC="no-such-compiler")
        assert done.returncode == 2, wrong
        assert reason in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("missing", "install"),
    [("rich", "pip install rich"), ("fastcore_bench", "pip install 'fastcore-loop[bench]'")],
)
def test_an_incomplete_installation_says_what_to_install(
    tmp_path: Path, missing: str, install: str
) -> None:
    done = list_without(missing, tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert install in done.stderr
    assert "Traceback" not in done.stderr


def test_a_checkout_has_the_benchmarks_at_hand(tmp_path: Path) -> None:
    """There the package of the source folder is the one that runs."""
    ignored = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    shutil.copytree(Path(fastcore.__file__).parent, tmp_path / "fastcore", ignore=ignored)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "pyproject.toml").touch()
    done = list_without("fastcore_bench", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"pip install {tmp_path} {tmp_path / 'benchmarks'}" in done.stderr


def list_without(missing: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """`python -m fastcore bench --list` where a module is not installed."""
    code = (
        "import sys, runpy\n"
        "class Gone:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {missing!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Gone())\n"
        "sys.argv[1:] = ['bench', '--list']\n"
        "runpy.run_module('fastcore', run_name='__main__')\n"
    )
    return run(folder, [sys.executable, "-c", code])


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert "compare" in capsys.readouterr().out
