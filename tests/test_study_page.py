"""The page of a study shows where its lesions are, in the right place and the right way round, and works from a file."""

from __future__ import annotations

import base64
import gzip
import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nibabel as nib
import numpy as np
import pytest
from browser import BROWSER, Browser
from nibabel.affines import apply_affine
from PIL import Image

from petct_cascade.pictures import overlay_picture
from petct_cascade.readouts import study_readouts
from petct_cascade.report.projections import ANGLES, mask_projections, projections, write_rotation
from petct_cascade.report.reducing import reduced, reduced_affine
from petct_cascade.report.scenes import StudyImages, numbered_scene, places_of_lesions
from petct_cascade.report.study_page import PageTable, StudyPageContent, write_study_page
from petct_cascade.report.viewer import viewer_volumes
from petct_training.errors import InputError

CASE = "fdg_a #1 50% Ganzkörper.v1"
HOSTILE = "fdg_<img src=x onerror=alert(1)> & \"'%41"
SPACING = np.array([4.0, 4.0, 5.0])
# The centres of three lesions, the largest first, in world mm: right and in front, left and behind, in the middle and high up.
CENTRES = np.array([[50.0, 30.0, -40.0], [-60.0, -30.0, 20.0], [0.0, 0.0, 80.0]])
RADII = (16.0, 12.0, 8.0)
COLUMNS = (
    ("lesion", "Lesion", 0, ""),
    ("volume_ml", "Volume (ml)", 2, "Number of voxels times voxel volume."),
    ("site", "Site", None, ""),
)


def study(orientation: str = "LPS", tilt: float = 0.0) -> StudyImages:
    """A body of soft tissue with three lesions of SUV 8, 6 and 4; the reference lacks the third.

    Args:
        orientation: where the array's axes run to.
        tilt: by how many degrees the voxels' axes are turned around a line 60 mm in front of the patient's long axis.
    """
    canonical = np.diag([*SPACING, 1.0])
    canonical[:3, 3] = [-118, -78, -148]
    codes = nib.orientations.axcodes2ornt(orientation)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), codes)
    shape = (60, 40, 60)
    affine = canonical @ nib.orientations.inv_ornt_aff(turn, shape)
    shape = tuple(np.array(shape)[np.argsort(turn[:, 0])])
    angle = np.deg2rad(tilt)
    rotation, forwards = np.eye(4), np.eye(4)
    forwards[1, 3] = 60
    rotation[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = forwards @ rotation @ np.linalg.inv(forwards) @ affine
    places = apply_affine(affine, np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1))
    body = (places[..., 0] / 100) ** 2 + (places[..., 1] / 65) ** 2 < 1
    distances = [np.linalg.norm(places - centre, axis=-1) for centre in CENTRES]
    lesions = [distance < radius for distance, radius in zip(distances, RADII, strict=True)]
    pet = np.where(body, 1.0, 0.0).astype(np.float32)
    for lesion, suv in zip(lesions, (8, 6, 4), strict=True):
        pet[lesion] = suv
    # The CT tells the sides apart: its HU grow towards the patient's right.
    ct = np.where(body, places[..., 0], -1000).astype(np.float32)
    return StudyImages(pet, affine, ct, None, np.logical_or(*lesions[:2]).astype(np.uint8), np.any(lesions, axis=0))


def content(images: StudyImages, folder: Path, case: str, **more) -> StudyPageContent:
    """What the page of a study shows, with its picture drawn."""
    picture = overlay_picture(folder / f"pictures/{case}.png", images.pet, images.affine, images.reference, images.prediction)
    lesions = {role: study_readouts(mask, images.pet, images.affine)["lesions"] for role, mask in images.masks.items()}
    tables = {role: PageTable(COLUMNS, [{**row, "site": "<b>bone</b>"} for row in rows]) for role, rows in lesions.items()}
    readouts = PageTable([("tmtv_ml", "TMTV (ml)", 1, "Sum of <i>volumes</i>.")], [{"tmtv_ml": 12.34}])
    return StudyPageContent(
        images, "A <u>run</u>", picture, readouts, tables, origin=[("CT", "'<s>CT</s>'")], problems=["<p>lost</p>"], **more
    )


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text outside of style and script."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.skipped = False
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.skipped = tag in ("script", "style")

    def handle_endtag(self, tag):
        self.skipped = False

    def handle_data(self, data):
        if not self.skipped:
            self.text += data

    def links(self) -> set[str]:
        """Every address in the page, but the ones that hold their content."""
        names = ("src", "href", "data-program", "data-volumes")
        found = {attributes[name] for _, attributes in self.tags for name in names if attributes.get(name)}
        return {link for link in found if not link.startswith("data:")}


def embedded(file: Path) -> dict[str, nib.Nifti1Image]:
    """The volumes in a script beside a page, as nibabel reads them."""
    (text,) = re.fullmatch(r"window\.petctVolumes = (.*);\n", file.read_text()).groups()
    volumes = {name: gzip.decompress(base64.b64decode(content)) for name, content in json.loads(text).items()}
    return {name: nib.Nifti1Image.from_bytes(volume) for name, volume in volumes.items()}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """The folder of a run with the page of one study."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "report.html").write_text("index")
    write_study_page(folder, CASE, content(study(), folder, CASE))
    return folder


# ---------------------------------------------------------------- the page


def test_page_links_by_relative_paths_to_what_lies_beside_it(written):
    page = written / f"studies/{CASE}.html"
    links = Page(page).links()
    assert len(links) == 6, links
    for link in links:
        assert "#" not in link
        assert not link.startswith("/")
        assert (page.parent / unquote(link)).is_file(), link
    assert {Path(unquote(link)).name for link in links} == {
        "report.html", f"{CASE}.png", "rotation.webp", "volumes.js", "niivue.js", "LICENSE.txt",
    }  # fmt: skip


def test_viewer_says_which_way_its_coordinates_run(written):
    assert "x, y and z grow to the patient's right, front and head, as in NIfTI" in " ".join(
        Page(written / f"studies/{CASE}.html").text.split()
    )


def test_page_may_load_nothing_from_a_network(written):
    page = Page(written / f"studies/{CASE}.html")
    (policy,) = [attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes]
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    assert "*" not in policy
    text = (written / f"studies/{CASE}.html").read_text()
    assert not re.search(r"https?://|url\(|@import|fetch\(", text)


def test_viewer_lies_once_in_the_folder_with_its_licence(written):
    write_study_page(written, "second", content(study(), written, "second"))
    found = sorted(file.relative_to(written).as_posix() for file in written.rglob("*") if file.suffix in (".js", ".txt"))
    assert found == [
        f"studies/{CASE}_files/volumes.js", "studies/second_files/volumes.js", "studies/viewer/LICENSE.txt", "studies/viewer/niivue.js",
    ]  # fmt: skip
    assert "Copyright (c) 2021, Niivue" in (written / "studies/viewer/LICENSE.txt").read_text()


def test_viewer_can_be_left_out(tmp_path):
    write_study_page(tmp_path, "a", content(study(), tmp_path, "a"), viewer=False)
    assert sorted(file.name for file in (tmp_path / "studies").rglob("*")) == ["a.html", "a_files", "rotation.webp"]
    page = Page(tmp_path / "studies/a.html")
    assert not [attributes for _, attributes in page.tags if "data-place" in attributes or attributes.get("id") == "viewer"]
    assert "Lesion" in page.text


def test_names_are_shown_as_text_and_never_as_html(tmp_path):
    folder = tmp_path / "run"
    page = Page(write_study_page(folder, HOSTILE, content(study(), folder, HOSTILE)))
    tags = [tag for tag, _ in page.tags]
    assert not {"b", "i", "u", "s"} & set(tags)
    assert tags.count("img") == 2, "the rotating projection and the picture"
    for text in (HOSTILE, "A <u>run</u>", "<b>bone</b>", "<p>lost</p>", "'<s>CT</s>'", "Sum of <i>volumes</i>."):
        assert text in page.text
    for link in page.links() - {"../report.html"}:
        assert (folder / "studies" / unquote(link)).is_file(), link


def test_column_without_a_value_is_left_out_and_a_missing_figure_is_a_dash(tmp_path):
    table = PageTable([("a", "Column A", 1, ""), ("b", "Column B", 1, "")], [{"a": 1.0}, {"a": None}])
    page = Page(write_study_page(tmp_path, "x", StudyPageContent(study(), scores=table), viewer=False))
    assert "Column A" in page.text
    assert "Column B" not in page.text
    assert "–" in page.text


def test_of_many_lesions_the_page_says_which_are_shown_and_where_the_others_are(tmp_path):
    rows = [{"lesion": number, "volume_ml": 1.0} for number in range(1, 211)]
    tables = {role: PageTable(COLUMNS[:2], rows) for role in ("prediction", "reference")}
    content = StudyPageContent(study(), lesions=tables, changes=PageTable(COLUMNS[:2], rows))
    text = Page(write_study_page(tmp_path, "a", content, viewer=False)).text
    assert "210 lesions, the largest 200; all are in readouts_lesions.csv." in text
    assert "210 lesions, the largest 200; all are in readouts.json." in text
    assert "210 lesions, the most changed 200; all are in readouts.json." in text


def test_a_heading_that_means_two_things_is_explained_twice_and_one_that_means_one_thing_once(tmp_path):
    first, second = (PageTable([("x", "x (mm)", 0, text), ("tlg", "TLG", 0, "same")], [{"x": 1, "tlg": 2}]) for text in "ab")
    content = StudyPageContent(study(), readouts=first, changes=second)
    page = write_study_page(tmp_path, "a", content, viewer=False).read_text(encoding="utf-8")
    assert re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", page) == [("x (mm)", "a"), ("TLG", "same"), ("x (mm)", "b")]


def test_equal_input_gives_equal_bytes(written, tmp_path):
    write_study_page(tmp_path, CASE, content(study(), tmp_path, CASE))
    for file in (tmp_path / "studies").rglob("*"):
        if file.is_file():
            assert file.read_bytes() == (written / file.relative_to(tmp_path)).read_bytes(), file


def test_study_without_ct_masks_and_uptake_has_a_page(tmp_path):
    images = StudyImages(np.zeros((20, 20, 20), np.float32), np.diag([4.0, 4.0, 5.0, 1.0]))
    page = Page(write_study_page(tmp_path, "empty", StudyPageContent(images)))
    assert not [attributes for _, attributes in page.tags if "data-mask" in attributes]
    assert list(embedded(tmp_path / "studies/empty_files/volumes.js")) == ["pet"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"picture": "none.png"}, "a: the picture none.png does not exist: draw it first."),
        ({"suv_range": (5, 5)}, "a: the SUV range is (5, 5): give two growing numbers, as 0 and 10."),
    ],
)
def test_wrong_input_is_one_sentence(tmp_path, more, sentence):
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        write_study_page(tmp_path, "a", StudyPageContent(study(), **more))
    assert not (tmp_path / "studies/a.html").exists()


def test_images_on_different_grids_are_refused(tmp_path):
    images = StudyImages(np.zeros((4, 4, 4)), np.eye(4), prediction=np.zeros((4, 4, 5)))
    sentence = "a: the prediction mask has the shape (4, 4, 5) and the PET (4, 4, 4): give arrays on one grid."
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        write_study_page(tmp_path, "a", StudyPageContent(images))


# ---------------------------------------------------------------- volumes


@pytest.mark.parametrize(("orientation", "tilt"), [("RAS", 0), ("LPS", 0), ("SAL", 0), ("LAS", 20)])
def test_volumes_show_every_place_of_the_patient_where_it_is(tmp_path, orientation, tilt):
    images = study(orientation, tilt)
    write_study_page(tmp_path, "a", content(images, tmp_path, "a"))
    volumes = embedded(tmp_path / "studies/a_files/volumes.js")
    assert list(volumes) == ["ct", "pet", "reference", "prediction"]
    for name, volume in volumes.items():
        assert nib.aff2axcodes(volume.affine) == ("R", "A", "S"), name
    for number, (centre, suv) in enumerate(zip(CENTRES, (8, 6, 4), strict=True), start=1):
        at = {}
        for name, volume in volumes.items():
            index = np.rint(apply_affine(np.linalg.inv(volume.affine), centre)).astype(int)
            at[name] = float(volume.get_fdata()[tuple(index)])
        assert at["pet"] == pytest.approx(suv, abs=0.02)
        assert at["ct"] == pytest.approx(centre[0], abs=6), "HU are the place along the patient's right, to a voxel and the step"
        assert (at["reference"], at["prediction"]) == (number if number < 3 else 0, number)


def test_ct_on_a_grid_of_its_own_is_shown_at_its_place(tmp_path):
    images = study()
    ct_affine = np.diag([-1.5, 1.5, 4.0, 1.0])
    ct_affine[:3, 3] = [100, -70, -120]
    shape = (130, 90, 60)
    x = apply_affine(ct_affine, np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1))[..., 0]
    scene = numbered_scene("a", images)
    ct, pet, *_ = viewer_volumes(scene, x, ct_affine)
    np.testing.assert_allclose(np.linalg.norm(ct.affine[:3, :3], axis=0), [1.5, 1.5, 4.0])
    for centre in CENTRES:
        index = tuple(np.rint(apply_affine(np.linalg.inv(ct.affine), centre)).astype(int))
        place = apply_affine(ct.affine, index)
        assert ct.array[index] * ct.slope == pytest.approx(place[0], abs=1.1), "rounded to 2 HU"
    outside = tuple(np.rint(apply_affine(np.linalg.inv(ct.affine), [0, 0, 140])).astype(int))
    assert ct.array[outside] * ct.slope == -1024
    assert pet.array.shape == ct.array.shape


def test_lesions_have_the_numbers_and_the_places_of_the_readouts():
    images = study("SAL")
    rows = study_readouts(images.prediction, images.pet, images.affine)["lesions"]
    scene = numbered_scene("a", images)
    places = places_of_lesions(scene.masks["prediction"], scene.affine, 200)
    assert list(places) == [row["lesion"] for row in rows] == [1, 2, 3]
    for row in rows:
        centroid = [row[f"centroid_{axis}_mm"] for axis in "xyz"]
        assert np.abs(np.array(places[row["lesion"]]) - centroid).max() <= SPACING.max() / 2
        assert np.linalg.norm(places[row["lesion"]] - CENTRES[row["lesion"] - 1]) <= SPACING.max()


def test_lesions_of_one_size_have_the_numbers_of_the_readouts_whatever_the_orientation():
    mask = np.zeros((30, 30, 30), np.uint8)
    mask[5, 5, 5] = mask[20, 8, 12] = mask[10, 25, 25] = 1
    pet = np.ones(mask.shape, np.float32)
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    rows = study_readouts(mask, pet, affine)["lesions"]
    scene = numbered_scene("a", StudyImages(pet, affine, prediction=mask))
    places = places_of_lesions(scene.masks["prediction"], scene.affine, 200)
    assert [places[row["lesion"]] for row in rows] == [tuple(row[f"centroid_{axis}_mm"] for axis in "xyz") for row in rows]


def test_ring_is_looked_at_where_it_is_and_not_in_its_middle():
    mask = np.zeros((11, 11, 3), np.uint32)
    mask[2:9, 2:9, 1] = 1
    mask[4:7, 4:7, 1] = 0
    ((x, y, z),) = places_of_lesions(mask, np.eye(4), 5).values()
    assert mask[int(x), int(y), int(z)] == 1
    assert np.hypot(x - 5, y - 5) == 2, "the ring's voxels nearest to its middle, (5, 5), lie two away"


def test_no_lesion_is_lost_when_voxels_are_joined(monkeypatch):
    monkeypatch.setattr("petct_cascade.report.viewer.MAX_VOXELS", 3000)
    generator = np.random.default_rng(0)
    mask = np.zeros((40, 36, 44), np.uint8)
    mask[4::8, 4::8, 4::8] = 1
    pet = generator.uniform(1, 2, mask.shape).astype(np.float32)
    scene = numbered_scene("a", StudyImages(pet, np.diag([2.0, 2.0, 3.0, 1.0]), prediction=mask))
    shown, masked = viewer_volumes(scene, None, scene.affine)
    assert shown.array.size <= 3000
    assert shown.array.shape == masked.array.shape
    np.testing.assert_allclose(shown.affine, masked.affine)
    assert set(np.unique(masked.array)) == set(range(int(mask.sum()) + 1))
    # A voxel's centre lies within half of a joined voxel of that of the one that shows it.
    for number, place in places_of_lesions(scene.masks["prediction"], scene.affine, 999).items():
        index = apply_affine(np.linalg.inv(masked.affine), place)
        assert masked.array[tuple(np.rint(index - 1e-9).astype(int))] == number


def test_images_reach_to_their_ends_when_voxels_are_joined(monkeypatch):
    monkeypatch.setattr("petct_cascade.report.viewer.MAX_VOXELS", 3000)
    shape, affine = (41, 35, 47), np.diag([-2.0, 2.0, 3.0, 1.0])
    scene = numbered_scene("a", StudyImages(np.full(shape, 2, np.float32), affine))
    ct, pet = viewer_volumes(scene, np.full(shape, 100, np.int16), affine)
    assert np.unique(pet.array * pet.slope).tolist() == [2]
    assert np.unique(ct.array * ct.slope).tolist() == [100]


def test_joined_voxels_are_means_at_their_centres():
    array = np.random.default_rng(0).uniform(size=(4, 6, 5)).astype(np.float32)
    result, affine = reduced(array, (2, 3, 1), "mean"), reduced_affine(np.diag([2.0, 1.0, 3.0, 1.0]), (2, 3, 1))
    np.testing.assert_allclose(result, array.reshape(2, 2, 2, 3, 5).mean(axis=(1, 3)), rtol=1e-6)
    np.testing.assert_allclose(apply_affine(affine, [0, 0, 0]), [1, 1, 0])
    np.testing.assert_array_equal(reduced(array, (2, 3, 1), "max"), array.reshape(2, 2, 2, 3, 5).max(axis=(1, 3)))


@pytest.mark.slow
def test_page_of_a_full_size_study_of_noise_stays_under_20_mb(tmp_path):
    generator = np.random.default_rng(0)
    shape = (400, 400, 326)
    pet = generator.normal(2, 0.7, shape).astype(np.float32)
    ct = generator.normal(0, 40, shape).astype(np.float32)
    mask = np.zeros(shape, np.uint8)
    mask[100:110, 150:160, 50:60] = 1
    images = StudyImages(pet, np.diag([-2.04, 2.04, 3.0, 1.0]), ct, None, mask, mask)
    write_study_page(tmp_path, "noise", content(images, tmp_path, "noise"))
    sizes = {file.relative_to(tmp_path).as_posix(): file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()}
    assert sum(sizes.values()) < 20e6, sizes
    assert sizes["studies/noise_files/rotation.webp"] < 2e6
    assert sizes["studies/noise.html"] < 100e3


# ---------------------------------------------------------------- projections


@pytest.mark.parametrize("shape", [(20, 30, 12), (21, 30, 7), (21, 31, 9)])
def test_projections_from_the_front_and_the_left_are_the_direct_maxima(shape):
    values = np.random.default_rng(0).integers(1, 255, shape).astype(np.uint8)
    mask = values > 252
    spacing, half_width, count = np.array([3.0, 3.0, 5.0]), 25, 4
    seen = projections(values, spacing, 3.0, half_width, count)
    seen_mask = mask_projections(mask, spacing, 3.0, half_width, count)
    # Seen from the front, columns run to the patient's left; from the left side, to the back.
    for index, axis in ((0, 1), (2, 0)):
        for found, truth in ((seen[index], values.max(axis=axis)), (seen_mask[index], mask.any(axis=axis))):
            occupied = np.flatnonzero(seen[index].any(axis=1))
            assert len(occupied) == len(truth)
            np.testing.assert_array_equal(found[occupied], truth[::-1])
            assert abs((occupied[0] + occupied[-1]) / 2 - half_width) <= 0.5, "in the middle"


@pytest.mark.parametrize("orientation", ["LPS", "SAR"])
def test_rotating_projection_shows_the_patient_upright_from_the_front_and_then_from_the_left(tmp_path, orientation):
    images = study(orientation)
    first = np.abs(images.pet - 8) < 0.1
    scene = numbered_scene("a", StudyImages(images.pet, images.affine, prediction=first))
    # In the middle of the array, around which it turns, lies this place.
    middle = apply_affine(scene.affine, (np.array(scene.pet.shape) - 1) / 2)
    x, y, z = CENTRES[0] - middle
    with Image.open(write_rotation(tmp_path / "a.webp", scene, (0, 10))) as picture:
        assert (picture.n_frames, picture.info["loop"]) == (ANGLES, 0)
        for index, across in ((0, -x), (ANGLES // 4, -y), (ANGLES // 2, x), (3 * ANGLES // 4, y)):
            picture.seek(index)
            frame = np.asarray(picture.convert("RGB")).astype(int)
            scale = frame.shape[0] / (scene.pet.shape[2] * SPACING[2])  # pixels per mm
            rows, columns = np.nonzero(frame[..., 0] - frame[..., 1] > 60)
            assert columns.mean() - (frame.shape[1] - 1) / 2 == pytest.approx(across * scale, abs=5 * scale), index
            assert rows.mean() - (frame.shape[0] - 1) / 2 == pytest.approx(-z * scale, abs=3 * scale), index
            assert np.ptp(columns) / np.ptp(rows) == pytest.approx(1, abs=0.2), "a ball is as wide as high"


# ---------------------------------------------------------------- in a browser


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
@pytest.mark.parametrize(("width", "tilt"), [(360, 0), (1600, 0), (1600, 25)])
def test_viewer_shows_the_lesion_that_was_clicked(tmp_path, width, tilt):
    write_study_page(tmp_path, CASE, content(study(tilt=tilt), tmp_path, CASE))
    with Browser(tmp_path / "profile", width) as browser:
        browser.open(tmp_path / f"studies/{CASE}.html")
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert not browser.run("'niivue' in window"), "nothing heavy is loaded before somebody wants to look"
        for number in (2, 3):
            browser.run(f"document.querySelector('table[data-role=prediction] tr:nth-child({number}) button').click()")
            place = browser.run(f"document.querySelector('table[data-role=prediction] tr:nth-child({number})').dataset.place")
            browser.wait_for(f"document.getElementById('viewer').dataset.shown === {place!r}")
            values = browser.run("document.getElementById('values').textContent")
            assert f"SUV {(8, 6, 4)[number - 1]}.0" in values
            assert f"prediction: lesion {number}" in values
            assert ("reference: lesion 2" in values) == (number == 2)
        middles = middles_of_planes(tmp_path, is_narrow=width < 640)
        # The lesions alone, on the grey CT.
        for control, value in (("opacity", 0), ("fill", 1), ("zoom", 4)):
            set_control(browser, control, value)
        shown = reds_at(browser, middles)
        assert all(share > 0.5 for share in shown), shown
        _, coronal, sagittal = (np.flatnonzero(red.any(axis=1)) for red in reds_around(browser, middles, 60))
        assert np.ptp(coronal) == pytest.approx(np.ptp(sagittal), abs=2), "a lesion is as high in both: they have one scale"
        browser.run("document.querySelector('[data-mask=prediction]').click()")
        hidden = reds_at(browser, middles)
        assert not any(share > 0.05 for share in hidden), hidden
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.messages == []
        assert [request for request in browser.requests if not request.startswith(("file:", "data:"))] == []


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
def test_viewer_shows_the_pet_from_0_to_the_suv_of_its_slider(written, tmp_path):
    with Browser(tmp_path / "profile", 1600) as browser:
        open_viewer(browser, written / f"studies/{CASE}.html")
        for control, value in (("opacity", 1), ("colours", "'gray'")):
            set_control(browser, control, value)
        # The axial plane through the middle, to the patient's left of its middle: body of SUV 1, beside the lesions.
        ((across, down), *_) = middles_of_planes(written, is_narrow=False)
        for suv in (2, 4, 10, 0.5):
            set_control(browser, "suv", suv)
            assert grey_at(browser, across + 0.05, down + 0.1) == pytest.approx(255 * min(1, 1 / suv), abs=4), suv


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
@pytest.mark.parametrize("zoom", [1, 3])
def test_wheel_changes_the_slice_of_the_plane_that_it_is_over(written, tmp_path, zoom):
    places = middles_of_planes(written, is_narrow=False)
    with Browser(tmp_path / "profile", 1600) as browser:
        open_viewer(browser, written / f"studies/{CASE}.html")
        set_control(browser, "zoom", zoom)
        beside = (places[0][0] + 0.02, places[0][1] + 0.02)
        click_at(browser, beside)
        # The first step also goes from where the click was to the middle of its voxel.
        mouse(browser, "mouseWheel", places[0], deltaX=0, deltaY=100)
        first = place_shown(browser)
        expected = first.copy()
        for place, axis in zip(places, (2, 1, 0), strict=True):
            for turn, voxels in ((100, -1), (100, -1), (-100, 1)):
                mouse(browser, "mouseWheel", place, deltaX=0, deltaY=turn)
                expected[axis] += voxels * SPACING[axis]
                assert np.abs(place_shown(browser) - expected).max() <= 1, "numbers are rounded"
        # The axial plane is where it was, or, where it is zoomed, has gone along by a voxel to the left and backwards.
        click_at(browser, beside)
        moved = SPACING[:2] if zoom > 1 else 0
        assert np.abs(place_shown(browser)[:2] - first[:2] + moved).max() <= 1 + SPACING[0] / 2


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
def test_viewer_does_nothing_that_its_page_does_not_say(written, tmp_path):
    axial, *_ = middles_of_planes(written, is_narrow=False)
    with Browser(tmp_path / "profile", 1600) as browser:
        open_viewer(browser, written / f"studies/{CASE}.html")
        click_at(browser, axial)
        before = np.asarray(browser.screenshot("#screen"))

        def is_as_before() -> bool:
            return np.array_equal(np.asarray(browser.screenshot("#screen")), before)

        click_at(browser, axial, count=2)
        assert is_as_before(), "a double click is two clicks"
        touch = [dict(zip("xy", point_of(browser, axial), strict=True))]
        browser.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=touch)
        time.sleep(1.5)
        browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        assert is_as_before(), "a long touch is one click"
        for key in "hjklmcvpsud":
            for kind in ("keyDown", "keyUp"):
                browser.call("Input.dispatchKeyEvent", type=kind, key=key, text=key, code=f"Key{key.upper()}")
            time.sleep(0.1)
        assert is_as_before(), "letters are no commands"
        beside = (axial[0] + 0.04, axial[1])
        for start, end in ((axial, beside), (beside, axial)):
            mouse(browser, "mousePressed", start, button="right", clickCount=1)
            mouse(browser, "mouseMoved", end, button="right", buttons=2)
            mouse(browser, "mouseReleased", end, button="right", clickCount=1)
            assert is_as_before() == (end == axial), "the right button drags the planes"
        assert browser.messages == []


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
def test_masks_that_are_switched_off_and_on_look_as_before(written, tmp_path):
    with Browser(tmp_path / "profile", 1600) as browser:
        browser.open(written / f"studies/{CASE}.html")
        browser.run("document.querySelector('table[data-role=prediction] tbody button').click()")
        browser.wait_for("document.getElementById('viewer').dataset.shown")
        set_control(browser, "fill", 1)
        before = np.asarray(browser.screenshot("#screen"))
        for roles in (["reference"], ["prediction"], ["prediction", "reference"]):
            for role in 2 * roles:
                browser.run(f"document.querySelector('[data-mask={role}]').click()")
            assert np.array_equal(np.asarray(browser.screenshot("#screen")), before), roles
        assert browser.messages == []


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
def test_printed_page_has_all_lesions_but_neither_viewer_nor_controls(tmp_path):
    table = PageTable(COLUMNS, [{"lesion": number, "volume_ml": 1.0} for number in range(1, 100)])
    write_study_page(tmp_path, "a", StudyPageContent(study(), lesions={"prediction": table}))
    with Browser(tmp_path / "profile", 1047) as browser:
        browser.call("Emulation.setEmulatedMedia", media="print")
        browser.open(tmp_path / "studies/a.html")
        assert browser.run("(box => box.scrollHeight <= box.clientHeight)(document.querySelector('.lesions'))")
        assert browser.run("[...document.querySelectorAll('#viewer, #pause, input')].filter(e => e.offsetWidth).length") == 0


def open_viewer(browser: Browser, page: Path) -> None:
    """Open a page and its viewer, and wait until the viewer shows the study."""
    browser.open(page)
    browser.run("document.getElementById('open').click()")
    browser.wait_for("!document.querySelector('.switches').hidden")


def set_control(browser: Browser, control: str, value: object) -> None:
    """Set one of the viewer's sliders or lists, as a person does."""
    browser.run(f"{control} = document.getElementById({control!r}), {control}.value = {value}, 0")
    browser.run(f"{control}.dispatchEvent(new Event('input'))")


def point_of(browser: Browser, place: tuple[float, float]) -> tuple[int, int]:
    """The pixel of the window at a place on the screen, which is in parts of the screen's width and height."""
    box = "document.getElementById('screen').getBoundingClientRect()"
    x, y, width, height = browser.run(f"(box => [box.x, box.y, box.width, box.height])({box})")
    return round(x + place[0] * width), round(y + place[1] * height)


def mouse(browser: Browser, kind: str, place: tuple[float, float], **more: object) -> None:
    """Let the mouse do something at a place on the screen."""
    browser.run("document.getElementById('screen').scrollIntoView({block: 'center'})")
    x, y = point_of(browser, place)
    browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)


def click_at(browser: Browser, place: tuple[float, float], count: int = 1) -> None:
    """Click at a place on the screen, once or twice."""
    for number in range(1, count + 1):
        for kind in ("mousePressed", "mouseReleased"):
            mouse(browser, kind, place, button="left", clickCount=number)


def place_shown(browser: Browser) -> np.ndarray:
    """The crosshair's place in mm, as the page says it."""
    found = re.search(r"x (\S+), y (\S+), z (\S+) mm", browser.run("document.getElementById('values').textContent"))
    return np.array([float(number) for number in found.groups()])


def middles_of_planes(written: Path, is_narrow: bool) -> list[tuple[float, float]]:
    """Where the middles of the axial, coronal and sagittal plane are, as parts of the screen's width and height."""
    volume = embedded(written / f"studies/{CASE}_files/volumes.js")["pet"]
    width, depth, height = np.array(volume.shape) * volume.header.get_zooms()
    part = width / (width + depth)
    if is_narrow:
        above = height / (height + depth / part)
        return [(0.5, (1 + above) / 2), (part / 2, above / 2), ((1 + part) / 2, above / 2)]
    return [(0.225, 0.5), (0.45 + 0.55 * part / 2, 0.5), (0.45 + 0.55 * (1 + part) / 2, 0.5)]


def reds_at(browser: Browser, places: list[tuple[float, float]]) -> list[float]:
    """The share of the prediction's red around each of some places on the screen."""
    return [float(red.mean()) for red in reds_around(browser, places, 6)]


def reds_around(browser: Browser, places: list[tuple[float, float]], pixels: int) -> list[np.ndarray]:
    """What is of the prediction's red within some pixels to each side of places on the screen."""
    picture = np.asarray(browser.screenshot("#screen")).astype(int)
    red = (picture[..., 0] > 150) & (picture[..., 1] < 90) & (picture[..., 2] < 90)
    rows, columns = red.shape
    middles = [(int(down * rows), int(across * columns)) for across, down in places]
    return [red[y - pixels : y + pixels + 1, x - pixels : x + pixels + 1] for y, x in middles]


def grey_at(browser: Browser, across: float, down: float) -> float:
    """The mean of what is shown at a place on the screen, in parts of its width and height."""
    picture = np.asarray(browser.screenshot("#screen")).astype(int)
    y, x = int(down * picture.shape[0]), int(across * picture.shape[1])
    return float(picture[y - 3 : y + 4, x - 3 : x + 4].mean())
