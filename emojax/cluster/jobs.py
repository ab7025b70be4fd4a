"""Jobs that run an experiment's command, submitted through submitit to Slurm or this machine.

Every job runs the same command in its own process; the processes find each other through the
workdir (see `team`). Before its time limit, a job is asked to store its state; it then ends and is
queued again.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import emojax
from emojax import locks
from emojax.errors import InputError
from emojax.files import atomic_write

JOBS = "jobs"  # folder in the workdir with logs and submitit's files
# Environment variables of a job: number of processes, the program name as typed, and its parent.
MEMBERS, TYPED, PARENT = "EMOJAX_MEMBERS", "EMOJAX_TYPED", "EMOJAX_PARENT"
REQUEUES = 1000  # maximum number of times that a job may reach its time limit
FOREVER = 60 * 24 * 365  # minutes; local jobs have no time limit by default
NOTICE = 120  # seconds between the request to store and the time limit
POLL = 0.2  # seconds


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The requested resources of each job; 0 and "" are the cluster's defaults."""

    jobs: int = 4
    minutes: int = 0
    partition: str = ""
    gpus: int = 0
    cpus: int = 0
    memory_gb: float = 0.0
    account: str = ""
    qos: str = ""
    constraint: str = ""
    setup: str = ""  # shell command to run before each job
    notice_s: int = NOTICE


class Submitted(NamedTuple):
    """The jobs of a run."""

    jobs: list[Any]  # submitit's jobs
    codes: list[pathlib.Path]  # the file in which each job stores the exit code of its command


class Member:
    """A job, which is one process of a run; submitit calls `checkpoint` before the time limit."""

    def __init__(self, words: Sequence[str], members: int, code: str, typed: str):
        """Prepares a job without starting it.

        Args:
          words: words of the command.
          members: number of jobs.
          code: path of the file for the exit code.
          typed: name of the program as the user typed it, for the report.
        """
        self.words, self.members, self.code, self.typed = list(words), members, code, typed
        self._child: int | None = None

    def __call__(self) -> int:
        """Runs the command to its end and returns its exit code."""
        environment = os.environ | {MEMBERS: str(self.members), TYPED: self.typed}
        environment[PARENT] = str(os.getpid())
        # A new session: the command gets only the signals that are passed on to it.
        child = subprocess.Popen(self.words, env=environment, start_new_session=True)
        self._child = child.pid
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        try:
            while (code := child.poll()) is None:
                time.sleep(POLL)
        finally:
            if child.returncode is None:
                child.terminate()  # asks it to store its state
        with atomic_write(pathlib.Path(self.code)) as partial:
            partial.write_text(json.dumps({"code": code}))
        return code

    def checkpoint(self) -> Any:
        """Stops the command, which stores its state, and returns the job to queue again."""
        if self._child is not None and locks.is_alive(self._child):
            os.kill(self._child, signal.SIGUSR1)
            while locks.is_alive(self._child):
                time.sleep(POLL)
        again = Member(self.words, self.members, self.code, self.typed)
        return _submitit().helpers.DelayedSubmission(again)


def choose(kind: str) -> str:
    """Returns "slurm" or "local"; "auto" is Slurm if it is available.

    Raises:
      InputError: Slurm is not available, or submitit is not installed.
    """
    there = shutil.which("sbatch") and shutil.which("srun")
    if kind == "slurm" and not there:
        expected = "the login node of a Slurm cluster (--cluster=local runs the same jobs here)"
        raise InputError("--cluster=slurm", "no sbatch and srun on this machine", expected)
    _submitit()
    return ("slurm" if there else "local") if kind == "auto" else kind


def follow_parent() -> None:
    """Makes a job's command store its state and end when its parent, the job, is killed."""
    parent = os.environ.pop(PARENT, "")  # popped, so that child processes do not follow it
    if not parent or not hasattr(os, "getppid"):
        return

    def watch():
        while os.getppid() == int(parent):
            time.sleep(POLL)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def most_here(gpus: int = 0) -> int:
    """Returns the maximum number of local jobs: one per core, or each with its own GPUs.

    Args:
      gpus: GPUs per job; 0 is one, if there are any.
    """
    shown = len(_local_gpus())
    if gpus or shown:
        return shown // (gpus or 1)
    own = getattr(os, "sched_getaffinity", None)
    cores = len(own(0)) if own else os.cpu_count() or 1
    return max(cores, 2)  # fewer than two jobs would share nothing


def submit(
    words: Sequence[str],
    workdir: pathlib.Path,
    kind: str,
    wanted: Wanted,
    typed: str = "emojax run",
) -> Submitted:
    """Submits the jobs of a run.

    Args:
      words: arguments of `emojax run`.
      workdir: folder of the run.
      kind: "slurm" or "local".
      wanted: number and size of the jobs.
      typed: name of the program as the user typed it, for the report.

    Raises:
      InputError: more local jobs than cores or GPUs, or Slurm rejects a job.
    """
    folder = workdir / JOBS
    # -P: a module in the current folder must not be imported in place of a library.
    command = [sys.executable, "-P", "-m", "emojax", "run", *words]
    joins = bool(leader(workdir))  # joins a run that another command has started
    if not joins:
        for left in folder.glob("code-*.json"):
            left.unlink()
    own = uuid.uuid4().hex[:8]
    codes = [folder / f"code-{own}-{i}.json" for i in range(wanted.jobs)]
    members = [Member(command, wanted.jobs + joins, str(code), typed) for code in codes]
    with _import_path():
        if kind == "local":
            return Submitted(_submit_here(members, folder, wanted), codes)
        submitit = _submitit()
        executor = submitit.SlurmExecutor(folder, max_num_timeout=REQUEUES)
        executor.update_parameters(**_of_slurm(wanted))
        try:
            return Submitted(executor.submit_array(members), codes)
        except submitit.core.utils.FailedJobError as error:
            said = (str(error).strip().splitlines() or ["a refusal"])[-1]
            raise InputError("--cluster=slurm", said, "settings that sbatch accepts") from None


@contextlib.contextmanager
def _import_path() -> Iterator[None]:
    """Lets child processes import this emojax, and nothing from the current folder."""
    root = str(pathlib.Path(emojax.__file__).resolve().parents[1])
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = os.pathsep.join(dict.fromkeys([root, *filter(None, known)]))
    before = dict(os.environ)
    os.environ.update({"PYTHONPATH": path, "PYTHONSAFEPATH": "1"})
    try:
        yield
    finally:
        for name in ("PYTHONPATH", "PYTHONSAFEPATH"):
            os.environ.pop(name)
            if name in before:
                os.environ[name] = before[name]


def leader(workdir: pathlib.Path) -> str:
    """Returns the lock's text of the living process that leads a run, or ""."""
    from emojax.training.ownership import LOCK  # imported late: its package imports this module

    return locks.holder(workdir / LOCK)


def _submitit() -> Any:
    try:
        return importlib.import_module("submitit")
    except ImportError:
        expected = "the package: pip install 'emojax[slurm]'"
        raise InputError("--cluster", "no package submitit", expected) from None


def _submit_here(members: Sequence[Member], folder: pathlib.Path, wanted: Wanted) -> list[Any]:
    """Starts local jobs, each with its own GPUs if there are any."""
    shown = _local_gpus()
    each = wanted.gpus or bool(shown)
    if len(members) > (most := most_here(wanted.gpus)):
        why = f"{each} of {len(shown)} GPUs for each" if each else "one for each core"
        raise InputError("--cluster.jobs", len(members), f"at most {most}: {why}")
    jobs = []
    for i, member in enumerate(members):
        executor = _submitit().LocalExecutor(folder, max_num_timeout=REQUEUES)
        executor.update_parameters(
            timeout_min=wanted.minutes or FOREVER,
            gpus_per_node=int(each),
            visible_gpus=shown[i * each : (i + 1) * each],
            signal_delay_s=wanted.notice_s,
            setup=[wanted.setup] if wanted.setup else [],
        )
        with _deaf_children():
            jobs.append(executor.submit(member))
    return jobs


@contextlib.contextmanager
def _deaf_children() -> Iterator[None]:
    """Keeps Ctrl-C from child processes; the process that waits for them passes it on."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _local_gpus() -> list[int]:
    """Returns the numbers of the GPUs that this process may use."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is not None:
        return [int(number) for number in shown.split(",") if number.strip().isdecimal()]
    found = pathlib.Path("/dev").glob("nvidia[0-9]*")
    return sorted(int(path.name.removeprefix("nvidia")) for path in found)


def _of_slurm(wanted: Wanted) -> dict[str, Any]:
    """Returns the parameters of submitit's SlurmExecutor."""
    memory = f"{int(1024 * wanted.memory_gb)}MB" if wanted.memory_gb else None
    given = {
        "time": wanted.minutes,
        "partition": wanted.partition,
        "gpus_per_node": wanted.gpus,
        "cpus_per_task": wanted.cpus,
        "mem": memory,
        "account": wanted.account,
        "qos": wanted.qos,
        "constraint": wanted.constraint,
        "setup": [wanted.setup] if wanted.setup else None,
    }
    always = {"job_name": "emojax", "signal_delay_s": wanted.notice_s}
    always["array_parallelism"] = wanted.jobs
    return always | {name: value for name, value in given.items() if value}
