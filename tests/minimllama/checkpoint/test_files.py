"""Named tensors in safetensors files, read one at a time. Native files: test_meta.py."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from minimllama.checkpoint import files as module
from minimllama.checkpoint.files import PthFiles, SafetensorFiles

ONE, TWO = torch.arange(6.0).view(2, 3), torch.arange(4.0)


def sharded(folder: Path, weight_map: dict[str, str] | None = None) -> Path:
    save_file({"one": ONE}, folder / "a.safetensors")
    save_file({"two": TWO}, folder / "b.safetensors")
    index = {"weight_map": weight_map or {"one": "a.safetensors", "two": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


# equation


def test_shards_are_one_mapping_of_names(tmp_path: Path) -> None:
    files = SafetensorFiles(sharded(tmp_path))
    assert files.shapes == {"one": (2, 3), "two": (4,)}
    assert torch.equal(files.read("one"), ONE)
    assert torch.equal(files.read("two"), TWO)


def test_a_single_file_needs_no_index(tmp_path: Path) -> None:
    save_file({"one": ONE}, tmp_path / "model.safetensors")
    assert torch.equal(SafetensorFiles(tmp_path).read("one"), ONE)


# property


def test_a_tensor_that_was_read_outlives_its_file(tmp_path: Path) -> None:
    read = SafetensorFiles(sharded(tmp_path)).read("one")
    (tmp_path / "a.safetensors").write_bytes(b"")
    assert torch.equal(read, ONE)


def _asks_for_huge_pages(tensor: torch.Tensor) -> bool:
    """Whether the mapping that holds the middle of a tensor says so; skips where Linux does not tell."""
    maps = Path("/proc/self/smaps")
    if not maps.exists() or not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("no huge pages in /proc and /sys here")
    at = tensor.data_ptr() + tensor.nbytes // 2
    for entry in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", maps.read_text()):
        first, end = (int(x, 16) for x in entry.split(" ", 1)[0].split("-"))
        if first <= at < end:
            return " hg" in entry.rsplit("VmFlags:", 1)[1]
    raise AssertionError("the tensor is in no mapping")


@pytest.mark.parametrize("huge", [module.HUGE, None])
def test_large_tensors_are_read_into_huge_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, huge: int | None
) -> None:
    monkeypatch.setattr(module, "HUGE", huge)
    saved = torch.arange(5_000_000, dtype=torch.int64).view(1000, -1)
    save_file({"one": saved}, tmp_path / "model.safetensors")
    read = SafetensorFiles(tmp_path).read("one")
    assert torch.equal(read, saved)
    assert _asks_for_huge_pages(read) == (huge is not None)


def test_files_beside_the_index_are_left_alone(tmp_path: Path) -> None:
    save_file({"other": TWO}, tmp_path / "optimizer.safetensors")
    assert SafetensorFiles(sharded(tmp_path)).shapes.keys() == {"one", "two"}


def test_native_shards_are_read_one_tensor_at_a_time(tmp_path: Path) -> None:
    for rank in range(2):
        torch.save({"one": ONE + rank, "two": TWO}, tmp_path / f"consolidated.{rank:02d}.pth")
    files = PthFiles(tmp_path)
    assert files.shard_shapes == [{"one": (2, 3), "two": (4,)}] * 2
    assert torch.equal(files.read("one", 1), ONE + 1)


# refusal


def test_a_folder_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors and no model\.safetensors\.index\.json in"):
        SafetensorFiles(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no consolidated\*\.pth in"):
        PthFiles(tmp_path)


def test_an_index_that_names_absent_files_is_refused(tmp_path: Path) -> None:
    sharded(tmp_path)
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"names files that are not there: b\.safetensors"):
        SafetensorFiles(tmp_path)


def test_an_index_and_files_that_disagree_are_refused(tmp_path: Path) -> None:
    sharded(tmp_path, {"one": "a.safetensors", "two": "b.safetensors", "three": "b.safetensors"})
    with pytest.raises(ValueError, match="and its files do not agree about: three"):
        SafetensorFiles(tmp_path)


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    sharded(tmp_path)
    save_file({"one": ONE, "two": TWO}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"tensor one stands in .*a\.safetensors and in .*b\.safetensors"):
        SafetensorFiles(tmp_path)


@pytest.mark.parametrize("index", ["{", "[]", '{"metadata": {}}', '{"weight_map": ["one"]}'])
def test_a_damaged_index_is_refused(index: str, tmp_path: Path) -> None:
    sharded(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json is not an index of tensors"):
        SafetensorFiles(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a tensor at all", b"\xff" * 64])
def test_a_file_of_something_else_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors is not a complete safetensors file"):
        SafetensorFiles(tmp_path)


def test_a_truncated_file_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    path = sharded(tmp_path) / "b.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"b\.safetensors is not a complete safetensors file"):
        SafetensorFiles(tmp_path)


def test_a_file_that_is_cut_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = sharded(tmp_path) / "b.safetensors"
    files = SafetensorFiles(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"b\.safetensors ends inside"):
        files.read("two")


def test_a_type_of_number_that_torch_tensors_here_do_not_have_is_named(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(3, dtype=torch.float8_e4m3fn)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="tensors of type F8_E4M3, not one of F64"):
        SafetensorFiles(tmp_path)
