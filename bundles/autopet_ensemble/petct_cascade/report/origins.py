"""What a report says of what a study's result was made from, and by what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

# Programs, as they call themselves.
PROGRAMS = {"autopet_ensemble": "autopet_ensemble", "monai": "MONAI", "torch": "PyTorch"}
ROLES = {
    "ct": "CT",
    "pet": "PET",
    "image": "CT and PET",
    "label": "Reference",
    "mask": "Mask",
    "coarse_mask": "Coarse mask",
    "points": "Points",
    "uncertainty": "Uncertainty",
}

# A line of text, after its heading.
Line = tuple[str, str]

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


def input_lines(record: Mapping[str, Any]) -> list[Line]:
    """Return what is said of a study's images, each line with its heading.

    Args:
        record: as `petct_training.records` keeps it: "sources" by their role; and "about", with the facts of
            `petct_cascade.dicom.source.DicomSource` under "ct" and "pet" of a study in DICOM. Whatever is absent is not said.
    """
    about, sources = record.get("about") or {}, record.get("sources") or {}
    lines = []
    # Of several models each mask has a role that is called after the model.
    others = {role: role[:1].upper() + role[1:] for role in sources if role not in ROLES}
    for role, heading in (ROLES | others).items():
        description = (about.get(role) or {}).get("description")
        if description is not None:
            lines.append((heading, str(description)))
        elif role in sources:
            lines.append((heading, _file_text(sources[role])))
    return lines + _suv_lines((about.get("pet") or {}).get("suv") or {})


def run_lines(record: Mapping[str, Any]) -> list[Line]:
    """Return what is said of the run that made a study's mask: programs, weights, options, and the day.

    Args:
        record: see `input_lines`.
    """
    about, settings = record.get("about") or {}, dict(record.get("settings") or {})
    digests, weights = settings.pop("digests", None) or {}, about.get("weights") or {}
    lines = []
    if about.get("versions"):
        lines.append(("Programs", ", ".join(f"{PROGRAMS[name]} {text}" for name, text in about["versions"].items())))
    lines += [(name, f"SHA-256 {digest}") for name, digest in digests.items()]
    if "trained_on" in weights:
        lines.append(("What the fingerprint says of itself", weights["trained_on"]))
    if "members" in weights:
        lines.append(("Members of the ensemble", ", ".join(weights["members"])))
    if "folds" in weights:
        lines.append(("Folds", ", ".join(f"{name} {number}" for name, number in weights["folds"].items())))
    if "imported" in weights:
        lines.append(("Imported weights", ", ".join(f"{name}: {file}" for name, file in weights["imported"].items())))
    if settings:
        lines.append(
            ("Options that change voxels", ", ".join(f"{name} {_option_text(value)}" for name, value in settings.items()))
        )
    if about.get("date"):
        lines.append(("Mask made on", about["date"]))
    return lines


def common_lines(of_studies: Sequence[Sequence[Line]]) -> list[Line]:
    """Return the lines that all studies share, in the order of the first."""
    return [line for line in of_studies[0] if all(line in lines for lines in of_studies)] if of_studies else []


def _suv_lines(suv: Mapping[str, Any]) -> list[Line]:
    """Return what is said of the SUV of a PET in DICOM."""
    if not suv:
        return []
    lines = [("SUV", _suv_text(suv))]
    given = ", ".join(suv.get("given") or ())
    if given:
        lines.append(("Given by the user", given))
    others = suv.get("other_rules") or {}
    if others:
        text = ", ".join(f"{rule.replace('_', ' ')} {percent:+.1f} %" for rule, percent in others.items())
        lines.append(("By other rules, SUV would differ", text))
    return lines


def _file_text(source: Mapping[str, Any]) -> str:
    """Return the name and the digest of a file."""
    name = PurePosixPath(source.get("path") or "").name
    return ", ".join(filter(None, [name, f"SHA-256 {source['sha256']}"]))


def _option_text(value: Any) -> str:
    """Return the value of an option as text."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {_option_text(each)}" for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return " x ".join(map(_option_text, value))
    if value is None:
        return "as the processor allows"
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


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
