"""What a user says of a PET where its header does not."""

from __future__ import annotations

from dataclasses import dataclass

from petct_cascade.dicom import body_size
from petct_cascade.dicom.body_size import Body, check_measure, check_sex
from petct_cascade.dicom.moments import moment_of, time_of
from petct_training.errors import InputError

# What can be right: from low doses of slow tracers to therapies; from Rb-82 (76 s) to phantoms of Ge-68 (271 days).
RANGES = {
    **body_size.RANGES,
    "dose": (0.5, 20000.0, "MBq"),
    "half_life": (60.0, 3e7, "s"),
}


@dataclass(frozen=True)
class SuvOptions:
    """What the user says where a header does not, or says it wrongly; None takes the header's.

    Attributes:
        weight: of the patient, kg.
        height: of the patient, m.
        sex: of the patient: M, F or O.
        dose: as injected, MBq.
        half_life: of the radionuclide, s.
        injection_time: time of day (HH:MM or HH:MM:SS), or date and time in ISO 8601.

    Raises:
        InputError: when a value cannot be right.
    """

    weight: float | None = None
    height: float | None = None
    sex: str | None = None
    dose: float | None = None
    half_life: float | None = None
    injection_time: str | None = None

    def __post_init__(self) -> None:
        for name, limits in RANGES.items():
            value = getattr(self, name)
            if value is not None:
                check_measure(value, f"{option(name)} is {value!r}", *limits)
        if self.sex is not None:
            check_sex(self.sex, f"--sex is {self.sex!r}")
        text = self.injection_time
        if text is not None and (not isinstance(text, str) or (time_of(text) is None and moment_of(text) is None)):
            raise InputError(f"--injection_time is {text!r}: give HH:MM, HH:MM:SS, or date and time as 2025-01-31T10:15")

    @property
    def given(self) -> list[str]:
        """Names of what the user says."""
        return [name for name in self.__dataclass_fields__ if getattr(self, name) is not None]

    @property
    def body(self) -> Body | None:
        """The patient's body, where weight, height and sex are all given."""
        if self.weight is None or self.height is None or self.sex is None:
            return None
        return Body(self.weight, self.height, self.sex)


def option(name: str) -> str:
    """Return how an option is written on the command line."""
    return f"--{name}"


def words_of_option(name: str) -> str:
    """Return what an option stands for, in a sentence."""
    return {"weight": "patient weight", "height": "patient height", "dose": "injected dose"}.get(name, name.replace("_", "-"))


def article(words: str) -> str:
    """Return the article of words, "a" or "an"."""
    return "an" if words[0] in "aeiou" else "a"


def give(name: str) -> str:
    """Return how an option is given."""
    unit = f"in {RANGES[name][2]}" if name in RANGES else "as HH:MM, or with the date as 2025-01-31T10:15"
    return f"give it with {option(name)}, {unit}"
