"""load_model and save_model. Equality with transformers' logits: also test_parity.py and test_transformers.py."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lora import TuneConfig, apply_tuning
from minimllama import ImageTransform, MiniMllama, ModelConfig, load_model, save_model
from minimllama.checkpoint import check_tensors, hf_name
from minimllama.checkpoint.files import SafetensorFiles
from tests.tools.golden import MODES, Reference
from tests.tools.hf import hf_inputs, hf_semantics
from tests.tools.tiny import TINY, pictures, prompt, tiny_model, with_text

TOKENS, SIZES = torch.stack([prompt(9, 1, image_at=[3]), prompt(9, 2, image_at=[1])]), [[(30, 20)], [(10, 40)]]


def written(folder: Path, change=None) -> Path:
    """A checkpoint in one file, its tensors changed."""
    save_model(tiny_model(), folder)
    tensors = {}
    for path in folder.glob("*.safetensors"):
        tensors |= load_file(path)
        path.unlink()
    (folder / "model.safetensors.index.json").unlink()
    if change:
        change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


def same_weights(one: MiniMllama, other: MiniMllama) -> None:
    theirs = dict(other.named_parameters())
    for name, p in one.named_parameters():
        assert torch.equal(p, theirs.pop(name)), name
    assert not theirs


# parity


@pytest.mark.parametrize("mode", MODES)
@torch.no_grad()
def test_transformers_loads_what_we_write_and_gives_our_logits(mode: str, tmp_path: Path) -> None:
    from transformers import MllamaForConditionalGeneration

    ours, images = tiny_model(semantics=mode), pictures(SIZES)
    save_model(ours, tmp_path, max_shard_bytes=60_000)
    theirs, report = MllamaForConditionalGeneration.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    with hf_semantics(mode):
        logits = theirs.eval()(**hf_inputs(TOKENS, images, TINY)).logits
    torch.testing.assert_close(ours(TOKENS, images), logits, atol=1e-4, rtol=0.0)


def test_both_families_of_names_give_the_same_weights(full_reference: Reference) -> None:
    same_weights(load_model(full_reference.folder / "hf_model_newkeys"), full_reference.model("meta"))


# property


@pytest.mark.parametrize("max_shard_bytes", [10**9, 60_000, 1])
def test_what_is_saved_is_loaded_whatever_the_size_of_the_shards(max_shard_bytes: int, tmp_path: Path) -> None:
    model = tiny_model()
    save_model(model, tmp_path, max_shard_bytes)
    n_files = len(list(tmp_path.glob("*.safetensors")))
    n_tensors = sum(1 for _ in model.parameters())
    assert n_files == {10**9: 1, 1: n_tensors}.get(max_shard_bytes, n_files)
    if max_shard_bytes == 60_000:
        assert 2 < n_files < n_tensors
    same_weights(load_model(tmp_path), model)


def test_the_family_in_memory_is_read_too(tmp_path: Path) -> None:
    model = tiny_model()
    cross = TINY.text.cross_layers
    save_file(
        {hf_name(n, cross, "memory"): p.detach() for n, p in model.named_parameters()}, tmp_path / "model.safetensors"
    )
    (tmp_path / "config.json").write_text(json.dumps(TINY.to_hf("float32")))
    same_weights(load_model(tmp_path), model)


def test_a_saved_folder_says_everything_about_itself(tmp_path: Path) -> None:
    save_model(tiny_model().bfloat16(), tmp_path)
    assert ModelConfig.from_folder(tmp_path) == TINY
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert ImageTransform.from_folder(tmp_path).tile_size == TINY.vision.tile_size
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 2 * tiny_model().n_parameters()
    assert set(index["weight_map"].values()) == {path.name for path in tmp_path.glob("*.safetensors")}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_go_to_the_wanted_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    loaded = load_model(written(tmp_path), dtype=dtype)
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    assert torch.equal(loaded.projector.weight, tiny_model().projector.weight.to(dtype))


def test_a_loaded_model_is_in_evaluation_mode_and_on_the_device(tmp_path: Path) -> None:
    loaded = load_model(written(tmp_path), semantics="hf445")
    assert not loaded.training
    assert loaded.semantics == "hf445"
    assert {p.device.type for p in loaded.parameters()} == {"cpu"}
    assert {p.device.type for p in load_model(tmp_path, device="meta").parameters()} == {"meta"}


def test_weights_do_not_depend_on_the_files_after_loading(tmp_path: Path) -> None:
    loaded = load_model(written(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    same_weights(loaded, tiny_model())


# refusal


def drop(tensors: dict) -> None:
    del tensors["language_model.model.norm.weight"]


def reshape(tensors: dict) -> None:
    tensors["multi_modal_projector.bias"] = torch.zeros(7)


def add(tensors: dict) -> None:
    tensors["vision_model.spare"] = torch.zeros(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, r"missing: language_model\.model\.norm\.weight$"),
        (add, r"not part of the model: vision_model\.spare$"),
        (reshape, r"wrong shape: multi_modal_projector\.bias is \(7,\), not \(48,\)$"),
    ],
)
def test_tensors_that_do_not_fit_are_named_and_nothing_is_read(
    change, message: str, tmp_path: Path, monkeypatch
) -> None:
    folder, reads = written(tmp_path, change), []
    monkeypatch.setattr(SafetensorFiles, "read", lambda self, name: reads.append(name))
    with pytest.raises(ValueError, match=f"the tensors in .* do not fit the model: {message}"):
        load_model(folder)
    assert not reads


def test_one_error_lists_every_kind_of_problem(tmp_path: Path) -> None:
    def break_it(tensors: dict) -> None:
        drop(tensors)
        add(tensors)
        reshape(tensors)

    with pytest.raises(ValueError, match=r"missing: .*; not part of the model: .*; wrong shape: "):
        load_model(written(tmp_path, break_it))


def test_at_most_ten_names_of_a_kind_are_listed() -> None:
    wanted = {f"tensor{i:02d}": (1,) for i in range(13)}
    with pytest.raises(ValueError, match=r"missing: tensor00, .*, tensor09 and 3 more$"):
        check_tensors(Path("folder"), wanted, {}, ())


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"missing: .*wrong shape|not part of the model: .*wrong shape"):
        load_model(written(tmp_path), config=with_text(TINY, n_layers=8, mlp_width=57))


def test_folders_without_a_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no config\.json and no params\.json in"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(TINY.to_hf("float32")))
    with pytest.raises(FileNotFoundError, match=r"holds neither model\.safetensors"):
        load_model(tmp_path)


def test_a_folder_that_holds_a_model_is_not_overwritten(tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match=r"already holds model-00001-of-00001\.safetensors"):
        save_model(tiny_model(seed=1), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_adapters_are_not_saved_as_if_they_were_part_of_the_model(tmp_path: Path) -> None:
    model = tiny_model()
    apply_tuning(model, TuneConfig(r=2, targets="cross"))
    with pytest.raises(ValueError, match=r"only plain weights are saved.*projector\.lora_A"):
        save_model(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_full_disk_leaves_a_folder_that_can_be_tried_again(tmp_path: Path, monkeypatch) -> None:
    import minimllama.checkpoint

    whole = minimllama.checkpoint.save_file

    def fail(tensors: dict, path: Path, **rest: object) -> None:
        if "00003" in path.name:
            raise SafetensorError("No space left on device")
        whole(tensors, path, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(minimllama.checkpoint, "save_file", fail)
        with pytest.raises(OSError, match=r"model-00003-.* was not written: No space left"):
            save_model(tiny_model(), tmp_path, max_shard_bytes=60_000)
    save_model(tiny_model(), tmp_path, max_shard_bytes=60_000)


def test_an_interrupted_save_is_not_taken_for_a_checkpoint(tmp_path: Path, monkeypatch) -> None:
    import minimllama.checkpoint

    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(minimllama.checkpoint.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(tiny_model(), tmp_path, max_shard_bytes=60_000)
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path)
