"""The commands of the pipeline, which import jax only after checking their flags."""

import contextlib
import os
import pathlib
import shlex
from collections.abc import Sequence
from typing import Literal

from emojax import compiled, stops
from emojax.cli import cluster, reports
from emojax.cli.flags import Usage, parse
from emojax.errors import InputError

CONFIG = "a config file, or the name of a shipped one; ':variant' may follow (expA:demo)"
WORKDIR = "folder of the results; a run in it is resumed"
BUNDLE = "folder of a decoder"
IMAGE = "a 4-D or 3-D NIfTI image"
IDENTITY = {
    "expect": "id of the decoder, or at least its first eight digits; others are rejected",
    "trust": "file of a public key; decoders not signed by its owner are rejected",
}
WAYS = {
    "by": "how rows correspond: by 'time' (default), by 'class' (a localizer with labels), or "
    "'none' (weights are kept; reference and limits are renewed)",
    "events": "with --by=class: events.tsv of the run; the one beside the image by default",
    "label_map": "with --by=class: the values of trial_type of each class, as in data.label_map; "
    "the names of the classes by default",
}
SIGN = {"sign": "file of an ed25519 private key (ssh-keygen -t ed25519) to sign the decoder with"}

RUN = Usage(
    "run",
    {"config": CONFIG, "workdir": WORKDIR, **cluster.FLAGS},
    needs=("config", "workdir"),
    positional=("config",),
    switches={"restart": "remove the results of an earlier run in the workdir first"},
    example="emojax run expA:demo --workdir=runs/demo --config.train.epochs=2",
)
PLAN = RUN._replace(
    name="plan",
    flags={"config": CONFIG, "workdir": WORKDIR},
    example="emojax plan expA:demo --workdir=runs/demo",
)
DATA = PLAN._replace(
    name="data", example="emojax data haxby --workdir=runs/h --config.data.root=DIR"
)
EXPORT = Usage(
    "export",
    {
        "config": "config of the run",
        "workdir": "folder of a finished run; the decoder is written into it",
        "subject": "subject whose fold and alignment become the decoder; the first by default",
        "run": "name of the run that will be decoded; the last by default",
        "classifier": "row of the result table that becomes the decoder; the headline by default",
        "bundle": "folder of the decoder; 'decoder' in the workdir by default",
        **SIGN,
    },
    needs=("config", "workdir"),
    positional=("config",),
    switches={"refit": "train on all subjects, for a new person, instead of exporting a fold"},
    example="emojax export expA:demo --workdir=runs/demo --subject=01",
)
DECODE = Usage(
    "decode",
    {
        "bundle": BUNDLE,
        "input": IMAGE,
        "workdir": "folder of the predictions",
        "correct": "'auto' (default) matches each volume to the subject's reference in motion and "
        "level, 'motion' or 'level' in one of the two, 'none' replays the report",
        **IDENTITY,
    },
    needs=("bundle", "input", "workdir"),
    positional=("bundle", "input"),
    switches={"any_subject": "decode an image even if its name is that of another subject"},
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
        **WAYS,
        **IDENTITY,
        **SIGN,
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
    if not leads():
        return
    with stops.deferred():
        start_jax()
        from emojax.decoder import commands, signing
        from emojax.experiments.exports.command import export

    text = given.text
    if text["sign"]:
        signing.check_key(text["sign"])
    made = export(
        given.config,
        *(text[name] for name in ("workdir", "subject", "run", "bundle")),
        classifier=text["classifier"],
        refit=given.switches["refit"],
    )
    commands.announce(made, text["sign"])
    print(made)


def decode(argv: Sequence[str]) -> None:
    """Decodes an image, and prints the file of its predictions."""
    given = parse(argv, DECODE)
    text = given.text
    if not leads():
        return
    with stops.deferred():
        start_jax()
        from emojax.decoder import commands

    bundle, image, workdir = (text[name] for name in ("bundle", "input", "workdir"))
    identity = {name: text[name] for name in ("correct", *IDENTITY) if text[name]}
    any_subject = given.switches["any_subject"]
    print(commands.decode(bundle, image, workdir, any_subject, **identity))


def calibrate(argv: Sequence[str]) -> None:
    """Fits a decoder to a new subject, and prints the folder of the new decoder."""
    text = parse(argv, CALIBRATE).text
    if not leads():
        return
    with stops.deferred():
        start_jax()
        from emojax.decoder import commands

    names = ("bundle", "input", "workdir", "subject", "run")
    more = {name: text[name] for name in (*WAYS, *IDENTITY, *SIGN) if text[name]}
    print(commands.calibrate(*(text[name] for name in names), **more))


def report(argv: Sequence[str]) -> None:
    """Prints the headline and the table of a finished run, and the path of its report."""
    workdir = pathlib.Path(parse(argv, REPORT).text["workdir"])
    if not (workdir / "metrics.json").is_file():
        found = "no finished run" if workdir.is_dir() else "no such folder"
        raise InputError(workdir, found, "the workdir of a finished run (see emojax run)")
    with stops.deferred():
        from emojax.training.checkpoint import Workdir, read_config

    Workdir(workdir, read_config(workdir)).check_inputs()
    reports.show(workdir)


def start_jax() -> None:
    """Imports jax with a cache of compiled programs."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # otherwise XLA prints a line at each start
    compiled.start()


def leads() -> bool:
    """Returns whether this process does the work: it is no task, or the first of an srun step.

    A batch script also has SLURM_NTASKS but is one process, which must not wait for others.
    """
    rank, count = task()
    if rank > 0:
        print(f"task {rank} of {count}: the first one does the work")
    return rank == 0


def task() -> tuple[int, int]:
    """Returns this process's task number in its srun step, and the number of tasks."""
    if not {"SLURM_STEP_ID", "SLURM_PROCID"} <= os.environ.keys():
        return 0, 1
    count = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    return (int(os.environ["SLURM_PROCID"]), count) if count > 1 else (0, 1)


def _experiment(
    argv: Sequence[str], usage: Usage, until: Literal["data", "plan", "report"]
) -> None:
    """Runs an experiment.

    The tasks of an srun step train a network of volumes together; they share all other runs.
    """
    given = parse(argv, usage)
    if usage is RUN:
        cluster.check(given.text)
    with stops.deferred():
        start_jax()
        import jax

        from emojax import experiments, models
        from emojax.cluster import team
        from emojax.experiments import settings
        from emojax.training import pages

        pages.keep()
    assert given.config is not None  # `parse` requires --config
    settings.check(given.config)
    if usage is RUN and given.text["cluster"]:
        if leads():
            with team.nothing_left(given.text["workdir"]):
                cluster.submit(argv, given)
        return
    members, tasks = cluster.members(), task()[1]
    name = given.config.to_dict().get("model", {}).get("name")
    if until != "report" or members == tasks == 1:
        members = 1
        if not leads():
            return
    elif members == 1 and name and models.find(name).input == "volume":
        jax.distributed.initialize()  # Slurm provides the addresses of the other tasks
    else:
        members = max(members, tasks)
    restart = given.switches["restart"]
    if restart and members > 1:
        expected = "a single process (or remove the folder, and run without --restart)"
        raise InputError("--restart", f"{members} processes", expected)
    typed = " ".join(filter(None, (cluster.typed(argv), shlex.join(argv[1:]))))
    workdir, kept = given.text["workdir"], "counts.csv" if until == "data" else ""
    removal = contextlib.nullcontext() if members > 1 else team.nothing_left(workdir, but=kept)
    with removal:
        experiments.run(
            given.config, workdir, command=typed, until=until, restart=restart, members=members
        )
