"""Promises of SwinUNETR's octants: weights of old releases of MONAI compute what they computed there, or are refused."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from helpers import BUNDLES, ENSEMBLE, STAGE2, MergingOfMonai14, needs_shared, of_weights, parser_of
from monai.bundle import ConfigWorkflow
from monai.networks.nets import SwinUNETR
from monai.networks.nets.swin_unetr import PatchMerging
from monai.networks.utils import copy_model_state

from petct_cascade.assemble import assemble
from petct_cascade.cascade import Cascade, SlidingWindow
from petct_cascade.published import ASSUMED, import_weights
from petct_training.checks import check_weights
from petct_training.errors import InputError
from petct_training.merging import MONAI_1_4, MONAI_1_5, OctantPatchMerging, as_tensor, names_of_octants

REFERENCE = zoo.SHARED / "data/swinunetr_monai_1_4/reference.npz"
SWIN = STAGE2[1]
FINGERPRINT = {"spacing": [5, 5, 5], "ct": {}, "pet": {}}


def small(downsample: str | type = "merging", **options) -> SwinUNETR:
    """A SwinUNETR of four merging layers."""
    sizes = {"feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (3, 6, 12, 24), **options}
    return SwinUNETR(in_channels=3, out_channels=1, downsample=downsample, **sizes).eval()


def cascade_of(swinunetr: SwinUNETR) -> Cascade:
    """A cascade whose stage 1 does nothing, and whose one member is a SwinUNETR."""
    return Cascade(SlidingWindow(torch.nn.Identity(), (64, 64, 64)), {"SwinUNETR": SlidingWindow(swinunetr, (64, 64, 64))})


def imported(published: SwinUNETR, tmp_path: Path) -> tuple[Cascade, Path]:
    """A cascade into which published weights were imported, and the folder of all that was written."""
    networks = {"stage1": torch.nn.Identity(), "SwinUNETR": published}
    files = {name: tmp_path / f"{name}.pth" for name in networks}
    for name, network in networks.items():
        torch.save({"state_dict": network.state_dict(), "epoch": 199}, files[name])
    models = tmp_path / "models"
    cascade = cascade_of(small(OctantPatchMerging))
    import_weights(cascade, files, {name: models / name for name in networks}, FINGERPRINT, models / "ensemble")
    return cascade, models


@pytest.fixture
def published() -> SwinUNETR:
    """A network of MONAI 1.4.0 with random weights."""
    torch.manual_seed(0)
    return small(MergingOfMonai14)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn((1, 3, 64, 64, 32), generator=torch.Generator().manual_seed(0))


def assert_same_outputs(left: torch.nn.Module, right: torch.nn.Module, image: torch.Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(left.eval()(image), right.eval()(image), rtol=0, atol=1e-6)


@needs_shared(REFERENCE)
def test_imported_weights_reproduce_the_reference_output_of_monai_1_4_0(tmp_path):
    image = torch.randn((1, 3, 64, 64, 64), generator=torch.Generator().manual_seed(999))
    network = small()
    state = network.state_dict()
    for rank, name in enumerate(sorted(state)):
        if state[name].is_floating_point():
            state[name] = torch.randn(state[name].shape, generator=torch.Generator().manual_seed(rank)) * 0.05
    network.load_state_dict(state)
    expected = np.load(REFERENCE)["logits"]
    cascade, _ = imported(network, tmp_path)
    with torch.no_grad():
        logits = cascade.members["SwinUNETR"].network(image)[0, 0, ::2, ::2, ::2].numpy()
        of_this_monai = network(image)[0, 0, ::2, ::2, ::2].numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-6)
    assert np.abs(of_this_monai - expected).max() > 0.01, "the test sees no difference between the releases"


@pytest.mark.parametrize(("octants", "shape"), [(MONAI_1_4, (4, 6, 2)), (MONAI_1_5, (4, 6, 2)), (MONAI_1_4, (3, 5, 2))])
def test_merging_is_the_formula_written_out(octants, shape):
    torch.manual_seed(0)
    merging = OctantPatchMerging(5)
    for parameter in merging.parameters():
        torch.nn.init.normal_(parameter)
    merging.load_state_dict({**merging.state_dict(), "octants": as_tensor(octants)})
    features = torch.randn(1, *shape, 5)
    with torch.no_grad():
        result = merging(features)[0].numpy()
    padded = np.zeros([length + length % 2 for length in shape] + [5])
    padded[tuple(map(slice, shape))] = features[0].numpy()
    weight, bias, reduction = (
        merging.state_dict()[name].double().numpy() for name in ("norm.weight", "norm.bias", "reduction.weight")
    )
    for voxel in np.ndindex(*result.shape[:3]):
        joined = np.concatenate([padded[tuple(2 * np.array(voxel) + octant)] for octant in octants])
        normalised = (joined - joined.mean()) / np.sqrt(joined.var() + 1e-5) * weight + bias
        np.testing.assert_allclose(result[voxel], reduction @ normalised, atol=1e-4)


def test_octants_of_monai_1_4_are_those_of_its_code():
    features, old = torch.randn(1, 4, 6, 2, 5), MergingOfMonai14(5)
    ours = OctantPatchMerging(5)
    ours.load_state_dict({**old.state_dict(), "octants": as_tensor(MONAI_1_4)})
    with torch.no_grad():
        torch.testing.assert_close(ours(features), old(features), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(4, 6, 2), (5, 3, 7)])
def test_without_octants_in_the_weights_merging_is_monais_own_to_the_bit(shape):
    torch.manual_seed(0)
    monais = PatchMerging(5)
    torch.manual_seed(0)
    ours = OctantPatchMerging(5)
    for name, tensor in monais.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor)
    ours.load_state_dict(monais.state_dict())
    features = torch.randn(2, *shape, 5)
    with torch.no_grad():
        torch.testing.assert_close(ours(features), monais(features), rtol=0, atol=0)


def test_weights_without_octants_put_a_network_back_to_monais_own(published):
    network = small(OctantPatchMerging)
    network.load_state_dict(published.state_dict() | {name: as_tensor(MONAI_1_4) for name in names_of_octants(network)})
    assert network.swinViT.layers1[0].downsample.order == MONAI_1_4
    network.load_state_dict(published.state_dict())
    assert network.swinViT.layers1[0].downsample.order == MONAI_1_5
    assert torch.equal(network.state_dict()[names_of_octants(network)[0]], as_tensor(MONAI_1_5))


WAYS_TO_LOAD = {
    "strict": lambda network, state: network.load_state_dict(state),
    # MONAI Label:
    "not strict": lambda network, state: network.load_state_dict(state, strict=False),
    # `monai.bundle.load`:
    "copy_model_state": lambda network, state: copy_model_state(network, state),
    "assign": lambda network, state: network.load_state_dict(state, assign=True),
}


@pytest.mark.parametrize("way", WAYS_TO_LOAD)
def test_ensemble_takes_the_octants_of_its_weights_whoever_loads_them(published, image, tmp_path, way):
    _, models = imported(published, tmp_path)
    fresh = copy.deepcopy(cascade_of(small(OctantPatchMerging)))
    WAYS_TO_LOAD[way](fresh, torch.load(models / "ensemble/model.pt", weights_only=True))
    assert_same_outputs(copy.deepcopy(fresh).members["SwinUNETR"].network, published, image)


def test_monais_own_network_refuses_weights_with_octants(published, tmp_path):
    _, models = imported(published, tmp_path)
    file = models / "SwinUNETR/published/model.pt"
    with pytest.raises(RuntimeError, match=r"Unexpected key.*octants"):
        small().load_state_dict(torch.load(file, weights_only=True))
    with pytest.raises(
        InputError, match=r"^.*model\.pt holds the weights of another network.*such as configs/published_weights\.json"
    ):
        check_weights(small(), file)


def test_import_says_where_weights_come_from_and_leaves_those_of_the_plain_network(published, tmp_path):
    own = tmp_path / "models/SwinUNETR/model.pt"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"weights of a training")
    _, models = imported(published, tmp_path)
    assert own.read_bytes() == b"weights of a training"
    facts = {
        "file": "SwinUNETR.pth",
        "sha256": hashlib.sha256((tmp_path / "SwinUNETR.pth").read_bytes()).hexdigest(),
        "assumed": [ASSUMED],
    }
    for folder in ("SwinUNETR/published", "ensemble"):
        sources = json.loads((models / folder / "sources.json").read_text())
        assert sources["weights"] == hashlib.sha256((models / folder / "model.pt").read_bytes()).hexdigest()
        assert sources["imported"]["SwinUNETR"] == facts
    assert json.loads((models / "stage1/sources.json").read_text())["imported"]["stage1"]["assumed"] == []


def test_assembling_tells_imported_weights_from_trained_ones(published, image, tmp_path):
    _, models = imported(published, tmp_path)
    # A training has replaced the weights beside which the import is told.
    trained, folder = small(), models / "SwinUNETR/published"
    torch.save(trained.state_dict(), folder / "model.pt")
    fingerprint = of_weights(json.loads((folder / "fingerprint.json").read_text()), folder / "model.pt")
    (folder / "fingerprint.json").write_text(json.dumps(fingerprint))
    cascade = cascade_of(small(OctantPatchMerging))
    assemble(cascade, {"stage1": models / "stage1", "SwinUNETR": folder}, models / "ensemble")
    assert list(json.loads((models / "ensemble/sources.json").read_text())["imported"]) == ["stage1"]
    assert_same_outputs(cascade.members["SwinUNETR"].network, trained, image)


def test_weights_that_say_their_octants_are_imported_as_they_say(published, image, tmp_path):
    network = small(OctantPatchMerging)
    cascade, models = imported(network, tmp_path)
    assert_same_outputs(cascade.members["SwinUNETR"].network, network, image)
    assert json.loads((models / "SwinUNETR/published/sources.json").read_text())["imported"]["SwinUNETR"]["assumed"] == []


def test_bundle_of_swinunetr_runs_published_weights_with_its_config_and_refuses_them_without(prepared, tmp_path, monkeypatch):
    bundle = zoo.copy_bundle(BUNDLES / SWIN, tmp_path / "bundles")
    monkeypatch.chdir(bundle)
    parser = parser_of(SWIN, "inference", "demo", "published_weights")
    network = parser.get_parsed_content("network_def")
    old = parser_of(SWIN, "inference", "demo").get_parsed_content("network_def")
    assert [type(module) for module in network.modules() if isinstance(module, PatchMerging)] == [OctantPatchMerging] * 4
    network.load_state_dict(old.state_dict() | {name: as_tensor(MONAI_1_4) for name in names_of_octants(network)})
    folder = bundle / "models/published"
    folder.mkdir()
    torch.save(network.state_dict(), folder / "model.pt")
    (folder / "fingerprint.json").write_text((prepared / "fingerprint.json").read_text())

    def run(*configs: str, **options) -> None:
        workflow = ConfigWorkflow(
            config_file=[f"configs/{name}.json" for name in ("inference", "demo", *configs)],
            logging_file=False,
            workflow_type="infer",
            dataset_dir=str(prepared),
            output_dir=str(tmp_path / "masks"),
            splits=["validation"],
            **options,
        )
        workflow.initialize()
        workflow.run()

    with pytest.raises(SystemExit, match=r"such as configs/published_weights\.json"):
        run(ckpt_dir="models/published")
    assert not list((tmp_path / "masks").glob("*.nii.gz"))
    run("published_weights")
    assert len(list((tmp_path / "masks").glob("*.nii.gz"))) == 2


def test_ensembles_network_takes_octants_from_its_weights():
    network = parser_of(ENSEMBLE, "inference", "demo").get_parsed_content("network_def")
    assert len(names_of_octants(network)) == 4
