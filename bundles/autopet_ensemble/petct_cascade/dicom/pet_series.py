"""The headers of one PET series: values that were read and checked, in the units in which they are used."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from functools import cached_property
from typing import Any

from pydicom import Dataset

from petct_cascade.dicom.body_size import SEXES, Body
from petct_cascade.dicom.moments import NO_DATE, closest, date_of, moment_of, stamp, time_of, zone_of
from petct_cascade.dicom.suv_options import RANGES, SuvOptions, article, give, option, words_of_option
from petct_cascade.dicom.values import items_of, number_of, word_of
from petct_cascade.problems import first_names
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


# Where the injection stands, and what is said of it that an option gives, too.
INJECTIONS = "RadiopharmaceuticalInformationSequence"
OF_INJECTION = ("dose", "half_life", "injection_time")

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
            raise InputError(_different(repr(found[0]), repr(found[1]), keyword))
        return found[0]

    def stated(self, name: str, headers: Iterable[Dataset], keyword: str) -> float:
        """Return the one number that headers state, and that must be there; those that say nothing do not count.

        Args:
            name: of the option that replaces it.
            headers: those of all slices, or an item of each.
            keyword: of the attribute.
        """
        numbers = _numbers(headers, keyword)
        if not numbers:
            raise InputError(f"has no {words_of_option(name)} ({keyword}): {give(name)}")
        if len(numbers) > 1:
            # As a header does that was corrected in part.
            raise InputError(_different(f"{numbers[0]:g}", f"{numbers[-1]:g}", keyword, give(name)))
        return numbers[0]

    def checked(self, name: str, value: float, keyword: str) -> float:
        """Return a value of the header that lies where it can be right."""
        low, high, unit = RANGES[name]
        if not low <= value <= high:
            words = words_of_option(name)
            raise InputError(
                f"has {article(words)} {words} of {value:.4g} {unit} ({keyword}), which cannot be right: {give(name)}"
            )
        return value

    def _warn_of_other(self, name: str, headers: Iterable[Dataset], keyword: str, *units: float) -> None:
        """Warn where an option takes the place of other numbers in the headers, which may be in any of some units."""
        given, words = getattr(self.options, name), words_of_option(name)
        others = [
            number
            for number in _numbers(headers, keyword)
            if not any(math.isclose(unit * number, given, rel_tol=ALIKE) for unit in units)
        ]
        if others:
            numbers = " and ".join(f"{number:g}" for number in others)
            self.warnings.append(
                f"states {article(words)} {words} of {numbers} ({keyword}), in whose place {given:g} of {option(name)} is taken: "
                "check which one is right"
            )

    def _alike(self, values: Iterable[Any], show: Callable[[Any], str], keyword: str, remedy: str = "") -> Any:
        """Return the one value that slices state, None where they state none; None among them does not count.

        Args:
            values: of the slices.
            show: returns a value as it stands in a sentence.
            keyword: of the attribute.
            remedy: how else it is given; empty where no option gives it.
        """
        found = sorted({value for value in values if value is not None})
        if len(found) > 1:
            raise InputError(_different(show(found[0]), show(found[-1]), keyword, remedy))
        return found[0] if found else None

    @cached_property
    def weight(self) -> float:
        """Body weight (kg)."""
        if self.options.weight is not None:
            self._warn_of_other("weight", self.frames, "PatientWeight", 1, 1e-3)
            return self._note("weight_kg", self.options.weight)
        weight = self.stated("weight", self.frames, "PatientWeight")
        if weight > MOST_KG:
            self.warnings.append(f"states a weight of {weight:g}, which is taken as grams: check it, or {give('weight')}")
            weight /= 1000
        return self._note("weight_kg", self.checked("weight", weight, "PatientWeight"))

    @cached_property
    def height(self) -> float:
        """Height of the body (m)."""
        if self.options.height is not None:
            self._warn_of_other("height", self.frames, "PatientSize", 1, 1e-2)
            return self._note("height_m", self.options.height)
        height = self.stated("height", self.frames, "PatientSize")
        if height > MOST_M:
            self.warnings.append(f"states a height of {height:g}, which is taken as cm: check it, or {give('height')}")
            height /= 100
        return self._note("height_m", self.checked("height", height, "PatientSize"))

    @cached_property
    def sex(self) -> str:
        """M, F or O."""
        remedy = "give it with --sex, as M, F or O"
        words = (word for frame in self.frames if (word := word_of(frame, "PatientSex")) in SEXES)
        sex = self.options.sex or self._alike(words, repr, "PatientSex", remedy)
        if sex is None:
            raise InputError(f"has no sex of the patient (PatientSex): {remedy}")
        return self._note("sex", sex)

    @cached_property
    def _injections(self) -> list[list[Dataset]]:
        """What each slice says of injections; frames of one file share what it says, which counts once."""
        return list({tuple(map(id, found)): found for found in (items_of(frame, INJECTIONS) for frame in self.frames)}.values())

    @cached_property
    def all_injections(self) -> list[Dataset]:
        """What the slices say of injections, whether it is one or several."""
        return [item for found in self._injections for item in found]

    @property
    def injection(self) -> list[Dataset]:
        """What the slices say of the one injection, for what no option gives."""
        most = max(map(len, self._injections), default=0)
        if most > 1:
            options = [option(name) for name in OF_INJECTION if getattr(self.options, name) is None]
            raise InputError(
                f"lists {most} injections, and does not say which one it shows: give what is true of that one with "
                f"{first_names(options, len(options))}, or export it with one injection"
            )
        return self.all_injections

    @cached_property
    def dose(self) -> float:
        """Activity as injected (Bq)."""
        if self.options.dose is not None:
            self._warn_of_other("dose", self.all_injections, "RadionuclideTotalDose", 1e-6, 1)
            return 1e6 * self._note("dose_mbq", self.options.dose)
        dose = self.stated("dose", self.injection, "RadionuclideTotalDose")
        if dose < LEAST_BQ:
            self.warnings.append(f"states a dose of {dose:g}, which is taken as MBq: check it, or {give('dose')}")
        megabecquerel = dose if dose < LEAST_BQ else dose / 1e6
        return 1e6 * self._note("dose_mbq", self.checked("dose", megabecquerel, "RadionuclideTotalDose"))

    @cached_property
    def half_life(self) -> float:
        """Half-life of the radionuclide (s)."""
        if self.options.half_life is not None:
            self._warn_of_other("half_life", self.all_injections, "RadionuclideHalfLife", 1)
            return self._note("half_life_s", self.options.half_life)
        half_life = self.stated("half_life", self.injection, "RadionuclideHalfLife")
        return self._note("half_life_s", self.checked("half_life", half_life, "RadionuclideHalfLife"))

    @property
    def injection_moment(self) -> datetime | None:
        """Date and time of the injection, if the header has them."""
        moments = (moment_of(word_of(item, "RadiopharmaceuticalStartDateTime"), self.zone) for item in self.injection)
        return self._alike(moments, stamp, "RadiopharmaceuticalStartDateTime", give("injection_time"))

    @property
    def injection_clock(self) -> time | None:
        """Time of day of the injection, if the header has it."""
        clocks = (time_of(word_of(item, "RadiopharmaceuticalStartTime")) for item in self.injection)
        return self._alike(clocks, time.isoformat, "RadiopharmaceuticalStartTime", give("injection_time"))

    @cached_property
    def zone(self) -> timedelta | None:
        """Offset of the scanner's clock from UTC, if it is said."""
        words = (word for frame in self.frames if zone_of(word := word_of(frame, "TimezoneOffsetFromUTC")) is not None)
        return zone_of(self._alike(words, repr, "TimezoneOffsetFromUTC") or "")

    @cached_property
    def series_times(self) -> list[datetime]:
        """When the series began, sorted: several times where the slices say different things."""
        return sorted({moment for frame in self.frames if (moment := self._series_time_of(frame)) is not None})

    @cached_property
    def acquisitions(self) -> list[datetime | None]:
        """When the acquisition of each slice began; None for a slice that does not say it."""
        return [_acquisition_of(frame) for frame in self.frames]

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

    def _series_time_of(self, frame: Dataset) -> datetime | None:
        """Return when the series began by one slice; without its date, the time of day that is closest to the first acquisition."""
        dated, clock = _dated_series_time(frame), time_of(word_of(frame, "SeriesTime"))
        if dated or clock is None:
            return dated
        return closest(clock, self.first_acquisition) if self.first_acquisition else datetime.combine(_other_day(frame), clock)

    def _note(self, name: str, value: Any) -> Any:
        """Keep a value among the facts."""
        self.facts[name] = value
        return value


def body_of(frames: Sequence[Dataset], options: SuvOptions) -> Body | None:
    """Return the patient's body by headers and options; None where they do not say weight, height and sex."""
    series = PetSeries(frames, options)
    try:
        return Body(series.weight, series.height, series.sex)
    except InputError:
        return None


def _numbers(headers: Iterable[Dataset], keyword: str) -> list[float]:
    """Return the different numbers above zero that headers state, sorted."""
    return sorted({number for header in headers if (number := number_of(header, keyword)) is not None and number > 0})


def _different(first: str, other: str, keyword: str, remedy: str = "") -> str:
    """Return what is wrong with slices that state two values of an attribute; `remedy` says how else it is given."""
    return f"says different things in its slices, {first} and {other} ({keyword}): export it again{remedy and f', or {remedy}'}"


def _acquisition_of(frame: Dataset) -> datetime | None:
    """Return when the acquisition of a slice began: on its own date, or else on the series' or the study's."""
    day, clock = date_of(word_of(frame, "AcquisitionDate")), time_of(word_of(frame, "AcquisitionTime"))
    if day and clock:
        return datetime.combine(day, clock)
    moment = moment_of(word_of(frame, "AcquisitionDateTime"), zone_of(word_of(frame, "TimezoneOffsetFromUTC")))
    if moment or not clock:
        return moment
    began = _dated_series_time(frame)
    return closest(clock, began) if began is not None else datetime.combine(_other_day(frame), clock)


def _dated_series_time(frame: Dataset) -> datetime | None:
    """Return when the series began by one slice, if that says the date, too."""
    day, clock = date_of(word_of(frame, "SeriesDate")), time_of(word_of(frame, "SeriesTime"))
    return datetime.combine(day, clock) if day and clock else None


def _other_day(frame: Dataset) -> date:
    """Return the day of times that come without one."""
    dates = (date_of(word_of(frame, keyword)) for keyword in ("SeriesDate", "StudyDate"))
    return next((day for day in dates if day), NO_DATE)
