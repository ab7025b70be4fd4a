"""Searchlights: decoding and hyperalignment in the sphere around every voxel.

around = searchlight.spheres(mask, affine, radius_mm=8)
accuracy = searchlight.decode(x, labels, folds, around).balanced     # one value per sphere
model = searchlight.fit(train, around)                               # [s, n, v]
aligned = searchlight.transform(model.mappings, train)
"""

from emojax._numerics.sparse_maps import SparseMaps
from emojax._numerics.spheres import Spheres, spheres
from emojax.searchlight.alignment import SphereAlignment, align, fit, inverse, transform
from emojax.searchlight.decoding import Classifier, Decoded, decode

__all__ = [
    "Classifier",
    "Decoded",
    "SparseMaps",
    "SphereAlignment",
    "Spheres",
    "align",
    "decode",
    "fit",
    "inverse",
    "spheres",
    "transform",
]
