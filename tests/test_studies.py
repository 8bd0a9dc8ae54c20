"""Promises of finding and judging studies."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny import las, make_study, write_study

from petct_cascade.judging import check_study, find_repeated_images, read_study
from petct_cascade.studies import Study, find_studies
from petct_training.errors import InputError

CASE = "fdg_0cda25453b_10-12-2003-NA-PET-CT Ganzkoerper  primaer v1.5 mit KM-47333"


@pytest.fixture
def study(tmp_path) -> Study:
    """A study with which nothing is wrong."""
    return Study(CASE, "0cda25453b", "fdg", *write_study(tmp_path, CASE))


# ---------------------------------------------------------------- finding


def test_challenge_layout_is_found_with_patient_and_tracer(tmp_path):
    files = write_study(tmp_path, CASE)
    write_study(tmp_path, "psma_95b833d46f153cd2_2018-04-16", seed=1)
    studies, problems = find_studies(tmp_path, labels=True)
    assert problems == []
    assert studies[0] == Study(CASE, "0cda25453b", "fdg", *files)
    assert (studies[1].patient, studies[1].tracer) == ("95b833d46f153cd2", "psma")


def test_test_images_are_found_only_without_labels(tmp_path):
    write_study(tmp_path, "fdg_a_1")
    shutil.copytree(tmp_path / "imagesTr", tmp_path / "imagesTs")
    for file in (tmp_path / "imagesTs").iterdir():
        file.rename(file.with_name(file.name.replace("fdg_a_1", "fdg_b_1")))
    assert [study.case for study in find_studies(tmp_path, labels=True)[0]] == ["fdg_a_1"]
    assert [study.case for study in find_studies(tmp_path, labels=False)[0]] == ["fdg_a_1", "fdg_b_1"]


def test_plain_folder_is_found_with_labels_beside_the_images(tmp_path):
    files = [shutil.copy(file, tmp_path) for file in write_study(tmp_path / "elsewhere", "fdg_a_1")]
    studies, problems = find_studies(tmp_path, labels=True)
    assert problems == []
    assert studies == [Study("fdg_a_1", "a", "fdg", *map(Path, files))]


def test_images_folder_is_found_with_labels_in_the_folder_next_to_it(tmp_path):
    files = write_study(tmp_path, "fdg_a_1")
    studies, _ = find_studies(tmp_path / "imagesTr", labels=True)
    assert studies == [Study("fdg_a_1", "a", "fdg", *files)]


@pytest.mark.parametrize("parent", ["", "FDG-PET-CT-Lesions"])
def test_tcia_layout_is_found_and_prefers_the_resampled_ct_and_the_suv(tmp_path, parent):
    ct, pet, label = write_study(tmp_path / "elsewhere", "x")
    folder = tmp_path / "data" / parent / "PETCT_0011f3deaf/03-23-2003-NA-PET-CT Ganzkoerper-10445"
    folder.mkdir(parents=True)
    for name, file in {"CT": ct, "CTres": ct, "PET": pet, "SUV": pet, "SEG": label}.items():
        shutil.copy(file, folder / f"{name}.nii.gz")
    studies, problems = find_studies(tmp_path / "data", labels=True)
    assert problems == []
    files = [folder / f"{name}.nii.gz" for name in ("CTres", "SUV", "SEG")]
    assert studies == [Study("fdg_0011f3deaf_03-23-2003-NA-PET-CT Ganzkoerper-10445", "0011f3deaf", "fdg", *files)]
    (folder / "CTres.nii.gz").unlink()
    assert find_studies(tmp_path / "data", labels=True)[0][0].ct == folder / "CT.nii.gz"
    (folder / "SUV.nii.gz").unlink()
    studies, problems = find_studies(tmp_path / "data", labels=True)
    assert studies == []
    assert "PET.nii.gz is not in SUV" in str(problems[0])


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_csv_list_is_read_with_paths_relative_to_it(tmp_path, delimiter):
    files = write_study(tmp_path / "sub", "x")
    relative = [str(file.relative_to(tmp_path)) for file in files]
    with open(tmp_path / "list.csv", "w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(["case", "ct", "pet", "label", "Patient", "tracer", "centre"])
        writer.writerow(["Müller, 2", *relative, "Müller", "PSMA", "LMU"])
    studies, problems = find_studies(tmp_path / "list.csv", labels=True)
    assert problems == []
    assert studies == [Study("Müller, 2", "Müller", "psma", *files, centre="LMU")]


def test_json_list_is_read_with_ct_and_pet_or_image(tmp_path):
    ct, pet, _ = write_study(tmp_path, "x")
    rows = [{"case": "fdg_a_1", "ct": str(ct), "pet": str(pet)}, {"case": "fdg_b_1", "image": [str(ct), str(pet)]}]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    studies, problems = find_studies(tmp_path / "list.json", labels=False)
    assert problems == []
    assert [(study.patient, study.ct, study.pet, study.label) for study in studies] == [
        ("a", ct, pet, None),
        ("b", ct, pet, None),
    ]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("list.csv", "name;ct\na;b", "no column case and no column pet"),
        ("list.csv", "", "no column case"),
        ("list.json", "{", "not valid JSON"),
        ("list.json", "{}", "not a list of studies"),
        ("missing.csv", None, "does not exist"),
    ],
)
def test_list_that_cannot_be_read_is_one_sentence(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words):
        find_studies(tmp_path / name, labels=True)


def test_folder_without_studies_says_which_layouts_are_read(tmp_path):
    with pytest.raises(InputError, match=r"imagesTr.*_0001.*SUV.*CSV"):
        find_studies(tmp_path, labels=True)


def test_study_without_ct_pet_or_label_is_named(tmp_path):
    for case, lost in (("fdg_a_1", 0), ("fdg_b_1", 1), ("fdg_c_1", 2), ("fdg_d_1", None)):
        files = write_study(tmp_path, case)
        if lost is not None:
            files[lost].unlink()
    studies, problems = find_studies(tmp_path, labels=True)
    assert [study.case for study in studies] == ["fdg_d_1"]
    assert [(problem.case, problem.error) for problem in problems] == [(case, True) for case in ("fdg_a_1", "fdg_b_1", "fdg_c_1")]
    for problem, words in zip(problems, ("no CT", "no PET", "no label"), strict=True):
        assert words in str(problem)


def test_other_formats_and_double_files_are_named(tmp_path):
    write_study(tmp_path, "fdg_a_1")
    (tmp_path / "imagesTr/fdg_b_1_0000.mha").write_text("")
    (tmp_path / "imagesTr/fdg_a_1_0000.nii").write_text("")
    (tmp_path / "imagesTr/._fdg_a_1_0001.nii.gz").write_text("")
    studies, problems = find_studies(tmp_path, labels=True)
    assert studies == []
    assert [problem.case for problem in problems] == ["fdg_a_1", "fdg_b_1"]
    assert "compressed and uncompressed" in str(problems[0])
    assert "fdg_b_1_0000.mha does not end with .nii.gz" in str(problems[1])


@pytest.mark.parametrize("case", ["../../etc/x", "a/b", "a\\b", "..", ".hidden", "a\tb", "x" * 201, "ü" * 101])
def test_case_that_could_leave_the_output_folder_or_name_no_file_is_refused(tmp_path, case):
    rows = [{"case": case, "ct": "ct.nii", "pet": "pet.nii"}, {"case": "good", "ct": "ct.nii", "pet": "pet.nii"}]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    studies, problems = find_studies(tmp_path / "list.json", labels=False)
    assert [study.case for study in studies] == ["good"]
    assert [(problem.case, problem.error) for problem in problems] == [(case, True)]


def test_repeated_and_empty_cases_and_missing_columns_are_named(tmp_path):
    rows = [{"case": case, "ct": "ct.nii", "pet": "pet.nii"} for case in ("a", "a", "b", "", "c")]
    del rows[4]["pet"]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    studies, problems = find_studies(tmp_path / "list.json", labels=False)
    assert [study.case for study in studies] == ["b"]
    assert [problem.case for problem in problems] == ["a", "c", "list.json, entry 4"]


@pytest.mark.parametrize("spellings", [("P 01", "p-01"), ("Müller", "Mu\u0308ller"), ("a", "A"), ("7_x", "7X")])
def test_patient_spelt_in_two_ways_is_a_warning(tmp_path, spellings):
    patients = {"A1": spellings[0], "a2": spellings[1], "b": "another"}
    rows = [{"case": case, "ct": "c.nii", "pet": "p.nii", "patient": patient} for case, patient in patients.items()]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    studies, problems = find_studies(tmp_path / "list.json", labels=False)
    assert len(studies) == 3
    assert [(problem.case, problem.error) for problem in problems] == [("a2", False)]


@pytest.mark.parametrize("outside", ["../elsewhere/pet.nii", "sub/../../pet.nii", "/data/pet.nii"])
@pytest.mark.parametrize("role", ["ct", "pet", "label"])
def test_list_that_names_files_outside_of_its_folder_is_refused_unless_allowed(tmp_path, role, outside):
    inside = {"ct": "sub/ct.nii", "pet": str(tmp_path / "set/pet.nii"), "label": "sub/../label.nii"}
    rows = [{"case": "good", **inside}, {"case": "bad", **inside, role: outside}]
    (tmp_path / "set").mkdir()
    (tmp_path / "set/list.json").write_text(json.dumps(rows))
    studies, problems = find_studies(tmp_path / "set/list.json", labels=False)
    assert [study.case for study in studies] == ["good"]
    assert [(problem.case, problem.error) for problem in problems] == [("bad", True)]
    assert f"names {outside}, which lies outside of the list's folder" in str(problems[0])
    assert len(find_studies(tmp_path / "set/list.json", labels=False, allow_outside=True)[0]) == 2


# ---------------------------------------------------------------- judging


def test_good_study_has_no_problems(study):
    assert check_study(study) == []


def test_empty_label_is_not_an_error(tmp_path):
    healthy = Study("h", "h", "fdg", *write_study(tmp_path, "h", lesions=0))
    problems, volumes = read_study(healthy)
    assert problems == []
    assert not volumes["label"].array.any()


def test_study_through_symbolic_links_has_no_problems(study, tmp_path):
    links = []
    for role, file in study.files.items():
        links.append(tmp_path / f"{role}.nii.gz")
        links[-1].symlink_to(file)
    assert check_study(Study("linked", "a", "fdg", *links)) == []


def rewrite(file: Path, array=None, affine=None, **header) -> None:
    """Write a file anew with another array, affine, or entries of the header."""
    image = nib.load(file)
    array = np.asanyarray(image.dataobj) if array is None else array
    affine = image.affine if affine is None else affine
    image = nib.Nifti1Image(array, affine)
    image.set_qform(None, 0)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm")
    for name, value in header.items():
        image.header[name] = value
    nib.save(image, file)


def sheared():
    affine = las((4, 4, 5))
    affine[0, 2] = 1.5
    return affine


def rotated(degrees):
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ las((4, 4, 5))


def singular():
    affine = las((4, 4, 5))
    affine[:3, 1] = affine[:3, 0]
    return affine


def with_value(array, value):
    changed = array.astype(np.float32)
    changed[5, 5, 5] = value
    return changed


def patch_header(file, offset, value):
    """Change a 32-bit number of a header behind nibabel's back."""
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[offset : offset + 4] = np.float32(value).tobytes()
    file.write_bytes(gzip.compress(bytes(content)))


def damage_middle(file):
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 100] = bytes(100)
    file.write_bytes(content)


def enlarge_header(file):
    """Let a header speak of 27 million million voxels."""
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[42:48] = np.full(3, 30000, "<i2").tobytes()
    file.write_bytes(gzip.compress(bytes(content)))


# Where a NIfTI-1 header holds the first spacing and the first number of the affine, in bytes.
PIXDIM, SROW_X = 80, 280

CT, PET, LABEL = make_study()
ZEROS = np.zeros(CT.shape, np.float32)
CORNER = (np.indices(CT.shape).sum(axis=0) < 3).astype(np.uint8)

# What is done to which file of a good study, and words of the sentence that says so.
ERRORS = {
    "missing": ("ct", lambda f: f.unlink(), "does not exist"),
    "empty file": ("pet", lambda f: f.write_bytes(b""), "is empty"),
    "cut off": ("pet", lambda f: f.write_bytes(f.read_bytes()[:4000]), "cut off"),
    "cut off in the header": ("pet", lambda f: f.write_bytes(f.read_bytes()[:60]), "cut off"),
    "size that the file cannot hold": ("ct", enlarge_header, "damaged or cut off"),
    "damaged gzip": ("ct", damage_middle, "damaged"),
    "not gzip": ("ct", lambda f: f.write_bytes(gzip.decompress(f.read_bytes())), "not compressed"),
    "not NIfTI": ("label", lambda f: f.write_bytes(gzip.compress(b"DICM" * 400)), "not a NIfTI"),
    "text instead of NIfTI": ("label", lambda f: f.write_bytes(gzip.compress(b"404")), "not a NIfTI"),
    "2-D": ("pet", lambda f: rewrite(f, PET[:, :, 5]), "2 dimensions"),
    "one slice": ("pet", lambda f: rewrite(f, PET[:, :1, :]), "single slice"),
    "4-D": ("pet", lambda f: rewrite(f, np.stack([PET, PET], -1)), "4 dimensions"),
    "no voxels": ("pet", lambda f: rewrite(f, PET[:0]), "no voxels"),
    "colours": ("ct", lambda f: rewrite(f, np.zeros(CT.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])), "colours"),
    "complex": ("ct", lambda f: rewrite(f, CT.astype(np.complex64)), "complex"),
    "NaN voxel": ("ct", lambda f: rewrite(f, with_value(CT, np.nan)), "1 voxels without a number"),
    "infinite voxel": ("pet", lambda f: rewrite(f, with_value(PET, np.inf)), "1 voxels without a number"),
    "affine NaN": ("pet", lambda f: patch_header(f, SROW_X, np.nan), "not a number"),
    "affine singular": ("pet", lambda f: rewrite(f, affine=singular()), "singular"),
    "affine sheared": ("ct", lambda f: rewrite(f, affine=sheared()), "sheared"),
    "spacing zero": ("pet", lambda f: patch_header(f, PIXDIM, 0), "zero or negative"),
    "spacing negative": ("pet", lambda f: patch_header(f, PIXDIM, -4), "zero or negative"),
    "spacing NaN": ("pet", lambda f: patch_header(f, PIXDIM, np.nan), "zero or negative"),
    "spacing contradictory": ("pet", lambda f: patch_header(f, PIXDIM, 2), "elsewhere"),
    "spacing in metres": ("ct", lambda f: rewrite(f, affine=las((0.004, 0.004, 0.005))), "not in mm"),
    "unit metres": ("ct", lambda f: rewrite(f, xyzt_units=1), "not in mm"),
    "spacing wild": ("ct", lambda f: rewrite(f, affine=las((400, 400, 500))), "no PET/CT"),
    "CT constant": ("ct", lambda f: rewrite(f, ZEROS), "same value"),
    "CT normalised": ("ct", lambda f: rewrite(f, np.clip((CT + 1000) / 2000, 0, 1).astype(np.float32)), "0 to 1"),
    "CT positive": ("ct", lambda f: rewrite(f, (CT + 1024).astype(np.uint16)), "no negative value"),
    "PET zero": ("pet", lambda f: rewrite(f, ZEROS), "same value 0"),
    "PET in Bq/ml": ("pet", lambda f: rewrite(f, PET * 5000), "Bq/ml"),
    "PET negative": ("pet", lambda f: rewrite(f, PET - 3), "negative"),
    "PET too low": ("pet", lambda f: rewrite(f, PET / PET.max() * 0.2), "less than any tissue"),
    "CT elsewhere": ("ct", lambda f: rewrite(f, affine=las((4, 4, 5), (500, 0, 0))), "lies elsewhere"),
    "label of another size": ("label", lambda f: rewrite(f, LABEL[:-1]), "resample it"),
    "label elsewhere": ("label", lambda f: rewrite(f, affine=las((4, 4, 5), (2, 0, 0))), "2.0 mm beside the PET"),
    "label not binary": ("label", lambda f: rewrite(f, LABEL * 2), "holds the values 0, 2"),
    "label with fractions": ("label", lambda f: rewrite(f, LABEL * np.float32(0.5)), "holds the values 0, 0.5"),
}

WARNINGS = {
    "spacing unusual": ("ct", lambda f: rewrite(f, affine=las((4, 4, 25))), "unusual voxel spacing"),
    "oblique": ("pet", lambda f: rewrite(f, affine=rotated(30)), "oblique"),
    "CT without air": ("ct", lambda f: rewrite(f, np.maximum(CT, -100)), "air would be -1000"),
    "CT without bone": ("ct", lambda f: rewrite(f, np.minimum(CT, 20)), "bone has several hundred"),
    "PET very high": ("pet", lambda f: rewrite(f, with_value(PET, 5000)), "highest SUV of 5000"),
    "PET a little negative": ("pet", lambda f: rewrite(f, with_value(PET, -0.5)), "a few negative"),
    "PET low": ("pet", lambda f: rewrite(f, PET / PET.max() * 0.9), "was not normalised"),
    "CT overlaps partly": ("ct", lambda f: rewrite(f, CT[:, :, :9]), "the rest is taken as air"),
    "label outside of the body": ("label", lambda f: rewrite(f, CORNER), "mostly where the PET is below"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_broken_study_is_an_error_that_names_the_file(study, kind):
    role, damage, words = ERRORS[kind]
    damage(study.files[role])
    problems = check_study(study)
    assert problems
    assert problems[0].error
    assert problems[0].file == study.files[role]
    assert words in str(problems[0])
    assert str(problems[0]).startswith(f"study {CASE}: {study.files[role].name} ")
    # What is to be done stands behind the colon.
    assert len(problems[0].message.partition(": ")[2].split()) >= 3


@pytest.mark.parametrize("kind", WARNINGS)
def test_remarkable_study_is_used_with_a_warning(study, kind):
    role, change, words = WARNINGS[kind]
    change(study.files[role])
    if kind == "oblique":
        rewrite(study.label, affine=rotated(30))
        rewrite(study.ct, affine=rotated(30))
    problems = check_study(study)
    assert problems
    assert not any(problem.error for problem in problems)
    assert words in str(next(problem for problem in problems if problem.file == study.files[role]))


def test_file_that_is_cut_off_anywhere_is_called_so(study):
    whole = study.pet.read_bytes()
    for length in (3, 20, 100, 400, 500, 700, 1000, 2000, len(whole) - 100, len(whole) - 1):
        study.pet.write_bytes(whole[:length])
        assert "is damaged or cut off" in str(check_study(study)[0]), length


def test_one_changed_bit_of_a_compressed_file_is_noticed(study):
    content = bytearray(study.pet.read_bytes())
    # The checksum is what cannot be decompressed into other voxels.
    content[-8] ^= 1
    study.pet.write_bytes(content)
    assert "is damaged or cut off" in str(check_study(study)[0])


def test_exchanged_ct_and_pet_are_recognised(study):
    problems = check_study(Study(CASE, "p", "fdg", study.pet, study.ct, study.label))
    assert ["exchange the two files" in str(problem) for problem in problems if problem.error] == [True]


def test_ct_in_place_of_the_pet_is_recognised(study):
    problems = check_study(Study(CASE, "p", "fdg", study.ct, study.ct))
    assert [(problem.error, "same image" in str(problem)) for problem in problems] == [(True, True)]


def test_trailing_axes_of_length_one_are_accepted(study):
    rewrite(study.pet, PET[..., None])
    assert check_study(study) == []


def test_scaled_integers_are_judged_by_their_values(study):
    image = nib.Nifti1Image(PET, las((4, 4, 5)))
    image.set_data_dtype(np.int16)
    image.header.set_xyzt_units("mm")
    nib.save(image, study.pet)
    assert nib.load(study.pet).dataobj.slope != 1
    assert check_study(study) == []


def test_wrong_suffix_and_folder_are_errors(study, tmp_path):
    other = shutil.copy(study.pet, tmp_path / "pet.img")
    (tmp_path / "folder.nii").mkdir()
    assert "convert it to NIfTI" in str(check_study(Study("a", "a", "fdg", study.ct, Path(other)))[0])
    assert "does not exist" in str(check_study(Study("a", "a", "fdg", study.ct, tmp_path / "folder.nii"))[0])


def test_errors_come_before_warnings(study):
    rewrite(study.ct, np.maximum(CT, -100))
    rewrite(study.pet, PET * 5000)
    assert [problem.error for problem in check_study(study)] == [True, False]


def test_same_pet_in_two_studies_is_an_error_of_the_second(tmp_path):
    studies = [Study(case, case, "fdg", *write_study(tmp_path, case, seed)) for case, seed in (("b", 1), ("a", 1), ("c", 2))]
    digests = {study.case: read_study(study)[1]["pet"].digest for study in studies}
    assert [(problem.case, problem.error) for problem in find_repeated_images(digests)] == [("b", True)]
    assert "study a" in str(find_repeated_images(digests)[0])
