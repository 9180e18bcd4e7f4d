"""python -m train.ecg page | simulate: draw a WFDB record on paper, write simulated patients as WFDB."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from train.ecg import STYLES, draw_page, open_source, read_record, write_record


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


COMMANDS: dict[str, Callable[[Sequence[str]], str]] = {"page": _page, "simulate": _simulate}


def main(arguments: list[str]) -> int:
    """Run one command; wrong input ends with one line on standard error and exit code 2."""
    if not arguments or arguments[0] not in COMMANDS:
        sys.stderr.write(f"usage: python -m train.ecg {{{','.join(COMMANDS)}}} [--help]\n")
        return 2
    try:
        sys.stdout.write(COMMANDS[arguments[0]](arguments[1:]) + "\n")
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
