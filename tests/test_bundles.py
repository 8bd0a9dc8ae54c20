"""Promises of the four network bundles as a family of configurations."""

from __future__ import annotations

import json
import logging.config
import re
import shutil
import sys
from pathlib import Path

import ignite.distributed
import jsonschema
import pytest
import torch
from helpers import BUNDLES, ENVIRONMENT, NETWORKS, ONE_NETWORK_FIRST, ROOT, STAGE1, STAGE2, needs_shared, of_weights, parser_of
from monai.bundle import ConfigParser, ConfigWorkflow
from processes import run_python
from zoo import SCHEMA

CONFIG_FILES = ("train", "evaluate", "inference", "multi_gpu_train", "multi_gpu_evaluate", "demo")


def read(bundle: str, config: str) -> dict:
    return json.loads((BUNDLES / bundle / f"configs/{config}.json").read_text())


def flat(content, prefix: str = "") -> dict[str, object]:
    """Every value of a config under its path."""
    if isinstance(content, dict):
        return {path: value for key, item in content.items() for path, value in flat(item, f"{prefix}::{key}").items()}
    if isinstance(content, list) and any(isinstance(item, dict) for item in content):
        return {path: value for index, item in enumerate(content) for path, value in flat(item, f"{prefix}::{index}").items()}
    return {prefix: content}


def same(left: dict, right: dict) -> list[str]:
    """The lines in which two configs differ."""
    left, right = flat(left), flat(right)
    return [
        f"{path}: {left.get(path)!r} != {right.get(path)!r}"
        for path in sorted({*left, *right})
        if left.get(path) != right.get(path)
    ]


@pytest.fixture
def single_process(monkeypatch):
    """The environment of torchrun with one process."""
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
    }.items():
        monkeypatch.setenv(name, value)
    yield
    if torch.distributed.is_initialized():
        ignite.distributed.sync()
        ignite.distributed.finalize()


@pytest.mark.parametrize("profile", [[], ["demo"]], ids=["full", "demo"])
@pytest.mark.parametrize(
    "configs",
    [
        ["train"],
        ["train", "evaluate"],
        ["inference"],
        ["train", "multi_gpu_train"],
        ["train", "evaluate", "multi_gpu_evaluate"],
    ],
    ids="+".join,
)
@pytest.mark.parametrize("bundle", NETWORKS)
def test_every_config_has_all_properties_of_its_workflow(
    bundle, configs, profile, prepared, tmp_path, monkeypatch, single_process
):
    monkeypatch.chdir(BUNDLES / bundle)
    shutil.copyfile(prepared / "fingerprint.json", tmp_path / "fingerprint.json")
    parser = ConfigParser()
    parser.read_config([f"configs/{name}.json" for name in [*configs, *profile]])
    torch.save(parser.get_parsed_content("network_def").state_dict(), tmp_path / "model.pt")
    workflow = ConfigWorkflow(
        config_file=[f"configs/{name}.json" for name in [*configs, *profile]],
        meta_file="configs/metadata.json",
        logging_file="configs/logging.conf",
        workflow_type="infer" if "inference" in configs else "train",
        dataset_dir=str(prepared),
        ckpt_dir=str(tmp_path),
        output_dir=str(tmp_path / "output"),
    )
    workflow.initialize()
    assert workflow.check_properties() == []


@pytest.mark.parametrize("config", sorted(BUNDLES.glob("*/configs/logging*.conf")), ids=lambda path: "/".join(path.parts[-3::2]))
def test_no_log_misses_a_decoder_for_gpus_that_no_step_needs(config, capsys):
    plugin = pytest.importorskip("monai.data.nvimgcodec_pydicom_plugin")
    logging.config.fileConfig(config, disable_existing_loggers=False)
    plugin.register_as_decoder_plugin()
    logging.getLogger("monai.data").warning("another")
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == ["another"]


@pytest.mark.parametrize("config", CONFIG_FILES)
def test_all_four_bundles_have_the_same_ids_in_the_same_order(config):
    ids = {bundle: [key for key in read(bundle, config) if not key.startswith("network_def::")] for bundle in NETWORKS}
    stage2_only = {"dropout_prob", "dropout_holes", "dropout_size", "coarse_mask_dir"}
    stage2_only |= {name for name in ids[STAGE2[0]] if name.startswith("mask_") and config == "train"}
    stage1_only = {"deep_supervision_heads"} if config == "demo" else set()
    for bundle in STAGE2:
        expected = [key for key in ids[STAGE1] if key not in stage1_only and (bundle == STAGE1 or key in ids[bundle])]
        assert [key for key in ids[bundle] if key not in stage2_only or key in ids[STAGE1]] == expected
        assert set(ids[bundle]) ^ set(ids[STAGE1]) <= stage2_only | stage1_only


@pytest.mark.parametrize("config", CONFIG_FILES)
def test_stage_2_bundles_differ_only_in_network_and_what_it_forces(config):
    network = re.compile(
        r"^::(_desc_|network_def::.*|network_def|patch_size|batch_size|deep_supervision_heads|masks::kind"
        + ("|max_epochs|val_interval|learning_rate" if config == "demo" else "")
        + ")$"
    )
    first = STAGE2[0]
    for other in STAGE2[1:]:
        drifted = [line for line in same(read(first, config), read(other, config)) if not network.match(line.split(": ")[0])]
        assert not drifted, f"{other}/configs/{config}.json differs from {first}'s:\n" + "\n".join(drifted)


@pytest.mark.parametrize("bundle", NETWORKS)
def test_inference_repeats_the_network_and_the_numbers_of_training(bundle):
    train, inference = read(bundle, "train"), read(bundle, "inference")
    shared = set(train) & set(inference) - {
        *("_desc_", "imports", "output_dir", "num_workers", "device", "fingerprint_file", "required_files", "checks"),
        *("initialize", "run"),
    }
    assert {"network_def", "patch_size", "overlap", "threshold", "inferer", "ct_normalised", "pet_normalised"} <= shared
    drifted = [f"{key} {line}" for key in sorted(shared) for line in same(train[key], inference[key])]
    assert not drifted, "\n".join(drifted)


@pytest.mark.parametrize("bundle", NETWORKS)
def test_inference_normalises_as_validation_does(bundle):
    def scaling(transforms):
        return [item for item in transforms if item["_target_"] in ("ScaleIntensityRanged", "ConcatItemsd", "SplitDimd")]

    validation = scaling(read(bundle, "train")["validate"]["preprocessing"]["transforms"])
    assert validation == scaling(read(bundle, "inference")["preprocessing"]["transforms"])


@pytest.mark.parametrize("bundle", sorted(path.name for path in BUNDLES.iterdir() if path.name != STAGE1))
def test_petct_training_is_the_same_in_every_bundle(bundle):
    """`make sync` spreads it from stage 1's."""

    def files(name: str) -> dict[str, bytes]:
        folder = BUNDLES / name / "petct_training"
        return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.suffix != ".pyc"}

    own, source = ({name: data for name, data in files(of).items() if "__pycache__" not in name} for of in (bundle, STAGE1))
    drifted = [f"{bundle}/petct_training/{name}" for name in sorted({*own, *source}) if own.get(name) != source.get(name)]
    assert not drifted, f"run `make sync`: these differ from {STAGE1}'s: {', '.join(drifted)}"


@pytest.mark.parametrize("bundle", NETWORKS)
def test_petct_training_is_the_only_python_of_a_network_bundle(bundle):
    assert {file.parent.name for file in (BUNDLES / bundle).rglob("*.py")} == {"petct_training"}


READ_BY_OTHER_TOOLS = {
    "inference": ["network_def", "network", "device", "inferer", "preprocessing", "postprocessing", "dataset::transform"],
    "train": [
        *("network_def", "network", "device", "inferer", "loss", "optimizer", "lr_scheduler"),
        *("train::inferer", "train::dataset::_target_", "train::dataloader::_target_", "train::trainer::_target_"),
        *("validate::inferer", "validate::preprocessing", "validate::postprocessing", "validate::key_metric"),
    ],
}


@pytest.mark.parametrize("profile", [[], ["demo"]], ids=["full", "demo"])
@pytest.mark.parametrize("config", READ_BY_OTHER_TOOLS)
@pytest.mark.parametrize("bundle", NETWORKS)
def test_what_other_tools_read_names_no_package_of_ours(bundle, config, profile):
    parser = parser_of(bundle, config, *profile)

    def reached(name: str, seen: set[str]) -> str:
        """The text of an id, and of all that it refers to."""
        text = json.dumps(parser[name])
        seen.add(name)
        names = {match.replace("#", "::") for match in re.findall(r"[@%]([A-Za-z_][\w:#]*)", text)}
        return text + "".join(reached(inner, seen) for inner in sorted(names) if inner not in seen)

    for name in READ_BY_OTHER_TOOLS[config]:
        assert "petct" not in reached(name, set()), name


@pytest.mark.parametrize("bundle", sorted(path.name for path in BUNDLES.iterdir()))
def test_nothing_in_a_config_is_absolute(bundle):
    for file in (BUNDLES / bundle / "configs").glob("*.json"):
        values = [value for value in flat(json.loads(file.read_text())).values() if isinstance(value, str)]
        assert not [value for value in values if re.match(r"^(/|[A-Za-z]:\\|~)", value)], file


@needs_shared(SCHEMA)
@pytest.mark.parametrize("bundle", sorted(path.name for path in BUNDLES.iterdir()))
def test_metadata_satisfies_the_model_zoos_schema(bundle):
    jsonschema.validate(read(bundle, "metadata"), json.loads(SCHEMA.read_text()))


@pytest.mark.parametrize("bundle", NETWORKS)
def test_metadata_describes_the_network(bundle):
    metadata, parser = read(bundle, "metadata"), ConfigParser()
    parser.read_config(BUNDLES / bundle / "configs/inference.json")
    form = metadata["network_data_format"]
    assert (
        form["inputs"]["image"]["num_channels"]
        == parser["network_def"]["in_channels"]
        == len(form["inputs"]["image"]["channel_def"])
    )
    assert form["inputs"]["image"]["spatial_shape"] == parser["patch_size"]
    assert metadata["version"] in metadata["changelog"]


@pytest.mark.parametrize("bundle", ONE_NETWORK_FIRST)
def test_a_copied_bundle_trains_evaluates_and_infers_alone(bundle, prepared, tmp_path):
    copy = tmp_path / "elsewhere" / bundle
    shutil.copytree(BUNDLES / bundle, copy, ignore=shutil.ignore_patterns("*.pt", "output", "data"))
    data = tmp_path / "data"
    shutil.copytree(prepared, data)

    def run(run_id: str, *configs: str, **overrides) -> str:
        files = str([f"configs/{name}.json" for name in (*configs, "demo")])
        command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", files, "--dataset_dir", str(data)]
        command += [text for name, value in overrides.items() for text in (f"--{name}", str(value))]
        done = run_python(command, copy, ENVIRONMENT)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout + done.stderr

    log = run("training", "train", max_epochs=1, val_interval=1)
    assert "val_mean_dice" in log
    expected = of_weights(json.loads((data / "fingerprint.json").read_text()), copy / "models/model.pt")
    assert json.loads((copy / "models/fingerprint.json").read_text()) == expected
    trained = re.search(r"Metrics -- val_mean_dice: ([\d.]+)", log).group(1)
    evaluated = re.search(r"Metrics -- val_mean_dice: ([\d.]+)", run("evaluating", "train", "evaluate")).group(1)
    assert evaluated == trained, "grid and label are the original's, so both must give the same Dice"
    run("run", "inference", output_dir=tmp_path / "masks")
    cases = [
        item["case"] for split in ("training", "validation") for item in json.loads((data / "datalist.json").read_text())[split]
    ]
    assert sorted(file.name for file in (tmp_path / "masks").glob("*.nii.gz")) == sorted(f"{case}.nii.gz" for case in cases)
    assert "nothing to do" in run("run", "inference", output_dir=tmp_path / "masks")


@pytest.mark.parametrize("bundle", ONE_NETWORK_FIRST)
def test_a_copied_bundle_is_opened_from_another_folder_with_its_own_python(bundle, prepared, tmp_path):
    copy = tmp_path / "elsewhere" / bundle
    shutil.copytree(BUNDLES / bundle, copy, ignore=shutil.ignore_patterns("*.pt", "output", "data", "__pycache__"))
    shutil.copyfile(prepared / "fingerprint.json", copy / "models/fingerprint.json")
    torch.save(parser_of(bundle, "train", "demo").get_parsed_content("network_def").state_dict(), copy / "models/model.pt")
    program = """
import sys
from monai.bundle import create_workflow
root, data, *names = sys.argv[1:]
files = [f"{root}/configs/{name}.json" for name in names]
kind = "infer" if "inference" in names else "train"
workflow = create_workflow(config_file=files, workflow_type=kind, bundle_root=root, dataset_dir=data, output_dir=f"{root}/output")
if kind == "infer":
    workflow.run()
assert workflow.check_properties() == []
import petct_training
assert petct_training.__file__.startswith(root), petct_training.__file__
"""
    for configs in (["train", "demo"], ["train", "evaluate", "demo"], ["inference", "demo"]):
        command = [sys.executable, "-W", "ignore", "-c", program, str(copy), str(prepared), *configs]
        done = run_python(command, tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("bundle", "configs", "missing", "sentence"),
    [
        (
            STAGE1,
            ["train"],
            "datalist.json",
            r"datalist\.json is missing: prepare a data set with `python -m monai.bundle run prepare",
        ),
        (STAGE1, ["train"], "fingerprint.json", r"fingerprint\.json is missing: prepare the data set again"),
        (
            STAGE2[0],
            ["train"],
            "coarse_masks",
            r"has no coarse mask \(.*\.nii\.gz is missing\): make it with `python -m monai.bundle run inferring",
        ),
        (STAGE1, ["inference"], "model.pt", r"model\.pt is missing: train it with `python -m monai.bundle run training"),
        (STAGE1, ["train", "evaluate"], "model.pt", r"model\.pt is missing: train it with `python -m monai.bundle run training"),
        (
            STAGE2[0],
            ["inference"],
            "coarse_masks",
            r"has no coarse mask \(.*\.nii\.gz is missing\): make it with `python -m monai.bundle run inferring",
        ),
    ],
)
def test_what_is_missing_is_one_sentence_with_the_command_that_makes_it(
    bundle, configs, missing, sentence, prepared, tmp_path, monkeypatch
):
    monkeypatch.chdir(BUNDLES / bundle)
    data, models = tmp_path / "data", tmp_path / "models"
    shutil.copytree(prepared, data)
    models.mkdir()
    shutil.copyfile(data / "fingerprint.json", models / "fingerprint.json")
    if missing != "model.pt":
        (models / "model.pt").touch()
    target = data / missing
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    workflow = ConfigWorkflow(
        config_file=[f"configs/{name}.json" for name in [*configs, "demo"]],
        meta_file=None,
        logging_file=False,
        workflow_type="train",
        dataset_dir=str(data),
        ckpt_dir=str(models),
        output_dir=str(tmp_path / "output"),
    )
    if "inference" in configs:
        workflow.initialize()
    with pytest.raises(SystemExit, match=sentence) as end:
        workflow.run() if "inference" in configs else workflow.initialize()
    assert "\n" not in str(end.value)


def test_licences_are_the_same_everywhere():
    for bundle in BUNDLES.iterdir():
        assert (bundle / "LICENSE").read_text() == Path(ROOT / "LICENSE").read_text()


def test_no_file_of_weights_can_run_code():
    for file in (*BUNDLES.rglob("*.py"), *BUNDLES.rglob("configs/*.json")):
        for call in re.findall(r"torch\.load\((?:[^()]|\([^()]*\))*\)", file.read_text()):
            assert "weights_only=True" in call, f"{file}: {call}"
