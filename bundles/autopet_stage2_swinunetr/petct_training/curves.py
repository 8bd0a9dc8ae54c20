"""What TensorBoard shows of a training: loss, learning rate, validation's scores, and a picture of a study's lesions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from monai.handlers import TensorBoardImageHandler, TensorBoardStatsHandler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class LossAndRate:
    """Take the loss and the learning rate out of a training step's output.

    Args:
        optimizer: whose learning rate it is.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def __call__(self, output: Sequence[dict[str, Any]]) -> dict[str, float]:
        return {"training_loss": output[0]["loss"], "learning_rate": self.optimizer.param_groups[0]["lr"]}


class EpochOf:
    """Return the number of epochs trained, as which a validation's results are drawn; the evaluator does not count them.

    Args:
        lr_scheduler: makes a step after each epoch.
    """

    def __init__(self, lr_scheduler: LRScheduler) -> None:
        self.lr_scheduler = lr_scheduler

    def __call__(self, *_: Any) -> int:
        return self.lr_scheduler.last_epoch


class ScoreCurves(TensorBoardStatsHandler):
    """Draw the scores of each validation over the epochs.

    Args:
        log_dir: TensorBoard's folder.
        lr_scheduler: counts the epochs.
    """

    def __init__(self, log_dir: str | os.PathLike, lr_scheduler: LRScheduler) -> None:
        super().__init__(log_dir=str(log_dir), iteration_log=False, global_epoch_transform=EpochOf(lr_scheduler))


class LesionPictures(TensorBoardImageHandler):
    """Draw the last study of each validation: its PET from the front, with the lesions of label and prediction.

    Args:
        log_dir: TensorBoard's folder.
        lr_scheduler: counts the epochs.
        pet_normalised: normalised value of SUV where the PET is white.
        pet_std: SUV of one unit of the normalised PET.
        picture_suv: SUV above that of white where the PET is black.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike,
        lr_scheduler: LRScheduler,
        pet_normalised: float,
        pet_std: float,
        picture_suv: float,
    ) -> None:
        super().__init__(
            log_dir=str(log_dir),
            max_channels=3,
            batch_transform=_no_picture,
            output_transform=self.draw,
            global_iter_transform=EpochOf(lr_scheduler),
        )
        self.pet_normalised, self.pet_std, self.picture_suv = pet_normalised, pet_std, picture_suv

    def draw(self, output: Sequence[dict[str, Any]]) -> torch.Tensor:
        """Return the picture (1, 3, rows, columns) of an evaluator's output: image (CT, PET, ...), label and prediction."""
        study = output[0]
        return lesion_picture(
            (study["image"][1] - self.pet_normalised) * self.pet_std, study["label"][0], study["pred"][0], self.picture_suv
        )[None]


def lesion_picture(pet: torch.Tensor, label: torch.Tensor, prediction: torch.Tensor, black: float) -> torch.Tensor:
    """Return a maximum-intensity projection along y: PET in greys, found lesions yellow, missed ones green, false ones red.

    Args:
        pet: SUV (X, Y, Z), 0 in white.
        label: 1 in lesions (X, Y, Z), else 0.
        prediction: 1 in predicted lesions (X, Y, Z), else 0.
        black: SUV of black.

    Returns:
        RGB (3, Z, X) from 0 to 1, the head (the last slice) at the top.
    """
    grey, label, prediction = _project(pet), _project(label), _project(prediction)
    grey = (1 - grey / black).clamp(0, 1)
    colour = torch.stack([prediction * (1 - label / 2), label * (1 - prediction / 2), torch.zeros_like(label)])
    return torch.where(torch.maximum(label, prediction) > 0, colour, grey)


def _project(volume: torch.Tensor) -> torch.Tensor:
    return volume.as_subclass(torch.Tensor).float().cpu().amax(dim=1).T.flip(0)


def _no_picture(_batch: Any) -> tuple[list[None], list[None]]:
    return [None], [None]
