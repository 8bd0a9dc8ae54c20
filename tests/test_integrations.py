"""Promises to those who use the bundles from MONAI's other tools: Python API, exports, federated training, experiment tracking."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import monai.bundle
import pytest
import torch
import zoo
from helpers import BUNDLES, ENSEMBLE, NETWORKS, ONE_NETWORK_FIRST, STAGE1, STAGE2, needs, write_prepared
from monai.bundle import ConfigWorkflow
from monai.fl.client import MonaiAlgo
from monai.fl.utils.exchange_object import ExchangeObject
from processes import run_python

# Logits are below 10. float32 keeps seven digits of them, and dozens of layers that sum in another order lose up to three.
ROUNDING = 1e-3


@pytest.fixture
def bundle(tmp_path, request) -> Path:
    """A copy of a bundle in the demo profile, with new weights."""
    copy = zoo.copy_bundle(BUNDLES / request.param, tmp_path / "bundles", "demo")
    zoo.make_weights(copy)
    return copy


# ---------------------------------------------------------------- Python API


@pytest.mark.parametrize("bundle", [*NETWORKS, ENSEMBLE], indirect=True)
def test_load_gives_the_network_with_its_weights_from_any_folder(bundle, monkeypatch):
    monkeypatch.chdir(bundle.parents[1])
    options = {"args_file": {"bundle_root": str(bundle)}} if bundle.name == ENSEMBLE else {}
    network = monai.bundle.load(bundle.name, bundle_dir="bundles", workflow_type="inference", device="cpu", **options)
    expected = torch.load(bundle / "models/model.pt", weights_only=True)
    assert network.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("bundle", ONE_NETWORK_FIRST, indirect=True)
def test_create_workflow_infers(bundle, prepared, tmp_path):
    masks = tmp_path / "masks"
    workflow = monai.bundle.create_workflow(
        config_file=str(bundle / "configs/inference.json"),
        workflow_type="inference",
        bundle_root=str(bundle),
        dataset_dir=str(prepared),
        output_dir=str(masks),
        ckpt_dir=str(bundle / "models"),
    )
    workflow.run()
    workflow.finalize()
    assert len(list(masks.glob("*.nii.gz"))) == 6


@pytest.mark.parametrize("configs", [["train"], ["train", "evaluate"], ["inference"]], ids="+".join)
@pytest.mark.parametrize("bundle", NETWORKS, indirect=True)
def test_config_workflow_opens_every_config_in_a_folder_that_is_not_the_current_one(bundle, configs, prepared):
    shutil.copyfile(prepared / "fingerprint.json", bundle / "models/fingerprint.json")
    workflow = ConfigWorkflow(
        config_file=[str(bundle / f"configs/{name}.json") for name in configs],
        logging_file=False,
        workflow_type="infer" if configs == ["inference"] else "train",
        bundle_root=str(bundle),
        dataset_dir=str(prepared),
        output_dir=str(bundle / "output"),
    )
    workflow.initialize()
    assert workflow.check_properties() == []


# ---------------------------------------------------------------- exports


def difference_of_onnx(bundle: Path) -> float:
    """Return the largest difference of the logits, after the command in the bundle's README."""
    import onnxruntime

    with zoo.inside(bundle):
        monai.bundle.onnx_export(
            net_id="network_def",
            filepath="models/model.onnx",
            ckpt_file="models/model.pt",
            meta_file="configs/metadata.json",
            config_file="configs/inference.json",
            use_trace=True,
        )
    session = onnxruntime.InferenceSession(str(bundle / "models/model.onnx"), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return zoo.largest_difference(bundle, lambda image: torch.from_numpy(session.run(None, {name: image.numpy()})[0]))


@pytest.mark.parametrize("bundle", ONE_NETWORK_FIRST, indirect=True)
@needs("onnx", "onnxruntime", "onnxscript")
def test_onnx_gives_what_pytorch_gives(bundle):
    assert difference_of_onnx(bundle) <= ROUNDING


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@needs("onnx", "onnxruntime", "onnxscript")
def test_onnx_of_a_full_size_network_gives_what_pytorch_gives(name, tmp_path):
    bundle = zoo.copy_bundle(BUNDLES / name, tmp_path)
    zoo.make_weights(bundle)
    assert difference_of_onnx(bundle) <= ROUNDING


# ---------------------------------------------------------------- federated training


@pytest.mark.parametrize("bundle", [STAGE1, pytest.param(STAGE2[2], marks=pytest.mark.slow)], indirect=True)
def test_two_rounds_of_federated_averaging_over_two_sites(bundle, tmp_path):
    """Each site trains an epoch a round on its own studies; the server averages their weights."""
    sites = []
    for number in range(2):
        data = write_prepared(tmp_path / f"site{number}", num_studies=4, seed=number)
        models = tmp_path / f"models{number}"
        models.mkdir()
        shutil.copyfile(bundle / "models/model.pt", models / "model.pt")
        shutil.copyfile(data / "fingerprint.json", models / "fingerprint.json")
        options = {
            "bundle_root": str(bundle),
            "dataset_dir": str(data),
            "ckpt_dir": str(models),
            "output_dir": str(models / "logs"),
        }
        site = MonaiAlgo(
            str(bundle),
            send_weight_diff=False,
            train_kwargs={**options, "val_interval": 1, "max_epochs": 2},
            eval_kwargs=dict(options),
        )
        site.initialize(extra={"CLIENT_NAME": f"site{number}"})
        sites.append(site)
    weights = torch.load(bundle / "models/model.pt", weights_only=True)
    first = {name: tensor.clone() for name, tensor in weights.items()}
    for _ in range(2):
        trained = []
        for site in sites:
            site.train(ExchangeObject(weights={name: tensor.numpy().copy() for name, tensor in weights.items()}))
            trained.append({name: tensor.clone() for name, tensor in site.get_weights().weights.items()})
        assert any(not torch.equal(trained[0][name], trained[1][name]) for name in weights), "both sites learned the same"
        weights = {
            name: (trained[0][name].double() + trained[1][name].double()).div(2).to(trained[0][name].dtype) for name in weights
        }
    for site in sites:
        assert site.trainer.state.epoch == 2
        metrics = site.evaluate(ExchangeObject(weights={name: tensor.numpy() for name, tensor in weights.items()})).metrics
        assert 0 <= metrics["val_mean_dice"] <= 1
        for name, tensor in site.evaluator.network.state_dict().items():
            torch.testing.assert_close(tensor, weights[name], rtol=0, atol=1e-6)
        site.finalize()
    changed = [name for name in weights if weights[name].is_floating_point() and not torch.equal(weights[name], first[name])]
    assert len(changed) == sum(tensor.is_floating_point() for tensor in weights.values())


# ---------------------------------------------------------------- MLflow


@pytest.mark.slow
@needs("mlflow")
@pytest.mark.parametrize("bundle", [STAGE1], indirect=True)
def test_mlflow_keeps_a_training_and_an_evaluation_in_a_local_store(bundle, prepared, tmp_path):
    import mlflow

    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run"]
    options = [
        "--dataset_dir",
        str(prepared),
        "--tracking",
        "mlflow",
        "--tracking_uri",
        store,
        "--output_dir",
        str(tmp_path / "out"),
    ]
    for run_id, configs in {"training": ["train"], "evaluating": ["train", "evaluate"]}.items():
        files = str([f"configs/{name}.json" for name in configs])
        arguments = [*command, run_id, "--config_file", files, *options, "--max_epochs", "1", "--val_interval", "1"]
        done = run_python(arguments, bundle)
        assert done.returncode == 0, done.stderr[-3000:]
    mlflow.set_tracking_uri(store)
    metrics = [run.data.metrics for run in mlflow.search_runs(search_all_experiments=True, output_format="list")]
    assert len(metrics) == 2
    assert all("val_mean_dice" in found for found in metrics)
