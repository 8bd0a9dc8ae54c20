"""Promises of docs/beyond-the-paper.md: it names every option, and its commands do what it says."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from helpers import BUNDLES, ENSEMBLE, ENVIRONMENT, ROOT, WINDOWS, write_validation
from processes import run_python

from petct_training.options import BEYOND_THE_PAPER

PAGE = (ROOT / "docs/beyond-the-paper.md").read_text(encoding="utf-8")


def test_the_page_names_every_option_with_the_value_of_off():
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ([^|]+) \|", PAGE, flags=re.MULTILINE)
    named = {name: off for names, off in rows for name in re.findall(r"`(\w+)`", names)}
    expected = {
        name: json.dumps(value, separators=(",", ":")).replace("1e-05", "1e-5") for name, value in BEYOND_THE_PAPER.items()
    }
    shares = {"patch_inside", "background_in_body", "background_uptake"}
    assert {name: off for name, off in named.items() if name not in shares} == {
        name: off for name, off in expected.items() if name not in shares
    }
    assert shares <= named.keys()


def documented(run_id: str) -> list[str]:
    """The words after `python` of the page's command with a run id."""
    (line,) = [line for line in PAGE.splitlines() if f"monai.bundle run {run_id} " in line]
    return shlex.split(line)[1:]


def execute(bundle: str, words: list[str], **options: object) -> str:
    command = [sys.executable, *words, *(text for name, value in options.items() for text in (f"--{name}", str(value)))]
    done = run_python(command, BUNDLES / bundle, ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_a_training_with_every_option_leaves_weights(prepared, tmp_path):
    words = [str(prepared) if word == "DATA" else word for word in documented("training")]
    more = {"background_in_body": 0.5, "balance_lesions": "true", "balance_tracers": "true", "ct_move_prob": 1}
    more |= {"mask_empty_prob": 0.1, "mask_reference_prob": 0.1, "mask_click_prob": 0.1, "dice_smooth": 0}
    more |= {"small_lesion_weight": 0.5, "max_epochs": 1, "ckpt_dir": tmp_path, "output_dir": tmp_path / "logs"}
    execute("autopet_stage2_unet", words, **more)
    last = torch.load(tmp_path / "last.pt", weights_only=True)
    assert {*last["options"]} >= {"background_uptake", "patch_inside", "mask_drop_prob", "average_weights", "small_lesion_weight"}
    assert (tmp_path / "model.pt").is_file()


@pytest.mark.slow
def test_what_was_chosen_patches_the_inference(models, tmp_path):
    prepared = write_validation(tmp_path / "raw")
    own = {"ckpt_dir": models, "patch_sizes": WINDOWS, "num_workers": 0}

    def files_of(words: list[str], chosen: Path | None = None) -> list[str]:
        place = words.index("--config_file") + 1
        files = words[place].replace("output/choosing/chosen.json", str(chosen)).replace("]", ",'configs/demo.json']")
        return [*words[:place], files, *words[place + 1 :]]

    choosing = [str(prepared) if word == "DATA" else word for word in documented("choosing")]
    said = execute(ENSEMBLE, files_of(choosing), output_dir=tmp_path / "out", weight_steps=2, **own)
    assert "mean Dice" in said
    inferring = [str(tmp_path / "raw") if word == "STUDIES" else word for word in documented("inferring")]
    execute(ENSEMBLE, files_of(inferring, tmp_path / "out/chosen.json"), output_dir=tmp_path / "masks", viewer="false", **own)
    assert len(list((tmp_path / "masks").glob("*.nii.gz"))) == 2
