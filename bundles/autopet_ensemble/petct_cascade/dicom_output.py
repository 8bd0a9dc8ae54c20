"""The DICOM objects that a study in DICOM gets: its mask as a SEG, its read-outs as a structured report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from petct_cascade.dicom.report_writer import write_report
from petct_cascade.dicom.segmentation_writer import write_segmentation
from petct_cascade.dicom.source import DicomSource
from petct_cascade.problems import Problem
from petct_cascade.version import program_version
from petct_training.errors import InputError

# What the segments of a SEG are: one a lesion, or all lesions together.
SEGMENTS = ("lesions", "one")


@dataclass(frozen=True)
class DicomOutput:
    """The DICOM objects that are wanted of a study.

    Attributes:
        source: its PET.
        output_dir: the output folder; see `dicom_files`.
        segments: one of `SEGMENTS`.
        semiautomatic: whether a person has given or corrected the coarse mask.
    """

    source: DicomSource
    output_dir: Path
    segments: str
    semiautomatic: bool = False


def dicom_files(output_dir: Path, case: str) -> tuple[Path, Path]:
    """Return the files of a study's SEG and of its report in an output folder."""
    folder = output_dir / "dicom" / case
    return folder / "segmentation.dcm", folder / "report.dcm"


def write_dicom(case: str, output: DicomOutput, mask: np.ndarray, readouts: Mapping[str, Any]) -> list[Problem]:
    """Write the SEG and the report of a study; of earlier ones nothing is left, whatever happens.

    Args:
        case: the study's name.
        output: what is wanted.
        mask: (X, Y, Z) on the PET's grid.
        readouts: what `petct_cascade.readouts.study_readouts` returned of it.

    Returns:
        An error when they could not be written, and warnings.
    """
    files = dicom_files(output.output_dir, case)
    for file in files:
        file.unlink(missing_ok=True)
    version = program_version()
    try:
        per_lesion = output.segments == "lesions"
        segmentation, warnings = write_segmentation(
            files[0], mask, output.source, version, per_lesion, semiautomatic=output.semiautomatic
        )
        write_report(files[1], readouts, segmentation, output.source, version)
    except InputError as error:
        # Neither without the other.
        files[0].unlink(missing_ok=True)
        return [Problem(case, None, f"its DICOM SEG and SR were not written: {error}", error=True)]
    return [Problem(case, output.source, warning, error=False) for warning in warnings]
