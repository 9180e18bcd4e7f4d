"""Data sets in a recipe: options, dropping components, and pictures with dialogs on their way into a batch."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from minimllama import ImageTransform, Message, Tokenizer, encode_dialog
from minimllama.chat import NO_LABEL
from tests.tools.ecg_sets import ptbxl_row, write_ptbxl
from tests.tools.tiny import IMAGE, TINY
from train.config import DataConfig, RunConfig, from_dict, load_recipe, parse, to_toml
from train.dataset import EcgDataset, collate, encode_example, open_component
from train.ecg import STYLES, Page, distort
from train.ecg.distort import distort_picture
from train.ecg.sources import Conversation, Dialog
from train.mixture import ComponentConfig, Item, component_names

SIMULATED = ComponentConfig(source="simulated", n=4, tasks=("superclass",), label_set="simulated")


@pytest.fixture
def instruct(tmp_path: Path) -> Path:
    """Two pictures; five dialogs about the first, one of two turns about the second."""
    items = []
    for number, (name, questions) in enumerate({"a-0.png": 5, "b-0.png": 1}.items()):
        Image.fromarray(np.full((20, 30, 3), 50 * number, np.uint8)).save(tmp_path / name)
        for q in range(questions):
            turns = [{"from": "human", "value": f"<image>\nQ{q}?"}, {"from": "gpt", "value": f"A{q}."}]
            turns += [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}] if number else []
            items.append({"id": f"{name}-{q}", "image": name, "conversations": turns})
    (tmp_path / "ECGInstruct.json").write_text(json.dumps(items))
    return tmp_path


def dataset(tokenizer: Tokenizer, *components: ComponentConfig, n_questions: int = 3, **options: object) -> EcgDataset:
    transform = ImageTransform(TINY.vision.tile_size, TINY.vision.max_tiles)
    return EcgDataset(components, STYLES["nano"], transform, tokenizer, n_questions, 1024, **options)  # type: ignore[arg-type]


def pictures(folder: Path) -> ComponentConfig:
    return ComponentConfig(source="conversations", root=str(folder), options={"split_of_all": "train"})


# pictures with dialogs


def test_a_picture_is_its_own_page_and_its_dialogs_are_the_questions(tokenizer: Tokenizer, instruct: Path) -> None:
    sample = dataset(tokenizer, pictures(instruct))[Item(0, 1, (1, 0, 0))]
    assert isinstance(sample.page, Conversation)
    tiles, ratio = ImageTransform(TINY.vision.tile_size).split(Image.open(instruct / "b-0.png"))
    assert np.array_equal(sample.tiles, tiles)
    assert sample.aspect_ratio_id == ratio
    turns = (("user", "Q0?"), ("assistant", "A0."), ("user", "Why?"), ("assistant", "So."))
    assert sample.examples == [Dialog(record_id="b-0", turns=turns)]


def test_all_answers_of_a_dialog_carry_loss_and_the_first_question_has_the_picture(tokenizer: Tokenizer) -> None:
    turns = (("system", "S"), ("user", "Q"), ("assistant", "A."), ("user", "Why?"), ("assistant", "So."))
    dialog = encode_example(Dialog(record_id="x", turns=turns), tokenizer)
    expected = [Message(role=role, text=text, n_images=int(text == "Q")) for role, text in turns]
    assert torch.equal(dialog.tokens, encode_dialog(expected, tokenizer).tokens)
    assert int((dialog.tokens == IMAGE).sum()) == 1
    n_answer = len(tokenizer.encode("A.")) + len(tokenizer.encode("So.")) + 2
    assert int((dialog.labels != NO_LABEL).sum()) == n_answer


def test_of_many_dialogs_other_ones_come_in_every_epoch(tokenizer: Tokenizer, instruct: Path) -> None:
    made = dataset(tokenizer, pictures(instruct))
    seen = [tuple(e.turns[0][1] for e in made[Item(0, 0, (1, epoch, 0))].examples) for epoch in range(12)]  # type: ignore[union-attr]
    assert {len(set(questions)) for questions in seen} == {3}
    assert len(set(seen)) > 2
    assert {question for questions in seen for question in questions} == {f"Q{q}?" for q in range(5)}


def test_pictures_and_drawn_pages_share_a_batch(tokenizer: Tokenizer, instruct: Path) -> None:
    made = dataset(tokenizer, SIMULATED, pictures(instruct), n_questions=2)
    batch = collate([made[Item(0, 0, (1, 0, 0))], made[Item(1, 1, (1, 0, 1))]], TINY)
    assert len(batch.tokens) == 3
    assert batch.record_ids == ["sim-0-train-000000", "b-0"]


def test_a_cache_keeps_drawn_pages_and_leaves_pictures_alone(tokenizer: Tokenizer, instruct: Path) -> None:
    made = dataset(tokenizer, SIMULATED, pictures(instruct), cache=str(instruct / "cache"))
    for _ in range(2):
        assert isinstance(made[Item(1, 0, (1, 0, 0))].page, Conversation)
    assert [path.name for path in (instruct / "cache").glob("*.sqlite")] == ["train-0.sqlite"]


# options


def test_options_reach_the_source(tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_ptbxl(tmp_path, [ptbxl_row(1, 1)])
    made = ComponentConfig(source="ptbxl", root=str(tmp_path), tasks=("superclass",), options={"hz": 100})
    record, _ = dataset(tokenizer, made).draw(Item(0, 0, (1, 0, 0)))
    assert isinstance(record.patient_id, str)
    assert record.record_id == "00001_lr"


def test_the_terminal_says_how_far_an_index_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_ptbxl(tmp_path, [ptbxl_row(1, 1), ptbxl_row(2, 9)])
    made = ComponentConfig(source="ptbxl", root=str(tmp_path), tasks=("superclass",))
    open_component(made, "train")
    assert capsys.readouterr().err == f"index of {tmp_path / 'ptbxl_database.csv'}: 2 of 2\n"
    open_component(made, "validate")
    assert capsys.readouterr().err == ""  # it is there


def test_a_cache_of_other_options_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_ptbxl(tmp_path / "ptb-xl", [ptbxl_row(1, 1)])
    for hz in (100, 500):
        options = {"hz": hz}
        made = ComponentConfig(source="ptbxl", root=str(tmp_path / "ptb-xl"), tasks=("superclass",), options=options)
        if hz == 100:
            dataset(tokenizer, made, cache=str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=r"holds pages of .*, not of .*; name another file"):
        dataset(tokenizer, made, cache=str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "ptb"}, "source='ptb' is not one of simulated, wfdb, ptbxl"),
        ({"source": "ptbxl", "options": {"resolution": 1}}, "source ptbxl has no option 'resolution'; it has hz, like"),
        ({"source": "ptbxl", "options": {"likelihood": "50"}}, "likelihood='50' must be of type float"),
        ({"source": "ptbxl", "options": {"check": 1}}, "check=1 must be of type bool"),
        ({"source": "ptbxl", "n": 5}, "component ptbxl: n and seed are of the simulated source"),
        ({"source": "simulated", "options": {"n": 5}}, "component simulated: n stand beside options, not in them"),
    ],
)
def test_options_that_a_source_does_not_have_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ComponentConfig(**fields)


# recipes

RECIPE = """
name = "x"
[data]
[[data.components]]
source = "ptbxl"
root = "data/ptb-xl"
options = { hz = 100, likelihood = 50, check = false }
[[data.components]]
source = "simulated"
n = 5
[[data.components]]
source = "simulated"
n = 7
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path / "recipe.toml"


def test_options_survive_a_recipe_written_and_read_back(recipe: Path, tmp_path: Path) -> None:
    config = load_recipe(recipe)
    assert config.data.components[0].options == {"hz": 100, "likelihood": 50, "check": False}
    (tmp_path / "again.toml").write_text(to_toml(config))
    assert load_recipe(tmp_path / "again.toml") == config


def test_components_are_dropped_by_name_for_ablations(recipe: Path, tmp_path: Path) -> None:
    config = parse(["--recipe", str(recipe), "--data.without", "ptbxl", "simulated-2"], "test")
    assert [(c.source, c.n) for c in config.data.components] == [("simulated", 5)]
    (tmp_path / "resolved.toml").write_text(to_toml(config))
    assert load_recipe(tmp_path / "resolved.toml") == config


def test_the_command_line_still_overrides_the_rest(recipe: Path) -> None:
    config = parse(["--recipe", str(recipe), "--data.max-tokens", "77"], "test")
    assert config.data.max_tokens == 77
    assert config.data.components == load_recipe(recipe).data.components


def test_components_of_one_source_are_numbered() -> None:
    config: RunConfig = from_dict(
        RunConfig, {"name": "x", "data": {"components": [{"source": "simulated", "n": 1}] * 2}}
    )
    assert component_names(config.data.components) == ["simulated-1", "simulated-2"]


@pytest.mark.parametrize(
    ("without", "message"),
    [
        (("ptbxl",), "data.without: no component is called ptbxl; there are simulated"),
        (("simulated",), "data.without leaves no component"),
    ],
)
def test_dropping_what_is_not_there_or_all_is_refused(without: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataConfig(components=(SIMULATED,), without=without)


@pytest.mark.parametrize("name", ["paper", "tile1", "ecg_lora", "ecg_partial", "ecg_full"])
def test_recipes_for_the_11b_read_ptbxl_as_it_is_unpacked(name: str, root: Path) -> None:
    (only,) = load_recipe(root / f"train/recipes/{name}.toml").data.components
    assert (only.source, only.report, only.wording) == ("ptbxl", "statements", "fixed")


@pytest.mark.parametrize("name", ["paper", "tile1"])
def test_the_papers_other_sets_can_be_taken_out_of_their_comments(name: str, root: Path, tmp_path: Path) -> None:
    lines = (root / f"train/recipes/{name}.toml").read_text().splitlines()
    settings = ("# [[", "# source =", "# root =", "# tasks =", "# label_set =", "# options =")
    (tmp_path / "all.toml").write_text(
        "\n".join(line.removeprefix("# ") if line.startswith(settings) else line for line in lines)
    )
    components = load_recipe(tmp_path / "all.toml").data.components
    assert [component.source for component in components] == ["ptbxl", "mimic_iv_ecg", "code15"]
    assert [component.options for component in components] == [
        {"likelihood": 50},
        {"need": "labels"},
        {"amplitude": 1.0},
    ]


# distorted pictures


def worn(folder: Path) -> ComponentConfig:
    return replace(pictures(folder), distort_pictures=True)


def test_published_pictures_stay_as_they_are_beside_distorted_pages(tokenizer: Tokenizer, instruct: Path) -> None:
    made = dataset(tokenizer, SIMULATED, pictures(instruct), distort="jpeg")
    tiles, _ = made.transform.split(Image.open(instruct / "b-0.png"))
    assert np.array_equal(made[Item(1, 1, (1, 0, 0))].tiles, tiles)
    assert made[Item(0, 1, (1, 0, 0))].page.distortions == (("jpeg", 1.0),)  # type: ignore[union-attr]


@pytest.mark.parametrize("cache", [False, True])
def test_a_component_may_ask_for_its_pictures_to_be_distorted(
    tokenizer: Tokenizer, instruct: Path, cache: bool
) -> None:
    made = dataset(tokenizer, worn(instruct), distort="light", cache=str(instruct / "cache") if cache else "")
    fitted = Image.open(instruct / "b-0.png").resize((24, 16), Image.Resampling.BILINEAR)  # on 2 x 2 tiles of 12 px
    expected, done = distort_picture(fitted, np.random.default_rng((1, 0, 0)), "light")
    sample = made[Item(0, 1, (1, 0, 0))]
    assert sample.page.image.tobytes() == expected.tobytes() != fitted.tobytes()  # type: ignore[union-attr]
    assert sample.page.meta["distortions"] == done == (("light", 1.0),)  # type: ignore[union-attr]
    assert np.array_equal(sample.tiles, made.transform.split(expected)[0])


def test_a_distorted_picture_is_a_function_of_seed_epoch_and_item(tokenizer: Tokenizer, instruct: Path) -> None:
    def tiles(*seed: int) -> bytes:
        return dataset(tokenizer, worn(instruct), distort="paper")[Item(0, 1, seed)].tiles.tobytes()

    assert tiles(1, 0, 0) == tiles(1, 0, 0)
    assert len({tiles(1, 0, 0), tiles(2, 0, 0), tiles(1, 1, 0), tiles(1, 0, 1)}) == 4


def test_a_picture_is_taken_for_a_letter_page() -> None:
    image = Image.new("RGB", (440, 340), (250, 240, 235))
    page = Page(image=image, px_per_mm=440 / 279.4, lead_boxes={}, style=STYLES["square"])
    expected = distort(page, np.random.default_rng(2), "creases")
    made, done = distort_picture(image, np.random.default_rng(2), "creases")
    assert made.tobytes() == expected.image.tobytes() != image.tobytes()
    assert done == expected.distortions


@pytest.mark.parametrize("changes", [{"tasks": ("yes_no",)}, {"wording": "varied"}, {"report": "given"}])
def test_questions_for_pictures_that_have_dialogs_are_refused(instruct: Path, changes: dict) -> None:
    with pytest.raises(ValueError, match="component conversations: tasks, wording and report would do nothing"):
        replace(pictures(instruct), **changes)


def test_distortions_that_would_do_nothing_are_refused(instruct: Path) -> None:
    with pytest.raises(ValueError, match="component simulated: distort_pictures is of conversations"):
        replace(SIMULATED, distort_pictures=True)
    with pytest.raises(
        ValueError, match=r"data.distort='scan' would do nothing: all components are published pictures"
    ):
        DataConfig(components=(pictures(instruct),), distort="scan")
    with pytest.raises(ValueError, match=r"distort_pictures = true, but data.distort is 'clean'"):
        DataConfig(components=(SIMULATED, worn(instruct)))
    DataConfig(components=(worn(instruct),), distort="scan")
    DataConfig(components=(SIMULATED, pictures(instruct)), distort="scan")
