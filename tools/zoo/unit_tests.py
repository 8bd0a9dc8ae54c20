"""The bundles' unit tests in the form of the zoo's `ci/unit_tests/test_<bundle>.py`: written, and run as the zoo runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from zoo.copies import ENSEMBLE, copy_bundle
from zoo.verdicts import FaultError

SOURCES = Path(__file__).parent / "ci_unit_tests"
# The four networks have one test, in which only the bundle's name differs. It stands in the file of this bundle.
NETWORK = "autopet_stage1_dynunet"


def write_unit_test(name: str, zoo: Path) -> Path:
    """Write the unit test of a bundle where the zoo has it, and return the file.

    Args:
        name: of the bundle.
        zoo: the root of a checkout of the zoo, or of what will be copied into one.
    """
    source = ENSEMBLE if name == ENSEMBLE else NETWORK
    file = zoo / f"ci/unit_tests/test_{name}.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text((SOURCES / f"test_{source}.py").read_text(encoding="utf-8").replace(source, name), encoding="utf-8")
    return file


def unit_test(bundle: Path) -> str:
    """The bundle's unit test passes in the zoo's folders, with the demo profile's networks."""
    with tempfile.TemporaryDirectory() as folder:
        copy_bundle(bundle, Path(folder) / "models", "demo")
        file = write_unit_test(bundle.name, Path(folder))
        environment = {**os.environ, "PYTHONPATH": folder, "PYTHONWARNINGS": "ignore"}
        done = subprocess.run([sys.executable, file], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        failed = re.findall(r"^(?:ERROR|FAIL): (\w+)", done.stderr, flags=re.MULTILINE)
        why = re.findall(r"^\w+(?:Error|Exception|Exit): .*$", done.stderr, flags=re.MULTILINE) or done.stderr.splitlines()[-1:]
        raise FaultError(f"{', '.join(failed) or file.name} failed: {'; '.join(why)}")
    return f"{file.name}: {re.search(r'^Ran (.*) in', done.stderr, flags=re.MULTILINE)[1]}"
