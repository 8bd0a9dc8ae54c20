"""Promises of `make zoo` and `make pack`: what the Model Zoo asks of bundles, and the archives that are published."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import monai.bundle
import monai.bundle.scripts
import pytest
import zoo
from helpers import BUNDLES, ENSEMBLE, ENVIRONMENT, NETWORKS, ROOT, STAGE1, STAGE2
from monai.bundle import ConfigParser
from zoo.checks import CHECKS, NOT_SCRIPTED, WITHOUT_WEIGHTS
from zoo.style import style
from zoo.unit_tests import write_unit_test
from zoo.verdicts import SkippedError
from zoo.versions import named_versions, versions_for_the_zoo

VERSION = zoo.read(BUNDLES / ENSEMBLE / "configs/metadata.json")["version"]
# One of each kind, for what takes long.
TWO = (ENSEMBLE, STAGE2[2])
FAST = [name for name in CHECKS if name != "unit test"]
# Without those that run a network or pip.
OF_FILES = [name for name in WITHOUT_WEIGHTS if name != "resolvable"]


@pytest.fixture(scope="module", autouse=True)
def package_index(tmp_path_factory):
    """A package index on disk, for pip, with the versions that metadata.json names and an older numpy: no test needs the network."""
    folder = tmp_path_factory.mktemp("index")
    named = {"numpy": "1.26.4"}
    for versions in [named, *(named_versions(bundle) for bundle in BUNDLES.iterdir())]:
        for name, version in versions.items():
            (folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(folder))
        versions_for_the_zoo.cache_clear()
        yield folder
    versions_for_the_zoo.cache_clear()


def lines(output: str) -> dict[tuple[str, str], tuple[str, str]]:
    """Verdict and reason of each bundle and check."""
    found = re.findall(r"^(autopet_\w+) +(\S.*?) +(PASS|FAIL|SKIP)  (.*)$", output, flags=re.MULTILINE)
    return {(bundle, check): (verdict, reason) for bundle, check, verdict, reason in found}


@pytest.fixture
def bundle(tmp_path) -> Path:
    """A copy of the smallest bundle, to be broken."""
    return zoo.copy_bundle(BUNDLES / STAGE2[2], tmp_path / "broken")


def verdict(bundle: Path, check: str, capsys) -> tuple[str, str]:
    """What a check says of a bundle on which `make zoo` must fail."""
    with pytest.raises(SystemExit, match=f"{bundle.name} did not pass"):
        zoo.main(["check", "--profile", "demo", "--only", check, str(bundle)])
    return lines(capsys.readouterr().out)[bundle.name, check]


@pytest.mark.parametrize("checks", [OF_FILES, pytest.param(FAST, marks=pytest.mark.slow)], ids=["of files", "all"])
def test_all_five_bundles_pass_the_zoos_checks_with_a_line_each(checks, capsys):
    zoo.main(["check", "--profile", "demo", *(text for name in checks for text in ("--only", name))])
    result = lines(capsys.readouterr().out)
    assert list(result) == [(bundle.name, check) for bundle in sorted(BUNDLES.iterdir()) for check in checks]
    skipped = {key for key, (verdict, _) in result.items() if verdict == "SKIP"}
    without_schema = set() if zoo.SCHEMA.is_file() else {(bundle.name, "metadata") for bundle in BUNDLES.iterdir()}
    not_exported = {(ENSEMBLE, "ckpt_export")} & {(ENSEMBLE, check) for check in checks}
    assert skipped == not_exported | without_schema
    assert not [key for key, (verdict, _) in result.items() if verdict == "FAIL"]


def test_weights_of_full_size_that_stand_in_are_no_fault_of_the_bundle(capsys):
    zoo.main(["check", "--profile", "full", "--only", "files", "--only", "models/model.pt", str(BUNDLES / STAGE2[2])])
    assert {verdict for verdict, _ in lines(capsys.readouterr().out).values()} == {"PASS"}


def test_make_has_a_target_for_each():
    for target, action in {"zoo": "check", "pack": "pack"}.items():
        done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True)
        assert f"python -m zoo {action}" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NETWORKS, ENSEMBLE])
def test_unit_test_passes_in_the_zoos_folders(name, capsys):
    zoo.main(["check", "--only", "unit test", str(BUNDLES / name)])
    assert lines(capsys.readouterr().out) == {(name, "unit test"): ("PASS", f"test_{name}.py: 2 tests")}


@pytest.mark.slow
def test_unit_test_of_a_broken_bundle_fails(bundle, capsys):
    file = bundle / "configs/inference.json"
    file.write_text(file.read_text().replace('"run": [', '"run": ["$1 / 0", '))
    said, why = verdict(bundle, "unit test", capsys)
    assert said == "FAIL"
    assert "test_infer_config" in why
    assert "division by zero" in why


def test_unit_tests_are_in_the_zoos_style(tmp_path):
    for name in (*NETWORKS, ENSEMBLE):
        write_unit_test(name, tmp_path)
    assert style(tmp_path / "ci")


@pytest.mark.slow
def test_broken_metadata_ends_with_an_exit_code_and_the_reason(bundle):
    file = bundle / "configs/metadata.json"
    metadata = json.loads(file.read_text())
    del metadata["network_data_format"], metadata["authors"]
    file.write_text(json.dumps(metadata))
    command = [sys.executable, "-m", "zoo", "check", "--profile", "demo", "--only", "metadata", bundle]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT / "tools")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert lines(done.stdout)[bundle.name, "metadata"] == ("FAIL", "metadata.json lacks authors, network_data_format")
    assert f"error: {bundle.name} did not pass" in done.stderr


def test_schema_that_is_not_satisfied_fails(bundle, tmp_path, capsys):
    schema = tmp_path / "strict.json"
    schema.write_text(json.dumps({"type": "object", "properties": {"version": {"type": "string", "pattern": "^9"}}}))
    with pytest.raises(SystemExit):
        zoo.main(["check", "--only", "metadata", "--schema", str(schema), str(bundle)])
    assert lines(capsys.readouterr().out)[bundle.name, "metadata"][0] == "FAIL"


def test_schema_that_is_absent_is_said_to_be_skipped(bundle, tmp_path, capsys):
    zoo.main(["check", "--only", "metadata", "--schema", str(tmp_path / "none.json"), str(bundle)])
    verdict, reason = lines(capsys.readouterr().out)[bundle.name, "metadata"]
    assert verdict == "SKIP"
    assert "not compared with the schema" in reason
    assert "--schema" in reason


@pytest.mark.parametrize(
    ("file", "old", "new", "check", "reason"),
    [
        (
            "configs/metadata.json",
            f'"version": "{VERSION}"',
            '"version": "9.9.9"',
            "version",
            "9.9.9 is not the first of the changelog",
        ),
        (
            "configs/metadata.json",
            '"tqdm"',
            '"shapely"',
            "packages",
            "shapely is named and not imported; tqdm is imported and not",
        ),
        (
            "configs/metadata.json",
            '"monai_version": "1.6.1"',
            '"monai_version": "1.4.0"',
            "packages",
            "monai 1.4.0 is not ",
        ),
        ("configs/metadata.json", '"num_channels": 1', '"num_channels": 4', "verify_net_in_out", "doesn't match: `4`"),
        ("configs/inference.json", '"bundle_root": "."', '"bundle_root": "/home/me"', "paths", 'inference.json: "/home/me"'),
        ("docs/README.md", "is scripted", "is", "ckpt_export", "does not say that the network is scripted"),
        (
            "configs/metadata.json",
            '"2.2.6"',
            '"2.4.6"',
            "resolvable",
            "numpy 2.4.6 does not exist for Python 3.10, which the zoo",
        ),
        ("docs/README.md", "## License", "## Licence", "documents", "docs/README.md has no section License"),
        (
            "docs/README.md",
            "## Input",
            "[x](../../y)\n",
            "documents",
            "docs/README.md links to ../../y, which is not in the bundle",
        ),
        ("docs/README.md", "## Input", "[x](#none)\n", "documents", "docs/README.md links to #none, which is not in the bundle"),
        ("docs/README.md", "## Input", "`docs/none.md`\n", "documents", "names docs/none.md, which is not in the bundle"),
        ("petct_training/cpu.py", "import torch\n", "import torch\nimport json\n", "style", "F401 'json' imported but unused"),
    ],
)
def test_each_check_finds_its_fault(bundle, capsys, file, old, new, check, reason):
    text = (bundle / file).read_text()
    assert old in text
    (bundle / file).write_text(text.replace(old, new))
    said, why = verdict(bundle, check, capsys)
    assert said == "FAIL"
    assert reason in why


def test_a_package_of_which_the_index_names_nothing_is_said_to_be_skipped():
    with pytest.raises(SkippedError, match="names no version of absent for Python 3"):
        versions_for_the_zoo("absent")


def test_missing_file_is_found(bundle, capsys):
    (bundle / "docs/data_license.txt").unlink()
    assert verdict(bundle, "files", capsys) == ("FAIL", "docs/data_license.txt is missing")


# ---------------------------------------------------------------- archives


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """What `make pack` leaves for two bundles."""
    folder = tmp_path_factory.mktemp("packed")
    zoo.main(["pack", "--output", str(folder), *(str(BUNDLES / name) for name in TWO)])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", TWO)
def test_archive_holds_a_bundle_whole_in_the_zoos_style(name, packed, tmp_path):
    shutil.unpack_archive(packed / f"{name}_v{VERSION}.zip", tmp_path)
    assert style(tmp_path / name)
    for file in ["LICENSE", "README.md", "configs/inference.json", "docs/data_license.txt", "models/fingerprint.json"]:
        assert (tmp_path / name / file).is_file()
    assert not list((tmp_path / name).rglob("*.pt"))
    assert not list((tmp_path / name).rglob("__pycache__"))


@pytest.mark.slow
def test_archives_of_all_bundles_pass_when_unpacked(tmp_path, capsys):
    zoo.main(["pack", "--output", str(tmp_path)])
    output = capsys.readouterr().out
    assert {bundle for bundle, _ in lines(output)} == {*NETWORKS, ENSEMBLE}
    assert {verdict for verdict, _ in lines(output).values()} <= {"PASS", "SKIP"}
    for name in (*NETWORKS, ENSEMBLE):
        archive = tmp_path / f"{name}_v{VERSION}.zip"
        assert f"{archive.name}: {archive.stat().st_size / 1024:.0f} KiB" in output


@pytest.mark.slow
@pytest.mark.parametrize("name", TWO)
def test_what_goes_into_a_pull_request_lies_as_in_the_zoo(name, packed):
    folder, models = packed / name, packed / "model-zoo/models" / name
    archived = {str(file.relative_to(folder)) for file in folder.rglob("*")}
    given = {str(file.relative_to(models)) for file in models.rglob("*")}
    assert given < archived
    assert archived - given == {"README.md", *(["report.png"] if name == ENSEMBLE else [])}
    assert f"models/{name}" in (packed / f"model-zoo/ci/unit_tests/test_{name}.py").read_text()
    excluded = (packed / "model-zoo/exclude_verify_torchscript_list.txt").read_text()
    assert re.findall(r'^    "(\w+)",$', excluded, flags=re.MULTILINE) == sorted(NOT_SCRIPTED)


@pytest.mark.slow
def test_same_bundle_gives_the_same_archive_byte_for_byte(packed, tmp_path):
    zoo.main(["pack", "--output", str(tmp_path), str(BUNDLES / STAGE2[2])])
    name = f"{STAGE2[2]}_v{VERSION}.zip"
    assert (tmp_path / name).read_bytes() == (packed / name).read_bytes()


@pytest.mark.slow
def test_archive_of_a_bundle_that_fails_is_an_error(bundle, tmp_path):
    (bundle / "docs/data_license.txt").unlink()
    with pytest.raises(SystemExit, match="did not pass"):
        zoo.main(["pack", "--output", str(tmp_path / "dist"), str(bundle)])


@pytest.mark.slow
@pytest.mark.parametrize("name", [STAGE1, STAGE2[0]])
def test_large_weights_are_named_with_address_and_hash_and_small_ones_are_packed(name, tmp_path):
    bundle = zoo.copy_bundle(BUNDLES / name, tmp_path / "source")
    weights = zoo.make_weights(bundle)
    zoo.main(["pack", "--output", str(tmp_path / "dist"), "--weights-url", "https://example.org/weights/", str(bundle)])
    with zipfile.ZipFile(tmp_path / f"dist/{name}_v{VERSION}.zip") as archive:
        names = set(archive.namelist())
        if weights.stat().st_size <= zoo.LARGE:
            assert f"{name}/large_files.yml" not in names
            assert archive.read(f"{name}/models/model.pt") == weights.read_bytes()
            return
        assert f"{name}/models/model.pt" not in names
        (entry,) = json.loads(archive.read(f"{name}/large_files.yml"))["large_files"]
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert entry == {
        "path": "models/model.pt",
        "url": f"https://example.org/weights/{name}/model.pt",
        "hash_val": digest,
        "hash_type": "sha256",
    }


def test_monai_fetches_weights_by_large_files(tmp_path):
    bundle = zoo.copy_bundle(BUNDLES / STAGE2[2], tmp_path / "source")
    weights = zoo.make_weights(bundle).read_bytes()
    shutil.copytree(bundle / "models", tmp_path / "host" / bundle.name)
    # MONAI reads YAML with a package that is not ours, and the same content as JSON without.
    (bundle / "large_files.json").write_text(zoo.large_files(bundle, (tmp_path / "host").as_uri()))
    (bundle / "models/model.pt").unlink()
    monai.bundle.download_large_files(bundle_path=str(bundle))
    assert (bundle / "models/model.pt").read_bytes() == weights


@pytest.mark.parametrize("name", [*NETWORKS, ENSEMBLE])
def test_model_card_is_the_one_that_monai_pushes_to_hugging_face(name, tmp_path, monkeypatch):
    class Hub:
        """Stands in for the hub: keeps what would be sent."""

        def __init__(self, **_):
            self.card = None

        def create_repo(self, **_): ...

        def upload_folder(self, repo_id, folder_path):
            pushed["card"] = (Path(folder_path) / "README.md").read_text()
            return repo_id

    pushed = {}
    monkeypatch.setattr(monai.bundle.scripts, "huggingface_hub", type("Module", (), {"HfApi": Hub}))
    copy = zoo.copy_bundle(BUNDLES / name, tmp_path)
    monai.bundle.push_to_hf_hub(repo="someone/bundle", name=name, bundle_dir=str(tmp_path))
    assert pushed["card"] == zoo.model_card(copy)
    assert pushed["card"].startswith("---\ntags:\n- monai\n- medical\nlibrary_name: monai\nlicense: apache-2.0\n---\n# autoPET")


@pytest.mark.parametrize("name", [STAGE1, ENSEMBLE])
def test_demo_copy_is_the_config_patched_by_demo(name, tmp_path):
    copy, patched = zoo.copy_bundle(BUNDLES / name, tmp_path, "demo"), ConfigParser()
    patched.read_config([BUNDLES / name / f"configs/{file}.json" for file in ("inference", "demo")])
    patched.parse()
    alone = zoo.read(copy / "configs/inference.json")
    assert {**patched.get(), "_desc_": None, "_meta_": None} | alone == {**patched.get(), "_meta_": None} | alone
    assert all(patched[key] == value for key, value in alone.items() if key != "_desc_")
    assert alone["num_workers"] == 0
