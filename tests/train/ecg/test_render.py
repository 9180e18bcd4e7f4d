"""Rendered sets: read back as conversations, redrawn from a manifest line, shared out, gone on after a stop."""

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tools.ecg_sets import ptbxl_row, write_ptbxl
from train.ecg import DISTORTIONS, PRESETS, STYLES, draw_page, open_source
from train.ecg.__main__ import choose_part, main, parse_options
from train.ecg.paper_style import LAYOUTS
from train.ecg.render import Rendering, prepare_folder, redraw, render, render_shard, shard_name

SIX = Rendering(
    source="simulated",
    split="test",
    options={"n": 6, "seed": 4},
    shards=3,
    style="nano",
    tasks=("superclass", "rate"),
    label_set="simulated",
    questions=2,
    wording="fixed",
    seed=8,
)


def run(
    rendering: Rendering, out: Path, part: tuple[int, int] = (0, 1), workers: int = 1
) -> list[tuple[int, int, int]]:
    return list(render(rendering, out, part, workers))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix != ".sqlite"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rendered") / "six"
    assert run(SIX, out) == [(1, 3, 2), (2, 3, 2), (3, 3, 2)]
    return out


# equation


def test_what_was_rendered_is_a_source_of_conversations(folder: Path) -> None:
    source, records = open_source("conversations", folder, "test"), SIX.open()
    assert len(source) == 6
    for index in range(6):
        found = source[index]
        assert found.image.tobytes() == draw_page(records[index], STYLES["nano"]).image.tobytes()
        assert len(found.dialogs) == 2
        for dialog in found.dialogs:
            (_, question), (_, answer) = dialog.turns
            assert question.endswith("?")
            assert answer.endswith(".")
    names = [record for record, _ in source.names()]  # type: ignore[attr-defined]
    assert names == [f"simulated:{records[index].record_id}" for index in range(6)]


def test_a_manifest_line_is_enough_to_draw_the_picture_again(tmp_path: Path) -> None:
    two = replace(SIX, options={"n": 2, "seed": 4}, shards=1, style="wide448", distort="scan")
    run(two, tmp_path / "out")
    name = shard_name(two, 0)
    lines = [json.loads(line) for line in (tmp_path / "out" / f"{name}.manifest.jsonl").read_text().splitlines()]
    source = open_source("conversations", tmp_path / "out", "test")
    for index in (0, 1):
        assert redraw(lines[index]).tobytes() == source[index].image.tobytes()
        assert lines[index]["drawn"]["palette"] != "random"
        assert len(lines[index]["lead_boxes"]) > 8
    assert any(line["distortions"] for line in lines)


def redrawn(out: Path, rendering: Rendering) -> list[dict]:
    """Render, read the pictures back, draw each again from its manifest line; returns the lines."""
    run(rendering, out)
    source = open_source("conversations", out, "test")
    text = (out / f"{shard_name(rendering, 0)}.manifest.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        assert redraw(line).tobytes() == source[line["index"]].image.tobytes()
    return lines


ONE = replace(SIX, options={"n": 1, "seed": 4}, shards=1)


@pytest.mark.parametrize("preset", [*PRESETS, *DISTORTIONS])
def test_every_kind_of_distortion_is_redrawn_bit_for_bit(tmp_path: Path, preset: str) -> None:
    (line,) = redrawn(tmp_path, replace(ONE, style="nano", distort=preset, seed=5))
    assert line["distort"] == preset


@pytest.mark.parametrize("layout", [*LAYOUTS, "recorded"])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_layout_is_redrawn_bit_for_bit_under_every_preset(
    tmp_path: Path, layout: str, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(STYLES["nano"], layout=layout, palette="random", jitter_mm=1.5, header=True, order="cabrera")
    monkeypatch.setitem(STYLES, "small", small)
    (line,) = redrawn(tmp_path, replace(ONE, style="small", distort=preset))
    assert line["drawn"]["layout"] == layout
    assert line["drawn"]["palette"] != "random"


@pytest.mark.parametrize("style", ["square", "tile448", "varied448", "carts448"])
def test_every_kind_of_style_is_redrawn_bit_for_bit(tmp_path: Path, style: str) -> None:
    (line,) = redrawn(tmp_path, replace(ONE, style=style, distort="scan"))
    assert "random" not in (line["drawn"]["layout"], line["drawn"]["palette"], line["drawn"]["cart"])


def test_items_have_the_published_layout(folder: Path) -> None:
    items = json.loads((folder / f"{shard_name(SIX, 1)}.json").read_text())
    assert len(items) == 4
    for item in items:
        assert [turn["from"] for turn in item["conversations"]] == ["human", "gpt"]
        assert item["conversations"][0]["value"].startswith("<image>\n")
    with tarfile.open(folder / f"{shard_name(SIX, 1)}.tar") as tar:
        assert {item["image"] for item in items} == set(tar.getnames())


# property


def test_machines_share_the_work_and_the_bytes_are_the_same(folder: Path, tmp_path: Path) -> None:
    for part in ((1, 2), (0, 2)):
        run(SIX, tmp_path / "shared", part)
    assert files_of(tmp_path / "shared") == files_of(folder)


@pytest.mark.slow
def test_several_processes_write_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    run(SIX, tmp_path / "two", workers=2)
    assert files_of(tmp_path / "two") == files_of(folder)


def test_a_stopped_run_goes_on_where_it_stopped(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    next(render(SIX, out))
    (out / f"{shard_name(SIX, 1)}.tar.part").write_bytes(b"half of a shard")
    assert run(SIX, out) == [(1, 3, 0), (2, 3, 2), (3, 3, 2)]
    assert files_of(out) == files_of(folder)


def test_the_settings_are_written_once_and_whole(tmp_path: Path) -> None:
    """Other machines and ranks read them meanwhile."""
    prepare_folder(SIX, tmp_path)
    before = (tmp_path / "render.json").stat()
    prepare_folder(SIX, tmp_path)
    assert (tmp_path / "render.json").stat().st_ino == before.st_ino
    assert [path.name for path in tmp_path.iterdir()] == ["render.json"]
    assert json.loads((tmp_path / "render.json").read_text())["seed"] == 8


def test_a_published_set_keeps_its_names(tmp_path: Path) -> None:
    root = write_ptbxl(tmp_path / "ptb-xl", [ptbxl_row(1, 1), ptbxl_row(2, 2)])
    made = Rendering(source="ptbxl", root=str(root), options={"hz": 100}, style="nano", tasks=("superclass",))
    run(made, tmp_path / "out")
    source = open_source("conversations", tmp_path / "out")
    assert [source[i].record_id for i in range(2)] == ["ptbxl/00001_lr-0", "ptbxl/00002_lr-0"]
    assert list(source.names()) == [("ptbxl:1", "ptbxl:1001"), ("ptbxl:2", "ptbxl:1002")]  # type: ignore[attr-defined]
    assert source[0].patient_id == "1001"


# the command


def test_the_command_writes_what_the_function_writes(folder: Path, tmp_path: Path, capsys) -> None:
    arguments = ["render", "--out", str(tmp_path / "out"), "--source", "simulated", "--split", "test", "--shards", "3"]
    arguments += ["--options", "n=6", "seed=4", "--style", "nano", "--tasks", "superclass", "rate", "--seed", "8"]
    arguments += ["--label-set", "simulated", "--questions", "2", "--wording", "fixed"]
    assert main([*arguments, "--shard", "0/2"]) == 0
    assert "wrote 4 pictures to" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "wrote 2 pictures to" in capsys.readouterr().out
    assert files_of(tmp_path / "out") == files_of(folder)


def test_the_ranks_of_torchrun_share_the_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = "render --source simulated --split test --shards 3 --options n=6 seed=4 --style nano --tasks superclass"
    arguments += f" rate --seed 8 --label-set simulated --questions 2 --wording fixed --out {tmp_path / 'out'}"
    monkeypatch.setenv("WORLD_SIZE", "2")  # all that torchrun tells its processes and this one asks for
    for rank, n in (("0", 4), ("1", 2)):
        monkeypatch.setenv("RANK", rank)
        assert main(arguments.split()) == 0
        assert f"wrote {n} pictures to" in capsys.readouterr().out
    assert files_of(tmp_path / "out") == files_of(folder)


def test_torchrun_says_which_part_is_mine() -> None:
    assert choose_part("", {}) == (0, 1)
    assert choose_part("", {"RANK": "3", "WORLD_SIZE": "8"}) == (3, 8)
    assert choose_part("1/4", {"RANK": "3", "WORLD_SIZE": "8"}) == (1, 4)
    with pytest.raises(ValueError, match="shard='1of4' must be i/n"):
        choose_part("1of4", {})


def test_options_get_the_types_that_the_source_has() -> None:
    texts = ["hz=100", "likelihood=50", "check=false", "index=x"]
    assert parse_options("ptbxl", texts) == {"hz": 100, "likelihood": 50.0, "check": False, "index": "x"}
    with pytest.raises(ValueError, match="must be name=value with a name of hz, likelihood"):
        parse_options("ptbxl", ["resolution=100"])
    with pytest.raises(ValueError, match="option 'hz=fast' must be of type int"):
        parse_options("ptbxl", ["hz=fast"])


# refusal


def test_a_folder_of_another_rendering_is_refused(folder: Path) -> None:
    with pytest.raises(FileExistsError, match=r"render.json has other settings; name another folder"):
        run(replace(SIX, seed=9), folder)


def test_a_changed_record_is_noticed_when_it_is_redrawn(folder: Path) -> None:
    line = json.loads((folder / f"{shard_name(SIX, 0)}.manifest.jsonl").read_text().splitlines()[0])
    line["source"]["options"]["seed"] = 5
    with pytest.raises(ValueError, match="the redrawn picture differs; the record or the program has changed"):
        redraw(line)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "conversations"}, "has pictures already"),
        ({"style": "A4"}, "style='A4' is not one of square"),
        ({"tasks": ("report", "rap")}, "tasks='rap' is not one of"),
        ({"distort": "burn"}, "distort='burn' is not one of clean"),
        ({"shards": 0}, "shards and questions must be positive"),
    ],
)
def test_impossible_renderings_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SIX, **changes)


def test_a_record_that_cannot_be_asked_about_is_named_and_leaves_no_shard(tmp_path: Path) -> None:
    root = write_ptbxl(tmp_path / "ptb-xl", [ptbxl_row(1, 1)])
    made = Rendering(source="ptbxl", root=str(root), options={"hz": 100}, style="nano", tasks=("intervals",))
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="record 00001_lr has no measurement of qrs, qt, axis"):
        render_shard(made, tmp_path / "out", 0)
    assert not list((tmp_path / "out").glob("*.tar"))
