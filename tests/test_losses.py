"""Promises of how a loss takes the outputs of networks with deep supervision."""

from __future__ import annotations

import pytest
import torch
from helpers import NETWORKS
from monai.losses import DiceCELoss
from plain_chain import parse
from torch import distributed
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from petct_training.losses import FullSizeHeads, loss_by_lesion
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


def test_each_lesion_counts_alike_however_small():
    """Three lesions in two samples, of 27, 1 and 4 voxels; two voxels that share an edge are one lesion."""
    torch.manual_seed(0)
    label, logits = torch.zeros(2, 1, *SIZE), torch.randn(2, 1, *SIZE, requires_grad=True)
    lesions = [
        [(0, x, y, z) for x in range(3) for y in range(3) for z in range(3)],
        [(0, 6, 6, 6)],
        [(1, 1, 1, 1), (1, 1, 1, 2), (1, 1, 2, 3), (1, 2, 3, 3)],
    ]
    for lesion in lesions:
        for sample, *voxel in lesion:
            label[(sample, 0, *voxel)] = 1
    entropy = binary_cross_entropy_with_logits(logits, label, reduction="none")
    expected = sum(sum(entropy[(sample, 0, *voxel)] for sample, *voxel in lesion) / len(lesion) for lesion in lesions) / 3
    result = loss_by_lesion(logits, label)
    torch.testing.assert_close(result, expected)
    result.backward()
    assert (logits.grad[label == 1] != 0).all()
    assert (logits.grad[label == 0] == 0).all()


def test_without_a_lesion_the_term_of_lesions_is_zero():
    assert loss_by_lesion(torch.randn(1, 1, *SIZE), torch.zeros(1, 1, *SIZE)) == 0


def test_the_term_of_lesions_is_added_by_its_weight_for_the_output_of_full_size(label):
    output = [torch.randn(2, 1, *(side // 2**head for side in SIZE)) for head in range(2)]
    plain, weighted = FullSizeHeads(sum_of_squares), FullSizeHeads(sum_of_squares, small_lesion_weight=0.5)
    torch.testing.assert_close(weighted(output, label), plain(output, label) + 0.5 * loss_by_lesion(output[0], label))


@pytest.mark.parametrize("bundle", NETWORKS)
def test_the_configs_hand_smoothing_and_weight_to_the_loss(bundle, prepared):
    off = parse(bundle, prepared, quick=True)
    default = DiceCELoss(sigmoid=True, batch=True).dice
    own = off.get_parsed_content("loss").loss.dice
    assert (own.smooth_nr, own.smooth_dr) == (default.smooth_nr, default.smooth_dr)
    assert off.get_parsed_content("loss_function").small_lesion_weight == 0
    on = parse(bundle, prepared, quick=True, dice_smooth=0, small_lesion_weight=0.5)
    dice = on.get_parsed_content("loss").loss.dice
    assert (dice.smooth_nr, dice.smooth_dr) == (0, default.smooth_dr)
    assert on.get_parsed_content("loss_function").small_lesion_weight == 0.5


def test_without_smoothing_an_empty_patch_gives_the_whole_dice_loss_and_no_gradient():
    """LesionTracer's Dice, 2 |P G| / (|P| + |G|): nothing predicted where nothing is lowers it."""
    for smooth, pulls in ((0, False), (1e-5, True)):
        logits = torch.full((1, 1, *SIZE), -20.0, requires_grad=True)
        loss = DiceCELoss(sigmoid=True, batch=True, smooth_nr=smooth).dice(logits, torch.zeros(1, 1, *SIZE))
        loss.backward()
        assert bool(logits.grad.abs().max() > 0) is pulls
        assert loss.item() == pytest.approx(1 if smooth == 0 else 1 - 1e-5 / (logits.sigmoid().sum().item() + 1e-5), abs=1e-6)
