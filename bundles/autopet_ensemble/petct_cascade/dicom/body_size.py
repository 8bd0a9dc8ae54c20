"""What stands for a body's weight in SUV of other kinds: lean body mass, ideal weight, and the body's surface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

from petct_training.errors import InputError

# What can be right, from newborns to the heaviest patients, and its unit.
RANGES = {"weight": (1.0, 500.0, "kg"), "height": (0.3, 2.6, "m")}
SEXES = ("M", "F", "O")


def lean_mass_james(weight: float, height: float, sex: str, male: float = 120) -> float:
    """Return the lean body mass (kg) by James (Research on Obesity, 1976) of a weight (kg), height (m) and sex.

    Args:
        weight: kg.
        height: m.
        sex: M or F.
        male: number for men: 120 as in DICOM's LBM and much of the literature, or 128 as in DICOM's LBMJAMES128.
    """
    share = (weight / (100 * height)) ** 2
    return 1.10 * weight - male * share if sex == "M" else 1.07 * weight - 148 * share


def lean_mass_janmahasatian(weight: float, height: float, sex: str) -> float:
    """Return the lean body mass (kg) by Janmahasatian and others (Clin Pharmacokinet 2005;44:1051) of kg, m, and M or F."""
    index = weight / height**2
    return 9270 * weight / (6680 + 216 * index if sex == "M" else 8780 + 244 * index)


def ideal_weight(weight: float, height: float, sex: str) -> float:
    """Return the ideal body weight (kg) by Sugawara and others (Radiology 1999;213:521) of a height (m), and M or F."""
    above = 100 * height - 152
    return 48.0 + 1.06 * above if sex == "M" else 45.5 + 0.91 * above


def body_surface(weight: float, height: float) -> float:
    """Return the body's surface (m2) by Du Bois and Du Bois (Arch Intern Med 1916;17:863) of a weight (kg) and height (m).

    Example:
        >>> round(body_surface(70, 1.75), 3)
        1.848
    """
    return 0.007184 * weight**0.425 * (100 * height) ** 0.725


def _lean_mass_james_128(weight: float, height: float, sex: str) -> float:
    """Return the lean body mass (kg) as in DICOM's LBMJAMES128."""
    return lean_mass_james(weight, height, sex, male=128)


# Kinds of SUV (SUVType), and what they have in place of the body's weight.
MASSES: dict[str, Callable[[float, float, str], float]] = {
    "LBM": lean_mass_james,
    "LBMJAMES128": _lean_mass_james_128,
    "LBMJANMA": lean_mass_janmahasatian,
    "IBW": ideal_weight,
}


def mass_of(kind: str, weight: float, height: float, sex: str) -> float:
    """Return the mass (kg) of a kind of SUV, a key of `MASSES`; of sex O, the mean of both sexes'.

    Args:
        kind: of SUV.
        weight: kg.
        height: m.
        sex: M, F or O.
    """
    sexes = ("M", "F") if sex == "O" else (sex,)
    return sum(MASSES[kind](weight, height, one) for one in sexes) / len(sexes)


def check_measure(value: object, said: str, low: float, high: float, unit: str) -> None:
    """Refuse what is no number, or cannot be right.

    Args:
        value: of a patient or an injection.
        said: how the sentence begins: which option is what.
        low, high: the least and the most that can be right.
        unit: of the value.

    Raises:
        InputError: with a sentence that says what to give.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= float(value) <= high:
        raise InputError(f"{said}: give a number from {low:g} to {high:g}, in {unit}")


def check_sex(value: object, said: str) -> None:
    """Refuse what is not M, F or O; `said` is as for `check_measure`."""
    if value not in SEXES:
        raise InputError(f"{said}: give M, F or O")


@dataclass(frozen=True)
class Body:
    """What is known of a patient's body.

    Attributes:
        weight: kg.
        height: m.
        sex: M, F or O, given in capitals or small letters.

    Raises:
        InputError: when a value cannot be right, as a height in cm.
    """

    weight: float
    height: float
    sex: str

    def __post_init__(self) -> None:
        for name, limits in RANGES.items():
            value = getattr(self, name)
            check_measure(value, f"{name} is {value!r}", *limits)
            object.__setattr__(self, name, float(value))
        sex = self.sex.upper() if isinstance(self.sex, str) else self.sex
        check_sex(sex, f"sex is {self.sex!r}")
        object.__setattr__(self, "sex", sex)

    @property
    def lean_mass(self) -> float:
        """Lean body mass (kg) by Janmahasatian.

        Example:
            >>> round(Body(70, 1.75, "M").lean_mass, 1)
            55.9
        """
        return mass_of("LBMJANMA", self.weight, self.height, self.sex)
