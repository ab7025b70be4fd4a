"""Commands that recompute single parts of a report, without the rest of the run."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from emojax.files import split_list
from emojax.report.outcomes import NETWORK
from emojax.report.paper.words import Metrics, head, setting
from emojax.scoring.baselines import BAG
from emojax.training.checkpoint import slug

PERMUTATIONS, CROSSED = 999, 99  # proposed if a run had none
OFF: Mapping[str, Any] = {  # key -> value that turns the analysis off
    "permutations": 0,
    "within_subject": False,
    "crossed": "",
    "design": False,
    "audit": False,
    "null_floor": False,
    "leaks": False,
}


class Rerun(NamedTuple):
    """A part of the report, and the command that recomputes it."""

    what: str
    command: str


def commands(metrics: Metrics) -> list[Rerun]:
    """Returns a command for each part of the report; [] if nothing was run.

    Each command has a workdir of its own, since a workdir belongs to one configuration. Seeds are
    those of the run, so the numbers are the same on the same machine, with the same versions.
    """
    arm = head(metrics)
    if arm is None:
        return []
    out = [Rerun("everything", _command(metrics, "again", {}))]
    for what, name, keys in _parts(metrics, arm):
        asked = {key: value for key, value in keys.items() if _has(metrics, key)}
        if keys and not asked:
            continue
        out.append(Rerun(what, _command(metrics, name, _alone(metrics, arm, asked) | asked)))
    seed = setting(metrics, "seed")
    if seed is not None and arm.get("decoder") != BAG:  # the bag draws no random numbers
        keys = {"seed": seed + 1}
        alone = _alone(metrics, arm, {}, trains=True) | keys
        out.append(Rerun("the headline with another seed", _command(metrics, "seed", alone)))
    if workdir := _workdir(metrics):
        shown = shlex.join(["emojax", "report", workdir])
        out.append(Rerun("print the table of this run", shown))
    return out


def _parts(metrics, arm) -> list[tuple[str, str, dict[str, Any]]]:
    """Returns each part, a name for its workdir, and the keys that request it."""
    draws = setting(metrics, "permutations", 0) or PERMUTATIONS
    crossed = setting(metrics, "crossed", "") or "all"
    null = setting(metrics, "permutations", 0) or CROSSED  # without permutations it has no null
    parts: list[tuple[str, str, dict[str, Any]]] = [
        ("the headline and its probabilities", "headline", {}),
        ("the noise floor", "floor", {"null_floor": True}),
        ("the permutation test", "null", {"permutations": draws}),
        ("new subjects and new levels", "crossed", {"crossed": crossed, "permutations": null}),
        ("labels known from the design", "design", {"design": True}),
        ("the audit", "audit", {"audit": True}),
    ]
    if setting(metrics, "voxels") is not None:
        own = ("the test subject's own runs", "within", {"within_subject": True})
        parts.insert(3, own)
    if names := setting(metrics, "baselines", ""):
        parts.append(("the classical classifiers", "classical", {"baselines": names}))
    return parts


def _alone(metrics, arm, asked: Mapping[str, Any], trains: bool = False) -> dict[str, Any]:
    """Returns the keys that turn off everything but the headline.

    Args:
      metrics: content of metrics.json.
      arm: the headline.
      asked: the keys of the requested part.
      trains: whether the networks themselves are requested.
    """
    keys = {key: value for key, value in OFF.items() if _has(metrics, key)}
    permuted = setting(metrics, "permute", NETWORK)
    if _has(metrics, "baselines"):
        keys["baselines"] = "" if permuted in (NETWORK, BAG) else permuted
    if regimes := split_list(setting(metrics, "align.regimes", "")):
        keys["align.regimes"] = arm["regime"] if arm["regime"] in regimes else regimes[0]
    if choices := split_list(setting(metrics, "protocols", "")):
        strict = [name for name in ("nested", "last") if name in choices]
        keys["protocols"] = arm["name"] if arm["name"] in choices else (*strict, *choices)[0]
    if split_list(setting(metrics, "splits", "")) and arm["split"]:
        keys["splits"] = arm["split"]
    network = bool(arm["summary"]["network"]) or arm.get("decoder") == "auto"
    if not trains and asked and "null_floor" not in asked and "baselines" not in asked:
        network = permuted == NETWORK and "permutations" in asked
    if not network:
        # The requested part does not depend on networks.
        keys |= {"train.epochs": 1, "train.least_steps": 0, "noise.network_draws": 0}
    return keys


def _has(metrics: Metrics, key: str) -> bool:
    missing = object()
    return setting(metrics, key, missing) is not missing


def _command(metrics: Metrics, name: str, keys: Mapping[str, Any]) -> str:
    """Returns the run's command with another workdir, and with the keys that differ."""
    there = {key: value for key, value in keys.items() if _has(metrics, key)}
    changed = {key: value for key, value in there.items() if setting(metrics, key) != value}
    words = [word for word in _words(metrics) if _key(word) not in changed]
    folder = _workdir(metrics) or "runs/run"
    words += [f"--workdir={folder.rstrip('/')}-{slug(name)}"]
    return shlex.join([*words, *(f"--config.{key}={value}" for key, value in changed.items())])


def _key(word: str) -> str:
    """Returns the config key that a word of a command line sets, or ""."""
    key, equals, _ = word.lstrip("-").partition("=")
    return key.removeprefix("config.") if equals and key.startswith("config.") else ""


def _words(metrics: Metrics) -> list[str]:
    """Returns the words of the run's command without its workdir."""
    words = shlex.split(metrics.get("command") or "") or ["emojax", "run", "CONFIG"]
    out: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in ("--workdir", "-workdir"):
            skip = True  # its value is the next word
        elif not word.startswith(("--workdir=", "-workdir=", "--restart", "-restart")):
            out.append(word)
    return out


def _workdir(metrics: Metrics) -> str:
    """Returns the workdir that the run's command names, or ""."""
    words: Sequence[str] = shlex.split(metrics.get("command") or "")
    for i, word in enumerate(words):
        key, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and key == "workdir":
            return value if equals else next(iter(words[i + 1 :]), "")
    return ""
