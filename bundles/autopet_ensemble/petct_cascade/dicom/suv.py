"""Body-weight SUV of a PET series: from the headers of its slices to the factor by which each slice is multiplied.

Scanners store activity (Bq/ml), SUV of several kinds, or counts, and correct for decay to several times. The rules are those of the
manual "Standardizing SUV computation" (M. Vácha and others, https://oncoray.github.io/suv_computation, CC BY 4.0) and of QIBA's
profile for FDG-PET/CT. The attributes are those of PS3.3, C.8.9.

    SUV (g/ml) = activity (Bq/ml) x body weight (g) / dose at the time to which the activity is corrected for decay (Bq)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import Dataset

from petct_cascade.dicom.body_size import MASSES, body_surface, mass_of
from petct_cascade.dicom.decay import decay_correction, factors_of_decay, injection_time, note_delay, note_times, reference_time
from petct_cascade.dicom.pet_series import PetSeries
from petct_cascade.dicom.suv_options import SuvOptions, give, option
from petct_cascade.dicom.values import items_of, number_of, private_tag, word_of, words_of
from petct_training.errors import InputError

# Minutes from injection to scan for FDG; 60 is meant (EANM procedure guidelines, version 2.0; QIBA).
FDG_DELAY = (30, 180)
# FDG in a radiopharmaceutical's name, and its codes in SCT and SRT (CID 4021 of PS3.16).
FDG_WORDS = ("FDG", "FLUORODEOXYGLUCOSE", "FLUDEOXYGLUCOSE", "35321007", "C-B1031")

# Philips' private attributes, as its conformance statements give them: counts x factor is SUV, or activity in Bq/ml.
PHILIPS = (0x7053, "Philips PET Private Group")
PHILIPS_SUV_FACTOR, PHILIPS_ACTIVITY_FACTOR = 0x00, 0x09

# Options that say what SUL by lean body mass follows from, too.
OF_BODY = ("weight", "height", "sex")

NOTHING_GIVEN = SuvOptions()


@dataclass(frozen=True)
class SuvConversion:
    """How the stored values of a series become body-weight SUV.

    Attributes:
        factors: (n,), one a slice: stored value x slope + intercept, times this factor, is the SUV.
        facts: what was used, as JSON can hold it; None for what was not needed or is not known:
            - units, suv_type, decay_correction: as the header has them;
            - rule: how `reference_time` was found: a name in `petct_cascade.dicom.decay.RULE_NAMES`, "injection" of activity that
              is corrected to the injection, "each_frame" of activity that is not corrected, "none" of what is stored as SUV;
            - reference_time, injection_time: ISO 8601, without a date when the header has none;
            - delay_min: from the injection to the reference time, or else to the first acquisition;
            - weight_kg, height_m, sex, half_life_s; dose_mbq: as injected; decayed_dose_mbq: at the reference time;
            - factor: a number, or {"first", "min", "max"} when it differs from slice to slice;
            - given: names of the options that the user gave;
            - other_rules: {rule: percent by which its SUV would be higher}.
        warnings: each the end of a sentence that begins with the series.
    """

    factors: np.ndarray
    facts: dict[str, Any]
    warnings: list[str]


def suv_conversion(frames: Sequence[Dataset], options: SuvOptions = NOTHING_GIVEN) -> SuvConversion:
    """Return how the stored values of a PET series become body-weight SUV.

    Args:
        frames: headers of all slices of one series, each with the attributes of a classic PET image.
        options: what the user says instead of the headers.

    Raises:
        InputError: when no SUV can be computed; the message is the end of a sentence that begins with the series.
    """
    if not frames:
        raise InputError("has no slices: export it again")
    series = PetSeries(frames, options)
    units = series.word("Units", "in which unit its values are")
    if units not in CONVERSIONS:
        raise InputError(
            f"is in the unit {units!r}, from which no SUV can be computed: export it from the scanner in Bq/ml (BQML)"
        )
    with np.errstate(over="ignore"):
        factors = CONVERSIONS[units](series)
    if not (np.isfinite(factors).all() and (factors > 0).all()):
        raise InputError("has numbers in its header that give no SUV: check weight, dose and times, or give them as options")
    facts = series.facts | {
        "units": units,
        "factor": _summary(factors),
        "given": options.given,
    }
    return SuvConversion(factors, facts, _warnings_of_corrections(series) + series.warnings + _warnings_of_delay(series))


def implausible(suv_max: float, body_median: float) -> list[str]:
    """Return why values cannot well be body-weight SUV; each is the end of a sentence that begins with the series.

    By the definition of SUV its mean over a whole body is at most 1. So its median is at most 2, since half of the body lies above
    the median. A field from skull to thigh holds at least 60 % of the body's weight, so that its median is at most 3.3. Fat, the
    tissue with the lowest uptake, has 0.2 to 0.4 with FDG. Urine reaches several hundred with PSMA.

    Args:
        suv_max: the highest value.
        body_median: median of the values inside of the body.

    Example:
        >>> implausible(35.2, 0.6)
        []
    """
    warnings = []
    if not 0.1 <= body_median <= 3.3:
        warnings.append(
            f"has a median SUV of {body_median:.3g} in the body, where 0.2 to 2 is usual: check weight, dose and times"
        )
    if not 1 <= suv_max <= 1000:
        warnings.append(f"has a highest SUV of {suv_max:.4g}, where 2 to 300 is usual: check weight, dose and times")
    return warnings


# ---------------------------------------------------------------- by unit


def _from_activity(series: PetSeries) -> np.ndarray:
    """Return the factors (n,) of activity in Bq/ml."""
    correction = decay_correction(series)
    weight_by_dose = 1000 * series.weight / series.dose
    if correction == "ADMIN":
        note_delay(series, "injection", series.first_acquisition)
        series.facts["decayed_dose_mbq"] = series.dose / 1e6
        return np.full(len(series.frames), weight_by_dose)
    if correction == "NONE":
        return weight_by_dose * factors_of_decay(series)
    rule, reference, others = reference_time(series)
    injection = injection_time(series, reference)
    left = series.decayed((reference - injection).total_seconds())
    series.facts |= {"decayed_dose_mbq": series.dose * left / 1e6, "other_rules": others}
    note_times(series, rule, reference, injection)
    return np.full(len(series.frames), weight_by_dose / left)


def _from_suv(series: PetSeries) -> np.ndarray:
    """Return the factors (n,) of SUV in g/ml."""
    _note_stored_suv(series)
    kinds = {word_of(frame, "SUVType") for frame in series.frames} - {""}
    kind = series.word("SUVType", "of which kind its SUV is") if kinds else "BW"
    if kind == "BW":
        _warn_of_unused_options(series, OF_BODY, "it counts for SUL alone")
        return np.ones(len(series.frames))
    if kind not in MASSES:
        raise InputError(f"holds SUV of the unknown kind {kind!r} (SUVType): export it in Bq/ml (BQML)")
    mass = mass_of(kind, series.weight, series.height, series.sex)
    if mass <= 0:
        raise InputError(
            f"holds SUV by a lean or ideal weight that is {mass:.3g} kg at {series.weight:g} kg and {series.height:g} m, which "
            "cannot be: export it in Bq/ml (BQML)"
        )
    return np.full(len(series.frames), series.weight / mass)


def _from_suv_by_surface(series: PetSeries) -> np.ndarray:
    """Return the factors (n,) of SUV by the body's surface in cm2/ml."""
    _note_stored_suv(series)
    return np.full(len(series.frames), 1000 * series.weight / (10_000 * body_surface(series.weight, series.height)))


def _from_counts(series: PetSeries) -> np.ndarray:
    """Return the factors (n,) of counts, of which Philips says what they are."""
    suv = _private_numbers(series, PHILIPS_SUV_FACTOR)
    if suv is not None:
        _note_stored_suv(series)
        _warn_of_unused_options(series, OF_BODY, "it counts for SUL alone")
        return suv
    activity = _private_numbers(series, PHILIPS_ACTIVITY_FACTOR)
    if activity is None:
        raise InputError("is in counts, and has none of Philips' factors (7053,1000 and 7053,1009): export it in Bq/ml (BQML)")
    return activity * _from_activity(series)


CONVERSIONS: dict[str, Callable[[PetSeries], np.ndarray]] = {
    "BQML": _from_activity,
    "GML": _from_suv,
    "CM2ML": _from_suv_by_surface,
    "CNTS": _from_counts,
}


def _note_stored_suv(series: PetSeries) -> None:
    """Keep what is known of a series that holds SUV, which needs neither dose nor times."""
    series.facts["suv_type"] = word_of(series.frames[0], "SUVType") or None
    series.facts["decay_correction"] = word_of(series.frames[0], "DecayCorrection") or None
    note_delay(series, "none", series.first_acquisition)
    _warn_of_unused_options(series, ("dose", "half_life", "injection_time"))


def _warn_of_unused_options(series: PetSeries, names: Sequence[str], instead: str = "leave it out") -> None:
    """Warn of options without effect on SUV that is stored as such."""
    unused = [option(name) for name in names if name in series.options.given]
    if unused:
        series.warnings.append(f"holds SUV already, on which {', '.join(unused)} has no effect: {instead}")


def _private_numbers(series: PetSeries, element: int) -> np.ndarray | None:
    """Return the numbers (n,) of a private attribute of Philips; None unless all slices have one above zero."""
    numbers = [number_of(frame, private_tag(frame, *PHILIPS, element)) for frame in series.frames]
    return np.array(numbers, dtype=float) if all(number is not None and number > 0 for number in numbers) else None


# ---------------------------------------------------------------- warnings


def _warnings_of_corrections(series: PetSeries) -> list[str]:
    """Return what was not corrected for, as a header lists it (CorrectedImage)."""
    listed = [words_of(frame, "CorrectedImage") or _enhanced_corrections(frame) for frame in series.frames]
    if not any(listed):
        return ["does not list its corrections (CorrectedImage): check that it was corrected for attenuation"]
    warnings = []
    if any("ATTN" not in words for words in listed):
        warnings.append("was not corrected for attenuation (CorrectedImage): take the corrected series")
    decay = all("DECY" in words for words in listed)
    if series.facts["decay_correction"] == "NONE" and decay:
        warnings.append("says both that it is and that it is not corrected for decay (CorrectedImage, DecayCorrection): check it")
    if series.facts["decay_correction"] != "NONE" and not decay:
        warnings.append("does not list decay among its corrections (CorrectedImage): check that it was corrected")
    return warnings


def _enhanced_corrections(frame: Dataset) -> list[str]:
    """Return the corrections of an enhanced image, which states each in an attribute of its own, in the words of a classic one."""
    stated = {"ATTN": "AttenuationCorrected", "DECY": "DecayCorrected"}
    return [word for word, keyword in stated.items() if word_of(frame, keyword) == "YES"]


def _warnings_of_delay(series: PetSeries) -> list[str]:
    """Return what is unusual about the time between injection and scan."""
    delay = series.facts["delay_min"]
    if delay is None:
        return []
    low, high = FDG_DELAY
    if delay < 0:
        return [
            f"was acquired {-delay:.0f} minutes before the injection by its header: check the times, or {give('injection_time')}"
        ]
    if not low <= delay <= high and _is_fdg(series):
        return [f"was acquired {delay:.0f} minutes after the injection of FDG, where {low} to {high} are usual: check the times"]
    return []


def _is_fdg(series: PetSeries) -> bool:
    """Return whether the radiopharmaceutical's name or code is that of FDG; of several, that of each."""
    said = {_words_of_tracer(injection) for injection in series.all_injections}
    return bool(said) and all(any(word in of_one for word in FDG_WORDS) for of_one in said)


def _words_of_tracer(injection: Dataset) -> str:
    """Return the names and codes of the radiopharmaceutical of an injection."""
    codes = items_of(injection, "RadiopharmaceuticalCodeSequence")
    names = [word_of(code, keyword) for code in codes for keyword in ("CodeValue", "CodeMeaning")]
    return " ".join((word_of(injection, "Radiopharmaceutical"), *names))


def _summary(factors: np.ndarray) -> float | dict[str, float]:
    """Return a factor, or the first, lowest and highest when they differ."""
    if np.ptp(factors) == 0:
        return float(factors[0])
    return {"first": float(factors[0]), "min": float(factors.min()), "max": float(factors.max())}
