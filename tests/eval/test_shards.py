"""Predicting in parts: joined, they are the file of one process; what is not finished is not joined."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from eval.predict import read_predictions, run_predict
from eval.shards import join_shards, missing, parse_shard, shard_path
from tests.eval.conftest import predict_config
from tests.eval.test_predict import same


@pytest.fixture(scope="module")
def parts(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("parts") / "p.jsonl"
    for part in range(2):
        run_predict(predict_config(checkpoint, out, shard=f"{part}/2", texts=()))
    return out


def test_joined_parts_are_the_file_of_one_process(parts: Path, predictions: dict[str, Path]) -> None:
    joined = read_predictions(join_shards(parts, 2))
    whole = read_predictions(predictions["base-test"])
    assert [line["id"] for line in joined] == [line["id"] for line in whole]
    for ours, theirs in zip(joined, whole, strict=True):
        for protocol, odds in theirs["log_odds"].items():
            assert ours["log_odds"][protocol] == pytest.approx(odds, abs=2e-4)  # batches of other sizes round elsewhere
    assert read_predictions(join_shards(parts, 2)) == joined  # a second time, as after a restart: nothing changes
    parts.write_text("somebody else's file")
    with pytest.raises(FileExistsError, match="is not its 2 parts joined"):
        join_shards(parts, 2)
    assert parts.read_text() == "somebody else's file"


def test_unfinished_absent_and_foreign_parts_are_not_joined(parts: Path, tmp_path: Path) -> None:
    for part in range(2):
        for ending in (".jsonl", ".config.json"):
            shutil.copy(shard_path(parts, part, 2).with_suffix(ending), tmp_path)
    out, second = tmp_path / "p.jsonl", shard_path(tmp_path / "p.jsonl", 1, 2)
    lines = second.read_text()
    second.write_text("".join(lines.splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match=r"\[4, 2\] lines: one of them is not finished"):
        join_shards(out, 2)
    second.write_text(lines)
    note = second.with_suffix(".config.json")
    note.write_text(json.dumps({**json.loads(note.read_text()), "seed": 9}))
    with pytest.raises(ValueError, match="different settings"):
        join_shards(out, 2)
    second.unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks p.1-of-2.jsonl"):
        join_shards(out, 2)


RANKS = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]  # --: --n is not its own


def on_two_ranks(checkpoint: Path, out: Path, *more: str) -> subprocess.Popen:
    """Start a prediction of seven patients, one page at a time."""
    options = ["--model", str(checkpoint), "--n", "7", "--seed", "5", *more, "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    command = [sys.executable, *RANKS, "eval", "predict", *options]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def ended_well(started: subprocess.Popen) -> None:
    """Wait for the end, which shows all that the ranks said if it is not the right one."""
    _, said = started.communicate()
    assert started.returncode == 0, said


def test_torchrun_gives_every_rank_its_part(checkpoint: Path, parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.jsonl"
    started = on_two_ranks(checkpoint, out, "--batch", "3", "--texts")
    ended_well(started)
    assert [line["id"] for line in read_predictions(out)] == [f"sim-5-test-{i:06d}" for i in range(7)]
    for part in range(2):
        ours, alone = (read_predictions(shard_path(path, part, 2)) for path in (out, parts))
        assert [line["id"] for line in ours] == [line["id"] for line in alone]


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [pid, *(one for child in children.read_text().split() for one in family(int(child)))]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the ranks in /proc")
def test_ranks_killed_in_the_middle_go_on_without_losing_or_repeating_a_line(checkpoint: Path, tmp_path: Path) -> None:
    def lines_of(out: Path) -> list[int]:
        paths = [shard_path(out, part, 2) for part in range(2)]
        return [path.read_text().count("\n") if path.exists() else 0 for path in paths]

    slow = ("--batch", "1", "--texts", "report", "statements", "--max-new-tokens", "40")
    out, alone = tmp_path / "p.jsonl", tmp_path / "alone.jsonl"
    killed = on_two_ranks(checkpoint, out, *slow)
    while min(lines_of(out)) < 1:
        assert killed.poll() is None, "ended before it could be killed"
        time.sleep(0.003)
    for pid in family(killed.pid):
        os.kill(pid, signal.SIGKILL)
    killed.communicate()
    assert 2 <= sum(lines_of(out)) < 7
    assert not out.exists()
    with shard_path(out, 0, 2).open("a") as file:
        file.write('{"id": "sim-5-te')  # as a kill in the middle of writing leaves it
    ended_well(on_two_ranks(checkpoint, out, *slow))
    config = predict_config(checkpoint, alone, batch=1, texts=("report", "statements"), max_new_tokens=40)
    undisturbed = read_predictions(run_predict(config))
    found = read_predictions(out)
    assert [line["id"] for line in found] == [line["id"] for line in undisturbed] == list(dict.fromkeys(ids(found)))
    assert same(found, undisturbed)  # in words; log-odds to 1e-4, since threads differ


def ids(lines: list[dict]) -> list[str]:
    return [line["id"] for line in lines]


def test_two_records_of_one_name_are_refused_in_a_part_and_over_all_parts(parts: Path, tmp_path: Path) -> None:
    named = [SimpleNamespace(record_id=name) for name in ("a", "b", "a")]
    with pytest.raises(ValueError, match="two records are called 'a'"):
        list(missing(named, {"a"}, 1))  # with "a" done, the other one would be lost
    for part in range(2):
        own = shard_path(tmp_path / "p.jsonl", part, 2)
        own.write_text('{"id": "a"}\n')
        shutil.copy(shard_path(parts, part, 2).with_suffix(".config.json"), own.with_suffix(".config.json"))
    with pytest.raises(ValueError, match=r"two parts of p.jsonl have records of the same name"):
        join_shards(tmp_path / "p.jsonl", 2)


@pytest.mark.parametrize("text", ["4/4", "1", "-1/2", "0/0", "a/b"])
def test_a_shard_is_a_part_of_a_whole(text: str) -> None:
    with pytest.raises(ValueError, match="must be part/parts"):
        parse_shard(text)
