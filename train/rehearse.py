"""The largest batch first: too little memory should show in the first minute, not in the third hour."""

import torch

from minimllama.visibility import see
from train.dataset import PAD_MULTIPLE, Batch
from train.optim import MasterAdamW
from train.setup import Setup
from train.step import backward


def worst_batch(setup: Setup) -> Batch:
    """All tiles, the longest dialogs and nothing but answers: no micro-batch of the recipe is larger."""
    config, data = setup.model.config, setup.config.data
    pages, questions = setup.config.batch.images_per_forward, data.questions_per_image
    length = -(-data.max_tokens // PAD_MULTIPLE) * PAD_MULTIPLE
    slots, side = config.vision.max_tiles, config.vision.tile_size
    sample_of_row = [page for page in range(pages) for _ in range(questions)]
    tokens = torch.full((pages * questions, length), config.text.bos_id)  # [R, T]
    tokens[:, 0] = config.image_token_id
    return Batch(
        tiles=torch.zeros(pages, slots, 3, side, side, dtype=torch.uint8),
        aspect_ratio_ids=torch.ones(pages, dtype=torch.int64),
        n_tiles=[slots] * pages,
        tokens=tokens,
        labels=torch.full_like(tokens, config.text.bos_id),
        sight=see(tokens, [[slots]] * pages, config, sample_of_row=sample_of_row, leak=setup.model.leak),
        record_ids=["the largest batch that the recipe allows"],
    )


def rehearse(setup: Setup, optimizer: MasterAdamW) -> None:
    """Forward and backward pass of the largest batch; its gradients and random numbers are forgotten.

    Raises:
        OutOfMemoryError: if it does not fit.
    """
    devices = [setup.device] if setup.device.type == "cuda" else []
    setup.model.train()
    with torch.random.fork_rng(devices=devices):
        batch = worst_batch(setup)
        backward(setup, [batch], optimizer, batch.n_answer_tokens * setup.world.size)
    optimizer.gradient_norm()
    optimizer.forget()
