"""Promises of the cascade as one network, and of its parts inside of `EnsembleEvaluator`."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers import ENSEMBLE, make_cascade, parser_of
from monai.engines import EnsembleEvaluator
from monai.inferers import SimpleInferer, sliding_window_inference
from torch import nn

from petct_cascade.cascade import Cascade, PrepareCoarseMask, SlidingWindow, pad_to_window
from petct_cascade.transforms import MeanOfMembersd
from petct_training.cpu import channels_last
from petct_training.errors import InputError

MEMBERS = ("SegResNet", "UNet")


@pytest.fixture
def cascade() -> Cascade:
    return make_cascade().eval()


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn((1, 2, 30, 21, 27), generator=torch.Generator().manual_seed(1))


def reference(cascade: Cascade, image: torch.Tensor) -> torch.Tensor:
    """The method written out: stage 1, threshold, third channel, each member, mean."""
    coarse = sliding_window_inference(image, (24, 16, 16), 2, cascade.stage1.network, overlap=0.5, mode="constant").sigmoid()
    stacked = torch.cat([image, (coarse >= 0.5).float()], dim=1)
    segresnet = sliding_window_inference(
        stacked, (16, 16, 24), 1, cascade.members["SegResNet"].network, overlap=0.5, mode="constant"
    )
    unet = sliding_window_inference(stacked, (16, 16, 16), 4, cascade.members["UNet"].network, overlap=0.25, mode="constant")
    return (segresnet.sigmoid() + unet.sigmoid()) / 2


@torch.no_grad()
def test_cascade_equals_the_method_written_out(cascade, image):
    probability = cascade(image)
    assert probability.shape == (1, 1, 30, 21, 27)
    torch.testing.assert_close(probability, reference(cascade, image), atol=1e-5, rtol=0)
    assert probability.std() > 0.01


@torch.no_grad()
def test_members_see_ct_pet_and_a_mask_of_zeros_and_ones(cascade, image):
    probability, stacked = cascade.with_coarse_mask(image)
    torch.testing.assert_close(stacked[:, :2], image, rtol=0, atol=0)
    torch.testing.assert_close(stacked[:, 2:], (probability >= 0.5).float(), rtol=0, atol=0)
    assert 0 < stacked[:, 2].mean() < 1


@torch.no_grad()
def test_mask_in_the_third_channel_takes_the_place_of_stage_1(cascade, image):
    mask = (torch.rand((1, 1, 30, 21, 27), generator=torch.Generator().manual_seed(2)) > 0.7).float()
    automatic = cascade(image)
    cascade.stage1 = None
    stacked = torch.cat([image, mask], dim=1)
    corrected = cascade(stacked)
    torch.testing.assert_close(corrected, sum(member(stacked) for member in cascade.members.values()) / 2, atol=1e-6, rtol=0)
    assert not torch.allclose(corrected, automatic, atol=1e-3)


@torch.no_grad()
def test_probability_of_the_threshold_belongs_to_the_mask(cascade, image):
    cascade.stage1 = nn.Module()
    cascade.stage1.forward = lambda image: torch.full_like(image[:, :1], 0.5)
    assert cascade.with_coarse_mask(image)[1][:, 2].eq(1).all()


@torch.no_grad()
@pytest.mark.parametrize("shape", [(5, 7, 3), (1, 1, 1), (16, 40, 9)], ids=str)
def test_volume_smaller_than_the_window_keeps_its_shape(cascade, shape):
    assert cascade(torch.randn(1, 2, *shape)).shape == (1, 1, *shape)


def test_state_dict_holds_each_networks_tensors_under_its_name(cascade):
    expected = {f"stage1.network.{name}" for name in cascade.stage1.network.state_dict()}
    for member in MEMBERS:
        expected |= {f"members.{member}.network.{name}" for name in cascade.members[member].network.state_dict()}
    assert set(cascade.state_dict()) == expected


def test_deep_supervision_heads_stay_in_the_state_dict_and_give_one_tensor(cascade, image):
    assert any("deep_supervision_heads" in name for name in cascade.state_dict())
    assert any("up_layers" in name for name in cascade.members["SegResNet"].state_dict())
    with torch.no_grad():
        assert cascade.stage1(image).shape == (1, 1, 30, 21, 27)


def evaluate(cascade: Cascade, image: torch.Tensor, stage1_weight: float | None = None, **options) -> dict:
    """What `EnsembleEvaluator` with the cascade's parts gives for one study."""
    evaluator = EnsembleEvaluator(
        device=torch.device("cpu"),
        val_data_loader=[{"image": image}],
        networks=list(cascade.members.values()),
        pred_keys=list(cascade.members),
        inferer=SimpleInferer(),
        prepare_batch=PrepareCoarseMask(cascade, **options),
        postprocessing=MeanOfMembersd(keys=MEMBERS, stage1_key=options.get("said_key"), stage1_weight=stage1_weight),
        decollate=True,
    )
    evaluator.run()
    return {**evaluator.state.batch[0], **evaluator.state.output[0]}


def test_evaluator_gives_every_voxel_of_the_one_network(cascade, image):
    with torch.no_grad():
        expected = cascade(image)[0]
    # The evaluator must not depend on the mode in which it finds the networks: here dropout and deep supervision are on.
    torch.testing.assert_close(evaluate(cascade.train(), image)["pred"], expected, rtol=0, atol=0)


@pytest.mark.parametrize("part", ["stage1", *MEMBERS])
def test_network_that_answers_with_nan_is_one_sentence_and_never_an_empty_mask(cascade, image, part):
    window = {"stage1": cascade.stage1, **cascade.members}[part]
    # One voxel of one study.
    window.network.register_forward_hook(lambda module, given, answer: answer.index_fill(-1, torch.tensor([3]), torch.nan))
    sentence = f"^{type(window.network).__name__} answers with what is no number"
    with torch.no_grad(), pytest.raises(InputError, match=sentence):
        cascade(image)
    with pytest.raises(InputError, match=sentence):
        evaluate(cascade, image)


@torch.no_grad()
@pytest.mark.parametrize("third", [None, -1, "mask"], ids=["plain", "clicks", "mask"])
def test_evaluator_takes_stage_1s_share_as_the_one_network_does(cascade, image, third):
    cascade.stage1_weight = 0.5
    if third is not None:
        channel = (image[:, 1:] > 0.5).float() if third == "mask" else torch.full_like(image[:, :1], -1)
        marks = torch.zeros_like(channel)
        marks[..., 10, 10, 10] = 1
        image = torch.cat([image, channel, marks], dim=1)
    item = evaluate(cascade, image, stage1_weight=0.5, said_key="stage1")
    torch.testing.assert_close(item["pred"][None], cascade(image), atol=1e-6, rtol=0)
    cascade.stage1_weight = None
    assert torch.allclose(item["pred"][None], cascade(image), atol=1e-3) == (third == "mask"), "a mask has no stage 1"


@torch.no_grad()
def test_evaluator_takes_a_mask_in_place_of_stage_1s_as_the_one_network_does(cascade, image):
    corrected = torch.cat([image, (image[:, 1:] > 0.5).float()], dim=1)
    torch.testing.assert_close(evaluate(cascade, corrected)["pred"][None], cascade(corrected), atol=1e-6, rtol=0)


def test_stage_1_runs_once_a_study_and_its_probability_is_kept_on_request(cascade, image):
    calls = []
    cascade.stage1.register_forward_hook(lambda *arguments: calls.append(1))
    item = evaluate(cascade, image, stage1_key="DynUNet")
    assert len(calls) == 1
    with torch.no_grad():
        torch.testing.assert_close(item["DynUNet"], cascade.stage1(image)[0], rtol=0, atol=0)


def test_mixed_precision_computes_in_bfloat16_on_a_cpu_and_gives_float32(cascade, image):
    with torch.no_grad():
        expected = cascade.stage1(image)
        cascade.stage1.amp = True
        probability = cascade.stage1(image)
    assert probability.dtype == torch.float32
    # bfloat16 keeps 8 bits of each number.
    assert 0 < (probability - expected).abs().max() < 0.05


@pytest.mark.parametrize(("capability", "reduced"), [("avx512_bf16", True), ("amx_bf16", True), ("avx2", False)])
def test_precision_left_to_the_hardware_is_reduced_on_a_cpu_that_computes_in_bfloat16(
    cascade, image, monkeypatch, capability, reduced
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True}, raising=False)
    with torch.no_grad():
        cascade.stage1.amp = reduced
        expected = cascade.stage1(image)
        cascade.stage1.amp = None
        torch.testing.assert_close(cascade.stage1(image), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("text", "amp"), [("false", False), ("true", True), (None, None)])
def test_precision_can_be_said_on_the_command_line(text, amp):
    assert SlidingWindow(nn.Identity(), [8, 8, 8], amp=text).amp is amp


def test_stage_1_and_segresnet_keep_float32_on_a_cpu_unless_they_are_told():
    parser = parser_of(ENSEMBLE, "inference", "demo")
    parser.update({"device": torch.device("cpu")})
    cascade = parser.get_parsed_content("network_def")
    assert cascade.stage1.amp is False
    assert {name: member.amp for name, member in cascade.members.items()} == {"SegResNet": False, "SwinUNETR": None, "UNet": None}
    parser = parser_of(ENSEMBLE, "inference", "demo")
    parser.update({"device": torch.device("cpu"), "amp": "true"})
    cascade = parser.get_parsed_content("network_def")
    assert [window.amp for window in (cascade.stage1, *cascade.members.values())] == [True] * 4


def window_and_input(name: str, image: torch.Tensor) -> tuple[SlidingWindow, torch.Tensor]:
    """A network in float32 that computes logits near 1, so that rounding stays small, and what it takes."""
    cascade = make_cascade(spread=1).eval()
    if name == "stage1":
        return cascade.stage1, image
    return cascade.members[name], torch.cat([image, image[:, :1] > 0], dim=1)


def kernels_are_channels_last(network: nn.Module) -> bool:
    kernels = [weight for weight in network.parameters() if weight.ndim == 5]
    assert kernels
    return all(weight.is_contiguous(memory_format=torch.channels_last_3d) for weight in kernels)


@torch.no_grad()
@pytest.mark.parametrize("name", ["stage1", *MEMBERS])
def test_channels_last_on_a_cpu_give_the_same_probabilities(image, name):
    window, given = window_and_input(name, image)
    expected = torch.sigmoid(window.inferer(given, window.network))
    assert expected.std() > 1e-3
    torch.testing.assert_close(window(given), expected, rtol=0, atol=1e-5)
    assert kernels_are_channels_last(window.network)


@torch.no_grad()
@pytest.mark.parametrize("name", ["stage1", *MEMBERS])
def test_with_cpu_tricks_switched_off_a_network_is_pytorchs_own_to_the_bit(image, name, monkeypatch):
    monkeypatch.setenv("PETCT_CPU_TRICKS", "0")
    window, given = window_and_input(name, image)
    expected = torch.sigmoid(window.inferer(given, window.network))
    torch.testing.assert_close(window(given), expected, rtol=0, atol=0)
    assert not kernels_are_channels_last(window.network)


@pytest.mark.parametrize("affine", [True, False])
def test_instance_normalisation_with_channels_last_is_pytorchs(affine):
    norm = nn.InstanceNorm3d(3, affine=affine)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    # More voxels than are worked on at once, and numbers far from zero.
    image = (
        torch.randn(2, 3, 41, 33, 29) * torch.tensor([1, 10, 0.1])[:, None, None, None]
        + torch.tensor([1, -50, 3])[:, None, None, None]
    )
    expected = norm.double()(image.double()).float()
    norm = norm.float()
    network = channels_last(norm)
    with torch.no_grad():
        for given in (network(image), norm(image)):
            torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5)
            assert given.is_contiguous(memory_format=torch.channels_last_3d)
        short = network(image.bfloat16())
    assert short.dtype == torch.bfloat16
    torch.testing.assert_close(short.float(), norm.double()(image.bfloat16().double()).float(), rtol=2e-2, atol=2e-2)
    # With gradients, and while a graph is traced, it is PyTorch's own.
    norm = norm.float()
    norm(image.requires_grad_()).square().sum().backward()
    assert image.grad is not None


class Narrow(nn.Module):
    """A network on a device whose memory suffices for some windows at once, and, as told, for the volume's logits or not."""

    def __init__(self, most_windows: int, holds_volume: bool = True) -> None:
        super().__init__()
        self.most_windows, self.holds_volume = most_windows, holds_volume
        # In a list, since a module that holds itself cannot be walked through.
        self.user: list[SlidingWindow] = []

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        gathered_elsewhere = self.user[0].inferer.device is not None
        if len(windows) > self.most_windows or not (self.holds_volume or gathered_elsewhere):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return windows[:, :1] * 2 - windows[:, 1:2]


@pytest.mark.parametrize(
    ("most_windows", "holds_volume", "sw_batch_size", "warnings"),
    [
        (8, True, 8, []),
        (3, True, 2, ["4 at once", "2 at once"]),
        (1, True, 1, ["4 at once", "2 at once", "1 at once"]),
        (1, False, 1, ["4 at once", "2 at once", "1 at once", "gathering them in the host's memory"]),
    ],
)
def test_too_little_memory_is_met_with_fewer_windows_and_then_with_the_hosts(
    most_windows, holds_volume, sw_batch_size, warnings, image, capsys
):
    network = Narrow(most_windows, holds_volume)
    window = SlidingWindow(network, (16, 16, 16), overlap=0.25, sw_batch_size=8)
    network.user.append(window)
    # A linear network without overlap effects: every window gives the same logit to a voxel.
    expected = torch.sigmoid(image[:, :1] * 2 - image[:, 1:2])
    for _ in range(2):
        torch.testing.assert_close(window(image), expected)
    assert window.inferer.sw_batch_size == sw_batch_size
    said = capsys.readouterr().out.splitlines()
    assert [line.rpartition("windows, ")[2] for line in said] == warnings
    assert all(line.startswith("warning: the GPU's memory does not suffice for Narrow: going on with") for line in said)


def test_too_little_memory_for_a_single_window_is_one_sentence(image):
    network = Narrow(0)
    window = SlidingWindow(network, (16, 16, 16), sw_batch_size=2)
    network.user.append(window)
    with pytest.raises(InputError, match=r"does not suffice for a single window: .* --device cpu$"):
        window(image)


@pytest.mark.parametrize("shape", [(30, 21, 27), (5, 21, 8), (5, 4, 3)])
def test_padding_gives_each_channel_its_lowest_value_and_keeps_the_image(shape):
    image = torch.randn((2, 2, *shape), generator=torch.Generator().manual_seed(0))
    padded, box = pad_to_window(image, (16, 16, 16))
    assert padded.shape[2:] == tuple(max(length, 16) for length in shape)
    torch.testing.assert_close(padded[(..., *box)], image, rtol=0, atol=0)
    padded[(..., *box)] = torch.nan
    for study, channel in itertools.product(range(2), range(2)):
        outside = padded[study, channel]
        assert (outside[~outside.isnan()] == image[study, channel].min()).all()


@torch.no_grad()
def test_a_volume_smaller_than_the_window_is_seen_as_if_there_were_air_around_it():
    network = make_cascade().stage1.network.eval()
    window = SlidingWindow(network, (24, 16, 16))
    air = torch.tensor([-2.5, -0.75])[None, :, None, None, None]
    body = torch.randn((1, 2, 12, 16, 10), generator=torch.Generator().manual_seed(0)).maximum(air)
    body[..., 0, 0, 0] = air[..., 0, 0, 0]
    whole = air.expand(1, 2, 24, 16, 16).clone()
    whole[:, :, 6:18, :, 3:13] = body
    torch.testing.assert_close(window(body), window(whole)[:, :, 6:18, :, 3:13], rtol=0, atol=1e-6)
    zeros = sliding_window_inference(body, (24, 16, 16), 1, network, mode="constant").sigmoid()
    assert (window(body) - zeros).abs().max() > 1e-3
