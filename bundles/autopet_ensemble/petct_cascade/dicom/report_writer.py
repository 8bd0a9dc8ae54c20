"""Writing the read-outs of a study as a DICOM structured report (Comprehensive 3D SR, TID 1500 of PS3.16)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    ReferencedSegment,
    SourceSeriesForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from petct_cascade.dicom.derived import MANUFACTURER, derived_uid, equipment, naming, pet_images, set_moment
from petct_cascade.dicom.headers import OWN_MODEL, tracer_of
from petct_cascade.dicom.segmentation_writer import ALL_LESIONS, MOST_SEGMENTS, SEMIAUTOMATIC, lesion_name
from petct_cascade.dicom.source import DicomSource
from petct_cascade.dicom.values import items_of, text_of
from petct_training.files import atomic

SERIES_NUMBER = 902

ML = CodedConcept("ml", "UCUM", "milliliter")
GRAM = CodedConcept("g", "UCUM", "gram")
MM = CodedConcept("mm", "UCUM", "millimeter")
SUV = CodedConcept("g/ml{SUVbw}", "UCUM", "Standardized Uptake Value body weight")
SUL = CodedConcept("g/ml{SUVlbm(Janma)}", "UCUM", "Standardized Uptake Value lean body mass (Janma)")
ONE = CodedConcept("1", "UCUM", "no units")

VOLUME = CodedConcept("126032", "DCM", "Metabolic Volume")
TLG = CodedConcept("126033", "DCM", "Total Lesion Glycolysis")
SUVBW = CodedConcept("126401", "DCM", "SUVbw")
SUVLBM = CodedConcept("126405", "DCM", "SUVlbm(Janma)")
DISTANCE = CodedConcept("121206", "DCM", "Distance")
LESIONS = CodedConcept("246206008", "SCT", "Number of lesions")

MAXIMUM = CodedConcept("56851009", "SCT", "Maximum")
MEAN = CodedConcept("373098007", "SCT", "Mean")
PEAK = CodedConcept("126031", "DCM", "Peak Value Within ROI")
TOTAL = CodedConcept("255619001", "SCT", "Total")

# Methods for which the standard has no code; a scheme whose name begins with 99 is private (PS3.16, 8.2).
PRIVATE = "99AUTOPET"
SUV4 = CodedConcept("SUV4", PRIVATE, "Voxels of the mask with SUVbw of at least 4")
PERCENT41 = CodedConcept("41PCT", PRIVATE, "Voxels of the mask with at least 41 % of the lesion's maximum")
CENTROIDS = CodedConcept("CENTROIDS", PRIVATE, "Between centroids of lesions")
VOXELS = CodedConcept("VOXELS", PRIVATE, "Between centers of voxels of lesions")


@dataclass(frozen=True)
class Concept:
    """What a read-out is called in a report.

    Attributes:
        name: of the measurement (CID 7466 and 7469 of PS3.16).
        unit: of its value.
        derivation: how the value follows from others (CID 7464).
        method: how it was measured.
    """

    name: CodedConcept
    unit: CodedConcept
    derivation: CodedConcept | None = None
    method: CodedConcept | None = None


UPTAKE = {
    f"{kind}_{key}": Concept(name, unit, derivation)
    for kind, name, unit in (("suv", SUVBW, SUV), ("sul", SUVLBM, SUL))
    for key, derivation in (("max", MAXIMUM), ("mean", MEAN), ("peak", PEAK))
}
OF_LESION = {
    "volume_ml": Concept(VOLUME, ML),
    "tlg_g": Concept(TLG, GRAM),
    "volume_suv4_ml": Concept(VOLUME, ML, method=SUV4),
    "tlg_suv4_g": Concept(TLG, GRAM, method=SUV4),
    "volume_41pct_ml": Concept(VOLUME, ML, method=PERCENT41),
    "tlg_41pct_g": Concept(TLG, GRAM, method=PERCENT41),
    **UPTAKE,
}
OF_STUDY = {
    "tmtv_ml": Concept(VOLUME, ML, TOTAL),
    "tlg_g": Concept(TLG, GRAM, TOTAL),
    "tmtv_suv4_ml": Concept(VOLUME, ML, TOTAL, SUV4),
    "tlg_suv4_g": Concept(TLG, GRAM, TOTAL, SUV4),
    "tmtv_41pct_ml": Concept(VOLUME, ML, TOTAL, PERCENT41),
    "tlg_41pct_g": Concept(TLG, GRAM, TOTAL, PERCENT41),
    **UPTAKE,
    "lesions": Concept(LESIONS, ONE),
    "dmax_mm": Concept(DISTANCE, MM, MAXIMUM, CENTROIDS),
    "dmax_voxels_mm": Concept(DISTANCE, MM, MAXIMUM, VOXELS),
}

ALGORITHM_TYPE = CodedConcept("ALGORITHMTYPE", PRIVATE, "Segment algorithm type")
SEMIAUTOMATIC_TYPE = CodedConcept("SEMIAUTOMATIC", PRIVATE, "Semiautomatic")

AGENT = CodedConcept("349358000", "SCT", "Radiopharmaceutical agent")
FDG = CodedConcept("35321007", "SCT", "Fluorodeoxyglucose F^18^")
# Codes of tracers (CID 4021 of PS3.16), and the words in a radiopharmaceutical's name or code that tell them.
AGENTS = {
    FDG: ("35321007", "C-B1031"),
    CodedConcept("126758", "DCM", "PSMA-1007 F^18^"): ("126758", "PSMA-1007", "PSMA1007"),
    CodedConcept("126759", "DCM", "PSMA-617 Ga^68^"): ("126759", "PSMA-617", "PSMA617"),
    CodedConcept("C118961", "NCIt", "PSMA-11 Ga^68^"): ("C118961", "PSMA-11", "PSMA11"),
    CodedConcept("C116352", "NCIt", "Piflufolastat F^18^"): ("C116352", "DCFPYL", "PIFLUFOLASTAT"),
}

# The tracking identifier of what is said of the study as a whole.
STUDY = "Study"


def write_report(
    file: str | os.PathLike,
    readouts: Mapping[str, Any],
    segmentation: Dataset,
    source: DicomSource,
    version: str,
) -> Comprehensive3DSR:
    """Write the read-outs of a study as a Comprehensive 3D SR, not verified, that refers to the SEG of the same mask.

    The root is TID 1500 (measurement report); the observer is this program, a device (TID 1004).

    - Each lesion is a group of TID 1411 (volumetric ROI) that refers to its segment and shares its tracking identifier and UID. A
      lesion without a segment of its own, since all are one segment, is a group of TID 1501 (measurement group).
    - The study as a whole is the last group, of TID 1501: total metabolic volume and glycolysis, uptake over all lesions, number
      of lesions (SCT 246206008), and Dmax as the maximum (SCT 56851009) of distances (DCM 121206). Where all lesions are one
      segment it is a group of TID 1411 that refers to it. The tracer, where its code is known, is an evaluation (row 9 of TID
      1501) of this group: SCT 349358000, radiopharmaceutical agent.
    - A measurement is TID 300, its derivation a modifier. Its method (SCT 370129005) tells volumes and glycolysis above a
      threshold, and the two Dmax, apart; there are no standard codes for these methods.
    - Where a person had a part in the mask, as the SEG says, each group has one more evaluation: the type of the segment's
      algorithm, semiautomatic. There is no standard code for it.
    - Read-outs that do not exist (NaN) are left out. Numbers are written as
      text of 16 characters and, in full, as FloatingPointValue.

    Of more than `MOST_SEGMENTS` lesions, the largest are listed; all of them count for the study. Not in the report: centroids,
    which the segments show, and the members' disagreement, for which there is no code.

    The same read-outs give the same bytes, as `petct_cascade.dicom.segmentation_writer.write_segmentation`.

    Args:
        file: to write; it appears complete or not at all.
        readouts: what `petct_cascade.readouts.study_readouts` returned of the mask.
        segmentation: the SEG of the same mask.
        source: the PET.
        version: of this program.

    Returns:
        The report.

    Raises:
        InputError: when the series lacks what a report must have, or the file cannot be written.
    """
    lesions = readouts["lesions"][:MOST_SEGMENTS]
    numbers = json.dumps([dict(readouts["study"]), *map(dict, lesions)])
    key = ("report", str(segmentation.SOPInstanceUID), numbers, version)
    with naming(source, "a DICOM SR"):
        pet = pet_images(source)
        report = Comprehensive3DSR(
            evidence=[*pet.images, segmentation],
            content=_content(lesions, readouts["study"], _Groups(segmentation, version), _agent_of(pet.header))[0],
            series_instance_uid=derived_uid(*key, "series"),
            series_number=SERIES_NUMBER,
            series_description="Lesion read-outs",
            sop_instance_uid=derived_uid(*key),
            instance_number=1,
            is_complete=True,
            is_final=False,
            is_verified=False,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            **equipment(version),
        )
        set_moment(report, pet)
    with atomic(file) as part:
        report.save_as(part)
    return report


def _content(
    lesions: Sequence[Mapping[str, Any]], study: Mapping[str, Any], groups: _Groups, agent: CodedConcept | None
) -> MeasurementReport:
    """Return the tree of a report."""
    measurements = [groups.group(lesion_name(lesion["lesion"]), lesion, OF_LESION) for lesion in lesions]
    measurements.append(groups.group(STUDY, study, OF_STUDY, agent))
    device = DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device"), name=OWN_MODEL, manufacturer_name=MANUFACTURER, model_name=OWN_MODEL
    )
    return MeasurementReport(
        observation_context=ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, device)),
        procedure_reported=codes.LN.PETUnspecifiedBodyRegion,
        imaging_measurements=measurements,
    )


class _Groups:
    """Makes groups of measurements that refer to the segments of a SEG.

    Args:
        segmentation: the SEG.
        version: of this program.
    """

    def __init__(self, segmentation: Dataset, version: str) -> None:
        self.segmentation = segmentation
        self.algorithm = AlgorithmIdentification(
            name=OWN_MODEL, version=version, family=codes.DCM.ArtificialIntelligence, manufacturer=MANUFACTURER
        )
        self.source = SourceSeriesForSegmentation(str(segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID))
        self.segments = {str(item.TrackingID): item for item in segmentation.SegmentSequence}
        self.semiautomatic = segmentation.SegmentSequence[0].SegmentAlgorithmType == SEMIAUTOMATIC

    def group(
        self,
        name: str,
        values: Mapping[str, Any],
        concepts: Mapping[str, Concept],
        agent: CodedConcept | None = None,
    ) -> MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations:
        """Return the group of a lesion or of the study, by its tracking identifier."""
        segment = self.segments.get(ALL_LESIONS if name == STUDY else name)
        uid = derived_uid(str(self.segmentation.SOPInstanceUID), name) if segment is None else str(segment.TrackingUID)
        content: dict[str, Any] = {
            "tracking_identifier": TrackingIdentifier(uid=uid, identifier=name if segment is None else str(segment.TrackingID)),
            "finding_category": codes.SCT.MorphologicallyAbnormalStructure,
            "finding_type": codes.SCT.Neoplasm,
            "algorithm_id": self.algorithm,
            "measurements": _measurements(values, concepts),
            "qualitative_evaluations": self._evaluations(agent),
        }
        if segment is None:
            return MeasurementsAndQualitativeEvaluations(**content)
        reference = ReferencedSegment(
            sop_class_uid=str(self.segmentation.SOPClassUID),
            sop_instance_uid=str(self.segmentation.SOPInstanceUID),
            segment_number=int(segment.SegmentNumber),
            source_series=self.source,
        )
        return VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=reference, **content)

    def _evaluations(self, agent: CodedConcept | None) -> list[QualitativeEvaluation] | None:
        """Return what is said of a group beside its measurements, None where nothing is."""
        said = [] if agent is None else [QualitativeEvaluation(AGENT, agent)]
        if self.semiautomatic:
            said.append(QualitativeEvaluation(ALGORITHM_TYPE, SEMIAUTOMATIC_TYPE))
        return said or None


def _measurements(values: Mapping[str, Any], concepts: Mapping[str, Concept]) -> Sequence[Measurement]:
    """Return the read-outs that exist, in the order of their concepts."""
    return [
        Measurement(concept.name, values[key], concept.unit, derivation=concept.derivation, method=concept.method)
        for key, concept in concepts.items()
        if key in values and math.isfinite(values[key])
    ]


def _agent_of(header: Dataset) -> CodedConcept | None:
    """Return the code of the tracer of a PET; None where its name and code do not tell, or tell only a family."""
    items = items_of(header, "RadiopharmaceuticalInformationSequence")
    told = [text_of(item, "Radiopharmaceutical") for item in items]
    for item in items:
        for code in items_of(item, "RadiopharmaceuticalCodeSequence"):
            told += [text_of(code, "CodeValue"), text_of(code, "CodeMeaning")]
    words = " ".join(told).upper()
    for agent, names in AGENTS.items():
        if any(name in words for name in names):
            return agent
    return FDG if tracer_of(header) == "fdg" else None
