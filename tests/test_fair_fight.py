"""What benchmarks/fair_fight.py promises: the same processor time for each, and a table of paired differences to nnU-Net."""

from __future__ import annotations

import sys

import fair_fight
import laboratory
import nibabel as nib
import numpy as np
import pytest
from helpers import las, write_nifti, write_study
from nibabel.affines import apply_affine

from petct_cascade.studies import find_studies
from petct_training.files import read_json, write_json

NAMES = (laboratory.PAPER, fair_fight.NNUNET, fair_fight.ALONE)
SECONDS_OF_VARIANTS = {"folds": 900.0, "longer without SwinUNETR": 1500.0}


def rows_of(model: str, *dice: float, case: str = "case") -> list[dict[str, str]]:
    return [
        {"case": f"{case}_{number}", "model": model, "dice": str(value), "fpv_ml": "1", "fnv_ml": "2", "f1": ""}
        for number, value in enumerate(dice)
    ]


def result(*models: list[dict[str, str]]) -> dict:
    return {"rows": [row for model in models for row in model], "cpu_seconds": 600.0, "settings": {}}


def test_stage_1_alone_gets_as_many_epochs_as_the_time_holds(monkeypatch, tmp_path):
    # A training takes 10 s to start and 3 s an epoch.
    clock, places = [0.0], []

    def run(bundle, run_id, configs, options):
        places.append((options["ckpt_dir"], options["steps_per_epoch"]))
        clock[0] += 10 + 3 * options["max_epochs"]

    monkeypatch.setattr(fair_fight.common, "run_bundle", run)
    monkeypatch.setattr(laboratory, "cpu_seconds", lambda: clock[0])
    epochs = fair_fight.stage1_epochs(tmp_path / "work", 310, tmp_path, {"steps_per_epoch": 5})
    assert epochs == 100
    assert len(set(places)) == 2
    assert {steps for _, steps in places} == {5}


def test_tables_have_each_competitors_difference_to_nnunet_and_to_the_papers_stages(capsys):
    paper = result(rows_of("DynUNet", 0.5, 0.3), rows_of("Ensemble", 0.7, 0.5))
    alone = result(rows_of("DynUNet", 0.4, 0.2), rows_of("Ensemble", 0, 0))
    other = result(rows_of("Prediction", 0.6, 0.4))
    fair_fight.print_results(fair_fight.together([[dict(zip(NAMES, (paper, other, alone), strict=True))]]))
    means, against, to_ensemble, to_stage1 = capsys.readouterr().out.split("Paired difference")
    assert "| paper, Ensemble | 0.600 | 1.00 | 2.00 | nan | 10 |" in means
    assert "| stage 1 alone | 0.300 |" in means
    assert "| nnU-Net v2 | 0.500 |" in means
    assert "| paper, DynUNet | -0.100 (-0.100 to -0.100) |" in against
    assert "| paper, Ensemble | +0.100 (+0.100 to +0.100) |" in against
    assert "| stage 1 alone | -0.200 (-0.200 to -0.200) |" in against
    assert "| nnU-Net v2" not in against
    assert to_ensemble.startswith(" to paper, Ensemble,")
    assert "| stage 1 alone | -0.300 (-0.300 to -0.300) |" in to_ensemble
    assert to_stage1.startswith(" to paper, DynUNet,")
    assert "| paper, Ensemble | +0.200 (+0.200 to +0.200) |" in to_stage1


def test_means_and_differences_are_those_of_all_seeds_each_paired_with_the_same_seed(capsys):
    fights = [
        [
            {
                laboratory.PAPER: result(rows_of("DynUNet", dice), rows_of("Ensemble", dice + 0.1)) | {"cpu_seconds": seconds},
                fair_fight.NNUNET: result(rows_of("Prediction", dice)),
            }
        ]
        for dice, seconds in ((0.2, 600), (0.6, 1200))
    ]
    fair_fight.print_results(fair_fight.together(fights))
    means, against = capsys.readouterr().out.split("Paired difference to nnU-Net v2,")
    assert "| paper, Ensemble | 0.500 | 1.00 | 2.00 | nan | 15 |" in means
    assert "| paper, Ensemble | +0.100 (+0.100 to +0.100) |" in against


def test_each_study_is_tested_once_and_no_patient_is_in_training_and_test(tmp_path):
    for name in ("fdg_a_1", "fdg_a_2", "fdg_b_1", "psma_c_1", "psma_d_1", "psma_d_2"):
        write_study(tmp_path, name)
    studies, _ = find_studies(tmp_path, labels=True)
    folds = fair_fight.folds_of(studies, 3)
    assert sorted(study.case for _, test in folds for study in test) == sorted(study.case for study in studies)
    for train, test in folds:
        assert test
        assert len(train) + len(test) == len(studies)
        assert {study.patient for study in train}.isdisjoint(study.patient for study in test)


def test_competitors_read_the_ct_on_the_grid_of_the_pet(tmp_path):
    ct, pet, label = write_study(tmp_path / "raw", "fdg_a_1")
    fine = las((1.5, 2, 2.5), (3, -4, -5))
    shape = (60, 50, 60)
    # What is linear in world coordinates is interpolated exactly.
    across = apply_affine(fine, np.indices(shape).reshape(3, -1).T)[:, 0].reshape(shape)
    write_nifti(ct, across.astype(np.float32), fine)
    folder = fair_fight.write_studies(find_studies(tmp_path / "raw", labels=True)[0], tmp_path / "out")
    image = nib.load(folder / "imagesTr/fdg_a_1_0000.nii.gz")
    expected = apply_affine(nib.load(pet).affine, np.indices(image.shape).reshape(3, -1).T)[:, 0].reshape(image.shape)
    inside = np.s_[1:-1, 1:-1, 1:-1]
    np.testing.assert_allclose(image.get_fdata()[inside], expected[inside], atol=1e-3)
    for name, file in {"imagesTr/fdg_a_1_0001": pet, "labelsTr/fdg_a_1": label}.items():
        written, given = nib.load(folder / f"{name}.nii.gz"), nib.load(file)
        np.testing.assert_array_equal(written.get_fdata(), given.get_fdata())
        np.testing.assert_array_equal(written.affine, given.affine)


def test_a_study_that_cannot_be_used_is_named_before_anything_is_trained(tmp_path):
    _, pet, _ = write_study(tmp_path / "raw", "fdg_a_1")
    pet.write_bytes(pet.read_bytes()[:200])
    with pytest.raises(SystemExit, match=f"nothing was trained.*\n.*study fdg_a_1: {pet.name} "):
        fair_fight.write_studies(find_studies(tmp_path / "raw", labels=True)[0], tmp_path / "out")
    assert not any((tmp_path / "out/labelsTr").iterdir())


@pytest.fixture
def fight(monkeypatch, tmp_path):
    """Let competitors fight that are not trained; return the seconds that each got, by name and studies of the test."""
    given: dict[tuple[str, str], float] = {}
    for name in ("train", "test"):
        write_study(tmp_path / name, "fdg_a_1")
    write_study(tmp_path / "test", "fdg_b_1")

    def cases_in(test):
        return " ".join(sorted(file.name.removesuffix(".nii.gz") for file in (test / "labelsTr").iterdir()))

    def ours(name, train, test, folder, seed, training, epochs=None):
        given[name, cases_in(test)] = epochs
        found = result(*(rows_of(model, dice, case=cases_in(test)) for model, dice in (("DynUNet", 0.5), ("Ensemble", 0.6))))
        if name != fair_fight.ALONE:
            found["settings"] = {**read_json(laboratory.VARIANTS)[name], **training, "profile": "demo"}
        return found | {"cpu_seconds": SECONDS_OF_VARIANTS.get(name, 600.0)}

    def nnunet(train, test, folder, seconds, gib, seed):
        given[fair_fight.LONGER if folder.name == "longer" else fair_fight.NNUNET, cases_in(test)] = seconds
        return result(rows_of("Prediction", 0.4, case=cases_in(test))) | {"cpu_seconds": seconds}

    monkeypatch.setattr(fair_fight, "train_ours", ours)
    monkeypatch.setattr(fair_fight, "fight_nnunet", nnunet)
    monkeypatch.setattr(fair_fight, "stage1_epochs", lambda work, seconds, folder, training: int(seconds))
    monkeypatch.setattr(fair_fight.nnunet, "is_installed", lambda: True)

    def run(**options: object) -> dict[tuple[str, str], float]:
        given.clear()
        words = [
            word
            for name, value in options.items()
            for word in (f"--{name.replace('_', '-')}", *([] if value is True else [str(value)]))
        ]
        monkeypatch.setattr(sys, "argv", ["fair_fight.py", *words, "--folder", str(tmp_path / "out")])
        fair_fight.main()
        return dict(given)

    return run


def test_all_get_the_time_that_the_papers_recipe_took_and_nothing_is_done_twice(fight, tmp_path):
    sets = {"train": tmp_path / "train", "test": tmp_path / "test"}
    tested = "fdg_a_1 fdg_b_1"
    assert fight(**sets) == {
        (laboratory.PAPER, tested): None,
        (fair_fight.NNUNET, tested): 600,
        (fair_fight.ALONE, tested): 600,
    }
    assert fight(**sets) == {}
    with pytest.raises(SystemExit, match="name another --folder"):
        fight(**sets, nnunet_gib=4)


def test_nnunet_competes_once_more_for_the_time_of_a_variant_that_took_longer(fight, tmp_path, capsys):
    given = fight(train=tmp_path / "train", test=tmp_path / "test", variants="folds")
    assert {name: time for (name, _), time in given.items() if name in (fair_fight.NNUNET, fair_fight.LONGER)} == {
        fair_fight.NNUNET: 600,
        fair_fight.LONGER: 900,
    }
    printed = capsys.readouterr().out
    assert "| nnU-Net v2, longer | 0.400 | 1.00 | 2.00 | nan | 15 |" in printed
    _, against_longer = printed.split("Paired difference to nnU-Net v2, longer, ")
    assert "| folds, Ensemble | +0.200 (+0.200 to +0.200) |" in against_longer.split("Paired difference")[0]


def test_nnunet_competes_again_where_a_variant_that_took_still_longer_was_added(fight, tmp_path, capsys):
    sets = {"train": tmp_path / "train", "test": tmp_path / "test"}
    longest = "longer without SwinUNETR"
    fight(**sets, variants="folds")
    given = fight(**sets, variants=longest)
    assert {name: time for (name, _), time in given.items() if name != longest} == {fair_fight.LONGER: 1500}
    assert "nnU-Net v2, longer had 900 s, a variant took 1500 s" in capsys.readouterr().out
    assert fight(**sets, variants="folds") == {}


def test_result_of_a_variant_that_has_other_options_now_is_refused(fight, tmp_path, monkeypatch):
    sets = {"train": tmp_path / "train", "test": tmp_path / "test"}
    fight(**sets, variants="folds", ours=True)
    variants = read_json(laboratory.VARIANTS)
    changed = tmp_path / "laboratory.json"
    write_json(changed, variants | {"folds": variants["folds"] | {"folds": 4}})
    monkeypatch.setattr(laboratory, "VARIANTS", changed)
    with pytest.raises(SystemExit, match=r"folds\.json is a result of .* delete it"):
        fight(**sets, variants="folds", ours=True)


def test_an_interrupted_competitor_begins_again_so_that_all_of_its_time_is_counted(monkeypatch, tmp_path):
    half_done = tmp_path / "work/paper/steps/train.json"
    half_done.parent.mkdir(parents=True)
    half_done.touch()
    monkeypatch.setattr(laboratory, "train", lambda variant, train, work, *_: None)
    monkeypatch.setattr(laboratory, "score", lambda *_: [])
    fair_fight.train_ours(laboratory.PAPER, tmp_path, tmp_path, tmp_path, 0, {})
    assert not half_done.exists()


def test_each_seed_is_fought_once_and_ours_alone_where_that_is_asked_for(fight, tmp_path, monkeypatch):
    seeds = []
    ours = fair_fight.train_ours
    monkeypatch.setattr(fair_fight, "train_ours", lambda *given: (seeds.append((given[0], given[4])), ours(*given))[1])
    sets = {"train": tmp_path / "train", "test": tmp_path / "test"}
    fight(**sets, ours=True)
    fight(**sets, seeds=2, ours=True)
    assert seeds == [(laboratory.PAPER, 0), (laboratory.PAPER, 1)]
    assert (fair_fight.NNUNET, "fdg_a_1 fdg_b_1") in fight(**sets, seeds=2)
    assert seeds[2:] == [(fair_fight.ALONE, 0), (fair_fight.ALONE, 1)]


def test_own_studies_are_fought_over_fold_by_fold_and_shown_in_one_table(fight, tmp_path, capsys):
    fought = fight(studies=tmp_path / "test", folds=2)
    assert {tested for _, tested in fought} == {"fdg_a_1", "fdg_b_1"}
    assert len(fought) == 6
    # Two folds of 600 s each.
    assert "| paper, Ensemble | 0.600 | 1.00 | 2.00 | nan | 20 |" in capsys.readouterr().out


def test_a_variant_of_inference_alone_takes_the_papers_networks_and_their_time(monkeypatch, tmp_path):
    weights = tmp_path / "work/paper/models/model.pt"
    weights.parent.mkdir(parents=True)
    weights.write_text("of the paper")
    write_json(tmp_path / "results/paper.json", {"cpu_seconds": 600})
    monkeypatch.setattr(laboratory, "train", lambda *_: None)
    monkeypatch.setattr(laboratory, "score", lambda tested, work, variant: (work / "models/model.pt").read_text())
    given = fair_fight.train_ours("without SwinUNETR", tmp_path, tmp_path, tmp_path, 0, {})
    assert given["rows"] == "of the paper"
    assert given["cpu_seconds"] >= 600
