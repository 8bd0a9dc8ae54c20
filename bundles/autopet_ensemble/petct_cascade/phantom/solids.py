"""The solids that a phantom is made of, each with its distance from a point.

`bounds()` is the smallest box of the world's axes that holds a solid: its lower and its upper corner, (3,) and (3,), in mm.
`distance(x, y, z)` is the distance (mm) from the solid's surface of points whose coordinates (mm) broadcast against each other;
it is negative inside, and exact near the surface only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ellipsoid:
    """A superellipsoid.

    Attributes:
        centre: (3,) in mm.
        radii: half-axes, (3,) in mm.
        angle: rotation (degrees) about x, then y, then z.
        power: 2 makes an ellipsoid, 4 nearly a box.
    """

    centre: np.ndarray
    radii: np.ndarray
    angle: tuple[float, float, float] = (0.0, 0.0, 0.0)
    power: float = 2.0

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower and the upper corner (mm) of a box that holds the solid."""
        reach = np.full(3, np.linalg.norm(self.radii)) if any(self.angle) else self.radii
        return self.centre - reach, self.centre + reach

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return the distance (mm) of points from the surface, along the ray from the centre; negative inside."""
        x, y, z = (v - c for v, c in zip((x, y, z), self.centre.tolist(), strict=True))
        if any(self.angle):
            x, y, z = (a * x + b * y + c * z for a, b, c in _rotation(self.angle).T.tolist())
        terms = [np.abs(v / r) ** self.power for v, r in zip((x, y, z), self.radii.tolist(), strict=True)]
        ratio = terms[0] + terms[1] + terms[2]
        return _radial_distance(np.sqrt(x * x + y * y + z * z), ratio ** (1 / self.power), float(self.radii.min()))


@dataclass(frozen=True)
class Tube:
    """A tube along a line.

    Attributes:
        points: the corners of the line, (n, 3) in mm.
        radii: the tube's radius at each of them, (n,) in mm.
    """

    points: np.ndarray
    radii: np.ndarray

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower and the upper corner (mm) of a box that holds the solid."""
        reach = self.radii[:, None]
        return (self.points - reach).min(0), (self.points + reach).max(0)

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return the distance (mm) of points from the surface; negative inside."""
        pieces = []
        knots = np.column_stack([self.points, self.radii])
        for start, step in zip(knots[:-1].tolist(), np.diff(knots, axis=0).tolist(), strict=True):
            dx, dy, dz = x - start[0], y - start[1], z - start[2]
            a, b, c, widening = step
            t = np.clip((dx * a + dy * b + dz * c) / (a * a + b * b + c * c), 0, 1)
            axis_distance = np.sqrt((dx - t * a) ** 2 + (dy - t * b) ** 2 + (dz - t * c) ** 2)
            pieces.append(axis_distance - start[3] - t * widening)
        return np.minimum.reduce(pieces)


@dataclass(frozen=True)
class Outline:
    """The trunk: superelliptical sections on top of each other.

    Attributes:
        sections: columns (z, half-width, half-depth, y of the centre), (n, 4) in mm, z falling.
        power: 2 makes elliptical sections, 4 nearly rectangular ones.
    """

    sections: np.ndarray
    power: float = 2.5

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower and the upper corner (mm) of a box that holds the solid."""
        z, width, depth, y = self.sections.T
        return np.array([-width.max(), (y - depth).min(), z.min()]), np.array([width.max(), (y + depth).max(), z.max()])

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return the distance (mm) of points within their section, above and below the trunk from its end; negative inside."""
        levels = self.sections[::-1]
        width, depth, middle = (np.interp(z, levels[:, 0], levels[:, i]).astype(np.float32) for i in (1, 2, 3))
        y = y - middle
        ratio = (np.abs(x / width) ** self.power + np.abs(y / depth) ** self.power) ** (1 / self.power)
        radial = _radial_distance(np.sqrt(x * x + y * y), ratio, np.minimum(width, depth))
        return np.maximum(radial, np.maximum(z - float(levels[-1, 0]), float(levels[0, 0]) - z))


Solid = Ellipsoid | Tube | Outline


def _radial_distance(length: np.ndarray, ratio: np.ndarray, least: np.ndarray | float) -> np.ndarray:
    """Return the distance from the surface along the ray from the centre.

    Args:
        length: of the ray from the centre to the point, mm.
        ratio: how many times as far as the surface the point is.
        least: the smallest half-axis (mm), the depth of the centre itself.
    """
    return np.where(ratio > 1e-3, length * (1 - 1 / np.maximum(ratio, 1e-3)), -least)


def _rotation(degrees: Sequence[float]) -> np.ndarray:
    """Return the (3, 3) matrix of the rotation about x, then y, then z (degrees)."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix
