"""Promises of a cohort's index: small, without a network, with tables that sort, filter and page in a browser."""

from __future__ import annotations

import html
import json
import math
import re
import subprocess
import unicodedata
from pathlib import Path

import pytest
from browser import BROWSER, Browser
from helpers import readouts_of

from petct_cascade.readouts import STUDY_COLUMNS
from petct_cascade.report import write_index, write_report
from petct_cascade.report.plots import distributions

HOSTILE = "fdg_a_</script><script>alert(1)</script> & 'x' #1 ü"


def rows_of(page: Path, table: str) -> list[list]:
    """The rows of a table, as the page's script reads them."""
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(rf'id="{table}">.*?<script type="application/json">(.*?)</script>', text, re.DOTALL)[1])


def test_index_of_ten_thousand_studies_is_below_ten_megabytes_and_has_them_all(tmp_path):
    readouts = readouts_of(10_000)
    problems = [{"case": f"bad {index}", "file": "", "reason": "is empty: copy it again"} for index in range(2000)]
    page = write_index(tmp_path / "report.html", "t", readouts=readouts, problems=problems)
    assert page.stat().st_size < 10e6
    rows = rows_of(page, "readouts")
    assert [row[0] for row in rows] == sorted(readouts)
    assert rows[1][3] == readouts[rows[1][0]]["study"]["tmtv_ml"]
    assert "2000 problems" in page.read_text(encoding="utf-8")


def test_values_that_do_not_exist_are_null_and_no_name_is_html(tmp_path):
    readouts = {HOSTILE: {"study": dict.fromkeys(STUDY_COLUMNS, math.nan), "lesions": []}}
    page = write_index(tmp_path / "report.html", "a <u>title</u>", readouts=readouts)
    (row,) = rows_of(page, "readouts")
    assert row[0] == HOSTILE
    assert set(row[1:]) == {None}
    text = page.read_text(encoding="utf-8")
    assert "alert(1)</script>" not in text
    assert "<u>" not in text


def test_equal_input_gives_equal_bytes(tmp_path):
    pages = [write_index(tmp_path / name, "t", readouts=readouts_of(30)) for name in ("a.html", "b.html")]
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_plots_are_drawn_by_tracer_and_centre_and_say_how_many_studies_have_the_figure():
    readouts = readouts_of(30)
    for number, content in enumerate(readouts.values()):
        if number % 4 == 0:
            content["study"] = {**content["study"], "suv_max": math.nan}
    plots = distributions(readouts)
    assert plots is not None
    for text in ("fdg", "psma", "LMU", "UKT", "TMTV (ml)", "SUVmax", "Lesions"):
        assert f">{text}<" in plots
    counts = [
        sum(content[key] == group and not math.isnan(content["study"][figure]) for content in readouts.values())
        for key, groups in (("tracer", ("fdg", "psma")), ("centre", ("LMU", "UKT")))
        for figure in ("tmtv_ml", "suv_max", "lesions")
        for group in groups
    ]
    assert min(counts) < max(counts)
    assert [int(count) for count in re.findall(r">\((\d+)\)<", plots)] == counts
    assert "http://" not in re.sub(r'xmlns(:\w+)?="[^"]+"|rdf:\w+="[^"]+"', "", plots).replace("http://www.w3.org", "")
    assert distributions(readouts_of(4)) is None


def test_plots_take_names_of_centres_literally():
    readouts = readouts_of(30)
    for content in readouts.values():
        content["centre"] = {"LMU": r"$\\foo$", "UKT": "a_$x_$"}[content["centre"]]
    plots = distributions(readouts)
    assert plots is not None
    assert r">$\\foo$<" in plots
    assert ">a_$x_$<" in plots


def test_plots_and_headings_are_named_for_who_does_not_see_them(tmp_path):
    rows = [{"case": case, "model": "UNet", "tracer": "fdg", "dice": 0.5} for case in readouts_of(30)]
    page = write_index(tmp_path / "report.html", "t", rows, readouts_of(30)).read_text(encoding="utf-8")
    (plot,) = re.findall(r"<figure[^>]*>(?=<svg)", page)
    assert 'role="img"' in plot
    assert re.search(r'aria-label="[^"]+"', plot)
    headings = re.findall(r"<th\b[^>]*>", page)
    assert headings
    assert [heading for heading in headings if 'scope="col"' not in heading] == []


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
def test_no_heading_runs_into_its_neighbour(tmp_path):
    page = write_index(tmp_path / "report.html", "t", readouts=readouts_of(30))
    with Browser(tmp_path / "profile", 1400) as browser:
        browser.open(page)
        beyond = "th => th.querySelector('button').getBoundingClientRect().right > th.getBoundingClientRect().right"
        assert browser.run(f"[...document.querySelectorAll('th')].filter({beyond}).map(th => th.textContent)") == []


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
def test_printed_index_has_all_columns_and_the_colours_but_no_controls(tmp_path):
    rows = [{"case": case, "model": "UNet", "tracer": "fdg", "dice": 0.5} for case in readouts_of(30)]
    page = write_index(tmp_path / "report.html", "t", rows, readouts_of(30))
    width = round(277 / 25.4 * 96)  # of A4 in landscape without its margins, in pixels of CSS
    with Browser(tmp_path / "profile", width) as browser:
        browser.call("Emulation.setEmulatedMedia", media="print")
        browser.open(page)
        ends = browser.run("[...document.querySelectorAll('th')].map(th => th.getBoundingClientRect().right)")
        assert max(ends) <= width
        adjusted = "[...new Set([...document.querySelectorAll('.key')].map(key => getComputedStyle(key).printColorAdjust))]"
        assert browser.run(adjusted) == ["exact"]
        assert browser.run("[...document.querySelectorAll('input, select, nav button')].filter(e => e.offsetWidth).length") == 0


# Does what a reader does, in the page's own window, and writes what is seen into a frame around it.
AROUND = """<!DOCTYPE html><html><body style="margin: 0"><iframe src="report.html" style="width: %dpx; height: 900px; border: 0"></iframe>
<pre id="found"></pre><script>
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {
  const page = frame.contentDocument, found = {}, table = page.getElementById("readouts");
  const column = index => [...table.querySelectorAll("tbody tr")].map(row => row.cells[index].textContent);
  const status = () => table.querySelector("[role=status]").textContent;
  found.width = frame.contentWindow.innerWidth;
  found.needed = page.documentElement.scrollWidth;
  found.first = [status(), column(0).length, table.querySelector(".back").disabled];
  table.querySelector(".on").click();
  found.second = [status(), column(0)[0]];
  table.querySelectorAll("th button")[3].click();
  found.growing = column(3);
  table.querySelectorAll("th button")[3].click();
  found.shrinking = column(3);
  const search = page.getElementById("search");
  search.value = "PSMA_p00017";
  search.dispatchEvent(new Event("input"));
  found.searched = [status(), column(0)];
  found.link = table.querySelector("tbody a").getAttribute("href");
  found.pictures = [...page.querySelectorAll("#gallery img")].map(image => image.getAttribute("src"));
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script></body></html>"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
@pytest.mark.parametrize("width", [360, 1600])
def test_tables_sort_filter_and_page_in_a_browser(tmp_path, width):
    readouts = readouts_of(10_000)
    write_index(tmp_path / "report.html", "t", readouts=readouts)
    (tmp_path / "around.html").write_text(AROUND % width)
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--allow-file-access-from-files", "--enable-logging=stderr", f"--window-size={max(width, 600)},1000"]
    command += ["--virtual-time-budget=20000", "--dump-dom", (tmp_path / "around.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line and "ERR_FILE_NOT_FOUND" not in line] == []
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.+?)</pre>', done.stdout, re.DOTALL)[1]))

    assert found["needed"] <= found["width"] == width, "nothing of the page stands out to the right"
    assert found["first"] == ["1 to 100 of 10,000", 100, True]
    assert found["second"] == ["101 to 200 of 10,000", sorted(readouts)[100]]
    volumes = sorted(content["study"]["tmtv_ml"] for content in readouts.values())
    assert list(map(float, found["growing"])) == pytest.approx(volumes[:100], abs=0.051)
    assert list(map(float, found["shrinking"])) == pytest.approx(volumes[:-101:-1], abs=0.051)
    (case,) = [case for case in readouts if case.startswith("psma_p00017")]
    assert found["searched"] == ["1 to 1 of 1", [case]]
    assert found["link"] == "studies/psma_p00017_10-12-2003-NA-PET-CT%20Ganzkoerper.html"
    assert found["pictures"] == ["pictures/psma_p00017_10-12-2003-NA-PET-CT%20Ganzkoerper.png"]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
@pytest.mark.parametrize("single_file", [False, True])
def test_names_are_sorted_as_people_count_and_found_however_their_accents_are_written(tmp_path, single_file):
    names = ["1", "1a", "2", "9", "10", "10b", "Müller 2", "Müller 10"]
    decomposed = {name: unicodedata.normalize("NFD", name) for name in names}
    readouts = dict(zip(decomposed.values(), readouts_of(len(names)).values(), strict=True))
    write = write_report if single_file else write_index
    page = write(tmp_path / "report.html", "t", readouts={name: readouts[name] for name in sorted(readouts, reverse=True)})
    rows = "[...document.querySelectorAll('#readouts tbody tr')].filter(row => !row.hidden).map(row => row.cells[0].textContent)"
    with Browser(tmp_path / "profile", 1400) as browser:
        browser.open(page)
        for order in (list(decomposed.values()), list(decomposed.values())[::-1]):
            browser.run("document.querySelector('#readouts th button').click()")
            assert browser.run(rows) == order
        for typed in ("Müller", unicodedata.normalize("NFD", "MÜLLER")):
            typing = f"search.value = {typed!r}, search.dispatchEvent(new Event('input'))"
            browser.run(f"(search => ({typing}))(document.getElementById('search'))")
            assert browser.run(rows) == [decomposed["Müller 10"], decomposed["Müller 2"]]
        assert [message for message in browser.messages if "ERR_FILE_NOT_FOUND" not in message] == []
