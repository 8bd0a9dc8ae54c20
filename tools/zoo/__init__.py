"""A developer's tool: the Model Zoo's checks of every bundle, and the archives with which bundles are published.

    PYTHONPATH=tools python -m zoo check [--profile demo] [--schema FILE] [BUNDLE ...]
    PYTHONPATH=tools python -m zoo pack [--output DIR] [--weights-url URL] [--schema FILE] [BUNDLE ...]

Nothing is sent anywhere. The package index that pip is set up for is asked which versions there are.
"""

from zoo.archives import LARGE, large_files, model_card
from zoo.checks import SCHEMA
from zoo.command import main
from zoo.copies import SHARED, copy_bundle, inside, largest_difference, load_network, make_weights, read, write

__all__ = [
    "LARGE",
    "SCHEMA",
    "SHARED",
    "copy_bundle",
    "inside",
    "large_files",
    "largest_difference",
    "load_network",
    "main",
    "make_weights",
    "model_card",
    "read",
    "write",
]
