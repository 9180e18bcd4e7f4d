"""Tables from other vocabularies to the 71 statements: clear ones only, and what is not in them is handed back."""

import re

import pytest

from train.ecg.label_maps import CPSC_OF_SNOMED, MIMIC_PHRASES, SNOMED, map_codes, map_phrases
from train.ecg.labels import STATEMENTS

SURE = sorted(MIMIC_PHRASES)
HEDGES = ("possible", "probable", "consider", "cannot rule out", "suggests", "suspect", "may be", "borderline", "?")
DENIALS = ("no", "not", "without", "absence of", "rule out")


# property: nothing is guessed


@pytest.mark.parametrize("word", [*HEDGES, *DENIALS])
def test_a_phrase_with_a_doubt_or_a_denial_in_front_is_handed_back(word: str) -> None:
    for phrase in SURE:
        doubtful = f"{word} {phrase}"
        if doubtful in MIMIC_PHRASES:  # "borderline ecg" says nothing that is among the 71
            assert MIMIC_PHRASES[doubtful] == ()
            continue
        assert map_phrases([doubtful]) == (frozenset(), (doubtful,))
        for pair in (f"Sinus rhythm with {doubtful}", f"{doubtful} with PVC(s)"):
            assert map_phrases([pair]) == (frozenset(), (pair,))  # not the half of it


@pytest.mark.parametrize("between", ["or", "versus", "vs", "and/or", "/", "changing to"])
def test_a_choice_between_two_phrases_is_handed_back(between: str) -> None:
    for phrase in SURE:
        choice = f"{phrase} {between} {SURE[0]}"
        assert map_phrases([choice]) == (frozenset(), (choice,))


def test_no_phrase_of_the_table_is_a_doubt_a_denial_or_a_choice() -> None:
    doubt = re.compile(r"\b(possible|probable|consider|rule out|suggest|suspect|may|likely|or|versus|no|not)\b")
    remarks = {phrase for phrase in SURE if doubt.search(phrase) and MIMIC_PHRASES[phrase]}
    assert remarks == set()  # "data quality may affect interpretation" maps to nothing


@pytest.mark.parametrize("end", [", age undetermined", " (old)", " - acute", ", possibly acute", " syndrome"])
def test_a_phrase_with_something_behind_it_is_not_the_phrase(end: str) -> None:
    for phrase in SURE:
        longer = phrase + end
        if longer not in MIMIC_PHRASES:
            assert map_phrases([longer]) == (frozenset(), (longer,))


def test_every_statement_is_reached_by_a_phrase_that_names_it() -> None:
    """A place or a side in the phrase is the one in the statement's name, and the other way round."""
    places = ("inferior", "anterior", "lateral", "septal", "posterior", "left", "right", "atrial", "ventricular")
    for phrase, codes in MIMIC_PHRASES.items():
        for code in codes:
            if {"AMI", "IMI", "LMI", "PMI", "ASMI", "ALMI", "ILMI"} & {code}:
                name = STATEMENTS[code].name
                found = {place for place in places if re.search(rf"(?<![a-z]){place}|o{place}", phrase)}
                assert found == {place for place in places if re.search(rf"(?<![a-z]){place}|o{place}", name)}, phrase


# property: counted


def test_what_is_not_in_a_table_is_handed_back_as_often_as_it_came() -> None:
    said = ["Sinus rhythm", "Possible anterior infarct", "ST-T changes", "Possible anterior infarct"]
    assert map_phrases(said) == ({"SR"}, ("Possible anterior infarct", "ST-T changes", "Possible anterior infarct"))
    assert map_codes(["164889003", "6374002", "6374002"], SNOMED) == ({"AFIB"}, ("6374002", "6374002"))


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("6374002", "bundle branch block: which?"),
        ("195060002", "pre-excitation: whose?"),
        ("426627000", "bradycardia: of which rhythm?"),
        ("164865005", "infarction without a place"),
        ("428750005", "nonspecific ST-T changes"),
        ("233917008", "AV block without a degree"),
    ],
)
def test_codes_that_say_too_little_are_in_no_table(code: str, why: str) -> None:
    assert map_codes([code], SNOMED) == (frozenset(), (code,)), why
    assert code not in CPSC_OF_SNOMED


@pytest.mark.parametrize(
    ("code", "name", "statement"),
    [
        ("425419005", "inferior ischaemia", "ISCIN"),
        ("425623009", "lateral ischaemia", "ISCLA"),
        ("426434006", "anterior ischemia", "ISCAN"),
    ],
)
def test_an_ischaemia_keeps_its_place(code: str, name: str, statement: str) -> None:
    """Names as in the challenge's dx_mapping_unscored.csv."""
    assert SNOMED[code] == (statement,)
    assert STATEMENTS[statement].name == f"ischemia in {name.split()[0]} leads"
