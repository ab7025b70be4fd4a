"""Data sources. Each one reads the data that `config.data` describes and returns a `Cohort`."""

from typing import Any

from emojax import registry
from emojax.data import causal_settings
from emojax.data.cleaning_settings import Settings
from emojax.data.cohort import Cohort
from emojax.errors import InputError

SOURCES = registry.Registry(
    "data.source",
    {
        name: f"emojax.sources.{name}:load"
        for name in ("bids", "spm", "lab", "arrays", "maps", "synthetic")
    },
)
# Keys of `config.data` that change values or exclude volumes, run by run.
CLEANING = ("smooth_mm", *Settings._fields)
READ_BY = {  # key -> the sources that read it; keys not listed are read by all
    **dict.fromkeys(("sessions", "task", "space", "entities", "events_root"), ("bids",)),
    "labels": ("spm",),
    "table": ("maps",),
    "run_column": ("maps",),
    "confounds": ("bids",),
    "images": ("spm",),
    "file_column": ("maps",),
    "subject_column": ("maps",),
}
UNSAID = {"images": "ra*", "file_column": "file", "subject_column": "subject"}  # defaults


def cleaned_by(data: Any) -> dict[str, Any]:
    """Returns the cleaning settings of `config.data` that are not off, by key.

    Args:
      data: the config's `data`.
    """
    return {key: value for key in CLEANING if (value := getattr(data, key))}


def load(config: Any) -> Cohort:
    """Reads the cohort that `config.data` describes; `configs/common.py` has keys and defaults.

    Args:
      config: a config (or any object) with the attribute `data`, or its `data` alone.
        `data.source` is a name in `SOURCES`, or "package.module:function" for a function that
        takes `config.data` and returns a `Cohort`.

    Returns:
      The cohort, cleaned and masked as `config.data` says.

    Raises:
      InputError: the source is unknown, returns no cohort, has no groups although `data.group` is
        set, does not read a key that is set, or finds data that cannot be used.
    """
    data = getattr(config, "data", config)
    source = SOURCES[data.source]
    if not callable(source):
        raise InputError("data.source", repr(data.source), "the name of a function")
    _refuse_unread(data)
    asked = cleaned_by(data)
    causal_settings.check(data.online, asked)
    cohort = source(data)
    if not isinstance(cohort, Cohort):
        found = f"{data.source!r}, which returned {type(cohort).__name__}"
        raise InputError("data.source", found, "a function that returns an emojax Cohort")
    if data.group and not cohort.groups:
        found = f"{data.group!r}, and data.source={data.source}, which has no groups"
        raise InputError("data.group", found, "bids or maps (or --config.data.group='')")
    if not (asked or data.mask or data.online):
        return cohort
    return _prepare(cohort, data, asked)


def _refuse_unread(data) -> None:
    """Raises an InputError if a key is set that a built-in source does not read."""
    for key, sources in READ_BY.items():
        value = getattr(data, key)
        if (
            value not in ("", UNSAID.get(key))
            and data.source in SOURCES
            and data.source not in sources
        ):
            expected = f"data.source one of {', '.join(sources)}, or {UNSAID.get(key, '')!r}"
            found = f"{value!r}, which source {data.source} does not read"
            raise InputError(f"data.{key}", found, expected)


def _prepare(cohort: Cohort, data, asked: dict[str, Any]) -> Cohort:
    """Smooths, corrects, cleans and masks a cohort; large modules are only imported if needed."""
    from emojax.data.store import Store, default

    if fwhm := asked.pop("smooth_mm", 0):
        from emojax.data import smoothing

        cohort = smoothing.apply(cohort, Store(default(data)), fwhm)
    if data.online:
        from emojax.data import causal

        cohort = causal.apply(cohort, Store(default(data)), data.online, skip=data.drop_first)
    if asked:
        from emojax.data import cleaning

        cohort = cleaning.apply(cohort, Store(default(data)), **asked)
    if data.mask:
        from emojax.data import roi

        cohort = roi.apply(cohort, data.mask, data.root)
    return cohort
