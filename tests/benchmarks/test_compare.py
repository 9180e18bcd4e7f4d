"""Which cases `python -m benchmarks` runs."""

import dataclasses
import platform
import re
from pathlib import Path

import pytest

import benchmarks.cases
from benchmarks.compare import Options, choose
from benchmarks.results import file_name
from benchmarks.step import CASES, MORE


def test_the_full_matrix_has_every_method_batch_tiles_and_checkpointing() -> None:
    matrix = {
        (c.arguments.get("method", "lora"), c.arguments.get("batch", 1), c.arguments["tiles"],
         c.arguments.get("checkpointing", False))
        for c in [*CASES, *MORE]
        if not c.ours and "dropout" not in c.arguments and "dtype" not in c.arguments
    }  # fmt: skip
    assert len(matrix) == 3 * 2 * 3 * 2
    names = [case.name for case in [*CASES, *MORE]]
    assert len(names) == len(set(names))


def test_cases_are_chosen_by_group_and_by_a_part_of_their_name() -> None:
    chosen = [case.name for case in choose(Options(groups=("step",), only=("1 tile",)))]
    assert chosen == ["LoRA step, 1 tile"]
    assert len(choose(Options(groups=("step",), only=("1 tile",), full=True))) == 12
    assert {case.job for case in choose(Options(groups=("load", "score")))} == {"Loading", "Scoring"}


def test_a_name_that_no_case_has_is_an_error() -> None:
    with pytest.raises(ValueError, match="no case has 9 tiles"):
        choose(Options(only=("9 tiles",)))


@pytest.mark.parametrize(("asked", "rounds"), [(None, [5, 3]), (1, [1, 1])])
def test_rounds_are_those_asked_for_or_those_of_the_case(
    asked: int | None, rounds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = []
    monkeypatch.setattr(benchmarks.cases, "time_pair", lambda *_, rounds, threads: timed.append(rounds) or [])
    cases = [dataclasses.replace(case, check=None) for case in (CASES[0], MORE[0])]
    assert len(list(benchmarks.cases.run_cases(cases, "", asked, 1))) == 2
    assert timed == rounds


def test_results_are_named_after_the_hardware_and_not_after_the_machine() -> None:
    name = file_name()
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*-\d{4}-\d\d-\d\d\.md", name)
    assert not platform.node() or platform.node().lower() not in name
    info = Path("/proc/cpuinfo")
    assert ("-family-" in name) == (info.exists() and "cpu family" in info.read_text())


def test_no_rounds_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="--rounds 0: at least 1"):
        Options(rounds=0)
