"""Seconds in which a full-size study in DICOM is read, and its results are written: python benchmarks/dicom.py

Two series of 326 slices, CT 512 x 512 and PET 400 x 400, written as an uncompressed phantom-like study. "pydicom" is dcmread and
pixel_array of each file, and the pixels of each series in one array; "pydicom, nothing kept" forgets each file's pixels, so that it
needs no memory. "found" is the pass over all headers and the choice of series; "read" gives CT in HU and
PET in SUV, checked, as volumes; "converted" writes both as compressed NIfTI. "SEG" and "report" write a mask of so many lesions, and
its read-outs. Each figure is the median of some rounds.
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
from petct_cascade.dicom.report_writer import write_report
from petct_cascade.dicom.segmentation_writer import write_segmentation
from petct_cascade.dicom.source import DicomSource
from petct_cascade.readouts import study_readouts
from petct_cascade.volumes import read_volume
from petct_training.commands import command

ROUNDS = 3
SLICES, CT_SIZE, PET_SIZE = 326, 512, 400
LESIONS = (10, 300)


def large_study() -> Study:
    """A study of full size: noise, since neither reader looks at what is shown."""
    random = np.random.default_rng(0)
    ct = random.integers(-1000, 1500, (CT_SIZE, CT_SIZE, SLICES)).astype(np.float32)
    pet = random.random((PET_SIZE, PET_SIZE, SLICES), dtype=np.float32) * 10
    ct_affine, pet_affine = np.diag([-0.977, -0.977, 3.0, 1.0]), np.diag([-2.036, -2.036, 3.0, 1.0])
    return Study(ct, ct_affine, pet, pet_affine)


def read_by_pydicom(folder: Path) -> list[np.ndarray]:
    """The pixels (slices, Y, X) of each series, as they are stored."""
    pixels: dict[str, list[np.ndarray]] = {}
    for file in folder.rglob("*.dcm"):
        dataset = pydicom.dcmread(file)
        pixels.setdefault(dataset.SeriesInstanceUID, []).append(dataset.pixel_array)
    return [np.stack(slices) for slices in pixels.values()]


def decode_by_pydicom(folder: Path) -> None:
    for file in folder.rglob("*.dcm"):
        pydicom.dcmread(file).pixel_array  # noqa: B018


def read_by_us(folder: Path) -> None:
    (study,), _ = find_in_folder(folder)
    for source in (study.ct, study.pet):
        assert source is not None
        read_volume(source)


def lesions_of(number: int) -> np.ndarray:
    """A mask (X, Y, Z) of so many cubes of 3 to 11 voxels that stand apart."""
    random = np.random.default_rng(0)
    mask = np.zeros((PET_SIZE, PET_SIZE, SLICES), np.uint8)
    places = random.permutation([(x, y, z) for x in range(20, 380, 40) for y in range(20, 380, 40) for z in range(20, 300, 40)])
    for place in places[:number]:
        mask[tuple(slice(start, start + size) for start, size in zip(place, random.integers(3, 12, 3), strict=True))] = 1
    return mask


def write_results(folder: Path, pet: DicomSource, number: int) -> tuple[dict[str, float], dict[str, int]]:
    """The seconds in which SEG and report of a mask are written, and their bytes."""
    mask, volume = lesions_of(number), read_volume(pet)[0]
    readouts = study_readouts(mask, volume.array, volume.affine)
    files = {f"SEG, {number} lesions": folder / "seg.dcm", f"report, {number} lesions": folder / "sr.dcm"}
    start = time.perf_counter()
    segmentation, _ = write_segmentation(folder / "seg.dcm", mask, pet, "0")
    middle = time.perf_counter()
    write_report(folder / "sr.dcm", readouts, segmentation, pet, "0")
    times = middle - start, time.perf_counter() - middle
    return dict(zip(files, times, strict=True)), {what: file.stat().st_size for what, file in files.items()}


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


@command
def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "dicom"
        write_study(folder, large_study(), Variant())
        found: dict[str, list[float]] = {"pydicom": [], "pydicom, nothing kept": [], "found": [], "found and read": []}
        for _ in range(ROUNDS):
            found["pydicom"].append(seconds(lambda: read_by_pydicom(folder)))
            found["pydicom, nothing kept"].append(seconds(lambda: decode_by_pydicom(folder)))
            found["found"].append(seconds(lambda: find_in_folder(folder)))
            found["found and read"].append(seconds(lambda: read_by_us(folder)))
        found["converted"] = [seconds(lambda: convert(folder, Path(name) / "nifti"))]
        (study,), _ = find_in_folder(folder)
        written: dict[str, int] = {}
        for number in LESIONS:
            for _ in range(ROUNDS):
                times, sizes = write_results(Path(name), study.pet, number)
                written |= sizes
                for what, figure in times.items():
                    found.setdefault(what, []).append(figure)
        size = sum(file.stat().st_size for file in (Path(name) / "nifti").rglob("*.nii.gz"))
    medians = {what: statistics.median(times) for what, times in found.items()}
    rows = [
        [what, f"{figure:.2f}", f"{figure / medians['pydicom']:.2f}", f"{written[what] / 1e6:.2f}" if what in written else ""]
        for what, figure in medians.items()
    ]
    common.print_table(["", "seconds", "times pydicom", "MB"], rows)
    common.write_json(common.RESULTS / "dicom.json", {"seconds": medians, "nifti_bytes": size, "bytes": written})


if __name__ == "__main__":
    main()
