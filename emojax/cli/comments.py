"""The comments of config keys, read from the functions that set the keys.

    read(expA.demo)  ->  {"train.lr": "...", ...}

The reader understands the ways in which the shipped configs set keys: `config.train.lr = 1e-3`,
several at once, `config.train.update(lr=1e-3)`, dicts, and functions that take the config or a
section of it. A key's comment is on the same line, or else on the lines above.
"""

import ast
import functools
import io
import os
import tokenize
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType
from typing import Any

Comments = dict[str, str]  # dotted key -> comment


def read(function: Callable[..., Any], at: str = "") -> Comments:
    """Returns the comments of the keys that a function sets.

    Args:
      function: function of a config; its first argument, or its return value, is the config.
      at: dotted name of the section that the function takes, with a trailing dot.
    """
    source = _source(os.path.abspath(function.__code__.co_filename))
    node = source.functions.get(function.__name__)
    if node is None:
        return {}
    reader = _Reader(source, function.__globals__)
    reader.read(node, at)
    return {key: text for key, text in reader.found.items() if text}


class _Source:
    """A parsed file: its functions, and the comments of its lines."""

    def __init__(self, path: str):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        nodes = ast.parse(text).body
        self.functions = {n.name: n for n in nodes if isinstance(n, ast.FunctionDef)}
        self.behind: dict[int, str] = {}  # line -> comment after code
        self.above: dict[int, str] = {}  # line -> comment on a line of its own
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                alone = not token.line[: token.start[1]].strip()
                (self.above if alone else self.behind)[token.start[0]] = token.string[1:].strip()

    def comment(self, node: ast.stmt) -> str:
        """Returns the comment on the lines of a statement, or else the one above it."""
        lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        if found := " ".join(self.behind[line] for line in lines if line in self.behind):
            return found
        first = node.lineno
        while first - 1 in self.above:
            first -= 1
        return " ".join(self.above[line] for line in range(first, node.lineno))


_source = functools.cache(_Source)


class _Reader:
    """A reader of functions that set keys."""

    def __init__(self, source: _Source, names: Mapping[str, Any]):
        self.source, self.names = source, names
        self.found: Comments = {}

    def read(self, function: ast.FunctionDef, at: str) -> None:
        """Reads the statements of a function for a section of the config."""
        parts = {each.arg: at for each in function.args.args[:1]}  # local name -> section
        for node in _statements(function.body):
            if isinstance(node, ast.Assign):
                self._assign(node, parts, at)
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                self._call(node.value, parts)

    def _assign(self, node: ast.Assign, parts: dict[str, str], at: str) -> None:
        value = node.value
        for target in _targets(node.targets):
            if isinstance(target, ast.Name) and isinstance(value, ast.Call):
                parts[target.id] = at
                continue
            if (key := _key(target, parts)) is None:
                continue
            if isinstance(value, ast.Call):
                self._enter(value, key + ".")
                self._items(value, key + ".")
            self._add(key, self.source.comment(node))

    def _call(self, call: ast.Call, parts: Mapping[str, str]) -> None:
        """Reads `section.update(...)`, or a function that is called with a section."""
        if isinstance(call.func, ast.Attribute) and call.func.attr == "update":
            if (key := _key(call.func.value, parts)) is not None:
                self._items(call, key + "." if key else "")
        elif call.args and (key := _key(call.args[0], parts)) is not None:
            self._enter(call, key + "." if key else "")

    def _items(self, call: ast.Call, at: str) -> None:
        """Adds the keys of dict literals and keyword arguments."""
        for keyword in call.keywords:
            if keyword.arg:
                self._add(at + keyword.arg, self.source.behind.get(keyword.value.lineno, ""))
        for literal in (each for each in call.args if isinstance(each, ast.Dict)):
            for key, value in zip(literal.keys, literal.values, strict=True):
                if isinstance(key, ast.Constant):
                    comment = self.source.behind.get(value.end_lineno or value.lineno, "")
                    self._add(f"{at}{key.value}", comment)

    def _enter(self, call: ast.Call, at: str) -> None:
        function = self._resolve(call.func)
        if isinstance(function, FunctionType):
            for key, comment in read(function, at).items():
                self._add(key, comment)

    def _resolve(self, node: ast.expr) -> Any:
        """Returns the object that `name` or `module.name` refers to, or None."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return getattr(self.names.get(node.value.id), node.attr, None)
        return None

    def _add(self, key: str, comment: str) -> None:
        if comment or key not in self.found:
            self.found[key] = comment


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yields statements in order, including those of inner blocks."""
    for node in body:
        yield node
        for inner in ("body", "orelse"):
            yield from _statements(getattr(node, inner, []))


def _targets(targets: list[ast.expr]) -> Iterator[ast.expr]:
    for target in targets:
        yield from target.elts if isinstance(target, ast.Tuple) else (target,)


def _key(node: ast.expr, parts: Mapping[str, str]) -> str | None:
    """Returns the dotted key of `config.a.b`; "" for the whole config, None for other nodes."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in parts:
        return None
    return (parts[node.id] + ".".join(reversed(names))).rstrip(".")
