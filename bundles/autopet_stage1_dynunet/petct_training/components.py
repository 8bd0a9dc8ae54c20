"""Connected components of masks: the lesions of a label, or what a network has taken for some."""

from __future__ import annotations

from typing import Final

import cc3d
import numpy as np

# Lesions are 18-connected, as they are scored.
CONNECTIVITY: Final = 18


def labelled_components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the 18-connected components of a boolean mask (X, Y, Z) as numbers from 1 on, 0 elsewhere, and how many there are."""
    labels, number = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=CONNECTIVITY, return_N=True)
    return labels, int(number)


def components(mask: np.ndarray) -> list[np.ndarray]:
    """Return the 18-connected components of a boolean mask (X, Y, Z), each as a mask."""
    labels, number = labelled_components(mask)
    return [labels == index for index in range(1, number + 1)]
