"""Compressed shards of pictures: a folder as it is downloaded works; they are unpacked once, and only if needed."""

import gzip
import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.train.ecg.sources.test_conversations import CODE, ITEMS, MIMIC, PTB, load, number_of, write_pictures
from train.ecg.sources import shards
from train.ecg.sources.shards import UNPACKED, Shards, unpacked_size


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """ECGInstruct as it is downloaded: the JSON and two compressed shards."""
    (tmp_path / "ECGInstruct.json").write_text(json.dumps(ITEMS))
    write_pictures(tmp_path)
    pack(tmp_path, "shard_1.tar.gz", MIMIC, CODE)
    pack(tmp_path, "more/shard_2.tgz", PTB)
    return tmp_path


def pack(folder: Path, shard: str, *names: str, keep: bool = False) -> None:
    """Move pictures into a compressed shard."""
    (folder / shard).parent.mkdir(exist_ok=True)
    with tarfile.open(folder / shard, "w:gz") as file:
        for name in names:
            file.add(folder / name, f"./{name}")
            if not keep:
                (folder / name).unlink()


def unpacked(folder: Path) -> dict[str, int]:
    """Files that were unpacked, with the number that the system gives each."""
    files = [path for path in (folder / UNPACKED).rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(folder / UNPACKED)): path.stat().st_ino for path in files}


# property


def test_a_folder_as_it_is_downloaded_is_read(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("shard*")}
    told: list[tuple] = []
    assert [number_of(record) for record in load(folder, progress=lambda *now: told.append(now))] == [1, 2, 3]
    assert {path: path.read_bytes() for path in before} == before
    assert {what.split(",")[0].split(" to ")[0] for what, *_ in told if what.startswith("unpacking")} == {
        f"unpacking {folder / name}" for name in ("shard_1.tar.gz", "more/shard_2.tgz")
    }


def test_shards_are_unpacked_once_and_again_if_they_were_removed(folder: Path) -> None:
    load(folder)
    first = unpacked(folder)
    assert first.keys() == {"shard_1.tar.gz.tar", "more/shard_2.tgz.tar"}
    load(folder)
    assert unpacked(folder) == first
    shutil.rmtree(folder / UNPACKED)
    assert [number_of(record) for record in load(folder)] == [1, 2, 3]


def test_a_shard_that_changed_is_unpacked_anew(folder: Path) -> None:
    load(folder)
    (folder / PTB).write_bytes(_png(9))
    pack(folder, "more/shard_2.tgz", PTB)
    assert [number_of(record) for record in load(folder)] == [1, 9, 3]


def _png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((5, 7, 3), number, np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_the_folder_of_the_index_takes_the_unpacked_shards(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("scratch")
    before = sorted(folder.rglob("*"))
    assert [number_of(record) for record in load(folder, index=str(elsewhere))] == [1, 2, 3]
    assert sorted(folder.rglob("*")) == before
    assert len(unpacked(elsewhere)) == 2


def test_a_stopped_run_goes_on_with_the_shard_it_was_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started, read = [], shards._read

    def stop_at_the_second(packed: gzip.GzipFile, shard: Path) -> bytes:
        started.append(shard.name)
        if shard.name == "shard_1.tar.gz":  # after more/shard_2.tgz
            raise KeyboardInterrupt
        return read(packed, shard)

    monkeypatch.setattr(shards, "_read", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        load(folder)
    kept = unpacked(folder)
    assert kept.keys() == {"more/shard_2.tgz.tar"}  # and no half of the other
    monkeypatch.setattr(shards, "_read", read)
    assert [number_of(record) for record in load(folder)] == [1, 2, 3]
    assert unpacked(folder)["more/shard_2.tgz.tar"] == kept["more/shard_2.tgz.tar"]


def test_shards_whose_pictures_are_all_there_stay_packed(folder: Path) -> None:
    write_pictures(folder)  # somebody has unpacked them, and kept the shards
    assert [number_of(record) for record in load(folder)] == [1, 2, 3]
    assert not (folder / UNPACKED).exists()


def test_unpacked_shards_may_take_the_place_of_the_compressed_ones(folder: Path) -> None:
    load(folder)
    for name in ("shard_1.tar.gz", "more/shard_2.tgz"):
        (folder / name).unlink()
        (folder / UNPACKED / f"{name}.tar").rename(folder / f"{name}.tar")
    assert [number_of(record) for record in load(folder)] == [1, 2, 3]
    assert unpacked(folder) == {}


def test_a_shard_beside_its_own_tar_is_passed_over(folder: Path) -> None:
    for name, tar in (("shard_1.tar.gz", "shard_1.tar"), ("more/shard_2.tgz", "more/shard_2.tar")):
        (folder / tar).write_bytes(gzip.decompress((folder / name).read_bytes()))
    assert Shards(folder, folder).packed == []
    assert [number_of(record) for record in load(folder)] == [1, 2, 3]
    assert not (folder / UNPACKED).exists()


def test_parquet_files_with_pictures_need_no_shard(tmp_path: Path) -> None:
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    write_pictures(tmp_path)
    pack(tmp_path, "shard_1.tar.gz", PTB)
    turns = [[{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]]
    rows = {"image_path": [CODE], "image": [{"bytes": _png(7), "path": None}], "conversations": turns}
    (tmp_path / CODE).unlink()
    parquet.write_table(arrow.table(rows), tmp_path / "train.parquet")
    assert [number_of(record) for record in load(tmp_path)] == [7]
    assert not (tmp_path / UNPACKED).exists()


@pytest.mark.parametrize("sample", [1 << 24, 1 << 20])
def test_the_size_is_exact_for_a_small_shard_and_close_for_a_large_one(
    tmp_path: Path, sample: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_SAMPLE", sample)
    monkeypatch.setattr(shards, "_CHUNK", 1 << 16)
    content = np.random.default_rng(1).integers(0, 16, 4 << 20, dtype=np.uint8).tobytes()  # shrinks to a half
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(content, 1))
    tolerance = 0 if sample == 1 << 24 else 0.2  # it has read up to 128 KiB ahead of what it gave
    assert unpacked_size(tmp_path / "x.tar.gz") == pytest.approx(len(content), rel=tolerance)


# refusal


def test_without_room_nothing_is_unpacked_and_the_command_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=r"2 compressed shards below .* where 0.0 GB are free.* index=.*gunzip"):
        load(folder)
    assert unpacked(folder) == {}
    monkeypatch.undo()
    command = f"find '{folder}' \\( -name '*.tar.gz' -o -name '*.tgz' \\) -exec gunzip {{}} \\;"
    assert os.system(command) == 0  # what the message says
    assert [number_of(record) for record in load(folder)] == [1, 2, 3]


@pytest.mark.parametrize("n_bytes", [5, 90])
def test_a_damaged_shard_is_named(folder: Path, n_bytes: int) -> None:
    path = folder / "shard_1.tar.gz"
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(ValueError, match=r"shard_1.tar.gz: damaged"):
        load(folder)
    assert "shard_1.tar.gz.tar" not in unpacked(folder)


def test_a_picture_in_no_shard_names_record_and_folder(folder: Path) -> None:
    (folder / "more/shard_2.tgz").unlink()
    with pytest.raises(FileNotFoundError, match=r"record ptbxl:1: no picture .*00001_hr-0.png, and none .* in a shard"):
        load(folder)


def test_a_damaged_picture_in_a_shard_names_record_shard_and_path(folder: Path) -> None:
    (folder / PTB).parent.mkdir(parents=True, exist_ok=True)
    (folder / PTB).write_bytes(_png(2)[:40])
    pack(folder, "more/shard_2.tgz", PTB)
    with pytest.raises(ValueError, match=r"record ptbxl:1: picture ptb-xl.* in .*shard_2.tgz.tar: damaged"):
        load(folder)
