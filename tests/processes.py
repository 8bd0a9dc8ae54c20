"""Commands in processes of their own, as `subprocess.run` starts them, but that PyTorch and MONAI are loaded once for all of them.

Loading them takes most commands of the tests longer than all else that they do. So a server of `multiprocessing` loads them, and
forks itself for each command; nothing of this project is loaded before the command does it.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

# Others cannot fork safely. And coverage is measured in processes that start by themselves alone.
CAN_FORK = sys.platform == "linux" and not any(name.startswith("COV") for name in os.environ)
PRELOADED = ["monai", "torch.utils.tensorboard"]


@functools.cache
def search_path() -> list[str]:
    """Where a process looks for modules after its own folder and those of PYTHONPATH, which are not pytest's."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.path[1:]))"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


def run_python(
    command: Sequence[str | Path],
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    file_bytes: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `python [-W ignore] -m MODULE` or `-c CODE` with its words to the end, and return exit code and output.

    Args:
        command: begins with `sys.executable`.
        cwd: its folder; this process's, if there is none.
        env: its environment; this process's, if there is none.
        file_bytes: the most that a file may have that it writes, as on a disk that is full from there on.
    """
    words = [str(word) for word in command]
    environment, folder = dict(os.environ if env is None else env), str(Path.cwd() if cwd is None else cwd)
    if not CAN_FORK:
        limit = None if file_bytes is None else functools.partial(limit_files, file_bytes)
        return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False, preexec_fn=limit)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    writers = [writer for _, writer in pipes]
    process = context.Process(target=run_here, args=(words[1:], folder, environment, search_path(), file_bytes, writers))
    process.start()
    for writer in writers:
        writer.close()
    with ThreadPoolExecutor(2) as pool:
        output, errors = pool.map(read_all, (reader for reader, _ in pipes))
    process.join()
    return subprocess.CompletedProcess(words, process.exitcode, output, errors)


def read_all(reader: Connection) -> str:
    """Return the text that comes through a pipe until its other end is closed."""
    with reader, os.fdopen(os.dup(reader.fileno()), "rb") as file:
        return file.read().decode()


def limit_files(file_bytes: int) -> None:
    """Let this process write no file of more bytes."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))


def run_here(
    words: Sequence[str],
    folder: str,
    environment: Mapping[str, str],
    path: Sequence[str],
    file_bytes: int | None,
    writers: Sequence[Connection],
) -> None:
    """Become the command: the forked process takes its words, folder, environment and output."""
    for stream, writer in zip((1, 2), writers, strict=True):
        os.dup2(writer.fileno(), stream)
        writer.close()
    # Those of the server may be of files, which can do what pipes cannot.
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    # A process that the server forks would start its own as the server does, a command as the system does.
    multiprocessing.set_start_method(None, force=True)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
    if file_bytes is not None:
        limit_files(file_bytes)
    given = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    options = list(words)
    quiet = options[:2] == ["-W", "ignore"]
    if quiet or environment.get("PYTHONWARNINGS") == "ignore":
        warnings.simplefilter("ignore")
    kind, what, *further = options[2:] if quiet else options
    sys.argv, sys.path[:] = [kind, *further], [folder if kind == "-m" else "", *given, *path]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
