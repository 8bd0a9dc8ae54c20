"""Promises of docs/viewers.md: other programs open the DICOM objects, and show what the page says."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import ohif
import pytest
from browser import BROWSER, Browser
from dicom_writer import Person, small_study, write_study
from helpers import ROOT

from petct_cascade.dicom.finding import find_in_folder
from petct_cascade.dicom.report_writer import write_report
from petct_cascade.dicom.segmentation_writer import write_segmentation
from petct_cascade.readouts import study_readouts
from petct_cascade.volumes import read_volume

PAGE = (ROOT / "docs/viewers.md").read_text()
# Where pip puts programs of packages.
PATH = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
needs_dcmqi = pytest.mark.skipif(shutil.which("tid1500reader", path=PATH) is None, reason="dcmqi is absent: install it")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with DICOM, a study, and with OUT/dicom/CASE, its objects; and the mask and the read-outs from which they are made."""
    folder = tmp_path_factory.mktemp("viewers")
    study = write_study(folder / "DICOM", small_study())
    pet = find_in_folder(folder / "DICOM")[0][0].pet
    readouts = study_readouts(study.label, read_volume(pet)[0].array, study.pet_affine)
    objects = folder / "OUT/dicom/CASE"
    objects.mkdir(parents=True)
    segmentation, _ = write_segmentation(objects / "segmentation.dcm", study.label, pet, "1.2.3")
    write_report(objects / "report.dcm", readouts, segmentation, pet, "1.2.3")
    np.save(folder / "mask.npy", study.label)
    (folder / "readouts.json").write_text(json.dumps(readouts))
    return folder


def type_in(folder: Path, program: str) -> None:
    """Type the page's command of a program."""
    (command,) = re.findall(rf"^    ({program} .*)$", PAGE, flags=re.MULTILINE)
    subprocess.run(command, shell=True, cwd=folder, env={**os.environ, "PATH": PATH}, check=True, capture_output=True)


@needs_dcmqi
def test_dcmqi_reads_a_mask_of_each_lesion(folder):
    (folder / "SEGMENTS").mkdir()
    type_in(folder, "segimage2itkimage")
    files = list((folder / "SEGMENTS").glob("*.nii.gz"))
    assert len(files) == 3
    voxels = sum(int(np.count_nonzero(nib.load(file).dataobj)) for file in files)
    assert voxels == np.count_nonzero(np.load(folder / "mask.npy"))


@needs_dcmqi
def test_dcmqi_reads_the_read_outs_of_each_lesion_and_of_the_study(folder):
    type_in(folder, "tid1500reader")
    readouts = json.loads((folder / "readouts.json").read_text())
    *lesions, study = json.loads((folder / "report.json").read_text())["Measurements"]
    assert [lesion["TrackingIdentifier"] for lesion in lesions] == ["Lesion 1", "Lesion 2", "Lesion 3"]
    assert [lesion["ReferencedSegment"] for lesion in lesions] == [1, 2, 3]
    for group, values in zip([*lesions, study], [*readouts["lesions"], readouts["study"]], strict=True):
        numbers = [float(item["value"]) for item in group["measurementItems"]]
        volume = values["tmtv_ml" if group is study else "volume_ml"]
        assert numbers[:2] == pytest.approx([volume, values["tlg_g"]])
        assert values["suv_peak"] in [pytest.approx(number) for number in numbers]


def test_highdicom_reads_both(folder):
    lines = re.search(r"(?:^    .*\n)+", PAGE.partition("\n## highdicom\n")[2], flags=re.MULTILINE)
    assert lines
    check = "import numpy as np; np.save('found.npy', mask)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{textwrap.dedent(lines[0])}{check}"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    label = np.load(folder / "mask.npy")
    found = np.load(folder / "found.npy")
    assert np.count_nonzero(found) == np.count_nonzero(label)
    assert sorted(np.unique(found)) == [0, 1, 2, 3]
    said = done.stdout.splitlines()
    assert [line.split(" [")[0] for line in said] == ["Lesion 1", "Lesion 2", "Lesion 3", "Study"]
    assert all("'Metabolic Volume'" in line for line in said[:3])
    readouts = json.loads((folder / "readouts.json").read_text())
    for line, values in zip(said, [*readouts["lesions"], readouts["study"]], strict=True):
        items = ast.literal_eval(line[line.index("[") :])
        found = {name: value for name, value, _ in items}
        assert len(found) == len(items)
        assert found["SUVbw, Peak Value Within ROI"] == pytest.approx(values["suv_peak"])
        assert found["SUVbw, Maximum"] == pytest.approx(values["suv_max"])
    assert found["Metabolic Volume, Total"] == pytest.approx(readouts["study"]["tmtv_ml"])


@pytest.fixture(scope="module")
def viewer() -> Iterator[str]:
    """The address of OHIF."""
    try:
        pages = ohif.fetch(ohif.FOLDER)
    except SystemExit as end:
        pytest.skip(str(end))
    server = ohif.serve(pages, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome: install chromium")
def test_ohif_lists_every_lesion_by_its_name(folder, viewer, tmp_path):
    with Browser(tmp_path / "profile", 1600, timeout=120, offline=False) as browser:
        browser.call("Page.navigate", url=f"{viewer}/local")
        browser.wait_for("document.querySelectorAll('input[type=file]').length > 0")
        files = [file for place in ("DICOM", "OUT") for file in (folder / place).rglob("*") if file.is_file()]
        browser.choose_files("input[type=file]", files)
        browser.click("button", "Confirm and hide")
        browser.click("td", Person().identifier)
        browser.click("button", "Segmentation")
        # Both viewports tell their window and level once they show an image.
        browser.wait_for("document.body.innerText.split('W:').length > 2")
        browser.click("div, span", "Lesions", count=2)
        browser.click("button", "Yes")
        browser.wait_for("document.body.innerText.includes('Lesion 3 (tracer-avid)')")
        text = browser.run("document.body.innerText")
    assert [line for line in text.splitlines() if "tracer-avid" in line] == [f"Lesion {n} (tracer-avid)" for n in (1, 2, 3)]
