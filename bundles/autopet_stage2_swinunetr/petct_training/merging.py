"""SwinUNETR's patch merging, with the octants for which its weights were trained."""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.nets.swin_unetr import PatchMerging
from torch import nn

Octants = tuple[tuple[int, ...], ...]

# First voxel of each octant of 2 x 2 x 2 voxels, in the order in which `PatchMerging` joins their channels. MONAI 1.5.0 and later:
MONAI_1_5: Octants = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1))
# MONAI up to 1.4.0 took two octants twice, and two never (monai/networks/nets/swin_unetr.py of either release):
MONAI_1_4: Octants = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1))

# Name of the octants in a state dict.
OCTANTS = "octants"


class OctantPatchMerging(PatchMerging):
    """MONAI's `PatchMerging`, whose octants are part of its weights.

    Names and shapes of MONAI's own weights say nothing of the octants, so that weights of MONAI 1.4.0 can be loaded into the
    network of a later release and then compute something else. Here the state dict holds the octants as `octants` (8, 3), uint8.
    Weights without them are taken for those of MONAI 1.5.0 or later. MONAI's own network refuses weights with them, as surplus.

    No change of the weights could make MONAI's network compute the same: its layer normalisation takes mean and variance over all
    eight octants, and that of MONAI 1.4.0 never saw two of them.

    Args:
        dim: number of channels.
        norm_layer: class of the normalisation.
        spatial_dims: 2 or 3; octants are for 3.
    """

    def __init__(self, dim: int, norm_layer: type[nn.LayerNorm] = nn.LayerNorm, spatial_dims: int = 3) -> None:
        super().__init__(dim, norm_layer, spatial_dims)
        self.octants: torch.Tensor
        self.register_buffer(OCTANTS, as_tensor(MONAI_1_5))
        # What is computed must not depend on a tensor's values while a graph is traced.
        self.order = MONAI_1_5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, X / 2, Y / 2, Z / 2, 2 C), rounded up, of channels-last features (B, X, Y, Z, C)."""
        if x.ndim != 5:
            return super().forward(x)
        odd = [length % 2 for length in x.shape[1:4]]
        if any(odd):
            x = nn.functional.pad(x, (0, 0, 0, odd[2], 0, odd[1], 0, odd[0]))
        x = torch.cat([x[:, i::2, j::2, k::2] for i, j, k in self.order], -1)
        return self.reduction(self.norm(x))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        state_dict.setdefault(prefix + OCTANTS, as_tensor(MONAI_1_5))
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        self.order = tuple(tuple(octant) for octant in self.octants.tolist())


def as_tensor(octants: Octants) -> torch.Tensor:
    """Return octants as a state dict holds them (8, 3)."""
    return torch.tensor(octants, dtype=torch.uint8)


def names_of_octants(network: nn.Module) -> list[str]:
    """Return the names of the octants in a network's state dict; none where all its merging is MONAI's own."""
    return [f"{name}.{OCTANTS}" for name, module in network.named_modules() if isinstance(module, OctantPatchMerging)]
