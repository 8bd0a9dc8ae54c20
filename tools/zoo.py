"""A developer's tool: the Model Zoo's checks of every bundle, and the archives with which bundles are published.

    python tools/zoo.py check [--profile demo] [--schema FILE] [BUNDLE ...]
    python tools/zoo.py pack [--output DIR] [--weights-url URL] [--schema FILE] [BUNDLE ...]

Nothing is downloaded and nothing is sent anywhere.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import monai.bundle
import torch
from monai.bundle import ConfigParser
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
BUNDLES = ROOT / "bundles"
ENSEMBLE = "autopet_ensemble"
# Data that is not part of the repository: a copy of the schema, and real studies for some tests.
SHARED = Path(os.environ.get("PETCT_SHARED") or ROOT.parent / "shared").resolve()
# Where a copy of the schema is looked for when none is named.
SCHEMA = SHARED / "schema/meta_schema_20240725.json"
# Its deep supervision or its windows are Python that TorchScript does not compile; a trace holds one run of them.
TRACED = ("autopet_stage1_dynunet", "autopet_stage2_swinunetr")
# Larger files are named in large_files.yml instead of being kept in the bundle.
LARGE = 25 * 1024**2
REQUIRED_FIELDS = (
    *("schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version", "required_packages_version"),
    *("task", "description", "authors", "copyright", "network_data_format"),
)
# What MONAI imports only for a component that a config names.
OPTIONAL_IMPORTS = {
    "nibabel": ("LoadImage", "Nibabel"),
    "pytorch-ignite": ("Trainer", "Evaluator"),
    "tensorboard": ("TensorBoard",),
    "tqdm": ("ProgressBar",),
    "einops": ("SwinUNETR",),
}


class SkippedError(Exception):
    """A check that cannot be done here, and why."""


class FaultError(Exception):
    """What is wrong with a bundle."""


def copy_bundle(bundle: Path, folder: Path, profile: str = "full") -> Path:
    """Copy a bundle into a folder, without weights and results.

    With the profile "demo", train.json and inference.json of the copy are patched with demo.json, so that the file alone is
    what the pair of them is in the original, and the metadata names the small patch.
    """
    copy = folder / bundle.name
    ignored = shutil.ignore_patterns("*.pt", "*.ts", "*.onnx", "output", "data", "mlruns", "eval", "__pycache__")
    shutil.copytree(bundle, copy, ignore=ignored)
    if profile == "demo":
        demo = read(copy / "configs/demo.json")
        for name in ("train", "inference"):
            file = copy / f"configs/{name}.json"
            if file.is_file():
                parser = ConfigParser()
                parser.read_config([file, copy / "configs/demo.json"])
                parser.parse()
                write(file, {**read(file), **{key: parser[key] for key in read(file) if key != "_desc_"}})
        if "patch_size" in demo:
            metadata = read(copy / "configs/metadata.json")
            for tensors in metadata.get("network_data_format", {}).values():
                for tensor in tensors.values():
                    tensor["spatial_shape"] = demo["patch_size"]
            write(copy / "configs/metadata.json", metadata)
    return copy


def make_weights(bundle: Path) -> Path:
    """Write a new network's random weights, always the same, as the bundle's `models/model.pt`."""
    parser = ConfigParser()
    parser.read_config(bundle / "configs/inference.json")
    torch.manual_seed(0)
    with inside(bundle):
        network = parser.get_parsed_content("network_def")
    file = bundle / "models/model.pt"
    torch.save(network.state_dict(), file)
    return file


@contextlib.contextmanager
def inside(bundle: Path) -> Iterator[None]:
    """Work as `python -m monai.bundle` does that was started in the bundle's folder."""
    folder, path = Path.cwd(), list(sys.path)
    os.chdir(bundle)
    sys.path.insert(0, str(bundle))
    try:
        yield
    finally:
        os.chdir(folder)
        sys.path[:] = path


def read(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def write(file: Path, content: dict) -> None:
    file.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


# ---------------------------------------------------------------- checks: each gets a copy of a bundle


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


def packages(bundle: Path) -> str:
    """The packages in metadata.json are those that configs and Python import, in versions that pyproject.toml allows."""
    content = read(bundle / "configs/metadata.json")
    text = "".join(
        file.read_text(encoding="utf-8") for file in (bundle / "configs").glob("*.json") if file.name != "metadata.json"
    )
    sources = [ast.parse(file.read_text(encoding="utf-8")) for file in bundle.glob("petct_*/**/*.py")]
    modules = set(re.findall(r'"\$import (\w+)', text))
    for node in (node for tree in sources for node in ast.walk(tree)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module.partition(".")[0])
    distributions = importlib.metadata.packages_distributions()
    others = modules - set(sys.stdlib_module_names) - {"petct_cascade", "petct_training"}
    used = {canonicalize_name(distributions[module][0]) for module in others}
    used |= {name for name, words in OPTIONAL_IMPORTS.items() if any(word in text for word in words)}
    # The command line of monai.bundle.
    used.add("fire")
    named = dict(content["required_packages_version"])
    different = {*named} ^ (used - {"monai", "torch", "numpy"})
    if different:
        raise FaultError(
            "; ".join(
                f"{name} is {'named and not imported' if name in named else 'imported and not named'}"
                for name in sorted(different)
            )
        )
    named |= {
        name: content[f"{field}_version"] for name, field in {"monai": "monai", "torch": "pytorch", "numpy": "numpy"}.items()
    }
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]:
        requirement = Requirement(line)
        if requirement.name in named and named[requirement.name] not in requirement.specifier:
            raise FaultError(
                f"{requirement.name} {named[requirement.name]} is not {requirement.specifier}, as pyproject.toml asks"
            )
    return ", ".join(sorted(named))


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
    if bundle.name == ENSEMBLE:
        if "cannot be scripted" not in said:
            raise FaultError("docs/README.md does not say that it cannot be scripted")
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


def largest_difference(bundle: Path, exported: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """Largest difference of an exported network's output from that of the bundle's own, for noise of the patch's size."""
    form = read(bundle / "configs/metadata.json")["network_data_format"]["inputs"]["image"]
    image = torch.randn(1, form["num_channels"], *form["spatial_shape"], generator=torch.Generator().manual_seed(0))
    with inside(bundle), torch.no_grad():
        network = load_network(bundle).eval()
        return float((network(image) - exported(image)).abs().max())


def load_network(bundle: Path) -> torch.nn.Module:
    """The bundle's network with its weights, as `monai.bundle.load` gives it."""
    return monai.bundle.load(
        bundle.name, bundle_dir=bundle.parent, workflow_type="inference", device="cpu", args_file={"bundle_root": str(bundle)}
    )


def weights(bundle: Path) -> str:
    """`monai.bundle.load` gives the network with every tensor of `models/model.pt`."""
    expected = torch.load(bundle / "models/model.pt", weights_only=True)
    with inside(bundle):
        state = load_network(bundle).state_dict()
    different = [name for name in {*state, *expected} if not torch.equal(state.get(name), expected.get(name))]
    if different:
        raise FaultError(f"{len(different)} tensors differ, such as {different[0]}")
    return f"{sum(tensor.numel() for tensor in state.values()) / 1e6:.1f} million numbers"


def check(bundle: Path, profile: str, schema: Path) -> bool:
    """Do every check on a copy of a bundle, print a line each, and say whether none has failed."""
    checks: dict[str, Callable[[], str]] = {
        "metadata": lambda: metadata(copy, schema),
        "version": lambda: version(copy),
        "files": lambda: files(copy),
        "paths": lambda: paths(copy),
        "packages": lambda: packages(copy),
        "models/model.pt": lambda: weights(copy),
        "verify_net_in_out": lambda: net_in_out(copy),
        "ckpt_export": lambda: export(copy),
    }
    passed = True
    with tempfile.TemporaryDirectory() as folder:
        copy = copy_bundle(bundle, Path(folder), profile)
        for name, do in checks.items():
            if name == "models/model.pt":
                # It is not in git: the network as it is before training stands in for it.
                with contextlib.suppress(Exception):
                    make_weights(copy)
            try:
                verdict, reason = "PASS", do()
            except SkippedError as skip:
                verdict, reason = "SKIP", str(skip)
            # Whatever stops a check is what is wrong with the bundle.
            except (Exception, SystemExit) as error:
                verdict, reason = "FAIL", " ".join(str(error).split()) or type(error).__name__
                passed = False
            print(f"{bundle.name:26} {name:18} {verdict}  {reason[:300]}", flush=True)
    return passed


# ---------------------------------------------------------------- archives


def model_card(bundle: Path) -> str:
    """The README.md of a Hugging Face repository, as `push_to_hf_hub` makes it from docs/README.md."""
    front = "---\ntags:\n- monai\n- medical\nlibrary_name: monai\nlicense: apache-2.0\n---\n"
    return front + (bundle / "docs/README.md").read_text(encoding="utf-8")


def large_files(bundle: Path, url: str) -> str:
    """The content of large_files.yml, from which `monai.bundle download_large_files` fetches the weights; JSON is YAML too."""
    digest = hashlib.sha256((bundle / "models/model.pt").read_bytes()).hexdigest()
    address = f"{url.rstrip('/')}/{bundle.name}/model.pt"
    entry = {"path": "models/model.pt", "url": address, "hash_val": digest, "hash_type": "sha256"}
    return json.dumps({"large_files": [entry]}, indent=2) + "\n"


def pack(bundle: Path, output: Path, weights_url: str | None, schema: Path) -> bool:
    """Write `output/<bundle>` with a model card, and its zip; check what was unpacked from it, and say whether it passed.

    With an address for weights, the bundle's `models/model.pt` goes along: named in large_files.yml when it is large, in the
    archive otherwise.
    """
    shutil.rmtree(output / bundle.name, ignore_errors=True)
    folder = copy_bundle(bundle, output)
    (folder / "README.md").write_text(model_card(bundle), encoding="utf-8")
    if weights_url is not None:
        file = bundle / "models/model.pt"
        if not file.is_file():
            raise SystemExit(f"error: {file} is missing: train it or import it before it is distributed")
        weights(bundle)
        if file.stat().st_size > LARGE:
            (folder / "large_files.yml").write_text(large_files(bundle, weights_url), encoding="utf-8")
        else:
            shutil.copyfile(file, folder / "models/model.pt")
    archive = output / f"{bundle.name}_v{read(bundle / 'configs/metadata.json')['version']}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            # A fixed time, so that the same content gives the same bytes.
            entry = zipfile.ZipInfo(str(path.relative_to(output)), date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            file.writestr(entry, path.read_bytes())
    with tempfile.TemporaryDirectory() as unpacked:
        with zipfile.ZipFile(archive) as file:
            file.extractall(unpacked)
        passed = check(Path(unpacked) / bundle.name, "demo", schema)
    print(f"{archive.name}: {archive.stat().st_size / 1024:.0f} KiB\n", flush=True)
    return passed


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("check", "pack"))
    parser.add_argument("bundles", nargs="*", type=Path, help="folders of bundles (all of the repository)")
    parser.add_argument("--profile", choices=("full", "demo"), default="full", help="size of the networks that are checked")
    parser.add_argument("--schema", type=Path, default=SCHEMA, help="copy of the metadata schema that metadata.json names")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder of the archives")
    parser.add_argument("--weights-url", help="address under which <bundle>/model.pt will be found, to distribute weights too")
    options = parser.parse_intermixed_args(arguments)
    bundles = [path.resolve() for path in options.bundles] or sorted(BUNDLES.iterdir())
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    if options.action == "check":
        passed = [check(bundle, options.profile, options.schema) for bundle in bundles]
    else:
        passed = [pack(bundle, options.output.resolve(), options.weights_url, options.schema) for bundle in bundles]
    failed = [bundle.name for bundle, good in zip(bundles, passed, strict=True) if not good]
    if failed:
        raise SystemExit(f"error: {', '.join(failed)} did not pass")


if __name__ == "__main__":
    main()
