"""Seconds and memory of the ensemble's inference for one full-size study: python benchmarks/inference.py

The four networks have the paper's size and random weights, which take as long as trained ones. "Command" is all of
`monai.bundle run inferring`, from two .nii.gz files to one, with judging, read-outs, picture and report. "Forwards" are the bare
networks on as many windows of the same size, in the same precision and number at once: of the body's box, and of the whole volume
as it would be without the crop. "Reading" is decompressing the two files with nibabel, and nothing more. "UNet alone" is the
command with the largest patch's cheapest member, UNet, and a stage 1 that takes no time; nnU-Net v2's predictor runs the same network.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import budget
import common
import nibabel as nib
import nnunet
import numpy as np
import torch
from common import ENSEMBLE, RAW
from helpers import parser_of
from monai.bundle import ConfigParser

from petct_cascade.cascade import SlidingWindow
from petct_training.commands import command
from petct_training.files import read_json, write_json

MODELS = common.RESULTS / "models"
# Of the ensemble, only UNet after a stage 1 of one convolution of a voxel.
ALONE, ALONE_CONFIG = common.RESULTS / "unet_alone", common.RESULTS / "unet_alone/config.json"
COMMAND, FORWARDS, READING = "command", "forwards", "reading"
COMMAND_ALONE, NNUNET = "command, UNet alone", "nnU-Net v2, the same UNet"
# Forwards of each network before the clock starts, and those that are timed.
FORWARDS_BEFORE, FORWARDS_TIMED = 1, 2


def study() -> list[Path]:
    """CT and PET of the first full-size phantom."""
    case = sorted(file.name.removesuffix(".nii.gz") for file in (RAW / "labelsTr").glob("*.nii.gz"))[0]
    return [RAW / f"imagesTr/{case}_{channel:04d}.nii.gz" for channel in (0, 1)]


def write_models() -> None:
    """Write random weights, and a fingerprint with the phantoms' spacing, which leaves their grid as it is."""
    alone = {
        "network_def::stage1::network": {"_target_": "torch.nn.Conv3d", "in_channels": 2, "out_channels": 1, "kernel_size": 1},
        "network_def::members": {"UNet": read_json(ENSEMBLE / "configs/inference.json")["network_def"]["members"]["UNet"]},
    }
    write_weights(MODELS)
    write_weights(ALONE, overrides=alone)
    write_json(ALONE_CONFIG, alone)


def write_weights(folder: Path, patches: Sequence[str] = (), overrides: Mapping[str, Any] | None = None) -> None:
    """Write random weights of inference.json, patched by further configs and overrides, and the phantoms' fingerprint."""
    folder.mkdir(parents=True, exist_ok=True)
    parser = parser_of("autopet_ensemble", "inference", *patches)
    parser.update(dict(overrides or {}))
    torch.manual_seed(0)
    torch.save(parser.get_parsed_content("network_def").state_dict(), folder / "model.pt")
    shutil.copy(common.PREPARED / "fingerprint.json", folder)


def whole_command(overrides: dict[str, str], alone: bool = False) -> dict[str, float]:
    """Seconds and peak memory (GiB) of the whole command, with all networks or with UNet alone."""
    ct, pet = study()
    configs = ["configs/inference.json", *([ALONE_CONFIG] if alone else [])]
    with tempfile.TemporaryDirectory(dir=common.RESULTS) as output:
        options = {"ct": ct, "pet": pet, "ckpt_dir": ALONE if alone else MODELS, "output_dir": output}
        start = time.perf_counter()
        common.run_bundle(common.ENSEMBLE, "inferring", configs, options | overrides)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_gib": common.peak_gib(resource.RUSAGE_CHILDREN)}


def nnunet_predictor(overrides: dict[str, str]) -> dict[str, float]:
    """Seconds and peak memory (GiB) of nnU-Net's predictor with UNet, from files to a file; it knows float32 alone on CPUs."""
    parser = parser_of("autopet_ensemble", "inference")
    network = parser.get_parsed_content("network_def").members["UNet"].network
    images = [*study(), RAW / f"labelsTr/{study()[0].name.removesuffix('_0000.nii.gz')}.nii.gz"]
    with tempfile.TemporaryDirectory(dir=common.RESULTS) as output:
        start = time.perf_counter()
        nnunet.predict(network, images, Path(output) / "mask")
        seconds = time.perf_counter() - start
        if not (Path(output) / "mask.nii.gz").is_file():
            sys.exit("error: nnU-Net's predictor has written no mask")
    return {"seconds": seconds, "peak_gib": common.peak_gib(resource.RUSAGE_SELF)}


def networks_and_windows(parser: ConfigParser) -> Iterator[tuple[str, SlidingWindow, torch.Tensor]]:
    """Yield each network's name, the network, and as many random windows (B, C, X, Y, Z) as it takes at once, on its device."""
    cascade = parser.get_parsed_content("network").eval()
    batch, device = (parser.get_parsed_content(name) for name in ("sw_batch_size", "device"))
    for name, channels, module in [("DynUNet", 2, cascade.stage1), *((name, 3, m) for name, m in cascade.members.items())]:
        yield name, module, torch.randn(batch, channels, *parser.get_parsed_content(f"patch_sizes::{name}"), device=device)


def forwards(overrides: dict[str, str]) -> dict[str, dict[str, float]]:
    """Of each network the seconds of one window, and the number of windows of the body's box and of the whole volume."""
    os.chdir(ENSEMBLE)
    parser = parser_of("autopet_ensemble", "inference")
    parser.update({"ckpt_dir": str(MODELS), **{name: json.loads(value) for name, value in overrides.items()}})
    item = parser.get_parsed_content("preprocessing")({"image": list(map(str, study()))})
    box, whole = item["image"].shape[1:], nib.load(study()[1]).shape
    overlap, results = parser.get_parsed_content("overlap"), {}
    for name, (seconds, size) in seconds_a_window(parser).items():
        results[name] = {
            "seconds_a_window": seconds,
            "box": budget.windows(box, size, overlap),
            "whole": budget.windows(whole, size, overlap),
        }
        print(name, results[name], file=sys.stderr, flush=True)
    return results


def seconds_a_window(parser: ConfigParser) -> dict[str, tuple[float, tuple[int, ...]]]:
    """Of each network the seconds of one window, and the window's size."""
    device, results = parser.get_parsed_content("device"), {}
    for name, module, windows in networks_and_windows(parser):
        seconds = []
        with torch.no_grad(), module.computing(device.type) as bare:
            for _ in range(FORWARDS_BEFORE + FORWARDS_TIMED):
                start = time.perf_counter()
                bare(windows).cpu()
                seconds.append((time.perf_counter() - start) / len(windows))
        results[name] = min(seconds[FORWARDS_BEFORE:]), tuple(windows.shape[2:])
    return results


def reading(overrides: dict[str, str]) -> float:
    """Seconds of decompressing both files."""
    start = time.perf_counter()
    for file in study():
        np.asanyarray(nib.load(file).dataobj)
    return time.perf_counter() - start


MEASURES = {
    COMMAND: whole_command,
    FORWARDS: forwards,
    READING: reading,
    COMMAND_ALONE: partial(whole_command, alone=True),
    NNUNET: nnunet_predictor,
}


@command
def main() -> None:
    """Measure each in a process of its own, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--amp", choices=("true", "false"), help="instead of the config's own choice of precision")
    parser.add_argument("--body_margin", help="voxels around the body instead of the config's, as of a larger body")
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    overrides = {name: value for name in ("amp", "body_margin") if (value := getattr(arguments, name))}
    if arguments.measure:
        print(json.dumps(MEASURES[arguments.measure](overrides)))
        return
    common.prepared_studies()
    write_models()
    options = [text for name, value in overrides.items() for text in (f"--{name}", value)]
    skipped = [] if nnunet.is_installed() else [nnunet.MISSING]
    measures = {
        name: partial(common.in_a_process, "inference.py", "--measure", name, *options, threads=os.cpu_count())
        for name in MEASURES
        if name != NNUNET or not skipped
    }
    figures = {name: rounds[0] for name, rounds in common.side_by_side(measures, rounds=1).items()}
    networks = figures[FORWARDS]
    needed, uncropped = (
        math.fsum(network["seconds_a_window"] * network[volume] for network in networks.values()) for volume in ("box", "whole")
    )
    took, floor = figures[COMMAND]["seconds"], max(needed, figures[READING])
    rows = [[name, f"{n['seconds_a_window']:.2f}", str(n["box"]), str(n["whole"])] for name, n in networks.items()]
    common.print_table(["network", "seconds a window", "windows of the body's box", "of the whole volume"], rows)
    rows = [
        ["command", f"{took:.0f} s, peak {figures[COMMAND]['peak_gib']:.1f} GiB"],
        ["forwards of the body's box", f"{needed:.0f} s"],
        ["forwards of the whole volume", f"{uncropped:.0f} s"],
        ["reading", f"{figures[READING]:.1f} s"],
        ["command / larger of forwards and reading (at most 1.25)", f"{took / floor:.2f}"],
        ["forwards of the whole volume / command (at least 3)", f"{uncropped / took:.1f}"],
    ]
    rows += [
        [name, f"{figures[name]['seconds']:.0f} s, peak {figures[name]['peak_gib']:.1f} GiB"]
        for name in (COMMAND_ALONE, NNUNET)
        if name in figures
    ]
    if NNUNET in figures:
        rows.append(["nnU-Net v2 / command, UNet alone", f"{figures[NNUNET]['seconds'] / figures[COMMAND_ALONE]['seconds']:.1f}"])
    name = "-".join(["inference", *(part for override in overrides.items() for part in override)])
    common.report(name, ["inference", "one study"], rows, figures, skipped)


if __name__ == "__main__":
    main()
