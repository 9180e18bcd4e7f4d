"""Rebuild the reference tensors of the parity tests with other seeds and sizes, and freeze a small set of them.

Needs make_oracle.py, which is not part of this repository: $MINIMLLAMA_SHARED/parity/make_oracle.py, or
../shared/parity beside it. It runs transformers and PEFT in three modes (tests/minimllama/test_parity.py) and
is written for one size; other sizes are made by replacing the numbers in its text.

    python tests/reference/make_golden.py build OUT --seed 1 --sizes odd    what it writes about a model, into OUT
    python tests/reference/make_golden.py freeze                            tests/reference/golden, committed
"""

import argparse
import os
import shutil
import sys
import tempfile
import types
from pathlib import Path

from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GOLDEN = HERE / "golden"

# What make_oracle.py says, and what stands there instead.
SIZES: dict[str, dict[str, str]] = {
    "published": {},
    # 17 tokens per tile, 5 local layers with 3 taps, 9 text layers with 3 cross layers and 3 heads per key head
    "odd": {
        "hidden_size=32, num_hidden_layers=4, num_global_layers=2, attention_heads=4, intermediate_size=64,": (
            "hidden_size=24, num_hidden_layers=5, num_global_layers=3, attention_heads=3, intermediate_size=40,"
        ),
        "intermediate_layers_indices=[0, 2],": "intermediate_layers_indices=[1, 2, 4],",
        "TILE, PATCH, K = 28, 14, 4": "TILE, PATCH, K = 12, 3, 4",
        "CROSS = [1, 4]": "CROSS = [1, 4, 7]",
        "hidden_size=64, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,": (
            "hidden_size=96, num_hidden_layers=9, num_attention_heads=6, num_key_value_heads=2,"
        ),
        "intermediate_size=128, cross": "intermediate_size=256, cross",
        "grid = small * rn(K, K, n, 32)": "grid = small * rn(K, K, n, 24)",
        "to_meta(hub, grids, 4, 2, 16, 6)": "to_meta(hub, grids, 6, 2, 16, 9)",
        '"dim": 64, "n_layers": 4, "n_heads": 4,': '"dim": 96, "n_layers": 6, "n_heads": 6,',
        '"vision_num_cross_attention_layers": 2,': '"vision_num_cross_attention_layers": 3,',
    },
    # a few tens of thousands of numbers, for the set that is committed
    "small": {
        "hidden_size=32, num_hidden_layers=4, num_global_layers=2, attention_heads=4, intermediate_size=64,": (
            "hidden_size=8, num_hidden_layers=3, num_global_layers=2, attention_heads=2, intermediate_size=12,"
        ),
        "vision_output_dim=96,": "vision_output_dim=24,",
        "TILE, PATCH, K = 28, 14, 4": "TILE, PATCH, K = 6, 2, 4",
        "CROSS = [1, 4]": "CROSS = [1, 3]",
        "BOS, EOS, PAD, VOCAB, IMG = 300, 301, 304, 320, 320": "BOS, EOS, PAD, VOCAB, IMG = 40, 41, 44, 46, 46",
        "rng.integers(0, 300, n)": "rng.integers(0, 40, n)",
        "hidden_size=64, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,": (
            "hidden_size=32, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,"
        ),
        "intermediate_size=128, cross": "intermediate_size=20, cross",
        "torch.arange(0, 16, 2).float() / 16": "torch.arange(0, 8, 2).float() / 8",
        "grid = small * rn(K, K, n, 32)": "grid = small * rn(K, K, n, 8)",
        "to_meta(hub, grids, 4, 2, 16, 6)": "to_meta(hub, grids, 4, 2, 8, 4)",
        'max_shard_size="400KB"': 'max_shard_size="60KB"',
    },
}
FROZEN_TEXT = (
    "input_ids",
    "attention_mask",
    "cross_attention_mask",
    "pixel_values",
    "aspect_ratio_ids",
    "aspect_ratio_mask",
    "labels",
)
FROZEN_MODES = ("meta", "hf445")


def oracle_script() -> Path:
    """Where make_oracle.py is; it need not exist."""
    return Path(os.environ.get("MINIMLLAMA_SHARED", ROOT.parent / "shared")) / "parity" / "make_oracle.py"


def build(out: Path, seed: int = 0, sizes: str = "published") -> None:
    """Run make_oracle.py with this seed and these sizes, without the ECG page and the adapter.

    Raises:
        ValueError: if its text does not hold a number that should be replaced.
    """
    text = oracle_script().read_text()
    for stated, wanted in SIZES[sizes].items():
        if text.count(stated) != 1:
            raise ValueError(f"{oracle_script()} has {stated!r} {text.count(stated)} times, not once")
        text = text.replace(stated, wanted)
    module = types.ModuleType(f"make_oracle_{sizes}")
    exec(compile(text, str(oracle_script()), "exec"), module.__dict__)
    module.page_case = module.run_lora = lambda *ignored: None
    module.build(str(out), seed)


def freeze() -> None:
    """Write tests/reference/golden: the weights, and what transformers computes with them in two modes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "oracle"
        build(out, seed=3, sizes="small")
        shutil.rmtree(GOLDEN, ignore_errors=True)
        (GOLDEN / "hf_model").mkdir(parents=True)
        weights = {}
        for shard in sorted((out / "hf_model").glob("*.safetensors")):
            weights |= load_file(shard)
        save_file(weights, GOLDEN / "hf_model" / "model.safetensors", metadata={"format": "pt"})
        shutil.copy(out / "hf_model" / "config.json", GOLDEN / "hf_model" / "config.json")
        text, vision = load_file(out / "text.safetensors"), load_file(out / "vision.safetensors")
        frozen = {name: text[name] for name in FROZEN_TEXT}
        for mode in FROZEN_MODES:
            frozen |= {f"{name}.{mode}": text[f"{name}.{mode}"] for name in ("logits", "loss")}
        frozen |= {f"solo.{s}.logits.meta": text[f"solo.{s}.logits.meta"] for s in range(5)}
        save_file(frozen, GOLDEN / "text.safetensors")
        save_file({"last_hidden_state.meta": vision["last_hidden_state.meta"]}, GOLDEN / "vision.safetensors")
        generated = load_file(out / "generate.safetensors")
        kept = ("prompt.", "greedy.")
        chosen = {
            k: v for k, v in generated.items() if k.startswith(kept) and "step_logits" not in k and ".hf" not in k
        }
        save_file(chosen, GOLDEN / "generate.safetensors")
    sys.stdout.write(f"{sum(p.stat().st_size for p in GOLDEN.rglob('*') if p.is_file()):,} bytes in {GOLDEN}\n")


def main() -> None:
    """Command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    build_parser = commands.add_parser("build")
    build_parser.add_argument("out", type=Path, nargs="+")
    build_parser.add_argument("--seed", type=int, action="append", required=True)
    build_parser.add_argument("--sizes", choices=SIZES, action="append", required=True)
    commands.add_parser("freeze")
    arguments = parser.parse_args()
    if arguments.command == "freeze":
        freeze()
    else:
        for out, seed, sizes in zip(arguments.out, arguments.seed, arguments.sizes, strict=True):
            build(out, seed, sizes)


if __name__ == "__main__":
    main()
