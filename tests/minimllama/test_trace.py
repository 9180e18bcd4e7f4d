"""The real model without weights: call order, shapes, parameters."""

import pytest
import torch

from minimllama import PRESETS, MiniMllama
from minimllama.trace import format_rows, trace_shapes
from tests.tools.tiny import TINY


@pytest.fixture(scope="module")
def instruct():
    return trace_shapes(PRESETS["11b-instruct"], n_tokens=32)


# equation


@pytest.mark.parametrize(
    ("path", "kind", "inputs", "output", "count"),
    [
        ("vision.patches", "PatchEmbedding", (1, 4, 3, 560, 560), (1, 4, 1600, 1280), 752_640),
        ("vision.local_layers.0", "VisionLayer", (1, 6432, 1280), (1, 6432, 1280), 19_672_320),
        ("vision", "VisionEncoder", (1, 4, 3, 560, 560), (1, 4, 1601, 7680), 863_567_379),
        ("projector", "Linear", (1, 4, 1601, 7680), (1, 4, 1601, 4096), 31_461_376),
        ("text.layers.3", "CrossLayer", (1, 32, 4096), (1, 32, 4096), 218_112_258),
        ("", "MiniMllama", (1, 32), (1, 32, 128256), 10_670_220_835),
    ],
)
def test_shapes_and_counts_of_the_11b_instruct(instruct, path, kind, inputs, output, count) -> None:
    row = next(row for row in instruct if row.path == path)
    assert (row.kind, row.inputs, row.output, row.n_parameters) == (kind, inputs, output, count)


# property


def test_every_module_that_runs_has_a_row_and_the_model_is_last() -> None:
    rows = trace_shapes(TINY, n_tokens=9)
    with torch.device("meta"):
        model = MiniMllama(TINY)
    lists = {name for name, module in model.named_modules() if isinstance(module, torch.nn.ModuleList)}
    assert {row.path for row in rows} == {name for name, _ in model.named_modules()} - lists
    assert rows[-1].path == ""
    assert rows[-1].n_parameters == model.n_parameters()
    finished = [row.path for row in rows]
    assert finished.index("vision") < finished.index("projector") < finished.index("text.layers.0")


def test_fewer_tiles_are_traced_too() -> None:
    rows = {row.path: row for row in trace_shapes(TINY, n_tokens=9, n_tiles=1)}
    assert rows["vision"].output == (1, 4, 17, 80)
    one, all_tiles = rows["text.layers.1.attention.k_proj"].inputs, 4 * 17
    assert one == (1, 17, 48) != (1, all_tiles, 48)


def test_rows_are_printed_aligned_and_can_be_narrowed_down(instruct) -> None:
    text = format_rows(instruct, under="text.layers.3")
    assert "text.layers.3.attention.q_norm" in text
    assert "text.layers.4" not in text
    assert "218,112,258" in text.splitlines()[-1]
    assert len({line.index("->") for line in text.splitlines()}) == 1
    shallow = format_rows(instruct, depth=1).splitlines()
    assert [line.split()[0] for line in shallow] == ["vision", "projector", "text", "model"]
    one = format_rows(instruct, depth=1, under="text.layers.3").splitlines()
    assert [line.split()[0] for line in one] == ["text.layers.3"]


# refusal


def test_a_module_that_does_not_exist_is_refused(instruct) -> None:
    with pytest.raises(ValueError, match=r"no module is called 'text\.layer\.3'; modules are named like vision\."):
        format_rows(instruct, under="text.layer.3")
