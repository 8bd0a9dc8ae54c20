"""Writing a data set of phantoms in the challenge's layout."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from petct_cascade.phantom.difficulty import difficulty_of
from petct_cascade.phantom.patients import PhantomStudy, plan_studies
from petct_cascade.phantom.rendering import render
from petct_cascade.phantom.scanners import SCANNERS
from petct_cascade.readouts import csv_table
from petct_cascade.volumes import write_volume
from petct_training.errors import InputError
from petct_training.files import read_json_or_none, remove_unfinished, write_json, write_text

# Raised whenever the same parameters give other images, so that those of both are never mixed.
VERSION = 2
# What phantoms of every version say that they were made with.
PARAMETERS = {"num_patients", "seed", "shrink"}
LESIONS = "lesions.csv"
LESION_COLUMNS = (
    *("case", "lesion", "site", "location", "volume_ml", "suv"),
    *("x_mm", "y_mm", "z_mm", "radius_x_mm", "radius_y_mm", "radius_z_mm"),
)


def write_phantoms(
    output_dir: str | Path,
    num_patients: int = 30,
    seed: int = 0,
    shrink: float = 2,
    num_workers: int = 2,
    difficulty: str = "plain",
    scanners: str = "challenge",
) -> None:
    """Write a data set of phantoms in the challenge's layout, or what is missing of it.

    `output_dir` gets imagesTr/<case>_0000.nii.gz (CT, HU), imagesTr/<case>_0001.nii.gz (PET, body-weight SUV) and
    labelsTr/<case>.nii.gz (1 in lesions), all (X, Y, Z) stored LAS; lesions.csv, the lesions as they were drawn: volume of the
    ellipsoid (ml), uptake before blur and noise (SUV), centre and half-axes in NIfTI's world coordinates (mm); and phantoms.json,
    the parameters. The same parameters give the same bytes in the same version of the phantoms.

    Args:
        output_dir: folder of the data set; made if it does not exist.
        num_patients: number of patients, some of whom have several studies.
        seed: what all chance depends on.
        shrink: how many times larger than the scanner's the voxels are along each axis; 1 gives full-size studies.
        num_workers: studies written at a time.
        difficulty: "plain"; or "hard", see `petct_cascade.phantom.difficulty`.
        scanners: "challenge"; or "other" for ones that the challenge's training data do not have.

    Raises:
        InputError: a parameter is out of range, or `output_dir` holds other data.
    """
    for name, value, least in (("num_patients", num_patients, 1), ("seed", seed, 0), ("num_workers", num_workers, 1)):
        if not isinstance(value, int) or value < least:
            raise InputError(f"{name} is {value!r}; give a whole number of at least {least}.")
    if not isinstance(shrink, (int, float)) or not 1 <= shrink <= 10:
        raise InputError(f"shrink is {shrink!r}; give a number from 1 to 10.")
    if scanners not in SCANNERS:
        raise InputError(f"scanners is {scanners!r}: give {' or '.join(SCANNERS)}.")
    chosen, output_dir = difficulty_of(difficulty), Path(output_dir)
    parameters = {"version": VERSION, "num_patients": num_patients, "seed": seed, "shrink": shrink}
    _claim(output_dir, parameters | {"difficulty": difficulty, "scanners": scanners})
    remove_unfinished(output_dir)
    studies = plan_studies(num_patients, seed, shrink, chosen, SCANNERS[scanners])
    _write_table(output_dir / LESIONS, lesion_table(studies))
    with ThreadPoolExecutor(num_workers) as pool, tqdm(total=len(studies), desc="phantoms", unit="study") as progress:
        for _ in pool.map(lambda study: _write_study(study, output_dir), studies):
            progress.update()


def lesion_table(studies: Iterable[PhantomStudy]) -> str:
    """Return the lesions of studies as CSV: volume (ml), uptake (SUV), centre and half-axes (mm)."""
    rows: list[dict[str, object]] = []
    for study in studies:
        for number, lesion in enumerate(study.lesions, 1):
            figures = (lesion.volume, lesion.suv, *lesion.centre, *lesion.radii)
            cells = (study.case, number, lesion.site, lesion.location, *(f"{figure:.4f}" for figure in figures))
            rows.append(dict(zip(LESION_COLUMNS, cells, strict=True)))
    return csv_table(rows, LESION_COLUMNS)


def _claim(output_dir: Path, parameters: dict[str, Any]) -> None:
    """Record that a folder holds phantoms with these parameters; refuse one that holds anything else."""
    record = output_dir / "phantoms.json"
    if record.exists():
        content = read_json_or_none(record)
        if not isinstance(content, dict) or not content.keys() >= PARAMETERS:
            raise InputError(f"{record} does not say what phantoms are made with: move it away, or name another folder.")
        # Phantoms that say none of these are of the first version, which had no others.
        found = {"version": 1, "difficulty": "plain", "scanners": "challenge", **content}
        if found != parameters:
            raise InputError(
                f"{output_dir} holds phantoms made with {found}, not {parameters}; name another folder or delete it."
            )
    elif foreign := next((name for name in ("imagesTr", "labelsTr", LESIONS) if (output_dir / name).exists()), None):
        raise InputError(f"{output_dir} holds {foreign}, and these are not phantoms; name another folder.")
    write_json(record, parameters)


def _write_table(file: Path, table: str) -> None:
    """Write the table of lesions; refuse to replace one that says anything else."""
    if file.exists() and file.read_bytes() != table.encode():
        raise InputError(
            f"{file} was changed after this program had written it, and is not replaced: move it away, or name another folder."
        )
    write_text(file, table)


def _write_study(study: PhantomStudy, output_dir: Path) -> None:
    """Write a study's three files, unless all are there."""
    images = output_dir / "imagesTr"
    files = [images / f"{study.case}_0000.nii.gz", images / f"{study.case}_0001.nii.gz"]
    files.append(output_dir / "labelsTr" / f"{study.case}.nii.gz")
    if not all(file.exists() for file in files):
        for array, file in zip(render(study), files, strict=True):
            write_volume(file, array, study.patient.grid.affine)
