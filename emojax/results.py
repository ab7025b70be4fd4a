"""From trained folds to what the report shows: scores, summaries, leaks, predictions."""

from typing import Any

import jax
import numpy as np

from emojax import masking, provenance, report, resampling
from emojax.cohort import Cohort
from emojax.features import Fold, FoldFeatures
from emojax.folds import Variant
from emojax.study import Study

LADDER = (  # what is taken away, one after the other, from the published procedure
    ("paper", "as published: everything below leaks"),
    ("once", "test volumes counted once, not oversampled"),
    ("leaky voxels and alignment", "epoch and rate chosen on a held-back training subject"),
    ("leaky voxels", "alignment without the scored runs"),
    ("nested", "voxels chosen without the test subject"),
)
