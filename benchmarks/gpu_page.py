"""The results of benchmarks/gpu.py as a page of Markdown, from its lines of JSON."""

import argparse
import datetime
import json
import statistics
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.on_device import Row
from benchmarks.results import hardware
from train.flops import peak_flops

GIB = 2**30


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} not installed"


def describe(options: argparse.Namespace, arguments: Sequence[str], *, with_theirs: bool) -> Row:
    """What was run, where and with what."""
    return {
        "date": f"{datetime.date.today():%Y-%m-%d}",
        "hardware": hardware(),
        "peak_flops": peak_flops(torch.cuda.get_device_name()) if options.device == "cuda" else None,
        "versions": ", ".join(_version(name) for name in ("torch", "transformers", "peft")),
        "command": " ".join(["python -m benchmarks gpu", *arguments]),
        "size": options.size,
        "length": options.length,
        "answers": options.answers,
        "with_theirs": with_theirs,
        "note": options.note,
    }


def _median(row: Row | None, name: str = "seconds") -> float | None:
    return None if row is None or name not in row else statistics.median(row[name])


def _spread(row: Row | None, name: str = "seconds", unit: str = "s") -> str:
    if row is None:
        return ""
    if name not in row:
        return "failed"
    values = row[name]
    return f"{statistics.median(values):.3g} {unit} ({min(values):.3g}..{max(values):.3g}, n={len(values)})"


def _ratio(ours: float | None, theirs: float | None) -> str:
    return "" if ours is None or theirs is None else f"**{theirs / ours:.2f}**"


def _gib(row: Row | None, name: str = "peak_bytes") -> str:
    return "" if row is None or row.get(name) is None else f"{row[name] / GIB:.2f}"


def _line(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _head(*names: str) -> list[str]:
    return [_line(*names), "|" + "---|" * len(names)]


def _pairs(rows: Sequence[Row], parts: Sequence[str], keys: Sequence[str]) -> Iterator[tuple[Row, Row | None]]:
    """Each of our results with theirs of the same case; theirs alone counts as well."""
    found: dict[tuple[object, ...], dict[str, Row]] = {}
    for row in rows:
        if row["part"] in parts and "side" in row:
            found.setdefault(tuple(row[key] for key in keys), {})[row["side"]] = row
    for sides in found.values():
        yield sides.get("ours", {}), sides.get("theirs")


def steps(rows: Sequence[Row], run: Row) -> list[str]:
    """LoRA steps."""
    product = next((r["flops_per_s"] for r in rows if r["part"] == "card" and "flops_per_s" in r), None)
    lines = _head(
        "LoRA step", "ours", "transformers + PEFT", "ratio", "useful TFLOP/s, ours", "of the card's peak",
        "of its matrix product", "peak GiB, ours", "planned", "planned / measured", "peak GiB, theirs",
    )  # fmt: skip
    parts = ("step", "step, theirs", "compiled step", "compiled step, theirs")
    for ours, theirs in _pairs(rows, parts, ("batch", "checkpointing", "compiled")):
        either = ours or theirs or {}
        name = (
            f"batch {either['batch']}" + ", checkpointing" * either["checkpointing"] + ", compiled" * either["compiled"]
        )
        mine = _median(ours or None)
        rate = ours["flops"] / mine if mine and "flops" in ours else None
        peak = run["peak_flops"]
        lines.append(
            _line(
                name,
                _spread(ours or None),
                _spread(theirs),
                _ratio(mine, _median(theirs)),
                f"{rate / 1e12:.3g}" if rate else "",
                f"{rate / peak:.0%}" if rate and peak else "",
                f"{rate / product:.0%}" if rate and product else "",
                _gib(ours),
                _gib(ours, "planned_bytes"),
                f"{ours['planned_bytes'] / ours['peak_bytes']:.2f}" if "planned_bytes" in ours else "",
                _gib(theirs),
            )
        )
    return lines


def generation(rows: Sequence[Row]) -> list[str]:
    """Prefill and decoding."""
    weights = next((r["weight_bytes"] for r in rows if r["part"] == "build" and "weight_bytes" in r), None)
    copy = next((r["bytes_per_s"] for r in rows if r["part"] == "card" and "bytes_per_s" in r), None)
    lines = _head(
        "batch", "prefill, ours", "theirs", "ratio", "decode, ours", "tok/s", "theirs", "tok/s", "ratio",
        "weights read per second / copy", "peak GiB over the weights, ours", "theirs",
    )  # fmt: skip
    parts = ("decode", "decode, theirs", "compiled decode", "compiled decode, theirs")
    for ours, theirs in _pairs(rows, parts, ("batch", "compiled")):
        mine, other = _median(ours or None, "decode"), _median(theirs, "decode")
        either = ours or theirs or {}
        batch = either["batch"]

        def rate(row: Row | None, seconds: float | None, batch: int = batch) -> str:
            return f"{batch * row['new_tokens'] / seconds:.3g}" if row and seconds and seconds > 0 else ""

        share = f"{weights * ours['new_tokens'] / mine / copy:.0%}" if mine and weights and copy and mine > 0 else ""
        lines.append(
            _line(
                f"{batch}" + ", compiled" * either["compiled"],
                _spread(ours or None, "prefill"),
                _spread(theirs, "prefill"),
                _ratio(_median(ours or None, "prefill"), _median(theirs, "prefill")),
                _spread(ours or None, "decode"),
                rate(ours, mine),
                _spread(theirs, "decode"),
                rate(theirs, other),
                _ratio(mine, other),
                share,
                _gib(ours),
                _gib(theirs),
            )
        )
    return lines


def scoring(rows: Sequence[Row]) -> list[str]:
    """Yes or no for many questions."""
    lines = _head("questions about one page", "ours", "theirs, one forward each", "ratio")
    for ours, theirs in _pairs(rows, ("score", "score, theirs"), ("labels",)):
        labels = (ours or theirs or {})["labels"]
        ratio = _ratio(_median(ours or None), _median(theirs))
        lines.append(_line(labels, _spread(ours or None), _spread(theirs), ratio))
    return lines


def _single(rows: Sequence[Row]) -> list[str]:
    """What is one number each."""
    lines = _head("what", "found")
    for row in rows:
        if "flops_per_s" in row:
            lines.append(_line(row["case"], f"{row['flops_per_s'] / 1e12:.3g} TFLOP/s"))
        if "bytes_per_s" in row:
            lines.append(_line(row["case"], f"{row['bytes_per_s'] / 1e9:.4g} GB/s"))
        if "weight_bytes" in row:
            found = (
                f"{row['seconds']:.2f} s, {_gib(row, 'weight_bytes')} GiB of weights, {_gib(row, 'held_bytes')} held"
            )
            lines.append(_line(row["case"], found))
        if "relative_error" in row:
            found = f"relative difference {row['relative_error']:.1e}, same next token at {row['same_choice']:.1%}"
            lines.append(_line(f"{row['case']}, ours and theirs", found))
    return lines


def page(rows: Sequence[Row]) -> str:
    """The whole page."""
    run = rows[0]
    theirs = "" if run["with_theirs"] else " transformers and PEFT were not installed: only our side ran."
    profiled = [row for row in rows if row["part"] == "profile" and "ms" in row]
    failed = [row for row in rows if "error" in row]
    took = [row for row in rows if row["part"] == "took"]
    each = ", ".join(f"{row['case']} {row['seconds']:.0f}" for row in took)
    lines = [
        f"# {run['hardware']}: size {run['size']}",
        "",
        f"{run['date']}; {run['versions']}. Made by `{run['command']}`.{theirs} {run['note']}".rstrip(),
        "",
        f"Random weights in bfloat16, pages of four tiles, steps with {run['length']} text tokens of which "
        f"{run['answers']} are supervised, LoRA of rank 64",
        "on every linear layer, dropout 0.05. Times are medians (range, number); a first run is not counted. TFLOP are",
        "useful ones (train/flops.py): recomputing counts nothing. On a CPU memory is the process's growth, and",
        "times with one thread are the processor's. The prefill of a compiled case includes one decoded token, and",
        "recording the CUDA graph; transformers compiles on GPUs only.",
        "",
        *_single(rows),
        "",
        *steps(rows, run),
        "",
        *generation(rows),
        "",
        *scoring(rows),
        "",
        "Where the time of our step goes (first batch, no checkpointing, not compiled), by each operation's own time:",
        "",
        *_head("operation", "calls", "ms", "share"),
        *(_line(f"`{row['case']}`", row["calls"], f"{row['ms']:.2f}", f"{row['share']:.1%}") for row in profiled),
        "",
        "What did not work, and was passed over:",
        "",
        *(f"- {_case_name(row)}: {row['error']}" for row in failed),
        *(["- nothing"] if not failed else []),
        "",
        f"Seconds of each part: {each}; together {sum(row['seconds'] for row in took):.0f}.",
        "",
    ]
    return "\n".join(lines)


def _case_name(row: Row) -> str:
    words = [row["part"], row.get("case", "")]
    words += [f"{key} {row[key]}" for key in ("side", "batch", "checkpointing", "compiled") if key in row]
    return ", ".join(word for word in words if word)


def write(lines: Path, path: Path) -> None:
    """`lines` of JSON -> the page at `path`."""
    path.write_text(page([json.loads(line) for line in lines.read_text().splitlines()]))
