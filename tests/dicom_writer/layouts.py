"""How files are named and laid out: flat, deep, as a disk with a DICOMDIR, as The Cancer Imaging Archive; several studies."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pydicom.fileset import FileSet

from dicom_writer.headers import make_uid
from dicom_writer.labels import write_seg
from dicom_writer.study import Study, permute, small_study
from dicom_writer.variant import Person, Timing, Variant
from dicom_writer.writing import WrittenStudy, write_study

SERIES = ("ct", "pet", "nac", "lung", "localizer", "mip", "screenshot", "dose", "report", "dynamic", "gated", "head", "earlier")
# Number and description of the series in the archive's names of folders.
TCIA_SERIES = {"ct": ("2", "CT WB 3.0 B30f"), "pet": ("4", "PET WB AC"), "seg": ("300", "Segmentation")}


def without_suffix(series: str, number: int) -> str:
    """Return a name as OsiriX and Horos export: all in one folder, no suffix."""
    return f"IM-{SERIES.index(series) + 1:04d}-{number:04d}"


def deep(series: str, number: int) -> str:
    """Return a name in folders that mean nothing, another one for every five slices."""
    return f"A/{series[0].upper()}{number // 5:02d}/x{number % 3}/{number * 7919:08X}"


def mixed(series: str, number: int) -> str:
    """Return a name by which all series lie in one folder, their slices by turns."""
    return f"DICOM/{number:04d}_{series}.IMA"


def as_exchange_disk(written: WrittenStudy, study: Study) -> None:
    """Put the written files into a file-set with a DICOMDIR, and delete the others."""
    files = sorted(file for file in written.folder.rglob("*") if file.is_file())
    disk = FileSet()
    for file in files:
        disk.add(file)
    disk.write(written.folder)
    for file in files:
        file.unlink()
    written.ct_files, written.pet_files = (
        [Path(instance.path) for instance in disk if instance.SeriesInstanceUID == uid]
        for uid in (written.ct_uid, written.pet_uid)
    )


def tcia_folder(variant: Variant, collection: str) -> str:
    """Return the archive's folder of a study: collection, patient, date and description."""
    study_uid = make_uid(variant.person.identifier, variant.study_key)
    date = variant.timing.injection
    return f"{collection}/{variant.person.identifier}/{date:%m-%d-%Y}-NA-PET-CT Ganzkoerper-{study_uid[-5:]}"


def tcia_name(variant: Variant) -> Callable[[str, int], str]:
    """Return the archive's names of files within the folder of a study."""
    study_uid = make_uid(variant.person.identifier, variant.study_key)

    def path(series: str, number: int) -> str:
        at, description = TCIA_SERIES.get(series, ("9", series))
        return f"{at}.000000-{description}-{make_uid(study_uid, series)[-5:]}/1-{number:03d}.dcm"

    return path


def write_tcia(
    folder: Path, study: Study, variant: Variant | None = None, collection: str = "FDG-PET-CT-Lesions"
) -> WrittenStudy:
    """Write a study with its label as SEG in the layout of The Cancer Imaging Archive; `folder` holds the collection."""
    variant = variant or Variant()
    variant = replace(variant, path=tcia_name(variant))
    written = write_study(Path(folder) / tcia_folder(variant, collection), study, variant)
    if written.label is not None:
        write_seg(written.folder / variant.path("seg", 1), written)
    return written


def two_patients(folder: Path) -> list[WrittenStudy]:
    """Write two patients whose files have the same names into two folders."""
    people = (Person(identifier="A 1", name="Able^Ann"), Person(identifier="B/2", name="Baker^Bob", weight=91.0))
    return [
        write_study(Path(folder) / f"export{at}", small_study(seed=at), Variant(person=person))
        for at, person in enumerate(people)
    ]


def two_patients_mixed(folder: Path) -> list[WrittenStudy]:
    """Write two patients into one folder, their files by turns."""
    people = (Person(identifier="A1"), Person(identifier="B2", weight=91.0))
    variants = [
        Variant(person=person, path=lambda series, number, at=at: f"{number:04d}{at}{series}") for at, person in enumerate(people)
    ]
    return [write_study(Path(folder), small_study(seed=at), variant) for at, variant in enumerate(variants)]


def two_studies(folder: Path) -> list[WrittenStudy]:
    """Write two studies of one patient, half a year apart, into one folder; the second has other frames of reference."""
    timings = (Timing(), Timing(injection=datetime.datetime(2023, 11, 9, 10, 17)))
    variants = [
        Variant(timing=timing, study_key=f"visit {at}", path=lambda series, number, at=at: f"{series}{at}/{number:03d}")
        for at, timing in enumerate(timings)
    ]
    return [write_study(Path(folder), small_study(seed=at), variant) for at, variant in enumerate(variants)]


def collection_of_three(folder: Path) -> list[WrittenStudy]:
    """Write two patients, one with two studies, in the layout of The Cancer Imaging Archive."""
    first, second = Person(identifier="PETCT_0011f3deaf"), Person(identifier="PETCT_01140d52d8", weight=91.0, sex="F")
    later = Timing(injection=datetime.datetime(2024, 1, 12, 8, 40))
    variants = (Variant(person=first), Variant(person=second), Variant(person=second, timing=later, study_key="later"))
    return [write_tcia(Path(folder), small_study(seed=at), variant) for at, variant in enumerate(variants)]


def export_phantom(folder: Path, seed: int = 0, shrink: float = 10, variant: Variant | None = None) -> WrittenStudy:
    """Write the first of the project's own phantoms as DICOM, its columns to the back as scanners store them.

    Args:
        folder: that gets the files.
        seed: of the phantoms.
        shrink: how many times larger than the scanner's the voxels are; 10 gives the smallest phantoms.
        variant: of the export.
    """
    from petct_cascade.phantom import plan_studies, render

    phantom = plan_studies(num_patients=1, seed=seed, shrink=shrink)[0]
    affine = phantom.patient.grid.affine
    (ct, turned), (pet, _), (label, _) = (permute(array, affine, (0, 1, 2), (1,)) for array in render(phantom))
    return write_study(folder, Study(ct, turned, pet.astype(float), turned, label), variant)


# By name, what writes several studies into a folder.
COLLECTIONS: dict[str, Callable[[Path], list[WrittenStudy]]] = {
    "two patients": two_patients,
    "two patients in one folder": two_patients_mixed,
    "two studies of one patient": two_studies,
    "archive": collection_of_three,
}
