"""Run every part of minimllama and lora once with tiny sizes, so that their shape comments can be checked."""

from pathlib import Path

import torch

from lora import TuneConfig, apply_tuning, merge_adapters
from minimllama import Message, MiniMllama, Tokenizer, encode_dialog, generate, load_model, next_token_logits
from minimllama.attention_map import attention_of, to_page
from minimllama.chat import pad_rows
from minimllama.init import initialise
from minimllama.layers import attend, attend_groups
from minimllama.weights import hold_weights
from tests.tools.native import make_tables_reachable, write_native
from tests.tools.tiny import PAD, TINY, clear_unused_rows, pictures, prompt, tiny_model, with_text

PROMPTS = [prompt(9, 1, [2]), prompt(11, 2, [1, 5]), prompt(6, 3)]
PICTURES = [[(30, 20)], [(90, 20), (20, 20)], []]


def exercise(tokenizer: Tokenizer, folder: Path) -> None:
    """Forward and backward in every mode, generation, likelihoods, adapters, native checkpoints, dialogs."""
    _forward_and_backward()
    _generate()
    _short_and_long_attention()
    _adapters()
    encode_dialog([Message(role="user", text="Is it normal?", n_images=1)], tokenizer).labels.sum()
    _native_checkpoint(folder)


def _forward_and_backward() -> None:
    initialise(MiniMllama(TINY), torch.Generator().manual_seed(0))
    tokens = pad_rows(PROMPTS, PAD)
    for semantics in ("meta", "hf"):
        model, images = tiny_model(semantics=semantics), pictures(PICTURES)
        model(tokens, images).sum().backward()
        model(tokens, images, logits_at=tokens == PAD).sum().backward()
    same_tiles = pictures([[(30, 20)], [(20, 30)]])
    questions = torch.stack([prompt(8, seed, [3]) for seed in range(3)])
    model(questions, same_tiles, sample_of_row=[0, 1, 0])
    tiny_model()(questions, same_tiles, sample_of_row=[1, 1, 0])
    clear_unused_rows(tiny_model())(questions[:1], pictures([[(12, 12)]])).sum().backward()  # three slots are equal
    tiny_model()(questions[:2], pictures([[(30, 20)], [(12, 12)]]))  # other numbers of tiles: a mask over keys


def _generate() -> None:
    model, images = tiny_model(), pictures(PICTURES)
    generate(model, PROMPTS, images, max_new_tokens=3, temperature=1.0, top_p=0.9)
    with torch.compiler.set_stance("force_eager"):
        generate(model, PROMPTS, images, max_new_tokens=3, compile=True)
    suffixes = [torch.tensor([20, 21, 22, 23]), torch.tensor([30])]
    next_token_logits(model, PROMPTS, suffixes, [5, 6, 7, 8, 9], images)
    generate(hold_weights(model, "int8"), PROMPTS, images, max_new_tokens=3)
    for sizes in ([(30, 20)], [(30, 20), (12, 12)]):
        looked = attention_of(model, prompt(9, 1, range(2, 2 + len(sizes))), pictures([sizes]), [5, 7, 8])
        to_page(looked, sizes[0], TINY.vision)


def _short_and_long_attention() -> None:
    for n_keys, kind in ((7, "mask"), (7, "causal"), (600, "plain")):
        q = torch.randn(2, 6, 7, 4, dtype=torch.bfloat16, requires_grad=True)
        k, v = (torch.randn(2, 3, n_keys, 4, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
        mask = torch.ones(1, 1, 7, n_keys, dtype=torch.bool) if kind == "mask" else None
        attend(q, k, v, mask=mask, causal=kind == "causal").sum().backward()
    attend_groups(q, k, v, torch.ones(1, 1, 7, 600, dtype=torch.bool)).sum().backward()


def _adapters() -> None:
    model = tiny_model()
    apply_tuning(model, TuneConfig(r=5, alpha=7.0, dropout=0.3))
    model.train()(pad_rows(PROMPTS, PAD), pictures(PICTURES)).sum().backward()
    merge_adapters(model)


def _native_checkpoint(folder: Path) -> None:
    config = with_text(TINY, mlp_width=132, cross_layers=(2, 6))
    model = tiny_model(config=config)
    make_tables_reachable(model)
    load_model(write_native(model, folder, n_shards=2), config=config)
