"""The model card of a decoder: README.md of its folder, written from the manifest alone.

Sections follow Mitchell et al., Model cards for model reporting, 2019. The manifest holds the
card's sha256, as that of every other file, so the decoder's id and signature cover the card and an
edited card is refused. The card cannot state the id for that reason. A bundle without a card loads.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from emojax.decoder import personal
from emojax.decoder.bounds import Bounds
from emojax.decoder.build import Facts
from emojax.errors import one_line

FILE = "README.md"
SPECIAL = re.compile(r"([\\`*_\[\]|~#])")  # Markdown's special characters
MOST = 40  # largest number of names in a list
LOW, HIGH = "balanced_accuracy low", "balanced_accuracy high"  # keys of `Facts.scores`
NOISE = "balanced_accuracy on noise"
SCORES = {
    "nll": "negative log-likelihood (nats)",
    "ece": "expected calibration error",
}


def render(network: str, facts: Facts, bounds: Bounds, program: Mapping[str, Any]) -> str:
    """Returns the text of a model card.

    Args:
      network: name of the network, see `models.find`.
      facts: facts in the manifest.
      bounds: bounds in the manifest, see `bounds.of_program`.
      program: facts about the program in the manifest, see `program.export`.
    """
    parts = {
        "What it decodes": _decodes(network, facts),
        "Whose data": _data(facts),
        "Intended use": _use(facts),
        "How good it is": _scores(facts),
        "What it refuses or marks": _refuses(facts, bounds),
        "Who saw what": _seen(facts),
        "How to use it": _how(facts),
        "Made with": _versions(network, program),
    }
    named = [_name(name) for name in facts.classes]
    text = [
        f"# Decoder of {', '.join(named)}",
        "",
        "Model card, written by emojax from `manifest.json`. The id of the decoder covers this "
        "file, and an edited card is refused: keep notes in another file.",
    ]
    for title, lines in parts.items():
        text += ["", f"## {title}", "", *lines]
    return "\n".join(text) + "\n"


def _decodes(network: str, facts: Facts) -> list[str]:
    size = " x ".join(map(str, facts.grid))
    lines = [
        f"* Classes: {', '.join(map(_name, facts.classes))}.",
        f"* Input: one fMRI volume of {size} voxels, as scanned. Output: a probability per class.",
        f"* Classifier: {_name(facts.kind or network)}.",
    ]
    if facts.tr is not None:
        lines.append(f"* TR of the training volumes: {facts.tr:g} s.")
    if facts.online:
        lines.append(f"* Causal correction of each volume: {_name(facts.online)}.")
    if facts.preprocessing:
        lines.append(f"* Preprocessing: {', '.join(map(_name, facts.preprocessing))}.")
    return lines


def _data(facts: Facts) -> list[str]:
    lines = []
    if facts.trained_on:
        lines.append(
            f"* Fitted to {len(facts.trained_on)} subjects or runs: {_listed(facts.trained_on)}."
        )
    else:
        lines.append("* The training subjects are not stated.")
    if facts.left_out:
        lines.append(f"* Left out of the fit: {_name(facts.left_out)}.")
    elif facts.trained_on:
        lines.append("* No subject or run was left out.")
    if facts.subject:
        lines.append(f"* Aligned to the brain of {_name(facts.subject)}.")
    if facts.runs:
        lines.append(f"* Runs of its common space: {_listed(facts.runs)}.")
    if facts.reference_of:
        lines.append(f"* The reference image is of {_name(facts.reference_of)}.")
    if facts.parent:
        lines.append(f"* Calibrated from decoder `{_plain(facts.parent)}`, by")
        lines += [f"  * {_name(name)}, sha256 `{_plain(sha)}`" for name, sha in facts.inputs]
    return lines


def _use(facts: Facts) -> list[str]:
    if facts.subject:
        whom = f"scans of {_name(facts.subject)}; `emojax calibrate` adapts it to other people"
    elif facts.trained_on and (facts.alignment or personal.centres(facts)):
        whom = "a new person, after `emojax calibrate` has adapted it with one of their runs"
    else:
        whom = "scans on its grid; no part of it is specific to one person"
    return [
        f"* For {whom}.",
        "* For research on the classes above, as the events of the fitted runs define them.",
        "* Not for a diagnosis, and not for any decision about a person.",
    ]


def _scores(facts: Facts) -> list[str]:
    scores = dict(facts.scores)
    if "balanced_accuracy" not in scores:
        return ["The manifest states no score."]
    lines = [f"| | |\n|---|---|\n| balanced accuracy | {_accuracy(scores)} |"]
    lines.append(f"| chance | {1 / len(facts.classes):.3f} |")
    noise = f"{scores[NOISE]:.3f}" if NOISE in scores else "not measured"
    lines.append(f"| the same procedure on noise | {noise} |")
    lines += [f"| {text} | {scores[name]:.3f} |" for name, text in SCORES.items() if name in scores]
    lines += ["", "These are the numbers of the report, means over all folds of the run."]
    if facts.protocol:
        lines.append(f"Protocol {_name(facts.protocol)}: {_protocol(facts.protocol)}")
    if facts.parent:
        lines.append("They were measured before the calibration, on other people's scans: this")
        lines.append("decoder itself has not been scored.")
    elif facts.trained_on and not facts.left_out:
        lines.append("This decoder was trained on all subjects: it has no score of its own.")
    if facts.fit:
        shown = ", ".join(f"{_name(name)} {value:.3g}" for name, value in facts.fit)
        lines.append(f"Fit of the calibration run: {shown}.")
    return lines


def _accuracy(scores: Mapping[str, float]) -> str:
    text = f"{scores['balanced_accuracy']:.3f}"
    if LOW in scores and HIGH in scores:
        return f"{text} (95 % interval {scores[LOW]:.3f} to {scores[HIGH]:.3f})"
    return text


def _protocol(name: str) -> str:
    from emojax.report import texts  # large, and needed only when a decoder is written

    return texts.PROTOCOLS.get(name, "not a class that this version knows.")


def _refuses(facts: Facts, bounds: Bounds) -> list[str]:
    lines = [
        "Refused:",
        "",
        "* volumes of another shape, or another affine where the decoder has one",
        "* values inside the mask that are not finite",
    ]
    if facts.subject:
        lines.append(
            f"* images whose file name is that of a subject other than {_name(facts.subject)}"
        )
    lines += [
        f"* {_name(name)} inside the mask outside of {low:.4g} to {high:.4g}"
        for name, (low, high) in bounds.items()
    ]
    if facts.limits:
        lines += ["", "Marked, but still decoded: volumes outside of"]
        lines += [f"* {_name(name)} {low:.4g} to {high:.4g}" for name, low, high in facts.limits]
    else:
        lines += ["", "Nothing is marked: there is no reference image to compare volumes with."]
    return lines


def _seen(facts: Facts) -> list[str]:
    if not facts.provenance:
        return ["The manifest does not say."]
    rows = [f"| {_name(step)} | {values} | {labels} |" for step, values, labels in facts.provenance]
    return ["| step | volumes seen | labels seen |", "|---|---|---|", *rows]


def _how(facts: Facts) -> list[str]:
    command = "emojax decode DECODER RUN.nii.gz --workdir=new"
    return [
        "```sh",
        command,
        "```",
        "",
        "```python",
        "from emojax import decoder",
        "",
        'loaded = decoder.load("DECODER")  # checks every file',
        "p = decoder.decode(loaded, volume, affine)  # [X, Y, Z] as scanned -> [classes]",
        "```",
        "",
        "`decoder_numpy.py` needs only NumPy. `emojax decode` prints the id; `--expect=ID` "
        "refuses any other decoder, `--trust=KEY.pub` one that the key's owner has not signed.",
    ]


def _versions(network: str, program: Mapping[str, Any]) -> list[str]:
    runs_on = " to ".join(map(str, program.get("runs_on", ())))
    lines = [f"* Network {_name(network)}."]
    for name in ("emojax", "jax"):
        if name in program:
            lines.append(f"* {name} {_plain(program[name])}.")
    if runs_on:
        lines.append(f"* `program.bin` is known to run with jax {_plain(runs_on)}.")
    return lines


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(map(_name, names[:MOST])) + more


def _name(text: object) -> str:
    """Returns a name escaped for Markdown and HTML."""
    safe = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return SPECIAL.sub(r"\\\1", safe)


def _plain(text: object) -> str:
    """Returns a text for a code span, without backquotes."""
    return one_line(text).replace("`", "'")
