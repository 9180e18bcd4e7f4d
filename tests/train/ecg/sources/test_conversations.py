"""ECGInstruct and ECGBench in their published formats: every spelling, folders, tar shards and parquet bytes."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minimllama.image import open_picture, to_rgb
from train.ecg import open_source
from train.ecg.sources import Conversation
from train.ecg.sources.conversation_files import read_items
from train.ecg.sources.conversations import as_seen, origin, read_turns

MIMIC = "mimic_v4/p1000/p10000032/s40689238/40689238-0.png"
PTB, CODE = "ptb-xl/records500/00000/00001_hr-0.png", "code15_v4/590673-0.png"


def picture(number: int) -> bytes:
    """A small PNG whose pixels tell its number."""
    file = io.BytesIO()
    Image.fromarray(np.full((5, 7, 3), number, np.uint8)).save(file, "PNG")
    return file.getvalue()


def item(image: str, question: str, answer: str, **more: Any) -> dict[str, Any]:
    """As in ECGInstruct.json."""
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"id": f"{image}-{question}", "image": image, "conversations": turns, **more}


ITEMS = [
    item(MIMIC, "What is the rhythm?", "Sinus rhythm."),
    item(PTB, "Normal?", "Yes. \u00e4\u00df\u4e2d."),  # characters of one, two and three bytes
    item(MIMIC, "Is there a block?", "No, [none], {at all}."),
    item(CODE, "Rate?", '"60" per minute, \\ or so.'),
]


def write_pictures(folder: Path) -> None:
    for number, name in enumerate((MIMIC, PTB, CODE), 1):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(number))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """ECGInstruct as it is unpacked."""
    (tmp_path / "ECGInstruct.json").write_text(json.dumps(ITEMS, ensure_ascii=False, indent=1), encoding="utf-8")
    write_pictures(tmp_path)
    return tmp_path


def load(folder: Path, **options: Any) -> list[Conversation]:
    return list(open_source("conversations", folder, "train", **{"split_of_all": "train", **options}))


def number_of(record: Conversation) -> int:
    return record.image.getpixel((0, 0))[0]  # type: ignore[index]


# equation


def test_all_dialogs_about_a_picture_are_one_record(folder: Path) -> None:
    records = load(folder)
    assert [number_of(record) for record in records] == [1, 2, 3]
    first = [dialog.turns for dialog in records[0].dialogs]
    assert first == [
        (("user", "What is the rhythm?"), ("assistant", "Sinus rhythm.")),
        (("user", "Is there a block?"), ("assistant", "No, [none], {at all}.")),
    ]
    assert records[1].dialogs[0].turns[1] == ("assistant", "Yes. \u00e4\u00df\u4e2d.")
    assert records[2].dialogs[0].turns[1] == ("assistant", '"60" per minute, \\ or so.')


def test_paths_tell_record_and_patient(folder: Path) -> None:
    records = load(folder)
    assert records[0].record_id == MIMIC.removesuffix(".png")
    assert records[0].patient_id == "10000032"
    assert [record.meta["origin"] for record in records] == ["mimic_iv_ecg:40689238", "ptbxl:1", "code15:590673"]
    assert origin("cod15_v4/7-0.png") == ("code15:7", None)  # GEM's spelling
    assert origin("test_images/ptb_test_v4/07190_hr-0.png") == ("ptbxl:7190", None)
    assert origin("mmmu-ecg/12.png") == ("conversations:12", None)


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
def test_an_array_is_read_in_pieces_of_any_size(folder: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.ecg.sources.conversation_files._CHUNK", chunk)
    path = folder / "ECGInstruct.json"
    found = list(read_items(path))
    assert [item for _, item in found] == ITEMS
    for (start, size), expected in found:
        assert json.loads(path.read_bytes()[start : start + size]) == expected


# the other layouts


def test_pictures_in_tar_shards_are_found_without_unpacking(folder: Path) -> None:
    for number, names in enumerate(((MIMIC, CODE), (PTB,))):
        with tarfile.open(folder / f"shard_{number}.tar", "w") as shard:
            for name in names:
                shard.add(folder / name, f"./{name}" if number else name)
                (folder / name).unlink()
    assert [number_of(record) for record in load(folder)] == [1, 2, 3]


def test_pictures_may_lie_elsewhere(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    alone = tmp_path_factory.mktemp("alone")
    (folder / "ECGInstruct.json").rename(alone / "ECGInstruct.json")
    assert [number_of(record) for record in load(alone, images=str(folder))] == [1, 2, 3]


@pytest.mark.parametrize("as_text", [False, True])
def test_parquet_files_hold_pictures_and_dialogs(tmp_path: Path, as_text: bool) -> None:
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    turns = [[{"from": "human", "value": f"<image>\nClass {i}?"}, {"from": "gpt", "value": "NORM."}] for i in range(5)]
    rows = {
        "id": [f"ptb-test-{i}" for i in range(5)],
        "image_path": [f"ptb-xl/{i:05d}_hr-0.png" for i in range(5)],
        "image": [{"bytes": picture(i), "path": None} for i in range(5)],
        "conversations": [json.dumps(turn) for turn in turns] if as_text else turns,
    }
    parquet.write_table(arrow.table(rows), tmp_path / "test-00000-of-00001.parquet", row_group_size=2)
    source = open_source("conversations", tmp_path, "test")  # the file's name says the split
    assert [number_of(record) for record in source] == [0, 1, 2, 3, 4]
    assert source[3].dialogs[0].turns == (("user", "Class 3?"), ("assistant", "NORM."))
    assert [record for record, _ in source.names()][:2] == ["ptbxl:0", "ptbxl:1"]  # type: ignore[attr-defined]


def test_lines_of_json_are_read_too(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    lines = [json.dumps(item(name, "Q", f"A{i}")) for i, name in enumerate((MIMIC, CODE))]
    (tmp_path / "items.jsonl").write_text("\n\n".join(lines) + "\n")
    assert [record.dialogs[0].turns[1][1] for record in load(tmp_path)] == ["A0", "A1"]


def test_the_published_reports_are_read(shared: Path, tmp_path: Path) -> None:
    published = shared / "data" / "pulse_ptb_report_generation_test_500.json"
    if not published.exists():
        pytest.skip("no published file beside the reference files")
    options = {"split_of_all": "test", "index": str(tmp_path), "images": str(tmp_path)}
    source = open_source("conversations", published, "test", **options)
    assert len(source) == 500
    assert len({record for record, _ in source.names()}) == 500  # type: ignore[attr-defined]
    with pytest.raises(FileNotFoundError, match=r"record ptbxl:7190: no picture .*07190_hr-0.png"):
        source[0]


def test_rows_without_a_path_are_told_apart_in_files_of_the_same_name(tmp_path: Path) -> None:
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    for number, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        rows = {"image": [{"bytes": picture(number), "path": None}], "conversations": [ITEMS[number]["conversations"]]}
        parquet.write_table(arrow.table(rows), tmp_path / name / "test-00000-of-00001.parquet")
    source = open_source("conversations", tmp_path, "test")
    assert [(number_of(record), len(record.dialogs)) for record in source] == [(0, 1), (1, 1)]
    assert len({record for record, _ in source.names()}) == 2  # type: ignore[attr-defined]


def _seen(image: Image.Image, suffix: str, **how: Any) -> Image.Image:
    file = io.BytesIO()
    image.save(file, suffix, **how)
    return as_seen(Image.open(file))


def test_pictures_are_seen_as_a_viewer_shows_them() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right to see it
    assert _seen(Image.new("RGB", (7, 5), "white"), "JPEG", exif=exif).size == (5, 7)
    trace = np.zeros((5, 7, 4), np.uint8)
    trace[2, :, 3] = 255
    on_white = np.asarray(_seen(Image.fromarray(trace), "PNG"))
    assert (on_white[2].max(), on_white[3].min()) == (0, 255)
    deep = np.array([[0, 257 * 100, 65535]], np.uint16)
    assert np.asarray(_seen(Image.fromarray(deep), "PNG"))[0, :, 0].tolist() == [0, 100, 255]
    with pytest.raises(ValueError, match="mode 'F' does not say which number is white"):
        _seen(Image.new("F", (2, 2)), "TIFF")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16"])
def test_a_model_is_trained_on_the_pixels_that_it_is_asked_about(mode: str, tmp_path: Path) -> None:
    values = np.random.default_rng(3).integers(0, 65536, (6, 9, 4), dtype=np.uint16)
    image = Image.fromarray(values[..., 0]) if mode == "I;16" else Image.fromarray((values >> 8).astype(np.uint8))
    file = tmp_path / "x.tiff"
    (image if mode in ("I;16", "RGBA") else image.convert(mode)).save(file)
    asked = to_rgb(open_picture(file))
    assert np.array_equal(np.asarray(as_seen(Image.open(file))), np.asarray(asked))


# spellings


@pytest.mark.parametrize(
    "written",
    [
        {"conversations": [{"from": "human", "value": "<image>\nQ"}, {"from": "gpt", "value": "A"}]},
        {"conversation": [{"from": "user", "value": "Q <image>"}, {"from": "assistant", "value": "A"}]},
        {"conversations": [{"question": "Q", "answer": "A"}]},
        {"messages": [{"role": "user", "content": "<image>Q"}, {"role": "assistant", "content": "A"}]},
        {"conversations": [{"from": "human", "value": ["Q"]}, {"from": "gpt", "value": ["A"]}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "Q"}]},
                {"role": "assistant", "content": [{"type": "text", "text": "A"}]},
            ]
        },
    ],
)
def test_every_published_spelling_is_the_same_dialog(written: dict[str, Any]) -> None:
    assert read_turns(written) == (("user", "Q"), ("assistant", "A"))


def test_lists_of_options_are_joined_and_several_turns_are_kept() -> None:
    turns = [{"from": "human", "value": "Q1"}, {"from": "gpt", "value": ["a", "b"]}]
    turns += [{"from": "human", "value": "Q2"}, {"from": "gpt", "value": "c"}]
    expected = (("system", "S"), ("user", "Q1"), ("assistant", "a, b"), ("user", "Q2"), ("assistant", "c"))
    assert read_turns({"conversations": [{"from": "system", "value": "S"}, *turns]}) == expected


@pytest.mark.parametrize("key", ["image", "image_path", "images"])
def test_every_key_of_the_picture_is_known(tmp_path: Path, key: str) -> None:
    write_pictures(tmp_path)
    entry = item("", "Q", "A")
    del entry["image"]
    entry[key] = [{"path": CODE}] if key == "images" else CODE
    (tmp_path / "x.json").write_text(json.dumps([entry]))
    assert number_of(load(tmp_path)[0]) == 3


def test_items_without_one_picture_are_left_out_and_counted(folder: Path) -> None:
    text_only = {"id": "t", "conversations": ITEMS[0]["conversations"]}
    two = {**ITEMS[0], "image": [MIMIC, PTB]}
    (folder / "more.json").write_text(json.dumps([text_only, two]))
    source = open_source("conversations", folder, "train", split_of_all="train")
    assert source.index.left_out == {"no picture": 1, "several pictures": 1}  # type: ignore[attr-defined]
    assert len(source) == 3


def test_items_may_name_their_split(folder: Path) -> None:
    named = [dict(entry, split=split) for entry, split in zip(ITEMS, ("train", "test", "train", "val"), strict=True)]
    (folder / "ECGInstruct.json").write_text(json.dumps(named))
    assert [len(open_source("conversations", folder, split)) for split in ("train", "validate", "test")] == [1, 1, 1]


# refusal


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conversations": [{"from": "bot", "value": "x"}]}, r"role 'bot' is not one of human, user, gpt"),
        ({"conversations": [{"from": "human", "value": "x"}]}, "turns are user; expected user and assistant in turn"),
        ({"conversations": [{"who": "human", "text": "x"}]}, "a turn has keys who, text, not from/value"),
        ({"conversations": [{"from": "human", "value": None}]}, "a turn says None, which is no text"),
        ({"conversations": []}, "no conversations or conversation or messages"),
    ],
)
def test_an_item_that_is_not_understood_names_file_and_id(folder: Path, change: dict, message: str) -> None:
    (folder / "ECGInstruct.json").write_text(json.dumps([ITEMS[0], {**ITEMS[1], **change}]))
    with pytest.raises(ValueError, match=rf"ECGInstruct.json, item 'ptb-xl/.*': {message}"):
        load(folder)


def test_a_file_without_splits_must_be_given_one(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"item '.*': it names no split; say split_of_all="):
        open_source("conversations", folder, "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"a": 1}', "must hold one JSON array"), ('[{"id": 1}, {"id"', "byte 12: damaged, an item does not end")],
)
def test_a_damaged_file_says_where(folder: Path, text: str, message: str) -> None:
    (folder / "ECGInstruct.json").write_text(text)
    with pytest.raises(ValueError, match=rf"ECGInstruct.json.*{message}"):
        list(read_items(folder / "ECGInstruct.json"))


def test_lines_and_bytes_that_are_no_items_name_their_file(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("[1, 2]\n")
    with pytest.raises(ValueError, match=r"x.jsonl, line 1: \[1, 2\] is no item"):
        list(read_items(tmp_path / "x.jsonl"))
    (tmp_path / "x.json").write_bytes('[{"a": "\u00e4"}]'.encode("latin1"))
    with pytest.raises(ValueError, match=r"x.json, before byte 12: not UTF-8"):
        list(read_items(tmp_path / "x.json"))


def test_missing_and_damaged_pictures_name_record_and_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source("conversations", folder, "train", split_of_all="train")
    with monkeypatch.context() as small:
        small.setattr(Image, "MAX_IMAGE_PIXELS", 1)
        with pytest.raises(ValueError, match=r"record ptbxl:1: picture .* exceeds limit"):
            source[1]
    (folder / PTB).write_bytes(picture(2)[:40])
    with pytest.raises(ValueError, match=r"record ptbxl:1: picture ptb-xl/.*00001_hr-0.png: damaged"):
        source[1]
    (folder / PTB).unlink()
    with pytest.raises(FileNotFoundError, match=r"record ptbxl:1: no picture .*00001_hr-0.png, and none .* in a shard"):
        source[1]
