"""python -m train.ecg page | measure | simulate | render: a record drawn or measured, simulated patients, pictures."""

import dataclasses
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from train.ecg import LEADS, STYLES, draw_page, open_source, read_record, write_record
from train.ecg.measure import PER_LEAD, UNITS, measure
from train.ecg.sources import source_options


@dataclass(frozen=True, kw_only=True)
class PageConfig:
    """What to draw.

    Attributes:
        record: of WFDB, with or without .hea.
        out: the picture.
        style: of STYLES.
        seed: of what the style leaves to chance.
        check: refuse limb leads that contradict each other.
    """

    record: tyro.conf.Positional[Path]
    out: Path = Path("page.png")
    style: str = "square"
    seed: int = 0
    check: bool = True


def _page(arguments: Sequence[str]) -> str:
    config = tyro.cli(PageConfig, args=arguments, prog="python -m train.ecg page")
    if config.style not in STYLES:
        raise ValueError(f"style={config.style!r} is not one of {', '.join(STYLES)}")
    if config.out.exists():
        raise FileExistsError(f"{config.out} exists")
    record = read_record(config.record, check=config.check)
    page = draw_page(record, STYLES[config.style], np.random.default_rng(config.seed))
    page.image.save(config.out)
    return (
        f"wrote {config.out}: {record.record_id}, {record.seconds:g} s at {record.hz:g} Hz, "
        f"{page.image.width} x {page.image.height} px, {page.px_per_mm} px/mm"
    )


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """What to measure.

    Attributes:
        record: of WFDB, with or without .hea.
        check: refuse limb leads that contradict each other.
    """

    record: tyro.conf.Positional[Path]
    check: bool = True


def _measure(arguments: Sequence[str]) -> str:
    config = tyro.cli(MeasureConfig, args=arguments, prog="python -m train.ecg measure")
    record = read_record(config.record, check=config.check)
    found = measure(record.signal, record.hz)
    lines = [
        f"{name:14}{_printed(found[name], 0 if unit else 2)} {unit}".rstrip()
        for name, unit in UNITS.items()
        if name not in PER_LEAD
    ]
    if found["r"] is not None:
        lines += ["", "lead  " + "".join(f"{name + ' ' + UNITS[name]:>12}" for name in PER_LEAD)]
        lines += [f"{lead:6}" + "".join(f"{_in_lead(found, name, lead):>12}" for name in PER_LEAD) for lead in LEADS]
    return "\n".join(lines)


def _in_lead(found: dict[str, Any], name: str, lead: str) -> str:
    value = None if found[name] is None else found[name][lead]
    return "-" if value is None else f"{value:.{2 if UNITS[name] == 'mV' else 0}f}"


def _printed(value: float | None, digits: int) -> str:
    return "cannot be told" if value is None else str(value) if isinstance(value, bool | int) else f"{value:.{digits}f}"


@dataclass(frozen=True, kw_only=True)
class SimulateConfig:
    """What to simulate.

    Attributes:
        out: a folder.
        n: patients.
        seed: of all of them.
        split: "train", "validate" or "test"; stands in each header.
        hz: sampling rate.
    """

    out: Path
    n: int = 10
    seed: int = 0
    split: str = "train"
    hz: float = 500.0


def _simulate(arguments: Sequence[str]) -> str:
    from dataclasses import replace

    config = tyro.cli(SimulateConfig, args=arguments, prog="python -m train.ecg simulate")
    source = open_source("simulated", None, config.split, n=config.n, seed=config.seed, hz=config.hz)
    for index in range(len(source)):
        write_record(replace(source[index], split=config.split), config.out)
    return f"wrote {config.n} records to {config.out}"


@dataclass(frozen=True, kw_only=True)
class RenderConfig:
    """Pictures and dialogs in ECGInstruct's layout; see train/ecg/render.py.

    Attributes:
        out: a folder; a stopped run goes on where it stopped.
        source: of SOURCES.
        root: its folder.
        split: "train", "validate" or "test".
        options: of the source, as name=value.
        shards: into how many .tar files the records are cut.
        shard: "i/n": of n machines this is number i, counted from 0; by default torchrun's rank and size.
        workers: processes here.
        style: of STYLES.
        distort: a preset or a distortion; "clean" leaves the drawing as it is.
        tasks: of TASKS; each dialog draws one.
        label_set: of LABEL_SETS.
        questions: dialogs per picture.
        wording: "fixed" or "varied".
        report: "any", "given" or "statements".
        seed: of all that is random.
    """

    out: Path
    source: str
    root: str = ""
    split: str = "train"
    options: tuple[str, ...] = ()
    shards: int = 1
    shard: str = ""
    workers: int = 1
    style: str = "square"
    distort: str = "clean"
    tasks: tuple[str, ...] = ("report",)
    label_set: str = "statements"
    questions: int = 1
    wording: str = "varied"
    report: str = "any"
    seed: int = 0


def _render(arguments: Sequence[str]) -> str:
    from train.ecg.render import Rendering, render

    config = tyro.cli(RenderConfig, args=arguments, prog="python -m train.ecg render")
    fields = {f.name for f in dataclasses.fields(Rendering)} - {"options"}
    chosen = {name: getattr(config, name) for name in fields}
    rendering = Rendering(**chosen, options=parse_options(config.source, config.options))
    part, pictures, done = choose_part(config.shard, os.environ), 0, 0
    for done, of, drawn in render(rendering, config.out, part, config.workers):
        pictures += drawn
        sys.stderr.write(f"\r{done} of {of} shards, {pictures:,} pictures" + ("\n" if done == of else ""))
    return f"wrote {pictures:,} pictures to {config.out}, {done} shards are there"


def choose_part(text: str, environment: Mapping[str, str]) -> tuple[int, int]:
    """(i, n) of "i/n"; without it, torchrun's rank and size, or all of the work."""
    if not text:
        return int(environment.get("RANK", "0")), int(environment.get("WORLD_SIZE", "1"))
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None:
        raise ValueError(f"shard={text!r} must be i/n, such as 0/4")
    return int(match.group(1)), int(match.group(2))


def parse_options(source: str, texts: Sequence[str]) -> dict[str, Any]:
    """Options of a source, "name=value", as the types that they have there."""
    accepted, options = source_options(source), {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in accepted:
            raise ValueError(
                f"option {text!r} of source {source} must be name=value with a name of {', '.join(accepted)}"
            )
        kind = str if accepted[name] is None else type(accepted[name])
        if kind is bool and value not in ("true", "false"):
            raise ValueError(f"option {text!r} must be true or false")
        try:
            options[name] = value == "true" if kind is bool else kind(value)
        except ValueError as error:
            raise ValueError(f"option {text!r} must be of type {kind.__name__}") from error
    return options


COMMANDS: dict[str, Callable[[Sequence[str]], str]] = {
    "page": _page,
    "simulate": _simulate,
    "render": _render,
    "measure": _measure,
}


def main(arguments: list[str]) -> int:
    """Run one command; wrong input ends with one line on standard error and exit code 2."""
    if not arguments or arguments[0] not in COMMANDS:
        sys.stderr.write(f"usage: python -m train.ecg {{{','.join(COMMANDS)}}} [--help]\n")
        return 2
    try:
        sys.stdout.write(COMMANDS[arguments[0]](arguments[1:]) + "\n")
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
