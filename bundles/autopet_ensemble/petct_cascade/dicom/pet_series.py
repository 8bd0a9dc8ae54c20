"""The headers of one PET series: values that were read and checked, in the units in which they are used."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any

from pydicom import Dataset

from petct_cascade.dicom.body_size import SEXES
from petct_cascade.dicom.moments import NO_DATE, closest, date_of, moment_of, time_of, zone_of
from petct_cascade.dicom.suv_options import RANGES, SuvOptions, give, option, words_of_option
from petct_cascade.dicom.values import items_of, number_of, word_of
from petct_training.errors import InputError

# The manual's limits: a dose below this is in MBq, a weight above this in grams; a height above this can only be in cm.
LEAST_BQ = 1e5
MOST_KG = 1000
MOST_M = 3

# None is longer than a day.
LONGEST_FRAME_MS = 86_400_000

FACTS = (
    *("units", "suv_type", "decay_correction", "rule", "reference_time", "injection_time", "delay_min", "weight_kg", "height_m"),
    *("sex", "dose_mbq", "half_life_s", "decayed_dose_mbq", "factor", "given", "other_rules"),
)


# Share by which two numbers may differ that are told apart by rounding alone.
ALIKE = 0.01


@dataclass
class PetSeries:
    """The headers of one series, and what the user says instead.

    A value that is asked for and not there, or cannot be right, raises an `InputError`, whose message is the end of a sentence that
    begins with the series.

    Attributes:
        frames: headers of all slices.
        options: what the user says.
        warnings: each the end of such a sentence; values add to them.
        facts: what was used, under the names `FACTS`; values add themselves.
    """

    frames: Sequence[Dataset]
    options: SuvOptions
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=lambda: dict.fromkeys(FACTS))

    def word(self, keyword: str, what: str) -> str:
        """Return the word, in capital letters, that an attribute holds in all slices alike.

        Args:
            keyword: of the attribute.
            what: is said after "does not say" when it is missing.
        """
        return self.common(keyword, (word_of(frame, keyword) for frame in self.frames), what)

    def common(self, keyword: str, texts: Iterable[str], what: str) -> str:
        """Return the one text among those of the slices; slices that say nothing do not count."""
        found = sorted(set(texts) - {""})
        if not found:
            raise InputError(f"does not say {what} ({keyword}): export it again")
        if len(found) > 1:
            raise InputError(f"says different things in its slices, {found[0]!r} and {found[1]!r} ({keyword}): export it again")
        return found[0]

    def stated(self, name: str, header: Dataset, keyword: str) -> float:
        """Return a number that the header states, and that must be there.

        Args:
            name: of the option that replaces it.
            header: that of a slice, or an item of it.
            keyword: of the attribute.
        """
        number = number_of(header, keyword)
        if number is None or number <= 0:
            raise InputError(f"has no {words_of_option(name)} ({keyword}): {give(name)}")
        return number

    def checked(self, name: str, value: float, keyword: str) -> float:
        """Return a value of the header that lies where it can be right."""
        low, high, unit = RANGES[name]
        if not low <= value <= high:
            raise InputError(
                f"has a {words_of_option(name)} of {value:.4g} {unit} ({keyword}), which cannot be right: {give(name)}"
            )
        return value

    def _warn_of_other(self, name: str, source: Dataset, keyword: str, *units: float) -> None:
        """Warn where an option takes the place of another number in the header, which may be in any of some units."""
        given, stated = getattr(self.options, name), number_of(source, keyword)
        if stated is not None and stated > 0 and not any(math.isclose(unit * stated, given, rel_tol=ALIKE) for unit in units):
            self.warnings.append(
                f"states a {words_of_option(name)} of {stated:g} ({keyword}), in whose place {given:g} of {option(name)} is taken: "
                "check which one is right"
            )

    def _refuse_different(self, name: str, keyword: str) -> None:
        """Refuse slices that state different numbers, as a header that was corrected in part does."""
        found = sorted({number for frame in self.frames if (number := number_of(frame, keyword)) is not None})
        if len(found) > 1:
            raise InputError(
                f"says different things in its slices, {found[0]:g} and {found[-1]:g} ({keyword}): export it again, or {give(name)}"
            )

    @cached_property
    def weight(self) -> float:
        """Body weight (kg)."""
        if self.options.weight is not None:
            self._warn_of_other("weight", self.frames[0], "PatientWeight", 1, 1e-3)
            return self._note("weight_kg", self.options.weight)
        self._refuse_different("weight", "PatientWeight")
        weight = self.stated("weight", self.frames[0], "PatientWeight")
        if weight > MOST_KG:
            self.warnings.append(f"states a weight of {weight:g}, which is taken as grams: check it, or {give('weight')}")
            weight /= 1000
        return self._note("weight_kg", self.checked("weight", weight, "PatientWeight"))

    @cached_property
    def height(self) -> float:
        """Height of the body (m)."""
        if self.options.height is not None:
            self._warn_of_other("height", self.frames[0], "PatientSize", 1, 1e-2)
            return self._note("height_m", self.options.height)
        height = self.stated("height", self.frames[0], "PatientSize")
        if height > MOST_M:
            self.warnings.append(f"states a height of {height:g}, which is taken as cm: check it, or {give('height')}")
            height /= 100
        return self._note("height_m", self.checked("height", height, "PatientSize"))

    @cached_property
    def sex(self) -> str:
        """M, F or O."""
        sex = self.options.sex or word_of(self.frames[0], "PatientSex")
        if sex not in SEXES:
            raise InputError("has no sex of the patient (PatientSex): give it with --sex, as M, F or O")
        return self._note("sex", sex)

    @cached_property
    def injection(self) -> Dataset:
        """What is said of the injection."""
        found = items_of(self.frames[0], "RadiopharmaceuticalInformationSequence")
        if len(found) > 1:
            raise InputError(f"lists {len(found)} injections, and does not say which one it shows: export it with one")
        return found[0] if found else Dataset()

    @cached_property
    def dose(self) -> float:
        """Activity as injected (Bq)."""
        injection = self.injection
        if self.options.dose is not None:
            self._warn_of_other("dose", injection, "RadionuclideTotalDose", 1e-6, 1)
            return 1e6 * self._note("dose_mbq", self.options.dose)
        dose = self.stated("dose", injection, "RadionuclideTotalDose")
        if dose < LEAST_BQ:
            self.warnings.append(f"states a dose of {dose:g}, which is taken as MBq: check it, or {give('dose')}")
        megabecquerel = dose if dose < LEAST_BQ else dose / 1e6
        return 1e6 * self._note("dose_mbq", self.checked("dose", megabecquerel, "RadionuclideTotalDose"))

    @cached_property
    def half_life(self) -> float:
        """Half-life of the radionuclide (s)."""
        injection = self.injection
        if self.options.half_life is not None:
            self._warn_of_other("half_life", injection, "RadionuclideHalfLife", 1)
            return self._note("half_life_s", self.options.half_life)
        half_life = self.stated("half_life", injection, "RadionuclideHalfLife")
        return self._note("half_life_s", self.checked("half_life", half_life, "RadionuclideHalfLife"))

    @cached_property
    def zone(self) -> timedelta | None:
        """Offset of the scanner's clock from UTC, if it is said."""
        return zone_of(word_of(self.frames[0], "TimezoneOffsetFromUTC"))

    @cached_property
    def series_time(self) -> datetime | None:
        """When the series began, if its date is said, too."""
        day, clock = date_of(word_of(self.frames[0], "SeriesDate")), time_of(word_of(self.frames[0], "SeriesTime"))
        return datetime.combine(day, clock) if day and clock else None

    @cached_property
    def acquisitions(self) -> list[datetime | None]:
        """When the acquisition of each slice began; None for a slice that does not say it."""
        return [self._acquisition_of(frame) for frame in self.frames]

    @cached_property
    def first_acquisition(self) -> datetime | None:
        """When the earliest acquisition began, if any slice says it."""
        return min((moment for moment in self.acquisitions if moment is not None), default=None)

    @cached_property
    def durations(self) -> list[float | None]:
        """How long each slice was acquired (s)."""
        milliseconds = [number_of(frame, "ActualFrameDuration") for frame in self.frames]
        return [value / 1000 if value is not None and 0 < value <= LONGEST_FRAME_MS else None for value in milliseconds]

    def decayed(self, seconds: float) -> float:
        """Return the part of the activity that is left after a time (s)."""
        return math.exp(-math.log(2) / self.half_life * seconds)

    def decay_while(self, seconds: float) -> float:
        """Return lambda T / (1 - exp(-lambda T)): activity at the beginning of a frame of T (s) by its mean during the frame."""
        exponent = math.log(2) / self.half_life * seconds
        return exponent / -math.expm1(-exponent)

    def _acquisition_of(self, frame: Dataset) -> datetime | None:
        """Return when the acquisition of a slice began: on its own date, or else on the series' or the study's."""
        day, clock = date_of(word_of(frame, "AcquisitionDate")), time_of(word_of(frame, "AcquisitionTime"))
        if day and clock:
            return datetime.combine(day, clock)
        moment = moment_of(word_of(frame, "AcquisitionDateTime"), self.zone)
        if moment or not clock:
            return moment
        if self.series_time is not None:
            return closest(clock, self.series_time)
        return datetime.combine(self.other_day, clock)

    @property
    def other_day(self) -> date:
        """The day of times that come without one."""
        dates = (date_of(word_of(self.frames[0], keyword)) for keyword in ("SeriesDate", "StudyDate"))
        return next((day for day in dates if day), NO_DATE)

    def _note(self, name: str, value: Any) -> Any:
        """Keep a value among the facts."""
        self.facts[name] = value
        return value
