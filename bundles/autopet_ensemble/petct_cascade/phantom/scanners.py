"""The challenge's scanners, and the grids of voxels of their studies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

TOP = 12.0  # z (mm) of the uppermost slice: just above the vertex
LENGTH = 978.0  # mm from the first slice to the last: 326 slices of 3 mm, the median of the FDG studies


class Scanner(NamedTuple):
    """A scanner of the challenge.

    Attributes:
        tracer: "fdg" or "psma".
        matrix: number of voxels along x and along y.
        spacing: voxel size (mm) along x, y, z.
        studies: number of the challenge's studies made with it.
        resolution: full width at half maximum (mm) of a point in the reconstructed image, post-filter included. The challenge
            does not publish it; 5 to 7 mm is usual for these models (EANM guideline for FDG, version 2.0, EJNMMI 2015;42:328).
    """

    tracer: str
    matrix: int
    spacing: tuple[float, float, float]
    studies: int
    resolution: float


CHALLENGE = {
    "FDG Siemens mCT": Scanner("fdg", 400, (2.036, 2.036, 3.0), 1014, 5.5),
    "PSMA Siemens mCT Flow": Scanner("psma", 200, (4.073, 4.073, 2.0), 251, 6.0),
    "PSMA GE Discovery 690": Scanner("psma", 256, (2.734, 2.734, 3.27), 230, 6.0),
    "PSMA Siemens Biograph 64": Scanner("psma", 168, (4.073, 4.073, 5.0), 116, 7.0),
}

# Scanners that the challenge's training data do not have, one study each in turn: older and coarser, digital and finer. Matrices
# and voxels are usual settings; resolutions as above, 4 mm for digital detectors with a post-filter.
OTHER = {
    "FDG Philips Gemini TF 64": Scanner("fdg", 144, (4.0, 4.0, 4.0), 1, 7.5),
    "PSMA Philips Vereos": Scanner("psma", 288, (2.0, 2.0, 2.0), 1, 4.5),
    "FDG GE Discovery MI": Scanner("fdg", 256, (2.734, 2.734, 2.79), 1, 4.5),
    "PSMA Siemens Biograph Vision": Scanner("psma", 440, (1.65, 1.65, 3.0), 1, 4.0),
}
SCANNERS = {"challenge": CHALLENGE, "other": OTHER}


@dataclass(frozen=True)
class Grid:
    """The voxels of a study, stored LAS.

    Attributes:
        shape: number of voxels along x, y, z.
        spacing: voxel size (mm) along x, y, z.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]

    @property
    def low(self) -> np.ndarray:
        """The smallest world coordinates (mm) of the voxel centres, (3,)."""
        (nx, ny, nz), (sx, sy, sz) = self.shape, self.spacing
        return np.array([-(nx - 1) / 2 * sx, -(ny - 1) / 2 * sy, TOP - (nz - 1) * sz])

    @property
    def high(self) -> np.ndarray:
        """The largest world coordinates (mm) of the voxel centres, (3,)."""
        return self.low + (np.array(self.shape) - 1) * self.spacing

    @property
    def affine(self) -> np.ndarray:
        """The (4, 4) matrix from voxel indices to world coordinates (mm)."""
        affine = np.diag([-self.spacing[0], self.spacing[1], self.spacing[2], 1.0])
        affine[:3, 3] = self.high[0], self.low[1], self.low[2]
        return affine


def make_grid(scanner: Scanner, shrink: float) -> Grid:
    """Return a scanner's grid with voxels `shrink` times larger along each axis, over the same field of view."""
    across = max(1, round(scanner.matrix / shrink))
    slices = max(1, round(LENGTH / scanner.spacing[2] / shrink))
    x, y, z = scanner.spacing
    return Grid((across, across, slices), (shrink * x, shrink * y, shrink * z))
