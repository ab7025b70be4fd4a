"""What the steps of an export hand to each other."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from emojax.data.cohort import Cohort
from emojax.decoder import Decoder
from emojax.records import Arm, FoldData
from emojax.scoring.baselines import Job


class Made(NamedTuple):
    """The data of a fold, made again as the run made them; or of everybody, for a new person."""

    config: Any
    view: Any  # what ledgers read
    arm: Arm
    data: FoldData  # no test rows where everybody trains

    @property
    def cohort(self) -> Cohort:
        """The data behind the view, which may be the cohort itself."""
        return getattr(self.view, "cohort", self.view)


class Trained(NamedTuple):
    """A classifier as its network folds it (see `models.find`)."""

    network: str
    params: tuple[Mapping[str, Any], ...]  # of each member, or the one
    kind: str  # in words, such as "bag of 9 logistic decoders"
    by_member: bool = False  # whether the members are those of the fold's data
    batch_stats: Mapping[str, Any] | None = None
    temperature: float = 1.0
    members: tuple[tuple[str, float, float], ...] = ()  # see `decoder.Facts`
    job: Job | None = None  # what a classical one was fitted to


class Packed(NamedTuple):
    """A decoder, and the rows of the run that it is to decode."""

    decoder: Decoder
    rows: Int[np.ndarray, " k"]  # of the cohort; none where everybody trains
