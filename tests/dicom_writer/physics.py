"""From SUV to what a scanner stores, written out afresh: decay, dose, weight and the other masses.

Sources: "Standardizing SUV computation" (oncoray.github.io/suv_computation) for the rules; Sugawara et al., Radiology
1999;213:521 for ideal body weight; Morgan and Bray 1994 (factor 120), James 1976 (factor 128), Janmahasatian et al., Clin
Pharmacokinet 2005;44:1051 for lean body mass; DuBois and DuBois 1916 for body surface.
"""

from __future__ import annotations

from math import exp, log


def decay_constant(half_life: float) -> float:
    """Return the decay constant (1/s) of a half-life (s)."""
    return log(2) / half_life


def decayed(half_life: float, seconds: float) -> float:
    """Return the part of an activity that is left after some seconds."""
    return exp(-decay_constant(half_life) * seconds)


def mean_of_frame(half_life: float, duration: float) -> float:
    """Return the mean activity during a frame of `duration` (s), as a part of that at its start."""
    exponent = decay_constant(half_life) * duration
    return (1 - exp(-exponent)) / exponent


def seconds_to_mean(half_life: float, duration: float) -> float:
    """Return after how many seconds of a frame the activity equals its mean over the frame."""
    return -log(mean_of_frame(half_life, duration)) / decay_constant(half_life)


def lean_body_mass(kind: str, sex: str, weight: float, height: float) -> float:
    """Return the mass (kg) that a kind of SUV is normalised to; sex "O" has the mean of both formulas.

    Args:
        kind: a value of SUVType (0054,1006): BW, LBM, LBMJAMES128, LBMJANMA or IBW.
        sex: M, F or O.
        weight: kg.
        height: m.
    """
    if sex == "O":
        return (lean_body_mass(kind, "M", weight, height) + lean_body_mass(kind, "F", weight, height)) / 2
    cm, male, bmi = 100 * height, sex == "M", weight / height**2
    if kind == "LBM":
        return 1.10 * weight - 120 * (weight / cm) ** 2 if male else 1.07 * weight - 148 * (weight / cm) ** 2
    if kind == "LBMJAMES128":
        return 1.10 * weight - 128 * (weight / cm) ** 2 if male else 1.07 * weight - 148 * (weight / cm) ** 2
    if kind == "LBMJANMA":
        return 9270 * weight / (6680 + 216 * bmi) if male else 9270 * weight / (8780 + 244 * bmi)
    if kind == "IBW":
        return 48.0 + 1.06 * (cm - 152) if male else 45.5 + 0.91 * (cm - 152)
    assert kind == "BW", kind
    return weight


def body_surface(weight: float, height: float) -> float:
    """Return the body surface (cm2) by weight (kg) and height (m)."""
    return 1e4 * 0.007184 * weight**0.425 * (100 * height) ** 0.725
