"""Tables as lines of text no wider than the terminal."""

from collections.abc import Sequence

from rich.cells import cell_len, chop_cells

from emojax.report.cells import number_like

GAP = 1  # blanks between columns; one more after the first column
NARROWEST = 16  # if the first column would be narrower, rows become paragraphs
INDENT = 2  # blanks before the lines of a paragraph, apart from its first


def lay_out(
    header: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> tuple[list[str], list[str]]:
    """Returns the lines of the header and of the rows; no cell is cut off.

    Names in the first column are wrapped if the table is too wide. If that is not enough, each row
    becomes a paragraph: its name, followed by "column value" for each cell.

    Args:
      header: name of each column.
      rows: cells of each row.
      width: maximum number of characters in a line.
    """
    header = [clean(name) for name in header]
    rows = [[clean(cell) for cell in row] for row in rows]
    columns = [[row[i] for row in rows] for i in range(len(header))]
    for lines in (1, 2, len(" ".join(header))):  # of the header; as few as the width allows
        widths = [
            max(map(cell_len, (*wrap_to(name, lines), *cells)), default=0)
            for name, cells in zip(header, columns, strict=True)
        ]
        room = width - sum(widths[1:]) - GAP * len(widths)
        if room >= widths[0]:
            break
    if room < min(widths[0], NARROWEST):
        return [], [line for row in rows for line in _paragraph(header, row, width)]
    widths[0] = min(widths[0], room)
    right = [i > 0 and all(map(number_like, cells)) for i, cells in enumerate(columns)]
    body = [line for row in rows for line in _line(row, widths, right)]
    return _line(header, widths, right, bottom=True), body


def wrap_to(text: str, lines: int) -> list[str]:
    """Wraps a text into at most `lines` lines, as narrow as its words allow."""
    narrowest = max(map(cell_len, text.split()), default=1)
    width = next(w for w in range(narrowest, cell_len(text) + 2) if len(wrap(text, w)) <= lines)
    return wrap(text, width)


def _line(cells: Sequence[str], widths, right, bottom: bool = False) -> list[str]:
    """Returns one row of cells, wrapped to the widths of their columns."""
    wrapped = [wrap(cell, width) for cell, width in zip(cells, widths, strict=True)]
    height = max(map(len, wrapped))
    padded = [
        [""] * (height - len(c)) + c if bottom else c + [""] * (height - len(c)) for c in wrapped
    ]
    lines = []
    for parts in zip(*padded, strict=True):
        blanks = [" " * (width - cell_len(part)) for part, width in zip(parts, widths, strict=True)]
        texts = [b + p if r else p + b for p, b, r in zip(parts, blanks, right, strict=True)]
        first = texts[0] + " " * (len(texts) > 1)
        lines.append((" " * GAP).join([first, *texts[1:]]).rstrip())
    return lines


def _paragraph(header: Sequence[str], cells: Sequence[str], width: int) -> list[str]:
    """Returns the lines of a row as its name, followed by its other cells."""
    said = [
        f"{name} {cell}".strip() for name, cell in zip(header[1:], cells[1:], strict=True) if cell
    ]
    items = wrap_items([item + "," for item in said[:-1]] + said[-1:], width - INDENT)
    return [*wrap(cells[0], width), *(" " * INDENT + line for line in items)]


def wrap_items(items: Sequence[str], width: int) -> list[str]:
    """Joins texts into lines; a text is only broken if it is longer than a line.

    Args:
      items: texts in order.
      width: maximum number of characters in a line.
    """
    lines: list[str] = []
    for item in items:
        joined = f"{lines[-1]} {item}" if lines else item
        if lines and cell_len(joined) <= width:
            lines[-1] = joined
        else:
            lines += wrap(item, width)
    return lines


def wrap(text: str, width: int) -> list[str]:
    """Wraps a text into lines of at most `width` characters, at blanks if possible."""
    lines = [""]
    for word in text.split():
        for part in chop_cells(word, max(width, 2)):
            joined = f"{lines[-1]} {part}" if lines[-1] else part
            if cell_len(joined) <= width:
                lines[-1] = joined
            else:
                lines.append(part)
    return lines


def clean(text: object) -> str:
    """Removes characters that could move the cursor or colour the terminal."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in str(text))
