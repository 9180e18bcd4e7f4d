"""One GPU, one command: the real 11B with random weights, ours and transformers + PEFT, in under ten minutes.

`python -m benchmarks gpu --out FOLDER`, or `python benchmarks/gpu.py --out FOLDER` from the repository's root. Needs
PyTorch, NumPy, safetensors and Pillow; without transformers and PEFT only our side runs, and the page says so. Each
part is a process with a budget of seconds; every result is written when it is there, so a kill loses nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):  # started as a file: its own folder is not where modules are looked for
    sys.path[0] = str(ROOT)

import torch  # noqa: E402

from benchmarks import gpu_page  # noqa: E402
from benchmarks.gpu_parts import PARTS  # noqa: E402
from benchmarks.on_device import SIZES, Row, Task, has_theirs  # noqa: E402
from minimllama.console import say  # noqa: E402

LINES, PAGE = "results.jsonl", "results.md"


def read_options(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help=f"folder for {LINES} and {PAGE}")
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    parser.add_argument("--size", default="11b", choices=SIZES)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--length", type=int, default=512, help="text tokens of a step")
    parser.add_argument("--answers", type=int, default=64, help="of them supervised")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4], help="of the steps")
    parser.add_argument("--decode-batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--labels", type=int, default=71, help="questions to score")
    parser.add_argument("--case-seconds", type=float, default=5, help="of repeating one case, after its first run")
    parser.add_argument("--seconds", type=float, default=540, help="of all parts; what is left is not started")
    parser.add_argument("--slower", type=float, default=1, help="times the budgets of the parts, for a slow device")
    parser.add_argument("--threads", type=int, default=0, help="on a CPU; 0: as PyTorch likes")
    parser.add_argument("--note", default="", help="a sentence for the page")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # what a child process does
    return parser.parse_args(list(arguments))


def make_task(options: argparse.Namespace) -> Task:
    """The device and the amounts."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device: --device cpu --size mid runs the same script on a CPU")
    if options.threads:
        torch.set_num_threads(options.threads)
    return Task(
        device=torch.device(options.device),
        size=options.size,
        length=options.length,
        answers=options.answers,
        batches=tuple(options.batches),
        decode_batches=tuple(options.decode_batches),
        new_tokens=options.new_tokens,
        labels=options.labels,
        case_seconds=options.case_seconds,
    )


def append(folder: Path, row: Row) -> None:
    """One more line, on the disk when this returns."""
    with (folder / LINES).open("a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def run_part(options: argparse.Namespace) -> None:
    """What a child process does."""
    for row in PARTS[options.part].run(make_task(options)):
        append(options.out, {"part": options.part, **row})


def call_part(name: str, arguments: Sequence[str], seconds: float) -> str:
    """Run a part in a process of its own; returns what went wrong, "" if nothing did."""
    command = [sys.executable, str(Path(__file__).resolve()), *arguments, "--part", name]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    try:
        done = subprocess.run(
            command, cwd=Path.cwd(), env=environment, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return f"ended after its {seconds:.0f} s"
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return "" if done.returncode == 0 else f"ended with code {done.returncode}: {lines[-1] if lines else ''}"


def main(arguments: Sequence[str]) -> int:
    """All parts in turn; the page is written anew after each."""
    options = read_options(arguments)
    if options.part:
        run_part(options)
        return 0
    make_task(options)
    options.out.mkdir(parents=True, exist_ok=True)
    options.out = options.out.resolve()
    (options.out / LINES).unlink(missing_ok=True)
    append(options.out, {"part": "run", **gpu_page.describe(options, arguments, with_theirs=has_theirs())})
    ends = time.monotonic() + options.seconds
    for name in options.only:
        part, began = replace(PARTS[name], seconds=PARTS[name].seconds * options.slower), time.monotonic()
        left = ends - began
        if part.needs_theirs and not has_theirs():
            trouble = "not run: transformers and PEFT are not installed here"
        elif left < 10:
            trouble = f"not run: the {options.seconds:.0f} s of the whole script are used"
        else:
            trouble = call_part(name, arguments, min(part.seconds, left))
        if trouble:
            append(options.out, {"part": name, "error": trouble})
        append(options.out, {"part": "took", "case": name, "seconds": time.monotonic() - began})
        gpu_page.write(options.out / LINES, options.out / PAGE)
        say(f"{name}: {time.monotonic() - began:.0f} s {trouble}".rstrip())
    say(f"wrote {options.out / PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
