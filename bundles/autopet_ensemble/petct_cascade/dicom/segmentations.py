"""DICOM SEG: each frame is put onto a grid by its own position, whatever the order and number of the frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine
from pydicom import Dataset
from pydicom.pixels import iter_pixels

from petct_cascade.dicom.choice import reason_against, volume_named
from petct_cascade.dicom.geometry import LPS_TO_RAS
from petct_cascade.dicom.label_files import (
    COPY_AGAIN,
    FARTHEST_MM,
    Drawing,
    Segment,
    items,
    malformed_is_refused,
    numbers,
    read_label_dataset,
    required_items,
    required_numbers,
    whole_number,
)
from petct_cascade.dicom.planes import ONE_SPACING, Grid, common_spacing, grid_words, merged, nearest_plane
from petct_cascade.dicom.values import text_of
from petct_training.components import labelled_components
from petct_training.errors import InputError
from petct_training.grids import PLACE_TOLERANCE_MM

# Segmentation Storage, and Label Map Segmentation Storage (PS3.4, B.5).
LABELMAP_CLASS = "1.2.840.10008.5.1.4.1.1.66.7"
SOP_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", LABELMAP_CLASS)

# Memory is not asked for on the word of a damaged header. Slices of PET/CT have up to 2048 x 2048 voxels; a CT of 512 x 512 voxels
# would have 8192 slices.
MOST_PIXELS, MOST_VOXELS = 4096 * 4096, 2**31

# Frames that lie at most this far (share of the distance of the grid's slices) beside a slice of the grid belong to it: headers
# round positions, and scanners do not space all slices alike.
BESIDE_SLICE = 0.25

# Direction cosines are rounded in headers.
COSINE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Frame:
    """Where a frame lies, in RAS (mm).

    Attributes:
        index: in the file.
        segment: number of its segment; None in a label map, where the voxels tell.
        origin: (3,) centre of its first voxel.
        along_row: (3,) step from one column to the next.
        along_column: (3,) step from one row to the next.
        spacing: distance of neighbouring frames as the header states it.
        thickness: of the slice as the header states it.
    """

    index: int
    segment: int | None
    origin: np.ndarray
    along_row: np.ndarray
    along_column: np.ndarray
    spacing: float | None
    thickness: float | None

    @property
    def normal(self) -> np.ndarray:
        """(3,) unit vector across the frame."""
        cross = np.cross(self.along_row, self.along_column)
        return cross / np.linalg.norm(cross)

    def is_parallel_to(self, other: Frame) -> bool:
        """Return whether both have the same rows and columns, and may lie in one stack."""
        steps, others = np.stack((self.along_row, self.along_column)), np.stack((other.along_row, other.along_column))
        return bool(np.abs(steps - others).max() <= COSINE_TOLERANCE * np.linalg.norm(steps, axis=1).min())


@dataclass(frozen=True)
class Segmentation:
    """A SEG that was read, but for its pixels.

    Attributes:
        file: where it lies.
        series: UID of its series.
        segments: all that it names.
        frames: in the file's order.
        dataset: with the pixels, still encoded.
        threshold: stored values from this on lie inside of a segment; None in a label map.
    """

    file: Path
    series: str
    segments: tuple[Segment, ...]
    frames: tuple[Frame, ...]
    dataset: Dataset
    threshold: float | None
    noun: str = "segment"
    warnings: tuple[str, ...] = ()

    def draw(self, segments: Sequence[Segment], grid: Grid) -> Iterator[Drawing]:
        """Yield each of some of its segments on a grid.

        Raises:
            InputError: when its pixels cannot be decoded; the message is the end of a sentence that begins with the file's name.
        """
        parts = self._voxels([segment.number for segment in segments])
        for segment in segments:
            yield self._drawn(segment, parts[segment.number], grid)

    def _voxels(self, wanted: Sequence[int]) -> dict[int, list[tuple[Frame, np.ndarray]]]:
        """Return for each wanted segment the frames that show it, with the flat indices (row by row) of its voxels there."""
        parts: dict[int, list[tuple[Frame, np.ndarray]]] = {number: [] for number in wanted}
        frames = [frame for frame in self.frames if frame.segment is None or frame.segment in parts]
        with malformed_is_refused():
            for frame, pixels in zip(frames, _decoded(self.dataset, [frame.index for frame in frames]), strict=True):
                shown = np.intersect1d(wanted, pixels).tolist() if frame.segment is None else [frame.segment]
                for number in shown:
                    inside = pixels == number if self.threshold is None else pixels >= self.threshold
                    indices = np.flatnonzero(inside)
                    if indices.size:
                        parts[number].append((frame, indices.astype(np.int32)))
        return parts

    def _drawn(self, segment: Segment, parts: list[tuple[Frame, np.ndarray]], grid: Grid) -> Drawing:
        mask = np.zeros(grid.shape, bool)
        columns = int(self.dataset.Columns)
        size = (columns, int(self.dataset.Rows))
        outside, number, lost = 0, 0, 0
        warnings = []
        for frames in _stacks_of(parts):
            stack = _stack_of(frames, size, grid)
            outside += stack.voxels_outside(grid)
            if not stack.is_on_grid:
                warnings.append(
                    f"lies on another grid (slices of {grid_words(size, stack.pixel)}) than the PET ({grid}): each of its voxels "
                    "takes the nearest one"
                )
            taken = stack.draw_into(mask, grid)
            if not stack.is_on_grid:
                labels, lesions = stack.lesions()
                number += lesions
                lost += lesions - int(np.count_nonzero(np.unique(labels[taken])))
        count = sum(indices.size for _, indices in parts)
        is_lost = count > outside and not mask.any()
        if is_lost:
            warnings.append(f"has segment {segment}, which is so small that it is nearest to no voxel of the PET: it is lost")
        elif lost:
            what = f"{lost} of {number} lesions of segment {segment}"
            warnings.append(f"loses {what}, which lie outside of the PET or are nearest to no voxel of it")
        return Drawing(segment, mask, outside / max(count, 1), tuple(warnings), is_lost)


@dataclass(frozen=True)
class _Stack:
    """Parallel frames of one segment.

    Attributes:
        offsets: (N,) where its planes lie along the normal (mm), ascending.
        origins: (N, 3) centre of the first voxel of each plane (RAS, mm), of which `corner` says how far `voxels` lies beside it.
        along_row: (3,) step from one column to the next.
        along_column: (3,) step from one row to the next.
        normal: (3,) unit vector.
        corner: column and row of the first voxel of `voxels`.
        voxels: (N, rows, columns), bool, cropped to the segment.
        spacing: usual distance of neighbouring planes (mm).
        is_on_grid: whether its voxels are voxels of the grid.
    """

    offsets: np.ndarray
    origins: np.ndarray
    along_row: np.ndarray
    along_column: np.ndarray
    normal: np.ndarray
    corner: tuple[int, int]
    voxels: np.ndarray
    spacing: float
    is_on_grid: bool

    @property
    def pixel(self) -> np.ndarray:
        """Distance (mm) of neighbours along a row and along a column."""
        return np.linalg.norm((self.along_row, self.along_column), axis=1)

    def places(self, plane: int, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return where voxels of `voxels` lie: (n, 3), RAS in mm."""
        columns, rows = columns + self.corner[0], rows + self.corner[1]
        return self.origins[plane] + columns[:, None] * self.along_row + rows[:, None] * self.along_column

    def voxels_outside(self, grid: Grid) -> int:
        """Return how many of the segment's voxels lie outside of a grid's outer faces."""
        to_grid, shape, count = np.linalg.inv(grid.affine), np.array(grid.shape), 0
        for plane, voxels in enumerate(self.voxels):
            rows, columns = np.nonzero(voxels)
            at = np.round(apply_affine(to_grid, self.places(plane, columns, rows)), 6)
            count += int(((at < -0.5) | (at > shape - 0.5)).any(axis=1).sum())
        return count

    def lesions(self) -> tuple[np.ndarray, int]:
        """Return the number of the lesion in which each voxel lies (N, rows, columns), 0 outside of them, and how many there are.

        Planes with a gap between them are no neighbours.
        """
        gaps = np.flatnonzero(np.diff(self.offsets) >= ONE_SPACING * self.spacing) + 1
        runs, number = [], 0
        for voxels in np.split(self.voxels, gaps):
            labels, lesions = labelled_components(voxels)
            runs.append(np.where(voxels, labels.astype(np.int64) + number, 0))
            number += lesions
        return np.concatenate(runs), number

    def draw_into(self, mask: np.ndarray, grid: Grid) -> np.ndarray:
        """Set those voxels of a mask (X, Y, Z) on a grid whose nearest voxel in this stack lies in the segment.

        Returns:
            bool, (N, rows, columns): the voxels of the segment that are nearest to one of the grid's.
        """
        taken = np.zeros_like(self.voxels)
        first, stop = self._box(grid)
        if (first >= stop).any():
            return taken
        x, y = np.ogrid[first[0] : stop[0], first[1] : stop[1]]
        # Along the normal in mm, along rows in columns, along columns in rows.
        along = np.stack([step / (step @ step) for step in (self.normal, self.along_row, self.along_column)])
        steps, start, origins = along @ grid.affine[:3, :3], along @ grid.affine[:3, 3], along @ self.origins.T
        for z in range(first[2], stop[2]):
            places = [step[0] * x + step[1] * y + (step[2] * z + begin) for step, begin in zip(steps, start, strict=True)]
            plane = nearest_plane(self.offsets, places[0], self.spacing)
            column, row = (
                np.floor(np.round(place - origin[plane], 6) + 0.5).astype(int)
                for place, origin in zip(places[1:], origins[1:], strict=True)
            )
            mask[first[0] : stop[0], first[1] : stop[1], z] |= self._at(
                plane, column - self.corner[0], row - self.corner[1], taken
            )
        return taken & self.voxels

    def _at(self, plane: np.ndarray, column: np.ndarray, row: np.ndarray, taken: np.ndarray) -> np.ndarray:
        """Return whether voxels lie in the segment, also for indices that `voxels` does not have; note the others as taken."""
        _, rows, columns = self.voxels.shape
        known = (plane >= 0) & (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
        found = np.zeros(plane.shape, bool)
        index = plane[known], row[known], column[known]
        found[known] = self.voxels[index]
        taken[index] = True
        return found

    def _box(self, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Return the first voxel (3,) and the one behind the last of the part of a grid in which the segment may lie."""
        _, rows, columns = self.voxels.shape
        corner_columns, corner_rows = np.array([-1, columns, -1, columns]), np.array([-1, -1, rows, rows])
        corners = np.concatenate([self.places(plane, corner_columns, corner_rows) for plane in range(len(self.offsets))])
        across = self.spacing * self.normal
        at = apply_affine(np.linalg.inv(grid.affine), np.concatenate((corners - across, corners + across)))
        shape = np.array(grid.shape)
        return np.clip(np.floor(at.min(axis=0)), 0, shape).astype(int), np.clip(np.ceil(at.max(axis=0)) + 1, 0, shape).astype(int)


def read_segmentation(file: Path) -> Segmentation:
    """Read a SEG.

    Raises:
        InputError: when it is none, is damaged, or does not say what its frames show and where; the message is the end of a
            sentence that begins with the file's name.
    """
    dataset = read_label_dataset(file, SOP_CLASSES, "DICOM segmentation (SEG)")
    with malformed_is_refused():
        is_labelmap = text_of(dataset, "SOPClassUID") == LABELMAP_CLASS or text_of(dataset, "SegmentationType") == "LABELMAP"
        segments = _segments_of(dataset)
        frames = _frames_of(dataset, None if is_labelmap else [segment.number for segment in segments])
        _check_pixels(dataset, len(frames))
        threshold = None if is_labelmap else _threshold_of(dataset)
        return Segmentation(file, text_of(dataset, "SeriesInstanceUID"), segments, frames, dataset, threshold)


def _segments_of(dataset: Dataset) -> tuple[Segment, ...]:
    """Return the segments of a SEG; the background that a label map may name is none."""
    space = text_of(dataset, "FrameOfReferenceUID")
    found = []
    for item in required_items(dataset, "SegmentSequence"):
        number = whole_number(item, "SegmentNumber")
        label = text_of(item, "SegmentLabel") or text_of(item, "SegmentDescription")
        category, _ = _code_of(item, "SegmentedPropertyCategoryCodeSequence")
        kind, words = _code_of(item, "SegmentedPropertyTypeCodeSequence")
        if number > 0:
            found.append(Segment(number, label, reason_against(label, category, kind, words), space, volume_named(label)))
    if len({segment.number for segment in found}) < len(found):
        raise InputError("gives several segments one number: export it again")
    return tuple(found)


def _code_of(item: Dataset, keyword: str) -> tuple[str, str]:
    """Return value and meaning of a code; empty texts when there is none."""
    code = (items(item, keyword) or [Dataset()])[0]
    return text_of(code, "CodeValue"), text_of(code, "CodeMeaning")


def _frames_of(dataset: Dataset, segments: Sequence[int] | None) -> tuple[Frame, ...]:
    """Return the frames of a SEG; `segments` are the numbers of its segments, None for a label map."""
    groups = required_items(dataset, "PerFrameFunctionalGroupsSequence")
    count = dataset.get("NumberOfFrames") or 1
    if int(count) != len(groups):
        raise InputError(f"says that it has {count} frames and describes {len(groups)}: {COPY_AGAIN}")
    shared = (items(dataset, "SharedFunctionalGroupsSequence") or [Dataset()])[0]
    return tuple(_frame_of(index, own, shared, segments) for index, own in enumerate(groups))


def _frame_of(index: int, own: Dataset, shared: Dataset, segments: Sequence[int] | None) -> Frame:
    position = required_numbers(_group(own, shared, "PlanePositionSequence"), "ImagePositionPatient", 3)
    axes = required_numbers(_group(own, shared, "PlaneOrientationSequence"), "ImageOrientationPatient", 6).reshape(2, 3)
    measures = _group(own, shared, "PixelMeasuresSequence")
    between_rows, between_columns = required_numbers(measures, "PixelSpacing", 2)
    if np.abs(position).max() > FARTHEST_MM or np.abs(axes @ axes.T - np.eye(2)).max() > 0.01:
        raise InputError(f"gives frame {index + 1} a place or an orientation that makes no sense: export it again")
    if min(between_rows, between_columns) < 0.01 or max(between_rows, between_columns) > 1000:
        raise InputError(f"gives frame {index + 1} voxels of {between_columns:g} x {between_rows:g} mm: export it again")
    return Frame(
        index,
        None if segments is None else _segment_of(index, own, shared, segments),
        LPS_TO_RAS * position,
        LPS_TO_RAS * axes[0] * between_columns,
        LPS_TO_RAS * axes[1] * between_rows,
        _length(measures, "SpacingBetweenSlices"),
        _length(measures, "SliceThickness"),
    )


def _group(own: Dataset, shared: Dataset, keyword: str) -> Dataset:
    """Return what a functional group says of a frame, or else of all frames; nothing when there is no such group."""
    return (items(own, keyword) or items(shared, keyword) or [Dataset()])[0]


def _segment_of(index: int, own: Dataset, shared: Dataset, segments: Sequence[int]) -> int:
    """Return the number of a frame's segment; older files with a single one do not say it."""
    group = _group(own, shared, "SegmentIdentificationSequence")
    if "ReferencedSegmentNumber" not in group and len(segments) == 1:
        return segments[0]
    number = whole_number(group, "ReferencedSegmentNumber")
    if number not in segments:
        raise InputError(f"says that frame {index + 1} shows segment {number}, which it does not describe: export it again")
    return number


def _length(dataset: Dataset, keyword: str) -> float | None:
    """Return a length (mm); None when it is absent or zero. Some writers give a sign to the spacing."""
    value = numbers(dataset, keyword, 1)
    return None if value is None or value[0] == 0 else abs(float(value[0]))


def _check_pixels(dataset: Dataset, frames: int) -> None:
    """Check that the pixels are as many as the header says.

    Raises:
        InputError: when they are not.
    """
    rows, columns, bits = (whole_number(dataset, keyword) for keyword in ("Rows", "Columns", "BitsAllocated"))
    if min(rows, columns) < 1 or rows * columns > MOST_PIXELS:
        raise InputError(f"says that its frames have {columns} x {rows} voxels, as no PET/CT has: export it again")
    if "PixelData" not in dataset:
        raise InputError("holds no voxels: copy it again from where it comes")
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        needed = -(-frames * rows * columns * bits // 8)
        if len(dataset.PixelData) < needed:
            raise InputError(f"holds {len(dataset.PixelData)} of {needed} bytes of its voxels: {COPY_AGAIN}")


def _decoded(dataset: Dataset, indices: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield the stored values (rows, columns) of some frames."""
    if not indices:
        return
    if dataset.BitsAllocated > 1 or dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        yield from iter_pixels(dataset, indices=indices, raw=True)
        return
    # Frames of single bits follow each other without a gap: they begin within a byte, where pydicom 3.0.2 loses some bits.
    shape = (int(dataset.Rows), int(dataset.Columns))
    size, packed = shape[0] * shape[1], np.frombuffer(dataset.PixelData, np.uint8)
    for index in indices:
        first = index * size
        bits = np.unpackbits(packed[first // 8 : -(-(first + size) // 8)], bitorder="little")
        yield bits[first % 8 : first % 8 + size].reshape(shape)


def _threshold_of(dataset: Dataset) -> float:
    """Return the stored value from which on a voxel lies in a segment: of a fractional one, half of the largest value."""
    kind = text_of(dataset, "SegmentationType")
    if kind == "FRACTIONAL":
        largest = numbers(dataset, "MaximumFractionalValue", 1)
        return 127.5 if largest is None else max(float(largest[0]) / 2, 0.5)
    if kind != "BINARY" and whole_number(dataset, "BitsAllocated") != 1:
        raise InputError(f"is a segmentation of an unknown type ({kind or 'none'}): export it as binary")
    return 1.0


def _stacks_of(parts: list[tuple[Frame, np.ndarray]]) -> list[list[tuple[Frame, np.ndarray]]]:
    """Sort frames into groups of parallel ones."""
    stacks: list[list[tuple[Frame, np.ndarray]]] = []
    for part in parts:
        stack = next((stack for stack in stacks if stack[0][0].is_parallel_to(part[0])), None)
        if stack is None:
            stacks.append([part])
        else:
            stack.append(part)
    return stacks


def _stack_of(parts: list[tuple[Frame, np.ndarray]], size: tuple[int, int], grid: Grid) -> _Stack:
    """Join parallel frames, with the flat indices of the segment's voxels in them.

    Args:
        parts: frames and indices.
        size: columns and rows of each frame.
        grid: onto which the stack will be put.

    Raises:
        InputError: when frames lie beside each other in one plane, or the segment claims more voxels than can be.
    """
    first = parts[0][0]
    origins = np.array([frame.origin for frame, _ in parts])
    offsets, planes = merged(origins @ first.normal, tolerance=PLACE_TOLERANCE_MM / 10)
    of_plane = np.array([origins[planes == plane][0] for plane in range(len(offsets))])
    if np.abs(origins - of_plane[planes]).max() > PLACE_TOLERANCE_MM:
        raise InputError("has frames that lie beside each other in one plane: export it with one frame a slice")
    columns = size[0]
    everything = np.concatenate([indices for _, indices in parts])
    left, right = (int(ends(everything % columns)) for ends in (np.min, np.max))
    top, bottom = (int(ends(everything // columns)) for ends in (np.min, np.max))
    shape = (len(offsets), bottom - top + 1, right - left + 1)
    if np.prod(shape, dtype=float) > MOST_VOXELS:
        raise InputError(f"says that a segment has {' x '.join(map(str, shape))} voxels, as no PET/CT has: export it again")
    voxels = np.zeros(shape, bool)
    for (_, indices), plane in zip(parts, planes, strict=True):
        voxels[plane, indices // columns - top, indices % columns - left] = True
    slice_spacing = _slice_spacing_on_grid(of_plane, first, size, grid)
    return _Stack(
        offsets,
        of_plane,
        first.along_row,
        first.along_column,
        first.normal,
        (left, top),
        voxels,
        slice_spacing or _spacing_of(offsets, first, grid),
        slice_spacing is not None,
    )


def _slice_spacing_on_grid(origins: np.ndarray, frame: Frame, size: tuple[int, int], grid: Grid) -> float | None:
    """Return the distance (mm) of the grid's slices when all frames lie on slices of the grid, voxel on voxel; None otherwise.

    Args:
        origins: (N, 3) centre of each frame's first voxel.
        frame: one of the frames.
        size: columns and rows of each frame.
        grid: with which they are compared.
    """
    to_grid = np.linalg.inv(grid.affine)
    row, column = to_grid[:3, :3] @ frame.along_row, to_grid[:3, :3] @ frame.along_column
    row_axis, column_axis = int(np.abs(row).argmax()), int(np.abs(column).argmax())
    axis = 3 - row_axis - column_axis
    if row_axis == column_axis or not np.allclose(np.abs((row[row_axis], column[column_axis])), 1, atol=COSINE_TOLERANCE * 10):
        return None
    ends = np.array([u * row + v * column for u in (0, size[0] - 1) for v in (0, size[1] - 1)])
    corners = (apply_affine(to_grid, origins)[:, None] + ends).reshape(-1, 3)
    beside = np.abs(corners - np.round(corners))
    allowed = PLACE_TOLERANCE_MM / grid.spacing
    allowed[axis] = BESIDE_SLICE
    slices = np.round(apply_affine(to_grid, origins)[:, axis])
    is_on_grid = (beside <= allowed).all() and len(np.unique(slices)) == len(slices)
    return float(grid.spacing[axis]) if is_on_grid else None


def _spacing_of(offsets: np.ndarray, frame: Frame, grid: Grid) -> float:
    """Return the distance (mm) of neighbouring frames: as it is stated, unless they lie nearer; else as seen; else guessed."""
    seen = common_spacing(offsets)
    if frame.spacing is not None:
        return min(frame.spacing, seen or frame.spacing)
    along = np.abs(np.linalg.inv(grid.affine)[:3, :3] @ frame.normal)
    return seen or frame.thickness or float(1 / np.linalg.norm(along))
