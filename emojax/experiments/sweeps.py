"""Sweeps of Experiment A: every fold chooses among settings by its monitored subject.

    --config.sweep="train.penalty_factor=1e-3,1e-2;voxels.keep=200,300"

Every combination is a candidate: an arm with its own features, provenance record, audit and
training. A fold takes the candidate whose kept network is best on the fold's monitored subject, who
is neither trained on nor scored, and only this candidate is scored. The test scores of candidates
are not reported anywhere, so they cannot guide a choice.
"""

import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from emojax import nearest
from emojax.errors import InputError
from emojax.experiments import settings as schema
from emojax.files import split_list
from emojax.records import Arm, FoldData

SWEPT = "swept"  # the row of the chosen candidates
PARTS = ("train", "model", "align")  # sections of the config whose keys act inside a fold
MORE = ("voxels.keep", "balance")  # further keys that act inside a fold
# Keys that affect no result, that control the choice, or that belong to other arms.
NEVER = {
    *("train.members", "train.keep_models", "train.strategy", "train.checkpoint_epochs"),
    *("train.feed", "train.memory_share", "train.loggers", "train.best_by", "model.name"),
    *("align.regimes", "align.match", "align.parcels", "align.piecewise"),
}
MOST = 64  # maximum number of candidates
FLAGS = {"True": True, "False": False}
WORDS = {bool: "True or False", int: "a whole number", float: "a number"}
Setting = tuple[tuple[str, Any], ...]  # (key, value) of every swept key


def parse(config: Any) -> list[Setting]:
    """Returns the combinations of a sweep, with the first key changing slowest; [] without one.

    Raises:
      InputError: numbers, a malformed sweep, a key that acts outside folds, a value of the wrong
        type, or too many combinations.
    """
    given = config.get("sweep", "")
    if not isinstance(given, str):
        expected = "text such as train.penalty_factor=1e-3,1e-2 (numbers are for Experiment B)"
        raise InputError("sweep", repr(given), expected)
    parts = [part.strip() for part in given.split(";") if part.strip()]
    each = [_values(config, part) for part in parts]
    keys = [own[0][0] for own in each]
    if repeated := next((key for key in keys if keys.count(key) > 1), ""):
        raise InputError("sweep", f"{repeated} twice", "every key once")
    count = int(np.prod([len(own) for own in each]))
    if count > MOST:
        raise InputError("sweep", f"{count} combinations", f"at most {MOST}")
    return list(itertools.product(*each)) if each else []


def _values(config: Any, part: str) -> list[tuple[str, Any]]:
    """Returns (key, value) of every value of a swept key."""
    key, equals, text = (piece.strip() for piece in part.partition("="))
    if not equals or not split_list(text):
        expected = "key=value,value; ... such as train.penalty_factor=1e-3,1e-2"
        raise InputError("sweep", repr(part), expected)
    known = _keys(config)
    if key not in known:
        expected = f"a key that acts inside a fold, in {', '.join(PARTS)}, or {' or '.join(MORE)}"
        there = _is_key(config, key)
        said = ", a key that cannot be swept" if there else nearest.hint(key, list(known))
        raise InputError("sweep", repr(key) + said, expected)
    out = []
    kind = type(known[key])
    for word in split_list(text):
        try:
            value = FLAGS[word] if kind is bool else kind(word)
        except (KeyError, ValueError):
            raise InputError("sweep", f"{key}={word}", WORDS[kind]) from None
        if (key, value) in out:
            raise InputError("sweep", f"{key}={word} twice", "every value once")
        out.append((key, value))
    return out


def _is_key(config: Any, key: str) -> bool:
    """Returns whether the config has a key or section of this dotted name."""
    node = config
    for name in key.split("."):
        if not isinstance(node, ConfigDict) or name not in node:
            return False
        node = node[name]
    return True


def _keys(config: Any) -> dict[str, Any]:
    """Returns the keys that can be swept, with their values in the config."""
    found: dict[str, Any] = {"voxels.keep": config.voxels.keep, "balance": config.balance}

    def enter(node, at):
        for name, value in node.items():
            if isinstance(value, ConfigDict):
                enter(value, f"{at}.{name}")
            elif isinstance(value, bool | int | float | str):
                found[f"{at}.{name}"] = value

    for part in PARTS:
        enter(config[part], part)
    return {key: value for key, value in found.items() if key not in NEVER}


def check(config: Any) -> list[Any]:
    """Returns the config of every candidate, for the experiment to check each.

    Raises:
      InputError: as `parse`, or the choice would not be nested.
    """
    candidates = parse(config)
    if candidates and "nested" not in split_list(config.protocols):
        expected = "nested among the protocols, since test scores must not choose settings"
        raise InputError("sweep", f"protocols={config.protocols!r}", expected)
    if candidates and not config.network:
        raise InputError("sweep", "network=False", "a network to sweep")
    if candidates and (config.train.members or config.instances > 1):
        expected = "train.members=False and instances=1 in a sweep"
        raise InputError("sweep", "several networks in each fold", expected)
    found = [_with(config, setting) for setting in candidates]
    for own in found:
        schema.check(own)
    return found


def _with(config: Any, setting: Setting) -> Any:
    """Returns a locked config with a setting applied, and without a sweep."""
    own = config.copy_and_resolve_references().unlock()
    own.sweep = ""
    own.update_from_flattened_dict(dict(setting))
    return own.lock()


def config_of(config: Any, arm: Arm) -> Any:
    """Returns the config with which an arm is fitted."""
    return _config_of(config.to_json(), arm.setting) if arm.setting else config


@functools.lru_cache(maxsize=MOST)
def _config_of(text: str, setting: Setting) -> Any:
    return _with(ConfigDict(json.loads(text)), setting)


def arms(config: Any, network_of: Any) -> list[Arm]:
    """Returns the row of the chosen candidates, followed by the candidates; [] without a sweep.

    Args:
      config: config of the run.
      network_of: config -> the arm of its nested network.
    """
    found = []
    for setting in parse(config):
        arm = network_of(_with(config, setting))
        name = f"{SWEPT}: {say(setting)}"
        found.append(replace(arm, name=name, setting=setting, baselines=()))
    if not found:
        return []
    row = replace(found[0], name=SWEPT, setting=(), shares=found[0].name)
    return [replace(row, among=tuple(arm.name for arm in found)), *found]


def say(setting: Setting) -> str:
    """Returns a setting as text: "train.lr=0.001, voxels.keep=200"."""
    return ", ".join(f"{key}={value}" for key, value in setting)


def choose(
    row: Arm,
    number: int,
    made: Mapping[str, Sequence[FoldData]],
    outcomes: Mapping[str, Mapping[int, Sequence[Mapping[str, np.ndarray]]]],
    by: str,
) -> tuple[str, dict[str, float]]:
    """Returns the candidate that a fold chooses, and the monitored score of each candidate.

    Args:
      row: the arm that chooses.
      number: number of the fold.
      made: arm -> its folds.
      outcomes: arm -> fold -> outcome of its network.
      by: "accuracy" (balanced; ties go to the lower cross-entropy) or "nll" (class-balanced
        cross-entropy). Remaining ties go to the candidate that the sweep names first.
    """
    ranks, inner = {}, {}
    for name in row.among:
        (outcome,) = outcomes[name][number]
        labels = made[name][number].labels[outcome["monitored_rows"]]
        p = np.asarray(outcome["monitored_best"], np.float64)
        nll = -np.log(np.clip(p[np.arange(len(labels)), labels], 1e-30, 1))
        balanced = float(np.mean([nll[labels == k].mean() for k in np.unique(labels)]))
        right = p.argmax(1) == labels
        accuracy = float(np.mean([right[labels == k].mean() for k in np.unique(labels)]))
        inner[name] = balanced if by == "nll" else accuracy
        ranks[name] = (-balanced,) if by == "nll" else (inner[name], -balanced)
    return max(row.among, key=ranks.__getitem__), inner
