"""Training and evaluating in many processes, one a GPU, as torchrun starts them."""

from __future__ import annotations

import torch
import torch.distributed.nn
from torch import distributed


def rank() -> int:
    """Return the number of this process among all of a run; 0 where it is alone."""
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def start_process_group(device: torch.device) -> None:
    """Join the processes of a run: with NCCL on GPUs, of which each process takes its own, otherwise with gloo."""
    on_gpu = device.type == "cuda"
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    if on_gpu:
        torch.cuda.set_device(device)


def end_process_group(network: torch.nn.Module | None = None) -> None:
    """Leave the group of processes.

    Args:
        network: a `DistributedDataParallel` that was trained in it. It lets go of the group, whose threads would otherwise outlive
            Python, and now and then abort a finished training (PyTorch pull request 179291).
    """
    if isinstance(network, torch.nn.parallel.DistributedDataParallel):
        network.__dict__.update(process_group=None, reducer=None, logger=None)
    distributed.destroy_process_group()


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """Return the samples of all processes (B, ...) one after another; gradients flow back to each process's own."""
    return torch.cat(torch.distributed.nn.all_gather(tensor.as_subclass(torch.Tensor).contiguous()))
