"""The embedded data set: synthetic whole-body PET/CT studies whose lesions are known exactly.

A phantom is a patient of simple solids (ellipsoids, tubes, an outline of elliptical sections) on the scale of the ICRP's reference
man, varied in stature, girth and in the place and size of every organ. Each solid has a CT number and an uptake; PET is blurred
by the scanner's resolution and given noise. Lesions are ellipsoids along the axes of the world, so that their true volume is
a formula. Physiological uptake is as strong as that of lesions: no SUV threshold separates the two.

World coordinates are NIfTI's: x to the patient's right, y to the front, z to the head, in mm; the vertex lies near z = 0.
"""

from __future__ import annotations

import csv
import datetime
import gzip
import hashlib
import io
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from tqdm import tqdm

from scripts.errors import InputError, command
from scripts.files import atomic, read_json, write_json, write_text

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


class Tissue(NamedTuple):
    """Ranges from which a study draws: CT number (HU) without and with intravenous contrast, uptake (SUV) of FDG and of PSMA."""

    native: tuple[float, float]
    contrast: tuple[float, float]
    fdg: tuple[float, float]
    psma: tuple[float, float]


# CT numbers: Prokop, Spiral and Multislice Computed Tomography of the Body (2003); Schneider et al., Phys Med Biol 2000;45:459.
# FDG: Wang et al., Mol Imaging Biol 2007;9:83 (SUVmean: cerebellum 8.0 +- 2.2, palatine tonsils 3.5 +- 1.4; all tissues below 2.5
# otherwise); liver 1.9 +- 0.4 (Liu et al., Iran J Radiol 2019;16:e84881). Myocardium, gut and urine vary most between patients.
# PSMA: "Evaluation of practical interpretation hurdles in 68Ga-PSMA PET/CT in 55 patients", Clin Nucl Med 2017;42(7) (SUVmax: kidneys
# 66 +- 25, submandibular 27 +- 7, parotid 24 +- 8, duodenum 18 +- 9, lacrimal 16 +- 7, spleen 11 +- 4, descending colon 11 +- 9, tonsils 10 +- 4,
# liver 8 +- 3); a mean over an organ is about six tenths of its SUVmax.
TISSUES = {
    "fat": Tissue((-115, -95), (-115, -95), (0.2, 0.35), (0.2, 0.35)),
    "muscle": Tissue((45, 60), (50, 70), (0.5, 0.9), (0.4, 0.7)),
    "mediastinum": Tissue((-40, 10), (-20, 20), (0.9, 1.4), (0.7, 1.1)),
    "lung": Tissue((-860, -760), (-850, -750), (0.35, 0.6), (0.3, 0.5)),
    "airway": Tissue((-990, -960), (-990, -960), (0.2, 0.3), (0.2, 0.3)),
    "blood": Tissue((38, 48), (130, 180), (1.2, 2.0), (1.0, 1.8)),
    "cortical bone": Tissue((600, 1000), (600, 1000), (0.5, 0.9), (0.3, 0.6)),
    "vertebral shell": Tissue((320, 480), (320, 480), (0.8, 1.5), (0.5, 0.9)),
    "marrow": Tissue((120, 230), (130, 240), (1.0, 2.0), (0.6, 1.1)),
    "fatty marrow": Tissue((-40, 30), (-40, 30), (0.4, 0.7), (0.3, 0.5)),
    "spinal cord": Tissue((20, 40), (25, 45), (1.2, 2.0), (0.5, 0.8)),
    "grey matter": Tissue((36, 44), (40, 50), (6.0, 11.0), (0.3, 0.5)),
    "white matter": Tissue((22, 30), (25, 32), (2.5, 4.5), (0.2, 0.4)),
    "myocardium": Tissue((38, 50), (90, 130), (1.5, 11.0), (1.1, 1.8)),
    "liver": Tissue((48, 64), (95, 125), (1.5, 2.6), (3.5, 7.0)),
    "spleen": Tissue((40, 54), (105, 135), (1.2, 2.1), (4.0, 9.0)),
    "kidney": Tissue((25, 40), (140, 190), (2.0, 4.5), (25.0, 50.0)),
    "renal pelvis": Tissue((0, 12), (5, 30), (6.0, 25.0), (15.0, 40.0)),
    "ureter": Tissue((0, 12), (5, 30), (4.0, 14.0), (8.0, 25.0)),
    "bladder": Tissue((0, 12), (2, 20), (6.0, 30.0), (8.0, 45.0)),
    "prostate": Tissue((35, 45), (50, 75), (1.2, 2.2), (2.0, 4.5)),
    "stomach": Tissue((30, 45), (50, 80), (1.8, 4.0), (2.0, 4.5)),
    "duodenum": Tissue((25, 45), (50, 80), (1.2, 2.8), (6.0, 14.0)),
    "small bowel": Tissue((20, 45), (40, 80), (1.0, 2.8), (2.5, 7.0)),
    "colon": Tissue((25, 45), (40, 75), (1.0, 5.0), (1.2, 4.5)),
    "colon content": Tissue((-450, -50), (-450, -50), (0.5, 1.5), (0.5, 1.5)),
    "parotid": Tissue((-10, 25), (20, 50), (1.4, 2.4), (10.0, 20.0)),
    "submandibular": Tissue((30, 50), (55, 85), (1.6, 3.0), (11.0, 21.0)),
    "lacrimal": Tissue((25, 40), (30, 50), (0.9, 1.6), (6.0, 13.0)),
    "tonsil": Tissue((40, 55), (60, 90), (2.2, 5.5), (4.0, 8.0)),
    "thyroid": Tissue((80, 110), (140, 190), (1.0, 1.8), (0.8, 1.8)),
}

# Parts of the body that take up so much of either tracer that a lesion drawn into one could not be told from it.
HOT_TISSUES = frozenset(
    "grey matter,myocardium,spleen,kidney,renal pelvis,bladder,parotid,submandibular,lacrimal,tonsil,duodenum,stomach,prostate".split(",")
)


# ---------------------------------------------------------------- solids


def _points(points: Iterable[Sequence[float]]) -> np.ndarray:
    return np.array(list(points), dtype=float)


@dataclass(frozen=True)
class Ellipsoid:
    """A (super)ellipsoid: centre and half-axes in mm, rotated by `angle` degrees about x, y, then z; `power` 2 is an ellipsoid, 4 nearly a box."""

    centre: np.ndarray
    radii: np.ndarray
    angle: tuple[float, float, float] = (0.0, 0.0, 0.0)
    power: float = 2.0

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Corners (mm) of a box around the solid."""
        reach = self.radii if not any(self.angle) else np.full(3, np.linalg.norm(self.radii))
        return self.centre - reach, self.centre + reach

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Distance (mm) from the surface along the ray to the centre, negative inside; x, y, z (mm) broadcast."""
        x, y, z = x - self.centre[0], y - self.centre[1], z - self.centre[2]
        if any(self.angle):
            axes = _rotation(self.angle).astype(np.float32)
            x, y, z = (axes[0, i] * x + axes[1, i] * y + axes[2, i] * z for i in range(3))
        ratio = sum(np.abs(v / r) ** self.power for v, r in zip((x, y, z), self.radii, strict=True)) ** (1 / self.power)
        length = np.sqrt(x * x + y * y + z * z)
        return np.where(ratio > 1e-3, length * (1 - 1 / np.maximum(ratio, 1e-3)), -self.radii.min()).astype(np.float32)


@dataclass(frozen=True)
class Tube:
    """A tube along a line of points (n, 3) in mm with a radius (mm) at every point."""

    points: np.ndarray
    radii: np.ndarray

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Corners (mm) of a box around the solid."""
        reach = self.radii[:, None]
        return (self.points - reach).min(0), (self.points + reach).max(0)

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Distance (mm) from the surface, negative inside; x, y, z (mm) broadcast."""
        result = None
        for start, end, r0, r1 in zip(self.points[:-1], self.points[1:], self.radii[:-1], self.radii[1:], strict=True):
            u = (end - start).astype(np.float32)
            dx, dy, dz = x - np.float32(start[0]), y - np.float32(start[1]), z - np.float32(start[2])
            t = np.clip((dx * u[0] + dy * u[1] + dz * u[2]) / max(float(u @ u), 1e-6), 0, 1)
            d = np.sqrt((dx - t * u[0]) ** 2 + (dy - t * u[1]) ** 2 + (dz - t * u[2]) ** 2) - np.float32(r0) - t * np.float32(r1 - r0)
            result = d if result is None else np.minimum(result, d)
        return result


@dataclass(frozen=True)
class Outline:
    """The trunk: superelliptical sections, columns (z, half-width, half-depth, y of the centre) in mm, z falling."""

    sections: np.ndarray
    power: float = 2.5

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Corners (mm) of a box around the solid."""
        z, width, depth, y = self.sections.T
        return np.array([-width.max(), (y - depth).min(), z.min()]), np.array([width.max(), (y + depth).max(), z.max()])

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Distance (mm) from the surface within the section, negative inside; beyond the ends the distance from the end."""
        levels = self.sections[::-1]
        width, depth, middle = (np.interp(z, levels[:, 0], levels[:, i]).astype(np.float32) for i in (1, 2, 3))
        y = y - middle
        ratio = (np.abs(x / width) ** self.power + np.abs(y / depth) ** self.power) ** (1 / self.power)
        length = np.sqrt(x * x + y * y)
        radial = np.where(ratio > 1e-3, length * (1 - 1 / np.maximum(ratio, 1e-3)), -np.minimum(width, depth))
        beyond = np.maximum(z - levels[-1, 0], levels[0, 0] - z)
        return np.maximum(radial, beyond).astype(np.float32)


Solid = Ellipsoid | Tube | Outline


def _rotation(degrees: Sequence[float]) -> np.ndarray:
    """Matrix of the rotation about x, then y, then z (degrees)."""
    a, b, c = np.radians(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


# ---------------------------------------------------------------- anatomy


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


@dataclass
class Anatomy:
    """One patient: parts in the order in which they are painted, and the places where lesions can grow."""

    parts: list[Part] = field(default_factory=list)
    anchors: list[Anchor] = field(default_factory=list)
    body: list[Solid] = field(default_factory=list)


# The trunk of the reference man from the neck to the thighs: z, half-width, half-depth, y of the centre (mm).
TRUNK = _points(
    [
        (-205, 58, 58, -8), (-270, 62, 62, -12), (-295, 100, 70, -12), (-320, 165, 85, -10), (-350, 180, 104, -5),
        (-420, 172, 118, 0), (-520, 162, 120, 0), (-620, 155, 114, 0), (-700, 154, 112, 0), (-780, 170, 112, 0),
        (-850, 180, 112, -4), (-900, 178, 108, -6), (-935, 172, 98, -6),
    ]
)  # fmt: skip
SPINE_Z = (-800, -740, -680, -600, -520, -420, -330, -260, -200, -150)
SPINE_Y = (-66, -46, -40, -50, -66, -74, -58, -36, -16, -10)
HEAD_Z = -235  # girth does not change the head above this level

# Lymph node stations: name, centre on the right side, spread of the centres (mm); both sides are used.
STATIONS = [
    ("neck", (44, -4, -243), (6, 8, 14)),
    ("supraclavicular", (48, 14, -306), (8, 6, 6)),
    ("axilla", (132, -4, -372), (8, 12, 22)),
    ("mediastinum", (14, 2, -398), (8, 10, 18)),
    ("lung hilum", (34, -6, -432), (6, 8, 10)),
    ("para-aortic", (20, -16, -690), (8, 6, 45)),
    ("common iliac", (42, -6, -775), (8, 8, 16)),
    ("external iliac", (76, 34, -828), (8, 8, 14)),
    ("inguinal", (84, 74, -880), (8, 6, 14)),
]


class _Builder:
    """Scales the reference man to a patient and collects the parts."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.stature = float(np.clip(rng.normal(1.0, 0.045), 0.9, 1.1))
        self.girth = np.array([np.clip(rng.normal(1.0, 0.07), 0.88, 1.18), np.clip(rng.normal(1.0, 0.08), 0.86, 1.22)])
        self.anatomy = Anatomy()

    def scale(self, z: float) -> np.ndarray:
        """Factors along x, y, z at the reference level z."""
        across = np.array([self.stature] * 2) if z > HEAD_Z else self.girth
        return np.array([*across, self.stature])

    def place(self, points: Iterable[Sequence[float]]) -> np.ndarray:
        return _points(np.array(p) * self.scale(p[2]) for p in points)

    def add(self, tissue: str, solid: Solid) -> Solid:
        self.anatomy.parts.append(Part(tissue, solid))
        return solid

    def ellipsoid(self, tissue, centre, radii, angle=(0, 0, 0), power=2.0, shift=None, size=1.0) -> Ellipsoid:
        """Add an ellipsoid of the reference man; `shift` (mm) and `size` vary it from patient to patient."""
        centre = self.place([centre])[0] + (0 if shift is None else shift)
        return self.add(tissue, Ellipsoid(centre, np.array(radii) * self.scale(centre[2]).mean() * size, tuple(angle), power))

    def tube(self, tissue, points, radii, shift=None, size=1.0) -> Tube:
        """Add a tube of the reference man; one radius serves all points."""
        points = self.place(points) + (0 if shift is None else shift)
        return self.add(tissue, Tube(points, np.broadcast_to(np.array(radii, dtype=float) * size, len(points))))

    def shift(self, mm: float) -> np.ndarray:
        return np.clip(self.rng.normal(0, mm, 3), -2 * mm, 2 * mm)

    def size(self, spread: float) -> float:
        return float(np.clip(self.rng.normal(1, spread), 1 - 2 * spread, 1 + 2 * spread))

    def anchor(self, site: str, location: str, centre: np.ndarray, spread: Sequence[float]) -> None:
        self.anatomy.anchors.append(Anchor(site, location, np.asarray(centre, dtype=float), np.asarray(spread, dtype=float)))


def make_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a patient: the reference man (ICRP Publication 89: stature 176 cm; organ masses), scaled and varied."""
    b = _Builder(rng)
    _add_body(b)
    _add_chest(b)
    _add_bones(b)
    _add_abdomen(b)
    _add_head(b)
    for name, centre, spread in STATIONS:
        for side, sign in (("right", 1), ("left", -1)):
            place = b.place([(sign * centre[0], centre[1], centre[2])])[0]
            b.anchor("node", f"{side} {name}", place, spread)
    return b.anatomy


def _add_body(b: _Builder) -> None:
    """Skin and fat, and the muscles below; arms raised beside the head (four of five) or at the sides."""
    fat = float(b.rng.uniform(10, 16) + 60 * max(0, b.girth.mean() - 0.95))
    trunk = TRUNK * np.array([b.stature, *b.girth, b.girth[1]])
    head = [
        Ellipsoid(b.place([(0, 0, -84)])[0], np.array([80, 98, 84]) * b.stature),
        Ellipsoid(b.place([(0, 22, -150)])[0], np.array([62, 68, 86]) * b.stature),
    ]
    raised = b.rng.random() < 0.8
    arm = [(165, -4, -325), (212, 4, -165), (178, 22, 15), (70, 30, 95)] if raised else [(176, -6, -330), (208, -16, -620), (214, 26, -880)]
    limbs = []
    for sign in (1, -1):
        arm_line = b.place([(sign * x, y, z) for x, y, z in arm])
        leg_line = b.place([(sign * x, y, z) for x, y, z in [(86, -4, -900), (82, 0, -1290), (78, -4, -1690), (78, 60, -1740)]])
        limbs += [Tube(arm_line, np.array([50.0, 42, 36, 32][: len(arm)])), Tube(leg_line, np.array([86.0, 60, 40, 36]) * b.girth.mean())]
    b.anatomy.body = [Outline(trunk), *head, *limbs]
    for solid in b.anatomy.body:
        b.add("fat", solid)
    b.add("muscle", Outline(trunk - np.array([0, 1, 1, 0]) * np.minimum(fat, 0.25 * trunk[:, 1:2])))
    for solid in head:
        b.add("muscle", Ellipsoid(solid.centre, solid.radii - 5))
    for solid in limbs:
        b.add("muscle", Tube(solid.points, solid.radii - 0.5 * fat))
        start, end = solid.points[:2]
        humerus = start[2] > -600 * b.stature
        if humerus:
            b.add("cortical bone", Tube(solid.points, np.array([16.0, 11, 10, 9][: len(solid.points)])))
            b.add("fatty marrow", Tube(solid.points[:2], np.array([10.0, 5])))
            b.anchor("bone", "humerus", start + 0.08 * (end - start), (4, 4, 8))
    # Visceral fat: what is not an organ between the abdominal muscles.
    b.ellipsoid("fat", (0, 16, -690), (114, 74, 180), power=3.0)


def _add_chest(b: _Builder) -> None:
    """Lungs, mediastinum, great vessels, heart."""
    shift = b.shift(4)
    for side, sign, radii in (("right", 1, (58, 82, 122)), ("left", -1, (55, 80, 122))):
        lung = b.ellipsoid("lung", (sign * 80, -2, -425), radii, power=2.3, size=b.size(0.04))
        b.anchor("lung", f"{side} lung", lung.centre + (0, 0, 15), 0.62 * lung.radii)
    b.ellipsoid("mediastinum", (-2, 4, -430), (36, 72, 112), power=2.5)
    b.tube("airway", [(0, 14, -215), (0, 12, -270), (0, 0, -390)], 8)
    b.ellipsoid("thyroid", (19, 22, -276), (9, 9, 20))
    b.ellipsoid("thyroid", (-19, 22, -276), (9, 9, 20))
    aorta = [(6, 28, -448), (4, 26, -408), (-14, 4, -388), (-24, -28, -400), (-24, -40, -430), (-20, -42, -540), (-8, -18, -610), (-4, -12, -728)]
    b.tube("blood", aorta, [15, 14, 13, 12, 12, 11, 10, 9], shift)
    b.tube("blood", [(26, 10, -400), (24, 8, -470), (22, -4, -560), (20, -12, -728)], [9, 11, 12, 11], shift)
    for sign in (1, -1):
        b.tube("blood", [(sign * 8, -12, -726), (sign * 46, -10, -785), (sign * 80, 40, -850), (sign * 84, 62, -890)], [9, 8, 7, 7])
    b.ellipsoid("blood", (6, 34, -480), (42, 36, 44), shift=shift)
    heart = b.size(0.08)
    b.ellipsoid("myocardium", (-36, 32, -488), (34, 33, 46), (30, 35, 0), shift=shift, size=heart)
    b.ellipsoid("blood", (-33, 28, -481), (21, 20, 34), (30, 35, 0), shift=shift, size=heart)


def _add_bones(b: _Builder) -> None:
    """Spine, ribs, sternum, shoulder girdle, pelvis, femora, tibiae."""
    rng = b.rng

    def spine_y(z: float) -> float:
        return float(np.interp(z, SPINE_Z, SPINE_Y))

    vertebrae = [("cervical", i + 1, -165 - 14.0 * i, 13.0, 11.0, 5.2) for i in range(7)]
    vertebrae += [("thoracic", i + 1, -268 - 22.4 * i, 15 + 0.5 * i, 14 + 0.35 * i, 9.3) for i in range(12)]
    vertebrae += [("lumbar", i + 1, -544 - 38.0 * i, 23.0 + 0.5 * i, 18.0, 15.5) for i in range(5)]
    cord = [z for _, _, z, *_ in vertebrae]
    for region, number, z, half_width, half_depth, half_height in vertebrae:
        y = spine_y(z)
        b.tube("cortical bone", [(0, y - half_depth - 14, z), (0, y - half_depth - 36, z - 8)], 5.5)
        for sign in (1, -1):
            b.tube("cortical bone", [(sign * 10, y - half_depth - 4, z), (sign * 28, y - half_depth - 14, z - 2)], 5)
        b.ellipsoid("vertebral shell", (0, y, z), (half_width, half_depth, half_height), power=4)
        b.ellipsoid("marrow", (0, y, z), (half_width - 3, half_depth - 3, half_height - 2.5), power=4)
        if region != "cervical":
            b.anchor("bone", f"{region} vertebra {number}", b.place([(0, y, z)])[0], (0.3 * half_width, 0.3 * half_depth, 3))
    b.tube("spinal cord", [(0, spine_y(z) - 24, z) for z in cord], 7)
    widths = [72, 104, 124, 136, 143, 146, 147, 146, 142, 136]
    for i, width in enumerate(widths):
        z = -290 - 24.0 * i
        depth = 62 + 3.8 * i if i < 6 else 88
        for side, sign in (("right", 1), ("left", -1)):
            degrees = np.linspace(-82, 62 if i < 7 else 40, 10)
            line = [
                (sign * width * np.cos(t), 2 + depth * np.sin(t), z - 28 * (1 + np.sin(t))) for t in np.radians(degrees)
            ]
            rib = b.tube("cortical bone", line, 5.5)
            at = int(rng.integers(3, 8))
            b.anchor("bone", f"{side} rib {i + 1}", rib.points[at], (1, 1, 1))
    sternum = b.tube("vertebral shell", [(0, 80, -345), (0, 94, -420), (0, 97, -480)], [14, 12, 9])
    b.tube("marrow", [(0, 80, -345), (0, 94, -420), (0, 97, -480)], [9, 8, 5])
    b.anchor("bone", "sternum", sternum.points[1], (2, 2, 35))
    for side, sign in (("right", 1), ("left", -1)):
        b.tube("cortical bone", [(sign * 18, 66, -334), (sign * 80, 44, -318), (sign * 152, 4, -318)], 7)
        scapula = b.ellipsoid("cortical bone", (sign * 112, -78, -395), (38, 6, 58), (0, 0, sign * 25), power=2.5)
        b.anchor("bone", f"{side} scapula", scapula.centre, (12, 2, 20))
        for tissue, thinner in (("vertebral shell", 0), ("marrow", 3.5)):
            wing = b.ellipsoid(tissue, (sign * 82, -28, -778), (10 - thinner, 50 - thinner, 54 - thinner), (0, -sign * 22, sign * 35))
        b.anchor("bone", f"{side} ilium", wing.centre, (3, 22, 22))
        hip = [(sign * 74, 8, -828), (sign * 62, -36, -895), (sign * 32, 24, -910), (sign * 9, 52, -876), (sign * 74, 8, -828)]
        b.tube("vertebral shell", hip, 11)
        b.tube("marrow", hip, 7)
        b.anchor("bone", f"{side} ischium", b.place([(sign * 62, -34, -892)])[0], (4, 4, 6))
        femur = [(sign * 88, 0, -846), (sign * 120, -6, -876), (sign * 112, 0, -940), (sign * 84, 6, -1275)]
        b.tube("vertebral shell", femur[:2], [25, 18])
        b.tube("marrow", femur[:2], [21, 14])
        b.tube("cortical bone", femur[1:], [18, 16, 17])
        b.tube("fatty marrow", femur[1:], [13, 9, 10])
        b.tube("cortical bone", [(sign * 82, 0, -1300), (sign * 78, 0, -1690)], [18, 13])
        b.anchor("bone", f"{side} femur", b.place([(sign * 104, -3, -862)])[0], (12, 3, 12))
    for tissue, thinner in (("vertebral shell", 0), ("marrow", 4)):
        sacrum = b.ellipsoid(tissue, (0, -66, -772), (50 - thinner, 20 - thinner, 50 - thinner), (-20, 0, 0), power=2.5)
    b.anchor("bone", "sacrum", sacrum.centre, (24, 4, 18))


def _add_abdomen(b: _Builder) -> None:
    """Liver, spleen, stomach, gut, kidneys, ureters, bladder, prostate."""
    rng = b.rng
    shift, size = b.shift(5), b.size(0.07)
    liver = b.ellipsoid("liver", (66, 14, -588), (76, 76, 72), power=2.3, shift=shift, size=size)
    b.ellipsoid("liver", (-8, 48, -572), (62, 38, 40), (0, 0, -10), shift=shift, size=size)
    b.anchor("liver", "liver", liver.centre, 0.6 * liver.radii)
    b.ellipsoid("spleen", (-108, -42, -575), (24, 40, 47), (15, -15, 0), shift=b.shift(4), size=b.size(0.12))
    b.tube("stomach", [(-48, 36, -556), (-66, 50, -600), (-36, 66, -640), (4, 58, -646)], [26, 27, 19, 12], b.shift(4), b.size(0.1))
    b.tube("duodenum", [(14, 56, -646), (44, 34, -650), (46, 22, -695), (8, 14, -708), (-26, 26, -690)], 12, b.shift(4), b.size(0.08))
    for _ in range(3):
        loop = [(rng.uniform(-72, 72), rng.uniform(30, 64), rng.uniform(-830, -690)) for _ in range(5)]
        b.tube("small bowel", loop, 12)
    colon = [(94, 14, -800), (98, 10, -690), (84, 58, -686), (0, 74, -706), (-88, 44, -668), (-104, 0, -720), (-98, 12, -800), (-44, 10, -848), (0, -36, -860), (0, -46, -915)]  # fmt: skip
    shift = b.shift(5)
    b.tube("colon", colon, 19, shift)
    b.tube("colon content", colon[:-1], 13, shift)
    bladder = b.ellipsoid("bladder", (0, 46, -862), (40, 32, 32), shift=b.shift(4), size=float(rng.uniform(0.65, 1.2)))
    b.ellipsoid("prostate", (0, 24, -908), (20, 17, 17), shift=b.shift(2), size=b.size(0.15))
    for sign, z in ((1, -656), (-1, -644)):
        shift, size = b.shift(6), b.size(0.08)
        kidney = b.ellipsoid("kidney", (sign * 64, -48, z), (28, 25, 54), (-10, sign * 12, 0), shift=shift, size=size)
        pelvis = b.ellipsoid("renal pelvis", (sign * 50, -40, z), (11, 9, 19), shift=shift, size=size)
        # Urine is seen in pieces of the ureter, where a wave of it passes.
        way = np.linspace(pelvis.centre + (0, 4, -24), [sign * 26.0, bladder.centre[1] - 30, bladder.centre[2] + 10], 9)
        way[:, 1] += 16 * np.sin(np.linspace(0, np.pi, 9))
        at = int(rng.integers(0, 6))
        if rng.random() < 0.6:
            b.add("ureter", Tube(way[at : at + 3], np.full(3, rng.uniform(2.5, 4))))
        del kidney


def _add_head(b: _Builder) -> None:
    """Skull, brain, airways of the face, salivary and lacrimal glands, tonsils, mandible."""
    b.ellipsoid("cortical bone", (0, 0, -84), (75, 93, 79))
    b.ellipsoid("grey matter", (0, 0, -82), (68, 86, 71), size=b.size(0.02))
    b.ellipsoid("white matter", (0, 0, -78), (46, 62, 44), size=b.size(0.05))
    b.ellipsoid("grey matter", (0, -48, -140), (46, 26, 23))
    b.ellipsoid("airway", (0, 62, -150), (13, 22, 26))
    b.tube("airway", [(0, 38, -160), (0, 12, -190), (0, 14, -220)], 8)
    b.tube("cortical bone", [(56, 8, -160), (50, 12, -190), (34, 56, -212), (0, 78, -218), (-34, 56, -212), (-50, 12, -190), (-56, 8, -160)], 6)
    glands = {name: b.size(0.1) for name in ("parotid", "submandibular", "lacrimal", "tonsil")}
    for sign in (1, -1):
        b.ellipsoid("parotid", (sign * 57, 2, -172), (11, 17, 25), shift=b.shift(2), size=glands["parotid"])
        b.ellipsoid("submandibular", (sign * 30, 36, -208), (11, 16, 13), shift=b.shift(2), size=glands["submandibular"])
        b.ellipsoid("lacrimal", (sign * 37, 76, -108), (6, 5, 8), shift=b.shift(1), size=glands["lacrimal"])
        b.ellipsoid("tonsil", (sign * 16, 14, -188), (7, 9, 12), shift=b.shift(1), size=glands["tonsil"])


# ---------------------------------------------------------------- lesions


@dataclass(frozen=True)
class Lesion:
    """An ellipsoid along the world's axes: where it is, centre and half-axes (mm), uptake (SUV before blur and noise), CT number (HU)."""

    site: str
    location: str
    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    suv: float
    hu: float

    @property
    def volume(self) -> float:
        """Volume of the ellipsoid in ml."""
        return 4 / 3 * math.pi * math.prod(self.radii) / 1000


# How often lesions lie where (melanoma, lung cancer and lymphoma; prostate cancer), and their uptake (SUV).
LESION_SITES = {
    "fdg": {"node": 0.42, "lung": 0.24, "bone": 0.18, "liver": 0.16},
    "psma": {"bone": 0.52, "node": 0.40, "liver": 0.04, "lung": 0.04},
}
LESION_SUV = {"fdg": (4.0, 20.0), "psma": (5.0, 40.0)}
LARGEST_DIAMETER = {"bone": 36.0, "node": 42.0, "lung": 60.0, "liver": 64.0}
