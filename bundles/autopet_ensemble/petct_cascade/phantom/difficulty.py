"""How hard the lesions of a phantom are to tell from all else."""

from __future__ import annotations

from dataclasses import dataclass

from petct_training.errors import InputError

# Tissues whose uptake varies between patients by more than their range in TISSUES: reactive, inflamed, stimulated or full of urine.
VARIABLE_TISSUES = frozenset(
    {"muscle", "marrow", "liver", "spleen", "ureter", "stomach", "duodenum", "small bowel", "colon"}
    | {"parotid", "submandibular", "lacrimal", "tonsil", "thyroid"}
)


@dataclass(frozen=True)
class Difficulty:
    """What makes lesions hard to find, and physiological uptake hard to leave out.

    Attributes:
        smallest_diameter: of a lesion, mm.
        clearance: mm between a lesion and an organ of high uptake, the skin or the image's end.
        faintest: factor on the lowest uptake of lesions.
        physiology: factor on the highest uptake of the tissues of `VARIABLE_TISSUES`.
        noise: standard deviation (SUV) of PET noise where the SUV is 1.
    """

    smallest_diameter: float = 12.0
    clearance: float = 8.0
    faintest: float = 1.0
    physiology: float = 1.0
    noise: float = 0.14  # a tenth of the mean in a liver of SUV 2


# Hard: lesions down to a tenth of a millilitre and 2 mm beside bladder and kidneys, faint ones, bowel, glands and ureter as bright
# as lesions, and the noise of a short scan of a heavy patient, a seventh of the mean in a liver of SUV 2.
DIFFICULTIES = {
    "plain": Difficulty(),
    "hard": Difficulty(smallest_diameter=6.0, clearance=2.0, faintest=0.6, physiology=2.5, noise=0.2),
}


def difficulty_of(name: str) -> Difficulty:
    """Return a difficulty by its name.

    Raises:
        InputError: when there is none of this name.
    """
    if name not in DIFFICULTIES:
        raise InputError(f"difficulty is {name!r}: give {' or '.join(DIFFICULTIES)}.")
    return DIFFICULTIES[name]
