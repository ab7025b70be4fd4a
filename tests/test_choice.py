"""The choice between bag and network on inner folds."""

import numpy as np
import pytest
from small_studies import NAMES, make_cohort, make_values, read
from test_bag import small

from emojax.errors import InputError
from emojax.experiments import choice, experiment_a, fits
from emojax.experiments.base import check_arms
from emojax.provenance import Ledger

VALUES, LABELS = make_values()


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """Fits classical classifiers in this process."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")


def chosen_for(values, labels, names=NAMES, number=0, **changes):
    """Returns the choice for one fold."""
    config = small(headline="auto", inner=2, **changes)
    config.train.epochs, config.align.regimes = 2, "none"
    view = read(make_cohort(values, labels, names, tr=2.0))
    arms = check_arms(experiment_a.arms(config, view.cohort))
    bag, network = arms[1], next(arm for arm in arms if not arm.decoder)
    fold = experiment_a.folds(config, view, bag)[number]
    data = experiment_a.features(config, Ledger(view), fold, bag, number)
    plan = fits.Plan(
        experiment_a.EXPERIMENT.program(config, 3), config.train, False, False, 2, 2, "loop"
    )
    ask = experiment_a.EXPERIMENT, config, view, plan, bag, network, [data], fits.NoStore()
    return choice.choose(*ask)[0]


@pytest.mark.slow
def test_the_better_decoder_of_inner_folds_is_chosen():
    found = chosen_for(VALUES, LABELS)
    better = max(found.inner, key=lambda name: (found.inner[name], name == "bag"))
    assert found.chosen == better


def test_nothing_of_the_scored_subject_can_change_the_choice():
    rng = np.random.default_rng(0)
    other = VALUES.copy()
    other[0] = rng.normal(size=other[0].shape)
    labels = [rng.permutation(LABELS), *[LABELS] * 4]
    assert chosen_for(other, labels) == chosen_for(VALUES, LABELS)
    assert chosen_for(other, labels, number=1) != chosen_for(VALUES, LABELS, number=1)


def test_too_few_subjects_for_inner_folds_are_one_line():
    choice.check(read(make_cohort(VALUES, LABELS)))
    with pytest.raises(InputError, match="subjects or runs: found 4; expected at least 5 to"):
        choice.check(read(make_cohort(VALUES[:4], LABELS, NAMES[:4])))
