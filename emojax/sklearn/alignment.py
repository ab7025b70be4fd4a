"""Hyperalignment as a transformer from the rows of many subjects to one common space.

    aligned = Hyperalignment().fit(X, subjects=subject, rows=moment)   # training subjects
    aligned.fit_subject(X_other_runs, subject="new", rows=moment_other_runs)
    aligned.transform(X_scored, subjects=np.repeat("new", len(X_scored)))

Rows with equal `rows` correspond. These are names of moments that all subjects have, such as
"run-01 volume 12", each once per subject. Without `rows`, the i-th rows of all subjects correspond.
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Shaped
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from emojax import hyperalignment, procrustes

_validate: Any = validate_data  # the types inferred from its defaults are too narrow

ROUTING = (
    "in a Pipeline: sklearn.set_config(enable_metadata_routing=True) and "
    "Hyperalignment().set_fit_request(subjects=True).set_transform_request(subjects=True)"
)


class Hyperalignment(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A common space for the voxel patterns of many subjects, see `emojax.hyperalignment`.

    Everything is computed in the dtype of X, float32 or float64. A map is fitted to values, never
    to y. Rows to be scored must not be among those that a map is fitted to; `fit_subject` maps a
    new subject by its other runs onto the unchanged template.

    Attributes:
      template_: [moments, voxels], the common space.
      rows_: [moments], names of the template's rows, in order.
      subjects_: subjects that the template was fitted to.
      mappings_: subject -> its map, including those of `fit_subject`.
      model_: an `emojax.hyperalignment.Hyperalignment`.
    """

    def __init__(
        self,
        *,
        level2_iters: int = 1,
        zscore_common: bool = True,
        alpha: float = 1.0,
        scaling: bool = True,
        reflection: bool = True,
        weight: float = 0.5,
        output_dim: int | None = None,
        method: procrustes.Method = "svd",
    ):
        """Args: options of `emojax.hyperalignment.fit`; see there."""
        self.level2_iters = level2_iters
        self.zscore_common = zscore_common
        self.alpha = alpha
        self.scaling = scaling
        self.reflection = reflection
        self.weight = weight
        self.output_dim = output_dim
        self.method = method

    def fit(
        self,
        X: Float[np.ndarray, "n v"],
        y: Any = None,
        subjects: Shaped[np.ndarray, " n"] | None = None,
        rows: Shaped[np.ndarray, " n"] | None = None,
    ) -> "Hyperalignment":
        """Fits the template and a map for each subject.

        Args:
          X: [n, v] rows of all subjects, in any order.
          y: not read.
          subjects: [n] subject of each row.
          rows: [n] moment of each row; None: rows correspond by their order within a subject.

        Raises:
          ValueError: no subjects; subjects whose rows do not correspond; or as for
            `emojax.hyperalignment.fit`.
        """
        X = _validate(self, X, dtype=[np.float32, np.float64], ensure_min_samples=2)
        if subjects is None:
            raise ValueError(f"want subjects=, the subject of each row; got None ({ROUTING})")
        subjects = _per_row("subjects", subjects, len(X))
        moments = _moments(subjects, rows)
        names = np.unique(subjects).tolist()
        own = {name: subjects == name for name in names}
        self.rows_ = np.unique(moments[own[names[0]]])
        stacked = [X[own[name]][self._order(moments[own[name]], name)] for name in names]
        with jax.enable_x64(X.dtype == np.float64):
            model = hyperalignment.fit(np.stack(stacked), **self.get_params())
            maps = [jax.tree.map(np.asarray, own) for own in model.mappings]
            self.model_ = jax.tree.map(np.asarray, model)  # NumPy keeps float64 everywhere
        self.template_ = self.model_.template
        self.subjects_ = np.array(names)
        self.mappings_ = dict(zip(names, maps, strict=True))
        return self

    def _order(self, moments: np.ndarray, name: Any) -> np.ndarray:
        """Returns the positions of a subject's rows in the order of the template."""
        values, places, counts = np.unique(moments, return_index=True, return_counts=True)
        if (counts > 1).any():
            again = values[counts > 1].tolist()[0]
            raise ValueError(f"subject {name!r} has the row {again!r} {counts.max()} times")
        if not np.array_equal(values, self.rows_):
            raise ValueError(
                f"want the same {len(self.rows_)} rows in every subject; got {len(values)} of "
                f"subject {name!r}{_apart(values, self.rows_)}: see alignment.match_rows for "
                "means of conditions"
            )
        return places

    def fit_subject(
        self,
        X: Float[np.ndarray, "r v"],
        subject: Any,
        rows: Shaped[np.ndarray, " r"] | None = None,
    ) -> "Hyperalignment":
        """Fits the map of a new subject onto the unchanged template by some of its rows.

        Args:
          X: [r, v] rows of the subject that the map is fitted to; never rows to be scored.
          subject: name of the subject, as passed to `transform`.
          rows: [r] moment of each row, a subset of `rows_`; None: one row for each of `rows_`.

        Raises:
          ValueError: a subject of the template, rows that the template lacks, or bad values.
        """
        check_is_fitted(self)
        X = _validate(self, X, dtype=[np.float32, np.float64], reset=False)
        if subject in self.subjects_.tolist():
            raise ValueError(f"want a new subject; got {subject!r}, which trained the template")
        if rows is None and len(X) != len(self.rows_):
            raise ValueError(
                f"want {len(self.rows_)} rows, as the template; got {len(X)}: "
                "rows= says which they are"
            )
        moments = self.rows_ if rows is None else _per_row("rows", rows, len(X))
        foreign = np.setdiff1d(moments, self.rows_)
        if len(foreign):
            raise ValueError(
                f"want rows of the template; got {foreign[:3].tolist()}, which it lacks"
            )
        if len(np.unique(moments)) < len(moments):
            raise ValueError(f"want each row of subject {subject!r} once; got one several times")
        places = np.searchsorted(self.rows_, moments)
        dtype = self.template_.dtype
        with jax.enable_x64(dtype == np.float64):
            fitted = hyperalignment.align(self.model_, X[None].astype(dtype), places)[0]
            fitted = jax.tree.map(np.asarray, fitted)
        self.mappings_ = {**self.mappings_, subject: fitted}
        return self

    def transform(
        self, X: Float[np.ndarray, "n v"], subjects: Shaped[np.ndarray, " n"] | None = None
    ) -> Float[np.ndarray, "n q"]:
        """Maps rows, fitted or new, into the common space, each by the map of its subject.

        Args:
          X: [n, v] rows of subjects that have a map, in any order.
          subjects: [n] subject of each row; may be None if there is only one map.

        Raises:
          ValueError: a subject without a map, or a wrong number of voxels.
        """
        check_is_fitted(self)
        X = _validate(self, X, dtype=[np.float32, np.float64], reset=False)
        if subjects is None and len(self.mappings_) > 1:
            raise ValueError(f"want subjects=, the subject of each row; got None ({ROUTING})")
        only = next(iter(self.mappings_))
        subjects = np.full(len(X), only) if subjects is None else subjects
        subjects = _per_row("subjects", subjects, len(X))
        dtype = self.template_.dtype
        out = np.empty((len(X), self._n_features_out), dtype)
        for name in np.unique(subjects).tolist():
            if name not in self.mappings_:
                known = ", ".join(map(str, self.mappings_))
                raise ValueError(
                    f"subject {name!r} has no map ({known} have): fit_subject fits one"
                )
            here = subjects == name
            with jax.enable_x64(dtype == np.float64):
                moved = procrustes.transform(self.mappings_[name], X[here].astype(dtype))
                out[here] = np.asarray(moved)
        return out

    @property
    def _n_features_out(self) -> int:
        return next(iter(self.mappings_.values())).widths[1]

    def fit_transform(  # pyright: ignore[reportIncompatibleMethodOverride]  # named **fit_params
        self,
        X: Float[np.ndarray, "n v"],
        y: Any = None,
        subjects: Shaped[np.ndarray, " n"] | None = None,
        rows: Shaped[np.ndarray, " n"] | None = None,
    ) -> Float[np.ndarray, "n q"]:
        """Fits the template and maps the same rows; arguments as for `fit`."""
        return self.fit(X, y, subjects=subjects, rows=rows).transform(X, subjects=subjects)


def _per_row(name: str, values: Any, count: int) -> np.ndarray:
    """Returns one value for each row, or raises ValueError."""
    values = np.asarray(values)
    if values.dtype == object:
        values = values.astype(str)
    if values.shape != (count,):
        raise ValueError(f"want {name} [{count}], one per row; got shape {values.shape}")
    return values


def _moments(subjects: np.ndarray, rows: Any) -> np.ndarray:
    """Returns the moment of each row; by default its position among the rows of its subject."""
    if rows is not None:
        return _per_row("rows", rows, len(subjects))
    moments = np.empty(len(subjects), int)
    for name in np.unique(subjects):
        moments[subjects == name] = np.arange((subjects == name).sum())
    return moments


def _apart(values: np.ndarray, want: np.ndarray) -> str:
    """Describes how a set of rows differs from the wanted one."""
    lost, more = np.setdiff1d(want, values), np.setdiff1d(values, want)
    parts = [f"without {lost.tolist()[0]!r}"] if len(lost) else []
    parts += [f"with {more.tolist()[0]!r}"] if len(more) else []
    return f" ({', '.join(parts)})" if parts else ""
