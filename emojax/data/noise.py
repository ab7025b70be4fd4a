"""The noise floor, until the skeleton imports it from its place."""

from emojax.experiments.noise import noise_like

__all__ = ["noise_like"]
