"""Llama 3.2 Vision from scratch, in plain PyTorch. The names below are the public face."""

from minimllama.chat import EncodedDialog, Message, encode_dialog
from minimllama.checkpoint import load_model, save_model
from minimllama.config import PRESETS, ModelConfig
from minimllama.generate import generate, stream
from minimllama.image import ImageBatch, ImageTransform
from minimllama.likelihood import next_token_logits
from minimllama.model import MiniMllama
from minimllama.tokenizer import Tokenizer, load_tokenizer
from minimllama.visibility import image_visibility

__all__ = [
    "PRESETS",
    "EncodedDialog",
    "ImageBatch",
    "ImageTransform",
    "Message",
    "MiniMllama",
    "ModelConfig",
    "Tokenizer",
    "encode_dialog",
    "generate",
    "image_visibility",
    "load_model",
    "load_tokenizer",
    "next_token_logits",
    "save_model",
    "stream",
]
