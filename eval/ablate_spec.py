"""An ablation as TOML: a base recipe, variants that change fields of it, seeds, and what is scored."""

import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eval.suites import SUITES
from minimllama.checkpoint import DTYPES
from train.config import RunConfig, from_dict

ROOT = Path(__file__).parent.parent
OWN = ("name", "out", "seed", "resume", "data.components")  # fields that no variant may set
UNTUNED = "untuned"  # the base recipe's model as it is


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the table.

    Attributes:
        name: of the row, and of its folder.
        set: fields of the recipe, as nested tables.
    """

    name: str
    set: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What every variant is scored on.

    Attributes:
        suite: of SUITES.
        root: its folder; "" for one that reads none.
        options: of its source, as for `eval predict`.
        n_test, n_validation, seed: of a simulated suite; 0 for the others.
        dtype, device: of the scoring.
        bootstrap: draws of patients.
    """

    suite: str = "simulated"
    root: str = ""
    options: tuple[str, ...] = ()
    n_test: int = 0
    n_validation: int = 0
    seed: int = 0
    dtype: str = "float32"
    device: str = "cpu"
    bootstrap: int = 1000

    def __post_init__(self) -> None:
        if self.suite not in SUITES:
            raise ValueError(f"score.suite={self.suite!r} is not one of {', '.join(SUITES)}")
        is_made = SUITES[self.suite].source == "simulated"
        if is_made and min(self.n_test, self.n_validation) < 2:
            raise ValueError(f"score: n_test={self.n_test} and n_validation={self.n_validation} must be at least 2")
        if not is_made and (self.n_test or self.n_validation or self.seed):
            raise ValueError(f"score: suite {self.suite} has the records of its folder; n and seed do not apply")
        if SUITES[self.suite].configuration or not SUITES[self.suite].protocols:
            lack = "validation records to choose thresholds" if SUITES[self.suite].protocols else "scores of labels"
            raise ValueError(f"score: suite {self.suite} has no {lack}, which an ablation compares by")
        if self.dtype not in DTYPES:
            raise ValueError(f"score.dtype={self.dtype!r} is not one of {', '.join(DTYPES)}")
        if self.bootstrap < 1:
            raise ValueError(f"score.bootstrap={self.bootstrap} must be positive")


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """A question and the runs that answer it.

    Attributes:
        name: of its folder and files.
        question: above the table.
        base: the recipe that the variants change, from the root of the repository or from here.
        seeds: of training; every variant is trained once per seed.
        variants: the first one is what the others are compared with.
        score: on what.
    """

    name: str
    question: str
    base: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...] = (1,)
    score: Scoring = Scoring(n_test=150, n_validation=200)

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        if not names or not self.seeds:
            raise ValueError("an ablation needs at least one variant and one seed")
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"two variants are called {', '.join(twice)}")
        if wrong := [n for n in names if n == UNTUNED or not n.replace("-", "").replace("_", "").isalnum()]:
            raise ValueError(f"variant {wrong[0]!r}: letters, digits, - and _ only, and not {UNTUNED!r}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {self.seeds} has one twice")

    def variant(self, name: str) -> Variant:
        """The variant of a name.

        Raises:
            ValueError: if there is none; the message lists them.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise ValueError(f"no variant is called {name!r}; there are {', '.join(v.name for v in self.variants)}")


def flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested tables -> values by dotted name; lists are values."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return found


def find_recipe(base: str) -> Path:
    """A recipe as named: from the current folder, else from the repository's root."""
    here = Path(base)
    return here if here.exists() or here.is_absolute() else ROOT / here


def load_ablation(path: Path, base: str = "") -> Ablation:
    """Read an ablation, and check that every variant is a recipe.

    Args:
        path: a TOML file.
        base: another recipe than the file's.

    Raises:
        FileNotFoundError: if there is no such file or recipe.
        ValueError: if it is not TOML, or a setting is unknown or wrong; the message names file and setting.
    """
    if not path.is_file():
        shipped = ", ".join(sorted(p.name for p in (Path(__file__).parent / "ablations").glob("*.toml")))
        raise FileNotFoundError(f"no ablation {path}; eval/ablations has {shipped}")
    try:
        ablation = from_dict(Ablation, tomllib.loads(path.read_text()))
        ablation = replace(ablation, base=base or ablation.base)
        for variant in ablation.variants:
            recipe_of(ablation, variant, ablation.seeds[0])
    except (ValueError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: {error}") from error
    return ablation


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for name, value in changes.items():
        inside = isinstance(value, dict) and isinstance(result.get(name), dict)
        result[name] = _merged(result[name], value) if inside else value
    return result


def recipe_of(ablation: Ablation, variant: Variant, seed: int) -> RunConfig:
    """The base recipe with the variant's changes and a seed.

    Raises:
        FileNotFoundError: if the base recipe is not there.
        ValueError: if a field does not exist, is wrong, or is not the variant's to set.
    """
    if own := [name for name in flat(variant.set) if name in OWN]:
        raise ValueError(f"variant {variant.name}: {own[0]} cannot be set here; data.without leaves components out")
    path = find_recipe(ablation.base)
    if not path.is_file():
        raise FileNotFoundError(f"no recipe {ablation.base}")
    try:
        recipe = from_dict(RunConfig, _merged(tomllib.loads(path.read_text()), {**variant.set, "seed": seed}))
    except (ValueError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"variant {variant.name}: {error}") from error
    return recipe


def _option(name: str, value: Any) -> list[str]:
    *path, last = name.replace("_", "-").split(".")
    if isinstance(value, bool):
        return [f"--{'.'.join([*path, last if value else f'no-{last}'])}"]
    return [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]


def train_command(ablation: Ablation, variant: Variant, seed: int, folder: Path, processes: int) -> list[str]:
    """What a user would type behind `python -m` to train a variant in folder/training."""
    ranks = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"] if processes > 1 else []
    changes = [part for name, value in flat(variant.set).items() for part in _option(name, value)]
    where = ["--seed", str(seed), "--out", str(folder), "--name", "training"]
    return [*ranks, "train", "run", "--recipe", str(find_recipe(ablation.base)), *changes, *where]


def score_commands(
    ablation: Ablation, recipe: RunConfig, folder: Path, processes: int, *, tuned: bool
) -> list[list[str]]:
    """Predictions of the validation and the test split without generated texts, and their scores."""
    score, training = ablation.score, folder / "training"
    if not tuned:
        model = ["--model", recipe.model]
    elif recipe.tuning.method == "lora":
        model = ["--model", recipe.model, "--adapter", str(training / "adapter")]
    else:
        model = ["--model", str(training / "model")]
    ranks = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", "--"]
    common = [*(ranks if processes > 1 else []), "eval", "predict", *model, "--suite", score.suite]
    common += ["--page", recipe.data.page, "--semantics", recipe.semantics, "--dtype", score.dtype]
    common += ["--device", score.device, "--texts", *(["--root", score.root] if score.root else [])]
    common += ["--options", *score.options] if score.options else []
    commands = []
    for split, n in (("validate", score.n_validation), ("test", score.n_test)):
        drawn = ["--n", str(n), "--seed", str(score.seed)] if n else []
        commands.append([*common, "--split", split, *drawn, "--out", str(folder / f"{split}.jsonl")])
    files = ["--predictions", str(folder / "test.jsonl"), "--validation", str(folder / "validate.jsonl")]
    last = ["--bootstrap", str(score.bootstrap), "--out", str(folder / "scores.json")]
    return [*commands, ["eval", "score", *files, *last]]


def main_protocol(ablation: Ablation) -> str:
    """Whose AUC is drawn: all statements, or the only labels that the suite asks for."""
    return list(SUITES[ablation.score.suite].label_sets)[-1]


def typed(command: list[str]) -> str:
    """A command as one types it."""
    return f"python -m {shlex.join(command)}"
