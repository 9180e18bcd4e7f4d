"""ECGBench as published: parquet or unpacked, several questions about a picture, several turns in a dialog."""

from collections.abc import Callable
from pathlib import Path

import pytest

from eval.benchmark_files import BenchmarkSource, find_items
from tests.tools.ecgbench import ITEMS, pictures_of, same_picture, write_parquet, write_unpacked

FORMATS = [write_unpacked, write_parquet]
Write = Callable[..., Path]


@pytest.mark.parametrize("write", FORMATS)
def test_every_question_is_a_record_with_its_own_picture(write: Write, tmp_path: Path) -> None:
    if write is write_parquet:
        pytest.importorskip("pyarrow", reason='needs the extra "parquet"')
    source = BenchmarkSource(str(write(tmp_path, "ecgqa-test")), "ecgqa-test")
    records = [source[i] for i in range(len(source))]
    assert [record.record_id for record in records] == [
        "ptb-xl/00007_hr-0#0", "ptb-xl/00007_hr-0#1", "ptb-xl/00008_hr-0"
    ]  # fmt: skip
    assert [record.item for record in records] == ["q-1", "q-2", "q-3"]
    assert len({record.patient_id for record in records}) == 2  # two questions about one picture are one patient's
    assert [record.answers for record in records] == [["yes"], ["no"], ["sinus rhythm"]]
    assert records[1].questions[0].startswith("Is there noise? Options:")
    pictures = pictures_of(ITEMS["ecgqa-test"])
    for record, one in zip(records, ITEMS["ecgqa-test"], strict=True):
        assert same_picture(pictures[one["image_path"]], record.image)


def test_two_turns_are_two_questions(tmp_path: Path) -> None:
    record = BenchmarkSource(str(write_unpacked(tmp_path, "arena")), "arena")[0]
    assert record.questions == ["What is the rhythm?", "What follows from it?"]
    assert record.answers == ["Atrial fibrillation.", "Consider anticoagulation."]


def test_a_configuration_is_found_among_the_others(tmp_path: Path) -> None:
    for name in ("ptb-test", "ptb-test-report", "arena"):
        write_unpacked(tmp_path, name)
    assert find_items(tmp_path, "ptb-test")[0] == tmp_path / "ptb-test.json"
    assert find_items(tmp_path / "arena.json", "arena") == (tmp_path / "arena.json", tmp_path / "images")
    assert len(BenchmarkSource(str(tmp_path), "ptb-test-report")) == 3
    with pytest.raises(FileNotFoundError, match="has ptb-test, ptb-test-report, arena, but not mmmu-ecg"):
        BenchmarkSource(str(tmp_path), "mmmu-ecg")


def test_a_file_of_another_name_may_be_named_itself(tmp_path: Path) -> None:
    write_unpacked(tmp_path, "arena")
    (tmp_path / "arena.json").rename(tmp_path / "mine.json")
    assert len(BenchmarkSource(str(tmp_path / "mine.json"), "arena")) == 1


def test_a_suite_of_pictures_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs the folder of ECGBench: --root"):
        BenchmarkSource(None, "arena")
    with pytest.raises(FileNotFoundError, match=r"no .*nowhere"):
        BenchmarkSource(str(tmp_path / "nowhere"), "arena")
