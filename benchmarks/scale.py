"""Measurements for large studies: rates of reading batches, and the cost of int8.

    python -m benchmarks.scale               # a minute and 3 GB of disk under --folder

- read: random batches of 64 rows from memory-mapped files in the page cache, converted to float32:
  volumes of 64 x 64 x 44 in int16, and 40,000 voxels of a mask in int8 with a scale for each.
- rounding: logistic regression, one subject left out, on the voxels of the demo's cohort in
  float32, and rounded to int8 (255 steps over 8 sd of each voxel and run).
"""

import pathlib
import shutil
import tempfile
import time

import numpy as np
from sklearn.linear_model import LogisticRegression

from benchmarks.record import keep, make_parser
from configs import expA
from emojax import sources
from emojax.experiments import experiment_a

BATCH, ROUNDS = 64, 3
KINDS = {"int16, whole volume": (2_000, 180_224, np.int16), "int8, mask": (20_000, 40_000, np.int8)}


def rates(folder, rows, width, dtype):
    """Returns volumes and bytes a second of random batches from a file, with the rounds."""
    path = folder / "rows"
    values = np.lib.format.open_memmap(path, "w+", dtype, (rows, width))
    rng = np.random.default_rng(0)
    for start in range(0, rows, 1000):
        part = values[start : start + 1000]
        part[:] = rng.integers(-100, 100, part.shape, dtype=dtype)
    values = np.load(path, mmap_mode="r")
    scale = np.full(width, 0.03, np.float32)
    found = []
    for _ in range(ROUNDS):
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < 2:
            batch = values[np.sort(rng.integers(0, rows, BATCH))]
            batch = batch.astype(np.float32) * scale
            done += BATCH
        found.append(done / (time.perf_counter() - start))
    path.unlink()
    middle = sorted(found)[ROUNDS // 2]
    size = width * np.dtype(dtype).itemsize
    return {"volumes_per_s": middle, "bytes_per_s": middle * size, "bytes": size, "rounds": found}


def rounded(x, run):
    """Returns values rounded as int8, with a scale for each voxel and run."""
    out = np.empty_like(x)
    for number in np.unique(run):
        own = x[run == number]
        mean, step = own.mean(0), np.maximum(own.std(0), 1e-12) * 8 / 255
        out[run == number] = np.clip(np.round((own - mean) / step), -127, 127) * step + mean
    return out


def rounding(folder):
    """Returns mean accuracy with whole and rounded values, and the rounding error in sd."""
    config = expA.get_config("demo")
    config.data.store, config.data.progress = str(folder / "store"), False
    view = experiment_a.view(config, sources.load(config.data))
    mask = np.all([view.inside[name] for name in view.names], axis=0)
    x = view.volumes[np.arange(len(view.labels))][:, mask]
    small, found = rounded(x, view.run_index), {}
    first = view.run_index == 0
    error = np.sqrt(((x - small)[first] ** 2).mean()) / np.sqrt(x[first].var(0).mean())
    for name, values in (("float32", x), ("int8", small)):
        centred = values.copy()
        for number in np.unique(view.run_index):
            own = view.run_index == number
            centred[own] = (values[own] - values[own].mean(0)) / values[own].std(0).clip(1e-9)
        right = []
        for subject in view.names:
            test = view.subject == subject
            model = LogisticRegression(C=1e-4, max_iter=200).fit(centred[~test], view.labels[~test])
            right.append(float(model.score(centred[test], view.labels[test])))
        found[name] = {"accuracy": float(np.mean(right)), "subjects": right}
    assert view.union is not None  # Experiment A has a mask
    whole = int(np.prod(view.union.shape))
    return found | {"error_sd": float(error), "voxels": int(mask.sum()), "of": whole}


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--folder", default=None, help="folder for 3 GB of temporary files")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="emojax-scale-", dir=parser.parse_args().folder))
    try:
        found = {name: rates(folder, *kind) for name, kind in KINDS.items()}
        keep("scale_cpu", "read", found)
        print(found)
        found = rounding(folder)
        keep("scale_cpu", "rounding", found)
        print(found)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
