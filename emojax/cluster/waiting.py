"""The wait for local jobs: for their report, for a run that they have joined, for what failed."""

import contextlib
import json
import pathlib
import time
from typing import Any

import psutil

from emojax import stops
from emojax.cluster.jobs import JOBS, POLL, Submitted, leader
from emojax.errors import InputError, say


def wait(submitted: Submitted, workdir: pathlib.Path) -> None:
    """Waits for the report of local jobs; also where they have joined a run that goes on.

    Raises:
      InputError: there is none; says the last line of a job that failed.
      stops.Stopped: a signal asked for it; the jobs store their state and end.
    """
    jobs, report = submitted.jobs, workdir / "metrics.json"
    try:
        while not all(job.done() for job in jobs):
            time.sleep(POLL)
            stops.check()
    except BaseException:
        for job in jobs:  # submitit's own `cancel` would kill them within a second
            _terminate(job)
        raise
    codes = [_code(path) for path in submitted.codes]
    if not any(codes) and None not in codes and not report.exists():
        _wait_for_others(workdir)
    if report.exists():
        return
    said = f"jobs that ended without a report; their logs: {workdir / JOBS}"
    for i, (job, code) in enumerate(zip(jobs, codes, strict=True)):
        if code != 0 and (line := _last_line(job)):
            how = "did not run to its end" if code is None else f"ended with code {code}"
            said = f"job {i} that {how}: {line}"
            break
    raise InputError(workdir, said, "a report (the same command goes on from what is kept)")


def _wait_for_others(workdir: pathlib.Path) -> None:
    """Waits for the process that still leads the run, which the jobs have only joined.

    Raises:
      stops.Stopped: a signal asked for it; the run goes on.
    """
    if text := leader(workdir):
        found = json.loads(text)
        say(f"{workdir}: the run goes on in process {found['pid']} on {found['host']}; waiting")
    while leader(workdir):
        time.sleep(POLL)
        stops.check()


def _terminate(job: Any) -> None:
    """Asks a local job to end: the processes below its shell first, which would lose them."""
    with contextlib.suppress(psutil.Error, ValueError):
        process = psutil.Process(int(job.job_id))
        for each in [*process.children(recursive=True), process]:
            with contextlib.suppress(psutil.Error):
                each.terminate()


def _code(path: pathlib.Path) -> int | None:
    """Returns the exit code of a job's command; None where it was killed before it could say."""
    try:
        return json.loads(path.read_text())["code"]
    except (OSError, ValueError, KeyError):
        return None


def _last_line(job: Any) -> str:
    """Returns the last line on stderr of a job that has ended, or ""."""
    try:
        lines = pathlib.Path(job.paths.stderr).read_text(errors="replace").splitlines()
    except OSError:
        return ""
    own = [line for line in lines if line.strip() and not line.startswith("submitit ")]
    return own[-1] if own else ""
