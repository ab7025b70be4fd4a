"""Data sources: each reads the config's `data` and returns a `Cohort`."""

from typing import Any

from emojax import registry
from emojax.data.cohort import Cohort
from emojax.errors import InputError

SOURCES = registry.Registry(
    "data.source",
    {
        name: f"emojax.sources.{name}:load"
        for name in ("bids", "spm", "lab", "arrays", "maps", "synthetic")
    },
)
CLEANING = (  # keys of `config.data` that change values, or leave volumes out, run by run
    "smooth_mm",
    "scrub_fd_mm",
    "high_pass_hz",
    "confounds",
    "detrend",
    "centre",
    "zscore",
    "motion",
)


def cleaned_by(data) -> dict[str, Any]:
    """Returns the cleaning that `config.data` asks for: key -> value."""
    return {key: value for key in CLEANING if (value := getattr(data, key))}


def load(config) -> Cohort:
    """Reads the cohort that `config.data` describes; keys and defaults: `configs/common.py`.

    Args:
      config: a ConfigDict, or anything with attributes, that has `data`; or that part alone.
        `data.source` is a name in `SOURCES`, or "package.module:function" for a function of
        `config.data` that returns a `Cohort`.

    Raises:
      InputError: the source is unknown or returns no cohort, or what it reads cannot be used.
    """
    data = getattr(config, "data", config)
    source = SOURCES[data.source]
    if not callable(source):
        raise InputError("data.source", repr(data.source), "the name of a function")
    cohort = source(data)
    if not isinstance(cohort, Cohort):
        found = f"{data.source!r}, which returned {type(cohort).__name__}"
        raise InputError("data.source", found, "a function that returns an emojax Cohort")
    asked = cleaned_by(data)
    if not (asked or data.mask):
        return cohort
    return _prepared(cohort, data, asked)


def _prepared(cohort: Cohort, data, asked: dict[str, Any]) -> Cohort:
    """Smooths, cleans and masks; what that needs is imported here, some of it large."""
    from emojax.data.store import Store, default

    if fwhm := asked.pop("smooth_mm", 0):
        from emojax.data import smoothing

        cohort = smoothing.apply(cohort, Store(default(data)), fwhm)
    if asked:
        from emojax.data import cleaning

        cohort = cleaning.apply(cohort, Store(default(data)), **asked)
    if data.mask:
        from emojax.data import roi

        cohort = roi.apply(cohort, data.mask, data.root)
    return cohort
