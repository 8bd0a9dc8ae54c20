"""Promises of the documents: every command in them names what exists, and does what is said of it when it is typed."""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import pydicom
import pytest
import torch
import zoo
from dicom_writer import Person, Variant, write_tcia
from dicom_writer import small_study as dicom_study
from dicom_writer import write_study as write_dicom_study
from helpers import (
    BUNDLES,
    ENSEMBLE,
    FLAG_OF,
    NETWORKS,
    ROOT,
    STAGE1,
    STAGE2,
    needs,
    parser_of,
    save_as_published,
    write_prepared,
    write_study,
)

DOCUMENTS = sorted(
    str(file.relative_to(ROOT))
    for file in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "container/README.md",
        *ROOT.glob("docs/*.md"),
        *BUNDLES.glob("*/docs/README.md"),
    )
)
# The documents whose commands are executed by a test of this module, but for those in ELSEWHERE.
EXECUTED = {
    "README.md",
    "docs/dicom.md",
    "docs/getting-started.md",
    "docs/integrations.md",
    *(f"bundles/{bundle}/docs/README.md" for bundle in (*NETWORKS, ENSEMBLE)),
}
# How a command begins that no test of this module executes, and who does, or why nobody can.
ELSEWHERE = {
    r"make ": "a target is typed by continuous integration or by a person; make test would start these tests again",
    r"PYTHONPATH=tools \S*python -m zoo ": "tests/test_zoo.py does the checks, on a schema of its own: the zoo's is not in the repository",
    r"python benchmarks/": "measures for minutes, as make bench does",
    r"pytest ": "these tests are among those of make test-slow",
    r"pip install ": "needs a package index",
    r"tensorboard ": "serves its pages until it is stopped",
    r"cp -r .*\bAPP|python -m monailabel": "tests/test_monailabel.py copies the app and starts the server",
    r"docker |(cp|tar) .*WORK/models/autopet_ensemble": "prepares an image, which needs Docker",
    r"python examples/monai_deploy/app\.py ": "tests/test_deploy_dicom.py runs it",
    r"sh container/entry_point\.sh ": "tests/test_challenge_container.py runs it",
    r"python -m monai\.bundle trt_export ": "needs TensorRT, and a GPU for which it compiles",
}
# Between fences stands what is shown, and not typed: files and lists.
FENCE = re.compile(r"^```(\w*)\n.*?^```\n", flags=re.MULTILINE | re.DOTALL)
BLOCK = r"(?:^ {4}.*\n(?:[ ]*\n(?= {4}))*)+"
INLINE = r"`((?:make|pip|pytest|python|tensorboard|torchrun|petct \w+) [^`]+)`"
# The end of the first screen of README.md, and what fits into a line of it.
FIRST_SCREEN_LINES, LONGEST_COMMAND = 45, 100
# What a job of Slurm with one node finds in its environment.
SLURM = "export SLURM_NNODES=1 SLURM_JOB_ID=1 SLURM_JOB_NODELIST=localhost"
# Options of monai.bundle itself, and ids that only its experiment tracking reads.
OPTIONS = {"config_file", "tracking", "tracking_uri"}


class Snippet(NamedTuple):
    """What a document gives to type: a command, or a piece of Python.

    Attributes:
        text: the command in one line, with continued lines joined; or the lines of Python.
        folder: where it is meant to be typed, from the root of the repository.
        python: whether it is Python.
    """

    text: str
    folder: str
    python: bool = False


def is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def snippets(document: str) -> list[Snippet]:
    """Everything that a document gives to type, in its order, in indented blocks and in the text."""
    start = document.removesuffix("/docs/README.md") if document.startswith("bundles") else "."
    found = []
    text = FENCE.sub("", text_of(document)).replace("\\\n", " ")
    for match in re.finditer(f"{BLOCK}|{INLINE}", text, flags=re.MULTILINE):
        block, folder = match[1] or textwrap.dedent(match[0]), start
        if is_python(block):
            found.append(Snippet(block, folder, python=True))
        else:
            for line in block.splitlines():
                if change := re.match(r"cd (\S+)$", line):
                    folder = os.path.normpath(change[1])
                elif line and not line.startswith("#"):
                    found.append(Snippet(re.sub(r"\s+# .*", "", line), folder))
    return found


def is_elsewhere(snippet: Snippet) -> bool:
    return not snippet.python and any(re.match(beginning, snippet.text) for beginning in ELSEWHERE)


def is_executed_by_another_module(document: str) -> bool:
    """Whether a test module other than this one names a page of docs/, whose commands it then executes."""
    others = (file for file in Path(__file__).parent.glob("test_*.py") if file.name != Path(__file__).name)
    page = Path(document)
    return page.parent.name == "docs" and page.name != "README.md" and any(page.name in file.read_text() for file in others)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_documented_command_is_executed_or_said_not_to_be(document):
    if document not in EXECUTED and not is_executed_by_another_module(document):
        assert all(is_elsewhere(snippet) for snippet in snippets(document))
        assert {match[1] for match in FENCE.finditer(text_of(document))} <= {"text"}


@pytest.mark.parametrize("beginning", ELSEWHERE)
def test_no_command_is_excused_that_no_document_names(beginning):
    assert any(re.match(beginning, snippet.text) for document in DOCUMENTS for snippet in snippets(document))


@pytest.mark.parametrize(
    ("document", "snippet"),
    [
        pytest.param(document, snippet, id=f"{document}: {snippet.text[:60]}")
        for document in DOCUMENTS
        for snippet in snippets(document)
        if "-m monai.bundle run " in snippet.text
    ],
)
def test_every_documented_run_names_what_exists(document, snippet):
    words = shlex.split(snippet.text)
    run_id = words[words.index("run") + 1]
    options = {
        word.removeprefix("--"): words[index + 1]
        for index, word in enumerate(words)
        if word.startswith("--") and index > words.index("run")
    }
    files = options["config_file"]
    configs: dict = {}
    for name in ast.literal_eval(files) if files.startswith("[") else [files]:
        if not name.startswith("output/"):
            # What another command of the page has written there.
            configs |= json.loads((ROOT / snippet.folder / name).read_text())
    assert run_id in configs, f"{document}: {run_id} is no id of {files}"
    assert set(options) - OPTIONS <= set(configs), f"{document}: {set(options) - OPTIONS - set(configs)} are no ids of {files}"


@pytest.mark.parametrize("document", ["docs/integrations.md", "README.md", "CONTRIBUTING.md"])
def test_every_documented_make_has_a_target(document):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = re.findall(r"^    make ([a-z-]+)", text_of(document), flags=re.MULTILINE)
    assert named
    assert set(named) <= set(targets)


def test_the_demo_of_own_studies_writes_where_the_readme_says_and_never_among_the_phantoms():
    def folder(*given: str) -> str:
        """The work folder of `make demo`."""
        done = subprocess.run(["make", "--dry-run", "demo", *given], cwd=ROOT, capture_output=True, text=True, check=True)
        (work,) = re.findall(r"petct train .* -o '(.*)' --profile demo", done.stdout)
        return work

    (shown,) = re.findall(r"`make demo STUDIES=FOLDER`: it leaves `(.*?)/results/report\.html`", text_of("README.md"))
    for studies in ("/data/my studies", "/data/phantoms", "phantoms"):
        assert folder(f"STUDIES={studies}") == shown.replace("FOLDER", Path(studies).name)
    assert folder() == "demo/phantoms"
    assert not Path(shown).is_relative_to("demo/phantoms")


def petct() -> list[str]:
    """The command `petct` of this checkout, which need not be installed."""
    scripts = re.search(
        r"^\[project\.scripts\]\npetct = \"([\w.]+):(\w+)\"", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE
    )
    assert scripts, "pyproject.toml names no command petct"
    places = [str(BUNDLES / ENSEMBLE), str(ROOT / "src"), str(ROOT)]
    code = f"import sys; sys.path[:0] = {places}; sys.argv[0] = 'petct'; from {scripts[1]} import {scripts[2]} as main; main()"
    return [sys.executable, "-c", code]


@functools.cache
def help_of(subcommand: str) -> str:
    return subprocess.run([*petct(), subcommand, "--help"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("document", "snippet"),
    [
        pytest.param(document, snippet, id=f"{document}: {snippet.text}")
        for document in DOCUMENTS
        for snippet in snippets(document)
        if snippet.text.startswith("petct ")
    ],
)
def test_every_documented_petct_names_what_exists(document, snippet):
    subcommand, *words = shlex.split(snippet.text)[1:]
    options = [word for word in words if word.startswith("-")]
    assert all(re.search(rf"(?<![\w-]){option}(?![\w-])", help_of(subcommand)) for option in options), f"{document}: {options}"


def test_no_command_on_the_first_screen_needs_a_second_line():
    screen = text_of("README.md").splitlines()[:FIRST_SCREEN_LINES]
    commands = [line for line in screen if line.startswith("    ")]
    assert commands
    assert max(len(line) for line in commands) <= LONGEST_COMMAND


def headings(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)", FENCE.sub("", document.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_to_a_file_and_a_heading(document):
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text_of(document)):
        path, _, anchor = link.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        assert file.is_file(), f"{document} links to {link}"
        assert not anchor or anchor in headings(file), f"{document} links to {link}"


def texts_of(file: Path) -> list[str]:
    """Every text in a module, those with values in pieces; or a whole config."""
    content = file.read_text(encoding="utf-8")
    if file.suffix == ".json":
        return [content]
    return [node.value for node in ast.walk(ast.parse(content)) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_every_message_in_troubleshooting_is_one_that_the_program_prints():
    files = [*BUNDLES.glob("*/petct_*/**/*.py"), *BUNDLES.glob("*/configs/*.json")]
    texts = [text for file in files for text in texts_of(file)]
    messages = re.findall(r"^\| `([^`]+)` \|", text_of("docs/troubleshooting.md"), flags=re.MULTILINE)
    assert len(messages) > 20
    pieces = {piece.strip() for message in messages for piece in message.split("...")}
    assert [piece for piece in pieces if not any(piece in text for text in texts)] == []


# ---------------------------------------------------------------- executed


class Reader:
    """Types what a document says, in its order, in a copy of the bundles whose configs are those of the demo profile.

    The documents' names for a person's own data (RAW, DATA, studies.csv ...) are names of files in the current folder, so that
    commands are executed word for word; but for the number of processes, which is 2, and the port of Slurm's example.

    Args:
        document: the document.
        folder: where the copy is made.
    """

    def __init__(self, document: str, folder: Path) -> None:
        self.root = folder / "repository"
        for bundle in (*NETWORKS, ENSEMBLE):
            zoo.copy_bundle(BUNDLES / bundle, self.root / "bundles", "demo")
        self.remaining = [snippet for snippet in snippets(document) if not is_elsewhere(snippet)]
        self.folder = self.root / self.remaining[0].folder
        # Slurm with one node: a step is one task there.
        programs = folder / "programs"
        programs.mkdir()
        does_what = {
            "srun": 'SLURM_PROCID=0 SLURM_LOCALID=0 exec "$@"',
            "scontrol": 'test "$1 $2" = "show hostnames" && echo "$3"',
        }
        if any(snippet.text.startswith("petct ") for snippet in self.remaining):
            does_what["petct"] = f'exec {shlex.join(petct())} "$@"'
        for name, does in does_what.items():
            (programs / name).write_text(f"#!/bin/sh\n{does}\n")
            (programs / name).chmod(0o755)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        self.environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONWARNINGS": "ignore",
            "OMP_NUM_THREADS": "1",
            # torchrun's own port, which another training on this machine may have.
            "PET_MASTER_PORT": self.port,
        }

    def times(self, patterns: tuple[str, ...]) -> dict[str, dict[Path, int]]:
        """When the files were written that each pattern finds."""
        return {pattern: {file: file.stat().st_mtime_ns for file in self.folder.glob(pattern)} for pattern in patterns}

    def follow(self, words: str, *made: str, options: str = "") -> None:
        """Execute the next command, which must succeed and make files.

        Args:
            words: words of the command, to tell which one it must be.
            made: patterns of files, from the command's folder; what each finds must be new, and something.
            options: options that make the command small.
        """
        snippet = self.remaining.pop(0)
        assert words in snippet.text
        self.folder = self.root / snippet.folder
        command = re.sub(r"(?<=--nproc_per_node=)\w+", "2", snippet.text).replace(":29500", f":{self.port}")
        if command.startswith("srun"):
            command = f"{SLURM}; {command}"
        before = self.times(made)
        self.execute(f"{command} {options}", shell=True)
        for pattern, files in self.times(made).items():
            assert files, f"{command} made no {pattern}"
            assert not files.items() & before[pattern].items(), f"{command} did not make {pattern} anew"

    def type_python(self, *checks: str) -> None:
        """Type the next pieces of Python in one session, each followed by a check of what it promises."""
        lines = []
        for check in checks:
            snippet = self.remaining.pop(0)
            assert snippet.python
            self.folder = self.root / snippet.folder
            lines += [snippet.text, check]
        self.execute([sys.executable, "-c", "\n".join(lines)])

    def execute(self, command: str | list[str], **options) -> None:
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True, **options)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def write_raw(folder: Path) -> list[str]:
    """Write the tiny raw data set of five patients, and give the cases."""
    cases = [f"fdg_{number:04d}_2020-01-0{number + 1}" for number in range(5)]
    for seed, case in enumerate(cases):
        write_study(folder, case, seed, spacing=(5, 5, 5), shape=(40, 32, 40))
    return cases


WEIGHTS = ("model.pt", "fingerprint.json")
STAGE2_SWINUNETR = STAGE2[1]
# Where the import writes: SwinUNETR's plain network refuses the octants of the published weights.
FOLDERS_OF_PUBLISHED = [
    f"{bundle}/models{'/published' if bundle == STAGE2_SWINUNETR else ''}" for bundle in (*NETWORKS, ENSEMBLE)
]


def write_published(folder: Path) -> None:
    """Write DYNUNET, SEGRESNET, SWINUNETR and UNET: files like the authors', of the demo profile's networks."""
    for bundle in NETWORKS:
        save_as_published(
            parser_of(bundle, "inference", "demo").get_parsed_content("network_def"), folder / FLAG_OF[bundle].upper()
        )


SHORT = "--max_epochs 2 --val_interval 1"
SHORT_PIPELINE = "--profile demo --train_options \"{'max_epochs': 2, 'val_interval': 1}\""
REPORT = ("OUT/report.html", "OUT/readouts.json", "OUT/readouts_studies.csv", "OUT/readouts_lesions.csv", "OUT/problems.json")
SCORES = (*REPORT, "OUT/scores.csv", "OUT/summary.json", "OUT/summary.md", "OUT/table1.md")
PIPELINE = ("prepared/datalist.json", "models/*/model.pt", "results/table1.md", "results/report.html", "results/pictures/*.png")


def inside(folder: str, patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Patterns of files in OUT, in another folder."""
    return tuple(pattern.replace("OUT/", f"{folder}/") for pattern in patterns)


@pytest.mark.slow
@needs("onnx", "onnxscript")
@pytest.mark.parametrize("bundle", NETWORKS)
def test_every_command_in_the_readme_of_a_network_does_what_it_says(bundle, tmp_path):
    reader = Reader(f"bundles/{bundle}/docs/README.md", tmp_path)
    write_prepared(reader.folder / "DATA")
    weights = ("models/model.pt", "models/last.pt", "models/fingerprint.json")
    reader.follow("run training", *weights, "output/events.*", options=SHORT)
    last = reader.folder / "models/last.pt"
    state = torch.load(last, weights_only=True)
    steps = state["trainer"]["iteration"]
    # As an interruption leaves it after the first of the two epochs.
    torch.save({**state, "trainer": {**state["trainer"], "iteration": steps // 2}}, last)
    reader.follow("--resume true", "models/last.pt", options=SHORT)
    assert torch.load(last, weights_only=True)["trainer"]["iteration"] == steps
    reader.follow("torchrun", *weights, options=SHORT)
    reader.follow("srun torchrun", *weights, options=SHORT)
    reader.follow("run evaluating", "output/val_mean_dice_raw.csv")
    reader.follow("multi_gpu_evaluate", "output/val_mean_dice_raw.csv")
    if bundle == STAGE1:
        # They were put there by hand, and no program replaces them.
        shutil.rmtree(reader.folder / "DATA/coarse_masks")
    reader.follow("run inferring", "DATA/coarse_masks/*.nii.gz" if bundle == STAGE1 else "output/*.nii.gz")
    if bundle != STAGE1:
        reader.follow("published.json", *weights, options=SHORT)
    reader.follow("ckpt_export", "models/model.ts")
    reader.follow("onnx_export", "models/model.onnx")
    if bundle == NETWORKS[1]:
        reader.follow("channels_last_3d", "models/model.pt", "models/last.pt", options=SHORT)
    assert reader.remaining == []


@pytest.mark.slow
def test_every_command_in_the_readme_of_the_ensemble_does_what_it_says(tmp_path):
    reader = Reader(f"bundles/{ENSEMBLE}/docs/README.md", tmp_path)
    here, weights = reader.folder, ("models/model.pt", "models/fingerprint.json")
    reader.follow("run phantom", "RAW/lesions.csv", "RAW/imagesTr/*", "RAW/labelsTr/*", options="--num_patients 6 --shrink 8")
    reader.follow("run prepare", "DATA/datalist.json", "DATA/fingerprint.json", "DATA/images/*.nii", "DATA/labels/*.nii")
    reader.follow("run pipeline", *(f"WORK/{pattern}" for pattern in PIPELINE), options=SHORT_PIPELINE)
    for bundle in NETWORKS:
        # The READMEs of the networks, which this one refers to, leave weights here.
        shutil.copytree(here / "WORK/models" / bundle, here.parent / bundle / "models", dirs_exist_ok=True)
    reader.follow("run assemble", *weights)
    write_published(here)
    reader.follow("run import_weights", *(f"../{bundle}/{file}" for bundle in FOLDERS_OF_PUBLISHED for file in WEIGHTS))
    # At the published spacing, of 2 mm, these phantoms would be large.
    shutil.copytree(here / f"WORK/models/{ENSEMBLE}", here / "models", dirs_exist_ok=True)
    cases = [file.name.removesuffix(".nii.gz") for file in sorted((here / "RAW/labelsTr").iterdir())]
    reader.follow("--studies RAW", *(f"OUT/{case}.nii.gz" for case in cases), "OUT/pictures/*.png", *REPORT)
    masks = here / "MASKS"
    masks.mkdir()
    for case in cases:
        shutil.copyfile(here / f"OUT/{case}.nii.gz", masks / f"{case}.nii.gz")
    ct, pet = (f"RAW/imagesTr/{cases[0]}_000{channel}.nii.gz" for channel in (0, 1))
    (here / "LIST.csv").write_text(f"case,ct,pet\nlisted,{ct},{pet}\n")
    reader.follow("--studies LIST.csv", "OUT/listed.nii.gz", *REPORT)
    shutil.copyfile(here / ct, here / "CT.nii.gz")
    shutil.copyfile(here / pet, here / "PET.nii.gz")
    reader.follow("--ct CT.nii.gz --pet PET.nii.gz", "OUT/*_PET.nii.gz", *REPORT)
    reader.follow("run evaluating", "EVALUATION/masks/*/*.nii.gz", *inside("EVALUATION", SCORES))
    reader.follow("run score", *inside("SCORES", SCORES))
    (here / "IMAGES").symlink_to("RAW/imagesTr")
    reader.follow("run readout", *inside("READOUTS", REPORT))
    assert reader.remaining == []


DEMO = "--profile demo"
TWO_EPOCHS = "--epochs 2"
SMALL_PHANTOMS = "--set num_patients=6 --set shrink=8"


@pytest.mark.slow
def test_every_command_in_the_first_readme_does_what_it_says(tmp_path):
    reader = Reader("README.md", tmp_path)
    here = reader.folder
    work = tuple(f"WORK/{pattern}" for pattern in PIPELINE)
    reader.follow("petct phantom", "RAW/lesions.csv", "RAW/imagesTr/*", "RAW/labelsTr/*", options=SMALL_PHANTOMS)
    reader.follow("petct train RAW", *work, options=TWO_EPOCHS)
    phantoms = [file.name for file in (here / "RAW/labelsTr").iterdir()]
    reader.follow("petct segment RAW", *(f"OUT/{name}" for name in phantoms), "OUT/pictures/*.png", *REPORT)
    cases = write_raw(here / "STUDIES")
    shutil.copyfile(here / f"STUDIES/imagesTr/{cases[0]}_0000.nii.gz", here / "CT.nii.gz")
    shutil.copyfile(here / f"STUDIES/imagesTr/{cases[0]}_0001.nii.gz", here / "SUV.nii.gz")
    write_dicom_study(here / "DICOM", dicom_study())
    reader.follow("petct segment DICOM", "OUT/fdg_0042_2023-05-04.nii.gz", "OUT/dicom/*/*.dcm", *REPORT, options=DEMO)
    reader.follow("--ct CT.nii.gz --pet SUV.nii.gz", "OUT/*_SUV.nii.gz", *REPORT, options=DEMO)
    reader.follow("petct segment STUDIES", *(f"OUT/{case}.nii.gz" for case in cases), *REPORT, options=DEMO)
    reader.follow("petct train STUDIES", *work, options=f"{DEMO} {TWO_EPOCHS}")
    assert reader.remaining == []


@pytest.mark.slow
def test_the_recommended_recipe_has_the_folds_members_and_share_of_stage_1_that_its_page_names(tmp_path):
    reader = Reader("docs/beyond-the-paper.md", tmp_path)
    write_raw(reader.folder / "STUDIES")
    folds = [f"WORK/models/autopet_stage1_dynunet/fold_{fold}/model.pt" for fold in range(3)]
    work = (f"WORK/{pattern}" for pattern in PIPELINE if "models" not in pattern)
    reader.follow("--recipe recommended", *folds, *work, options=f"{DEMO} {TWO_EPOCHS}")
    fingerprint = json.loads((reader.folder / f"WORK/models/{ENSEMBLE}/fingerprint.json").read_text())
    assert (fingerprint["members"], fingerprint["stage1_weight"], fingerprint["keep_found_above"]) == (
        ["SegResNet", "UNet"],
        0.5,
        0.25,
    )


@pytest.mark.slow
def test_every_command_in_getting_started_does_what_it_says(tmp_path):
    reader = Reader("docs/getting-started.md", tmp_path)
    here = reader.folder
    reader.follow("petct phantom", "RAW/lesions.csv", "RAW/imagesTr/*", "RAW/labelsTr/*", options=SMALL_PHANTOMS)
    cases = write_raw(here / "STUDIES")
    reader.follow("petct prepare", "DATA/datalist.json", "DATA/fingerprint.json", "DATA/images/*.nii", "DATA/labels/*.nii")
    for folder in ("TRIAL", "WORK"):
        patterns = tuple(f"{folder}/{pattern}" for pattern in PIPELINE)
        reader.follow(f"-o {folder}", *patterns, options=f"{DEMO} {TWO_EPOCHS}" if folder == "WORK" else TWO_EPOCHS)
    (here / "NEW").symlink_to("STUDIES")
    reader.follow("petct segment NEW", *(f"OUT/{case}.nii.gz" for case in cases), "OUT/pictures/*.png", *REPORT, options=DEMO)
    (here / "MASKS").mkdir()
    for case in cases:
        shutil.copyfile(here / f"OUT/{case}.nii.gz", here / f"MASKS/{case}.nii.gz")
    (here / "REF").symlink_to("STUDIES/labelsTr")
    (here / "IMAGES").symlink_to("STUDIES/imagesTr")
    reader.follow("petct score", "SCORES/scores.csv", "SCORES/summary.md", "SCORES/report.html")
    reader.follow("petct readout", *inside("READOUTS", REPORT))
    reader.follow("petct evaluate", *inside("EVALUATION", SCORES), options=DEMO)
    assert reader.remaining == []


@pytest.mark.slow
def test_every_command_in_dicom_does_what_it_says(tmp_path):
    reader = Reader("docs/dicom.md", tmp_path)
    here = reader.folder
    for number in range(5):
        variant = Variant(person=Person(identifier=f"PETCT_{number}"), study_key=str(number))
        write_tcia(here / "DICOM", dicom_study(seed=number), variant)
    (here / "manifest-1234").symlink_to("DICOM")
    work = tuple(f"WORK/{pattern}" for pattern in PIPELINE)
    # The first command takes the weights of the third.
    petct_train = reader.remaining.pop(2)
    reader.remaining.insert(0, petct_train)
    reader.follow("petct train DICOM", *work, options=f"{DEMO} {TWO_EPOCHS}")
    reader.follow("petct segment DICOM", "OUT/fdg_0_2023-05-04.nii.gz", "OUT/dicom/*/*.dcm", *REPORT, options=DEMO)
    reader.follow(
        "petct convert", *(f"NIFTI/{name}" for name in ("imagesTr/*_0000.nii.gz", "imagesTr/*_0001.nii.gz", "labelsTr/*"))
    )
    series = "--ct-series 1.2.840.113619.2.55.3"
    snippet = reader.remaining[0]
    one = next((here / "DICOM").rglob("PETCT_0"))
    (here / "ONE").symlink_to(one)
    uid = pydicom.dcmread(next(one.rglob("*-CT*/1-001.dcm"))).SeriesInstanceUID
    assert series in snippet.text
    reader.remaining[0] = snippet._replace(text=snippet.text.replace(series, f"--ct-series {uid}").replace("DICOM", "ONE"))
    reader.follow("--pet-series", *REPORT, options=DEMO)
    # Results with names and without never share a folder.
    for folder in ("OUT", "NIFTI"):
        shutil.rmtree(here / folder)
    case = "fdg_" + "[0-9a-f]" * 12
    reader.follow("petct segment DICOM", f"OUT/{case}.nii.gz", *REPORT, options=DEMO)
    reader.follow("petct convert DICOM", *(f"NIFTI/imagesTr/{case}_{channel:04}.nii.gz" for channel in (0, 1)))
    # The same studies elsewhere: nothing is done again.
    reader.follow("manifest-1234", options=f"{DEMO} {TWO_EPOCHS}")
    assert reader.remaining == []


@pytest.mark.slow
@needs("mlflow")
def test_every_command_and_python_in_the_integrations_does_what_it_says(tmp_path):
    reader = Reader("docs/integrations.md", tmp_path)
    bundles = reader.root / "bundles"
    for bundle in (STAGE1, ENSEMBLE):
        zoo.make_weights(bundles / bundle)
    write_prepared(reader.root / "DATA")
    (bundles / STAGE1 / "DATA").symlink_to(reader.root / "DATA")
    write_published(bundles / ENSEMBLE)
    same = (
        "import torch\n"
        "saved = torch.load('bundles/{}/models/model.pt', weights_only=True)\n"
        "assert not network.training and network.state_dict().keys() == saved.keys()\n"
        "assert all(torch.equal(tensor.cpu(), saved[name]) for name, tensor in network.state_dict().items())"
    )
    reader.follow("run import_weights", *(f"../{bundle}/{file}" for bundle in FOLDERS_OF_PUBLISHED for file in WEIGHTS))
    (bundles / STAGE2_SWINUNETR / "DATA").symlink_to(reader.root / "DATA")
    reader.follow("published_weights.json", "output/*.nii.gz")
    shutil.copyfile(reader.root / "DATA/fingerprint.json", bundles / STAGE1 / "models/fingerprint.json")
    reader.type_python(same.format(STAGE1), same.format(ENSEMBLE), "import glob; assert len(glob.glob('MASKS/*.nii.gz')) == 6")
    reader.type_python("assert len(site.trainer.data_loader) and len(site.evaluator.data_loader); site.finalize()")
    reader.follow("--tracking mlflow", "mlflow.db", "models/model.pt", options=SHORT)
    assert reader.remaining == []
