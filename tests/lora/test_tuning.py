"""What each method makes trainable, and that adapters leave the base alone."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lora import LoraLinear, TuneConfig, apply_tuning
from lora.tuning import METHODS
from minimllama import PRESETS, ImageBatch, MiniMllama
from tests.lora.conftest import TUNE, adapted_model
from tests.tools.tiny import TINY, tiny_model


def base_parameters(model: MiniMllama) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if ".lora_" not in name}


# equation


def test_all_linear_on_the_11b_has_the_numbers_of_the_paper() -> None:
    with torch.device("meta"):
        model = MiniMllama(PRESETS["11b"])
    report = apply_tuning(model, TuneConfig(method="lora", r=64, alpha=128, dropout=0.05, targets="all-linear"))
    assert (report.n_modules, report.n_trainable) == (521, 269_451_264)
    assert report.n_total == 10_642_941_475 + 269_451_264


def test_a_module_gets_rank_times_its_inputs_and_outputs() -> None:
    model = tiny_model()
    report = apply_tuning(model, replace(TUNE, targets=("text.layers.0.mlp.up_proj", "projector")))
    widths = [(TINY.text.width, TINY.text.mlp_width), (TINY.vision.n_features, TINY.text.width)]
    assert report.n_trainable == sum(3 * (inputs + outputs) for inputs, outputs in widths)
    assert report.n_modules == 2


def test_partial_trains_the_projector_and_the_cross_layers_and_nothing_else() -> None:
    model = tiny_model()
    report = apply_tuning(model, TuneConfig(method="partial"))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    prefixes = ("projector.", *(f"text.layers.{i}." for i in TINY.text.cross_layers))
    assert trained == {name for name, _ in model.named_parameters() if name.startswith(prefixes)}
    d, inner, head = TINY.text.width, TINY.text.mlp_width, TINY.text.head_width
    kv = TINY.text.n_kv_heads * head
    layer = 2 * d * d + 2 * d * kv + 2 * head + 2 * d + 3 * d * inner + 2  # projections, q/k norms, norms, MLP, gates
    assert report.n_trainable == 2 * layer + TINY.vision.n_features * d + d


def test_full_trains_everything() -> None:
    model = tiny_model().requires_grad_(False)
    report = apply_tuning(model, TuneConfig(method="full"))
    assert all(p.requires_grad for p in model.parameters())
    assert report.n_trainable == report.n_total == model.n_parameters()


# parity


def test_peft_makes_the_same_number_of_parameters_trainable(open_in_transformers) -> None:
    from peft import LoraConfig, get_peft_model

    theirs = get_peft_model(open_in_transformers(), LoraConfig(r=3, target_modules="all-linear", task_type="CAUSAL_LM"))
    report = apply_tuning(tiny_model(), TUNE)
    assert report.n_trainable == theirs.get_nb_trainable_parameters()[0]


# property


def test_a_model_with_new_adapters_is_the_model(tokens: Tensor, images: ImageBatch) -> None:
    model = tiny_model()
    before = model(tokens, images)
    apply_tuning(model, replace(TUNE, dropout=0.3))
    assert torch.equal(model.train()(tokens, images), before)


def test_the_bases_bytes_never_change_while_adapters_learn(tokens: Tensor, images: ImageBatch) -> None:
    model = tiny_model()
    before = {name: p.clone() for name, p in base_parameters(model).items()}
    apply_tuning(model, replace(TUNE, dropout=0.3))
    start = {name: p.clone() for name, p in model.named_parameters() if ".lora_" in name}
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01, weight_decay=0.1)
    model.train()
    losses = []
    for _ in range(4):
        loss = -model(tokens, images).log_softmax(-1)[..., 17].mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(not torch.equal(p, start[name]) for name, p in model.named_parameters() if ".lora_" in name)
    after = base_parameters(model)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_every_adapter_in_both_towers_learns(tokens: Tensor, images: ImageBatch) -> None:
    model = adapted_model()
    model(tokens, images).square().mean().backward()
    silent = [name for name, p in model.named_parameters() if ".lora_" in name and not p.grad.any()]
    assert silent == []


def test_in_the_first_step_only_b_learns(tokens: Tensor, images: ImageBatch) -> None:
    model = tiny_model()
    apply_tuning(model, TUNE)
    model(tokens, images).square().mean().backward()
    assert not any(p.grad.any() for name, p in model.named_parameters() if name.endswith("lora_A"))
    assert all(p.grad.any() for name, p in model.named_parameters() if name.endswith("lora_B"))


def test_first_values_depend_on_the_seed_only_and_leave_the_callers_randomness_alone() -> None:
    def first_a(seed: int) -> Tensor:
        model = tiny_model()
        state = torch.get_rng_state()
        apply_tuning(model, replace(TUNE, seed=seed))
        assert torch.equal(torch.get_rng_state(), state)
        layer = model.projector
        assert isinstance(layer, LoraLinear)
        return layer.lora_A

    first = first_a(1)
    torch.manual_seed(99)
    assert torch.equal(first_a(1), first)
    assert not torch.equal(first_a(2), first)


def test_no_global_generator_is_seeded_because_a_gpus_dropout_would_be_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    bound = 1 / model.projector.in_features**0.5  # a = sqrt(5) makes it one over the root of the inputs
    torch.manual_seed(TUNE.seed)
    expected = torch.empty(TUNE.r, model.projector.in_features).uniform_(-bound, bound)

    def refuse(seed: int) -> None:
        raise AssertionError(f"torch.manual_seed({seed}) seeds every device")

    monkeypatch.setattr(torch, "manual_seed", refuse)
    apply_tuning(model, replace(TUNE, targets=("projector",)))
    torch.testing.assert_close(model.projector.lora_A, expected, check_device=True, rtol=1e-6, atol=0)


def test_adapters_are_float32_beside_a_bfloat16_base() -> None:
    model = tiny_model().bfloat16()
    apply_tuning(model, TUNE)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in base_parameters(model).values()} == {torch.bfloat16}


def test_a_report_reads_as_a_sentence() -> None:
    report = apply_tuning(tiny_model(), TUNE)
    share = 100 * report.n_trainable / report.n_total
    assert str(report) == f"lora: {report.n_trainable:,} of {report.n_total:,} parameters ({share:.2f} %) in 98 modules"


# refusal


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "dora"}, "tuning.method='dora' is not one of lora, partial, full"),
        ({"r": 0}, "tuning.r=0"),
        ({"alpha": -1.0}, "alpha=-1.0 must be positive"),
        ({"dropout": 1.0}, r"tuning.dropout=1.0 must lie in \[0, 1\)"),
    ],
)
def test_a_contradiction_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TuneConfig(**fields)


@pytest.mark.parametrize("method", METHODS)
def test_tuning_a_model_with_adapters_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match="has adapters already"):
        apply_tuning(adapted_model(), replace(TUNE, method=method))
