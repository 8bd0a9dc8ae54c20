"""Training and evaluating in many processes, one a GPU, as torchrun starts them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from monai.data import DistributedSampler
from torch import distributed


def rank() -> int:
    """Return the number of this process among all of a run; 0 where it is alone."""
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def number_of_processes() -> int:
    """Return how many processes a run has; 1 where this one is alone."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


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


class StepsSampler(DistributedSampler):
    """Draw one process's share of an epoch's studies: every study once, or as many as a number of steps takes.

    More steps than studies draw all studies again, in another order; fewer draw some of them. No two processes draw the same place.

    Args:
        dataset: from which is drawn.
        steps: of an epoch; None for every study once, divided among the processes.
        batch_size: studies that one process takes in a step.
        seed: the same in all processes.
        weights: with which probability each study is drawn, see `petct_training.sampling.study_weights`; None for all as often.
        others: further arguments of `monai.data.DistributedSampler`.
    """

    def __init__(
        self,
        dataset: Any,
        steps: int | None,
        batch_size: int,
        seed: int = 0,
        weights: Sequence[float] | None = None,
        **others: Any,
    ) -> None:
        super().__init__(dataset, even_divisible=True, seed=seed, **others)
        self.weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)
        self.whole = steps is None and weights is None
        if steps is not None:
            self.num_samples = steps * batch_size
            self.total_size = self.num_samples * self.num_replicas

    def __iter__(self) -> Iterator[int]:
        if self.whole:
            return super().__iter__()
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        if self.weights is not None:
            drawn = torch.multinomial(self.weights, self.total_size, replacement=True, generator=generator)
            return iter(drawn[self.rank :: self.num_replicas].tolist())
        number = len(self.dataset)  # type: ignore[arg-type]
        draw = partial(torch.randperm, generator=generator) if self.shuffle else torch.arange
        rounds = [draw(number) for _ in range(-(-self.total_size // number))]
        return iter(torch.cat(rounds)[self.rank : self.total_size : self.num_replicas].tolist())


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """Return the samples of all processes (B, ...) one after another; gradients flow back to each process's own."""
    # Imported where it is needed: some versions of PyTorch write a file when it is, which may be what fills a disk.
    from torch.distributed.nn import all_gather

    return torch.cat(all_gather(tensor.as_subclass(torch.Tensor).contiguous()))
