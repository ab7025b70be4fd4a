"""Bounds of a volume's values inside the mask, beyond which probabilities are meaningless."""

import numpy as np

from emojax.decoder.build import Decoder, Facts

FACTOR = 3.0  # largest ratio of mean and sd inside the mask to those of the training volumes

Bounds = dict[str, tuple[float, float]]  # "sd" and, unless the level is near 0, "mean"


def usual(facts: Facts) -> Bounds:
    """Returns (minimum, maximum) of the sd over the mask, and of the mean unless it is near 0."""
    level, found = facts.level, {"sd": (facts.spread / FACTOR, facts.spread * FACTOR)}
    if abs(level) > facts.spread / 2:
        found["mean"] = _in_order(level / FACTOR, level * FACTOR)
    return found


def of_program(decoder: Decoder) -> Bounds:
    """Returns the bounds of a reader without corrections or marks, which gives NaN beyond them.

    They are the usual bounds, narrowed by the limits of the gain if the decoder has a reference.
    With `Facts.online` such a reader takes corrected volumes, to which those limits do not apply.
    """
    found = usual(decoder.facts)
    limits = {name: ends for name, *ends in decoder.facts.limits}
    if decoder.reference is None or decoder.facts.online:
        return found
    if "gain" in limits and "mean" in found:
        level = float(np.asarray(decoder.reference)[decoder.mask].mean(dtype=np.float64))
        own = _in_order(*(level * end for end in limits["gain"]))
        found["mean"] = max(found["mean"][0], own[0]), min(found["mean"][1], own[1])
    return found


def _in_order(one: float, other: float) -> tuple[float, float]:
    return min(one, other), max(one, other)
