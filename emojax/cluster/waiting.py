"""Waiting for local jobs, or for a run that they have joined, and reporting failures."""

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
    """Waits for the report of local jobs, also if they have joined another run.

    Raises:
      InputError: there is no report; quotes the last line of a failed job.
      stops.Stopped: a signal asked this process to end; the jobs store their state and end, too.
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
    raise InputError(workdir, said, "a report (the same command resumes the run)")


def _wait_for_others(workdir: pathlib.Path) -> None:
    """Waits for the process that leads the run, if the jobs have only joined it.

    Raises:
      stops.Stopped: a signal asked this process to end; the run continues.
    """
    if text := leader(workdir):
        found = json.loads(text)
        say(f"{workdir}: the run continues in process {found['pid']} on {found['host']}; waiting")
    while leader(workdir):
        time.sleep(POLL)
        stops.check()


def _terminate(job: Any) -> None:
    """Asks a local job to end, children first, because the shell would orphan them."""
    with contextlib.suppress(psutil.Error, ValueError):
        process = psutil.Process(int(job.job_id))
        for each in [*process.children(recursive=True), process]:
            with contextlib.suppress(psutil.Error):
                each.terminate()


def _code(path: pathlib.Path) -> int | None:
    """Returns the exit code of a job's command, or None if it was killed before storing one."""
    try:
        return json.loads(path.read_text())["code"]
    except (OSError, ValueError, KeyError):
        return None


def _last_line(job: Any) -> str:
    """Returns the last line that an ended job wrote to stderr, or ""."""
    try:
        lines = pathlib.Path(job.paths.stderr).read_text(errors="replace").splitlines()
    except OSError:
        return ""
    own = [line for line in lines if line.strip() and not line.startswith("submitit ")]
    return own[-1] if own else ""
