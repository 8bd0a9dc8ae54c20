"""The report is one file that shows every study, opens without a network, and works in a browser."""

from __future__ import annotations

import base64
import html
import json
import math
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import BROWSER

from petct_cascade.metrics import COUNT_NAMES, METRIC_NAMES
from petct_cascade.pictures import PictureOptions, overlay_picture
from petct_cascade.readouts import study_readouts
from petct_cascade.report import contents, write_report
from petct_training.errors import InputError

NAN = math.nan
RESEARCH_USE = "For research use only. Not a medical device: not for diagnosis, treatment or any other clinical decision."
HOSTILE = "fdg_a_<script>alert(\"1\")</script> & 'x'  ü"
CASES = [HOSTILE, "fdg_b_10-12-2003-NA-PET-CT Ganzkoerper  primaer mit KM-47333", "psma_c_2018-04-16"]
SPACING = (4.0, 4.0, 5.0)


class Page(HTMLParser):
    """What a page holds: its tags with their attributes, and its text outside of style and script."""

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
            self.text += data + "\n"

    def all(self, wanted: str) -> list[dict[str, str | None]]:
        """The attributes of each tag of one name."""
        return [attributes for tag, attributes in self.tags if tag == wanted]


def make(folder: Path, scored: bool = True, uncertain: bool = False) -> tuple[Path, dict]:
    """Write a report of three studies; the third has no lesion. Give the file, and what was handed to `write_report`."""
    generator = np.random.default_rng(0)
    rows, readouts, pictures = [], {}, {}
    for number, case in enumerate(CASES):
        pet = generator.uniform(0.5, 2, (30, 20, 40)).astype(np.float32)
        mask = np.zeros(pet.shape, np.uint8)
        if number < 2:
            mask[5:9, 5:9, 5:9] = mask[20:23, 12:15, 25 : 30 + number] = 1
        pet[mask == 1] += 5 + number
        spread = np.full(pet.shape, 0.125) if uncertain else None
        readouts[case] = study_readouts(mask, pet, SPACING, spread)
        options = PictureOptions(title=case, axial=True, ct=pet * 40)
        picture = folder / f"pictures/{number}.png"
        pictures[case] = overlay_picture(picture, pet, SPACING, mask if scored else None, mask, options)
        for model in ("DynUNet", "UNet", "Ensemble") if scored else ():
            values = dict.fromkeys(METRIC_NAMES, 0.5) | dict.fromkeys(COUNT_NAMES, number)
            values |= {"dice": NAN if number == 2 else generator.uniform(), "fpv_ml": 10 ** (number + 1) / 3, "fnv_ml": 2.0}
            rows.append({"case": case, "tracer": case.split("_")[0], "model": model, **values})
    problems = [{"case": "<b>lost</b>", "file": "", "reason": "there is no mask of <i>UNet</i>"}]
    content = {"rows": rows, "readouts": readouts, "pictures": pictures, "problems": problems}
    return write_report(folder / "report.html", "A <u>title</u>", **content, primary="Ensemble"), content


def test_page_loads_nothing_from_outside_of_it(tmp_path):
    file, _ = make(tmp_path)
    page = Page(file)
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    style, script = (re.search(f"<{tag}>(.*?)</{tag}>", file.read_text(), re.DOTALL)[1] for tag in ("style", "script"))
    assert not re.search(r"url\(|@import", style)
    assert not re.search(r"fetch|import\(|XMLHttpRequest|https?:", script)
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_names_are_shown_as_text_and_never_as_html(tmp_path):
    page = Page(make(tmp_path)[0])
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 1
    assert not {"b", "i", "u"} & set(tags)
    for text in (HOSTILE, "A <u>title</u>", "<b>lost</b>: there is no mask of <i>UNet</i>"):
        assert text in page.text


def test_every_study_has_its_rows_its_lesions_and_its_picture(tmp_path):
    file, content = make(tmp_path)
    page = Page(file)
    assert [article["data-case"] for article in page.all("article")] == sorted(CASES)
    rows = [row for row in page.all("tr") if "data-case" in row]
    assert len(rows) == len(CASES) * (3 + 1), "three models and the read-outs"
    pictures = [base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in page.all("img")]
    assert pictures == [content["pictures"][case].read_bytes() for case in sorted(CASES)]
    values = [cell["data-value"] for cell in page.all("td") if "data-value" in cell]
    for case in CASES:
        for lesion in content["readouts"][case]["lesions"]:
            assert repr(lesion["volume_ml"]) in values
    assert page.text.count("No lesion predicted.") == 1
    assert RESEARCH_USE in page.text


def test_of_a_thousand_lesions_the_largest_are_shown_and_all_are_counted(tmp_path):
    mask = np.zeros((40, 40, 20), np.uint8)
    mask[::2, ::2, ::4] = 1
    readouts = study_readouts(mask, np.ones(mask.shape, np.float32), SPACING)
    page = Page(write_report(tmp_path / "report.html", "t", readouts={"a": readouts}))
    assert len(page.all("tr")) == 2 + 1 + contents.LESIONS_SHOWN
    assert "2000 predicted lesions, the largest 200; all are in readouts_lesions.csv" in page.text


def test_links_of_names_lead_to_the_studies(tmp_path):
    page = Page(make(tmp_path)[0])
    targets = {article["id"]: article["data-case"] for article in page.all("article")}
    links = [link["href"].removeprefix("#") for link in page.all("a")]
    assert sorted(links) == sorted([*targets] * 4)


def test_page_without_reference_shows_the_prediction_alone(tmp_path):
    page = Page(make(tmp_path, scored=False)[0])
    for word in ("Table 1", "Dice", "reference", "agreement", "Not scored"):
        assert word not in page.text
    assert "Not done" in page.text
    assert len(page.all("img")) == len(CASES)


def test_uncertainty_of_each_lesion_is_shown_where_it_is_known(tmp_path):
    assert "\nUncertainty\n" not in Page(make(tmp_path / "a")[0]).text
    page = Page(make(tmp_path / "b", uncertain=True)[0])
    assert page.text.count("\nUncertainty\n") == 2
    assert page.text.count("\n0.125\n") == 4


def test_missing_picture_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"^a: the picture .*none\.png does not exist: draw it first\.$"):
        write_report(tmp_path / "report.html", "t", pictures={"a": tmp_path / "none.png"})
    assert not (tmp_path / "report.html").exists()


def test_equal_input_gives_equal_bytes(tmp_path):
    assert make(tmp_path / "a")[0].read_bytes() == make(tmp_path / "b")[0].read_bytes()


# ---------------------------------------------------------------- parts


def test_study_is_described_by_the_primary_model_or_else_by_the_last():
    rows = [
        {"model": model, "dice": dice, "fpv_ml": None} for model, dice in (("UNet", 0.25), ("Ensemble", 0.5), ("DynUNet", 0.75))
    ]
    assert contents.study_score(rows, "Ensemble").figures[0] == ("Dice", 0.5, 3)
    assert contents.study_score(rows, None).model == "DynUNet"
    assert contents.study_score([], "Ensemble") is None


def test_line_is_drawn_where_the_first_cell_changes_and_numbers_stand_to_the_right():
    table = contents.text_table("h", [["Group", "Dice"], ["All", "0.5"], ["All", "–"], ["FDG", "+0.1 (0 to 1)"]])
    assert [is_first for _, is_first in table.lines] == [False, False, True]
    assert [is_number for _, is_number in table.columns] == [False, True]


def test_figure_that_a_study_lacks_is_a_dash_and_sorts_last(tmp_path):
    page = Page(write_report(tmp_path / "report.html", "t", [{"case": "a", "model": "UNet", **dict.fromkeys(METRIC_NAMES, NAN)}]))
    cells = [cell["data-value"] for cell in page.all("td") if "data-value" in cell]
    assert cells == ["a", "–", "UNet"] + [""] * 9


# ---------------------------------------------------------------- in a browser

# Stands around the page, so that it can be as narrow as a phone, and does what a reader does.
AROUND = """<!DOCTYPE html><html><body style="margin: 0"><iframe src="report.html" style="width: %dpx; height: 900px; border: 0"></iframe>
<pre id="found"></pre><script>
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {
  const page = frame.contentDocument, found = {};
  const column = (table, index) => [...table.tBodies[0].rows].filter(row => !row.hidden).map(row => row.cells[index].dataset.value);
  found.width = frame.contentWindow.innerWidth;
  found.needed = page.documentElement.scrollWidth;
  found.pictures = [...page.images].map(image => [image.naturalWidth, image.getBoundingClientRect().width]);
  found.sorted = [...page.querySelectorAll("table.sortable")].map(table => [...table.tHead.rows[0].cells].map((head, index) => {
    const orders = [];
    for (let click = 0; click < 2; click++) {
      head.querySelector("button").click();
      orders.push([head.getAttribute("aria-sort"), column(table, index)]);
    }
    return orders;
  }));
  const scores = page.getElementById("scores"), model = page.getElementById("model"), search = page.getElementById("search");
  const change = (control, value) => { control.value = value; control.dispatchEvent(new Event("input")); };
  found.ensemble = column(scores, 2);
  change(model, "");
  found.all = column(scores, 2);
  change(search, "PSMA");
  found.searched = [column(scores, 0), [...page.querySelectorAll("article")].filter(study => !study.hidden).map(study => study.dataset.case)];
  page.images[0].click();
  found.enlarged = page.images[0].parentElement.className;
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script></body></html>"""


def in_order(values: list[str]) -> bool:
    """Whether a column's values grow, numbers as numbers; those that do not exist have to come last."""
    existing = [value for value in values if value != ""]
    if values[: len(existing)] != existing:
        return False
    try:
        numbers = list(map(float, existing))
    except ValueError:
        return [value.lower()[:4] for value in existing] == sorted(value.lower()[:4] for value in existing)
    return numbers == sorted(numbers)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
@pytest.mark.parametrize("width", [360, 1600])
def test_page_works_in_a_browser_on_a_phone_and_on_a_wide_screen(tmp_path, width):
    make(tmp_path, uncertain=True)
    (tmp_path / "around.html").write_text(AROUND % width)
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--allow-file-access-from-files", "--enable-logging=stderr", f"--window-size={max(width, 600)},1000"]
    command += ["--virtual-time-budget=20000", "--dump-dom", (tmp_path / "around.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.+?)</pre>', done.stdout, re.DOTALL)[1]))

    assert found["needed"] <= found["width"] == width, "nothing of the page stands out to the right"
    assert len(found["pictures"]) == len(CASES)
    assert all(0 < shown <= min(natural, width) for natural, shown in found["pictures"])
    assert len(found["sorted"]) == 4, "scores, read-outs, and the lesions of two studies"
    for columns in found["sorted"]:
        for (up, growing), (down, shrinking) in columns:
            assert (up, down) == ("ascending", "descending")
            assert in_order(growing), growing
            assert sorted(growing) == sorted(shrinking)
            existing = [value for value in shrinking if value != ""]
            assert in_order(existing[::-1] + [""] * (len(shrinking) - len(existing))), shrinking
    assert set(found["ensemble"]) == {"Ensemble"}
    assert len(found["all"]) == 3 * len(found["ensemble"]) == 3 * len(CASES)
    assert set(found["searched"][0]) == set(found["searched"][1]) == {CASES[2]}
    assert found["enlarged"] == "large"


def test_page_says_from_which_series_a_study_was_made_and_how_its_suv_were_computed(tmp_path):
    readouts = study_readouts(np.zeros((3, 3, 3), np.uint8), np.ones((3, 3, 3), np.float32), np.diag([4.0, 4.0, 5.0, 1.0]))
    suv = {"units": "BQML", "rule": "ge_scan_time", "weight_kg": 72.0, "dose_mbq": 248.5, "factor": {"min": 0.1, "max": 0.2}}
    pet = {
        "description": "'WB AC' (326 slices, 1.2.3)",
        "suv": suv | {"given": ["weight"], "other_rules": {"series_time": -14.2}},
    }
    origins = {"a": {"about": {"pet": pet, "ct": {"description": "'CT' (326 slices, 1.2.4)"}}}}
    text = Page(write_report(tmp_path / "report.html", "t", readouts={"a": readouts, "b": readouts}, origins=origins)).text
    assert "'WB AC' (326 slices, 1.2.3)" in text
    assert "units BQML, reference time by ge scan time, weight 72 kg, dose 248.5 MBq, factor 0.1 to 0.2" in text
    assert "Given by the user\nweight" in text
    assert "series time -14.2 %" in text
    assert text.count("Made from\n") == 1


def test_page_says_once_what_made_all_studies_and_of_each_what_is_its_own(tmp_path):
    readouts = study_readouts(np.zeros((3, 3, 3), np.uint8), np.ones((3, 3, 3), np.float32), np.diag([4.0, 4.0, 5.0, 1.0]))
    settings = {"overlap": 0.5, "amp": None, "patch_sizes": {"UNet": [32, 32, 64]}, "digests": {"model.pt": "ab12"}}
    about = {
        "versions": {"autopet_ensemble": "0.2.0", "monai": "1.6.1", "torch": "2.13.0"},
        "weights": {
            "trained_on": "29 training studies",
            "members": ["SegResNet", "UNet"],
            "folds": {"SegResNet": 5},
            "imported": {"UNet": "unet.pth"},
        },
    }
    origins = {
        case: {
            "sources": {"ct": {"path": f"../in/{case}_ct.nii", "sha256": f"c{case}"}, "pet": {"path": "pet.nii", "sha256": "d0"}},
            "settings": settings,
            "about": about | {"date": f"2026-11-{day}"},
        }
        for case, day in (("a", 26), ("b", 27))
    }
    content = dict.fromkeys("ab", readouts)
    text = Page(write_report(tmp_path / "report.html", "t", readouts=content, origins=origins)).text
    for once in (
        "autopet_ensemble 0.2.0, MONAI 1.6.1, PyTorch 2.13.0",
        "SHA-256 ab12",
        "29 training studies",
        "SegResNet, UNet",
        "UNet: unet.pth",
        "SegResNet 5",
        "overlap 0.5, amp as the processor allows, patch_sizes UNet 32 x 32 x 64",
        "2026-11-26",
        "2026-11-27",
        "a_ct.nii, SHA-256 ca",
        "b_ct.nii, SHA-256 cb",
    ):
        assert text.count(once) == 1, once
    assert text.count("pet.nii, SHA-256 d0") == 2
    origins["b"]["about"] = origins["a"]["about"]
    text = Page(write_report(tmp_path / "report.html", "t", readouts=content, origins=origins)).text
    assert text.count("2026-11-26") == 1
