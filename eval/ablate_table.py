"""The table of an ablation: means over seeds, their spread, paired differences, what it cost, and what needs no model.

Shapes: N records, D draws.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.ablate_plan import counted
from eval.ablate_spec import UNTUNED, Ablation
from eval.bootstrap import draw_patients, percentile_interval, weighted_ranking
from eval.predict import read_predictions
from eval.score import eligible, score_matrix, truth_matrix
from eval.suites import SUITES
from minimllama.console import duration
from train.config import RunConfig
from train.log import read_log
from train.plan import model_config

METRICS = {"auc": "macro_auc", "macro_f1": "macro_f1", "hamming": "hamming"}
HEADINGS = {"auc": "AUC", "macro_f1": "macro F1", "hamming": "Hamming"}
PROTOCOLS = {"superclass": "5 superclasses", "statements": "all statements"}


def draws_of_auc(path: Path, suite: str, protocol: str, n_draws: int) -> np.ndarray:
    """Macro AUC of every draw of patients, float [D]; the same draws for all files over the same records.

    Labels without one of the outcomes among the records are left out, as in eval.metrics.
    """
    label_set = SUITES[suite].scored_sets[protocol]
    lines = eligible(read_predictions(path), protocol)
    lines.sort(key=lambda line: line["id"])
    y, scores = truth_matrix(lines, protocol, label_set), score_matrix(lines, protocol, label_set)
    draws = draw_patients(y, [line["patient_id"] for line in lines], n_draws, np.random.default_rng(0))
    both = np.flatnonzero(y.any(0) & ~y.all(0))
    aucs = [weighted_ranking(y[:, i : i + 1], scores[:, i : i + 1], draws.weights)[0] for i in both]
    return np.nanmean(np.stack(aucs), axis=0)  # [D]


def paired_difference(
    ours: Sequence[Path], others: Sequence[Path], suite: str, protocol: str, n_draws: int
) -> list[float] | None:
    """95 % interval of the AUC of some runs minus that of others, both drawn with the same patients.

    Means over the runs of either side are compared. It says how much the choice of the test's patients matters, not how
    much the seed of the training does.
    """
    means = [
        np.mean([draws_of_auc(path, suite, protocol, n_draws) for path in side], axis=0) for side in (ours, others)
    ]
    return percentile_interval(means[0] - means[1])


def measured(training: Path) -> dict[str, float]:
    """Seconds of all steps, peak bytes and pages of a finished run, from its log; of the first rank."""
    log = read_log(training)
    pages = np.diff([0, *(line["samples"] for line in log)])
    return {
        "seconds": float(sum(n / line["images_per_s"] for n, line in zip(pages, log, strict=True))),
        "peak_memory_bytes": float(max(line["peak_memory_bytes"] for line in log)),
        "samples": float(log[-1]["samples"]),
    }


def _mean(values: Sequence[float]) -> dict[str, Any]:
    return {"mean": float(np.mean(values)), "min": min(values), "max": max(values), "values": list(values)}


def _protocol(scores: Sequence[Mapping[str, Any]], protocol: str) -> dict[str, Any]:
    """Every metric over the seeds; with one seed, also the interval over patients."""
    parts = [one["protocols"][protocol]["from_scores"] for one in scores]
    found: dict[str, Any] = {"n": parts[0]["n"], "n_labels": parts[0]["n_labels"]}
    for name, metric in METRICS.items():
        found[name] = _mean([part[metric] for part in parts])
        found[name]["interval"] = parts[0]["intervals"]["means"][metric] if len(parts) == 1 else None
    return found


def n_trained(recipe: RunConfig) -> int | None:
    """Parameters that a recipe trains; None if its model is not here."""
    try:
        return counted(model_config(recipe, ""), recipe, 1)[0].n_trainable
    except FileNotFoundError:
        return None


def _row(ablation: Ablation, runs: Sequence[Any], reference: Sequence[Any], failed: Mapping[str, str]) -> Any:
    done = [run for run in runs if (run.folder / "scores.json").exists()]
    row: dict[str, Any] = {
        "n_seeds": len(done),
        "seeds": [run.seed for run in done],
        "failed": {run.name: failed[run.name] for run in runs if run.name in failed},
        "n_trained": 0 if runs[0].seed is None else n_trained(runs[0].recipe),
    }
    if not done:
        return row
    scores = [json.loads((run.folder / "scores.json").read_text()) for run in done]
    row["protocols"] = {protocol: _protocol(scores, protocol) for protocol in scores[0]["protocols"]}
    if runs[0].seed is not None:
        costs = [measured(run.folder / "training") for run in done]
        row |= {name: _mean([cost[name] for cost in costs]) for name in costs[0]}
    pairs = {run.seed: run for run in reference if (run.folder / "scores.json").exists()}
    paired = [run for run in done if run.seed in pairs]
    if paired and runs[0].variant.name != reference[0].variant.name:
        files = [[run.folder / "test.jsonl" for run in side] for side in (paired, [pairs[r.seed] for r in paired])]
        for protocol, part in row["protocols"].items():
            drawn = paired_difference(files[0], files[1], ablation.score.suite, protocol, ablation.score.bootstrap)
            part["auc_minus_reference"] = drawn
    return row


def collect(ablation: Ablation, runs: Sequence[Any], failed: Mapping[str, str]) -> dict[str, Any]:
    """Everything that is done, as JSON types.

    Args:
        ablation: what was asked.
        runs: of `runs_of`.
        failed: why, by the run's name.
    """
    by_name: dict[str, list[Any]] = {}
    for run in runs:
        by_name.setdefault(run.variant.name, []).append(run)
    reference = by_name[ablation.variants[0].name]
    rows = {name: _row(ablation, own, reference, failed) for name, own in by_name.items()}
    files = [run.folder / "scores.json" for run in runs if (run.folder / "scores.json").exists()]
    first = json.loads(files[0].read_text()) if files else {"protocols": {}, "n_validation": 0, "synthetic": False}
    return {
        "name": ablation.name,
        "question": ablation.question,
        "reference": ablation.variants[0].name,
        "seeds": list(ablation.seeds),
        "suite": ablation.score.suite,
        "synthetic": first["synthetic"],
        "n_validation": first["n_validation"],
        "rows": rows,
        "trivial": {protocol: part["trivial"] for protocol, part in first["protocols"].items()},
    }


def _shown(part: Mapping[str, Any]) -> str:
    """Mean, and in brackets the interval over patients (one seed) or the range over seeds."""
    bounds = part["interval"] or (part["min"], part["max"])
    return f"{part['mean']:.3f} ({bounds[0]:.3f}-{bounds[1]:.3f})"


def _lines_of_protocol(result: Mapping[str, Any], protocol: str) -> list[list[str]]:
    lines = [
        [name, *(f"{values[METRICS[metric]]:.3f}" for metric in METRICS), ""]
        for name, values in result["trivial"].get(protocol, {}).items()
    ]
    for name, row in result["rows"].items():
        if not row["n_seeds"]:
            lines.append([f"**{name}**", "-", "-", "-", ""])
            continue
        part = row["protocols"][protocol]
        drawn = part.get("auc_minus_reference")
        between = f"{drawn[0]:+.3f} to {drawn[1]:+.3f}" if drawn else ""
        lines.append([f"**{name}**", *(_shown(part[metric]) for metric in METRICS), between])
    return lines


def _lines_of_cost(result: Mapping[str, Any]) -> list[list[str]]:
    lines = []
    for name, row in result["rows"].items():
        if name == UNTUNED:
            continue
        trained = "-" if row["n_trained"] is None else f"{row['n_trained']:,}"
        if not row["n_seeds"]:
            lines.append([f"**{name}**", trained, "-", "-", "-", "0"])
            continue
        memory = f"{row['peak_memory_bytes']['mean'] / 2**20:,.0f}"
        seconds, pages = duration(row["seconds"]["mean"]), f"{row['samples']['mean']:,.0f}"
        lines.append([f"**{name}**", trained, seconds, memory, pages, str(row["n_seeds"])])
    return lines


def _markdown(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(headings) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, rule, *lines))


def table_markdown(result: Mapping[str, Any]) -> str:
    """Both protocols, then what it cost, then what failed."""
    kind = "SIMULATED records, not patients" if result["synthetic"] else "records"
    reference, parts = result["reference"], [f"{result['question']}"]
    is_one = len(result["seeds"]) == 1
    bracket = "95 % intervals over the test's patients" if is_one else "smallest and largest of the seeds"
    scored = next((row for row in result["rows"].values() if row["n_seeds"]), None)
    for protocol in result["trivial"]:
        about = scored["protocols"][protocol] if scored else {"n": 0, "n_labels": 0}
        parts.append(
            f"{PROTOCOLS.get(protocol, protocol)}: n = {about['n']} {kind}, {about['n_labels']} labels; thresholds "
            f"from {result['n_validation']} others. Training seeds {', '.join(map(str, result['seeds']))}; in "
            f"brackets {bracket}. Last column: 95 % interval of the difference in AUC to {reference}, on the same "
            "draws of patients; one that holds 0 is no difference."
        )
        headings = ["", *HEADINGS.values(), f"AUC minus {reference}'s"]
        parts.append(_markdown(headings, _lines_of_protocol(result, protocol)))
    headings = ["", "trained parameters", "time of steps", "peak MiB", "pages", "seeds done"]
    parts.append(_markdown(headings, _lines_of_cost(result)))
    failures = {name: why for row in result["rows"].values() for name, why in row["failed"].items()}
    parts += [f"**{name} failed**: {why}" for name, why in failures.items()]
    return "\n\n".join(parts) + "\n"
