"""An extension of griffe, which reads the code for the API pages: shapes and trailing comments."""

import ast
import re

import griffe

SHAPE = re.compile(r"'[^']*[*.][^']*'")  # of jaxtyping, which looks like an expression
COMMENT = re.compile(r"  # (.*)$")


class Shapes(griffe.Extension):
    """Keeps jaxtyping's shapes as they are written, and shows the comment behind a field."""

    def on_function_instance(self, *, node, func, **_) -> None:
        """Takes annotations with such a shape from the code."""
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return
        given = node.args
        for each in (*given.posonlyargs, *given.args, *given.kwonlyargs):
            if (text := _annotation(each.annotation)) and each.arg in func.parameters:
                func.parameters[each.arg].annotation = text
        func.returns = _annotation(node.returns) or func.returns

    def on_attribute_instance(self, *, node, attr, **_) -> None:
        """Documents a field or constant by the comment behind it."""
        if isinstance(node, ast.AnnAssign):
            attr.annotation = _annotation(node.annotation) or attr.annotation
        if attr.docstring is None and isinstance(node, ast.stmt):
            line = attr.lines_collection[attr.filepath][node.lineno - 1]
            if found := COMMENT.search(line):
                attr.docstring = griffe.Docstring(found[1], parent=attr)


def _annotation(node: ast.expr | None) -> str:
    """Returns an annotation with a shape as text, "" if griffe reads it well."""
    text = "" if node is None else ast.unparse(node)
    return text.replace("'", '"') if SHAPE.search(text) else ""
