"""How long the metrics of one large study take on one core: python benchmarks/metrics.py"""

from __future__ import annotations

import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "bundles/autopet_ensemble"), str(ROOT / "tests"), str(ROOT / "tools")]

from helpers import hundred_lesions  # noqa: E402

from petct_cascade.metrics import case_metrics  # noqa: E402
from petct_training.commands import command  # noqa: E402

REPEATS = 5


@command
def main() -> None:
    """Print the best of several times; the component labelling and NumPy's reductions use one core."""
    for shape in ((400, 400, 282), (400, 400, 326)):
        prediction, reference = hundred_lesions(shape)
        seconds = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            values = case_metrics(prediction, reference, (2.036, 2.036, 3.0))
            seconds.append(time.perf_counter() - start)
        size = " x ".join(map(str, shape))
        print(f"{size}, {prediction.size / 1e6:.0f} million voxels, {values['lesions_reference']} lesions: {min(seconds):.2f} s")


if __name__ == "__main__":
    main()
