"""Promises of what the ensemble can do beyond the paper: mirroring, weighed members, a rule for small components."""

from __future__ import annotations

import itertools
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers import BUNDLES, ENSEMBLE, WINDOWS, make_cascade, parser_of, write_validation
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.data import MetaTensor
from scipy import ndimage
from torch import nn

from petct_cascade.assemble import share_of_answer
from petct_cascade.cascade import Cascade, SlidingWindow
from petct_cascade.method import OF_ANSWER
from petct_cascade.predict import load_cascade
from petct_cascade.transforms import MeanOfMembersd, RemoveFaintd, mean, standard_deviation, with_found_kept
from petct_training.errors import InputError
from petct_training.options import BEYOND_THE_PAPER, check_values

SHAPE = (14, 12, 10)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn((1, 2, *SHAPE), generator=torch.Generator().manual_seed(1))


class Symmetric(nn.Module):
    """An equivariant network: a logit is the mean of the PET around it."""

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool3d(windows[:, 1:2], 3, 1, 1)


def counted(network: nn.Module) -> list[int]:
    """The list to which a network adds at each forward."""
    calls: list[int] = []
    network.register_forward_hook(lambda *_: calls.append(1))
    return calls


@torch.no_grad()
def test_mirroring_an_equivariant_network_changes_nothing(image):
    network = Symmetric()
    calls = counted(network)
    plain = SlidingWindow(network, SHAPE)(image)
    torch.testing.assert_close(SlidingWindow(network, SHAPE, mirror=[0, 1, 2])(image), plain, rtol=0, atol=1e-6)
    assert len(calls) == 1 + 8


@torch.no_grad()
@pytest.mark.parametrize("axes", [[0], [2, 0], [0, 1, 2]])
def test_a_mirrored_probability_is_the_mean_over_every_combination_of_the_axes(image, axes):
    network = make_cascade().eval().stage1.network
    plain = SlidingWindow(network, (8, 8, 8))
    combinations = [some for number in range(len(axes) + 1) for some in itertools.combinations(axes, number)]
    assert len(combinations) == 2 ** len(axes)
    expected = sum(plain(image.flip([a + 2 for a in some])).flip([a + 2 for a in some]) for some in combinations)
    mirrored = SlidingWindow(network, (8, 8, 8), mirror=axes)(image)
    torch.testing.assert_close(mirrored, expected / len(combinations), rtol=0, atol=1e-6)
    assert not torch.equal(mirrored, plain(image))


@torch.no_grad()
def test_without_mirroring_the_probability_is_the_very_same(image):
    network = make_cascade().eval().stage1.network
    plain, off = SlidingWindow(network, (8, 8, 8)), SlidingWindow(network, (8, 8, 8), mirror=[], mirror_seconds=5)
    assert torch.equal(plain(image), off(image))


@torch.no_grad()
def test_no_mirrored_pass_begins_that_would_not_be_done_in_time(image, monkeypatch, capsys):
    """Each pass takes 10 s of a clock of its own, and 35 s are enough for the plain pass and two others."""
    now = [0.0]
    monkeypatch.setattr("petct_cascade.cascade.time.monotonic", lambda: now[0])
    network = Symmetric()
    network.register_forward_hook(lambda *_: now.__setitem__(0, now[0] + 10))
    calls = counted(network)
    probability = SlidingWindow(network, SHAPE, mirror=[0, 1, 2], mirror_seconds=35)(image)
    assert len(calls) == 3
    assert "warning: 35 s sufficed for 2 of 7 mirrored passes of Symmetric" in capsys.readouterr().out
    torch.testing.assert_close(probability, SlidingWindow(network, SHAPE)(image), rtol=0, atol=1e-6)


@torch.no_grad()
def test_the_clock_of_mirrored_passes_waits_for_no_device_but_that_of_the_image(image, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: pytest.fail(f"waited for {device}"))
    SlidingWindow(Symmetric(), SHAPE, mirror=[0], mirror_seconds=60)(image)


# ---------------------------------------------------------------- weighed members


def test_a_weighed_mean_is_the_formulas_and_without_weights_it_is_the_mean_to_the_bit():
    members = [torch.rand(1, 3, 4, 5) for _ in range(3)]
    torch.testing.assert_close(mean(members, [0.5, 0.3, 0.2]), 0.5 * members[0] + 0.3 * members[1] + 0.2 * members[2])
    before = [member.clone() for member in members]
    assert torch.equal(mean(members), (members[0] + members[1] + members[2]) / 3)
    assert all(torch.equal(left, right) for left, right in zip(members, before, strict=True))


@torch.no_grad()
def test_the_cascade_and_the_evaluators_transform_weigh_the_members_alike(image):
    cascade: Cascade = make_cascade().eval()
    cascade.member_weights = [0.8, 0.2]
    _, stage2_input = cascade.with_coarse_mask(image)
    members = {name: member(stage2_input)[0] for name, member in cascade.members.items()}
    expected = 0.8 * members["SegResNet"] + 0.2 * members["UNet"]
    torch.testing.assert_close(cascade(image)[0], expected)
    joined = MeanOfMembersd(list(members), weights=[0.8, 0.2])(members)
    assert torch.equal(joined["pred"], cascade(image)[0])


# ---------------------------------------------------------------- stage 1 in the answer


@pytest.fixture
def listening() -> Cascade:
    """A cascade of whose answer stage 1 is three tenths."""
    cascade: Cascade = make_cascade().eval()
    cascade.stage1_weight = 0.3
    return cascade


def mean_of_members(cascade: Cascade, stage2_input: torch.Tensor) -> torch.Tensor:
    return sum(member(stage2_input) for member in cascade.members.values()) / len(cascade.members)


@torch.no_grad()
def test_the_answer_takes_stage_1s_share_of_its_probability(listening, image):
    probability, stage2_input = listening.with_coarse_mask(image)
    expected = 0.7 * mean_of_members(listening, stage2_input) + 0.3 * probability
    torch.testing.assert_close(listening(image), expected)
    item = {"UNet": torch.rand(1, 3, 4, 5), "stage1": torch.rand(1, 3, 4, 5)}
    joined = MeanOfMembersd(["UNet"], stage1_key="stage1", stage1_weight=0.3)(item)
    torch.testing.assert_close(joined["pred"], 0.7 * item["UNet"] + 0.3 * item["stage1"])
    assert joined.keys() == {"pred"}


def test_what_stage_1_found_and_the_answer_nearly_reaches_stays_and_nothing_else_changes():
    """Bars along x, apart from each other, in which the answer is constant. What stays has stage 1's shape."""
    answer, found = (torch.zeros(1, 1, 8, 16, 5) for _ in range(2))
    bars = {1: 0.4, 3: 0.29, 5: 0.4, 7: 0.3}
    for y, probability in bars.items():
        answer[..., y, 2] = probability
    found[..., 2:4, [1, 3, 7], 2] = 0.9
    # Of one lesion the final mask has a single voxel, which interpolation may lose, and of another one eight.
    answer[..., 9, 2], answer[..., 3, 9, 2], found[..., 2:4, 9, 2] = 0.4, 0.5, 0.6
    answer[..., 2:4, 12:14, 2:4], found[..., 2:6, 12:14, 2:4] = 0.5, 0.9
    # A corner of the first lesion touches another one, of which the answer is far from the threshold.
    found[..., 4:6, 2, 3] = 0.9
    kept = with_found_kept(answer, found, 0.3, threshold=0.5, final_threshold=0.5)
    expected = answer.clone()
    expected[..., 2:4, [1, 7], 2] = 0.9
    expected[..., 2:4, 9, 2] = 0.6
    torch.testing.assert_close(kept, expected)
    assert torch.equal(with_found_kept(answer, found, 0, 0.5, 0.5), answer)
    assert torch.equal(with_found_kept(answer, None, 0.3, 0.5, 0.5), answer), "a mask in stage 1's place says nothing"
    joined = MeanOfMembersd(["UNet"], stage1_key="stage1", keep_found_above=0.3)({"UNet": answer[0], "stage1": found[0]})
    torch.testing.assert_close(joined["pred"], expected[0])


@pytest.mark.parametrize(("threshold", "final_threshold"), [(0.5, 0.5), (0.4, 0.7), (0.6, 0.3)])
def test_lesions_that_stay_are_in_the_mask_on_the_studys_grid_too(threshold, final_threshold):
    """Small lesions, of half of which the answer has a single voxel. Of those that stage 1's mask has there, none is missing."""
    rng = np.random.default_rng(0)
    found, answer = np.zeros((40, 40, 40)), np.zeros((40, 40, 40))
    corners = list(itertools.product(range(4, 34, 6), repeat=3))
    for number, corner in enumerate(corners):
        lesion = tuple(slice(start, start + 2) for start in corner)
        found[lesion] = threshold + 0.3 * rng.random((2, 2, 2))
        answer[lesion] = final_threshold - 0.1
        answer[corner] += 0.1 * (number % 2)
    kept = with_found_kept(*(torch.from_numpy(array)[None, None] for array in (answer, found)), 0.1, threshold, final_threshold)

    study = np.stack(np.meshgrid(*(np.arange(start, 38, 0.9) for start in (0.3, 0.4, 0.5)), indexing="ij"))
    masks = [
        ndimage.map_coordinates(array, study, order=1) >= at_least - 1e-9
        for array, at_least in ((found, threshold), (kept[0, 0].numpy(), final_threshold))
    ]
    around = [(np.abs(study - np.reshape(corner, (3, 1, 1, 1)) - 0.5) < 2).all(axis=0) for corner in corners]
    by_stage1, by_answer = ({number for number, box in enumerate(around) if mask[box].any()} for mask in masks)
    assert len(by_stage1) > 60
    assert by_stage1 <= by_answer


@torch.no_grad()
def test_a_mask_in_stage_1s_place_is_refined_by_the_members_alone(listening, image):
    stacked = torch.cat([image, (image[:, 1:] > 0.5).float()], dim=1)
    torch.testing.assert_close(listening(stacked), mean_of_members(listening, stacked))


@torch.no_grad()
def test_where_clicks_have_corrected_its_mask_stage_1_says_the_mask(listening, image):
    probability, stage2_input = listening.with_coarse_mask(image)
    corrected = stage2_input.clone()
    corrected[:, 2, :9] = 1 - corrected[:, 2, :9]
    said = listening.said_by_stage1(image, probability, corrected)
    assert torch.equal(said[:, :, :9], corrected[:, 2:, :9])
    assert torch.equal(said[:, :, 9:], probability[:, :, 9:])


@pytest.mark.parametrize("name", OF_ANSWER)
@pytest.mark.parametrize(
    ("asked", "written", "share"),
    [(None, None, None), (None, 0.5, 0.5), (0.2, 0.5, 0.2), (0, 0.5, None), (0.2, None, 0.2)],
)
def test_a_share_of_the_answer_is_what_is_asked_for_or_else_what_the_weights_say(name, asked, written, share, tmp_path):
    file = tmp_path / "fingerprint.json"
    file.write_text(json.dumps({} if written is None else {name: written}))
    assert share_of_answer(name, asked, file) == share


@pytest.mark.parametrize("name", OF_ANSWER)
@pytest.mark.parametrize("wrong", [2, "half", True])
def test_a_share_that_is_none_is_refused_with_where_it_stands(name, wrong, tmp_path):
    file = tmp_path / "fingerprint.json"
    file.write_text(json.dumps({name: wrong}))
    with pytest.raises(InputError, match=rf"^{name} is {wrong!r} in .*fingerprint\.json: give a number from 0 to 1$"):
        share_of_answer(name, None, file)
    with pytest.raises(InputError, match=rf"^{name} is {wrong!r}: give a number from 0 to 1$"):
        share_of_answer(name, wrong, file)


# ---------------------------------------------------------------- small components


def random_mask(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A mask of many components, and a PET."""
    rng = np.random.default_rng(seed)
    mask = ndimage.gaussian_filter(rng.normal(size=(30, 28, 26)), 1.2) > 0.12
    return mask, rng.gamma(2, 2, mask.shape).astype(np.float32)


def test_components_that_are_small_and_faint_are_removed_and_no_others():
    mask, suv = random_mask()
    # Voxels of 2 x 3 x 4 mm have 0.024 ml.
    item = {
        "pred": MetaTensor(torch.from_numpy(mask)[None].to(torch.uint8), affine=torch.diag(torch.tensor([2.0, 3, 4, 1]))),
        "suv": torch.from_numpy(suv)[None],
    }
    before = item["pred"].clone()
    kept = RemoveFaintd("pred", "suv", below_ml=0.25, below_suv=9)(item)["pred"]
    labels, number = ndimage.label(mask, ndimage.generate_binary_structure(3, 2))
    expected, reasons = mask.copy(), set()
    for index in range(1, number + 1):
        small, faint = (labels == index).sum() * 0.024 < 0.25, suv[labels == index].max() < 9
        reasons.add((bool(small), bool(faint)))
        if small and faint:
            expected[labels == index] = False
    assert len(reasons) >= 3, "components of all kinds"
    assert np.array_equal(kept[0].numpy() != 0, expected)
    assert kept.dtype == torch.uint8
    assert torch.equal(item["pred"], before)


def test_an_empty_mask_stays_empty():
    item = {"pred": MetaTensor(torch.zeros(1, 4, 4, 4)), "suv": torch.ones(1, 4, 4, 4)}
    assert not RemoveFaintd("pred", "suv", 1, 1)(item)["pred"].any()


# ---------------------------------------------------------------- configs


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    return folder, write_validation(folder)


def infer(raw, models, output, monkeypatch, **options) -> dict[str, np.ndarray]:
    """The masks of the inference with some options."""
    monkeypatch.chdir(BUNDLES / ENSEMBLE)
    given = {"studies": str(raw[0]), "ckpt_dir": str(models), "output_dir": str(output), "patch_sizes": WINDOWS, "num_workers": 0}
    workflow = ConfigWorkflow(
        config_file=[f"configs/{name}.json" for name in ("inference", "demo")],
        meta_file=None,
        logging_file=False,
        workflow_type="infer",
        viewer=False,
        **given,
        **options,
    )
    workflow.initialize()
    workflow.run()
    return {file.name.removesuffix(".nii.gz"): np.asarray(nib.load(file).dataobj) for file in sorted(output.glob("*.nii.gz"))}


def test_the_options_reach_the_masks_and_their_records(raw, models, tmp_path, monkeypatch):
    """Only the UNet, mirrored, with its own threshold; and of this what is neither small nor faint."""
    options = {"mirror": [0], "member_weights": {"SegResNet": 0, "UNet": 1}, "final_threshold": 0.52}
    masks = infer(raw, models, tmp_path / "a", monkeypatch, **options)
    removed = infer(raw, models, tmp_path / "b", monkeypatch, **options, remove_below_ml=2, remove_below_suv=3)
    record = json.loads(next((tmp_path / "a").rglob("*psma_b*.json")).read_text())
    assert {name: record["settings"][name] for name in options} == options
    different = 0
    for case, mask in masks.items():
        pet = nib.load(raw[0] / f"imagesTr/{case}_0001.nii.gz")
        labels, number = ndimage.label(mask, ndimage.generate_binary_structure(3, 2))
        suv, voxel_ml = np.asarray(pet.dataobj), np.prod(pet.header.get_zooms()) / 1000
        for index in range(1, number + 1):
            inside = labels == index
            gone = inside.sum() * voxel_ml < 2 and suv[inside].max() < 3
            assert removed[case][inside].any() == (not gone)
            different += gone
        assert not (removed[case] > mask).any()
        predictor = load_cascade(models, "demo", patch_sizes=WINDOWS, **options, remove_below_ml=2, remove_below_suv=3)
        ct = nib.load(raw[0] / f"imagesTr/{case}_0000.nii.gz")
        again = predictor.predict(np.asarray(ct.dataobj), ct.affine, suv, pet.affine)
        assert np.array_equal(again, removed[case])
    assert different, "a rule that removes nothing shows nothing"


def test_weights_without_a_member_answer_as_the_others_of_all_do(raw, whole_models, tmp_path, monkeypatch):
    """Whoever reads the weights learns from their fingerprint which members they have."""
    chosen = ["SegResNet", "UNet"]
    without = tmp_path / "without"
    without.mkdir()
    state = torch.load(whole_models / "model.pt", weights_only=True)
    torch.save({name: tensor for name, tensor in state.items() if "SwinUNETR" not in name}, without / "model.pt")
    fingerprint = json.loads((whole_models / "fingerprint.json").read_text())
    (without / "fingerprint.json").write_text(json.dumps({**fingerprint, "members": chosen}))
    masks = infer(raw, without, tmp_path / "a", monkeypatch)
    weighed = infer(raw, whole_models, tmp_path / "b", monkeypatch, member_weights={"SegResNet": 1, "SwinUNETR": 0, "UNet": 1})
    assert masks.keys() == weighed.keys()
    for case, mask in masks.items():
        assert np.array_equal(mask, weighed[case]), case
    assert any(mask.any() for mask in masks.values()), "masks without a lesion show nothing"
    record = json.loads(next((tmp_path / "a").rglob("*psma_b*.json")).read_text())
    assert record["about"]["weights"]["members"] == chosen
    assert list(load_cascade(without, "demo").network.members) == chosen


def test_one_member_has_no_uncertainty_and_two_have_up_to_a_half(raw, whole_models, tmp_path, monkeypatch, capsys):
    state = torch.load(whole_models / "model.pt", weights_only=True)
    fingerprint = json.loads((whole_models / "fingerprint.json").read_text())
    for chosen in (["UNet"], ["SegResNet", "UNet"]):
        folder = tmp_path / "-".join(chosen)
        folder.mkdir()
        gone = {name for name in fingerprint.get("members", ["SegResNet", "SwinUNETR", "UNet"]) if name not in chosen}
        kept = {name: tensor for name, tensor in state.items() if not any(f"members.{other}." in name for other in gone)}
        torch.save(kept, folder / "model.pt")
        (folder / "fingerprint.json").write_text(json.dumps({**fingerprint, "members": chosen}))
    assert infer(raw, tmp_path / "UNet", tmp_path / "without", monkeypatch, uncertainty="false")
    with pytest.raises(
        SystemExit, match=r"^error: uncertainty is how much the members .*, and these weights have one alone, UNet: "
    ):
        infer(raw, tmp_path / "UNet", tmp_path / "alone", monkeypatch, uncertainty="true")
    assert not (tmp_path / "alone/uncertainty").exists()
    assert infer(raw, tmp_path / "SegResNet-UNet", tmp_path / "two", monkeypatch, uncertainty="true")
    maps = [np.asarray(nib.load(file).dataobj) for file in (tmp_path / "two/uncertainty").glob("*.nii.gz")]
    assert all(0 < spread.max() <= 0.5 for spread in maps)
    assert standard_deviation([torch.zeros(1), torch.ones(1)]).item() == 0.5
    assert standard_deviation([torch.zeros(1), torch.zeros(1), torch.ones(1)]).item() == pytest.approx(0.47, abs=0.002)


def test_every_way_takes_stage_1s_share_that_the_weights_say(raw, models, tmp_path, monkeypatch):
    """Inference and evaluation by `EnsembleEvaluator`, one study from arrays, and the one network of other tools."""
    listening = shutil.copytree(models, tmp_path / "listening")
    fingerprint = json.loads((models / "fingerprint.json").read_text())
    (listening / "fingerprint.json").write_text(json.dumps({**fingerprint, "stage1_weight": 0.5}))
    without = infer(raw, models, tmp_path / "a", monkeypatch)
    masks = infer(raw, listening, tmp_path / "b", monkeypatch)
    asked = infer(raw, models, tmp_path / "c", monkeypatch, stage1_weight=0.5)
    off = infer(raw, listening, tmp_path / "d", monkeypatch, stage1_weight=0)
    assert any((mask != without[case]).any() for case, mask in masks.items()), "a share that changes nothing shows nothing"
    predictor = load_cascade(listening, "demo", patch_sizes=WINDOWS)
    for case, mask in masks.items():
        assert np.array_equal(asked[case], mask)
        assert np.array_equal(off[case], without[case])
        ct, pet = (nib.load(raw[0] / f"imagesTr/{case}_000{channel}.nii.gz") for channel in (0, 1))
        study = predictor.open(np.asarray(ct.dataobj), ct.affine, np.asarray(pet.dataobj), pet.affine)
        assert np.array_equal(study.segment(), mask)
        assert np.array_equal(study.segment(), mask), "a second round"
    records = {name: json.loads(next((tmp_path / name).rglob("*psma_b*.json")).read_text())["settings"] for name in "abcd"}
    assert {name: settings.get("stage1_weight") for name, settings in records.items()} == {
        "a": None,
        "b": 0.5,
        "c": 0.5,
        "d": None,
    }


def test_every_way_keeps_what_stage_1_found(raw, models, tmp_path, monkeypatch):
    """No voxel of random networks' answers reaches 1, and nearly all are in one region above 0.45."""
    options = {"keep_found_above": 0.45, "final_threshold": 1}
    masks = infer(raw, models, tmp_path / "a", monkeypatch, **options)
    without = infer(raw, models, tmp_path / "b", monkeypatch, final_threshold=1)
    predictor = load_cascade(models, "demo", patch_sizes=WINDOWS, **options)
    for case, mask in masks.items():
        assert mask.any()
        assert not without[case].any()
        ct, pet = (nib.load(raw[0] / f"imagesTr/{case}_000{channel}.nii.gz") for channel in (0, 1))
        study = predictor.open(np.asarray(ct.dataobj), ct.affine, np.asarray(pet.dataobj), pet.affine)
        assert np.array_equal(study.segment(), mask)
    record = json.loads(next((tmp_path / "a").rglob("*psma_b*.json")).read_text())
    assert record["settings"].items() >= options.items()


def test_weights_with_a_member_that_the_ensemble_does_not_know_are_refused(models, tmp_path):
    shutil.copytree(models, tmp_path / "models")
    file = tmp_path / "models/fingerprint.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "members": ["UNet", "MedNeXt"]}))
    with pytest.raises(InputError, match=r"fingerprint\.json does not fit this version of the ensemble: members is .*'MedNeXt'"):
        load_cascade(tmp_path / "models", "demo")


def test_a_wrong_option_in_a_notebook_is_an_input_error_and_does_not_end_the_kernel(models):
    with pytest.raises(InputError, match=r"^member_weights is \{'UNet': 1\}: give a number of 0 or more for each of SegResNet"):
        load_cascade(models, "demo", member_weights={"UNet": 1})


def test_every_option_of_the_ensemble_beyond_the_paper_is_off_and_in_no_record():
    config = ConfigParser.load_config_file(BUNDLES / ENSEMBLE / "configs/inference.json")
    names = {name for name in config["beyond_the_paper"] if name != "_target_"}
    assert names == {name for name in BEYOND_THE_PAPER if name in config}
    assert all(config[name] == BEYOND_THE_PAPER[name] for name in names)
    parser = parser_of(ENSEMBLE, "inference")
    assert parser.get_parsed_content("weight_of_stage1") is None
    assert parser.get_parsed_content("settings") == parser.get_parsed_content("settings_of_paper")
    parser = parser_of(ENSEMBLE, "inference")
    assert parser.get_parsed_content("weights_of_members") is None
    assert parser.get_parsed_content("threshold_of_mask") == 0.5
    assert parser.get_parsed_content("remove_faint") is None


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("mirror", "[0,3]", "--mirror is [0,3]: give axes among 0, 1 and 2, such as [0,1]"),
        ("mirror", "[1,1]", "--mirror is [1,1]: give axes among 0, 1 and 2, such as [0,1]"),
        ("mirror", "all", "--mirror is all: give axes among 0, 1 and 2, such as [0,1]"),
        ("remove_below_ml", "-1", "--remove_below_ml is -1: give a volume in ml, 0 or more"),
        ("final_threshold", "2", "--final_threshold is 2: give a number from 0 to 1"),
        ("stage1_weight", "2", "--stage1_weight is 2: give a number from 0 to 1"),
        ("keep_found_above", "-1", "--keep_found_above is -1: give a number from 0 to 1"),
    ],
)
def test_senseless_values_are_refused(name, text, sentence):
    check_values({"mirror": "[0,1,2]"})
    check_values({"mirror": "[]"})
    with pytest.raises(InputError) as refusal:
        check_values({name: text})
    assert str(refusal.value) == sentence
