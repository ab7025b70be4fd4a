"""The dtype of a run, which is settled once: a resumed or exported run keeps it."""

import os
import pathlib
from typing import Any

from emojax.errors import InputError
from emojax.models import precision
from emojax.training import ownership


def settle(config: Any, workdir: str | os.PathLike) -> Any:
    """Returns the config with the dtype that `model.dtype=auto` means in this workdir.

    That is the one in the workdir's config.json, or where there is none yet, what is quicker on
    this machine (see `precision.settle`). It stands in config.json and in the report, so that the
    run can be repeated anywhere.

    Args:
      config: a ConfigDict with the keys of `configs/common.py`; it is not changed.
      workdir: folder of the results; may not exist yet.
    """
    if config.get("model", {}).get("dtype") != "auto":
        return config
    dtype = _stored(pathlib.Path(workdir)) or precision.settle("auto", config.model.width)
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model.dtype = dtype
    return config


def _stored(folder: pathlib.Path) -> str:
    """Returns the dtype in config.json; "" where none was settled: `open_workdir` judges files."""
    try:
        found = ownership.read_config(folder)["model"]["dtype"]
    except (InputError, LookupError, TypeError):
        return ""
    return found if found in ("float32", "bfloat16", "device") else ""
