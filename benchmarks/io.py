"""Speed and memory of reading data, beside gzip.

    python -m benchmarks.io                  # about 4 minutes and 8 GB of disk under --folder

- decode: runs of 64 x 64 x 44 x 200 int16 .nii.gz into the store, beside `gzip -dc` of the same
  files into /dev/null, one process per core. They take turns, and files are in the page cache.
- second_load: `sources.load` of 22 such runs (4400 volumes) as BIDS once they are in the store, in
  a process of its own: wall seconds of the call, resident memory of the whole process.
- labels: events -> one class per volume for 1000 runs of 200 volumes, reading the tables included.
"""

import gzip
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import nibabel as nib
import numpy as np

from benchmarks.record import keep, make_parser
from emojax.data import events, windows
from emojax.data.label_map import labelling
from emojax.data.labels import assign
from emojax.data.store import Store

SHAPE, TR = (64, 64, 44, 200), 2.0
SUBJECTS = 11
EVENTS = "onset\tduration\ttrial_type\n" + "".join(
    f"{20 + 40 * i}\t20\t{('neutral', 'negative')[i % 2]}\n" for i in range(9)
)


def make_study(root):
    """Writes 11 subjects x 2 runs: noise in a smooth head, which compresses about as scans do."""
    rng = np.random.default_rng(0)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE[:3]), indexing="ij")
    head = (900 * np.exp(-2 * (x**2 + y**2 + z**2)))[..., None]
    noise = rng.normal(0, 20, SHAPE).astype(np.float32)
    for subject in range(1, SUBJECTS + 1):
        folder = root / f"sub-{subject:02}" / "func"
        folder.mkdir(parents=True)
        for run in (1, 2):
            shift = 17 * subject + 5 * run, 3 * subject + run  # in time, and in space: no copies
            values = head + np.roll(noise, shift, axis=(3, 0)) * (head > 100)
            image = nib.Nifti1Image(values.astype(np.int16), np.diag([3.0, 3, 3, 1]))
            image.header.set_zooms((3, 3, 3, TR))
            image.header.set_xyzt_units("mm", "sec")
            stem = folder / f"sub-{subject:02}_task-emotion_run-{run:02}"
            with gzip.open(f"{stem}_bold.nii.gz", "wb", compresslevel=6) as file:
                file.write(image.to_bytes())
            pathlib.Path(f"{stem}_events.tsv").write_text(EVENTS)
    (root / "task-emotion_bold.json").write_text(json.dumps({"RepetitionTime": TR}))
    return root


def gzip_seconds(files, cores):
    """Returns the wall seconds of gzip over all files, one process per core."""
    start = time.perf_counter()
    shares = [files[i::cores] for i in range(cores)]
    running = [
        subprocess.Popen(["gzip", "-dc", *map(str, share)], stdout=subprocess.DEVNULL)
        for share in shares
    ]
    assert all(process.wait() == 0 for process in running)
    return time.perf_counter() - start


def store_seconds(files, folder):
    """Returns the wall seconds of reading the files into an empty store."""
    shutil.rmtree(folder, ignore_errors=True)
    start = time.perf_counter()
    Store(folder).images(files)
    return time.perf_counter() - start


def run_decode(root, folder, rounds=3):
    files = sorted(root.glob("sub-*/func/*.nii.gz"))[:4]
    cores = len(os.sched_getaffinity(0))
    gzip_seconds(files, cores)  # into the page cache
    pairs = [(gzip_seconds(files, cores), store_seconds(files, folder)) for _ in range(rounds)]
    theirs, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {
        "files": len(files),
        "bytes_decoded": len(files) * int(np.prod(SHAPE)) * 2,
        "gzip_s": theirs,
        "store_s": ours,
        "rounds": pairs,
        "speed_over_gzip": statistics.median(a / b for a, b in pairs),
    }


LOAD = """
import sys, time
from configs import common
from emojax import sources
config = common.get_config()
config.data.update({"source": "bids", "root": sys.argv[1], "store": sys.argv[2], "progress": False})
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
sources_before = resident()
start = time.perf_counter()
cohort = sources.load(config)
seconds = time.perf_counter() - start
print(len(cohort.runs) * len(cohort.runs[0].frames), seconds, sources_before, resident())
"""


def run_second_load(root, folder, rounds=3):
    def load():
        command = [sys.executable, "-c", LOAD, str(root), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [float(word) for word in done.stdout.split()]

    first = load()
    later = [load() for _ in range(rounds)]
    volumes, seconds, before, after = (statistics.median(c) for c in zip(*later, strict=True))
    return {
        "volumes": int(volumes),
        "first_s": first[1],
        "second_s": seconds,
        "resident_mb_before": before,
        "resident_mb": after,
    }


def run_labels(folder, runs=1000):
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i}_events.tsv" for i in range(runs)]
    for path in paths:
        path.write_text(EVENTS)
    start = time.perf_counter()
    tables = [events.read(path, "trial_type") for path in paths]
    labels = labelling(tables, "rest=;neutral=neutral;negative=negative", "trial_type")
    for table in tables:
        assign(table, labels, events.Timing(), windows.regular(SHAPE[3], TR))
    return {"runs": runs, "seconds": time.perf_counter() - start}


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--folder", default="/tmp/emojax-io", help="scratch, removed at the end")
    folder = pathlib.Path(parser.parse_args().folder)
    if folder.exists():
        parser.error(f"{folder} exists; want a folder that can be removed")
    try:
        root = make_study(folder / "study")
        parts = {
            "decode": lambda: run_decode(root, folder / "decoded"),
            "second_load": lambda: run_second_load(root, folder / "store"),
            "labels": lambda: run_labels(folder / "tables"),
        }
        for name, part in parts.items():
            results = part()
            keep("io_cpu", name, results)
            print(name, json.dumps(results))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
