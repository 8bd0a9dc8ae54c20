"""Serve OHIF, a viewer of DICOM that runs in a browser, on this machine; the files that it opens stay on this machine.

    python tools/ohif.py

Then open http://localhost:3000/local, and drop a folder with DICOM files there. The package comes from npm once, into
dist/ohif; its version and checksum stand below. It has no other data source than local files.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "dist/ohif"
VERSION = "3.13.2"
SHA256 = "b189d3963bfc58e9394a9db8c7be75d07beb029ec211dbb126d47b62969dd3f1"
# The package's own configuration knows no local files.
CONFIG = """window.config = {
  routerBasename: null,
  extensions: [],
  modes: [],
  showStudyList: true,
  defaultDataSourceName: 'dicomlocal',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomlocal',
      sourceName: 'dicomlocal',
      configuration: { friendlyName: 'files of this machine' },
    },
  ],
};
"""


class Handler(SimpleHTTPRequestHandler):
    """Hands out OHIF's files; every other path is a page of the viewer."""

    def end_headers(self) -> None:
        # Only a page that is isolated from other origins may share memory with its workers.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def translate_path(self, path: str) -> str:
        file = super().translate_path(path)
        return file if os.path.exists(file) else super().translate_path("/index.html")

    def log_message(self, *args: object) -> None:
        """Say nothing of each request."""


def fetch(folder: Path) -> Path:
    """Return the folder of OHIF's pages, which npm downloads unless they are there.

    Raises:
        SystemExit: when the package cannot be downloaded, or is another one.
    """
    pages = folder / f"{VERSION}/package/dist"
    if not (pages / "index.html").is_file():
        with tempfile.TemporaryDirectory() as temporary:
            command = ["npm", "pack", "--silent", "--pack-destination", temporary, f"@ohif/app@{VERSION}"]
            try:
                name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            except (OSError, subprocess.CalledProcessError) as error:
                sys.exit(f"OHIF cannot be downloaded ({error}): install npm, and see that its registry can be reached.")
            archive = Path(temporary) / name
            if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
                sys.exit(f"@ohif/app {VERSION} has another SHA-256 than {SHA256}: nothing was unpacked.")
            with tarfile.open(archive) as content:
                content.extractall(folder / VERSION, filter="data")
    (pages / "app-config.js").write_text(CONFIG, encoding="utf-8")
    return pages


def serve(pages: Path, port: int) -> ThreadingHTTPServer:
    """Return a server of the pages, at a port of this machine alone; 0 takes any."""
    return ThreadingHTTPServer(("127.0.0.1", port), functools.partial(Handler, directory=str(pages)))


def main() -> None:
    """Serve until it is stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=3000, help="port of this machine (default: 3000)")
    server = serve(fetch(FOLDER), parser.parse_args().port)
    print(f"OHIF {VERSION}: http://localhost:{server.server_port}/local (stop it with Ctrl+C)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


if __name__ == "__main__":
    main()
