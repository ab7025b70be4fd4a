"""Pages of the site that are made from the code: API, command, settings, configs."""

import contextlib
import io
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]

MODULES = {  # page below reference/ -> modules of emojax whose docstrings it shows
    "alignment": ("alignment",),
    "anova": ("anova",),
    "bench": ("side_by_side",),
    "clusters": ("clusters",),
    "data": ("data.cohort", "data.run", "data.store", "sources", "sources.write_bids"),
    "decoder": ("decoder",),
    "experiments": ("experiments", "experiments.base", "report.schema", "experiments.noise"),
    "fusion": ("fusion",),
    "hyperalignment": ("hyperalignment",),
    "maps": ("maps",),
    "masking": ("masking",),
    "metrics": ("metrics",),
    "models": (
        *("models", "models.network", "models.cnn1d", "models.residual", "models.resnet3d"),
        "models.keras_import",
    ),
    "online": ("online.stepping", "online.correction", "online.dicom", "online.dicom.slices"),
    "paper": ("report.paper.methods", "report.paper.limits"),
    "piecewise": ("piecewise",),
    "plateau": ("plateau",),
    "procrustes": ("procrustes",),
    "provenance": ("provenance", "errors"),
    "resampling": ("resampling",),
    "scoring": ("scoring.baselines",),
    "searchlight": ("searchlight",),
    "sklearn": ("sklearn",),
    "splits": ("splits",),
    "statistics": ("statistics",),
    "synthetic": ("sources.synthetic",),
    "tracking": ("tracking",),
    "training": ("training", "training.steps"),
}
INCLUDED = {  # page below about/ -> file at the root
    "changelog": "CHANGELOG.md",
    "citing": "CITATION.cff",
    "contributing": "CONTRIBUTING.md",
    "security": "SECURITY.md",
}
LINK = re.compile(r"\[([^]]*)\]\((?!https?:|#|mailto:)([^)\s]+)\)")


def pages() -> dict[str, str]:
    """Returns path below docs/ -> Markdown of every generated page."""
    out = {f"reference/{name}.md": api(name, modules) for name, modules in MODULES.items()}
    out["reference/command.md"] = command()
    out["reference/keys.md"] = keys()
    out["reference/configs.md"] = configs()
    out["reference/examples.md"] = examples()
    there = {page: name for page, name in INCLUDED.items() if (ROOT / name).exists()}
    return out | {f"about/{page}.md": included(name) for page, name in there.items()}


def api(name: str, modules: tuple[str, ...]) -> str:
    """Returns the page of some modules, which mkdocstrings fills in."""
    if len(modules) == 1:
        title = "emojax.bench" if name == "bench" else f"emojax.{modules[0]}"
        shown = f"::: emojax.{modules[0]}\n    options:\n      heading_level: 1\n"
        return f"---\ntitle: {title}\n---\n\n{shown}"
    return "\n\n".join([f"# {name}", *(f"::: emojax.{module}" for module in modules)]) + "\n"


def command() -> str:
    """Returns the page of the command: its help, and that of each of its commands."""
    from emojax import cli

    parts = [
        "# The command `emojax`",
        "In a checkout, `python launch.py --mode=COMMAND --config=configs/NAME.py` calls the same "
        "functions; `run` is the default mode. Exit codes: 0; 2 for input that cannot be used "
        "(one line on stderr, see [errors](../errors.md)); 130 for Ctrl-C; 143 for other signals.",
        _fenced(_help(["emojax", "--help"])),
    ]
    for name, entry in cli.COMMANDS.items():
        parts += [f"## {name}", entry.about, _fenced(_help(["emojax", name, "--help"]))]
    return "\n\n".join(parts) + "\n"


def keys() -> str:
    """Returns the page of all config keys: defaults and comments of configs/common.py."""
    from emojax.cli import catalogue

    parts = {}
    for key in catalogue.default_keys():
        part = key.name.rpartition(".")[0]
        row = f"| `{key.name}` | {_code(key.values)} | {_cell(key.comment)} |"
        parts.setdefault(part, []).append(row)
    out = [
        "# Settings",
        "Every key of a config with its default, as `emojax keys` prints them. A command sets one "
        "with `--config.KEY=VALUE`. (A) and (B) mark defaults that differ between the experiments. "
        "[Where each setting comes from](../settings.md) gives the sources of the values.",
    ]
    for part, rows in parts.items():
        title = f"## `{part}`" if part else "## Keys of no part"
        out += [title, "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])]
    return "\n\n".join(out) + "\n"


def configs() -> str:
    """Returns the page of the shipped configs, as they are written."""
    out = [
        "# Shipped configs",
        "A config is a Python file that changes a few keys of `common`. `emojax run NAME:VARIANT` "
        "takes a name from this page; `emojax configs NAME` prints what one says about itself.",
    ]
    for path in sorted((ROOT / "configs").glob("*.py")):
        if path.stem != "__init__":
            out += [f"## {path.stem}", _fenced(path.read_text().rstrip(), "python")]
    return "\n\n".join(out) + "\n"


def examples() -> str:
    """Returns the page of the examples, as they are written."""
    out = ["# Examples", "Programs of the folder `examples/`; tests run them."]
    for path in sorted((ROOT / "examples").glob("*.py")):
        out += [f"## {path.stem}", _fenced(path.read_text().rstrip(), "python")]
    return "\n\n".join(out) + "\n"


def included(name: str) -> str:
    """Returns a document of the repository's root with its links to docs/ mended."""
    text = (ROOT / name).read_text()
    if name.endswith(".cff"):
        return f"# Citing emojax\n\n`{name}` at the root of the repository:\n\n" + _fenced(
            text.rstrip(), "yaml"
        )
    return LINK.sub(_from_about, text)


def _from_about(found: re.Match) -> str:
    """Returns a link of a root document for a page below about/; its text where no page is."""
    path, mark, anchor = found[2].partition("#")
    pages = {file: f"{page}.md" for page, file in INCLUDED.items()} | {"README.md": "../index.md"}
    shown = source(path)
    if path.startswith("docs/"):
        page = f"../{path.removeprefix('docs/')}"
    else:
        page = pages.get(path) or (f"../{shown}" if shown else "")
    return f"[{found[1]}]({page}{mark}{anchor})" if page else found[1]


def source(path: str) -> str | None:
    """Returns the page below docs/ that shows a source file, None if there is none."""
    folder, _, name = path.rpartition("/")
    if folder in ("configs", "examples"):
        return f"reference/{folder}.md#{name.removesuffix('.py')}"
    module = path.removeprefix("emojax/").removesuffix(".py").replace("/", ".")
    for page, modules in MODULES.items():
        if module in modules:
            return f"reference/{page}.md#emojax.{module}"
    return None


def _help(argv: list[str]) -> str:
    """Returns what a command prints."""
    from emojax import cli

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        cli.main(argv)
    return out.getvalue().rstrip()


def _fenced(text: str, language: str = "text") -> str:
    return f"```{language}\n{text}\n```"


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _cell(text: str) -> str:
    return re.sub(r"([|<>*_\[\]])", r"\\\1", text)
