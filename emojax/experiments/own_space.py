"""The map from a fold's features back to the voxels of its training subjects."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from emojax import maps
from emojax.features import common_space
from emojax.features.across_subjects import Features
from emojax.records import FoldData


class FoldMaps(NamedTuple):
    """Maps of one fold: means over training subjects, each in its own voxels."""

    real: Float[np.ndarray, "classes v"]
    random: Float[np.ndarray, "seeds classes v"]  # the same for random weights
    read: Bool[np.ndarray, " v"]  # voxels that the decoder reads in any training subject


def mask_of(view: Any) -> Bool[np.ndarray, "X Y Z"]:
    """Returns the mask of voxels in maps: the columns of masked values, or all voxels."""
    return view.union if hasattr(view, "union") else np.ones(view.shape, bool)


def ways_of(data: FoldData) -> Sequence[Any]:
    """Returns each training unit's map into the common space; (None,) without a common space."""
    made = data.notes["made"]
    if made.space is None:
        return (None,)
    if made.space.everyones is not None:
        return (made.space.everyones,)
    count = len(common_space.team_of(data.ledger, data.fold).train)  # training units come first
    return list(made.space.model.mappings)[:count]


def columns_of(made: Features) -> Int[np.ndarray, " p"]:
    """Returns the view's columns from which the maps of training units start."""
    assert made.columns is not None  # voxels.own has no maps
    return made.columns


def to_source(data: FoldData, patterns: Float[np.ndarray, "m c"]) -> Float[np.ndarray, "p c"]:
    """Maps patterns from a fold's features to its `columns_of`, averaged over training units."""
    made = data.notes["made"]
    values = patterns * made.scaler[1][:, None]
    if made.space is not None and made.space.places is not None:  # chosen among aligned voxels
        whole = np.zeros((len(columns_of(made)), values.shape[1]), values.dtype)
        whole[made.space.places] = values
        values = whole
    return np.mean([maps.patterns_to_source(values, way) for way in ways_of(data)], axis=0)
