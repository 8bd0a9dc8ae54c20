"""The picture shows the patient upright, in mm, in the paper's colours, and always as the same bytes."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from matplotlib.axes import Axes
from nibabel.affines import apply_affine
from PIL import Image

from petct_cascade.pictures import CAPTION, HEADER, PictureOptions, overlay_picture
from petct_training.errors import InputError

AFFINE = np.diag([4.0, 4.0, 6.0, 1.0])


@pytest.fixture
def study():
    """A body of 60 x 40 x 60 voxels (RAS) with uptake in the head, and a lesion at the patient's upper right front."""
    pet = np.ones((60, 40, 60), np.float32)
    lesion = np.zeros(pet.shape, np.uint8)
    lesion[45:51, 28:34, 45:51] = 1
    return pet, lesion


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def coloured(path, colour: str) -> np.ndarray:
    """Where in the picture (rows, columns) something green, red or olive is drawn, above the legend."""
    red, green, blue = np.moveaxis(pixels(path)[:-70], 2, 0)
    return {
        "green": (green - red > 60) & (green - blue > 30),
        "red": (red - green > 60) & (red - blue > 60),
        "olive": (abs(red - green) < 20) & (red - blue > 60),
    }[colour]


def test_equal_input_gives_equal_bytes_without_a_date_or_program(study, tmp_path):
    pet, lesion = study
    first = overlay_picture(tmp_path / "a.png", pet, AFFINE, lesion, lesion, PictureOptions(axial=True, ct=pet * 0)).read_bytes()
    second = overlay_picture(tmp_path / "b.png", pet, AFFINE, lesion, lesion, PictureOptions(axial=True, ct=pet * 0)).read_bytes()
    assert first == second
    assert b"matplotlib" not in first.lower()
    assert b"tEXt" not in first


def test_reference_is_green_prediction_red_and_agreement_olive(study, tmp_path):
    pet, lesion = study
    path = tmp_path / "a.png"
    for masks, seen in [
        ((lesion, None), {"green"}),
        ((None, lesion), {"red"}),
        ((lesion, lesion), {"olive"}),
        ((lesion, np.roll(lesion, 3, axis=2)), {"green", "red", "olive"}),
        ((None, None), set()),
        ((lesion * 0, lesion * 0), set()),
    ]:
        overlay_picture(path, pet, AFFINE, *masks)
        assert {colour for colour in ("green", "red", "olive") if coloured(path, colour).any()} == seen


@pytest.mark.parametrize("axcodes", ["RAS", "LAS", "LPS", "SPL", "AIR"])
def test_patient_is_upright_seen_from_the_front_and_from_the_left_in_any_orientation(study, tmp_path, axcodes):
    image, mask = (nib.Nifti1Image(array, AFFINE) for array in study)
    start = nib.io_orientation(AFFINE)
    turn = nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(axcodes))
    image, mask = image.as_reoriented(turn), mask.as_reoriented(turn)
    path = overlay_picture(tmp_path / "a.png", np.asarray(image.dataobj), image.affine, np.asarray(mask.dataobj))
    rows, columns = np.nonzero(coloured(path, "green"))
    picture = pixels(path)
    middle = picture.shape[1] * 60 / 100  # coronal is 240 mm wide and sagittal 160: three fifths of the page
    assert rows.max() < picture.shape[0] / 2, "the lesion near the head is in the upper half"
    coronal, sagittal = columns[columns < middle], columns[columns > middle]
    assert coronal.max() < middle / 2, "the patient's right is on the left"
    assert sagittal.max() < middle + (picture.shape[1] - middle) / 2, "the front is on the left"


def test_one_mm_is_equally_long_in_both_directions_and_both_projections(study, tmp_path):
    pet, lesion = study
    lesion = np.zeros_like(lesion)
    lesion[20:35, 10:25, 20:30] = 1  # 60 x 60 x 60 mm
    path = overlay_picture(tmp_path / "a.png", pet, AFFINE, lesion)
    found = coloured(path, "green")
    columns = np.flatnonzero(found.any(axis=0))
    first, second = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    assert abs(len(first) - len(second)) <= 2
    assert abs(len(first) - np.count_nonzero(found.any(axis=1))) <= 2


def test_high_uptake_is_dark(study, tmp_path):
    pet, _ = study
    pale = pixels(overlay_picture(tmp_path / "a.png", pet, AFFINE, options=PictureOptions(title="t", facts="f")))
    pet = pet.copy()
    pet[20:40, 10:30, 20:40] = 10
    dark = pixels(overlay_picture(tmp_path / "b.png", pet, AFFINE, options=PictureOptions(title="t", facts="f")))
    changed = (pale != dark).any(axis=2)
    assert changed.sum() > 10000
    assert dark[changed].mean() < 40
    assert pale[changed].mean() > 180


def test_axial_slice_goes_through_the_largest_lesion_also_on_a_ct_of_another_grid(study, tmp_path):
    pet, lesion = study
    lesion = lesion.copy()
    lesion[5:7, 5:7, 5] = 1  # smaller
    finer = np.diag([2.0, 2.0, 6.0, 1.0])
    finer[:3, 3] = -1, -1, 0
    ct = np.full((120, 80, 60), -1000.0, np.float32)
    ct[:, :, 45:51] = 1000  # bone in the slices of the larger lesion only
    kwargs = {"axial": True, "title": "t", "facts": "f"}
    finer_ct, same_ct = PictureOptions(ct=ct, ct_affine=finer, **kwargs), PictureOptions(ct=ct[::2, ::2], **kwargs)
    with_ct = pixels(overlay_picture(tmp_path / "a.png", pet, AFFINE, lesion, options=finer_ct))
    same_grid = pixels(overlay_picture(tmp_path / "b.png", pet, AFFINE, lesion, options=same_ct))
    assert with_ct.shape == same_grid.shape
    panel = with_ct[80:300, -150:-40]
    assert np.median(panel) == 255, "bone is white"


@pytest.mark.parametrize("tilt", [0, 20])
def test_caption_of_a_slice_says_between_which_heights_it_lies(study, tmp_path, monkeypatch, tilt):
    pet, lesion = study
    turn = np.eye(4)
    sine, cosine = np.sin(np.deg2rad(tilt)), np.cos(np.deg2rad(tilt))
    turn[1:3, 1:3] = [[cosine, -sine], [sine, cosine]]
    captions = []
    monkeypatch.setattr(Axes, "set_title", lambda self, caption, **more: captions.append(caption))
    overlay_picture(tmp_path / "a.png", pet, turn @ AFFINE, lesion, options=PictureOptions(axial=True, ct=pet * 0))
    centres = apply_affine(turn @ AFFINE, np.stack(np.meshgrid(range(60), range(40), 45, indexing="ij"), -1))[..., 2]
    heights = f"{centres.min():.0f} to {centres.max():.0f}" if tilt else "270"
    assert captions[-2:] == [f"CT, slice at z = {heights} mm", f"PET, slice at z = {heights} mm"]


@pytest.mark.parametrize("suv", [0, 20])
def test_letters_of_the_sides_can_be_read_on_black_and_on_white(tmp_path, suv):
    path = overlay_picture(tmp_path / "a.png", np.full((60, 40, 60), suv, np.float32), AFFINE)
    picture = pixels(path).max(axis=2)
    (left, *_) = np.flatnonzero(picture[len(picture) // 2] < 60)
    corner = picture[HEADER + CAPTION + 3 :, left + 3 :][:25, :25]
    assert corner.min() < 60
    assert corner.max() > 200


def test_study_without_lesions_or_uptake_is_drawn(tmp_path):
    empty = np.zeros((10, 12, 14), np.float32)
    assert overlay_picture(tmp_path / "a.png", empty, (2, 2, 2), empty, empty, PictureOptions(axial=True, ct=empty)).exists()


def test_name_of_a_study_is_taken_literally_and_fits(study, tmp_path):
    pet, lesion = study
    title = "fdg_0cda25453b_10-12-2003-NA-PET-CT $Ganzkoerper  primaer mit KM$-47333 " * 3
    picture = pixels(overlay_picture(tmp_path / "a.png", pet, AFFINE, lesion, options=PictureOptions(title=title)))
    assert (picture[:, :4] == 255).all()
    assert (picture[:, -4:] == 255).all()


def test_masks_on_another_grid_and_an_empty_suv_range_are_refused(study, tmp_path):
    pet, lesion = study
    with pytest.raises(InputError, match="one grid"):
        overlay_picture(tmp_path / "a.png", pet, AFFINE, lesion[1:])
    with pytest.raises(InputError, match=r"shape \(40, 60\)"):
        overlay_picture(tmp_path / "a.png", pet[0], AFFINE)
    with pytest.raises(InputError, match="SUV range"):
        overlay_picture(tmp_path / "a.png", pet, AFFINE, options=PictureOptions(suv_range=(10, 0)))
    with pytest.raises(InputError, match="affine of the CT"):
        overlay_picture(tmp_path / "a.png", pet, AFFINE, options=PictureOptions(ct=pet[1:]))
    assert list(tmp_path.iterdir()) == []
