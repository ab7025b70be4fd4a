"""The commands of the pipeline. jax is imported only after the flags were found good."""

import os
import pathlib
import shlex
from collections.abc import Sequence

from emojax import compiled, stops
from emojax.cli import cluster
from emojax.cli.flags import Usage, parse
from emojax.errors import InputError

CONFIG = "a config file, or the name of one that is shipped; ':variant' may follow (expA:demo)"
WORKDIR = "folder of the results; a run in it is resumed"
BUNDLE = "folder of a decoder"
IMAGE = "a 4-D or 3-D NIfTI image"
IDENTITY = {
    "expect": "id of the decoder, or its first eight digits or more; others are refused",
    "trust": "file of a public key; decoders that its owner has not signed are refused",
}
WAYS = {
    "by": "what corresponds: 'time' (default), 'class' (a localizer with labels), or 'none' "
    "(weights stay; reference and limits are renewed)",
    "events": "with --by=class: events.tsv of the run; the one beside the image by default",
    "label_map": "with --by=class: which values of trial_type mean which class, as data.label_map; "
    "the names of the classes by default",
}
SIGN = {"sign": "file of an ed25519 private key (ssh-keygen -t ed25519) to sign the decoder with"}

RUN = Usage(
    "run",
    {"config": CONFIG, "workdir": WORKDIR, **cluster.FLAGS},
    needs=("config", "workdir"),
    positional=("config",),
    switches={"restart": "remove what an earlier run has left in the workdir, and begin anew"},
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
        "config": "that of the run",
        "workdir": "folder of a finished run; the decoder is written into it",
        "subject": "subject whose fold and alignment become the decoder; the first by default",
        "run": "name of the run that will be decoded; the last by default",
        "classifier": "row of the result table that becomes the decoder; the headline by default",
        "bundle": "folder of the decoder; 'decoder' in the workdir by default",
        **SIGN,
    },
    needs=("config", "workdir"),
    positional=("config",),
    switches={"refit": "fit it to everybody, for a new person, instead of taking a fold's"},
    example="emojax export expA:demo --workdir=runs/demo --subject=01",
)
DECODE = Usage(
    "decode",
    {
        "bundle": BUNDLE,
        "input": IMAGE,
        "workdir": "folder of the predictions",
        "correct": "'auto' (default) brings each volume onto the reference of its subject, "
        "'motion' or 'level' alone does one of the two, 'none' replays the report",
        **IDENTITY,
    },
    needs=("bundle", "input", "workdir"),
    positional=("bundle", "input"),
    switches={"any_subject": "decode an image whose name says that it is another person's"},
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

    names = ("bundle", "input", "workdir")
    identity = {name: text[name] for name in ("correct", *IDENTITY) if text[name]}
    any_subject = given.switches["any_subject"]
    print(commands.decode(*(text[name] for name in names), any_subject, **identity))


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
        raise InputError(workdir, found, "the workdir of a run that has ended (see emojax run)")
    with stops.deferred():
        from emojax.training.checkpoint import Workdir, read_config

    Workdir(workdir, read_config(workdir)).check_inputs()
    show_report(workdir)


def show_report(workdir: pathlib.Path) -> None:
    """Prints the headline and the table of a finished workdir, and the path of its report."""
    with stops.deferred():
        from emojax.report import console as consoles
        from emojax.report.schema import Result

    console = consoles.make()
    consoles.print_table(Result.load(workdir), console)
    console.print(f"report: {workdir / 'report.html'}", markup=False)


def start_jax() -> None:
    """Imports jax with a cache of compiled programs."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # one line of XLA's per start, else
    compiled.start()


def leads() -> bool:
    """Returns whether this process does the work: the first task of an srun step, or no task.

    A batch script has SLURM_NTASKS, too, but is one process: waiting for others would never end.
    """
    rank, count = task()
    if rank > 0:
        print(f"task {rank} of {count}: the first one does the work")
    return rank == 0


def task() -> tuple[int, int]:
    """Returns number and count of the tasks of the srun step that this process belongs to."""
    if not {"SLURM_STEP_ID", "SLURM_PROCID"} <= os.environ.keys():
        return 0, 1
    count = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    return (int(os.environ["SLURM_PROCID"]), count) if count > 1 else (0, 1)


def _experiment(argv: Sequence[str], usage: Usage, until: str) -> None:
    """Runs an experiment.

    The tasks of an srun step train a network of volumes together, and divide all other runs.
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
    settings.check(given.config)
    if usage is RUN and given.text["cluster"]:
        if leads():
            with team.nothing_left(given.text["workdir"]):
                cluster.submit(argv, given)
        return
    members, tasks = cluster.members(), task()[1]
    name = given.config.get("model", {}).get("name")
    if until != "report" or members == tasks == 1:
        members = 1
        if not leads():
            return
    elif members == 1 and name and models.find(name).input == "volume":
        jax.distributed.initialize()  # Slurm says where the others are
    else:
        members = max(members, tasks)
    restart = given.switches["restart"]
    if restart and members > 1:
        expected = "none where several processes share a run (remove the folder before)"
        raise InputError("--restart", f"{members} processes", expected)
    options = {"until": until, "restart": restart}
    options["command"] = " ".join(filter(None, (cluster.typed(argv), shlex.join(argv[1:]))))
    if members > 1:
        options["members"] = members
        experiments.run(given.config, given.text["workdir"], **options)
        return
    with team.nothing_left(given.text["workdir"], but="counts.csv" if until == "data" else ""):
        experiments.run(given.config, given.text["workdir"], **options)
