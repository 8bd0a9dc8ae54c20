"""The embedded data set: synthetic whole-body PET/CT studies whose lesions are known exactly.

A phantom is a patient of simple solids (ellipsoids, tubes, an outline of elliptical sections) on the scale of the ICRP's
reference man, varied in stature, girth and in the place and size of the organs. Each solid has a CT number and an uptake; PET is
blurred by the scanner's resolution and given noise. Lesions are ellipsoids along the axes of the world, so that their true
volume is a formula. Physiological uptake is as strong as that of lesions: no SUV threshold separates the two.

World coordinates are NIfTI's: x to the patient's right, y to the front, z to the head, in mm; the vertex lies near z = 0.
"""

from __future__ import annotations

import csv
import datetime
import io
import itertools
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from petct_cascade.volumes import write_volume
from petct_training.errors import InputError
from petct_training.files import read_json, remove_unfinished, write_json, write_text

AIR_HU, PADDING_HU = -1000, -1024


class Scanner(NamedTuple):
    """A scanner of the challenge: its tracer, its grid, how many studies it made, and its resolution.

    The resolution is the full width at half maximum (mm) of a point in the reconstructed image, post-filter included. The
    challenge does not publish it; 5 to 7 mm is usual for these models (EANM guideline for FDG, version 2.0, EJNMMI 2015;42:328).
    """

    tracer: str
    matrix: int
    spacing: tuple[float, float, float]
    studies: int
    resolution: float


SCANNERS = {
    "FDG Siemens mCT": Scanner("fdg", 400, (2.036, 2.036, 3.0), 1014, 5.5),
    "PSMA Siemens mCT Flow": Scanner("psma", 200, (4.073, 4.073, 2.0), 251, 6.0),
    "PSMA GE Discovery 690": Scanner("psma", 256, (2.734, 2.734, 3.27), 230, 6.0),
    "PSMA Siemens Biograph 64": Scanner("psma", 168, (4.073, 4.073, 5.0), 116, 7.0),
}


TOP = 12.0  # z (mm) of the uppermost slice: just above the vertex


LENGTH = 978.0  # mm from the first slice to the last: 326 slices of 3 mm, the median of the FDG studies


@dataclass(frozen=True)
class Grid:
    """The voxels of a study: how many and how large (mm) along x, y, z; stored LAS."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]

    @property
    def low(self) -> np.ndarray:
        """The smallest world coordinates (mm) of the voxel centres."""
        (nx, ny, nz), (sx, sy, sz) = self.shape, self.spacing
        return np.array([-(nx - 1) / 2 * sx, -(ny - 1) / 2 * sy, TOP - (nz - 1) * sz])

    @property
    def high(self) -> np.ndarray:
        """The largest world coordinates (mm) of the voxel centres."""
        return self.low + (np.array(self.shape) - 1) * self.spacing

    @property
    def affine(self) -> np.ndarray:
        """4 x 4 matrix from voxel indices to world coordinates (mm)."""
        affine = np.diag([-self.spacing[0], self.spacing[1], self.spacing[2], 1.0])
        affine[:3, 3] = self.high[0], self.low[1], self.low[2]
        return affine


def make_grid(scanner: Scanner, shrink: float) -> Grid:
    """A scanner's grid with voxels `shrink` times larger along each axis, over the same field of view."""
    across = max(1, round(scanner.matrix / shrink))
    slices = max(1, round(LENGTH / scanner.spacing[2] / shrink))
    return Grid((across, across, slices), tuple(shrink * size for size in scanner.spacing))


class Tissue(NamedTuple):
    """Ranges from which a study draws: CT number (HU) with intravenous contrast medium, uptake (SUV) of FDG and of PSMA."""

    hu: tuple[float, float]
    fdg: tuple[float, float]
    psma: tuple[float, float]


# CT numbers: Prokop, Spiral and Multislice Computed Tomography of the Body (2003); Schneider et al., Phys Med Biol 2000;45:459.
# FDG: Wang et al., Mol Imaging Biol 2007;9:83 (SUVmean: cerebellum 8.0 +- 2.2, palatine tonsils 3.5 +- 1.4; all tissues below 2.5
# otherwise); liver 1.9 +- 0.4 (Liu et al., Iran J Radiol 2019;16:e84881). Myocardium, gut and urine vary most between patients.
# PSMA: "Evaluation of practical interpretation hurdles in 68Ga-PSMA PET/CT in 55 patients", Clin Nucl Med 2017;42(7) (SUVmax:
# kidneys 66 +- 25, submandibular 27 +- 7, parotid 24 +- 8, duodenum 18 +- 9, lacrimal 16 +- 7, spleen 11 +- 4, descending colon
# 11 +- 9, tonsils 10 +- 4, liver 8 +- 3); a mean over an organ is about six tenths of its SUVmax.
TISSUES = {
    "table": Tissue((-700, -600), (0.0, 0.0), (0.0, 0.0)),
    "fat": Tissue((-115, -95), (0.2, 0.35), (0.2, 0.35)),
    "muscle": Tissue((50, 70), (0.5, 0.9), (0.4, 0.7)),
    "mediastinum": Tissue((-20, 20), (0.9, 1.4), (0.7, 1.1)),
    "lung": Tissue((-850, -750), (0.35, 0.6), (0.3, 0.5)),
    "airway": Tissue((-990, -960), (0.2, 0.3), (0.2, 0.3)),
    "blood": Tissue((130, 180), (1.2, 2.0), (1.0, 1.8)),
    "cortical bone": Tissue((600, 1000), (0.5, 0.9), (0.3, 0.6)),
    "vertebral shell": Tissue((320, 480), (0.8, 1.5), (0.5, 0.9)),
    "marrow": Tissue((130, 240), (1.0, 2.0), (0.6, 1.1)),
    "fatty marrow": Tissue((-40, 30), (0.4, 0.7), (0.3, 0.5)),
    "spinal cord": Tissue((25, 45), (1.2, 2.0), (0.5, 0.8)),
    "grey matter": Tissue((40, 50), (6.0, 11.0), (0.3, 0.5)),
    "white matter": Tissue((25, 32), (2.5, 4.5), (0.2, 0.4)),
    "myocardium": Tissue((90, 130), (1.5, 11.0), (1.1, 1.8)),
    "liver": Tissue((95, 125), (1.5, 2.6), (3.5, 7.0)),
    "spleen": Tissue((105, 135), (1.2, 2.1), (4.0, 9.0)),
    "kidney": Tissue((140, 190), (2.0, 4.5), (25.0, 50.0)),
    "renal pelvis": Tissue((5, 30), (6.0, 25.0), (15.0, 40.0)),
    "ureter": Tissue((5, 30), (4.0, 14.0), (8.0, 25.0)),
    "bladder": Tissue((2, 20), (6.0, 30.0), (8.0, 45.0)),
    "prostate": Tissue((50, 75), (1.2, 2.2), (2.0, 4.5)),
    "stomach": Tissue((50, 80), (1.8, 4.0), (2.0, 4.5)),
    "duodenum": Tissue((50, 80), (1.2, 2.8), (6.0, 14.0)),
    "small bowel": Tissue((40, 80), (1.0, 2.8), (2.5, 7.0)),
    "colon": Tissue((40, 75), (1.0, 5.0), (1.2, 4.5)),
    "colon content": Tissue((-450, -50), (0.5, 1.5), (0.5, 1.5)),
    "parotid": Tissue((20, 50), (1.4, 2.4), (10.0, 20.0)),
    "submandibular": Tissue((55, 85), (1.6, 3.0), (11.0, 21.0)),
    "lacrimal": Tissue((30, 50), (0.9, 1.6), (6.0, 13.0)),
    "tonsil": Tissue((60, 90), (2.2, 5.5), (4.0, 8.0)),
    "thyroid": Tissue((140, 190), (1.0, 1.8), (0.8, 1.8)),
}


# Parts of the body that take up so much of either tracer that a lesion drawn into one could not be told from it.
HOT_TISSUES = {"grey matter", "myocardium", "spleen", "kidney", "renal pelvis", "bladder", "prostate", "stomach", "duodenum"}


HOT_TISSUES |= {"parotid", "submandibular", "lacrimal", "tonsil"}


def _radial_distance(length: np.ndarray, ratio: np.ndarray, least: np.ndarray | float) -> np.ndarray:
    """Distance along the ray from the centre: `length` to the point, which is `ratio` times as far as the surface."""
    return np.where(ratio > 1e-3, length * (1 - 1 / np.maximum(ratio, 1e-3)), -least)


@dataclass(frozen=True)
class Ellipsoid:
    """A superellipsoid: centre and half-axes (mm), rotated by `angle` degrees about x, y, then z.

    A `power` of 2 makes an ellipsoid, of 4 nearly a box.
    """

    centre: np.ndarray
    radii: np.ndarray
    angle: tuple[float, float, float] = (0.0, 0.0, 0.0)
    power: float = 2.0

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        reach = np.full(3, np.linalg.norm(self.radii)) if any(self.angle) else self.radii
        return self.centre - reach, self.centre + reach

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        x, y, z = (v - c for v, c in zip((x, y, z), self.centre.tolist(), strict=True))
        if any(self.angle):
            x, y, z = (a * x + b * y + c * z for a, b, c in _rotation(self.angle).T.tolist())
        ratio = sum(np.abs(v / r) ** self.power for v, r in zip((x, y, z), self.radii.tolist(), strict=True))
        return _radial_distance(np.sqrt(x * x + y * y + z * z), ratio ** (1 / self.power), float(self.radii.min()))


@dataclass(frozen=True)
class Tube:
    """A tube along a line of points (n, 3) in mm with a radius (mm) at every point."""

    points: np.ndarray
    radii: np.ndarray

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        reach = self.radii[:, None]
        return (self.points - reach).min(0), (self.points + reach).max(0)

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
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
    """The trunk: superelliptical sections, columns (z, half-width, half-depth, y of the centre) in mm, z falling."""

    sections: np.ndarray
    power: float = 2.5

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        z, width, depth, y = self.sections.T
        return np.array([-width.max(), (y - depth).min(), z.min()]), np.array([width.max(), (y + depth).max(), z.max()])

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Distance within the section; above and below the trunk the distance from its end."""
        levels = self.sections[::-1]
        width, depth, middle = (np.interp(z, levels[:, 0], levels[:, i]).astype(np.float32) for i in (1, 2, 3))
        y = y - middle
        ratio = (np.abs(x / width) ** self.power + np.abs(y / depth) ** self.power) ** (1 / self.power)
        radial = _radial_distance(np.sqrt(x * x + y * y), ratio, np.minimum(width, depth))
        return np.maximum(radial, np.maximum(z - float(levels[-1, 0]), float(levels[0, 0]) - z))


Solid = Ellipsoid | Tube | Outline


def _rotation(degrees: Sequence[float]) -> np.ndarray:
    """Matrix of the rotation about x, then y, then z (degrees)."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


class Part(NamedTuple):
    """A solid of one tissue; later parts replace earlier ones where they overlap."""

    tissue: str
    solid: Solid


class Anchor(NamedTuple):
    """A place where lesions grow: a site, a name, and the region (centre and half-axes, mm) in which the lesion's centre lies."""

    site: str
    location: str
    centre: np.ndarray
    spread: np.ndarray


SIDES = (("right", 1), ("left", -1))


# Lines and sections of the reference man (ICRP Publication 89: stature 176 cm), mm.
# fmt: off
# The trunk from the neck to the thighs: z, half-width, half-depth, y of the centre.
TRUNK = np.array([
    (-205, 58, 58, -8), (-270, 62, 62, -12), (-295, 100, 70, -12), (-320, 165, 85, -10), (-350, 180, 104, -5),
    (-420, 172, 118, 0), (-520, 162, 120, 0), (-620, 155, 114, 0), (-700, 154, 112, 0), (-780, 170, 112, 0),
    (-850, 180, 112, -4), (-900, 178, 108, -6), (-935, 172, 98, -6),
], dtype=float)


SPINE_Z = (-800, -740, -680, -600, -520, -420, -330, -260, -200, -150)


SPINE_Y = (-66, -46, -40, -50, -66, -74, -58, -36, -16, -10)


ARM_RAISED = ((165, -4, -325), (212, 4, -165), (178, 22, 15), (70, 30, 95))


ARM_LOWERED = ((176, -6, -330), (208, -16, -620), (214, 26, -880))


AORTA = (
    (6, 28, -448), (4, 26, -408), (-14, 4, -388), (-24, -28, -400), (-24, -40, -430), (-20, -42, -540), (-8, -18, -610),
    (-4, -12, -728),
)


VENA_CAVA = ((26, 10, -400), (24, 8, -470), (22, -4, -560), (20, -12, -728))


ILIAC_ARTERY = ((8, -12, -726), (46, -10, -785), (80, 40, -850), (84, 62, -890))


HIP_BONE = ((74, 8, -828), (62, -36, -895), (32, 24, -910), (9, 52, -876), (74, 8, -828))


FEMUR = ((88, 0, -846), (120, -6, -876), (112, 0, -940), (84, 6, -1275))


MANDIBLE = ((56, 8, -160), (50, 12, -190), (34, 56, -212), (0, 78, -218), (-34, 56, -212), (-50, 12, -190), (-56, 8, -160))


STOMACH = ((-48, 36, -556), (-66, 50, -600), (-36, 66, -640), (4, 58, -646))


DUODENUM = ((14, 56, -646), (44, 34, -650), (46, 22, -695), (8, 14, -708), (-26, 26, -690))


COLON = (
    (94, 14, -800), (98, 10, -690), (84, 58, -686), (0, 74, -706), (-88, 44, -668), (-104, 0, -720), (-98, 12, -800),
    (-44, 10, -848), (0, -36, -860), (0, -46, -915),
)


# Lymph node stations: name, centre on the right side, spread of the centres; both sides are used.
STATIONS = (
    ("neck", (44, -4, -243), (6, 8, 14)), ("supraclavicular", (48, 14, -306), (8, 6, 6)),
    ("axilla", (132, -4, -372), (8, 12, 22)), ("mediastinum", (14, 2, -398), (8, 10, 18)),
    ("lung hilum", (34, -6, -432), (6, 8, 10)), ("para-aortic", (20, -16, -690), (8, 6, 45)),
    ("common iliac", (42, -6, -775), (8, 8, 16)), ("external iliac", (76, 34, -828), (8, 8, 14)),
    ("inguinal", (84, 74, -880), (8, 6, 14)),
)


# fmt: on
HEAD_Z = -235  # girth does not change the head above this level


class Anatomy:
    """One patient, drawn by scaling and varying the reference man.

    `parts` stand in the order in which they are painted; the solids of `body` make the surface; lesions grow at `anchors`.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.stature = float(np.clip(rng.normal(1.0, 0.045), 0.9, 1.1))
        self.girth = np.array([np.clip(rng.normal(1.0, 0.07), 0.88, 1.18), np.clip(rng.normal(1.0, 0.08), 0.86, 1.22)])
        self.parts: list[Part] = []
        self.body: list[Solid] = []
        self.anchors: list[Anchor] = []
        self._add_body()
        self._add_chest()
        self._add_bones()
        self._add_abdomen()
        self._add_head()
        for name, (x, y, z), spread in STATIONS:
            for side, sign in SIDES:
                self._anchor("node", f"{side} {name}", self._place([(sign * x, y, z)])[0], spread)

    def _scale(self, z: float) -> np.ndarray:
        """Factors along x, y, z at the reference level z."""
        across = (self.stature, self.stature) if z > HEAD_Z else self.girth
        return np.array([*across, self.stature])

    def _place(self, points: Iterable[Sequence[float]], sign: int = 1) -> np.ndarray:
        """Points (n, 3) of the reference man, or their mirror images, in this patient."""
        return np.array([np.array(point) * (sign, 1, 1) * self._scale(point[2]) for point in points])

    def _add(self, tissue: str, solid: Solid) -> Solid:
        self.parts.append(Part(tissue, solid))
        return solid

    def _ellipsoid(self, tissue, centre, radii, angle=(0, 0, 0), power=2.0, shift=0.0, size=1.0) -> Ellipsoid:
        """Add an ellipsoid of the reference man; `shift` (mm) and `size` vary it from patient to patient."""
        radii = np.array(radii) * self._scale(centre[2]).mean() * size
        return self._add(tissue, Ellipsoid(self._place([centre])[0] + shift, radii, angle, power))

    def _tube(self, tissue, points, radii, sign=1, shift=0.0, size=1.0) -> Tube:
        """Add a tube of the reference man, or its mirror image; one radius serves all points."""
        radii = np.broadcast_to(np.array(radii, dtype=float) * size, len(points))
        return self._add(tissue, Tube(self._place(points, sign) + shift, radii))

    def _anchor(self, site: str, location: str, centre: np.ndarray, spread: Sequence[float]) -> None:
        self.anchors.append(Anchor(site, location, centre, np.asarray(spread, dtype=float)))

    def _shift(self, mm: float) -> np.ndarray:
        return np.clip(self.rng.normal(0, mm, 3), -2 * mm, 2 * mm)

    def _size(self, spread: float) -> float:
        return float(np.clip(self.rng.normal(1, spread), 1 - 2 * spread, 1 + 2 * spread))

    def _add_body(self) -> None:
        """The table, skin and fat, the muscles below; arms raised beside the head (four of five) or at the sides."""
        fat = float(self.rng.uniform(10, 16) + 60 * max(0, self.girth.mean() - 0.95))
        trunk = TRUNK * np.array([self.stature, *self.girth, self.girth[1]])
        back = (trunk[:, 3] - trunk[:, 2]).min()
        self._add("table", Ellipsoid(np.array([0, back - 14, -500]), np.array([210, 12, 2000]), power=8))
        head = [
            Ellipsoid(self._place([(0, 0, -84)])[0], np.array([80, 98, 84]) * self.stature),
            Ellipsoid(self._place([(0, 22, -150)])[0], np.array([62, 68, 86]) * self.stature),
        ]
        arm = ARM_RAISED if self.rng.random() < 0.8 else ARM_LOWERED
        arms = [Tube(self._place(arm, sign), np.array([50.0, 42, 36, 32][: len(arm)])) for _, sign in SIDES]
        legs = [
            Tube(self._place([(86, -4, -900), (82, 0, -1290)], sign), np.array([86, 60]) * self.girth.mean()) for _, sign in SIDES
        ]
        self.body = [Outline(trunk), *head, *arms, *legs]
        for solid in self.body:
            self._add("fat", solid)
        self._add("muscle", Outline(trunk - np.array([0, 1, 1, 0]) * np.minimum(fat, 0.25 * trunk[:, 1:2])))
        for solid in head:
            self._add("muscle", Ellipsoid(solid.centre, solid.radii - 5))
        for solid in arms + legs:
            self._add("muscle", Tube(solid.points, solid.radii - 0.5 * fat))
        for (side, _), solid in zip(SIDES, arms, strict=True):
            self._add("cortical bone", Tube(solid.points, np.array([16.0, 11, 10, 9][: len(arm)])))
            self._add("fatty marrow", Tube(solid.points[:2], np.array([10.0, 5])))
            self._anchor("bone", f"{side} humerus", 0.92 * solid.points[0] + 0.08 * solid.points[1], (4, 4, 8))
        # Visceral fat: what is not an organ between the abdominal muscles.
        self._ellipsoid("fat", (0, 16, -690), (114, 74, 180), power=3.0)

    def _add_chest(self) -> None:
        """Lungs, mediastinum, great vessels, heart."""
        shift = self._shift(4)
        for (side, sign), radii in zip(SIDES, ((58, 82, 122), (55, 80, 122)), strict=True):
            lung = self._ellipsoid("lung", (sign * 80, -2, -425), radii, power=2.3, size=self._size(0.04))
            self._anchor("lung", f"{side} lung", lung.centre + np.array([0, 0, 15]), 0.62 * lung.radii)
        self._ellipsoid("mediastinum", (-2, 4, -430), (36, 72, 112), power=2.5)
        self._tube("airway", [(0, 14, -215), (0, 12, -270), (0, 0, -390)], 8)
        self._tube("blood", AORTA, [15, 14, 13, 12, 12, 11, 10, 9], shift=shift)
        self._tube("blood", VENA_CAVA, [9, 11, 12, 11], shift=shift)
        for _, sign in SIDES:
            self._ellipsoid("thyroid", (sign * 19, 22, -276), (9, 9, 20))
            self._tube("blood", ILIAC_ARTERY, [9, 8, 7, 7], sign)
        self._ellipsoid("blood", (6, 34, -480), (42, 36, 44), shift=shift)
        heart = self._size(0.08)
        self._ellipsoid("myocardium", (-36, 32, -488), (34, 33, 46), (30, 35, 0), shift=shift, size=heart)
        self._ellipsoid("blood", (-33, 28, -481), (21, 20, 34), (30, 35, 0), shift=shift, size=heart)

    def _add_bones(self) -> None:
        """Spine, ribs, sternum, shoulder girdle, pelvis, femora."""
        vertebrae = [("cervical", i + 1, -165 - 14.0 * i, 13.0, 11.0, 5.2) for i in range(7)]
        vertebrae += [("thoracic", i + 1, -268 - 22.4 * i, 15 + 0.5 * i, 14 + 0.35 * i, 9.3) for i in range(12)]
        vertebrae += [("lumbar", i + 1, -544 - 38.0 * i, 23.0 + 0.5 * i, 18.0, 15.5) for i in range(5)]
        canal = []
        for region, number, z, half_width, half_depth, half_height in vertebrae:
            y = float(np.interp(z, SPINE_Z, SPINE_Y))
            canal.append((0, y - 24, z))
            self._tube("cortical bone", [(0, y - half_depth - 14, z), (0, y - half_depth - 36, z - 8)], 5.5)
            for _, sign in SIDES:
                self._tube("cortical bone", [(10, y - half_depth - 4, z), (28, y - half_depth - 14, z - 2)], 5, sign)
            self._ellipsoid("vertebral shell", (0, y, z), (half_width, half_depth, half_height), power=4)
            body = self._ellipsoid("marrow", (0, y, z), (half_width - 3, half_depth - 3, half_height - 2.5), power=4)
            if region != "cervical":
                self._anchor("bone", f"{region} vertebra {number}", body.centre, (0.3 * half_width, 0.3 * half_depth, 3))
        self._tube("spinal cord", canal, 7)
        for i, width in enumerate((72, 104, 124, 136, 143, 146, 147, 146, 142, 136)):
            z, depth = -290 - 24.0 * i, 62 + 3.8 * i if i < 6 else 88
            angles = np.radians(np.linspace(-82, 62 if i < 7 else 40, 10))
            line = [(width * np.cos(t), 2 + depth * np.sin(t), z - 28 * (1 + np.sin(t))) for t in angles]
            for side, sign in SIDES:
                rib = self._tube("cortical bone", line, 5.5, sign)
                self._anchor("bone", f"{side} rib {i + 1}", rib.points[self.rng.integers(3, 8)], (1, 1, 1))
        for tissue, radii in (("vertebral shell", [14, 12, 9]), ("marrow", [9, 8, 5])):
            sternum = self._tube(tissue, [(0, 80, -345), (0, 94, -420), (0, 97, -480)], radii)
        self._anchor("bone", "sternum", sternum.points[1], (2, 2, 35))
        for side, sign in SIDES:
            self._tube("cortical bone", [(18, 66, -334), (80, 44, -318), (152, 4, -318)], 7, sign)
            scapula = self._ellipsoid("cortical bone", (sign * 112, -78, -395), (38, 6, 58), (0, 0, sign * 25), power=2.5)
            self._anchor("bone", f"{side} scapula", scapula.centre, (12, 2, 20))
            for tissue, radii in (("vertebral shell", (10, 50, 54)), ("marrow", (6.5, 46.5, 50.5))):
                wing = self._ellipsoid(tissue, (sign * 82, -28, -778), radii, (0, -sign * 22, sign * 35))
            self._anchor("bone", f"{side} ilium", wing.centre, (3, 22, 22))
            self._tube("vertebral shell", HIP_BONE, 11, sign)
            hip = self._tube("marrow", HIP_BONE, 7, sign)
            self._anchor("bone", f"{side} ischium", hip.points[1], (4, 4, 6))
            self._tube("vertebral shell", FEMUR[:2], [25, 18], sign)
            neck = self._tube("marrow", FEMUR[:2], [21, 14], sign)
            self._tube("cortical bone", FEMUR[1:], [18, 16, 17], sign)
            self._tube("fatty marrow", FEMUR[1:], [13, 9, 10], sign)
            self._anchor("bone", f"{side} femur", neck.points.mean(0), (12, 3, 12))
        for tissue, radii in (("vertebral shell", (50, 20, 50)), ("marrow", (46, 16, 46))):
            sacrum = self._ellipsoid(tissue, (0, -66, -772), radii, (-20, 0, 0), power=2.5)
        self._anchor("bone", "sacrum", sacrum.centre, (24, 4, 18))

    def _add_abdomen(self) -> None:
        """Liver, spleen, stomach, gut, bladder, prostate, kidneys, ureters."""
        rng = self.rng
        shift, size = self._shift(5), self._size(0.07)
        liver = self._ellipsoid("liver", (66, 14, -588), (76, 76, 72), power=2.3, shift=shift, size=size)
        self._ellipsoid("liver", (-8, 48, -572), (62, 38, 40), (0, 0, -10), shift=shift, size=size)
        self._anchor("liver", "liver", liver.centre, 0.6 * liver.radii)
        self._ellipsoid("spleen", (-108, -42, -575), (24, 40, 47), (15, -15, 0), shift=self._shift(4), size=self._size(0.12))
        self._tube("stomach", STOMACH, [26, 27, 19, 12], shift=self._shift(4), size=self._size(0.1))
        self._tube("duodenum", DUODENUM, 12, shift=self._shift(4), size=self._size(0.08))
        for _ in range(3):
            self._tube("small bowel", rng.uniform((-72, 30, -830), (72, 64, -690), (5, 3)), 12)
        shift = self._shift(5)
        self._tube("colon", COLON, 19, shift=shift)
        self._tube("colon content", COLON[:-1], 13, shift=shift)
        bladder = self._ellipsoid("bladder", (0, 46, -862), (40, 32, 32), shift=self._shift(4), size=rng.uniform(0.65, 1.2))
        self._ellipsoid("prostate", (0, 24, -908), (20, 17, 17), shift=self._shift(2), size=self._size(0.15))
        for (_, sign), z in zip(SIDES, (-656, -644), strict=True):
            shift, size = self._shift(6), self._size(0.08)
            self._ellipsoid("kidney", (sign * 64, -48, z), (28, 25, 54), (-10, sign * 12, 0), shift=shift, size=size)
            pelvis = self._ellipsoid("renal pelvis", (sign * 50, -40, z), (11, 9, 19), shift=shift, size=size)
            # Urine is seen in pieces of the ureter, where a wave of it passes.
            way = np.linspace(pelvis.centre + np.array([0, 4, -24]), bladder.centre + np.array([sign * 26, -30, 10]), 9)
            way[:, 1] += 16 * np.sin(np.linspace(0, np.pi, 9))
            at = int(rng.integers(0, 6))
            if rng.random() < 0.6:
                self._add("ureter", Tube(way[at : at + 3], np.full(3, rng.uniform(2.5, 4))))

    def _add_head(self) -> None:
        """Skull, brain, airways of the face, mandible, salivary and lacrimal glands, tonsils."""
        self._ellipsoid("cortical bone", (0, 0, -84), (75, 93, 79))
        self._ellipsoid("grey matter", (0, 0, -82), (68, 86, 71), size=self._size(0.02))
        self._ellipsoid("white matter", (0, 0, -78), (46, 62, 44), size=self._size(0.05))
        self._ellipsoid("grey matter", (0, -48, -140), (46, 26, 23))
        self._ellipsoid("airway", (0, 62, -150), (13, 22, 26))
        self._tube("airway", [(0, 38, -160), (0, 12, -190), (0, 14, -220)], 8)
        self._tube("cortical bone", MANDIBLE, 6)
        for tissue, (x, y, z), radii, mm in (
            ("parotid", (57, 2, -172), (11, 17, 25), 2),
            ("submandibular", (30, 36, -208), (11, 16, 13), 2),
            ("lacrimal", (37, 76, -108), (6, 5, 8), 1),
            ("tonsil", (16, 14, -188), (7, 9, 12), 1),
        ):
            size = self._size(0.1)
            for _, sign in SIDES:
                self._ellipsoid(tissue, (sign * x, y, z), radii, shift=self._shift(mm), size=size)


@dataclass(frozen=True)
class Lesion:
    """An ellipsoid along the world's axes: its place, centre and half-axes (mm), uptake (SUV before blur and noise) and HU."""

    site: str
    location: str
    centre: np.ndarray
    radii: np.ndarray
    suv: float
    hu: float

    @property
    def volume(self) -> float:
        """Volume of the ellipsoid in ml."""
        return 4 / 3 * math.pi * math.prod(self.radii) / 1000


class LesionSite(NamedTuple):
    """Lesions of a tracer at a site: their share, largest diameter (mm), ranges of uptake (SUV) and CT number (HU)."""

    share: float
    largest: float
    suv: tuple[float, float]
    hu: tuple[float, float]


# FDG: melanoma, lung cancer and lymphoma; PSMA: prostate cancer. In the liver the uptake is at least 2.5 times that of TISSUES.
LESION_SITES = {
    "fdg": {
        "node": LesionSite(0.42, 48, (4.0, 20.0), (60, 100)),
        "lung": LesionSite(0.24, 70, (4.0, 20.0), (30, 70)),
        "bone": LesionSite(0.18, 44, (4.0, 20.0), (40, 120)),
        "liver": LesionSite(0.16, 80, (6.5, 20.0), (55, 85)),
    },
    "psma": {
        "node": LesionSite(0.40, 48, (6.0, 40.0), (60, 100)),
        "lung": LesionSite(0.04, 70, (6.0, 40.0), (30, 70)),
        "bone": LesionSite(0.52, 44, (6.0, 40.0), (350, 900)),
        "liver": LesionSite(0.04, 80, (17.5, 40.0), (55, 85)),
    },
}


SMALLEST_DIAMETER = 12.0  # mm


CLEARANCE = 8.0  # mm between a lesion and an organ of HOT_TISSUES, the skin or the image's end


# Points in and on the unit sphere, at which a lesion's clearance is measured.
_DIRECTIONS = np.array([d for d in np.ndindex(3, 3, 3) if d != (1, 1, 1)]) - 1.0


_PROBES = np.concatenate([r * _DIRECTIONS / np.linalg.norm(_DIRECTIONS, axis=1, keepdims=True) for r in (0, 0.5, 1)])


class Patient:
    """A patient of one scanner: name, anatomy, and a source of lesions."""

    def __init__(self, seed: int, number: int, scanner: Scanner, shrink: float) -> None:
        self.rng = _generator(seed, number)
        self.scanner = scanner
        self.grid = make_grid(scanner, shrink)
        self.anatomy = Anatomy(self.rng)
        self.name = self.rng.bytes(5 if scanner.tracer == "fdg" else 8).hex()
        self.sites = LESION_SITES[scanner.tracer]

    def _fits(self, lesion: Lesion, others: Iterable[Lesion]) -> bool:
        """Whether a lesion lies in body and image, clear of organs of high uptake, at least two voxels from every other."""
        gap = 2 * np.array(self.grid.spacing)
        if any((np.abs(lesion.centre - other.centre) <= lesion.radii + other.radii + gap).all() for other in others):
            return False
        x, y, z = (lesion.centre + _PROBES * lesion.radii).T
        if z.min() < self.grid.low[2] + CLEARANCE or z.max() > self.grid.high[2] - CLEARANCE:
            return False
        if np.min([solid.distance(x, y, z) for solid in self.anatomy.body], axis=0).max() > -CLEARANCE:
            return False
        hot = (part.solid for part in self.anatomy.parts if part.tissue in HOT_TISSUES)
        return all(solid.distance(x, y, z).min() > CLEARANCE for solid in hot)

    def _draw(self) -> Lesion:
        """Draw a lesion, wherever it comes to lie."""
        rng = self.rng
        name = str(rng.choice(list(self.sites), p=[site.share for site in self.sites.values()]))
        site = self.sites[name]
        anchors = [anchor for anchor in self.anatomy.anchors if anchor.site == name]
        anchor = anchors[rng.integers(len(anchors))]
        direction = rng.normal(size=3)
        centre = anchor.centre + anchor.spread * direction / np.linalg.norm(direction) * rng.random() ** (1 / 3)
        # The square root makes large lesions more common than a log-uniform law does.
        diameter = SMALLEST_DIAMETER * (site.largest / SMALLEST_DIAMETER) ** math.sqrt(rng.random())
        shape = rng.uniform(0.75, 1.25, 3)
        suv = site.suv[0] * (site.suv[1] / site.suv[0]) ** rng.random()
        return Lesion(name, anchor.location, centre, 0.5 * diameter * shape / shape.max(), suv, rng.uniform(*site.hu))

    def add_lesions(self, count: int, lesions: Iterable[Lesion] = ()) -> list[Lesion]:
        """The lesions given and `count` more, or as many as find a place in two hundred draws each."""
        lesions = list(lesions)
        for _ in range(count):
            draws = (self._draw() for _ in range(200))
            lesions += itertools.islice((lesion for lesion in draws if self._fits(lesion, lesions)), 1)
        return lesions

    def follow_up(self, lesions: Sequence[Lesion]) -> list[Lesion]:
        """The same lesions some months later: grown or shrunk where there is room, brighter or fainter, and perhaps new ones."""
        later: list[Lesion] = []
        for at, lesion in enumerate(lesions):
            size, uptake = np.exp(np.clip(self.rng.normal(0, 0.2, 2), -0.5, 0.4))
            suv = float(np.clip(lesion.suv * uptake, *self.sites[lesion.site].suv))
            changed = replace(lesion, radii=lesion.radii * size, suv=suv)
            later.append(changed if self._fits(changed, [*later, *lesions[at + 1 :]]) else lesion)
        return self.add_lesions(int(self.rng.integers(0, 3)), later)


@dataclass(frozen=True)
class PhantomStudy:
    """One examination: its name, the patient, the lesions at that time, and `key`: seed, number of the patient, of the study."""

    case: str
    patient: Patient
    lesions: list[Lesion]
    key: tuple[int, int, int]


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


# What follows the date in the challenge's FDG names; double spaces and dots are what they bring.
DESCRIPTIONS = ("NA-PET-CT Ganzkoerper  primaer mit KM", "NA-PET.CT Ganzkoerper  prim. mit KM")


def plan_studies(num_patients: int, seed: int, shrink: float) -> list[PhantomStudy]:
    """Draw the studies of a data set without painting them.

    Scanners appear in the challenge's proportions. Among FDG patients the third of every four, among PSMA patients the sixth of
    every nine is healthy; the second of every six and the first of every three, respectively, has two or three studies.
    """
    studies: list[PhantomStudy] = []
    made = dict.fromkeys(SCANNERS, 0)
    patients = {"fdg": 0, "psma": 0}
    for number in range(num_patients):
        # Sainte-Lague's rule of proportional seats: the shares are right for any number of patients.
        name = min(SCANNERS, key=lambda name: (made[name] + 0.5) / SCANNERS[name].studies)
        tracer = SCANNERS[name].tracer
        at = patients[tracer]
        patients[tracer] += 1
        healthy = at % 4 == 2 if tracer == "fdg" else at % 9 == 5
        repeated = at % 6 == 1 if tracer == "fdg" else at % 3 == 0
        patient = Patient(seed, number, SCANNERS[name], shrink)
        rng = patient.rng
        date = datetime.date(2014, 1, 1) + datetime.timedelta(days=int(rng.integers(0, 3000)))
        lesions = [] if healthy else patient.add_lesions(int(rng.integers(4, 15)))
        for visit in range(int(rng.integers(2, 4)) if repeated else 1):
            if visit:
                date += datetime.timedelta(days=int(rng.integers(60, 200)))
                lesions = patient.follow_up(lesions)
            day = date.isoformat()
            if tracer == "fdg":
                day = f"{date:%m-%d-%Y}-{DESCRIPTIONS[rng.integers(len(DESCRIPTIONS))]}-{rng.integers(10000, 100000)}"
            studies.append(PhantomStudy(f"{tracer}_{patient.name}_{day}", patient, lesions, (seed, number, visit)))
            made[name] += 1
    return studies


NOISE = 0.14  # standard deviation (SUV) of PET noise where the SUV is 1: a tenth of the mean in a liver of SUV 2


CT_NOISE = 12.0  # standard deviation of CT noise, HU


CT_FIELD = 780.0  # diameter (mm) of the largest field that these scanners' CT reconstructs


FWHM_PER_SIGMA = math.sqrt(8 * math.log(2))


SLAB = 48  # slices painted at a time, so that a large study needs little more memory than its images


def _paint(ct: np.ndarray, pet: np.ndarray, axes: Sequence[np.ndarray], solid: Solid, hu: float, suv: float) -> None:
    """Paint a solid into arrays (Z, Y, X) in place; voxels at its surface get the share of them that it covers.

    `axes` holds the world coordinates (mm) of the voxel centres along x, y, z.
    """
    edge = float(np.prod([abs(c[1] - c[0]) for c in axes]) ** (1 / 3))
    box = []
    for c, low, high in zip(axes, *solid.bounds(), strict=True):
        inside = np.flatnonzero((c >= low - edge) & (c <= high + edge))
        if not len(inside):
            return
        box.append(slice(inside[0], inside[-1] + 1))
    x, y, z = (c[part] for c, part in zip(axes, box, strict=True))
    covered = np.clip(0.5 - solid.distance(x, y[:, None], z[:, None, None]) / edge, 0, 1)
    for image, value in ((ct, hu), (pet, suv)):
        region = image[box[2], box[1], box[0]]
        region += covered * (value - region)


def _gaussian(sigma: float) -> np.ndarray:
    """A Gaussian (sigma in voxels), integrated over each voxel out to three sigma; sums to 1."""
    reach = math.ceil(3 * sigma)
    edges = [math.erf((i - 0.5) / (sigma * math.sqrt(2))) for i in range(-reach, reach + 2)]
    kernel = np.diff(edges)
    return (kernel / kernel.sum()).astype(np.float32)


def _blur(image: np.ndarray, kernels: Sequence[np.ndarray]) -> np.ndarray:
    """Convolve every axis with its symmetric kernel; zero outside."""
    for axis, kernel in enumerate(kernels):
        image = np.moveaxis(image, axis, 0)
        reach = len(kernel) // 2
        result = kernel[reach] * image
        for shift in range(1, min(reach, len(image) - 1) + 1):
            result[shift:] += kernel[reach + shift] * image[:-shift]
            result[:-shift] += kernel[reach + shift] * image[shift:]
        image = np.moveaxis(result, 0, axis)
    return image


def render(study: PhantomStudy) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paint a study.

    Returns:
        CT (X, Y, Z) int16 in HU, PET (X, Y, Z) float32 in body-weight SUV, label (X, Y, Z) uint8. The label is 1 where a voxel's
        centre lies in a lesion; a lesion that holds no voxel's centre has the voxel nearest to its own.
    """
    rng = _generator(*study.key, 0)
    grid, scanner = study.patient.grid, study.patient.scanner
    drawn = {name: (rng.uniform(*tissue.hu), rng.uniform(*getattr(tissue, scanner.tracer))) for name, tissue in TISSUES.items()}
    solids = [(part.solid, *drawn[part.tissue]) for part in study.patient.anatomy.parts]
    solids += [(Ellipsoid(lesion.centre, lesion.radii), lesion.hu, lesion.suv) for lesion in study.lesions]

    nx, ny, nz = grid.shape
    resolution = [_gaussian(scanner.resolution / FWHM_PER_SIGMA / size) for size in reversed(grid.spacing)]
    halo = len(resolution[0]) // 2
    x = np.linspace(grid.high[0], grid.low[0], nx, dtype=np.float32)
    y = np.linspace(grid.low[1], grid.high[1], ny, dtype=np.float32)
    z = (grid.low[2] + np.arange(-halo, nz + halo) * grid.spacing[2]).astype(np.float32)
    outside = x * x + y[:, None] ** 2 > (min(CT_FIELD, nx * grid.spacing[0]) / 2) ** 2
    # The noise of the voxels is correlated by the same filter; it is scaled back to a variance of one.
    noise_scale = NOISE / math.prod(float(np.linalg.norm(kernel)) for kernel in resolution)

    ct_image, pet_image = np.empty((nz, ny, nx), np.int16), np.empty((nz, ny, nx), np.float32)
    for start in range(0, nz, SLAB):
        stop = min(start + SLAB, nz)
        axes = (x, y, z[start : stop + 2 * halo])
        ct = np.full((len(axes[2]), ny, nx), AIR_HU, np.float32)
        pet = np.zeros_like(ct)
        for solid, hu, suv in solids:
            _paint(ct, pet, axes, solid, hu, suv)
        # Every slice has its own generator, so that neighbouring slabs agree where they overlap.
        generators = (_generator(*study.key, 1, at) for at in range(start, stop + 2 * halo))
        noise = np.stack([generator.standard_normal((ny, nx), np.float32) for generator in generators])
        inner = slice(halo, halo + stop - start)
        ct = ct[inner] + CT_NOISE * noise[inner]
        ct[:, outside] = PADDING_HU
        ct_image[start:stop] = np.rint(np.maximum(ct, PADDING_HU))
        pet, noise = (_blur(volume, resolution)[inner] for volume in (pet, noise))
        pet += noise_scale * noise * np.sqrt(pet + 0.01)
        # Steps of 1/512 SUV lie far below the noise and make the file a third smaller.
        pet_image[start:stop] = np.rint(np.maximum(pet, 0) * 512) / 512

    label = np.zeros((nz, ny, nx), np.uint8)
    to_voxel = np.linalg.inv(grid.affine)
    for lesion in study.lesions:
        centre = to_voxel[:3, :3] @ lesion.centre + to_voxel[:3, 3]
        reach = lesion.radii / grid.spacing
        lower, upper = np.floor(centre - reach).astype(int), np.ceil(centre + reach).astype(int) + 1
        i, j, k = np.ogrid[tuple(slice(max(a, 0), min(b, n)) for a, b, n in zip(lower, upper, grid.shape, strict=True))]
        inside = sum(((at - c) / r) ** 2 for at, c, r in zip((i, j, k), centre, reach, strict=True)) <= 1
        label[k.min() : k.max() + 1, j.min() : j.max() + 1, i.min() : i.max() + 1] |= inside.T
        if not inside.any():
            label[tuple(np.rint(centre).astype(int)[::-1])] = 1
    return ct_image.T, pet_image.T, label.T


COLUMNS = ["case", "lesion", "site", "location", "volume_ml", "suv", "x_mm", "y_mm", "z_mm"]


COLUMNS += ["radius_x_mm", "radius_y_mm", "radius_z_mm"]


def _lesion_table(studies: Iterable[PhantomStudy]) -> str:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for study in studies:
        for number, lesion in enumerate(study.lesions, 1):
            figures = (lesion.volume, lesion.suv, *lesion.centre, *lesion.radii)
            writer.writerow([study.case, number, lesion.site, lesion.location, *(f"{figure:.4f}" for figure in figures)])
    return table.getvalue()


def _write_study(study: PhantomStudy, output_dir: Path) -> None:
    """Write a study's three files, unless all are there."""
    files = [output_dir / "imagesTr" / f"{study.case}_0000.nii.gz", output_dir / "imagesTr" / f"{study.case}_0001.nii.gz"]
    files.append(output_dir / "labelsTr" / f"{study.case}.nii.gz")
    if not all(file.exists() for file in files):
        for image, file in zip(render(study), files, strict=True):
            write_volume(file, image, study.patient.grid.affine)


def write_phantoms(
    output_dir: str | Path, num_patients: int = 30, seed: int = 0, shrink: float = 2, num_workers: int = 2
) -> None:
    """Write a data set of phantoms in the challenge's layout, or what is missing of it.

    `output_dir` gets imagesTr/<case>_0000.nii.gz (CT, HU), imagesTr/<case>_0001.nii.gz (PET, body-weight SUV) and
    labelsTr/<case>.nii.gz (1 in lesions), all (X, Y, Z) stored LAS; lesions.csv, the lesions as they were drawn: volume of the
    ellipsoid (ml), uptake before blur and noise (SUV), centre and half-axes in NIfTI's world coordinates (mm); and phantoms.json,
    the parameters. The same parameters give the same bytes.

    Args:
        output_dir: folder of the data set; made if need be.
        num_patients: number of patients, some of whom have several studies.
        seed: what all chance depends on.
        shrink: how many times larger than the scanner's the voxels are along each axis; 1 gives full-size studies.
        num_workers: studies written at a time.

    Raises:
        InputError: a parameter is out of range, or `output_dir` holds other data.
    """
    for name, value, least in (("num_patients", num_patients, 1), ("seed", seed, 0), ("num_workers", num_workers, 1)):
        if not isinstance(value, int) or value < least:
            raise InputError(f"{name} is {value!r}; give a whole number of at least {least}.")
    if not isinstance(shrink, (int, float)) or not 1 <= shrink <= 10:
        raise InputError(f"shrink is {shrink!r}; give a number from 1 to 10.")
    output_dir = Path(output_dir)
    parameters = {"num_patients": num_patients, "seed": seed, "shrink": shrink}
    record = output_dir / "phantoms.json"
    if record.exists():
        found = read_json(record)
        if found != parameters:
            raise InputError(
                f"{output_dir} holds phantoms made with {found}, not {parameters}; name another folder or delete it."
            )
    elif any((output_dir / name).exists() for name in ("imagesTr", "labelsTr")):
        raise InputError(f"{output_dir} holds images that are not phantoms; name another folder.")
    write_json(record, parameters)
    remove_unfinished(output_dir)
    studies = plan_studies(num_patients, seed, shrink)
    write_text(output_dir / "lesions.csv", _lesion_table(studies))
    with ThreadPoolExecutor(num_workers) as pool, tqdm(total=len(studies), desc="phantoms", unit="study") as progress:
        for _ in pool.map(lambda study: _write_study(study, output_dir), studies):
            progress.update()
