"""Distribution of the headline's permutation p over many null studies.

    python -m benchmarks.permutation                    # 40 seeds, 99 permutations each
    python -m benchmarks.permutation --seeds=100

Each seed is a study of its own: 5 subjects, 2 runs of 30 volumes in blocks of 3, one order of
blocks for all, 40 voxels of autocorrelated noise (phi = .4) and no response. Experiment A without
alignment (10 voxels by ANOVA, logistic regression, one subject left out) is fitted to it and tested
by `experiments.permutation`. Then p should be uniform (Kolmogorov and Smirnov), and Student's t
interval over folds should cover chance 95 times in 100. A run that was stopped resumes with the
next seed.
"""

import json
import time
from typing import Any

import jax
import numpy as np
from ml_collections import config_dict
from scipy import stats

from benchmarks.record import RESULTS, keep, make_parser
from configs import common
from emojax import statistics
from emojax.data import cohort as cohorts
from emojax.data.run import Run
from emojax.experiments import experiment_a, fits, permutation, refits
from emojax.features import masked
from emojax.provenance import Ledger

SUBJECTS, RUNS, BLOCKS, LENGTH, VOXELS, PHI = 5, 2, 10, 3, 40, 0.4
CLASSES = ("rest", "neutral", "negative")


def make_cohort(seed):
    """Returns a study without a response."""
    rng = np.random.default_rng([2210, seed])
    orders = [np.repeat(rng.permutation(BLOCKS) % 3, LENGTH) for _ in range(RUNS)]
    runs, labels = [], []
    for s in range(SUBJECTS):
        for r, order in enumerate(orders):
            x = rng.normal(size=(len(order), VOXELS))
            for t in range(1, len(x)):
                x[t] = PHI * x[t - 1] + np.sqrt(1 - PHI**2) * x[t]
            runs.append(Run(f"{s + 1:02d}", f"{r + 1}", (100 + x).astype(np.float32), tr=2.0))
            labels.append(order)
    return cohorts.build(runs, CLASSES, labels)


def make_config(seed: int, permutations: int) -> config_dict.ConfigDict:
    config: Any = common.get_config()  # attributes are typed as unions
    config.seed, config.permutations = seed, permutations
    config.align.regimes, config.protocols = "none", "nested"
    config.null_floor, config.baselines = False, "logistic"
    config.voxels.keep, config.balance = 10, 10
    return config


def measure(seed, permutations):
    """Returns the p of one study, and the logistic classifier's balanced accuracy by fold."""
    config, experiment = make_config(seed, permutations), experiment_a.EXPERIMENT
    view = masked.read(make_cohort(seed), {}, "subject")
    arm = experiment_a.arms(config, view.cohort)[0]
    folds = experiment_a.folds(config, view, arm)
    made = [experiment_a.features(config, Ledger(view), f, arm, i) for i, f in enumerate(folds)]
    start = time.perf_counter()
    found = permutation.analyse(experiment, config, view, arm, made)
    seconds = time.perf_counter() - start
    assert found is not None  # permutations > 0
    numbered = [(arm, i, data) for i, data in enumerate(made)]
    fitted = fits.fit_classifiers(experiment, config, numbered, workers=1)
    scores = [
        refits.balanced(view, [data.fold], [fitted[arm.name, i]["logistic"].predicted])
        for i, data in enumerate(made)
    ]
    assert np.isclose(np.mean(scores), found["observed"])
    kept = {name: found[name] for name in ("p", "observed", "scheme", "blocks")}
    null = {"null_mean": float(np.mean(found["null"])), "null_sd": float(np.std(found["null"]))}
    return {"seed": seed} | kept | null | {"folds": scores, "seconds": round(seconds, 2)}


def summarise(studies, permutations):
    p = np.array([study["p"] for study in studies])
    interval = statistics.mean_interval(np.array([study["folds"] for study in studies]).T)
    chance = 1 / len(CLASSES)
    seconds = sum(study["seconds"] for study in studies)
    inside = (interval.low <= chance) & (chance <= interval.high)
    return {
        "studies": len(p),
        "ks_p": float(stats.kstest(p, "uniform").pvalue),
        "p_at_most_05": int((p <= 0.05).sum()),
        "covers": int(inside.sum()),
        "mean": float(np.mean([study["observed"] for study in studies])),
        "null_mean": float(np.mean([study["null_mean"] for study in studies])),
        "seconds_per_permutation": seconds / len(p) / (1 + permutations),
    }


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--permutations", type=int, default=99)
    args = parser.parse_args()
    unfinished = RESULTS / f"permutation_{args.permutations}.part"  # one study per line
    lines = unfinished.read_text().splitlines() if unfinished.exists() else []
    done = [json.loads(line) for line in lines]
    for seed in range(len(done), args.seeds):
        done.append(measure(seed, args.permutations))
        print(done[-1], flush=True)
        with open(unfinished, "a", encoding="utf-8") as file:
            file.write(json.dumps(done[-1]) + "\n")
    results = {"summary": summarise(done, args.permutations), "studies": done}
    print(results["summary"])
    keep(f"permutation_{jax.default_backend()}", f"{args.permutations} permutations", results)
    unfinished.unlink()


if __name__ == "__main__":
    main()
