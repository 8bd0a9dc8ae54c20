"""The challenge's metrics of one study, and the same as a MONAI metric for any bundle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cc3d
import numpy as np
import torch
from monai.metrics import CumulativeIterationMetric

from petct_cascade.volumes import zero_and_one
from petct_training.components import labelled_components
from petct_training.errors import InputError
from petct_training.grids import bounding_box, spacing_of, voxel_volume_ml

# What the metrics mean, in one line each.
METRIC_DEFINITIONS = {
    "dice": "twice the volume that prediction and reference share, over the sum of their volumes",
    "fpv_ml": "false-positive volume: of the predicted lesions that touch no voxel of the reference",
    "fnv_ml": "false-negative volume: of the reference lesions that touch no voxel of the prediction",
    "sensitivity": "share of the reference lesions that are found",
    "precision": "share of the predicted lesions that overlap the reference",
    "f1": "harmonic mean of lesion sensitivity and lesion precision",
}
COUNT_DEFINITIONS = {
    "lesions_reference": "number of 18-connected components of the reference",
    "lesions_found": "reference lesions of which the prediction overlaps any voxel",
    "lesions_predicted": "number of 18-connected components of the prediction",
    "lesions_false": "predicted lesions that touch no voxel of the reference",
}
METRIC_NAMES = tuple(METRIC_DEFINITIONS)
COUNT_NAMES = tuple(COUNT_DEFINITIONS)


def case_metrics(prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float]) -> dict[str, float]:
    """Score one predicted mask against its reference, as the autoPET III challenge does, and lesion by lesion.

    Of whole numbers, every voxel that is not 0 belongs to the mask. A lesion is an 18-connected component; it is found when any of
    its voxels overlaps the other mask. Source of `dice`, `fpv_ml` and `fnv_ml` and of their values for empty masks: the autoPET III
    challenge's evaluation (https://autopet-iii.grand-challenge.org).

    Args:
        prediction: predicted mask (X, Y, Z) on the original grid: integer, bool, or 0 and 1 in another type.
        reference: reference mask (X, Y, Z) on the same grid, of such a type, too.
        spacing: voxel size along X, Y, Z in mm.

    Returns:
        dice: 2 |P & G| / (|P| + |G|). NaN without reference lesions; 0 when only the prediction is empty.
        fpv_ml: volume (ml) of the predicted components that touch no reference voxel. 0 for an empty prediction.
        fnv_ml: volume (ml) of the reference components that touch no predicted voxel. NaN without reference lesions.
        sensitivity: found / all reference components. NaN without reference lesions.
        precision: predicted components that overlap the reference / all predicted components. NaN for an empty prediction.
        f1: harmonic mean of sensitivity and precision, 0 when no lesion is found. NaN without reference lesions.
        lesions_reference, lesions_found, lesions_predicted, lesions_false: the numbers of components (int) behind these.

    Raises:
        InputError: the masks are not three-dimensional, differ in shape or hold other values, such as probabilities; or a spacing
            is not a positive number.

    Example:
        >>> reference = np.zeros((8, 8, 8), np.uint8)
        >>> reference[1:3, 1:3, 1:3] = 1
        >>> prediction = np.roll(reference, 1, axis=0)
        >>> case_metrics(prediction, reference, (10, 10, 10))["dice"]
        0.5
    """
    prediction, reference = np.asarray(prediction), np.asarray(reference)
    if prediction.ndim != 3 or prediction.shape != reference.shape:
        raise InputError(
            f"the prediction has the shape {prediction.shape} and the reference {reference.shape}: "
            "give two masks (X, Y, Z) on one grid."
        )
    voxel_ml = voxel_volume_ml(spacing)
    prediction, reference = as_bool("prediction", prediction), as_bool("reference", reference)
    box = bounding_box(prediction | reference)
    if box is None:
        nan = math.nan
        values = {"dice": nan, "fpv_ml": 0.0, "fnv_ml": nan, "sensitivity": nan, "precision": nan, "f1": nan}
        return values | dict.fromkeys(COUNT_NAMES, 0)
    prediction, reference = prediction[box], reference[box]

    overlap = prediction & reference
    predicted, predicted_touched = _component_sizes(prediction, overlap)
    lesions, lesions_touched = _component_sizes(reference, overlap)
    false_voxels = int(predicted[~predicted_touched].sum())
    missed_voxels = int(lesions[~lesions_touched].sum())
    found, correct = int(lesions_touched.sum()), int(predicted_touched.sum())

    sensitivity = found / len(lesions) if len(lesions) else math.nan
    precision = correct / len(predicted) if len(predicted) else math.nan
    f1 = 2 * sensitivity * precision / (sensitivity + precision) if found else 0.0
    dice = 2 * int(np.count_nonzero(overlap)) / int(predicted.sum() + lesions.sum()) if len(lesions) else math.nan
    return {
        "dice": dice,
        "fpv_ml": false_voxels * voxel_ml,
        "fnv_ml": missed_voxels * voxel_ml if len(lesions) else math.nan,
        "sensitivity": sensitivity,
        "precision": precision,
        "f1": f1 if len(lesions) else math.nan,
        "lesions_reference": len(lesions),
        "lesions_found": found,
        "lesions_predicted": len(predicted),
        "lesions_false": len(predicted) - correct,
    }


def lesions_by_size(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the lesions of a boolean mask (X, Y, Z), the largest first; of equal ones, the first in the order of the voxels.

    Tables of read-outs, segmentations and reports share these numbers.

    Returns:
        As `petct_training.components.labelled_components`.
    """
    labels, count = labelled_components(mask)
    sizes = cc3d.statistics(labels)["voxel_counts"][1:].astype(np.int64)
    numbers = np.zeros(count + 1, labels.dtype)
    numbers[1 + np.argsort(-sizes, kind="stable")] = np.arange(1, count + 1)
    # Slice by slice, since an index takes eight bytes a voxel.
    for index in range(labels.shape[2]):
        labels[:, :, index] = numbers[labels[:, :, index]]
    return labels, count


class LesionMetrics(CumulativeIterationMetric):
    """`case_metrics` as a MONAI metric: one row per study, and the mean over studies that leaves out NaN.

    In a config, through Ignite:

        {"_target_": "IgniteMetricHandler",
         "metric_fn": {"_target_": "petct_cascade.metrics.LesionMetrics", "names": "dice"},
         "output_transform": "$monai.handlers.from_engine(['pred', 'label'])"}

    Prediction and label are binary masks of one channel on the original grid (lists of (1, X, Y, Z), or (batch, 1, X, Y, Z)).
    The voxel size is read from the label's metadata (`MetaTensor.affine`), else from the prediction's.

    Args:
        names: one name or several of `METRIC_NAMES`. With one name `aggregate` returns one number, which can be the key metric of
            an evaluator; with several it returns a dictionary, from which Ignite makes one entry of `engine.state.metrics` each.
        prefix: put before each name in that dictionary, so that several handlers can share an engine.
        spacing: voxel size along X, Y, Z in mm, for tensors without metadata. None: metadata are required.

    Raises:
        InputError: a name is unknown; later: a mask has several channels, or no voxel size is known.
    """

    def __init__(self, names: str | Sequence[str] = METRIC_NAMES, prefix: str = "", spacing: Sequence[float] | None = None):
        super().__init__()
        self.single = isinstance(names, str)
        self.names = (names,) if isinstance(names, str) else tuple(names)
        unknown = [name for name in self.names if name not in METRIC_NAMES + COUNT_NAMES]
        if unknown or not self.names:
            raise InputError(f"the metrics {unknown} are unknown: choose from {', '.join(METRIC_NAMES + COUNT_NAMES)}.")
        self.prefix = prefix
        self.spacing = spacing

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        """Return the scores (batch, number of names) of a batch (batch, 1, X, Y, Z), float64 on the CPU."""
        if y is None or y_pred.ndim != 5 or y_pred.shape[1] != 1 or y_pred.shape != y.shape:
            raise InputError(
                f"the prediction has the shape {tuple(y_pred.shape)} and the label {None if y is None else tuple(y.shape)}: "
                "give two binary masks (batch, 1, X, Y, Z) on one grid."
            )
        rows = []
        for index, (prediction, reference) in enumerate(zip(_to_numpy(y_pred), _to_numpy(y), strict=True)):
            values = case_metrics(prediction[0], reference[0], self._spacing_of_item(index, y, y_pred))
            rows.append([values[name] for name in self.names])
        return torch.tensor(rows, dtype=torch.float64)

    def _spacing_of_item(self, index: int, *tensors: torch.Tensor) -> Sequence[float]:
        """Return the voxel size in mm of item `index` of the first tensor that knows it."""
        if self.spacing is not None:
            return self.spacing
        for tensor in tensors:
            affine = getattr(tensor, "affine", None)
            if affine is not None:
                affine = np.asarray(affine, float)
                affine = affine[index] if affine.ndim == 3 else affine
                return spacing_of(affine).tolist()
        raise InputError("neither label nor prediction knows its voxel size: give MetaTensors, or `spacing` in mm.")

    def aggregate(self) -> torch.Tensor | dict[str, float]:
        """Return the mean over all studies (of all processes), leaving out NaN: one number, or a dictionary of numbers."""
        buffer = self.get_buffer()
        means = torch.full((len(self.names),), math.nan) if buffer is None else torch.nanmean(buffer, dim=0)
        if self.single:
            return means[0]
        return {self.prefix + name: float(mean) for name, mean in zip(self.names, means, strict=True)}


def as_bool(name: str, mask: np.ndarray) -> np.ndarray:
    """Return a mask (X, Y, Z) as bool: of whole numbers, which may be those of lesions, every voxel that is not 0.

    Args:
        name: what it is called in a sentence.
        mask: integer, bool, or 0 and 1 in another type.

    Raises:
        InputError: when it holds other values, such as probabilities.
    """
    if mask.dtype.kind in "iu":
        return mask != 0
    try:
        return zero_and_one(mask)
    except InputError as error:
        raise InputError(f"the {name} {error}") from error


def _component_sizes(mask: np.ndarray, overlap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of voxels of each component of `mask`, and whether it holds any voxel of `overlap`, both (n,)."""
    if not mask.any():
        return np.zeros(0, int), np.zeros(0, bool)
    labels, count = labelled_components(mask)
    sizes = np.bincount(labels[mask], minlength=count + 1)[1:]
    touched = np.bincount(labels[overlap], minlength=count + 1)[1:] > 0
    return sizes, touched


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Return the voxels of a tensor or MetaTensor as an array on the CPU."""
    return tensor.detach().cpu().numpy()
