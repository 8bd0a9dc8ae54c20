"""Which segments of a file of labels are lesions: by what the file says of them, or by the names that a user gives."""

from __future__ import annotations

import re
from collections.abc import Sequence

from petct_cascade.dicom.label_files import LabelFile, Segment, some_of
from petct_training.errors import InputError

# Codes of a segment's category (CID 7150 of PS3.16; in SNOMED CT, and in the SRT of older files).
ABNORMAL = ("49755003", "M-01000")
ANATOMY = ("91723000", "123037004", "T-D000A")
TISSUE = ("85756007", "T-D0050")
THINGS = ("260787004", "A-00004", "91720002", "T-D0080")

# Beginnings of words that say that something is a lesion, and words that say that it is none.
LESION_WORDS = (
    *("lesion", "tumor", "tumour", "neoplas", "metast", "mets", "malignan", "cancer", "carcino", "lymphom", "gtv", "mass"),
    "nodul",
)
NORMAL_WORDS = ("background", "physiologic", "physiological", "normal", "healthy", "reference")

# A label that consists of such words alone is an organ. With a number, as in "Liver 2", it may be a lesion in it.
ORGAN_WORDS = (
    *("aorta", "bladder", "blood", "body", "bone", "bones", "bowel", "brain", "colon", "cord", "couch", "esophagus", "external"),
    *("eye", "eyes", "fat", "gland", "glands", "heart", "kidney", "kidneys", "liver", "lung", "lungs", "muscle", "muscles"),
    *("myocardium", "oesophagus", "pancreas", "parotid", "pool", "prostate", "salivary", "skeleton", "skin", "spinal", "spleen"),
    *("stomach", "submandibular", "table", "thyroid", "tonsil", "tonsils", "urinary"),
)
# Volumes of radiotherapy (ICRU reports 50 and 62; types of regions, PS3.3, C.8.8.8.1): the tumour that is seen, those that add
# a margin to it, and those that words of a label begin with.
TUMOUR, WITH_MARGIN = "GTV", ("CTV", "ITV", "PTV", "TREATED_VOLUME", "IRRAD_VOLUME")
NAMED_VOLUMES = ("GTV", "CTV", "ITV", "PTV")

SIDE_WORDS = ("and", "l", "left", "lt", "r", "right", "rt", "the")


def reason_against(label: str, category: str = "", kind: str = "", kind_words: str = "") -> str | None:
    """Return why a segment is no lesion by what a SEG says of it; None when nothing speaks against it.

    "Tissue" of the kind "tissue" is what 3D Slicer and MITK write when nobody has chosen: it says nothing.

    Args:
        label: of the segment.
        category: its code, as 49755003 for an abnormal structure.
        kind: code of what it is in this category.
        kind_words: the same in words.

    Example:
        >>> reason_against("Liver"), reason_against("Liver metastasis"), reason_against("lesion", "123037004")
        ('its label is the name of an organ', None, None)
    """
    words = re.findall(r"[a-z]+", label.lower())
    if any(word in NORMAL_WORDS for word in words):
        return "its label says that it is no lesion"
    if category in ABNORMAL or any(word.startswith(LESION_WORDS) for word in words + kind_words.lower().split()):
        return None
    if category in ANATOMY or (category in TISSUE and kind not in TISSUE):
        return "it is an organ or a tissue by its category"
    if category in THINGS:
        return "it is no part of the body by its category"
    named = [word for word in words if word not in SIDE_WORDS]
    is_organ = bool(named) and not re.search(r"\d", label) and all(word in ORGAN_WORDS for word in named)
    return "its label is the name of an organ" if is_organ else None


def volume_named(label: str) -> str:
    """Return which volume of radiotherapy a label names first; an empty text when it names none.

    Example:
        >>> volume_named("PTV60 (GTV + 5 mm)"), volume_named("GTVp"), volume_named("Lesion 1")
        ('PTV', 'GTV', '')
    """
    found = re.search(rf"(?<![A-Z])({'|'.join(NAMED_VOLUMES)})", label.upper())
    return found[1] if found else ""


def choose(
    files: Sequence[LabelFile], names: Sequence[object] | None, remedy: str
) -> list[tuple[LabelFile, dict[Segment, str | None]]]:
    """Choose the segments of some files.

    Args:
        files: files of one kind.
        names: labels in small or capital letters, or numbers; None for all that may be lesions.
        remedy: what to do where none may be one, in a sentence.

    Returns:
        For each file its segments, with why one is left out; None for those that are used.

    Raises:
        InputError: when a name matches nothing, or nothing may be a lesion; the message is the end of a sentence that begins with
            the file or the series.
    """
    noun = files[0].noun
    known = [segment for file in files for segment in file.segments]
    if not known:
        raise InputError(f"names no {noun}: export it again with its {noun}s")
    if names is None:
        if all(segment.reason for segment in known):
            found = some_of((f"{segment}: {segment.reason}" for segment in known), "; ")
            raise InputError(f"holds no {noun} that may be a lesion ({found}): {remedy}")
        has_tumour = any(segment.volume == TUMOUR and segment.reason is None for segment in known)
        return [(file, {segment: _reason_of(segment, has_tumour) for segment in file.segments}) for file in files]
    wanted = [_matching(known, str(name).strip(), noun) for name in ([names] if isinstance(names, (str, int)) else names)]
    used = {segment for segments in wanted for segment in segments}
    return [(file, {segment: None if segment in used else "it was not asked for" for segment in file.segments}) for file in files]


def _reason_of(segment: Segment, has_tumour: bool) -> str | None:
    """Return why a segment is no lesion; `has_tumour` says whether one of those beside it is a tumour without a margin."""
    if segment.reason is not None or segment.volume not in WITH_MARGIN or not has_tumour:
        return segment.reason
    said = f"its type is {segment.volume}" if segment.by_type else f"its name says {segment.volume}"
    return f"{said}, which adds a margin, and there is a {TUMOUR}"


def warning_of_margin(segment: Segment, noun: str) -> str:
    """Return what is to be said of a segment that is used, the end of a sentence that begins with the file; empty for most."""
    if segment.volume not in WITH_MARGIN:
        return ""
    said = f"of the type {segment.volume}" if segment.by_type else f"with {segment.volume} in its name"
    return f"has {noun} {segment} {said}: see that it has no margin"


def _matching(segments: Sequence[Segment], name: str, noun: str) -> list[Segment]:
    """Return the segments of this label, or else of this number.

    Raises:
        InputError: when there are none.
    """
    found = [segment for segment in segments if segment.label.casefold() == name.casefold()]
    found = found or [segment for segment in segments if str(segment.number) == name]
    if not found:
        raise InputError(f"has no {noun} {name!r}: give the labels or numbers of some of these: {some_of(segments, ', ')}")
    return found
