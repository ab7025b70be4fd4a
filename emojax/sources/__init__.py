"""Data sources: each reads the config's `data` and returns a `Cohort`."""

from emojax import registry
from emojax.data.cohort import Cohort
from emojax.errors import InputError

SOURCES = registry.Registry(
    "data.source",
    {name: f"emojax.sources.{name}:load" for name in ("bids", "spm", "lab", "arrays", "synthetic")},
)


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
    if not (data.detrend or data.centre or data.zscore or data.motion):
        return cohort
    from emojax.data import cleaning, store  # imported here: they bring in jax (130 MB)

    options = {name: getattr(data, name) for name in ("detrend", "centre", "zscore", "motion")}
    return cleaning.apply(cohort, store.Store(store.default(data)), **options)
