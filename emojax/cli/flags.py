"""Command-line flags: parsing, help, and config overrides."""

import itertools
import math
import re
import shlex
import sys
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from emojax.cli import COMMANDS, HELP, guard
from emojax.cli.config_files import load_config
from emojax.errors import InputError
from emojax.nearest import nearest

COMMON = ("config", "workdir", "bundle", "input", "subject", "run")  # every command accepts these
OVERRIDE = re.compile(r"--?(no)?config\.")


class Usage(NamedTuple):
    """The command line of one command."""

    name: str
    flags: Mapping[str, str]  # flag -> help
    needs: tuple[str, ...]  # required flags
    positional: tuple[str, ...] = ()  # flags that may be given as positional arguments, in order
    switches: Mapping[str, str] = {}  # flag without a value -> help
    example: str = ""
    many: str = ""  # name of any number of positional arguments


class Given(NamedTuple):
    """The flags of one call."""

    text: dict[str, str]  # flag -> value; "" if not given
    switches: dict[str, bool]
    config: ConfigDict | None  # the config with its overrides
    words: tuple[str, ...] = ()  # positional arguments, if the command takes any number of them


def parse(argv: Sequence[str], usage: Usage) -> Given:
    """Parses the flags of a command, or prints its help and exits.

    Every command accepts the flags of `launch.py`, with a note if one has no effect.

    Args:
      argv: the command as one string (such as "emojax run"), then its arguments.
      usage: command line of the command.

    Raises:
      InputError: an unknown or missing flag, an unreadable config, or an unknown config key.
      SystemExit: help was requested.
    """
    program, *words = argv
    if any(word in HELP for word in words):
        guard.show(describe(program, usage))
        raise SystemExit(0)
    expected = f"the flags that '{program} --help' lists"
    text, switches, rest = _known(words, usage, expected)
    bare = list(itertools.takewhile(lambda word: not word.startswith("-"), rest))
    _refuse_without_dashes(bare, text, expected)
    free = [name for name in usage.positional if not text[name]]
    text |= zip(free, bare, strict=False)
    if needs := [f"--{name}" for name in usage.needs if not text[name]]:
        wanted = " and ".join(filter(None, (", ".join(needs[:-1]), needs[-1])))
        raise InputError("flags", shlex.join(words) or "none", wanted)
    config, left = None, rest[len(bare) :]
    if text["config"]:
        config, left = override(load_config(text["config"]), left)
    more = bare[len(free) :]
    if left := left if usage.many else more + left:
        _refuse_without_dashes(left, text, expected)
        raise InputError("flags", shlex.join(left), expected)
    for name in text:
        if text[name] and name not in usage.flags:
            print(f"note: {usage.name} does not use --{name}", file=sys.stderr)
    return Given(text, switches, config, tuple(more))


def number(
    text: Mapping[str, str], name: str, kind: type = float, least: float | None = None
) -> Any:
    """Returns the numeric value of a flag, or None if it is not given.

    Args:
      text: flag -> value.
      name: name of the flag.
      kind: int or float.
      least: smallest valid value, which must then be finite; None: any number.

    Raises:
      InputError: not a number, or below `least`.
    """
    if not text[name]:
        return None
    try:
        value = kind(text[name])
    except ValueError:
        value = None
    if value is None or (least is not None and not least <= value < math.inf):
        what = "a whole number" if kind is int else "a number"
        limit = "" if least is None else f" of at least {least:g}"
        raise InputError(f"--{name}", repr(text[name]), what + limit)
    return value


def _refuse_without_dashes(words: Sequence[str], names: Collection[str], expected: str) -> None:
    for word in words:
        if re.match(rf"(no)?config\.\w|({'|'.join(names)})=", word):
            found = f"{shlex.quote(word)} (did you mean {shlex.quote('--' + word)}?)"
            raise InputError("flags", found, expected)


def _known(
    words: list[str], usage: Usage, expected: str
) -> tuple[dict[str, str], dict[str, bool], list[str]]:
    """Returns the values of all flags except config keys, the switches, and the remaining words."""
    known = flags.FlagValues()
    known.set_gnu_getopt(True)
    for name in dict.fromkeys([*usage.flags, *COMMON]):
        flags.DEFINE_string(name, "", "", flag_values=known)
    for name in usage.switches:
        flags.DEFINE_boolean(name, False, "", flag_values=known)
    names = list(known)
    try:
        _, *rest = known(["emojax", *words], known_only=True)
    except (flags.Error, OSError, ValueError) as error:  # the last two come from a --flagfile
        raise InputError("flags", error, expected) from None
    for word in rest:
        if re.match("--?[a-zA-Z]", word) and not OVERRIDE.match(word):
            near = nearest(word.lstrip("-").partition("=")[0], names)
            said = f" (did you mean --{near}?)" if near else ""
            raise InputError("flags", f"unknown flag {word!r}{said}", expected)
    values: dict[str, Any] = {name: known[name].value for name in names}
    switches = {name: values.pop(name) for name in usage.switches}
    return values, switches, rest


def describe(program: str, usage: Usage) -> str:
    """Returns the help of a command."""
    free = [f"[{name.upper()}]" for name in usage.positional]
    free += [f"{usage.many} ..."] if usage.many else []
    rows = {f"--{name}=": text for name, text in usage.flags.items()}
    if "config" in usage.flags:
        rows["--config.KEY="] = "value of a config key, e.g. --config.train.epochs=2"
    rows |= {f"--{name}": text for name, text in usage.switches.items()}
    width = max(map(len, rows)) + 2
    lines = [
        textwrap.fill(
            text, 100, initial_indent=f"  {flag:{width}}", subsequent_indent=" " * (width + 2)
        )
        for flag, text in rows.items()
    ]
    head = [" ".join(["usage:", program, *free, "[FLAGS]"]), "", COMMANDS[usage.name].about]
    tail = ["", f"example: {usage.example}"] if usage.example else []
    return "\n".join([*head, "", "flags:", *lines, *tail])


def override(config: ConfigDict, words: Sequence[str]) -> tuple[ConfigDict, list[str]]:
    """Sets the keys given as `--config.KEY=VALUE`, with type checks.

    Returns:
      The config, and the words that are not overrides.

    Raises:
      InputError: an unknown key, or a value of the wrong type.
    """
    _refuse_unknown_keys(config, words)
    argv = ["emojax", *_last_of_each(words)]
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    try:
        given = config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        _, *left = values(argv)
    except Exception as error:  # values go through Python's parser, which raises many types
        said = error if str(error).strip() else f"{type(error).__name__} in {shlex.join(words)}"
        raise InputError("flags", said, "a value of the key's type") from None
    return given.value, left


def _last_of_each(words: Sequence[str]) -> list[str]:
    """Drops overrides that a later one of the same key replaces, as absl would join tuples."""
    keys = [word.partition("=")[0].lstrip("-") if OVERRIDE.match(word) else "" for word in words]
    later = [key and key in keys[i:] for i, key in enumerate(keys, 1)]
    return [word for word, again in zip(words, later, strict=True) if "=" not in word or not again]


def _refuse_unknown_keys(config: ConfigDict, words: Sequence[str]) -> None:
    for word in filter(OVERRIDE.match, words):
        path, node, at = word.partition("=")[0].partition("config.")[2], config, ""
        for key in re.split(r"[^\w.]", path, maxsplit=1)[0].split("."):
            if not isinstance(node, ConfigDict):
                break
            if key not in node:
                said = _near_key(config, key, node, at)
                raise InputError("flags", f"unknown key {path}", f"a key of the config{said}")
            node, at = node[key], f"{at}{key}."


def _near_key(config: ConfigDict, key: str, node: ConfigDict, at: str) -> str:
    """Returns a suggestion for an unknown key, or the list of known keys.

    Args:
      config: the whole config.
      key: the first unknown part of the typed name.
      node: section of the config that has no such key.
      at: name of that section, with a trailing dot.
    """
    ends = {name.rpartition(".")[2]: name for name in names_of(config)}
    near, elsewhere = nearest(key, node), nearest(key, ends)
    if near or elsewhere:
        return f'. Did you mean "{at + near if near else ends[elsewhere]}"?'
    return f": {', '.join(node)}"


def names_of(config: ConfigDict, at: str = "") -> list[str]:
    """Returns the dotted names of all keys of a config."""
    names: list[str] = []
    for name, value in config.items():
        inner = isinstance(value, ConfigDict)
        names += names_of(value, f"{at}{name}.") if inner else [at + name]
    return names
