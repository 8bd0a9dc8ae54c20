"""Share of its time for which a preparation reads files once more to know their content: python benchmarks/digests.py

A preparation is the quickest of the commands that keep records, so that the share is largest there. One core.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import common

from petct_cascade.preparation import PrepareOptions
from petct_cascade.prepare import prepare
from petct_training import records
from petct_training.commands import command

ROUNDS = 3


def measure() -> dict[str, float]:
    """Seconds a study that a whole preparation takes, and those of them that go into digests."""
    seconds = 0.0
    original = records.digest_of

    def timed(path: str) -> str:
        nonlocal seconds
        start = time.perf_counter()
        try:
            return original(path)
        finally:
            seconds += time.perf_counter() - start

    records.digest_of = timed
    try:
        return {"prepare": _timed(lambda folder: prepare(common.RAW, folder, PrepareOptions())), "digests": seconds}
    finally:
        records.digest_of = original


def _timed(run: Callable[[str], None]) -> float:
    with tempfile.TemporaryDirectory(dir=common.RESULTS) as folder, contextlib.redirect_stdout(sys.stderr):
        start = time.perf_counter()
        run(folder)
        return time.perf_counter() - start


@command
def main() -> None:
    """Measure in rounds, and print the medians."""
    common.full_size_studies()
    rounds = [measure() for _ in range(ROUNDS)]
    print(json.dumps(rounds))
    shares = [figures["digests"] / figures["prepare"] for figures in rounds]
    print(
        f"digests: {statistics.median(shares):.1%} of a preparation's time (rounds {', '.join(f'{share:.1%}' for share in shares)})"
    )


if __name__ == "__main__":
    main()
