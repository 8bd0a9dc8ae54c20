"""Connected components of masks: the lesions of a label, or what a network has taken for some."""

from __future__ import annotations

from typing import Final

import cc3d
import numpy as np

# Two voxels belong to one lesion when they share a face or an edge (18 neighbours), as the challenge defines it.
CONNECTIVITY: Final = 18


def labelled_components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the 18-connected components of a boolean mask (X, Y, Z), such as the lesions.

    Returns:
        An integer array (X, Y, Z) with 0 outside of them and 1 ... n inside, and n.
    """
    labels, number = cc3d.connected_components(mask, connectivity=CONNECTIVITY, return_N=True, binary_image=True)
    return labels, int(number)
