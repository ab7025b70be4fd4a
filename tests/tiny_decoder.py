"""A decoder of a made-up head, small and quick, with runs that it decodes."""

import numpy as np
from scipy import ndimage

from emojax import decoder
from emojax.decoder import guards

GRID, AFFINE = (20, 22, 14), np.diag([4.0, 4, 4, 1])
CLASSES = ("rest", "fear")


def study(seed=0, length=24):
    """Returns a head, its mask, a calibration run and a scored run with one varying pattern."""
    rng = np.random.default_rng(seed)
    x = ndimage.gaussian_filter(rng.normal(size=GRID), 2)
    mask = np.zeros(GRID, bool)
    mask[3:-3, 3:-3, 3:-3] = True
    edge = ndimage.gaussian_filter(mask.astype(float), 1)
    image = (800 + 500 * x / x.std() / 3) * edge
    pattern = ndimage.gaussian_filter(rng.normal(size=GRID), 1) * mask
    pattern *= 12 / pattern[mask].std()
    labels = np.arange(length) // 4 % 2

    def run():
        noise = ndimage.gaussian_filter(rng.normal(size=(length, *GRID)), (0, 1, 1, 1)) * 15
        signs = (2 * labels - 1)[:, None, None, None]
        return (image + signs * pattern + noise).astype(np.float32)

    return run(), run(), labels, mask, pattern


def made(reference=True, online_text="", affine=AFFINE):
    calibration, later, labels, mask, pattern = study()
    mean, limits = guards.measured([calibration], mask)
    inside = np.flatnonzero(np.abs(pattern[mask]) > 12)
    weights = (pattern[mask][inside] / 144 + 0.04) / len(inside)  # and a little of the level
    facts = decoder.Facts(
        CLASSES,
        GRID,
        float(mean[mask].mean()),
        float(mean[mask].std()),
        subject="01",
        limits=limits,
        reference_of="01",
        online=online_text,
    )
    centre = mean[mask][inside]
    if online_text:
        centre = np.zeros_like(centre)
    own = decoder.Member(
        inside,
        centre,
        np.ones_like(centre),
        np.stack([-weights, weights], 1),
        np.zeros(2),
    )
    built = decoder.from_linear(facts, [own], mask=mask, affine=affine)
    return built.replace(reference=mean if reference else None), later, labels
