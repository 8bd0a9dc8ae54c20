"""Dates and times of DICOM headers as `datetime`, all on the clock of the scanner, whichever way they are written."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta

# DA, TM and DT (PS3.5, 6.2), the older forms with separators, and ISO 8601.
_DATE = r"(?P<year>\d{4})[-.]?(?P<month>\d\d)[-.]?(?P<day>\d\d)"
_TIME = r"(?P<hour>\d\d)(?::?(?P<minute>\d\d)(?::?(?P<second>\d\d)(?:\.(?P<fraction>\d*))?)?)?"
_ZONE = r"(?:Z|(?P<sign>[+-])(?P<zone_hour>\d\d):?(?P<zone_minute>\d\d))"
DATE = re.compile(_DATE, re.ASCII)
TIME = re.compile(_TIME, re.ASCII)
MOMENT = re.compile(f"{_DATE}[ T]?{_TIME}(?P<zone>{_ZONE})?", re.ASCII)
ZONE = re.compile(_ZONE, re.ASCII)

# Years in which a header's date can lie, de-identified or not, so that no sum of dates leaves the calendar.
YEARS = range(1800, 2201)

# The day of times without a date.
NO_DATE = date(2000, 1, 1)


def date_of(text: str) -> date | None:
    """Return the date of a text; None when it holds no date.

    Example:
        >>> date_of("20250131"), date_of("2025.01.31"), date_of("20250231")
        (datetime.date(2025, 1, 31), datetime.date(2025, 1, 31), None)
    """
    match = DATE.fullmatch(text)
    try:
        found = date(int(match["year"]), int(match["month"]), int(match["day"])) if match else None
    except ValueError:
        return None
    return found if found is not None and found.year in YEARS else None


def time_of(text: str) -> time | None:
    """Return the time of day of a text; None when it holds none.

    Example:
        >>> time_of("101530.5"), time_of("10:15"), time_of("25")
        (datetime.time(10, 15, 30, 500000), datetime.time(10, 15), None)
    """
    match = TIME.fullmatch(text)
    return _time_of_match(match) if match else None


def moment_of(text: str, zone: timedelta | None = None) -> datetime | None:
    """Return the moment of a text with a date and at least an hour; None when it holds none.

    Args:
        text: DICOM's DT, or ISO 8601.
        zone: offset from UTC of the clock on which the moment is wanted. A moment that states an offset of its own is moved to this
            clock. When the clock's offset is not known, the moment is taken to be on it.

    Example:
        >>> moment_of("20250131101530.00+0200", timedelta(hours=1))
        datetime.datetime(2025, 1, 31, 9, 15, 30)
    """
    match = MOMENT.fullmatch(text)
    if not match:
        return None
    day, clock = date_of(text[: match.end("day")]), _time_of_match(match)
    if day is None or clock is None:
        return None
    moment = datetime.combine(day, clock)
    stated = zone_of(match["zone"] or "")
    return moment if zone is None or stated is None else moment - stated + zone


def zone_of(text: str) -> timedelta | None:
    """Return an offset from UTC such as +0100; None when the text holds none.

    Example:
        >>> zone_of("-0330"), zone_of("Z"), zone_of("CET")
        (datetime.timedelta(days=-1, seconds=73800), datetime.timedelta(0), None)
    """
    match = ZONE.fullmatch(text)
    if not match:
        return None
    if match["sign"] is None:
        return timedelta(0)
    offset = timedelta(hours=int(match["zone_hour"]), minutes=int(match["zone_minute"]))
    return -offset if match["sign"] == "-" else offset


def closest(clock: time, moment: datetime) -> datetime:
    """Return when a clock shows a time of day, at most 12 hours from a moment.

    Example:
        >>> closest(time(23, 50), datetime(2025, 1, 31, 0, 10))
        datetime.datetime(2025, 1, 30, 23, 50)
    """
    candidates = [datetime.combine(moment.date() + timedelta(days=days), clock) for days in (0, -1, 1)]
    return min(candidates, key=lambda candidate: abs(candidate - moment))


def last_before(clock: time, moment: datetime) -> datetime:
    """Return when a clock has last shown a time of day, at a moment or before it.

    Example:
        >>> last_before(time(23, 30), datetime(2025, 1, 2, 0, 30))
        datetime.datetime(2025, 1, 1, 23, 30)
    """
    same_day = datetime.combine(moment.date(), clock)
    return same_day if same_day <= moment else same_day - timedelta(days=1)


def stamp(moment: datetime) -> str:
    """Return a moment in ISO 8601; without a date when the header has none."""
    no_date = abs(moment.date() - NO_DATE) <= timedelta(days=2)
    return moment.time().isoformat() if no_date else moment.isoformat()


def _time_of_match(match: re.Match[str]) -> time | None:
    """Return the time of day of a match; a leap second counts as the one before it."""
    microsecond = int(((match["fraction"] or "") + "000000")[:6])
    second = int(match["second"] or 0)
    try:
        return time(int(match["hour"]), int(match["minute"] or 0), 59 if second == 60 else second, microsecond)
    except ValueError:
        return None
