"""Malformed inputs of every kind: one line on stderr and exit code 2, or it is a failure.

    python tests/acceptance/fuzz.py CHECKOUT [--minutes 30] [--workers 2] [--seed 0]
                                    [--only REGEX] [--keep DIR] [-v]

The python that runs it must have the checkout's requirements. emojax is imported once; a child per
case calls `emojax.cli.launch(argv)` as `launch.py` does. A case MUST be refused (its input cannot
mean anything), MAY be (random damage, which may hit bytes that are never read), or is GOOD: it must
run. Outcomes:

    refused     exit code 2, one line on stderr, no traceback
    accepted    exit code 0, or a first training finished (the child stops there)
    traceback   an unexpected exception
    noisy       refused, but stderr has more than the one line
    hang        no end within the limit
    crash       killed by a signal
    other       another exit code

Failures: traceback, noisy, hang, crash, other; accepted where it MUST be refused; a GOOD input that
is not accepted; and in any case but accepted, something half-written in the workdir or store.
Counts by family come last, then every failure with its place in the code.
"""

import argparse
import collections
import contextlib
import importlib
import os
import pathlib
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from environment import ENV

# Before jax is imported.
os.environ.update(ENV | {"JAX_TRACEBACK_FILTERING": "off"} | os.environ)

import fuzz_arrays
import fuzz_bids
import fuzz_bundles
import fuzz_files
import fuzz_flags
import fuzz_good
import fuzz_inputs
import fuzz_keras
import fuzz_lab
import fuzz_overrides
import fuzz_spm
import numpy as np
from fuzz_cases import GOOD, Case
from fuzz_child import child, failed, judge, place

LIMITS = {GOOD: 150}  # s; trainings may have to be compiled first
LIMIT = 30  # s of other cases
LEAST = 200  # malformed inputs that a run without --only has to try
COLUMNS = ("refused", "accepted", "accepted: NaN", "traceback", "noisy", "hang", "crash", "other")
MODULES = (  # loaded before the children start
    *("cli.commands", "cli.flags", "data.store", "decoder.commands", "experiments.exports.command"),
    *("experiments.experiment_a", "experiments.experiment_b", "models.keras_import"),
    *("sources.arrays", "sources.bids", "sources.lab", "sources.spm", "sources.synthetic"),
    *("training.checkpoint", "training.loop", "report.console", "report.results"),
)


def all_cases(seed: int) -> list[Case]:
    """Returns every case; the seed decides what random damage hits."""
    rng = random.Random(seed)
    parts = (
        fuzz_files.cases(rng),
        fuzz_bids.cases(),
        fuzz_spm.cases(),
        fuzz_lab.cases(),
        fuzz_arrays.cases(seed),
        fuzz_flags.cases(),
        fuzz_overrides.cases(),
        fuzz_bundles.cases(rng),
        fuzz_keras.cases(rng),
        fuzz_good.cases(),
    )
    return [case for part in parts for case in part]


def source_of(case: Case) -> str:
    """Returns the sound input that a case starts from."""
    family = case.family.split(":")[0]
    if family.startswith("override"):
        return "bids"
    return {"flags": "arrays"}.get(family, family)


def place_of(case: Case, rng: random.Random) -> float:
    """Returns a place in the order: controls and what takes long first, trainings rather late."""
    if case.name == "undamaged" or case.name.endswith("fifo"):
        return -1.0
    trains = case.family.startswith("override") and case.rule == GOOD
    return rng.random() ** (0.5 if trains else 1.0)


def make_inputs(good: pathlib.Path, seed: int) -> bool:
    """Writes the sound inputs; those that need jax in a child, as its threads survive no fork."""
    rng = np.random.default_rng(seed)
    for name, make in fuzz_inputs.MAKERS.items():
        make(good / name, rng)
    if (pid := os.fork()) == 0:
        try:
            for name, make in fuzz_inputs.WITH_JAX.items():
                make(good / name, rng)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


class Fuzzer:
    """A pool that runs each case in its own process and counts the outcomes."""

    def __init__(self, cases, base, checkout, workers, keep, verbose):
        self.cases, self.base, self.checkout = cases, base, checkout
        self.workers, self.keep, self.verbose = workers, keep, verbose
        self.running: dict[int, tuple[int, float]] = {}  # pid -> case, start
        self.table = collections.defaultdict(collections.Counter)
        self.failures, self.spent, self.left_out = [], {}, 0
        self.ran = collections.Counter()  # rule -> cases

    def run(self, order, end: float) -> None:
        """Runs the cases in an order; none is begun shortly before the end."""
        queue = collections.deque(order)
        while queue or self.running:
            while queue and len(self.running) < self.workers:
                if time.time() > end - 15:
                    self.left_out += len(queue)
                    queue.clear()
                    break
                self._start(queue.popleft())
            if self.running:
                self._reap()

    def _start(self, i: int) -> None:
        case, folder = self.cases[i], self.base / f"case-{i:04}"
        shutil.copytree(self.base / "good" / source_of(case), folder / "in")
        try:
            case.prepare(folder / "in")
        except Exception as error:
            self.failures.append(f"not prepared: {case.family}: {case.name}: {error!r}")
            return
        if (pid := os.fork()) == 0:
            child(case, folder / "in", folder / "work", folder / "stderr", self.checkout)
        self.running[pid] = (i, time.time())

    def _reap(self) -> None:
        """Judges a child that has ended, or one that is too late."""
        pid, status = os.waitpid(-1, os.WNOHANG)
        timed_out = False
        if pid == 0:
            late = [p for p, (i, start) in self.running.items() if self._is_late(i, start)]
            if not late:
                time.sleep(0.005)
                return
            os.killpg(late[0], signal.SIGKILL)
            pid, status = os.waitpid(late[0], 0)
            timed_out = True
        i, start = self.running.pop(pid)
        case, folder = self.cases[i], self.base / f"case-{i:04}"
        self.spent[f"{case.family}: {case.name}"] = time.time() - start
        ended = judge(status, timed_out, folder / "stderr", folder / "work", folder / "store")
        self._count(case, *ended)
        if not self.keep:
            shutil.rmtree(folder, ignore_errors=True)

    def _is_late(self, i: int, start: float) -> bool:
        return time.time() - start > LIMITS.get(self.cases[i].rule, LIMIT)

    def _count(self, case: Case, found: str, lines, left) -> None:
        self.table[case.family][found] += 1
        self.ran[case.rule] += 1
        name = f"{case.family}: {case.name}"
        if left:
            self.table[case.family]["half-written"] += 1
            self.failures.append(f"half-written: {name}: {left[:3]}")
        if failed(case, found):
            rule = " (must run)" if case.rule == GOOD else ""
            self.failures.append(f"{found}{rule}: {name}: {place(lines)}")
        if self.verbose:
            print(f"{found:12} {name}: {lines[-1][:300] if lines else ''}")

    def report(self, least: int) -> int:
        """Prints counts and failures; returns the exit code."""
        columns = (*COLUMNS, "half-written")
        print(f"\n{'family':18}" + "".join(f"{c:>14}" for c in columns))
        total = sum(self.table.values(), collections.Counter())
        for family in (*sorted(self.table), "all"):
            counts = self.table.get(family, total)
            print(f"{family:18}" + "".join(f"{counts[c]:>14}" for c in columns))
        slow = sorted(self.spent, key=self.spent.get)[-5:]
        print("slowest: " + "; ".join(f"{name} {self.spent[name]:.1f} s" for name in slow))
        malformed = sum(self.ran.values()) - self.ran[GOOD]
        if malformed + (self.ran[GOOD] if least == 1 else 0) < least:
            self.failures.append(f"{malformed} malformed inputs were tried; want {least} or more")
        for failure in sorted(self.failures):
            print("FAILED:", failure)
        counted = f"{malformed} malformed and {self.ran[GOOD]} good inputs"
        print(f"{counted}, {len(self.failures)} failures, {self.left_out} left out for time")
        return 1 if self.failures else 0


def main(argv=None) -> int:
    """Runs the cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=pathlib.Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="regular expression of 'family: name'")
    parser.add_argument("--keep", type=pathlib.Path, help="folder that is kept")
    parser.add_argument("-v", action="store_true", help="print every case")
    args = parser.parse_args(argv)
    end, checkout = time.time() + 60 * args.minutes, args.checkout.resolve()
    base = pathlib.Path(args.keep or tempfile.mkdtemp(prefix="fuzz-")).absolute()
    sys.path.insert(0, str(checkout))
    os.chdir(checkout)
    shutil.rmtree(base, ignore_errors=True)
    (base / "home").mkdir(parents=True)
    os.environ["HOME"] = str(base / "home")  # of the cache of compiled programs
    sys.stdout.reconfigure(line_buffering=True)
    if not make_inputs(base / "good", args.seed):
        print("the good inputs cannot be made")
        return 1
    for name in MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(f"emojax.{name}")
    cases = [c for c in all_cases(args.seed) if re.search(args.only, f"{c.family}: {c.name}")]
    rng = random.Random(args.seed + 1)
    places = [place_of(case, rng) for case in cases]
    order = sorted(range(len(cases)), key=places.__getitem__)
    fuzzer = Fuzzer(cases, base, checkout, args.workers, bool(args.keep), args.v)
    fuzzer.run(order, end)
    code = fuzzer.report(1 if args.only else LEAST)
    if args.keep:
        print("kept:", base)
    else:
        shutil.rmtree(base, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
