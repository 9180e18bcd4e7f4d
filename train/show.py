"""`python -m train show`: one training sample as the model will get it."""

from pathlib import Path

from minimllama.chat import NO_LABEL
from minimllama.tokenizer import Tokenizer
from train.config import RunConfig
from train.dataset import Sample, collate
from train.ecg import Page
from train.loop import prepare


def token_text(token: int, tokenizer: Tokenizer) -> str:
    """One token as text; special tokens by name."""
    names = {i: name for name, i in tokenizer.special.items()}
    return names[token] if token in names else tokenizer.decode([token])


def show(config: RunConfig, position: int, out: Path) -> tuple[Sample, str]:
    """Draw the sample at a position of the run.

    Args:
        config: the recipe.
        position: counted in items from the start of the run.
        out: where the page goes, a .png.

    Returns:
        The sample, and a text: the record, the tiles, and each question's tokens, in [brackets] where they
            carry loss.

    Raises:
        FileExistsError: if the picture is there already.
        ValueError: if the position lies before the start.
    """
    if position < 0:
        raise ValueError(f"position={position} must not be negative")
    if out.exists():
        raise FileExistsError(f"{out} exists")
    setup = prepare(config)
    item = setup.mixture.item(position)
    sample, page = setup.dataset[item], setup.dataset.draw(item)[1]
    out.parent.mkdir(parents=True, exist_ok=True)
    page.image.save(out)
    batch = collate([sample], setup.model.config, leak=setup.model.leak)
    scale = f"{page.px_per_mm} px/mm" if isinstance(page, Page) else "as published"
    if not isinstance(page, Page) and (done := page.meta.get("distortions")):
        scale += f" but for {', '.join(name for name, _ in done)}"
    lines = [
        f"record {sample.record_id}: page {page.image.width} x {page.image.height} px, "
        f"{scale}, {len(sample.tiles)} tiles, written to {out}"
    ]
    pad = setup.model.config.text.pad_id
    for example, tokens, labels in zip(sample.examples, batch.tokens.tolist(), batch.labels.tolist(), strict=True):
        lines += ["", f"task {example.task}: {sum(label != NO_LABEL for label in labels)} tokens carry loss"]
        carries = [False, *(label != NO_LABEL for label in labels[:-1])]
        shown = [(token_text(t, setup.tokenizer), c) for t, c in zip(tokens, carries, strict=True) if t != pad]
        lines.append("".join(f"[{text}]" if loss else text for text, loss in shown))
    return sample, "\n".join(lines)
