"""Promises of what weights remember of the studies that they were trained with: by content, and never by name."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from dicom_writer import Person, Variant, small_study, write_tcia
from helpers import BUNDLES, NAMES, STAGE1, make_cascade, networks_of, of_weights, parser_of, write_study
from monai.bundle import ConfigWorkflow

from petct_cascade import commands
from petct_cascade.assemble import assemble
from petct_cascade.preparation import PrepareOptions
from petct_cascade.prepare import prepare
from petct_training.data import read_items
from petct_training.folds import held_out
from petct_training.seen import seen_by, studies_of_training, warn_of_seen

WARNING = (
    "warning: {} of {} studies were in the training of these weights, and their scores say nothing of new patients: {}; leave"
)


@pytest.fixture
def raw(tmp_path) -> Path:
    """A raw data set of five patients, of whom one is for validation."""
    for number in range(5):
        write_study(tmp_path / "raw", f"fdg_secret{number}_day", seed=number)
    return tmp_path / "raw"


@pytest.fixture
def data(raw, tmp_path) -> Path:
    prepare(raw, tmp_path / "data")
    return tmp_path / "data"


def cases(data: Path, split: str) -> list[str]:
    return [item["case"] for item in json.loads((data / "datalist.json").read_text())[split]]


def digests(raw: Path, names: list[str]) -> set[str]:
    """The beginnings of digests of PET, as any other program computes them."""
    return {hashlib.sha256((raw / f"imagesTr/{case}_0001.nii.gz").read_bytes()).hexdigest()[:16] for case in names}


def remembering_fingerprint(data: Path, folder: Path, split: str = "training") -> Path:
    """A fingerprint as it lies beside weights that were trained with a split."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.loads((data / "fingerprint.json").read_text())
    known = studies_of_training(read_items(data / "datalist.json", [split], data), data)
    (folder / "fingerprint.json").write_text(json.dumps({**content, "trained_on": known}))
    return folder / "fingerprint.json"


def evaluate(fingerprint: Path, output: Path, **options):
    """Select the studies of an evaluation, note them as it does when each is read, and warn of them."""
    options = {"dataset_dir": "nowhere", "folders": [output / "masks"], "settings": {}, "weights": [fingerprint], **options}
    selection = commands.select_labelled(fingerprint_file=fingerprint, output_dir=output, **options)
    for item in selection.items:
        selection.masks.records.begin(selection.masks.plan(item))
    warn_of_seen([item for item in selection.items if "fold" not in item], output, fingerprint)
    return selection


def run(*configs: str, **options) -> None:
    """Run stage 1's configs in the demo profile, in its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(BUNDLES / STAGE1)
        workflow = ConfigWorkflow(
            config_file=[f"configs/{name}.json" for name in (*configs, "demo")],
            meta_file=None,
            logging_file=False,
            workflow_type="train",
            **{name: str(value) if isinstance(value, Path) else value for name, value in options.items()},
        )
        workflow.initialize()
        workflow.run()


def test_a_training_leaves_digests_of_its_pet_beside_the_weights_and_scoring_them_is_warned_of(raw, data, tmp_path, capsys):
    options = {"dataset_dir": data, "ckpt_dir": tmp_path / "models", "output_dir": tmp_path / "logs", "max_epochs": 1}
    run("train", **options)
    fingerprint = tmp_path / "models/fingerprint.json"
    content = json.loads(fingerprint.read_text())
    expected = of_weights(json.loads((data / "fingerprint.json").read_text()), tmp_path / "models/model.pt")
    assert content == {**expected, "trained_on": content["trained_on"]}
    assert content["trained_on"] == sorted(digests(raw, cases(data, "training")))
    assert "secret" not in fingerprint.read_text()
    run("train", "evaluate", **options)
    assert "were in the training" not in capsys.readouterr().out
    run("train", "evaluate", **options, **{"validate::items::splits": ["training"]})
    assert WARNING.format(4, 4, ", ".join(cases(data, "training"))) in capsys.readouterr().out


def test_evaluating_the_studies_of_the_training_is_warned_of_whatever_they_are_called(raw, data, tmp_path, capsys):
    fingerprint = remembering_fingerprint(data, tmp_path / "models")
    evaluate(fingerprint, tmp_path / "a", studies=raw)
    assert WARNING.format(4, 5, ", ".join(cases(data, "training"))) in capsys.readouterr().out
    first = cases(data, "training")[0]
    renamed = tmp_path / "renamed"
    for file in sorted(raw.rglob("*.nii.gz")):
        (renamed / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, renamed / file.relative_to(raw).as_posix().replace(first, "psma_other_day"))
    evaluate(fingerprint, tmp_path / "b", studies=renamed)
    assert WARNING.format(4, 5, ", ".join([*cases(data, "training")[1:], "psma_other_day"])) in capsys.readouterr().out


def test_studies_without_names_are_warned_of_without_names(raw, data, tmp_path, capsys):
    evaluate(remembering_fingerprint(data, tmp_path / "models"), tmp_path / "a", studies=raw, deidentified=True)
    said = capsys.readouterr().out
    assert "warning: 4 of 5 studies were in the training of these weights" in said
    assert "secret" not in said


def test_studies_that_monai_label_puts_in_the_place_of_the_data_sets_are_not_taken_for_these(data):
    parser = parser_of(STAGE1, "train", "demo")
    parser["dataset_dir"] = str(data)
    assert len(parser.get_parsed_content("validate::best").trained_on) == 4
    parser = parser_of(STAGE1, "train", "demo")
    parser["dataset_dir"] = str(data)
    parser["train::dataset::data"] = [{"image": "image.nii", "label": "label.nii"}]
    assert parser.get_parsed_content("validate::best").trained_on == []


def test_other_studies_of_the_same_names_are_not_warned_of(raw, data, tmp_path, capsys):
    fingerprint = remembering_fingerprint(data, tmp_path / "models")
    for number, case in enumerate(cases(data, "training")):
        write_study(tmp_path / "other", case, seed=100 + number)
    evaluate(fingerprint, tmp_path / "a", studies=tmp_path / "other")
    assert "warning" not in capsys.readouterr().out


def test_the_validation_of_a_data_set_is_warned_of_only_where_the_weights_have_seen_it(raw, data, tmp_path, capsys):
    evaluate(remembering_fingerprint(data, tmp_path / "models"), tmp_path / "a", dataset_dir=data)
    assert "warning" not in capsys.readouterr().out
    seen = remembering_fingerprint(data, tmp_path / "of_validation", "validation")
    evaluate(seen, tmp_path / "b", dataset_dir=data)
    assert WARNING.format(1, 1, cases(data, "validation")[0]) in capsys.readouterr().out


def test_studies_of_a_fold_are_answered_by_those_that_have_not_seen_them(raw, tmp_path, capsys):
    data = tmp_path / "data"
    prepare(raw, data, PrepareOptions(folds=2))
    fingerprint = remembering_fingerprint(data, tmp_path / "models")
    content = json.loads(fingerprint.read_text())
    fingerprint.write_text(
        json.dumps({**content, "held_out": {"stage1": [held_out(data / "datalist.json", fold) for fold in range(2)]}})
    )
    assert len(evaluate(fingerprint, tmp_path / "a", dataset_dir=data).items) == 5
    assert "warning" not in capsys.readouterr().out
    evaluate(fingerprint, tmp_path / "b", studies=raw)
    assert "or evaluate the prepared data set, of which each fold answers" in capsys.readouterr().out


def test_weights_of_an_earlier_version_remember_nothing_and_are_not_warned_of(raw, data, tmp_path, capsys):
    evaluate(data / "fingerprint.json", tmp_path / "a", studies=raw)
    warn_of_seen(read_items(data / "datalist.json", ["training"], data), data, data / "fingerprint.json")
    assert capsys.readouterr().out == ""
    assert seen_by(tmp_path / "nothing.json") == set()


def test_the_cascade_remembers_what_any_of_its_networks_has_seen(data, tmp_path):
    networks, folders, splits = networks_of(make_cascade()), {}, dict(zip(NAMES, ("training", "validation", "none"), strict=True))
    for name, split in splits.items():
        folders[name] = tmp_path / name
        folders[name].mkdir()
        torch.save(networks[name].state_dict(), folders[name] / "model.pt")
        shutil.copyfile(data / "fingerprint.json", folders[name] / "fingerprint.json")
        if split != "none":
            remembering_fingerprint(data, folders[name], split)
    assemble(make_cascade(), folders, tmp_path / "out")
    raw = tmp_path / "raw"
    content = json.loads((tmp_path / "out/fingerprint.json").read_text())
    assert content["trained_on"] == sorted(digests(raw, [*cases(data, "training"), *cases(data, "validation")]))


def test_a_study_in_dicom_is_known_as_its_series_and_as_its_copy_in_nifti(tmp_path, capsys):
    for number in range(3):
        person = Person(identifier=f"PETCT_{number:04x}")
        write_tcia(
            tmp_path / "dicom",
            small_study(seed=number),
            replace(Variant(), person=person, study_key=str(number)),
            "FDG-PET-CT-Lesions",
        )
    data = tmp_path / "data"
    prepare(tmp_path / "dicom", data, PrepareOptions(validation_fraction=0.3))
    fingerprint = remembering_fingerprint(data, tmp_path / "models")
    evaluate(fingerprint, tmp_path / "a", studies=tmp_path / "dicom")
    assert "warning: 2 of 3 studies were in the training" in capsys.readouterr().out
    commands.convert(tmp_path / "dicom", tmp_path / "nifti")
    evaluate(fingerprint, tmp_path / "b", studies=tmp_path / "nifti")
    assert "warning: 2 of 3 studies were in the training" in capsys.readouterr().out
