"""The check of shape comments finds what is wrong with them."""

import importlib.util
from pathlib import Path

import pytest
import torch

from tests.tools.shapes import watch

EXAMPLE = '''"""An example.

Shapes: B rows, T tokens, D width, H heads, F = D / 2 pairs.
"""


def good(x):
    """x: [B, T, D] -> [B, T, H*F]."""
    halves = x.unflatten(-1, (2, -1))  # [B, T, 2, F]
    y = (
        halves.flatten(-2)
    )  # [B, T, D]
    return y  # [B, T, D]


def wrong_order(x):
    """x: [B, T, D]."""
    return x.transpose(1, 2)  # [B, T, D]


def wrong_rank(x):
    y = x.flatten(0, 1)  # [B, T, D]
    return y


def wrong_docstring(x):
    """x: [B, T, D] -> [B, D]."""
    return x.flatten(0, 1)


def wrong_in_a_loop(x):
    """x: [B, T, D]."""
    for _ in range(2):
        x = x.repeat(1, 2, 1)  # [B, T*2, D]
    return x


def rounds_of_other_sizes(x):
    """x: [B, T, D]."""
    for n in (1, 2):
        part = x[:, :n]  # [B, H, D]
        y = part.flatten(1)  # [B, H*D]
    return y


def open_sizes(x):
    return x.flatten(1)  # [B, T*H]


def never_called(x):
    return x  # [B, T, D]
'''


@pytest.mark.parametrize(
    ("name", "violation"),
    [
        ("good", None),
        ("wrong_order", "[B, T, D]: T is 3, the tensor has 5"),
        ("wrong_rank", "[B, T, D]: the tensor is [6, 5]"),
        ("wrong_docstring", "wrong_docstring, result: B is 2, the tensor has 6"),
        ("wrong_in_a_loop", "[B, T*2, D]: T*2 is 6, the tensor has 12"),
        ("rounds_of_other_sizes", None),
        ("open_sizes", None),
    ],
)
def test_a_wrong_comment_would_be_found(name: str, violation: str | None, tmp_path: Path) -> None:
    path = tmp_path / "example.py"
    path.write_text(EXAMPLE)
    spec = importlib.util.spec_from_file_location("example", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with watch([path]) as report:
        getattr(module, name)(torch.zeros(2, 3, 5) if name != "good" else torch.zeros(2, 3, 4))
    found = [text.removeprefix("example.py:").partition(";")[0].lstrip("0123456789 ") for text in report.violations]
    assert violation in found if violation else not found
    last = EXAMPLE.rstrip().count("\n") + 1
    assert f"example.py:{last} [B, T, D]" in report.unseen, "a comment that no run reaches"
    assert f"example.py:{last - 4} [B, T*H]" in report.unseen, "sizes that stay open"


def test_letters_without_a_legend_and_shapes_without_a_tensor_would_be_found(tmp_path: Path) -> None:
    path = tmp_path / "example.py"
    path.write_text('"""Shapes: B rows."""\n\n\ndef f(x):\n    y = x  # [B, Q]\n    f(y)  # [B]\n')
    with watch([path]) as report:
        pass
    assert report.violations == [
        "example.py:5 Q is in no legend",
        "example.py:6 the shape is on a line that makes no tensor with a name",
    ]
