"""The sockets by which processes hand data to each other, in a folder with a short path."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from multiprocessing import util

from petct_training.errors import InputError

# Of the folder for temporary files, in bytes: the path of a Unix socket has at most 107, on macOS 103, of which multiprocessing
# adds some 30.
LONGEST_FOLDER = 70
# Where a longer one is replaced, the first that can be written.
SHORT_FOLDERS = ("/tmp", "/var/tmp")


def shorten_socket_paths() -> None:
    """Let the sockets of this process and of those that it starts lie in a folder whose path is short enough for them.

    They lie in the folder for temporary files, and a job's own may have a long path. A data loader would wait for ever for what its
    processes cannot send. Where the path is short, nothing changes; everything but sockets stays in the folder in any case.

    Raises:
        InputError: when there is no such folder.
    """
    folder = tempfile.gettempdir()
    if sys.platform == "win32" or len(os.fsencode(folder)) <= LONGEST_FOLDER:
        return
    before = tempfile.tempdir
    try:
        for short in SHORT_FOLDERS:
            tempfile.tempdir = short
            with contextlib.suppress(OSError):
                # Makes a folder the first time: this process removes it in the end, and each that it starts knows of it.
                util.get_temp_dir()
                return
    finally:
        tempfile.tempdir = before
    raise InputError(
        f"{folder}, the folder for temporary files, has too long a path for the sockets of processes, and none of "
        f"{', '.join(SHORT_FOLDERS)} can be written: set the environment variable TMPDIR to a folder with a shorter path"
    )
