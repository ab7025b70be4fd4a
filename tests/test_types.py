"""The shapes written in the signatures are true: public functions run under a type checker.

The checker has to be in place before emojax is imported, hence a separate process.
"""

import os
import subprocess
import sys

import pytest

PRELUDE = """
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np

with jaxtyping.install_import_hook("emojax", "beartype.beartype"):
    from emojax import alignment, anova, hyperalignment, masking, procrustes
    from emojax._numerics import rows

rng = np.random.default_rng(0)
"""

GOOD_CALLS = """
def masking_calls(to):
    mask = rng.random((6, 5, 4)) < 0.5
    mean = rng.uniform(10, 40, mask.shape) + 900 * mask
    volumes = rng.normal(100, 1, (7, *mask.shape)).astype(np.float32)
    for dtype in (np.float32, np.int16):
        masking.brain_mask(to(mean.astype(dtype)), opening=0)
        masking.usable_voxels(to(volumes.astype(dtype)), to(mask))
    masking.usable_voxels(to(volumes))
    masking.intersect([to(mask), to(mask)], 0.5)
    for batch in (volumes, volumes[0], volumes.reshape(7, 1, *mask.shape)):
        features = masking.apply_mask(to(batch), to(mask))
        masking.unmask(features, to(mask))
        masking.unmask(to(np.asarray(features)), to(mask), fill=np.nan)
    masking.apply_mask(to(volumes.astype(np.int16)), to(mask))


def anova_calls(to):
    x = rng.normal(size=(40, 6)).astype(np.float32)
    y = np.arange(40) % 3
    test = anova.f_test(to(x), to(y), 3)
    assert test.f.shape == anova.f_scores(to(x), to(y), 3).shape
    state = anova.update(anova.init(6, 3), to(x), to(y))
    state = anova.merge(state, anova.update(state, to(x[:5]), to(y[:5])))
    anova.select_top(to(np.asarray(anova.finalize(state).f)), 4)
    jax.jit(jax.vmap(lambda x: anova.select_top(anova.f_scores(x, y, 3), 2)))(to(x[None]))


def procrustes_calls(to):
    for n, p, q in [(12, 5, 4), (6, 9, 11)]:
        x, y = (to(rng.normal(size=(n, v)).astype(np.float32)) for v in (p, q))
        for fit in (procrustes.fit, procrustes.fit_lowrank):
            fitted = fit(x, y)
            moved = procrustes.transform(fitted, x)
            procrustes.inverse(fitted, to(np.asarray(moved)))
            assert fitted.projection.shape == fitted.rotation.shape == (p, q)
            assert fitted.widths == (p, q)
    fit(x, y, method="polar", scaling=False, demean=False)
    rows.restore(rows.compress(jnp.asarray(x)))
    rows.centre(jnp.asarray(x))
    stack = jax.jit(jax.vmap(procrustes.fit_lowrank))(jnp.stack([x, x]), jnp.stack([y, y]))
    assert stack.rotation.shape == (2, p, q) and len(list(stack)) == 2
    jax.vmap(procrustes.transform)(stack, jnp.stack([x, x]))


def hyperalignment_calls(to):
    def subjects(*widths):
        return [to(rng.normal(size=(10, v)).astype(np.float32)) for v in widths]

    stacked, unequal = to(np.stack(subjects(6, 6))), subjects(6, 5)
    links = {"zscore_all": True, "alpha": 0.5, "output_dim": 3}
    for data, options in [(stacked, {}), (stacked, links), (unequal, {"lowrank": True})]:
        for same in (data, list(data), tuple(data)):
            model = hyperalignment.fit(same, **options)
            maps = hyperalignment.align(model, same)
            y = hyperalignment.transform(maps, same)
            hyperalignment.inverse(maps, y)
    model = hyperalignment.fit(stacked)
    maps = hyperalignment.align(model, stacked[:, :4], to(np.arange(4)))
    hyperalignment.transform(list(maps), [stacked[0], stacked[1, :3]])
    hyperalignment.transform(maps, stacked[:, :3])
    jax.eval_shape(lambda x: hyperalignment.fit(x).residuals, stacked)
    alone = hyperalignment.from_template(to(np.asarray(model.template)), model.options)
    hyperalignment.align(alone, stacked)


def alignment_calls(to):
    runs, labels = (to(a.ravel()) for a in np.indices((2, 5)))
    data = [to(rng.normal(size=(10, v)).astype(np.float32)) for v in (6, 5)]
    means, cells = alignment.match_rows(data, [runs, runs], [labels, labels])
    alignment.match_rows((data[0], data[1][:8]), (runs, runs[:8]), (labels, labels[:8]))
    stacked = to(np.stack([data[0]] * 2))
    model = hyperalignment.fit(stacked)
    one = alignment.group(model, stacked)
    procrustes.transform(one, data[0])
    other = alignment.independent_runs(model, data[1][:8], to(np.arange(8)))
    procrustes.transform(other, data[1])
    alignment.transductive(model, data[1])
    alignment.none(5)
    assert alignment.REGIMES["group"].protocol == "strict"


for calls in (masking_calls, anova_calls, procrustes_calls, hyperalignment_calls, alignment_calls):
    for to in (np.asarray, jnp.asarray):
        calls(to)
"""

BAD_CALLS = """
mask = np.ones((2, 3, 4), bool)
x = np.ones((6, 4), np.float32)
y = np.arange(6) % 2
fitted = procrustes.fit(rng.normal(size=(6, 4)), rng.normal(size=(6, 3)))
bad = {
    "axes disagree": lambda: masking.apply_mask(np.ones((5, 2, 3, 5)), mask),
    "mask of numbers": lambda: masking.unmask(np.ones((5, 24)), mask * 1.0),
    "rows disagree": lambda: anova.f_scores(x, y[:5], 2),
    "labels of a wrong dtype": lambda: anova.f_test(x, y * 1.0, 2),
    "one axis too many": lambda: anova.select_top(x, 2),
    "rows of two lengths": lambda: procrustes.fit(x, x[:5]),
    "one axis too few": lambda: procrustes.transform(fitted, x[0]),
    "labels not integers": lambda: alignment.match_rows([x], [y], [y * 1.0]),
    "rows not integers": lambda: alignment.independent_runs(None, x, y * 1.0),
}
for name, call in bad.items():
    try:
        call()
    except jaxtyping.TypeCheckError:
        continue
    raise AssertionError(f"not caught: {name}")

# What a function returns is checked, too: every voxel lost, and a map with a column too few.
anova._f_ratio = lambda state: state.mean[:, 0]
try:
    anova.f_scores(jnp.asarray(x), y, 2)
except jaxtyping.TypeCheckError as error:
    assert "return" in str(error), error
else:
    raise AssertionError("a wrong result was not caught")
try:
    procrustes.Procrustes(jnp.eye(3), jnp.ones(()), jnp.zeros(3), jnp.zeros(2))
except jaxtyping.TypeCheckError:
    pass
else:
    raise AssertionError("a map whose parts disagree was not caught")
"""


def run(code):
    # Compiled without optimisation: only shapes matter.
    fast = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        capture_output=True,
        text=True,
        env={**os.environ, "XLA_FLAGS": fast},
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.slow
def test_shapes_in_signatures_are_true():
    run(GOOD_CALLS)


def test_the_checker_is_on():
    run(BAD_CALLS)
