"""The promise that every tool gives the same mask: three studies, one set of weights, the mask of each by every way to it.

    pytest tests/test_same_mask.py -m "slow or not slow"

writes the table of docs/integrations.md to dist/same_mask.md, and that of docs/dicom.md to dist/dicom_and_nifti.md.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import deploy_stand_in
import monai.bundle
import monai.transforms
import nibabel as nib
import numpy as np
import pytest
import torch
import zoo
from deploy_stand_in import mask_of_operator
from dicom_writer import Person, Variant, write_study
from dicom_writer import Study as DicomStudy
from helpers import (
    BUNDLES,
    ENSEMBLE,
    ENVIRONMENT,
    FINGERPRINT,
    ROOT,
    SARCOMA,
    SHARED,
    las,
    make_study,
    needs_shared,
    run_petct,
    write_nifti,
)
from monai_label import copy_app, running_server, segment
from nibabel.orientations import io_orientation, ornt_transform

from petct_cascade.loading import LoadImagePETCTd
from petct_cascade.metaimage import write_metaimage
from petct_cascade.predict import load_cascade
from petct_cascade.volumes import read_volume

REAL = SARCOMA / "imagesTr"
SARCOMA_DICOM = SHARED / "data/soft_tissue_sarcoma_dicom"
REAL_DICOM = SARCOMA_DICOM / "STS_002"
REAL_CASE = "fdg_STS002_pre-treatment"


@dataclass(frozen=True)
class Mask:
    """A mask, and where it lies.

    Attributes:
        array: (X, Y, Z).
        affine: (4, 4); None where the tool gives none.
    """

    array: np.ndarray
    affine: np.ndarray | None

    @classmethod
    def read(cls, file: Path) -> Mask:
        image = nib.load(file)
        return cls(np.asarray(image.dataobj), image.affine)


@dataclass
class Setting:
    """Studies and weights, and the masks by each way so far.

    Attributes:
        bundle: the ensemble with weights, alone in its folder, whose inference.json is that of the demo profile.
        studies: folder of raw studies in the challenge's layout.
        cases: their names.
        rows: what was found out about each way.
        pairs: what was found out about each study in DICOM and in NIfTI.
    """

    bundle: Path
    studies: Path
    cases: list[str]
    rows: dict[str, list[str]] = field(default_factory=dict)
    pairs: list[list[str]] = field(default_factory=list)

    def files(self, case: str) -> list[str]:
        """Files of CT and PET."""
        return [str(self.studies / f"imagesTr/{case}_{number}.nii.gz") for number in ("0000", "0001")]


def oblique(spacing: tuple[float, float, float]) -> np.ndarray:
    """An affine that is turned about two axes."""
    affine = las(spacing, (12, -7, 5))
    for first, second, degrees in ((0, 1, 25), (1, 2, 15)):
        angle, turn = np.deg2rad(degrees), np.eye(4)
        turn[np.ix_([first, second], [first, second])] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        affine = turn @ affine
    return affine


def write_pair(folder: Path, case: str, ct: np.ndarray, pet: np.ndarray, affine: np.ndarray) -> None:
    for number, array in (("0000", ct), ("0001", pet)):
        write_nifti(folder / f"imagesTr/{case}_{number}.nii.gz", array, affine)


def as_in_dicom(ct: np.ndarray, pet: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """CT and PET with the values that the tests' own writer can store, so that a study is the same in DICOM and in NIfTI."""
    step = pet.max() / 32767
    return np.rint(ct), np.rint(pet / step) * step


@pytest.fixture(scope="module")
def setting(tmp_path_factory) -> Iterator[Setting]:
    folder = tmp_path_factory.mktemp("same")
    bundle = zoo.copy_bundle(BUNDLES / ENSEMBLE, folder / "bundles", "demo")
    file = zoo.make_weights(bundle)
    state = torch.load(file, weights_only=True)
    # Random weights give probabilities on one side of 0.5: spread them.
    torch.save({name: tensor * 1.5 if name.endswith("weight") else tensor for name, tensor in state.items()}, file)
    # Large voxels make the real study small.
    (bundle / "models/fingerprint.json").write_text(json.dumps({**FINGERPRINT, "spacing": [9, 9.5, 10]}))
    studies = folder / "studies"
    ct, pet = as_in_dicom(*make_study((20, 18, 22), seed=1)[:2])
    air = [(11, 6), (5, 14), (7, 3)]
    write_pair(studies, "fdg_air_1", np.pad(ct, air, constant_values=-1000), np.pad(pet, air), las((4, 4, 5), (30, -20, 100)))
    write_pair(studies, "fdg_oblique_1", *as_in_dicom(*make_study((24, 20, 18), seed=2)[:2]), oblique((4, 5, 6)))
    cases = ["fdg_air_1", "fdg_oblique_1"]
    if REAL.is_dir():
        for number in ("0000", "0001"):
            (studies / f"imagesTr/{REAL_CASE}_{number}.nii.gz").symlink_to(REAL / f"{REAL_CASE}_{number}.nii.gz")
        cases.append(REAL_CASE)
    setting = Setting(bundle, studies, cases)
    yield setting
    write_table(setting)


def write_table(setting: Setting) -> None:
    """Write what was found out as Markdown."""
    (ROOT / "dist").mkdir(exist_ok=True)
    lines = ["| Way to the mask | " + " | ".join(setting.cases) + " |", "| --- " * (len(setting.cases) + 1) + "|"]
    lines += [f"| {way} | {' | '.join(found)} |" for way, found in setting.rows.items()]
    (ROOT / "dist/same_mask.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    titles = ["Study", "Given as", "Lesions", "TMTV, ml", "TLG, g", "SUVmax", "SUVpeak", "Mask"]
    lines = ["| " + " | ".join(titles) + " |", "| --- " * len(titles) + "|"]
    lines += [f"| {' | '.join(pair)} |" for pair in setting.pairs]
    (ROOT / "dist/dicom_and_nifti.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def expected(setting, tmp_path_factory) -> dict[str, Mask]:
    """The mask of each study as `python -m monai.bundle run inferring` writes it for a folder of studies."""
    return expected_of(setting, tmp_path_factory.mktemp("expected"), "`monai.bundle run inferring`, a folder")


@pytest.fixture(scope="module")
def expected_in_float32(setting, tmp_path_factory) -> dict[str, Mask]:
    """The same with all networks in float32, also on a CPU on which some compute in bfloat16."""
    folder = tmp_path_factory.mktemp("expected_in_float32")
    return expected_of(setting, folder, "`monai.bundle run inferring --amp false`, a folder", amp=False)


def expected_of(setting: Setting, folder: Path, name: str, **options) -> dict[str, Mask]:
    infer(setting, folder, studies=setting.studies, allow_outside=True, **options)
    masks = read(setting, folder)
    for case, mask in masks.items():
        assert 0.01 < mask.array.mean() < 0.9, "a mask that is empty or full shows nothing"
        assert mask.array.shape == nib.load(setting.files(case)[1]).shape
    setting.rows[name] = [f"{mask.array.sum()} of {mask.array.size} voxels" for mask in masks.values()]
    return masks


def read(setting: Setting, folder: Path) -> dict[str, Mask]:
    return {case: Mask.read(folder / f"{case}.nii.gz") for case in setting.cases}


def infer(setting: Setting, output_dir: Path, **options) -> None:
    """What `python -m monai.bundle run inferring` does, in this process."""
    options = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    monai.bundle.run(
        run_id="inferring",
        config_file=str(setting.bundle / "configs/inference.json"),
        bundle_root=str(setting.bundle),
        output_dir=str(output_dir),
        num_workers=0,
        **options,
    )


# ---------------------------------------------------------------- the ways


def by_list(setting: Setting, folder: Path) -> dict[str, Mask]:
    with open(folder / "studies.csv", "w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["case", "ct", "pet"])
        table.writerows([case, *setting.files(case)] for case in setting.cases)
    infer(setting, folder, studies=folder / "studies.csv", allow_outside=True)
    return read(setting, folder)


def by_dicom(setting: Setting, folder: Path) -> dict[str, Mask]:
    """The phantoms as DICOM of the tests' own writer, the real study as its own DICOM."""
    names = {}
    for number, case in enumerate(setting.cases):
        if case == REAL_CASE:
            shutil.copytree(REAL_DICOM, folder / "dicom/real")
            names[case] = "fdg_STS-002_2006-01-28"
            continue
        ct, pet = (read_volume(Path(file))[0] for file in setting.files(case))
        study = DicomStudy(ct.array, ct.affine, pet.array, pet.affine)
        write_study(folder / f"dicom/{case}", study, Variant(person=Person(identifier=f"P{number}"), study_key=case))
        names[case] = f"fdg_P{number}_2023-05-04"
    infer(setting, folder / "out", studies=folder / "dicom", amp=False)
    return {case: on_grid_of(Mask.read(folder / f"out/{name}.nii.gz"), setting.files(case)[1]) for case, name in names.items()}


def on_grid_of(mask: Mask, file: str) -> Mask:
    """A mask with its axes in the order and the direction of a file's: a DICOM series has an order of its own."""
    wanted = nib.load(file)
    image = nib.Nifti1Image(mask.array, mask.affine)
    turn = ornt_transform(io_orientation(image.affine), io_orientation(wanted.affine))
    turned = image.as_reoriented(turn)
    return Mask(np.asarray(turned.dataobj), turned.affine)


def by_single_files(setting: Setting, folder: Path) -> dict[str, Mask]:
    for case in setting.cases:
        ct, pet = setting.files(case)
        infer(setting, folder, ct=ct, pet=pet)
    return read(setting, folder)


def by_petct(setting: Setting, folder: Path) -> dict[str, Mask]:
    weights = ("--weights", setting.bundle / "models")
    run_petct(
        "segment", setting.studies, "-o", folder, "--profile", "demo", *weights, "--set", "allow_outside=true"
    ).check_returncode()
    return read(setting, folder)


def by_create_workflow(setting: Setting, folder: Path) -> dict[str, Mask]:
    workflow = monai.bundle.create_workflow(
        config_file=str(setting.bundle / "configs/inference.json"),
        workflow_type="inference",
        bundle_root=str(setting.bundle),
        studies=str(setting.studies),
        output_dir=str(folder),
        num_workers=0,
        allow_outside=True,
    )
    workflow.run()
    workflow.finalize()
    return read(setting, folder)


@torch.no_grad()
def by_load_and_a_chain_by_hand(setting: Setting, folder: Path) -> dict[str, Mask]:
    network = monai.bundle.load(
        ENSEMBLE,
        bundle_dir=setting.bundle.parent,
        workflow_type="inference",
        device="cpu",
        args_file={"bundle_root": str(setting.bundle), "amp": False},
    ).eval()
    numbers = json.loads((setting.bundle / "models/fingerprint.json").read_text())
    keys = ["image_ct", "image_pet"]

    def scale(key: str, of: dict) -> monai.transforms.ScaleIntensityRanged:
        low, high = of["percentile_00_5"], of["percentile_99_5"]
        normalised = [(limit - of["mean"]) / of["std"] for limit in (low, high)]
        return monai.transforms.ScaleIntensityRanged(key, low, high, *normalised, clip=True)

    before = monai.transforms.Compose(
        [
            monai.transforms.LoadImaged(keys),
            monai.transforms.EnsureChannelFirstd(keys),
            # The CT onto the PET's grid; what lies outside of its field is air.
            monai.transforms.Lambdad("image_ct", lambda ct: ct + 1024),
            monai.transforms.ResampleToMatchd(
                "image_ct", key_dst="image_pet", mode="bilinear", padding_mode="zeros", dtype=torch.float32
            ),
            monai.transforms.Lambdad("image_ct", lambda ct: ct - 1024),
            monai.transforms.CropForegroundd(keys, "image_pet", select_fn=lambda pet: pet > 0.3, margin=2, allow_smaller=True),
            monai.transforms.Orientationd(keys, axcodes="LAS", labels=None),
            monai.transforms.Spacingd(keys, numbers["spacing"], mode="bilinear", padding_mode="border", dtype=torch.float32),
            scale("image_ct", numbers["ct"]),
            scale("image_pet", numbers["pet"]),
            monai.transforms.ConcatItemsd(keys, "image"),
        ]
    )
    back = monai.transforms.Invertd("pred", before, orig_keys="image_pet", nearest_interp=False)
    masks = {}
    for case in setting.cases:
        item = before(dict(zip(keys, setting.files(case), strict=True)))
        item["pred"] = network(item["image"][None])[0]
        probability = back(item)["pred"]
        masks[case] = Mask((probability[0] >= 0.5).numpy().astype(np.uint8), probability.affine.numpy())
    return masks


@torch.no_grad()
def by_cascade_as_one_module(setting: Setting, folder: Path) -> dict[str, Mask]:
    predictor = load_cascade(setting.bundle / "models", "demo", device="cpu")
    masks = {}
    for case in setting.cases:
        ct, pet = (read_volume(Path(file))[0] for file in setting.files(case))
        masks[case] = Mask(predictor.predict(ct.array, ct.affine, pet.array, pet.affine), None)
    return masks


def by_challenge_container(setting: Setting, folder: Path) -> dict[str, Mask]:
    """The entry point of the container, for MetaImages of CT and PET on one grid, as the challenge hands them out."""
    masks = {}
    for case in setting.cases:
        image = LoadImagePETCTd("image").load(setting.files(case))
        for role, array in zip(("ct", "pet"), image.as_tensor().numpy(), strict=True):
            (folder / f"{case}/images/{role}").mkdir(parents=True)
            write_metaimage(folder / f"{case}/images/{role}/{case}.mha", array, image.affine.numpy())
        options = {
            "input": folder / case,
            "output": folder,
            "weights": setting.bundle / "models",
            "profile": "demo",
            "edition": "4",
        }
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        path = os.pathsep.join([str(Path(sys.executable).parent), ENVIRONMENT["PATH"]])
        environment = {**ENVIRONMENT, "PATH": path, "PYTHONPATH": str(BUNDLES / ENSEMBLE)}
        subprocess.run(["sh", ROOT / "container/entry_point.sh", *words], env=environment, check=True, capture_output=True)
        mask, _ = read_volume(folder / f"images/tumor-lesion-segmentation/{case}.mha")
        masks[case] = Mask(mask.array, mask.affine)
    return masks


def write_4d(setting: Setting, folder: Path) -> dict[str, Path]:
    """Write CT and PET of each study on the PET's grid as one file, which MONAI Label takes."""
    files = {}
    for case in setting.cases:
        image = LoadImagePETCTd("image").load(setting.files(case))
        files[case] = write_nifti(folder / f"{case}.nii", image.as_tensor().movedim(0, -1).numpy(), image.affine.numpy())
    return files


def by_task_of_monai_label(setting: Setting, folder: Path) -> dict[str, Mask]:
    bundle_task = importlib.import_module("monailabel.tasks.infer.bundle").BundleInferTask
    task = bundle_task(str(setting.bundle), {})
    masks = {}
    for case, file in write_4d(setting, folder).items():
        answer, _ = task({"image": str(file), "device": "cpu", "result_dtype": "uint8"})
        masks[case] = Mask.read(Path(answer))
    return masks


def by_server_of_monai_label(setting: Setting, folder: Path) -> dict[str, Mask]:
    app = copy_app(folder)
    shutil.copytree(setting.bundle, app / "model" / ENSEMBLE)
    studies = folder / "4d"
    studies.mkdir()
    write_4d(setting, studies)
    with running_server(app, studies, [ENSEMBLE]) as server:
        return {case: Mask.read(segment(server, ENSEMBLE, case, folder)) for case in setting.cases}


def by_operator_of_monai_deploy(setting: Setting, folder: Path) -> dict[str, Mask]:
    deploy = importlib.import_module("petct_cascade.deploy")
    masks = {}
    for case in setting.cases:
        ct, pet = (read_volume(Path(file))[0] for file in setting.files(case))
        masks[case] = Mask(*mask_of_operator(deploy, setting.bundle, ct.array, ct.affine, pet.array, pet.affine))
    return masks


def by_stand_in_of_monai_deploy(setting: Setting, folder: Path) -> dict[str, Mask]:
    with deploy_stand_in.installed():
        return by_operator_of_monai_deploy(setting, folder)


def needing(module: str, *marks: pytest.MarkDecorator) -> list[pytest.MarkDecorator]:
    missing = importlib.util.find_spec(module) is None
    return [*marks, pytest.mark.skipif(missing, reason=f"{module} is not installed")]


WAYS: list = [
    pytest.param("the same, a list", by_list),
    pytest.param("the same, single files", by_single_files, marks=pytest.mark.slow),
    pytest.param("`petct segment`", by_petct, marks=pytest.mark.slow),
    pytest.param("`monai.bundle.create_workflow`", by_create_workflow),
    pytest.param("the cascade as one module, arrays", by_cascade_as_one_module),
    pytest.param("challenge container", by_challenge_container, marks=pytest.mark.slow),
    pytest.param("MONAI Label's `BundleInferTask`", by_task_of_monai_label, marks=needing("monailabel")),
    pytest.param("MONAI Label's server", by_server_of_monai_label, marks=needing("monailabel", pytest.mark.slow)),
    pytest.param("MONAI Deploy's operator", by_operator_of_monai_deploy, marks=needing("monai.deploy")),
    pytest.param("MONAI Deploy's operator, stand-in of the SDK", by_stand_in_of_monai_deploy),
]

# Their CT and PET are those of the other ways up to rounding: places in DICOM have other digits (2e-6 mm), MONAI interpolates in
# another order. Networks in bfloat16, which has 8 bits, may turn that into 0.04 of a probability, in float32 into a millionth.
WAYS_WITH_OTHER_ROUNDING: list = [
    pytest.param("the same, a folder of DICOM", by_dicom, marks=needs_shared(SARCOMA_DICOM)),
    pytest.param("`monai.bundle.load` in float32 and MONAI's own transforms", by_load_and_a_chain_by_hand),
]


@pytest.mark.parametrize(("name", "way"), WAYS)
def test_every_tool_gives_the_same_mask(setting: Setting, expected: dict[str, Mask], tmp_path: Path, name: str, way: Callable):
    hold_to(expected, setting, name, way(setting, tmp_path))


@pytest.mark.parametrize(("name", "way"), WAYS_WITH_OTHER_ROUNDING)
def test_tools_that_round_in_another_way_give_the_same_mask_in_float32(
    setting: Setting, expected_in_float32: dict[str, Mask], tmp_path: Path, name: str, way: Callable
):
    hold_to(expected_in_float32, setting, name, way(setting, tmp_path))


def hold_to(expected: dict[str, Mask], setting: Setting, name: str, masks: dict[str, Mask]) -> None:
    setting.rows[name] = [difference(masks[case], expected[case]) for case in setting.cases]
    assert setting.rows[name] == ["the same"] * len(setting.cases)


@needs_shared(SARCOMA)
@needs_shared(SARCOMA_DICOM)
@pytest.mark.parametrize("patient", ["002", "019"])
def test_real_study_in_dicom_and_in_nifti_gives_the_same_mask_and_read_outs(setting: Setting, tmp_path: Path, patient: str):
    ct, pet = (str(REAL / f"fdg_STS{patient}_pre-treatment_{number}.nii.gz") for number in ("0000", "0001"))
    infer(setting, tmp_path / "dicom", studies=SARCOMA_DICOM / f"STS_{patient}", amp=False)
    infer(setting, tmp_path / "nifti", ct=ct, pet=pet, amp=False)
    readouts, masks = {}, {}
    for form in ("dicom", "nifti"):
        ((case, readouts[form]),) = json.loads((tmp_path / form / "readouts.json").read_text()).items()
        masks[form] = Mask.read(tmp_path / form / f"{case}.nii.gz")
    same = difference(on_grid_of(masks["dicom"], pet), masks["nifti"])
    for form, said in (("dicom", same), ("nifti", f"{masks['nifti'].array.sum()} of {masks['nifti'].array.size} voxels")):
        study = readouts[form]["study"]
        numbers = (f"{study[name]:.2f}" for name in ("tmtv_ml", "tlg_g", "suv_max", "suv_peak"))
        setting.pairs.append([f"STS_{patient}", form, str(study["lesions"]), *numbers, said])
    assert same == "the same"
    for of_dicom, of_nifti in zip(groups_of(readouts["dicom"]), groups_of(readouts["nifti"]), strict=True):
        # Only DICOM tells weight, height and sex.
        assert {name for name in of_dicom.keys() - of_nifti.keys() if not name.startswith("sul_")} == set()
        common = {name: of_dicom[name] for name in of_nifti}
        assert common == pytest.approx(of_nifti, rel=1e-5, abs=1e-3)
    objects = {file.name for file in (tmp_path / "dicom").rglob("*.dcm")}
    assert objects == {"segmentation.dcm", "report.dcm"}
    assert (tmp_path / "dicom/report.html").is_file()


def groups_of(readouts: dict) -> list[dict[str, float]]:
    """The numbers of a study and of each of its lesions."""
    groups = [readouts["study"], *readouts["lesions"]]
    return [{name: value for name, value in group.items() if isinstance(value, (int, float))} for group in groups]


def difference(mask: Mask, expected: Mask) -> str:
    """Say in what a mask differs from the expected one: grid, values, affine (to the rounding of a NIfTI header, float32)."""
    if mask.array.shape != expected.array.shape:
        return f"shape {mask.array.shape} instead of {expected.array.shape}"
    different = int(np.count_nonzero(mask.array != expected.array))
    if different:
        return f"{different} voxels differ"
    if mask.affine is not None:
        off = float(np.abs(np.asarray(mask.affine) - expected.affine).max())
        if off > 1e-4:
            return f"affine differs by {off:.1e}"
    return "the same"
