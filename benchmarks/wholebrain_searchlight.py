"""Searchlight decoding of a whole brain beside nilearn's SearchLight, in one run.

    pip install -r requirements.txt -r requirements-bench.txt
    python -m benchmarks.wholebrain_searchlight            # 96 samples, 12 folds, 47,500 centres
    python -m benchmarks.wholebrain_searchlight --centres=4000 --peer=40 --rounds=1

Spheres have 6 mm in voxels of 3 mm (33 voxels); there are two classes and 12 runs of 8 samples, one
of which is left out. emojax decodes every centre in float32. nilearn refits scikit-learn's
RidgeClassifier for every fold and centre; it decodes `--peer` centres, with one and with two
processes, and is timed per centre. Both are the same classifier, so their accuracies are compared.
Each measurement is a process of its own, and tools take turns. Times are wall seconds of the
decoding alone; emojax has the first call, which compiles, and a later one. `ratio` is the peer's
best time per centre divided by emojax's median.
"""

import argparse
import json
import pathlib
import statistics
import tempfile
import time

from benchmarks.children import measure, peak_mib
from benchmarks.record import accelerator, keep, make_parser

TOOLS = (
    "emojax, ridge",
    "emojax, LDA",
    "emojax, ridge, 100 permutations",
    "nilearn, RidgeClassifier",
    "nilearn, RidgeClassifier, 2 jobs",
)
SAMPLES, RUNS, RADIUS, VOXEL = 96, 12, 6.0, 3.0
ALPHA = 1.0  # scikit-learn's


def planted(centres):
    """Returns an ellipsoid of about `centres` voxels, and data with a signal in its corner."""
    import numpy as np

    rng = np.random.default_rng(1003)
    half = (centres / (4 / 3 * np.pi)) ** (1 / 3) * np.array([0.9, 1.1, 1 / 0.99])
    axes = [np.arange(-int(h) - 1, int(h) + 2) / h for h in half]
    mask = np.sum([a**2 for a in np.meshgrid(*axes, indexing="ij")], axis=0) < 1
    labels = np.arange(SAMPLES) % 2
    x = rng.standard_normal((SAMPLES, mask.sum()), np.float32)
    x[:, : mask.sum() // 10] += 0.3 * labels[:, None]
    return (
        mask,
        np.diag([VOXEL, VOXEL, VOXEL, 1.0]),
        x,
        labels,
        np.arange(SAMPLES) * RUNS // SAMPLES,
    )


def some(mask, count):
    """Returns a mask of adjacent voxels in the middle, for nilearn's process_mask."""
    import numpy as np

    inside = np.flatnonzero(mask)
    first = (len(inside) - count) // 2
    chosen = np.zeros(mask.size, bool)
    chosen[inside[first : first + count]] = True
    return chosen.reshape(mask.shape)


def emojax_decode(case, mask, affine, x, labels, run):
    import numpy as np

    from emojax import searchlight

    folds = [(np.flatnonzero(run != r), np.flatnonzero(run == r)) for r in range(RUNS)]
    around = searchlight.spheres(mask, affine, RADIUS)
    rng = np.random.default_rng(0)
    many = int(case["tool"].split()[-2]) if "permutations" in case["tool"] else 0
    y = np.stack([labels, *(rng.permutation(labels) for _ in range(many))]) if many else labels
    settings = {"classifier": "lda" if "LDA" in case["tool"] else "ridge", "alpha": ALPHA}

    def call():
        found = searchlight.decode(x, y, folds, around, per_fold=False, **settings)
        return around.fill(np.atleast_2d(found.accuracy)[0])

    return call, len(around)


def nilearn_decode(case, mask, affine, x, labels, run):
    import nibabel as nib
    import numpy as np
    from nilearn.decoding import SearchLight
    from sklearn.linear_model import RidgeClassifier
    from sklearn.model_selection import LeaveOneGroupOut

    volumes = np.zeros((*mask.shape, SAMPLES), np.float32)
    volumes[mask] = x.T
    images = nib.Nifti1Image(volumes, affine)
    chosen = some(mask, case["peer"])
    masks = [nib.Nifti1Image(own.astype(np.int8), affine) for own in (mask, chosen)]
    jobs = 2 if case["tool"].endswith("2 jobs") else 1

    def call():
        made = SearchLight(
            masks[0],
            process_mask_img=masks[1],
            radius=RADIUS,
            estimator=RidgeClassifier(alpha=ALPHA),
            cv=LeaveOneGroupOut(),
            n_jobs=jobs,
        )
        made.fit(images, labels, groups=run)
        return np.where(chosen, made.scores_, np.nan)[mask]

    return call, int(chosen.sum())


def work(case):
    """Times the calls of one case in the child, and prints one line of JSON."""
    import numpy as np

    data = planted(case["centres"])
    ours = case["tool"].startswith("emojax")
    call, centres = (emojax_decode if ours else nilearn_decode)(case, *data)
    times, accuracy = [], np.empty(0)
    for _ in range(1 + ours):
        start = time.perf_counter()
        accuracy = call()
        times.append(time.perf_counter() - start)
    np.save(case["file"], accuracy)
    found = {"centres": centres, "first_seconds": times[0], "seconds": times[-1]}
    print(json.dumps(found | {"peak_mib": peak_mib()}))


def measured(case):
    """Returns one round of one tool from a child process, and the accuracy of each centre."""
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        case = case | {"file": str(pathlib.Path(folder) / "accuracy.npy")}
        return measure("benchmarks.wholebrain_searchlight", case), np.load(case["file"])


def compare(shape, rounds, tools=TOOLS):
    """Returns a row for each tool, from rounds in which all take turns, and their agreement."""
    import numpy as np

    found, accuracy = {tool: [] for tool in tools}, {}
    for _ in range(rounds):
        for tool in tools:
            row, accuracy[tool] = measured(shape | {"tool": tool})
            found[tool].append(row)
            print(tool, row, flush=True)
    rows = []
    for tool, own in found.items():
        seconds = statistics.median(row["seconds"] for row in own)
        rows.append(
            {
                "tool": tool,
                "centres": own[0]["centres"],
                "seconds": seconds,
                "seconds_rounds": [row["seconds"] for row in own],
                "first_seconds": statistics.median(row["first_seconds"] for row in own),
                "per_second": own[0]["centres"] / seconds,
                "peak_mib": max(row["peak_mib"] for row in own),
            }
        )
    peers = [row["per_second"] for row in rows if row["tool"].startswith("nilearn")]
    for row in rows:
        if row["tool"].startswith("emojax") and peers:
            row["ratio"] = row["per_second"] / max(peers)
    both = [own for tool, own in accuracy.items() if "idge" in tool and "permut" not in tool]
    together = np.isfinite(both).all(0)
    differs = [np.abs(own - both[0])[together].max() for own in both]
    return rows, {"compared": int(together.sum()), "largest_difference": float(max(differs))}


def table(rows, agreement):
    """Returns the rows as a table, for the terminal."""
    lines = ["| tool | centres | seconds | first call | centres / s | peak MiB | ratio |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows:
        ratio = f"{row['ratio']:.0f}" if "ratio" in row else ""
        lines.append(
            f"| {row['tool']} | {row['centres']} | {row['seconds']:.1f} "
            f"| {row['first_seconds']:.1f} | {row['per_second']:.0f} | {row['peak_mib']} "
            f"| {ratio} |"
        )
    lines.append(
        f"\nLargest difference of accuracies over {agreement['compared']} centres: "
        f"{agreement['largest_difference']:.3g}"
    )
    return "\n".join(lines)


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--centres", type=int, default=47_500)
    parser.add_argument("--peer", type=int, default=300, help="centres that nilearn decodes")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tools", default="|".join(TOOLS), help="separated by |")
    parser.add_argument("--ours", action="store_true", help="no peers")
    parser.add_argument("--permutations", type=int, default=100)
    parser.add_argument("--keep", action="store_true", help="store in results/wholebrain_*.json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(json.loads(args.worker))
    shape = {"centres": args.centres, "peer": args.peer}
    tools = args.tools.replace("100 permutations", f"{args.permutations} permutations").split("|")
    tools = [tool for tool in tools if tool.startswith("emojax") or not args.ours]
    rows, agreement = compare(shape, args.rounds, tools)
    if args.keep:
        keep(f"wholebrain_{accelerator()[0]}", "searchlight", {"rows": rows, **agreement})
    print(table(rows, agreement))


if __name__ == "__main__":
    main()
