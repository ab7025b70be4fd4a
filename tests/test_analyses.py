"""The plan of the analyses: refusals before the training, and estimated costs."""

import numpy as np
import pytest
from small_studies import make_cohort, make_values, read

from emojax.errors import InputError
from emojax.experiments import analyses, experiment_a
from emojax.provenance import Ledger

VALUES, Y = make_values()


def check(config, **options):
    cohort = make_cohort(VALUES, Y, tr=2.0)
    view, arm = read(cohort), experiment_a.arms(config, cohort)[0]
    folds = experiment_a.folds(config, view, arm)
    made = [experiment_a.features(config, Ledger(view), f, arm, i) for i, f in enumerate(folds)]
    return analyses.check(experiment_a.EXPERIMENT, config, view, arm, made, **options)


@pytest.fixture
def small(config):
    """Returns settings for these vectors."""
    config.update({"protocols": "nested", "baselines": "logistic", "null_floor": False})
    config.update({"balance": 8, "headline": "network", "permutations": -1, "design": True})
    config.voxels.keep, config.align.regimes = 20, "none"
    return config


def test_the_plan_names_what_is_asked_and_its_cost(small, monkeypatch):
    monkeypatch.setattr(analyses.joblib, "cpu_count", lambda: 2)
    said = check(small, seconds=4.0)
    assert said == (
        "analyses: design, permutation; 99 permutations through the pipeline: up to 3 min"
    )
    assert check(small) == said.removesuffix(": up to 3 min")
    small.permute = "network"
    assert check(small).endswith(
        "99 permutations through the pipeline, each as long as all trainings of nested"
    )
    small.permutations = 0
    assert check(small) == "analyses: design"
    small.design = False
    assert check(small) == ""


def test_too_many_permutations_are_refused_before_the_training(small):
    small.permutations = 10**5
    short = make_cohort(VALUES[:, :24], np.repeat([0, 1, 2], 8), tr=2.0)
    view, arm = read(short), experiment_a.arms(small, short)[0]
    with pytest.raises(InputError, match="3 blocks have 5 other orders"):
        analyses.check(experiment_a.EXPERIMENT, small, view, arm, ())
