"""How a loss takes the outputs of networks with deep supervision, and those of many processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn.functional import interpolate, softplus

from petct_training.components import labelled_components
from petct_training.processes import gather


class FullSizeHeads:
    """Compare every output of a network with the label at the label's full size.

    Networks hand out their outputs in three forms: one tensor (B, C, X, Y, Z), all of one size stacked (B, heads, C, X, Y, Z) as
    DynUNet does, or a list of ever smaller ones as SegResNetDS does; these are brought to the label's size by linear interpolation.

    Args:
        loss: takes a list of outputs (B, C, X, Y, Z) and the label (B, C, X, Y, Z), as MONAI's `DeepSupervisionLoss` does.
        gathered: whether the loss is that of the samples of all processes together, as the Dice over a batch needs.
        small_lesion_weight: weight of a further term in which a small lesion counts as much as a large one, see
            `loss_by_lesion`; 0 for none.
    """

    def __init__(
        self,
        loss: Callable[[list[torch.Tensor], torch.Tensor], torch.Tensor],
        gathered: bool = False,
        small_lesion_weight: float = 0,
    ) -> None:
        self.loss, self.gathered, self.small_lesion_weight = loss, gathered, small_lesion_weight

    def __call__(self, output: torch.Tensor | Sequence[torch.Tensor], label: torch.Tensor) -> torch.Tensor:
        """Return the loss of a network's output."""
        outputs = [output] if isinstance(output, torch.Tensor) else list(output)
        if self.gathered:
            outputs, label = [gather(tensor) for tensor in outputs], gather(label)
        heads = [head for tensor in outputs for head in (tensor.unbind(dim=1) if tensor.ndim > label.ndim else [tensor])]
        full_size = [_resized(head, label.shape[2:]) for head in heads]
        loss = self.loss(full_size, label)
        return loss + self.small_lesion_weight * loss_by_lesion(full_size[0], label) if self.small_lesion_weight else loss


def loss_by_lesion(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return the mean over all lesions of the mean cross-entropy over each lesion's voxels, so that all lesions count alike.

    Args:
        logits: (B, 1, X, Y, Z).
        label: the same size, 1 in lesions, whose 18-connected components are the lesions. Without any the result is 0.
    """
    weights, number = [], 0
    for mask in label[:, 0].detach().cpu().numpy() != 0:
        labels, lesions = labelled_components(mask)
        sizes = torch.from_numpy(np.bincount(labels.ravel(), minlength=lesions + 1)).float()
        # What is no lesion has the label 0, and no weight.
        of_component = torch.cat([torch.zeros(1), 1 / sizes[1:]])
        weights.append(of_component[torch.from_numpy(labels.astype(np.int64))])
        number += lesions
    weight = torch.stack(weights)[:, None].to(logits.device) / max(number, 1)
    # The cross-entropy of a voxel whose label is 1.
    return (softplus(-logits.float()) * weight).sum()


def _resized(head: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return head if head.shape[2:] == tuple(size) else interpolate(head, size=tuple(size), mode="trilinear")
