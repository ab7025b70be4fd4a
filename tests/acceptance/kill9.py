"""Kills runs at random moments; the same command again must end as if nothing had happened.

    python tests/acceptance/kill9.py CHECKOUT [--kills 22] [--minutes 10] [--seed 0] [--keep DIR]

Uses the python that runs it, which must have the checkout's requirements. Experiments A and B run
once each on a tiny study (the reference) and again (must be equal: else the kills mean nothing);
then come N trials, A and B in turn, each in a new workdir with a new store: start, SIGKILL of the
process group at a random moment (half: uniform over the run's time; half: just after a file of a
certain phase appeared), possibly a second kill during the resumed run, then the same command until
it exits. Compared are all numbers, networks, tables and pages, and the list of files in workdir and
store. Counts and failures come last; exit code 0: all equal, and enough of them were killed.
"""

import argparse
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from tiny_study import Launcher, differences, result, said

PHASES = {  # glob below the trial's folder -> what is under way when it appears
    "work/config.json*": "claimed",
    "store/paths": "store folder made",
    "store/*.partial": "writing into the store",
    "store/*.nii": "decoded",
    "store/*.npy": "cleaned",
    "work/counts.csv*": "counted",
    "work/events.csv*": "counted",
    "work/run.json*": "bound to its inputs",
    "work/metrics.jsonl": "training begins",
    "work/training/*/*": "writing a checkpoint",
    "work/models/*": "writing a network",
    "work/done/*": "writing a finished fold",
    "work/figures/*": "writing the report",
    "work/predictions.csv*": "writing the tables",
    "work/report.html*": "writing the page",
    "work/metrics.json.*": "writing the metrics",
}
LONGEST = 240  # s of one launch


class Job(NamedTuple):
    """One trial: what runs, and when it is killed."""

    number: int
    which: str  # "A" or "B"
    when: float | tuple[str, float]  # s after the start, or behind the first file of a glob
    second: float | None  # s after the start of the resumed run


class Trials:
    """The trials of a session and what came out."""

    def __init__(self, launcher: Launcher, keep: bool):
        self.launcher, self.keep = launcher, keep
        self.reference, self.seconds = {}, {}
        self.failures: list[str] = []
        self.kills = self.equal = self.ended = 0
        self.lock = threading.Lock()

    def refer(self, which: str) -> None:
        """Runs an experiment twice without any kill."""
        for name in ("first", "second"):
            trial = self.launcher.base / f"reference-{which}-{name}"
            trial.mkdir()
            start = time.time()
            code = self.launcher.whole(which, trial)
            self.seconds[which] = time.time() - start
            if code != 0:
                self.failures.append(f"reference {which}: exit code {code}: {said(trial)[-1:]}")
                return
            found = result(trial)
            if name == "second" and (unlike := differences(self.reference[which], found)):
                self.failures.append(f"reference {which}: two undisturbed runs differ: {unlike}")
            self.reference[which] = found

    def run(self, job: Job) -> None:
        """Kills, resumes and compares."""
        trial = self.launcher.base / f"trial-{job.number:02}-{job.which}"
        trial.mkdir()
        kills = [killed(self.launcher, job.which, trial, job.when)]
        if job.second is not None:
            kills.append(killed(self.launcher, job.which, trial, job.second))
        code = self.launcher.whole(job.which, trial)
        if code == 0:
            unlike = differences(self.reference[job.which], result(trial))
        else:
            unlike = [f"exit code {code}: {said(trial)[-1:]}"]
        words = "; ".join(f"killed {kill}" if kill else "ended before the kill" for kill in kills)
        with self.lock:
            self.kills += sum(kill is not None for kill in kills)
            self.equal += not unlike
            self.ended += 1
            told = f"trial {job.number} {job.which}, {words}: {'; '.join(unlike) or 'equal'}"
            print(told, flush=True)
            if unlike:
                self.failures.append(told)
        if not unlike and not self.keep:
            shutil.rmtree(trial)


def killed(launcher: Launcher, which: str, trial: pathlib.Path, when) -> str | None:
    """Starts a run and kills it; returns when and in which phase, or None if it ended before."""
    process, start = launcher.start(which, trial), time.time()
    pattern, delay = (None, when) if isinstance(when, float) else when
    while process.poll() is None and time.time() - start < LONGEST:
        if pattern and any(trial.glob(pattern)):
            time.sleep(delay)
            break
        if not pattern and time.time() - start >= delay:
            break
        time.sleep(0.0005 if pattern else 0.01)
    if process.poll() is not None:
        return None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    seen = [name for glob, name in PHASES.items() if any(trial.glob(glob))]
    return f"after {time.time() - start:.2f} s ({seen[-1] if seen else 'starting'})"


def draw(count: int, seed: int, only: str, seconds: dict[str, float]) -> list[Job]:
    """Draws the trials: every second one at a moment of a phase, the others at any moment."""
    rng, jobs = random.Random(seed), []
    for i in range(count):
        which = only[i % len(only)]
        when: float | tuple[str, float] = rng.uniform(0.5, 0.97 * seconds[which])
        if i // len(only) % 2:
            # Only B cleans its runs into the store.
            choice = [glob for glob in PHASES if which == "B" or not glob.endswith("npy")]
            place = i // (2 * len(only)) * 5 + 3 + seed
            when = choice[place % len(choice)], rng.uniform(0, 0.03)
        second = rng.uniform(1.0, 0.9 * seconds[which]) if rng.random() < 0.3 else None
        jobs.append(Job(i, which, when, second))
    return jobs


def side_by_side(call, items, workers: int) -> None:
    """Calls a function with every item, some at a time."""
    waiting, lock = iter(items), threading.Lock()

    def work():
        while True:
            with lock:
                if (item := next(waiting, None)) is None:
                    return
            call(item)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main(argv=None) -> int:
    """Runs the tool; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=pathlib.Path)
    parser.add_argument("--kills", type=int, default=22, help="number of trials")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="AB", help="A, B or AB")
    parser.add_argument("--keep", default="", help="folder that is kept")
    args = parser.parse_args(argv)
    end = time.time() + 60 * args.minutes
    base = pathlib.Path(args.keep or tempfile.mkdtemp(prefix="kill9-")).absolute()
    base.mkdir(parents=True, exist_ok=True)
    trials = Trials(Launcher(args.checkout.resolve(), base), bool(args.keep))
    side_by_side(trials.refer, args.only, args.workers)
    times = ", ".join(f"{which} {seconds:.1f} s" for which, seconds in trials.seconds.items())
    print(f"reference runs: {times}", flush=True)
    late = []
    if not trials.failures:
        jobs = draw(args.kills, args.seed, args.only, trials.seconds)

        def attempt(job: Job) -> None:
            if time.time() > end - 1.8 * trials.seconds[job.which]:
                late.append(job)
            else:
                trials.run(job)

        side_by_side(attempt, jobs, args.workers)
    wanted = min(20, args.kills)
    print(
        f"\n{trials.kills} kills in {trials.ended} trials, {trials.equal} ends as the reference, "
        f"{len(trials.failures)} failures, {len(late)} trials left out for time"
    )
    for failure in trials.failures:
        print("FAILED:", failure)
    if trials.kills < wanted:
        print(f"FAILED: {trials.kills} kills; wanted {wanted}")
    failed = bool(trials.failures) or trials.kills < wanted
    if args.keep or failed:
        print("kept:", base)
    else:
        shutil.rmtree(base, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
