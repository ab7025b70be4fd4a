"""Statistics of a session, and its report in HTML."""

from emojax.online.session.measures import SENT, Accuracy, Statistics, labels_of, statistics
from emojax.online.session.page import report

__all__ = ["SENT", "Accuracy", "Statistics", "labels_of", "report", "statistics"]
