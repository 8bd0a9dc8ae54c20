"""What the tissues of a phantom look like in CT and take up of each tracer."""

from __future__ import annotations

from typing import NamedTuple


class Tissue(NamedTuple):
    """The ranges from which a study draws a tissue's values.

    Attributes:
        hu: CT number (HU) with intravenous contrast medium.
        fdg: uptake (SUV) of FDG.
        psma: uptake (SUV) of a PSMA ligand.
    """

    hu: tuple[float, float]
    fdg: tuple[float, float]
    psma: tuple[float, float]


class TissueValues(NamedTuple):
    """What a tissue is like in one study: CT number (HU) and uptake (SUV) before blur and noise."""

    hu: float
    suv: float


# CT numbers: Prokop, Spiral and Multislice Computed Tomography of the Body (2003); Schneider et al., Phys Med Biol 2000;45:459.
# FDG: Wang et al., Mol Imaging Biol 2007;9:83 (SUVmean: cerebellum 8.0 +- 2.2, palatine tonsils 3.5 +- 1.4; all tissues below 2.5
# otherwise); liver 1.9 +- 0.4 (Liu et al., Iran J Radiol 2019;16:e84881). Myocardium, gut and urine vary most between patients.
# PSMA: "Evaluation of practical interpretation hurdles in 68Ga-PSMA PET/CT in 55 patients", Clin Nucl Med 2017;42(7) (SUVmax:
# kidneys 66 +- 25, submandibular 27 +- 7, parotid 24 +- 8, duodenum 18 +- 9, lacrimal 16 +- 7, spleen 11 +- 4, descending colon
# 11 +- 9, tonsils 10 +- 4, liver 8 +- 3); a mean over an organ is about six tenths of its SUVmax.
TISSUES = {
    "table": Tissue((-700, -600), (0.0, 0.0), (0.0, 0.0)),
    "fat": Tissue((-115, -95), (0.2, 0.35), (0.2, 0.35)),
    "muscle": Tissue((50, 70), (0.5, 0.9), (0.4, 0.7)),
    "mediastinum": Tissue((-20, 20), (0.9, 1.4), (0.7, 1.1)),
    "lung": Tissue((-850, -750), (0.35, 0.6), (0.3, 0.5)),
    "airway": Tissue((-990, -960), (0.2, 0.3), (0.2, 0.3)),
    "blood": Tissue((130, 180), (1.2, 2.0), (1.0, 1.8)),
    "cortical bone": Tissue((600, 1000), (0.5, 0.9), (0.3, 0.6)),
    "vertebral shell": Tissue((320, 480), (0.8, 1.5), (0.5, 0.9)),
    "marrow": Tissue((130, 240), (1.0, 2.0), (0.6, 1.1)),
    "fatty marrow": Tissue((-40, 30), (0.4, 0.7), (0.3, 0.5)),
    "spinal cord": Tissue((25, 45), (1.2, 2.0), (0.5, 0.8)),
    "grey matter": Tissue((40, 50), (6.0, 11.0), (0.3, 0.5)),
    "white matter": Tissue((25, 32), (2.5, 4.5), (0.2, 0.4)),
    "myocardium": Tissue((90, 130), (1.5, 11.0), (1.1, 1.8)),
    "liver": Tissue((95, 125), (1.5, 2.6), (3.5, 7.0)),
    "spleen": Tissue((105, 135), (1.2, 2.1), (4.0, 9.0)),
    "kidney": Tissue((140, 190), (2.0, 4.5), (25.0, 50.0)),
    "renal pelvis": Tissue((5, 30), (6.0, 25.0), (15.0, 40.0)),
    "ureter": Tissue((5, 30), (4.0, 14.0), (8.0, 25.0)),
    "bladder": Tissue((2, 20), (6.0, 30.0), (8.0, 45.0)),
    "prostate": Tissue((50, 75), (1.2, 2.2), (2.0, 4.5)),
    "stomach": Tissue((50, 80), (1.8, 4.0), (2.0, 4.5)),
    "duodenum": Tissue((50, 80), (1.2, 2.8), (6.0, 14.0)),
    "small bowel": Tissue((40, 80), (1.0, 2.8), (2.5, 7.0)),
    "colon": Tissue((40, 75), (1.0, 5.0), (1.2, 4.5)),
    "colon content": Tissue((-450, -50), (0.5, 1.5), (0.5, 1.5)),
    "parotid": Tissue((20, 50), (1.4, 2.4), (10.0, 20.0)),
    "submandibular": Tissue((55, 85), (1.6, 3.0), (11.0, 21.0)),
    "lacrimal": Tissue((30, 50), (0.9, 1.6), (6.0, 13.0)),
    "tonsil": Tissue((60, 90), (2.2, 5.5), (4.0, 8.0)),
    "thyroid": Tissue((140, 190), (1.0, 1.8), (0.8, 1.8)),
}

# Tissues that take up so much of either tracer that a lesion drawn into one could not be told from it.
HOT_TISSUES = frozenset(
    {"grey matter", "myocardium", "spleen", "kidney", "renal pelvis", "bladder", "prostate", "stomach", "duodenum"}
    | {"parotid", "submandibular", "lacrimal", "tonsil"}
)
