"""DICOM in, DICOM SEG and SR out, as operators of MONAI Deploy, whose App SDK must be installed.

Both only hand on what the functions of this package do, which need no SDK.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.deploy.core import Fragment, Operator, OperatorSpec

from petct_cascade.dicom.source import DicomSource
from petct_cascade.dicom_output import SEGMENTS, DicomOutput, dicom_files, write_dicom
from petct_cascade.judging import read_study
from petct_cascade.predict import Predictor
from petct_cascade.problems import Problem
from petct_cascade.readouts import study_readouts
from petct_cascade.studies import Study, find_studies
from petct_cascade.volumes import Volume
from petct_training.errors import InputError
from petct_training.records import Plan, Records

# Of the port between both operators.
SEGMENTATION = "segmentation"

# Kind of the results, for their records.
KIND = "DICOM objects of MONAI Deploy"


@dataclass(frozen=True)
class SegmentedStudy:
    """A study with its lesion mask.

    Attributes:
        case: the study's name.
        source: its PET's series.
        pet: the PET, in body-weight SUV.
        mask: (X, Y, Z) on the PET's grid, 1 inside of lesions and 0 elsewhere.
    """

    case: str
    source: DicomSource
    pet: Volume
    mask: np.ndarray


class DICOMStudySegmentationOperator(Operator):
    """Segment the one study in a folder of DICOM files, of any depth; series are chosen and SUV computed as on the command line.

    It has no input port. Its output port `segmentation` emits a `SegmentedStudy`.

    Args:
        fragment: the application.
        args: conditions, such as `CountCondition(fragment, 1)` for a single study.
        predictor: what `petct_cascade.predict.load_cascade` returned.
        input_folder: folder of the study.
    """

    def __init__(
        self, fragment: Fragment, *args: Any, predictor: Predictor, input_folder: str | os.PathLike, **kwargs: Any
    ) -> None:
        self.predictor, self.input_folder = predictor, Path(input_folder)
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Name the port."""
        spec.output(SEGMENTATION)

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Segment the study.

        Raises:
            InputError: when there is not one study in DICOM, or it cannot be used.
        """
        study, source = _study_in(self.input_folder)
        problems, volumes = read_study(study)
        _log_or_raise(problems)
        mask = self.predictor.open_volumes(volumes["ct"], volumes["pet"]).segment()
        op_output.emit(SegmentedStudy(study.case, source, volumes["pet"], mask), SEGMENTATION)


class DICOMResultWriterOperator(Operator):
    """Write `dicom/<case>/segmentation.dcm` and `dicom/<case>/report.dcm`: the mask as DICOM SEG, its read-outs as DICOM SR.

    A record in `records` says what they were made from. No file is replaced that this operator has not written, or that somebody
    has changed since.

    Its input port `segmentation` takes a `SegmentedStudy`. It has no output port.

    Args:
        fragment: the application.
        args: conditions.
        output_folder: folder in which they appear.
        segments: "lesions" for one segment a lesion, "one" for one of all.
    """

    def __init__(
        self, fragment: Fragment, *args: Any, output_folder: str | os.PathLike, segments: str = SEGMENTS[0], **kwargs: Any
    ) -> None:
        self.output_folder, self.segments = Path(output_folder), segments
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Name the port."""
        spec.input(SEGMENTATION)

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Write both objects.

        Raises:
            InputError: when they cannot be written, or somebody else's files lie in their places.
        """
        study = op_input.receive(SEGMENTATION)
        readouts = study_readouts(study.mask, study.pet.array, study.pet.affine, body=study.source.body())
        output = DicomOutput(study.source, self.output_folder, self.segments)
        records = Records(self.output_folder, KIND)
        records.check_kind()
        files = [file.as_posix() for file in dicom_files(Path(), study.case)]
        with records.making(Plan(study.case, {"pet": study.source}, {"dicom": self.segments}, files)):
            _log_or_raise(write_dicom(study.case, output, study.mask, readouts))


def _study_in(folder: Path) -> tuple[Study, DicomSource]:
    """Return the only study in a folder, and its PET.

    Raises:
        InputError: when there is not one, or it is not in DICOM.
    """
    studies, problems = find_studies(folder, labels=False)
    _log_or_raise(problems)
    if len(studies) != 1:
        raise InputError(f"{folder} holds {len(studies)} studies: give the folder of one")
    study = studies[0]
    if not isinstance(study.pet, DicomSource):
        raise InputError(f"study {study.case} is not in DICOM, and only of DICOM a DICOM SEG is made: give its DICOM series")
    return study, study.pet


def _log_or_raise(problems: list[Problem]) -> None:
    """Log the warnings.

    Raises:
        InputError: the first error.
    """
    for problem in problems:
        if problem.error:
            raise InputError(str(problem))
        logging.getLogger(__name__).warning("%s", problem)
