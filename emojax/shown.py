"""Short descriptions of large objects, for a prompt and for a notebook."""

import html
from collections.abc import Iterable, Sequence
from typing import Any

Facts = Sequence[tuple[str, Any]]  # (name, value), one line each
MOST = 6  # maximum number of names shown of a list


def text(title: str, facts: Facts) -> str:
    """Returns a title and a line for each fact."""
    width = max((len(name) for name, _ in facts), default=0)
    return "\n".join([title, *(f"  {name:{width}}  {value}" for name, value in facts)])


def page(title: str, facts: Facts) -> str:
    """Returns a title and facts as a small HTML table, escaped."""
    cells = (
        f'<tr><th style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(str(value))}</td></tr>'
        for name, value in facts
    )
    return f"<b>{html.escape(title)}</b><table>{''.join(cells)}</table>"


def some(names: Iterable[Any]) -> str:
    """Returns comma-separated names; if there are many, their number and the first ones."""
    names = [str(name) for name in names]
    if len(names) <= MOST:
        return ", ".join(names)
    return f"{len(names)}: {', '.join(names[:MOST])}, ..."


def size(shape: Iterable[int]) -> str:
    """Returns a shape as "16 x 16 x 12"."""
    return " x ".join(map(str, shape))
