"""One optimizer step over the micro-batches of all ranks.

Shapes: R questions, T tokens, D width.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from train.dataset import Batch
from train.faults import (
    NotFiniteError,
    OutOfMemoryError,
    activation_maxima,
    gradient_maxima,
    is_out_of_memory,
)
from train.loss import answer_loss
from train.optim import MasterAdamW
from train.setup import Setup
from train.shard import before_backward

SMALLER = (
    "lower batch.images_per_forward (and raise batch.accumulate), set compute.checkpoint_activations, "
    "or spread the weights with shard.strategy = zero3; python -m train plan says what each of them saves"
)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Whatever needs too much memory inside says where, and what to change."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"out of memory {what}: {SMALLER}") from error


def batch_loss(setup: Setup, batch: Batch, n_answer_tokens: int) -> Tensor:
    """A micro-batch's share of the step's loss; every block runs on every rank.

    Raises:
        ValueError: for a batch without a page on several ranks under semantics whose positions look at empty slots.
    """
    here = batch.to(setup.device)
    several = setup.world.size > 1
    if several and setup.model.leak and not any(batch.n_tiles):
        raise ValueError(
            f"questions without a page need semantics = 'meta', not {setup.model.semantics!r}, on {several} ranks"
        )
    images = here.images(setup.transform, always=several)
    hidden = setup.model(here.tokens, images, here.sight, hidden=True)  # [R, T, D]
    return answer_loss(setup.model.text.lm_head, hidden, here.labels, n_answer_tokens)


def backward(setup: Setup, batches: Sequence[Batch], optimizer: MasterAdamW, n_answer_tokens: int) -> float:
    """Forward and backward passes of this rank's micro-batches; returns the sum of their losses.

    Their gradients are added up in float32: by `fully_shard` on several ranks, by the optimizer on one.

    Raises:
        OutOfMemoryError: if one does not fit; it names the records.
    """
    loss = 0.0
    for number, batch in enumerate(batches):
        before_backward(setup.model, setup.config.shard, is_last=number == len(batches) - 1)
        shape = f"{len(batch.tiles)} pages of {list(batch.n_tiles)} tiles, {list(batch.tokens.shape)} tokens"
        with _explained(f"on records {', '.join(batch.record_ids)} ({shape})"):
            part = batch_loss(setup, batch, n_answer_tokens)
            part.backward()
        if setup.world.size == 1:
            optimizer.collect()
        loss += float(part.detach())
    return loss


def train_step(setup: Setup, batches: Sequence[Batch], optimizer: MasterAdamW, lr: float) -> dict[str, float]:
    """One optimizer step.

    Args:
        setup: of the run.
        batches: this rank's micro-batches; the loss is summed over the answer tokens of all ranks' and divided by
            their number.
        optimizer: of the trained parameters.
        lr: learning rate of this step.

    Returns:
        loss, grad_norm: of all ranks together, the same on each.

    Raises:
        NotFiniteError: if loss or gradient is not finite; nothing has been updated then.
        OutOfMemoryError: see `backward`; or if the optimizer needs too much.
    """
    n_answer_tokens = int(setup.world.total(sum(batch.n_answer_tokens for batch in batches)))
    loss = setup.world.total(backward(setup, batches, optimizer, n_answer_tokens))
    with _explained("where gradients are summed"):
        norm = optimizer.gradient_norm()
    if not math.isfinite(loss) or not math.isfinite(float(norm)):
        raise _not_finite(setup, batches, optimizer, loss, float(norm), n_answer_tokens)
    with _explained("in the optimizer, whose moments exist from the first step on"):
        optimizer.step(norm, lr)
    return {"loss": loss, "grad_norm": float(norm)}


def _not_finite(
    setup: Setup, batches: Sequence[Batch], optimizer: MasterAdamW, loss: float, norm: float, n_answer_tokens: int
) -> NotFiniteError:
    gradients = gradient_maxima(optimizer.masters)
    optimizer.forget()
    activations = activation_maxima(setup.model, batches, lambda batch: batch_loss(setup, batch, n_answer_tokens))
    mine = {
        "rank": setup.world.rank,
        "records": [batch.record_ids for batch in batches],
        "activation_maxima": activations,
        "gradient_maxima": gradients,
    }
    ranks = setup.world.gather(mine)
    ids = ", ".join(record for rank in ranks for batch in rank["records"] for record in batch)
    report = {"loss": loss, "grad_norm": norm, "ranks": ranks}
    return NotFiniteError(f"loss {loss}, gradient norm {norm} on records {ids}", report)
