"""What a request to MONAI Label says beside its image, in the words of this project, as a MONAI transform that configs name."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import Transform

from petct_training.checks import fingerprint_of
from petct_training.errors import InputError

# MONAI Label itself adds it to the item of each request, and nothing else has it.
OF_REQUEST = "image_path"

# Under which names 3D Slicer and OHIF send clicks: of models of the type "deepgrow", and of the type "deepedit", where each label
# has a list, called after the label in configs/metadata.json.
FOREGROUND, BACKGROUND = ("foreground", "lesion"), "background"


class TakeRequestd(Transform):
    """Turn the clicks and the label map of a request to MONAI Label into "points" and "coarse_mask".

    Clicks are lists of voxel indices [x, y, z] under "foreground" or "lesion", and under "background". A label map is a file under
    "label", where clients upload one; a text that names no file there is the segment's name. A mask without clicks has a list of
    points without a point, so that it stays as it is where what no click touches is kept. An item that MONAI Label has not made
    stays as it is: there, a "label" is the reference.

    Args:
        model_file: the ensemble's weights; None for no check.
        fingerprint_file: what lies beside them. MONAI Label runs none of the checks of `run`.

    Raises:
        InputError: as `petct_training.checks.fingerprint_of`; or when a request holds clicks and "points", or a label map and
            "coarse_mask", of which one would be lost.
    """

    def __init__(self, model_file: str | os.PathLike | None = None, fingerprint_file: str | os.PathLike | None = None) -> None:
        if model_file is not None and fingerprint_file is not None:
            fingerprint_of(model_file, fingerprint_file)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        if OF_REQUEST not in item:
            return item
        clicks = {
            "foreground": [point for name in FOREGROUND for point in item.get(name) or ()],
            "background": list(item.get(BACKGROUND) or ()),
        }
        label = item.get("label")
        if isinstance(label, (str, os.PathLike)) and os.path.isfile(label):
            if item.get("coarse_mask") is not None:
                raise InputError("the request has a label map and a coarse_mask beside each other: send one of the two")
            item["coarse_mask"] = label
        has_points = item.get("points") is not None
        if has_points and any(clicks.values()):
            names = " and ".join(name for name in (*FOREGROUND, BACKGROUND) if item.get(name))
            raise InputError(f"the request has points and {names} beside each other: send all clicks in one of the two forms")
        if any(clicks.values()) or (item.get("coarse_mask") is not None and not has_points):
            item["points"] = clicks
        return item
