"""Clicks: the points that a person has set in a PET, on lesions and on what is none, and the files in which they come."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import apply_affine

from petct_cascade.dicom.geometry import LPS_TO_RAS
from petct_training.errors import InputError, is_number

Point = tuple[int, int, int]

NOT_POINTS = (
    'is not a file of points: give JSON with "foreground" and "background", lists of [x, y, z], or with "points", a list in which '
    "each has a point [x, y, z] and a name"
)

# The words of Grand Challenge's "Multiple points".
TUMOR, BACKGROUND = "tumor", "background"

# What a file in the plain format may say.
LISTS = ("foreground", "background")
UNITS, SPACES = ("voxel", "mm"), ("RAS", "LPS")
NAMES = (*LISTS, "unit", "space")

# Six rounds of scribbles have some thousands. Whoever marks more draws a mask.
MOST_POINTS = 10_000

# Voxels from the first one within which a point lies, even by mistake.
FARTHEST = 1e9


@dataclass(frozen=True)
class Clicks:
    """Points in a PET, as voxel indices (x, y, z), in the order in which they were set.

    Attributes:
        foreground: in lesions.
        background: in what is no lesion.
    """

    foreground: list[Point]
    background: list[Point]

    def __str__(self) -> str:
        return f"{len(self.foreground)} points in lesions and {len(self.background)} in the background"


@dataclass(frozen=True)
class PointsFile(os.PathLike):
    """A file of points, whose content a record keeps; see `petct_training.records.SeveralFiles`."""

    file: Path

    # Nothing but the file says what the points are.
    given = ""

    def __fspath__(self) -> str:
        return os.fspath(self.file)

    @property
    def name(self) -> str:
        """What it is called in a sentence."""
        return self.file.name

    @property
    def files(self) -> tuple[Path]:
        """The file itself."""
        return (self.file,)

    @property
    def has_points(self) -> bool:
        """Whether it holds any point; true where it cannot be told, so that whoever reads it says why."""
        try:
            content = _content_of(self.file)
            lists, _ = _lists_of(content), _frame_of(content)
        except InputError:
            return True
        return any(lists.values())

    def describe(self, identifying: bool = True) -> dict[str, Any]:
        """Return the points as the file gives them."""
        try:
            content = _content_of(self.file)
            return {name: [point for _, point in points] for name, points in _lists_of(content).items()} | _frame_of(content)
        except InputError:
            # What is wrong with it is said when it is read.
            return {}


def read_points(file: Path, shape: Sequence[int], affine: np.ndarray | None = None) -> Clicks:
    """Read the points of a study, as `clicks_of` takes them, from a JSON file.

    Raises:
        InputError: as `clicks_of`, and when it cannot be read; the message is the end of a sentence that begins with the file's
            name.
    """
    return clicks_of(_content_of(file), shape, affine)


def clicks_of(content: Any, shape: Sequence[int], affine: np.ndarray | None = None) -> Clicks:
    """Return the voxels of points.

    A point between voxels belongs to the nearest one, halfway to the one with the higher index.

    Args:
        content: {"foreground": [[x, y, z], ...], "background": [...], "unit": "voxel" or "mm", "space": "RAS" or "LPS"}, as a JSON
            file gives it: in voxels by default; in mm of the world, RAS as in NIfTI or LPS as in DICOM and ITK. Or Grand
            Challenge's "Multiple points", in voxels: {"points": [{"point": [x, y, z], "name": "tumor" or "background"}, ...]}.
            Arrays, tensors and their numbers may stand in the place of lists and numbers, such as what `np.argwhere` returns.
        shape: of the PET (X, Y, Z).
        affine: (4, 4), of the PET; None where it is not known, and points in mm are refused.

    Raises:
        InputError: when it is none of these, a point lies outside of the PET or is no three numbers, a voxel is both foreground and
            background, or there are more than `MOST_POINTS`; the message is the end of a sentence that begins with the file's
            name.
    """
    lists, frame = _lists_of(_as_in_a_file(content)), _frame_of(content)
    count = sum(map(len, lists.values()))
    if count > MOST_POINTS:
        raise InputError(f"has {count} points, more than {MOST_POINTS}: draw a mask, and give it with --coarse_mask")
    if frame["unit"] == "mm" and affine is None:
        raise InputError("has points in mm, which are not known here: give voxel indices of the PET")
    to_voxels = np.eye(4)
    if frame["unit"] == "mm":
        signs = LPS_TO_RAS if frame["space"] == "LPS" else np.ones(3)
        to_voxels = np.linalg.inv(np.asarray(affine, dtype=float)) @ np.diag([*signs, 1.0])
    foreground, background = (_voxels_of(lists[kind], to_voxels, shape) for kind in LISTS)
    for voxel in foreground.keys() & background.keys():
        raise InputError(
            f"has voxel {list(voxel)} in the foreground ({foreground[voxel]}) and in the background ({background[voxel]}): "
            "leave one of the two out"
        )
    return Clicks(list(foreground), list(background))


def _content_of(file: Path) -> Any:
    """Return what a JSON file holds."""
    if file.is_dir():
        raise InputError(f"is a folder in {file.parent}, and no file: name the file of points itself")
    try:
        # Windows' editors put a mark before the text.
        return json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_repetition)
    except FileNotFoundError as error:
        raise InputError(f"does not exist in {file.parent}: put it there, or leave it out") from error
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}): check its permissions and the disk") from error
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(NOT_POINTS) from error


def _without_repetition(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON, of whose repeated entries one would count, and nobody would know."""
    entry = dict(pairs)
    if len(entry) < len(pairs):
        repeated = next(name for number, (name, _) in enumerate(pairs) if name in dict(pairs[:number]))
        raise InputError(f"has an entry {repeated!r} twice: join them into one")
    return entry


def _as_in_a_file(content: Any, depth: int = 4) -> Any:
    """Return points with the lists and numbers of Python, as a JSON file gives them, in place of arrays, tensors and numbers of
    NumPy and PyTorch, down to the numbers of a point.
    """
    if hasattr(content, "tolist"):
        return content.tolist()
    if depth and isinstance(content, Mapping):
        return {name: _as_in_a_file(entry, depth - 1) for name, entry in content.items()}
    if depth and isinstance(content, (list, tuple)):
        return [_as_in_a_file(entry, depth - 1) for entry in content]
    return content


def _lists_of(content: Any) -> dict[str, list[tuple[str, Any]]]:
    """Return the points of both formats, each with what it is called in a sentence, unchecked, under "foreground" and
    "background".
    """
    if not isinstance(content, Mapping):
        raise InputError(NOT_POINTS)
    if "points" in content:
        if both := [name for name in LISTS if name in content]:
            raise InputError(f"has points and {both[0]} beside each other: give all in one of the two formats")
        return _lists_of_challenge(content["points"])
    if unknown := [name for name in content if name not in NAMES]:
        raise InputError(f"has an entry {unknown[0]!r}: give {', '.join(NAMES)}")
    lists = {name: content.get(name, []) for name in LISTS}
    if not any(name in content for name in LISTS) or not all(isinstance(points, (list, tuple)) for points in lists.values()):
        raise InputError(NOT_POINTS)
    return {name: [(f"{name} point {number}", point) for number, point in enumerate(points, 1)] for name, points in lists.items()}


def _lists_of_challenge(entries: Any) -> dict[str, list[tuple[str, Any]]]:
    """Return the points of Grand Challenge's format, as `_lists_of` does."""
    if not isinstance(entries, list):
        raise InputError(NOT_POINTS)
    lists: dict[str, list[tuple[str, Any]]] = {name: [] for name in LISTS}
    of_name = {TUMOR: lists["foreground"], BACKGROUND: lists["background"]}
    for number, entry in enumerate(entries, 1):
        name = entry.get("name") if isinstance(entry, Mapping) else None
        if not isinstance(name, str) or name not in of_name:
            raise InputError(f"has no {TUMOR} or {BACKGROUND} as the name of point {number}: give each point one of the two")
        of_name[name].append((f"point {number}", entry.get("point")))
    return lists


def _frame_of(content: Mapping[str, Any]) -> dict[str, str]:
    """Return "unit" and, in mm, "space" of points."""
    unit, space = content.get("unit", UNITS[0]), content.get("space")
    if unit not in UNITS:
        raise InputError(f"has the unit {unit!r}: give {' or '.join(UNITS)}")
    if unit == "voxel":
        if space is not None:
            raise InputError(f'has {space!r} as the space of voxels: give "unit": "mm" for points in mm, or leave the space out')
        return {"unit": unit}
    if space not in SPACES:
        raise InputError(f"has points in mm and {space!r} as their space: give RAS (as in NIfTI) or LPS (as in DICOM and ITK)")
    return {"unit": unit, "space": space}


def _voxels_of(points: Sequence[tuple[str, Any]], to_voxels: np.ndarray, shape: Sequence[int]) -> dict[Point, str]:
    """Return the voxel of each point, once, with what its first point is called in a sentence; the arguments are those of
    `_voxel_of`.
    """
    voxels: dict[Point, str] = {}
    for name, point in points:
        voxels.setdefault(_voxel_of(point, name, to_voxels, shape), name)
    return voxels


def _voxel_of(value: Any, name: str, to_voxels: np.ndarray, shape: Sequence[int]) -> Point:
    """Return the voxel of a point.

    Args:
        value: of the point.
        name: of the point in a sentence.
        to_voxels: (4, 4), from the point's numbers to voxel indices.
        shape: of the PET.

    Raises:
        InputError: as `clicks_of`.
    """
    if not isinstance(value, (list, tuple)) or len(value) != 3 or not all(is_number(entry) for entry in value):
        raise InputError(f"has no three numbers as {name}: give [x, y, z]")
    indices = apply_affine(to_voxels, np.asarray(value, dtype=float))
    if not (np.abs(indices) < FARTHEST).all():
        raise InputError(f"has {name} so far away that no voxel can be there: give points of this study")
    # What lies halfway but for rounding, such as that of an affine, lies halfway.
    x, y, z = (math.floor(round(float(index), 6) + 0.5) for index in indices)
    if not all(0 <= index < length for index, length in zip((x, y, z), shape, strict=True)):
        raise InputError(
            f"has {name} at voxel {[x, y, z]}, outside of the PET, which has {' x '.join(map(str, shape))} voxels: "
            "give points of this study"
        )
    return x, y, z
