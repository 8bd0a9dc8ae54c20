"""A study as its page shows it: cropped to the body, turned upright, its lesions numbered as in the read-outs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine

from petct_cascade.metrics import lesions_by_size
from petct_cascade.pictures import Scene, crop_to_body, to_canonical
from petct_training.errors import InputError
from petct_training.grids import bounding_box

Place = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class StudyImages:
    """The images of a study, in any orientation.

    Attributes:
        pet: body-weight SUV (X, Y, Z).
        affine: (4, 4), from voxels of the PET to world mm (RAS, as in NIfTI).
        ct: HU (X, Y, Z), if there is a CT.
        ct_affine: the (4, 4) affine of `ct` where it lies on another grid than the PET.
        reference: reference mask (X, Y, Z) on the grid of the PET, if there is one.
        prediction: predicted mask (X, Y, Z) on the grid of the PET, if there is one.
    """

    pet: np.ndarray
    affine: np.ndarray
    ct: np.ndarray | None = None
    ct_affine: np.ndarray | None = None
    reference: np.ndarray | None = None
    prediction: np.ndarray | None = None

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """The masks that there are, by their roles, the reference first."""
        given = {"reference": self.reference, "prediction": self.prediction}
        return {role: mask for role, mask in given.items() if mask is not None}


def numbered_scene(case: str, images: StudyImages) -> Scene:
    """Return PET and lesions of a study, cropped to the body, with axes that run to the patient's right, front and head.

    Returns:
        Its masks hold the lesions' numbers (X, Y, Z) uint32, 0 where there is none. They are numbered before the axes are turned,
        since of two lesions of one size the first in the order of the voxels has the lower number.

    Raises:
        InputError: the images do not lie on one grid.
    """
    shape = np.shape(images.pet)
    others = {f"{role} mask": mask for role, mask in images.masks.items()}
    if images.ct is not None and images.ct_affine is None:
        others["CT"] = images.ct
    for name, array in others.items():
        if len(shape) != 3 or np.shape(array) != shape:
            raise InputError(f"{case}: the {name} has the shape {np.shape(array)} and the PET {shape}: give arrays on one grid.")
    whole = Scene(np.asarray(images.pet), {role: np.asarray(mask) for role, mask in images.masks.items()}, images.affine)
    body = crop_to_body(whole)
    numbers = {role: _numbers(mask != 0) for role, mask in body.masks.items()}
    return to_canonical(Scene(body.pet, numbers, body.affine))


def _numbers(mask: np.ndarray) -> np.ndarray:
    """Return the lesions' numbers (X, Y, Z) of a mask; uint32."""
    numbers = np.zeros(mask.shape, np.uint32)
    box = bounding_box(mask)
    if box is not None:
        numbers[box] = lesions_by_size(mask[box])[0]
    return numbers


def places_of_lesions(numbers: np.ndarray, affine: np.ndarray, count: int) -> dict[int, Place]:
    """Return where lesions 1 to `count` are looked at: the centre of the voxel of each that lies nearest to its centroid.

    The centroid itself may lie outside of a lesion, such as a ring.

    Args:
        numbers: of the lesions (X, Y, Z), 0 where there is none.
        affine: (4, 4), from voxels to world mm.
        count: up to which number.

    Returns:
        By the number, (x, y, z) in world mm.
    """
    voxels = np.argwhere((numbers > 0) & (numbers <= count))
    owner = numbers[tuple(voxels.T)].astype(np.int64)
    points = apply_affine(affine, voxels).reshape(-1, 3)
    sizes = np.maximum(np.bincount(owner, minlength=count + 1), 1)
    centroids = np.stack([np.bincount(owner, axis, count + 1) for axis in points.T], axis=1) / sizes[:, None]
    distances = np.linalg.norm(points - centroids[owner], axis=1)
    order = np.lexsort((distances, owner))
    found, first = np.unique(owner[order], return_index=True)
    nearest = points[order[first]]
    return {int(number): (float(x), float(y), float(z)) for number, (x, y, z) in zip(found, nearest, strict=True)}
