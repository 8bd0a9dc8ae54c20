"""The anatomy of a patient: the reference man, scaled and varied."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from petct_cascade.phantom.reference_man import (
    AORTA,
    ARM_LOWERED,
    ARM_RAISED,
    COLON,
    DUODENUM,
    FEMUR,
    HEAD_Z,
    HIP_BONE,
    ILIAC_ARTERY,
    MANDIBLE,
    SIDES,
    SPINE_Y,
    SPINE_Z,
    STATIONS,
    STOMACH,
    TRUNK,
    VENA_CAVA,
)
from petct_cascade.phantom.solids import Ellipsoid, Outline, Solid, Tube

Point = Sequence[float]
AnySolid = TypeVar("AnySolid", Ellipsoid, Tube, Outline)


class Part(NamedTuple):
    """A solid of one tissue; later parts replace earlier ones where they overlap."""

    tissue: str
    solid: Solid


class Anchor(NamedTuple):
    """A place where lesions grow.

    Attributes:
        site: "node", "lung", "bone" or "liver".
        location: what a reader calls the place.
        centre: the middle of the region in which a lesion's centre lies, (3,) in mm.
        spread: the region's half-axes, (3,) in mm.
    """

    site: str
    location: str
    centre: np.ndarray
    spread: np.ndarray


class Variation(NamedTuple):
    """How an organ differs from the reference man's: shifted, (3,) in mm, and larger by a factor."""

    shift: np.ndarray | float = 0.0
    size: float = 1.0


AS_REFERENCE = Variation()


class Anatomy:
    """One patient, drawn by scaling and varying the reference man.

    Args:
        rng: draws the patient.

    Attributes:
        parts: in the order in which they are painted.
        body: the solids that make the surface.
        anchors: where lesions grow.
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
        self._add_lymph_nodes()

    # ---------------------------------------------------------------- from the reference man to this patient

    def _scale(self, z: float) -> np.ndarray:
        """Return the factors along x, y, z, (3,), at the reference level z (mm)."""
        across = (self.stature, self.stature) if z > HEAD_Z else self.girth
        return np.array([*across, self.stature])

    def _place(self, points: Iterable[Point], sign: int = 1) -> np.ndarray:
        """Return where points of the reference man, or with a sign of -1 their mirror images, lie in this patient, (n, 3)."""
        return np.array([np.array(point) * (sign, 1, 1) * self._scale(point[2]) for point in points])

    def _vary_place(self, mm: float) -> np.ndarray:
        """Draw a shift, (3,), with a standard deviation of so many mm, at most twice that."""
        return np.clip(self.rng.normal(0, mm, 3), -2 * mm, 2 * mm)

    def _vary_size(self, spread: float) -> float:
        """Draw a factor near 1 with a standard deviation, at most twice that."""
        return float(np.clip(self.rng.normal(1, spread), 1 - 2 * spread, 1 + 2 * spread))

    def _vary(self, mm: float, spread: float) -> Variation:
        """Draw a shift, then a factor."""
        return Variation(self._vary_place(mm), self._vary_size(spread))

    def _add(self, tissue: str, solid: AnySolid) -> AnySolid:
        """Add a solid that is this patient's own."""
        self.parts.append(Part(tissue, solid))
        return solid

    def _add_ellipsoid(
        self,
        tissue: str,
        centre: Point,
        radii: Point,
        vary: Variation = AS_REFERENCE,
        angle: tuple[float, float, float] = (0, 0, 0),
        power: float = 2.0,
    ) -> Ellipsoid:
        """Add an ellipsoid of the reference man, varied."""
        scaled = np.array(radii) * self._scale(centre[2]).mean() * vary.size
        return self._add(tissue, Ellipsoid(self._place([centre])[0] + vary.shift, scaled, angle, power))

    def _add_tube(
        self, tissue: str, points: Sequence[Point], radii: float | Point, sign: int = 1, vary: Variation = AS_REFERENCE
    ) -> Tube:
        """Add a tube of the reference man, or its mirror image, varied; one radius serves all points."""
        scaled = np.broadcast_to(np.array(radii, dtype=float) * vary.size, len(points))
        return self._add(tissue, Tube(self._place(points, sign) + vary.shift, scaled))

    def _add_anchor(self, site: str, location: str, centre: np.ndarray, spread: Point | np.ndarray) -> None:
        """Add a place where lesions grow."""
        self.anchors.append(Anchor(site, location, centre, np.asarray(spread, dtype=float)))

    # ---------------------------------------------------------------- trunk and limbs

    def _add_body(self) -> None:
        """Add the table, skin and fat, the muscles below; arms raised beside the head (four of five) or at the sides."""
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
        leg = ((86, -4, -900), (82, 0, -1290))
        legs = [Tube(self._place(leg, sign), np.array([86, 60]) * self.girth.mean()) for _, sign in SIDES]
        self.body = [Outline(trunk), *head, *arms, *legs]
        self.parts += [Part("fat", solid) for solid in self.body]
        self._add("muscle", Outline(trunk - np.array([0, 1, 1, 0]) * np.minimum(fat, 0.25 * trunk[:, 1:2])))
        for skull in head:
            self._add("muscle", Ellipsoid(skull.centre, skull.radii - 5))
        for limb in arms + legs:
            self._add("muscle", Tube(limb.points, limb.radii - 0.5 * fat))
        for (side, _), limb in zip(SIDES, arms, strict=True):
            self._add("cortical bone", Tube(limb.points, np.array([16.0, 11, 10, 9][: len(arm)])))
            self._add("fatty marrow", Tube(limb.points[:2], np.array([10.0, 5])))
            self._add_anchor("bone", f"{side} humerus", 0.92 * limb.points[0] + 0.08 * limb.points[1], (4, 4, 8))
        # Visceral fat: what is not an organ between the abdominal muscles.
        self._add_ellipsoid("fat", (0, 16, -690), (114, 74, 180), power=3.0)

    # ---------------------------------------------------------------- chest

    def _add_chest(self) -> None:
        """Add lungs, mediastinum, great vessels, heart."""
        vessels = Variation(self._vary_place(4))
        for (side, sign), radii in zip(SIDES, ((58, 82, 122), (55, 80, 122)), strict=True):
            size = Variation(size=self._vary_size(0.04))
            lung = self._add_ellipsoid("lung", (sign * 80, -2, -425), radii, size, power=2.3)
            self._add_anchor("lung", f"{side} lung", lung.centre + np.array([0, 0, 15]), 0.62 * lung.radii)
        self._add_ellipsoid("mediastinum", (-2, 4, -430), (36, 72, 112), power=2.5)
        self._add_tube("airway", [(0, 14, -215), (0, 12, -270), (0, 0, -390)], 8)
        self._add_tube("blood", AORTA, [15, 14, 13, 12, 12, 11, 10, 9], vary=vessels)
        self._add_tube("blood", VENA_CAVA, [9, 11, 12, 11], vary=vessels)
        for _, sign in SIDES:
            self._add_ellipsoid("thyroid", (sign * 19, 22, -276), (9, 9, 20))
            self._add_tube("blood", ILIAC_ARTERY, [9, 8, 7, 7], sign)
        self._add_ellipsoid("blood", (6, 34, -480), (42, 36, 44), vessels)
        heart = Variation(vessels.shift, self._vary_size(0.08))
        self._add_ellipsoid("myocardium", (-36, 32, -488), (34, 33, 46), heart, angle=(30, 35, 0))
        self._add_ellipsoid("blood", (-33, 28, -481), (21, 20, 34), heart, angle=(30, 35, 0))

    # ---------------------------------------------------------------- bones

    def _add_bones(self) -> None:
        """Add spine, ribs, sternum, shoulder girdle, pelvis, femora."""
        self._add_spine()
        self._add_ribs()
        self._add_sternum()
        for side, sign in SIDES:
            self._add_shoulder(side, sign)
            self._add_hip(side, sign)
        for tissue, radii in (("vertebral shell", (50, 20, 50)), ("marrow", (46, 16, 46))):
            sacrum = self._add_ellipsoid(tissue, (0, -66, -772), radii, angle=(-20, 0, 0), power=2.5)
        self._add_anchor("bone", "sacrum", sacrum.centre, (24, 4, 18))

    def _add_spine(self) -> None:
        """Add 24 vertebrae and the spinal cord. Lesions grow in all but the cervical ones."""
        # Region, number, level (z), half-width, half-depth, half-height.
        vertebrae = [("cervical", i + 1, -165 - 14.0 * i, 13.0, 11.0, 5.2) for i in range(7)]
        vertebrae += [("thoracic", i + 1, -268 - 22.4 * i, 15 + 0.5 * i, 14 + 0.35 * i, 9.3) for i in range(12)]
        vertebrae += [("lumbar", i + 1, -544 - 38.0 * i, 23.0 + 0.5 * i, 18.0, 15.5) for i in range(5)]
        canal = []
        for region, number, z, half_width, half_depth, half_height in vertebrae:
            y = float(np.interp(z, SPINE_Z, SPINE_Y))
            canal.append((0, y - 24, z))
            self._add_vertebral_arch(y, z, half_depth)
            self._add_ellipsoid("vertebral shell", (0, y, z), (half_width, half_depth, half_height), power=4)
            inner = (half_width - 3, half_depth - 3, half_height - 2.5)
            marrow = self._add_ellipsoid("marrow", (0, y, z), inner, power=4)
            if region != "cervical":
                spread = (0.3 * half_width, 0.3 * half_depth, 3)
                self._add_anchor("bone", f"{region} vertebra {number}", marrow.centre, spread)
        self._add_tube("spinal cord", canal, 7)

    def _add_vertebral_arch(self, y: float, z: float, half_depth: float) -> None:
        """Add the spinous and the two transverse processes of the vertebra at y and z (mm)."""
        self._add_tube("cortical bone", [(0, y - half_depth - 14, z), (0, y - half_depth - 36, z - 8)], 5.5)
        for _, sign in SIDES:
            self._add_tube("cortical bone", [(10, y - half_depth - 4, z), (28, y - half_depth - 14, z - 2)], 5, sign)

    def _add_ribs(self) -> None:
        """Add ten pairs of ribs."""
        for i, width in enumerate((72, 104, 124, 136, 143, 146, 147, 146, 142, 136)):
            z, depth = -290 - 24.0 * i, 62 + 3.8 * i if i < 6 else 88
            angles = np.radians(np.linspace(-82, 62 if i < 7 else 40, 10))
            line = [(width * np.cos(t), 2 + depth * np.sin(t), z - 28 * (1 + np.sin(t))) for t in angles]
            for side, sign in SIDES:
                rib = self._add_tube("cortical bone", line, 5.5, sign)
                self._add_anchor("bone", f"{side} rib {i + 1}", rib.points[self.rng.integers(3, 8)], (1, 1, 1))

    def _add_sternum(self) -> None:
        """Add the breastbone."""
        for tissue, radii in (("vertebral shell", (14, 12, 9)), ("marrow", (9, 8, 5))):
            sternum = self._add_tube(tissue, [(0, 80, -345), (0, 94, -420), (0, 97, -480)], radii)
        self._add_anchor("bone", "sternum", sternum.points[1], (2, 2, 35))

    def _add_shoulder(self, side: str, sign: int) -> None:
        """Add the collarbone and the shoulder blade of one side."""
        self._add_tube("cortical bone", [(18, 66, -334), (80, 44, -318), (152, 4, -318)], 7, sign)
        at, radii = (sign * 112, -78, -395), (38, 6, 58)
        scapula = self._add_ellipsoid("cortical bone", at, radii, angle=(0, 0, sign * 25), power=2.5)
        self._add_anchor("bone", f"{side} scapula", scapula.centre, (12, 2, 20))

    def _add_hip(self, side: str, sign: int) -> None:
        """Add the hip bone and the femur of one side."""
        for tissue, radii in (("vertebral shell", (10, 50, 54)), ("marrow", (6.5, 46.5, 50.5))):
            wing = self._add_ellipsoid(tissue, (sign * 82, -28, -778), radii, angle=(0, -sign * 22, sign * 35))
        self._add_anchor("bone", f"{side} ilium", wing.centre, (3, 22, 22))
        self._add_tube("vertebral shell", HIP_BONE, 11, sign)
        hip = self._add_tube("marrow", HIP_BONE, 7, sign)
        self._add_anchor("bone", f"{side} ischium", hip.points[1], (4, 4, 6))
        self._add_tube("vertebral shell", FEMUR[:2], [25, 18], sign)
        neck = self._add_tube("marrow", FEMUR[:2], [21, 14], sign)
        self._add_tube("cortical bone", FEMUR[1:], [18, 16, 17], sign)
        self._add_tube("fatty marrow", FEMUR[1:], [13, 9, 10], sign)
        self._add_anchor("bone", f"{side} femur", neck.points.mean(0), (12, 3, 12))

    # ---------------------------------------------------------------- abdomen and pelvis

    def _add_abdomen(self) -> None:
        """Add liver, spleen, stomach, gut, bladder, prostate, kidneys, ureters."""
        vary = self._vary(5, 0.07)
        liver = self._add_ellipsoid("liver", (66, 14, -588), (76, 76, 72), vary, power=2.3)
        self._add_ellipsoid("liver", (-8, 48, -572), (62, 38, 40), vary, angle=(0, 0, -10))
        self._add_anchor("liver", "liver", liver.centre, 0.6 * liver.radii)
        self._add_ellipsoid("spleen", (-108, -42, -575), (24, 40, 47), self._vary(4, 0.12), angle=(15, -15, 0))
        self._add_tube("stomach", STOMACH, [26, 27, 19, 12], vary=self._vary(4, 0.1))
        self._add_tube("duodenum", DUODENUM, 12, vary=self._vary(4, 0.08))
        for _ in range(3):
            self._add_tube("small bowel", self.rng.uniform((-72, 30, -830), (72, 64, -690), (5, 3)).tolist(), 12)
        gut = Variation(self._vary_place(5))
        self._add_tube("colon", COLON, 19, vary=gut)
        self._add_tube("colon content", COLON[:-1], 13, vary=gut)
        filling = Variation(self._vary_place(4), self.rng.uniform(0.65, 1.2))
        bladder = self._add_ellipsoid("bladder", (0, 46, -862), (40, 32, 32), filling)
        self._add_ellipsoid("prostate", (0, 24, -908), (20, 17, 17), self._vary(2, 0.15))
        for (_, sign), z in zip(SIDES, (-656, -644), strict=True):
            vary = self._vary(6, 0.08)
            self._add_ellipsoid("kidney", (sign * 64, -48, z), (28, 25, 54), vary, angle=(-10, sign * 12, 0))
            pelvis = self._add_ellipsoid("renal pelvis", (sign * 50, -40, z), (11, 9, 19), vary)
            self._add_ureter(pelvis.centre, bladder.centre + np.array([sign * 26, -30, 10]))

    def _add_ureter(self, pelvis: np.ndarray, bladder: np.ndarray) -> None:
        """Add, in three of five patients, a piece of the ureter between two points (mm): where a wave of urine passes."""
        way = np.linspace(pelvis + np.array([0, 4, -24]), bladder, 9)
        way[:, 1] += 16 * np.sin(np.linspace(0, np.pi, 9))
        at = int(self.rng.integers(0, 6))
        if self.rng.random() < 0.6:
            self._add("ureter", Tube(way[at : at + 3], np.full(3, self.rng.uniform(2.5, 4))))

    # ---------------------------------------------------------------- head, lymph nodes

    def _add_head(self) -> None:
        """Add skull, brain, airways of the face, mandible, salivary and lacrimal glands, tonsils."""
        self._add_ellipsoid("cortical bone", (0, 0, -84), (75, 93, 79))
        self._add_ellipsoid("grey matter", (0, 0, -82), (68, 86, 71), Variation(size=self._vary_size(0.02)))
        self._add_ellipsoid("white matter", (0, 0, -78), (46, 62, 44), Variation(size=self._vary_size(0.05)))
        self._add_ellipsoid("grey matter", (0, -48, -140), (46, 26, 23))
        self._add_ellipsoid("airway", (0, 62, -150), (13, 22, 26))
        self._add_tube("airway", [(0, 38, -160), (0, 12, -190), (0, 14, -220)], 8)
        self._add_tube("cortical bone", MANDIBLE, 6)
        for tissue, (x, y, z), radii, mm in (
            ("parotid", (57, 2, -172), (11, 17, 25), 2),
            ("submandibular", (30, 36, -208), (11, 16, 13), 2),
            ("lacrimal", (37, 76, -108), (6, 5, 8), 1),
            ("tonsil", (16, 14, -188), (7, 9, 12), 1),
        ):
            size = self._vary_size(0.1)
            for _, sign in SIDES:
                self._add_ellipsoid(tissue, (sign * x, y, z), radii, Variation(self._vary_place(mm), size))

    def _add_lymph_nodes(self) -> None:
        """Add where lesions of lymph nodes grow; a healthy node is too small to be seen."""
        for name, (x, y, z), spread in STATIONS:
            for side, sign in SIDES:
                self._add_anchor("node", f"{side} {name}", self._place([(sign * x, y, z)])[0], spread)
