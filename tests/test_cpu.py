"""Promises of what makes a CPU faster: it changes no result by more than rounding, and one switch turns it off."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from petct_training import cpu


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.InstanceNorm3d(4, affine=True), nn.LeakyReLU()).eval()


def test_with_channels_last_a_network_gives_the_same_but_for_rounding(network):
    image = torch.randn(2, 2, 8, 9, 10)
    with torch.no_grad():
        expected = network(image)
        torch.testing.assert_close(cpu.channels_last(network)(image), expected, rtol=0, atol=1e-5)


def test_the_switch_leaves_network_and_memory_alone(network, monkeypatch):
    monkeypatch.setenv("PETCT_CPU_TRICKS", "0")
    monkeypatch.setattr(cpu, "_call", lambda *_: pytest.fail("the C library was called"))
    assert cpu.channels_last(network) is network
    assert type(network[1]) is nn.InstanceNorm3d
    assert not cpu.keep_freed_memory()
    with cpu.freed_memory_kept():
        pass
