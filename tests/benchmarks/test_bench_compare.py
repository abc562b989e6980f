"""`bench compare`: what counts as slower, and what is said of it.

The figures are made up; nothing is measured.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_support import made_result

pytest.importorskip("scipy", reason="scipy is not installed")

from fastcore_bench import command, compare, result, show

KEPT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "2026-11-22.json"
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
    new = made_result({"limit": [5.0, 5.0], "fastcore-c-direct": [10.0, 10.0, 99.0]})
    assert [change.new for change in compare.changes(old, new)] == [2.0]


def test_one_round_says_nothing_of_its_noise() -> None:
    old = made_result({"fastcore-c-direct": STEADY})
    assert compare.changes(old, made_result({"fastcore-c-direct": [99.0]})) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([400.0] * 3, [400.0] * 3, "same"),
        ([400.0] * 3, [410.0] * 3, "same"),
        ([400.0] * 3, [420.0] * 3, "slower"),
        ([400.0] * 3, [500.0, 501.0, 502.0], "slower"),
    ],
)
def test_figures_that_do_not_vary(old: list[float], new: list[float], expected: str) -> None:
    """Such as bytes by connection."""
    assert verdict({"gevent": old}, {"gevent": new}, result.MEMORY) == expected


def test_the_change_lies_within_its_interval() -> None:
    """By hand: a difference of 1, both variances 0.00625, so 1 +- 3.355 * 0.05 of 10."""
    old = made_result({"gevent": STEADY})
    new = made_result({"gevent": [value + 1 for value in STEADY]})
    (change,) = compare.changes(old, new)
    assert change.share == pytest.approx(0.1)
    assert (change.low, change.high) == pytest.approx((0.08322, 0.11678), abs=1e-4)


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


def test_what_fails_now_counts_as_slower(capsys: pytest.CaptureFixture[str]) -> None:
    old, new = made_result({"fastcore-c-direct": STEADY}), made_result({"fastcore-c-direct": []})
    new.cells[0].failure = "[no answer]"
    assert compare.compare(old, new, show.make_console()) == 1
    assert "[no answer]" in capsys.readouterr().out


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


def test_a_kept_result_can_be_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["compare", str(KEPT), str(KEPT)]) == 0
    assert " 0 slower, 0 faster" in " ".join(capsys.readouterr().out.split())


def test_help_explains_the_rule(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["compare", "--help"])
    assert "Welch's t-test says so with 99 % confidence" in " ".join(
        capsys.readouterr().out.split()
    )
