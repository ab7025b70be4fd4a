"""Every way in: each source reads a config and returns a `Cohort`."""

import importlib

from emojax.cohort import Cohort
from emojax.errors import InputError

SOURCES = ("bids", "spm", "lab", "arrays", "synthetic")


def load(config) -> Cohort:
    """The cohort that `config.data` describes; keys and defaults stand in `configs/common.py`.

    Args:
      config: a ConfigDict, or anything with attributes, that has `data`; or that part alone.

    Raises:
      InputError: the source is unknown, or what it reads cannot be used.
    """
    data = part(config)
    if data.source not in SOURCES:
        raise InputError("data.source", repr(data.source), f"one of {', '.join(SOURCES)}")
    cohort = importlib.import_module(f"emojax.sources.{data.source}").load(data)
    if not (data.detrend or data.centre or data.zscore or data.motion):
        return cohort
    from emojax.sources import cleaning, store  # jax, and 130 MB, for those who need them

    options = {name: data[name] for name in ("detrend", "centre", "zscore", "motion")}
    return cleaning.apply(cohort, store.Store(store.default(data)), **options)


def part(config):
    """`config.data`, where the whole config was passed."""
    return getattr(config, "data", config)


def names(text: str) -> tuple[str, ...]:
    """A comma-separated setting such as "01,02" as a tuple; "" is empty: no filter."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
