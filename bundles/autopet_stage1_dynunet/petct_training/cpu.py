"""What makes a CPU faster, and changes no result by more than rounding: kept memory, channels last. One switch turns all of it off.

Set the environment variable PETCT_CPU_TRICKS to 0 to leave memory and order of the voxels to the libraries.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

# Numbers of the settings in the C library's malloc.h.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
# What the C library comes to by itself in a program with large arrays: those above 32 MB are mapped, and 64 MB may lie unused.
DEFAULTS = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 * 2**20, TRIM_THRESHOLD: 64 * 2**20}
# Voxels that an instance normalisation works on at once.
ROWS = 16384


def switched_on() -> bool:
    """Whether the environment leaves the functions of this module on."""
    return os.environ.get("PETCT_CPU_TRICKS", "1") != "0"


def keep_freed_memory() -> bool:
    """Let this process, and those forked from it, keep the memory of freed arrays for the next ones.

    The C library of Linux gives large blocks back to the system at once, and each new array is then mapped page by page, which
    takes several times longer than most of what is done to it: on CPUs, a third of a network's time.

    Returns:
        Whether it took effect; it does not on other systems, or when it is switched off.
    """
    # -1 is for never.
    return switched_on() and bool(_call("mallopt", MMAP_MAX, 0) and _call("mallopt", TRIM_THRESHOLD, -1))


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep the memory of freed arrays for the next ones until the end of a block, and then return it to the system.

    So what a network has freed, in pieces of its own sizes, does not come on top of what the next one needs, or a whole volume.
    """
    kept = keep_freed_memory()
    try:
        yield
    finally:
        if kept:
            for setting, value in DEFAULTS.items():
                _call("mallopt", setting, value)
            _call("malloc_trim", 0)


def _call(function: str, *arguments: int) -> Any:
    """Call a function of the C library; None where it has no such function."""
    try:
        return getattr(ctypes.CDLL(None), function)(*arguments)
    except (AttributeError, OSError, TypeError):
        return None


class ChannelsLastInstanceNorm3d(nn.InstanceNorm3d):
    """`InstanceNorm3d` that leaves the channels last in memory on a CPU, where PyTorch's own brings them into another order
    and back.
    """

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Normalise each channel of each sample of (B, C, X, Y, Z)."""
        if image.device.type != "cpu" or torch.is_grad_enabled() or torch.jit.is_tracing():
            return super().forward(image)
        image = image.contiguous(memory_format=torch.channels_last_3d)
        result = torch.empty_like(image)
        for sample, normalised in zip(image, result, strict=True):
            # Voxels by channels, in parts that stay in the cores' caches from one step to the next.
            voxels = sample.movedim(0, -1).flatten(end_dim=-2)
            parts = voxels.split(ROWS)
            mean = sum(part.sum(dim=0, dtype=torch.float32).double() for part in parts).div(len(voxels)).float()
            variance = sum((part - mean).square_().sum(dim=0).double() for part in parts) / len(voxels)
            scale = torch.rsqrt(variance + self.eps).float()
            if self.weight is not None:
                scale *= self.weight
            shift = -mean * scale if self.bias is None else self.bias - mean * scale
            for part, out in zip(parts, normalised.movedim(0, -1).view(-1, image.shape[1]).split(ROWS), strict=True):
                torch.addcmul(shift, part, scale, out=out)
        return result


def channels_last(network: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """Let a network compute with the channels last in memory, in which order convolutions are faster on CPUs.

    Returns:
        The network, after its input has been brought into that order; the network alone when this is switched off.
    """
    if not switched_on():
        return network
    # PyTorch's types know this form of `to` for tensors alone.
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    for module in network.modules():
        if type(module) is nn.InstanceNorm3d:
            module.__class__ = ChannelsLastInstanceNorm3d
    return lambda image: network(image.contiguous(memory_format=torch.channels_last_3d))
