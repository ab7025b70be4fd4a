"""Designs that cannot answer a question: each ends with one line that says what to do."""

import dataclasses

import hand_made
import numpy as np
import pytest
from small_studies import make_cohort, make_values, read

from configs import common
from emojax.errors import InputError
from emojax.experiments import analyses, crossed, experiment_a, experiment_b, permutation

VALUES, _ = make_values()


def refused(ask, *parts):
    """Checks that a question is refused in one line."""
    with pytest.raises(InputError) as caught:
        ask()
    said = str(caught.value)
    assert "\n" not in said and all(part in said for part in parts), said


def one_block_each(**changes):
    """Returns settings and a study of one run, each class in one block, in one order for all."""
    config = common.get_config()
    config.align.regimes, config.voxels.keep, config.headline = "none", 10, "network"
    config.update(changes)
    cohort = make_cohort(VALUES[:, :24], np.repeat([0, 1, 2], 8), tr=2.0)
    return config, read(cohort), experiment_a.arms(config, cohort)[0]


def test_one_block_per_class_and_run_has_few_orders():
    config, view, arm = one_block_each(permutations=99)
    refused(
        lambda: analyses.check(experiment_a.EXPERIMENT, config, view, arm, ()),
        "permutations: found 99, but blocks within runs, one order for all subjects",
        "3 blocks have 5 other orders; expected at most 5, for p of 0.17 or more",
        "--config.permutations=5",
    )
    config, view, arm = one_block_each()  # nothing was asked for: as many as there are
    found = permutation.design(config, view, arm)
    assert len(permutation.arrangements(config, view, arm, found, ())) == 5


def test_one_block_per_class_and_run_cannot_be_split_by_block():
    cohort = hand_made.make_cohort(4, runs=1, volumes=12)
    config = common.get_config("B")
    config.splits, config.model.name = "by_block", "strangers:Volumes"
    arm = experiment_b.EXPERIMENT.arms(config, cohort)[0]
    refused(
        lambda: experiment_b.EXPERIMENT.folds(config, cohort, arm),
        "split by_block",
        "expected more volumes, runs or subjects",
    )


def test_a_crossed_split_with_an_empty_cell():
    config, view, _ = one_block_each(crossed="set")
    sets = np.where(view.labels == 0, "x", "y")
    cohort = dataclasses.replace(view.cohort, factors={"set": sets})
    refused(
        lambda: crossed.check(config, cohort),
        "crossed=set: found no row of rest to train on for a x x: the cell is empty",
        "expected a column whose levels all have every class",
    )
