"""Parcels of voxels for piecewise alignment, from an atlas or by clustering training data."""

import functools
import pathlib
import re
import warnings
from typing import NamedTuple

import numpy as np
import threadpoolctl
from jaxtyping import Float, Int

from emojax.data import grid, nifti
from emojax.errors import InputError
from emojax.features.common_space import Team
from emojax.provenance import Ledger

KEY = "align.parcels"
CLUSTERS = ("ward", "kmeans")
EXACT = 2**24  # smaller whole numbers are exact in float32
PIECES = 20  # number of means of consecutive rows per training unit, used for clustering
WANTED = f"ward:N or kmeans:N parcels, or the path of an atlas, as --config.{KEY}=ward:300"


class Wanted(NamedTuple):
    """The parcels that a setting asks for."""

    kind: str  # one of `CLUSTERS`, or "atlas"
    number: int = 0  # of clusters
    path: str = ""


def parse(text: str) -> Wanted:
    """Parses a setting: "ward:50", "kmeans:50", or the path of an atlas.

    Raises:
      InputError: it is none of these, or there is no such file.
    """
    if found := re.fullmatch(rf"({'|'.join(CLUSTERS)}):([1-9]\d{{0,5}})", text):
        return Wanted(found[1], int(found[2]))
    if text.partition(":")[0] in CLUSTERS or not pathlib.Path(text).is_file():
        raise InputError(KEY, f"{text!r}, neither parcels nor a file", WANTED)
    return Wanted("atlas", path=text)


def find(
    ledger: Ledger, team: Team, text: str, columns: Int[np.ndarray, " c"]
) -> Int[np.ndarray, " c"]:
    """Returns the parcel of each column: a label above 0, or 0 for columns in no parcel.

    Clusters use the training units' values and no labels: `PIECES` means of consecutive rows of
    each unit, centred by unit. Ward clusters are spatially connected.

    Args:
      ledger: ledger of a `MaskedCohort`; clustering is its step "parcels".
      team: units of the fold.
      text: see `parse`.
      columns: columns of the cohort's values.

    Raises:
      InputError: an atlas on another grid, or without these voxels; more parcels than voxels; or
        vectors without positions, which only k-means can cluster.
    """
    wanted = parse(text)
    if wanted.kind == "atlas":
        labels = _of_atlas(wanted.path, ledger)[columns]
    else:
        if wanted.number > len(columns):
            raise InputError(KEY, repr(text), f"at most {len(columns)}, the voxels to be aligned")
        x = _features(ledger, team, columns)
        with threadpoolctl.threadpool_limits(1):  # sums by several threads have no fixed order
            labels = _ward(x, wanted.number, ledger, columns) if wanted.kind == "ward" else None
            labels = _kmeans(x, wanted.number) if labels is None else labels
    ledger.keep("parcels", labels)
    return labels


def _features(ledger: Ledger, team: Team, columns) -> Float[np.ndarray, "c q"]:
    parts = []
    for name in team.train:
        rows = team.rows[name]
        x = ledger.values("parcels", rows, columns)
        means = [x[own].mean(0) for own in np.array_split(np.arange(len(x)), min(PIECES, len(x)))]
        parts.append(np.stack(means) - np.mean(means, axis=0))
    return np.concatenate(parts).T


def _ward(x, count: int, ledger: Ledger, columns) -> Int[np.ndarray, " c"]:
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.feature_extraction.image import grid_to_graph

    union = ledger.design("union")
    if union is None:
        found = "ward, of vectors whose values have no place"
        raise InputError(KEY, found, f"neighbours in space (or --config.{KEY}=kmeans:{count})")
    here = np.zeros(union.shape, bool)
    here.ravel()[np.flatnonzero(union)[columns]] = True
    sizes: list[int] = list(union.shape)
    graph = grid_to_graph(*sizes, mask=here)
    order = np.argsort(np.argsort(columns))  # the graph's voxels are in the order of the mask
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the number of connected components")
        made = AgglomerativeClustering(count, connectivity=graph, linkage="ward")
        return 1 + made.fit_predict(x[np.argsort(columns)])[order]


def _kmeans(x, count: int) -> Int[np.ndarray, " c"]:
    from sklearn.cluster import KMeans

    made = KMeans(
        count,
        n_init=1,  # pyright: ignore[reportArgumentType]  # inferred from the default, "auto"
        random_state=0,
    )
    return 1 + made.fit_predict(x)


def _of_atlas(path: str, ledger: Ledger) -> Int[np.ndarray, " v"]:
    """Returns the atlas label of each voxel of the union, matched in mm."""
    union, affine = ledger.design("union"), ledger.design("affine")
    if union is None:
        found = "an atlas, for vectors whose values have no place"
        raise InputError(KEY, found, "volumes [X, Y, Z] (or kmeans:N)")
    values, own = read_atlas(path)
    turn = grid.turn(own, values.shape, affine, union.shape)
    if turn is None:
        there, wanted = grid.describe(own, values.shape), grid.describe(affine, union.shape)
        expected = f"{wanted}, as the volumes (nilearn.image.resample_to_img(atlas, volume, "
        raise InputError(path, f"an atlas of {there}", f"{expected}interpolation='nearest'))")
    labels = turn.apply(values)[union]
    if not (labels > 0).any():
        raise InputError(path, "no label above 0 inside the brain masks", "parcels of these brains")
    return labels


@functools.lru_cache(4)
def read_atlas(path: str) -> tuple[Int[np.ndarray, "X Y Z"], Float[np.ndarray, "4 4"]]:
    """Reads the labels of an atlas and its affine.

    Raises:
      InputError: it is not a single volume of whole numbers.
    """
    values, affine = nifti.read_volume(pathlib.Path(path), WANTED)
    if not np.isfinite(values).all() or (values != np.round(values)).any():
        raise InputError(path, "values that are no whole numbers", "an atlas: a label per voxel")
    if np.abs(values).max() >= EXACT:  # neighbouring labels would be read as one
        expected = "smaller ones (numpy.unique(labels, return_inverse=True)[1] renumbers them)"
        raise InputError(path, f"labels of {EXACT:,} or more", expected)
    return values.astype(int), affine
