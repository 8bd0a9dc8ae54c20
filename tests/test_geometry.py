"""Promise of the ensemble's chain from file to file: whatever grid a study comes on, its mask comes back on it, in the same place."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from helpers import ENSEMBLE, FINGERPRINT, parser_of, write_nifti
from hypothesis import given, settings
from hypothesis import strategies as st

# The PET is this far above its background at the centre of a Gaussian of this width (mm), and is segmented above the threshold.
HEIGHT, SIGMA, BACKGROUND, THRESHOLD = 6.0, 16.0, 0.5, 3.0
# From -1 to 1 in logits, the probability is as good as linear in SUV, so that interpolation and threshold can change places.
SUV_PER_LOGIT = 20.0
LARGEST_SPACING = 6.0
# The volume is this wide (mm) at least, so that the Gaussian has fallen below the threshold at its faces.
WIDTH = 115.0


@st.composite
def grids(draw) -> tuple[tuple[int, ...], np.ndarray, np.ndarray]:
    """Size and affine of a volume of any orientation, spacing, origin and obliqueness, and the place (mm) of its hot spot."""
    spacing = np.array([draw(st.floats(2, LARGEST_SPACING)) for _ in range(3)])
    shape = tuple(int(np.ceil(WIDTH / size)) + draw(st.integers(0, 6)) for size in spacing)
    axes = np.zeros((3, 3))
    for axis, world in enumerate(draw(st.permutations(range(3)))):
        axes[world, axis] = draw(st.sampled_from([-1, 1]))
    for first, second in ((0, 1), (1, 2), (0, 2)):
        angle = np.deg2rad(draw(st.just(0) | st.floats(-40, 40)))
        turn = np.eye(3)
        turn[[first, second], [first, second]] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        axes = turn @ axes
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = [draw(st.floats(-800, 800)) for _ in range(3)]
    centre = np.array([(size - 1) * draw(st.floats(0.45, 0.55)) for size in shape])
    return shape, affine, affine[:3, :3] @ centre + affine[:3, 3]


def suv(shape: tuple[int, ...], affine: np.ndarray, place: np.ndarray) -> np.ndarray:
    """A Gaussian hot spot at a place, sampled on a grid."""
    points = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    return BACKGROUND + HEIGHT * np.exp(-((points - place) ** 2).sum(-1) / (2 * SIGMA**2))


def segment(files: list[str] | str, spacing: list[float], folder: Path) -> nib.Nifti1Image:
    """Run the ensemble's own chain, with networks of one voxel that take the PET above the threshold for lesion."""
    numbers = {"percentile_00_5": 0, "percentile_99_5": 100, "mean": 4, "std": 2}
    (folder / "fingerprint.json").write_text(json.dumps(FINGERPRINT | {"spacing": spacing, "pet": numbers}))
    parser = parser_of(ENSEMBLE, "inference")
    parser["ckpt_dir"], parser["output_dir"] = str(folder), str(folder / "masks")
    for name, channels in (("stage1", 2), *((f"members::{member}", 3) for member in ("SegResNet", "SwinUNETR", "UNet"))):
        parser[f"network_def::{name}::network"] = {
            "_target_": "torch.nn.Conv3d",
            "in_channels": channels,
            "out_channels": 1,
            "kernel_size": 1,
        }
    parser["patch_sizes"] = {name: [32, 32, 32] for name in parser["patch_sizes"]}
    preprocessing, postprocessing = (parser.get_parsed_content(name) for name in ("preprocessing", "postprocessing"))
    network = parser.get_parsed_content("network_def").eval()
    with torch.no_grad():
        for convolution in (module for module in network.modules() if isinstance(module, torch.nn.Conv3d)):
            convolution.weight.zero_()
            # Of CT, PET and perhaps the coarse mask.
            convolution.weight[0, 1] = numbers["std"] / SUV_PER_LOGIT
            convolution.bias.fill_((numbers["mean"] - THRESHOLD) / SUV_PER_LOGIT)
        item = preprocessing({"case": "study", "image": files})
        item["pred"] = network(item["image"][None])[0]
    postprocessing(item)
    return nib.load(folder / "masks/study.nii.gz")


@given(
    grid=grids(),
    spacing=st.lists(st.floats(2, 5), min_size=3, max_size=3),
    ct_grid=st.none() | grids(),
    one_file=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_mask_of_any_grid_comes_back_on_it_and_in_place(grid, spacing, ct_grid, one_file):
    shape, affine, place = grid
    pet = suv(shape, affine, place).astype(np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if one_file:
            both = np.stack([np.zeros_like(pet), pet], -1)
            image = nib.Nifti1Image(both, affine)
            nib.save(image, folder / "both.nii")
            mask = segment(str(folder / "both.nii"), spacing, folder)
        else:
            ct_shape, ct_affine, _ = (shape, affine, place) if ct_grid is None else ct_grid
            write_nifti(folder / "ct.nii", np.zeros(ct_shape, np.int16), ct_affine)
            write_nifti(folder / "pet.nii", pet, affine)
            mask = segment([str(folder / "ct.nii"), str(folder / "pet.nii")], spacing, folder)
        found = np.asarray(mask.dataobj)
    assert found.shape == shape
    np.testing.assert_allclose(mask.affine, affine, atol=1e-3)
    # Linear interpolation over a distance h errs by at most h^2 / 8 of the second derivative along each axis, here twice.
    curvature = HEIGHT / SIGMA**2
    error = sum(size**2 for size in (*spacing, *np.linalg.norm(affine[:3, :3], axis=0))) / 8 * curvature
    certain = np.abs(pet - THRESHOLD) > error
    assert certain.mean() > 0.5
    assert (pet[certain] > THRESHOLD).any()
    np.testing.assert_array_equal(found[certain], pet[certain] > THRESHOLD)
