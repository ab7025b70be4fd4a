"""What became of a run's events: how many there were of each value, and which label no volume."""

from typing import NamedTuple


class Loss(NamedTuple):
    """The events of one value of the label column in one run."""

    subject: str
    run: str
    value: str  # of the label column
    name: str  # of its class; "" where the value maps to none
    events: int
    unlabelled: int  # of a class, inside the scan, that label no volume
    behind: int  # that begin after the end of the scan
    unknown: int  # without a duration (n/a)
    dropped: int  # volumes of it that conflicts took
