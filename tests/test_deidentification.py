"""Promises to those who pass results on: without the DICOM objects, nothing of them tells whose studies they are."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import re
import shutil
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_writer import Person, Variant, small_study, write_study
from helpers import BUNDLES, ENSEMBLE, SHARED, WINDOWS, las, needs_shared, rewrite, run_petct, write_nifti
from helpers import write_study as write_nifti_study
from monai.bundle import ConfigWorkflow

from petct_cascade import commands
from petct_cascade.deidentification import Words, deidentified_items, pseudonym, words_of
from petct_cascade.items import reference_items
from petct_cascade.problems import Problem
from petct_cascade.selection import SelectOptions, labelled_items
from petct_cascade.studies import find_studies
from petct_cascade.tasks import ReadoutOptions
from petct_cascade.volumes import read_volume
from petct_training.errors import InputError
from petct_training.files import write_json

SARCOMA_DICOM = SHARED / "data/soft_tissue_sarcoma_dicom"
PERSON = Person(identifier="PAT-7788-XY", name="Zwiebelfisch^Karoline", birth_date="19570314")
OPTIONS = ReadoutOptions(deidentified=True)


def secrets_of(folder: Path) -> set[str]:
    """Names, numbers and dates of a patient in DICOM files, dates in DICOM's form and in that of ISO 8601; and UIDs."""
    found = set()
    for file in (path for path in folder.rglob("*") if path.is_file()):
        for element in pydicom.dcmread(file, stop_before_pixels=True, force=True).iterall():
            values = element.value if element.VM > 1 else [element.value]
            if element.VR == "PN":
                found |= {part for part in re.split(r"[\^ =]", str(element.value)) if len(part) > 2}
            elif element.VR in ("DA", "DT"):
                days = {str(value)[:8] for value in values if re.match(r"\d{8}", str(value))}
                found |= days | {f"{day[:4]}-{day[4:6]}-{day[6:]}" for day in days}
            elif element.keyword in ("PatientID", "AccessionNumber", "StudyID", "StudyInstanceUID", "SeriesInstanceUID"):
                found.add(str(element.value))
    # What is shorter is in any digest.
    return {secret for secret in found if len(secret) > 4}


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """What is written in a folder but for the DICOM objects, each with its path: as it is, and all that is compressed or encoded in
    it.
    """
    for file in folder.rglob("*"):
        name = file.relative_to(folder).as_posix()
        yield name, name.encode()
        if not file.is_file() or file.suffix == ".dcm":
            continue
        content = file.read_bytes()
        yield name, content
        # Pictures in pages, and volumes in scripts.
        encoded = re.findall(rb"[\w+/]{40,}={0,2}", content) if file.suffix in (".html", ".js") else []
        for inner in (content, *(base64.b64decode(text) for text in encoded if len(text) % 4 == 0)):
            if inner.startswith(b"\x89PNG"):
                yield from ((name, text) for text in texts_of_png(inner))
            elif inner.startswith(b"\x1f\x8b"):
                yield name, gzip.decompress(inner)


def texts_of_png(content: bytes) -> Iterator[bytes]:
    """The chunks of a PNG file but for the pixels, also decompressed where they can be."""
    place = 8
    while place < len(content):
        length, kind = int.from_bytes(content[place : place + 4], "big"), content[place + 4 : place + 8]
        chunk = content[place + 8 : place + 8 + length]
        if kind != b"IDAT":
            yield chunk
            if kind in (b"zTXt", b"iTXt", b"iCCP"):
                yield zlib.decompress(chunk[chunk.index(b"\0") + 2 :].lstrip(b"\0"))
        place += 12 + length


def assert_nothing_tells(folder: Path, secrets: set[str], *said: str) -> None:
    """None of the secrets is in what was written or said, in capital or small letters."""
    assert secrets
    for name, content in [*contents(folder), *(("what was said", text.encode()) for text in said)]:
        told = {secret for secret in secrets if secret.lower().encode() in content.lower()}
        assert not told, (name, told)


def write_dicom(folder: Path, person: Person = PERSON, key: str = "a", numbers: bool = True) -> Path:
    """A study in DICOM in folders that are called after its patient; with numbers of its own."""
    place = folder / person.name.replace("^", " ") / person.identifier
    write_study(place, small_study(), Variant(person=person, study_key=key))
    for file in place.rglob("*") if numbers else ():
        if file.is_file():
            dataset = pydicom.dcmread(file)
            dataset.StudyID, dataset.AccessionNumber, dataset.SeriesDescription = "ST-9876", "ACC-31415", "AC Zwiebelfisch"
            dataset.save_as(file.rename(file.with_name(f"zwiebelfisch_{file.name}")))
    return folder


def write_bad_dicom(folder: Path) -> set[str]:
    """A study whose PET has no weight and a damaged file; return further words that tell whose it is."""
    person = Person(identifier="PAT-5566-AB", name="Quittengelee^Balduin", birth_date="19480229")
    bad = write_dicom(folder, person, "b", numbers=False) / "Quittengelee Balduin"
    files = sorted(file for file in bad.rglob("*") if file.is_file() and pydicom.dcmread(file).Modality == "PT")
    for file in files:
        dataset = pydicom.dcmread(file)
        del dataset.PatientWeight
        dataset.save_as(file)
        file.rename(file.with_name(f"quittengelee_{file.name}"))
    files[0].with_name("balduin.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    return {"quittengelee", "balduin", "PAT-5566-AB"}


def segment(studies: Path, output: Path, options: ReadoutOptions = OPTIONS, **selection) -> None:
    """An inference by its commands, whose networks find what has an SUV above 4."""

    def select():
        return commands.select_studies(studies, output_dir=output, deidentified=options.deidentified, **selection)

    todo = select()
    for item in todo.items:
        plan = todo.masks.plan(item)
        with todo.masks.records.making(plan):
            source = item["image"][1]
            pet, _ = read_volume(Path(source) if isinstance(source, str) else source)
            write_nifti(output / f"{item['case']}.nii.gz", (pet.array > 4).astype(np.uint8), pet.affine)
    again = select()
    assert not again.items, "a rerun recognises its results"
    commands.infer(None, again, output, options)


class TestInference:
    def test_tells_nothing_and_says_nothing_and_a_rerun_leaves_all_as_it_was(self, tmp_path, capfd):
        folder = write_dicom(tmp_path / "in")
        segment(folder, tmp_path / "out")
        said = "".join(capfd.readouterr())
        secrets = secrets_of(folder) | {"zwiebelfisch", "2023-05-04"}
        assert {"Karoline", PERSON.identifier, "ST-9876", "ACC-31415", "19570314", "1957-03-14"} <= secrets
        assert_nothing_tells(tmp_path / "out", secrets, said)
        (case,) = json.loads((tmp_path / "out/readouts.json").read_text())
        assert re.fullmatch(r"fdg_[0-9a-f]{12}", case)
        report = pydicom.dcmread(tmp_path / f"out/dicom/{case}/report.dcm")
        assert report.PatientID == PERSON.identifier, "the DICOM objects belong to the patient"
        page = (tmp_path / f"out/studies/{case}.html").read_text()
        assert "factor" in page
        assert "SHA-256" in page
        # The record of tables and report keeps the clock of what was written.
        written = [file for file in (tmp_path / "out").rglob("*") if file.is_file() and file.name != ".summary.json"]
        files = {file: file.read_bytes() for file in written}
        segment(folder, tmp_path / "out")
        assert {file: file.read_bytes() for file in files} == files

    def test_moved_studies_keep_their_names_and_results(self, tmp_path):
        write_dicom(tmp_path / "in")
        segment(tmp_path / "in", tmp_path / "out")
        (tmp_path / "in").rename(tmp_path / "elsewhere")
        assert not commands.select_studies(tmp_path / "elsewhere", output_dir=tmp_path / "out", deidentified=True).items

    @pytest.mark.parametrize("first", [True, False])
    def test_results_with_names_and_without_never_share_a_folder(self, first, tmp_path):
        write_dicom(tmp_path / "in")
        segment(tmp_path / "in", tmp_path / "out", ReadoutOptions(deidentified=first))
        with pytest.raises(SystemExit, match="another kind"):
            segment(tmp_path / "in", tmp_path / "out", ReadoutOptions(deidentified=not first))

    def test_names_of_a_list_and_of_case_are_the_users_and_stay(self, tmp_path):
        ct, pet, _ = write_nifti_study(tmp_path / "in", "fdg_Zwiebelfisch_2020-01-02")
        rows = f"case,ct,pet,patient\nsubject 7,imagesTr/{ct.name},imagesTr/{pet.name},Zwiebelfisch\n"
        (tmp_path / "in/list.csv").write_text(rows)
        segment(tmp_path / "in/list.csv", tmp_path / "out")
        assert (tmp_path / "out/subject 7.nii.gz").is_file()
        assert_nothing_tells(tmp_path / "out", {"zwiebelfisch", "2020-01-02"})
        segment(tmp_path / "in", tmp_path / "named", ct=ct, pet=pet, case="subject 8")
        assert (tmp_path / "named/subject 8.nii.gz").is_file()
        segment(tmp_path / "in/imagesTr", tmp_path / "folder")
        (mask,) = (tmp_path / "folder").glob("*.nii.gz")
        assert re.fullmatch(r"fdg_[0-9a-f]{12}\.nii\.gz", mask.name)
        assert_nothing_tells(tmp_path / "folder", {"zwiebelfisch", "2020-01-02"})

    @needs_shared(SARCOMA_DICOM)
    @pytest.mark.parametrize("patient", ["STS_002", "STS_019"])
    def test_real_study_tells_nothing(self, patient, tmp_path, capfd):
        folder = SARCOMA_DICOM / patient
        segment(folder, tmp_path / "out")
        assert_nothing_tells(tmp_path / "out", secrets_of(folder), "".join(capfd.readouterr()))
        (case,) = json.loads((tmp_path / "out/readouts.json").read_text())
        assert (tmp_path / f"out/dicom/{case}/segmentation.dcm").is_file()


def test_converted_studies_tell_nothing_and_are_recognised(tmp_path, capfd):
    folder = write_dicom(tmp_path / "in")
    commands.convert(folder, tmp_path / "out", deidentified="true")
    secrets = secrets_of(folder) | {"zwiebelfisch"}
    assert_nothing_tells(tmp_path / "out", secrets, "".join(capfd.readouterr()))
    (pet,) = (tmp_path / "out/imagesTr").glob("*_0001.nii.gz")
    before = pet.stat().st_mtime_ns
    commands.convert(folder, tmp_path / "out", deidentified="true")
    assert pet.stat().st_mtime_ns == before
    header = nib.load(pet).header
    assert not any(bytes(header[name]).strip(b"\0") for name in ("descrip", "aux_file", "intent_name", "db_name"))


def test_a_list_says_which_converted_studies_are_of_one_patient_and_a_training_takes_no_other(tmp_path):
    folder, other = tmp_path / "in", Person(identifier="PAT-5566-AB", name="Quittengelee^Balduin", birth_date="19480229")
    for person, key in ((PERSON, "a"), (other, "b")):
        write_dicom(folder, person, key)
    commands.convert(folder, tmp_path / "out", deidentified=True)
    # Later runs, with another study of the first person, and with that alone.
    write_dicom(folder / "later", PERSON, "c")
    commands.convert(folder, tmp_path / "out", deidentified=True)
    commands.convert(folder / "later", tmp_path / "out", deidentified=True)
    studies, problems = find_studies(tmp_path / "out/studies.csv", labels=False)
    assert problems == []
    assert sorted(Counter(study.patient for study in studies).values()) == [1, 2]
    assert_nothing_tells(tmp_path / "out", secrets_of(folder) | {"zwiebelfisch", "Quittengelee", "Balduin"})
    for place in ("out", "out/imagesTr"):
        with pytest.raises(InputError, match=r"of which a list says which are of one patient: give .*studies\.csv"):
            find_studies(tmp_path / place, labels=True)
    # Labels that somebody draws later.
    (tmp_path / "out/labelsTr").mkdir()
    for pet in (tmp_path / "out/imagesTr").glob("*_0001.nii.gz"):
        shutil.copyfile(pet, tmp_path / f"out/labelsTr/{pet.name.replace('_0001', '')}")
    commands.convert(folder, tmp_path / "out", deidentified=True)
    studies, problems = find_studies(tmp_path / "out/studies.csv", labels=True)
    assert (len(studies), problems) == (3, [])
    patients = {item["case"]: item["patient"] for item in reference_items(tmp_path / "out").items}
    assert patients == {study.case: study.patient for study in studies}
    (tmp_path / "own").mkdir()
    (tmp_path / "own/studies.csv").write_text("case,ct,pet\n")
    with pytest.raises(SystemExit, match="is no result of this program, and is not replaced"):
        commands.convert(folder, tmp_path / "own", deidentified=True)


def test_studies_of_one_patient_stay_together_however_they_are_converted_and_without_ct_there_is_no_list(tmp_path):
    folders = [write_dicom(tmp_path / key, PERSON, key) for key in "abc"]
    for pair in ((0, 1), (1, 2)):
        for number in pair:
            shutil.copytree(folders[number], tmp_path / f"both {pair}" / str(number))
        commands.convert(tmp_path / f"both {pair}", tmp_path / "out", deidentified=True)
    studies, _ = find_studies(tmp_path / "out/studies.csv", labels=False)
    assert [len(studies), len({study.patient for study in studies})] == [3, 1]
    for file in folders[0].rglob("*"):
        if file.is_file() and pydicom.dcmread(file).Modality == "CT":
            file.unlink()
    for _ in range(2):
        commands.convert(folders[0], tmp_path / "without", deidentified=True)
    assert not (tmp_path / "without/studies.csv").exists()


def test_a_data_set_whose_studies_lie_elsewhere_is_refused_without_their_names(tmp_path):
    case = "fdg_MuellerHans_2016"
    for name in (f"labels/{case}.nii", f"images/{case}.nii"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    elsewhere = dict.fromkeys(("ct", "pet", "label"), str(tmp_path.parent / f"{case}.nii.gz"))
    item = {"case": case, "patient": "MuellerHans", "tracer": "fdg", "original": elsewhere}
    item |= {"image": f"images/{case}.nii", "label": f"labels/{case}.nii"}
    write_json(tmp_path / "datalist.json", {"studies_dir": str(tmp_path), "training": [], "validation": [item]})
    write_json(tmp_path / "fingerprint.json", {})
    options = {"output_dir": tmp_path / "out", "folders": [], "weights": [], "settings": {}, "deidentified": True}
    with pytest.raises(SystemExit, match="lies outside of") as end:
        commands.select_labelled(tmp_path, tmp_path / "fingerprint.json", **options)
    assert "Mueller" not in str(end.value)


def test_problems_of_studies_tell_nothing_and_say_what_to_do(tmp_path, capfd):
    folder = write_dicom(tmp_path / "in")
    secrets = secrets_of(folder) | {"zwiebelfisch"} | write_bad_dicom(folder)
    with pytest.raises(SystemExit) as end:
        commands.convert(folder, tmp_path / "out", deidentified="true")
    assert end.value.code == 3
    said = "".join(capfd.readouterr())
    assert_nothing_tells(tmp_path / "out", secrets, said)
    assert re.search(r"study fdg_[0-9a-f]{12}: PET has no patient weight \(PatientWeight\): give it with --weight, in kg", said)


def test_studies_that_cannot_be_used_and_places_with_names_are_not_named(tmp_path, capfd):
    folder = tmp_path / "Anna Maria Schmidt"
    for case in ("fdg_Anna Maria Schmidt_day", "fdg_Otto Klein_x", "FDG_otto klein_x", "fdg_Eva Gross_1"):
        write_nifti_study(folder, case)
    (folder / "imagesTr/fdg_Anna Maria Schmidt_day_0000.nii.gz").unlink()
    shutil.copyfile(folder / "imagesTr/fdg_Eva Gross_1_0001.nii.gz", folder / "imagesTr/fdg_Eva Gross_1_0001.nii")
    selection = commands.select_studies(folder, deidentified=True)
    said = " ".join(map(str, selection.problems))
    assert len(selection.problems) == 4
    for place in (tmp_path / "Bert Braun", folder):
        if place == folder:
            shutil.rmtree(folder)
            folder.write_text("no folder")
        with pytest.raises(SystemExit) as end:
            commands.select_studies(place, deidentified=True)
        said += str(end.value)
    said += "".join(capfd.readouterr())
    assert not re.search(r"(?i)anna|maria|schmidt|otto|klein|eva|gross|bert|braun", said), said


def test_read_outs_of_masks_tell_nothing_and_are_kept(tmp_path, capfd):
    _, pet, label = write_nifti_study(tmp_path / "in", "psma_Zwiebelfisch_2020-01-02")
    shutil.copy(label, tmp_path / "in/labelsTr/zwiebelfisch twice.nii.gz")
    with pytest.raises(SystemExit):
        commands.read_out_folder(label.parent, pet.parent, tmp_path / "out", options=OPTIONS)
    (tmp_path / "in/labelsTr/zwiebelfisch twice.nii.gz").unlink()
    commands.read_out_folder(label.parent, pet.parent, tmp_path / "again", options=OPTIONS)
    said = "".join(capfd.readouterr())
    for name in ("out", "again"):
        assert_nothing_tells(tmp_path / name, {"zwiebelfisch", "2020-01-02"}, said)
    page = (tmp_path / "again/report.html").read_bytes()
    commands.read_out_folder(label.parent, pet.parent, tmp_path / "again", options=OPTIONS)
    assert (tmp_path / "again/report.html").read_bytes() == page
    with open(tmp_path / "again/readouts_studies.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["case"] == pseudonym("psma", pet)


class TestScores:
    SECRETS = frozenset({"zwiebelfisch", "karoline", "2020-01-02", "quittengelee"})

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write two studies with images and labels, and the labels once more as masks; return both folders."""
        for seed, name in enumerate(("Zwiebelfisch Karoline", "Quittengelee")):
            _, _, label = write_nifti_study(folder / "raw", f"fdg_{name}_2020-01-02", seed=seed)
            (folder / "masks").mkdir(exist_ok=True)
            shutil.copy(label, folder / "masks")
        return folder / "raw", folder / "masks"

    def score(self, raw: Path, masks: Path, output: Path, images: Path | None = None) -> None:
        commands.score_folder(masks, commands.reference_items(raw, images=images, deidentified=True), output, options=OPTIONS)

    def test_tell_nothing_and_a_rerun_leaves_all_as_it_was(self, tmp_path, capfd):
        raw, masks = self.write(tmp_path)
        self.score(raw, masks, tmp_path / "out")
        assert_nothing_tells(tmp_path / "out", set(self.SECRETS), "".join(capfd.readouterr()))
        with open(tmp_path / "out/scores.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert {row["case"] for row in rows} == {pseudonym("fdg", pet) for pet in (raw / "imagesTr").glob("*_0001.nii.gz")}
        assert {row["dice"] for row in rows} == {"1.0"}
        assert len(list((tmp_path / "out/studies").glob("*.html"))) == 2
        page = (tmp_path / "out/report.html").read_bytes()
        self.score(raw, masks, tmp_path / "out")
        assert (tmp_path / "out/report.html").read_bytes() == page
        with pytest.raises(SystemExit, match="another kind"):
            commands.score_folder(masks, commands.reference_items(raw), tmp_path / "out")

    def test_reference_that_cannot_be_used_tells_nothing_and_all_others_are_scored(self, tmp_path, capfd):
        raw, masks = self.write(tmp_path)
        for name in ("Balduin", "Xanthippe"):
            _, _, label = write_nifti_study(tmp_path / "raw", f"fdg_{name}_2020-01-02", seed=7)
            shutil.copy(label, masks)
            label.rename(label.with_name(label.name.replace(".nii.gz", ".NII.GZ")))
        shutil.copy(label.parent / "fdg_Quittengelee_2020-01-02.nii.gz", masks / "fdg_Adalbert_2020-01-02.nii.gz")
        with pytest.raises(SystemExit, match=r"could not be scored, all others were:") as end:
            self.score(raw, masks, tmp_path / "out")
        assert end.value.code == 3
        told = sorted(row["case"] for row in json.loads((tmp_path / "out/problems.json").read_text()))
        assert told == ["unnamed 1", "unnamed reference 1", "unnamed reference 2"]
        words = {*self.SECRETS, "balduin", "xanthippe", "adalbert"}
        assert_nothing_tells(tmp_path / "out", words, "".join(capfd.readouterr()) + str(end.value))
        with open(tmp_path / "out/scores.csv", newline="") as file:
            assert [row["dice"] for row in csv.DictReader(file)] == ["1.0", "1.0"]

    def test_intervals_are_over_the_same_patients(self, tmp_path):
        references, masks = tmp_path / "raw/labelsTr", tmp_path / "masks"
        # Masks lie the further beside their references the fewer studies the patient has.
        for shift, (patient, visits) in enumerate((("Zwiebelfisch", 4), ("Karoline", 3), ("Quittengelee", 2), ("Balduin", 1))):
            for visit in range(visits):
                _, _, label = write_nifti_study(tmp_path / "raw", f"fdg_{patient}_{visit}", seed=10 * shift + visit)
                mask = np.roll(np.asarray(nib.load(label).dataobj), shift, axis=0)
                write_nifti(masks / label.name, mask, nib.load(label).affine)
        commands.score_folder(masks, commands.reference_items(references), tmp_path / "named")
        self.score(references, masks, tmp_path / "out")
        assert_nothing_tells(tmp_path / "out", {*self.SECRETS, "balduin"})
        named, hidden = (json.loads((tmp_path / name / "summary.json").read_text())["means"][0] for name in ("named", "out"))
        for metric in ("dice", "fpv_ml", "fnv_ml"):
            assert named[metric]["low"] < named[metric]["high"]
            assert hidden[metric] == pytest.approx(named[metric]), metric

    def test_problems_tell_nothing_and_all_others_are_scored(self, tmp_path, capfd):
        raw, masks = self.write(tmp_path)
        first, second = sorted(masks.iterdir())
        shutil.copy(write_nifti_study(raw, "fdg_Zwiebelfisch_2020-01-02", seed=2)[2], masks)
        shutil.copy(first, masks / "of Karoline Zwiebelfisch.nii.gz")
        nib.save(nib.load(first), first.with_suffix(""))
        rewrite(second, np.full((16, 14, 18), 0.5, np.float32))
        with pytest.raises(SystemExit) as end:
            self.score(raw, masks, tmp_path / "out")
        assert end.value.code == 3
        assert (tmp_path / "out/scores.csv").read_text().count("\n") == 2
        said = "".join(capfd.readouterr()) + str(end.value)
        assert_nothing_tells(tmp_path / "out", set(self.SECRETS), said)
        for words in ("there is a second file", "belongs to no study", "mask of Prediction holds the values 0.5"):
            assert words in said

    def test_references_that_are_there_twice_are_refused_without_their_name(self, tmp_path):
        raw, masks = self.write(tmp_path)
        label = min((raw / "labelsTr").iterdir())
        nib.save(nib.load(label), label.with_suffix(""))
        with pytest.raises(SystemExit, match="there is a second file") as end:
            self.score(raw, masks, tmp_path / "out")
        assert not any(secret in str(end.value).lower() for secret in self.SECRETS)

    def test_studies_without_images_are_called_after_their_labels_and_equal_ones_are_told_apart(self, tmp_path):
        for patient, filled in (("Zwiebelfisch", 0), ("Quittengelee", 0), ("Karoline", 1)):
            for folder in ("masks", "references"):
                mask = np.full((8, 8, 8), filled, np.uint8)
                write_nifti(tmp_path / folder / f"fdg_{patient}_2020-01-02.nii", mask, las((4, 4, 5)))
        self.score(tmp_path / "references", tmp_path / "masks", tmp_path / "out")
        assert_nothing_tells(tmp_path / "out", set(self.SECRETS))
        with open(tmp_path / "out/scores.csv", newline="") as file:
            cases = [row["case"] for row in csv.DictReader(file)]
        empty = pseudonym("fdg", tmp_path / "references/fdg_Quittengelee_2020-01-02.nii")
        full = pseudonym("fdg", tmp_path / "references/fdg_Karoline_2020-01-02.nii")
        assert cases == sorted([empty, f"{empty}_2", full])


def test_validation_studies_get_names_that_tell_nothing(tmp_path):
    ct, pet, label = write_nifti_study(tmp_path / "raw", "fdg_Zwiebelfisch_2020-01-02")
    original = {"ct": f"imagesTr/{ct.name}", "pet": f"imagesTr/{pet.name}", "label": f"labelsTr/{label.name}"}
    entry = {"case": "fdg_Zwiebelfisch_2020-01-02", "patient": "Zwiebelfisch", "tracer": "fdg", "original": original}
    content = {"studies_dir": "raw", "validation": [entry], "training": []}
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    (tmp_path / "fingerprint.json").write_text("{}")
    options = SelectOptions(deidentified=True)
    ((item,), problems) = labelled_items(tmp_path, tmp_path / "fingerprint.json", options=options)
    assert item["case"] == item["patient"] == pseudonym("fdg", pet)
    ((again,), _) = labelled_items(tmp_path, tmp_path / "fingerprint.json", tmp_path / "raw", options)
    assert (again["case"], again["image"], problems) == (item["case"], item["image"], [])


class TestNames:
    def test_follow_from_the_content_alone(self, tmp_path):
        _, first, _ = write_nifti_study(tmp_path / "a", "fdg_x_1", seed=1)
        _, second, _ = write_nifti_study(tmp_path / "b", "fdg_y_2", seed=2)
        copy = shutil.copy(first, tmp_path / "copy.nii.gz")
        assert pseudonym("fdg", first) == pseudonym("fdg", copy) != pseudonym("fdg", second)
        assert pseudonym("what a list says", first).startswith("study_")

    def test_patient_is_called_after_the_first_of_the_patients_studies(self, tmp_path):
        rows = ["case,ct,pet,patient"]
        for seed, patient in enumerate(("Zwiebelfisch", "Zwiebelfisch", "Quittengelee", "Zwiebelfisch")):
            ct, pet, _ = write_nifti_study(tmp_path, f"{patient}-{seed}", seed=seed)
            rows.append(f"subject {9 - seed},imagesTr/{ct.name},imagesTr/{pet.name},{patient}")
        (tmp_path / "list.csv").write_text("\n".join(rows))
        items = commands.select_studies(tmp_path / "list.csv", deidentified=True).items
        assert {item["case"]: item["patient"] for item in items} == {
            "subject 9": "subject 6", "subject 8": "subject 6", "subject 7": "subject 7", "subject 6": "subject 6",
        }  # fmt: skip

    def test_same_image_twice_is_refused(self, tmp_path):
        ct, pet, _ = write_nifti_study(tmp_path, "fdg_x_1")
        items = [{"case": case, "image": [str(ct), str(pet)]} for case in "ab"]
        with pytest.raises(InputError, match="is there twice"):
            deidentified_items(items)


class TestWords:
    @pytest.mark.parametrize(
        "text",
        [
            "/data/Miller/IM1.dcm is damaged",
            "is the same as 'Miller WB AC'",
            "Miller_0001.nii.gz is missing",
            "was made on 2023-05-04",
            "was made on 20230504",
            "has the UID 1.2.840.113619.2.55",
            "belongs to MILLER",
            "add MILLER_0001.nii.gz",
            "add MILLER_0001 to it",
            "was made on 12-10-2023",
            "was made on 4.5.2023",
        ],
    )
    def test_are_left_out(self, text):
        hidden = Words({}, frozenset({"MILLER"})).hide(text)
        assert "…" in hidden
        assert not re.search(r"(?i)miller|2023|113619|IM1", hidden)

    def test_sentence_keeps_what_helps(self, tmp_path):
        words = words_of([("pet", tmp_path / "miller.nii.gz")])
        problem = words.problem(
            Problem("a", tmp_path / "miller.nii.gz", "has no weight: give it with --weight, in kg", error=True)
        )
        assert str(problem) == "study a: PET has no weight: give it with --weight, in kg"
        sentence = "is in a unit from which no SUV can be computed: export it from the scanner in Bq/ml (BQML)"
        assert words.hide(sentence) == sentence


@pytest.mark.slow
def test_evaluation_tells_nothing(models, tmp_path, monkeypatch, capfd):
    ct, pet, label = write_nifti_study(tmp_path / "raw", "fdg_Zwiebelfisch_2020-01-02", shape=(24, 18, 22))
    original = {"ct": f"imagesTr/{ct.name}", "pet": f"imagesTr/{pet.name}", "label": f"labelsTr/{label.name}"}
    entry = {"case": "fdg_Zwiebelfisch_2020-01-02", "patient": "Zwiebelfisch", "tracer": "fdg", "original": original}
    content = {"studies_dir": "raw", "validation": [entry], "training": []}
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    monkeypatch.chdir(BUNDLES / ENSEMBLE)
    options = {"dataset_dir": str(tmp_path), "output_dir": str(tmp_path / "out"), "ckpt_dir": str(models), "patch_sizes": WINDOWS}
    workflow = ConfigWorkflow(
        config_file=[f"configs/{name}.json" for name in ("inference", "evaluate", "demo")],
        logging_file=False,
        workflow_type="infer",
        deidentified=True,
        **options,
    )
    workflow.initialize()
    workflow.run()
    assert_nothing_tells(tmp_path / "out", {"zwiebelfisch", "2020-01-02"}, "".join(capfd.readouterr()))
    case = pseudonym("fdg", pet)
    assert (tmp_path / f"out/masks/Ensemble/{case}.nii.gz").is_file()
    page = (tmp_path / "out/report.html").read_text()
    assert "model.pt" in page
    assert "overlap" in page


@pytest.mark.parametrize("option", [["--deidentified"], ["--set", "deidentified=true"]], ids=" ".join)
def test_option_is_quiet_of_the_folder_too(option, tmp_path):
    folder = write_dicom(tmp_path / "in")
    done = run_petct("convert", folder, "-o", tmp_path / "out", *option)
    assert done.returncode == 0, done.stderr
    assert_nothing_tells(tmp_path / "out", secrets_of(folder) | {"zwiebelfisch", str(folder)}, done.stdout, done.stderr)


@pytest.mark.slow
def test_commands_tell_nothing_on_the_console(models, tmp_path):
    folder = write_dicom(tmp_path / "in")
    secrets = secrets_of(folder) | {"zwiebelfisch"} | write_bad_dicom(folder)
    for name, *further in (["segment", "--weights", models, "--profile", "demo"], ["convert"]):
        done = run_petct(name, folder, "-o", tmp_path / name, *further, "--deidentified")
        assert done.returncode == 3, done.stderr
        assert_nothing_tells(tmp_path / name, secrets, done.stdout, done.stderr)
        assert "give it with --weight" in done.stderr
    (problem,) = json.loads((tmp_path / "segment/problems.json").read_text())
    assert re.fullmatch(r"fdg_[0-9a-f]{12}", problem["case"])
