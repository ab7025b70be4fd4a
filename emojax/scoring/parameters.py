"""Non-default settings of an estimator, as plain data for metrics.json."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def changed(estimator: Any) -> dict[str, Any]:
    """Returns "class" and all parameters other than the seed that differ from their defaults."""
    kind, given = type(estimator), _parameters(estimator)
    try:
        defaults = _parameters(kind())
    except TypeError:  # some parameters have no default
        defaults = {}
    own = {k: v for k, v in given.items() if k != "random_state" and (k, v) not in defaults.items()}
    return {"class": kind.__name__, **own}


def _parameters(estimator):
    if hasattr(estimator, "get_params"):
        found = estimator.get_params(deep=False)
    else:
        found = getattr(estimator, "__dict__", {})
    return {name: _plain(value) for name, value in sorted(found.items())}


def _plain(value):
    """Returns a setting as JSON data, without memory addresses."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if hasattr(value, "get_params"):
        return " ".join(repr(value).split())  # scikit-learn shows non-default parameters
    return getattr(value, "__qualname__", type(value).__qualname__)
