"""The Model Zoo's checks. Each gets a copy of a bundle, and returns what it found, or raises what is wrong."""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import monai.bundle
import torch

from zoo.copies import ENSEMBLE, SHARED, copy_bundle, inside, largest_difference, load_network, make_weights, read
from zoo.documents import documents
from zoo.style import style
from zoo.unit_tests import unit_test
from zoo.verdicts import FaultError, SkippedError
from zoo.versions import packages, resolvable

# Where a copy of the schema is looked for when none is named.
SCHEMA = SHARED / "schema/meta_schema_20240725.json"
# Its deep supervision or its windows are Python that TorchScript does not compile; a trace holds one run of them.
TRACED = ("autopet_stage1_dynunet", "autopet_stage2_swinunetr")
# The zoo exports each bundle's network to TorchScript by scripting, unless it is named in its exclude_verify_torchscript_list.
NOT_SCRIPTED = (*TRACED, ENSEMBLE)
# Of a reason, what is printed: letters.
LONGEST_REASON = 1000
# Larger files are named in large_files.yml instead of being kept in the bundle.
LARGE = 25 * 1024**2
REQUIRED_FIELDS = (
    *("schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version", "required_packages_version"),
    *("task", "description", "authors", "copyright", "network_data_format"),
)


def metadata(bundle: Path, schema: Path) -> str:
    """Every field of the bundle specification, and the schema, if there is a copy of it."""
    content = read(bundle / "configs/metadata.json")
    missing = [name for name in REQUIRED_FIELDS if not content.get(name)]
    if missing:
        raise FaultError(f"metadata.json lacks {', '.join(missing)}")
    if not schema.is_file():
        raise SkippedError(
            f"all {len(REQUIRED_FIELDS)} fields are there; not compared with the schema, of which {schema} is no copy: name one with --schema"
        )
    copy = bundle.parent / schema.name
    shutil.copyfile(schema, copy)
    monai.bundle.verify_metadata(meta_file=str(bundle / "configs/metadata.json"), filepath=str(copy))
    return f"satisfies {schema.name}"


def version(bundle: Path) -> str:
    """The version stands in the changelog, as its newest."""
    content = read(bundle / "configs/metadata.json")
    if content["version"] != next(iter(content["changelog"]), None):
        raise FaultError(f"version {content['version']} is not the first of the changelog")
    return content["version"]


def files(bundle: Path) -> str:
    """The files that every bundle of the zoo has."""
    names = (
        "LICENSE",
        "docs/README.md",
        "docs/data_license.txt",
        "configs/metadata.json",
        "configs/inference.json",
        "configs/logging.conf",
    )
    missing = [name for name in names if not (bundle / name).is_file()]
    if missing:
        raise FaultError(f"{', '.join(missing)} is missing" if len(missing) == 1 else f"{', '.join(missing)} are missing")
    large = [str(file.relative_to(bundle)) for file in bundle.rglob("*") if file.is_file() and file.stat().st_size > LARGE]
    if large and not (bundle / "large_files.yml").is_file():
        raise FaultError(f"{', '.join(large)} is above 25 MB and not in large_files.yml")
    return ", ".join(names[:3])


def paths(bundle: Path) -> str:
    """No config names an absolute path."""
    found = []
    for file in sorted((bundle / "configs").glob("*.json")):
        absolute = re.findall(r'["\'](?:/[\w.]|~/|[A-Za-z]:\\)[^"\']*["\']', file.read_text(encoding="utf-8"))
        # In an expression, a text that begins with a slash is added to a folder's name.
        found += [f"{file.name}: {path}" for path in absolute if not path.startswith("'/")]
    if found:
        raise FaultError("; ".join(found))
    return "none is absolute"


def net_in_out(bundle: Path) -> str:
    """`network_def` of inference.json alone takes and gives what metadata.json says."""
    shape = read(bundle / "configs/metadata.json")["network_data_format"]["inputs"]["image"]["spatial_shape"]
    with inside(bundle):
        monai.bundle.verify_net_in_out(
            net_id="network_def", meta_file="configs/metadata.json", config_file="configs/inference.json", device="cpu", any=16
        )
    return f"{' x '.join(map(str, shape))} voxels" if "*" not in shape else "16 x 16 x 16 voxels, padded to each network's window"


def export(bundle: Path) -> str:
    """TorchScript, scripted or traced, gives what the network gives."""
    said = (bundle / "docs/README.md").read_text(encoding="utf-8") if (bundle / "docs/README.md").is_file() else ""
    if bundle.name in NOT_SCRIPTED and "cannot be scripted" not in said:
        raise FaultError(
            "docs/README.md does not say that it cannot be scripted, which the zoo's exclusion list wants to be said"
        )
    if bundle.name == ENSEMBLE:
        raise SkippedError("sliding windows cannot be scripted, as docs/README.md says: export the four networks")
    traced = bundle.name in TRACED
    if f"is {'traced' if traced else 'scripted'}" not in said:
        raise FaultError(f"docs/README.md does not say that the network is {'traced' if traced else 'scripted'}")
    with inside(bundle):
        monai.bundle.ckpt_export(
            filepath="models/model.ts",
            ckpt_file="models/model.pt",
            meta_file="configs/metadata.json",
            config_file="configs/inference.json",
            use_trace=traced,
        )
    difference = largest_difference(bundle, torch.jit.load(bundle / "models/model.ts"))
    if not difference <= 1e-4:
        raise FaultError(f"TorchScript's output differs by {difference:.1e}")
    return f"{'traced' if traced else 'scripted'}, differs by {difference:.1e}"


def weights(bundle: Path) -> str:
    """`monai.bundle.load` gives the network with every tensor of `models/model.pt`."""
    expected = torch.load(bundle / "models/model.pt", weights_only=True)
    with inside(bundle):
        state = load_network(bundle).state_dict()
    different = [name for name in {*state, *expected} if not torch.equal(state.get(name), expected.get(name))]
    if different:
        raise FaultError(f"{len(different)} tensors differ, such as {different[0]}")
    return f"{sum(tensor.numel() for tensor in state.values()) / 1e6:.1f} million numbers"


CHECKS: dict[str, Callable[[Path, Path], str]] = {
    "metadata": metadata,
    "version": lambda bundle, _: version(bundle),
    "files": lambda bundle, _: files(bundle),
    "paths": lambda bundle, _: paths(bundle),
    "packages": lambda bundle, _: packages(bundle),
    "resolvable": lambda bundle, _: resolvable(bundle),
    "documents": lambda bundle, _: documents(bundle),
    "style": lambda bundle, _: style(bundle),
    "models/model.pt": lambda bundle, _: weights(bundle),
    "verify_net_in_out": lambda bundle, _: net_in_out(bundle),
    "ckpt_export": lambda bundle, _: export(bundle),
    "unit test": lambda bundle, _: unit_test(bundle),
}


# Checks of the files that are in git; what stands in for weights is above the size that the zoo takes.
WITHOUT_WEIGHTS = ("metadata", "version", "files", "paths", "packages", "resolvable", "documents", "style")


def verdict(do: Callable[[], str]) -> tuple[str, str]:
    """Return PASS, SKIP or FAIL, and the reason."""
    try:
        return "PASS", do()
    except SkippedError as skip:
        return "SKIP", str(skip)
    # Whatever stops a check is what is wrong with the bundle.
    except (Exception, SystemExit) as error:
        return "FAIL", " ".join(str(error).split()) or type(error).__name__


def check(bundle: Path, profile: str, schema: Path, names: Iterable[str] = tuple(CHECKS)) -> bool:
    """Do checks on a copy of a bundle, print a line each, and say whether none has failed."""
    verdicts = []
    with tempfile.TemporaryDirectory() as folder:
        copy = copy_bundle(bundle, Path(folder), profile)
        has_weights = False
        for name in names:
            if name not in WITHOUT_WEIGHTS and not has_weights:
                # They are not in git: the network as it is before training stands in for them. What hinders this, the check says.
                with contextlib.suppress(Exception):
                    make_weights(copy)
                has_weights = True
            said, reason = verdict(functools.partial(CHECKS[name], copy, schema))
            print(f"{bundle.name:26} {name:18} {said}  {reason[:LONGEST_REASON]}", flush=True)
            verdicts.append(said)
    return "FAIL" not in verdicts
