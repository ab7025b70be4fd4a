"""Pages of the documentation, and the generated blocks in them.

A block stands between two lines of their own:

    <!-- numbers: NAME -->
    ...
    <!-- end -->

NAME is a key of `TABLES`. A table with decimal numbers that is not generated follows the line
`<!-- not measured: REASON -->`.
"""

import pathlib
import re
from collections.abc import Callable, Iterator

from benchmarks.tables import claims, core, kernels, methods, scale, speed, studies
from benchmarks.tables.stored import Stored

ROOT = pathlib.Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^<!-- numbers: (\w+) -->\n(.*?)^<!-- end -->$", re.MULTILINE | re.DOTALL)
OPENING = re.compile(r"^<!-- numbers:", re.MULTILINE)
MODULES = (core, kernels, methods, scale, speed, studies)
NAMES = (
    *("demo", "demo_short", "demo_b", "studies", "alignments_emotions", "alignments_demo"),
    *("cnn1d", "resnet3d", "latency", "latency_peers", "realtime", "realtime_day", "io"),
    *("startup", "first_volume", "core_hyperalignment", "core_anova"),
    *("speed_alignment", "speed_searchlight", "paper_settings", "recipes_b", "maps_planted"),
    *("onednn", "onednn_layers", "roofline_step"),
    *("evidence_volumes", "evidence_tests", "decoder_corrected", "decoder_marked"),
    *("decoder_clean", "decoder_calibration"),
    *("scale_bytes", "scale_feed", "scale_epochs", "scale_features"),
)
TABLES: dict[str, Callable[[Stored], list[str]]] = {
    name: next(getattr(own, name) for own in MODULES if hasattr(own, name)) for name in NAMES
}


def paths(root: pathlib.Path = ROOT) -> list[pathlib.Path]:
    """Returns the README and every page of docs/."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def rendered(text: str, stored: Stored) -> tuple[str, list[str]]:
    """Returns a page with its numbers as stored, and the names of what has changed.

    Raises:
      ValueError: a block has no end, or a name that is no table.
    """
    changed: list[str] = []

    def block(found: re.Match[str]) -> str:
        name = found[1]
        if name not in TABLES:
            raise ValueError(f"no table {name!r}; expected one of: {', '.join(TABLES)}")
        lines = "\n".join(TABLES[name](stored))
        new = f"<!-- numbers: {name} -->\n\n{lines}\n\n<!-- end -->"
        if new != found[0]:
            changed.append(name)
        return new

    if len(OPENING.findall(text)) != len(BLOCK.findall(text)):
        raise ValueError("a block of numbers has no line <!-- end -->")
    text = BLOCK.sub(block, text)
    text, sentences = claims.rendered(text, stored)
    return text, changed + sentences


def outdated(
    stored: Stored, root: pathlib.Path = ROOT
) -> Iterator[tuple[pathlib.Path, str, list[str]]]:
    """Yields pages whose numbers differ from the stored ones: path, new text, what differs."""
    for path in paths(root):
        try:
            text, changed = rendered(path.read_text(), stored)
        except ValueError as error:
            raise ValueError(f"{path.relative_to(root)}: {error}") from error
        if changed:
            yield path, text, changed
