"""What benchmarks/gpu.py promises: each part's table at once, and that a part without figures costs the others nothing."""

from __future__ import annotations

import subprocess
import sys

import gpu
import numpy as np
import pytest
from helpers import ROOT

# A script in the place of the benchmark's own, whose parts take no time, fail, or never end.
STAND_IN = """
import json, sys, time
part = sys.argv[-1]
print("words before the figures")
if part == "studies":
    sys.exit("error: no memory")
if part == "steps":
    time.sleep(100)
print(json.dumps({"train.json": {"processes": 16, "patches_per_second": 12.5}} if part == "feeding" else {}))
"""


def test_a_part_that_fails_or_takes_too_long_is_a_line_and_the_next_has_its_table(tmp_path, monkeypatch, capsys):
    script = tmp_path / "stand in.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(gpu, "__file__", str(script))
    monkeypatch.setattr(gpu.common, "ROOT", tmp_path)
    monkeypatch.setattr(gpu.common, "RESULTS", tmp_path / "results")
    words = ["--device", "cpu", "--seconds", "3", "--parts", "feeding", "steps", "studies"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
    with pytest.raises(SystemExit, match="2 of 4 parts have no figures"):
        gpu.main()
    printed = capsys.readouterr().out
    assert "error: studies ended with 1, see above" in printed
    assert "error: steps took more than 3 s" in printed
    assert printed.index("error: steps") < printed.index("| train.json | 16 | 12.50 |")
    assert (tmp_path / "results/gpu.json").is_file()


def test_dice_of_masks_is_one_where_both_are_empty():
    none, one, two = np.zeros((2, 2, 2), bool), np.zeros((2, 2, 2), bool), np.zeros((2, 2, 2), bool)
    one[0, 0, 0] = two[0, 0, 0] = two[0, 0, 1] = True
    assert gpu.round_dice(none, none) == 1
    assert gpu.round_dice(one, two) == pytest.approx(2 / 3)
    assert gpu.round_dice(one, none) == 0


@pytest.mark.slow
def test_every_part_runs_on_a_cpu():
    words = ["--device", "cpu", "--profile", "demo", "--patients", "1", "--seconds", "900"]
    parts = ["windows", "studies", "steps", "feeding", "processes"]
    command = [sys.executable, "benchmarks/gpu.py", *words, "--parts", *parts]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for heading in ("window, ms", "inference", "training step", "feeding", "commands on one device"):
        assert f"\n| {heading} |" in printed
