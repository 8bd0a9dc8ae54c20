"""Promises to those who correct a mask by hand: their mask takes the place of stage 1's, on any grid, by every way."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import monai.transforms
import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from dicom_writer import Person, Variant, small_study, write_seg, write_study
from helpers import BUNDLES, ENSEMBLE, ROOT, WINDOWS, las, make_study, parser_of, run_petct, write_nifti
from monai.bundle import ConfigWorkflow
from nibabel.affines import apply_affine

import petct_cascade.challenge_container as container
import petct_cascade.predict
from petct_cascade.changes import changes
from petct_cascade.clicks import Clicks
from petct_cascade.coarse_mask import read_coarse_mask
from petct_cascade.metaimage import write_metaimage
from petct_cascade.monai_label import TakeRequestd
from petct_cascade.predict import load_cascade
from petct_cascade.selection import SelectOptions, select_items, select_studies
from petct_cascade.studies import study_of_places
from petct_cascade.volumes import read_volume
from petct_training.errors import InputError
from petct_training.masks import Masks
from petct_training.records import Records, digest_of, read_record

# Voxels of the network lie halfway between none of these, so that each has one nearest.
SHAPE, AFFINE = (24, 18, 22), las((4.1, 4.1, 5.3), (30, -20, 100))


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> dict[str, Path]:
    """The files of a study, and of a mask on its PET's grid that is no network's answer."""
    folder = tmp_path_factory.mktemp("study")
    ct, pet, label = make_study(SHAPE, seed=1)
    label[14:18, 9:12, 5:9] = 1
    arrays = {"ct": ct, "pet": pet, "mask": label}
    return {role: write_nifti(folder / f"{role}.nii.gz", array, AFFINE) for role, array in arrays.items()}


@pytest.fixture(scope="module")
def expected(study, whole_models) -> np.ndarray:
    """The answer to the mask by the method written out, with MONAI's own transforms for the mask."""
    parser = parser_of(ENSEMBLE, "inference", "demo")
    parser["ckpt_dir"], parser["patch_sizes"] = str(whole_models), WINDOWS
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(whole_models / "model.pt", weights_only=True))
    keys = ["image_ct", "image_pet", "coarse_mask"]
    before = monai.transforms.Compose(
        [
            monai.transforms.LoadImaged(keys, ensure_channel_first=True),
            monai.transforms.CropForegroundd(
                keys,
                "image_pet",
                select_fn=lambda pet: pet > parser["body_suv"],
                margin=parser["body_margin"],
                allow_smaller=True,
            ),
            monai.transforms.Orientationd(keys, axcodes="LAS", labels=None),
            monai.transforms.Spacingd(
                keys,
                parser.get_parsed_content("fingerprint")["spacing"],
                mode=["bilinear", "bilinear", "nearest"],
                padding_mode="border",
                # In single precision MONAI's places are off by what some CPUs let these networks blow up.
                dtype=torch.float64,
            ),
        ]
    )
    item = before(dict(zip(keys, map(str, study.values()), strict=True)))
    scaled = [item["image_ct"], item["image_pet"]]
    for number, (channel, role) in enumerate(zip(scaled, ("ct", "pet"), strict=True)):
        clip, normalised = (parser.get_parsed_content(f"{role}_{name}") for name in ("clip", "normalised"))
        scaled[number] = monai.transforms.ScaleIntensityRange(*clip, *normalised, clip=True)(channel)
    stacked = torch.cat([*scaled, item["coarse_mask"]])[None].float()
    with torch.no_grad():
        item["pred"] = sum(member(stacked)[0] for member in network.members.values()) / 3
    back = monai.transforms.Invertd("pred", before, orig_keys="image_pet", nearest_interp=False)(item)["pred"]
    answer = (back[0] >= 0.5).numpy().astype(np.uint8)
    assert 0.01 < answer.mean() < 0.9, "a mask that is empty or full shows nothing"
    return answer


@pytest.fixture
def infer(monkeypatch, whole_models, tmp_path):
    """Run the inference of the demo profile over what the options name, and return its masks by their cases."""
    monkeypatch.chdir(BUNDLES / ENSEMBLE)

    def run(**options) -> dict[str, np.ndarray]:
        workflow = ConfigWorkflow(
            config_file=[f"configs/{name}.json" for name in ("inference", "demo")],
            meta_file="configs/metadata.json",
            logging_file=False,
            workflow_type="infer",
            **{
                "ckpt_dir": str(whole_models),
                "output_dir": str(tmp_path / "masks"),
                "patch_sizes": WINDOWS,
                "viewer": False,
                **options,
            },
        )
        workflow.initialize()
        workflow.run()
        return {file.name: np.asarray(nib.load(file).dataobj) for file in (tmp_path / "masks").glob("*.nii.gz")}

    return run


@pytest.fixture(scope="module")
def predictor(whole_models):
    return load_cascade(whole_models, "demo", device="cpu", patch_sizes=WINDOWS)


def pair(study) -> dict[str, str]:
    return {role: str(study[role]) for role in ("ct", "pet")}


def arrays_of(study) -> list[np.ndarray]:
    return [
        array
        for role in ("ct", "pet")
        for image in [nib.load(study[role])]
        for array in (np.asarray(image.dataobj), image.affine)
    ]


# ---------------------------------------------------------------- a mask in place of stage 1's


def test_mask_takes_the_place_of_stage_1s_through_the_evaluator_and_the_one_network(study, expected, infer, predictor):
    (answer,) = infer(**pair(study), case="a", coarse_mask=str(study["mask"])).values()
    np.testing.assert_array_equal(answer, expected)
    mask = np.asarray(nib.load(study["mask"]).dataobj)
    np.testing.assert_array_equal(predictor.predict(*arrays_of(study), coarse_mask=mask), expected)
    assert (predictor.predict(*arrays_of(study)) != expected).any(), "stage 1 finds the very same"


def test_an_array_of_another_shape_than_the_pets_is_no_coarse_mask(study, predictor):
    mask = np.asarray(nib.load(study["mask"]).dataobj)
    opened = predictor.open(*arrays_of(study))
    for array in (mask.transpose(2, 1, 0), np.pad(mask, ((0, 3), (0, 0), (0, 2))), mask[0]):
        with pytest.raises(InputError) as refusal:
            opened.segment(coarse_mask=array)
        assert str(refusal.value) == (
            f"coarse mask has the shape {array.shape} and the PET {mask.shape}: give it on the PET's grid, axes x, y, z, or as a file"
        )


def test_list_names_masks_and_a_changed_mask_makes_its_study_anew(study, expected, infer, tmp_path, capsys):
    rows = [{"case": case, **pair(study), "coarse_mask": mask} for case, mask in (("a", "mask.nii.gz"), ("b", None))]
    (tmp_path / "studies.json").write_text(json.dumps(rows))
    shutil.copyfile(study["mask"], tmp_path / "mask.nii.gz")
    options = {"studies": str(tmp_path / "studies.json"), "allow_outside": True}
    masks = infer(**options)
    np.testing.assert_array_equal(masks["a.nii.gz"], expected)
    assert (masks["b.nii.gz"] != expected).any()
    records = [read_record(tmp_path / f"masks/records/{case}.json") for case in "ab"]
    assert [list(record["sources"]) for record in records] == [["ct", "pet", "coarse_mask"], ["ct", "pet"]]
    assert records[0]["sources"]["coarse_mask"]["sha256"] == digest_of(study["mask"])
    infer(**options)
    assert "nothing to do" in capsys.readouterr().out
    write_nifti(tmp_path / "mask.nii.gz", np.zeros(SHAPE, np.uint8), AFFINE)
    changed = infer(**options)
    assert (changed["a.nii.gz"] != expected).any()
    np.testing.assert_array_equal(changed["b.nii.gz"], masks["b.nii.gz"])


def test_mask_on_another_grid_is_brought_to_that_of_the_pet(study, tmp_path):
    mask = np.asarray(nib.load(study["mask"]).dataobj)
    # Twice as fine along x, turned about, and larger: each voxel of the PET has its centre in the same lesion.
    fine = np.pad(np.kron(mask, np.ones((2, 1, 1), np.uint8)), 3)[::-1]
    affine = AFFINE @ np.array([[-0.5, 0, 0, SHAPE[0] + 0.75], [0, 1, 0, -3.25], [0, 0, 1, -2.75], [0, 0, 0, 1]])
    write_metaimage(tmp_path / "mask.mha", fine, affine)
    for file in (tmp_path / "mask.mha", write_nifti(tmp_path / "mask.nii.gz", fine, affine), study["mask"]):
        brought, warnings = read_coarse_mask(file, SHAPE, AFFINE)
        np.testing.assert_array_equal(brought, mask)
        assert warnings == []


def test_segmentation_in_dicom_is_taken_for_a_pet_in_dicom_or_in_nifti(tmp_path):
    study = small_study()
    written = write_study(tmp_path / "dicom", study)
    seg = write_seg(tmp_path / "seg.dcm", written)
    assert written.label.any()
    found, _ = study_of_places(tmp_path / "dicom", tmp_path / "dicom", coarse_mask=seg)
    volume = read_volume(found.pet)[0]
    np.testing.assert_array_equal(read_coarse_mask(found.coarse_mask, volume.array.shape, volume.affine)[0], written.label)
    np.testing.assert_array_equal(read_coarse_mask(seg, written.label.shape, written.pet_affine)[0], written.label)


def other_patient(folder: Path) -> tuple[Path, Path]:
    """The folder of a study in DICOM, and the SEG of another patient's."""
    write_study(folder / "one", small_study(), Variant(person=Person(identifier="P1"), study_key="one"))
    other = write_study(folder / "other", small_study(), Variant(person=Person(identifier="P2"), study_key="other"))
    return folder / "one", write_seg(folder / "seg.dcm", other)


def test_segmentation_of_another_patient_or_space_is_refused(tmp_path):
    place, seg = other_patient(tmp_path)
    with pytest.raises(InputError, match=r"^its coarse mask seg\.dcm is that of another patient than its PET: give the mask of"):
        study_of_places(place, place, coarse_mask=seg)
    dataset = pydicom.dcmread(seg)
    dataset.PatientID = "P1"
    dataset.save_as(seg)
    found, _ = study_of_places(place, place, coarse_mask=seg)
    volume = read_volume(found.pet)[0]
    with pytest.raises(InputError, match="in the frame of reference"):
        read_coarse_mask(found.coarse_mask, volume.array.shape, volume.affine)


def elsewhere(file: Path, mask: np.ndarray) -> None:
    write_nifti(file, mask, las((4, 4, 5), (3000, -20, 100)))


def beside(file: Path, mask: np.ndarray) -> None:
    far = np.zeros((60, *SHAPE[1:]), np.uint8)
    far[50:55, 5:9, 5:9] = 1
    write_nifti(file, far, AFFINE)


def fine_mask() -> tuple[np.ndarray, np.ndarray]:
    """A mask, and its affine, of four lesions on a grid four times as fine as the PET's, which each fourth voxel shares.

    One is a cube of 2 x 2 x 2 of the PET's voxels, two lie between these and touch at a corner, and one is beside the PET.
    """
    mask = np.zeros([4 * length + 16 for length in SHAPE], np.uint8)
    mask[40:48, 40:48, 40:48] = 1
    mask[21:23, 21:23, 21:23] = 1
    mask[23, 23, 23] = 1
    mask[100:103, 40:43, 40:43] = 1
    return mask, AFFINE @ np.diag([0.25, 0.25, 0.25, 1])


def lost(file: Path, mask: np.ndarray) -> None:
    fine, affine = fine_mask()
    fine[40:48] = 0
    write_nifti(file, fine, affine)


WRONG_MASKS = {
    "elsewhere": (elsewhere, "lies elsewhere in space than the PET: give the mask of this study"),
    "beside": (beside, "marks lesions only outside of the PET: give the mask of this study"),
    "empty": (lambda file, mask: file.write_bytes(b""), r"is empty \(0 bytes\): copy it again"),
    "values": (
        lambda file, mask: write_nifti(file, mask * np.uint8(2), AFFINE),
        "holds the values 0, 2: a mask is 0, and 1 inside",
    ),
    "lost": (lost, "marks lesions so small that each is nearest to no voxel of the PET: draw them on the PET's grid"),
    "missing": (lambda file, mask: None, "does not exist in"),
}


def test_what_cannot_be_the_mask_of_its_study_is_one_sentence(study, infer, tmp_path):
    mask = np.asarray(nib.load(study["mask"]).dataobj)
    for case, (write, _) in WRONG_MASKS.items():
        write(tmp_path / f"{case}_mask.nii.gz", mask)
    rows = [{"case": case, **pair(study), "coarse_mask": f"{case}_mask.nii.gz"} for case in WRONG_MASKS]
    (tmp_path / "studies.json").write_text(json.dumps(rows))
    with pytest.raises(SystemExit) as error:
        infer(studies=str(tmp_path / "studies.json"), allow_outside=True)
    for case, (_, words) in WRONG_MASKS.items():
        assert re.search(rf"^  study {case}: {case}_mask\.nii\.gz {words}", str(error.value), flags=re.MULTILINE), error.value


def test_lesions_that_the_pets_grid_does_not_hold_are_counted(tmp_path):
    expected = np.zeros(SHAPE, np.uint8)
    expected[10:12, 10:12, 10:12] = 1
    mask, affine = fine_mask()
    for file in (tmp_path / "mask.mha", tmp_path / "mask.nii.gz"):
        (write_metaimage if file.suffix == ".mha" else write_nifti)(file, mask, affine)
        brought, warnings = read_coarse_mask(file, SHAPE, AFFINE)
        np.testing.assert_array_equal(brought, expected)
        assert warnings == [
            "has 27 of 548 voxels of lesions (4.9%) outside of the PET: it is cut there",
            "loses 3 of 4 lesions, which lie outside of the PET or are nearest to no voxel of it",
        ]


def in_two_places(file: Path, mask: np.ndarray) -> None:
    image = nib.Nifti1Image(mask, AFFINE)
    image.set_sform(AFFINE, "scanner")
    image.set_qform(las((4.1, 4.1, 5.3), (30, -20, 130)), "scanner")
    nib.save(image, file)


def placeless(file: Path, mask: np.ndarray) -> None:
    image = nib.Nifti1Image(mask, AFFINE)
    image.set_sform(AFFINE, 0)
    image.set_qform(AFFINE, 0)
    nib.save(image, file)


def partly_beside(file: Path, mask: np.ndarray) -> None:
    write_nifti(file, *fine_mask())


# Of each kind of mask what is said of it.
ODD_MASKS = {
    "two_places": (in_two_places, ["states two places that lie 30.0 mm apart (sform and qform): the first is used here"]),
    "cut": (partly_beside, ["has 27 of 548 voxels", "loses 3 of 4 lesions"]),
}


def test_what_is_unusual_about_a_mask_is_told_once_as_of_ct_and_pet(study, infer, predictor, tmp_path, capsys):
    mask = np.asarray(nib.load(study["mask"]).dataobj)
    for case, (write, _) in ODD_MASKS.items():
        write(tmp_path / f"{case}.nii.gz", mask)
    rows = [{"case": case, **pair(study), "coarse_mask": f"{case}.nii.gz"} for case in ODD_MASKS]
    (tmp_path / "studies.json").write_text(json.dumps(rows))
    infer(studies=str(tmp_path / "studies.json"), allow_outside=True)
    out = capsys.readouterr().out
    opened = predictor.open(*arrays_of(study))
    for case, (_, sentences) in ODD_MASKS.items():
        for words in sentences:
            assert out.count(f"warning: study {case}: {case}.nii.gz {words}") == out.count(words) == 1, out
        with pytest.warns(UserWarning, match=rf"^{case}\.nii\.gz ") as told:
            opened.segment(coarse_mask=tmp_path / f"{case}.nii.gz")
        assert all(warning.filename == __file__ for warning in told)
        for warning, words in zip(told, sentences, strict=True):
            assert str(warning.message).startswith(f"{case}.nii.gz {words}")
    # Where studies are not judged, and in MONAI Label, the part that reads the mask tells it.
    item = {**opened.item, "coarse_mask": str(tmp_path / "cut.nii.gz")}
    with pytest.warns(UserWarning, match=r"^cut\.nii\.gz has 27 of 548"), pytest.warns(UserWarning, match="loses 3 of 4 lesions"):
        predictor.add_corrections(item)


def test_mask_without_a_place_is_told(tmp_path):
    placeless(tmp_path / "mask.nii.gz", np.ones(SHAPE, np.uint8))
    image = nib.load(tmp_path / "mask.nii.gz")
    _, warnings = read_coarse_mask(tmp_path / "mask.nii.gz", SHAPE, image.affine)
    assert warnings == ["does not say where left, front and head are: check that its orientation is right"]


REPLACED = "would be replaced by the answer: name another output folder"


def test_mask_is_that_of_one_study_and_never_the_file_to_be_written(study, infer, tmp_path):
    with pytest.raises(SystemExit, match="belongs to one study: give its --ct and --pet; in a list, fill in the column"):
        infer(studies=str(study["ct"].parent), coarse_mask=str(study["mask"]))
    infer(**pair(study), case="a")
    with pytest.raises(SystemExit, match=REPLACED):
        infer(**pair(study), case="a", coarse_mask=str(tmp_path / "masks/a.nii.gz"))


def content_of(folder: Path) -> dict[str, str]:
    """The digests of masks and DICOM objects in a folder."""
    return {
        file.relative_to(folder).as_posix(): digest_of(file)
        for suffix in ("nii.gz", "dcm")
        for file in folder.rglob(f"*.{suffix}")
    }


def test_mask_in_a_file_that_its_run_replaces_or_deletes_is_refused_before_anything_is_done(study, infer, tmp_path):
    write_study(tmp_path / "dicom", small_study())
    place = {"ct": str(tmp_path / "dicom"), "pet": str(tmp_path / "dicom"), "case": "in_dicom"}
    infer(**place)
    (tmp_path / "points.json").write_text('{"foreground": [[12, 9, 11]]}')
    rows = [{"case": "in_nifti", **pair(study), "points": "points.json", "coarse_mask": ""}]
    (tmp_path / "studies.json").write_text(json.dumps(rows))
    infer(studies=str(tmp_path / "studies.json"), allow_outside=True)
    before = content_of(tmp_path / "masks")
    seg, found = "masks/dicom/in_dicom/segmentation.dcm", "masks/coarse_masks/in_nifti.nii.gz"
    assert {seg.removeprefix("masks/"), found.removeprefix("masks/")} <= before.keys()
    (tmp_path / "link.dcm").symlink_to(tmp_path / seg)
    for mask in (seg, "link.dcm"):
        with pytest.raises(SystemExit, match=f"its coarse mask {re.escape(str(tmp_path / mask))} {REPLACED}"):
            infer(**place, coarse_mask=str(tmp_path / mask))
    # Without DICOM output that of the run before is deleted.
    with pytest.raises(SystemExit, match=REPLACED):
        infer(**place, coarse_mask=str(tmp_path / seg), dicom_output=False)
    (tmp_path / "studies.json").write_text(json.dumps([{**rows[0], "coarse_mask": found}]))
    with pytest.raises(SystemExit, match=REPLACED):
        infer(studies=str(tmp_path / "studies.json"), allow_outside=True)
    assert content_of(tmp_path / "masks") == before
    # The same mask serves where nothing replaces it.
    shutil.copyfile(tmp_path / seg, tmp_path / "copy.dcm")
    infer(**place, coarse_mask=str(tmp_path / "copy.dcm"))
    assert content_of(tmp_path / "masks") != before
    assert digest_of(tmp_path / "copy.dcm") == before[seg.removeprefix("masks/")]


def test_mask_that_another_study_of_the_run_may_replace_is_refused(study, tmp_path):
    (tmp_path / "masks").mkdir()
    masks = Masks(Records(tmp_path / "masks", "inference"), [tmp_path / "masks"], {"overlap": 0.5})
    with masks.records.making(masks.plan({"case": "a", "image": list(pair(study).values())})):
        (tmp_path / "masks/a.nii.gz").write_text("an answer")
    rows = [{"case": "a", **pair(study)}, {"case": "b", **pair(study), "coarse_mask": "masks/a.nii.gz"}]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    anew = Masks(masks.records, masks.folders, {"overlap": 0.25})
    selection = select_studies(tmp_path / "list.json", anew, SelectOptions(allow_outside=True))
    assert [item["case"] for item in selection.items] == ["a"]
    (problem,) = selection.problems
    assert (problem.case, problem.error) == ("b", True)
    assert re.search(REPLACED, problem.message)


def test_evaluation_refuses_a_mask_that_it_replaces_or_deletes_and_costs_no_other_study(study, tmp_path):
    (tmp_path / "masks").mkdir()
    masks = Masks(Records(tmp_path, "evaluation"), [tmp_path / "masks"])
    items = [{"case": case, "image": list(pair(study).values())} for case in "abc"]
    for item in (*items[:1], {**items[0], "case": "earlier"}):
        with masks.records.making(masks.plan(item)):
            shutil.copyfile(study["mask"], tmp_path / f"masks/{item['case']}.nii.gz")
    named = ["masks/a.nii.gz", "masks/earlier.nii.gz", study["mask"]]
    given = [item | {"coarse_mask": str(tmp_path / name)} for item, name in zip(items, named, strict=True)]
    selection = select_items(given, masks)
    assert [item["case"] for item in selection.items] == ["c"]
    assert [(problem.case, problem.error) for problem in selection.problems] == [("a", True), ("b", True)]
    assert all(problem.message.endswith(REPLACED) for problem in selection.problems)
    with pytest.raises(InputError, match=REPLACED):
        select_items(given, masks, SelectOptions(strict=True))


# ---------------------------------------------------------------- clicks


@pytest.fixture(scope="module")
def automatic(study, predictor) -> np.ndarray:
    return predictor.predict(*arrays_of(study))


@pytest.fixture(scope="module")
def points(automatic, tmp_path_factory) -> dict:
    """Points, in mm, on a voxel that the networks have not found, and in a lesion that they have."""
    missed, found = np.argwhere(automatic[5:-5, 5:-5, 5:-5] == 0)[40] + 5, np.argwhere(automatic)[200]
    places = [apply_affine(AFFINE, voxel) * [-1, -1, 1] for voxel in (missed, found)]
    content = {"foreground": [places[0].tolist()], "background": [places[1].tolist()], "unit": "mm", "space": "LPS"}
    file = tmp_path_factory.mktemp("points") / "points.json"
    file.write_text(json.dumps(content))
    return {"file": file, "content": content, "foreground": tuple(missed), "background": tuple(found)}


def test_points_by_command_container_and_python_give_the_same_mask(
    study, points, automatic, infer, predictor, tmp_path, monkeypatch
):
    by_python = predictor.predict(*arrays_of(study), points=points["content"])
    assert (by_python[points["foreground"]], automatic[points["foreground"]]) == (1, 0)
    assert (by_python[points["background"]], automatic[points["background"]]) == (0, 1)
    (by_command,) = infer(**pair(study), case="a", points=str(points["file"])).values()
    np.testing.assert_array_equal(by_command, by_python)
    record = read_record(tmp_path / "masks/records/a.json")
    assert list(record["sources"]) == ["ct", "pet", "points"]
    assert record["about"]["points"] == points["content"]
    assert (record["settings"]["click_reach_mm"], record["settings"]["click_share"]) == (15, 0.41)
    files = []
    for role in ("ct", "pet"):
        image = nib.load(study[role])
        (tmp_path / role).mkdir()
        files.append([tmp_path / role / "case.mha"])
        write_metaimage(files[-1][0], np.asarray(image.dataobj), image.affine)
    monkeypatch.setattr(petct_cascade.predict, "load_cascade", lambda *arguments: predictor)
    container.segment_case(container.Case(*files, points["file"]), tmp_path / "mask.mha", container.Model(tmp_path, "demo"))
    np.testing.assert_array_equal(read_volume(tmp_path / "mask.mha")[0].array, by_python)


def test_rounds_of_one_study_give_the_masks_of_single_runs_and_need_stage_1_once(study, points, automatic, predictor):
    calls = []
    hook = predictor.network.stage1.register_forward_hook(lambda *arguments: calls.append(1))
    opened = predictor.open(*arrays_of(study))
    answers = [
        opened.segment(),
        opened.segment(points=points["content"]),
        opened.segment(coarse_mask=automatic, points=points["file"]),
        opened.segment(points={"foreground": []}),
    ]
    assert len(calls) == 1
    hook.remove()
    np.testing.assert_array_equal(answers[0], automatic)
    np.testing.assert_array_equal(answers[1], predictor.predict(*arrays_of(study), points=points["file"]))
    np.testing.assert_array_equal(answers[2], predictor.predict(*arrays_of(study), coarse_mask=automatic, points=points["file"]))
    np.testing.assert_array_equal(answers[3], automatic)
    kept = [list(map(id, remembered.answers.values())) for remembered in opened.remembered.values()]
    opened.segment()
    assert [list(map(id, remembered.answers.values())) for remembered in opened.remembered.values()] == kept
    assert all(kept), "nothing is remembered of the last round"
    assert answers[2][points["foreground"]] == 1
    assert answers[2][points["background"]] == 0


def test_untouched_lesions_of_a_given_mask_stay_where_that_is_asked_for(study, whole_models, points, automatic, infer, tmp_path):
    given = np.zeros_like(automatic)
    given[points["background"]] = 1
    # A lesion of a reader's, which the networks with their random weights do not see as it is.
    far = tuple(slice(size - 4, size - 2) for size in given.shape)
    given[far] = 1
    nib.save(nib.Nifti1Image(given, AFFINE), tmp_path / "given.nii.gz")
    options = {**pair(study), "coarse_mask": str(tmp_path / "given.nii.gz"), "points": str(points["file"])}
    (free,) = infer(**options, case="a").values()
    masks = infer(**options, case="b", keep_untouched="yes")
    predictor = load_cascade(whole_models, "demo", patch_sizes=WINDOWS, device="cpu", keep_untouched=True)
    np.testing.assert_array_equal(
        masks["b.nii.gz"], predictor.predict(*arrays_of(study), coarse_mask=given, points=points["content"])
    )
    assert masks["b.nii.gz"][far].all()
    assert not free[far].all()
    assert masks["b.nii.gz"][points["foreground"]] == 1
    assert masks["b.nii.gz"][points["background"]] == 0
    assert read_record(tmp_path / "masks/records/b.json")["settings"]["keep_untouched"] is True


def test_given_mask_stays_as_it_is_where_nothing_is_clicked_on_and_what_is_untouched_is_kept(
    study, whole_models, expected, infer, tmp_path
):
    mask = np.asarray(nib.load(study["mask"]).dataobj)
    assert (expected != mask).any(), "the networks answer with the very mask"
    (tmp_path / "none.json").write_text('{"foreground": []}')
    options = {**pair(study), "coarse_mask": str(study["mask"])}
    infer(**options, case="no_points", keep_untouched=True)
    infer(**options, points=str(tmp_path / "none.json"), case="free")
    masks = infer(**options, points=str(tmp_path / "none.json"), case="kept", keep_untouched=True)
    predictor = load_cascade(whole_models, "demo", patch_sizes=WINDOWS, device="cpu", keep_untouched=True)
    np.testing.assert_array_equal(masks["kept.nii.gz"], mask)
    np.testing.assert_array_equal(predictor.predict(*arrays_of(study), coarse_mask=mask, points={"background": []}), mask)
    for answer in (
        masks["no_points.nii.gz"],
        masks["free.nii.gz"],
        predictor.predict(*arrays_of(study), coarse_mask=mask),
    ):
        np.testing.assert_array_equal(answer, expected)


def test_label_map_of_a_request_is_a_mask_with_clicks_even_with_none(study):
    request = {"image_path": "image.nii.gz", "label": str(study["mask"])}
    clicks = {"foreground": [], "background": []}
    for item, points in (
        (request, clicks),
        ({**request, **clicks}, clicks),
        ({**request, "lesion": [[1, 2, 3]]}, {**clicks, "foreground": [[1, 2, 3]]}),
        ({"image_path": "image.nii.gz", "coarse_mask": str(study["mask"])}, clicks),
        ({**request, "points": {"points": []}}, {"points": []}),
    ):
        taken = TakeRequestd()(item)
        assert (taken["coarse_mask"], taken["points"]) == (str(study["mask"]), points)
    assert "points" not in TakeRequestd()({"image_path": "image.nii.gz", "label": "lesion", **clicks})


def test_clicks_of_another_study_are_refused_in_python_too(study, predictor):
    opened = predictor.open(*arrays_of(study))
    for voxel in ((-1, 2, 3), (2, 3, SHAPE[2])):
        with pytest.raises(InputError, match=r"^the list of points has foreground point 1 at voxel .*, outside of the PET"):
            opened.segment(points=Clicks([voxel], []))
    with pytest.raises(InputError, match=r"^the list of points has voxel \[2, 3, 4\] in the foreground"):
        opened.segment(points=Clicks([(2, 3, 4)], [(2, 3, 4)]))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"foreground": [[1, 2, 3]], "points": {"background": [[4, 5, 6]]}}, "has points and foreground beside each other"),
        (
            {"lesion": [[1, 2, 3]], "background": [[4, 5, 6]], "points": {"foreground": []}},
            "has points and lesion and background",
        ),
        ({"label": __file__, "coarse_mask": "mask.nii.gz"}, "has a label map and a coarse_mask beside each other: send one"),
    ],
)
def test_request_that_says_one_thing_twice_is_refused_so_that_nothing_is_lost(entries, words):
    with pytest.raises(InputError, match=f"^the request {words}"):
        TakeRequestd()({"image_path": "image.nii.gz", **entries})
    # 3D Slicer sends its lists of clicks even when they are empty.
    given = {name: [] if name in ("foreground", "lesion", "background") else value for name, value in entries.items()}
    given.pop("coarse_mask", None)
    assert TakeRequestd()({"image_path": "image.nii.gz", **given})["points"] == entries.get(
        "points", {"foreground": [], "background": []}
    )


def test_points_that_cannot_be_used_are_one_sentence_and_cost_no_other_study(study, points, infer, tmp_path):
    shutil.copyfile(points["file"], tmp_path / "right.json")
    (tmp_path / "wrong.json").write_text('{"foreground": [[1, 2, 300]]}')
    rows = [{"case": name, **pair(study), "points": f"{name}.json"} for name in ("right", "wrong")]
    (tmp_path / "studies.json").write_text(json.dumps(rows))
    with pytest.raises(SystemExit) as error:
        infer(studies=str(tmp_path / "studies.json"), allow_outside=True)
    words = (
        r"  study wrong: wrong\.json has foreground point 1 at voxel \[1, 2, 300\], outside of the PET, which has 24 x 18 x 22"
    )
    assert re.search(words, str(error.value))
    assert (tmp_path / "masks/right.nii.gz").is_file()


NO_POINTS = {
    "plain": {"foreground": [], "background": []},
    "in_mm": {"background": [], "unit": "mm", "space": "LPS"},
    "of_challenge": {"version": {"major": 1, "minor": 0}, "type": "Multiple points", "points": []},
}


def test_file_without_a_point_is_no_points(study, automatic, infer, tmp_path, capsys):
    for case, content in NO_POINTS.items():
        (tmp_path / f"{case}.json").write_text(json.dumps(content))
    rows = [{"case": case, **pair(study), "points": f"{case}.json"} for case in NO_POINTS]
    (tmp_path / "studies.json").write_text(json.dumps(rows))
    options = {"studies": str(tmp_path / "studies.json"), "allow_outside": True}
    masks = infer(**options)
    readouts = json.loads((tmp_path / "masks/readouts.json").read_text())
    for case in NO_POINTS:
        np.testing.assert_array_equal(masks[f"{case}.nii.gz"], automatic)
        record = read_record(tmp_path / f"masks/records/{case}.json")
        assert list(record["sources"]) == ["ct", "pet"]
        assert record["outputs"] == [f"{case}.nii.gz"]
        assert "changes" not in readouts[case]
    assert not (tmp_path / "masks/coarse_masks").exists()
    capsys.readouterr()
    infer(**options)
    assert "nothing to do" in capsys.readouterr().out


# ---------------------------------------------------------------- what is said of it


def box(*corners: tuple[int, int]) -> np.ndarray:
    """A mask of 20 x 10 x 10 voxels of boxes of 3 x 3 x 3, each from its x and y on."""
    mask = np.zeros((20, 10, 10), np.uint8)
    for x, y in corners:
        mask[x : x + 3, y : y + 3, 2:5] = 1
    return mask


def test_lesions_are_added_removed_or_reshaped_with_their_volumes_before_and_after():
    before, after = box((1, 1), (6, 1), (11, 1)), box((1, 1), (12, 1), (1, 6))
    counts, rows = changes(before, after, las((2, 5, 10)))
    # A voxel has 0.1 ml, a box 2.7 ml.
    assert counts == {
        "lesions_added": 1,
        "lesions_removed": 1,
        "lesions_reshaped": 1,
        "volume_before_ml": pytest.approx(8.1),
    }
    told = {row["change"]: (row["volume_before_ml"], row["volume_after_ml"], row["centroid_x_mm"]) for row in rows}
    assert told == {
        "added": pytest.approx((0, 2.7, -4)),
        "removed": pytest.approx((2.7, 0, -14)),
        "reshaped": pytest.approx((2.7, 2.7, -25)),
    }
    assert changes(box(), box(), las((2, 5, 10)))[1] == []


def test_report_and_dicom_objects_say_what_a_person_has_changed(infer, tmp_path):
    written = write_study(tmp_path / "dicom", small_study())
    seg = write_seg(tmp_path / "seg.dcm", written)
    place = {"ct": str(tmp_path / "dicom"), "pet": str(tmp_path / "dicom")}
    infer(**place, case="automatic")
    infer(**place, case="given", coarse_mask=str(seg))
    (tmp_path / "points.json").write_text(json.dumps({"foreground": [[int(index) for index in np.argwhere(written.label)[0]]]}))
    masks = infer(**place, case="clicked", points=str(tmp_path / "points.json"))
    readouts = json.loads((tmp_path / "masks/readouts.json").read_text())
    assert "changes" not in readouts["automatic"]
    found = np.asarray(nib.load(tmp_path / "masks/coarse_masks/clicked.nii.gz").dataobj)
    assert [file.name for file in (tmp_path / "masks/coarse_masks").iterdir()] == ["clicked.nii.gz"]
    for case, before in (("given", written.label), ("clicked", found)):
        counts, rows = changes(before, masks[f"{case}.nii.gz"], written.pet_affine)
        assert readouts[case]["study"] == {**readouts[case]["study"], **counts}
        assert readouts[case]["changes"] == rows
        page = (tmp_path / f"masks/studies/{case}.html").read_text()
        assert page.count("<h2>Changed by hand</h2>") == 1
    assert "Changed by hand" not in (tmp_path / "masks/studies/automatic.html").read_text()
    assert "Added by hand" in (tmp_path / "masks/report.html").read_text()
    for case in ("automatic", "given", "clicked"):
        segmentation, report = (
            pydicom.dcmread(tmp_path / f"masks/dicom/{case}/{name}.dcm") for name in ("segmentation", "report")
        )
        kind = "AUTOMATIC" if case == "automatic" else "SEMIAUTOMATIC"
        assert {segment.SegmentAlgorithmType for segment in segmentation.SegmentSequence} == {kind}
        assert ("SEMIAUTOMATIC" in report.to_json()) == (case != "automatic")


# ---------------------------------------------------------------- the page


def page() -> str:
    return (ROOT / "docs/corrections.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(study, tmp_path, monkeypatch) -> Path:
    """The current folder, with the files that docs/corrections.md names."""
    for name, role in (("CT", "ct"), ("SUV", "pet"), ("MASK", "mask")):
        shutil.copyfile(study[role], tmp_path / f"{name}.nii.gz")
    (shown,) = re.findall(r"^```json\n(.*?)^```", page(), flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "POINTS.json").write_text(shown)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_in_corrections_goes_on_in_rounds(study, folder, predictor):
    (shown,) = re.findall(r"^```python\n(.*?)^```", page(), flags=re.MULTILINE | re.DOTALL)
    names = dict(zip(("ct", "ct_affine", "pet", "pet_affine"), arrays_of(study), strict=True)) | {"cascade": predictor}
    exec(shown, names)
    assert names["mask"][12, 9, 11] == 1
    assert not names["mask"][10, 8, 6]


@pytest.mark.slow
def test_every_petct_in_corrections_does_what_it_says(folder, whole_models):
    commands = re.findall(r"^    (petct .*)$", page(), flags=re.MULTILINE)
    assert len(commands) == 2
    for number, command in enumerate(commands):
        words = [{"WORK": str(whole_models), "OUT": f"OUT{number}"}.get(word, word) for word in shlex.split(command)[1:]]
        run_petct(*words, "--profile", "demo").check_returncode()
        assert len(list((folder / f"OUT{number}").glob("*.nii.gz"))) == 1
