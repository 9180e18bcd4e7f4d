"""Recipes: written and read back, overridden on the command line, and wrong ones refused by the setting's name."""

import math
from pathlib import Path

import pytest

from lora import TuneConfig
from tests.train.conftest import MakeConfig
from train.config import ComputeConfig, DataConfig, RunConfig, load_recipe, parse, to_toml
from train.ecg import SOURCES, STYLES
from train.mixture import ComponentConfig
from train.optim import OptimConfig

RECIPES = Path(__file__).parents[2] / "train" / "recipes"
SHIPPED = sorted(path.stem for path in RECIPES.glob("*.toml"))
SHORT = """
name = "short"
[data]
[[data.components]]
source = "simulated"
n = 4
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "short.toml").write_text(SHORT)
    return tmp_path / "short.toml"


def edited(recipe: Path, old: str, new: str) -> Path:
    assert old in SHORT
    recipe.write_text(SHORT.replace(old, new))
    return recipe


# equation


def test_a_short_recipe_takes_every_default(recipe: Path) -> None:
    components = (ComponentConfig(source="simulated", n=4),)
    assert load_recipe(recipe) == RunConfig(name="short", data=DataConfig(components=components))
    assert load_recipe(recipe).folder == Path("runs/short")


# property


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tuning": {"targets": ("text.layers.*", "projector"), "rslora": True}, "seed": 9},
        {"name": 'a "quoted" \\ name\twith\nlines and an \u00e9', "optim": {"peak_lr": 1e-5, "eps": 1e-12}},
        {"compute": {"dtype": "bfloat16", "checkpoint_activations": True}, "save": {"every": 0}},
        {"data": {"page": "wide", "components": (ComponentConfig(source="wfdb", root="x", weight=0.5),) * 2}},
    ],
)
def test_a_written_recipe_is_read_back_to_an_equal_one(make_config: MakeConfig, tmp_path: Path, changes: dict) -> None:
    config = make_config(**changes)
    (tmp_path / "written.toml").write_text(to_toml(config))
    assert load_recipe(tmp_path / "written.toml") == config


def test_the_command_line_overrides_the_recipe(recipe: Path) -> None:
    arguments = [
        "--recipe",
        str(recipe),
        "--optim.peak-lr",
        "3e-4",
        "--tuning.method",
        "partial",
        "--data.workers",
        "0",
    ]
    config = parse(arguments, "test")
    assert config.optim == OptimConfig(peak_lr=3e-4)
    assert config.tuning == TuneConfig(method="partial")
    assert config.data.workers == 0
    assert config.data.components == load_recipe(recipe).data.components


def test_a_recipe_of_a_windows_editor_is_read(recipe: Path) -> None:
    written = load_recipe(recipe)
    recipe.write_bytes(b"\xef\xbb\xbf" + SHORT.replace("\n", "\r\n").encode())
    assert load_recipe(recipe) == written


def test_a_whole_number_is_accepted_for_a_fraction(recipe: Path) -> None:
    edited(recipe, "[data]", "[optim]\npeak_lr = 1\n[data]")
    assert load_recipe(recipe).optim.peak_lr == 1.0


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "train" / "recipes").glob("*.toml")), ids=lambda p: p.stem
)
def test_every_shipped_recipe_loads_and_asks_for_what_exists(path: Path) -> None:
    config = load_recipe(path)
    assert config.name == path.stem
    assert config.data.page in STYLES
    assert all(component.source in SOURCES for component in config.data.components)


# refusal


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[data]", "[optim]\npeak_rl = 1.0\n[data]", "no setting is called optim.peak_rl; did you mean optim.peak_lr?"),
        ("[data]", "[optmi]\npeak_lr = 1.0\n[data]", "no setting is called optmi; did you mean optim?"),
        ("n = 4", "nn = 4", r"no setting is called data.components\[0\].nn; did you mean data.components\[0\].n?"),
        ("[data]", "[save]\nxyz = 1\n[data]", "no setting is called save.xyz; there are every, keep"),
        ('name = "short"', "", "the recipe must set name"),
        ("[[data.components]]", "[[data.component]]", r"did you mean data.components\?"),
        ("n = 4", 'n = "4"', r"data.components\[0\].n='4' must be of type int"),
        ("n = 4", "n = true", r"data.components\[0\].n=True must be of type int"),
        ("n = 4", "n = 4.5", "must be of type int"),
        ("[[data.components]]", "[data.components]", "data.components must be a list"),
        ('name = "short"', 'name = "short"\ndata = 3', "Cannot overwrite|Cannot declare|must be a table"),
        ('source = "simulated"', "", r"the recipe must set data.components\[0\].source"),
        ("n = 4", "n = ", "Invalid"),
    ],
)
def test_a_wrong_recipe_names_file_and_setting(recipe: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load_recipe(edited(recipe, old, new))
    assert str(recipe) in str(error.value)


def test_a_missing_recipe_shows_those_that_ship() -> None:
    with pytest.raises(FileNotFoundError, match=r"no recipe nowhere.toml; train/recipes has .*demo.toml"):
        load_recipe("nowhere.toml")


def test_an_unknown_option_ends_the_command(recipe: Path, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        parse(["--recipe", str(recipe), "--optim.peak-rl", "1"], "test")
    assert end.value.code == 2
    assert "peak-lr" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resume": "yes"}, "resume='yes' is not one of auto, none"),
        ({"model": "scratch"}, 'sizes go with model = "scratch" only'),
        ({"sizes": "11b"}, 'sizes go with model = "scratch" only'),
        ({"model": "scratch", "sizes": "11b"}, "needs tuning.method"),
        ({"data": {"components": ()}}, "data.components must name at least one data set"),
        ({"data": {"page": "A4"}}, "data.page='A4' is not one of square"),
        ({"data": {"questions_per_image": 0}}, "questions_per_image and max_tokens must be positive"),
        ({"batch": {"accumulate": 0}}, "images_per_forward and accumulate must be positive"),
        ({"save": {"keep": 0}}, "keep must be positive"),
        ({"seed": -1}, "seed=-1 must not be negative"),
        ({"tuning": {"seed": 3}}, "tuning.seed=3 would do nothing: adapters begin with the run's seed"),
        ({"optim": {"peak_lr": math.nan}}, "peak_lr, clip and epochs must be positive"),
        ({"compute": {"threads": -1}}, "compute.threads=-1 must not be negative"),
        ({"optim": {"final": 1.5}}, "optim.final=1.5 must lie in"),
    ],
)
def test_a_contradiction_is_refused(make_config: MakeConfig, changes: dict, message: str) -> None:
    if "sizes" in changes and "model" in changes:
        with pytest.raises(ValueError, match=message):
            RunConfig(name="x", data=make_config().data, model="scratch", sizes="11b")
        return
    with pytest.raises(ValueError, match=message):
        make_config(**changes)


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match=r"compute.dtype='float16' is not one of bfloat16, float32"):
        ComputeConfig(dtype="float16")
