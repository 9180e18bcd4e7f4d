"""Write a checkpoint of 300 MB in three layouts and print, for each, by how much loading it raises the peak memory.

Run in a process of its own: python tests/tools/measure_loading.py FOLDER. Linux only: it reads and resets the
peak of the resident set in /proc.
"""

import ctypes
import gc
import json
import sys
from pathlib import Path

import torch

from minimllama import MiniMllama, load_model, save_model
from minimllama.config import ModelConfig, TextConfig, VisionConfig
from tests.tools.native import make_tables_reachable, write_native

# like the real one: the embedding is the largest tensor, and the bulk is in the layers
CONFIG = ModelConfig(
    vision=VisionConfig(
        width=128, n_heads=4, mlp_width=256, n_local_layers=2, n_global_layers=1, taps=(1,), tile_size=56
    ),
    text=TextConfig(
        width=1024, mlp_width=2816, n_layers=5, n_heads=8, n_kv_heads=4, cross_layers=(1, 4), vocab_size=9000
    ),
    image_token_id=9000,
)
LAYOUTS = ("hugging face", "native", "native, 2 shards")


def resident(field: str) -> int:
    """VmRSS (now) or VmHWM (peak) of this process, in bytes; mapped files included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def write(folder: Path) -> MiniMllama:
    """All three layouts of the same random weights."""
    model = MiniMllama(CONFIG)
    for p in model.parameters():
        p.data.uniform_(-0.1, 0.1)
    make_tables_reachable(model)
    save_model(model, folder / LAYOUTS[0], max_shard_bytes=100 * 10**6)
    write_native(model, folder / LAYOUTS[1])
    write_native(model, folder / LAYOUTS[2], n_shards=2)
    return model


def main() -> None:
    """Print one JSON object: bytes of the weights and of the largest tensor, and the rise of the peak per layout."""
    folder = Path(sys.argv[1])
    model = write(folder)
    result = {
        "weights": sum(p.nbytes for p in model.parameters()),
        "largest": max(p.nbytes for p in model.parameters()),
    }
    del model
    with torch.device("meta"):  # the first model and the first product of shapes import tens of megabytes of torch
        MiniMllama(CONFIG)
        torch.cat([torch.empty(1), torch.empty(1)])
    for layout in LAYOUTS:
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # give back what the last round used
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is resident now
        before = resident("VmRSS")
        model = load_model(folder / layout, config=CONFIG)
        result[layout] = resident("VmHWM") - before
        assert result[layout] > result["weights"], "the weights must be in memory of their own"
        del model
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
