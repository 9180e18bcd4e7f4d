"""python -m train run | plan | show | doctor | tokenizer: train a recipe, what it needs, its data, a tokenizer."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro

from minimllama.console import say
from train.config import parse


def _run(arguments: list[str]) -> None:
    from train.distributed import check_launcher
    from train.loop import run

    check_launcher()
    run(parse(arguments, "python -m train run"))


def _plan(arguments: list[str]) -> None:
    from train.plan import PlanConfig, make_plan

    options, rest = tyro.cli(PlanConfig, args=arguments, return_unknown_args=True, prog="python -m train plan")
    say(make_plan(parse(rest, "python -m train plan"), options))


@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """What to show.

    Attributes:
        position: of the sample, counted from the start of the run.
        out: where the page goes.
    """

    position: int = 0
    out: Path = Path("sample.png")


def _show(arguments: list[str]) -> None:
    from train.show import show

    options, rest = tyro.cli(ShowConfig, args=arguments, return_unknown_args=True, prog="python -m train show")
    say(show(parse(rest, "python -m train show"), options.position, options.out)[1])


def _doctor(arguments: list[str]) -> None:
    from train.doctor import DoctorConfig, examine, report

    options, rest = tyro.cli(DoctorConfig, args=arguments, return_unknown_args=True, prog="python -m train doctor")
    findings = examine(parse(rest, "python -m train doctor"), options)
    say(report(findings))
    if any(finding.level == "error" for finding in findings):
        raise SystemExit(1)


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """A tokenizer for a model that is trained from scratch.

    Attributes:
        out: the file to write.
        vocabulary: number of pieces.
        records: simulated patients whose questions and answers it is made from.
        seed: of those.
    """

    out: Path
    vocabulary: int = 768
    records: int = 1200
    seed: int = 11


def _tokenizer(arguments: list[str]) -> None:
    from train.tokenizer import question_texts, train_tokenizer

    config = tyro.cli(TokenizerConfig, args=arguments, prog="python -m train tokenizer")
    train_tokenizer(question_texts(config.records, config.seed), config.vocabulary, config.out)
    say(f"wrote {config.out}")


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "run": _run,
    "plan": _plan,
    "show": _show,
    "doctor": _doctor,
    "tokenizer": _tokenizer,
}


def main(arguments: list[str]) -> int:
    """Run one command.

    Wrong input ends with one line on standard error and exit code 2; a run that cannot go on with 1.
    """
    if not arguments or arguments[0] not in COMMANDS:
        sys.stderr.write(f"usage: python -m train {{{','.join(COMMANDS)}}} [--help]\n")
        return 2
    try:
        COMMANDS[arguments[0]](arguments[1:])
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except (FloatingPointError, MemoryError, OSError, ModuleNotFoundError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    from train.distributed import leave

    leave(main(sys.argv[1:]))
