"""The commands `configs` and `keys`, which list configs and their keys without importing jax."""

import fnmatch
import inspect
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from emojax.cli import comments, guard
from emojax.cli.config_files import check_variant, load_config, load_module, shipped, variants
from emojax.cli.flags import Usage, names_of, parse
from emojax.configs import common  # pyright: ignore[reportAttributeAccessIssue]  # by __path__
from emojax.errors import InputError
from emojax.nearest import hint, nearest

CONFIGS = Usage(
    "configs",
    {"name": "a config, or the path of your own file: prints its full description"},
    needs=(),
    positional=("name",),
    example="emojax configs expA",
)
KEYS = Usage(
    "keys",
    {
        "pattern": "part of a key's name, or a pattern with * such as 'train.*'; if no name "
        "matches, a word in the descriptions of keys; all keys by default",
        "config": "config whose values are shown; ':variant' may follow",
    },
    needs=(),
    positional=("pattern",),
    example="emojax keys epochs --config=expA:demo",
)
COLUMN = 44  # column in which comments of keys start
WIDEST = 100  # maximum width of a line


class Key(NamedTuple):
    """A config key."""

    name: str  # dotted name
    values: str  # values as typed, with the experiment if it matters
    comment: str


def configs(argv: Sequence[str]) -> None:
    """Lists the shipped configs and their variants, or prints the full description of one."""
    name = parse(argv, CONFIGS).text["name"]
    if name:
        _say_all(name)
        return
    lines = []
    for each in shipped():
        lines += _row(each, _first_line(load_module(each)), 16)
        for variant, line in variants_of(each).items():
            lines += _row(f"  :{variant}", line, 16)
    usage = "emojax run NAME:VARIANT --workdir=DIR    runs one; 'emojax configs NAME' describes one"
    guard.show("\n".join([*lines, "", usage]))


def keys(argv: Sequence[str]) -> None:
    """Lists config keys with their values and descriptions."""
    given = parse(argv, KEYS)
    text = given.text
    known = keys_of(text["config"], given.config) if text["config"] else default_keys()
    lines = []
    for key in _matching(known, text["pattern"]):
        lines += _row(f"{key.name} = {key.values}", key.comment, COLUMN)
    usage = "emojax run CONFIG --config.KEY=VALUE ...    sets one"
    guard.show("\n".join([*lines, "", usage]))


def variants_of(name: str) -> dict[str, str]:
    """Returns the variants of a config, each with the first line of its docstring.

    Args:
      name: name of a shipped config, or path of a config file.

    Raises:
      InputError: there is no such config, or it cannot be imported.
    """
    functions = variants(load_module(name))
    return {variant: _first_line(function) for variant, function in functions.items() if variant}


def default_keys() -> list[Key]:
    """Returns all keys of both experiments with their defaults."""
    names = {each: make().to_dict() for each, make in common.EXPERIMENTS.items()}
    flat = {each: _flat(config) for each, config in names.items()}
    said = {each: comments.read(make) for each, make in common.EXPERIMENTS.items()}
    order = dict.fromkeys(key for values in flat.values() for key in values)
    return [_default(key, flat, said) for key in sorted(order, key=_parts_first)]


def keys_of(name: str, config: ConfigDict | None = None) -> list[Key]:
    """Returns the keys of a config with their values, and the comments in its own file.

    Args:
      name: as for `load_config`; a variant may follow.
      config: the config with changed values; default: unchanged.

    Raises:
      InputError: there is no such config.
    """
    config, variant = config or load_config(name), name.partition(":")[2]
    values = _flat(config.to_dict())
    make = common.EXPERIMENTS.get(config.experiment)
    defaults, said = (_flat(make().to_dict()), comments.read(make)) if make else ({}, {})
    module = load_module(name)
    own = comments.read(module.get_config)
    if inspect.isfunction(function := variants(module).get(variant)):
        own |= comments.read(function)
    out = []
    for key in sorted(names_of(config), key=_parts_first):
        value, default = values[key], defaults.get(key, values[key])
        shown = (
            _typed(value) if value == default else f"{_typed(value)} (default {_typed(default)})"
        )
        parts = [said.get(key, ""), f"here: {own[key]}" if own.get(key) else ""]
        out.append(Key(key, shown, "; ".join(filter(None, parts))))
    return out


def _default(
    key: str, flat: Mapping[str, Mapping[str, Any]], said: Mapping[str, comments.Comments]
) -> Key:
    """Returns a key with its default, or with several if the experiments differ."""
    theirs = {each: values[key] for each, values in flat.items() if key in values}
    different = len({_typed(value) for value in theirs.values()}) > 1
    words = dict.fromkeys(said[each].get(key, "") for each in theirs)
    if different or len(theirs) < len(flat):
        shown = ", ".join(f"{_typed(value)} ({each})" for each, value in theirs.items())
    else:
        shown = _typed(next(iter(theirs.values())))
    return Key(key, shown, "; ".join(filter(None, words)))


def _matching(known: Sequence[Key], pattern: str) -> list[Key]:
    """Returns the keys whose names match a pattern or, if none does, whose comments contain it.

    Raises:
      InputError: nothing matches.
    """
    folded = pattern.casefold()
    wild = folded if "*" in folded else f"*{folded}*"
    found = [key for key in known if fnmatch.fnmatchcase(key.name.casefold(), wild)]
    found = found or [key for key in known if folded in key.comment.casefold()]
    if found:
        return found
    ends = {key.name.rpartition(".")[2]: key.name for key in known}
    near = nearest(pattern, [key.name for key in known]) or ends.get(nearest(pattern, ends), "")
    said = hint(near, [near]) if near else ""
    raise InputError("keys", f"{pattern!r}{said}", "part of a key ('emojax keys' lists them all)")


def _say_all(name: str) -> None:
    """Prints the docstrings of a config and of its variants."""
    module = load_module(name)
    check_variant(name, module)
    lines = [inspect.getdoc(module) or ""]
    for variant, function in variants(module).items():
        if variant:
            lines += ["", f":{variant}", textwrap.indent(inspect.getdoc(function) or "", "    ")]
    guard.show("\n".join(lines))


def _row(head: str, text: str, column: int) -> list[str]:
    """Returns lines with a name and a text beside it, or below if the name is long.

    Args:
      head: the name.
      text: the text.
      column: column in which the text starts.
    """
    width = min(max(shutil.get_terminal_size((WIDEST, 24)).columns, 60), WIDEST)
    lines = [" " * column + line for line in textwrap.wrap(text, width - column)]
    if len(head) + 2 > column or not lines:
        return [head, *lines]
    return [head.ljust(column) + lines[0].lstrip(), *lines[1:]]


def _first_line(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def _flat(config: Mapping[str, Any] | ConfigDict, at: str = "") -> dict[str, Any]:
    """Returns dotted key -> value."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        inner = isinstance(value, Mapping | ConfigDict)
        out |= _flat(value, f"{at}{key}.") if inner else {at + key: value}
    return out


def _typed(value: Any) -> str:
    """Returns a value as it is typed on a command line; an empty text is ""."""
    return (value or '""') if isinstance(value, str) else repr(value)


def _parts_first(key: str) -> tuple[bool, str]:
    """Returns a sort key that puts keys without a section first, then sorts by name."""
    return "." in key, key
