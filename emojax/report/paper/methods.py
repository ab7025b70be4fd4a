"""The methods section of a run: paragraphs with its numbers, references and BibTeX."""

from typing import NamedTuple

from emojax.report.paper import findings, fits, participants, references
from emojax.report.paper.references import Citations
from emojax.report.paper.words import Metrics, head, sentences


class Paragraph(NamedTuple):
    """A paragraph of the methods."""

    title: str
    text: str


class Methods(NamedTuple):
    """Paragraphs, and the works that they cite, in the order of their numbers."""

    paragraphs: list[Paragraph]
    references: list[str]
    bibtex: str


def make(metrics: Metrics) -> Methods | None:
    """Writes the methods of a run from the content of metrics.json; None if nothing was run."""
    arm = head(metrics)
    if arm is None or not arm["folds"]:
        return None
    cite = Citations()
    parts = {
        "Participants and data": (participants.participants, participants.labels),
        "Preprocessing": (participants.preprocessing,),
    }
    made = {
        title: sentences(*(part(metrics, cite) for part in each)) for title, each in parts.items()
    }
    made["Features and decoder"] = sentences(
        *(part(metrics, arm, cite) for part in (fits.features, fits.decoder, fits.beside))
    )
    made["Evaluation"] = sentences(fits.folds(metrics, arm), fits.protocol(metrics, arm))
    results = (findings.headline, findings.floor, findings.permutation, findings.compared)
    results += (findings.instances, findings.by_group)
    more = (findings.within, findings.crossed, findings.design, findings.probabilities)
    for title, each in {
        "Results": results,
        "Checks": more,
        "Software": (findings.software,),
    }.items():
        made[title] = sentences(*(part(metrics, arm, cite) for part in each))
    versions = metrics.get("versions") or {}
    return Methods(
        [Paragraph(title, text) for title, text in made.items() if text],
        [references.line(key, versions) for key in cite.keys],
        references.bibtex(cite.keys, versions),
    )
