"""Readers of the goldens in tests/data, which every clone has."""

import json
import pathlib
from typing import Any

import numpy as np

DATA = pathlib.Path(__file__).parent / "data"


def load(name: str) -> dict[str, np.ndarray]:
    """Reads all arrays of tests/data/NAME.npz."""
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as stored:
        return dict(stored)


def index(arrays: dict[str, np.ndarray]) -> Any:
    """Returns the runs listed in a file of goldens, with their settings."""
    return json.loads(str(arrays["index"]))["runs"]


def below(arrays: dict[str, np.ndarray], key: str) -> dict[str, np.ndarray]:
    """Returns the arrays "KEY/name" as {name: array}."""
    start = key + "/"
    return {k.removeprefix(start): array for k, array in arrays.items() if k.startswith(start)}
