"""The commands of the pipeline. jax is imported only after the flags were found good."""

import json
import os
import pathlib
import shlex
from collections.abc import Sequence

from emojax.cli.flags import Usage, parse
from emojax.errors import InputError

CONFIG = "a config file, or the name of one that is shipped; ':variant' may follow (expA:demo)"
WORKDIR = "folder of the results; a run in it is resumed"
BUNDLE = "folder of a decoder"
IMAGE = "a 4-D or 3-D NIfTI image"

RUN = Usage(
    "run",
    {"config": CONFIG, "workdir": WORKDIR},
    needs=("config", "workdir"),
    positional=("config",),
    example="emojax run expA:demo --workdir=runs/demo --config.train.epochs=2",
)
PLAN = RUN._replace(name="plan", example="emojax plan expA:demo --workdir=runs/demo")
DATA = RUN._replace(
    name="data", example="emojax data haxby --workdir=runs/h --config.data.root=DIR"
)
EXPORT = Usage(
    "export",
    {
        "config": "that of the run",
        "workdir": "folder of a finished run; the decoder is written into it",
        "subject": "subject whose fold and alignment become the decoder; the first by default",
        "run": "name of the run that will be decoded; the last by default",
    },
    needs=("config", "workdir"),
    positional=("config",),
    example="emojax export expA:demo --workdir=runs/demo --subject=01",
)
DECODE = Usage(
    "decode",
    {"bundle": BUNDLE, "input": IMAGE, "workdir": "folder of the predictions"},
    needs=("bundle", "input", "workdir"),
    positional=("bundle", "input"),
    example="emojax decode runs/demo/decoder FILE.nii.gz --workdir=runs/new",
)
CALIBRATE = Usage(
    "calibrate",
    {
        "bundle": BUNDLE,
        "input": "an image of one run of the new subject, with the design of the training runs",
        "workdir": "folder of the new decoder",
        "subject": "name of the new subject",
        "run": "name of the training subjects' run that corresponds to it; the first by default",
    },
    needs=("bundle", "input", "workdir"),
    positional=("bundle", "input"),
    example="emojax calibrate runs/demo/decoder RUN.nii --subject=NEW --workdir=runs/NEW",
)
REPORT = Usage(
    "report",
    {"workdir": "folder of a finished run"},
    needs=("workdir",),
    positional=("workdir",),
    example="emojax report runs/demo",
)


def run(argv: Sequence[str]) -> None:
    """Runs an experiment, and writes its report."""
    _experiment(argv, RUN, "report")


def plan(argv: Sequence[str]) -> None:
    """Prints what a run would need."""
    _experiment(argv, PLAN, "plan")


def data(argv: Sequence[str]) -> None:
    """Reads and counts the data."""
    _experiment(argv, DATA, "data")


def export(argv: Sequence[str]) -> None:
    """Writes the decoder of a finished run, and prints its folder."""
    given = parse(argv, EXPORT)
    start_jax()
    from emojax.experiments.export import export

    text = given.text
    print(export(given.config, text["workdir"], text["subject"], text["run"]))


def decode(argv: Sequence[str]) -> None:
    """Decodes an image, and prints the file of its predictions."""
    text = parse(argv, DECODE).text
    start_jax()
    from emojax.decoder import commands

    print(commands.decode(text["bundle"], text["input"], text["workdir"]))


def calibrate(argv: Sequence[str]) -> None:
    """Fits a decoder to a new subject, and prints the folder of the new decoder."""
    text = parse(argv, CALIBRATE).text
    start_jax()
    from emojax.decoder import commands

    names = ("bundle", "input", "workdir", "subject", "run")
    print(commands.calibrate(*(text[name] for name in names)))


def report(argv: Sequence[str]) -> None:
    """Prints the headline and the table of a finished run, and the path of its report."""
    workdir = finished(parse(argv, REPORT).text["workdir"])
    import rich.console

    from emojax.report.console import print_table
    from emojax.report.schema import Result

    console = rich.console.Console(soft_wrap=True, highlight=False)
    print_table(Result.load(workdir), console)
    console.print(f"report: {workdir / 'report.html'}")


def finished(workdir: str) -> pathlib.Path:
    """Returns the folder of a finished run of this version.

    Raises:
      InputError: there is no finished run, or one of emojax 0.3.
    """
    folder = pathlib.Path(workdir)
    if not (folder / "metrics.json").is_file():
        found = "no finished run" if folder.is_dir() else "no such folder"
        raise InputError(folder, found, "the workdir of a run that has ended (see emojax run)")
    try:
        stored = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(folder / "config.json", error, "the config of the run") from None
    if "format" not in stored:
        expected = "a run of this version (run it again in another --workdir, or use emojax 0.3)"
        raise InputError(folder, "a run of emojax 0.3", expected)
    return folder


def start_jax(distributed: bool = False) -> None:
    """Imports jax with a cache of compiled programs, and joins the other processes of an srun step.

    Args:
      distributed: whether several tasks of a Slurm step work on one run.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # one line of XLA's per start, else
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/emojax/xla"))
    if distributed and in_slurm_step():
        jax.distributed.initialize()  # Slurm says where the others are


def in_slurm_step() -> bool:
    """Returns whether srun started this process as one of several.

    A batch script has SLURM_NTASKS, too, but is one process: waiting for others would never end.
    """
    step = {"SLURM_STEP_ID", "SLURM_PROCID"} <= os.environ.keys()
    return step and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def _experiment(argv: Sequence[str], usage: Usage, until: str) -> None:
    given = parse(argv, usage)
    start_jax(distributed=until == "report")
    from emojax import experiments

    command = " ".join(filter(None, (argv[0], shlex.join(argv[1:]))))
    experiments.run(given.config, given.text["workdir"], command=command, until=until)
