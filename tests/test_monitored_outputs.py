"""Finished trainings keep what their networks say of the monitored rows."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny_training as tiny
from flax import linen as nn
from toy_folds import COHORT, FOLD, make_with

from configs import common
from emojax.experiments import fits
from emojax.experiments.fits import NoStore
from emojax.records import Arm
from emojax.training import steps


class Three(nn.Module):
    """A linear network of three classes."""

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(3)(x.reshape(len(x), -1) / 300)


@pytest.mark.parametrize(("strategy", "streamed"), [("loop", True), ("scan", False)])
def test_every_monitored_row_once_at_both_epochs(strategy, streamed):
    program = tiny.program(model=Three())
    train = common.get_config().train
    plan = fits.Plan(program, train, streamed, False, 3, 3, strategy)
    data = make_with()(COHORT)
    drawn = np.repeat(FOLD.monitor[::2], 3)  # a row may occur several times, another never
    data = dataclasses.replace(data, monitor=drawn)
    kept = []
    ((outcome,),) = fits.fit_networks(
        plan,
        Arm("nested", "strict"),
        [(0, data)],
        store=NoStore(),
        log=lambda *epoch: None,
        keep=lambda number, instance, best: kept.append(best),
    ).values()
    np.testing.assert_array_equal(outcome["monitored_rows"], FOLD.monitor)
    (best,) = kept
    logits = Three().apply(
        steps.variables(best.params, best.batch_stats), data.read(FOLD.monitor), train=False
    )
    np.testing.assert_allclose(outcome["monitored_best"], jax.nn.softmax(logits), atol=1e-5)
    hits = outcome["monitored_best"].argmax(1) == COHORT.labels[FOLD.monitor]
    curve = outcome["accuracy"][int(outcome["epoch"]) - 1]
    assert hits[np.searchsorted(FOLD.monitor, drawn)].mean() == pytest.approx(curve)
    assert outcome["monitored_last"].shape == (len(FOLD.monitor), 3)
    assert not np.isin(outcome["monitored_rows"], FOLD.test).any()
