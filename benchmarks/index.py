"""How large the index page of a cohort is, and in what time it is written and opened: python benchmarks/index.py

The read-outs are drawn at random. The page is opened in headless Chromium or Chrome, where one is installed.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

import common
from browser import BROWSER
from helpers import readouts_of

from petct_cascade.report import write_index
from petct_training.commands import command


def seconds_to_open(page: Path, folder: Path) -> float:
    """Return how long a browser takes to start, to open a page and to run its script."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}", "--dump-dom", page.as_uri()]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=10_000)
    studies = parser.parse_args().studies
    readouts = readouts_of(studies)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        page = write_index(folder / "report.html", "A cohort", readouts=readouts)
        figures = {"MB": page.stat().st_size / 1e6, "seconds to write": time.perf_counter() - start}
        if BROWSER is not None:
            empty = folder / "empty.html"
            empty.write_text("<!DOCTYPE html><title>empty</title>", encoding="utf-8")
            figures["seconds to open an empty page"] = seconds_to_open(empty, folder / "profile")
            figures["seconds to open"] = seconds_to_open(page, folder / "profile")
    skipped = [] if BROWSER else ["no Chromium or Chrome is installed, so that the page was not opened"]
    rows = [[what, f"{figure:.1f}"] for what, figure in figures.items()]
    common.report("index", [f"index of {studies:,} studies", ""], rows, figures, skipped)


if __name__ == "__main__":
    main()
