"""Time from a closed file to its record: percentiles of `emojax watch`, and a day at a scanner.

    python -m benchmarks.realtime                  # all rows: about 5 minutes on 2 cores
    python -m benchmarks.realtime --rows motion    # some of them
    python -m benchmarks.realtime --day            # 43,200 volumes: a quarter of an hour

There are three processes, as in a lab. The simulator writes files (64 x 64 x 44 voxels, int16) and
notes when it has closed each. `emojax watch` decodes them, with the journal on the disk before each
record is sent. This process reads the journal afterwards. Networks have random weights and the
paper's sizes. `closed to sent` is the time from the simulator's clock after close() to the
journal's `time_sent`. A day is the number of volumes in 24 hours at a TR of 2 s, sent in a quarter
of an hour; it counts lost volumes, the watcher's open files, and the growth of its memory after the
first tenth.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import nibabel as nib
import numpy as np
import psutil

from benchmarks import latency
from benchmarks.record import ROOT, accelerator, keep, kept, make_parser
from benchmarks.tables import speed
from emojax import decoder
from emojax.decoder import bundle
from emojax.online.watching import journal

LENGTH = 40  # volumes of the run, which repeats


class Row(NamedTuple):
    """Settings of one measurement."""

    network: str
    correct: str = "level"
    form: str = "nifti"
    hz: float = 20.0
    volumes: int = 400
    watch: tuple[str, ...] = ()
    simulate: tuple[str, ...] = ()


ROWS = {
    "linear": Row("linear"),
    "cnn1d": Row("cnn1d"),
    "cnn1d, gzip": Row("cnn1d", form="nifti.gz"),
    "cnn1d, DICOM mosaic": Row("cnn1d", form="mosaic"),
    "cnn1d, motion": Row("cnn1d", "motion+level"),
    "cnn1d, polling at 20 ms": Row("cnn1d", watch=("--poll_ms=20",)),
    "resnet3d": Row("resnet3d", hz=4.0, volumes=200),
}
DAY = Row("cnn1d", hz=60.0, volumes=43_200, simulate=("--keep=200",))


def make_linear():
    """Returns a linear decoder of 300 voxels with random weights."""
    mask, rng = latency.volume()[1], np.random.default_rng(1)
    voxels = np.sort(rng.choice(mask.sum(), latency.KEEP, replace=False))
    scale = np.full(latency.KEEP, 800.0), np.full(latency.KEEP, 80.0)
    own = decoder.Member(voxels, *scale, rng.normal(size=(latency.KEEP, 3)), np.zeros(3))
    facts = latency.facts(("a", "b", "c"))
    made = decoder.from_linear(facts, [own], mask=mask, affine=latency.AFFINE)
    return latency.referenced(made)


def command(*words):
    return [sys.executable, "-m", "emojax", *map(str, words)]


def write_run(path):
    """Writes a run that the decoders of `latency` accept."""
    rng, (x, _) = np.random.default_rng(5), latency.volume()
    values = x[..., None] + 8 * rng.standard_normal((*x.shape, LENGTH), np.float32)
    image = nib.Nifti1Image(values.round().astype(np.int16), latency.AFFINE)
    image.header.set_zooms((3.5, 3.5, 3.5, 2.0))
    nib.save(image, path)


def measure(row, folder):
    """Runs simulator and watcher; returns percentiles in ms, and the watcher's use of resources."""
    make = make_linear if row.network == "linear" else latency.MAKERS[row.network]
    bundle.save(make(), folder / "decoder")
    write_run(folder / "run.nii")
    scans, out, closed = folder / "scans", folder / "out", folder / "closed.jsonl"
    scans.mkdir()
    words = (f"--out={out}", f"--correct={row.correct}", f"--volumes={row.volumes}", "--tr=2")
    watch = command("watch", folder / "decoder", scans, *words, "--quiet", "--udp=127.0.0.1:9")
    with subprocess.Popen([*watch, *row.watch], cwd=ROOT, stderr=subprocess.PIPE, text=True) as run:
        said = []
        assert run.stderr is not None  # a pipe
        for line in run.stderr:
            said.append(line)
            if line.startswith("ready"):
                break
        repeats = -(-row.volumes // LENGTH)
        words = ("--tr=2", f"--speed={2 * row.hz}", f"--as={row.form}", f"--repeat={repeats}")
        simulate = command("simulate", folder / "run.nii", scans, *words, f"--log={closed}")
        with subprocess.Popen([*simulate, *row.simulate], cwd=ROOT) as scanner:
            used = list(sampled(run, scanner, row.volumes / row.hz))
        run.wait(600)
        if run.returncode:
            raise SystemExit("".join([*said, *run.stderr]))
    return found(out / journal.NAME, closed) | used_by(used)


def sampled(process, scanner, seconds):
    """Yields memory and open files of a process, a hundred times while the scanner runs."""
    watched = psutil.Process(process.pid)
    while process.poll() is None and scanner.poll() is None:
        with contextlib.suppress(psutil.Error):
            yield watched.memory_info().rss, watched.num_fds(), sum(watched.cpu_times()[:2])
        time.sleep(max(seconds / 100, 0.2))


def used_by(samples):
    """Returns memory growth after the first tenth, open files then and at the end, CPU seconds."""
    early = samples[len(samples) // 10]
    return {
        "rss_growth_mb": round(
            (max(s[0] for s in samples[len(samples) // 10 :]) - early[0]) / 1e6, 1
        ),
        "open_files": [early[1], samples[-1][1]],
        "cpu_s": round(samples[-1][2] - samples[0][2], 1),
    }


def found(path, log):
    """Returns percentiles of a journal, given the simulator's times of closing."""
    lines = journal.verify(path).lines
    closed = {}
    for own in map(json.loads, log.read_text().splitlines()):
        closed[own["volume"]] = max(own["closed"], closed.get(own["volume"], 0))
    volumes = {own["seq"]: own for own in lines if own["kind"] == "volume"}
    sent = {own["seq"]: own for own in lines if own["kind"] == "sent"}
    took = [sent[seq]["time_sent"] - closed[own["volume"]] for seq, own in volumes.items()]
    stages = {
        name: [own["stages_ms"][name] for own in source.values() if name in own["stages_ms"]]
        for name, source in (("wait", volumes), ("decode", volumes), ("journal", sent))
    }
    return {
        "volumes": len(volumes),
        "lost": sum(own["status"] in ("missing", "unreadable") for own in volumes.values()),
        "marked": sum(own["status"] == "marked" for own in volumes.values()),
        "closed_to_sent": percentiles(1e3 * np.array(took)),
        **{name: percentiles(own) for name, own in stages.items()},
    }


def percentiles(values):
    """Returns percentiles in ms."""
    names = ("p50", "p95", "p99")
    found = dict(zip(names, np.percentile(values, (50, 95, 99)).tolist(), strict=True))
    return {name: round(own, 2) for name, own in (found | {"max": float(np.max(values))}).items()}


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--day", action="store_true")
    parser.add_argument("--volumes", type=int, help="of each row; default: 400, of resnet3d 200")
    given = parser.parse_args()
    rows = {"24 hours at TR 2 s": DAY} if given.day else {name: ROWS[name] for name in given.rows}
    if given.volumes:
        rows = {name: row._replace(volumes=given.volumes) for name, row in rows.items()}
    results = {}
    for name, row in rows.items():
        with tempfile.TemporaryDirectory() as folder:
            load = os.getloadavg()[0]
            results[name] = measure(row, pathlib.Path(folder)) | {"load_before": round(load, 2)}
        print(name, json.dumps(results[name]), flush=True)
    file, part = f"realtime_{accelerator()[0]}", "day" if given.day else "rows"
    keep(file, part, results if given.day else kept(file, part) | results)
    print(speed.day(results) if given.day else "\n".join(speed.watched(results)))


if __name__ == "__main__":
    main()
