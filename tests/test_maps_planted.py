"""Maps against what the simulated cohort has planted: ROC AUC of their size, voxel by voxel."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from configs import expA
from emojax import maps, sources
from emojax.experiments import experiment_a
from emojax.experiments.own_space import ways_of
from emojax.provenance import Ledger
from emojax.scoring import baselines, weights
from emojax.sources import synthetic
from emojax.sources.synthetic_signals import TISSUE

CLEAR = 0.005 * TISSUE  # scanner units, rms over classes: 0.5 % of the mean of the brain
SEEDS = 8


def auc(values, truth):
    """Returns the AUC of a map's size [v, classes] for voxels with a clear response."""
    clear = np.sqrt((truth**2).mean(1)) > CLEAR
    return roc_auc_score(clear, np.sqrt((np.asarray(values) ** 2).mean(1)))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Returns the demo's cohort at the default signal: config, view, and the planted response."""
    config = expA.get_config("demo")
    config.data.store = str(tmp_path_factory.mktemp("maps") / "store")
    config.data.progress = False
    config.update({"headline": "network", "protocols": "nested", "baselines": "logistic"})
    config.voxels.keep, config.align.regimes = 1000, "independent_runs"
    view = experiment_a.view(config, sources.load(config.data))
    truth = {name: synthetic.planted(config.data, name)[view.union] for name in view.names}
    return config, view, truth


@pytest.mark.slow
def test_what_is_planted(study):
    config, view, truth = study
    one = truth["01"]
    np.testing.assert_allclose(one.sum(1), 0, atol=1e-3)
    y, x = view.labels[view.rows("01")], view.volumes[view.rows("01")]
    found = np.stack([x[y == k].mean(0) - x.mean(0) for k in range(3)], 1)
    inside = view.inside["01"]
    agreement = [np.corrcoef(found[inside, k], one[inside, k])[0, 1] for k in range(3)]
    assert min(agreement) > 0.5
    whole = synthetic.planted(config.data, "01")
    assert whole.shape == (32, 32, 22, 3) and not whole[0, 0, 0].any()


@pytest.mark.slow
def test_patterns_in_the_voxels_that_a_decoder_reads(study):
    config, view, truth = study
    arm = experiment_a.arms(config, view.cohort)[0]
    fold = experiment_a.folds(config, view, arm)[0]
    data = experiment_a.features(config, Ledger(view), fold, arm, 0)
    (job,) = experiment_a.jobs(config, data, ("logistic",))
    coef = np.float32(weights.of(baselines.fit(job).model).params[0]["coef"])
    made, x = data.notes["made"], data.read(np.unique(fold.train))
    names = list(dict.fromkeys(view.units[fold.train].tolist()))

    def scores(coef):
        pattern = maps.haufe(coef, x)
        own = [maps.patterns_to_source(pattern, way, made.scaler[1]) for way in ways_of(data)]
        pairs = zip(names, own, strict=True)
        return np.mean([auc(values, truth[name][made.voxels]) for name, values in pairs])

    keys = jax.random.split(jax.random.key(0), SEEDS)
    random = np.mean([scores(maps.randomised(coef, key)) for key in keys])
    assert scores(coef) > 0.9
    assert abs(random - 0.5) < 0.12


@pytest.mark.slow
def test_patterns_of_a_decoder_of_the_whole_mask(study):
    _, view, truth = study
    inside = np.all(list(view.inside.values()), axis=0)
    parts = [view.volumes[view.rows(name)][:, inside] for name in view.names]
    x = np.concatenate([part - part.mean(0) for part in parts])
    y = np.concatenate([view.labels[view.rows(name)] for name in view.names])
    sd = x.std(0)
    model = LogisticRegression(C=1e-3, class_weight="balanced", max_iter=200).fit(x / sd, y)
    coef, mean = np.float32(model.coef_.T), np.mean(list(truth.values()), axis=0)[inside]

    def pattern(coef):
        return np.asarray(maps.haufe(coef, x / sd)) * sd[:, None]

    real = pattern(coef)
    keys = jax.random.split(jax.random.key(0), SEEDS)
    random = np.stack([pattern(maps.randomised(coef, key)) for key in keys])
    assert auc(real, mean) > 0.95 and auc(real, 2 * mean) > 0.9  # from 0.25 % on
    assert auc(maps.against_random(real, random), mean) > 0.9
    others = (np.delete(random, i, axis=0) for i in range(SEEDS))
    ratios = [maps.against_random(one, rest) for one, rest in zip(random, others, strict=True)]
    assert abs(np.mean([auc(ratio, mean) for ratio in ratios]) - 0.5) < 0.1
    assert abs(np.mean([auc(one / sd[:, None], mean) for one in random]) - 0.5) < 0.15
