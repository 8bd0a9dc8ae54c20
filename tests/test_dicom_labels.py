"""Labels in DICOM: a SEG or an RTSTRUCT becomes the mask that it was made from, on the grid of the PET."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from helpers import SARCOMA, SHARED, needs_shared
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline
from nibabel.processing import resample_from_to
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    PositronEmissionTomographyImageStorage,
    RLELossless,
    RTStructureSetStorage,
    generate_uid,
)
from scipy.ndimage import binary_dilation, binary_erosion

from petct_cascade.coarse_mask import read_coarse_mask
from petct_cascade.dicom.choice import reason_against
from petct_cascade.dicom.labels import Grid, contour_mask, segmentation_mask
from petct_cascade.dicom.structures import filled
from petct_training.errors import InputError

LPS = np.diag([-1.0, -1.0, 1.0])
SARCOMA_DICOM, OBJECTS = SHARED / "data/soft_tissue_sarcoma_dicom", SHARED / "data/suv_reference_objects"
FRAME_OF_REFERENCE, OTHER_FRAME = "1.2.3.4.5", "1.2.3.4.6"
FEW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MANY = settings(FEW, max_examples=100)


def grid_of(shape=(14, 11, 9), spacing=(4.0, 5.0, 3.0), degrees=0.0, flips=(1, 1, 1), origin=(-30.0, 20.0, -500.0)) -> Grid:
    """A grid whose slices are turned about an oblique axis, and whose axes may run backwards."""
    affine = np.eye(4)
    affine[:3, :3] = turn(degrees) @ np.diag(np.array(spacing) * flips)
    affine[:3, 3] = origin
    return Grid(shape, affine)


def turn(degrees: float) -> np.ndarray:
    """Rotation about (1, 2, 3) by Rodrigues' formula."""
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def slices_of(grid: Grid) -> list[Dataset]:
    """Headers of the slices of a PET on a grid, in the order of its Z axis."""
    series, study = generate_uid(), generate_uid()
    x, y, z = (LPS @ grid.affine[:3, axis] for axis in range(3))
    slices = []
    for index in range(grid.shape[2]):
        header = Dataset()
        header.file_meta = pydicom.dataset.FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.SOPClassUID, header.SOPInstanceUID = PositronEmissionTomographyImageStorage, generate_uid()
        header.StudyInstanceUID, header.SeriesInstanceUID, header.FrameOfReferenceUID = study, series, FRAME_OF_REFERENCE
        header.Modality, header.Manufacturer, header.InstanceNumber, header.SeriesNumber = "PT", "none", index + 1, 1
        for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
            setattr(header, name, "")
        header.AccessionNumber = header.ReferringPhysicianName = header.PositionReferenceIndicator = ""
        header.Columns, header.Rows = grid.shape[:2]
        header.PixelSpacing = [float(np.linalg.norm(y)), float(np.linalg.norm(x))]
        header.SliceThickness = float(np.linalg.norm(z))
        header.ImageOrientationPatient = [round(float(value), 8) for step in (x, y) for value in step / np.linalg.norm(step)]
        header.ImagePositionPatient = [round(float(value), 5) for value in LPS @ grid.affine[:3, 3] + index * z]
        slices.append(header)
    return slices


def described(
    number: int, label: str, category=codes.SCT.MorphologicallyAbnormalStructure, kind=codes.SCT.Neoplasm
) -> SegmentDescription:
    return SegmentDescription(number, label, category, kind, SegmentAlgorithmTypeValues.MANUAL)


def write_seg(file: Path, array: np.ndarray, grid: Grid, segments=None, kind="BINARY", change=None, **options) -> Path:
    """Write a SEG of an array (X, Y, Z) or (X, Y, Z, segments) on the slices of a grid; `change` may change it before."""
    segments = segments or [described(1, "Lesion")]
    frames = np.moveaxis(array, (0, 1, 2), (2, 1, 0))
    uids = (generate_uid(), 1, generate_uid(), 1)
    seg = Segmentation(
        slices_of(grid), frames, SegmentationTypeValues[kind], segments, *uids, "none", "none", "1", "1", **options
    )
    if change is not None:
        change(seg)
    seg.save_as(file)
    return file


def blobs(shape, seed=0, count=3) -> np.ndarray:
    """Boxes in a mask (X, Y, Z) that leave its last slice empty."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    for _ in range(count):
        start = rng.integers(0, np.array(shape) - 3)
        mask[tuple(slice(first, first + size) for first, size in zip(start, rng.integers(1, 4, 3), strict=True))] = 1
    mask[..., -1] = 0
    return mask


def frames_of(seg: Dataset) -> list[Dataset]:
    return list(seg.PerFrameFunctionalGroupsSequence)


class TestSegmentationOnThePet:
    @pytest.mark.parametrize("omit_empty_frames", [True, False])
    @pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
    def test_mask_is_the_one_that_was_written(self, tmp_path, kind, omit_empty_frames):
        grid = grid_of()
        mask = blobs(grid.shape)
        array = mask.astype(np.float32) if kind == "FRACTIONAL" else mask
        file = write_seg(tmp_path / "seg.dcm", array, grid, kind=kind, omit_empty_frames=omit_empty_frames)
        label = segmentation_mask([file], grid)
        assert label.array.dtype == np.uint8
        assert np.array_equal(label.array, mask)
        assert label.warnings == []
        used = [{"file": "seg.dcm", "number": 1, "label": "Lesion", "voxels": int(mask.sum())}]
        assert json.loads(json.dumps(label.facts))["used"] == used

    @FEW
    @given(
        degrees=st.floats(-180, 180),
        flips=st.tuples(*[st.sampled_from((-1, 1))] * 3),
        spacing=st.tuples(*[st.floats(0.7, 6)] * 3),
        seed=st.integers(0, 99),
    )
    def test_mask_is_exact_however_the_grid_lies(self, tmp_path, degrees, flips, spacing, seed):
        grid = grid_of(degrees=degrees, flips=flips, spacing=spacing)
        mask = blobs(grid.shape, seed)
        label = segmentation_mask([write_seg(tmp_path / "seg.dcm", mask, grid)], grid)
        assert np.array_equal(label.array, mask)
        assert label.warnings == []

    def test_order_of_the_frames_does_not_matter(self, tmp_path):
        grid = grid_of()
        mask = blobs(grid.shape)

        def shuffle(seg):
            order = np.random.default_rng(0).permutation(seg.NumberOfFrames)
            groups, pixels = frames_of(seg), seg.pixel_array
            seg.PerFrameFunctionalGroupsSequence = [groups[index] for index in order]
            seg.PixelData = pydicom.pixels.pack_bits(pixels[order].reshape(-1))

        file = write_seg(tmp_path / "seg.dcm", mask, grid, change=shuffle)
        assert np.array_equal(segmentation_mask([file], grid).array, mask)

    def test_older_file_without_dimensions_and_segment_numbers_is_read(self, tmp_path):
        grid = grid_of()
        mask = blobs(grid.shape)

        def strip(seg):
            for name in (
                "DimensionIndexSequence",
                "DimensionOrganizationSequence",
                "ReferencedSeriesSequence",
                "SourceImageSequence",
            ):
                if name in seg:
                    delattr(seg, name)
            for group in (*frames_of(seg), seg.SharedFunctionalGroupsSequence[0]):
                for name in ("FrameContentSequence", "DerivationImageSequence", "SegmentIdentificationSequence"):
                    if name in group:
                        delattr(group, name)

        file = write_seg(tmp_path / "seg.dcm", mask, grid, change=strip)
        assert np.array_equal(segmentation_mask([file], grid).array, mask)

    def test_slices_that_a_scanner_spaced_unevenly_keep_their_frames(self, tmp_path):
        grid = grid_of()
        mask = blobs(grid.shape)

        def nudge(seg):
            for index, group in enumerate(frames_of(seg)):
                x, y, z = group.PlanePositionSequence[0].ImagePositionPatient
                group.PlanePositionSequence[0].ImagePositionPatient = [x, y, round(z + (0.08, -0.08)[index % 2], 3)]

        label = segmentation_mask([write_seg(tmp_path / "seg.dcm", mask, grid, change=nudge)], grid)
        assert np.array_equal(label.array, mask)
        assert label.warnings == []

    def test_lesions_on_every_second_slice_stay_apart(self, tmp_path):
        grid = grid_of()
        mask = np.zeros(grid.shape, np.uint8)
        mask[3:6, 3:6, 1:8:2] = 1

        def forget(seg):
            measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
            del measures.SpacingBetweenSlices, measures.SliceThickness

        for change in (None, forget):
            assert np.array_equal(
                segmentation_mask([write_seg(tmp_path / "seg.dcm", mask, grid, change=change)], grid).array, mask
            )

    def test_fractional_voxels_count_from_half_on(self, tmp_path):
        grid = grid_of()
        shares = np.zeros(grid.shape, np.float32)
        shares[2, 2, :5] = 0.2, 0.49, 0.51, 0.8, 1
        file = write_seg(tmp_path / "seg.dcm", shares, grid, kind="FRACTIONAL", max_fractional_value=200)
        assert segmentation_mask([file], grid).array[2, 2].tolist() == [0, 0, 1, 1, 1, 0, 0, 0, 0]

    @pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
    def test_overlapping_segments_are_joined(self, tmp_path, kind):
        grid = grid_of()
        both = np.stack([blobs(grid.shape, seed) for seed in (1, 2)], axis=-1)
        both[4:6, 4:6, 4] = 1
        segments = [described(1, "Lesion 1"), described(2, "Lesion 2")]
        array = both.astype(np.float32) if kind == "FRACTIONAL" else both
        file = write_seg(tmp_path / "seg.dcm", array, grid, segments, kind=kind)
        assert np.array_equal(segmentation_mask([file], grid).array, both.max(axis=-1))
        for number in (1, 2):
            assert np.array_equal(segmentation_mask([file], grid, [f"{number}"]).array, both[..., number - 1])

    def test_compressed_frames_are_decoded(self, tmp_path):
        grid = grid_of()
        mask = blobs(grid.shape)
        file = write_seg(tmp_path / "seg.dcm", mask, grid, kind="LABELMAP", transfer_syntax_uid=RLELossless)
        assert np.array_equal(segmentation_mask([file], grid).array, mask)

    def test_empty_segmentation_is_an_empty_mask(self, tmp_path):
        grid = grid_of()
        label = segmentation_mask([write_seg(tmp_path / "seg.dcm", np.zeros(grid.shape, np.uint8), grid)], grid)
        assert not label.array.any()
        assert label.warnings == []

    def test_highdicom_reads_the_same_voxels(self, tmp_path):
        grid = grid_of(degrees=25)
        file = write_seg(tmp_path / "seg.dcm", blobs(grid.shape), grid)
        volume = hd.seg.segread(file).get_volume(combine_segments=True).pad(1)
        image = nib.Nifti1Image(volume.array, np.diag([-1, -1, 1, 1]) @ volume.affine)
        expected = resample_from_to(image, (grid.shape, grid.affine), order=0).get_fdata()
        assert np.array_equal(segmentation_mask([file], grid).array, expected)


class TestSegmentationOnAnotherGrid:
    @FEW
    @given(
        degrees=st.floats(-40, 40),
        turned=st.floats(-40, 40),
        flips=st.tuples(*[st.sampled_from((-1, 1))] * 3),
        spacing=st.tuples(*[st.floats(1.3, 5)] * 3),
        seed=st.integers(0, 99),
    )
    @example(degrees=-30, turned=16, flips=(-1, -1, 1), spacing=(3.75, 4, 3), seed=49)
    def test_each_voxel_takes_the_nearest_one(self, tmp_path, degrees, turned, flips, spacing, seed):
        drawn_on, grid = grid_of(degrees=turned, flips=flips, spacing=spacing), grid_of(degrees=degrees)
        mask = blobs(drawn_on.shape, seed, count=6)
        # Nibabel's nearest voxels are the truth; it gives those outside of the drawn grid no value.
        image = nib.Nifti1Image(
            np.pad(mask, 3), drawn_on.affine @ np.array([[1, 0, 0, -3], [0, 1, 0, -3], [0, 0, 1, -3], [0, 0, 0, 1]])
        )
        expected = resample_from_to(image, (grid.shape, grid.affine), order=0).get_fdata()
        file = write_seg(tmp_path / "seg.dcm", mask, drawn_on)
        centres = nib.affines.apply_affine(np.linalg.inv(grid.affine) @ drawn_on.affine, np.argwhere(mask))
        # A voxel of the PET may be nearest to one that was drawn and whose own centre lies beyond the PET's face.
        all_outside = ((centres < -0.5) | (centres > np.array(grid.shape) - 0.5)).any(axis=1).all()
        if all_outside or not expected.any():
            sentences = " ".join(outcome(segmentation_mask, file, grid))
            assert "outside of the PET" in sentences or "it is lost" in sentences
            return
        label = segmentation_mask([file], grid)
        # Voxels to which two are equally near may differ.
        assert np.count_nonzero(label.array != expected) <= 1
        assert any("another grid" in warning for warning in label.warnings)

    def test_warning_names_both_grids(self, tmp_path):
        drawn_on, grid = grid_of((28, 22, 18), (2, 2.5, 1.5)), grid_of()
        mask = np.zeros(drawn_on.shape, np.uint8)
        mask[8:20, 6:16, 4:12] = 1
        warning = segmentation_mask([write_seg(tmp_path / "seg.dcm", mask, drawn_on)], grid).warnings[0]
        assert "28 x 22 voxels of 2 x 2.5 mm" in warning
        assert "14 x 11 x 9 voxels of 4 x 5 x 3 mm" in warning

    @pytest.mark.parametrize("axes", [(2, 1, 0), (0, 2, 1), (2, 0, 1)])
    def test_frames_across_the_slices_of_the_pet_are_exact(self, tmp_path, axes):
        grid = grid_of(degrees=15)
        mask = blobs(grid.shape)
        across = np.eye(4)
        across[:3, :3] = grid.affine[:3, list(axes)]
        across[:3, 3] = grid.affine[:3, 3]
        other = Grid(tuple(grid.shape[axis] for axis in axes), across)
        label = segmentation_mask([write_seg(tmp_path / "seg.dcm", mask.transpose(axes), other)], grid)
        assert np.array_equal(label.array, mask)
        assert label.warnings == []

    def test_part_outside_of_the_pet_is_cut_with_a_warning(self, tmp_path):
        drawn_on = grid_of()
        grid = Grid((14, 11, 5), drawn_on.affine)
        mask = np.zeros(drawn_on.shape, np.uint8)
        mask[2:4, 2:4, 3:7] = 1
        label = segmentation_mask([write_seg(tmp_path / "seg.dcm", mask, drawn_on)], grid)
        assert np.array_equal(label.array, mask[..., :5])
        assert "50.0% of which lie outside of the PET" in label.warnings[0]

    def test_nothing_inside_of_the_pet_is_refused(self, tmp_path):
        file = write_seg(tmp_path / "seg.dcm", blobs((14, 11, 9)), grid_of())
        with pytest.raises(InputError, match="outside of the PET"):
            segmentation_mask([file], grid_of(origin=(-30, 20, 900)))

    def test_lesion_that_is_lost_between_voxels_is_told(self, tmp_path):
        drawn_on, grid = grid_of((40, 40, 20), (1, 1, 3)), grid_of()
        mask = np.zeros(drawn_on.shape, np.uint8)
        mask[9:11, 12:14, 3] = 1
        label = segmentation_mask([write_seg(tmp_path / "seg.dcm", mask, drawn_on)], grid)
        assert not label.array.any()
        assert any("it is lost" in warning for warning in label.warnings)

    def test_lesions_of_one_segment_of_which_some_are_lost_are_counted(self, tmp_path):
        drawn_on, grid = grid_of((40, 40, 20), (1, 1, 3)), grid_of()
        mask = np.zeros(drawn_on.shape, np.uint8)
        # Two that are nearest to no voxel, one above the other with an empty slice between; and a large one.
        mask[9:11, 12:14, [3, 5]] = 1
        mask[20:32, 20:34, 6:9] = 1
        label = segmentation_mask([write_seg(tmp_path / "seg.dcm", mask, drawn_on)], grid)
        expected = resample_from_to(nib.Nifti1Image(mask, drawn_on.affine), (grid.shape, grid.affine), order=0).get_fdata()
        np.testing.assert_array_equal(label.array, expected)
        said = "loses 2 of 3 lesions of segment 1 'Lesion', which lie outside of the PET or are nearest to no voxel of it"
        assert said in label.warnings


class TestChoice:
    LIVER = described(2, "Liver", codes.SCT.AnatomicalStructure, codes.SCT.Liver)

    def write(self, file: Path, grid: Grid) -> tuple[Path, np.ndarray]:
        both = np.stack([blobs(grid.shape, seed) for seed in (1, 2)], axis=-1)
        return write_seg(file, both, grid, [described(1, "Lesion"), self.LIVER]), both

    def test_organs_are_left_out_and_named(self, tmp_path):
        grid = grid_of()
        file, both = self.write(tmp_path / "seg.dcm", grid)
        label = segmentation_mask([file], grid)
        assert np.array_equal(label.array, both[..., 0])
        reason = "it is an organ or a tissue by its category"
        assert label.facts["left_out"] == [{"file": "seg.dcm", "number": 2, "label": "Liver", "reason": reason}]
        assert f"(2 'Liver': {reason})" in label.warnings[0]

    @pytest.mark.parametrize("name", ["liver", " Liver", "2"])
    def test_segments_are_named_by_label_or_number(self, tmp_path, name):
        grid = grid_of()
        file, both = self.write(tmp_path / "seg.dcm", grid)
        assert np.array_equal(segmentation_mask([file], grid, [name]).array, both[..., 1])

    def test_unknown_name_is_refused_with_those_that_are_known(self, tmp_path):
        grid = grid_of()
        file, _ = self.write(tmp_path / "seg.dcm", grid)
        with pytest.raises(InputError, match=r"has no segment 'Spleen'.*1 'Lesion', 2 'Liver'"):
            segmentation_mask([file], grid, ["Lesion", "Spleen"])

    def test_file_of_organs_alone_is_refused(self, tmp_path):
        grid = grid_of()
        liver = described(1, "Liver", codes.SCT.AnatomicalStructure, codes.SCT.Liver)
        file = write_seg(tmp_path / "seg.dcm", blobs(grid.shape), grid, [liver])
        with pytest.raises(InputError, match="holds no segment that may be a lesion"):
            segmentation_mask([file], grid)

    def test_several_files_are_joined_with_a_warning(self, tmp_path):
        grid = grid_of()
        masks = [blobs(grid.shape, seed) for seed in (1, 2)]
        files = [write_seg(tmp_path / f"{index}.dcm", mask, grid) for index, mask in enumerate(masks)]
        label = segmentation_mask(files, grid)
        assert np.array_equal(label.array, np.maximum(*masks))
        assert label.warnings == ["has 2 files, which are joined: 0.dcm, 1.dcm"]
        assert len(label.facts["series"]) == 2

    def test_damaged_one_of_several_files_is_named(self, tmp_path):
        grid = grid_of()
        files = [write_seg(tmp_path / "good.dcm", blobs(grid.shape), grid), tmp_path / "bad.dcm"]
        files[1].write_bytes(files[0].read_bytes()[:3000])
        with pytest.raises(InputError, match=r"^holds bad.dcm, which is damaged"):
            segmentation_mask(files, grid)

    def test_other_frame_of_reference_is_refused(self, tmp_path):
        grid = grid_of()
        file = write_seg(tmp_path / "seg.dcm", blobs(grid.shape), grid)
        assert segmentation_mask([file], grid, frame_of_reference=FRAME_OF_REFERENCE).array.any()
        with pytest.raises(InputError, match=f"the PET lies in {OTHER_FRAME}"):
            segmentation_mask([file], grid, frame_of_reference=OTHER_FRAME)

    @pytest.mark.parametrize(
        ("label", "category", "kind", "words"),
        [
            ("Lesion", "49755003", "108369006", "Neoplasm"),
            # What 3D Slicer and MITK write when nobody has chosen.
            ("Segment_1", "85756007", "85756007", "Tissue"),
            ("Segment_1", "T-D0050", "T-D0050", "Tissue"),
            ("lesion", "123037004", "10200004", "Liver"),
            ("Liver metastasis", "", "", ""),
            ("Liver 2", "", "", ""),
            ("", "", "", ""),
            ("GTV_Mass_PET", "", "", ""),
        ],
    )
    def test_what_may_be_a_lesion_is_kept(self, label, category, kind, words):
        assert reason_against(label, category, kind, words) is None

    @pytest.mark.parametrize(
        ("label", "category", "kind", "words"),
        [
            ("Segment_1", "123037004", "10200004", "Liver"),
            ("Segment_1", "T-D000A", "T-62000", "Liver"),
            ("Segment_1", "85756007", "45206002", "Fat"),
            ("Left Kidney", "", "", ""),
            ("Background", "49755003", "108369006", "Neoplasm"),
            ("Liver reference region", "", "", ""),
            ("needle", "260787004", "79068005", "Needle"),
        ],
    )
    def test_what_is_no_lesion_is_left_out(self, label, category, kind, words):
        assert reason_against(label, category, kind, words) is not None


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> bytes:
    """A small SEG, as bytes."""
    grid = grid_of((6, 5, 4))
    mask = np.zeros(grid.shape, np.uint8)
    mask[1:4, 1:4, 1:3] = 1
    return write_seg(tmp_path_factory.mktemp("seg") / "seg.dcm", mask, grid).read_bytes()


def test_segments_that_are_called_a_margin_are_left_out_beside_a_tumour(tmp_path):
    grid = grid_of()
    tumour, margin = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8)
    tumour[3:5, 3:5, 3:5], margin[2:6, 2:6, 2:6] = 1, 1
    both = np.stack((tumour, margin), axis=-1)
    file = write_seg(tmp_path / "a.dcm", both, grid, [described(1, "GTV"), described(2, "PTV 60 Gy")])
    label = segmentation_mask([file], grid)
    np.testing.assert_array_equal(label.array, tumour)
    assert "2 'PTV 60 Gy': its name says PTV, which adds a margin, and there is a GTV" in label.warnings[0]


class TestDamagedSegmentation:
    @MANY
    @given(data=st.data())
    def test_changed_bytes_give_a_mask_or_a_sentence(self, tmp_path, small, data):
        damaged = bytearray(small)
        for _ in range(data.draw(st.integers(1, 6))):
            damaged[data.draw(st.integers(132, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        mask_or_sentence(segmentation_mask, tmp_path / "seg.dcm", bytes(damaged), grid_of((6, 5, 4)))

    @MANY
    @given(data=st.data())
    def test_missing_attributes_give_a_mask_or_a_sentence(self, tmp_path, small, data):
        dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(small))
        without_attributes(dataset, data)
        file = tmp_path / "seg.dcm"
        dataset.save_as(file)
        mask_or_sentence(segmentation_mask, file, file.read_bytes(), grid_of((6, 5, 4)))

    def test_file_cut_off_anywhere_is_refused(self, tmp_path, small):
        for length in (0, 100, 140, *range(200, len(small), 97), len(small) - 1):
            (tmp_path / "seg.dcm").write_bytes(small[:length])
            with pytest.raises(InputError):
                segmentation_mask([tmp_path / "seg.dcm"], grid_of((6, 5, 4)))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"Rows": 60000, "Columns": 60000}, "as no PET/CT has"),
            ({"Rows": 4000, "Columns": 4000}, "bytes of its voxels"),
            ({"NumberOfFrames": 2000000000}, "says that it has 2000000000 frames and describes 2"),
            ({"SegmentSequence": []}, "lacks Segment Sequence"),
            ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "is no DICOM segmentation"),
        ],
    )
    def test_lying_header_is_refused(self, tmp_path, small, change, message):
        dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(small))
        for name, value in change.items():
            setattr(dataset, name, value)
        dataset.save_as(tmp_path / "seg.dcm")
        with pytest.raises(InputError, match=message):
            segmentation_mask([tmp_path / "seg.dcm"], grid_of((6, 5, 4)))

    def test_missing_file_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            segmentation_mask([tmp_path / "none.dcm"], grid_of())

    def test_file_without_preamble_is_read(self, tmp_path, small):
        dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(small))
        del dataset.file_meta
        pydicom.dcmwrite(tmp_path / "seg.dcm", dataset, implicit_vr=False, little_endian=True)
        assert segmentation_mask([tmp_path / "seg.dcm"], grid_of((6, 5, 4))).array.sum() == 18


@dataclass
class Region:
    """An ROI of an RTSTRUCT: closed contours, each (N, 3), in mm, RAS."""

    contours: list[np.ndarray]
    name: str = "GTV"
    kind: str | None = "GTV"
    shape: str = "CLOSED_PLANAR"
    frame_of_reference: str = FRAME_OF_REFERENCE


def write_structures(file: Path, *regions: Region, change=None) -> Path:
    """Write an RTSTRUCT; its regions are numbered from 1 on. `change` may change it before."""
    dataset = Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTStructureSetStorage, "1.2.3.8"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.Modality = "1.2.3", "1.2.3.9", "RTSTRUCT"
    dataset.StructureSetROISequence, dataset.ROIContourSequence, dataset.RTROIObservationsSequence = [], [], []
    for number, region in enumerate(regions, start=1):
        named, drawn, observed = Dataset(), Dataset(), Dataset()
        named.ROINumber, named.ROIName, named.ReferencedFrameOfReferenceUID = number, region.name, region.frame_of_reference
        drawn.ReferencedROINumber, observed.ReferencedROINumber = number, number
        drawn.ContourSequence = [contour_item(points, region.shape) for points in region.contours]
        dataset.StructureSetROISequence.append(named)
        dataset.ROIContourSequence.append(drawn)
        if region.kind is not None:
            observed.RTROIInterpretedType = region.kind
            dataset.RTROIObservationsSequence.append(observed)
    if change is not None:
        change(dataset)
    dataset.save_as(file, enforce_file_format=True)
    return file


def contour_item(points: np.ndarray, shape: str) -> Dataset:
    item = Dataset()
    item.ContourGeometricType, item.NumberOfContourPoints = shape, len(points)
    item.ContourData = [f"{value:.6f}" for value in (points @ LPS).ravel()]
    return item


def placed(grid: Grid, polygon, place: float, axis: int = 2) -> np.ndarray:
    """A polygon (N, 2), in voxels along the two other axes of a grid, at a place (in voxels) along one: (N, 3), RAS in mm."""
    points = np.insert(np.asarray(polygon, float), axis, place, axis=1)
    return points @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def circle(centre, radius: float, points: int = 400) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.array(centre) + radius * np.column_stack((np.cos(angle), np.sin(angle)))


def square(low: float, high: float) -> np.ndarray:
    return np.array([[low, low], [high, low], [high, high], [low, high]])


# A square with a square hole, as one contour that goes in and out again along the same line.
KEYHOLE = np.concatenate((square(1.5, 9.5), [[1.5, 1.5], [3.5, 3.5]], square(3.5, 6.5)[[3, 2, 1, 0]], [[1.5, 1.5]]))


class TestFilledPolygons:
    @MANY
    @given(seed=st.integers(0, 10**6), points=st.integers(3, 12))
    def test_even_odd_rule_is_the_one_of_matplotlib(self, seed, points):
        polygon = np.random.default_rng(seed).uniform(-3, 13, (points, 2))
        voxels = np.array([*np.ndindex(11, 9)])
        inside = Outline(np.concatenate((polygon, polygon[:1])), closed=True).contains_points(voxels).reshape(11, 9)
        assert np.count_nonzero(filled([polygon], (11, 9)) != inside) <= np.count_nonzero(near_outline(polygon, voxels))

    def test_circle_has_its_area(self):
        assert filled([circle((50.3, 49.8), 40.25)], (101, 101)).sum() == pytest.approx(np.pi * 40.25**2, rel=2e-3)

    @pytest.mark.parametrize("polygons", [[square(1.5, 9.5), square(3.5, 6.5)], [KEYHOLE]], ids=["two contours", "keyhole"])
    def test_square_has_a_hole(self, polygons):
        assert filled(polygons, (12, 12)).sum() == 8 * 8 - 3 * 3

    def test_islands_are_apart(self):
        assert filled([square(0.5, 3.5), square(5.5, 7.5)], (12, 12)).sum() == 9 + 4

    def test_outline_through_the_centres_gives_the_mask_that_was_traced(self):
        assert filled([square(2, 6)], (9, 9)).sum() == 25
        assert filled([np.array([[4.0, 1], [7, 4], [4, 7], [1, 4]])], (9, 9)).sum() == 25
        assert filled([np.array([[3.0, 3.0]])], (9, 9)).sum() == 1

    def test_polygon_beyond_the_plane_is_cut(self):
        assert filled([square(-1e4, 2.5)], (9, 9)).sum() == 9
        assert filled([square(20, 30)], (9, 9)).sum() == 0


def near_outline(polygon: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """Whether voxels (N, 2) lie so near to a polygon that rounding decides."""
    starts, steps = polygon, np.roll(polygon, -1, axis=0) - polygon
    share = np.clip(np.einsum("vek,ek->ve", voxels[:, None] - starts, steps) / (steps**2).sum(axis=1), 0, 1)
    return np.linalg.norm(voxels[:, None] - starts - share[..., None] * steps, axis=2).min(axis=1) < 0.02


class TestContours:
    @FEW
    @given(degrees=st.floats(-180, 180), flips=st.tuples(*[st.sampled_from((-1, 1))] * 3), axis=st.integers(0, 2))
    def test_cylinder_is_filled_however_the_grid_lies(self, tmp_path, degrees, flips, axis):
        grid = grid_of((14, 13, 12), degrees=degrees, flips=flips)
        contours = [placed(grid, circle((6.1, 5.3), 4.4), place, axis) for place in range(3, 8)]
        expected = np.zeros(grid.shape, np.uint8)
        u, v = np.indices(tuple(length for other, length in enumerate(grid.shape) if other != axis))
        np.moveaxis(expected, axis, 0)[3:8] = (u - 6.1) ** 2 + (v - 5.3) ** 2 <= 4.4**2
        label = contour_mask([write_structures(tmp_path / "rs.dcm", Region(contours))], grid)
        assert np.array_equal(label.array, expected)
        assert label.warnings == []
        assert json.loads(json.dumps(label.facts))["used"][0]["voxels"] == expected.sum()

    @pytest.mark.parametrize("gap", [1.0, 2.0, 4.5, 6.0])
    def test_planes_of_another_series_fill_the_slices_between_them(self, tmp_path, gap):
        grid = grid_of((14, 11, 20))
        planes = np.arange(10.4, 40, gap)
        region = Region([placed(grid, square(2.5, 6.5), place / 3) for place in planes])
        label = contour_mask([write_structures(tmp_path / "rs.dcm", region)], grid)
        slices = np.flatnonzero(label.array.any(axis=(0, 1)))
        centres = 3.0 * np.arange(20)
        expected = np.flatnonzero((centres >= planes[0] - gap / 2) & (centres < planes[-1] + gap / 2))
        assert slices.tolist() == expected.tolist()
        assert (label.array[..., slices].sum(axis=(0, 1)) == 16).all()
        assert f"planes {gap:g} mm apart" in label.warnings[0]

    def test_single_plane_fills_its_slice_alone(self, tmp_path):
        grid = grid_of()
        region = Region([placed(grid, square(2.5, 6.5), 4.2)])
        label = contour_mask([write_structures(tmp_path / "rs.dcm", region)], grid)
        assert np.flatnonzero(label.array.any(axis=(0, 1))).tolist() == [4]

    def test_lesions_of_one_region_are_not_joined(self, tmp_path):
        grid = grid_of((14, 11, 20))
        region = Region([placed(grid, square(2.5, 6.5), place) for place in (2, 3, 9, 10, 15)])
        label = contour_mask([write_structures(tmp_path / "rs.dcm", region)], grid)
        assert np.flatnonzero(label.array.any(axis=(0, 1))).tolist() == [2, 3, 9, 10, 15]

    def test_holes_are_those_of_one_region_and_slice(self, tmp_path):
        grid = grid_of()
        ring = Region(
            [placed(grid, polygon, 4) for polygon in (square(1.5, 9.5), square(3.5, 6.5))] + [placed(grid, square(3.5, 6.5), 5)]
        )
        file = write_structures(tmp_path / "rs.dcm", ring)
        assert contour_mask([file], grid).array.sum(axis=(0, 1))[4:6].tolist() == [55, 9]
        inner = Region([placed(grid, square(3.5, 6.5), 4)], "inner")
        file = write_structures(tmp_path / "rs.dcm", ring, inner)
        assert contour_mask([file], grid).array.sum(axis=(0, 1))[4:6].tolist() == [64, 9]

    def test_contour_that_is_there_twice_is_no_hole(self, tmp_path):
        grid = grid_of()
        region = Region([placed(grid, square(1.5, 9.5), 4)] * 2)
        label = contour_mask([write_structures(tmp_path / "rs.dcm", region)], grid)
        assert label.array.sum() == 64
        assert "twice" in label.warnings[0]

    def test_points_and_open_lines_are_left_out_with_a_warning(self, tmp_path):
        grid = grid_of()
        closed, points = Region([placed(grid, square(1.5, 9.5), 4)]), Region([placed(grid, [[2, 2]], 4)], "seed", shape="POINT")
        label = contour_mask([write_structures(tmp_path / "rs.dcm", closed, points)], grid)
        assert label.array.sum() == 64
        assert "has 1 contours of ROI 2 'seed' that are points or open lines" in label.warnings[0]
        assert label.facts["left_out"][0]["reason"] == "it has no closed contours"

    def test_part_outside_of_the_pet_is_cut_with_a_warning(self, tmp_path):
        grid = grid_of()
        region = Region([placed(grid, square(1.5, 9.5), place) for place in (7, 8, 9, 10)])
        label = contour_mask([write_structures(tmp_path / "rs.dcm", region)], grid)
        assert label.array.sum(axis=(0, 1)).tolist() == [0] * 7 + [64, 64]
        assert "50.0% of which lie outside of the PET" in label.warnings[0]

    def test_nothing_inside_of_the_pet_is_refused(self, tmp_path):
        file = write_structures(tmp_path / "rs.dcm", Region([placed(grid_of(), square(1.5, 9.5), 40)]))
        with pytest.raises(InputError, match="outside of the PET"):
            contour_mask([file], grid_of())

    def test_planes_across_the_slices_are_refused(self, tmp_path):
        file = write_structures(tmp_path / "rs.dcm", Region([placed(grid_of(degrees=30), square(1.5, 9.5), 4)]))
        with pytest.raises(InputError, match="in planes across those of the PET"):
            contour_mask([file], grid_of())

    @pytest.mark.parametrize("kind", ["EXTERNAL", "ORGAN", "AVOIDANCE", "MARKER", "SUPPORT", "BOLUS", "PTV"])
    def test_regions_that_are_no_lesion_by_their_type_are_left_out(self, tmp_path, kind):
        grid = grid_of()
        lesion, other = Region([placed(grid, square(1.5, 4.5), 4)]), Region([placed(grid, square(1.5, 9.5), 4)], "x", kind)
        file = write_structures(tmp_path / "rs.dcm", lesion, other)
        label = contour_mask([file], grid)
        assert label.array.sum() == 9
        assert f"2 'x': its type is {kind}" in label.warnings[0]
        assert contour_mask([file], grid, ["X"]).array.sum() == 64

    def test_planned_volume_alone_is_used_with_a_warning(self, tmp_path):
        grid = grid_of()
        label = contour_mask(
            [write_structures(tmp_path / "rs.dcm", Region([placed(grid, square(1.5, 4.5), 4)], "x", "PTV"))], grid
        )
        assert label.array.sum() == 9
        assert "of the type PTV: see that it has no margin" in label.warnings[0]

    @pytest.mark.parametrize("kinds", [("", ""), ("GTV", ""), ("", "PTV"), (None, None)])
    @pytest.mark.parametrize("name", ["PTV 60 Gy", "ptv_boost", "CTV1", "Lung ITV", "PTV (GTV + 5 mm)"])
    def test_regions_that_are_called_a_margin_are_left_out_beside_a_tumour(self, tmp_path, name, kinds):
        grid = grid_of()
        tumour = Region([placed(grid, square(1.5, 4.5), 4)], "GTVp" if not kinds[0] else "x", kinds[0])
        margin = Region([placed(grid, square(0.5, 5.5), 4)], name, kinds[1])
        label = contour_mask([write_structures(tmp_path / "rs.dcm", tumour, margin)], grid)
        assert label.array.sum() == 9
        (warning,) = label.warnings
        assert re.search(r"2 '.*': its (name says|type is) [CIP]TV, which adds a margin, and there is a GTV", warning)
        # In a file of its own, too.
        files = [write_structures(tmp_path / f"{number}.dcm", region) for number, region in enumerate((margin, tumour))]
        assert contour_mask(files, grid).array.sum() == 9
        assert contour_mask(files, grid, [name]).array.sum() == 25

    @pytest.mark.parametrize("name", ["PTV 60 Gy", "itv"])
    def test_margin_by_its_name_alone_is_used_with_a_warning(self, tmp_path, name):
        grid = grid_of()
        regions = [Region([placed(grid, square(1.5, 4.5), 4)], name, ""), Region([], "GTV", "GTV")]
        label = contour_mask([write_structures(tmp_path / "rs.dcm", *regions)], grid)
        assert label.array.sum() == 9
        assert f"has ROI 1 {name!r} with {name[:3].upper()} in its name: see that it has no margin" in label.warnings

    @pytest.mark.parametrize("name", ["GTV of PTV 1", "Lesion", "aptv"])
    def test_names_that_only_resemble_those_of_margins_are_lesions(self, tmp_path, name):
        grid = grid_of()
        regions = [Region([placed(grid, square(low, low + 3), 4)], each, "") for low, each in ((0.5, "GTV"), (5.5, name))]
        label = contour_mask([write_structures(tmp_path / "rs.dcm", *regions)], grid)
        assert (label.array.sum(), label.warnings) == (18, [])

    @pytest.mark.parametrize("name", ["BODY", "Left lung", "liver"])
    def test_regions_without_a_type_are_judged_by_their_names(self, tmp_path, name):
        grid = grid_of()
        lesion, other = (
            Region([placed(grid, square(1.5, 4.5), 4)], "a", None),
            Region([placed(grid, square(1.5, 9.5), 4)], name, None),
        )
        assert contour_mask([write_structures(tmp_path / "rs.dcm", lesion, other)], grid).array.sum() == 9

    def test_region_of_another_frame_of_reference_is_left_out_or_refused(self, tmp_path):
        grid = grid_of()
        here = Region([placed(grid, square(1.5, 4.5), 4)])
        elsewhere = Region([placed(grid, square(1.5, 9.5), 4)], "mr", frame_of_reference=OTHER_FRAME)
        file = write_structures(tmp_path / "rs.dcm", here, elsewhere)
        label = contour_mask([file], grid, frame_of_reference=FRAME_OF_REFERENCE)
        assert label.array.sum() == 9
        assert label.facts["left_out"][0]["reason"] == "it lies in another frame of reference"
        for names, regions in ((["mr"], [here, elsewhere]), (None, [elsewhere])):
            write_structures(file, *regions)
            with pytest.raises(InputError, match=f"in the frame of reference {OTHER_FRAME}"):
                contour_mask([file], grid, names, FRAME_OF_REFERENCE)

    def test_several_files_are_joined(self, tmp_path):
        grid = grid_of()
        files = [write_structures(tmp_path / f"{n}.dcm", Region([placed(grid, square(1.5, 4.5), n)])) for n in (2, 5)]
        label = contour_mask(files, grid)
        assert label.array.sum(axis=(0, 1)).tolist() == [0, 0, 9, 0, 0, 9, 0, 0, 0]
        assert label.warnings == ["has 2 files, which are joined: 2.dcm, 5.dcm"]


def small_structures(file: Path) -> bytes:
    """A small RTSTRUCT, as bytes."""
    grid = grid_of((6, 5, 4))
    return write_structures(
        file, Region([placed(grid, square(0.5, 3.5), place) for place in (1, 2)]), Region([], "x", "ORGAN")
    ).read_bytes()


class TestDamagedContours:
    @MANY
    @given(data=st.data())
    def test_changed_bytes_give_a_mask_or_a_sentence(self, tmp_path, data):
        damaged = bytearray(small_structures(tmp_path / "rs.dcm"))
        for _ in range(data.draw(st.integers(1, 6))):
            damaged[data.draw(st.integers(132, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        mask_or_sentence(contour_mask, tmp_path / "rs.dcm", bytes(damaged), grid_of((6, 5, 4)))

    @MANY
    @given(data=st.data())
    def test_missing_attributes_give_a_mask_or_a_sentence(self, tmp_path, data):
        dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(small_structures(tmp_path / "rs.dcm")))
        without_attributes(dataset, data)
        dataset.save_as(tmp_path / "rs.dcm")
        mask_or_sentence(contour_mask, tmp_path / "rs.dcm", (tmp_path / "rs.dcm").read_bytes(), grid_of((6, 5, 4)))

    def test_file_cut_off_within_its_contours_is_refused(self, tmp_path):
        content = small_structures(tmp_path / "rs.dcm")
        last = content.rindex(b"CLOSED_PLANAR")
        for length in (0, 100, 140, *range(200, last, 7), last + 40):
            (tmp_path / "rs.dcm").write_bytes(content[:length])
            with pytest.raises(InputError):
                contour_mask([tmp_path / "rs.dcm"], grid_of((6, 5, 4)))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"ContourData": ["1"] * 8}, "with 8 numbers instead of three for each point"),
            ({"ContourData": []}, "with 0 numbers"),
            ({"ContourData": ["nan"] * 12}, "with points that lie nowhere"),
            ({"ContourData": ["1e30"] * 12}, "with points that lie nowhere"),
            ({"ContourData": ["1"] * 11 + ["1,5"]}, "that is not made of numbers"),
            ({"NumberOfContourPoints": 9}, "of 9 points, of which 4 are there"),
        ],
    )
    def test_contour_that_makes_no_sense_is_refused(self, tmp_path, change, message):
        def spoil(dataset):
            for name, value in change.items():
                contour = dataset.ROIContourSequence[0].ContourSequence[0]
                contour[name] = pydicom.DataElement(name, "LO" if name == "ContourData" else "IS", value)

        file = write_structures(tmp_path / "rs.dcm", Region([placed(grid_of(), square(1.5, 4.5), 4)]), change=spoil)
        with pytest.raises(InputError, match=message):
            contour_mask([file], grid_of())

    @pytest.mark.parametrize("name", ["StructureSetROISequence", "ROIContourSequence"])
    def test_file_without_regions_is_refused(self, tmp_path, name):
        file = write_structures(
            tmp_path / "rs.dcm", Region([placed(grid_of(), square(1.5, 4.5), 4)]), change=lambda dataset: delattr(dataset, name)
        )
        with pytest.raises(InputError):
            contour_mask([file], grid_of())

    def test_segmentation_is_no_structure_set(self, tmp_path, small):
        (tmp_path / "seg.dcm").write_bytes(small)
        with pytest.raises(InputError, match="is no DICOM structure set"):
            contour_mask([tmp_path / "seg.dcm"], grid_of())


class TestCoarseMask:
    def test_what_is_left_out_or_cut_is_told_with_what_can_be_done(self, tmp_path):
        drawn_on = grid_of()
        grid = Grid((14, 11, 5), drawn_on.affine)
        both = np.zeros((*drawn_on.shape, 2), np.uint8)
        both[2:4, 2:4, 3:7, 0] = both[6:8, 2:4, 1, 1] = 1
        file = write_seg(tmp_path / "seg.dcm", both, drawn_on, [described(1, "Lesion"), TestChoice.LIVER])
        mask, warnings = read_coarse_mask(file, grid.shape, grid.affine)
        assert np.array_equal(mask, both[..., :5, 0])
        assert warnings == [
            "has segment 1 'Lesion', 50.0% of which lie outside of the PET: it is cut there",
            "has segments that are left out (2 'Liver': it is an organ or a tissue by its category): if they are lesions, give a "
            "file of lesions alone, or the mask as NIfTI",
        ]

    def test_organs_alone_are_refused_with_what_can_be_done(self, tmp_path):
        grid = grid_of()
        liver = described(1, "Liver", codes.SCT.AnatomicalStructure, codes.SCT.Liver)
        file = write_seg(tmp_path / "seg.dcm", blobs(grid.shape), grid, [liver])
        with pytest.raises(InputError, match=r"that may be a lesion \(.*\): give a file of lesions alone, or the mask as NIfTI$"):
            read_coarse_mask(file, grid.shape, grid.affine)

    def test_lesions_that_are_all_lost_are_refused_and_no_lesions_are_none(self, tmp_path):
        drawn_on, grid = grid_of((40, 40, 20), (1, 1, 3)), grid_of()
        mask = np.zeros(drawn_on.shape, np.uint8)
        mask[9:11, 12:14, 3] = 1
        seg = write_seg(tmp_path / "seg.dcm", mask, drawn_on)
        contours = write_structures(tmp_path / "contours.dcm", Region([placed(grid, square(2.2, 2.4), 3)]))
        for file in (seg, contours):
            with pytest.raises(InputError, match=r"^marks lesions so small that each is nearest to no voxel of the PET: draw"):
                read_coarse_mask(file, grid.shape, grid.affine)
        empty = write_seg(tmp_path / "empty.dcm", np.zeros_like(mask), drawn_on, omit_empty_frames=False)
        assert not read_coarse_mask(empty, grid.shape, grid.affine)[0].any()


def boundary_of(mask: np.ndarray) -> np.ndarray:
    """The voxels within one voxel of the surface of a mask (X, Y, Z)."""
    neighbours = np.ones((3, 3, 3))
    return binary_dilation(mask, neighbours) & ~binary_erosion(mask, neighbours)


def on_its_grid(file: Path, nifti: Path) -> tuple[np.ndarray, np.ndarray]:
    """The mask of an RTSTRUCT and the one of a NIfTI file, on the grid of the latter."""
    image = nib.load(nifti)
    return contour_mask([file], Grid(image.shape, image.affine)).array > 0, np.asarray(image.dataobj) > 0


class TestRealContours:
    @needs_shared(SARCOMA_DICOM)
    @needs_shared(SARCOMA)
    @pytest.mark.parametrize("patient", ["002", "019"])
    def test_contours_on_the_pet_are_the_published_mask(self, patient):
        label = SARCOMA / f"labelsTr/fdg_STS{patient}_pre-treatment.nii.gz"
        mask, published = on_its_grid(SARCOMA_DICOM / f"STS_{patient}/PET/mask/RS.dcm", label)
        assert np.array_equal(mask, published)

    @needs_shared(SARCOMA_DICOM)
    @needs_shared(SARCOMA)
    def test_contours_on_the_ct_are_the_published_mask_up_to_its_surface(self):
        label = SARCOMA / "labelsTr/fdg_STS002_pre-treatment.nii.gz"
        mask, published = on_its_grid(SARCOMA_DICOM / "STS_002/CT/mask/RS.dcm", label)
        assert 2 * (mask & published).sum() / (mask.sum() + published.sum()) > 0.97
        assert not ((mask ^ published) & ~boundary_of(published)).any()

    @needs_shared(OBJECTS)
    def test_contours_of_a_reference_object_have_their_area_and_lie_in_its_mask(self):
        file = OBJECTS / "DRO_0_0/RS/RS_dro_0_0.dcm"
        mask, whole = on_its_grid(file, OBJECTS / "DRO_0_0/mask/DRO_mask.nii.gz")
        # The contours leave out the outer slices of the mask, and a rim of less than a voxel.
        assert not (mask & ~whole).any()
        assert not ((mask ^ whole) & ~boundary_of(whole)).any()
        contours = [
            np.reshape(item.ContourData, (-1, 3)).astype(float)
            for item in pydicom.dcmread(file).ROIContourSequence[0].ContourSequence
        ]
        area = sum(abs((np.roll(x, -1) * y - x * np.roll(y, -1)).sum()) / 2 for x, y, _ in (contour.T for contour in contours))
        assert mask.sum() * 16 == pytest.approx(area, rel=5e-3)


def outcome(read, file: Path, grid: Grid) -> list[str]:
    """The sentences to which reading a file leads: warnings, or an error."""
    try:
        label = read([file], grid)
    except InputError as error:
        return [str(error)]
    assert label.array.shape == grid.shape
    json.dumps(label.facts)
    return label.warnings


def mask_or_sentence(read, file: Path, content: bytes, grid: Grid) -> None:
    """Check that a file becomes a mask or an InputError, with sentences of one line."""
    file.write_bytes(content)
    assert all(sentence and "\n" not in sentence for sentence in outcome(read, file, grid))


def without_attributes(dataset: Dataset, data: st.DataObject) -> None:
    """Take some attributes away, at any depth."""
    for _ in range(data.draw(st.integers(1, 3))):
        level = dataset
        while True:
            element = data.draw(st.sampled_from(sorted(element.tag for element in level)))
            inner = level[element].value
            if level[element].VR != "SQ" or not len(inner) or data.draw(st.booleans()):
                break
            level = inner[data.draw(st.integers(0, len(inner) - 1))]
            if not len(level):
                return
        del level[element]
        if not len(dataset):
            return
