"""Labels of a study from DICOM: segmentations (SEG) and structure sets (RTSTRUCT) as masks on the grid of the PET."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from petct_cascade.dicom.choice import choose, warning_of_margin
from petct_cascade.dicom.label_files import LabelFile, Segment, some_of
from petct_cascade.dicom.planes import Grid
from petct_cascade.dicom.segmentations import read_segmentation
from petct_cascade.dicom.structures import read_structures
from petct_training.errors import InputError

# What to do where no segment may be a lesion: of a coarse mask nobody can name some.
NAME_SOME, LESIONS_ALONE = "give the labels or numbers of those to use", "give a file of lesions alone, or the mask as NIfTI"

# What is said of a coarse mask that must not pass for an empty one.
ALL_LOST = "marks lesions so small that each is nearest to no voxel of the PET: draw them on the PET's grid"

__all__ = ["Grid", "LabelMask", "contour_mask", "segmentation_mask"]


@dataclass(frozen=True)
class LabelMask:
    """A label that was read.

    Attributes:
        array: (X, Y, Z), uint8: 1 inside of lesions and 0 elsewhere, on the grid that was given.
        facts: files, series, the segments that were used with their numbers of voxels on the grid, and those left out with the
            reason, as JSON knows them.
        warnings: each the end of a sentence that begins with the file, or with the series if there are several files.
    """

    array: np.ndarray
    facts: dict[str, Any]
    warnings: list[str]


def segmentation_mask(
    files: Sequence[Path],
    grid: Grid,
    segments: Sequence[str] | None = None,
    frame_of_reference: str | None = None,
    is_coarse_mask: bool = False,
) -> LabelMask:
    """Return the lesions of one or several DICOM SEGs, joined.

    They may be binary, fractional (voxels count from half of the largest value on), or label maps.

    Args:
        files: of a study.
        grid: of the PET. A SEG on another grid gives each voxel of this one its nearest voxel, with a warning.
        segments: labels, in small or capital letters, or numbers; None for all but those that are an organ or background by what
            the file says of them.
        frame_of_reference: UID of the PET's; None when it is unknown.
        is_coarse_mask: whether it takes the place of stage 1's mask. Then nobody can name segments, and an empty one would say that
            there are no lesions, so that one which is empty on the grid alone is refused.

    Raises:
        InputError: when a file cannot be read, no segment is left, or it lies elsewhere than the PET; the message is the end of a
            sentence that begins with the file's name, or with the series if there are several files.
    """
    return _mask(read_segmentation, files, grid, segments, frame_of_reference, is_coarse_mask)


def contour_mask(
    files: Sequence[Path],
    grid: Grid,
    segments: Sequence[str] | None = None,
    frame_of_reference: str | None = None,
    is_coarse_mask: bool = False,
) -> LabelMask:
    """Return the lesions of one or several DICOM RTSTRUCTs, joined: all voxels whose centres lie inside of a contour, or on it.

    Within one region and plane a contour inside of another is a hole. A slice of the grid between the planes of the contours takes
    the nearest one, up to half of their usual distance.

    Args:
        files: of a study.
        grid: of the PET; contours lie in planes across any one of its axes.
        segments: names of regions (ROIs), in small or capital letters, or numbers; None for all with closed contours but those that
            are an organ, a device, a margin around a tumour (if that has a region, too) or such by their type or name.
        frame_of_reference: UID of the PET's; None when it is unknown.
        is_coarse_mask: as in `segmentation_mask`.

    Raises:
        InputError: as `segmentation_mask`.
    """
    return _mask(read_structures, files, grid, segments, frame_of_reference, is_coarse_mask)


def _mask(
    read: Callable[[Path], LabelFile],
    files: Sequence[Path],
    grid: Grid,
    names: Sequence[str] | None,
    frame_of_reference: str | None,
    is_coarse_mask: bool,
) -> LabelMask:
    """Return the chosen segments of all files on a grid, joined; `read` reads one file."""
    several = len(files) > 1
    label = LabelMask(np.zeros(grid.shape, np.uint8), {"files": [], "series": [], "used": [], "left_out": []}, [])
    remedy, is_lost = LESIONS_ALONE if is_coarse_mask else NAME_SOME, False
    for file, segments in choose([_read(read, file, several) for file in files], names, remedy):
        try:
            used = _in_space(segments, names, frame_of_reference or "", file.noun)
            messages, lost = _add(label, file, used, grid, is_coarse_mask)
        except InputError as error:
            raise InputError(_of(file.file, str(error), several)) from error
        label.warnings.extend(_of(file.file, message, several) for message in messages)
        is_lost |= lost
    if is_coarse_mask and is_lost and not label.array.any():
        raise InputError(ALL_LOST)
    if several:
        label.warnings.insert(0, f"has {len(files)} files, which are joined: {', '.join(label.facts['files'])}")
    return label


def _read(read: Callable[[Path], LabelFile], file: Path, several: bool) -> LabelFile:
    try:
        return read(file)
    except InputError as error:
        raise InputError(_of(file, str(error), several)) from error


def _of(file: Path, message: str, several: bool) -> str:
    """Return the end of a sentence that begins with a file as one that begins with its series, if there are several files."""
    return f"holds {file.name}, which {message}" if several else message


def _in_space(
    segments: dict[Segment, str | None], names: Sequence[str] | None, frame_of_reference: str, noun: str
) -> dict[Segment, str | None]:
    """Leave out what lies in another space than the PET, unless it was asked for or nothing else is there.

    Raises:
        InputError: in these cases.
    """
    used = [segment for segment, reason in segments.items() if reason is None]
    elsewhere = [
        segment for segment in used if segment.frame_of_reference and frame_of_reference not in ("", segment.frame_of_reference)
    ]
    if elsewhere and (names is not None or len(elsewhere) == len(used)):
        raise InputError(
            f"has {noun} {elsewhere[0]} in the frame of reference {elsewhere[0].frame_of_reference}, and the PET lies in "
            f"{frame_of_reference}: give the label that was drawn on this PET or its CT, or register it"
        )
    return segments | dict.fromkeys(elsewhere, "it lies in another frame of reference")


def _add(
    label: LabelMask, file: LabelFile, segments: dict[Segment, str | None], grid: Grid, is_coarse_mask: bool
) -> tuple[list[str], bool]:
    """Add the segments of a file for which there is no reason to leave them out.

    Returns:
        Warnings, each the end of a sentence that begins with the file; and whether a segment is lost between the grid's voxels.

    Raises:
        InputError: when all that they show lies outside of the grid.
    """
    name, facts = file.file.name, label.facts
    facts["files"].append(name)
    if file.series not in facts["series"]:
        facts["series"].append(file.series)
    messages, shares, is_lost = list(file.warnings), [], False
    for drawing in file.draw([segment for segment, reason in segments.items() if reason is None], grid):
        label.array[drawing.mask] = 1
        voxels = int(np.count_nonzero(drawing.mask))
        facts["used"].append({"file": name, "number": drawing.segment.number, "label": drawing.segment.label, "voxels": voxels})
        messages += [message for message in (warning_of_margin(drawing.segment, file.noun), *drawing.warnings) if message]
        shares.append(drawing.outside)
        is_lost |= drawing.is_lost
        if drawing.outside:
            messages.append(
                f"has {file.noun} {drawing.segment}, {drawing.outside:.1%} of which lie outside of the PET: it is cut there"
            )
    if shares and min(shares) == 1:
        raise InputError(f"lies outside of the PET with all its {file.noun}s: give the label of this study")
    left_out = {segment: reason for segment, reason in segments.items() if reason is not None}
    facts["left_out"] += [
        {"file": name, "number": s.number, "label": s.label, "reason": reason} for s, reason in left_out.items()
    ]
    if left_out:
        listed = some_of((f"{segment}: {reason}" for segment, reason in left_out.items()), "; ")
        what_to_do = f"if they are lesions, {LESIONS_ALONE}" if is_coarse_mask else "name those to use if they are others"
        messages.append(f"has {file.noun}s that are left out ({listed}): {what_to_do}")
    return list(dict.fromkeys(messages)), is_lost
