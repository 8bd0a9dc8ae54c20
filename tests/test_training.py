"""Promises of a training run: the same seed, stopping and going on, many processes, and every parameter learning."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers import BUNDLES, ENVIRONMENT, NETWORKS, STAGE1, assert_same_weights, train, training_command, write_prepared
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.engines import Evaluator
from processes import run_python

from petct_training.claims import Claims
from petct_training.training import ValidationAtEnd


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    """Points of a TensorBoard curve, the later run's where two runs have the same step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    points = {}
    for file in sorted(folder.glob("events.*"), key=lambda file: file.stat().st_mtime):
        events = EventAccumulator(str(file))
        events.Reload()
        if name in events.Tags()["scalars"]:
            points.update({point.step: point.value for point in events.Scalars(name)})
    return sorted(points.items())


OPTIONS = {"max_epochs": 2, "batch_size": 2, "learning_rate": 0.03}


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory) -> Path:
    """The models' folder of a training with `OPTIONS`, which no test changes."""
    folder = tmp_path_factory.mktemp("trained")
    train(STAGE1, prepared, folder, "train", "demo", seed=7, **OPTIONS)
    return folder


def test_one_seed_gives_the_same_weights_and_another_seed_others(trained, prepared, tmp_path):
    for name, seed in (("same", 7), ("other", 8)):
        train(STAGE1, prepared, tmp_path / name, "train", "demo", seed=seed, **OPTIONS)
    assert_same_weights(trained / "model.pt", tmp_path / "same/model.pt")
    with pytest.raises(AssertionError):
        assert_same_weights(trained / "model.pt", tmp_path / "other/model.pt")


@pytest.mark.slow
def test_a_training_killed_within_an_epoch_goes_on_to_the_same_weights(prepared, tmp_path):
    """The process gets SIGKILL once the state of the second of five epochs is on the disk; then `--resume true`."""
    train(STAGE1, prepared, tmp_path / "whole", "train", "demo", max_epochs=5)
    models = tmp_path / "killed"
    process = subprocess.Popen(
        training_command(STAGE1, prepared, models, "train", "demo", max_epochs=5),
        cwd=BUNDLES / STAGE1,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    last = models / "last.pt"
    while process.poll() is None:
        if last.exists() and torch.load(last, weights_only=True)["trainer"]["iteration"] >= 4:
            break
        time.sleep(0.02)
    assert process.poll() is None, "the training ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert torch.load(last, weights_only=True)["trainer"]["iteration"] < 10
    train(STAGE1, prepared, models, "train", "demo", max_epochs=5, resume=True)
    assert_same_weights(tmp_path / "whole/last.pt", last)
    assert_same_weights(tmp_path / "whole/model.pt", models / "model.pt")
    for curve in ("learning_rate", "training_loss", "val_mean_dice"):
        assert scalars(tmp_path / "whole/logs", curve) == scalars(models / "logs", curve), f"{curve} has a seam"


REFUSAL = "another training runs in this folder at the moment: wait for it, or name another folder"


def test_a_training_does_not_begin_in_a_folder_that_another_one_has_claimed(trained, prepared, tmp_path):
    models = tmp_path / "models"
    shutil.copytree(trained, models)
    before = {file.name: file.read_bytes() for file in models.glob("*.*")}
    with Claims(models, "").holding("training", "never said"):
        for more in ({}, {"resume": True}):
            command = training_command(STAGE1, prepared, models, "train", "demo", seed=7, **OPTIONS, **more)
            done = run_python(command, BUNDLES / STAGE1, ENVIRONMENT)
            assert done.returncode == 1
            assert f"error: {models}: {REFUSAL}" in done.stderr
    assert {file.name: file.read_bytes() for file in models.glob("*.*")} == before


@pytest.mark.slow
def test_a_second_training_in_the_same_folder_is_refused_while_the_first_one_runs(prepared, tmp_path):
    """The first one has a process that loads patches, which must not let go of its claim when it ends with its epoch."""
    models = tmp_path / "models"
    process = subprocess.Popen(
        training_command(STAGE1, prepared, models, "train", "demo", max_epochs=1000, num_workers=1),
        cwd=BUNDLES / STAGE1,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    second = training_command(STAGE1, prepared, models, "train", "demo", max_epochs=1, seed=7)
    try:
        while process.poll() is None and not (models / "last.pt").exists():
            time.sleep(0.02)
        done = run_python(second, BUNDLES / STAGE1, ENVIRONMENT)
        assert process.poll() is None, "the first training has ended before the second one"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert done.returncode == 1
    assert f"error: {models}: {REFUSAL}" in done.stderr
    assert not list(models.glob("earlier_*")), "the second training has touched what is the first one's"
    assert run_python(second, BUNDLES / STAGE1, ENVIRONMENT).returncode == 0, "a killed training is in nobody's way"
    assert not list(models.glob("*.lock"))


def test_a_finished_training_says_so_when_it_is_resumed(trained, prepared, tmp_path):
    shutil.copytree(trained, tmp_path / "models")
    log = train(STAGE1, prepared, tmp_path / "models", "train", "demo", seed=7, resume=True, **OPTIONS)
    assert "already reached max_epochs" in log


def test_a_training_leaves_curves_and_pictures(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert [step for step, _ in scalars(trained / "logs", "training_loss")] == [1, 2, 3, 4]
    rates = [rate for _, rate in scalars(trained / "logs", "learning_rate")]
    np.testing.assert_allclose(rates, [0.03, 0.03, 0.03 * 0.5**0.9, 0.03 * 0.5**0.9], rtol=1e-6)
    assert [step for step, _ in scalars(trained / "logs", "val_mean_dice")] == [1, 2]
    pictures = 0
    for file in (trained / "logs").glob("events.*"):
        events = EventAccumulator(str(file), size_guidance={"images": 0})
        events.Reload()
        pictures += sum(len(events.Images(tag)) for tag in events.Tags()["images"])
    assert pictures == 2


def test_a_small_data_set_trains_as_many_steps_as_are_asked_for_and_goes_on_with_them_alone(prepared, tmp_path):
    """Four studies in batches of 2 are two steps; five steps an epoch show each of them two or three times."""
    options = {"max_epochs": 2, "batch_size": 2, "learning_rate": 0.03, "steps_per_epoch": 5}
    train(STAGE1, prepared, tmp_path, "train", "demo", **options)
    assert [step for step, _ in scalars(tmp_path / "logs", "training_loss")] == list(range(1, 11))
    rates = [rate for _, rate in scalars(tmp_path / "logs", "learning_rate")]
    np.testing.assert_allclose(rates, [0.03] * 5 + [0.03 * 0.5**0.9] * 5, rtol=1e-6)
    assert [step for step, _ in scalars(tmp_path / "logs", "val_mean_dice")] == [1, 2]
    command = training_command(STAGE1, prepared, tmp_path, "train", "demo", **options | {"steps_per_epoch": 4}, resume=True)
    done = run_python(command, BUNDLES / STAGE1, ENVIRONMENT)
    assert "last.pt is of a training of 5 steps an epoch, and this one has 4: give the same data set" in done.stderr


@pytest.mark.parametrize(("interval", "epochs", "validated"), [(4, 10, [4, 8, 10]), (5, 10, [5, 10]), (20, 3, [3])])
def test_every_interval_and_the_last_epoch_are_validated(interval, epochs, validated):
    class Validator(Evaluator):
        def __init__(self):
            self.epochs = []

        def run(self, global_epoch=1):
            self.epochs.append(global_epoch)

    trainer, validator = Engine(lambda engine, batch: None), Validator()
    ValidationAtEnd(validator, interval).attach(trainer)
    trainer.run([0, 1], max_epochs=epochs)
    assert validator.epochs == validated


def test_a_loss_that_is_not_finite_stops_with_study_and_epoch(tmp_path):
    data = write_prepared(tmp_path / "data", num_studies=4)
    case = json.loads((data / "datalist.json").read_text())["training"][0]["case"]
    file = data / f"images/{case}.nii"
    image = nib.load(file)
    voxels = np.asarray(image.dataobj).copy()
    voxels[::2] = np.nan
    nib.save(nib.Nifti1Image(voxels, image.affine), file)
    command = training_command(STAGE1, data, tmp_path / "models", "train", "demo", max_epochs=2)
    done = run_python(command, BUNDLES / STAGE1, ENVIRONMENT)
    assert done.returncode != 0
    assert re.search(rf"error: the loss is not finite in epoch \d.*{re.escape(case)}", done.stderr)
    assert "Traceback" not in done.stderr


# SegResNet and UNet have batch norm, which torch synchronises between processes on CUDA only.
@pytest.mark.slow
@pytest.mark.parametrize("bundle", ["autopet_stage1_dynunet", "autopet_stage2_swinunetr"])
def test_two_processes_take_the_same_steps_as_one_with_the_same_global_batch(bundle, tmp_path):
    data = write_prepared(tmp_path / "data", num_studies=6)
    # The same patches in the same order: the validation's transforms and a crop in the centre.
    fixed = {
        "train::preprocessing": {
            "_target_": "Compose",
            "transforms": "$[*@validate::preprocessing.transforms, @centre]",
        },
        "centre": {"_target_": "ResizeWithPadOrCropd", "keys": ["image", "label"], "spatial_size": [64, 64, 32]},
        "train::dataloader#shuffle": False,
        # The paper's optimiser: the demo's AdamW divides by gradients, and small ones differ by rounding.
        "optimizer": json.loads((BUNDLES / bundle / "configs/train.json").read_text())["optimizer"],
        "learning_rate": 0.03,
    }
    (tmp_path / "fixed.json").write_text(json.dumps(fixed))
    (tmp_path / "in_order.json").write_text(json.dumps({"train::sampler#shuffle": False}))
    losses = {}
    for processes, batch_size in ((1, 2), (2, 1)):
        configs = ["train", "demo", *(["multi_gpu_train"] if processes > 1 else []), str(tmp_path / "fixed.json")]
        configs += [str(tmp_path / "in_order.json")] if processes > 1 else []
        models = tmp_path / f"models{processes}"
        train(bundle, data, models, *configs, processes=processes, max_epochs=2, batch_size=batch_size, val_interval=2)
        losses[processes] = [loss for _, loss in scalars(models / "logs", "training_loss")]
    assert len(losses[1]) == len(losses[2]) == 4
    np.testing.assert_allclose(losses[2], losses[1], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the names of a process's threads are read from /proc")
def test_no_thread_of_the_process_group_outlives_a_training(prepared, tmp_path):
    """One that does may ask for Python's lock while Python ends, which aborts the process (PyTorch pull request 179291)."""
    multi_gpu = json.loads((BUNDLES / STAGE1 / "configs/multi_gpu_train.json").read_text())
    threads = "$print('threads', *(open(f'/proc/self/task/{task}/comm').read() for task in os.listdir('/proc/self/task')))"
    (tmp_path / "threads.json").write_text(json.dumps({"finalize": [threads, *multi_gpu["finalize"], threads]}))
    configs = ["train", "demo", "multi_gpu_train", str(tmp_path / "threads.json")]
    log = train(STAGE1, prepared, tmp_path / "models", *configs, processes=2, max_epochs=1)
    counts = sorted(listed.count("gloo") for listed in log.split("threads ")[1:])
    assert counts[:2] == [0, 0]
    assert len(counts[2:]) == 2
    assert min(counts[2:]) > 0


@pytest.mark.slow
def test_two_processes_evaluate_as_one(prepared, tmp_path):
    train(STAGE1, prepared, tmp_path, "train", "demo", max_epochs=2)
    scores = {}
    for processes in (1, 2):
        configs = ["train", "evaluate", *(["multi_gpu_evaluate"] if processes > 1 else []), "demo"]
        output = tmp_path / f"scores{processes}"
        train(STAGE1, prepared, tmp_path, *configs, processes=processes, run_id="evaluating", output_dir=output)
        scores[processes] = sorted((output / "val_mean_dice_raw.csv").read_text().splitlines())
    assert len(scores[1]) == 3
    assert scores[1] == scores[2]


@pytest.mark.slow
@pytest.mark.parametrize("bundle", NETWORKS)
def test_the_full_size_network_takes_a_step_in_which_every_parameter_learns(bundle):
    """One step at the paper's patch size and batch size 1, on noise."""
    parser = ConfigParser()
    parser.read_config(BUNDLES / bundle / "configs/train.json")
    torch.manual_seed(0)
    network = parser.get_parsed_content("network").train()
    optimiser = parser.get_parsed_content("optimizer")
    size = parser.get_parsed_content("patch_size")
    image = torch.randn(1, parser["network_def"]["in_channels"], *size)
    label = (torch.rand(1, 1, *size) > 0.99).float()
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    loss = parser.get_parsed_content("loss_function")(network(image), label)
    loss.backward()
    assert torch.isfinite(loss)
    without = [
        name for name, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.abs().max() > 0
    ]
    assert not without
    optimiser.step()
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())
    # A step that is lost in rounding, as that of a PReLU's single number with a small gradient may be, changes nothing.
    smallest = torch.finfo(torch.float32).eps / optimiser.param_groups[0]["lr"]
    assert not [
        name
        for name, parameter in network.named_parameters()
        if torch.equal(parameter, before[name]) and (parameter.grad.abs() > smallest * before[name].abs()).any()
    ]
