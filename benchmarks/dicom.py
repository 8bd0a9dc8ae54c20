"""Seconds in which a full-size study in DICOM is read: python benchmarks/dicom.py

Two series of 326 slices, CT 512 x 512 and PET 400 x 400, written as an uncompressed phantom-like study. "pydicom" is dcmread and
pixel_array of each file, and nothing more. "found" is the pass over all headers and the choice of series; "read" gives CT in HU and
PET in SUV, checked, as volumes; "converted" writes both as compressed NIfTI. Each figure is the median of some rounds.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import common
import numpy as np
import pydicom
from dicom_writer import Study, Variant, write_study

from petct_cascade.convert import convert
from petct_cascade.dicom.finding import find_in_folder
from petct_cascade.volumes import read_volume

ROUNDS = 3
SLICES, CT_SIZE, PET_SIZE = 326, 512, 400


def large_study() -> Study:
    """A study of full size: noise, since neither reader looks at what is shown."""
    random = np.random.default_rng(0)
    ct = random.integers(-1000, 1500, (CT_SIZE, CT_SIZE, SLICES)).astype(np.float32)
    pet = random.random((PET_SIZE, PET_SIZE, SLICES), dtype=np.float32) * 10
    ct_affine, pet_affine = np.diag([-0.977, -0.977, 3.0, 1.0]), np.diag([-2.036, -2.036, 3.0, 1.0])
    return Study(ct, ct_affine, pet, pet_affine)


def read_by_pydicom(folder: Path) -> None:
    for file in folder.rglob("*.dcm"):
        pydicom.dcmread(file).pixel_array  # noqa: B018


def read_by_us(folder: Path) -> None:
    (study,), _ = find_in_folder(folder)
    for source in (study.ct, study.pet):
        assert source is not None
        read_volume(source)


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "dicom"
        write_study(folder, large_study(), Variant())
        found: dict[str, list[float]] = {"pydicom": [], "found": [], "found and read": []}
        for _ in range(ROUNDS):
            found["pydicom"].append(seconds(lambda: read_by_pydicom(folder)))
            found["found"].append(seconds(lambda: find_in_folder(folder)))
            found["found and read"].append(seconds(lambda: read_by_us(folder)))
        found["converted"] = [seconds(lambda: convert(folder, Path(name) / "nifti"))]
        size = sum(file.stat().st_size for file in (Path(name) / "nifti").rglob("*.nii.gz"))
    medians = {what: statistics.median(times) for what, times in found.items()}
    rows = [[what, f"{figure:.2f}", f"{figure / medians['pydicom']:.2f}"] for what, figure in medians.items()]
    common.print_table(["", "seconds", "times pydicom"], rows)
    common.write_json(common.RESULTS / "dicom.json", {"seconds": medians, "nifti_bytes": size})


if __name__ == "__main__":
    main()
