"""A server of MONAI Label, which is started for a test and ended by its process id."""

from __future__ import annotations

import contextlib
import gzip
import json
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
        for _ in range(600):
            assert process.poll() is None, log.read_text()[-3000:]
            try:
                request(f"{address}/info/")
                break
            except OSError:
                time.sleep(1)
        else:
            raise AssertionError(f"the server does not answer: {log.read_text()[-3000:]}")
        yield address
    finally:
        process.terminate()
        process.wait(timeout=60)


def infer(server: str, model: str, study: str, folder: Path, params: dict, label: Path | None = None) -> Path:
    """Return the file of the mask that a server sends for what 3D Slicer's client sends: a form of several parts, with the clicks
    among the parameters, and perhaps a label map.
    """
    limit = b"----------lImIt_of_THE_fIle_eW_$"
    parts = [b'Content-Disposition: form-data; name="params"\r\n\r\n' + json.dumps(params).encode()]
    if label is not None:
        heading = (
            f'Content-Disposition: form-data; name="label"; filename="{label}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        )
        parts.append(heading.encode() + label.read_bytes())
    body = b"".join(b"--" + limit + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + limit + b"--\r\n"
    kind = f"multipart/form-data; boundary={limit.decode()}"
    content = request(f"{server}/infer/{model}?image={study}&output=image", body, kind)
    file = folder / "answer.nii"
    file.write_bytes(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
    return file


def segment(server: str, model: str, study: str, folder: Path) -> Path:
    """Return the file, in a folder, of the mask that a server sends for a study."""
    body = b'params={"device":"cpu","result_dtype":"uint8"}'
    content = request(f"{server}/infer/{model}?image={study}&output=image", body, "application/x-www-form-urlencoded")
    file = folder / (f"{study}_mask.nii.gz" if content[:2] == b"\x1f\x8b" else f"{study}_mask.nii")
    file.write_bytes(content)
    return file
