"""python -m minimllama trace | chat | convert."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from minimllama import load_model, load_tokenizer, save_model
from minimllama.__main__ import main
from minimllama.tokenizer import copy_tokenizer
from minimllama.weights import hold_weights
from tests.tools.native import make_tables_reachable, write_native
from tests.tools.tiny import TINY, picture, tiny_model, with_text


@pytest.fixture(scope="module")
def checkpoint(tokenizer_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    save_model(tiny_model(), folder)
    copy_tokenizer(tokenizer_file.parent, folder)
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    code = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


# trace


def test_trace_prints_modules_shapes_and_counts_of_the_11b(root: Path) -> None:
    command = [sys.executable, "-m", "minimllama", "trace", "--preset", "11b"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    last = done.stdout.splitlines()[-1].split()
    assert last[:2] == ["model", "MiniMllama"]
    assert last[-1] == "10,642,941,475"
    assert "[1, 4, 1025, 7680]" in done.stdout


def test_trace_shows_one_layer_of_a_folder(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "trace", "--model", checkpoint, "--layer", "text.layers.1", "--tokens", 7)
    assert "text.layers.1.attention.q_proj" in out
    assert "[1, 7, 48]" in out
    assert "vision" not in out


def test_trace_shows_how_presets_differ(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "trace", "--preset", "11b", "--diff", "11b-instruct")
    assert out.splitlines()[0] == "vision.tile_size: 448 against 560"
    assert run(capsys, "trace", "--diff", "11b") == "no difference\n"


# chat


def test_chat_answers_about_a_picture_as_generate_does(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from minimllama import ImageTransform, Message, encode_dialog, generate
    from minimllama.tokenizer import stop_ids

    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    picture(30, 20).rotate(180).save(tmp_path / "page.png", exif=exif)
    question, page = "What is shown in this ECG?", tmp_path / "page.png"
    out = run(capsys, "chat", "--model", checkpoint, "--image", page, "--question", question, "--max-new-tokens", 9)
    model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
    prompt = encode_dialog([Message(role="user", text=question, n_images=1)], tokenizer).tokens
    images = ImageTransform(TINY.vision.tile_size)([[picture(30, 20)]])
    row = generate(model, [prompt], images, max_new_tokens=9, stop_ids=stop_ids(tokenizer))[0]
    expected = tokenizer.decode(row[len(prompt) :].tolist())
    assert out.rstrip("\n") == expected.rstrip("\n\ufffd")


def test_chat_reads_questions_from_standard_input(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("one?\ntwo?\n"))
    out = run(capsys, "chat", "--model", checkpoint, "--max-new-tokens", 2, "--temperature", 1, "--seed", 5)
    assert out.endswith("\n")
    assert out.count("\n") >= 2


@pytest.mark.parametrize("weights", ["fast", "int8"])
def test_chat_keeps_weights_as_it_is_told(weights: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from minimllama import Message, encode_dialog, generate
    from minimllama.tokenizer import stop_ids

    arguments = ("chat", "--model", checkpoint, "--question", "one?", "--max-new-tokens", 5, "--weights", weights)
    out = run(capsys, *arguments)
    model, tokenizer = hold_weights(load_model(checkpoint), weights), load_tokenizer(checkpoint)
    prompt = encode_dialog([Message(role="user", text="one?")], tokenizer).tokens
    row = generate(model, [prompt], max_new_tokens=5, stop_ids=stop_ids(tokenizer))[0]
    assert out.rstrip("\n") == tokenizer.decode(row[len(prompt) :].tolist()).rstrip("\n\ufffd")


def test_chat_decodes_with_the_compiled_step_if_asked(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], compiled_steps: list[object]
) -> None:
    arguments = ("chat", "--model", checkpoint, "--question", "one?", "--max-new-tokens", 5)
    plain = run(capsys, *arguments)
    assert not compiled_steps
    assert run(capsys, *arguments, "--compile") == plain
    assert len(compiled_steps) == 1


# convert


def test_convert_rewrites_native_weights_and_keeps_the_tokenizer(
    tokenizer_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from minimllama.config_files import read_meta

    config = with_text(TINY, mlp_width=132, cross_layers=(2, 6))
    model = tiny_model(config=config)
    make_tables_reachable(model)
    source, out = write_native(model, tmp_path / "native", n_shards=2), tmp_path / "converted"
    copy_tokenizer(tokenizer_file.parent, source)
    # params.json cannot say how small this tower is; the command takes the published sizes
    monkeypatch.setattr("minimllama.config.read_meta", lambda params, unstated: read_meta(params, config.vision))
    assert "wrote" in run(capsys, "convert", "--source", source, "--out", out, "--dtype", "float32")
    converted = load_model(out)
    assert torch.equal(converted.text.layers[0].attention.q_proj.weight, model.text.layers[0].attention.q_proj.weight)
    assert (out / "tokenizer.model").read_bytes() == tokenizer_file.read_bytes()
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "float32"


# refusal: one line, exit code 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: python -m minimllama {trace,chat,convert}"),
        (["fly"], "usage: python -m minimllama"),
        (["trace", "--preset", "7b"], "error: preset='7b' is not one of nano, 11b, 11b-instruct, 90b"),
        (["chat", "--model", "nowhere"], "error: model='nowhere' is neither 'nano' nor a folder"),
        (["chat", "--dtype", "fp16"], "error: dtype='fp16' is not one of float32, bfloat16, float16"),
        (["chat", "--device", "gpu"], "error: device='gpu': "),
        (["chat", "--image", "."], "error: . is not a complete picture"),
        (["chat", "--question", "?", "--max-new-tokens", "-1"], "error: max_new_tokens=-1 must not be negative"),
        (["trace", "--preset", "nano", "--tokens", "0"], "error: tokens=0 must be at least 1"),
        (["chat", "--weights", "int4"], "error: weights='int4' is not one of plain, fast, int8"),
        (["trace", "--layer", "text.x"], "error: no module is called 'text.x'"),
    ],
)
def test_wrong_input_ends_with_one_line(arguments, message, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1
