"""Plain data for JSON, which has neither arrays nor NaN."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Converts a value to dicts, lists, strings, numbers and None; None replaces NaN and inf."""
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    value = np.asarray(value)
    if value.ndim:
        return [plain(inner) for inner in value]
    value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
