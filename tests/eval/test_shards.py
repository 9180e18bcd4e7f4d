"""Predicting in parts: joined, they are the file of one process; what is not finished is not joined."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from eval.predict import read_predictions, run_predict
from eval.shards import join_shards, parse_shard, shard_path
from tests.eval.conftest import predict_config


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
    with pytest.raises(FileExistsError):
        join_shards(parts, 2)


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


def test_torchrun_gives_every_rank_its_part(checkpoint: Path, parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.jsonl"
    command = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "--",
        "eval",
        "predict",
    ]  # "--": --n is not torchrun's
    options = ["--model", str(checkpoint), "--n", "7", "--seed", "5", "--batch", "3", "--texts", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command, *options], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line["id"] for line in read_predictions(out)] == [
        f"{read_predictions(out)[0]['id'][:-1]}{i}" for i in range(7)
    ]
    for part in range(2):
        ours, alone = (read_predictions(shard_path(path, part, 2)) for path in (out, parts))
        assert [line["id"] for line in ours] == [line["id"] for line in alone]


@pytest.mark.parametrize("text", ["4/4", "1", "-1/2", "0/0", "a/b"])
def test_a_shard_is_a_part_of_a_whole(text: str) -> None:
    with pytest.raises(ValueError, match="must be part/parts"):
        parse_shard(text)
