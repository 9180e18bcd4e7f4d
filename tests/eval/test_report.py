"""report.html: one file that parses, asks nothing of the network, and shows what it says it shows.

A browser reads it in test_report_browser.py.
"""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from eval.predict import read_predictions, run_predict
from eval.report import SECTIONS, ReportConfig, named_paths, write_report
from eval.score import ScoreConfig, score
from tests.eval.conftest import predict_config
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
def config(
    predictions: dict[str, Path], checkpoint: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory
) -> ReportConfig:
    """Base and adapted model, a short training log, blank pages, and one explained record."""
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
    blank = predict_config(
        checkpoint, folder / "blank.jsonl", adapter=str(adapter), split="test", texts=(), distort="blank_page"
    )
    (folder / "explained").mkdir()
    Image.new("RGB", (4, 3), "red").save(folder / "explained" / "heat.png")
    leads = {"I": {"attention": 0.125, "occlusion": -1.5}, "V6": {"attention": 0.0625, "occlusion": 2.25}}
    first = read_predictions(predictions["tuned-test"])[0]["id"]
    case = {"id": first, "label": "IMI", "log_odds": 0.75, "heat": "heat.png", "leads": leads}
    told = {"model": str(checkpoint), "adapter": str(adapter), "suite": "simulated", "split": "test", "seed": 5}
    told |= {"distort": "clean", "semantics": "meta"}
    (folder / "explained" / "explain.json").write_text(json.dumps({"settings": told, "cases": [case]}))
    return ReportConfig(
        scores=tuple(f"{shown}={folder / name}.json" for shown, name in pairs.items()),
        predictions=tuple(f"{shown}={predictions[f'{name}-test']}" for shown, name in pairs.items()),
        validation=tuple(f"{shown}={predictions[f'{name}-validate']}" for shown, name in pairs.items()),
        robustness=(f"blank={run_predict(blank)}",),
        explain=folder / "explained",
        run=folder / "run",
        smallest_group=3,
        draws=20,
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
            target = attributes.get(name) or "data:"
            assert target.startswith("data:") or target.removeprefix("#") in SECTIONS, (tag, attributes)
    assert not re.search(r"https?:|url\(|@import", html)


def test_names_of_models_are_text_not_markup(html: str, page: Reader) -> None:
    bold = [tag for tag, _ in page.tags].count("b")
    assert 2 * bold == len(re.findall(r"</?b>", html))  # each is closed, so none is a name
    assert "tuned &lt;b&gt;" in html
    assert "tuned <b>" in "".join(page.text)


def test_both_protocols_have_a_table_with_the_baselines(page: Reader, config: ReportConfig) -> None:
    text = " ".join(page.text)
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
    pages = [attributes for attributes in pictures if str(attributes["alt"]).startswith("ECG page ")]
    assert len(pages) in (3, 4)  # hits and failures, and the explained one if it is neither
    lines = {line["id"]: line for line in read_predictions(predictions["tuned-test"])}
    source = open_source("simulated", None, "test", n=7, seed=5)
    text = "".join(page.text)
    for attributes in pages:
        name = str(attributes["alt"]).removeprefix("ECG page ")
        content = base64.b64decode(str(attributes["src"]).removeprefix("data:image/png;base64,"))
        record = source[int(name.rsplit("-", 1)[1])]
        drawn = draw_page(record, STYLES["nano"]).image  # what the model saw, not a nicer one
        assert Image.open(io.BytesIO(content)).convert("RGB").tobytes() == drawn.tobytes()
        assert lines[name]["truth"]["report"] in text


def test_an_explained_record_has_its_heat_map_and_its_leads(page: Reader) -> None:
    maps = [attributes for tag, attributes in page.tags if tag == "img" and "heat map" in str(attributes["alt"])]
    assert len(maps) == 1
    text = " ".join(page.text)
    for words in ("IMI", "log-odds 0.75", "0.12", "-1.50", "2.25", "attention is not an explanation"):
        assert words in text


def test_every_section_is_there_and_none_is_empty_when_everything_is_given(page: Reader) -> None:
    ids = [attributes.get("id") for tag, attributes in page.tags if tag == "section"]
    assert ids == list(SECTIONS)
    assert not [tag for tag, attributes in page.tags if attributes.get("class") == "absent"]
    text = " ".join(page.text)
    for words in ("blank page", "all records", "specificity 0.95", "NOT calibrated", "none of them", "Failures"):
        assert words in text, words


def test_what_is_missing_is_said_with_the_command_that_fills_it(config: ReportConfig, html: str) -> None:
    out = config.out.with_name("less.html")
    less = write_report(
        replace(config, validation=(), robustness=(), explain=None, run=None, out=out, pages=0)
    ).read_text()
    found = re.findall(r'class="absent">Not in this report: ([^<]*)<code>([^<]*)</code>', less)
    options = " ".join(command for _, command in found)
    for option in ("--validation", "--run", "--robustness", "--explain", "--distort"):
        assert option in options
    assert all(f'id="{anchor}"' in less for anchor in SECTIONS)


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
    curves = [label for label in labels if label and "(" in label]
    assert len(curves) == 2 * defined  # ROC, then precision and recall
    assert labels[0] == "fine-tuning"
    assert "8 steps, 32 pages" in " ".join(page.text)


# refusal


def test_heat_maps_of_another_model_are_refused(config: ReportConfig, tmp_path: Path) -> None:
    assert config.explain is not None
    told = json.loads((config.explain / "explain.json").read_text())
    told["settings"]["adapter"] = ""
    (tmp_path / "explain.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match="was made with another adapter than the last model's"):
        write_report(replace(config, explain=tmp_path, out=tmp_path / "r.html"))


def test_pages_of_another_model_are_no_robustness(config: ReportConfig, checkpoint: Path, tmp_path: Path) -> None:
    other = run_predict(predict_config(checkpoint, tmp_path / "x.jsonl", seed=6, texts=(), distort="blank_page"))
    with pytest.raises(ValueError, match=r"--robustness x: .* is of none of base, tuned"):
        write_report(replace(config, robustness=(f"x={other}",), out=tmp_path / "r.html"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"specificities": (1.5,)}, r"must lie in \(0, 1\]"),
        ({"draws": 0}, "draws=0 must be positive"),
        ({"pages": -1}, "pages=-1 not negative"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReportConfig(scores=(), predictions=(), **changes)


def test_nothing_is_overwritten_and_names_must_match(config: ReportConfig, html: str) -> None:
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
