"""Writing a mask of lesions as a DICOM segmentation (SEG, PS3.3, A.51) on the slices of the PET."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.content import PlanePositionSequence
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from petct_cascade.dicom.derived import (
    PetImages,
    derived_uid,
    equipment,
    naming,
    pet_images,
    set_moment,
)
from petct_cascade.dicom.headers import OWN_MODEL
from petct_cascade.dicom.source import DicomSource
from petct_cascade.metrics import lesions_by_size
from petct_training.errors import InputError
from petct_training.files import atomic
from petct_training.grids import bounding_box

SERIES_NUMBER = 901

# A frame holds a whole slice of one segment: a thousand lesions take half a minute and 200 MB, which viewers hardly open.
MOST_SEGMENTS = 1000

# (255, 0, 0) of sRGB.
RED = CIELabColor(53.2, 80.1, 67.2)

# The name of a segment with all lesions, by which a report finds it.
ALL_LESIONS = "Lesions"


# Types of a segment's algorithm (PS3.3, C.8.20.4).
AUTOMATIC, SEMIAUTOMATIC = "AUTOMATIC", "SEMIAUTOMATIC"


def lesion_name(number: int) -> str:
    """Return what a lesion is called in segmentations and reports: its tracking identifier."""
    return f"Lesion {number}"


def write_segmentation(
    file: str | os.PathLike,
    mask: np.ndarray,
    source: DicomSource,
    version: str,
    per_lesion: bool = True,
    keep_empty_frames: bool = False,
    semiautomatic: bool = False,
) -> tuple[Segmentation, list[str]]:
    """Write a mask as a binary SEG on the slices of its PET, whose study, patient and frame of reference it shares.

    A lesion is an 18-connected component. Segment n is lesion n of the read-outs, named and tracked as "Lesion n". Category and
    type are SCT 49755003 (morphologically abnormal structure) and SCT 108369006 (neoplasm); the label says "(tracer-avid)", for
    which there is no code. A mask without lesions has one segment, and one empty frame.

    The same mask of the same PET by the same version gives the same bytes: UIDs follow from what they name, and date and time
    are those of the PET's series.

    Args:
        file: to write; it appears complete or not at all.
        mask: (X, Y, Z), not 0 inside of lesions, on the grid of the PET: columns, rows, slices in the order of their positions
            along row x column.
        source: the PET, classic or enhanced.
        version: of this program.
        per_lesion: whether each lesion is a segment, or all together are one.
        keep_empty_frames: whether slices without lesions have frames, too, as some older viewers need.
        semiautomatic: whether a person had a part in it, which the type of each segment's algorithm says.

    Returns:
        The segmentation; and warnings, each the end of a sentence that begins with the PET's name.

    Raises:
        InputError: when the mask does not lie on the PET's grid, the series lacks what a SEG must have, or the file cannot be
            written.
    """
    with naming(source, "a DICOM SEG"):
        pet = pet_images(source)
        if mask.shape != pet.shape:
            raise InputError(f"has {pet.shape} voxels, and the mask {mask.shape}: give the mask of this PET")
        segments, count, warnings = _segments(mask, per_lesion)
        digest = hashlib.sha256(np.packbits(segments > 0).tobytes()).hexdigest()
        kind = SEMIAUTOMATIC if semiautomatic else AUTOMATIC
        key = ("segmentation", *pet.uids, digest, version, str(count if per_lesion else ALL_LESIONS), str(keep_empty_frames))
        key += (kind,) if semiautomatic else ()
        names = [lesion_name(number) for number in range(1, count + 1)] if per_lesion and count else [ALL_LESIONS]
        descriptions = _descriptions(names, count > 0, key, version, kind)
        # An object without frames is none: without lesions, the first slice stands for all.
        last = len(segments) if count or keep_empty_frames else 1
        segmentation = _segmentation(segments[:last], pet, descriptions, key, version, not keep_empty_frames and count > 0)
    with atomic(file) as part:
        segmentation.save_as(part)
    return segmentation, warnings


def _segments(mask: np.ndarray, per_lesion: bool) -> tuple[np.ndarray, int, list[str]]:
    """Return the number of the segment of each voxel (Z, Y, X), 0 outside of lesions; how many there are; and warnings."""
    inside = mask != 0
    box = bounding_box(inside)
    segments = np.zeros(mask.shape[::-1], np.uint8)
    if box is None:
        return segments, 0, []
    if not per_lesion:
        segments[...] = inside.T
        return segments, 1, []
    labels, count = lesions_by_size(inside[box])
    if count > MOST_SEGMENTS:
        segments[...] = inside.T
        warning = (
            f"has {count} lesions, more than the {MOST_SEGMENTS} segments that a DICOM SEG gets here: they are one segment, and "
            f"the DICOM SR lists the {MOST_SEGMENTS} largest"
        )
        return segments, 1, [warning]
    segments = np.zeros(mask.shape[::-1], np.uint8 if count < 256 else np.uint16)
    segments.T[box] = labels
    return segments, count, []


def _descriptions(
    names: Sequence[str], found: bool, key: Sequence[str], version: str, algorithm_type: str
) -> list[SegmentDescription]:
    """Return the description of each segment (PS3.3, C.8.20.4)."""
    algorithm = AlgorithmIdentificationSequence(name=OWN_MODEL, family=codes.DCM.ArtificialIntelligence, version=version)
    return [
        SegmentDescription(
            segment_number=number,
            segment_label=f"{name} (tracer-avid)" if found else f"{name} (none found)",
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Neoplasm,
            algorithm_type=algorithm_type,
            algorithm_identification=algorithm,
            tracking_id=name,
            tracking_uid=derived_uid(*key, name),
            display_color=RED,
        )
        for number, name in enumerate(names, 1)
    ]


def _segmentation(
    segments: np.ndarray,
    pet: PetImages,
    descriptions: Sequence[SegmentDescription],
    key: Sequence[str],
    version: str,
    omit_empty_frames: bool,
) -> Segmentation:
    """Return segments (Z, Y, X), of all slices or of the first ones, as a SEG."""
    several = pet.enhanced and len(pet.images) > 1
    # highdicom takes over the places of images that are a slice each.
    places = pet.positions[: len(segments)] if pet.enhanced or len(segments) < len(pet.positions) else None
    segmentation = Segmentation(
        source_images=pet.images[:1] if several else pet.images,
        further_source_images=pet.images[1:] if several else None,
        pixel_array=segments,
        plane_positions=None if places is None else [PlanePositionSequence("PATIENT", place) for place in places],
        segmentation_type="BINARY",
        segment_descriptions=descriptions,
        series_instance_uid=derived_uid(*key, "series"),
        series_number=SERIES_NUMBER,
        series_description="Lesions",
        sop_instance_uid=derived_uid(*key),
        instance_number=1,
        content_creator_name=f"{OWN_MODEL}^",
        content_label="LESIONS",
        content_description=f"Lesions found by {OWN_MODEL}",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=omit_empty_frames,
        **equipment(version),
    )
    dimensions = derived_uid(*key, "dimensions")
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    set_moment(segmentation, pet)
    return segmentation
