"""The places in the code that raise `InputError`, and the families that docs/errors.md explains."""

import ast
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "emojax"
ANY = "…"  # a part of a message that is known only when it is raised
MOST = 3  # texts of one variable that a row shows

FAMILIES = {  # section of docs/errors.md -> modules, or packages, below emojax
    "command": ("cli", "registry"),
    "settings": (
        *("experiments/settings", "experiments/base", "experiments/experiment_a"),
        *("experiments/experiment_b", "experiments/programs", "experiments/sweeps"),
        *("experiments/plans", "experiments/choice", "experiments/dtypes", "splits"),
    ),
    "workdir": (
        *("training/ownership", "training/checkpoint", "training/generations", "locks"),
        *("training/claims", "data/identity", "report/schema", "experiments/skeleton"),
    ),
    "training": ("training", "models", "tracking", "report", "experiments/fits", "scoring"),
    "bids": (
        *("sources/bids", "sources/bids_names", "sources/inheritance", "sources/participants"),
        *("sources/raw", "sources/timing", "sources/versions"),
    ),
    "sources": ("sources", "data/matlab", "data/matlab5", "data/belonging"),
    "events": ("data/events", "data/label_map", "data/labels", "data/windows"),
    "images": (
        *("data/archives", "data/copies", "data/gunzip", "data/hashes", "data/image"),
        *("data/kept", "data/nifti", "data/paths", "data/roi", "data/store", "data/tables"),
        *("data/cohort", "data/grid"),
    ),
    "cleaning": (
        *("data/causal", "data/causal_settings", "data/cleaning", "data/confounds"),
        *("data/motion", "data/scrubbing", "data/smoothing"),
    ),
    "features": ("features",),
    "analyses": ("experiments",),
    "export": ("experiments/exports",),
    "decoder": ("decoder",),
    "calibration": ("decoder/calibration", "decoder/localizer", "decoder/personal"),
    "scanner": ("online",),
    "dicom": ("online/dicom",),
    "feedback": ("online/allocation", "online/feedback"),
    "simulator": ("online/simulate",),
    "cluster": ("cluster",),
    "datasets": ("datasets",),
    "bids-app": ("bids_app",),
    "bench": ("side_by_side", "sklearn"),
}


class Site(NamedTuple):
    """A place that raises `InputError`, with what is constant of its line."""

    module: str  # path below emojax without .py
    line: int
    where: str
    found: str
    expected: str


def sites(package: pathlib.Path = PACKAGE) -> list[Site]:
    """Returns every place that makes an `InputError`, in the order of modules and lines."""
    found = _texts(package, "InputError")
    return [Site(at, line, *texts[:3], *[ANY] * (3 - len(texts))) for at, line, texts in found]


def leaks(package: pathlib.Path = PACKAGE) -> str:
    """Returns the lines of `LeakageError` as a Markdown table, equal ones once."""
    lines = {texts[0] for _, _, texts in _texts(package, "LeakageError") if texts[0] != ANY}
    return "| line |\n|---|\n" + "\n".join(f"| {_cell(line)} |" for line in sorted(lines))


def _texts(package: pathlib.Path, name: str) -> Iterator[tuple[str, int, list[str]]]:
    """Yields module, line and arguments of every call of an exception of a name."""
    trees = {
        path.relative_to(package).with_suffix("").as_posix(): ast.parse(path.read_text())
        for path in sorted(package.rglob("*.py"))
    }
    constants = {
        (module.rpartition("/")[2], constant): value
        for module, tree in trees.items()
        for constant, value in _assigned(tree.body)
    }
    for module, tree in trees.items():
        own = {constant: [value] for constant, value in _assigned(tree.body)}
        for call, scope in _calls(tree, name):
            names = own | _nearest(_before(scope, call.lineno))
            parts = [part for part in call.args if not isinstance(part, ast.Starred)]
            yield module, call.lineno, [_text(part, names, constants) for part in parts]


def family(module: str) -> str | None:
    """Returns the family whose longest entry holds a module, None where none does."""
    fits = [
        (len(entry), name)
        for name, entries in FAMILIES.items()
        for entry in entries
        if module == entry or module.startswith(f"{entry}/")
    ]
    return max(fits)[1] if fits else None


def table(name: str, found: list[Site]) -> str:
    """Returns the messages of a family as a Markdown table, equal ones once."""
    rows = dict.fromkeys(site[2:] for site in found if family(site.module) == name)
    head = "| where | found | expected |\n|---|---|---|\n"
    return head + "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in sorted(rows))


def _cell(text: str) -> str:
    """Returns a text as a cell: nothing in it is Markdown or HTML."""
    for sign in "\\|<>*_[]`$":
        text = text.replace(sign, f"&#{ord(sign)};")
    return " ".join(text.split())


def _calls(
    tree: ast.AST, name: str, scope: ast.AST | None = None
) -> Iterator[tuple[ast.Call, ast.AST | None]]:
    """Yields calls of a name, each with the function around it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == name:
            yield node, scope
        inner = node if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else scope
        yield from _calls(node, name, inner)


def _assigned(nodes: list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    """Yields the names that statements assign, with the values."""
    for node in nodes:
        targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(value, ast.expr):
                yield target.id, value
            elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = zip(target.elts, value.elts, strict=False)
                yield from ((name.id, each) for name, each in pairs if isinstance(name, ast.Name))


def _before(scope: ast.AST | None, line: int) -> list[ast.stmt]:
    """Returns the statements of a function that begin above a line, in order."""
    body = ast.walk(scope) if scope is not None else ()
    above = [node for node in body if isinstance(node, ast.stmt) and node.lineno < line]
    return sorted(above, key=lambda node: node.lineno)


def _nearest(above: list[ast.stmt]) -> dict[str, list[ast.expr]]:
    """Returns what each name is since the last raise, or was last before it."""
    out: dict[str, list[ast.expr]] = {}
    stale: set[str] = set()
    for node in above:
        if isinstance(node, ast.Raise):
            stale = set(out)
        for name, value in _assigned([node]):
            out[name] = [value] if name in stale else [*out.get(name, ()), value]
            stale.discard(name)
    return out


def _text(
    node: ast.expr,
    names: Mapping[str, list[ast.expr]],
    constants: Mapping[tuple[str, str], ast.expr],
    depth: int = 3,
) -> str:
    """Returns what is constant of an expression, with an ellipsis for the rest.

    Args:
      node: argument of `InputError`.
      names: variable -> what the function, or else its module, assigns to it above.
      constants: (module, name) -> value of a module's constant.
      depth: number of names that may still be followed.
    """

    def inner(part: ast.expr, depth: int = depth) -> str:
        return _text(part, names, constants, depth)

    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "one_line":
        return inner(node.args[0])
    if isinstance(node, ast.JoinedStr):
        return re.sub(f"{ANY}+", ANY, "".join(map(inner, node.values)))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return inner(node.left) + inner(node.right)
    if isinstance(node, ast.IfExp):
        return _either([inner(node.body), inner(node.orelse)])
    if depth and isinstance(node, ast.Name):
        return _either([inner(value, depth - 1) for value in names.get(node.id, ())])
    if depth and isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        value = constants.get((node.value.id, node.attr))
        return ANY if value is None else inner(value, depth - 1)
    return ANY


def _either(texts: list[str]) -> str:
    """Returns alternatives in one text."""
    kept = list(dict.fromkeys(text for text in texts if text.strip(f"{ANY} ")))
    return " / ".join(kept[:MOST]) or ANY
