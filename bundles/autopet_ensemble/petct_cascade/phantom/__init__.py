"""The embedded data set: synthetic whole-body PET/CT studies whose lesions are known exactly.

A phantom is a patient of simple solids (ellipsoids, tubes, an outline of elliptical sections) on the scale of the ICRP's
reference man, varied in stature, girth and in the place and size of the organs. Each solid has a CT number and an uptake. PET is
blurred by the scanner's resolution and given noise. Lesions are ellipsoids along the axes of the world, so that their true
volume is a formula. Physiological uptake is as strong as that of lesions: no SUV threshold separates the two.

World coordinates are NIfTI's: x to the patient's right, y to the front, z to the head, in mm. The vertex lies near z = 0.

Example:
    write_phantoms("phantoms", num_patients=4)

    study = plan_studies(num_patients=1, seed=0, shrink=4)[0]
    ct, pet, label = render(study)
"""

from petct_cascade.phantom.lesions import Lesion
from petct_cascade.phantom.patients import PhantomStudy, plan_studies
from petct_cascade.phantom.rendering import render
from petct_cascade.phantom.writing import write_phantoms

__all__ = ["Lesion", "PhantomStudy", "plan_studies", "render", "write_phantoms"]
