"""What can be wrong with a study: how each file of a good one is damaged, and words of the sentence that says so."""

from __future__ import annotations

import gzip

import numpy as np
from helpers import damage_middle, las, make_study, rewrite, rotated, with_value

# Where a NIfTI-1 header holds the first spacing and the first number of the affine, in bytes.
PIXDIM, SROW_X = 80, 280
CT, PET, LABEL = make_study()
ZEROS = np.zeros(CT.shape, np.float32)
CORNER = (np.indices(CT.shape).sum(axis=0) < 3).astype(np.uint8)


def sheared():
    affine = las((4, 4, 5))
    affine[0, 2] = 1.5
    return affine


def flipped():
    """The affine of the same voxels, stored from right to left."""
    affine = las((4, 4, 5))
    affine[:3, 3] += (CT.shape[0] - 1) * affine[:3, 0]
    affine[:3, 0] *= -1
    return affine


def singular():
    affine = las((4, 4, 5))
    affine[:3, 1] = affine[:3, 0]
    return affine


def patch_header(file, offset, value):
    """Change a 32-bit number of a header behind nibabel's back."""
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[offset : offset + 4] = np.float32(value).tobytes()
    file.write_bytes(gzip.compress(bytes(content)))


def enlarge_header(file):
    """Let a header speak of 27 million million voxels."""
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[42:48] = np.full(3, 30000, "<i2").tobytes()
    file.write_bytes(gzip.compress(bytes(content)))


# What is done to which file of a good study, and words of the sentence that says so.
ERRORS = {
    "missing": ("ct", lambda f: f.unlink(), "does not exist"),
    "empty file": ("pet", lambda f: f.write_bytes(b""), "is empty"),
    "cut off": ("pet", lambda f: f.write_bytes(f.read_bytes()[:4000]), "cut off"),
    "cut off in the header": ("pet", lambda f: f.write_bytes(f.read_bytes()[:60]), "cut off"),
    "size that the file cannot hold": ("ct", enlarge_header, "damaged or cut off"),
    "damaged gzip": ("ct", damage_middle, "damaged"),
    "not gzip": ("ct", lambda f: f.write_bytes(gzip.decompress(f.read_bytes())), "not compressed"),
    "not NIfTI": ("label", lambda f: f.write_bytes(gzip.compress(b"DICM" * 400)), "not a NIfTI"),
    "text instead of NIfTI": ("label", lambda f: f.write_bytes(gzip.compress(b"404")), "not a NIfTI"),
    "2-D": ("pet", lambda f: rewrite(f, PET[:, :, 5]), "2 dimensions"),
    "one slice": ("pet", lambda f: rewrite(f, PET[:, :1, :]), "single slice"),
    "4-D": ("pet", lambda f: rewrite(f, np.stack([PET, PET], -1)), "4 dimensions"),
    "no voxels": ("pet", lambda f: rewrite(f, PET[:0]), "no voxels"),
    "colours": ("ct", lambda f: rewrite(f, np.zeros(CT.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])), "colours"),
    "complex": ("ct", lambda f: rewrite(f, CT.astype(np.complex64)), "complex"),
    "NaN voxel": ("ct", lambda f: rewrite(f, with_value(CT, np.nan)), "1 voxels without a number"),
    "infinite voxel": ("pet", lambda f: rewrite(f, with_value(PET, np.inf)), "1 voxels without a number"),
    "affine NaN": ("pet", lambda f: patch_header(f, SROW_X, np.nan), "not a number"),
    "affine singular": ("pet", lambda f: rewrite(f, affine=singular()), "singular"),
    "affine sheared": ("ct", lambda f: rewrite(f, affine=sheared()), "sheared"),
    "spacing zero": ("pet", lambda f: patch_header(f, PIXDIM, 0), "zero or negative"),
    "spacing negative": ("pet", lambda f: patch_header(f, PIXDIM, -4), "zero or negative"),
    "spacing NaN": ("pet", lambda f: patch_header(f, PIXDIM, np.nan), "zero or negative"),
    "spacing contradictory": ("pet", lambda f: patch_header(f, PIXDIM, 2), "elsewhere"),
    "spacing in metres": ("ct", lambda f: rewrite(f, affine=las((0.004, 0.004, 0.005))), "not in mm"),
    "unit metres": ("ct", lambda f: rewrite(f, xyzt_units=1), "not in mm"),
    "spacing wild": ("ct", lambda f: rewrite(f, affine=las((400, 400, 500))), "no PET/CT"),
    "CT constant": ("ct", lambda f: rewrite(f, ZEROS), "same value"),
    "CT normalised": ("ct", lambda f: rewrite(f, np.clip((CT + 1000) / 2000, 0, 1).astype(np.float32)), "0 to 1"),
    "CT positive": ("ct", lambda f: rewrite(f, (CT + 1024).astype(np.uint16)), "no negative value"),
    "PET zero": ("pet", lambda f: rewrite(f, ZEROS), "same value 0"),
    "PET in Bq/ml": ("pet", lambda f: rewrite(f, PET * 5000), "Bq/ml"),
    "PET negative": ("pet", lambda f: rewrite(f, PET - 3), "negative"),
    "PET too low": ("pet", lambda f: rewrite(f, PET / PET.max() * 0.2), "less than any tissue"),
    "CT elsewhere": ("ct", lambda f: rewrite(f, affine=las((4, 4, 5), (500, 0, 0))), "lies elsewhere"),
    "label of another size": ("label", lambda f: rewrite(f, LABEL[:-1]), "resample it"),
    "label elsewhere": ("label", lambda f: rewrite(f, affine=las((4, 4, 5), (2, 0, 0))), "2.0 mm beside the PET"),
    "label flipped": ("label", lambda f: rewrite(f, LABEL[::-1], affine=flipped()), "axes stored as RAS and the PET as LAS"),
    "label not binary": ("label", lambda f: rewrite(f, LABEL * 2), "holds the values 0, 2"),
    "label with fractions": ("label", lambda f: rewrite(f, LABEL * np.float32(0.5)), "holds the values 0, 0.5"),
}
WARNINGS = {
    "spacing unusual": ("ct", lambda f: rewrite(f, affine=las((4, 4, 25))), "unusual voxel spacing"),
    "oblique": ("pet", lambda f: rewrite(f, affine=rotated(30)), "oblique"),
    "CT without air": ("ct", lambda f: rewrite(f, np.maximum(CT, -100)), "air would be -1000"),
    "CT without bone": ("ct", lambda f: rewrite(f, np.minimum(CT, 20)), "bone has several hundred"),
    "PET very high": ("pet", lambda f: rewrite(f, with_value(PET, 5000)), "highest SUV of 5000"),
    "PET a little negative": ("pet", lambda f: rewrite(f, with_value(PET, -0.5)), "a few negative"),
    "PET low": ("pet", lambda f: rewrite(f, PET / PET.max() * 0.9), "was not normalised"),
    "CT overlaps partly": ("ct", lambda f: rewrite(f, CT[:, :, :9]), "the rest is taken as air"),
    "label outside of the body": ("label", lambda f: rewrite(f, CORNER), "mostly where the PET is below"),
}
