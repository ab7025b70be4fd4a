"""The flags of a command: parsing, help, and the config with its overrides."""

import difflib
import importlib.machinery
import importlib.util
import itertools
import math
import os
import pathlib
import re
import shlex
import sys
import textwrap
import traceback
from collections.abc import Collection, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from emojax.cli import COMMANDS, HELP
from emojax.errors import InputError

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"  # beside emojax, in a wheel, too
COMMON = ("config", "workdir", "bundle", "input", "subject", "run")  # every command accepts these
OVERRIDE = re.compile(r"--?(no)?config\.")


class Usage(NamedTuple):
    """The command line of one command."""

    name: str
    flags: Mapping[str, str]  # flag that the command uses -> help
    needs: tuple[str, ...]  # flags without which the command cannot work
    positional: tuple[str, ...] = ()  # flags whose values may stand alone, in this order
    switches: Mapping[str, str] = {}  # flag without a value -> help
    example: str = ""


class Given(NamedTuple):
    """The flags of one call."""

    text: dict[str, str]  # flag -> value, "" where it was not given
    switches: dict[str, bool]
    config: ConfigDict | None  # with its overrides


def parse(argv: Sequence[str], usage: Usage) -> Given:
    """Parses the flags of a command, or prints its help and exits.

    The flags of `launch.py` are accepted by every command, with a note where one has no effect.

    Args:
      argv: the words that call the command, as one, and its arguments.
      usage: command line of the command.

    Raises:
      InputError: an unknown or missing flag, a config that cannot be read, an unknown key of it.
      SystemExit: the help was asked for.
    """
    program, *words = argv
    if any(word in HELP for word in words):
        print(describe(program, usage))
        raise SystemExit(0)
    expected = f"the flags that '{program} --help' lists"
    text, switches, rest = _known(words, usage, expected)
    bare = list(itertools.takewhile(lambda word: not word.startswith("-"), rest))
    _refuse_without_dashes(bare, text, expected)
    free = [name for name in usage.positional if not text[name]]
    text |= zip(free, bare, strict=False)
    if not all(text[name] for name in usage.needs):
        needs = [f"--{name}" for name in usage.needs]
        wanted = " and ".join(filter(None, (", ".join(needs[:-1]), needs[-1])))
        raise InputError("flags", shlex.join(words) or "none", wanted)
    config, left = None, rest[len(bare) :]
    if text["config"]:
        config, left = override(load_config(text["config"]), left)
    if left := bare[len(free) :] + left:
        _refuse_without_dashes(left, text, expected)
        raise InputError("flags", shlex.join(left), expected)
    for name in text:
        if text[name] and name not in usage.flags:
            print(f"note: {usage.name} does not use --{name}", file=sys.stderr)
    return Given(text, switches, config)


def number(
    text: Mapping[str, str], name: str, kind: type = float, least: float | None = None
) -> Any:
    """Returns the number that a flag gives, None where it is not given.

    Args:
      text: flag -> value.
      name: of the flag.
      kind: int or float.
      least: the smallest that is right, and finite; None: any number.

    Raises:
      InputError: it is no number, or a smaller one.
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


def _known(words: list[str], usage: Usage, expected: str):
    """Returns the values of all flags but the config's keys, and the words that are left."""
    known = flags.FlagValues()
    known.set_gnu_getopt(True)
    for name in dict.fromkeys([*usage.flags, *COMMON]):
        flags.DEFINE_string(name, "", "", flag_values=known)
    for name in usage.switches:
        flags.DEFINE_boolean(name, False, "", flag_values=known)
    names = list(known)
    try:
        _, *rest = known(["emojax", *words], known_only=True)
    except (flags.Error, OSError, ValueError) as error:  # the others: of a --flagfile
        raise InputError("flags", error, expected) from None
    for word in rest:
        if re.match("--?[a-zA-Z]", word) and not OVERRIDE.match(word):
            near = difflib.get_close_matches(word.lstrip("-").partition("=")[0], names, 1)
            hint = f" (did you mean --{near[0]}?)" if near else ""
            raise InputError("flags", f"unknown flag {word!r}{hint}", expected)
    values = {name: known[name].value for name in names}
    switches = {name: values.pop(name) for name in usage.switches}
    return values, switches, rest


def describe(program: str, usage: Usage) -> str:
    """Returns the help of a command."""
    free = [f"[{name.upper()}]" for name in usage.positional]
    rows = {f"--{name}=": text for name, text in usage.flags.items()}
    if "config" in usage.flags:
        rows["--config.KEY="] = "another value of a key, e.g. --config.train.epochs=2"
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
    """Sets the keys that `--config.KEY=VALUE` names, with their types checked.

    Returns:
      The config, and the words that are no overrides.

    Raises:
      InputError: an unknown key, or a value of another type.
    """
    _refuse_unknown_keys(config, words)
    argv = ["emojax", *_last_of_each(words)]
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    try:
        given = config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        _, *left = values(argv)
    except Exception as error:  # a value goes through Python's own parser, which raises many types
        said = error if str(error).strip() else f"{type(error).__name__} in {shlex.join(words)}"
        raise InputError("flags", said, "a value of the key's type") from None
    return given.value, left


def _last_of_each(words: Sequence[str]) -> list[str]:
    """Drops overrides that a later one of the same key replaces; else tuples would be joined."""
    keys = [word.partition("=")[0].lstrip("-") if OVERRIDE.match(word) else "" for word in words]
    later = [key and key in keys[i:] for i, key in enumerate(keys, 1)]
    return [word for word, again in zip(words, later, strict=True) if "=" not in word or not again]


def _refuse_unknown_keys(config: ConfigDict, words: Sequence[str]) -> None:
    for word in filter(OVERRIDE.match, words):
        path, node = word.partition("=")[0].partition("config.")[2], config
        for key in re.match(r"[\w.]*", path)[0].split("."):
            if not isinstance(node, ConfigDict):
                break
            if key not in node:
                near = difflib.get_close_matches(key, list(node), 1)
                hint = f'. Did you mean "{near[0]}"?' if near else f": {', '.join(node)}"
                raise InputError("flags", f"unknown key {path}", f"a key of the config{hint}")
            node = node[key]


def load_config(name: str) -> ConfigDict:
    """Loads a config.

    Args:
      name: path of a config file, or the name of one that is shipped ("expA"); ":variant" may
        follow.

    Raises:
      InputError: there is no such file, it cannot be executed, or it returns something else.
    """
    file, *variant = name.split(":", 1)
    shipped = sorted(path.stem for path in CONFIGS.glob("*.py") if not path.stem.startswith("_"))
    shipped_only = pathlib.Path(file).name == file and not file.endswith(".py")
    path = CONFIGS / f"{file}.py" if shipped_only else pathlib.Path(file)
    if not os.path.isfile(path):
        found = f"{file!r} ({'a folder' if os.path.isdir(path) else 'No such file or directory'})"
        names = ", ".join(known for known in shipped if known != "common")
        raise InputError("config", found, f"the path of a .py file, or one of {names}")
    try:
        if shipped_only:
            _own_configs()
        config = _execute("config_config", path).get_config(*variant)
    except (Exception, SystemExit) as error:  # a user's program: whatever fails in it is input
        raise InputError(name, _describe(error, path), "a config that loads") from None
    if not isinstance(config, ConfigDict) or not isinstance(config.get("experiment"), str):
        found = "a get_config() without a ConfigDict that has the key `experiment`, a text"
        raise InputError(name, found, "a config that loads")
    return config.lock()


def _describe(error: BaseException, path: pathlib.Path) -> str:
    """Returns what failed in a config file, and in which of its lines."""
    said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    lines = traceback.extract_tb(error.__traceback__)
    places = [(line.filename, line.lineno) for line in lines if line.filename == str(path)]
    if isinstance(error, SyntaxError) and error.lineno:
        said, places = f"{type(error).__name__}: {error.msg}", [(error.filename, error.lineno)]
    file, line = (places or [(str(path), None)])[-1]
    return f"{said} ({file}{f', line {line}' if line else ''})"


def _own_configs() -> None:
    """Makes `from configs import common` of a shipped config find the shipped folder.

    With `python -m emojax` the current folder comes first, and may have a package of that name.
    """
    path = CONFIGS / "__init__.py"
    if getattr(sys.modules.get("configs"), "__file__", None) != str(path):
        for name in [name for name in sys.modules if name.partition(".")[0] == "configs"]:
            del sys.modules[name]
        sys.modules["configs"] = _execute("configs", path, [str(CONFIGS)])


def _execute(name: str, path: pathlib.Path, folders: list[str] | None = None) -> ModuleType:
    """Imports a file as a module of that name; a package, if it has folders to look into."""
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(
        name, path, loader=loader, submodule_search_locations=folders
    )
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
