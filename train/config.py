"""The recipe tree: frozen dataclasses, read from TOML, overridden on the command line, written back resolved."""

import dataclasses
import difflib
import json
import tomllib
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any

import tyro

from lora import TuneConfig
from train.ecg import STYLES
from train.ecg.distort import check_names
from train.mixture import PICTURES, ComponentConfig, component_names
from train.optim import OptimConfig
from train.settings import BatchConfig, ComputeConfig, SaveConfig, ValidateConfig
from train.shard import ShardConfig


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is trained on.

    Attributes:
        components: data sets and tasks.
        without: components to leave out, for ablations: "ptbxl", or "ptbxl-2" for the second of that source. The
            resolved recipe no longer has them.
        page: of STYLES.
        distort: what happens to drawn pages, a preset ("clean", "scan", "phone", "paper") or one of DISTORTIONS; to
            published pictures only where a component says distort_pictures.
        questions_per_image: questions that share one page and one pass of the vision tower.
        max_tokens: longest dialog; a longer one is an error that names the record.
        workers: processes that draw pages; 0 draws them in the training process.
        cache: a folder in which each record's page is kept once it is drawn; "" draws every page anew.
    """

    components: tuple[ComponentConfig, ...]
    without: tuple[str, ...] = ()
    page: str = "square"
    distort: str = "clean"
    questions_per_image: int = 4
    max_tokens: int = 1024
    workers: int = 2
    cache: str = ""

    def __post_init__(self) -> None:
        if not self.components:
            raise ValueError("data.components must name at least one data set")
        self._leave_out()
        if self.page not in STYLES:
            raise ValueError(f"data.page={self.page!r} is not one of {', '.join(STYLES)}")
        check_names(self.distort)
        self._check_pictures()
        if self.questions_per_image < 1 or self.max_tokens < 1 or self.workers < 0:
            raise ValueError("data: questions_per_image and max_tokens must be positive, workers must not be negative")

    def _check_pictures(self) -> None:
        """Refuse a distortion that nothing gets, and components that wait for one."""
        wanted = [c.source != PICTURES or c.distort_pictures for c in self.components]
        if self.distort != "clean" and not any(wanted):
            raise ValueError(
                f"data.distort={self.distort!r} would do nothing: all components are published pictures, which are "
                "distorted only where a component says distort_pictures = true"
            )
        if self.distort == "clean" and any(component.distort_pictures for component in self.components):
            raise ValueError(
                "a component says distort_pictures = true, but data.distort is 'clean', which does nothing"
            )

    def _leave_out(self) -> None:
        names = component_names(self.components)
        if unknown := [name for name in self.without if name not in names]:
            raise ValueError(f"data.without: no component is called {', '.join(unknown)}; there are {', '.join(names)}")
        kept = tuple(c for c, name in zip(self.components, names, strict=True) if name not in self.without)
        if not kept:
            raise ValueError("data.without leaves no component")
        object.__setattr__(self, "components", kept)
        object.__setattr__(self, "without", ())


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A recipe.

    Attributes:
        name: of the run; its folder is out/name.
        out: where run folders go.
        seed: of the order, the pages, the questions and the dropout.
        model: a checkpoint's folder, or "nano" for the packaged one, or "scratch" with `sizes`.
        sizes: of PRESETS, for a model trained from scratch.
        tokenizer: a tokenizer.model; beside the checkpoint if empty.
        semantics: "meta", "hf" or "hf445".
        resume: "auto" goes on from the newest checkpoint if there is one, "none" refuses a folder that has
            one.
    """

    name: str
    out: str = "runs"
    seed: int = 1
    model: str = "nano"
    sizes: str = ""
    tokenizer: str = ""
    semantics: str = "meta"
    resume: str = "auto"
    data: DataConfig
    tuning: TuneConfig = field(default_factory=TuneConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    batch: BatchConfig = BatchConfig()
    compute: ComputeConfig = ComputeConfig()
    shard: ShardConfig = ShardConfig()
    save: SaveConfig = SaveConfig()
    validate: ValidateConfig = ValidateConfig()

    def __post_init__(self) -> None:
        if self.resume not in ("auto", "none"):
            raise ValueError(f"resume={self.resume!r} is not one of auto, none")
        if (self.model == "scratch") != bool(self.sizes):
            raise ValueError(f'model={self.model!r} with sizes={self.sizes!r}: sizes go with model = "scratch" only')
        if self.model == "scratch" and self.tuning.method != "full":
            raise ValueError(f'model = "scratch" needs tuning.method = "full", not {self.tuning.method!r}')
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative")
        if self.tuning.seed:
            raise ValueError(f"tuning.seed={self.tuning.seed} would do nothing: adapters begin with the run's seed")

    @property
    def folder(self) -> Path:
        """Where the run's files go."""
        return Path(self.out) / self.name


def from_dict(cls: type[Any], values: dict[str, Any], where: str = "") -> Any:
    """Nested dicts -> nested dataclasses.

    Raises:
        ValueError: for a field that does not exist (with the nearest one that does), is missing, or has
            another type.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for name in values:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            hint = f"; did you mean {where}{near[0]}?" if near else f"; there are {', '.join(fields)}"
            raise ValueError(f"no setting is called {where}{name}{hint}")
    required = [
        f.name for f in fields.values() if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing := [f"{where}{name}" for name in required if name not in values]:
        raise ValueError(f"the recipe must set {', '.join(missing)}")
    return cls(**{name: _convert(hints[name], value, f"{where}{name}") for name, value in values.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ValueError(f"{where} must be a table, not {value!r}")
        return from_dict(hint, value, f"{where}.")  # type: ignore[arg-type]
    if isinstance(hint, UnionType):  # str or a tuple of str: a list in TOML is the tuple
        return tuple(value) if isinstance(value, list) else value
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        if not isinstance(value, list):
            raise ValueError(f"{where} must be a list, not {value!r}")
        return tuple(_convert(inner, item, f"{where}[{i}]") for i, item in enumerate(value))
    if typing.get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where} must be a table, not {value!r}")
        return dict(value)  # its reader knows what may stand in it
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(f"{where}={value!r} must be of type {hint.__name__}")
    return value


def load_recipe(path: str | Path) -> RunConfig:
    """Read a recipe.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is not TOML, or a setting is unknown, missing or wrong; the message names file and
            setting.
    """
    path = Path(path)
    if not path.is_file():
        shipped = ", ".join(sorted(p.name for p in (Path(__file__).parent / "recipes").glob("*.toml")))
        raise FileNotFoundError(f"no recipe {path}; train/recipes has {shipped}")
    try:
        return from_dict(RunConfig, tomllib.loads(path.read_text(encoding="utf-8-sig")))  # Windows editors add a mark
    except (ValueError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: {error}") from error


def to_toml(config: RunConfig) -> str:
    """The resolved configuration; `load_recipe` reads it back to an equal one."""
    lines: list[str] = []

    def literal(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, str):
            return json.dumps(value, ensure_ascii=False)  # the escapes of JSON are TOML's too
        if isinstance(value, tuple | list):
            return "[" + ", ".join(literal(item) for item in value) + "]"
        return repr(value)

    def table(values: dict[str, Any], path: str) -> None:
        nested = {}
        for name, value in values.items():
            if value == {}:
                continue
            is_tables = isinstance(value, tuple) and value and isinstance(value[0], dict)
            if isinstance(value, dict) or is_tables:
                nested[name] = value
            else:
                lines.append(f"{name} = {literal(value)}")
        for name, value in nested.items():
            for part in value if isinstance(value, tuple) else [value]:
                brackets = ("[[", "]]") if isinstance(value, tuple) else ("[", "]")
                lines.append(f"\n{brackets[0]}{path}{name}{brackets[1]}")
                table(part, f"{path}{name}.")

    table(dataclasses.asdict(config), "")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, kw_only=True)
class _RecipePath:
    recipe: Path = field(metadata={"help": "a TOML file; train/recipes has some"})


def parse(arguments: Sequence[str], program: str) -> RunConfig:
    """`--recipe FILE` and overrides such as `--optim.peak-lr 1e-4`.

    Raises:
        ValueError: if the recipe is wrong.
        SystemExit: of tyro, for wrong or helpful arguments.
    """
    known, rest = tyro.cli(_RecipePath, args=list(arguments), return_unknown_args=True, prog=program, add_help=False)
    return tyro.cli(RunConfig, default=load_recipe(known.recipe), args=rest, prog=program)
