"""Tables as lines of text that are never wider than the terminal."""

from collections.abc import Sequence

from rich.cells import cell_len, chop_cells

from emojax.report.tables import number_like

GAP = 1  # blanks between columns; one more behind the first
NARROWEST = 16  # a first column that would be narrower turns rows into paragraphs
INDENT = 2  # of a paragraph, behind its first line


def lay_out(
    header: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> tuple[list[str], list[str]]:
    """Returns the lines of the header and of the rows, with every cell whole.

    Names in the first column are wrapped where the table is too wide. Where not even that is
    enough, each row becomes a paragraph: its name, then "column value" one after the other.

    Args:
      header: name of each column.
      rows: cells of each row.
      width: largest number of characters in a line.
    """
    header = [clean(name) for name in header]
    rows = [[clean(cell) for cell in row] for row in rows]
    columns = [[row[i] for row in rows] for i in range(len(header))]
    for lines in (1, 2, len(" ".join(header))):  # of the header: as few as the width allows
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
    """Returns a text in at most `lines` lines, as narrow as its words allow."""
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
    """Returns a row as a name and a list of what its other cells say."""
    said = [
        f"{name} {cell}".strip() for name, cell in zip(header[1:], cells[1:], strict=True) if cell
    ]
    items = wrap_items([item + "," for item in said[:-1]] + said[-1:], width - INDENT)
    return [*wrap(cells[0], width), *(" " * INDENT + line for line in items)]


def wrap_items(items: Sequence[str], width: int) -> list[str]:
    """Returns texts one after the other, each whole on a line where a line is wide enough."""
    lines: list[str] = []
    for item in items:
        joined = f"{lines[-1]} {item}" if lines else item
        if lines and cell_len(joined) <= width:
            lines[-1] = joined
        else:
            lines += wrap(item, width)
    return lines


def wrap(text: str, width: int) -> list[str]:
    """Returns a text in lines of at most `width` cells, broken at blanks where that is possible."""
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
    """Returns a text without characters that could move the cursor or colour the terminal."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in str(text))
