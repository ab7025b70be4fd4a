"""Faults other than kill -9: nothing may be lost, overwritten or silently another number.

    python tests/acceptance/faults.py CHECKOUT [--only REGEX] [--seed 0] [--keep DIR]

A tiny study and Experiment A (`tiny_study.py`). Each check says what must hold; counts and failures
come last. Exit code 0: all hold, and every fault that was to be made was made.
"""

import argparse
import contextlib
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import nibabel as nib
import numpy as np
from kill9 import killed
from tiny_study import Launcher, differences, result, said

KINDS = ("deleted", "emptied", "halved", "one bit", "zeros")


def harm(path: pathlib.Path, kind: str, rng: random.Random) -> None:
    """Damages a file."""
    content = bytearray(path.read_bytes())
    if kind == "deleted":
        path.unlink()
        return
    if kind == "emptied":
        content.clear()
    elif kind == "halved":
        del content[len(content) // 2 :]
    elif content:
        place = rng.randrange(len(content))
        if kind == "one bit":
            content[place] ^= 1 << rng.randrange(8)
        else:
            size = min(16, len(content) - place)
            content[place : place + size] = bytes(size)
    path.write_bytes(content)


class Checks:
    """The session: trials, what was checked, what failed."""

    def __init__(self, launcher: Launcher, only: str, seed: int):
        self.launcher, self.only, self.rng = launcher, only, random.Random(seed)
        self.count, self.failures = 0, []
        self.whole = self.fresh("reference")
        if (code := launcher.whole("A", self.whole)) != 0:
            raise SystemExit(f"the reference run ended with {code}: {said(self.whole)[-1:]}")
        self.reference = result(self.whole)
        self.part = self.interrupted()

    def fresh(self, name: str, like: pathlib.Path | None = None) -> pathlib.Path:
        """Returns the folder of a new trial, empty or a copy of another one."""
        trial = self.launcher.base / re.sub(r"\W+", "-", name)
        shutil.copytree(like, trial) if like else trial.mkdir()
        (trial / "log").write_bytes(b"")
        return trial

    def interrupted(self) -> pathlib.Path:
        """Returns a run that was killed with two checkpoints of its third fold."""
        for attempt in range(6):
            part = self.fresh(f"part-{attempt}")
            killed(self.launcher, "A", part, ("work/training/*-2-0/2.json", 0.0))
            if list(part.glob("work/training/*-2-0/2.json")):
                return part
        raise SystemExit("no run could be stopped between its checkpoints")

    def check(self, name: str, fine: bool, detail: object = "") -> None:
        """Counts and prints a check."""
        self.count += 1
        print(f"{'ok    ' if fine else 'FAILED'} {name}: {detail}", flush=True)
        if not fine:
            self.failures.append(f"{name}: {detail}")

    def same(self, name: str, trial: pathlib.Path, *more: str, refusal: bool = False) -> None:
        """Checks that the command ends with the reference's result, or refuses in one line."""
        code = self.launcher.whole("A", trial, *more)
        lines = said(trial)
        if code == 2 and refusal:
            self.check(name, "Traceback" not in " ".join(lines), lines[-1:])
        elif code != 0:
            self.check(name, False, f"exit {code}: {lines[-1:]}")
        else:
            unlike = differences(self.reference, result(trial))
            self.check(name, not unlike, unlike or "as the reference")

    def refused(self, name: str, code: int, text: str, word: str) -> None:
        """Checks for exit code 2 and one line with a word in it."""
        lines = [line for line in text.splitlines() if line.strip()]
        last = lines[-1] if lines else ""
        fine = code == 2 and word in last and "Traceback" not in text
        self.check(name, fine, f"exit {code}: {last[:200]}")

    def run(self) -> None:
        """Makes every fault whose name matches."""
        for name in [n for n in vars(Checks) if n.startswith("fault_")]:
            if re.search(self.only, name):
                getattr(self, name)()

    # Damage.

    def fault_checkpoint(self) -> None:
        """Damages all files of the newest checkpoint, or one of them."""
        for kind in KINDS:
            for which in ("every", "one"):
                trial = self.fresh(f"checkpoint {kind} {which}", self.part)
                (newest,) = trial.glob("work/training/*-2-0/2")
                found = sorted(p for p in [*newest.rglob("*")] if p.is_file())
                found.append(newest.with_suffix(".json"))
                for path in found if which == "every" else [self.rng.choice(found)]:
                    harm(path, kind, self.rng)
                self.same(f"checkpoint, {which} file {kind}", trial)

    def fault_finished(self) -> None:
        """Damages finished trainings and kept networks."""
        for kind in KINDS:
            for glob in ("done", "models"):
                trial = self.fresh(f"{glob} {kind}", self.part)
                found = sorted(trial.glob(f"work/{glob}/*.npz"))
                for path in found:
                    harm(path, kind, self.rng)
                self.same(f"{len(found)} files of {glob} {kind}", trial)
                if not found:
                    self.check(f"{glob}: files were there to damage", False)

    def fault_store(self) -> None:
        """Damages every file of the store."""
        for kind in KINDS:
            trial = self.fresh(f"store {kind}")
            shutil.copytree(self.whole / "store", trial / "store")
            found = sorted(p for p in (trial / "store").rglob("*") if p.is_file())
            for path in found:
                harm(path, kind, self.rng)
            self.same(f"{len(found)} files of the store {kind}", trial)
        trial = self.fresh("store low bits")
        shutil.copytree(self.whole / "store", trial / "store")
        for path in (trial / "store").glob("*.nii"):
            content = bytearray(path.read_bytes())
            content[400::2] = bytes(byte ^ 0x55 for byte in content[400::2])
            path.write_bytes(content)
        self.same("decoded scans with flipped bits", trial)

    # Other inputs.

    def fault_inputs(self) -> None:
        """Changes the labels, or a scan, while a run is stopped or after it has ended."""
        kept = self.launcher.data
        for name, like in (("stopped", self.part), ("finished", self.whole)):
            for what in ("events", "scan"):
                trial = self.fresh(f"{what} changed {name}", like)
                self.launcher.data = trial / "bids"
                shutil.copytree(kept, self.launcher.data)
                for path in trial.glob("work/*.json"):  # as if it had read the copy
                    text = path.read_text()
                    path.write_text(text.replace(str(kept), str(self.launcher.data)))
                if what == "events":
                    self._swap_labels()
                else:
                    scan, _ = sorted(self.launcher.data.glob("sub-01/func/*_bold.nii.gz"))
                    image = nib.load(scan)
                    values = np.asarray(image.dataobj)[..., ::-1]
                    nib.save(nib.Nifti1Image(values, image.affine, image.header), scan)
                code = self.launcher.whole("A", trial)
                text = (trial / "log").read_text()
                self.refused(f"{what} changed, run {name}", code, text, "sub-01")
        trial = self.fresh("restart", self.whole)
        self.launcher.data = trial / "bids"
        shutil.copytree(kept, self.launcher.data)
        self._swap_labels()
        code = self.launcher.whole("A", trial, "--restart")
        other = self.fresh("restart-fresh")
        self.launcher.whole("A", other)
        self.launcher.data = kept
        a, b = (result(t)["predictions.csv"] for t in (trial, other))
        self.check("--restart on other labels is a new run", code == 0 and a == b, f"exit {code}")

    def _swap_labels(self) -> None:
        for path in self.launcher.data.rglob("sub-*events.tsv"):  # one order for all
            text = path.read_text().replace("neutral", "x").replace("negative", "neutral")
            path.write_text(text.replace("x", "negative"))

    def fault_versions(self) -> None:
        """Resumes a stopped run with another version of jax."""
        trial = self.fresh("version", self.part)
        path = trial / "work" / "run.json"
        text = re.sub(r'"jax": "[^"]*"', '"jax": "0.9.9"', path.read_text())
        path.write_text(text)
        code = self.launcher.whole("A", trial)
        self.refused("another version of jax", code, (trial / "log").read_text(), "0.9.9")

    # Overwriting.

    def fault_overwriting(self) -> None:
        """Checks that folders of others and results of earlier commands stay as they are."""
        launcher = self.launcher
        trial = self.fresh("foreign")
        (trial / "work").mkdir()
        config = trial / "work" / "config.json"
        config.write_text('{"model_type": "of another project"}')
        code = launcher.whole("A", trial)
        kept = "model_type" in config.read_text() and len(list(config.parent.iterdir())) == 1
        self.check("another project's config.json: refused, untouched", code == 2 and kept, code)
        trial = self.fresh("decode", self.whole)
        work = trial / "work"
        before = {p: p.read_bytes() for p in work.rglob("*") if p.is_file()}
        flags = launcher.flags("A", trial)
        done = launcher.call(["--mode=export", *flags])
        self.check("export", done.returncode == 0, done.stderr.strip())
        bundle = f"--bundle={work / 'decoder'}"
        made = {p: p.read_bytes() for p in (work / "decoder").iterdir()}
        done = launcher.call(["--mode=export", *flags, "--subject=02"])
        self.refused("export of a second subject", done.returncode, done.stderr, "subject 01")
        done = launcher.call(["--mode=export", *flags, "--subject=02", f"--bundle={trial / 'b2'}"])
        self.check("export of it elsewhere", done.returncode == 0, done.stderr.strip())
        for mode, subject in (("decode", "01"), ("calibrate", "04")):
            scans = sorted(launcher.data.glob(f"sub-{subject}/func/*_bold.nii.gz"))
            new = [f"--subject={subject}"] if mode == "calibrate" else []
            call = [f"--mode={mode}", bundle, f"--input={scans[0]}", *new]
            done = launcher.call([*call, f"--workdir={work}"])
            self.refused(f"{mode} into the run's workdir", done.returncode, done.stderr, "run")
            for again in (1, 2):
                done = launcher.call([*call, f"--workdir={trial / mode}"])
                self.check(f"{mode} into a folder, {again}", done.returncode == 0, done.stderr)
            new += ["--run=run-02"] if mode == "calibrate" else []
            call = [f"--mode={mode}", bundle, f"--input={scans[1]}", *new]
            done = launcher.call([*call, f"--workdir={trial / mode}"])
            name = f"{mode} of another image into the same folder"
            self.refused(name, done.returncode, done.stderr, "another")
        changed = [p.name for p in before if p.read_bytes() != before[p]]
        changed += [p.name for p in made if p.read_bytes() != made[p]]
        self.check("every file of run and decoder is as before", not changed, changed)

    # Signals.

    def fault_signals(self) -> None:
        """Sends signals at many moments: one line, the right code, soon, and nothing is lost."""
        codes = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143}
        moments = [("", d) for d in (0.3, 0.5, 0.8, 1.5)]  # of the start-up, i.e. the imports
        moments += [("work/config.json", d) for d in (0.1, 0.3, 0.5, 0.8, 1.5)]
        moments += [("work/metrics.jsonl", d) for d in (0.0, 0.2, 0.6)]
        moments += [("work/training/*-1-0/1.json", 0.0), ("work/done/*-3-0.npz", 0.05)]
        for i, (glob, delay) in enumerate(moments):
            number = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)[i % 3]
            self._signal(number, codes[number], glob, delay, resume=i % 4 == 0)
            if number != signal.SIGINT:
                self._signal(signal.SIGINT, 130, glob, delay)
        trial = self.fresh("twice")
        shutil.copytree(self.whole / "store", trial / "store")
        process = self.launcher.start("A", trial)
        _wait(trial, "work/metrics.jsonl", process)
        for _ in range(2):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.02)
        code, took = _ended(process)
        fine = code == 130 and took < 2 and "Traceback" not in " ".join(said(trial))
        self.check("a second Ctrl-C: at once", fine, f"exit {code} after {took:.1f} s")
        self.same("the same command after it", trial)

    def _signal(self, number, wanted: int, glob: str, delay: float, resume: bool = False) -> None:
        name = f"{signal.Signals(number).name} {delay} s behind {glob or 'the start'}"
        trial = self.fresh(name)
        shutil.copytree(self.whole / "store", trial / "store")  # so that reading is over at once
        process = self.launcher.start("A", trial)
        _wait(trial, glob, process)
        time.sleep(delay)
        os.killpg(process.pid, number)
        code, took = _ended(process)
        lines = said(trial)
        if code == 0 and took < 0.5:
            self.check(f"{name}: it had ended", True)
            return
        errors = [x for x in lines if "Traceback" in x or "Error" in x or "ignored" in x]
        fine = code == wanted and took < 6 and not errors
        self.check(name, fine, f"exit {code} after {took:.1f} s: {lines[-1:]}")
        if resume:
            self.same(f"{name}, and the same command", trial)

    # The machine.

    def fault_two(self) -> None:
        """Starts two processes in one workdir."""
        trial = self.fresh("two")
        pair = [self.launcher.start("A", trial) for _ in range(2)]
        codes = sorted(process.wait(240) for process in pair)
        text = (trial / "log").read_text()
        fine = codes == [0, 2] and "at work" in text and "Traceback" not in text
        unlike = differences(self.reference, result(trial)) if 0 in codes else ["no result"]
        self.check("two processes: one refused, one right", fine and not unlike, (codes, unlike))

    def fault_disk(self) -> None:
        """Leaves no room for checkpoints, and makes folders read-only."""
        for size in (10**4, 10**5, 10**6):  # a limit of file sizes stands for a full disk
            trial = self.fresh(f"full {size}")
            process = self.launcher.call(
                self.launcher.flags("A", trial), preexec_fn=lambda size=size: _limit(size)
            )
            self.refused(f"files of {size} bytes", process.returncode, process.stderr, "found")
            self.same("the same command once there is room", trial)
        if os.geteuid():
            for name, part in (("workdir", "work"), ("store", "store")):
                trial = self.fresh(f"read-only {name}")
                (trial / part).mkdir(mode=0o500)
                code = self.launcher.whole("A", trial)
                text = (trial / "log").read_text()
                self.refused(f"a {name} that cannot be written", code, text, str(trial / part))

    def fault_slurm(self) -> None:
        """Runs four tasks of an emulated srun step, which train once, and a batch script."""
        trial = self.fresh("srun")
        step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4"}
        step |= {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "localhost"}
        tasks = [self.launcher.start("A", trial, **step, SLURM_PROCID=str(i)) for i in range(4)]
        codes = [task.wait(240) for task in tasks]
        unlike = differences(self.reference, result(trial)) if codes == [0] * 4 else ["no result"]
        self.check("four tasks of one step", not unlike, (codes, unlike))
        trial = self.fresh("sbatch")
        batch = {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0"}
        process = self.launcher.start("A", trial, **batch)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(240)
        code = process.poll()
        unlike = differences(self.reference, result(trial)) if code == 0 else [f"exit {code}"]
        self.check("a batch script without srun", not unlike, unlike)

    def fault_not_finite(self) -> None:
        """Lets the loss overflow: one line, nothing kept, and a lower rate runs."""
        trial = self.fresh("nan")
        code = self.launcher.whole("A", trial, "--config.train.lr=1e12")
        text = (trial / "log").read_text()
        self.refused("a loss that is no number", code, text, "epoch")
        self.check("nothing is kept of it", not list(trial.glob("work/done/*")))


def _limit(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _wait(trial: pathlib.Path, glob: str, process) -> None:
    while glob and not list(trial.glob(glob)) and process.poll() is None:
        time.sleep(0.005)


def _ended(process) -> tuple[int | str, float]:
    start = time.time()
    try:
        return process.wait(60), time.time() - start
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return "none", time.time() - start


def main(argv=None) -> int:
    """Runs the tool; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=pathlib.Path)
    parser.add_argument("--only", default="", help="regular expression of the faults' names")
    parser.add_argument("--seed", type=int, default=0, help="of the places that are damaged")
    parser.add_argument("--keep", default="", help="folder that is kept")
    args = parser.parse_args(argv)
    base = pathlib.Path(args.keep or tempfile.mkdtemp(prefix="faults-")).absolute()
    base.mkdir(parents=True, exist_ok=True)
    checks = Checks(Launcher(args.checkout.resolve(), base), args.only, args.seed)
    checks.run()
    print(f"\n{checks.count} faults, {len(checks.failures)} failures")
    for failure in checks.failures:
        print("FAILED:", failure)
    if args.keep or checks.failures:
        print("kept:", base)
    else:
        shutil.rmtree(base, ignore_errors=True)
    return 1 if checks.failures or not checks.count else 0


if __name__ == "__main__":
    sys.exit(main())
