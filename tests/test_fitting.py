"""Training on volumes: one curve however they are fed, on one device or eight, resumed or not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from emojax import plateau
from emojax.features import scaling
from emojax.models import resnet3d
from emojax.training import fitting, optimizer
from emojax.training.crossval import CURVES

pytestmark = pytest.mark.usefixtures("quick_compile")


class Small(nn.Module):
    """A network with batch norm that compiles in a second."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dense(8)(x.reshape(len(x), -1))
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9)(x))
        return nn.Dense(2)(x)


def penalty(params, factor):
    return factor * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))


def program(devices=1, model=None, batch_size=8, lr=1e-2, patience=100):
    mesh = fitting.data_mesh(jax.devices()[:devices])
    rule = plateau.reduce_on_plateau(0.5, patience, min_lr=lr / 2, base_lr=lr)
    return fitting.Program(model or Small(), optimizer.adam(lr), rule, penalty, batch_size, mesh)


def volumes(n=64, shape=(6, 5, 4), gap=1.0):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    x = rng.normal(size=(n, *shape)).astype(np.float32)
    x[:, 2:4] += gap * y[:, None, None, None]
    split = fitting.Split(np.arange(35), np.arange(35, 48), np.arange(48, 64))
    return x, y, split


def trained(program, kind=fitting.Resident, *, scan=False, dtype=np.float32, **options):
    x, y, split = volumes()
    scale = scaling.fit_scale(lambda r: x[r], split.train, "voxel")
    feed = kind(lambda r: x[r], y, scale, dtype, program.mesh)
    options = {"epochs": 4, "every": 2, "factor": 1e-3} | options
    return fitting.fit(program, jax.random.key(0), feed, split, scan=scan, **options)[0]


@pytest.fixture(scope="module")
def reference():
    return trained(program())


def same_curves(got, want, rtol=1e-4):
    for name in (*CURVES, "best", "last"):
        np.testing.assert_allclose(got[name], want[name], rtol=rtol, atol=1e-5, err_msg=name)
    assert got["epoch"] == want["epoch"] and got["done"] == want["done"]


def test_learns(reference):
    y = volumes()[1][48:]
    assert (reference["best"].argmax(1) == y).mean() > 0.8
    assert reference["loss"][-1] < reference["loss"][0]
    np.testing.assert_allclose(reference["best"].sum(1), 1, rtol=1e-5)


def test_epochs_on_the_device_and_streamed_volumes_give_the_same_curve(reference):
    same_curves(trained(program(), scan=True), reference)
    same_curves(trained(program(), fitting.Streamed), reference)


@pytest.mark.parametrize(
    ("kind", "scan"),
    [(fitting.Resident, False), (fitting.Resident, True), (fitting.Streamed, False)],
    ids=["resident", "scanned", "streamed"],
)
def test_eight_devices_give_the_curve_of_one(reference, kind, scan):
    same_curves(trained(program(8), kind, scan=scan), reference)


@pytest.mark.slow
def test_a_resnet_on_eight_devices(x64):
    """Batch norm sees the whole batch: float64, so that Adam does not magnify rounding."""
    model = resnet3d.ResNet3D(2, (1, 1), True, width=4, dtype=jnp.float64, param_dtype=jnp.float64)
    x, y, split = volumes(64, (10, 9, 9))
    scale = scaling.fit_scale(lambda r: x[r], split.train, "voxel")
    found = []
    for devices in (1, 8):
        p = program(devices, model, lr=1e-3)
        feed = fitting.Resident(lambda r: x[r], y, scale, np.float64, p.mesh)
        found.append(fitting.fit(p, jax.random.key(0), feed, split, epochs=2, every=2)[0])
    same_curves(found[1], found[0], rtol=1e-5)


def test_a_resumed_training_ends_the_same(reference):
    kept = {}

    def save(epoch, tree):
        kept["at"] = (epoch, jax.tree.map(jnp.copy, tree))

    same_curves(trained(program(), save=save), reference)
    assert kept["at"][0] == 2
    ticks = []
    again = trained(program(), load=lambda like: kept["at"], tick=ticks.append)
    same_curves(again, reference, rtol=1e-6)
    assert ticks[0] == 2 and sum(ticks) == 4


def test_penalty_has_one_program_for_all_factors():
    p = program()
    weak = trained(p, factor=0.0)
    programs = fitting._step._cache_size()
    strong = trained(p, factor=1.0)
    assert fitting._step._cache_size() == programs
    assert strong["loss"][0] > weak["loss"][0] + 1


def test_early_stop_waits_for_the_lowest_rate():
    p = program(patience=1, lr=1e-12)  # nothing moves
    got = trained(p, epochs=9, stop=(0.5e-12, 2))
    assert got["done"] < 9
    assert (
        np.isfinite(got["loss"][: got["done"]]).all() and np.isnan(got["loss"][got["done"] :]).all()
    )
    assert got["rate"][got["done"] - 1] == np.float32(0.5e-12)
    assert trained(p, epochs=9, stop=None)["done"] == 9


def test_metrics_are_those_of_plain_evaluation():
    """The monitored loss is the mean over all volumes, though the last batch is filled up."""
    p = program()
    x, y, split = volumes()
    scale = scaling.fit_scale(lambda r: x[r], split.train, "voxel")
    feed = fitting.Resident(lambda r: x[r], y, scale, np.float32, p.mesh)
    got, best = fitting.fit(p, jax.random.key(0), feed, split, epochs=1, every=1, factor=0.01)
    values = scaling.apply_scale(scale, x[split.monitor])
    logits = p.model.apply(
        {"params": best.params, "batch_stats": best.batch_stats}, values, train=False
    )
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, y[split.monitor]).mean()
    np.testing.assert_allclose(got["loss"][0], nll + penalty(best.params, 0.01), rtol=1e-4)
    np.testing.assert_allclose(got["accuracy"][0], (logits.argmax(1) == y[split.monitor]).mean())


def test_short_volumes_train_too(reference):
    got = trained(program(), dtype=jnp.bfloat16)
    np.testing.assert_allclose(got["train_loss"], reference["train_loss"], rtol=0.05)


def test_bad_batch_size():
    with pytest.raises(ValueError, match="want a batch size that 8 devices divide; got 12"):
        trained(program(8, batch_size=12))


def test_a_step_is_measured():
    got = fitting.measure_step(program(), (6, 5, 4))
    assert 0 < got.seconds < 5 and got.bytes > 8 * 120 * 4 and got.flops > 8 * 120 * 8 * 2
    assert fitting.memory_limit() > got.bytes
