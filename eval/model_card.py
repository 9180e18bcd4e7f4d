"""A model card from a run folder and its scores: everything in it is read from files, and what they lack is said.

Sections as in Mitchell et al. 2019 (doi:10.1145/3287560.3287596): the model, what it is for and not for, how it was
trained and on what, how well it does on whom, its limits, its licence, how to make it again.
"""

import filecmp
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from eval.card_metrics import Scores, describe_scores
from eval.card_text import INTENDED, LICENCES, LIMITS, MISSING, UNKNOWN_LICENCE, table
from eval.predict import PredictConfig
from lora import apply_tuning
from minimllama import PRESETS, MiniMllama, ModelConfig
from minimllama.console import duration
from minimllama.nano import NAME, resolve_model
from train.checkpoint import latest_checkpoint
from train.config import RunConfig, load_recipe
from train.ecg import open_source
from train.log import read_log, read_validations


@dataclass(frozen=True, kw_only=True)
class CardConfig:
    """What the card is of.

    Attributes:
        run: a run folder of `python -m train run`.
        scores: a scores.json of `python -m eval score` for its model; without it the card says that there is none.
        out: the file to write.
    """

    run: Path
    scores: Path | None = None
    out: Path = Path("MODEL_CARD.md")


def base_of(recipe: RunConfig) -> str:
    """Where the weights come from: a key of LICENCES, or "" if that cannot be told."""
    if recipe.model in (NAME, "scratch"):
        return recipe.model
    try:
        config = ModelConfig.from_folder(recipe.model)
    except (FileNotFoundError, ValueError):
        return ""
    return "meta" if any(config == PRESETS[name] for name in PRESETS if name != NAME) else ""


def _parameters(recipe: RunConfig, run: Path) -> str:
    """What is trained, counted on the meta device; from the adapter's file if the base is not here."""
    path = run / "adapter" / "adapter_model.safetensors"
    try:
        config = PRESETS[recipe.sizes] if recipe.model == "scratch" else ModelConfig.from_folder(_folder(recipe))
    except (FileNotFoundError, ValueError):
        if not path.is_file():
            return MISSING
        with safe_open(path, "pt") as file:
            sizes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 - it is no mapping
        n = sum(int(torch.Size(shape).numel()) for shape in sizes)
        return f"{n:,} in {len(sizes)} tensors of {path.name}; of how many is {MISSING}: {recipe.model} is not here"
    with torch.device("meta"):
        model = MiniMllama(config, recipe.semantics)
    return str(apply_tuning(model, recipe.tuning))


def _folder(recipe: RunConfig) -> Path:
    return resolve_model(recipe.model)


def _model(recipe: RunConfig, run: Path) -> list[str]:
    left = [name for name in ("adapter", "model") if (run / name).is_dir()]
    t = recipe.tuning
    how = f"{t.method}, r = {t.r}, alpha = {t.alpha:g}, dropout {t.dropout:g}, targets {t.targets}"
    rows = [
        ("base", f"`{recipe.model}`" + (f", sizes `{recipe.sizes}`" if recipe.sizes else "")),
        (
            "what the run left",
            ", ".join(f"`{name}/`" for name in left) or f"{MISSING}: the run has no adapter or model",
        ),
        ("tuning", how if t.method == "lora" else t.method),
        ("trained parameters", _parameters(recipe, run)),
        ("semantics", f"`{recipe.semantics}`"),
    ]
    return ["## Model", "", *table(("", ""), rows)]


def _n_records(component: Any) -> str:
    """Of the training split, counted where the data is here."""
    try:
        return f"{len(open_source(component.source, component.root or None, 'train', **component.source_options)):,}"
    except (OSError, ValueError):
        return f"{MISSING}: its folder is not here"


def _data(recipe: RunConfig, log: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = []
    for c in recipe.data.components:
        options = ", ".join(f"{k} = {v}" for k, v in c.source_options.items()) or "-"
        tasks = ", ".join(f"{task} x {c.tasks.count(task)}" for task in dict.fromkeys(c.tasks))
        rows.append((c.source, c.root or "-", options, _n_records(c), c.weight, tasks, c.label_set))
    seen = f"{log[-1]['samples']:,} pages, {log[-1]['epoch']:.2f} epochs" if log else MISSING
    d = recipe.data
    return [
        "## Training data",
        "",
        *table(("source", "root", "options", "records, split train", "weight", "tasks", "labels"), rows),
        f"Pages in style `{d.page}`, distortion `{d.distort}`, {d.questions_per_image} questions each. Seen: {seen}.",
        "",
    ]


def _training(recipe: RunConfig, run: Path, log: Sequence[Mapping[str, Any]]) -> list[str]:
    o, b = recipe.optim, recipe.batch
    found = latest_checkpoint(run)
    progress = json.loads((found / "progress.json").read_text()) if found else {}
    n_ranks, per_step = progress.get("n_ranks", MISSING), progress.get("pages_per_step", MISSING)
    length = f"{o.steps} steps" if o.steps else f"{o.epochs:g} epochs"
    rate = f"{o.peak_lr:g}, warm-up {o.warmup:g}, then half a cosine to {o.final:g} of it"
    rows = [
        (
            "optimizer",
            f"AdamW, beta {o.beta1:g} and {o.beta2:g}, weight decay {o.weight_decay:g}, clipped at {o.clip:g}",
        ),
        ("learning rate", rate),
        ("length", f"{length}; done: {log[-1]['step']} steps" if log else f"{length}; done: {MISSING}"),
        ("batch", f"{b.images_per_forward} pages x {b.accumulate} on each of {n_ranks} ranks, {per_step} pages a step"),
        ("sharding, dtype", f"{recipe.shard.strategy}, {recipe.compute.dtype}"),
        ("seed", recipe.seed),
        ("device", f"`{recipe.compute.device}` in the recipe; which one it was is {MISSING}"),
    ]
    if log:
        before = [0, *(line["samples"] for line in log[:-1])]
        pairs = zip(log, before, strict=True)
        seconds = sum((line["samples"] - n) / line["images_per_s"] for line, n in pairs)
        last = [line["loss"] for line in log[-max(len(log) // 10, 1) :] if line["loss"] is not None]
        rows += [
            ("time in steps", f"{duration(seconds)}, {log[-1]['samples'] / seconds:.1f} pages/s"),
            ("peak memory of a rank", f"{max(line['peak_memory_bytes'] for line in log) / 2**30:.2f} GiB"),
            (
                "loss per answer token",
                f"{sum(last) / len(last):.4f}, mean of the last tenth of steps" if last else MISSING,
            ),
        ]
    else:
        rows.append(("time, memory, loss", f"{MISSING}: the run has no log.jsonl"))
    validations = read_validations(run)
    name = recipe.validate.metric
    shown = [f"step {v['step']}: {v[name]:.4f}" for v in validations[-3:] if v.get(name) is not None]
    rows.append((f"validation, {name}", "; ".join(shown) or f"{MISSING}: none during the run"))
    return ["## Training", "", *table(("", ""), rows)]


def _limits(recipe: RunConfig, scores: Scores | None) -> list[str]:
    trained = {c.source for c in recipe.data.components}
    own = []
    if trained == {"simulated"}:
        own.append(
            "Trained on simulated patients only: it knows what the simulator draws, and nothing about real ECGs."
        )
    if scores is not None and scores["synthetic"]:
        own.append("Scored on simulated patients only: the numbers show that the system works, and nothing about care.")
    if scores is None:
        own.append("Not scored: nothing is known of how well it does.")
    if recipe.data.distort == "clean":
        own.append(f"Trained on clean pages of style `{recipe.data.page}` only: no scans, no photographs.")
    if trained and scores is not None and scores["settings"]["suite"] not in (*trained, "ecgbench"):
        own.append(
            "The suite's data set is not among those trained on: differences between them are part of the numbers."
        )
    return ["## Limits", "", *(f"- {text}" for text in (*own, *LIMITS)), ""]


def options_of(settings: Mapping[str, Any]) -> list[str]:
    """Command line options of `eval predict` that are not its defaults."""
    defaults = {field.name: field.default for field in fields(PredictConfig)}
    words: list[str] = []
    for name, value in settings.items():
        plain = tuple(value) if isinstance(value, list) else value
        if value is None or plain == defaults.get(name):
            continue
        values = [str(part) for part in value] if isinstance(value, list) else [str(value)]
        words += [f"--{name.replace('_', '-')}", *values]
    return words


def _reproduce(recipe: RunConfig, run: Path, scores: Scores | None) -> list[str]:
    found = latest_checkpoint(run)
    n_ranks = json.loads((found / "progress.json").read_text()).get("n_ranks", 1) if found else 1
    start = f"torchrun --standalone --nproc-per-node {n_ranks} -m" if n_ranks > 1 else "python -m"
    commands = [f"{start} train run --recipe {shlex.quote(str(run / 'config.toml'))} --name again"]
    if scores is not None:
        commands.append(shlex.join(["python", "-m", "eval", "predict", *options_of(scores["settings"])]))
    notes = [f"Version of the code and of its libraries: {MISSING}."]
    if scores is not None and scores["n_validation"]:
        notes.append(
            f"The {scores['n_validation']} validation predictions behind the thresholds were made alike with "
            f"`--split validate`; their number and seed are {MISSING} in the scores file. Then `python -m eval score`."
        )
    return ["## Make it again", "", "```bash", *commands, "```", "", " ".join(notes), ""]


def _is_of(run: Path, scored: Path) -> bool:
    """Whether weights are a run's: inside it, or the same bytes elsewhere, or, where they are gone, of its name."""
    if scored.resolve().is_relative_to(run.resolve()):
        return True
    if not scored.is_dir():
        return run.resolve().name in scored.parts
    there, here = (sorted(folder.glob("*.safetensors")) for folder in (scored, run / scored.name))
    same_names = [path.name for path in there] == [path.name for path in here] != []
    return same_names and all(filecmp.cmp(*pair, shallow=False) for pair in zip(there, here, strict=True))


def check_same_run(run: Path, scores: Scores) -> None:
    """Refuse scores of another model.

    Raises:
        ValueError: if the adapter that was scored, or the model if there was none, is not the run's.
    """
    adapter, model = scores["settings"]["adapter"], scores["settings"]["model"]
    if not _is_of(run, Path(adapter or model)):
        raise ValueError(f"the scores are of model {model!r} with adapter {adapter!r}, not of {run}")


def write_card(config: CardConfig) -> Path:
    """Write the card.

    Raises:
        FileExistsError: if the file is there already.
        FileNotFoundError: if the run has no config.toml, or the scores are not there.
        ValueError: if the scores are of another model.
    """
    if config.out.exists():
        raise FileExistsError(f"{config.out} exists")
    recipe, run = load_recipe(config.run / "config.toml"), config.run
    log = read_log(run) if (run / "log.jsonl").is_file() else []
    scores = None if config.scores is None else json.loads(config.scores.read_text())
    if scores is not None:
        check_same_run(run, scores)
    lines = [
        f"# Model card: {recipe.name}",
        "",
        f"Made by `python -m eval card` from {run.name}/"
        + (f" and {config.scores.name}" if config.scores else "")
        + ".",
        "",
        *_model(recipe, run),
        *INTENDED,
        *_data(recipe, log),
        *_training(recipe, run, log),
        *describe_scores(scores),
        *_limits(recipe, scores),
        *LICENCES.get(base_of(recipe), UNKNOWN_LICENCE),
        *_reproduce(recipe, run, scores),
    ]
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_text("\n".join(lines).rstrip() + "\n")
    return config.out
