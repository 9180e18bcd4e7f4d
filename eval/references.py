"""The part of a prediction that does not come from the model: what the record is, and what is true of it."""

from typing import Any

from eval.answers import parse_protocol
from eval.benchmark_files import AskedRecord
from eval.suites import Suite
from train.ecg import EcgRecord
from train.ecg.instruct import report_text
from train.ecg.labels import superclasses_of


def reference(record: EcgRecord | AskedRecord, suite: Suite) -> dict[str, Any]:
    """A line without answers: id, patient_id, truth (labels, superclass, report, and question and answer if asked)."""
    truth = _of_question(record, suite) if isinstance(record, AskedRecord) else _of_record(record, suite)
    line = {
        "id": record.record_id,
        "patient_id": record.patient_id or record.record_id,
        "truth": truth,
        "log_odds": {},
        "texts": {},
    }
    return {**line, "item": record.item} if isinstance(record, AskedRecord) else line


def _of_record(record: EcgRecord, suite: Suite) -> dict[str, Any]:
    truth: dict[str, Any] = {"labels": None, "superclass": None, "report": record.report}
    if record.labels is None:
        return truth
    sets = suite.label_sets
    if "code15" in sets or "cpsc" in sets:  # labels that are not SCP statements
        (label_set,) = sets.values()
        return {**truth, "labels": list(label_set.select(record.labels))}
    known = sets.get("statements") or Suite(name="", source="").label_sets["statements"]
    truth |= {"labels": list(known.select(record.labels)), "superclass": sorted(superclasses_of(record.labels))}
    if suite.reference == "statements" or not record.report:
        truth["report"] = report_text(record, known)
    return truth


def _of_question(record: AskedRecord, suite: Suite) -> dict[str, Any]:
    """Labels are read in the golden answer; one in which none can be read has labels None, and is not scored."""
    questions, answers = record.questions, record.answers
    truth: dict[str, Any] = {"labels": None, "superclass": None, "report": None}
    truth |= {"questions": questions, "answers": answers}
    for protocol, label_set in suite.label_sets.items():
        codes = parse_protocol(answers[-1], protocol, label_set)
        truth["labels"] = None if codes is None else list(label_set.select(codes))
        truth["superclass"] = truth["labels"] if protocol == "superclass" else None
    if suite.own == "report":
        truth["report"] = answers[-1]
    return truth
