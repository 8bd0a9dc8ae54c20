"""The ensemble, or stage 1 alone, as an operator of MONAI Deploy, which the App SDK's own package must be installed for."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from monai.deploy.core import Fragment, Image, IOType
from monai.deploy.operators.monai_bundle_inference_operator import BundleConfigNames, IOMapping, MonaiBundleInferenceOperator

from petct_cascade.judging import judge_volumes
from petct_cascade.loading import LoadImagePETCTd
from petct_cascade.volumes import Volume
from petct_training.checks import check_trained
from petct_training.errors import InputError
from petct_training.inference import check_answer


class PETCTBundleInferenceOperator(MonaiBundleInferenceOperator):
    """Run the bundle `autopet_ensemble` or `autopet_stage1_dynunet` with the masks that the command line gives.

    Input ports are `ct`, in HU, and `pet`, in body-weight SUV, each an `Image` on a grid of its own, without a channel's axis: what
    `DICOMSeriesToVolumeOperator` emits, once the PET's values are SUV; or an array (X, Y, Z) whose metadata holds the `affine`
    (4, 4), RAS as in NIfTI. Output port is `pred`: an `Image` (Z, Y, X) of 0 and 1 on the PET's grid, whose metadata holds the
    PET's affine.

    Where it differs from `MonaiBundleInferenceOperator`: the bundle's configs find the bundle's folder, CT and PET are judged and
    joined as the bundle's loader does, which MONAI Deploy takes away, the network gets nothing but the image, and the mask goes
    with its own affine.

    Args:
        fragment: the application. A model that its context has found, such as in a folder `models`, is not used.
        bundle_path: the bundle's folder, with `models/model.pt` and `models/fingerprint.json`.
        config_names: names of config files, later ones patching earlier ones.
    """

    def __init__(
        self,
        fragment: Fragment,
        *args: Any,
        bundle_path: str | os.PathLike,
        config_names: tuple[str, ...] = ("inference",),
        **kwargs: Any,
    ) -> None:
        folder = Path(bundle_path).expanduser().resolve()
        if not (folder / "configs/inference.json").is_file():
            raise InputError(f"{folder} is not the folder of a bundle: name the one that holds configs/inference.json and models")
        check_trained(folder / "models/model.pt", folder / "models/fingerprint.json")
        super().__init__(
            fragment,
            *args,
            app_context=SimpleNamespace(models=None),
            input_mapping=[IOMapping(role, Image, IOType.IN_MEMORY) for role in ("ct", "pet")],
            output_mapping=[IOMapping("pred", Image, IOType.IN_MEMORY)],
            bundle_path=folder,
            bundle_config_names=BundleConfigNames(config_names=list(config_names)),
            **kwargs,
        )

    def predict(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the network's answer to an image (1, 2, X, Y, Z). What else the preprocessing leaves serves the inversion only.

        Raises:
            InputError: when it holds what is no number.
        """
        answer = super().predict(data)
        check_answer(answer, "the bundle's network")
        return answer

    def _get_compose(self, obj_name: str, disallowed_prefixes: list[str]) -> Any:
        # The first that is read of the configs and names a file of the bundle.
        root = str(self.bundle_path)
        if self._parser["bundle_root"] != root:
            self._parser["bundle_root"] = root
            self._parser.parse(reset=True)
        return super()._get_compose(obj_name, disallowed_prefixes)

    def _receive_input(self, name: str, op_input: Any, context: Any) -> tuple[torch.Tensor, dict[str, Any]]:
        """Return CT and PET on the PET's grid (2, X, Y, Z), and the metadata, for the bundle's one input.

        Raises:
            InputError: when they cannot be a CT in HU and a PET in SUV of one study.
        """
        volumes = {role: self._volume(role, op_input.receive(role)) for role in ("ct", "pet")}
        error = next((problem for problem in judge_volumes("study", volumes) if problem.error), None)
        if error is not None:
            raise InputError(error.sentence)
        image = LoadImagePETCTd("image").join(volumes["ct"], volumes["pet"])
        return image.as_tensor(), dict(image.meta)

    def _volume(self, role: str, image: Image) -> Volume:
        """Return an `Image` as a volume, whose name stands for its file in sentences."""
        array, meta = self._convert_from_image(image)
        # Of DICOM series both affines are there, and which of them is the `affine` depends on an option of the operator before.
        affine = meta.get("nifti_affine_transform", meta.get("affine"))
        array = np.asarray(array)
        if array.ndim != 3 or np.shape(affine) != (4, 4):
            raise InputError(
                f"the {role.upper()} has the shape {array.shape} and its affine {np.shape(affine)}: give one volume of 3 "
                "dimensions, with an affine (4, 4) in its metadata"
            )
        return Volume(Path(f"{role}.nii.gz"), array, np.asarray(affine, dtype=np.float64))

    def _send_output(self, value: Any, name: str, metadata: dict[str, Any], op_output: Any, context: Any) -> None:
        # The metadata that comes along is that of the network's grid.
        own = {key: np.asarray(entry) if key == "affine" else entry for key, entry in value.meta.items()}
        super()._send_output(value, name, own, op_output, context)
