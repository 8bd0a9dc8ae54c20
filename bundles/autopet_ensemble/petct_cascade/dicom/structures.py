"""DICOM RTSTRUCT: the contours of regions (ROIs) are filled on the slices of a grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from petct_cascade.dicom.choice import TUMOUR, WITH_MARGIN, reason_against, volume_named
from petct_cascade.dicom.geometry import LPS_TO_RAS
from petct_cascade.dicom.label_files import (
    FARTHEST_MM,
    Drawing,
    Segment,
    items,
    malformed_is_refused,
    numbers,
    read_label_dataset,
    required_items,
    whole_number,
)
from petct_cascade.dicom.planes import Grid, common_spacing, merged, nearest_plane
from petct_cascade.dicom.values import text_of
from petct_training.errors import InputError

# RT Structure Set Storage (PS3.4, B.5).
SOP_CLASSES = ("1.2.840.10008.5.1.4.1.1.481.3",)

# Contours that enclose an area (PS3.3, C.8.8.6.1). Inner ones are holes in either, as most programs draw them.
CLOSED_TYPES = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")

# Types of regions (PS3.3, C.8.8.8.1) that are no lesions.
OTHER_TYPES = (
    *("EXTERNAL", "ORGAN", "AVOIDANCE", "MARKER", "ISOCENTER", "SUPPORT", "BOLUS", "FIXATION", "REGISTRATION", "CAVITY"),
    *("CONTRAST_AGENT", "CONTROL", "DOSE_REGION", "DOSE_MEASUREMENT", "BRACHY_CHANNEL", "BRACHY_ACCESSORY"),
    *("BRACHY_SRC_APP", "BRACHY_CHNL_SHLD"),
)

# How far (voxels) a contour's points may lie beside its plane, as tilted ones do.
OUT_OF_PLANE = 0.5

# How near (voxels) to a contour a voxel's centre lies on it. Programs that trace masks, such as OpenCV, draw through centres, and
# headers round.
ON_CONTOUR = 2e-3

CONTOUR_DATA = Tag("ContourData")


@dataclass(frozen=True)
class Structures:
    """An RTSTRUCT that was read.

    Attributes:
        file: where it lies.
        series: UID of its series.
        segments: its regions.
        contours: of each region by its number, the closed contours: (N, 3), RAS in mm.
        warnings: what is unusual about it, each the end of a sentence that begins with the file.
    """

    file: Path
    series: str
    segments: tuple[Segment, ...]
    contours: dict[int, list[np.ndarray]]
    warnings: tuple[str, ...]
    noun: str = "ROI"

    def draw(self, segments: Sequence[Segment], grid: Grid) -> Iterator[Drawing]:
        """Yield each of some of its regions on a grid: all voxels whose centres lie inside of its contours, or on them.

        Raises:
            InputError: when contours lie in planes across the grid's; the message is the end of a sentence that begins with the
                file's name.
        """
        spacing = self._spacing(grid)
        for segment in segments:
            yield _drawn(segment, self.contours[segment.number], grid, spacing)

    def _spacing(self, grid: Grid) -> np.ndarray:
        """Return the usual distance (mm) of the planes of all contours across each axis of a grid; the grid's if it is unknown."""
        to_grid = np.linalg.inv(grid.affine)
        everything = [apply_affine(to_grid, contour) for contours in self.contours.values() for contour in contours]
        distances = grid.spacing
        for axis in range(3):
            offsets = [contour[:, axis].mean() for contour in everything if np.ptp(contour[:, axis]) < OUT_OF_PLANE]
            if offsets:
                distances[axis] = common_spacing(merged(np.array(offsets) * distances[axis])[0]) or distances[axis]
        return distances


def read_structures(file: Path) -> Structures:
    """Read an RTSTRUCT.

    Raises:
        InputError: when it is none, is damaged, or contradicts itself; the message is the end of a sentence that begins with the
            file's name.
    """
    dataset = read_label_dataset(file, SOP_CLASSES, "DICOM structure set (RTSTRUCT)")
    with malformed_is_refused():
        regions = required_items(dataset, "StructureSetROISequence")
        named = {whole_number(item, "ROINumber"): item for item in regions}
        if len(named) < len(regions):
            raise InputError("gives several ROIs one number: export it again")
        name_of = {number: f"{number} {text_of(item, 'ROIName')!r}" for number, item in named.items()}
        types = {
            whole_number(item, "ReferencedROINumber"): _type_of(item) for item in items(dataset, "RTROIObservationsSequence")
        }
        contours: dict[int, list[np.ndarray]] = {number: [] for number in named}
        warnings: list[str] = []
        for item in items(dataset, "ROIContourSequence"):
            number = whole_number(item, "ReferencedROINumber")
            if number not in named:
                raise InputError(f"holds contours of an ROI {number}, which it does not name: export it again")
            found, messages = _contours_of(item, name_of[number])
            contours[number] += found
            warnings += messages
        segments = tuple(
            _segment_of(number, item, types.get(number, ""), bool(contours[number]), _space_of(item, dataset))
            for number, item in named.items()
        )
    return Structures(file, text_of(dataset, "SeriesInstanceUID"), segments, contours, tuple(warnings))


def _type_of(observation: Dataset) -> str:
    return text_of(observation, "RTROIInterpretedType").upper()


def _space_of(item: Dataset, dataset: Dataset) -> str:
    """Return the UID of the frame of reference in which a region lies; an empty text when it is not said."""
    named = (items(dataset, "ReferencedFrameOfReferenceSequence") or [Dataset()])[0]
    return (
        text_of(item, "ReferencedFrameOfReferenceUID")
        or text_of(dataset, "FrameOfReferenceUID")
        or text_of(named, "FrameOfReferenceUID")
    )


def _segment_of(number: int, item: Dataset, kind: str, has_contours: bool, frame_of_reference: str) -> Segment:
    """Return what a file says of a region.

    Args:
        number: of the region.
        item: of StructureSetROISequence.
        kind: its interpreted type; empty when there is none.
        has_contours: whether it has closed contours.
        frame_of_reference: in which it lies.
    """
    label = text_of(item, "ROIName")
    by_type = kind in (TUMOUR, *WITH_MARGIN)
    return Segment(
        number,
        label,
        _reason_against(label, kind, has_contours),
        frame_of_reference,
        volume=kind if by_type else volume_named(label),
        by_type=by_type,
    )


def _reason_against(label: str, kind: str, has_contours: bool) -> str | None:
    """Return why a region is no lesion, whatever lies beside it; None when nothing speaks against it."""
    if not has_contours:
        return "it has no closed contours"
    if kind in OTHER_TYPES:
        return f"its type is {kind}"
    return None if kind == TUMOUR else reason_against(label)


def _contours_of(region: Dataset, name: str) -> tuple[list[np.ndarray], list[str]]:
    """Return the closed contours of a region, each (N, 3), RAS in mm, and warnings of those that are left out."""
    found: dict[bytes, np.ndarray] = {}
    open_ones = repeated = 0
    for item in items(region, "ContourSequence"):
        if text_of(item, "ContourGeometricType") not in CLOSED_TYPES:
            open_ones += 1
            continue
        points = _points_of(item, name)
        # Drawn twice, a contour would be its own hole.
        repeated += points.tobytes() in found
        found[points.tobytes()] = points
    warnings = []
    if open_ones:
        warnings.append(f"has {open_ones} contours of ROI {name} that are points or open lines: they are left out")
    if repeated:
        warnings.append(f"has {repeated} contours of ROI {name} twice: each is used once")
    return list(found.values()), warnings


def _points_of(item: Dataset, name: str) -> np.ndarray:
    """Return the points (N, 3) of a contour, RAS in mm.

    Raises:
        InputError: when they are no numbers, or fewer or more than the file says.
    """
    element = item.get_item(CONTOUR_DATA)
    # Pydicom would make an object of each of a million numbers.
    is_raw = isinstance(element, RawDataElement) and isinstance(element.value, bytes)
    values = element.value.strip(b" \x00").split(b"\\") if is_raw else item.get("ContourData") or []
    try:
        data = np.array(values, dtype=float)
    except ValueError as error:
        raise InputError(f"has a contour of ROI {name} that is not made of numbers: export it again") from error
    stated = numbers(item, "NumberOfContourPoints", 1)
    if not data.size or data.ndim != 1 or data.size % 3:
        raise InputError(f"has a contour of ROI {name} with {data.size} numbers instead of three for each point: export it again")
    if stated is not None and stated[0] != data.size // 3:
        raise InputError(
            f"has a contour of ROI {name} of {stated[0]:.0f} points, of which {data.size // 3} are there (long ones may have been "
            "cut): export it again with fewer points"
        )
    if not np.isfinite(data).all() or np.abs(data).max() > FARTHEST_MM:
        raise InputError(f"has a contour of ROI {name} with points that lie nowhere: export it again")
    return LPS_TO_RAS * data.reshape(-1, 3)


def _drawn(segment: Segment, contours: Sequence[np.ndarray], grid: Grid, usual_spacing: np.ndarray) -> Drawing:
    """Fill the contours of a region on a grid.

    Args:
        segment: the region.
        contours: (N, 3), RAS in mm.
        grid: on which it is drawn.
        usual_spacing: distance (mm) of planes of contours across the grid's axes, if the region's own do not tell.

    Raises:
        InputError: when the contours lie in planes across the grid's.
    """
    mask = np.zeros(grid.shape, bool)
    if not contours:
        return Drawing(segment, mask, 0.0, (f"has ROI {segment} without closed contours: it is empty",))
    to_grid = np.linalg.inv(grid.affine)
    placed = [apply_affine(to_grid, contour) for contour in contours]
    axis = _axis_of(placed, segment, grid)
    offsets, planes = merged(np.array([contour[:, axis].mean() for contour in placed]) * grid.spacing[axis])
    spacing = common_spacing(offsets) or float(usual_spacing[axis])
    nearest = nearest_plane(offsets, np.arange(grid.shape[axis]) * grid.spacing[axis], spacing)
    in_plane = [other for other in range(3) if other != axis]
    slices = np.moveaxis(mask, axis, 0)
    for plane in np.unique(nearest[nearest >= 0]):
        polygons = [placed[index][:, in_plane] for index in np.flatnonzero(planes == plane)]
        slices[nearest == plane] = filled(polygons, slices.shape[1:])
    points = np.concatenate(placed)
    outside = ((points < -0.5 - ON_CONTOUR) | (points > np.array(grid.shape) - 0.5 + ON_CONTOUR)).any(axis=1)
    warnings = []
    is_lost = not mask.any() and not outside.all()
    if is_lost:
        warnings.append(f"has ROI {segment}, which is so small that it holds no centre of a voxel: it is lost")
    if abs(spacing - grid.spacing[axis]) > 0.05 * grid.spacing[axis]:
        warnings.append(
            f"was drawn on planes {spacing:.4g} mm apart, and those of the PET ({grid}) lie {grid.spacing[axis]:.4g} mm apart: "
            "each takes the nearest contours"
        )
    return Drawing(segment, mask, float(outside.mean()), tuple(warnings), is_lost)


def _axis_of(contours: Sequence[np.ndarray], segment: Segment, grid: Grid) -> int:
    """Return the axis of a grid across which the planes of contours (N, 3), in voxels, lie.

    Raises:
        InputError: when there is none.
    """
    thickness = np.array([np.ptp(contour, axis=0) for contour in contours])
    axis = int((thickness * grid.spacing).sum(axis=0).argmin())
    oblique = np.count_nonzero(thickness[:, axis] > OUT_OF_PLANE)
    if oblique:
        raise InputError(
            f"has {oblique} of {len(contours)} contours of ROI {segment} in planes across those of the PET: export it as a DICOM "
            "segmentation (SEG), or on the slices of the PET or its CT"
        )
    return axis


def filled(polygons: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Fill closed polygons in a plane of voxels.

    What lies inside of an even number of polygons is a hole, as is what a polygon itself goes around an even number of times.
    Centres that lie on a polygon are inside.

    Args:
        polygons: (N, 2), in voxels; the last point is joined to the first.
        shape: (U, V) of the plane.

    Returns:
        bool, (U, V).

    Example:
        >>> filled([np.array([[0.5, 0.5], [2.5, 0.5], [2.5, 2.5], [0.5, 2.5]])], (4, 4)).astype(int).tolist()
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    plane = np.zeros(shape, bool)
    starts = np.concatenate(polygons)
    ends = np.concatenate([np.roll(polygon, -1, axis=0) for polygon in polygons])
    lowest, highest = np.minimum(starts[:, 1], ends[:, 1]), np.maximum(starts[:, 1], ends[:, 1])
    first = max(int(np.ceil(np.clip(lowest.min() - ON_CONTOUR, 0, shape[1]))), 0)
    last = min(int(np.floor(np.clip(highest.max() + ON_CONTOUR, -1, shape[1]))), shape[1] - 1)
    for v in range(first, last + 1):
        near = (lowest <= v + ON_CONTOUR) & (highest >= v - ON_CONTOUR)
        plane[:, v] = _filled_line(starts[near], ends[near], v, shape[0])
    return plane


def _filled_line(starts: np.ndarray, ends: np.ndarray, v: int, length: int) -> np.ndarray:
    """Return which voxels of the line `v` of a plane lie inside of the polygons with these edges (N, 2), or on them."""
    rise = ends[:, 1] - starts[:, 1]
    is_level = np.abs(rise) <= 2 * ON_CONTOUR
    # Where along an edge the line crosses it; one that is level is met over its whole length.
    share = np.clip(np.where(is_level, 0, (v - starts[:, 1]) / np.where(is_level, 1, rise)), 0, 1)
    place = starts[:, 0] + share * (ends[:, 0] - starts[:, 0])
    crosses = (starts[:, 1] <= v) != (ends[:, 1] <= v)
    entered = np.clip(np.ceil(place[crosses]), 0, length).astype(int)
    inside = np.bincount(entered, minlength=length + 1).cumsum() % 2 == 1
    low = np.where(is_level, np.minimum(starts[:, 0], ends[:, 0]), place) - ON_CONTOUR
    high = np.where(is_level, np.maximum(starts[:, 0], ends[:, 0]), place) + ON_CONTOUR
    begin = np.clip(np.ceil(low), 0, length).astype(int)
    stop = np.clip(np.floor(high) + 1, begin, length).astype(int)
    touched = (np.bincount(begin, minlength=length + 1) - np.bincount(stop, minlength=length + 1)).cumsum() > 0
    return (inside | touched)[:length]
