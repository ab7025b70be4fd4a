"""A study of five people that trains in seconds, and launches of Experiments A and B on it."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
from environment import ENV

COMMON = (
    "--config.data.progress=False",
    "--config.data.source=bids",
    "--config.null_floor=False",
    "--config.permutations=3",
    "--config.train.epochs=3",
    "--config.train.checkpoint_epochs=1",
)
FLAGS = {
    "A": (
        "--config=configs/expA.py:demo",
        "--config.data.label_map=rest=;neutral=neutral;negative=negative",
        "--config.data.subjects=01,02,03,04",
        "--config.voxels.keep=56",
        "--config.balance=8",
        "--config.baselines=logistic",
        "--config.protocols=nested",
        "--config.align.regimes=independent_runs",
        "--config.leaks=False",
        *COMMON,
    ),
    "B": (
        "--config=configs/expB.py:demo",
        "--config.data.label_map=neutral=neutral;negative=negative",
        "--config.fractions=(0.4,0.2,0.4)",
        "--config.folds=1",
        "--config.model.depth=18",
        "--config.model.width=4",
        "--config.baselines=1-NN",
        "--config.floor_baselines=",
        "--config.splits=by_subject,random",
        *COMMON,
    ),
}


def make(root: pathlib.Path) -> None:
    """Writes 5 subjects x 2 runs x 60 volumes of 16 x 16 x 12, two classes and rest.

    The order of the blocks is the same for all subjects.
    """
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in (16, 16, 12)), indexing="ij")
    brain = sum(a**2 for a in axes) < 0.8
    pattern = rng.normal(size=(2, *brain.shape))
    root.mkdir(parents=True)
    (root / "dataset_description.json").write_text('{"Name": "tiny", "BIDSVersion": "1.8.0"}')
    orders = {1: rng.permutation([0, 1, 0, 1]), 2: rng.permutation([1, 0, 1, 0])}
    for subject in range(1, 6):
        folder = root / f"sub-{subject:02}" / "func"
        folder.mkdir(parents=True)
        for run, order in orders.items():
            stem = folder / f"sub-{subject:02}_task-emo_run-{run:02}"
            x = brain[..., None] * (800 + 10 * rng.normal(size=(*brain.shape, 60)))
            lines = ["onset\tduration\ttrial_type"]
            for block, kind in enumerate(order):
                onset = 10 + 28 * block
                lines.append(f"{onset}\t14\t{('neutral', 'negative')[kind]}")
                first = (onset + 5) // 2
                x[..., first : first + 7] += 8 * (brain * pattern[kind])[..., None]
            image = nib.Nifti1Image(x.clip(0).astype(np.int16), np.diag([12.0, 12, 11, 1]))
            image.header.set_zooms((12, 12, 11, 2))
            image.header.set_xyzt_units("mm", "sec")
            nib.save(image, f"{stem}_bold.nii.gz")
            pathlib.Path(f"{stem}_events.tsv").write_text("\n".join(lines) + "\n")


class Launcher:
    """Launches `launch.py` of a checkout; a trial is a folder with a workdir, a store and a log."""

    def __init__(self, checkout: pathlib.Path, base: pathlib.Path):
        """Args: the checkout, and the folder of data, home and trials."""
        self.checkout, self.base = checkout, base
        self.data, self.home = base / "bids", base / "home"
        make(self.data)
        self.home.mkdir()

    def environment(self, **more: str) -> dict[str, str]:
        """Returns the variables of a launch."""
        own = {"HOME": str(self.home), "PYTHONPATH": str(self.checkout)}
        return os.environ | ENV | own | more

    def flags(self, which: str, trial: pathlib.Path) -> list[str]:
        """Returns the flags of an experiment on the study."""
        return [*FLAGS[which], f"--config.data.root={self.data}", f"--workdir={trial / 'work'}"]

    def start(self, which: str, trial: pathlib.Path, *more: str, **variables: str):
        """Starts an experiment in its own session; its output goes to the trial's log."""
        with open(trial / "log", "ab") as log:
            return subprocess.Popen(
                [sys.executable, "launch.py", *self.flags(which, trial), *more],
                cwd=self.checkout,
                env=self.environment(**variables),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_hear_interrupts,
            )

    def whole(self, which: str, trial: pathlib.Path, *more: str, timeout: float = 240) -> int | str:
        """Runs an experiment to its end; returns the exit code, or "timeout"."""
        process = self.start(which, trial, *more)
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return "timeout"

    def call(self, flags: Sequence[str], **more: Any) -> subprocess.CompletedProcess:
        """Runs `launch.py` with these flags."""
        return subprocess.run(
            [sys.executable, "launch.py", *flags],
            cwd=self.checkout,
            env=self.environment(),
            capture_output=True,
            text=True,
            **more,
        )


def _hear_interrupts() -> None:
    """Undoes what shells do to jobs in the background, whose children ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def said(trial: pathlib.Path) -> list[str]:
    """Returns the lines of a trial's log."""
    lines = (trial / "log").read_text(errors="replace").splitlines()
    return [line for line in lines if line.strip()]


def result(trial: pathlib.Path) -> dict[str, Any]:
    """Returns everything that must be equal after a kill, and the names of the files there are."""
    work = trial / "work"

    def text(name: str) -> str:
        return (work / name).read_text().replace(str(trial), "TRIAL")

    metrics = json.loads(text("metrics.json"))
    out: dict[str, Any] = {"metrics.json": json.dumps(_without_time(metrics), sort_keys=True)}
    for name in ("predictions.csv", "curves.json", "counts.csv", "config.json"):
        out[name] = text(name)
    run = json.loads(text("run.json"))
    out["run.json"] = json.dumps({k: v for k, v in run.items() if k != "stamps"}, sort_keys=True)
    page = re.sub(r"<p>Time: [^<]*</p>|data:image/png;base64,[^\"]*", "", text("report.html"))
    out["report.html"] = re.sub(r"\d+\.\d+ ?s\b", "", page)
    for path in sorted(work.glob("*.nii.gz")):
        out[path.name] = path.read_bytes()
    for path in sorted([*work.glob("models/*.npz"), *work.glob("done/*.npz")]):
        with np.load(path, allow_pickle=False) as arrays:
            out[str(path.relative_to(work))] = {k: arrays[k].tobytes() for k in arrays.files}
    found = [p for p in trial.rglob("*") if p.is_file() or not any(p.iterdir())]
    out["files"] = sorted({str(path.relative_to(trial)) for path in found} - {"log"})
    return out


def differences(reference: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Returns what differs between two results, in words."""
    out = []
    for name in sorted(reference.keys() | found.keys()):
        a, b = reference.get(name), found.get(name)
        if name == "files":
            missing, more = sorted(set(a) - set(b)), sorted(set(b) - set(a))
            if missing or more:
                out.append(f"files: missing {missing}, left over {more}")
        elif a != b:
            out.append(f"{name} differs" if a is not None and b is not None else f"{name} missing")
    return out


def _without_time(node: Any) -> Any:
    if isinstance(node, dict):
        skip = ("seconds", "peak_bytes")
        return {k: _without_time(v) for k, v in node.items() if k not in skip}
    return [_without_time(v) for v in node] if isinstance(node, list) else node
