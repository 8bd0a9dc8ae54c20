"""What a report says of the DICOM series from which a study's result was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Headings of the facts about SUV, their units, and how many digits count.
FACTS = (
    ("units", "units", ""),
    ("suv_type", "SUV type", ""),
    ("decay_correction", "decay correction", ""),
    ("rule", "reference time by", ""),
    ("reference_time", "reference time", ""),
    ("injection_time", "injection", ""),
    ("delay_min", "delay", "min"),
    ("weight_kg", "weight", "kg"),
    ("height_m", "height", "m"),
    ("sex", "sex", ""),
    ("dose_mbq", "dose", "MBq"),
    ("half_life_s", "half-life", "s"),
    ("decayed_dose_mbq", "dose at the reference time", "MBq"),
)


def origin_lines(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is said of a study's series, each line with its heading; none of a study that was no DICOM.

    Args:
        about: as a record keeps it: under "ct" and "pet" the facts of `petct_cascade.dicom.source.DicomSource`.
    """
    lines = []
    for role in ("ct", "pet"):
        facts = about.get(role) or {}
        if "description" in facts:
            lines.append((role.upper(), str(facts["description"])))
    suv = (about.get("pet") or {}).get("suv")
    if suv:
        lines.append(("SUV", _suv_text(suv)))
        given = ", ".join(suv.get("given") or ())
        if given:
            lines.append(("Given by the user", given))
        others = suv.get("other_rules") or {}
        if others:
            text = ", ".join(f"{rule.replace('_', ' ')} {percent:+.1f} %" for rule, percent in others.items())
            lines.append(("By other rules, SUV would differ", text))
    return lines


def _suv_text(suv: Mapping[str, Any]) -> str:
    """Return how SUV were computed, in one line."""
    # What is stored as SUV needs no reference time.
    known = [(heading, suv.get(name), unit) for name, heading, unit in FACTS if (name, suv.get(name)) != ("rule", "none")]
    parts = [f"{heading} {_text_of(value)} {unit}".rstrip() for heading, value, unit in known if value is not None]
    return ", ".join([*parts, f"factor {_text_of(suv.get('factor'))}"])


def _text_of(value: Any) -> str:
    """Return a fact as text; of several slices the lowest and the highest."""
    if isinstance(value, Mapping):
        return " to ".join(_text_of(value[name]) for name in ("min", "max") if name in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value).replace("_", " ")
