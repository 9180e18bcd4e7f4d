"""What can be seen in an ECG and answered with yes or no by measuring; none of it names a diagnosis."""

from collections.abc import Callable
from typing import Any


def _sign(mv: float, level: float = 0.1) -> int:
    return (mv >= level) - (mv <= -level)


# name: (question, answer from the measurements); `{lead}` is drawn. None: the question makes no sense here.
LOOKS: dict[str, tuple[str, Callable[[dict[str, Any], str], bool | None]]] = {
    "regular": ("Are the beats evenly spaced?", lambda t, lead: t["regular"]),
    "early": ("Is there a beat that comes early?", lambda t, lead: t["n_early"] > 0),
    "wide_early": ("Is there an early beat with a wide QRS?", lambda t, lead: t["n_wide_early"] > 0),
    "undulates": ("Does the line between the beats undulate?", lambda t, lead: t["undulates"]),
    "p": ("Is there a P wave before each QRS?", lambda t, lead: t["p_before_qrs"]),
    "spike": ("Are there thin spikes before the QRS?", lambda t, lead: t["spike"]),
    "pr_long": ("Is the PR longer than 200 ms?", lambda t, lead: None if t["pr"] is None else t["pr"] > 200),
    "pr_short": (
        "Is the PR shorter than 120 ms?",
        lambda t, lead: None if t["pr"] is None else t["pr"] < 120,
    ),
    "p_wide": (
        "Is the P wider than 115 ms?",
        lambda t, lead: None if t["p_width"] is None else t["p_width"] > 115,
    ),
    "qrs_wide": ("Is the QRS wider than 115 ms?", lambda t, lead: t["qrs"] > 115),
    "qrs_between": ("Is the QRS wider than 98 ms?", lambda t, lead: t["qrs"] > 98),
    "qtc_long": ("Is the QTc longer than 470 ms?", lambda t, lead: t["qtc"] > 470),
    "slow": ("Is the rate below 60?", lambda t, lead: t["heart_rate"] < 60),
    "fast": ("Is the rate above 100?", lambda t, lead: t["heart_rate"] > 100),
    "p_tall": ("Is the P in {lead} taller than 2 mm?", lambda t, lead: t["p"] and t["p"][lead] > 0.2),
    "t_negative": ("Is the T in {lead} negative?", lambda t, lead: t["t"][lead] < -0.05),
    "st_high": ("Is the ST in {lead} above the line?", lambda t, lead: _sign(t["st"][lead]) > 0),
    "st_low": ("Is the ST in {lead} below the line?", lambda t, lead: _sign(t["st"][lead]) < 0),
    "upright": (
        "Is the QRS in {lead} mostly upright?",
        lambda t, lead: t["r"][lead] > -min(t["s"][lead], t["q"][lead]),
    ),
    "tall": ("Is the R in {lead} taller than 15 mm?", lambda t, lead: t["r"][lead] > 1.5),
    "small": ("Is the QRS in {lead} smaller than 5 mm?", lambda t, lead: _height(t, lead) < 0.5),
    "q": ("Is there a deep Q in {lead}?", lambda t, lead: t["q"][lead] < -0.2),
}


def _height(truth: dict[str, Any], lead_name: str) -> float:
    return truth["r"][lead_name] - min(truth["s"][lead_name], truth["q"][lead_name])
