"""A server of MONAI Label, which is started for a test and ended by its process id."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path


def copy_app(folder: Path) -> Path:
    """Copy the sample app that opens bundles into a folder."""
    app = folder / "monaibundle"
    shutil.copytree(Path(sys.prefix) / "monailabel/sample-apps/monaibundle", app)
    return app


def request(address: str, data: bytes | None = None, content_type: str = "application/json") -> bytes:
    with urllib.request.urlopen(
        urllib.request.Request(address, data=data, headers={"Content-Type": content_type}), timeout=300
    ) as answer:
        return answer.read()


@contextlib.contextmanager
def running_server(app: Path, studies: Path, models: Sequence[str]) -> Iterator[str]:
    """Yield the address of a server on 127.0.0.1 that shows a folder of studies and offers models."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", app, "--studies", studies, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--conf", "models", ",".join(models), "--conf", "zoo_source", "local"]
    log = studies.parent / "server.log"
    with open(log, "w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=studies.parent)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            assert process.poll() is None, log.read_text()[-3000:]
            try:
                request(f"{address}/info/")
                break
            except OSError:
                time.sleep(1)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=60)


def segment(server: str, model: str, study: str, folder: Path) -> Path:
    """Return the file, in a folder, of the mask that a server sends for a study."""
    body = b'params={"device":"cpu","result_dtype":"uint8"}'
    content = request(f"{server}/infer/{model}?image={study}&output=image", body, "application/x-www-form-urlencoded")
    file = folder / (f"{study}_mask.nii.gz" if content[:2] == b"\x1f\x8b" else f"{study}_mask.nii")
    file.write_bytes(content)
    return file
