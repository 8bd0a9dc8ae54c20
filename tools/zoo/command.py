"""The command: `check` and `pack`."""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path

from zoo.archives import pack
from zoo.checks import CHECKS, SCHEMA, check
from zoo.copies import BUNDLES, ROOT, copy_bundle
from zoo.style import apply_style


def check_as_packed(bundle: Path, profile: str, schema: Path, names: Iterable[str]) -> bool:
    """Do checks on a bundle in the style in which it would be packed, and say whether none has failed."""
    with tempfile.TemporaryDirectory() as folder:
        return check(apply_style(copy_bundle(bundle, Path(folder))), profile, schema, names)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m zoo", description="The Model Zoo's checks of bundles, and their archives.")
    parser.add_argument("action", choices=("check", "pack"))
    parser.add_argument("bundles", nargs="*", type=Path, help="folders of bundles (all of the repository)")
    parser.add_argument("--profile", choices=("full", "demo"), default="full", help="size of the networks that are checked")
    parser.add_argument("--only", action="append", choices=CHECKS, help="a check; may be given again (all)")
    parser.add_argument("--schema", type=Path, default=SCHEMA, help="copy of the metadata schema that metadata.json names")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder of the archives")
    parser.add_argument("--weights-url", help="address under which <bundle>/model.pt will be found, to distribute weights too")
    options = parser.parse_intermixed_args(arguments)
    bundles = [path.resolve() for path in options.bundles] or sorted(BUNDLES.iterdir())
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    if options.action == "check":
        names = options.only or tuple(CHECKS)
        passed = [check_as_packed(bundle, options.profile, options.schema, names) for bundle in bundles]
    else:
        passed = [pack(bundle, options.output.resolve(), options.weights_url, options.schema) for bundle in bundles]
    failed = [bundle.name for bundle, good in zip(bundles, passed, strict=True) if not good]
    if failed:
        raise SystemExit(f"error: {', '.join(failed)} did not pass")
