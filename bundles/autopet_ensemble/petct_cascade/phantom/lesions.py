"""Lesions of a phantom: where they grow, how large, and how bright."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from petct_cascade.phantom.anatomy import Anatomy, Anchor
from petct_cascade.phantom.difficulty import Difficulty
from petct_cascade.phantom.scanners import Grid
from petct_cascade.phantom.tissues import HOT_TISSUES, TissueValues


@dataclass(frozen=True)
class Lesion:
    """An ellipsoid along the world's axes.

    Attributes:
        site: "node", "lung", "bone" or "liver".
        location: what a reader calls the place.
        centre: (3,) in mm.
        radii: half-axes, (3,) in mm.
        suv: uptake before blur and noise.
        hu: CT number.
    """

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

# A lesion's uptake is at least this many times that of what it grows in, before noise. PERCIST asks for 1.5 times the liver's of
# a lesion that is measured (Wahl et al., J Nucl Med 2009;50:122S).
CONTRAST = 1.5

# Points (n, 3) in and on the unit sphere, at which a lesion's clearance and what it grows in are found.
_DIRECTIONS = np.array([d for d in np.ndindex(3, 3, 3) if d != (1, 1, 1)]) - 1.0
_PROBES = np.concatenate([r * _DIRECTIONS / np.linalg.norm(_DIRECTIONS, axis=1, keepdims=True) for r in (0, 0.5, 1)])


def draw_lesion(
    rng: np.random.Generator, sites: Mapping[str, LesionSite], anchors: Sequence[Anchor], difficulty: Difficulty
) -> Lesion:
    """Draw a lesion, wherever it comes to lie.

    Args:
        rng: draws it.
        sites: a tracer's entry of `LESION_SITES`.
        anchors: the patient's.
        difficulty: how small and faint it may be.
    """
    name = str(rng.choice(list(sites), p=[site.share for site in sites.values()]))
    site = sites[name]
    own = [anchor for anchor in anchors if anchor.site == name]
    anchor = own[rng.integers(len(own))]
    direction = rng.normal(size=3)
    centre = anchor.centre + anchor.spread * direction / np.linalg.norm(direction) * rng.random() ** (1 / 3)
    # The square root makes large lesions more common than a log-uniform law does.
    smallest = difficulty.smallest_diameter
    diameter = smallest * (site.largest / smallest) ** math.sqrt(rng.random())
    shape = rng.uniform(0.75, 1.25, 3)
    faintest = difficulty.faintest * site.suv[0]
    suv = faintest * (site.suv[1] / faintest) ** rng.random()
    return Lesion(name, anchor.location, centre, 0.5 * diameter * shape / shape.max(), suv, rng.uniform(*site.hu))


def fits(lesion: Lesion, others: Iterable[Lesion], anatomy: Anatomy, grid: Grid, clearance: float) -> bool:
    """Return whether a lesion lies in body and image, so many mm clear of organs of high uptake, two voxels or more from others."""
    gap = 2 * np.array(grid.spacing)
    if any((np.abs(lesion.centre - other.centre) <= lesion.radii + other.radii + gap).all() for other in others):
        return False
    x, y, z = (lesion.centre + _PROBES * lesion.radii).T
    if z.min() < grid.low[2] + clearance or z.max() > grid.high[2] - clearance:
        return False
    if np.min([solid.distance(x, y, z) for solid in anatomy.body], axis=0).max() > -clearance:
        return False
    hot = (part.solid for part in anatomy.parts if part.tissue in HOT_TISSUES)
    return all(solid.distance(x, y, z).min() > clearance for solid in hot)


def stand_out(lesion: Lesion, anatomy: Anatomy, tissues: Mapping[str, TissueValues]) -> Lesion:
    """Return a lesion that takes up at least `CONTRAST` times what the tissues do in whose place it grows.

    Args:
        lesion: as drawn.
        anatomy: the patient's.
        tissues: what each tissue is like in the study, by its name.
    """
    x, y, z = (lesion.centre + _PROBES * lesion.radii).T
    replaced = np.zeros(len(_PROBES))
    for part in anatomy.parts:
        replaced[part.solid.distance(x, y, z) <= 0] = tissues[part.tissue].suv
    return replace(lesion, suv=max(lesion.suv, CONTRAST * float(replaced.max())))
