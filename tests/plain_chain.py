"""The training's patches as MONAI's own transforms make them from whole studies: what the bundles' quick ones are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers import BUNDLES, SMALL, STAGE1
from monai.bundle import ConfigParser


def plain_chain(coarse_mask: bool) -> dict[str, Any]:
    """Return overrides of a network bundle's train.json; the recipe's numbers stay those of the config.

    Args:
        coarse_mask: whether the network takes one, as those of stage 2 do.
    """
    masks = ["coarse_mask", "label"] if coarse_mask else ["label"]
    keys = ["image", *masks]

    def scale(key: str, **limits: Any) -> dict[str, Any]:
        return {"_target_": "ScaleIntensityRanged", "keys": f"image_{key}", **limits}

    def apart(*transforms: dict[str, Any]) -> list[dict[str, Any]]:
        split = {"_target_": "SplitDimd", "keys": "image", "output_postfixes": ["ct", "pet"], "keepdim": True}
        return [split, *transforms, {"_target_": "ConcatItemsd", "keys": ["image_ct", "image_pet"], "name": "image"}]

    parts = {
        "read": [
            {"_target_": "LoadImaged", "keys": keys},
            {"_target_": "EnsureChannelFirstd", "keys": keys},
            {"_target_": "SelectItemsd", "keys": keys},
        ],
        "window": [
            {"_target_": "BorderPadd", "keys": "image", "spatial_border": "@border", "value": "@outside"},
            {"_target_": "BorderPadd", "keys": masks, "spatial_border": "@border"},
            {"_target_": "SpatialPadd", "keys": "image", "spatial_size": "@window_size", "value": "@outside"},
            {"_target_": "SpatialPadd", "keys": masks, "spatial_size": "@window_size"},
            {
                "_target_": "RandCropByPosNegLabeld",
                "keys": keys,
                "label_key": "label",
                "spatial_size": "@window_size",
                "pos": "@lesion_fraction",
                "neg": "$1 - @lesion_fraction",
            },
        ],
        "scale": [
            *apart(
                *(
                    scale(key, a_min=f"$@{key}_clip[0]", a_max=f"$@{key}_clip[1]", b_min=0, b_max=1, clip=True)
                    for key in ("ct", "pet")
                )
            ),
            {"_target_": "SelectItemsd", "keys": keys},
        ],
        "crop": [
            {
                "_target_": "OneOf",
                "weights": "$[1 - @affine_prob, @affine_prob]",
                "transforms": [{"_target_": "CenterSpatialCropd", "keys": keys, "roi_size": "@patch_size"}, "@train::affine"],
            }
        ],
        "flips": [{"_target_": "RandFlipd", "keys": keys, "prob": "@flip_prob", "spatial_axis": axis} for axis in range(3)],
        "intensity": [
            {"_target_": "RandGaussianNoised", "keys": "image", "prob": "@noise_prob", "std": "@noise_std"},
            {
                "_target_": "RandGaussianSmoothd",
                "keys": "image",
                "prob": "@smooth_prob",
                **{f"sigma_{axis}": "$tuple(@smooth_sigma)" for axis in "xyz"},
            },
            {"_target_": "RandScaleIntensityd", "keys": "image", "prob": "@intensity_prob", "factors": "@intensity_factor"},
            {
                "_target_": "RandSimulateLowResolutiond",
                "keys": "image",
                "prob": "@low_resolution_prob",
                "zoom_range": "$tuple(@low_resolution_zoom)",
            },
            {
                "_target_": "RandAdjustContrastd",
                "keys": "image",
                "prob": "@gamma_inverted_prob",
                "gamma": "$tuple(@gamma)",
                "invert_image": True,
            },
            {"_target_": "RandAdjustContrastd", "keys": "image", "prob": "@gamma_prob", "gamma": "$tuple(@gamma)"},
        ],
        "dropout": ["@train::dropout"] if coarse_mask else [],
        "normalise": [
            *apart(
                *(
                    scale(key, a_min=0, a_max=1, b_min=f"$@{key}_normalised[0]", b_max=f"$@{key}_normalised[1]")
                    for key in ("ct", "pet")
                )
            ),
            *([{"_target_": "ConcatItemsd", "keys": ["image", "coarse_mask"], "name": "image"}] if coarse_mask else []),
            {"_target_": "SelectItemsd", "keys": ["image", "label"]},
        ],
    }
    whole = " + ".join(f"@plain::{name}" for name in parts)
    return {"plain": parts, "train::preprocessing": {"_target_": "Compose", "transforms": f"${whole}"}}


def parse(bundle: str, data: Path, *, quick: bool, **overrides) -> ConfigParser:
    """The training config of a bundle over a data set, as it is or with MONAI's own transforms."""
    parser = ConfigParser()
    parser.read_config(BUNDLES / bundle / "configs/train.json")
    dropout = {} if bundle == STAGE1 else {"dropout_prob": 0}
    chain = {} if quick else plain_chain(coarse_mask=bundle != STAGE1)
    parser.update({"bundle_root": str(BUNDLES / bundle), "dataset_dir": str(data), **chain, **SMALL, **dropout, **overrides})
    return parser
