"""Everything that an estimator can reach: attributes, closures, defaults, globals of its code.

Scikit-learn passes only the training rows to `fit`. A step must reach anything else it knows in
another way: as an attribute, through a function, or in the module or class of its code.
"""

import functools
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

import joblib
import numpy as np
import pandas as pd
from scipy import sparse

LIBRARIES = {
    *sys.stdlib_module_names,
    *("sklearn", "numpy", "scipy", "pandas", "joblib", "threadpoolctl", "emojax", "imblearn"),
    *("jax", "jaxlib", "flax", "optax", "nilearn", "nibabel", "xgboost", "lightgbm", "torch"),
} - {"__main__"}
DEEPEST = 12
COUNTED = {"n_features_in_", "feature_names_in_", "classes_", "n_iter_", "n_outputs_"}
PLAIN = (str, int, float, complex, bool, type(None), np.generic, type(Ellipsis))


def is_library(thing: Any) -> bool:
    """Returns whether a class, function or object comes from a library, not from the user."""
    module = getattr(thing, "__module__", None) or getattr(type(thing), "__module__", "")
    return str(module).partition(".")[0] in LIBRARIES


def is_estimator(value: Any) -> bool:
    """Returns whether a value is an estimator of scikit-learn."""
    return hasattr(value, "fit") and hasattr(value, "get_params") and not isinstance(value, type)


def state_of(estimator: Any) -> dict[str, Any]:
    """Returns what an estimator has learned: attributes that are not parameters."""
    own = set(estimator.get_params(deep=False)) | COUNTED
    return {name: value for name, value in vars(estimator).items() if name not in own}


def is_fitted(estimator: Any) -> bool:
    """Returns whether an estimator has learned anything, by the names of its attributes."""
    return any(name.endswith("_") and not name.startswith("_") for name in state_of(estimator))


def fingerprint(value: Any) -> str | None:
    """Returns a hash of a value's content; None if it cannot be compared."""
    try:
        return joblib.hash(value)
    except Exception:  # values that cannot be pickled: a lambda, an open file, a lock
        return None


def contents_of(value: Any) -> dict[str, str | None] | None:
    """Returns hashes of the data in a shared object; None for values without shared data.

    Data are the items of a container, attributes of a user's object or class, and the closure,
    defaults, attributes and globals of a user's function.
    """
    if isinstance(value, types.FunctionType):
        items = None if is_library(value) else dict(_of_function(value))
    elif isinstance(value, type):
        items = None if is_library(value) else dict(vars(value))
    elif isinstance(value, dict | list | set | np.ndarray):
        return {"": fingerprint(value)}
    else:
        is_own = hasattr(value, "__dict__") and not callable(value) and not is_library(value)
        items = dict(vars(value)) if is_own else None
    if items is None:
        return None
    return {
        name: fingerprint(own)
        for name, own in items.items()
        if not name.startswith("__") and not callable(own) and not isinstance(own, types.ModuleType)
    }


def walk(root: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (path, value) for everything that an estimator can reach, each object once.

    The path begins with the names of the steps that lead there. The code of libraries is not
    searched, but their objects are.
    """
    seen: dict[int, Any] = {}  # holds the objects, as ids of freed ones are reused
    stack: list[tuple[str, Any, int]] = [(name, root, 0)]
    while stack:
        path, value, depth = stack.pop()
        if isinstance(value, PLAIN) or id(value) in seen or depth > DEEPEST:
            continue
        seen[id(value)] = value
        yield path, value
        if isinstance(value, np.ndarray | pd.DataFrame | pd.Series) or sparse.issparse(value):
            continue
        found = [(_join(path, own), child, depth + 1) for own, child in _children(value)]
        stack.extend(reversed(found))


def _join(path: str, own: str) -> str:
    return f"{path}.{own}" if path and own else path or own


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    """Yields (name, value) for the children of a value."""
    if isinstance(value, Mapping):
        yield from ((str(key)[:40], own) for key, own in value.items())
        yield from (("key", key) for key in value)
    elif isinstance(value, list | tuple | set | frozenset):
        if len(value) and all(isinstance(own, PLAIN) for own in value):
            return
        for i, own in enumerate(value):
            if _is_step(own):  # (name, estimator) of a pipeline or column transformer
                yield own[0], own[1]
            else:
                yield str(i), own
    elif isinstance(value, functools.partial):
        yield from (("", value.func), ("args", value.args), ("keywords", value.keywords))
    elif isinstance(value, types.MethodType):
        yield from (("", value.__self__), (value.__name__, value.__func__))
    elif isinstance(value, types.FunctionType):
        yield from _of_function(value)
    elif isinstance(value, type):
        if not is_library(value):
            yield from _of_class(value)
    elif not isinstance(value, types.ModuleType):
        yield from _of_object(value)


def _is_step(value: Any) -> bool:
    is_pair = isinstance(value, tuple) and len(value) in (2, 3) and isinstance(value[0], str)
    return is_pair and (is_estimator(value[1]) or hasattr(value[1], "transform"))


def _of_object(value: Any) -> Iterator[tuple[str, Any]]:
    for name, own in getattr(value, "__dict__", {}).items():
        yield "" if name in ("steps", "transformers", "estimators") else name, own
    for kind in type(value).__mro__:
        if not is_library(kind):
            yield "", kind


def _of_class(kind: type) -> Iterator[tuple[str, Any]]:
    for name, own in vars(kind).items():
        own = own.__func__ if isinstance(own, staticmethod | classmethod) else own
        own = own.fget if isinstance(own, property) else own
        if not name.startswith("__") or isinstance(own, types.FunctionType):
            yield f"{kind.__name__}.{name}", own


def _of_function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Yields the closure, defaults and named globals of a user's function."""
    if is_library(function):
        return
    names, cells = function.__code__.co_freevars, function.__closure__ or ()
    for name, cell in zip(names, cells, strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # the cell is still empty
            continue
    defaults = function.__defaults__ or ()
    taken = function.__code__.co_varnames[: function.__code__.co_argcount]
    yield from zip(taken[len(taken) - len(defaults) :], defaults, strict=True)
    yield from (function.__kwdefaults__ or {}).items()
    yield from vars(function).items()
    named = _names(function.__code__)
    for name in sorted(named & function.__globals__.keys()):
        own = function.__globals__[name]
        if isinstance(own, types.ModuleType):
            if not is_library(types.SimpleNamespace(__module__=own.__name__)):
                yield from ((f"{name}.{part}", getattr(own, part)) for part in named & {*vars(own)})
        else:
            yield f"global {name}", own


def _names(code: types.CodeType) -> set[str]:
    """Returns the global names used in code and in its inner functions."""
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return {*code.co_names}.union(*map(_names, inner))
