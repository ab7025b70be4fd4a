"""The command `compare`, which prints one table of several runs from their metrics.json."""

import csv
import itertools
import json
import pathlib
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from emojax.cli import guard
from emojax.cli.flags import Usage, parse
from emojax.errors import InputError, one_line, say
from emojax.report import floors

COMPARE = Usage(
    "compare",
    {"csv": "file to write the table to, with unrounded numbers and more columns"},
    needs=(),
    many="WORKDIR",
    example="emojax compare runs/demo runs/mine --csv=runs.csv",
)
SCHEMA = 2  # schema of metrics.json
HEADER = ("run", "config", "headline", "balanced accuracy", "95 % interval", "protocol")
HEADER += ("noise floor", "p (chance)", "network", "epochs", "time", "data", "emojax")
NUMBERS = (  # columns of the CSV file
    *("run", "config", "experiment", "headline", "classifier", "protocol", "balanced_accuracy"),
    *("sd", "low", "high", "on_noise", "p", "p_of", "network", "network_arm"),
    *("network_balanced_accuracy", "epoch_least", "epoch_most", "seconds", "subjects", "runs"),
    *("volumes", "folds", "classes", "chance", "device", "emojax", "jax", "command"),
)


class Unreadable(Exception):
    """A folder without the result of a finished run; the message says why."""


class Compared(NamedTuple):
    """A finished run, with values for the columns `NUMBERS`."""

    values: Mapping[str, Any]

    def cells(self) -> list[str]:
        """Returns the cells of the columns `HEADER`."""
        v = self.values
        of = f" ({v['p_of']})" if v["p_of"] not in ("", v["classifier"]) else ""
        network = _score(v["network_balanced_accuracy"])
        epochs = dict.fromkeys(_whole(v[name]) for name in ("epoch_least", "epoch_most"))
        interval = [_score(v[name]) for name in ("low", "high")]
        return [
            *(v["run"], v["config"], v["headline"], _score(v["balanced_accuracy"], v["sd"])),
            *(" - ".join(filter(None, interval)), v["protocol"], _score(v["on_noise"])),
            f"{v['p']:.3g}{of}" if v["p"] is not None else "",
            f"{v['network']} {network}" if network else "",
            " - ".join(filter(None, epochs)),
            _time(v["seconds"]),
            f"{v['subjects']} subjects, {v['volumes']:,} volumes",
            v["emojax"],
        ]


def compare(argv: Sequence[str]) -> None:
    """Prints a table of several runs, and a warning if their scores are not comparable."""
    given = parse(argv, COMPARE)
    folders = list(dict.fromkeys(given.words))
    if not folders:
        raise InputError("flags", "none", "one WORKDIR or more")
    runs, others = [], []
    for folder in folders:
        try:
            runs.append(read(folder))
        except Unreadable as error:
            others.append(f"{folder}: {error}")
    if runs:
        table = lay_out([run.cells() for run in runs], _width())
        guard.show("\n".join([*table, *differences(runs)]))
    for line in others:
        say(line)
    if not runs:
        raise InputError("compare", "no finished run", "the workdir of a finished run")
    if given.text["csv"]:
        _write(pathlib.Path(given.text["csv"]), runs)


def read(folder: str) -> Compared:
    """Reads the result of a run.

    Raises:
      Unreadable: the folder has no result, or one written by another version.
    """
    path = pathlib.Path(folder)
    if not path.is_dir():
        raise Unreadable("a file, not a folder" if path.exists() else "no such folder")
    if not (path / "metrics.json").is_file():
        if not (path / "config.json").is_file():
            raise Unreadable("not a workdir of emojax")
        raise Unreadable("not finished (emojax run, with its config and this workdir, resumes it)")
    try:
        metrics = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Unreadable(f"metrics.json is damaged ({one_line(error)})") from None
    if not isinstance(metrics, dict) or metrics.get("schema") != SCHEMA:
        raise Unreadable("the result of another version of emojax, or of something else")
    try:
        found = Compared(_values(folder, metrics))
        found.cells()  # this and the next line fail if a number is not a number
        _score(found.values["chance"])
        return found
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise Unreadable(f"metrics.json lacks parts ({type(error).__name__}: {error})") from None


def differences(runs: Sequence[Compared]) -> list[str]:
    """Returns sentences on differences between runs that make scores incomparable."""
    asked: dict[tuple[str, float], list[str]] = {}
    for run in runs:
        key = run.values["classes"], run.values["chance"]
        asked.setdefault(key, []).append(run.values["run"])
    if len(asked) == 1:
        return []
    parts = [
        f"{', '.join(names)}: {classes} (chance {chance:.3f})"
        for (classes, chance), names in asked.items()
    ]
    return [f"Scores are not comparable, because the classes differ: {'; '.join(parts)}."]


def lay_out(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Returns the lines of a table, or a paragraph for each run if the table is too wide.

    Args:
      rows: cells of the columns `HEADER`.
      width: maximum number of characters in a line; 0 is unlimited.
    """
    rows = [[one_line(cell) for cell in row] for row in rows]
    used = [i for i, _ in enumerate(HEADER) if any(row[i] for row in rows)]
    table = [[HEADER[i] for i in used], *([row[i] for i in used] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    if not width or sum(widths) + 2 * (len(widths) - 1) <= width:
        cells = ([c.ljust(w) for c, w in zip(row, widths, strict=True)] for row in table)
        return ["  ".join(row).rstrip() for row in cells]
    lines = []
    for row in rows:
        lines += [row[0], *(f"  {HEADER[i] + ':':20}{row[i]}" for i in used[1:] if row[i])]
    return lines


def _values(folder: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the columns of `NUMBERS` from the content of metrics.json."""
    arms, data = metrics["arms"], metrics["data"]
    named = metrics["chosen_arm"] or arms[0]["name"]
    head = next(arm for arm in arms if arm["name"] == named)
    classifier, summary = _first(head)
    score = summary.get("balanced_accuracy") or {"mean": None, "sd": None, "ci95": None}
    low, high = score["ci95"] or (None, None)
    strict = [a for a in arms if a["strict"] and not a["on_noise"] and a["summary"]["network"]]
    net = head if head["summary"]["network"] else next(iter(strict), None)
    epochs = [f["epoch"] for f in net["folds"] if f["epoch"] is not None] if net else []
    tested = metrics.get("permutation") or {}
    own = classifier in ("network", head["decoder"])
    return {
        **{"run": folder, "config": config_of(metrics["command"])},
        **{"experiment": metrics["experiment"], "classifier": classifier},
        "headline": named if own else f"{named}: {classifier}",
        **{"protocol": head["protocol"], "balanced_accuracy": score["mean"], "sd": score["sd"]},
        **{"low": low, "high": high, "on_noise": _noise(metrics, head, classifier)},
        **{"p": tested.get("p"), "p_of": tested.get("classifier", "")},
        **{"network": metrics["network"] if net else "", "network_arm": net["name"] if net else ""},
        "network_balanced_accuracy": _first(net)[1]["balanced_accuracy"]["mean"] if net else None,
        **{"epoch_least": min(epochs, default=None), "epoch_most": max(epochs, default=None)},
        "seconds": round(sum(metrics["seconds"].values()), 1),
        **{name: data[name] for name in ("subjects", "runs", "volumes")},
        **{"folds": len(head["folds"]), "classes": ", ".join(metrics["classes"])},
        **{"chance": metrics["chance"], "device": metrics["device"]},
        **{name: metrics["versions"].get(name, "") for name in ("emojax", "jax")},
        "command": metrics["command"],
    }


def _first(arm: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Returns (name, summary) of an arm's network or else of its first classical classifier."""
    if arm["summary"]["network"]:
        return "network", arm["summary"]["network"]
    return next(iter(arm["summary"]["baselines"].items()), ("", {}))


def _noise(metrics: Mapping[str, Any], head: Mapping[str, Any], classifier: str) -> float | None:
    """Returns the headline's noise floor, from noise draws or from the arm fitted to noise."""
    if entry := floors.of(metrics, head, classifier):
        return entry["mean"]
    for arm in metrics["arms"]:
        same = (arm["split"], arm["regime"]) == (head["split"], head["regime"])
        if arm["on_noise"] and same and not head["on_noise"] and not head["decoder"]:
            return _first(arm)[1].get("balanced_accuracy", {}).get("mean")
    return None


def config_of(command: str) -> str:
    """Returns the config named in a command line, without folder and suffix, or ""."""
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    given = [w.partition("=")[2] for w in words if w.lstrip("-").startswith("config=")]
    given += [later for word, later in itertools.pairwise(words) if word == "--config"]
    if "run" in words[:3]:
        own = itertools.pairwise(words[words.index("run") :])
        given += [w for before, w in own if not (w.startswith("-") or _takes_value(before))]
    if not given:
        return ""
    file, colon, variant = given[0].partition(":")
    return pathlib.PurePath(file).name.removesuffix(".py") + colon + variant


def _takes_value(word: str) -> bool:
    return word.startswith("-") and "=" not in word and word != "--restart"


def _score(value: float | None, sd: float | None = None) -> str:
    return "" if value is None else f"{value:.3f}" + ("" if sd is None else f" ({sd:.3f})")


def _whole(value: int | None) -> str:
    return "" if value is None else str(value)


def _time(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _width() -> int:
    """Returns the width of the terminal; 0 if the output is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def _write(path: pathlib.Path, runs: Sequence[Compared]) -> None:
    from emojax.files import atomic_write  # imports numpy, which the table does not need

    if path.is_dir():
        raise InputError(path, "a folder", "a file in an existing folder")
    if not path.parent.is_dir():
        raise InputError(path, "no such folder", "a file in an existing folder")
    with atomic_write(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, NUMBERS)
        writer.writeheader()
        writer.writerows(run.values for run in runs)
