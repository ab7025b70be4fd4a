"""emojax: decode emotional brain states from single fMRI volumes, in JAX.

Modules are imported on first use: `import emojax; emojax.anova.f_scores(x, labels, num_classes=3)`.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.4.0.dev0"

__all__ = [
    "alignment",
    "anova",
    "clusters",
    "decoder",
    "experiments",
    "fusion",
    "hyperalignment",
    "maps",
    "masking",
    "metrics",
    "models",
    "online",
    "piecewise",
    "plateau",
    "procrustes",
    "provenance",
    "resampling",
    "searchlight",
    "sklearn",
    "sources",
    "splits",
    "statistics",
    "training",
]


if TYPE_CHECKING:  # type checkers and editors follow these
    from emojax import (
        alignment,
        anova,
        clusters,
        decoder,
        experiments,
        fusion,
        hyperalignment,
        maps,
        masking,
        metrics,
        models,
        online,
        piecewise,
        plateau,
        procrustes,
        provenance,
        resampling,
        searchlight,
        sklearn,
        sources,
        splits,
        statistics,
        training,
    )
    from emojax.side_by_side import bench as bench
else:

    def __getattr__(name: str):
        """Imports a public module on first use."""
        if name in __all__:
            return importlib.import_module(f"emojax.{name}")
        if name == "bench":
            return importlib.import_module("emojax.side_by_side").bench
        raise AttributeError(f"module 'emojax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "bench", *(name for name in globals() if name.startswith("__"))])
