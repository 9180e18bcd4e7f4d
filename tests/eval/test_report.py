"""report.html: one file that parses, asks nothing of the network, and shows what it says it shows."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from eval.predict import read_predictions
from eval.report import ReportConfig, named_paths, write_report
from eval.score import ScoreConfig, score
from train.ecg import STYLES, draw_page, open_source

VOID = {"meta", "img", "br", "hr", "input", "link", "path", "circle"}


class Reader(HTMLParser):
    """Collects tags and text, and refuses a tag that is closed in the wrong place."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


@pytest.fixture(scope="module")
def config(predictions: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> ReportConfig:
    """Base and adapted model, and a short training log."""
    folder = tmp_path_factory.mktemp("report")
    names = ("base", "tuned <b>")
    pairs = dict(zip(names, ("base", "tuned"), strict=True))
    for name in pairs.values():
        score(
            ScoreConfig(
                predictions=predictions[f"{name}-test"],
                validation=predictions[f"{name}-validate"],
                out=folder / f"{name}.json",
            )
        )
    (folder / "run").mkdir()
    log = [{"step": i, "loss": 3 / i, "samples": 4 * i} for i in range(1, 9)]
    (folder / "run" / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    return ReportConfig(
        scores=tuple(f"{shown}={folder / name}.json" for shown, name in pairs.items()),
        predictions=tuple(f"{shown}={predictions[f'{name}-test']}" for shown, name in pairs.items()),
        run=folder / "run",
        pages=3,
        out=folder / "deeper" / "report.html",
    )


@pytest.fixture(scope="module")
def html(config: ReportConfig) -> str:
    return write_report(config).read_text()


@pytest.fixture(scope="module")
def page(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def test_it_asks_nothing_of_the_network(html: str, page: Reader) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed"), tag
        for name in ("src", "href", "data", "action", "xlink:href"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
    assert not re.search(r"https?:|url\(|@import", html)


def test_names_of_models_are_text_not_markup(page: Reader) -> None:
    assert not [tag for tag, _ in page.tags if tag == "b"]
    assert "tuned <b>" in "".join(page.text)


def test_both_protocols_have_a_table_with_the_baselines(page: Reader, config: ReportConfig) -> None:
    text = " ".join(page.text)
    assert [tag for tag, _ in page.tags].count("table") == 2
    for words in ("5 superclasses", "all statements", "nothing", "all normal", "fair coin", "Hamming"):
        assert words in text
    scores = json.loads(named_paths(config.scores, "scores")["base"].read_text())
    assert f"{scores['protocols']['statements']['from_scores']['macro_auc']:.3f}" in text


def test_it_says_that_the_patients_are_simulated_and_what_it_is_not(page: Reader) -> None:
    text = " ".join(page.text)
    assert "SIMULATED, not patients" in text
    assert "Not a medical device" in text
    assert "7 validation records" in text


def test_pages_stand_beside_what_was_said_about_them(page: Reader, predictions: dict[str, Path]) -> None:
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 3
    lines = {line["id"]: line for line in read_predictions(predictions["tuned-test"])}
    source = open_source("simulated", None, "test", n=7, seed=5)
    text = "".join(page.text)
    for attributes in pictures:
        name = str(attributes["alt"]).removeprefix("ECG page ")
        content = base64.b64decode(str(attributes["src"]).removeprefix("data:image/png;base64,"))
        drawn = draw_page(source[int(name.rsplit("-", 1)[1])], STYLES["wide"]).image
        assert Image.open(io.BytesIO(content)).convert("RGB").tobytes() == drawn.tobytes()
        assert lines[name]["truth"]["report"] in text


def test_every_label_with_both_outcomes_has_a_roc_chart_and_training_its_loss(
    page: Reader, config: ReportConfig
) -> None:
    scores = json.loads(named_paths(config.scores, "scores")["base"].read_text())
    defined = sum(
        row["auc"] is not None
        for part in scores["protocols"].values()
        for row in part["from_scores"]["per_label"].values()
    )
    labels = [attributes.get("aria-label") for tag, attributes in page.tags if tag == "svg"]
    assert len(labels) == defined + 1
    assert labels[0] == "fine-tuning"
    assert "8 steps, 32 pages" in " ".join(page.text)


# refusal


def test_nothing_is_overwritten_and_names_must_match(config: ReportConfig, html: str) -> None:
    from dataclasses import replace

    with pytest.raises(FileExistsError, match=r"report.html exists"):
        write_report(config)
    other = replace(config, out=config.out.with_name("other.html"), predictions=config.predictions[:1])
    with pytest.raises(ValueError, match="--scores names base, tuned <b>, but --predictions base"):
        write_report(other)
    assert not other.out.exists()


@pytest.mark.parametrize("pair", ["a.json", "a=x.json"])
def test_pairs_are_names_and_files_that_exist(tmp_path: Path, pair: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match="--scores"):
        named_paths([pair], "scores")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ValueError, match="different names"):
        named_paths([f"a={tmp_path / 'x.json'}"] * 2, "scores")
