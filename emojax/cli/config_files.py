"""Config files: shipped ones, found by name, and a user's own, found by path."""

import importlib.machinery
import importlib.util
import os
import pathlib
import sys
import traceback
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from emojax import configs
from emojax.errors import InputError
from emojax.nearest import hint, nearest


def load_config(name: str) -> ConfigDict:
    """Loads a config.

    Args:
      name: path of a config file, or the name of a shipped one ("expA"); ":variant" may follow.

    Raises:
      InputError: there is no such file or variant, the file cannot be executed, or it does not
        return a config.
    """
    variant, module = name.split(":", 1)[1:], load_module(name)
    check_variant(name, module)
    try:
        config = module.get_config(*variant)
    except (Exception, SystemExit) as error:  # a user's code: every failure is an input error
        said = _describe(error, module.__file__ or name)
        raise InputError(name, said, "a config that loads") from None
    if not isinstance(config, ConfigDict) or not isinstance(config.get("experiment"), str):
        found = "a get_config() that returns no ConfigDict with a text as key `experiment`"
        raise InputError(name, found, "a config that loads")
    return config.lock()


def variants(module: ModuleType) -> dict[str, Any]:
    """Returns variant -> function of a config file; {} if it has no table `VARIANTS`."""
    found = getattr(module, "VARIANTS", None)
    if not isinstance(found, Mapping):
        return {}
    return {variant: made for variant, made in found.items() if isinstance(variant, str)}


def check_variant(name: str, module: ModuleType) -> None:
    """Rejects a variant that is not in the config file's table `VARIANTS`.

    Args:
      name: as for `load_config`.
      module: the config file.

    Raises:
      InputError: there is no such variant.
    """
    file, *variant = name.split(":", 1)
    if variant and isinstance(getattr(module, "VARIANTS", None), Mapping):
        known = [each for each in variants(module) if each]
        if variant[0] not in variants(module):
            found = f"unknown variant {variant[0]!r}{hint(variant[0], known)}"
            wanted = ", ".join(f"{file}:{each}" for each in known)
            raise InputError(name, found, f"{file}, or one of {wanted}" if known else file)


def load_module(name: str) -> ModuleType:
    """Imports a config file.

    Args:
      name: as for `load_config`; the variant is ignored.

    Raises:
      InputError: there is no such file, or it cannot be executed.
    """
    file = name.split(":", 1)[0]
    is_path = pathlib.Path(file).name != file or file.endswith(".py")
    if not is_path and file in shipped():
        return importlib.import_module(f"emojax.configs.{file}")
    if not is_path or not os.path.isfile(file):
        near = nearest(pathlib.Path(file).stem, shipped())
        why = "a folder" if os.path.isdir(file) else "No such file or directory"
        found = f"{file!r} ({why}{f'; did you mean {near!r}?' if near else ''})"
        raise InputError(
            "config", found, f"the path of a .py file, or one of {', '.join(shipped())}"
        )
    try:
        _lend_configs()
        return _execute("config_config", pathlib.Path(file))
    except (Exception, SystemExit) as error:  # a user's code: every failure is an input error
        raise InputError(name, _describe(error, file), "a config that loads") from None


def shipped() -> list[str]:
    """Returns the names of the shipped configs."""
    found = [path.stem for path in pathlib.Path(configs.__path__[0]).glob("*.py")]
    return sorted(name for name in found if name != "common" and not name.startswith("_"))


def _describe(error: BaseException, path: str) -> str:
    """Returns the error in a config file, with its line."""
    said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    lines = traceback.extract_tb(error.__traceback__)
    places = [(line.filename, line.lineno) for line in lines if line.filename == path]
    if isinstance(error, SyntaxError) and error.lineno:
        said, places = f"{type(error).__name__}: {error.msg}", [(error.filename, error.lineno)]
    file, line = (places or [(path, None)])[-1]
    return f"{said} ({file}{f', line {line}' if line else ''})"


def _lend_configs() -> None:
    """Makes `from configs import common` in a user's file find the shipped configs.

    A package of that name beside the file or in the current folder takes precedence.
    """
    if "configs" in sys.modules:
        return
    spec = importlib.util.find_spec("configs")
    if spec is None or spec.origin is None:  # no package, or a folder without __init__.py
        module = ModuleType("configs", configs.__doc__)
        theirs = spec.submodule_search_locations if spec else None
        module.__path__ = [*(theirs or ()), *configs.__path__]
        sys.modules["configs"] = module


def _execute(name: str, path: pathlib.Path) -> ModuleType:
    """Imports a file as a module of the given name."""
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None  # None only without a loader
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
