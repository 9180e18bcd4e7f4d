"""The twelve leads: their order, and how the limb leads follow from I and II.

Einthoven 1912 (III = II - I) and Goldberger 1942 (aVR = -(I + II) / 2, aVL = I - II / 2, aVF = II - I / 2).
"""

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
FROM_I_AND_II = {"III": (-1.0, 1.0), "aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}
