"""Plants leaks in a copy of emojax, one at a time, and demands that each is refused.

    python tests/acceptance/leaks.py CHECKOUT [--only NAME] [--every] [--keep DIR] [--data DIR]

A leak is a textual edit of the copy (`planted.py`). `launch.py --mode=plan` then reads, fits the
features, enforces the record and runs the audit, on tiny cohorts. It must end with code 2 and one
line on stderr that names the step: in the first setting that the leak is listed with, or in every
one. Unchanged, the code must pass all settings, and those of the real data in DIR. Counts and
failures come last; exit code 0 where all holds.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import planted
from planted import Leak

PARTS = ("emojax", "configs", "launch.py")
KINDS = {  # the line on stderr that catches a leak
    "record": r"claims to be \w+, but .*step '(STEP)' saw ",
    "audit": r"step '(STEP)' (depends on .* moved|read nothing in fold)",
    "arm": r"is declared leaky at step '(STEP)', but ",
    "guard": r"(STEP).* (was not granted|after the record was closed|is no array of values)",
}


class Ran(NamedTuple):
    """The outcome of a launch."""

    code: int
    lines: list[str]  # on stderr
    seconds: float


def plant(folder: pathlib.Path, leak: Leak) -> None:
    """Edits a copy of the code.

    Raises:
      ValueError: a text to be replaced does not occur exactly once.
    """
    for path, old, new in leak.edits:
        file = folder / path
        text = file.read_text()
        if text.count(old) != 1:
            raise ValueError(f"want once in {path}: {old!r}; got {text.count(old)} times")
        file.write_text(text.replace(old, new))


def copy(checkout: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Copies what a run needs."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for part in PARTS:
        source = checkout / part
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, folder / part)
    return folder


class Launcher:
    """Runs plans one at a time, with one store and one cache of compiled programs."""

    def __init__(self, base: pathlib.Path):
        self.base, self.count = base, 0
        self.environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(base / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }

    def plan(self, code: pathlib.Path, flags) -> Ran:
        """Runs `launch.py --mode=plan` of a copy."""
        self.count += 1
        command = [sys.executable, "launch.py", "--mode=plan", *flags]
        command += [f"--workdir={self.base / 'work' / str(self.count)}"]
        command += [f"--config.data.store={self.base / 'store'}"]
        start = time.time()
        ran = subprocess.run(
            command, cwd=code, env=self.environment, text=True, capture_output=True
        )
        lines = [line for line in ran.stderr.splitlines() if line.strip()]
        return Ran(ran.returncode, lines, time.time() - start)


def flags_of(setting: str) -> list[str]:
    """Returns the command line of a setting."""
    kind, *own = planted.SETTINGS[setting]
    words = (*planted.COMMON[kind], *planted.ALL, *own)
    return [word if word.startswith("--") else f"--config.{word}" for word in words]


def caught(ran: Ran, step: str) -> str:
    """Returns what caught a leak at a step, or ""."""
    if ran.code != 2 or len(ran.lines) != 1:
        return ""
    for kind, pattern in KINDS.items():
        if re.search(pattern.replace("STEP", step), ran.lines[0]):
            return kind
    return ""


def passed(ran: Ran) -> str:
    """Returns how an honest run ended."""
    return "passed" if ran.code == 0 else f"exit {ran.code}: {' '.join(ran.lines[-1:])}"


def lab_vectors(root: pathlib.Path) -> list[str]:
    """Writes white noise in the format of the lab's aligned vectors; returns the flags."""
    rng, rows = np.random.default_rng(0), 5 * 400
    root.mkdir(parents=True, exist_ok=True)
    np.savetxt(root / "X_hyp_v2.csv", rng.standard_normal((rows, 72)), "%.4f", ",")
    np.savetxt(root / "Y_hyp_v2.csv", np.arange(rows) % 3, "%d", ",")
    words = [f"data.source=lab --config.data.root={root}", "data.progress=False", "balance=10"]
    words += ["voxels.keep=70", "baselines=LDA", "align.regimes=none"]  # they have one run each
    return ["--config=configs/expA.py", *" ".join(f"--config.{word}" for word in words).split()]


def real_data(root: pathlib.Path) -> dict[str, list[str]]:
    """Returns the flags of studies that are there."""
    studies = {
        "finger7t": ("finger7t", ("baselines=LDA",)),
        "haxby": ("bids-haxby-1slice", ("baselines=LDA",)),
        "haxby_b": ("bids-haxby-1slice", ("baselines=1-NN", "model.depth=18", "model.width=8")),
    }
    return {
        name: [f"--config=configs/{name}.py", f"--config.data.root={root / folder}"]
        + [f"--config.{word}" for word in (*words, "data.progress=False")]
        for name, (folder, words) in studies.items()
        if (root / folder).exists()
    }


class Report:
    """Counts what held and what did not, line by line."""

    def __init__(self):
        self.held, self.failures = 0, []

    def add(self, name: str, fine: bool, said: str, ran: Ran | None = None) -> None:
        """Prints one check."""
        seconds = f"{ran.seconds:4.0f} s" if ran else "      "
        print(f"{'ok    ' if fine else 'FAILED'} {seconds}  {name}: {said}", flush=True)
        self.held += fine
        if not fine:
            lines = ran.lines[-3:] if ran else []
            self.failures.append("\n         ".join([f"{name}: {said}", *lines]))


def check_unchanged(report: Report, launcher: Launcher, code, data: pathlib.Path) -> None:
    """Checks that unchanged code passes, except for vectors chosen with all subjects' labels."""
    settings = {name: flags_of(name) for name in planted.SETTINGS}
    for name, flags in {**settings, **real_data(data)}.items():
        ran = launcher.plan(code, flags)
        report.add(f"unchanged, {name}", ran.code == 0, passed(ran), ran)
    flags = lab_vectors(launcher.base / "lab")
    ran = launcher.plan(code, flags)
    fine = caught(ran, "alignment of the files") == "record" and "protocols=paper" in ran.lines[0]
    report.add("lab vectors, default protocols", fine, " ".join(ran.lines), ran)
    ran = launcher.plan(code, [*flags, "--config.protocols=paper"])
    report.add("lab vectors, protocols=paper", ran.code == 0, passed(ran), ran)


def check_leak(report: Report, launcher: Launcher, pristine, leak: Leak, every: bool) -> None:
    """Checks that a planted leak is refused in each setting, in one line that names the step."""
    sure = leak not in planted.UNSEEN
    code = copy(pristine, launcher.base / "code")
    try:
        plant(code, leak)
    except (OSError, ValueError) as error:
        report.add(leak.name, False, f"not planted: {error}")
        return
    for setting in leak.where if every else leak.where[:1]:
        ran = launcher.plan(code, flags_of(setting))
        kind = caught(ran, leak.step)
        fine = kind == leak.by if sure else bool(kind) or ran.code == 0
        line = ran.lines[-1] if ran.lines else "passed"
        said = f"{kind or 'NOT CAUGHT'} ({leak.about}) {line}"
        report.add(f"{leak.name}, {setting}", fine, said, ran)


def main(argv=None) -> int:
    """Runs all checks, or those of `--only`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=pathlib.Path)
    parser.add_argument("--only", default="", help="regular expression of names of leaks")
    parser.add_argument("--every", action="store_true", help="every setting of each leak")
    parser.add_argument("--keep", type=pathlib.Path, help="folder that is kept, e.g. for the store")
    parser.add_argument("--data", type=pathlib.Path, help="default: CHECKOUT/../shared/data")
    args = parser.parse_args(argv)
    checkout, start = args.checkout.resolve(), time.time()
    with tempfile.TemporaryDirectory(prefix="leaks-") as temporary:
        launcher = Launcher((args.keep or pathlib.Path(temporary)).resolve())
        report, pristine = Report(), copy(checkout, launcher.base / "pristine")
        if not args.only or re.search(args.only, "unchanged"):
            data = args.data or checkout.parent / "shared" / "data"
            check_unchanged(report, launcher, pristine, data.resolve())
        for leak in (*planted.TEN, *planted.OTHERS, *planted.UNSEEN):
            if re.search(args.only, leak.name):
                check_leak(report, launcher, pristine, leak, args.every)
    print(f"\n{report.held} held, {len(report.failures)} failed, {time.time() - start:.0f} s")
    for failure in report.failures:
        print(f"FAILED {failure}")
    return 1 if report.failures or not report.held else 0


if __name__ == "__main__":
    sys.exit(main())
