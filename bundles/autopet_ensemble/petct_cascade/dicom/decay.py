"""When the tracer was injected, to which time a PET series is corrected for decay, and how much of the dose was left then."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime, time, timedelta

import numpy as np
from pydicom import Dataset

from petct_cascade.dicom.moments import closest, last_before, moment_of, stamp, time_of
from petct_cascade.dicom.pet_series import LONGEST_FRAME_MS, PetSeries
from petct_cascade.dicom.suv_options import give, option
from petct_cascade.dicom.values import number_of, private_tag, word_of
from petct_training.errors import InputError

# When the injection's date is believed: the clocks of scanner and calibrator may differ, de-identified dates lie.
EARLIEST_DELAY = timedelta(hours=-1)
LATEST_DELAY_HALF_LIVES = 2
# After ten half-lives a thousandth of the tracer is left, of which no image can be made.
IMPOSSIBLE_DELAY_HALF_LIVES = 10
# Tracers that live longer are imaged on another day than they are injected.
LONG_HALF_LIFE = 41400
# A series begins at most as long before its first slice is acquired; its time of an earlier day is not the scan's.
LONGEST_SERIES = timedelta(hours=12)
# Times are written with or without fractions of a second.
SAME_TIME = timedelta(seconds=1)

# Percent of SUV by which times of decay may differ without a warning.
RULE_TOLERANCE = 1

# GE's private attribute with the beginning of the scan, as its conformance statements give it.
GE = (0x0009, "GEMS_PETD_01")
GE_SCAN_TIME = 0x0D

RULE_NAMES = {
    "decay_correction_time": "the time that it states for its decay correction",
    "series_time": "the series' time",
    "ge_scan_time": "GE's scan time",
    "frame_reference_time": "the frames' reference times",
    "first_acquisition": "the first acquisition",
}


def decay_correction(series: PetSeries) -> str:
    """Return START, ADMIN or NONE."""
    words = [word_of(frame, "DecayCorrection") or _enhanced_correction(frame) for frame in series.frames]
    correction = series.common("DecayCorrection", words, "to which time it is corrected for decay")
    if correction not in ("START", "ADMIN", "NONE"):
        raise InputError(f"is corrected for decay in the unknown way {correction!r} (DecayCorrection): export it again")
    series.facts["decay_correction"] = correction
    return correction


def _enhanced_correction(frame: Dataset) -> str:
    """Return what an enhanced image says of its correction for decay, in the words of a classic one."""
    return {"YES": "START", "NO": "NONE"}.get(word_of(frame, "DecayCorrected"), "")


def factors_of_decay(series: PetSeries) -> np.ndarray:
    """Return the factors (n,) that correct each slice for its decay since the injection."""
    first = series.first_acquisition
    if first is None or None in series.acquisitions:
        raise InputError("is not corrected for decay, and has slices without a time (AcquisitionTime): export it again")
    if None in series.durations:
        raise InputError("is not corrected for decay, and has slices without a duration (ActualFrameDuration): export it again")
    injection = injection_time(series, first)
    note_times(series, "each_frame", first, injection)
    last = max(moment for moment in series.acquisitions if moment is not None)
    _check_delay(series, last, injection)
    return np.array(
        [
            series.decay_while(duration) / series.decayed((moment - injection).total_seconds())
            for duration, moment in zip(series.durations, series.acquisitions, strict=True)
            if duration is not None and moment is not None
        ]
    )


def reference_time(series: PetSeries) -> tuple[str, datetime, dict[str, float]]:
    """Return the time to which a series is corrected for decay.

    Returns:
        The name of the rule by which it was found; the time; and {rule: percent by which the SUV would be higher} of other rules.
    """
    candidates = _candidates(series)
    if not candidates:
        raise InputError("does not say when it was acquired (SeriesTime, AcquisitionTime): export it again")
    rule, (reference, *different) = next(iter(candidates.items()))
    if different and different[-1] - reference > SAME_TIME:
        raise InputError(
            f"says different things in its slices of {RULE_NAMES[rule]}, {stamp(reference)} and {stamp(different[-1])}: export it "
            "again"
        )
    others = {}
    for other, (moment, *_) in candidates.items():
        if abs(_half_lives(series, moment - reference)) >= IMPOSSIBLE_DELAY_HALF_LIVES:
            # A date that contradicts the others lies, but the time of day may be right.
            moment = closest(moment.time(), reference)
        if other != rule:
            others[other] = _percent(_half_lives(series, moment - reference))
    apart = [f"{percent:+.1f} % with {RULE_NAMES[other]}" for other, percent in others.items() if abs(percent) > RULE_TOLERANCE]
    if apart:
        series.warnings.append(
            f"does not say clearly to which time it is corrected for decay: {RULE_NAMES[rule]} is taken, and its SUV would differ "
            f"by {', '.join(apart)}; compare it with the scanner's"
        )
    return rule, reference, others


def _candidates(series: PetSeries) -> dict[str, list[datetime]]:
    """Return the times to which a series may be corrected for decay by rule, the most trustworthy first.

    Each is one time, or several, sorted, where the slices say different things.
    """
    first, stated = series.first_acquisition, series.series_times
    begins = any(first is None or -SAME_TIME <= first - moment <= LONGEST_SERIES for moment in stated)
    corrected = (moment_of(word_of(frame, "DecayCorrectionDateTime"), series.zone) for frame in series.frames)
    near = first or next(iter(stated), None)
    scans = (_ge_scan_time(frame, series.zone, near) for frame in series.frames)
    of_frames = _time_of_frames(series)
    candidates: dict[str, list[datetime]] = {
        "decay_correction_time": _sorted(corrected),
        "series_time": stated if begins else [],
        "ge_scan_time": _sorted(scans),
        "frame_reference_time": [of_frames] if of_frames else [],
        "first_acquisition": [first] if first else [],
    }
    if not begins:
        # It comes last: such a series was made from an earlier one.
        candidates["series_time"] = candidates.pop("series_time") or stated
    return {rule: moments for rule, moments in candidates.items() if moments}


def _sorted(moments: Iterable[datetime | None]) -> list[datetime]:
    """Return different moments, sorted; None among them does not count."""
    return sorted({moment for moment in moments if moment is not None})


def _ge_scan_time(frame: Dataset, zone: timedelta | None, near: datetime | None) -> datetime | None:
    """Return the beginning of the scan that GE writes into a private attribute; as time of day, when its date is another."""
    text = word_of(frame, private_tag(frame, *GE, GE_SCAN_TIME))
    moment = moment_of(text, zone)
    clock = moment.time() if moment else time_of(text)
    return closest(clock, near) if clock and near else moment


def _time_of_frames(series: PetSeries) -> datetime | None:
    """Return the reference time by what is said of the frames: in the middle, when they do not agree.

    A frame's reference time is the time (ms) from the reference of the decay correction to when the activity was the frame's mean.
    """
    moments = []
    for frame, begin, duration in zip(series.frames, series.acquisitions, series.durations, strict=True):
        offset = number_of(frame, "FrameReferenceTime")
        if begin is None or duration is None or offset is None or not 0 < offset <= LONGEST_FRAME_MS:
            continue
        until_mean = math.log(series.decay_while(duration)) * series.half_life / math.log(2)
        moments.append(begin + timedelta(seconds=until_mean - offset / 1000))
    return sorted(moments)[len(moments) // 2] if moments else None


def injection_time(series: PetSeries, reference: datetime) -> datetime:
    """Return when the tracer was injected.

    Args:
        series: with the user's options.
        reference: the time to which the activity is corrected, or the first acquisition.
    """
    given = series.options.injection_time
    if given is not None:
        trusted, clock = moment_of(given, series.zone), time_of(given)
    else:
        stated, clock = series.injection_moment, series.injection_clock
        latest = timedelta(seconds=LATEST_DELAY_HALF_LIVES * series.half_life)
        trusted = stated if stated and EARLIEST_DELAY <= reference - stated < latest else None
        if trusted is not None and clock is not None:
            _warn_of_two_injections(series, trusted, closest(clock, trusted))
        elif stated is not None:
            # A date that lies may come with a time that does, too; that of the other attribute is believed first.
            clock = clock or stated.time()
    if trusted is None and clock is None:
        raise InputError(f"has no injection time (RadiopharmaceuticalStartDateTime): {give('injection_time')}")
    if trusted is None and series.half_life >= LONG_HALF_LIFE:
        raise InputError(f"does not say credibly on which day its long-lived tracer was injected: {give('injection_time')}")
    injection = trusted if trusted else last_before(clock or time(), reference)
    _check_delay(series, reference, injection)
    return injection


def _warn_of_two_injections(series: PetSeries, taken: datetime, other: datetime) -> None:
    """Warn where the two attributes of the injection's time differ by what matters to SUV."""
    percent = _percent(_half_lives(series, taken - other))
    if abs(percent) > RULE_TOLERANCE:
        series.warnings.append(
            f"says that the injection was at {stamp(taken)} (RadiopharmaceuticalStartDateTime) and at {other.time().isoformat()} "
            f"(RadiopharmaceuticalStartTime): the first is taken, and its SUV would differ by {percent:+.1f} % with the second; "
            f"check it, or {give('injection_time')}"
        )


def _half_lives(series: PetSeries, delay: timedelta) -> float:
    return delay.total_seconds() / series.half_life


def _percent(half_lives: float) -> float:
    """Return by how many percent SUV are higher when so much more time lies between injection and reference time."""
    return round(100 * (2**half_lives - 1), 2)


def _check_delay(series: PetSeries, moment: datetime, injection: datetime) -> None:
    """Check that a moment lies as long after the injection as a PET is possible."""
    delay = moment - injection
    if not EARLIEST_DELAY <= delay < timedelta(seconds=IMPOSSIBLE_DELAY_HALF_LIVES * series.half_life):
        raise InputError(
            f"was acquired {_minutes(delay):.0f} minutes after the injection, which cannot be right at a half-life of "
            f"{series.half_life / 60:.0f} minutes: {give('injection_time')}, or the half-life with {option('half_life')}, in s"
        )


def note_times(series: PetSeries, rule: str, reference: datetime, injection: datetime) -> None:
    """Keep the times that were used."""
    series.facts |= {
        "rule": rule,
        "reference_time": stamp(reference),
        "injection_time": stamp(injection),
        "delay_min": round(_minutes(reference - injection), 2),
    }


def note_delay(series: PetSeries, rule: str, acquisition: datetime | None) -> None:
    """Keep the times of a series whose SUV does not depend on them, as far as they are known."""
    series.facts["rule"] = rule
    try:
        if acquisition is None:
            return
        injection = injection_time(series, acquisition)
    except InputError:
        return
    series.facts |= {"injection_time": stamp(injection), "delay_min": round(_minutes(acquisition - injection), 2)}
    if rule == "injection":
        series.facts["reference_time"] = stamp(injection)


def _minutes(delay: timedelta) -> float:
    return delay.total_seconds() / 60
