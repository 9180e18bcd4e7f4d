"""Whole runs of a tiny model: what is logged and left, what is shared, and what never changes."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lora import load_adapter
from minimllama import load_model
from tests.lora.conftest import transformers_inputs
from tests.tools.tiny import pictures, prompt
from tests.train.conftest import MakeConfig, differences
from train.config import RunConfig, load_recipe, to_toml
from train.dataset import Batch, collate
from train.log import read_log
from train.loop import Setup, load_batches, prepare, run, train_step
from train.mixture import ComponentConfig
from train.optim import MasterAdamW, learning_rate
from train.step import backward, batch_loss

FIELDS = {
    "step",
    "epoch",
    "samples",
    "loss",
    "lr",
    "grad_norm",
    "tokens_per_s",
    "images_per_s",
    "data_wait_ms",
    "peak_memory_bytes",
    "model_flops_per_s",
}
SIX_PAGES = {"images_per_forward": 6, "accumulate": 1}


def gradients(setup: Setup, batches: list[Batch]) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one step over these micro-batches; dropout off."""
    setup.model.eval()
    kept: dict[str, Tensor] = {}

    class Keep(MasterAdamW):
        def step(self, norm: Tensor, lr: float) -> None:
            kept.update({name: p.grad.clone() for name, p in self.masters.items() if p.grad is not None})
            self.forget()

    result = train_step(setup, batches, Keep(setup.model, setup.config.optim), lr=0.0)
    return result["loss"], kept


# equation


def test_the_loss_of_a_step_is_the_mean_over_its_answer_tokens(make_config: MakeConfig) -> None:
    setup = prepare(make_config())
    batches = list(load_batches(setup, 0, 4))
    total, count = 0.0, 0
    setup.model.eval()
    for batch in batches:
        logits = setup.model(batch.tokens, batch.images(setup.transform), batch.sight)
        chosen = batch.labels != -100
        total -= logits.log_softmax(-1)[chosen].gather(1, batch.labels[chosen][:, None]).sum().item()
        count += int(chosen.sum())
    assert len(batches) == 2
    assert gradients(setup, batches)[0] == pytest.approx(total / count, rel=1e-5)


# parity


def test_peft_loads_the_trained_adapter_with_our_logits(make_config: MakeConfig, checkpoint: Path) -> None:
    from peft import PeftModel
    from transformers import MllamaForConditionalGeneration

    folder = run(make_config(semantics="hf", optim={"steps": 3}))
    base = MllamaForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, folder / "adapter").eval()
    ours = load_adapter(load_model(checkpoint, semantics="hf"), folder / "adapter")
    tokens, images = prompt(9, 1, image_at=[2])[None], pictures([[(30, 11)]])
    with torch.no_grad():
        logits = theirs(**transformers_inputs(tokens, images)).logits
        torch.testing.assert_close(ours(tokens, images), logits, rtol=0, atol=1e-4)


# property: a run


def test_a_run_leaves_recipe_log_checkpoints_and_adapter(straight: Path) -> None:
    names = {path.name for path in straight.iterdir() if not path.name.startswith(".")}
    expected = {"config.toml", "log.jsonl", "checkpoint-5", "checkpoint-10", "latest", "adapter", "curves.png"}
    assert names == expected
    assert (straight / "latest").read_text() == "checkpoint-10\n"
    last = straight / "checkpoint-10" / "adapter" / "adapter_model.safetensors"
    assert differences(load_file(straight / "adapter" / "adapter_model.safetensors"), load_file(last)) == []
    config = load_recipe(straight / "config.toml")
    assert config.folder == straight
    assert to_toml(config) == (straight / "config.toml").read_text()


def test_the_log_has_every_field_of_every_step(straight: Path) -> None:
    config, lines = load_recipe(straight / "config.toml"), read_log(straight)
    assert [line["step"] for line in lines] == list(range(1, 11))
    for line in lines:
        assert line.keys() == FIELDS
        assert line["samples"] == 4 * line["step"]
        assert line["epoch"] == line["samples"] / 7
        assert line["lr"] == learning_rate(line["step"] - 1, 10, config.optim)
        assert all(math.isfinite(value) for value in line.values())
        assert min(line["loss"], line["grad_norm"], line["tokens_per_s"], line["images_per_s"]) > 0
        assert line["data_wait_ms"] >= 0
        assert line["peak_memory_bytes"] > 50_000_000
    assert math.log(320) * 0.5 < lines[0]["loss"] < math.log(320) * 2  # an untrained model knows nothing


def test_a_model_learns_its_few_records_by_heart(make_config: MakeConfig) -> None:
    patients = ComponentConfig(source="simulated", n=2, tasks=("rate",))
    data = {"components": (patients,), "questions_per_image": 1}
    batch = {"images_per_forward": 2, "accumulate": 1}
    folder = run(make_config(data=data, batch=batch, optim={"steps": 40, "peak_lr": 0.02}, save={"every": 0}))
    losses = [line["loss"] for line in read_log(folder)]
    assert losses[-1] < 0.25 * losses[0]


def test_the_number_of_steps_follows_from_epochs(make_config: MakeConfig) -> None:
    assert prepare(make_config(optim={"steps": 0, "epochs": 3.0})).n_steps == 6  # 21 pages in steps of 4


def test_the_bases_bytes_never_change_under_lora(make_config: MakeConfig, checkpoint: Path) -> None:
    for dtype in ("float32", "bfloat16"):
        setup = prepare(make_config(compute={"dtype": dtype}))
        optimizer = MasterAdamW(setup.model, setup.config.optim)
        setup.model.train()
        for batch in load_batches(setup, 0, 6):
            train_step(setup, [batch], optimizer, lr=0.05)
        base = dict(load_model(checkpoint, dtype=getattr(torch, dtype)).named_parameters())
        ours = {name: p for name, p in setup.model.named_parameters() if ".lora_" not in name}
        assert ours.keys() == base.keys()
        assert all(torch.equal(ours[name], base[name]) for name in base)
        assert {p.dtype for name, p in setup.model.named_parameters() if ".lora_" in name} == {torch.float32}


@pytest.mark.parametrize("method", ["partial", "full"])
def test_other_methods_leave_a_model_that_loads(make_config: MakeConfig, checkpoint: Path, method: str) -> None:
    folder = run(make_config(tuning={"method": method}, optim={"steps": 2}, compute={"dtype": "bfloat16"}))
    before = dict(load_model(checkpoint, torch.bfloat16).named_parameters())
    after = dict(load_model(folder / "model", torch.bfloat16).named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    prefixes = ("projector.", "text.layers.1.", "text.layers.4.") if method == "partial" else ("",)
    assert all(name.startswith(prefixes) for name in changed)
    assert "projector.weight" in changed
    assert not (folder / "adapter").exists()
    assert not (folder / "checkpoint-2" / "adapter").exists()


def test_an_adapter_remembers_that_unused_tiles_were_dropped(make_config: MakeConfig, checkpoint: Path) -> None:
    config = make_config(compute={"drop_unused_tiles": True}, optim={"steps": 2})
    folder, setup = run(config), prepare(config)
    base = load_model(checkpoint)
    assert not base.config.vision.drop_unused_tiles
    ours = load_adapter(base, folder / "adapter")
    assert ours.config == setup.model.config
    plain = load_model(checkpoint)
    plain.config = ours.config
    with pytest.raises(ValueError, match="was trained with all tile slots"):
        load_adapter(plain, run(make_config(name="plain", optim={"steps": 1})) / "adapter")
    with pytest.raises(ValueError, match=r"compute.drop_unused_tiles \(True then, False now\)"):
        run(make_config(optim={"steps": 2}))


# property: what a step computes


def test_cutting_a_step_differently_changes_nothing(make_config: MakeConfig) -> None:
    """Six pages at once, two by two, and one by one: the loss and every gradient within 1e-6 of their size."""
    setup = prepare(make_config(batch=SIX_PAGES))
    samples = [setup.dataset[setup.mixture.item(position)] for position in range(6)]

    def cut(size: int) -> list[Batch]:
        return [collate(samples[i : i + size], setup.model.config) for i in range(0, 6, size)]

    loss, reference = gradients(setup, cut(6))
    scale = math.sqrt(sum(float(g.square().sum()) for g in reference.values()))
    for size in (2, 1):
        other_loss, other = gradients(setup, cut(size))
        assert abs(other_loss - loss) < 1e-6 * loss
        error = math.sqrt(sum(float((other[name] - g).square().sum()) for name, g in reference.items()))
        assert error < 1e-6 * scale * math.sqrt(
            len(reference)
        )  # float32 sums over up to 3000 positions, 98 layers deep


def test_a_single_process_adds_up_bfloat16_gradients_in_float32(make_config: MakeConfig) -> None:
    """Of two micro-batches: the sum of their gradients, each rounded once, and not their rounded sum."""
    config = make_config(tuning={"method": "full"}, compute={"dtype": "bfloat16"})
    setup = prepare(config)
    batches = list(load_batches(setup, 0, 4))
    n_answer_tokens = sum(batch.n_answer_tokens for batch in batches)
    expected: Tensor | int = 0
    for batch in batches:
        batch_loss(setup, batch, n_answer_tokens).backward()
        expected = expected + setup.model.projector.weight.grad.float()  # type: ignore[union-attr]
        setup.model.zero_grad()
    optimizer = MasterAdamW(setup.model, config.optim)
    backward(setup, batches, optimizer, n_answer_tokens)
    assert torch.equal(optimizer.masters["projector.weight"].grad, expected)  # type: ignore[arg-type]


def test_a_known_devices_share_of_its_peak_is_logged(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this processor were a card of a gigaflop per second."""
    monkeypatch.setattr("train.loop.device_peak", lambda device: 1e9)
    for line in read_log(run(make_config(optim={"steps": 1}))):
        assert line["model_flops_utilisation"] == line["model_flops_per_s"] / 1e9 > 0


def test_questions_about_one_page_share_one_pass_of_the_tower(make_config: MakeConfig) -> None:
    setup = prepare(make_config(data={"questions_per_image": 5}))
    batch = next(iter(load_batches(setup, 0, 2)))
    seen: list[int] = []
    setup.model.vision.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    setup.model.eval()
    setup.model(batch.tokens, batch.images(setup.transform), batch.sight)
    assert len(batch.tokens) == 10
    assert seen == [2]  # one call, two pages


def test_questions_that_share_a_page_get_what_they_would_get_alone(make_config: MakeConfig) -> None:
    setup = prepare(make_config())
    sample = setup.dataset[setup.mixture.item(0)]
    alone = [replace(sample, examples=[e], dialogs=[d]) for e, d in zip(sample.examples, sample.dialogs, strict=True)]
    together, reference = gradients(setup, [collate([sample], setup.model.config)])
    apart, separate = gradients(setup, [collate([one], setup.model.config) for one in alone])
    assert together == pytest.approx(apart, rel=1e-6)
    for name, gradient in reference.items():
        torch.testing.assert_close(separate[name], gradient, rtol=1e-4, atol=1e-6)


def test_workers_and_the_page_cache_change_nothing(make_config: MakeConfig, tmp_path: Path) -> None:
    plain = list(load_batches(prepare(make_config()), 0, 8))
    others = [{"workers": 1}, {"cache": str(tmp_path / "pages")}, {"cache": str(tmp_path / "pages"), "workers": 1}]
    for data in others:
        for a, b in zip(plain, load_batches(prepare(make_config(data=data)), 0, 8), strict=True):
            assert torch.equal(a.tiles, b.tiles)
            assert torch.equal(a.tokens, b.tokens)
            assert a.record_ids == b.record_ids


# refusal


def test_a_loss_that_is_not_finite_stops_the_run_before_the_update(make_config: MakeConfig) -> None:
    config = make_config()
    setup = prepare(config)
    optimizer = MasterAdamW(setup.model, config.optim)
    before = {name: p.clone() for name, p in optimizer.masters.items()}
    with torch.no_grad():
        setup.model.text.lm_head.weight[3, 5] = math.nan
    batch = next(iter(load_batches(setup, 0, 2)))
    with pytest.raises(
        FloatingPointError, match=rf"loss nan, gradient norm nan on records {', '.join(batch.record_ids)}"
    ):
        train_step(setup, [batch], optimizer, lr=0.1)
    assert all(torch.equal(p, before[name]) for name, p in optimizer.masters.items())
    assert all(p.grad is None for p in setup.model.parameters())


def test_a_tokenizer_of_another_vocabulary_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    from train.tokenizer import train_tokenizer

    train_tokenizer(["Sinus rhythm at 72 per minute.", "Normal ECG."] * 9, 300, tmp_path / "tokenizer.model")
    with pytest.raises(ValueError, match="the tokenizer has 300 tokens, the model 320: not a pair"):
        prepare(make_config(tokenizer=str(tmp_path / "tokenizer.model")))


def test_unknown_sizes_and_models_are_refused(make_config: MakeConfig) -> None:
    with pytest.raises(FileNotFoundError, match="model='nowhere' is neither"):
        prepare(make_config(model="nowhere"))
    config = make_config()
    scratch = RunConfig(
        name="x", data=config.data, model="scratch", sizes="7b", tuning=replace(config.tuning, method="full"),
        tokenizer=f"{config.model}/tokenizer.model",
    )  # fmt: skip
    with pytest.raises(ValueError, match="sizes='7b' is not one of"):
        prepare(scratch)
