"""Promises of folds: no study is predicted by a network that was trained with it, whatever is typed, moved or prepared anew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers import BUNDLES, NAMES, STAGE1, STAGE2, make_cascade, of_weights, write_prepared
from monai.bundle import ConfigWorkflow

from petct_cascade.assemble import assemble, folds_in, networks_of, source_folders
from petct_cascade.cascade import Cascade, PrepareCoarseMask
from petct_cascade.items import unseen_items
from petct_training.data import read_items
from petct_training.errors import InputError
from petct_training.folds import check_coarse_masks, check_unseen, held_out, remembering
from petct_training.masks import masks_in

SEGRESNET = STAGE2[0]


def divide(folder: Path, folds: list[int]) -> Path:
    """Divide a prepared data set into folds, as `prepare --folds` does: the fold of each study, in the order of the list."""
    file = folder / "datalist.json"
    content = json.loads(file.read_text())
    entries = sorted([*content["training"], *content["validation"]], key=lambda entry: entry["case"])
    content["training"] = [{**entry, "fold": fold} for entry, fold in zip(entries, folds, strict=True)]
    file.write_text(json.dumps({**content, "validation": []}))
    return folder


@pytest.fixture
def divided(tmp_path) -> Path:
    return divide(write_prepared(tmp_path / "data"), [0, 1, 2, 0, 1, 2])


def cases(folder: Path, split: str, fold: int | None) -> set[str]:
    return {item["case"] for item in read_items(folder / "datalist.json", [split], folder, fold=fold)}


def test_a_fold_holds_its_studies_out_and_trains_with_all_others(divided):
    everything = {item["case"] for item in json.loads((divided / "datalist.json").read_text())["training"]}
    for fold in range(3):
        training, validation = (cases(divided, split, fold) for split in ("training", "validation"))
        assert len(validation) == 2
        assert training == everything - validation
    assert set.union(*(cases(divided, "validation", fold) for fold in range(3))) == everything


def test_folds_are_told_apart_by_the_studies_that_they_hold_out(divided, tmp_path):
    datalist = divided / "datalist.json"
    before = [held_out(datalist, fold) for fold in range(3)]
    assert [(known["fold"], known["folds"]) for known in before] == [(0, 3), (1, 3), (2, 3)]
    other = divide(write_prepared(tmp_path / "other"), [0, 1, 2, 0, 2, 1])
    after = [held_out(other / "datalist.json", fold) for fold in range(3)]
    assert [left == right for left, right in zip(before, after, strict=True)] == [True, False, False]


@pytest.mark.parametrize(("fold", "said"), [(None, "no fold is named"), (3, "fold is 3")])
def test_a_data_set_with_folds_wants_one_of_them(divided, fold, said):
    with pytest.raises(InputError, match=rf"has 3 folds, and {said}: give --fold, a number from 0 to 2"):
        held_out(divided / "datalist.json", fold)


def test_a_data_set_without_folds_wants_none(prepared):
    assert held_out(prepared / "datalist.json") is None
    with pytest.raises(InputError, match="has no folds, and fold is 0: prepare the data set with --folds"):
        held_out(prepared / "datalist.json", 0)


def weights_of(folder: Path, divided: Path, fold: int | None) -> Path:
    """A fingerprint as a training with a fold leaves it beside its weights."""
    known = None if fold is None else held_out(divided / "datalist.json", fold)
    (folder / "fingerprint.json").write_text(json.dumps(remembering({"spacing": [1, 1, 1]}, known)))
    return folder / "fingerprint.json"


def test_weights_predict_the_studies_of_their_own_fold_alone(divided, tmp_path):
    datalist = divided / "datalist.json"
    items = read_items(datalist, ["validation"], divided, fold=1)
    check_unseen(items, datalist, 1, weights_of(tmp_path, divided, 1))
    for trained, said in ((0, "with fold 0 of 3"), (None, "without folds")):
        with pytest.raises(InputError, match=rf"were trained {said}.*may have seen studies of fold 1"):
            check_unseen(items, datalist, 1, weights_of(tmp_path, divided, trained))
    seen = read_items(datalist, ["training"], divided, fold=1)
    with pytest.raises(InputError, match="is not held out by fold 1, whose weights have seen it"):
        check_unseen(seen, datalist, 1, weights_of(tmp_path, divided, 1))


def test_weights_of_an_earlier_division_predict_nothing_of_a_later_one(divided, tmp_path):
    file = weights_of(tmp_path, divided, 1)
    divide(divided, [1, 1, 0, 0, 2, 2])
    with pytest.raises(InputError, match="or with other studies in it"):
        check_unseen(read_items(divided / "datalist.json", ["validation"], divided, fold=1), divided / "datalist.json", 1, file)


def write_coarse_masks(divided: Path, fold: int | None, items: list) -> None:
    """Record that stage 1 has made the masks of some studies with weights of a fold."""
    known = None if fold is None else held_out(divided / "datalist.json", fold)
    masks = masks_in(divided / "coarse_masks", "masks of DynUNet", {"overlap": 0.5}, held_out=known)
    for item in items:
        file = divided / f"coarse_masks/{item['case']}.nii.gz"
        content = file.read_bytes()
        file.unlink()
        with masks.records.making(masks.plan(item)):
            file.write_bytes(content)


def test_stage_2_takes_coarse_masks_only_from_the_fold_that_held_the_study_out(divided):
    datalist, folder = divided / "datalist.json", divided / "coarse_masks"
    everything = read_items(datalist, ["training", "validation"], divided, fold=0)
    with pytest.raises(InputError, match="may come from a stage 1 that has seen the study"):
        check_coarse_masks(everything, datalist, folder)
    for fold in range(3):
        write_coarse_masks(divided, fold, read_items(datalist, ["validation"], divided, fold=fold))
    check_coarse_masks(everything, datalist, folder)
    # As another seed would.
    divide(divided, [0, 2, 1, 0, 2, 1])
    with pytest.raises(InputError, match=r"make it with --fold [12] in autopet_stage1_dynunet"):
        check_coarse_masks(read_items(datalist, ["training"], divided, fold=0), datalist, folder)


def test_coarse_masks_of_a_network_that_was_trained_without_folds_are_refused_once_there_are_folds(divided):
    datalist = divided / "datalist.json"
    everything = read_items(datalist, ["training", "validation"], divided, fold=0)
    write_coarse_masks(divided, None, everything)
    with pytest.raises(InputError, match="may come from a stage 1 that has seen the study"):
        check_coarse_masks(everything, datalist, divided / "coarse_masks")


def run(bundle: str, *configs: str, **options) -> None:
    """Run a bundle's configs in the demo profile, in its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(BUNDLES / bundle)
        workflow = ConfigWorkflow(
            config_file=[f"configs/{name}.json" for name in (*configs, "demo")],
            meta_file=None,
            logging_file=False,
            workflow_type="train" if "train" in configs else "infer",
            **{name: str(value) if isinstance(value, Path) else value for name, value in options.items()},
        )
        workflow.initialize()
        workflow.run()


def test_both_stages_train_and_predict_fold_by_fold_and_refuse_what_has_been_seen(divided, tmp_path):
    datalist, fingerprint = divided / "datalist.json", json.loads((divided / "fingerprint.json").read_text())
    shutil.rmtree(divided / "coarse_masks")
    models = [tmp_path / f"fold_{fold}" for fold in range(3)]
    training = {"dataset_dir": divided, "output_dir": tmp_path / "logs", "max_epochs": 1}
    run(STAGE1, "train", ckpt_dir=models[0], fold=0, **training)
    expected = of_weights(remembering(fingerprint, held_out(datalist, 0)), models[0] / "model.pt")
    assert json.loads((models[0] / "fingerprint.json").read_text()) == expected
    for fold in (1, 2):
        # Which numbers the weights of the other folds hold is nothing to this test.
        shutil.copytree(models[0], models[fold])
        (models[fold] / "fingerprint.json").write_text(json.dumps(remembering(fingerprint, held_out(datalist, fold))))
    with pytest.raises(SystemExit, match="may have seen studies of fold 1"):
        run(STAGE1, "inference", dataset_dir=divided, ckpt_dir=models[0], fold=1)
    with pytest.raises(SystemExit, match="may have seen studies of fold 1"):
        run(STAGE1, "train", "evaluate", ckpt_dir=models[0], fold=1, **training)
    made: set[str] = set()
    for fold in range(3):
        run(STAGE1, "inference", dataset_dir=divided, ckpt_dir=models[fold], fold=fold)
        there = {file.name.removesuffix(".nii.gz") for file in (divided / "coarse_masks").glob("*.nii.gz")}
        assert there - made == cases(divided, "validation", fold)
        made = there
    run(SEGRESNET, "train", ckpt_dir=tmp_path / "stage2", fold=0, **training)
    run(SEGRESNET, "train", "evaluate", ckpt_dir=tmp_path / "stage2", fold=0, **training)
    divide(divided, [2, 1, 0, 0, 1, 2])
    with pytest.raises(SystemExit, match=r"the coarse mask of .* may come from a stage 1 that has seen the study"):
        run(SEGRESNET, "train", ckpt_dir=tmp_path / "stage2", fold=0, **training)


# ---------------------------------------------------------------- the cascade: one network a fold


def folded(**folds_of: int) -> Cascade:
    """The small cascade, some of whose networks there are once a fold."""
    small = make_cascade()
    return Cascade(small.stage1, dict(small.members), folds_of=folds_of)


@pytest.fixture
def sources(divided, tmp_path) -> dict[str, Path]:
    """Folders of weights, each other ones: stage 1 of three folds, the members of fold 0."""
    fingerprint = json.loads((divided / "fingerprint.json").read_text())
    result = {}
    for name, network in networks_of(folded(stage1=3)).items():
        for parameter in network.parameters():
            parameter.data.normal_(std=0.2)
        result[name] = tmp_path / name
        result[name].mkdir()
        torch.save(network.state_dict(), result[name] / "model.pt")
        fold = int(name.rpartition(" ")[2]) if "fold" in name else 0
        known = remembering(fingerprint, held_out(divided / "datalist.json", fold))
        (result[name] / "fingerprint.json").write_text(json.dumps(known))
    return result


def test_without_folds_the_cascade_has_the_very_tensors_that_it_had():
    assert list(folded().state_dict()) == list(make_cascade().state_dict())
    assert list(networks_of(folded())) == list(NAMES)


def test_stage_1_is_the_mean_of_its_folds_or_the_one_that_has_not_seen_the_study(sources, tmp_path):
    cascade = folded(stage1=3).eval()
    assemble(cascade, sources, tmp_path / "out")
    cascade.load_state_dict(torch.load(tmp_path / "out/model.pt", weights_only=True))
    torch.manual_seed(0)
    image = torch.randn(1, 2, 24, 16, 16)
    alone = []
    with torch.no_grad():
        for fold in range(3):
            single = make_cascade().eval().stage1
            single.network.load_state_dict(torch.load(sources[f"stage1 of fold {fold}"] / "model.pt", weights_only=True))
            alone.append(single(image))
            item = {"image": image, "fold": torch.tensor([fold])}
            PrepareCoarseMask(cascade, "stage1")(item)
            torch.testing.assert_close(item["stage1"], alone[fold], rtol=0, atol=0)
        assert not torch.equal(alone[0], alone[1])
        item = {"image": image}
        PrepareCoarseMask(cascade, "stage1")(item)
        torch.testing.assert_close(item["stage1"], sum(alone) / 3)
        expected = torch.cat([image, (item["stage1"] >= 0.5).float()], dim=1)
        torch.testing.assert_close(cascade(image), sum(member(expected) for member in cascade.members.values()) / 2)


def test_the_assembled_weights_say_of_how_many_folds_they_are(sources, tmp_path):
    assemble(folded(stage1=3), sources, tmp_path / "out")
    assert folds_in(tmp_path / "out/fingerprint.json") == {"stage1": 3}
    assert folds_in(tmp_path / "none.json") == folds_in(BUNDLES / STAGE1 / "models/fingerprint.json") == {}


def test_weights_of_one_fold_are_not_taken_for_those_of_another(sources, divided, tmp_path):
    (sources["stage1 of fold 1"] / "fingerprint.json").write_bytes(
        (sources["stage1 of fold 2"] / "fingerprint.json").read_bytes()
    )
    with pytest.raises(InputError, match="does not hold weights that were trained with fold 1"):
        assemble(folded(stage1=3), sources, tmp_path / "out")
    weights_of(sources["UNet"], divided, None)
    with pytest.raises(InputError, match="differs from"):
        assemble(folded(stage1=3), sources, tmp_path / "out")


def test_networks_with_and_without_folds_are_not_mixed(sources, divided, tmp_path):
    (sources["UNet"] / "fingerprint.json").write_bytes((divided / "fingerprint.json").read_bytes())
    with pytest.raises(InputError, match="UNet was trained without a fold, and stage1 with one"):
        assemble(folded(stage1=3), sources, tmp_path / "out")


def test_folders_of_folds_are_named_by_them():
    folders = source_folders({"stage1": "a", "UNet": "b"}, ".", "WORK", {"stage1": 2})
    assert folders == {"stage1 of fold 0": "WORK/a/fold_0", "stage1 of fold 1": "WORK/a/fold_1", "UNet": "WORK/b"}
    with pytest.raises(InputError, match="folds_of names 'stage2' with 3 folds: name stage1, UNet"):
        source_folders({"stage1": "a", "UNet": "b"}, ".", "WORK", {"stage2": 3})


def test_evaluation_takes_the_studies_that_no_network_has_seen(sources, divided, tmp_path):
    assemble(folded(stage1=3), sources, tmp_path / "out")
    fingerprint = tmp_path / "out/fingerprint.json"
    items = unseen_items(divided, fingerprint)
    # The members were trained with fold 0 alone.
    assert {item["case"] for item in items} == cases(divided, "validation", 0)
    assert {item["fold"] for item in items} == {0}
    content = json.loads(fingerprint.read_text())
    content["held_out"] = dict.fromkeys(content["held_out"], content["held_out"]["stage1"])
    fingerprint.write_text(json.dumps(content))
    assert len(unseen_items(divided, fingerprint)) == 6
    divide(divided, [1, 2, 0, 2, 0, 1])
    with pytest.raises(InputError, match=r"were not trained with the folds of .* may have seen any of its studies"):
        unseen_items(divided, fingerprint)
