"""Coverage of the 95 % interval over folds, on null folds of the pipeline itself.

    python -m benchmarks.intervals                              # both regimes, 40 seeds each
    python -m benchmarks.intervals --regimes=none --seeds=100

Experiment A's demo (6 simulated subjects, one left out in each fold) on a draw of its noise floor
(`null=True`: random phases), another one for each seed, so that chance is the true accuracy. Folds
share training subjects, so an interval made for independent folds need not cover it. For each seed
the balanced accuracy of the logistic classifier gets Student's t over the folds
(`statistics.mean_interval`, as in reports) and the percentile bootstrap, which 0.3.0 printed. Both
counts have their own 95 % interval (Clopper and Pearson): 40 seeds tell .95 from .80, but not from
.90. The network is small, trained for one epoch, and neither scored nor audited here.
"""

import contextlib
import io
import pathlib
import tempfile

import jax
import numpy as np
from scipy import stats

from benchmarks.record import keep, make_parser
from configs import expA
from emojax import experiments, sources, statistics


def make_config(regime, seed, store):
    config = expA.get_config("demo")
    config.seed = seed
    config.null, config.null_floor, config.audit = True, False, False
    config.protocols, config.leaks = "nested", False
    config.align.regimes = regime
    config.baselines = "logistic"
    config.model.filters, config.model.dense = (2,) * 6, (8,)
    config.train.epochs, config.train.checkpoint_epochs = 1, 1
    config.train.keep_models = False
    config.data.progress, config.data.store = False, str(store)
    return config


def null_folds(regime, seed, cohort):
    """Returns the logistic classifier's balanced accuracy in each fold of one run on noise."""
    with tempfile.TemporaryDirectory() as root:
        config = make_config(regime, seed, pathlib.Path(root, "store"))
        with contextlib.redirect_stdout(io.StringIO()):
            result = experiments.run(config, pathlib.Path(root, "run"), cohort=cohort)
    assert result is not None  # one process
    (arm,) = (arm for arm in result.metrics["arms"] if arm["name"] == "nested")
    assert arm["regime"] == regime
    return [fold["baselines"]["logistic"]["balanced_accuracy"] for fold in arm["folds"]]


def coverage(interval, chance):
    inside = (interval.low <= chance) & (chance <= interval.high)
    hits, count = int(inside.sum()), len(inside)
    limits = stats.binomtest(hits, count).proportion_ci(0.95)
    width = float((interval.high - interval.low).mean())
    return {"covers": hits, "of": count, "ci95": [limits.low, limits.high], "mean_width": width}


def summarise(regime, folds, chance):
    """Returns coverage in one regime, from accuracies [seeds][folds]."""
    values = np.array(folds).T
    key = jax.random.key(0)
    return {
        "regime": regime,
        "chance": chance,
        "folds": len(values),
        "mean": float(values.mean()),
        "sd_of_means": float(values.mean(0).std(ddof=1)),
        "student_t": coverage(statistics.mean_interval(values), chance),
        "bootstrap": coverage(statistics.bootstrap_interval(key, values), chance),
        "balanced_accuracy": folds,
    }


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--regimes", default="none,independent_runs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as store:
        cohort = sources.load(make_config("none", 0, store).data)
        results = []
        for regime in args.regimes.split(","):
            folds = []
            for seed in range(args.seeds):
                folds.append(null_folds(regime, seed, cohort))
                print(regime, seed, " ".join(f"{value:.3f}" for value in folds[-1]), flush=True)
            results.append(summarise(regime, folds, 1 / len(cohort.classes)))
            print({k: v for k, v in results[-1].items() if k != "balanced_accuracy"}, flush=True)
    keep(f"intervals_{jax.default_backend()}", "intervals", results)


if __name__ == "__main__":
    main()
