"""What is trainable: LoRA adapters, partial and full tuning, and adapters in PEFT's format."""

from lora.layers import LoraLinear
from lora.merge import merge_adapters
from lora.peft_format import load_adapter, save_adapter
from lora.tuning import TuneConfig, TuneReport, apply_tuning

__all__ = [
    "LoraLinear",
    "TuneConfig",
    "TuneReport",
    "apply_tuning",
    "load_adapter",
    "merge_adapters",
    "save_adapter",
]
