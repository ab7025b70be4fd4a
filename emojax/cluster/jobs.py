"""Jobs that run the command of a run, submitted through submitit to Slurm or to this machine.

Every job is the same command in a process of its own; they find each other by the workdir, see
`team`. Ahead of its time limit a job is asked to store its state; it ends, and is queued again.
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

JOBS = "jobs"  # folder in the workdir: logs, and what submitit keeps
# Variables of a job's command: number of processes of the run, how it was typed, and its parent.
MEMBERS, TYPED, PARENT = "EMOJAX_MEMBERS", "EMOJAX_TYPED", "EMOJAX_PARENT"
REQUEUES = 1000  # times that a job may reach its time limit
FOREVER = 60 * 24 * 365  # min: local jobs have no limit unless one is given
NOTICE = 120  # s between the request to store and the time limit
POLL = 0.2  # s


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The resources of each job; 0 and "" leave them to the cluster."""

    jobs: int = 4
    minutes: int = 0
    partition: str = ""
    gpus: int = 0
    cpus: int = 0
    memory_gb: float = 0.0
    account: str = ""
    qos: str = ""
    constraint: str = ""
    setup: str = ""  # a shell command ahead of each job
    notice_s: int = NOTICE


class Submitted(NamedTuple):
    """The jobs of a run."""

    jobs: list[Any]  # of submitit
    codes: list[pathlib.Path]  # the file of each that gets the exit code of its command


class Member:
    """A job: one process of a run. submitit calls it, and `checkpoint` ahead of the limit."""

    def __init__(self, words: Sequence[str], members: int, code: str, typed: str):
        """Begins nothing yet.

        Args:
          words: of the command.
          members: number of jobs.
          code: path of the file that gets the exit code.
          typed: name of the program as the user typed it, for the report.
        """
        self.words, self.members, self.code, self.typed = list(words), members, code, typed
        self._child: int | None = None

    def __call__(self) -> int:
        """Runs the command to its end; returns its exit code."""
        environment = os.environ | {MEMBERS: str(self.members), TYPED: self.typed}
        environment[PARENT] = str(os.getpid())
        # A group of its own: of the signals to the job, it gets those that are passed on.
        child = subprocess.Popen(self.words, env=environment, start_new_session=True)
        self._child = child.pid
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        try:
            while child.poll() is None:
                time.sleep(POLL)
        finally:
            if child.returncode is None:
                child.terminate()  # it stores its state
        with atomic_write(pathlib.Path(self.code)) as partial:
            partial.write_text(json.dumps({"code": child.returncode}))
        return child.returncode

    def checkpoint(self) -> Any:
        """Stops the command, which stores its state; returns the job to be queued again."""
        if self._child is not None and locks.is_alive(self._child):
            os.kill(self._child, signal.SIGUSR1)
            while locks.is_alive(self._child):
                time.sleep(POLL)
        again = Member(self.words, self.members, self.code, self.typed)
        return _submitit().helpers.DelayedSubmission(again)


def choose(kind: str) -> str:
    """Returns "slurm" or "local"; "auto" is Slurm where there is one.

    Raises:
      InputError: there is no Slurm, or submitit is not installed.
    """
    there = shutil.which("sbatch") and shutil.which("srun")
    if kind == "slurm" and not there:
        expected = "the login node of a Slurm cluster (--cluster=local runs the same jobs here)"
        raise InputError("--cluster=slurm", "no sbatch and srun on this machine", expected)
    _submitit()
    return ("slurm" if there else "local") if kind == "auto" else kind


def follow_parent() -> None:
    """Lets a job's command store its state and end when the job is killed, which cannot tell it."""
    parent = os.environ.pop(PARENT, "")  # not of the processes that the command starts
    if not parent or not hasattr(os, "getppid"):
        return

    def watch():
        while os.getppid() == int(parent):
            time.sleep(POLL)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def most_here(gpus: int = 0) -> int:
    """Returns how many local jobs there may be: one for each core, or with GPUs of their own.

    Args:
      gpus: of each job; 0 is one, where there are any.
    """
    shown = len(_local_gpus())
    if gpus or shown:
        return shown // (gpus or 1)
    own = getattr(os, "sched_getaffinity", None)
    cores = len(own(0)) if own else os.cpu_count() or 1
    return max(cores, 2)  # two are the least that divide anything


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
      InputError: more local jobs than cores or GPUs, or a job that Slurm refuses.
    """
    folder = workdir / JOBS
    # -P: a module of the current folder, which is searched last, must not pass for a library.
    command = [sys.executable, "-P", "-m", "emojax", "run", *words]
    joins = bool(leader(workdir))  # a run that another command has begun
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
            raise InputError("--cluster=slurm", said, "settings that sbatch takes") from None


@contextlib.contextmanager
def _import_path() -> Iterator[None]:
    """Lets processes that begin here import this emojax, and nothing of the current folder."""
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
    """Returns the text of the lock of the living process that leads a run, or ""."""
    from emojax.training.ownership import LOCK  # whose package imports this module

    return locks.holder(workdir / LOCK)


def _submitit() -> Any:
    try:
        return importlib.import_module("submitit")
    except ImportError:
        expected = "it to be installed: pip install 'emojax[slurm]'"
        raise InputError("--cluster", "no package submitit", expected) from None


def _submit_here(members: Sequence[Member], folder: pathlib.Path, wanted: Wanted) -> list[Any]:
    """Starts local jobs, each with GPUs of its own where there are any."""
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
    """Keeps Ctrl-C from processes that begin here: the one that waits for them passes it on."""
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
