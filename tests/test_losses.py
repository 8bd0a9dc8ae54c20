"""Promises of how a loss takes the outputs of networks with deep supervision."""

from __future__ import annotations

import pytest
import torch
from torch import distributed
from torch.nn.functional import interpolate

from petct_training.losses import FullSizeHeads
from petct_training.processes import gather

SIZE = (8, 8, 8)


def sum_of_squares(heads: list[torch.Tensor], label: torch.Tensor) -> torch.Tensor:
    """A loss that weights the heads 1, 2, 3 ..."""
    assert isinstance(heads, list)
    return sum(number * ((head - label) ** 2).sum() for number, head in enumerate(heads, 1))


@pytest.fixture
def label() -> torch.Tensor:
    torch.manual_seed(0)
    return (torch.rand(2, 1, *SIZE) > 0.5).float()


def test_a_single_output_is_compared_as_it_is(label):
    output = torch.randn(2, 1, *SIZE)
    assert FullSizeHeads(sum_of_squares)(output, label) == sum_of_squares([output], label)


def test_stacked_outputs_are_compared_one_by_one(label):
    output = torch.randn(2, 3, 1, *SIZE)
    assert FullSizeHeads(sum_of_squares)(output, label) == sum_of_squares([output[:, head] for head in range(3)], label)


def test_shrinking_outputs_are_brought_to_the_labels_size(label):
    output = [torch.randn(2, 1, *(side // 2**head for side in SIZE)) for head in range(3)]
    expected = sum_of_squares([interpolate(head, size=SIZE, mode="trilinear") for head in output], label)
    assert FullSizeHeads(sum_of_squares)(output, label) == expected


def test_outputs_of_a_group_of_one_process_are_its_own_and_gradients_flow_back(label, tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        output = torch.randn(2, 3, 1, *SIZE, requires_grad=True)
        assert torch.equal(gather(output), output)
        FullSizeHeads(sum_of_squares, gathered=True)(output, label).backward()
        gathered = output.grad.clone()
        output.grad = None
        FullSizeHeads(sum_of_squares)(output, label).backward()
        torch.testing.assert_close(gathered, output.grad)
    finally:
        distributed.destroy_process_group()
