"""Clicks: the points that a reader has set in a PET, on tumours and on what is none, as interactive challenges hand them out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petct_training.errors import InputError
from petct_training.files import read_json

Point = tuple[int, int, int]

NOT_CLICKS = "is not a file of clicks: give JSON with a list of points, each with a point [x, y, z] and a name"

# The words of the format, which is Grand Challenge's "Multiple points".
TUMOR, BACKGROUND = "tumor", "background"


@dataclass(frozen=True)
class Clicks:
    """Points in a PET, as voxel indices (x, y, z), in the order in which they were set.

    Attributes:
        tumor: in lesions.
        background: in what is no lesion.
    """

    tumor: list[Point]
    background: list[Point]

    def __str__(self) -> str:
        return f"{len(self.tumor)} points in tumours and {len(self.background)} in the background"


def read_clicks(file: Path, shape: Sequence[int]) -> Clicks:
    """Read the clicks of a study.

    Args:
        file: {"points": [{"point": [x, y, z], "name": "tumor" or "background"}, ...]}, as Grand Challenge's type "Multiple points".
        shape: of the PET (X, Y, Z).

    Raises:
        InputError: when it is none, or a point lies outside of the PET; the message is the end of a sentence that begins with the
            file's name.
    """
    try:
        content = read_json(file)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}): check its permissions and the disk") from error
    except (ValueError, RecursionError) as error:
        raise InputError(NOT_CLICKS) from error
    entries = content.get("points") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise InputError(NOT_CLICKS)
    clicks = Clicks([], [])
    points = {TUMOR: clicks.tumor, BACKGROUND: clicks.background}
    for number, entry in enumerate(entries, 1):
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or name not in points:
            raise InputError(f"has no {TUMOR} or {BACKGROUND} as the name of point {number}: give each point one of the two")
        points[name].append(_point_of(entry.get("point"), number, shape))
    return clicks


def _point_of(value: Any, number: int, shape: Sequence[int]) -> Point:
    """Return the voxel of a point, which may be given in fractions of a voxel.

    Raises:
        InputError: as `read_clicks`.
    """
    if not isinstance(value, list) or len(value) != 3 or not all(_is_number(entry) for entry in value):
        raise InputError(f"has no three numbers as point {number}: give voxel indices [x, y, z] of the PET")
    x, y, z = (round(entry) for entry in value)
    if not all(0 <= index < length for index, length in zip((x, y, z), shape, strict=True)):
        raise InputError(
            f"has point {number} outside of the PET, which has {' x '.join(map(str, shape))} voxels: give voxel indices"
        )
    return x, y, z


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
