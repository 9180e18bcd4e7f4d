"""python -m eval: predict, join, score, judge, judge-llm, table, report, suites, explain, card, ablate, demo."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from minimllama.console import say

LONGEST_WAIT = 86_400  # seconds that a rank whose part is done waits for the others


def _predict(arguments: Sequence[str]) -> None:
    from eval.predict import PredictConfig, run_predict
    from eval.shards import join_shards
    from train.distributed import start, stop

    config = tyro.cli(PredictConfig, args=arguments, prog="python -m eval predict")
    world = start(config.device, LONGEST_WAIT)
    config = replace(config, device=str(world.device))
    try:
        if world.size > 1:
            if config.shard != PredictConfig.shard:
                raise ValueError(f"shard={config.shard!r}: under torchrun every rank takes its own part")
            config = replace(config, shard=f"{world.rank}/{world.size}")
        path = run_predict(config)
        world.wait()
        if world.size > 1 and world.is_main:
            path = join_shards(config.out, world.size)
        world.say(f"wrote {path}")
    finally:
        stop()


def _suites(arguments: Sequence[str]) -> None:
    from eval.suites import SUITES

    if unknown := [name for name in arguments if name not in SUITES]:
        raise ValueError(f"no suite {', '.join(unknown)}; there are {', '.join(SUITES)}")
    for name in arguments or SUITES:
        say(SUITES[name].line())


@dataclass(frozen=True, kw_only=True)
class JoinConfig:
    """Parts made with --shard i/n, one process each.

    Attributes:
        out: the file that they are parts of.
        parts: n.
    """

    out: Path
    parts: int


def _join(arguments: Sequence[str]) -> None:
    from eval.shards import join_shards

    config = tyro.cli(JoinConfig, args=arguments, prog="python -m eval join")
    say(f"wrote {join_shards(config.out, config.parts)}")


def _score(arguments: Sequence[str]) -> None:
    from eval.score import ScoreConfig, score
    from eval.tables import table_text

    config = tyro.cli(ScoreConfig, args=arguments, prog="python -m eval score")
    say(table_text({config.predictions.stem: score(config)}))


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """Two reports to compare.

    Attributes:
        reference, candidate: texts.
        judge: of JUDGES.
    """

    reference: str
    candidate: str
    judge: str = "rules"


def _judge(arguments: Sequence[str]) -> None:
    from eval.judge import JUDGES

    config = tyro.cli(JudgeConfig, args=arguments, prog="python -m eval judge")
    if config.judge not in JUDGES:
        raise ValueError(f"judge={config.judge!r} is not one of {', '.join(JUDGES)}")
    verdict = JUDGES[config.judge](config.reference, config.candidate)
    say(json.dumps({"score": round(verdict.score, 2), "criteria": verdict.criteria}))


def _judge_llm(arguments: Sequence[str]) -> None:
    from eval.judge_run import JudgeRunConfig, run_judge

    say(f"wrote {run_judge(tyro.cli(JudgeRunConfig, args=arguments, prog='python -m eval judge-llm'))}")


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """Which models stand in the table.

    Attributes:
        scores: name=scores.json, in the order of the rows.
        judged: name=judged.json of `judge-llm`, for the same names: its marks instead of the rules'.
        out: also write the numbers there, as JSON.
    """

    scores: tuple[str, ...]
    judged: tuple[str, ...] = ()
    out: Path | None = None


def _table(arguments: Sequence[str]) -> None:
    from eval.judged import read_scores
    from eval.tables import table_json, table_text

    config = tyro.cli(TableConfig, args=arguments, prog="python -m eval table")
    models = read_scores(config.scores, config.judged)
    say(table_text(models))
    if config.out is not None:
        if config.out.exists():
            raise FileExistsError(f"{config.out} exists")
        config.out.write_text(json.dumps(table_json(models), indent=1) + "\n")


def _report(arguments: Sequence[str]) -> None:
    from eval.judged import JudgedReportConfig, write_judged_report

    say(f"wrote {write_judged_report(tyro.cli(JudgedReportConfig, args=arguments, prog='python -m eval report'))}")


def _explain(arguments: Sequence[str]) -> None:
    from eval.explain import ExplainConfig, explained_text, run_explain

    out = run_explain(tyro.cli(ExplainConfig, args=arguments, prog="python -m eval explain"))
    say(f"{explained_text(out)}\n\nwrote {out}")


def _card(arguments: Sequence[str]) -> None:
    from eval.model_card import CardConfig, write_card

    say(f"wrote {write_card(tyro.cli(CardConfig, args=arguments, prog='python -m eval card'))}")


def _demo(arguments: Sequence[str]) -> None:
    from eval.demo import DemoConfig, run_demo

    run_demo(tyro.cli(DemoConfig, args=arguments, prog="python -m eval demo"))


def _ablate(arguments: Sequence[str]) -> None:
    from eval.ablate import AblateConfig, run_ablation

    if run_ablation(tyro.cli(AblateConfig, args=arguments, prog="python -m eval ablate")):
        raise SystemExit(1)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "predict": _predict,
    "join": _join,
    "score": _score,
    "judge": _judge,
    "judge-llm": _judge_llm,
    "table": _table,
    "report": _report,
    "suites": _suites,
    "ablate": _ablate,
    "explain": _explain,
    "card": _card,
    "demo": _demo,
}


def main(arguments: list[str]) -> int:
    """Run one command.

    Wrong input ends with one line on standard error and exit code 2; what the system refuses with 1.
    """
    if not arguments or arguments[0] not in COMMANDS:
        sys.stderr.write(f"usage: python -m eval {{{','.join(COMMANDS)}}} [--help]\n")
        return 2
    try:
        COMMANDS[arguments[0]](arguments[1:])
    except (ValueError, FileNotFoundError, FileExistsError, RuntimeError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except (OSError, ModuleNotFoundError) as error:  # a full disk, a folder that is not ours, an extra
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    from train.distributed import leave

    leave(main(sys.argv[1:]))
