"""The flags of `emojax run --cluster=...`, and the submission of the run's jobs."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from emojax.cli import reports
from emojax.cli.flags import Given, number
from emojax.errors import InputError

KINDS = ("slurm", "local", "auto")
FLAGS = {
    "cluster": "'slurm' submits the run as jobs that share the work, 'local' runs the same jobs "
    "here, 'auto' uses Slurm if it is available",
    "cluster.jobs": "number of jobs; 4 by default, locally at most the number of cores or GPUs",
    "cluster.time": "time limit of a job, HH:MM:SS, D-HH:MM:SS or minutes; the job is then queued "
    "again, locally up to five times",
    "cluster.partition": "Slurm partition, as for sbatch",
    "cluster.gpus": "GPUs per job; locally one, if there are any",
    "cluster.cpus": "cores per job",
    "cluster.memory": "memory per job in GB",
    "cluster.account": "Slurm account, as for sbatch",
    "cluster.qos": "Slurm quality of service, as for sbatch",
    "cluster.constraint": "Slurm constraint, as for sbatch",
    "cluster.setup": "shell command to run before each job, such as 'module load cuda'",
}
CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?")


def members() -> int:
    """Returns the number of processes that share the run: as a job sets it, otherwise 1."""
    from emojax.cluster.jobs import MEMBERS, follow_parent

    follow_parent()
    return int(os.environ.get(MEMBERS, "1"))


def check(text: Mapping[str, str]) -> None:
    """Rejects invalid flags of jobs.

    Raises:
      InputError: unknown kind of cluster, a flag of jobs without `--cluster`, or an invalid value.
    """
    kind = text["cluster"]
    if kind and kind not in KINDS:
        raise InputError("--cluster", repr(kind), f"one of {', '.join(KINDS)}")
    alone = [name for name in FLAGS if text[name] and name != "cluster"]
    if alone and not kind:
        expected = f"one of --cluster={', --cluster='.join(KINDS)} as well"
        raise InputError("flags", f"--{alone[0]} without --cluster", expected)
    _wanted(text)


def submit(argv: Sequence[str], given: Given) -> None:
    """Submits the jobs of a run; if they are local, waits for the report and prints its table.

    Args:
      argv: the words of the command line.
      given: its flags.

    Raises:
      InputError: no such cluster here, Slurm rejects the jobs, or a local job fails.
    """
    from emojax import experiments
    from emojax.cluster import jobs, waiting
    from emojax.experiments import dtypes
    from emojax.locks import Held
    from emojax.training import checkpoint

    assert given.config is not None  # `parse` asks for one
    kind = jobs.choose(given.text["cluster"])
    folder = pathlib.Path(given.text["workdir"]).absolute()
    plain = dtypes.settle(given.config, folder).to_dict()
    try:
        with checkpoint.open_workdir(folder, plain, restart=given.switches["restart"]) as work:
            is_finished = work.is_finished
    except Held:
        if given.switches["restart"]:
            raise
        checkpoint.check_config(folder, checkpoint.plain_config(plain))
        is_finished = False
    if is_finished:
        experiments.run(given.config, folder)  # prints its table
        return
    wanted = _wanted(given.text)
    if kind == "local" and not given.text["cluster.jobs"]:
        fits = max(min(wanted.jobs, jobs.most_here(wanted.gpus)), 1)
        wanted = dataclasses.replace(wanted, jobs=fits)
    submitted = jobs.submit(words(argv), folder, kind, wanted, typed(argv))
    place, count = folder / jobs.JOBS, len(submitted.jobs)
    if kind == "slurm":
        first = str(submitted.jobs[0].job_id).partition("_")[0]
        print(f"submitted {count} jobs as {first}; logs: {place}; squeue -j {first}")
        print("the same command prints the table once they have ended, or resumes if they failed")
        return
    print(f"{count} jobs on this machine; logs: {place}", flush=True)
    waiting.wait(submitted, folder)
    reports.show(folder)


def typed(argv: Sequence[str]) -> str:
    """Returns the program name as the user typed it, also inside a job."""
    from emojax.cluster.jobs import TYPED

    return os.environ.get(TYPED, argv[0])


def words(argv: Sequence[str]) -> list[str]:
    """Returns the arguments of a run without those that choose the cluster or restart it."""
    left, skip = [], False
    for word in argv[1:]:
        name, equals, _ = word.lstrip("-").partition("=")
        is_flag = word.startswith("-")
        if skip:
            skip = False
        elif is_flag and name in FLAGS:
            skip = not equals
        elif not (is_flag and name in ("restart", "norestart")):
            left.append(word)
    return left


def _wanted(text: Mapping[str, str]) -> Any:
    """Returns the requested resources of each job."""
    from emojax.cluster.jobs import Wanted

    return Wanted(
        jobs=number(text, "cluster.jobs", int, 1) or Wanted.jobs,
        minutes=_minutes(text["cluster.time"]),
        gpus=number(text, "cluster.gpus", int, 0) or 0,
        cpus=number(text, "cluster.cpus", int, 1) or 0,
        memory_gb=number(text, "cluster.memory", float, 0.001) or 0.0,
        partition=text["cluster.partition"],
        account=text["cluster.account"],
        qos=text["cluster.qos"],
        constraint=text["cluster.constraint"],
        setup=text["cluster.setup"],
    )


def _minutes(text: str) -> int:
    """Returns a time limit in minutes; 0 if none is given.

    Raises:
      InputError: not a time, or too short for a job to store its state.
    """
    from emojax.cluster.jobs import NOTICE

    if not text:
        return 0
    found = CLOCK.fullmatch(text)
    parts = found.groups() if found else (0, 0, 0, 0)
    days, hours, minutes, seconds = (int(part or 0) for part in parts)
    total = 60 * (24 * days + hours) + minutes + (seconds > 0)
    if text.isdecimal():
        total = int(text)
    if not total:
        raise InputError("--cluster.time", repr(text), "HH:MM:SS, D-HH:MM:SS or minutes, above 0")
    if 60 * total < 2 * NOTICE:
        expected = f"{2 * NOTICE // 60} minutes or more: a job stores its state {NOTICE} s earlier"
        raise InputError("--cluster.time", repr(text), expected)
    return total
