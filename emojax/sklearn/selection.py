"""Selection of voxels by their one-way ANOVA F, as a transformer."""

import warnings
from numbers import Integral
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Shaped
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from emojax import anova

_validate: Any = validate_data  # the types inferred from its defaults are too narrow


class AnovaSelector(SelectorMixin, BaseEstimator):
    """A selector of the k voxels with the largest F between the classes.

    The scores are those of `emojax.anova.f_test`, computed in the dtype of X: float32 stays
    float32, anything else becomes float64. Columns keep their order.

    Attributes:
      scores_: [voxels] F; 0 for a constant voxel, which is never kept.
      pvalues_: [voxels] p value of each F.
      n_features_in_: number of voxels.
      feature_names_in_: their names, if X has any.
    """

    def __init__(self, k: int = 300):
        """Args: k: number of voxels to keep; if fewer vary, all of these, with a warning."""
        self.k = k

    def fit(self, X: Float[np.ndarray, "n v"], y: Shaped[np.ndarray, " n"]) -> "AnovaSelector":
        """Scores the voxels of training rows.

        Args:
          X: [n, v] rows by voxels.
          y: [n] class of each row, numbers or strings.

        Raises:
          ValueError: shapes disagree, values that are not finite, fewer than two classes, no more
            rows than classes, or no voxel that varies.
        """
        dtypes = [np.float64, np.float32]
        X, y = _validate(self, X, y, dtype=dtypes, ensure_min_samples=2)
        check_classification_targets(y)
        if not isinstance(self.k, Integral) or isinstance(self.k, bool) or self.k < 1:
            raise ValueError(f"want k: a whole number from 1 on; got {self.k!r}")
        classes, labels = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            only = classes.tolist()[0]
            raise ValueError(f"want rows of two classes or more; got one class: {only!r}")
        with jax.enable_x64(X.dtype == np.float64):
            test = anova.f_test(X, labels.astype(np.int32), len(classes))
        self.scores_, self.pvalues_ = np.asarray(test.f), np.asarray(test.p)
        self._mask = self._choose()
        return self

    def _choose(self) -> Bool[np.ndarray, " v"]:
        """Returns the mask of the voxels with the largest scores."""
        varying = int((self.scores_ > 0).sum())
        if not varying:
            raise ValueError("want voxels that vary between rows; all are constant")
        if self.k > varying:
            said = f"k={self.k} is more than the {varying} voxels that vary: all of these are kept"
            warnings.warn(said, UserWarning, stacklevel=3)
        mask = np.zeros(len(self.scores_), bool)
        with jax.enable_x64(self.scores_.dtype == np.float64):
            mask[np.asarray(anova.select_top(self.scores_, min(self.k, varying)))] = True
        return mask

    def _get_support_mask(  # pyright: ignore[reportIncompatibleMethodOverride]  # an empty method
        self,
    ) -> Bool[np.ndarray, " v"]:
        check_is_fitted(self)
        return self._mask

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags
