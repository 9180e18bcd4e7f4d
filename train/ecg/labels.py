"""Names of findings: the 71 SCP-ECG statements of PTB-XL, their five superclasses, and other sets' label spaces.

Source: PTB-XL 1.0.3, scp_statements.csv (Wagner et al. 2020, doi:10.1038/s41597-020-0495-6, CC BY 4.0).
Codes are compared whole, never as substrings: LVH stands in VCLVH, and MI in fourteen codes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from train.ecg.conditions import SIMULATED_STATEMENTS

# code | kinds: d(iagnostic) f(orm) r(hythm) | superclass | subclass | name in questions and reports | other names
_STATEMENTS = """
NDT      | df | STTC | STTC       | non-diagnostic T wave abnormalities | non-diagnostic T abnormalities
NST_     | df | STTC | NST_       | non-specific ST changes |
DIG      | df | STTC | STTC       | digitalis effect | digitalis-effect
LNGQT    | df | STTC | STTC       | long QT interval | long QT-interval, prolonged QT interval
NORM     | d  | NORM | NORM       | normal ECG | normal electrocardiogram
IMI      | d  | MI   | IMI        | inferior myocardial infarction | inferior infarction
ASMI     | d  | MI   | AMI        | anteroseptal myocardial infarction | anteroseptal infarction
LVH      | d  | HYP  | LVH        | left ventricular hypertrophy |
LAFB     | d  | CD   | LAFB/LPFB  | left anterior fascicular block | left anterior hemiblock
ISC_     | d  | STTC | ISC_       | non-specific ischemia | non-specific ischemic changes, non-specific ischemic
IRBBB    | d  | CD   | IRBBB      | incomplete right bundle branch block |
1AVB     | d  | CD   | _AVB       | first degree AV block | first-degree AV block, 1st degree AV block
IVCD     | d  | CD   | IVCD       | non-specific intraventricular conduction disturbance | intraventricular conduction delay
ISCAL    | d  | STTC | ISCA       | ischemia in anterolateral leads | ischemic in anterolateral leads
CRBBB    | d  | CD   | CRBBB      | complete right bundle branch block | right bundle branch block
CLBBB    | d  | CD   | CLBBB      | complete left bundle branch block | left bundle branch block
ILMI     | d  | MI   | IMI        | inferolateral myocardial infarction | inferolateral infarction
LAO/LAE  | d  | HYP  | LAO/LAE    | left atrial enlargement | left atrial overload/enlargement, left atrial overload
AMI      | d  | MI   | AMI        | anterior myocardial infarction | anterior infarction
ALMI     | d  | MI   | AMI        | anterolateral myocardial infarction | anterolateral infarction
ISCIN    | d  | STTC | ISCI       | ischemia in inferior leads | ischemic in inferior leads
INJAS    | d  | MI   | AMI        | subendocardial injury in anteroseptal leads |
LMI      | d  | MI   | LMI        | lateral myocardial infarction | lateral infarction
ISCIL    | d  | STTC | ISCI       | ischemia in inferolateral leads | ischemic in inferolateral leads
LPFB     | d  | CD   | LAFB/LPFB  | left posterior fascicular block | left posterior hemiblock
ISCAS    | d  | STTC | ISCA       | ischemia in anteroseptal leads | ischemic in anteroseptal leads
INJAL    | d  | MI   | AMI        | subendocardial injury in anterolateral leads |
ISCLA    | d  | STTC | ISCA       | ischemia in lateral leads | ischemic in lateral leads
RVH      | d  | HYP  | RVH        | right ventricular hypertrophy |
ANEUR    | d  | STTC | STTC       | ST-T changes compatible with ventricular aneurysm | ventricular aneurysm
RAO/RAE  | d  | HYP  | RAO/RAE    | right atrial enlargement | right atrial overload/enlargement, right atrial overload
EL       | d  | STTC | STTC       | electrolytic disturbance or drug effect | electrolytic disturbance or drug
WPW      | d  | CD   | WPW        | Wolff-Parkinson-White syndrome | Wolf-Parkinson-White syndrome, pre-excitation
ILBBB    | d  | CD   | ILBBB      | incomplete left bundle branch block |
IPLMI    | d  | MI   | IMI        | inferoposterolateral myocardial infarction | inferoposterolateral infarction
ISCAN    | d  | STTC | ISCA       | ischemia in anterior leads | ischemic in anterior leads
IPMI     | d  | MI   | IMI        | inferoposterior myocardial infarction | inferoposterior infarction
SEHYP    | d  | HYP  | SEHYP      | septal hypertrophy |
INJIN    | d  | MI   | IMI        | subendocardial injury in inferior leads |
INJLA    | d  | MI   | AMI        | subendocardial injury in lateral leads |
PMI      | d  | MI   | PMI        | posterior myocardial infarction | posterior infarction
3AVB     | d  | CD   | _AVB       | third degree AV block | third-degree AV block, complete AV block, complete heart block
INJIL    | d  | MI   | IMI        | subendocardial injury in inferolateral leads |
2AVB     | d  | CD   | _AVB       | second degree AV block | second-degree AV block, 2nd degree AV block
ABQRS    | f  |      |            | abnormal QRS |
PVC      | f  |      |            | ventricular premature complex | premature ventricular complex, premature ventricular contraction, PVCs
STD_     | f  |      |            | ST depression | non-specific ST depression, ST-segment depression
VCLVH    | f  |      |            | voltage criteria for left ventricular hypertrophy | voltage criteria (QRS) for left ventricular hypertrophy
QWAVE    | f  |      |            | Q waves present | pathological Q waves
LOWT     | f  |      |            | low amplitude T waves | low amplitude T-waves
NT_      | f  |      |            | non-specific T wave changes | non-specific T-wave changes
PAC      | f  |      |            | atrial premature complex | premature atrial complex, premature atrial contraction
LPR      | f  |      |            | prolonged PR interval |
INVT     | f  |      |            | inverted T waves | inverted T-waves, T wave inversion
LVOLT    | f  |      |            | low QRS voltage | low QRS voltages in the frontal and horizontal leads, low voltage
HVOLT    | f  |      |            | high QRS voltage |
TAB_     | f  |      |            | T wave abnormality | T-wave abnormality
STE_     | f  |      |            | ST elevation | non-specific ST elevation, ST-segment elevation
PRC(S)   | f  |      |            | premature complexes | premature complex(es)
SR       | r  |      |            | sinus rhythm | normal sinus rhythm
AFIB     | r  |      |            | atrial fibrillation |
STACH    | r  |      |            | sinus tachycardia |
SARRH    | r  |      |            | sinus arrhythmia |
SBRAD    | r  |      |            | sinus bradycardia |
PACE     | r  |      |            | paced rhythm | normal functioning artificial pacemaker, artificial pacemaker
SVARR    | r  |      |            | supraventricular arrhythmia |
BIGU     | r  |      |            | bigeminy | bigeminal pattern
AFLT     | r  |      |            | atrial flutter |
SVTAC    | r  |      |            | supraventricular tachycardia |
PSVT     | r  |      |            | paroxysmal supraventricular tachycardia |
TRIGU    | r  |      |            | trigeminy | trigeminal pattern
"""  # noqa: E501 - a table, one statement a line


@dataclass(frozen=True, kw_only=True)
class Label:
    """One finding: its code, the name we write, and other names a text may use."""

    code: str
    name: str
    synonyms: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Statement(Label):
    """An SCP-ECG statement.

    Attributes:
        kinds: letters of "d" diagnostic, "f" form, "r" rhythm.
        superclass, subclass: of diagnostic statements; "" otherwise.
    """

    kinds: str
    superclass: str = ""
    subclass: str = ""


def _parse_statements(table: str) -> dict[str, Statement]:
    statements = {}
    for line in table.strip().splitlines():
        code, kinds, superclass, subclass, name, others = (cell.strip() for cell in line.split("|"))
        synonyms = tuple(other.strip() for other in others.split(",") if other.strip())
        statements[code] = Statement(
            code=code, name=name, synonyms=synonyms, kinds=kinds, superclass=superclass, subclass=subclass
        )
    return statements


STATEMENTS = _parse_statements(_STATEMENTS)
SUPERCLASSES = {
    label.code: label
    for label in (
        Label(code="NORM", name="normal ECG", synonyms=("normal electrocardiogram",)),
        Label(code="MI", name="myocardial infarction"),
        Label(code="STTC", name="ST/T change", synonyms=("ST/T changes", "ST-T change", "ST-T changes")),
        Label(code="CD", name="conduction disturbance", synonyms=("conduction disturbances",)),
        Label(code="HYP", name="hypertrophy"),
    )
}


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """A closed list of labels that a question asks for, in the order in which answers name them."""

    name: str
    labels: tuple[Label, ...]

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes, in order."""
        return tuple(label.code for label in self.labels)

    def select(self, codes: Iterable[str]) -> tuple[str, ...]:
        """Those of `codes` that belong to this set, in its order."""
        present = set(codes)
        return tuple(code for code in self.codes if code in present)


def superclasses_of(statements: Iterable[str]) -> frozenset[str]:
    """The superclasses of diagnostic statements.

    Raises:
        ValueError: if a code is not one of the 71.
    """
    codes = set(statements)
    if unknown := codes - STATEMENTS.keys():
        raise ValueError(f"not SCP statements: {', '.join(sorted(unknown))}")
    return frozenset(STATEMENTS[code].superclass for code in codes) - {""}


def _of_kind(kind: str) -> tuple[Label, ...]:
    return tuple(statement for statement in STATEMENTS.values() if kind in statement.kinds)


_CODE15 = (
    Label(code="1dAVb", name="first degree AV block", synonyms=("1st degree AV block",)),
    Label(code="RBBB", name="right bundle branch block"),
    Label(code="LBBB", name="left bundle branch block"),
    Label(code="SB", name="sinus bradycardia"),
    Label(code="ST", name="sinus tachycardia"),
    Label(code="AF", name="atrial fibrillation"),
)
_CPSC = (
    Label(code="NORM", name="normal ECG"),
    Label(code="AF", name="atrial fibrillation"),
    Label(code="I-AVB", name="first degree AV block"),
    Label(code="LBBB", name="left bundle branch block"),
    Label(code="RBBB", name="right bundle branch block"),
    Label(code="PAC", name="premature atrial contraction"),
    Label(code="PVC", name="premature ventricular contraction"),
    Label(code="STD", name="ST depression"),
    Label(code="STE", name="ST elevation"),
)
LABEL_SETS: dict[str, LabelSet] = {
    label_set.name: label_set
    for label_set in (
        LabelSet(name="superclass", labels=tuple(SUPERCLASSES.values())),
        LabelSet(name="statements", labels=tuple(STATEMENTS.values())),
        LabelSet(name="diagnostic", labels=_of_kind("d")),
        LabelSet(name="form", labels=_of_kind("f")),
        LabelSet(name="rhythm", labels=_of_kind("r")),
        LabelSet(
            name="simulated",
            labels=tuple(STATEMENTS[code] for code in STATEMENTS if code in SIMULATED_STATEMENTS),
        ),
        LabelSet(name="code15", labels=_CODE15),
        LabelSet(name="cpsc", labels=_CPSC),
    )
}


def vocabulary_of(label_set: LabelSet) -> frozenset[str]:
    """The codes that a record can have which is asked about a label set: the 71 statements, or the set's own."""
    codes = frozenset(label_set.codes)
    return frozenset(STATEMENTS) if codes <= STATEMENTS.keys() | SUPERCLASSES.keys() else codes
