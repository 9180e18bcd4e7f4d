"""Other vocabularies in terms of the 71 SCP statements: SNOMED CT, the phrases of MIMIC's carts, CODE-15, CPSC.

A table maps what is clear, and only that. An empty tuple says: clear, and none of the 71 (an axis, a remark about
data quality). What is in no table is handed back, so that it can be counted; nothing is matched by similarity.

Sources: physionetchallenges/evaluation-2021, dx_mapping_scored.csv and dx_mapping_unscored.csv (names of SNOMED
codes); phrases of machine_measurements.csv of MIMIC-IV-ECG 1.0, as the carts print them.
"""

import re
from collections.abc import Iterable, Mapping

Codes = tuple[str, ...]


def _table(text: str) -> dict[str, Codes]:
    """Lines of "CODE CODE: name; name"; "-" for none of the 71."""
    rows: dict[str, Codes] = {}
    for line in text.strip().splitlines():
        codes, names = line.split(":", 1)
        targets = () if codes.strip() == "-" else tuple(codes.split())
        for name in names.split(";"):
            if (key := name.strip()) in rows:
                raise AssertionError(f"{key!r} stands in the table twice")
            rows[key] = targets
    return rows


SNOMED = _table("""
AFIB: 164889003; 426749004; 282825002; 314208002
AFLT: 164890007
SVTAC: 426761007
PSVT: 67198005
SR: 426783006
SBRAD: 426177001
STACH: 427084000
SARRH: 427393009
PACE: 10370003; 251266004; 251268003
BIGU: 11157007
TRIGU: 251180001
1AVB: 270492004
2AVB: 195042002; 426183003; 54016002
3AVB: 27885002
CLBBB: 733534002; 164909002
ILBBB: 251120003
CRBBB: 713427006; 59118001
IRBBB: 713426002
LAFB: 445118002
LPFB: 445211001
IVCD: 698252002
WPW: 74390002
LPR: 164947007
LNGQT: 111975006
LVH: 164873001
RVH: 89792004
LAO/LAE: 67741000119109; 253352002; 446813000
RAO/RAE: 253339007; 446358003
PAC: 284470004; 63593006
PVC: 427172004; 17338001; 164884008
AMI: 54329005
ISCAN: 426434006
ISCIN: 425419005
ISCLA: 425623009
QWAVE: 164917005
LVOLT: 251146004
ABQRS: 164951009
TAB_: 164934002
INVT: 59931005
STD_: 429622005
STE_: 164931005
-: 39732003; 47665007; 251200008; 365413008; 251198002; 251199005; 61721007; 164937009
""")
# not mapped on purpose: bradycardia (of which rhythm?), bundle branch block (which?), infarction and ischaemia without
# a place, "ST changes", hypertrophy without a side, AV block without a degree, high voltage (VCLVH or HVOLT?),
# pre-excitation (Wolff-Parkinson-White's or another?)

CPSC_OF_SNOMED = _table("""
NORM: 426783006
AF: 164889003
I-AVB: 270492004
LBBB: 164909002; 733534002
RBBB: 59118001; 713427006
PAC: 284470004; 63593006
PVC: 164884008; 427172004; 17338001
STD: 429622005
STE: 164931005
""")
"""What the PhysioNet challenge made of CPSC 2018's nine labels; its "normal" became 426783006 there."""

SCP_OF_CODE15 = {"1dAVb": "1AVB", "RBBB": "CRBBB", "LBBB": "CLBBB", "SB": "SBRAD", "ST": "STACH", "AF": "AFIB"}

MIMIC_PHRASES = _table("""
NORM: normal ecg; normal tracing
SR: sinus rhythm; normal sinus rhythm
SBRAD: sinus bradycardia; marked sinus bradycardia
STACH: sinus tachycardia; sinus tach
SARRH: sinus arrhythmia
AFIB: atrial fibrillation; afib
AFLT: atrial flutter
SVTAC: supraventricular tachycardia
PACE: ventricular-paced rhythm; ventricular paced rhythm; atrial-paced rhythm; a-v dual-paced rhythm; paced rhythm; electronic ventricular pacemaker; atrial-sensed ventricular-paced rhythm
PVC: pvc; pvcs; pvc(s); ventricular premature complex; ventricular premature complex(es); ventricular premature complexes; premature ventricular complexes; multiple ventricular premature complexes; frequent pvc(s); frequent pvcs
PAC: pac; pacs; pac(s); atrial premature complex; atrial premature complex(es); atrial premature complexes; premature atrial complexes; multiple atrial premature complexes; frequent pac(s); frequent pacs
BIGU: ventricular bigeminy
TRIGU: ventricular trigeminy
1AVB: 1st degree a-v block; first degree a-v block; 1st degree av block; first degree av block
2AVB: 2nd degree a-v block; second degree a-v block; 2nd degree a-v block, mobitz i; 2nd degree a-v block, mobitz ii
3AVB: complete heart block; 3rd degree a-v block; complete a-v block
LPR: prolonged pr interval
CLBBB: left bundle branch block; lbbb
ILBBB: incomplete left bundle branch block; incomplete lbbb
CRBBB: right bundle branch block; rbbb
IRBBB: incomplete right bundle branch block; incomplete rbbb
LAFB: left anterior fascicular block
LPFB: left posterior fascicular block
IVCD: iv conduction defect; intraventricular conduction delay; nonspecific intraventricular conduction delay; ivcd
WPW: wolff-parkinson-white; ventricular preexcitation, wpw
LNGQT: prolonged qt interval; prolonged qt
LVH: left ventricular hypertrophy; lvh
RVH: right ventricular hypertrophy; rvh
LAO/LAE: left atrial abnormality; left atrial enlargement
RAO/RAE: right atrial abnormality; right atrial enlargement
LVOLT: low qrs voltages; low voltage; generalized low qrs voltages; generalized low voltage
IMI: inferior infarct; inferior infarct - age undetermined; inferior infarct, age undetermined; inferior infarct, old; old inferior infarct
ASMI: anteroseptal infarct; anteroseptal infarct - age undetermined; anteroseptal infarct, age undetermined; anteroseptal infarct, old; old anteroseptal infarct
AMI: anterior infarct; anterior infarct - age undetermined; anterior infarct, age undetermined; anterior infarct, old; old anterior infarct
ALMI: anterolateral infarct; anterolateral infarct - age undetermined; anterolateral infarct, age undetermined; anterolateral infarct, old; old anterolateral infarct
LMI: lateral infarct; lateral infarct - age undetermined; lateral infarct, age undetermined; lateral infarct, old; old lateral infarct
ILMI: inferolateral infarct; inferolateral infarct - age undetermined; inferolateral infarct, age undetermined; inferolateral infarct, old; old inferolateral infarct
PMI: posterior infarct; posterior infarct - age undetermined; posterior infarct, age undetermined; posterior infarct, old; old posterior infarct
-: abnormal ecg; borderline ecg; left axis deviation; right axis deviation; leftward axis; rightward axis; indeterminate axis; rapid ventricular response; slow ventricular response; data quality may affect interpretation; report made without knowing patient's sex or age; report made without knowing patient's age; report made without knowing patient's sex; otherwise normal ecg; normal ecg except for rate
""")  # noqa: E501 - a table, one statement a line
# "possible", "probable", "consider" and "may be due to" are not mapped: the cart is not sure, and neither are we


def map_codes(values: Iterable[str], table: Mapping[str, Codes]) -> tuple[frozenset[str], tuple[str, ...]]:
    """What a table makes of some codes: their targets, and those that it does not have."""
    listed = list(values)
    found = frozenset(code for value in listed for code in table.get(value, ()))
    return found, tuple(value for value in listed if value not in table)


def _bare(phrase: str) -> str:
    """Lower case, without the stars, dashes, "Summary:" and full stops that the carts print around a phrase."""
    text = re.sub(r"\s+", " ", phrase.lower()).strip(" .*-_")
    text = re.sub(r"^(summary|warning|note)\s*:\s*", "", text).strip(" .*-_")
    return text.removeprefix("with ").replace("i.v. ", "iv ")


def map_phrases(phrases: Iterable[str]) -> tuple[frozenset[str], tuple[str, ...]]:
    """SCP statements of a cart's report, and the phrases that are not understood as a whole.

    "A with B" is understood if A and B are.
    """
    found: set[str] = set()
    unmapped = []
    for phrase in phrases:
        whole = _bare(phrase)
        parts = [whole] if whole in MIMIC_PHRASES else whole.split(" with ")
        if all(part in MIMIC_PHRASES for part in parts):
            found.update(code for part in parts for code in MIMIC_PHRASES[part])
        else:
            unmapped.append(phrase)
    return frozenset(found), tuple(unmapped)
