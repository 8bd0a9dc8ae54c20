"""The tests' own DICOM writer: a PET/CT study given as arrays becomes files as different scanners write them.

It is the truth against which the reader is tested, and shares no code with it.

Example:
    written = write_study(folder, small_study(), VARIANTS["one slope a slice"])
    written.pet, written.pet_affine  # what a reader must find
"""

from dicom_writer.labels import write_rtstruct, write_seg
from dicom_writer.layouts import COLLECTIONS, export_phantom, write_tcia
from dicom_writer.study import Study, small_study
from dicom_writer.variant import Person, Timing, Tracer, Variant
from dicom_writer.variants import VARIANTS
from dicom_writer.writing import WrittenStudy, write_study

__all__ = [
    "COLLECTIONS",
    "VARIANTS",
    "Person",
    "Study",
    "Timing",
    "Tracer",
    "Variant",
    "WrittenStudy",
    "export_phantom",
    "small_study",
    "write_rtstruct",
    "write_seg",
    "write_study",
    "write_tcia",
]
