"""What is said of a damaged file, and how much a compressed one can hold."""

from __future__ import annotations

DAMAGED = "is damaged or cut off: copy it again from where it comes"

# Deflate, the compression of .gz and of MetaImage, makes nothing smaller than by this (zlib's technical details).
DEFLATE_RATIO = 1032
