"""Promises of the ensemble's configs: inference, evaluation, assembling, and what they share with the network bundles."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from helpers import (
    BUNDLES,
    ENSEMBLE,
    FINGERPRINT,
    STAGE1,
    STAGE2,
    WINDOWS,
    las,
    of_weights,
    parser_of,
    rewrite,
    studies_shown,
    write_nifti,
    write_study,
)
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor
from processes import run_python

import petct_cascade.loading
from petct_cascade.commands import prepare
from petct_cascade.gathering import gather
from petct_cascade.keeping import RecordKeeper
from petct_cascade.predict import load_cascade
from petct_cascade.provenance import SUMMARY
from petct_training.claims import Claims
from petct_training.errors import InputError, cannot_write
from petct_training.files import write_json
from petct_training.options import check_names
from petct_training.records import Plan, Records

BUNDLE_OF = dict(zip(("DynUNet", "SegResNet", "SwinUNETR", "UNet"), (STAGE1, *STAGE2), strict=True))
MODELS = ["DynUNet", "SegResNet", "UNet", "Ensemble"]
CASES = ["fdg_a_10-12-2003-NA-PET-CT Ganzkoerper  primaer v1.0", "psma_b_2018-04-16"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """Two tiny studies in the challenge's layout; the CT of the second lies on a finer grid."""
    folder = tmp_path_factory.mktemp("raw")
    for seed, case in enumerate(CASES):
        write_study(folder, case, seed=seed, shape=(24, 18, 22), spacing=(4, 4, 5))
    ct = folder / f"imagesTr/{CASES[1]}_0000.nii.gz"
    image = nib.load(ct)
    finer = np.kron(np.asarray(image.dataobj), np.ones((2, 2, 2), np.int16))
    write_nifti(ct, finer, las((2, 2, 2.5), (1, -1, -1.25)))
    return folder


@pytest.fixture(scope="module")
def dataset(raw, tmp_path_factory) -> Path:
    """A prepared data set's list, with both studies for validation."""
    folder = tmp_path_factory.mktemp("prepared")
    files = {"ct": "imagesTr/{}_0000.nii.gz", "pet": "imagesTr/{}_0001.nii.gz", "label": "labelsTr/{}.nii.gz"}
    items = [
        {
            "case": case,
            "patient": case.split("_")[1],
            "tracer": case.split("_")[0],
            "image": f"images/{case}.nii",
            "label": f"labels/{case}.nii",
            "original": {role: file.format(case) for role, file in files.items()},
        }
        for case in CASES
    ]
    datalist = {"studies_dir": os.path.relpath(raw, folder), "training": [], "validation": items, "excluded": []}
    (folder / "datalist.json").write_text(json.dumps(datalist))
    return folder


@pytest.fixture
def workflow(monkeypatch, models, tmp_path):
    """Make a workflow of the ensemble's configs in the demo profile, with small windows."""
    monkeypatch.chdir(BUNDLES / ENSEMBLE)

    def make(*configs: str, **overrides) -> ConfigWorkflow:
        options = {"ckpt_dir": str(models), "output_dir": str(tmp_path / "masks"), "patch_sizes": WINDOWS, **overrides}
        result = ConfigWorkflow(
            config_file=[f"configs/{name}.json" for name in (*configs, "demo")],
            meta_file="configs/metadata.json",
            logging_file=False,
            workflow_type="infer",
            **options,
        )
        result.initialize()
        return result

    return make


def plain_preprocessing(parser) -> monai.transforms.Compose:
    """The preprocessing with the whole study read, and then cropped by MONAI's own transform."""
    crop = monai.transforms.CropForegroundd(
        keys=["image_ct", "image_pet"],
        source_key="image_pet",
        select_fn=lambda pet: pet > parser["body_suv"],
        margin=parser["body_margin"],
        allow_smaller=True,
    )
    _, load, _, _, split, *others, _ = parser.get_parsed_content("preprocessing").transforms
    return monai.transforms.Compose([load, split, crop, *others])


@pytest.fixture(scope="module")
def masks(raw, models, tmp_path_factory) -> dict[str, np.ndarray]:
    """The mask of each study that the method written out gives: whole cascade at once, on CT and PET as loaded."""
    parser = parser_of(ENSEMBLE, "inference", "demo")
    parser["ckpt_dir"], parser["patch_sizes"] = str(models), WINDOWS
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(models / "model.pt", weights_only=True))
    preprocessing = plain_preprocessing(parser)
    result = {}
    for case in CASES:
        files = [str(raw / f"imagesTr/{case}_{number}.nii.gz") for number in ("0000", "0001")]
        item = preprocessing({"case": case, "image": files})
        with torch.no_grad():
            item["pred"] = network(item["image"][None])[0]
        back = monai.transforms.Invertd(keys="pred", transform=preprocessing, orig_keys="image_pet", nearest_interp=False)(item)
        result[case] = (back["pred"][0] >= 0.5).numpy().astype(np.uint8)
        assert 0 < result[case].mean() < 1, "a mask that is empty or full shows nothing"
    return result


def pair(raw: Path, case: str) -> dict[str, str]:
    """The options that name CT and PET of one study of a data set."""
    return {role: str(raw / f"imagesTr/{case}_{number}.nii.gz") for role, number in (("ct", "0000"), ("pet", "0001"))}


def read_masks(folder: Path) -> dict[str, np.ndarray]:
    return {file.name.removesuffix(".nii.gz"): np.asarray(nib.load(file).dataobj) for file in sorted(folder.glob("*.nii.gz"))}


def assert_same(masks: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert sorted(masks) == sorted(expected)
    for case in masks:
        np.testing.assert_array_equal(masks[case], expected[case])


# ---------------------------------------------------------------- configs


@pytest.mark.parametrize("profile", [[], ["demo"]], ids=["full", "demo"])
@pytest.mark.parametrize("model", BUNDLE_OF)
def test_networks_and_windows_are_those_of_the_network_bundles(model, profile):
    ensemble, bundle = parser_of(ENSEMBLE, "inference", *profile), parser_of(BUNDLE_OF[model], "inference", *profile)
    # Only inference can have it, and the network bundles' own network is the published one, bit by bit.
    swin = ensemble["network_def::members::SwinUNETR::network"]
    assert swin.pop("use_flash_attention") is True
    # It takes weights of both orders of octants, and is MONAI's own with those of the network bundle, as tests/test_merging.py says.
    assert swin.pop("downsample")["_target_"] == "petct_training.merging.OctantPatchMerging"
    window = "network_def::stage1" if model == "DynUNet" else f"network_def::members::{model}"
    assert ensemble[f"{window}::network"] == bundle["network_def"]
    assert ensemble["patch_sizes"][model] == bundle["patch_size"]
    assert ensemble[f"{window}::roi_size"] == f"@patch_sizes::{model}"
    for name in ("overlap", "sw_batch_size"):
        assert ensemble[f"{window}::{name}"] == f"@{name}"


@pytest.mark.parametrize("model", BUNDLE_OF)
def test_preprocessing_and_numbers_are_those_of_the_network_bundles(model):
    ensemble, bundle = parser_of(ENSEMBLE, "inference"), parser_of(BUNDLE_OF[model], "inference")
    for name in ("overlap", "sw_batch_size", "threshold", "body_suv", "body_margin", "seed", "fingerprint"):
        assert ensemble[name] == bundle[name]
    for name in ("ct_clip", "pet_clip", "ct_normalised", "pet_normalised", "fingerprint_file", "model_file"):
        assert ensemble[name] == bundle[name]
    # What is off is named, too; what corrections do is in tests/test_corrections.py and tests/test_clicks.py.
    own = [item for item in ensemble["preprocessing::transforms"] if not isinstance(item, str)]
    others = json.loads(
        json.dumps(bundle["preprocessing::transforms"]).replace(', "coarse_mask"]', "]").replace(', "nearest"]', "]")
    )
    others = [item for item in others if item["_target_"] not in ("LoadImaged", "EnsureChannelFirstd")]
    # Here each network's window pads by itself.
    others = [item for item in others if item["_target_"] != "SpatialPadd"]
    for item in (item for item in others if item.get("mode") == ["bilinear", "bilinear"]):
        item["mode"] = "bilinear"
    # What these do is what MONAI's own do: tests/test_transforms.py compares them.
    load = {"_target_": "petct_cascade.loading.LoadImagePETCTd", "keys": "image"}
    crop = {
        "_target_": "petct_cascade.loading.CropToBodyd",
        "keys": "image",
        "body_suv": "@body_suv",
        "body_margin": "@body_margin",
    }
    assert own[:2] == [load, crop]
    others = [item for item in others if item["_target_"] != "CropForegroundd"]
    spacing = next(item for item in own if item["_target_"] == "petct_cascade.resampling.SeparableSpacingd")
    spacing.update({"_target_": "Spacingd", "mode": "bilinear", "padding_mode": "border", "dtype": "$torch.float32"})
    assert own[2:] == others


@pytest.mark.parametrize("configs", [["inference"], ["inference", "evaluate"]], ids="+".join)
@pytest.mark.parametrize("profile", [[], ["demo"]], ids=["full", "demo"])
def test_every_config_has_all_properties_of_its_workflow(configs, profile, raw, dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(BUNDLES / ENSEMBLE)
    workflow = ConfigWorkflow(
        config_file=[f"configs/{name}.json" for name in [*configs, *profile]],
        meta_file="configs/metadata.json",
        logging_file="configs/logging.conf",
        workflow_type="infer",
        **({"dataset_dir": str(dataset)} if "evaluate" in configs else {"studies": str(raw)}),
        output_dir=str(tmp_path),
    )
    workflow.initialize()
    assert workflow.check_properties() == []


def expressions(value: object) -> list[str]:
    """Every `$` expression in a config."""
    if isinstance(value, dict):
        return [found for part in value.values() for found in expressions(part)]
    if isinstance(value, list):
        return [found for part in value for found in expressions(part)]
    return [value] if isinstance(value, str) and value.startswith("$") else []


@pytest.mark.parametrize("name", ["inference", "evaluate", "assemble", "import_weights", "score", "demo"])
def test_expressions_are_short_and_end_nothing(name):
    for expression in expressions(json.loads((BUNDLES / ENSEMBLE / f"configs/{name}.json").read_text())):
        assert len(expression) <= 120
        assert "exit" not in expression
        assert "lambda" not in expression


@pytest.mark.parametrize("configs", [["inference"], ["inference", "evaluate"]], ids="+".join)
def test_transforms_can_be_sent_to_loading_processes_that_are_spawned(configs):
    parser = parser_of(ENSEMBLE, *configs, "demo")
    parser["bundle_root"] = str(BUNDLES / ENSEMBLE)
    for name in ("preprocessing", "postprocessing"):
        transforms = parser.get_parsed_content(name)
        copy = pickle.loads(pickle.dumps(transforms))
        assert [type(part) for part in copy.transforms] == [type(part) for part in transforms.transforms]


@pytest.mark.parametrize(
    ("configs", "option", "sentence"),
    [
        (["inference"], "dataset_dir", "--dataset_dir is not known any more: give --studies"),
        (["inference"], "datalist", "--datalist is not known any more: give --studies"),
        (["inference", "evaluate"], "datalist", "--datalist is not known any more: give --dataset_dir"),
        (["inference"], "output_dri", "--output_dri is not known: did you mean --output_dir?"),
    ],
)
def test_options_of_other_names_are_refused_with_the_right_one(configs, option, sentence):
    files = [str(BUNDLES / ENSEMBLE / f"configs/{name}.json") for name in configs]
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        check_names({option: "RAW"}, files, parser_of(ENSEMBLE, *configs)["former_options"])


def test_evaluation_takes_a_prepared_data_set_under_its_name():
    files = [str(BUNDLES / ENSEMBLE / f"configs/{name}.json") for name in ("inference", "evaluate")]
    check_names({"dataset_dir": "DATA"}, files, parser_of(ENSEMBLE, "inference", "evaluate")["former_options"])


@pytest.mark.parametrize("name", ["pipeline", "prepare", "phantom", "score", "inference"])
def test_every_command_checks_its_options_before_it_runs(name):
    config = json.loads((BUNDLES / ENSEMBLE / f"configs/{name}.json").read_text())
    assert config["check_options"]["_target_"] == "petct_training.options.check_options"
    assert config["initialize"][:2] == ["$sys.path.insert(0, @bundle_root)", "@check_options"]


def test_fingerprint_and_data_licence_are_those_of_the_network_bundles():
    for file in ("models/fingerprint.json", "docs/data_license.txt"):
        assert (BUNDLES / ENSEMBLE / file).read_bytes() == (BUNDLES / STAGE1 / file).read_bytes()


def test_metadata_describes_the_cascade():
    metadata = json.loads((BUNDLES / ENSEMBLE / "configs/metadata.json").read_text())
    form = metadata["network_data_format"]
    assert next(iter(form["inputs"])) == "image"
    assert next(iter(form["outputs"])) == "pred"
    assert form["inputs"]["image"]["num_channels"] == 2
    assert form["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "lesion"}
    assert metadata["version"] in metadata["changelog"]


def copy_of_bundle(folder: Path, models: Path) -> Path:
    """A copy of the bundle with weights, whose inference.json alone is of the demo profile."""
    bundle = folder / ENSEMBLE
    shutil.copytree(BUNDLES / ENSEMBLE, bundle, ignore=shutil.ignore_patterns("*.pt", "output", "data", "__pycache__"))
    parser = parser_of(ENSEMBLE, "inference", "demo")
    parser.parse()
    (bundle / "configs/inference.json").write_text(json.dumps({**parser.get(), "patch_sizes": WINDOWS}))
    for name in ("model.pt", "fingerprint.json"):
        shutil.copyfile(models / name, bundle / "models" / name)
    return bundle


def test_network_with_its_weights_is_loaded_by_monai(models, tmp_path, monkeypatch):
    bundle = copy_of_bundle(tmp_path, models)
    monkeypatch.setattr(sys, "path", list(sys.path))
    network = monai.bundle.load(
        ENSEMBLE, bundle_dir=tmp_path, workflow_type="inference", device="cpu", args_file={"bundle_root": str(bundle)}
    )
    expected = torch.load(models / "model.pt", weights_only=True)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)


def test_weights_without_the_fingerprint_that_belongs_to_them_give_no_mask(models, tmp_path, monkeypatch):
    bundle = copy_of_bundle(tmp_path, models)
    shutil.copyfile(BUNDLES / ENSEMBLE / "models/fingerprint.json", bundle / "models/fingerprint.json")
    sentence = r"models.fingerprint\.json does not belong to .*model\.pt, whose masks would be wrong [^\n]*: copy both files"
    write_study(tmp_path / "raw", "fdg_0001_1")
    monkeypatch.chdir(bundle)
    options = {"studies": str(tmp_path / "raw"), "output_dir": str(tmp_path / "masks"), "device": "cpu"}
    workflow = ConfigWorkflow(config_file="configs/inference.json", logging_file=False, workflow_type="infer", **options)
    workflow.initialize()
    with pytest.raises(SystemExit, match=f"^error: .*{sentence}"):
        workflow.run()
    assert not (tmp_path / "masks").exists()
    with pytest.raises(InputError, match=sentence):
        load_cascade(bundle / "models", "demo")
    # As other tools open the bundle, which run no checks.
    with pytest.raises(RuntimeError) as error:
        workflow.parser.get_parsed_content("preprocessing")
    assert isinstance(error.value.__cause__, InputError)
    own = of_weights(json.loads((models / "fingerprint.json").read_text()), models / "model.pt")
    write_json(bundle / "models/fingerprint.json", own)
    assert load_cascade(bundle / "models", "demo").network.members


def test_network_takes_and_gives_what_metadata_says(models, tmp_path, monkeypatch):
    bundle = copy_of_bundle(tmp_path, models)
    monkeypatch.chdir(bundle)
    monai.bundle.verify_net_in_out(
        net_id="network_def", meta_file="configs/metadata.json", config_file="configs/inference.json", any=20
    )


# ---------------------------------------------------------------- inference


def test_evaluator_gives_every_voxel_of_the_one_network_on_the_pets_grid(workflow, raw, masks, tmp_path):
    workflow("inference", studies=str(raw)).run()
    assert_same(read_masks(tmp_path / "masks"), masks)
    for case in CASES:
        mask, pet = nib.load(tmp_path / f"masks/{case}.nii.gz"), nib.load(raw / f"imagesTr/{case}_0001.nii.gz")
        assert mask.shape == pet.shape
        assert mask.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(mask.affine, pet.affine)


def test_list_and_single_pair_give_the_masks_of_the_folder(workflow, raw, masks, tmp_path):
    table = raw / "list.csv"
    row = f"imagesTr/{CASES[0]}_0000.nii.gz", f"imagesTr/{CASES[0]}_0001.nii.gz"
    table.write_text("case,ct,pet\n" + ",".join(["other name", *row]) + "\n")
    workflow("inference", studies=str(table), output_dir=str(tmp_path / "list")).run()
    assert_same(read_masks(tmp_path / "list"), {"other name": masks[CASES[0]]})
    workflow("inference", **pair(raw, CASES[1]), output_dir=str(tmp_path / "pair")).run()
    assert_same(read_masks(tmp_path / "pair"), {CASES[1]: masks[CASES[1]]})


def test_parts_that_monai_label_takes_give_the_same_mask(workflow, raw, masks, tmp_path):
    ct, pet = (nib.load(raw / f"imagesTr/{CASES[0]}_{number}.nii.gz") for number in ("0000", "0001"))
    both = np.stack([ct.get_fdata(dtype=np.float32), pet.get_fdata(dtype=np.float32)], -1)
    file = write_nifti(tmp_path / "study.nii.gz", both, pet.affine)
    parts = workflow("inference", device="cpu")
    item = parts.preprocessing({"image": str(file), "image_path": str(file), "image_id": "study"})
    network = parts.network_def
    network.load_state_dict(torch.load(parts.parser.get_parsed_content("model_file"), weights_only=True))
    with torch.no_grad():
        item["pred"] = parts.inferer(item["image"][None], network.eval())[0]
    item = parts.postprocessing(item)
    np.testing.assert_array_equal(item["pred"][0], masks[CASES[0]])
    assert_same(read_masks(tmp_path / "masks"), {"study": masks[CASES[0]]})


def test_second_run_does_only_what_is_missing(workflow, raw, tmp_path, capsys):
    folder = tmp_path / "raw"
    shutil.copytree(raw, folder)
    workflow("inference", studies=str(folder)).run()
    first, second = (tmp_path / f"masks/{case}.nii.gz" for case in CASES)
    stamps = first.stat().st_mtime_ns, second.stat().st_mtime_ns
    workflow("inference", studies=str(folder)).run()
    assert "nothing to do" in capsys.readouterr().out
    assert (first.stat().st_mtime_ns, second.stat().st_mtime_ns) == stamps
    later = second.stat().st_mtime + 10
    os.utime(folder / f"imagesTr/{CASES[1]}_0000.nii.gz", (later, later))
    workflow("inference", studies=str(folder)).run()
    assert (first.stat().st_mtime_ns, second.stat().st_mtime_ns) == stamps, "a file of another time has the same content"
    second.unlink()
    workflow("inference", studies=str(folder)).run()
    assert first.stat().st_mtime_ns == stamps[0]
    assert second.stat().st_mtime_ns > stamps[1]
    workflow("inference", studies=str(folder), threshold=0.4).run()
    assert first.stat().st_mtime_ns > stamps[0], "another threshold gives another mask"


def content_of(folder: Path) -> dict[str, object]:
    """Every file of an output folder: its bytes; of a record what was written, without paths and clocks."""
    files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
    records = {name: json.loads(file.read_text()) for name, file in files.items() if name.startswith("records/")}
    written = {name: {output: state["sha256"] for output, state in record["written"].items()} for name, record in records.items()}
    return {name: written.get(name) or file.read_bytes() for name, file in files.items()}


def test_processes_that_share_the_studies_leave_the_bytes_of_one(workflow, raw, masks, tmp_path, capsys):
    workflow("inference", studies=str(raw), output_dir=str(tmp_path / "one")).run()
    for part in (1, 2):
        assert not (tmp_path / "two/report.html").exists()
        capsys.readouterr()
        workflow("inference", studies=str(raw), output_dir=str(tmp_path / "two"), part=part, of=2).run()
        assert ("the run that does the last one reports" in capsys.readouterr().out) == (part == 1)
        assert len(read_masks(tmp_path / "two")) == {1: 1, 2: len(CASES)}[part]
    assert content_of(tmp_path / "two") == content_of(tmp_path / "one")


def test_a_study_is_read_out_while_later_ones_are_segmented(workflow, raw, tmp_path):
    studies = tmp_path / "raw"
    for number in range(4):
        for folder, suffix in (("imagesTr", "_0000"), ("imagesTr", "_0001"), ("labelsTr", "")):
            copy = studies / f"{folder}/fdg_n{number}_1{suffix}.nii.gz"
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(raw / f"{folder}/{CASES[0]}{suffix}.nii.gz", copy)
    output = tmp_path / "masks"
    workflow("inference", studies=str(studies), output_dir=str(output), num_workers=0).run()
    clock = {file.relative_to(output).as_posix(): file.stat().st_mtime_ns for file in output.rglob("*.*")}
    of_first = ("studies/fdg_n0_1.json", "studies/fdg_n0_1.html", "pictures/fdg_n0_1.png", "records/studies/fdg_n0_1.json")
    assert max(clock[name] for name in of_first) < clock["fdg_n2_1.nii.gz"]
    assert clock["report.html"] > clock["studies/fdg_n3_1.html"]


def test_report_of_what_several_runs_have_left_is_that_of_the_last_one(workflow, raw, tmp_path, capsys):
    output = tmp_path / "masks"
    workflow("inference", studies=str(raw)).run()
    assert capsys.readouterr().out.endswith(f"{output / 'report.html'}: 2 studies.\n")
    tables = ("problems.json", "report.html", "readouts.json", "readouts_studies.csv", "readouts_lesions.csv")
    before = {name: (output / name).read_bytes() for name in tables}
    for name in tables:
        (output / name).unlink()
    gather(output)
    assert {name: (output / name).read_bytes() for name in tables} == before
    (output / f"pictures/{CASES[0]}.png").unlink()
    gather(output)
    assert list(json.loads((output / "readouts.json").read_text())) == CASES[1:]
    said = capsys.readouterr().out
    assert said.endswith(f"report.html: 1 study.\n1 study without results yet, such as {CASES[0]}: run the same command again\n")
    workflow("inference", studies=str(raw)).run()
    assert {name: (output / name).read_bytes() for name in tables} == before


def test_report_of_an_evaluation_has_its_scores_again(workflow, dataset, tmp_path):
    workflow("inference", "evaluate", dataset_dir=str(dataset), allow_outside=True).run()
    before = {file: file.read_bytes() for file in (tmp_path / "masks").glob("*.*") if file.is_file()}
    assert {"scores.csv", "table1.md", "summary.json"} <= {file.name for file in before}
    for file in before:
        file.unlink()
    gather(tmp_path / "masks")
    assert {file: file.read_bytes() for file in before} == before


@pytest.mark.parametrize("kind", ["prepared data set", "conversion", "masks of DynUNet"])
def test_report_is_refused_where_results_are_of_a_kind_that_has_none(kind, tmp_path):
    records = Records(tmp_path, kind)
    with records.making(Plan("a", {}, {}, ["a.nii"])):
        (tmp_path / "a.nii").write_text("data")
    before = {file for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(InputError, match="holds no results: name an output folder of petct segment"):
        gather(tmp_path)
    assert {file for file in tmp_path.rglob("*") if file.is_file()} == before


def test_report_is_refused_where_there_are_no_results_or_another_run_writes_it(workflow, raw, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty holds no results: name an output folder of petct segment"):
        gather(tmp_path / "empty")
    workflow("inference", studies=str(raw)).run()
    other = Claims(tmp_path / "masks")
    assert other.claim(SUMMARY)
    with pytest.raises(InputError, match="another run is writing the report"):
        gather(tmp_path / "masks")


def test_a_mask_that_could_not_be_replaced_is_not_taken_for_that_of_the_new_options(workflow, raw, tmp_path, monkeypatch):
    workflow("inference", studies=str(raw)).run()
    before, replace_file = read_masks(tmp_path / "masks"), os.replace

    def refuse(source, target):
        # As on Windows where a viewer has it open.
        if Path(target) == tmp_path / f"masks/{CASES[0]}.nii.gz":
            raise PermissionError(13, "Permission denied", str(target))
        replace_file(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(SystemExit) as end:
            workflow("inference", studies=str(raw), threshold=0.9).run()
    assert end.value.code == 3
    assert_same({CASES[0]: read_masks(tmp_path / "masks")[CASES[0]]}, {CASES[0]: before[CASES[0]]})
    workflow("inference", studies=str(raw), threshold=0.9).run()
    assert (read_masks(tmp_path / "masks")[CASES[0]] != before[CASES[0]]).any()


@pytest.mark.parametrize("edited", ["pictures/{}.png", "studies/{}.json"])
def test_a_result_of_one_study_that_somebody_has_edited_costs_no_other_study(workflow, raw, tmp_path, edited):
    output = tmp_path / "masks"
    workflow("inference", studies=str(raw)).run()
    file, mask = output / edited.format(CASES[0]), (output / f"{CASES[0]}.nii.gz").read_bytes()
    file.write_bytes(file.read_bytes() + b" ")
    content = file.read_bytes()
    sentence = rf"study {re.escape(CASES[0])}: .*{file.name} was changed after this program had written it"
    for options in ({}, {"threshold": 0.9}):
        workflow("inference", studies=str(raw), output_dir=str(tmp_path / "alone"), **options).run()
        with pytest.raises(SystemExit, match=rf"^error: 1 study cannot be used, all others were done:\n  {sentence}") as end:
            workflow("inference", studies=str(raw), **options).run()
        assert end.value.code == 3
        of_other, alone = (read_masks(folder)[CASES[1]] for folder in (output, tmp_path / "alone"))
        np.testing.assert_array_equal(of_other, alone)
        assert (file.read_bytes(), (output / f"{CASES[0]}.nii.gz").read_bytes()) == (content, mask)
        tables = [json.loads((folder / "readouts.json").read_text()) for folder in (output, tmp_path / "alone")]
        assert tables[0] == {CASES[1]: tables[1][CASES[1]]}
        assert [row["case"] for row in json.loads((output / "problems.json").read_text())] == [CASES[0]]
        written = {name: (output / name).read_bytes() for name in ("problems.json", "readouts.json", "readouts_studies.csv")}
        gather(output)
        assert {name: (output / name).read_bytes() for name in written} == written
    with pytest.raises(SystemExit, match=rf"^error: {sentence}"):
        workflow("inference", studies=str(raw), strict=True).run()


def test_a_full_disk_after_the_masks_is_told_once_and_no_study_has_failed(workflow, raw, masks, tmp_path, monkeypatch, capsys):
    def fill(folder: Path) -> None:
        raise InputError(cannot_write(folder / "niivue.js", OSError(28, "No space left on device")))

    with monkeypatch.context() as patch:
        patch.setattr("petct_cascade.study_results.write_program", fill)
        with pytest.raises(SystemExit) as end:
            workflow("inference", studies=str(raw)).run()
    place = tmp_path / "masks/studies/viewer/niivue.js"
    assert str(end.value) == (
        f"error: all masks are written, but read-outs or report are not complete: {place} cannot be written (No space left on device): "
        "see that there is room and that the folder may be written"
    )
    assert "niivue.js" not in "".join(capsys.readouterr())
    assert_same(read_masks(tmp_path / "masks"), masks)
    workflow("inference", studies=str(raw)).run()
    assert "nothing to do" in capsys.readouterr().out
    assert sorted(json.loads((tmp_path / "masks/readouts.json").read_text())) == CASES


def test_a_study_that_fails_keeps_an_earlier_mask_and_is_in_no_table_and_no_report(workflow, raw, tmp_path, capsys):
    folder, output = tmp_path / "raw", tmp_path / "masks"
    shutil.copytree(raw, folder)
    workflow("inference", studies=str(folder)).run()
    pet = folder / f"imagesTr/{CASES[0]}_0001.nii.gz"
    content, mask = pet.read_bytes(), (output / f"{CASES[0]}.nii.gz").read_bytes()

    def check_that_it_is_in_no_table(reason: str) -> None:
        """Whatever tells of the studies, by the run or by `petct report`."""
        assert [row["case"] for row in csv.DictReader((output / "readouts_studies.csv").open())] == CASES[1:]
        assert list(json.loads((output / "readouts.json").read_text())) == CASES[1:]
        assert studies_shown(output) == CASES[1:]
        (problem,) = json.loads((output / "problems.json").read_text())
        assert problem["case"] == CASES[0]
        assert reason in problem["reason"]

    pet.write_bytes(content[:3000])
    for damage, reason in ((lambda: None, "is damaged or cut off"), (pet.unlink, "there is no PET of this study")):
        damage()
        for threshold in (0.9, 0.5):
            with pytest.raises(
                SystemExit, match=rf"1 study cannot be used, all others were done:\n  study {re.escape(CASES[0])}: "
            ):
                workflow("inference", studies=str(folder), threshold=threshold).run()
            said = capsys.readouterr().out
            assert (
                f"report.html: 1 study.\nMasks of an earlier run stay, and are in no table, since their studies failed now: {CASES[0]}.\n"
                in said
            )
            assert (output / f"{CASES[0]}.nii.gz").read_bytes() == mask
            check_that_it_is_in_no_table(reason)
            gather(output)
            assert capsys.readouterr().out.endswith("report.html: 1 study.\n")
            check_that_it_is_in_no_table(reason)
    # Nor by a run over other studies.
    shutil.copytree(folder, tmp_path / "others")
    for file in (tmp_path / "others").rglob(f"{CASES[0]}*"):
        file.unlink()
    workflow("inference", studies=str(tmp_path / "others")).run()
    check_that_it_is_in_no_table(reason)
    pet.write_bytes(content)
    workflow("inference", studies=str(folder)).run()
    whole = (output / "readouts.json").read_bytes()
    assert list(json.loads(whole)) == CASES
    gather(output)
    assert (output / "readouts.json").read_bytes() == whole
    assert json.loads((output / "problems.json").read_text()) == []


def test_half_a_study_of_the_same_name_in_another_folder_takes_no_results_away(workflow, raw, tmp_path):
    folder, output = tmp_path / "raw", tmp_path / "masks"
    shutil.copytree(raw, folder)
    workflow("inference", studies=str(folder)).run()
    before = [(output / name).read_bytes() for name in ("readouts.json", "readouts_studies.csv")]
    ct = tmp_path / f"others/imagesTr/{CASES[0]}_0000.nii.gz"
    ct.parent.mkdir(parents=True)
    shutil.copy(folder / f"imagesTr/{CASES[0]}_0000.nii.gz", ct)
    with pytest.raises(SystemExit, match=rf"study {re.escape(CASES[0])}: there is no PET of this study"):
        workflow("inference", studies=str(tmp_path / "others")).run()
    assert [(output / name).read_bytes() for name in ("readouts.json", "readouts_studies.csv")] == before
    gather(output)
    assert [(output / name).read_bytes() for name in ("readouts.json", "readouts_studies.csv")] == before


def test_a_score_of_one_study_that_somebody_has_edited_costs_no_other_study(workflow, dataset, tmp_path):
    options, output = {"dataset_dir": str(dataset), "allow_outside": True}, tmp_path / "masks"
    workflow("inference", "evaluate", **options).run()
    picture = output / f"pictures/{CASES[0]}.png"
    picture.write_bytes(picture.read_bytes() + b" ")
    before = {
        file: file.read_bytes() for file in output.rglob("*") if file.is_file() and CASES[0] in str(file.relative_to(output))
    }
    for further in ({}, {"threshold": 0.9}):
        workflow("inference", "evaluate", output_dir=str(tmp_path / "alone"), **options, **further).run()
        with pytest.raises(SystemExit, match=rf"\n  study {re.escape(CASES[0])}: .*{picture.name} was changed after this") as end:
            workflow("inference", "evaluate", **options, **further).run()
        assert end.value.code == 3
        rows, alone = ((folder / "scores.csv").read_text().splitlines() for folder in (output, tmp_path / "alone"))
        assert rows == [alone[0], *(row for row in alone if row.startswith(CASES[1]))]
        assert [row["case"] for row in json.loads((output / "problems.json").read_text())] == [CASES[0]]
        now = {file: file.read_bytes() for file in before}
        assert now == before


def test_a_study_that_another_run_is_doing_is_left_to_it(workflow, raw, masks, tmp_path, capsys):
    other = Claims(tmp_path / "masks")
    assert other.claim(CASES[0])
    workflow("inference", studies=str(raw)).run()
    assert sorted(read_masks(tmp_path / "masks")) == CASES[1:]
    assert f"1 study not done yet, such as {CASES[0]}: the run" in capsys.readouterr().out
    other.release(CASES[0])
    workflow("inference", studies=str(raw)).run()
    assert_same(read_masks(tmp_path / "masks"), masks)
    assert sorted(json.loads((tmp_path / "masks/readouts.json").read_text())) == CASES
    assert not list((tmp_path / "masks/records").rglob("*.lock"))


def test_a_study_that_another_run_over_the_same_studies_could_not_do_is_named_with_its_reason(
    workflow, raw, tmp_path, monkeypatch
):
    broken, output = tmp_path / "raw", tmp_path / "masks"
    shutil.copytree(raw, broken)
    (broken / f"imagesTr/{CASES[0]}_0001.nii.gz").write_bytes(b"no image")
    other = Claims(output)
    assert other.claim(CASES[0])
    problem = {"case": CASES[0], "file": "", "reason": "what the other run has found"}
    late = workflow("inference", studies=str(broken))
    # The other run has it in its hands when this one comes to it, and gives it up before this one ends.
    claim = RecordKeeper.claim

    def give_up(self: RecordKeeper, case: str) -> bool:
        mine = claim(self, case)
        if case == CASES[0] and not mine:
            write_json(output / f"records/problems/{case}.json", problem)
            other.release(case)
        return mine

    monkeypatch.setattr(RecordKeeper, "claim", give_up)
    with pytest.raises(SystemExit) as end:
        late.run()
    assert end.value.code == 3
    assert json.loads((output / "problems.json").read_text()) == [problem]
    assert sorted(json.loads((output / "readouts.json").read_text())) == CASES[1:]


def test_a_study_that_fails_in_one_process_is_in_the_report_of_the_last(workflow, raw, tmp_path):
    broken = tmp_path / "raw"
    shutil.copytree(raw, broken)
    # The largest file is done by the first process.
    (broken / f"imagesTr/{CASES[0]}_0001.nii.gz").write_bytes(os.urandom(9_000_000))
    with pytest.raises(SystemExit, match="1 study cannot be used, and nothing was done"):
        workflow("inference", studies=str(broken), part=1, of=2).run()
    with pytest.raises(SystemExit) as end:
        workflow("inference", studies=str(broken), part=2, of=2).run()
    assert end.value.code == 3
    assert [row["case"] for row in json.loads((tmp_path / "masks/problems.json").read_text())] == [CASES[0]]


def test_evaluating_processes_share_the_studies_and_a_second_run_segments_none(workflow, dataset, raw, tmp_path, capsys):
    options = {"dataset_dir": str(dataset), "allow_outside": True}
    workflow("inference", "evaluate", output_dir=str(tmp_path / "one"), **options).run()
    for part in (1, 2):
        assert not (tmp_path / "two/table1.md").exists()
        workflow("inference", "evaluate", output_dir=str(tmp_path / "two"), part=part, of=2, **options).run()
    assert content_of(tmp_path / "two") == content_of(tmp_path / "one")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "two/masks").rglob("*.nii.gz")}
    workflow("inference", "evaluate", output_dir=str(tmp_path / "two"), **options).run()
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "two/masks").rglob("*.nii.gz")} == before


def test_older_weights_or_images_that_are_put_in_place_are_noticed(workflow, raw, models, tmp_path):
    folder, weights = tmp_path / "raw", tmp_path / "weights"
    shutil.copytree(raw, folder)
    shutil.copytree(models, weights)
    masks = [tmp_path / f"masks/{case}.nii.gz" for case in CASES]

    def run() -> list[int]:
        workflow("inference", studies=str(folder), ckpt_dir=str(weights)).run()
        return [mask.stat().st_mtime_ns for mask in masks]

    before = run()
    other_weights = torch.load(weights / "model.pt", weights_only=True)
    next(iter(other_weights.values())).mul_(1.01)
    torch.save(other_weights, tmp_path / "other.pt")
    image = folder / f"imagesTr/{CASES[1]}_0001.nii.gz"
    pet = nib.load(image)
    write_nifti(tmp_path / "other.nii.gz", np.asarray(pet.dataobj) * np.float32(1.01), pet.affine)
    for file, older, redone in (
        (weights / "model.pt", tmp_path / "other.pt", [True, True]),
        (image, tmp_path / "other.nii.gz", [False, True]),
    ):
        os.utime(older, (1, 1))
        os.replace(older, file)
        after = run()
        assert [new > old for old, new in zip(before, after, strict=True)] == redone
        before = after


def test_study_that_cannot_be_used_is_named_and_the_others_are_done(workflow, raw, masks, tmp_path):
    folder = tmp_path / "raw"
    shutil.copytree(raw, folder)
    pet = folder / f"imagesTr/{CASES[0]}_0001.nii.gz"
    pet.write_bytes(pet.read_bytes()[:3000])
    (folder / "imagesTr/fdg_lonely_1_0000.nii.gz").touch()
    with pytest.raises(SystemExit) as end:
        workflow("inference", studies=str(folder)).run()
    assert str(end.value).startswith("error: 2 studies cannot be used, all others were done:")
    assert f"study {CASES[0]}: {pet.name} is damaged or cut off" in str(end.value)
    assert "study fdg_lonely_1: there is no PET of this study" in str(end.value)
    assert_same(read_masks(tmp_path / "masks"), {CASES[1]: masks[CASES[1]]})


@pytest.mark.parametrize("num_workers", [0, 1])
def test_file_that_breaks_while_it_is_read_is_named_and_the_others_are_done(workflow, raw, masks, tmp_path, num_workers, capfd):
    folder = tmp_path / "raw"
    shutil.copytree(raw, folder)
    pet = folder / f"imagesTr/{CASES[0]}_0001.nii.gz"
    pet.write_bytes(pet.read_bytes()[:3000])
    sentence = rf"study {re.escape(CASES[0])}: .*_0001\.nii\.gz is damaged or cut off: .*$"
    with pytest.raises(SystemExit, match=rf"^error: 1 study cannot be used, all others were done:\n  {sentence}") as end:
        workflow("inference", studies=str(folder), check=False, num_workers=num_workers).run()
    assert end.value.code == 3
    assert_same(read_masks(tmp_path / "masks"), {CASES[1]: masks[CASES[1]]})
    assert "Traceback" not in "".join(capfd.readouterr())
    with pytest.raises(SystemExit, match=rf"^error: {sentence}") as end:
        workflow("inference", studies=str(folder), check=False, num_workers=num_workers, strict=True).run()
    assert end.value.code == str(end.value), "a message is the exit code 1"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"ckpt_dir": "none"}, r"none/model\.pt is missing: make it with `python -m monai\.bundle run assemble --config_file "),
        ({"studies": "none"}, "none does not exist: name the folder of the data set"),
        (
            {"studies": __file__},
            r"test_ensemble\.py is one file: name the folder of the data set, or a list \(CSV, JSON\), or one",
        ),
        ({"ct": "ct.nii.gz"}, "--pet is missing: give one file for the CT and one for the PET"),
        ({"pet": "pet.nii.gz"}, "--ct is missing: give one file for the CT and one for the PET"),
    ],
)
def test_what_is_missing_is_one_sentence(workflow, overrides, sentence):
    with pytest.raises(SystemExit, match=sentence) as end:
        workflow("inference", **overrides).run()
    assert "\n" not in str(end.value)


@pytest.mark.parametrize("configs", [["inference"], ["inference", "evaluate"]], ids="+".join)
def test_output_folder_that_cannot_be_written_is_one_sentence_before_anything_is_done(
    workflow, configs, raw, dataset, tmp_path, monkeypatch
):
    (tmp_path / "file").touch()
    options = {
        **({"dataset_dir": str(dataset)} if "evaluate" in configs else {"studies": str(raw)}),
        "output_dir": str(tmp_path / "file/masks"),
    }
    with pytest.raises(SystemExit, match=r"^error: .*file/masks cannot be written \(Not a directory\): see that there is room"):
        workflow(*configs, **options).run()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_error_that_nobody_has_foreseen_costs_one_study_and_is_one_sentence(
    workflow, raw, masks, tmp_path, num_workers, capfd, monkeypatch
):
    original = petct_cascade.loading.LoadImagePETCTd.load

    def load(self, source, case=None):
        if case == CASES[0]:
            raise ZeroDivisionError("nobody knows why")
        return original(self, source, case)

    monkeypatch.setattr(petct_cascade.loading.LoadImagePETCTd, "load", load)
    sentence = rf"study {re.escape(CASES[0])}: it could not be segmented \(nobody knows why\): run it alone"
    with pytest.raises(SystemExit, match=sentence) as end:
        workflow("inference", studies=str(raw), num_workers=num_workers).run()
    assert end.value.code == 3
    assert_same(read_masks(tmp_path / "masks"), {CASES[1]: masks[CASES[1]]})
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("configs", [["inference"], ["inference", "evaluate"]], ids="+".join)
def test_weights_of_other_networks_or_damaged_ones_are_one_sentence(workflow, configs, raw, dataset, models, tmp_path):
    weights = torch.load(models / "model.pt", weights_only=True)
    file = tmp_path / "weights/model.pt"
    file.parent.mkdir()
    shutil.copy(models / "fingerprint.json", file.parent)
    name = next(iter(weights))
    torch.save({other: tensor for other, tensor in weights.items() if other != name}, file)
    options = {
        **({"dataset_dir": str(dataset)} if "evaluate" in configs else {"studies": str(raw)}),
        "ckpt_dir": str(file.parent),
    }
    with pytest.raises(
        SystemExit, match=rf"model\.pt does not fit Cascade: it lacks {re.escape(name)}; train again, or name the configs"
    ):
        workflow(*configs, **options).run()
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(SystemExit, match=r"^error: .*model\.pt cannot be read as weights of PyTorch: [^\n]*$"):
        workflow(*configs, **options).run()


def test_inference_leaves_readouts_pictures_and_a_report_of_the_prediction_alone(workflow, raw, masks, tmp_path):
    workflow("inference", studies=str(raw)).run()
    folder = tmp_path / "masks"
    readouts = json.loads((folder / "readouts.json").read_text())
    assert sorted(readouts) == sorted(CASES)
    for case in CASES:
        assert readouts[case]["study"]["tmtv_ml"] == pytest.approx(masks[case].sum() * 4 * 4 * 5 / 1000)
    page = (folder / "report.html").read_text()
    assert studies_shown(folder) == CASES
    assert "reference" not in page.split("</style>")[1].split("<script>")[0].lower()
    for name in ("readouts_studies.csv", "readouts_lesions.csv"):
        with open(folder / name, newline="") as file:
            assert {row["case"] for row in csv.DictReader(file)} == set(CASES)
    assert not (folder / "scores.csv").exists()


def test_a_report_may_be_one_file_and_a_page_may_lack_the_viewer(workflow, raw, tmp_path):
    results = tmp_path / "masks"
    workflow("inference", **pair(raw, CASES[0]), case=CASES[0], viewer=False).run()
    assert studies_shown(results) == CASES[:1]
    assert not list(results.glob("studies/*/*.js"))
    workflow("inference", **pair(raw, CASES[0]), case=CASES[0]).run()
    assert sorted(file.name for file in results.glob("studies/*/*.js")) == ["niivue.js", "volumes.js"]
    workflow("inference", **pair(raw, CASES[0]), case=CASES[0], single_file=True).run()
    assert (results / "report.html").read_text().count("<img ") == 1
    assert not list(results.glob("studies/*.html"))


def test_report_of_a_later_inference_shows_all_its_studies_and_redraws_only_what_changed(workflow, raw, tmp_path):
    folder, results = tmp_path / "raw", tmp_path / "masks"
    shutil.copytree(raw, folder)

    def pictures() -> list[int]:
        return [(results / f"pictures/{case}.png").stat().st_mtime_ns for case in CASES]

    workflow("inference", **pair(folder, CASES[0])).run()
    (first,) = [file.stat().st_mtime_ns for file in (results / "pictures").iterdir()]
    workflow("inference", studies=str(folder)).run()
    assert len(studies_shown(results)) == 2
    stamps = pictures()
    assert stamps[0] == first
    later = (results / f"{CASES[1]}.nii.gz").stat().st_mtime + 10
    os.utime(results / f"{CASES[1]}.nii.gz", (later, later))
    workflow("inference", studies=str(folder)).run()
    assert pictures() == stamps, "only times have changed"
    ct = nib.load(folder / f"imagesTr/{CASES[1]}_0000.nii.gz")
    nib.save(nib.Nifti1Image(np.asanyarray(ct.dataobj) + 1, ct.affine, ct.header), ct.get_filename())
    workflow("inference", studies=str(folder)).run()
    assert pictures()[0] == stamps[0]
    assert pictures()[1] > stamps[1]
    workflow("inference", studies=str(folder), suv_range=[0, 5]).run()
    assert pictures()[0] > stamps[0]


def test_studies_that_are_segmented_one_by_one_share_tables_and_report(workflow, raw, tmp_path):
    results = tmp_path / "masks"
    for number in (1, 0):
        workflow("inference", **pair(raw, CASES[number])).run()
    workflow("inference", studies=str(raw), output_dir=str(tmp_path / "together")).run()
    for file in ("readouts.json", "readouts_studies.csv", "readouts_lesions.csv"):
        assert (results / file).read_text() == (tmp_path / "together" / file).read_text()
    assert len(studies_shown(results)) == 2


def test_patients_whose_files_are_called_alike_are_told_apart_by_their_folders(workflow, raw, tmp_path):
    masks = {}
    for number, patient in enumerate(("anna", "bert")):
        (tmp_path / patient).mkdir()
        for end, name in (("0000", "CT"), ("0001", "SUV")):
            shutil.copyfile(raw / f"imagesTr/{CASES[number]}_{end}.nii.gz", tmp_path / patient / f"{name}.nii.gz")
        files = {role: str(tmp_path / patient / f"{name}.nii.gz") for role, name in (("ct", "CT"), ("pet", "SUV"))}
        workflow("inference", **files).run()
        workflow("inference", **files, output_dir=str(tmp_path / f"{patient} alone")).run()
        masks[patient] = (tmp_path / f"{patient} alone/{patient}_SUV.nii.gz").read_bytes()
    for patient, mask in masks.items():
        assert (tmp_path / f"masks/{patient}_SUV.nii.gz").read_bytes() == mask
    workflow("inference", **files, case="Bert, day 2").run()
    assert (tmp_path / "masks/Bert, day 2.nii.gz").read_bytes() == masks["bert"]


def test_a_refused_study_leaves_the_one_whose_name_it_has_in_the_report_and_ends_with_1(workflow, raw, tmp_path):
    results = tmp_path / "masks"
    workflow("inference", **pair(raw, CASES[0]), case="patient").run()
    before = {name: (results / name).read_bytes() for name in ("patient.nii.gz", "readouts.json", "pictures/patient.png")}
    with pytest.raises(
        SystemExit, match=r"1 study cannot be used, and nothing was done:\n  study patient: .*another study of this name"
    ) as end:
        workflow("inference", **pair(raw, CASES[1]), case="patient").run()
    assert isinstance(end.value.code, str), "exit code 1"
    assert {name: (results / name).read_bytes() for name in before} == before
    page = (results / "report.html").read_text()
    assert len(studies_shown(results)) == 1
    assert "another study of this name" in page


def test_readouts_are_never_those_of_an_earlier_mask_also_after_an_ended_run(workflow, raw, masks, tmp_path):
    results = tmp_path / "masks"
    workflow("inference", studies=str(raw)).run()
    readouts = (results / "readouts.json").read_bytes()
    # As left by a run that has made a mask anew and drawn it, and was ended then.
    table = json.loads(readouts)
    table[CASES[0]]["study"]["tmtv_ml"] = 1.0
    (results / "readouts.json").write_text(json.dumps(table))
    for file in (f"{CASES[0]}.nii.gz", f"pictures/{CASES[0]}.png"):
        content = (results / file).read_bytes()
        (results / file).write_bytes(content)
    record = results / "records/.summary.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"written": None}))
    workflow("inference", studies=str(raw)).run()
    assert (results / "readouts.json").read_bytes() == readouts


def test_study_that_fails_is_named_in_the_report(workflow, raw, tmp_path):
    folder = tmp_path / "raw"
    shutil.copytree(raw, folder)
    pet = folder / f"imagesTr/{CASES[0]}_0001.nii.gz"
    pet.write_bytes(pet.read_bytes()[:3000])
    with pytest.raises(SystemExit):
        workflow("inference", studies=str(folder)).run()
    page = (tmp_path / "masks/report.html").read_text()
    assert f"{CASES[0]}: {pet.name} is damaged or cut off" in page
    assert studies_shown(tmp_path / "masks") == CASES[1:]
    (problem,) = json.loads((tmp_path / "masks/problems.json").read_text())
    assert problem["case"] == CASES[0]


def test_label_is_not_looked_at_in_inference(workflow, raw, masks, tmp_path):
    folder = tmp_path / "raw"
    shutil.copytree(raw, folder)
    for case in CASES:
        (folder / f"labelsTr/{case}.nii.gz").write_bytes(b"no mask")
    workflow("inference", studies=str(folder)).run()
    assert_same(read_masks(tmp_path / "masks"), masks)


# ---------------------------------------------------------------- uncertainty


@pytest.fixture(scope="module")
def spreads(raw, models) -> dict[str, np.ndarray]:
    """The standard deviation of the members' probabilities of each study on the PET's grid, written out."""
    parser = parser_of(ENSEMBLE, "inference", "demo")
    parser["ckpt_dir"], parser["patch_sizes"] = str(models), WINDOWS
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(models / "model.pt", weights_only=True))
    preprocessing = plain_preprocessing(parser)
    result = {}
    for case in CASES:
        files = [str(raw / f"imagesTr/{case}_{number}.nii.gz") for number in ("0000", "0001")]
        item = preprocessing({"case": case, "image": files})
        with torch.no_grad():
            _, stage2_input = network.with_coarse_mask(item["image"][None])
            members = torch.stack([member(stage2_input) for member in network.members.values()])
        item["spread"] = MetaTensor(members.as_tensor().std(dim=0, correction=0)[0])
        invert = monai.transforms.Invertd(keys="spread", transform=preprocessing, orig_keys="image_pet", nearest_interp=False)
        result[case] = invert(item)["spread"][0].numpy()
        assert result[case].max() > 0.01, "members that agree show nothing"
    return result


@pytest.mark.parametrize("options", [{}, {"uncertainty": "false"}], ids=["default", "false on the command line"])
def test_no_uncertainty_is_written_unless_it_is_asked_for(workflow, raw, tmp_path, options):
    workflow("inference", studies=str(raw), **options).run()
    assert not (tmp_path / "masks/uncertainty").exists()
    assert "uncertainty" not in (tmp_path / "masks/readouts.json").read_text()


def assert_uncertainty(results: Path, masks: dict[str, np.ndarray], spreads: dict[str, np.ndarray], raw: Path) -> None:
    """Maps on the PET's grid, and their mean in each lesion's read-out and in the report."""
    readouts = json.loads((results / "readouts.json").read_text())
    for case in CASES:
        image, pet = nib.load(results / f"uncertainty/{case}.nii.gz"), nib.load(raw / f"imagesTr/{case}_0001.nii.gz")
        np.testing.assert_array_equal(image.affine, pet.affine)
        np.testing.assert_allclose(image.get_fdata(), spreads[case], atol=0.00051)
        lesions = readouts[case]["lesions"]
        total = sum(lesion["uncertainty_mean"] * lesion["volume_ml"] for lesion in lesions)
        assert total / sum(lesion["volume_ml"] for lesion in lesions) == pytest.approx(
            spreads[case][masks[case] == 1].mean(), abs=0.00051
        )
        assert "Uncertainty" in (results / f"studies/{case}.html").read_text()


def test_uncertainty_is_the_standard_deviation_of_the_members_on_the_pets_grid(workflow, raw, masks, spreads, tmp_path):
    results = tmp_path / "masks"
    workflow("inference", studies=str(raw)).run()
    workflow("inference", studies=str(raw), uncertainty=True).run()
    assert_same(read_masks(results), masks)
    assert_uncertainty(results, masks, spreads, raw)
    stamps = [file.stat().st_mtime_ns for file in sorted(results.rglob("*.nii.gz"))]
    workflow("inference", studies=str(raw), uncertainty=True).run()
    assert [file.stat().st_mtime_ns for file in sorted(results.rglob("*.nii.gz"))] == stamps


def test_evaluation_gives_the_uncertainty_that_inference_gives(workflow, dataset, raw, masks, spreads, tmp_path):
    results = tmp_path / "results"
    workflow("inference", "evaluate", dataset_dir=str(dataset), output_dir=str(results), uncertainty="true").run()
    assert_uncertainty(results, masks, spreads, raw)


# ---------------------------------------------------------------- evaluation


def test_evaluation_scores_all_models_in_one_pass_on_the_original_grid(workflow, dataset, raw, masks, tmp_path, capsys):
    results = tmp_path / "results"
    with Records(results, "evaluation").making(
        Plan("of another split", {"pet": raw / f"imagesTr/{CASES[0]}_0001.nii.gz"}, {}, ["masks/UNet/of another split.nii.gz"])
    ):
        (results / "masks/UNet").mkdir(parents=True)
        (results / "masks/UNet/of another split.nii.gz").touch()
    evaluation = workflow("inference", "evaluate", dataset_dir=str(dataset), output_dir=str(results))
    evaluation.run()

    assert_same(read_masks(results / "masks/Ensemble"), masks)
    with open(results / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["model"]) for row in rows] == [(case, model) for case in CASES for model in MODELS]
    for row in rows:
        mask = np.asarray(nib.load(results / f"masks/{row['model']}/{row['case']}.nii.gz").dataobj)
        label = np.asarray(nib.load(raw / f"labelsTr/{row['case']}.nii.gz").dataobj)
        assert float(row["dice"]) == pytest.approx(2 * (mask & label).sum() / (mask.sum() + label.sum()))
        assert (row["tracer"], row["patient"]) == tuple(row["case"].split("_")[:2])
    means = {model: 100 * np.mean([float(row["dice"]) for row in rows if row["model"] == model]) for model in MODELS}
    table = "| Stage | Model | Dice |\n| --- | --- | --- |\n" + "\n".join(
        f"| {1 if model == 'DynUNet' else 2} | {model} | {means[model]:.2f} |" for model in MODELS
    )
    assert table in capsys.readouterr().out
    assert (results / "table1.md").read_text() == table + "\n"
    for name in ("dice", "fpv_ml", "fnv_ml"):
        mean = np.nanmean([float(row[name] or "nan") for row in rows if row["model"] == "Ensemble"])
        assert evaluation.evaluator.state.metrics[name] == pytest.approx(mean)
    assert sorted(file.name for file in (results / "pictures").iterdir()) == sorted(f"{case}.png" for case in CASES)


def test_evaluation_of_any_labelled_studies_gives_the_scores_of_a_prepared_data_set_and_names_what_cannot_be_used(
    workflow, dataset, raw, tmp_path
):
    workflow("inference", "evaluate", dataset_dir=str(dataset), output_dir=str(tmp_path / "a")).run()
    studies = tmp_path / "studies"
    shutil.copytree(raw, studies)
    workflow("inference", "evaluate", studies=str(studies), output_dir=str(tmp_path / "b")).run()
    scores = [list(csv.DictReader((tmp_path / f"{name}/scores.csv").open())) for name in "ab"]
    assert {row["case"] for row in scores[0]} == set(CASES)
    assert scores[1] == scores[0]
    (studies / f"labelsTr/{CASES[0]}.nii.gz").unlink()
    with pytest.raises(SystemExit) as end:
        workflow("inference", "evaluate", studies=str(studies), output_dir=str(tmp_path / "b")).run()
    assert end.value.code == 3
    assert {row["case"] for row in csv.DictReader((tmp_path / "b/scores.csv").open())} == set(CASES[1:])
    assert CASES[0] in (tmp_path / "b/problems.json").read_text()


def test_evaluation_warns_of_studies_that_were_in_the_training(workflow, models, raw, tmp_path, capsys):
    shutil.copytree(models, tmp_path / "models")
    file = tmp_path / "models/fingerprint.json"
    digest = hashlib.sha256((raw / f"imagesTr/{CASES[1]}_0001.nii.gz").read_bytes()).hexdigest()
    file.write_text(json.dumps({**json.loads(file.read_text()), "trained_on": [digest[:16]]}))
    workflow("inference", "evaluate", studies=str(raw), ckpt_dir=str(tmp_path / "models")).run()
    assert (
        f"warning: 1 of 2 studies were in the training of these weights, and their scores say nothing of new patients: {CASES[1]};"
        in (capsys.readouterr().out)
    )


def test_evaluation_says_why_a_study_has_no_masks(workflow, raw, tmp_path):
    studies = tmp_path / "studies"
    shutil.copytree(raw, studies)
    pet = studies / f"imagesTr/{CASES[0]}_0001.nii.gz"
    pet.write_bytes(pet.read_bytes()[:3000])
    with pytest.raises(SystemExit) as end:
        workflow("inference", "evaluate", studies=str(studies)).run()
    assert end.value.code == 3
    (problem,) = json.loads((tmp_path / "masks/problems.json").read_text())
    assert problem["case"] == CASES[0]
    assert "damaged or cut off" in problem["reason"]


def test_evaluation_names_a_label_on_another_grid_before_any_network_works(workflow, raw, tmp_path, capsys):
    studies = tmp_path / "studies"
    shutil.copytree(raw, studies)
    for case in CASES:
        rewrite(studies / f"labelsTr/{case}.nii.gz", np.zeros((3, 3, 3), np.uint8))
    evaluation = workflow("inference", "evaluate", studies=str(studies))
    evaluation.evaluator.inferer = lambda *_, **__: pytest.fail("a network works")
    with pytest.raises(SystemExit):
        evaluation.run()
    told = capsys.readouterr()
    for case in CASES:
        assert f"{case}.nii.gz has the size (3, 3, 3) and the PET" in told.out + told.err


def test_inference_and_evaluation_do_not_share_a_folder(workflow, dataset, raw, tmp_path):
    workflow("inference", studies=str(raw), uncertainty=True, output_dir=str(tmp_path / "out")).run()
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    with pytest.raises(SystemExit, match=r"out holds results of another kind \(inference, this is evaluation\)"):
        workflow("inference", "evaluate", dataset_dir=str(dataset), output_dir=str(tmp_path / "out")).run()
    assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()} == before


def test_a_pet_in_the_place_of_its_mask_is_never_replaced(workflow, raw, tmp_path):
    ct, pet = (
        shutil.copy(raw / f"imagesTr/{CASES[0]}_{number}.nii.gz", tmp_path / name)
        for number, name in (("0000", "CTres.nii.gz"), ("0001", "SUV.nii.gz"))
    )
    before = pet.read_bytes()
    with pytest.raises(SystemExit, match=r"SUV\.nii\.gz is no result of this program, and is not replaced"):
        workflow("inference", ct=str(ct), pet=str(pet), case="SUV", output_dir=str(tmp_path)).run()
    assert pet.read_bytes() == before
    workflow("inference", ct=str(ct), pet=str(pet), output_dir=str(tmp_path)).run()
    assert (tmp_path / f"{tmp_path.name}_SUV.nii.gz").is_file()
    assert pet.read_bytes() == before


def test_evaluation_refuses_a_data_list_that_leaves_its_raw_data_set_unless_allowed(workflow, dataset, raw, tmp_path):
    folder = tmp_path / "prepared"
    folder.mkdir()
    content = json.loads((dataset / "datalist.json").read_text()) | {"studies_dir": os.path.relpath(raw / "imagesTr", folder)}
    for item in content["validation"]:
        item["original"] = {role: os.path.relpath(raw / file, raw / "imagesTr") for role, file in item["original"].items()}
    (folder / "datalist.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=r"^error: .*which lies outside of .*imagesTr: prepare the data set again, or allow it"):
        workflow("inference", "evaluate", dataset_dir=str(folder), output_dir=str(tmp_path / "out")).run()
    workflow("inference", "evaluate", dataset_dir=str(folder), output_dir=str(tmp_path / "out"), allow_outside=True).run()
    assert (tmp_path / "out/table1.md").is_file()


def test_evaluation_does_not_write_outside_of_its_folder(workflow, dataset, raw, tmp_path):
    folder = tmp_path / "prepared"
    folder.mkdir()
    content = json.loads((dataset / "datalist.json").read_text()) | {"studies_dir": os.path.relpath(raw, folder)}
    content["validation"][0]["case"] = "../../outside"
    (folder / "datalist.json").write_text(json.dumps(content))
    other = tmp_path / "out/results/outside.nii.gz"
    other.parent.mkdir(parents=True)
    other.touch()
    with pytest.raises(SystemExit, match=r"\.\./\.\./outside: the name cannot be used for a file") as end:
        workflow("inference", "evaluate", dataset_dir=str(folder), output_dir=str(tmp_path / "out/results")).run()
    assert end.value.code == 3
    assert {file.name for file in tmp_path.iterdir()} == {"prepared", "out"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"results"}
    assert list(tmp_path.rglob("*outside*")) == [other]


def test_evaluation_without_a_prepared_data_set_is_one_sentence(workflow, tmp_path):
    with pytest.raises(
        SystemExit, match=r"datalist\.json is missing: prepare a data set with `python -m monai\.bundle run prepare"
    ):
        workflow("inference", "evaluate", dataset_dir=str(tmp_path)).run()


def test_stage_1_of_the_cascade_sees_what_the_prepared_data_set_holds(workflow, raw, tmp_path):
    prepare(raw, tmp_path / "prepared", spacing=FINGERPRINT["spacing"])
    chain = workflow("inference").preprocessing
    for case in CASES:
        item = chain({"image": [str(raw / f"imagesTr/{case}_{number}.nii.gz") for number in ("0000", "0001")]})
        prepared = nib.load(tmp_path / f"prepared/images/{case}.nii")
        np.testing.assert_allclose(item["image"].affine, prepared.affine, atol=1e-4)
        for channel, key in enumerate(("ct", "pet")):
            numbers = FINGERPRINT[key]
            values = np.asarray(prepared.dataobj)[..., channel]
            values = values.clip(numbers["percentile_00_5"], numbers["percentile_99_5"])
            expected = (values - numbers["mean"]) / numbers["std"]
            np.testing.assert_allclose(item["image"][channel], expected, atol=1e-4)


# ---------------------------------------------------------------- as commands


def test_commands_assemble_and_infer_with_the_exit_code_of_success(raw, tmp_path):
    for model, bundle in BUNDLE_OF.items():
        folder = tmp_path / "models" / bundle
        folder.mkdir(parents=True)
        torch.manual_seed(len(model))
        torch.save(parser_of(bundle, "inference", "demo").get_parsed_content("network_def").state_dict(), folder / "model.pt")
        (folder / "fingerprint.json").write_text(json.dumps(FINGERPRINT))

    def run(run_id: str, *configs: str, **overrides) -> subprocess.CompletedProcess:
        files = str([f"configs/{name}.json" for name in (*configs, "demo")])
        command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", run_id, "--config_file", files]
        command += [text for name, value in overrides.items() for text in (f"--{name}", str(value))]
        return run_python(command, BUNDLES / ENSEMBLE)

    weights = tmp_path / "weights"
    done = run("assemble", "inference", "assemble", models_dir=tmp_path / "models", ckpt_dir=weights)
    assert done.returncode == 0, done.stderr[-3000:]
    pet = raw / f"imagesTr/{CASES[0]}_0001.nii.gz"
    pair = {"ct": str(pet).replace("_0001", "_0000"), "pet": pet}
    done = run("inferring", "inference", **pair, ckpt_dir=weights, output_dir=tmp_path / "masks")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / f"masks/{CASES[0]}.nii.gz").is_file()
    done = run("inferring", "inference", dataset_dir=raw, ckpt_dir=weights, output_dir=tmp_path / "refused")
    assert done.returncode == 1
    assert re.search(r"^error: --dataset_dir is not known any more: give --studies$", done.stderr, flags=re.MULTILINE)
    assert not (tmp_path / "refused").exists()
    shutil.rmtree(tmp_path / "models" / STAGE1)
    done = run("assemble", "inference", "assemble", models_dir=tmp_path / "models", ckpt_dir=weights)
    assert done.returncode == 1
    assert re.search(r"^error: .*fingerprint\.json is missing: train its network with", done.stderr, flags=re.MULTILINE)
    assert "Traceback" not in done.stderr
