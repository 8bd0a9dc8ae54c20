"""Volumes with fewer voxels, for pages that have to stay small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np


def reduced(array: np.ndarray, factors: Sequence[int], by: Literal["mean", "max"]) -> np.ndarray:
    """Return a volume whose voxels each stand for a block of another's.

    Args:
        array: (X, Y, Z).
        factors: voxels in a block along each axis. The last block of an axis may reach beyond the array; there the outermost
            voxels are repeated.
        by: "mean", in float32; or "max", in the array's type.

    Returns:
        (ceil(X / factor), ...), contiguous.
    """
    missing = [-length % factor for length, factor in zip(array.shape, factors, strict=True)]
    result = np.pad(array, [(0, more) for more in missing], mode="edge") if any(missing) else array
    if by == "mean":
        result = result.astype(np.float32, copy=False)
    for axis, factor in enumerate(factors):
        if factor > 1:
            parts = [result[(slice(None),) * axis + (slice(start, None, factor),)] for start in range(factor)]
            result = parts[0].copy()
            for part in parts[1:]:
                if by == "mean":
                    result += part
                else:
                    np.maximum(result, part, out=result)
            if by == "mean":
                result /= factor
    return np.ascontiguousarray(result)


def reduced_affine(affine: np.ndarray, factors: Sequence[float]) -> np.ndarray:
    """Return the affine (4, 4) of a volume whose voxels are `factors` times as long along each axis, with the same outer corner.

    Example:
        >>> reduced_affine(np.diag([2.0, 2.0, 3.0, 1.0]), [2, 0.5, 1])
        array([[ 4. ,  0. ,  0. ,  1. ],
               [ 0. ,  1. ,  0. , -0.5],
               [ 0. ,  0. ,  3. ,  0. ],
               [ 0. ,  0. ,  0. ,  1. ]])
    """
    to_voxels = np.diag([*map(float, factors), 1.0])
    to_voxels[:3, 3] = (np.asarray(factors) - 1) / 2
    return np.asarray(affine, dtype=float) @ to_voxels
