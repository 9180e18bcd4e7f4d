"""What all tests share: fixed seeds, one thread, no network, tiny models and a tiny tokenizer, optional files."""

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported anywhere
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import numpy as np
import pytest
import torch

from minimllama import MiniMllama, ModelConfig, Tokenizer, load_tokenizer
from minimllama.compiled import compiled_step
from tests.tools.tiny import TEXTS, TINY, VOCABULARY, tiny_model
from train.tokenizer import train_tokenizer

ROOT = Path(__file__).resolve().parents[1]
LOOPBACK = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "", None)


def _refuse_network(event: str, arguments: tuple[object, ...]) -> None:
    """Python's audit events of connecting and looking up names; anything that leaves this machine is an error."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # other addresses are files
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in LOOPBACK and not str(host).startswith("127."):
        raise ConnectionRefusedError(f"tests do not use the network: {event} to {host!r}")


sys.addaudithook(_refuse_network)
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """Every test starts from the same global random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the global state is what must not leak from test to test
    torch.manual_seed(0)


@pytest.fixture
def compiled_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """The compiled steps of decoding that a test has made; the compiler itself stays out, which saves its seconds."""
    steps: list[object] = []

    def watched(*arguments: Any) -> Any:
        steps.append(compiled_step(*arguments))
        return steps[-1]

    monkeypatch.setattr(sys.modules["minimllama.generate"], "compiled_step", watched)
    with torch.compiler.set_stance("force_eager"):
        yield steps


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Optional files that are not part of the repository: reference tensors, Meta's tokenizer, real ECG records.

    Looked for in $MINIMLLAMA_SHARED, or in ../shared beside the repository; tests that need them are skipped
    when they are absent.
    """
    folder = Path(os.environ.get("MINIMLLAMA_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"optional reference files are not at {folder} (set MINIMLLAMA_SHARED)")
    return folder


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    """Sizes that are all different: 17 tokens per tile, 3 taps, grouped heads, two cross-attention layers."""
    return TINY


@pytest.fixture(scope="session")
def make_model() -> Callable[..., MiniMllama]:
    """make_model(seed=0, semantics="meta", config=tiny_config): a new tiny random model in evaluation mode."""
    return tiny_model


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer.model of 320 pieces, trained on a few sentences about ECGs; fits `tiny_config`."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train_tokenizer(TEXTS * 3, VOCABULARY, path)
    return path


@pytest.fixture(scope="session")
def tokenizer(tokenizer_file: Path) -> Tokenizer:
    """The tokenizer of `tokenizer_file`."""
    return load_tokenizer(tokenizer_file)
