"""What can be computed from the twelve signals alone: derived leads and the equations that tie the limb leads.

Einthoven 1912 (III = II - I) and Goldberger 1942 (aVR = -(I + II) / 2, aVL = I - II / 2, aVF = II - I / 2).
"""

import numpy as np

from train.ecg.leads import FROM_I_AND_II, LEADS
from train.ecg.measure import measure

__all__ = [
    "FROM_I_AND_II",
    "LEADS",
    "check_lead_equations",
    "derive_limb_leads",
    "lead_errors",
    "measure",
    "resample",
]
TOLERANCE_MV = 0.05  # filters and rounding of real carts stay below; swapped leads do not


def derive_limb_leads(leads: dict[str, np.ndarray]) -> None:
    """Add those of III, aVR, aVL and aVF that are missing, if I and II are there. Arrays of millivolts, in place."""
    if "I" in leads and "II" in leads:
        for name, (of_i, of_ii) in FROM_I_AND_II.items():
            if name not in leads:
                leads[name] = of_i * leads["I"] + of_ii * leads["II"]


def lead_errors(signal: np.ndarray) -> dict[str, float]:
    """How far III, aVR, aVL and aVF are from what I and II say: 95 % quantile of the difference, in mV.

    Samples where a lead is missing (NaN) do not count; a lead without any sample has error 0.
    """
    errors = {}
    for name, (of_i, of_ii) in FROM_I_AND_II.items():
        difference = np.abs(of_i * signal[0] + of_ii * signal[1] - signal[LEADS.index(name)])
        known = difference[np.isfinite(difference)]
        # large samples matter: a swap changes the beats, not the flat line between them
        errors[name] = float(np.quantile(known, 0.95)) if known.size else 0.0
    return errors


def check_lead_equations(signal: np.ndarray, where: str, tolerance_mv: float = TOLERANCE_MV) -> None:
    """Refuse limb leads that contradict each other.

    Args:
        signal: [12, n] in mV, in the order of LEADS.
        where: the record, for the message.
        tolerance_mv: largest error accepted (95 % quantile over the samples).

    Raises:
        ValueError: which names the leads that do not fit, and says "swapped" when swapping two of them fits.
    """
    errors = lead_errors(signal)
    wrong = [name for name, error in errors.items() if error > tolerance_mv]
    if not wrong:
        return
    if len(wrong) >= 3:
        guess = "so I or II is wrong, or leads are scaled one by one"
    elif len(wrong) == 2 and _fits_swapped(signal, wrong[0], wrong[1], tolerance_mv):
        guess = f"and {wrong[0]} and {wrong[1]} fit when swapped"
    else:
        guess = "the other limb leads agree"
    listed = ", ".join(f"{name} (by {errors[name]:.2f} mV)" for name in wrong)
    raise ValueError(f"{where}: the limb leads contradict I and II in {listed}; {guess}")


def _fits_swapped(signal: np.ndarray, a: str, b: str, tolerance_mv: float) -> bool:
    swapped = signal.copy()
    i, j = LEADS.index(a), LEADS.index(b)
    swapped[[i, j]] = signal[[j, i]]
    return max(lead_errors(swapped).values()) <= tolerance_mv


def resample(signal: np.ndarray, hz: float, target_hz: float) -> np.ndarray:
    """Change the sampling rate of [..., n], antialiased (polyphase filter). NaN spreads to its neighbours.

    Returns:
        [..., m] float32 with m = ceil(n * target_hz / hz).
    """
    from fractions import Fraction

    from scipy.signal import resample_poly

    ratio = Fraction(target_hz / hz).limit_denominator(10_000)
    if ratio == 1:
        return signal
    return resample_poly(signal, ratio.numerator, ratio.denominator, axis=-1).astype(np.float32)
