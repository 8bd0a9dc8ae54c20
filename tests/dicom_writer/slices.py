"""The two series of a study as lists of datasets, one a slice, and what a reader must make of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom import Dataset
from pydicom.uid import CTImageStorage, PositronEmissionTomographyImageStorage

from dicom_writer import headers
from dicom_writer.study import RAS_TO_LPS, Study, permute
from dicom_writer.variant import Variant


@dataclass(frozen=True)
class Volume:
    """A series to be written.

    Attributes:
        slices: one dataset for each slice, in the order of the array's.
        array: (X, Y, Z) the values of the study after quantisation, in HU or SUV.
        affine: (4, 4) of the array.
    """

    slices: list[Dataset]
    array: np.ndarray
    affine: np.ndarray


def ct_volume(study: Study, variant: Variant, name: str = "ct", number: int = 2, description: str = "CT WB 3.0 B30f") -> Volume:
    """Return the CT of a study; HU are whole numbers and stored exactly."""
    stored = np.rint(study.ct - variant.ct_intercept)
    stored = stored.astype(np.uint16 if stored.min() >= 0 else np.int16)
    slices = []
    for k in range(stored.shape[2]):
        ds = Dataset()
        headers.patient_and_study(ds, variant)
        headers.ct_image(ds, variant)
        headers.series(ds, variant, name, number, description)
        headers.instance(ds, CTImageStorage, k + 1)
        headers.image_plane(ds, study.ct_affine, k)
        headers.pixels(ds, stored[:, :, k].T)
        slices.append(ds)
    return Volume(slices, stored.astype(float) + variant.ct_intercept, study.ct_affine)


def pet_volume(study: Study, variant: Variant, name: str = "pet", number: int = 4, description: str = "PET WB AC") -> Volume:
    """Return the PET of a study, and its SUV by the slope that is written and the formulas of `physics`."""
    count = study.pet.shape[2]
    order = np.argsort(np.argsort([headers.position(study.pet_affine, k)[2] for k in range(count)], kind="stable"))
    factors = np.array([variant.suv_of_unit(int(index), count) for index in order])
    values = study.pet / factors
    slopes = _slopes(values, variant)
    stored = np.rint(values / slopes).astype(np.int16 if variant.signed else np.uint16)
    slices = []
    for k in range(count):
        ds = Dataset()
        headers.patient_and_study(ds, variant)
        headers.pet_series_and_isotope(ds, variant, count)
        headers.series(ds, variant, name, number, description)
        headers.instance(ds, PositronEmissionTomographyImageStorage, k + 1)
        headers.image_plane(ds, study.pet_affine, k)
        headers.pet_image(ds, variant, int(order[k]), count)
        headers.philips_private(ds, variant, factors[k])
        ds.RescaleIntercept, ds.RescaleSlope = "0", headers.number_text(slopes[k])
        headers.pixels(ds, stored[:, :, k].T)
        slices.append(ds)
    return Volume(slices, stored * slopes * factors, study.pet_affine)


def _slopes(values: np.ndarray, variant: Variant) -> np.ndarray:
    """Return the RescaleSlope of each slice (Z,) of values (X, Y, Z), as it is after it was written."""
    highest = values.max((0, 1)) if variant.slope_per_slice else np.full(values.shape[2], values.max())
    highest = np.maximum(highest, 1e-6 * values.max())  # a slice may be empty
    steps = 32767 if variant.signed else 65535
    return np.array([headers.decimal(float(value) * 1.000001 / steps) for value in highest])


def sorted_along_normal(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an array (X, Y, Z) and its affine (4, 4) with the slices sorted by their position along row x column."""
    normal = np.cross(headers.unit_vector(affine, 0), headers.unit_vector(affine, 1))
    backwards = (RAS_TO_LPS @ affine)[:3, 2] @ normal < 0
    return permute(array, affine, (0, 1, 2), (2,) if backwards else ())
