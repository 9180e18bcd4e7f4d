"""Validation during a run: the same scores as eval's, the best checkpoint, early stop, curves."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eval.likelihood import ask_yes_no, score_labels
from eval.metrics import label_metrics
from tests.tools.gloo import run_ranks
from tests.train.conftest import MakeConfig
from train.checkpoint import checkpoints, load_checkpoint
from train.config import RunConfig, to_toml
from train.curves import draw_curves
from train.distributed import World
from train.ecg import LABEL_SETS
from train.log import read_validations
from train.loop import run
from train.optim import MasterAdamW
from train.recipe_changes import kept_best
from train.scores import macro_auc, macro_f1
from train.setup import prepare
from train.shard import ShardConfig
from train.validate import _log_odds, _truth, is_better, prepare_validation, validate

EVERY_TWO = {"every": 2, "n": 5, "labels": "superclass"}

# equation


def test_auc_by_hand() -> None:
    truth = np.array([[True], [True], [False], [False]])
    assert macro_auc(truth, np.array([[3.0], [1.0], [1.0], [0.0]])) == (1 + 1 + 0.5 + 1) / 4
    assert macro_auc(np.ones((3, 1), bool), np.zeros((3, 1))) is None


# parity


def test_the_metrics_are_those_of_eval() -> None:
    rng = np.random.default_rng(3)
    truth, scores = rng.random((40, 7)) < 0.3, rng.normal(size=(40, 7)).round(1)
    truth[:, 2] = False
    theirs = label_metrics(truth, y_pred=scores > 0, scores=scores)
    assert macro_auc(truth, scores) == pytest.approx(theirs["macro_auc"], abs=1e-12)
    assert macro_f1(truth, scores) == pytest.approx(theirs["macro_f1"], abs=1e-12)


def test_the_scores_are_those_of_eval(make_config: MakeConfig) -> None:
    """eval shares the prompt and caches it; here every question is a row of its own. Float32: 1e-4 of log-odds."""
    setup = prepare(make_config(validate=EVERY_TWO))
    setup.model.eval()
    validation = prepare_validation(setup)
    sample = validation.dataset[validation.items[1]]
    page = validation.dataset.draw(validation.items[1])[1]
    with torch.no_grad():
        ours = _log_odds(setup, sample, validation)
    images = setup.transform([[page.image]])
    theirs = score_labels(setup.model, ask_yes_no(LABEL_SETS["superclass"], setup.tokenizer), images)
    np.testing.assert_allclose(ours, theirs[0].numpy(), atol=1e-4)


def on_a_rank(world: World, config: RunConfig) -> dict:
    setup = prepare(config, world)
    return validate(setup, prepare_validation(setup))


def test_several_ranks_validate_as_one_does(make_config: MakeConfig) -> None:
    """Five records on two ranks under zero3: one of them runs an extra pass, which does not count."""
    config = make_config(validate=EVERY_TWO)
    alone = on_a_rank(World(device=torch.device("cpu")), config)
    assert alone["records"] == 4  # one has no superclass, and gives a loss alone
    for result in run_ranks(2, on_a_rank, replace(config, shard=ShardConfig(strategy="zero3"))):
        assert result == pytest.approx(alone, rel=1e-5)


# property


def test_a_run_validates_keeps_its_best_and_stops_when_it_does_not_improve(make_config: MakeConfig) -> None:
    """A learning rate that ruins the model: the first validation stays the best one."""
    config = make_config(
        validate={**EVERY_TWO, "metric": "loss", "patience": 2},
        optim={"steps": 40, "peak_lr": 3.0, "warmup": 0.6, "clip": 1e9},
        save={"every": 1, "keep": 1},
    )
    folder = run(config)
    lines = read_validations(folder)
    losses = [line["loss"] for line in lines]
    best = lines[int(np.argmin(losses))]["step"]
    last = lines[-1]["step"]
    assert last == best + 4 < 40
    assert (folder / "best").read_text() == f"checkpoint-{best}\n"
    assert [path.name for path in checkpoints(folder)] == [f"checkpoint-{best}", f"checkpoint-{last}"]
    setup = prepare(config)
    optimizer = MasterAdamW(setup.model, config.optim)
    load_checkpoint(folder / f"checkpoint-{best}", optimizer, to_toml(config))
    assert validate(setup, prepare_validation(setup))["loss"] == pytest.approx(min(losses), rel=1e-6)
    run(config)  # it is over: starting it again adds nothing
    assert read_validations(folder) == lines
    with Image.open(folder / "curves.png") as picture:
        assert picture.size == (960, 880)  # seven panels in two columns
        assert len(picture.convert("L").getcolors() or []) > 5


def test_undefined_values_are_never_the_best() -> None:
    assert not is_better(None, None, "macro_auc")
    assert not is_better(float("nan"), 0.5, "loss")
    assert is_better(0.4, 0.5, "loss")
    assert not is_better(0.4, 0.5, "macro_auc")


def test_curves_leave_out_what_has_no_numbers(tmp_path: Path) -> None:
    log = [{"step": i, "loss": None if i == 2 else 3.0 / i, "grad_norm": None} for i in range(1, 5)]
    draw_curves(log, [], tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (960, 220)


def test_validations_of_steps_that_are_done_again_are_kept_beside(make_config: MakeConfig) -> None:
    config = make_config(validate=EVERY_TWO, optim={"steps": 4}, save={"every": 2})
    folder = run(config)
    lines = read_validations(folder)
    (folder / "latest").write_text("checkpoint-2\n")
    run(config)
    assert [line["step"] for line in read_validations(folder)] == [2, 4]
    assert read_validations(folder) == lines
    kept = (folder / "validation-before-2.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in kept] == [2, 4]


def test_records_without_labels_of_the_asked_vocabulary_give_a_loss_alone(make_config: MakeConfig) -> None:
    """CODE-15's AF is no statement of the 71: its records would count as hearts without any of them."""
    config = make_config(validate={**EVERY_TWO, "labels": "statements"})
    (simulated,) = config.data.components
    foreign = replace(simulated, label_set="code15")
    setup = prepare(replace(config, data=replace(config.data, components=(simulated, foreign))))
    validation = prepare_validation(setup)
    is_scored = [_truth(validation, item) is not None for item in validation.items]
    assert is_scored == [item.component == 0 for item in validation.items] != [True] * 5
    with pytest.raises(ValueError, match=r"validate.metric='macro_auc' needs records with labels of 'statements'"):
        prepare_validation(replace(setup, config=replace(config, data=replace(config.data, components=(foreign,)))))


def test_what_was_best_counts_only_where_the_same_is_measured_as_often(make_config: MakeConfig) -> None:
    def recipe(**validate: object) -> str:
        return to_toml(make_config(validate={**EVERY_TWO, **validate}))

    note = {"step": 40, "best": 0.9, "best_step": 20, "recipe": recipe()}
    assert kept_best(note, recipe()) == kept_best(note, recipe(every=0)) == (0.9, 20)
    assert kept_best(note, recipe(every=4)) == (0.9, 40)
    assert kept_best(note, recipe(metric="loss")) == kept_best(note, recipe(n=6)) == (None, 40)
    never = {"step": 40, "best": None, "best_step": 0, "recipe": recipe(every=0)}
    assert kept_best(never, recipe(patience=2)) == (None, 40)  # not over before its first validation


# refusal


def test_tensorboard_that_is_not_installed_is_named(make_config: MakeConfig) -> None:
    try:
        import tensorboard  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'minimllama\[tensorboard\]'"):
            run(make_config(save={"tensorboard": True}))
    else:
        folder = run(make_config(save={"tensorboard": True, "every": 0}, optim={"steps": 2}))
        assert list((folder / "tensorboard").iterdir())
