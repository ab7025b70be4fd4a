"""The dtype of a run, resolved once and kept when the run is resumed or exported."""

import os
import pathlib
from typing import Any

from emojax.errors import InputError
from emojax.models import precision
from emojax.training import ownership


def settle(config: Any, workdir: str | os.PathLike) -> Any:
    """Returns the config with `model.dtype=auto` resolved for this workdir.

    The dtype is read from the workdir's config.json; if there is none yet, it is the faster one on
    this machine (see `precision.settle`). config.json and the report state it, so that the run can
    be repeated on another machine.

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
    """Returns the dtype in config.json, or ""; `open_workdir` reports a damaged file."""
    try:
        found = ownership.read_config(folder)["model"]["dtype"]
    except (InputError, LookupError, TypeError):
        return ""
    return found if found in ("float32", "bfloat16", "device") else ""
