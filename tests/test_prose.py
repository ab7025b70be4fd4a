"""The style of docstrings: functions open with a verb, classes and modules with a noun."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDERS = ("emojax", "configs", "benchmarks", "examples", "tests")
PATHS = [ROOT / "launch.py", *(p for f in FOLDERS for p in sorted((ROOT / f).rglob("*.py")))]
QUESTIONS = {"What", "Who", "Whose", "How", "Of", "Which", "Where", "Whether", "When", "Why", "As"}
# Phrases of an older style, which readers had to decode.
BANNED = ("so many", "and says so", "is no image", "of nobody", "for want of", "in sight")


def documented(path):
    """Yields the first line of every docstring, with its kind and line."""
    for node in ast.walk(ast.parse(path.read_text())):
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield node, text.splitlines()[0]


def is_property(node):
    """Returns whether a function is read like an attribute, and so described by a noun."""
    named = (ast.unparse(decorator) for decorator in node.decorator_list)
    return any(name.split("(")[0].split(".")[-1].endswith("property") for name in named)


def found(folder, is_bad):
    """Returns place and first line of the docstrings in a folder of which `is_bad` is true."""
    return [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}: {line}"
        for path in PATHS
        if path.relative_to(ROOT).parts[0] == folder
        for node, line in documented(path)
        if is_bad(node, line)
    ]


@pytest.mark.parametrize("folder", ["launch.py", *FOLDERS])
def test_no_docstring_opens_with_a_question_word(folder):
    bad = found(folder, lambda node, line: re.match(r"\w*", line).group() in QUESTIONS)
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize("folder", ["emojax", "configs", "benchmarks", "examples"])
def test_functions_open_with_a_verb(folder):
    def lacks_verb(node, line):
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        has_verb = re.match(r"[A-Z][a-z]+(-[a-z]+)?s\b", line)
        return is_function and not is_property(node) and not has_verb

    bad = found(folder, lacks_verb)
    assert not bad, "\n".join(bad)


def test_phrases_that_have_to_be_decoded():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    bad = [
        f"{path.relative_to(ROOT)}: {phrase}"
        for path in [*PATHS, *pages]
        if path != pathlib.Path(__file__).resolve()
        for phrase in BANNED
        if phrase in path.read_text()
    ]
    assert not bad, "\n".join(bad)
