"""The picture of experiments A and B, written as SVG: `python docs/tools/pipelines.py`."""

import pathlib
from html import escape
from typing import NamedTuple

FILE = pathlib.Path(__file__).resolve().parents[1] / "pipelines.svg"
WIDTH, HEIGHT = 1080, 446
INK, SOFT, LINE = "#1f2933", "#52606d", "#9aa5b1"
DATA, A, B, OUT, RECORD = "#e6eef8", "#dff3ee", "#fdecd8", "#efe7f7", "#f1f3f5"
EDGES = {DATA: "#3f74b5", A: "#17806a", B: "#b8661a", OUT: "#7650a8", RECORD: "#8a94a0"}


class Box(NamedTuple):
    """A box with a title and lines of small print."""

    x: int
    y: int
    w: int
    h: int
    fill: str
    title: str
    lines: tuple[str, ...] = ()


BOXES = (
    Box(
        24,
        118,
        140,
        168,
        DATA,
        "study",
        ("volumes and events", "BIDS, SPM12, arrays,", "maps, simulated"),
    ),
    Box(212, 86, 118, 92, A, "mask", ("brain, or a region", "of each subject")),
    Box(354, 86, 118, 92, A, "voxels", ("300 by ANOVA F,", "training subjects")),
    Box(496, 86, 128, 92, A, "hyperalignment", ("Procrustes; new", "subject: other runs")),
    Box(648, 86, 150, 92, A, "classifier", ("bag of logistic", "regressions, 1D CNN")),
    Box(212, 252, 118, 92, B, "volume", ("whole, scaled;", "no alignment")),
    Box(
        354,
        252,
        270,
        92,
        B,
        "split",
        ("by subject, by run, or random (leaky):", "what is new in the test?"),
    ),
    Box(648, 252, 150, 92, B, "3D ResNet", ("and 1-NN, LDA, SVM", "on the same folds")),
    Box(
        850,
        86,
        206,
        92,
        OUT,
        "report",
        ("score, interval, chance, noise", "floor, class of protocol"),
    ),
    Box(850, 252, 206, 92, OUT, "decoder", ("one volume at the scanner", "to class probabilities")),
    Box(
        24,
        368,
        1032,
        56,
        RECORD,
        "Every step reads through a ledger; an audit replaces scored data and fits again",
        (
            "strict: nothing of the test subject    calibrated: its other runs    "
            "transductive: scored values    leaky: labels of scored runs",
        ),
    ),
)
ARROWS = (  # from x, y to x, y
    *(((330, y), (354, y)) for y in (132, 298)),
    *(((x, 132), (x + 24, 132)) for x in (472, 624)),
    ((624, 298), (648, 298)),
    ((164, 160), (212, 132)),
    ((164, 244), (212, 298)),
    ((798, 132), (850, 132)),
    ((798, 298), (850, 160)),
    ((953, 178), (953, 252)),
)
TITLES = (
    (212, 70, "A   one subject left out at a time", EDGES[A]),
    (212, 236, "B   one network, three definitions of unseen data", EDGES[B]),
)


def text(x: float, y: float, words: str, size: int, colour: str, weight: str = "400") -> str:
    """Returns a line of text, centred unless it is a title on the left."""
    anchor = "start" if weight == "600" else "middle"
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="{anchor}" xml:space="preserve">{escape(words)}</text>'
    )


def draw(box: Box) -> str:
    """Returns a box with its text in the middle."""
    x, y, w, h, fill, title, lines = box
    place = f'x="{x}" y="{y}" width="{w}" height="{h}"'
    out = [f'<rect {place} rx="8" fill="{fill}" stroke="{EDGES[fill]}"/>']
    top = y + h / 2 - 8.5 * len(lines) + 5
    out.append(text(x + w / 2, top, title, 14, INK, "700"))
    out += [text(x + w / 2, top + 18 + 17 * i, line, 12, SOFT) for i, line in enumerate(lines)]
    return "\n".join(out)


def arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    """Returns an arrow between two points."""
    points = f'x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}"'
    return f'<line {points} stroke="{INK}" stroke-width="1.4" marker-end="url(#head)"/>'


def svg() -> str:
    """Returns the whole picture on a light card, which reads on light and dark pages."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="Helvetica, Arial, DejaVu Sans, sans-serif" role="img">\n'
        "<title>Experiments A and B of emojax, from a study to a report and a decoder</title>\n"
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="{INK}"/></marker></defs>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="12" fill="#ffffff" stroke="{LINE}"/>\n'
        + text(
            24, 38, "emojax: from a study to a report, from the report to a decoder", 17, INK, "600"
        )
    )
    titles = [text(x, y, words, 14, colour, "600") for x, y, words, colour in TITLES]
    parts = [head, *titles, *(arrow(*ends) for ends in ARROWS), *map(draw, BOXES)]
    return "\n".join(parts) + "\n</svg>\n"


if __name__ == "__main__":
    FILE.write_text(svg())
