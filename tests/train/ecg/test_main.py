"""python -m train.ecg, as it is called; and the whole way from a real record on disk to an answer about it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minimllama import (
    ImageTransform,
    Message,
    encode_dialog,
    generate,
    load_model,
    load_tokenizer,
    save_model,
)
from minimllama.tokenizer import stop_ids
from tests.tools.tiny import TINY, tiny_model
from train.ecg import STYLES, draw_page, open_source, read_record
from train.ecg.__main__ import main


@pytest.fixture
def record(tmp_path: Path) -> Path:
    arguments = ["--out", str(tmp_path / "records"), "--n", "2", "--seed", "4", "--split", "test"]
    assert main(["simulate", *arguments]) == 0
    return sorted((tmp_path / "records").glob("*.hea"))[1].with_suffix("")


def test_simulate_writes_the_sources_records(record: Path) -> None:
    source, written = open_source("simulated", n=2, seed=4, split="test", hz=500), read_record(record)
    assert np.abs(written.signal - source[1].signal).max() <= 0.0005 + 1e-6  # half a unit of 1/1000 mV
    assert (written.split, written.labels, written.hz) == ("test", source[1].labels, 500)


def test_page_draws_what_draw_page_draws(record: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "page.png"
    assert main(["page", str(record), "--out", str(out), "--style", "wide448"]) == 0
    expected = draw_page(read_record(record), STYLES["wide448"])
    assert Image.open(out).tobytes() == expected.image.tobytes()
    assert "10 s at 500 Hz, 896 x 448 px, 3.4 px/mm" in capsys.readouterr().out


def test_measure_prints_numbers_with_their_units(record: Path, capsys) -> None:
    assert main(["measure", str(record)]) == 0
    lines = capsys.readouterr().out.splitlines()
    printed = dict(line.split(maxsplit=1) for line in lines if " " in line)
    rate = read_record(record).truth["heart_rate"]
    assert printed["heart_rate"].endswith(" 1/min")
    assert abs(float(printed["heart_rate"].split()[0]) - rate) < 0.1 * rate
    truth, heights = (
        read_record(record).truth["r"],
        dict(zip(printed["lead"].split()[::2], printed["V5"].split(), strict=True)),
    )
    assert abs(float(heights["r"]) - truth["V5"]) < 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: python -m train.ecg {page,simulate,"),
        (["draw"], "usage: python -m train.ecg {page,simulate,"),
        (["page", "nowhere/rec"], "error: no WFDB header nowhere/rec.hea"),
        (["page", "nowhere/rec", "--style", "A4"], "error: style='A4' is not one of square"),
        (["simulate", "--out", "x", "--split", "all"], "error: split='all' is not one of train"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(arguments: list[str], message: str, capsys) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith(message)


def test_a_picture_is_not_overwritten(record: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "page.png").write_text("precious")
    assert main(["page", str(record), "--out", str(tmp_path / "page.png")]) == 2
    assert "exists" in capsys.readouterr().err
    assert (tmp_path / "page.png").read_text() == "precious"


@pytest.mark.parametrize("path", ["ptbxl_00001_lr/00001_lr", "ptbdb_s0010_re/s0010_re"])
def test_a_real_record_becomes_a_page_and_the_page_an_answer(
    shared: Path, root: Path, tmp_path: Path, tokenizer_file: Path, path: str
) -> None:
    if not (shared / "data").is_dir():
        pytest.skip("no real records beside the reference files")
    save_model(tiny_model(), tmp_path / "model")
    (tmp_path / "model" / "tokenizer.model").write_bytes(tokenizer_file.read_bytes())
    page = tmp_path / "page.png"

    def python(*arguments: str) -> str:
        done = subprocess.run([sys.executable, "-m", *arguments], cwd=root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = python("train.ecg", "page", str(shared / "data" / path), "--out", str(page))
    assert Image.open(page).size == (1120, 1120)
    assert path.split("/")[1] in said
    question = "What is the rhythm?"
    options = ("--image", str(page), "--question", question, "--max-new-tokens", "5")
    answer = python("minimllama", "chat", "--model", str(tmp_path / "model"), *options)
    model, tokenizer = load_model(tmp_path / "model"), load_tokenizer(tmp_path / "model")
    asked = encode_dialog([Message(role="user", text=question, n_images=1)], tokenizer).tokens
    images = ImageTransform(TINY.vision.tile_size)([[Image.open(page)]])
    (row,) = generate(model, [asked], images, max_new_tokens=5, stop_ids=stop_ids(tokenizer))
    text = tokenizer.decode(row[len(asked) :].tolist())
    assert answer == text.rstrip("\ufffd") + "\n"  # half of a character at the end is not shown
