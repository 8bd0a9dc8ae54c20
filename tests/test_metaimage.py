"""Promises of MetaImage: files are read and written as ITK does it, and a damaged one ends in a sentence."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from helpers import write_study
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial.transform import Rotation

from petct_cascade.items import images_of_case, masks_in_folder
from petct_cascade.judging import check_study
from petct_cascade.loading import LoadImagePETCTd
from petct_cascade.metaimage import TYPES, read_metaimage, read_place, write_metaimage
from petct_cascade.studies import find_studies
from petct_cascade.volumes import read_mask, read_volume, without_suffix
from petct_training.errors import InputError
from petct_training.records import file_state

SHAPE = (4, 5, 6)
TYPES_OF_ITK = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")


def turned(seed: int = 0, spacing: tuple[float, ...] = (2, 3, 4)) -> np.ndarray:
    """An oblique affine (4, 4), RAS."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=seed).as_matrix() * spacing
    affine[:3, 3] = np.random.default_rng(seed).uniform(-500, 500, 3)
    return affine


def itk_image(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """ITK's image of an array (X, Y, Z) with an affine in RAS."""
    image = sitk.GetImageFromArray(array.T)
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing([float(value) for value in spacing])
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def itk_affine(image: sitk.Image) -> np.ndarray:
    """Affine in RAS of ITK's image: where ITK itself puts voxels."""
    origin = np.array(image.TransformIndexToPhysicalPoint((0, 0, 0)))
    steps = [np.array(image.TransformIndexToPhysicalPoint(tuple(int(i) for i in step))) - origin for step in np.eye(3)]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.transpose(steps), origin
    return np.diag([-1, -1, 1, 1]) @ affine


def numbers(dtype: str = "int16") -> np.ndarray:
    return np.arange(np.prod(SHAPE), dtype=dtype).reshape(SHAPE)


def write_header(file: Path, data: bytes = b"", **fields: str | None) -> Path:
    """Write a header and data behind it; None takes a field away."""
    header = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryDataByteOrderMSB": "False",
        "ElementSpacing": "2 3 4",
        "DimSize": "4 5 6",
        "ElementType": "MET_SHORT",
    } | fields
    last = header.pop("ElementDataFile", "LOCAL")
    lines = [f"{name} = {value}\n" for name, value in header.items() if value is not None]
    file.write_bytes("".join([*lines, f"ElementDataFile = {last}\n"]).encode() + data)
    return file


def voxels(dtype: str = "<i2") -> bytes:
    return np.ascontiguousarray(numbers().T.astype(dtype)).tobytes()


# ---------------------------------------------------------------- as ITK


@settings(max_examples=60, deadline=None)
@given(
    array=arrays.arrays(st.sampled_from(TYPES_OF_ITK), st.tuples(*[st.integers(1, 5)] * 3)),
    seed=st.integers(0, 10**6),
    spacing=st.tuples(*[st.floats(0.1, 50)] * 3),
    compressed=st.booleans(),
    suffix=st.sampled_from([".mha", ".mhd"]),
)
def test_what_itk_writes_is_read_where_itk_puts_it(tmp_path_factory, array, seed, spacing, compressed, suffix):
    file = tmp_path_factory.mktemp("itk") / f"image{suffix}"
    affine = turned(seed, spacing)
    sitk.WriteImage(itk_image(array, affine), str(file), useCompression=compressed)
    found, place = read_metaimage(file)
    assert found.dtype == array.dtype
    assert np.array_equal(found, array, equal_nan=array.dtype.kind == "f")
    assert np.allclose(place, itk_affine(sitk.ReadImage(str(file))), atol=1e-6)
    assert np.allclose(place, affine, atol=1e-3)


@pytest.mark.parametrize("dtype", TYPES_OF_ITK)
def test_what_is_written_itk_reads(tmp_path, dtype):
    array, affine = numbers(dtype), turned()
    write_metaimage(tmp_path / "image.mha", array, affine)
    image = sitk.ReadImage(str(tmp_path / "image.mha"))
    assert np.array_equal(sitk.GetArrayFromImage(image).T, array)
    assert sitk.GetArrayFromImage(image).dtype == array.dtype
    assert np.allclose(itk_affine(image), affine, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "data"),
    [
        ({}, voxels()),
        ({"BinaryDataByteOrderMSB": "True"}, voxels(">i2")),
        ({"BinaryDataByteOrderMSB": None, "ElementByteOrderMSB": "True"}, voxels(">i2")),
        ({"ElementType": "MET_LONG"}, voxels("<i4")),
        ({"HeaderSize": "-1"}, b"junk" + voxels()),
        ({"ElementSpacing": None}, voxels()),
        ({"ElementSpacing": None, "ElementSize": "2 2 5"}, voxels()),
        ({"ElementSize": "9 9 9"}, voxels()),
        ({"Position": "1 2 3"}, voxels()),
        ({"Origin": "1 2 3"}, voxels()),
        ({"Offset": "1 2 3", "TransformMatrix": "0 1 0 0 0 1 1 0 0"}, voxels()),
        ({"Orientation": "0 1 0 -1 0 0 0 0 1"}, voxels()),
        ({"Rotation": "0 1 0 -1 0 0 0 0 1", "AnatomicalOrientation": "RAI", "Comment": "a = b"}, voxels()),
        ({"BinaryData": "True", "CompressedData": "False"}, voxels()),
    ],
)
def test_other_ways_of_writing_are_read_as_itk_reads_them(tmp_path, fields, data):
    file = write_header(tmp_path / "image.mha", data, **fields)
    array, affine = read_metaimage(file)
    image = sitk.ReadImage(str(file))
    assert np.array_equal(array, sitk.GetArrayFromImage(image).T)
    assert np.array_equal(array, numbers())
    assert array.dtype.isnative
    assert np.allclose(affine, itk_affine(image), atol=1e-6)


def test_voxels_in_another_file_are_read_from_where_its_header_ends(tmp_path):
    (tmp_path / "voxels.bin").write_bytes(b"header" + voxels())
    file = write_header(tmp_path / "image.mhd", ElementDataFile="voxels.bin", HeaderSize="6")
    assert np.array_equal(read_metaimage(file)[0], numbers())


def test_fourth_axis_of_one_is_left_out(tmp_path):
    fields = {"NDims": "4", "DimSize": "4 5 6 1", "ElementSpacing": "2 3 4 1", "Offset": "1 2 3 0"}
    fields["TransformMatrix"] = " ".join("1" if i % 5 == 0 else "0" for i in range(16))
    array, affine = read_metaimage(write_header(tmp_path / "image.mha", voxels(), **fields))
    assert np.array_equal(array, numbers())
    assert np.array_equal(affine, [[-2, 0, 0, -1], [0, -3, 0, -2], [0, 0, 4, 3], [0, 0, 0, 1]])


def test_ct_and_pet_in_one_file_are_two_channels(tmp_path):
    fields = {"NDims": "4", "DimSize": "4 5 6 2", "ElementSpacing": "2 3 4 1"}
    file = write_header(tmp_path / "image.mha", voxels() + voxels(), **fields)
    assert read_volume(file, channels=2)[0].array.shape == (*SHAPE, 2)
    with pytest.raises(InputError, match="4 dimensions"):
        read_volume(file)


def test_truth_values_are_written_as_a_mask(tmp_path):
    write_metaimage(tmp_path / "mask.mha", numbers() > 50, turned())
    mask = read_mask(tmp_path / "mask.mha")
    assert mask.array.dtype == np.uint8
    assert np.array_equal(mask.array, numbers() > 50)


def test_what_a_metaimage_cannot_hold_is_refused(tmp_path):
    for array in (numbers("complex64"), numbers("float16"), numbers()[0]):
        with pytest.raises(ValueError, match="holds no array"):
            write_metaimage(tmp_path / "image.mha", array, turned())
    assert not any(tmp_path.iterdir())


def test_place_of_another_file_is_written_with_its_very_numbers(tmp_path):
    fields = {
        "Offset": "-407.28 0.1 1e-3",
        "TransformMatrix": "0.6 0.8 0 -0.8 0.6 0 0 0 1",
        "ElementSpacing": "2.0364201068878174 3.0000000000000004 4",
    }
    # The voxels are missing: where they lie is known all the same.
    place = read_place(write_header(tmp_path / "ct.mha", **fields))
    write_metaimage(tmp_path / "mask.mha", np.zeros(SHAPE, np.uint8), place)
    image = sitk.ReadImage(str(tmp_path / "mask.mha"))
    assert image.GetOrigin() == (-407.28, 0.1, 0.001)
    assert image.GetSpacing() == (2.0364201068878174, 3.0000000000000004, 4)
    assert image.GetDirection() == sitk.ReadImage(str(write_header(tmp_path / "whole.mha", voxels(), **fields))).GetDirection()
    with pytest.raises(ValueError, match="has no place"):
        write_metaimage(tmp_path / "mask.mha", np.zeros((4, 5, 7), np.uint8), place)


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"ObjectType": "Tube"}, "is not a MetaImage"),
        ({"DimSize": None}, "is not a MetaImage"),
        ({"DimSize": "4 5"}, "is not a MetaImage"),
        ({"DimSize": "4 5 six"}, "is not a MetaImage"),
        ({"DimSize": "4 5 " + "9" * 5000}, "is not a MetaImage"),
        ({"NDims": "2", "DimSize": "4 30"}, "2 dimensions"),
        ({"DimSize": "4 5 0"}, "has no voxels"),
        ({"DimSize": "1 20 6"}, "single slice"),
        ({"DimSize": "4 5 7"}, "damaged or cut off"),
        ({"DimSize": "100000 100000 100000"}, "damaged or cut off"),
        ({"ElementType": "MET_STRING"}, "type MET_STRING"),
        ({"ElementNumberOfChannels": "3"}, "colours"),
        ({"BinaryData": "False"}, "as text"),
        ({"HeaderSize": "x"}, "is not a MetaImage"),
        ({"HeaderSize": "99999999"}, "damaged or cut off"),
        ({"HeaderSize": "-1", "CompressedData": "True"}, "HeaderSize"),
        ({"CompressedData": "True"}, "damaged or cut off"),
        ({"ElementSpacing": "2 0 4"}, "zero or negative"),
        ({"ElementSpacing": "2 -3 4"}, "zero or negative"),
        ({"ElementSpacing": "nan 3 4"}, "not a number"),
        ({"ElementSpacing": "1e999 3 4"}, "not a number"),
        ({"ElementSpacing": "2 3"}, "is not a MetaImage"),
        ({"ElementSpacing": "0.002 0.003 0.004"}, "not in mm"),
        ({"Offset": "a b c"}, "is not a MetaImage"),
        ({"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, "do not span a volume"),
        ({"TransformMatrix": "1 0 0 0.5 1 0 0 0 1"}, "right angles"),
        ({"ElementDataFile": "absent.raw"}, "which is not there"),
        ({"ElementDataFile": "../other/image.raw"}, "outside of its own folder"),
        ({"ElementDataFile": "/etc/passwd"}, "outside of its own folder"),
        ({"ElementDataFile": "..\\image.raw"}, "outside of its own folder"),
        ({"ElementDataFile": "LIST"}, "one file a slice"),
        ({"ElementDataFile": "slice_%03d.raw 1 6 1"}, "one file a slice"),
    ],
)
def test_headers_that_make_no_sense_end_in_a_sentence(tmp_path, fields, sentence):
    file = write_header(tmp_path / "image.mha", voxels(), **fields)
    with pytest.raises(InputError, match=sentence):
        read_volume(file)


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * 3_000_000, b"a = b\n" * 400_000, bytes(range(256)) * 10])
def test_what_is_no_metaimage_ends_in_a_sentence(tmp_path, content):
    (tmp_path / "image.mha").write_bytes(content)
    with pytest.raises(InputError, match=r"not a MetaImage|is empty"):
        read_volume(tmp_path / "image.mha")


def test_header_that_lies_about_its_size_takes_no_memory(tmp_path):
    write_metaimage(tmp_path / "small.mha", np.zeros(SHAPE, np.uint8), np.diag([2, 3, 4, 1]))
    data = (tmp_path / "small.mha").read_bytes()
    (tmp_path / "image.mha").write_bytes(data.replace(b"DimSize = 4 5 6", b"DimSize = 2000 2000 2000"))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="damaged or cut off"):
            read_volume(tmp_path / "image.mha")
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


@settings(max_examples=200, deadline=None)
@given(cut=st.integers(0, 10**4), place=st.integers(0, 10**4), byte=st.integers(0, 255), compressed=st.booleans())
def test_damaged_files_end_in_a_sentence_or_are_read(tmp_path_factory, cut, place, byte, compressed):
    file = tmp_path_factory.mktemp("damaged") / "image.mha"
    array = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)
    if compressed:
        write_metaimage(file, array, np.diag([2, 3, 4, 1]))
    else:
        write_header(file, np.ascontiguousarray(array.T).tobytes())
    whole = file.read_bytes()
    damaged = bytearray(whole[: len(whole) - cut % len(whole)])
    damaged[place % len(damaged)] = byte
    file.write_bytes(bytes(damaged))
    try:
        found = read_volume(file)[0].array
    except InputError:
        return
    # A checksum tells each change of what is compressed.
    assert found.shape != array.shape or not compressed or cut % len(whole) < 2
    assert found.ndim == 3


@pytest.mark.parametrize("lost", [1, 4, 20])
def test_compressed_voxels_that_are_cut_off_are_damaged(tmp_path, lost):
    file = tmp_path / "image.mha"
    write_metaimage(file, numbers(), turned())
    file.write_bytes(file.read_bytes()[:-lost])
    with pytest.raises(InputError, match="damaged or cut off"):
        read_metaimage(file)


@pytest.mark.parametrize("length", [5, 7])
def test_compressed_voxels_must_be_as_many_as_the_header_says(tmp_path, length):
    file = tmp_path / "image.mha"
    write_metaimage(file, numbers(), turned())
    file.write_bytes(file.read_bytes().replace(b"DimSize = 4 5 6", f"DimSize = 4 5 {length}".encode()))
    with pytest.raises(InputError, match="damaged or cut off"):
        read_metaimage(file)


# ---------------------------------------------------------------- in place of NIfTI


def as_metaimage(file: Path, suffix: str = ".mha") -> Path:
    """Put a MetaImage in the place of a NIfTI file."""
    image = nib.load(file)
    target = file.with_name(without_suffix(file.name) + suffix)
    array, affine = np.asarray(image.dataobj), image.affine
    if suffix == ".mha":
        write_metaimage(target, array, affine)
    else:
        sitk.WriteImage(itk_image(array, affine), str(target), useCompression=True)
    file.unlink()
    return target


@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
def test_study_in_metaimage_is_that_in_nifti(tmp_path, suffix):
    files = write_study(tmp_path, "fdg_p1_day1")
    studies, _ = find_studies(tmp_path, labels=True)
    expected = LoadImagePETCTd("image")({"image": [studies[0].ct, studies[0].pet]})["image"]
    label = read_mask(studies[0].label)
    metaimages = [as_metaimage(file, suffix) for file in files]
    studies, problems = find_studies(tmp_path, labels=True)
    assert problems == []
    assert [studies[0].ct, studies[0].pet, studies[0].label] == metaimages
    assert check_study(studies[0]) == []
    image = LoadImagePETCTd("image")({"image": [studies[0].ct, studies[0].pet]})["image"]
    assert np.array_equal(image.numpy(), expected.numpy())
    assert np.allclose(image.affine, expected.affine)
    assert np.array_equal(read_mask(studies[0].label).array, label.array)


def test_case_in_two_formats_is_a_problem(tmp_path):
    files = write_study(tmp_path, "fdg_p1_day1")
    (tmp_path / "imagesTr/fdg_p1_day1_0001.mha").write_bytes(files[1].read_bytes())
    _, problems = find_studies(tmp_path, labels=True)
    assert "fdg_p1_day1_0001.nii.gz is there as fdg_p1_day1_0001.mha, too" in str(problems[0])


def test_masks_and_images_are_found_in_metaimage(tmp_path):
    for name in ("a_0000.mha", "a_0001.mhd", "b.mha"):
        (tmp_path / name).touch()
    assert images_of_case("a", tmp_path) == {"ct": tmp_path / "a_0000.mha", "pet": tmp_path / "a_0001.mhd"}
    assert "b" in masks_in_folder(tmp_path)[0]


def test_digest_of_a_header_is_that_of_its_voxels_too(tmp_path):
    (tmp_path / "ct.raw").write_bytes(voxels())
    file = write_header(tmp_path / "ct.mhd", ElementDataFile="ct.raw")
    state = file_state(file)
    assert file_state(file, state) == state
    (tmp_path / "ct.raw").write_bytes(voxels()[::-1])
    assert file_state(file)["sha256"] != state["sha256"]
    (tmp_path / "ct.raw").unlink()
    assert file_state(file) is None


def test_all_types_are_those_of_their_names():
    for name, code in TYPES.items():
        assert np.dtype(code).kind == ("f" if name in ("MET_FLOAT", "MET_DOUBLE") else "u" if name[4] == "U" else "i")
