"""The packaged small checkpoint: the published file layout, the real code path, small enough for a package."""

from pathlib import Path

import pytest
import torch

from minimllama import (
    PRESETS,
    ImageTransform,
    Message,
    ModelConfig,
    encode_dialog,
    generate,
    load_model,
    load_tokenizer,
)
from minimllama.nano import FOLDER, resolve_model
from minimllama.tokenizer import SentencePieceTokenizer, stop_ids
from tests.tools.tiny import picture


def test_it_is_at_most_12_megabytes() -> None:
    files = [path for path in FOLDER.iterdir() if path.suffix in (".safetensors", ".model", ".json", ".md")]
    assert {"config.json", "tokenizer.model", "MODEL_CARD.md"} <= {path.name for path in files}
    assert sum(path.stat().st_size for path in files) <= 12 * 10**6


def test_its_configuration_is_the_preset() -> None:
    assert ModelConfig.from_folder(FOLDER) == PRESETS["nano"]


def test_every_part_of_the_real_model_is_in_it() -> None:
    config = PRESETS["nano"]
    assert config.vision.n_local_layers > 1
    assert config.vision.n_global_layers > 0
    assert len(config.vision.taps) > 1
    assert len(config.text.cross_layers) > 1
    assert config.text.n_heads > config.text.n_kv_heads


def test_its_tokenizer_fits_it() -> None:
    tokenizer, config = load_tokenizer(FOLDER), PRESETS["nano"]
    assert isinstance(tokenizer, SentencePieceTokenizer)
    assert tokenizer.vocabulary == config.text.vocab_size
    assert tokenizer.special["<|image|>"] == config.image_token_id
    assert tokenizer.special["<|begin_of_text|>"] == config.text.bos_id
    assert tokenizer.special["<|finetune_right_pad_id|>"] == config.text.pad_id
    assert set(stop_ids(tokenizer)) == set(config.text.eos_ids)


def test_it_reads_a_picture_and_answers_in_text() -> None:
    model, tokenizer = load_model(FOLDER), load_tokenizer(FOLDER)
    assert all(p.isfinite().all() for p in model.parameters())
    images = ImageTransform.from_folder(FOLDER)([[picture(512, 256)]])
    prompt = encode_dialog([Message(role="user", text="Rate?", n_images=1)], tokenizer).tokens
    row = generate(model, [prompt], images, max_new_tokens=8, stop_ids=stop_ids(tokenizer))[0]
    assert tokenizer.decode(row[len(prompt) :].tolist())


def test_transformers_reads_it_too() -> None:
    from transformers import MllamaForConditionalGeneration

    theirs, report = MllamaForConditionalGeneration.from_pretrained(
        FOLDER, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    tokens = torch.arange(8, 20)[None]
    with torch.no_grad():
        logits = theirs.eval()(tokens, use_cache=False).logits
        torch.testing.assert_close(load_model(FOLDER)(tokens), logits, atol=1e-4, rtol=0.0)


def test_a_name_is_nano_or_a_folder(tmp_path: Path) -> None:
    assert resolve_model("nano") == FOLDER
    assert resolve_model(str(tmp_path)) == tmp_path
    with pytest.raises(FileNotFoundError, match="model='nanno' is neither 'nano' nor a folder"):
        resolve_model("nanno")
