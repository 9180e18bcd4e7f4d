"""What the simulator can draw: 30 conditions as changes of a normal heart, and the statements each one stands for.

The numbers are those of textbook criteria (Surawicz & Knilans, Chou's Electrocardiography; AHA/ACCF/HRS 2009
recommendations, doi:10.1161/CIRCULATIONAHA.108.191095): bundle branch block from 120 ms, first degree block
above 200 ms, and so on. tests/train/ecg/test_conditions.py measures that they are met.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from train.ecg.beat import Plateau, Wave
from train.ecg.heart import Heart, Rng


def _wave(heart: Heart, name: str, **changes: object) -> None:
    heart.beat.waves[name] = heart.beat.waves[name].change(**changes)  # type: ignore[arg-type]


def _no_p(heart: Heart, atria: str) -> None:
    heart.atria = atria
    for name in ("p_right", "p_left"):
        heart.beat.waves.pop(name, None)


def _bradycardia(heart: Heart, rng: Rng) -> None:
    heart.rate = rng.uniform(40, 54)


def _tachycardia(heart: Heart, rng: Rng) -> None:
    heart.rate, heart.pr = rng.uniform(108, 138), rng.uniform(120, 145)


def _sinus_arrhythmia(heart: Heart, rng: Rng) -> None:
    heart.wave_amplitude = rng.uniform(0.15, 0.19)


def _fibrillation(heart: Heart, rng: Rng) -> None:
    _no_p(heart, "fibrillation")
    heart.rate = rng.uniform(75, 125)


def _flutter(heart: Heart, rng: Rng) -> None:
    _no_p(heart, "flutter")
    heart.rate, heart.jitter = float(rng.choice([75, 100, 150])), 0.0


def _svt(heart: Heart, rng: Rng) -> None:
    _no_p(heart, "none")
    heart.rate, heart.jitter = rng.uniform(160, 195), 0.003


def _first_degree_block(heart: Heart, rng: Rng) -> None:
    heart.pr = rng.uniform(225, 310)


def _third_degree_block(heart: Heart, rng: Rng) -> None:
    heart.atria = "dissociated"
    heart.rate, heart.jitter = rng.uniform(34, 42), 0.005


def _ectopy(kind: str) -> Callable[[Heart, Rng], None]:
    def change(heart: Heart, rng: Rng) -> None:
        heart.ectopy = kind

    return change


def _lbbb(heart: Heart, rng: Rng) -> None:
    heart.beat.waves.pop("q")
    _wave(heart, "r", at=-12, widths=16, limb=(0.8, 5), chest=(-0.9, -1.2, -0.9, 0.1, 0.8, 0.85))
    _wave(heart, "s", at=38, widths=(19, 17), limb=(0.75, -15), chest=(-1.1, -1.6, -1.3, -0.2, 0.85, 0.95))
    _wave(heart, "t", limb=(0.28, 175), chest=(0.45, 0.6, 0.5, 0.2, -0.25, -0.32))
    heart.beat.st = Plateau(start=80, limb=(0.08, 170), chest=(0.18, 0.25, 0.20, 0.0, 0.0, 0.0))
    heart.qtc += 35


def _rbbb(heart: Heart, rng: Rng) -> None:
    _wave(heart, "s", chest=(-0.35, -0.7, -0.7, -0.5, -0.25, -0.1))
    late = Wave(at=68, widths=(14, 14), limb=(0.35, -165), chest=(0.95, 0.55, 0.1, -0.2, -0.35, -0.4))
    heart.beat.waves["r2"] = late
    _wave(heart, "t", chest=(-0.28, -0.12, None, None, None, None))
    heart.beat.st = replace(heart.beat.st, start=90)
    heart.qtc += 20


def _incomplete_rbbb(heart: Heart, rng: Rng) -> None:
    _wave(heart, "s", chest=(-0.45, None, None, None, None, None))
    late = Wave(at=48, widths=(9, 9), limb=(0.15, -165), chest=(0.40, 0.1, 0.0, -0.05, -0.1, -0.1))
    heart.beat.waves["r2"] = late
    _wave(heart, "t", chest=(-0.12, None, None, None, None, None))
    heart.beat.st = replace(heart.beat.st, start=65)


def _left_anterior_block(heart: Heart, rng: Rng) -> None:
    _wave(heart, "q", limb=(0.25, 115))
    _wave(heart, "r", limb=(0.75, -15))
    _wave(heart, "s", at=27, limb=(0.95, -95), chest=(-0.8, -1.2, -1.0, -0.8, -0.6, -0.45))


def _left_posterior_block(heart: Heart, rng: Rng) -> None:
    _wave(heart, "q", limb=(0.09, -80))
    _wave(heart, "r", limb=(1.1, 108))
    _wave(heart, "s", limb=(0.15, -120))


def _lvh(heart: Heart, rng: Rng) -> None:
    _wave(heart, "r", limb=(1.75, 15), chest=(0.05, 0.25, 0.7, 2.0, 2.9, 2.3))
    _wave(heart, "s", chest=(-2.2, -2.7, -1.8, -0.7, None, None))
    _wave(heart, "t", limb=(0.25, 165), chest=(None, None, None, None, -0.25, -0.32))
    heart.beat.st = Plateau(limb=(0.08, 175), chest=(0.0, 0.0, 0.0, 0.0, -0.10, -0.12))


def _rvh(heart: Heart, rng: Rng) -> None:
    _wave(heart, "r", limb=(0.9, 112), chest=(1.05, None, None, None, None, None))
    _wave(heart, "s", chest=(-0.2, None, None, -0.8, -0.8, -0.7))
    _wave(heart, "t", chest=(-0.25, -0.22, -0.10, None, None, None))


def _anterior_stemi(heart: Heart, rng: Rng) -> None:
    _wave(heart, "q", widths=12, chest=(-0.35, -0.45, -0.40, -0.2, None, None))
    _wave(heart, "r", chest=(0.02, 0.05, 0.15, None, None, None))
    _wave(heart, "t", chest=(None, 0.6, 0.7, 0.6, None, None))
    heart.beat.st = Plateau(limb=(0.10, -60), chest=(0.18, 0.32, 0.35, 0.28, 0.12, 0.05))


def _inferior_stemi(heart: Heart, rng: Rng) -> None:
    _wave(heart, "q", widths=13, limb=(0.32, -75))
    _wave(heart, "t", limb=(0.45, 95))
    heart.beat.st = Plateau(limb=(0.30, 105), chest=(0.0, -0.12, -0.08, 0.0, 0.0, 0.0))


def _old_inferior_infarction(heart: Heart, rng: Rng) -> None:
    _wave(heart, "q", widths=14, limb=(0.42, -80))
    _wave(heart, "r", limb=(0.7, 25))
    _wave(heart, "t", limb=(0.25, -25))


def _st_depression(heart: Heart, rng: Rng) -> None:
    heart.beat.st = Plateau(limb=(0.16, -125), chest=(0.0, 0.0, -0.12, -0.22, -0.22, -0.18))
    _wave(heart, "t", limb=(0.10, 45), chest=(None, 0.15, 0.12, 0.10, 0.08, 0.06))


def _t_inversion(heart: Heart, rng: Rng) -> None:
    _wave(heart, "t", limb=(0.20, -150), chest=(-0.12, -0.28, -0.38, -0.40, -0.32, -0.22))


def _long_qt(heart: Heart, rng: Rng) -> None:
    heart.qtc = rng.uniform(495, 550)


def _paced(heart: Heart, rng: Rng) -> None:
    _no_p(heart, "none")
    heart.rate, heart.jitter = float(rng.choice([60, 70])), 0.0
    _wave(heart, "r", widths=15, limb=(0.9, -75), chest=(-0.5, -0.8, -0.8, -0.7, -0.6, -0.5))
    _wave(heart, "s", at=46, widths=22, limb=(0.8, -70), chest=(-0.7, -1.1, -1.1, -0.9, -0.7, -0.6))
    _wave(heart, "t", limb=(0.35, 105), chest=(0.3, 0.5, 0.5, 0.4, 0.35, 0.3))
    heart.beat.waves.pop("q")
    heart.beat.st = Plateau(start=85)
    heart.beat.spike = np.array([0.4, 1.6, -1.2, -1.3, -1.4, -1.5, -1.6, -1.4])
    heart.qtc += 35


def _low_voltage(heart: Heart, rng: Rng) -> None:
    for name in ("q", "r", "s"):
        wave = heart.beat.waves[name]
        _wave(heart, name, limb=(0.32 * wave.limb[0], wave.limb[1]), chest=tuple(0.39 * v for v in wave.chest))
    for name in ("p_right", "p_left", "t"):
        if name in heart.beat.waves:
            wave = heart.beat.waves[name]
            _wave(heart, name, limb=(0.5 * wave.limb[0], wave.limb[1]), chest=tuple(0.5 * v for v in wave.chest))


def _wpw(heart: Heart, rng: Rng) -> None:
    heart.pr = rng.uniform(92, 112)
    delta = Wave(at=-30, widths=(13, 16), limb=(0.38, 40), chest=(0.12, 0.3, 0.4, 0.45, 0.4, 0.3))
    heart.beat.waves["delta"] = delta
    _wave(heart, "t", limb=(0.12, 200))


def _left_atrium(heart: Heart, rng: Rng) -> None:
    _wave(heart, "p_right", at=-178)
    _wave(heart, "p_left", at=-120, limb=(0.12, 50), chest=(-0.12, None, None, None, None, None))


def _right_atrium(heart: Heart, rng: Rng) -> None:
    wave = heart.beat.waves["p_right"]
    _wave(heart, "p_right", limb=(3 * wave.limb[0], 75), chest=(0.16, 0.17, 0.13, 0.10, 0.08, 0.07))


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One thing a patient can have.

    Attributes:
        change: what it does to a heart.
        statements: SCP codes that a record with it carries.
        group: of "rhythm", "atria", "qrs", "st", "interval" at most one condition each.
        needs_p: it shows in the P wave or the PR interval, so the atria must beat in sinus rhythm.
    """

    change: Callable[[Heart, Rng], None]
    statements: tuple[str, ...]
    group: str
    needs_p: bool = False


CONDITIONS: dict[str, Condition] = {
    "SBRAD": Condition(change=_bradycardia, statements=("SBRAD",), group="rhythm"),
    "STACH": Condition(change=_tachycardia, statements=("STACH",), group="rhythm"),
    "SARRH": Condition(change=_sinus_arrhythmia, statements=("SARRH",), group="rhythm"),
    "AFIB": Condition(change=_fibrillation, statements=("AFIB",), group="rhythm"),
    "AFLT": Condition(change=_flutter, statements=("AFLT",), group="rhythm"),
    "SVTAC": Condition(change=_svt, statements=("SVTAC",), group="rhythm"),
    "3AVB": Condition(change=_third_degree_block, statements=("3AVB",), group="rhythm"),
    "PVC": Condition(change=_ectopy("pvc"), statements=("PVC",), group="rhythm"),
    "BIGU": Condition(change=_ectopy("bigeminy"), statements=("BIGU", "PVC"), group="rhythm"),
    "PAC": Condition(change=_ectopy("pac"), statements=("PAC",), group="rhythm", needs_p=True),
    "PACE": Condition(change=_paced, statements=("PACE",), group="rhythm"),
    "1AVB": Condition(change=_first_degree_block, statements=("1AVB", "LPR"), group="atria", needs_p=True),
    "LAO/LAE": Condition(change=_left_atrium, statements=("LAO/LAE",), group="atria", needs_p=True),
    "RAO/RAE": Condition(change=_right_atrium, statements=("RAO/RAE",), group="atria", needs_p=True),
    "CLBBB": Condition(change=_lbbb, statements=("CLBBB",), group="qrs"),
    "CRBBB": Condition(change=_rbbb, statements=("CRBBB",), group="qrs"),
    "IRBBB": Condition(change=_incomplete_rbbb, statements=("IRBBB",), group="qrs"),
    "LAFB": Condition(change=_left_anterior_block, statements=("LAFB",), group="qrs"),
    "LPFB": Condition(change=_left_posterior_block, statements=("LPFB",), group="qrs"),
    "LVH": Condition(change=_lvh, statements=("LVH", "VCLVH"), group="qrs"),
    "RVH": Condition(change=_rvh, statements=("RVH",), group="qrs"),
    "ASMI": Condition(change=_anterior_stemi, statements=("ASMI", "INJAS", "STE_"), group="qrs"),
    "INJIN": Condition(change=_inferior_stemi, statements=("IMI", "INJIN", "STE_"), group="qrs"),
    "IMI": Condition(change=_old_inferior_infarction, statements=("IMI", "QWAVE"), group="qrs"),
    "LVOLT": Condition(change=_low_voltage, statements=("LVOLT",), group="qrs"),
    "WPW": Condition(change=_wpw, statements=("WPW",), group="qrs", needs_p=True),
    "STD_": Condition(change=_st_depression, statements=("STD_", "ISC_"), group="st"),
    "INVT": Condition(change=_t_inversion, statements=("INVT",), group="st"),
    "LNGQT": Condition(change=_long_qt, statements=("LNGQT",), group="interval"),
}
NORMAL = "NORM"
SIMULATED_STATEMENTS = frozenset({NORMAL, "SR"}.union(*(c.statements for c in CONDITIONS.values())))
_NO_SINUS = ("AFIB", "AFLT", "SVTAC", "3AVB", "PACE")
# Pairs of which one would not meet its criterion any more.
_CONTRADICTIONS = (
    {"SVTAC", "LNGQT"},  # no room for a long QT, or for an ST segment, at 180 beats per minute
    {"SVTAC", "STD_"},
    {"1AVB", "WPW"},  # a long and a short PR
    {"LVOLT", "LAO/LAE"},  # small P waves are neither wide nor tall
    {"LVOLT", "RAO/RAE"},
)
_ORDER = list(CONDITIONS)


def check_conditions(names: list[str]) -> list[str]:
    """The conditions in the order in which they are applied.

    Raises:
        ValueError: if a name is unknown, stands there twice, or two of them cannot be drawn together.
    """
    if unknown := [name for name in names if name not in CONDITIONS and name != NORMAL]:
        raise ValueError(f"unknown conditions {', '.join(unknown)}; accepted: {NORMAL}, {', '.join(CONDITIONS)}")
    if len(set(names)) < len(names):
        raise ValueError(f"a condition is named twice: {', '.join(names)}")
    if NORMAL in names and len(names) > 1:
        raise ValueError(f"{NORMAL} does not go with {', '.join(name for name in names if name != NORMAL)}")
    chosen = [name for name in _ORDER if name in names]
    for i, a in enumerate(chosen):
        for b in chosen[i + 1 :]:
            if not compatible(a, b):
                raise ValueError(f"{a} and {b} cannot be drawn in one record")
    return chosen


def compatible(a: str, b: str) -> bool:
    """Whether two conditions can be seen in one record."""
    one, other = CONDITIONS[a], CONDITIONS[b]
    groups = {one.group, other.group}
    if len(groups) == 1 or groups == {"st", "qrs"}:  # a wide or scarred QRS has an ST-T of its own
        return False
    if "PACE" in (a, b) or {a, b} in _CONTRADICTIONS:
        return False
    return not ((one.needs_p and b in _NO_SINUS) or (other.needs_p and a in _NO_SINUS))


def draw_conditions(rng: Rng, normal: float = 0.15) -> list[str]:
    """The conditions of a random patient: normal with this probability, otherwise one to three that go together."""
    if rng.random() < normal:
        return [NORMAL]
    wanted = rng.choice([1, 2, 3], p=[0.45, 0.4, 0.15])
    chosen: list[str] = []
    for name in map(str, rng.permutation(_ORDER)):
        if len(chosen) < wanted and all(compatible(name, other) for other in chosen):
            chosen.append(name)
    return chosen
