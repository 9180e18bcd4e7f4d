"""python -m lora, as it is called."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lora import load_adapter, save_adapter
from lora.__main__ import main
from lora.peft_format import NOTE
from minimllama import ImageBatch, load_model, load_tokenizer
from tests.lora.conftest import TUNE, adapted_model
from tests.tools.tiny import tiny_model


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    save_adapter(adapted_model(), tmp_path / "adapter")
    return tmp_path / "adapter"


def test_inspect_counts_parameters_and_modules(adapter: Path, capsys) -> None:
    assert main(["inspect", "--adapter", str(adapter)]) == 0
    shown = capsys.readouterr().out
    n = sum(p.numel() for name, p in adapted_model().named_parameters() if ".lora_" in name)
    assert f"{n:,} parameters in 98 modules" in shown
    assert "r 3, alpha 6" in shown
    rows = {line.rsplit(maxsplit=1)[0].strip(): int(line.split()[-1]) for line in shown.splitlines()[2:]}
    assert rows["vision fc1"] == 8
    assert rows["text down_proj"] == 7
    assert rows["projector multi_modal_projector"] == 1
    assert sum(rows.values()) == 98


def test_merge_writes_a_checkpoint_that_gives_the_adapted_logits(
    checkpoint: Path, adapter: Path, tmp_path: Path, capsys, tokens: Tensor, images: ImageBatch
) -> None:
    out = tmp_path / "merged"
    arguments = ["--base", str(checkpoint), "--adapter", str(adapter), "--out", str(out), "--dtype", "float32"]
    assert main(["merge", *arguments, "--verify"]) == 0
    adapted = load_adapter(load_model(checkpoint), adapter)
    torch.testing.assert_close(load_model(out)(tokens, images), adapted(tokens, images), rtol=0, atol=1e-4)
    assert load_tokenizer(out).vocabulary == 320
    words = capsys.readouterr().out.split()
    against_adapter, against_base = (float(word.rstrip(",")) for word in words if "e-" in word or "e+" in word)
    assert against_adapter < 1e-4 < against_base


@pytest.mark.parametrize("targets", ["vision", "cross"])
def test_verify_sees_adapters_that_only_pictures_pass(targets: str, checkpoint: Path, tmp_path: Path, capsys) -> None:
    save_adapter(adapted_model(tune=replace(TUNE, targets=targets)), tmp_path / "adapter")
    arguments = ["--base", str(checkpoint), "--adapter", str(tmp_path / "adapter"), "--out", str(tmp_path / "merged")]
    assert main(["merge", *arguments, "--dtype", "float32", "--verify"]) == 0
    words = capsys.readouterr().out.split()
    against_adapter, against_base = (float(word.rstrip(",")) for word in words if "e-" in word or "e+" in word)
    assert against_adapter < 1e-4 < against_base


def test_an_adapter_of_other_semantics_is_merged_and_its_semantics_said(
    checkpoint: Path, tmp_path: Path, capsys, tokens: Tensor, images: ImageBatch
) -> None:
    save_adapter(adapted_model("hf"), tmp_path / "adapter")
    arguments = ["--base", str(checkpoint), "--adapter", str(tmp_path / "adapter"), "--out", str(tmp_path / "merged")]
    assert main(["merge", *arguments, "--dtype", "float32"]) == 0
    assert "semantics='hf'" in capsys.readouterr().out
    merged, adapted = load_model(tmp_path / "merged", semantics="hf"), adapted_model("hf")
    torch.testing.assert_close(merged(tokens, images), adapted(tokens, images), rtol=0, atol=1e-4)


def test_export_says_nothing_about_semantics_that_nobody_said(checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    (adapter / NOTE).unlink()  # as PEFT writes it
    arguments = ["--base", str(checkpoint), "--adapter", str(adapter), "--out", str(tmp_path / "old")]
    assert main(["export", *arguments]) == 0
    load_adapter(tiny_model(0, "hf"), tmp_path / "old")


def test_export_writes_the_other_family_of_names(checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    arguments = ["--base", str(checkpoint), "--adapter", str(adapter), "--out", str(tmp_path / "old")]
    assert main(["export", *arguments]) == 0
    names = load_file(tmp_path / "old" / "adapter_model.safetensors")
    assert all(name.startswith(("base_model.model.language_model.model.", "base_model.model.vision_model.",
                                "base_model.model.multi_modal_projector.")) for name in names)  # fmt: skip
    ours, back = adapted_model(), load_adapter(tiny_model(), tmp_path / "old")
    assert all(torch.equal(p, dict(ours.named_parameters())[name]) for name, p in back.named_parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: python -m lora"),
        (["train"], "usage: python -m lora"),
        (["inspect", "--adapter", "nowhere"], "error: "),
        (["merge", "--base", "nowhere", "--adapter", "x", "--out", "y"], "error: model='nowhere' is neither"),
        (
            ["export", "--base", "x", "--adapter", "x", "--out", "y", "--family", "new"],
            "error: family='new' is",
        ),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(arguments: list[str], message: str, capsys) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(message)
