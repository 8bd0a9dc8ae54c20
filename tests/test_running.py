"""Promises of running an evaluator over studies: one that fails costs no other."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers import las
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer

from petct_cascade.cascade import SlidingWindow
from petct_cascade.running import run_each_study
from petct_cascade.writing import SaveMasksd
from petct_training.errors import InputError

CASES = ["a", "b", "c", "d"]


class Fails:
    """A transform that makes a tensor of each item, and raises for those that it is told."""

    def __init__(self, failing: dict[str, Exception]) -> None:
        self.failing, self.done = failing, []

    def __call__(self, item: dict) -> dict:
        if error := self.failing.get(item["case"]):
            raise error
        self.done.append(item["case"])
        image = MetaTensor(torch.ones(1, 3, 4, 5), affine=torch.from_numpy(las((1, 1, 1))))
        image.meta["filename_or_obj"] = f"{item['case']}.nii.gz"
        return item | {"image": image, "label": 0}


def evaluator_of(transform, postprocessing=None, network=None) -> SupervisedEvaluator:
    loader = DataLoader(Dataset([{"case": case} for case in CASES], transform), batch_size=1, num_workers=0)
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=loader,
        network=network or torch.nn.Identity(),
        inferer=SimpleInferer(),
        postprocessing=postprocessing,
    )


@pytest.mark.parametrize("failing", [[], ["a"], ["d"], ["b", "c"], CASES], ids=lambda cases: "-".join(cases) or "none")
def test_studies_that_fail_are_named_and_all_others_are_done(failing):
    transform = Fails(dict.fromkeys(failing, InputError("the PET is empty: copy it again")))
    problems = run_each_study(evaluator_of(transform))
    assert [str(problem) for problem in problems] == [f"study {case}: the PET is empty: copy it again" for case in failing]
    assert all(problem.error for problem in problems)
    assert transform.done == [case for case in CASES if case not in failing]


def test_study_to_which_a_network_answers_nan_is_an_error_and_all_others_are_done():
    transform, thresholded = Fails({}), []
    network = SlidingWindow(torch.nn.Identity(), (3, 4, 5))

    def spoilt(item: dict) -> dict:
        item = transform(item)
        item["image"][0, 1, 2, 3] = torch.nan if item["case"] == "b" else 1
        return item

    evaluator = evaluator_of(spoilt, lambda item: thresholded.append(item["case"]) or item, network)
    problems = [str(problem) for problem in run_each_study(evaluator)]
    assert len(problems) == 1
    assert problems[0].startswith("study b: Identity answers with what is no number (NaN): pass --amp false")
    assert thresholded == ["a", "c", "d"]


def test_study_is_named_once_in_a_sentence_that_names_it_itself():
    (problem,) = run_each_study(evaluator_of(Fails({"b": InputError("study b: ct.nii is empty: copy it again")})))
    assert str(problem) == "study b: ct.nii is empty: copy it again"


def test_error_that_nobody_has_foreseen_is_a_sentence_with_its_cause():
    (problem,) = run_each_study(evaluator_of(Fails({"c": ZeroDivisionError("nobody knows why")})))
    assert problem.sentence == "it could not be segmented (nobody knows why): run it alone to see whether that happens again"


def test_strict_run_ends_at_the_first_study_that_fails():
    transform = Fails({"b": InputError("is wrong")})
    with pytest.raises(InputError, match=r"^study b: is wrong$"):
        run_each_study(evaluator_of(transform), strict=True)
    assert transform.done == ["a"]


def test_interruption_is_not_taken_for_the_fault_of_a_study():
    with pytest.raises(KeyboardInterrupt):
        run_each_study(evaluator_of(Fails({"b": KeyboardInterrupt()})))


def test_mask_that_cannot_be_written_is_an_error_of_its_study(tmp_path, monkeypatch):
    original = nib.save

    def save(image, file):
        if str(file).endswith("c.nii.gz"):
            raise OSError(28, "No space left on device")
        original(image, file)

    monkeypatch.setattr(nib, "save", save)
    (problem,) = run_each_study(evaluator_of(Fails({}), SaveMasksd({"pred": tmp_path})))
    assert problem.case == "c"
    assert "cannot be written (No space left on device)" in problem.sentence
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.nii.gz", "b.nii.gz", "d.nii.gz"]
    assert np.asarray(nib.load(tmp_path / "d.nii.gz").dataobj).sum() == 60
