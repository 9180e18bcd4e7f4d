"""A judge without a server: the judge's question, answered by a model of ours."""

import base64
import io
import threading
from typing import Any

import torch
from PIL import Image

from minimllama import ImageTransform, Message, encode_dialog, generate, load_model, load_tokenizer
from minimllama.nano import resolve_model
from minimllama.tokenizer import stop_ids

LOCAL = "local"  # in the place of an endpoint


class LocalJudge:
    """Answers chat messages with one model; one at a time, since it has one set of weights.

    Args:
        model: a checkpoint's folder, or "nano".
        temperature: 0 is greedy, and every repeat the same.
        max_tokens: of a reply.
    """

    def __init__(self, model: str, temperature: float, max_tokens: int) -> None:
        folder = resolve_model(model)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.bfloat16 if self._device == "cuda" else torch.float32
        self._model = load_model(folder, dtype, self._device).eval()
        vision = self._model.config.vision
        self._transform = ImageTransform(vision.tile_size, vision.max_tiles)
        self._tokenizer = load_tokenizer(folder)
        self._temperature, self._max_tokens, self._lock = temperature, max_tokens, threading.Lock()

    def reply(self, messages: list[dict[str, Any]], seed: int) -> str:
        """The text of an answer to messages as eval.judge_prompts makes them.

        Args:
            messages: one user message; its content is texts and pictures as data URLs.
            seed: of the sampling.
        """
        (content,) = (message["content"] for message in messages)
        text = "\n".join(part["text"] for part in content if part["type"] == "text")
        pictures = [_picture(part["image_url"]["url"]) for part in content if part["type"] == "image_url"]
        asked = [Message(role="user", text=text, n_images=len(pictures))]
        prompt = encode_dialog(asked, self._tokenizer).tokens
        images = self._transform([pictures]).to(self._device) if pictures else None
        stops = stop_ids(self._tokenizer)
        with self._lock:
            (row,) = generate(
                self._model,
                [prompt],
                images,
                max_new_tokens=self._max_tokens,
                temperature=self._temperature,
                stop_ids=stops,
                generator=torch.Generator(self._device).manual_seed(seed),
            )
        new = [token for token in row[len(prompt) :].tolist() if token not in stops]
        return self._tokenizer.decode(new)


def _picture(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))).convert("RGB")
