"""`python -m eval ablate`: train and score every variant of an ablation, each as the commands that a user would type.

A run is a folder out/<variant>-seed<seed>: `training` (the run folder), validate.jsonl, test.jsonl, scores.json. What
is done is not done again, a killed run goes on, and a run that fails costs its row only. What another ablation has done
with the same recipe and seed can be taken from it.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType

from eval.ablate_plan import plan_text
from eval.ablate_plot import plot_svg
from eval.ablate_spec import (
    UNTUNED,
    Ablation,
    Variant,
    flat,
    load_ablation,
    main_protocol,
    recipe_of,
    score_commands,
    train_command,
    typed,
)
from eval.ablate_table import collect, table_markdown
from minimllama.console import duration, say
from train.config import RunConfig
from train.faults import only_run

PARTIAL = ".partial"  # behind the name of a folder that is being copied


@dataclass(frozen=True, kw_only=True)
class AblateConfig:
    """What to run.

    Attributes:
        ablation: a TOML file; eval/ablations has some.
        base: another base recipe than the file's.
        out: the folder; runs/ablations/<name> if None.
        only: variants to train; all if empty. The table still shows all that are done.
        seeds: of training, instead of the file's.
        processes: ranks of training and predicting.
        reuse: folders of other ablations: a run that was finished there with the same recipe, seed and scoring is
            copied, not run again; one that was scored on something else is only scored again.
        dry_run: print commands and planned cost, run nothing.
        preset: of PRESETS, beside the recipe's model in the plan.
    """

    ablation: Path
    base: str = ""
    out: Path | None = None
    only: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    processes: int = 1
    reuse: tuple[Path, ...] = ()
    dry_run: bool = False
    preset: str = "11b"

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise ValueError(f"processes={self.processes} must be positive")
        if absent := [str(folder) for folder in self.reuse if not folder.is_dir()]:
            raise FileNotFoundError(f"reuse: there is no folder {', '.join(absent)}")


@dataclass(frozen=True, kw_only=True)
class OneRun:
    """One variant with one seed, or the model that none has trained (seed None)."""

    variant: Variant
    seed: int | None
    folder: Path
    recipe: RunConfig

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.folder.name

    def trained(self) -> Path:
        """The file whose presence says that training has ended."""
        is_lora = self.recipe.tuning.method == "lora"
        return self.folder / "training" / ("adapter/adapter_config.json" if is_lora else "model/config.json")


def runs_of(ablation: Ablation, out: Path) -> list[OneRun]:
    """The untuned model, then every variant with every seed."""
    bare = Variant(name=UNTUNED)
    base = OneRun(variant=bare, seed=None, folder=out / UNTUNED, recipe=recipe_of(ablation, bare, ablation.seeds[0]))
    tuned = [
        OneRun(variant=v, seed=seed, folder=out / f"{v.name}-seed{seed}", recipe=recipe_of(ablation, v, seed))
        for v in ablation.variants
        for seed in ablation.seeds
    ]
    return [base, *tuned]


def steps_of(ablation: Ablation, run: OneRun, processes: int) -> list[tuple[Path, list[str]]]:
    """The commands of a run, each behind the file whose presence means that it is done (predictions resume)."""
    scores = run.folder / "scores.json"
    commands = score_commands(ablation, run.recipe, run.folder, processes, tuned=run.seed is not None)
    steps = [(scores, command) for command in commands]
    if run.seed is None:
        return steps
    training = train_command(ablation, run.variant, run.seed, run.folder, processes)
    return [(run.trained(), training), *steps]


def _settings(ablation: Ablation, run: OneRun, processes: int) -> dict[str, object]:
    recipe = json.loads(json.dumps(asdict(run.recipe)))
    if run.seed is None:  # nothing else of the recipe reaches a model that is not trained
        recipe = {"model": recipe["model"], "semantics": recipe["semantics"], "page": recipe["data"]["page"]}
    scoring = {k: list(v) if k == "options" else v for k, v in asdict(ablation.score).items() if k != "options" or v}
    return {"recipe": recipe, "score": scoring, "processes": processes}


def find_finished(ablation: Ablation, run: OneRun, processes: int, folders: Sequence[Path]) -> list[Path]:
    """What other ablations have done that is this run's in all but its name.

    Returns:
        A finished run's folder, if its recipe, seed and scoring are this run's; else `training` of one that was only
        scored on something else; else nothing.
    """
    wanted = _settings(ablation, run, processes)
    trained = []
    for note in (note for folder in folders for note in sorted(folder.glob("*/settings.json"))):
        there, settings = note.parent, json.loads(note.read_text())
        if there.suffix == PARTIAL or (there.name == UNTUNED) != (run.seed is None):
            continue
        if settings == wanted and (there / "scores.json").exists():
            return [there]
        alike = {**settings, "score": wanted["score"]} == wanted
        if alike and run.seed is not None and (there / run.trained().relative_to(run.folder)).exists():
            trained.append(there / "training")
    return trained[:1]


def _take(found: Path, run: OneRun) -> None:
    """Copy a finished run or its training, all at once, without the states from which a training could go on."""
    say(f"taken from {found}")
    partial = run.folder.with_name(f"{run.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    into = partial / "training" if found.name == "training" else partial
    shutil.copytree(found, into, ignore=shutil.ignore_patterns("checkpoint-*", "latest"))
    os.rename(partial, run.folder)


def check_settings(ablation: Ablation, runs: Sequence[OneRun], processes: int) -> None:
    """Refuse to go on with runs that were made with other settings.

    Raises:
        FileExistsError: which names the run and what differs.
    """
    for run in runs:
        note = run.folder / "settings.json"
        if not note.exists():
            continue
        before, now = flat(json.loads(note.read_text())), flat(_settings(ablation, run, processes))
        if changed := [n for n in {**before, **now} if before.get(n) != now.get(n)]:
            shown = ", ".join(f"{n} ({before.get(n)} then, {now.get(n)} now)" for n in changed)
            raise FileExistsError(f"{run.folder} was made with other settings: {shown}. Choose another --out")


Caller = Callable[[list[str]], tuple[int, str]]  # of a command: exit code, last line of its errors


class _Stopped(BaseException):
    """The ablation was asked to stop."""


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped


def call(command: list[str]) -> tuple[int, str]:
    """Run a command, its words shown as they come.

    Returns:
        Exit code, and the last line that it wrote to standard error.
    """
    said: deque[str] = deque(maxlen=50)
    process = subprocess.Popen([sys.executable, "-m", *command], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            sys.stderr.write(line)
            said.append(line.strip())
        return process.wait(), next((line for line in reversed(said) if line), "")
    except BaseException:
        process.terminate()  # a training saves its state and ends
        process.wait()
        raise


def _run_one(ablation: Ablation, run: OneRun, processes: int, caller: Caller) -> str | None:
    """Do what is not done yet; returns why it failed, or None."""
    run.folder.mkdir(parents=True, exist_ok=True)
    settings = json.dumps(_settings(ablation, run, processes), indent=1)
    partial = run.folder / "settings.json.partial"
    partial.write_text(settings + "\n")
    os.replace(partial, run.folder / "settings.json")
    for done, command in steps_of(ablation, run, processes):
        if done.exists():
            continue
        say(f"\n{typed(command)}")
        code, last = caller(command)
        if code:
            return f"`{' '.join(command[:2])}` ended with exit code {code}: {last}"
        if "train" in command[:7] and not done.exists():
            return "training was stopped; the same command goes on"
    return None


def _planned(config: AblateConfig) -> tuple[Ablation, Path]:
    ablation = load_ablation(config.ablation, config.base)
    if config.seeds:
        ablation = replace(ablation, seeds=config.seeds)
    for name in config.only:
        ablation.variant(name)
    return ablation, config.out or Path("runs") / "ablations" / ablation.name


def _report(ablation: Ablation, runs: Sequence[OneRun], out: Path, failed: dict[str, str]) -> str:
    """Write table.json, table.md and plot.svg of what is done; returns the table."""
    result = collect(ablation, runs, failed)
    (out / "table.json").write_text(json.dumps(result, indent=1) + "\n")
    text = table_markdown(result)
    (out / "table.md").write_text(text)
    if any(row["n_seeds"] for row in result["rows"].values()):
        (out / "plot.svg").write_text(plot_svg(result, main_protocol(ablation)))
    return text


def run_ablation(config: AblateConfig, caller: Caller = call) -> int:
    """Run what is not done yet, then write the table and the plot.

    Args:
        config: what to run.
        caller: runs a command; as a process of its own.

    Returns:
        Exit code: 1 if a run failed.

    Raises:
        FileExistsError: if a run was made with other settings, or another process works in the folder.
        FileNotFoundError, ValueError: for a wrong ablation, recipe or variant.
    """
    ablation, out = _planned(config)
    runs = runs_of(ablation, out)
    chosen = [run for run in runs if not config.only or run.seed is None or run.variant.name in config.only]
    if config.dry_run:
        for run in chosen:
            say("\n".join(typed(command) for _, command in steps_of(ablation, run, config.processes)) + "\n")
        say(plan_text(ablation, runs, config.preset, config.processes))
        return 0
    check_settings(ablation, runs, config.processes)
    failed: dict[str, str] = {}
    began, before = time.perf_counter(), signal.signal(signal.SIGTERM, _stop)
    try:
        with only_run(out):
            for i, run in enumerate(chosen, start=1):
                say(f"\n[{duration(time.perf_counter() - began)}] {i}/{len(chosen)} {run.name}")
                for found in find_finished(ablation, run, config.processes, config.reuse):
                    if not run.folder.exists():
                        _take(found, run)
                if reason := _run_one(ablation, run, config.processes, caller):
                    failed[run.name] = reason
                    sys.stderr.write(f"error: {run.name}: {reason}\n")
            say(f"\n{_report(ablation, runs, out, failed)}")
    except _Stopped:
        sys.stderr.write("stopped; the same command goes on\n")
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)
    say(f"wrote {out / 'table.json'}, {out / 'table.md'}, {out / 'plot.svg'}")
    return 1 if failed else 0
