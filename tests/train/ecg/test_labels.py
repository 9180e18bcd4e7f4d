"""The 71 statements and the other label spaces."""

import csv
from pathlib import Path

import numpy as np
import pytest

from train.ecg import LABEL_SETS
from train.ecg.conditions import CONDITIONS
from train.ecg.instruct import build_example
from train.ecg.labels import STATEMENTS, SUPERCLASSES, superclasses_of, vocabulary_of
from train.ecg.record import EcgRecord

# equation


def test_the_71_statements_are_44_diagnostic_19_form_and_12_rhythm() -> None:
    sizes = {name: len(LABEL_SETS[name].labels) for name in ("statements", "diagnostic", "form", "rhythm")}
    assert sizes == {"statements": 71, "diagnostic": 44, "form": 19, "rhythm": 12}
    both = {code for code, label in STATEMENTS.items() if len(label.kinds) > 1}
    assert both == {"NDT", "NST_", "DIG", "LNGQT"}


def test_superclasses_have_14_13_11_5_and_1_statements() -> None:
    counts: dict[str, int] = {}
    for label in STATEMENTS.values():
        if label.superclass:
            counts[label.superclass] = counts.get(label.superclass, 0) + 1
    assert counts == {"MI": 14, "STTC": 13, "CD": 11, "HYP": 5, "NORM": 1}
    assert len({label.subclass for label in STATEMENTS.values()} - {""}) == 23


@pytest.mark.parametrize(
    ("codes", "classes"),
    [
        (["SR"], set()),
        (["NORM", "SR"], {"NORM"}),
        (["IMI", "CLBBB", "SR", "QWAVE"], {"MI", "CD"}),
        (["LVH", "NDT", "VCLVH"], {"HYP", "STTC"}),
        ([], set()),
    ],
)
def test_superclasses_follow_from_diagnostic_statements(codes: list[str], classes: set[str]) -> None:
    assert superclasses_of(codes) == classes


# parity


def test_the_table_is_the_official_one(shared: Path) -> None:
    path = shared / "data" / "scp_statements_official_v103.csv"
    if not path.is_file():
        pytest.skip(f"no official table at {path}")
    with path.open(newline="") as file:
        rows = {row[""]: row for row in csv.DictReader(file)}  # the first column has no name
    assert set(rows) == set(STATEMENTS)
    for code, row in rows.items():
        ours = STATEMENTS[code]
        kinds = "".join(letter for letter, name in (("d", "diagnostic"), ("f", "form"), ("r", "rhythm")) if row[name])
        assert (ours.kinds, ours.superclass, ours.subclass) == (
            kinds,
            row["diagnostic_class"],
            row["diagnostic_subclass"],
        )


# property


@pytest.mark.parametrize("name", LABEL_SETS)
def test_codes_and_names_are_unique_and_the_set_is_found_by_its_name(name: str) -> None:
    labels = LABEL_SETS[name].labels
    assert LABEL_SETS[name].name == name
    assert len({label.code for label in labels}) == len(labels)
    names = [other.lower() for label in labels for other in (label.name, *label.synonyms)]
    assert len(set(names)) == len(names)


def test_selecting_keeps_the_sets_order_and_drops_strangers() -> None:
    assert LABEL_SETS["superclass"].select(["HYP", "AFIB", "MI"]) == ("MI", "HYP")


def test_every_code_that_the_simulator_writes_is_a_statement() -> None:
    written = {code for condition in CONDITIONS.values() for code in condition.statements}
    assert written <= STATEMENTS.keys()
    assert set(LABEL_SETS["simulated"].codes) == written | {"NORM", "SR"}


def labelled(*labels: str) -> EcgRecord:
    return EcgRecord(signal=np.zeros((12, 100), np.float32), hz=100, record_id="x", labels=frozenset(labels))


def test_a_label_set_is_asked_of_records_of_its_vocabulary() -> None:
    assert vocabulary_of(LABEL_SETS["superclass"]) == vocabulary_of(LABEL_SETS["form"]) == set(STATEMENTS)
    assert not SUPERCLASSES.keys() - {"NORM"} & vocabulary_of(LABEL_SETS["superclass"])
    assert vocabulary_of(LABEL_SETS["code15"]) == {"1dAVb", "RBBB", "LBBB", "SB", "ST", "AF"}


@pytest.mark.parametrize("name", ["code15", "cpsc"])
def test_labels_of_other_data_sets_are_asked_for_in_their_own_words(name: str) -> None:
    rng, record = np.random.default_rng(0), labelled("AF", "RBBB")
    keys = [build_example(record, "yes_no", rng, name).key for _ in range(60)]
    assert {key["code"] for key in keys if key["present"]} == {"AF", "RBBB"}
    assert {key["code"] for key in keys if not key["present"]} == set(LABEL_SETS[name].codes) - {"AF", "RBBB"}
    assert set(build_example(record, "statements", rng, name).key["labels"]) == {"AF", "RBBB"}


def test_a_report_of_nothing_says_so() -> None:
    assert build_example(labelled(), "report", np.random.default_rng(0), "code15").answer == "No findings."


# refusal


@pytest.mark.parametrize(
    ("label", "name", "task"),
    [
        ("AF", "statements", "statements"),
        ("AF", "statements", "yes_no"),
        ("AF", "statements", "report"),
        ("AF", "code15", "rhythm"),
        ("AF", "code15", "superclass"),
        ("LBBB", "cpsc", "diagnosis"),
        ("LBBB", "cpsc", "morphology"),
        ("AFIB", "cpsc", "statements"),
        ("AFIB", "code15", "yes_no"),
    ],
)
def test_a_label_of_another_vocabulary_is_not_denied_in_silence(label: str, name: str, task: str) -> None:
    with pytest.raises(ValueError, match=f"record x has labels of another vocabulary .* asks for: {label}$"):
        build_example(labelled(label), task, np.random.default_rng(0), name)


def test_an_unknown_statement_is_named() -> None:
    with pytest.raises(ValueError, match="not SCP statements: AFIBB, MI"):
        superclasses_of(["AFIBB", "MI", "SR"])
