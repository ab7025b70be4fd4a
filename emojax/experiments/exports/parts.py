"""Records that the steps of an export pass to each other."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from emojax.data.cohort import Cohort
from emojax.decoder import Decoder
from emojax.records import Arm, FoldData
from emojax.scoring.baselines import Job


class Made(NamedTuple):
    """The data of a fold, made again as in the run; or of all subjects, for a new person."""

    config: Any
    view: Any  # the data that ledgers read
    arm: Arm
    data: FoldData  # without test rows if all subjects train

    @property
    def cohort(self) -> Cohort:
        """The cohort behind the view, which may be the view itself."""
        return getattr(self.view, "cohort", self.view)


class Trained(NamedTuple):
    """A trained classifier, in the form that its network folds (see `models.find`)."""

    network: str
    params: tuple[Mapping[str, Any], ...]  # parameters of each member, or of the only network
    kind: str  # description, such as "bag of 9 logistic decoders"
    by_member: bool = False  # whether each member of the fold's data has its own parameters
    batch_stats: Mapping[str, Any] | None = None
    temperature: float = 1.0
    members: tuple[tuple[str, float, float], ...] = ()  # see `decoder.Facts`
    job: Job | None = None  # the job of a classical classifier


class Packed(NamedTuple):
    """A decoder, and the rows of the run that it is to decode."""

    decoder: Decoder
    rows: Int[np.ndarray, " k"]  # rows of the cohort; none if all subjects train
