"""emojax: decode emotional brain states from single fMRI volumes, in JAX.

Modules are imported on first use: `import emojax; emojax.anova.f_scores(x, labels, num_classes=3)`.
"""

import importlib

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
    "plateau",
    "procrustes",
    "provenance",
    "resampling",
    "searchlight",
    "sources",
    "splits",
    "statistics",
    "training",
]


def __getattr__(name: str):
    """Imports a public module when it is first named."""
    if name in __all__:
        return importlib.import_module(f"emojax.{name}")
    raise AttributeError(f"module 'emojax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
