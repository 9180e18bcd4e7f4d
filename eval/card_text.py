"""What every model card says of the project and of licences (no legal advice), and its tables.

What Meta asks for is said in its repository llama-models (commit fc5d544), folder models/llama3_2: LICENSE, sections
1.b.i, 1.b.iii and 1.b.iv, and the last but one paragraph of USE_POLICY.md.
"""

from collections.abc import Sequence

MISSING = "not recorded"

INTENDED = (
    "## Intended use",
    "",
    "Research and teaching: how a vision language model reads pictures of twelve-lead ECGs, and what tuning changes.",
    "",
    "Not intended: diagnosis, triage, monitoring or any other decision about a person. It is not a medical device.",
    "",
)

LIMITS = (
    "Answers are generated: they can state findings and measurements that the page does not show, fluently.",
    "Log-odds rank pages; they are probabilities only as far as their calibration says.",
    "Thresholds belong to the population on which they were chosen.",
    "Maps of attention do not say why it answered (`docs/evaluating.md`, Where it looks).",
)

_HEADING = ("## Licence", "")
_LLAMA = "Llama 3.2 Community License (https://www.llama.com/llama3_2/license/)"
_OWN = "The code is Apache 2.0. The training data have licences of their own. This note is no legal advice."

LICENCES: dict[str, tuple[str, ...]] = {
    "meta": (
        *_HEADING,
        "The base has the sizes of a checkpoint that Meta published. Weights that derive from Meta's, this run's among",
        f"them, are under the {_LLAMA}",
        "of 25 September 2024 and its Acceptable Use Policy (https://www.llama.com/llama3_2/use-policy). Read both;",
        "among other things, who distributes such weights, or makes them available, must",
        "",
        '- hand on a copy of the agreement (1.b.i), and keep a text file "Notice" with the words (1.b.iii)',
        '  "Llama 3.2 is licensed under the Llama 3.2 Community License, Copyright (c) Meta Platforms, Inc. All Rights',
        '  Reserved.";',
        '- show "Built with Llama" prominently, and begin the name of the model with "Llama" (1.b.i);',
        "- keep to the policy (1.b.iv). For multimodal models, as this one is, it does not grant the rights to people",
        "  domiciled in the European Union, nor to companies whose principal place of business is there; this does not",
        "  apply to end users of a product or service with such a model in it.",
        "",
        _OWN,
        "",
    ),
    "nano": (
        *_HEADING,
        "The base is the packaged `nano` checkpoint, which is not derived from Meta's weights",
        "(`minimllama/nano/MODEL_CARD.md`): the Llama 3.2 Community License does not apply to it.",
        _OWN,
        "",
    ),
    "scratch": (
        *_HEADING,
        "Trained from random weights, not from Meta's: the Llama 3.2 Community License does not apply to them.",
        _OWN,
        "",
    ),
}
UNKNOWN_LICENCE = (
    *_HEADING,
    "Where the base comes from cannot be told: it is not here, or has no published size. If it derives from Meta's",
    f"Llama 3.2 weights, the {_LLAMA} applies to it and to",
    "this model.",
    _OWN,
    "",
)


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of a Markdown table, and an empty one."""
    cells = [headings, ["---"] * len(headings), *rows]
    return [*(f"| {' | '.join(str(cell) for cell in row)} |" for row in cells), ""]
