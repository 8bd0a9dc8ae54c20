"""How a loss takes the outputs of networks with deep supervision, and those of many processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import interpolate

from petct_training.processes import gather


class FullSizeHeads:
    """Compare every output of a network with the label at the label's full size.

    Networks hand out their outputs in three forms: one tensor (B, C, X, Y, Z), all of one size stacked (B, heads, C, X, Y, Z) as
    DynUNet does, or a list of ever smaller ones as SegResNetDS does; these are brought to the label's size by linear interpolation.

    Args:
        loss: takes a list of outputs (B, C, X, Y, Z) and the label (B, C, X, Y, Z), as MONAI's `DeepSupervisionLoss` does.
        gathered: whether the loss is that of the samples of all processes together, as the Dice over a batch needs.
    """

    def __init__(self, loss: Callable[[list[torch.Tensor], torch.Tensor], torch.Tensor], gathered: bool = False) -> None:
        self.loss, self.gathered = loss, gathered

    def __call__(self, output: torch.Tensor | Sequence[torch.Tensor], label: torch.Tensor) -> torch.Tensor:
        """Return the loss of a network's output."""
        outputs = [output] if isinstance(output, torch.Tensor) else list(output)
        if self.gathered:
            outputs, label = [gather(tensor) for tensor in outputs], gather(label)
        heads = [head for tensor in outputs for head in (tensor.unbind(dim=1) if tensor.ndim > label.ndim else [tensor])]
        return self.loss([_resized(head, label.shape[2:]) for head in heads], label)


def _resized(head: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return head if head.shape[2:] == tuple(size) else interpolate(head, size=tuple(size), mode="trilinear")
