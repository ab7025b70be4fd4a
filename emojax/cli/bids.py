"""The command `emojax bids`, with the command line that BIDS Apps share."""

import argparse
import os
import shlex
from collections.abc import Sequence
from typing import NoReturn

from emojax.cli import COMMANDS, HELP, guard
from emojax.cli.config_files import load_config
from emojax.cli.flags import OVERRIDE, override
from emojax.errors import InputError
from emojax.nearest import hint

WIDTH = 100
EXAMPLE = """example:
  emojax bids study out participant --participant-label 01 02
  emojax bids study out group --derivatives study/derivatives/fmriprep --task faces \\
      --space MNI152NLin2009cAsym --label-map "rest=;neutral=neutral;negative=fear|sad"
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raises an `InputError` in place of argparse's usage text."""
        raise InputError("flags", message, f"the flags that '{self.prog} --help' lists")


def bids(argv: Sequence[str]) -> None:
    """Runs one analysis level of the app."""
    program, *words = argv
    if any(word in HELP for word in words):
        guard.show(parser(program).format_help())
        raise SystemExit(0)
    made = parser(program)
    given, rest = made.parse_known_args(words)
    _refuse_unknown(made, rest)
    config, left = override(load_config(given.config), rest)
    if left:
        raise InputError("flags", shlex.join(left), f"the flags that '{program} --help' lists")
    if any(word.lstrip("-").startswith("config.data.root=") for word in rest):
        raise InputError("flags", "--config.data.root", "BIDS_DIR, or --derivatives")
    from emojax.bids_app import request

    asked = request.make(
        given.bids_dir,
        given.output_dir,
        given.analysis_level,
        config,
        labels=[label for word in given.participant_label for label in _split(word)],
        derivatives=given.derivatives,
        filters=_filters(given),
        filter_file=given.bids_filter_file,
        label_map=given.label_map,
        work_dir=given.work_dir,
        typed=" ".join([program, shlex.join(words)]),
        run=["emojax", "run", given.config, *rest],
        restart=given.restart,
    )
    _limit(given.n_cpus)
    from emojax.cli.commands import leads, start_jax

    if not leads():
        return
    from emojax import stops

    with stops.deferred():
        start_jax()
        from emojax.bids_app import levels
    levels.LEVEL[asked.level](asked)


def parser(program: str) -> argparse.ArgumentParser:
    """Returns the parser, which accepts dashes and underscores in every flag."""
    made = _Parser(
        prog=program,
        description=COMMANDS["bids"].about,
        epilog=EXAMPLE,
        add_help=False,
        allow_abbrev=False,
        formatter_class=_formatter,
    )
    made.add_argument("bids_dir", help="root of a BIDS data set, raw or a derivative")
    made.add_argument("output_dir", help="folder of the output, which is a BIDS derivative")
    made.add_argument(
        "analysis_level", help="'participant' checks each participant; 'group' decodes"
    )

    def flag(name: str, help: str, *others: str, **more) -> None:
        spelled = dict.fromkeys((f"--{name}", f"--{name.replace('-', '_')}", *others))
        made.add_argument(*spelled, help=help, dest=name.replace("-", "_"), **more)

    def text(name: str, help: str, *others: str, metavar: str = "VALUE", default: str = "") -> None:
        flag(name, help, *others, metavar=metavar, default=default)

    help = "participants, with or without 'sub-'; all by default"
    flag("participant-label", help, nargs="+", default=[], metavar="LABEL")
    text("session-label", "sessions, joined by commas", metavar="LABELS")
    help = "folder of the scans, such as fMRIPrep's; BIDS_DIR then holds the events"
    text("derivatives", help, "-d", metavar="DIR")
    text("task", "name of the task, if the study has several", "-t", "--task-id", "--task_id")
    text("space", "space of derivatives, as in file names")
    text("res", "resolution of derivatives, as in file names")
    help = "JSON with filters of 'bold', as for fMRIPrep"
    text("bids-filter-file", help, metavar="FILE")
    help = "classes and their values of trial_type, as in data.label_map"
    text("label-map", help, metavar="MAP")
    text("config", "settings: a config that reads BIDS; 'study' by default", default="study")
    text("work-dir", "folder of decoded scans; inside the output by default", "-w", metavar="DIR")
    help = "number of processor cores to use; all by default"
    flag("n-cpus", help, "--nprocs", "--nthreads", "--n_procs", type=int, metavar="N")
    no_value = {"action": "store_true"}
    flag("restart", "remove the results of an earlier group run first", **no_value)
    help = "accepted without effect: emojax does not validate BIDS"
    flag("skip-bids-validation", help, "--skip_bids_validator", **no_value)
    made.add_argument("--config.KEY", metavar="VALUE", help="value of a config key")
    return made


def _refuse_unknown(made: argparse.ArgumentParser, words: Sequence[str]) -> None:
    known = [option for action in made._actions for option in action.option_strings]
    for word in words:
        if word.startswith("-") and not OVERRIDE.match(word):
            near = hint(word.partition("=")[0], known)
            raise InputError(
                "flags",
                f"unknown flag {word!r}{near}",
                f"the flags that '{made.prog} --help' lists",
            )


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=28, width=WIDTH)


def _split(word: str) -> list[str]:
    return [label for label in word.split(",") if label]


def _filters(given: argparse.Namespace) -> dict[str, str]:
    sessions = "|".join(part.removeprefix("ses-") for part in _split(given.session_label))
    asked = {"task": given.task, "space": given.space, "res": given.res, "ses": sessions}
    return {name: value.removeprefix(f"{name}-") for name, value in asked.items() if value}


def _limit(cores: int | None) -> None:
    """Limits this process and its children to some cores, before jax counts them.

    Raises:
      InputError: less than one core.
    """
    if cores is None:
        return
    if cores < 1:
        raise InputError("--n-cpus", cores, "a whole number of at least 1")
    os.environ["LOKY_MAX_CPU_COUNT"] = str(cores)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    else:
        os.environ["OMP_NUM_THREADS"] = str(cores)
