"""Objects say in a few lines what they are, and as small and safe HTML."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hand_made import make_cohort

from emojax import decoder, hyperalignment, piecewise, shown
from emojax.models import cnn1d
from emojax.provenance import Ledger


def make_decoder():
    mask = np.ones((5, 4, 3), bool)
    params = cnn1d.CNN1D(2, filters=(2,), window=3, dense=(4,)).init(
        jax.random.key(0), jnp.zeros((1, 20))
    )["params"]
    facts = decoder.Facts(("rest", "<b>fear</b>"), mask.shape, 500.0, 50.0, tr=2.0, subject="01")
    scaler = {"mean": np.full(20, 500.0), "sd": np.full(20, 50.0)}
    return decoder.from_cnn1d(facts, params, mask=mask, voxels=np.arange(20), **scaler)


def make_model(fit):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(3, 12, 6)).astype(np.float32)
    if fit is piecewise:
        return piecewise.fit(data, np.arange(6) // 3 + 1)
    return hyperalignment.fit(data, alpha=0.5)


def make_ledger():
    ledger = Ledger(make_cohort())
    ledger.labels("voxels", np.arange(4))
    return ledger


MAKERS = {
    "cohort": make_cohort,
    "decoder": make_decoder,
    "ledger": make_ledger,
    "hyperalignment": lambda: make_model(hyperalignment),
    "piecewise": lambda: make_model(piecewise),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_few_lines(name):
    made = MAKERS[name]()
    text, page = repr(made), made._repr_html_()
    assert 2 <= len(text.splitlines()) <= 9 and len(text) < 700
    assert max(map(len, text.splitlines())) <= 120
    assert page.startswith("<b>") and len(page) < 2500 and "array(" not in text + page
    assert page.count("<tr>") == len(text.splitlines()) - 1


def test_what_they_say():
    text = repr(make_decoder())
    assert "5 x 4 x 3 voxels, 60 in the mask" in text and "subject 01" in text
    assert "<b>fear</b>" in text and "&lt;b&gt;fear&lt;/b&gt;" in make_decoder()._repr_html_()
    assert "labels of 4" in repr(make_ledger())
    model = repr(make_model(hyperalignment))
    assert model.startswith("Hyperalignment of 3 subjects") and "alpha=0.5" in model
    assert "12 x 6: rows, voxels" in model and "ComposedMapping" in model
    assert "2, of 6 voxels" in repr(make_model(piecewise))


def test_a_cohort_has_a_length_and_a_data_frame():
    cohort = make_cohort()
    frame = cohort.to_frame()
    assert len(cohort) == len(cohort.labels) == len(frame) and cohort
    assert [*frame.columns[:5]] == ["subject", "run", "frame", "time", "label"]
    assert (frame["label"].to_numpy() == np.array(cohort.classes)[cohort.labels]).all()
    assert (frame["time"].to_numpy() == cohort.time).all()
    assert f"Cohort of {len(cohort)} labelled volumes" in repr(cohort)
    empty = cohort.select(np.zeros(len(cohort), bool))
    assert len(empty) == 0 and empty and "of 0 labelled volumes" in repr(empty)


def test_models_are_shown_while_they_are_traced():
    @jax.jit
    def traced(x):
        said.append(repr(hyperalignment.fit(x)))
        said.append(repr(make))
        return x.sum()

    said, make = [], make_decoder()
    traced(jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 4)), jnp.float32))
    assert said[0].startswith("Hyperalignment of 2 subjects")


def test_long_lists_are_cut():
    assert shown.some(range(3)) == "0, 1, 2"
    assert shown.some(range(99)) == "99: 0, 1, 2, 3, 4, 5, ..."
