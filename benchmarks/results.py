"""A run as a page of Markdown and a chart."""

import datetime
import os
import platform
import re
import shlex
import statistics
from collections.abc import Sequence
from html import escape
from pathlib import Path

import torch

from benchmarks.cases import Outcome
from benchmarks.pairs import MIB, Timing


def hardware() -> str:
    """Processor and number of cores, or the accelerator.

    With the processor's family and model: a hypervisor may give processors of different speed one name.
    """
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    path = Path("/proc/cpuinfo")
    info = path.read_text() if path.exists() else ""
    found = dict(re.findall(r"^(model name|cpu family|model)\s*:\s*(.+)", info, re.MULTILINE))
    name = found.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in found:
        name += f" (family {found['cpu family']}, model {found.get('model', '?')})"
    flags = "avx512_bf16" if "avx512_bf16" in info else "no bf16 instructions"
    return f"{name}, {os.cpu_count()} cores, {flags}"


def file_name() -> str:
    """Of today's results: hardware and date."""
    name = re.sub(r"[^a-z0-9]+", "-", hardware().lower()).strip("-")
    return f"{name}-{datetime.date.today():%Y-%m-%d}.md"


def _versions() -> str:
    from importlib.metadata import version

    names = ("torch", "transformers", "peft", "safetensors", "pillow")
    return ", ".join(f"{name} {version(name)}" for name in names)


def _amount(timing: Timing, seconds: Sequence[float], outcome: Outcome) -> str:
    median = statistics.median(seconds)
    text = f"{median:.3g} s ({min(seconds):.3g}..{max(seconds):.3g})"
    if timing.name in outcome.case.units:
        count, unit = outcome.case.units[timing.name]
        text += f", {count / median:.3g} {unit}/s"
    return text


def row(outcome: Outcome, timing: Timing) -> str:
    """One line of the table."""
    low, high = timing.ratio_range
    goal = outcome.case.goals.get(timing.name)
    memory_goal = outcome.case.memory_goal
    cells = [
        outcome.case.name,
        timing.name,
        _amount(timing, timing.ours, outcome),
        _amount(timing, timing.theirs, outcome),
        f"**{timing.ratio:.2f}** ({low:.2f}..{high:.2f})",
        "" if goal is None else f"{goal:g} {'met' if timing.ratio >= goal else 'missed'}",
        f"{timing.our_memory / MIB:.0f} / {timing.their_memory / MIB:.0f}",
        f"{timing.memory_ratio:.2f}",
        "" if memory_goal is None else f"{memory_goal:g} {'met' if timing.memory_ratio <= memory_goal else 'missed'}",
        "" if outcome.difference is None else f"{outcome.difference:.0e} ({outcome.n_compared})",
    ]
    return "| " + " | ".join(cells) + " |"


HEAD = """\
| case | what | ours: median (range) | transformers + PEFT | ratio (range of rounds) | goal \
| peak over the loaded model, MiB | ratio | goal | largest difference (tensors) |
|---|---|---|---|---|---|---|---|---|---|"""

NOTES = """\
- Sizes: "mid", the 11B with widths and depths divided by four (benchmarks/mid.py): 448 px tiles of 14 px patches,
  228 M parameters, 17 M in adapters; bfloat16 unless a row says float32; text of 512 tokens of which the last 64 are
  supervised, r = 64, dropout 0.05. Random weights, the same files for both sides.
- Both sides live in processes of their own and work in turn. With one thread the seconds are seconds of the processor
  (user and system), so what others do on the machine counts only as far as they fill caches and memory channels.
- Before a case is timed, both sides compute it in float32 with transformers' semantics ("hf"): logits, loss and the
  gradient of every adapter, generated tokens, or log-odds. "Largest difference" is the largest max |a - b| / max |b|
  over those tensors; above 2e-5 the run stops. Timed is the default semantics "meta" unless the row says otherwise.
- transformers + PEFT as they come: SDPA attention, float32 adapters, fused AdamW as in its Trainer.
- Scoring: transformers runs 8 of the 71 forwards per timing, scaled up; ours runs all 71 questions."""


def begin(arguments: Sequence[str], threads: int, note: str) -> list[str]:
    """The first lines of a page: hardware, date, versions, command."""
    made = f"{datetime.date.today():%Y-%m-%d}, {threads} thread{'s' if threads > 1 else ''}, {_versions()}. "
    made += f"Made by `{shlex.join(['python', '-m', 'benchmarks', *arguments])}`." + (f" {note}" if note else "")
    return [f"# {hardware()}", "", made]


def page(outcomes: Sequence[Outcome], arguments: Sequence[str], threads: int, note: str) -> str:
    """The Markdown page."""
    lines = [
        *begin(arguments, threads, note),
        "",
        HEAD,
        *(row(outcome, timing) for outcome in outcomes for timing in outcome.timings),
        "",
        NOTES,
        "",
    ]
    return "\n".join(lines)


def chart(outcomes: Sequence[Outcome]) -> str:
    """Ratios as bars, on a logarithmic axis; the line stands at 1. SVG."""
    bars = [(f"{o.case.name}: {t.name}", t.ratio) for o in outcomes for t in o.timings]
    left, width, height = 330, 300, 18
    top = max(ratio for _, ratio in bars)
    scale = width / torch.tensor(max(top, 2.0) / 0.5).log().item()

    def place(ratio: float) -> float:
        return left + scale * torch.tensor(max(ratio, 0.5) / 0.5).log().item()

    size = f'width="{left + width + 60}" height="{height * len(bars) + 30}"'
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">']
    for i, (name, ratio) in enumerate(bars):
        y = 8 + height * i
        start, end = sorted((place(1.0), place(ratio)))
        out.append(f'<text x="{left - 8}" y="{y + 11}" text-anchor="end">{escape(name)}</text>')
        out.append(
            f'<rect x="{start:.1f}" y="{y}" width="{max(end - start, 1):.1f}" height="{height - 5}" fill="#1f5fa8"/>'
        )
        out.append(f'<text x="{end + 4:.1f}" y="{y + 11}">{ratio:.2f}</text>')
    bottom = 8 + height * len(bars)
    out.append(f'<path d="M{place(1.0):.1f} 0V{bottom}" stroke="#444"/>')
    out.append(f'<text x="{left}" y="{bottom + 15}">times as fast as transformers + PEFT</text>')
    return "\n".join([*out, "</svg>", ""])


def write(outcomes: Sequence[Outcome], path: Path, arguments: Sequence[str], threads: int, note: str) -> None:
    """`path` and its chart beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = path.with_suffix(".svg")
    picture.write_text(chart(outcomes))
    path.write_text(page(outcomes, arguments, threads, note) + f"\n![ratios]({picture.name})\n")
