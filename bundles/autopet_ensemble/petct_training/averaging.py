"""Averaging a network's weights over the steps of its training: an exponential moving average, by PyTorch."""

from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class UpdateAverage:
    """Let an average of weights take in each step of a training.

    After the first step the average is the network; after each later one, it is `decay` times itself and 1 - `decay` times the
    network. Buffers are averaged, too, such as the statistics of a batch norm.

    Args:
        average: of the network's weights, see `averaged`.
        network: that is trained.
    """

    def __init__(self, average: AveragedModel, network: torch.nn.Module) -> None:
        self.average, self.network = average, network

    def attach(self, engine: Engine) -> None:
        """Let a trainer call this after each step."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        self.average.update_parameters(self.network)


def averaged(network: torch.nn.Module, decay: float) -> AveragedModel | None:
    """Return what averages a network's weights, as a part of a training's state; None where `decay` is 0.

    Args:
        network: that is going to be trained.
        decay: share of the average that each step keeps, such as 0.999, which remembers about 1 / (1 - 0.999) = 1000 steps.
    """
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True) if decay else None


def network_to_keep(network: torch.nn.Module, average: AveragedModel | None) -> torch.nn.Module:
    """Return the network that is validated and whose weights are written: the average where there is one."""
    return network if average is None else average.module
