"""A study's label as DICOM SEG and as RTSTRUCT, both of the PET."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage, RTStructureSetStorage

from dicom_writer import headers
from dicom_writer.study import RAS_TO_LPS
from dicom_writer.writing import WrittenStudy, write_dataset


def write_seg(file: Path, written: WrittenStudy, label: np.ndarray | None = None) -> Path:
    """Write a mask as a BINARY SEG on the slices of the PET, with one segment called Lesion.

    Args:
        file: to write.
        written: the study; its PET must be one file a slice.
        label: (X, Y, Z) on the grid of `written.pet`; the study's own by default.
    """
    label = written.label if label is None else label
    by_uid = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, written.pet_files)}
    slices = [by_uid[uid] for uid in written.pet_sop_uids]
    description = SegmentDescription(
        segment_number=1,
        segment_label="Lesion",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=SegmentAlgorithmTypeValues.MANUAL,
    )
    seg = Segmentation(
        source_images=slices,
        pixel_array=np.ascontiguousarray(label.T.astype(bool)),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[description],
        series_instance_uid=headers.make_uid(written.study_uid, "seg"),
        series_number=300,
        sop_instance_uid=headers.make_uid(written.study_uid, "seg", 1),
        instance_number=1,
        manufacturer="NORA",
        manufacturer_model_name="Annotation",
        software_versions="1.0",
        device_serial_number="1",
        series_description="Segmentation",
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(file)
    written.other_uids["seg"] = str(seg.SeriesInstanceUID)
    return file


def write_rtstruct(file: Path, written: WrittenStudy, label: np.ndarray | None = None) -> Path:
    """Write a mask as RTSTRUCT: along the edges of its voxels, one contour for each outline in each slice of the PET.

    A hole is an outline inside another. A reader that takes the voxels whose centre lies within an odd number of outlines gets
    the mask back exactly.

    Args:
        file: to write.
        written: the study; its PET must be one file a slice.
        label: (X, Y, Z) on the grid of `written.pet`; the study's own by default.
    """
    label = written.label if label is None else label
    ds = Dataset()
    headers.patient_and_study(ds, written.variant)
    headers.series(ds, written.variant, "rtstruct", 400, "Contours")
    headers.instance(ds, RTStructureSetStorage, 1)
    headers.date_and_time(ds, "Series", written.variant.timing.series)
    headers.date_and_time(ds, "StructureSet", written.variant.timing.series)
    ds.Modality, ds.StructureSetLabel, ds.OperatorsName = "RTSTRUCT", "Lesions", ""
    ds.ReferencedFrameOfReferenceSequence = [_referenced_frame(written)]
    roi, observation, contours = Dataset(), Dataset(), Dataset()
    roi.ROINumber, roi.ROIName, roi.ROIGenerationAlgorithm = 1, "Lesion", "MANUAL"
    roi.ReferencedFrameOfReferenceUID = written.frame_uid
    observation.ObservationNumber, observation.ReferencedROINumber = 1, 1
    observation.RTROIInterpretedType, observation.ROIInterpreter = "GTV", ""
    contours.ReferencedROINumber, contours.ROIDisplayColor = 1, [255, 0, 0]
    contours.ContourSequence = [
        _contour(written, k, outline) for k in range(label.shape[2]) for outline in outlines(label[:, :, k] > 0)
    ]
    ds.StructureSetROISequence, ds.RTROIObservationsSequence, ds.ROIContourSequence = [roi], [observation], [contours]
    write_dataset(file, ds, ExplicitVRLittleEndian)
    written.other_uids["rtstruct"] = str(ds.SeriesInstanceUID)
    return file


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Return the closed outlines of a mask (X, Y) along its pixels' edges, each (N, 2) corners in pixel indices."""
    edges: dict[tuple[int, int], list[tuple[int, int]]] = {}
    padded = np.pad(mask, 1)
    for i, j in np.argwhere(mask):
        # Each side of the pixel that borders on another value, with the mask on its left.
        for beside, start, stop in (
            ((i + 1, j), (i, j), (i + 1, j)),
            ((i + 2, j + 1), (i + 1, j), (i + 1, j + 1)),
            ((i + 1, j + 2), (i + 1, j + 1), (i, j + 1)),
            ((i, j + 1), (i, j + 1), (i, j)),
        ):
            if not padded[beside]:
                edges.setdefault(start, []).append(stop)
    result = []
    while edges:
        corners = [next(iter(edges))]
        while corners[-1] in edges:
            stops = edges[corners[-1]]
            corners.append(stops.pop())
            if not stops:
                del edges[corners[-2]]
        result.append(np.array(corners[:-1]) - 0.5)
    return result


def _contour(written: WrittenStudy, k: int, outline: np.ndarray) -> Dataset:
    """Return the item of one outline (N, 2) in slice k."""
    points = np.column_stack([outline, np.full(len(outline), k), np.ones(len(outline))])
    world = (RAS_TO_LPS @ written.pet_affine @ points.T)[:3].T
    item = Dataset()
    item.ContourImageSequence = [_image(written.pet_sop_uids[k])]
    item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(world)
    item.ContourData = [headers.number_text(float(value)) for value in world.ravel()]
    return item


def _image(uid: str) -> Dataset:
    """Return a reference to a slice of the PET."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = PositronEmissionTomographyImageStorage, uid
    return item


def _referenced_frame(written: WrittenStudy) -> Dataset:
    """Return the item that ties the contours to the PET."""
    frame, study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = written.pet_uid
    series.ContourImageSequence = [_image(uid) for uid in written.pet_sop_uids]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", written.study_uid
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = written.frame_uid, [study]
    return frame
