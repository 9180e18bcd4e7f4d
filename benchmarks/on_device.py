"""Both implementations with random weights, made on the device itself: no file, no copy in the host's memory.

Needs PyTorch, NumPy, safetensors and Pillow; transformers and PEFT only for their side.

Shapes: B samples, T text tokens.
"""

import ctypes
import gc
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.mid import MID, Inputs, as_keywords, clear_unused_slots, make_inputs
from benchmarks.pairs import status_bytes
from minimllama import PRESETS, MiniMllama, ModelConfig
from minimllama.checkpoint.hf import hf_namer
from minimllama.init import initialise
from minimllama.sizes import TextConfig, VisionConfig

TINY = ModelConfig(
    vision=VisionConfig(
        width=32, n_heads=2, mlp_width=64, n_local_layers=2, n_global_layers=1, taps=(0, 1), tile_size=56
    ),
    text=TextConfig(
        width=64, mlp_width=96, n_layers=3, n_heads=4, n_kv_heads=2, cross_layers=(1,), vocab_size=256,
        bos_id=1, eos_ids=(2,), pad_id=3,
    ),
    image_token_id=256,
)  # fmt: skip
SIZES = {"11b": PRESETS["11b"], "mid": MID, "tiny": TINY}
DTYPE = torch.bfloat16
Row = dict[str, Any]  # one result, as a line of JSON


@dataclass(frozen=True, kw_only=True)
class Task:
    """How much is measured; the options of benchmarks/gpu.py say what each means."""

    device: torch.device
    size: str
    length: int
    answers: int
    batches: tuple[int, ...]
    decode_batches: tuple[int, ...]
    new_tokens: int
    labels: int
    case_seconds: float


def attempt(row: Row, case: Callable[[], Row]) -> Row:
    """What a case finds, or why it found nothing; a failure's memory is freed, and the next case goes on."""
    try:
        return row | case()
    except Exception as error:
        return row | {"error": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def has_theirs() -> bool:
    """Whether transformers and PEFT are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("transformers", "peft"))


def build_ours(size: str, device: torch.device, semantics: str = "meta") -> MiniMllama:
    """Shapes first, then room on the device, then random weights in place."""
    with torch.device("meta"):
        model = MiniMllama(SIZES[size], semantics).to(DTYPE)
    model = model.to_empty(device=device)
    return clear_unused_slots(initialise(model, torch.Generator(device).manual_seed(0))).eval()


def build_theirs(size: str, device: torch.device) -> Any:
    """Made on the device; then every weight is drawn there."""
    from transformers import MllamaConfig, MllamaForConditionalGeneration

    config = MllamaConfig.from_dict(SIZES[size].to_hf("bfloat16"))
    before = torch.get_default_dtype()
    torch.set_default_dtype(DTYPE)
    try:
        with torch.device(device):  # on the device and not on "meta": its tables of angles are computed, not drawn
            model = MllamaForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        for name, p in model.named_parameters():
            is_norm = "norm" in name and name.endswith("weight")
            p.normal_(std=0.02).add_(1.0 if is_norm else 0.0)
    return model.eval()


@torch.no_grad()
def copy_weights(ours: MiniMllama, theirs: Any) -> None:
    """Ours into theirs, name by name."""
    namer = hf_namer(ours.config.text.cross_layers, "memory")
    for name, p in ours.named_parameters():
        target = theirs.get_parameter(namer(name))
        target.copy_(p.view_as(target))


def inputs_on(task: Task, batch: int, length: int, answers: int) -> Inputs:
    """Pages of four tiles and random text [B, T], on the device but for `visible`."""
    given, device = make_inputs(batch, length, 4, answers, config=SIZES[task.size]), task.device
    return replace(
        given, tokens=given.tokens.to(device), labels=given.labels.to(device), images=given.images.to(device)
    )


def keywords_on(device: torch.device, given: Inputs) -> dict[str, Tensor]:
    """What transformers' forward takes."""
    return {name: value.to(device) for name, value in as_keywords(given).items()}


class Watch:
    """`with Watch(device) as watch`: seconds of the wall clock, until the device is done, and peak bytes.

    On a CPU with one thread the seconds are the processor's, and the peak is the process's over what it held before
    the model was built.
    """

    seconds = 0.0

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        one = torch.get_num_threads() == 1
        self._clock = time.process_time if one and not self._is_cuda else time.perf_counter

    def _wait(self) -> None:
        if self._is_cuda:
            torch.cuda.synchronize()

    def __enter__(self) -> "Watch":
        self._wait()
        self._start = self._clock()
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._wait()
        self.seconds = self._clock() - self._start


def forget_peak(device: torch.device) -> None:
    """Start measuring the peak anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")


def held_bytes(device: torch.device) -> int:
    """Now: of all tensors on a GPU, of the whole process on a CPU (Linux), after freed memory was handed back."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return status_bytes("VmRSS")


def peak_bytes(device: torch.device) -> int:
    """Since `forget_peak`."""
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else status_bytes("VmHWM")


def repeat(
    action: Callable[[], object], device: torch.device, seconds: float, most: int = 10, *, warm_up: bool = True
) -> list[float]:
    """Seconds of each call: at least one, until `seconds` have passed or there are `most`; a warm-up is not counted."""
    ends = time.monotonic() + seconds
    if warm_up:
        action()
    taken: list[float] = []
    while len(taken) < most and (not taken or time.monotonic() < ends):
        with Watch(device) as watch:
            action()
        taken.append(watch.seconds)
    return taken
