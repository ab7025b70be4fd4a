"""The training loop: one curve, however epochs run and rows are fed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_training as tiny
from tiny_training import MONITOR, TEST, TRAIN, Dropped, Memory, same, trained

from emojax.models import resnet3d
from emojax.training import epoch, feeds, loop
from emojax.training.trial import CURVES


@pytest.fixture(scope="module", autouse=True)
def quick():
    with tiny.quick_compile():
        yield


@pytest.fixture(scope="module")
def reference():
    return trained(tiny.program())


def test_learns(reference):
    y = tiny.data()[1][TEST]
    assert (reference["best"].argmax(1) == y).mean() > 0.8
    assert reference["loss"][-1] < reference["loss"][0]
    np.testing.assert_allclose(reference["best"].sum(1), 1, rtol=1e-5)


def test_lowers_its_rate():
    curves = trained(tiny.program(patience=2), epochs=25)
    assert curves["train_loss"][-1] < 0.5 * curves["train_loss"][0]
    assert curves["rate"][-1] < curves["rate"][0] == np.float32(0.01)


def test_repeats_to_the_last_bit(reference):
    again = trained(tiny.program())
    for name in reference:
        np.testing.assert_array_equal(again[name], reference[name], err_msg=name)


def test_epochs_on_the_device_and_streamed_volumes_give_the_same_curve(reference):
    same(trained(tiny.program(), strategy="scan"), reference)
    same(trained(tiny.program(), kind=feeds.Streamed), reference)


@pytest.mark.parametrize(
    ("kind", "strategy"),
    [(feeds.Resident, "loop"), (feeds.Resident, "scan"), (feeds.Streamed, "loop")],
    ids=["resident", "scanned", "streamed"],
)
def test_eight_devices_give_the_curve_of_one(reference, kind, strategy):
    same(trained(tiny.program(8), kind=kind, strategy=strategy), reference)


@pytest.mark.slow
def test_a_resnet_on_eight_devices(x64):
    """Batch norm sees the whole batch; float64, because Adam magnifies rounding."""
    model = resnet3d.ResNet3D(2, (1, 1), True, width=4, dtype=jnp.float64, param_dtype=jnp.float64)
    rng, y = np.random.default_rng(0), np.arange(64) % 2
    x = rng.normal(size=(64, 10, 9, 9)).astype(np.float32)
    x[:, 2:4] += y[:, None, None, None]
    found = []
    for devices in (1, 8):
        program = tiny.program(devices, model, lr=1e-3)
        feed = feeds.Resident(lambda rows: x[rows], y, np.arange(64), np.float64, program.mesh)
        task = loop.Task("a", jax.random.key(0), lambda feed=feed: feed, TRAIN, MONITOR)
        ((_, got),) = loop.fit(program, [task], epochs=2, every=2)
        found.append(tiny.outcome(program, task, got))
    same(found[1], found[0], rtol=1e-5)


def test_short_volumes_train_too(reference):
    got = trained(tiny.program(), dtype=jnp.bfloat16)
    np.testing.assert_allclose(got["train_loss"], reference["train_loss"], rtol=0.05)


def test_metrics_are_those_of_plain_evaluation():
    """The monitored loss is the mean over all volumes, although the last batch is padded."""
    program, (x, y) = tiny.program(), tiny.data()
    ((_, got),) = loop.fit(program, [tiny.task(program)], epochs=1, every=1, factor=0.01)
    weights = {"params": got.best.params, "batch_stats": got.best.batch_stats}
    logits = program.model.apply(weights, x[MONITOR], train=False)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, y[MONITOR]).mean()
    want = nll + tiny.penalty(got.best.params, 0.01)
    np.testing.assert_allclose(got.curves["loss"][0], want, rtol=1e-4)
    hits = (logits.argmax(1) == y[MONITOR]).mean()
    np.testing.assert_allclose(got.curves["accuracy"][0], hits)
    assert float(got.best.accuracy) == pytest.approx(hits)


@pytest.mark.slow
def test_the_network_before_its_first_step_may_be_the_best():
    """Reversed monitor labels make training harmful; classes are weighted equally."""
    x, y = tiny.data("vectors")
    y = np.where(np.isin(np.arange(len(y)), MONITOR), 1 - y, y)
    monitor = MONITOR[np.r_[np.flatnonzero(y[MONITOR] == 0)[:2], np.flatnonzero(y[MONITOR] == 1)]]
    options = {"best_by": "nll", "draws": "classes", "warmup": 1}
    found = {}
    for zero in (True, False):
        program = tiny.program(model=Dropped(), lr=0.5, epoch_zero=zero, **options)
        feed = feeds.Resident(lambda rows: x[rows], y, np.arange(len(y)), np.float32, program.mesh)
        task = loop.Task("a", jax.random.key(0), lambda feed=feed: feed, TRAIN, monitor)
        for strategy in ("loop", "scan"):
            ((_, got),) = loop.fit(program, [task], epochs=3, every=2, factor=0, strategy=strategy)
            found[zero, strategy] = got
            params = got.best.params
            logits = program.model.apply({"params": params}, x[monitor], train=False)
            nll = -np.asarray(jax.nn.log_softmax(logits))[np.arange(len(monitor)), y[monitor]]
            want = np.mean([nll[y[monitor] == k].mean() for k in (0, 1)])
            np.testing.assert_allclose(got.best.loss, want, rtol=1e-5)
            assert (int(got.best.epoch) == 0) is zero
    assert float(found[True, "loop"].best.loss) < float(found[False, "loop"].best.loss)
    start = epoch.begin(program, jax.random.key(0), x[:1]).state.params
    jax.tree.map(np.testing.assert_array_equal, found[True, "scan"].best.params, start)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["loop", "scan"])
def test_the_rate_rises_over_the_first_epochs(strategy):
    """Small steps within an epoch add up in proportion to their rates."""
    moved = []
    for warmup in (0, 1, 4):
        program = tiny.program(model=Dropped(), lr=1e-5, warmup=warmup)
        start = epoch.begin(program, jax.random.key(0), np.zeros((1, 12), np.float32)).state.params
        got = trained(program, of="vectors", epochs=1, factor=0.0, strategy=strategy)
        name = "weights/last/params/Dense_0/kernel"
        moved.append(np.abs(got[name] - start["Dense_0"]["kernel"]).mean())
    whole, *rising = moved
    steps = np.arange(1, tiny.STEPS + 1)
    np.testing.assert_allclose(
        rising / whole, [(steps / (n * tiny.STEPS)).mean() for n in (1, 4)], rtol=0.2
    )


def test_rows_may_occur_several_times_and_be_few():
    """A bootstrap of three rows, monitored on one, pads every batch."""
    program = tiny.program()
    rows, few = np.array([3, 3, 0, 1]), np.array([40, 40])
    got = trained(program, train=rows, monitor=few)
    same(trained(program, train=rows, monitor=few[:1]), got)
    same(trained(program, train=rows, monitor=few, strategy="scan"), got)
    assert np.isfinite(got["train_loss"]).all()


def test_feeds_are_made_once_training_begins():
    program, made = tiny.program(), []
    tasks = [tiny.task(program, name) for name in "ab"]

    def noted(task):
        def feed():
            made.append(task.name)
            return task.feed()

        return task._replace(feed=feed)

    found = loop.fit(program, [noted(task) for task in tasks], epochs=1, every=1)
    assert not made
    next(found)
    assert made == ["a"]
    assert [task.name for task, _ in found] == ["b"] and made == ["a", "b"]


def test_log_tells_every_epoch():
    lines = []
    got = trained(tiny.program(), log=lambda *line: lines.append(line), strategy="scan")
    assert [(name, number) for name, number, _ in lines] == [("a", i) for i in (1, 2, 3, 4)]
    for name in CURVES:
        assert [metrics[name] for _, _, metrics in lines] == got[name].tolist()


def test_early_stop_waits_for_the_lowest_rate():
    program = tiny.program(patience=1, lr=1e-12)  # nothing moves
    lines, stop = [], (0.5e-12, 2)
    got = trained(program, epochs=9, stop=stop, log=lambda *line: lines.append(line))
    done = got["done"]
    assert done < 9
    assert np.isfinite(got["loss"][:done]).all() and np.isnan(got["loss"][done:]).all()
    assert got["rate"][done - 1] == np.float32(0.5e-12)
    assert lines[-1] == ("a", 9, {}) and all(metrics for _, _, metrics in lines[:-1])
    assert trained(program, epochs=9, stop=None)["done"] == 9
    same(trained(program, epochs=9, stop=stop, strategy="scan", every=4), got)
    store = Memory()
    with pytest.raises(KeyboardInterrupt):
        trained(
            program, epochs=9, every=1, stop=stop, store=store, log=tiny.stop_at("a", int(done) - 1)
        )
    same(trained(program, epochs=9, every=1, stop=stop, store=store, strategy="scan"), got)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"devices": 8, "batch_size": 12},
            "want a batch size that 8 devices divide; got 12",
        ),
        ({"strategy": "Scan"}, "want strategy 'loop' or 'scan'; got 'Scan'"),
        (
            {"strategy": "scan", "kind": feeds.Streamed},
            "want a resident feed for 'scan'; got a streamed one",
        ),
    ],
)
def test_says_what_is_wrong(options, message):
    parts = {name: options.pop(name) for name in ("devices", "batch_size") if name in options}
    with pytest.raises(ValueError, match=message):
        trained(tiny.program(**parts), **options)


# The same training, written out once more: plain NumPy around gradients of the network.

RATE, FACTOR, PATIENCE = 0.3, 1e-3, 2
DOUBLE = Dropped(jnp.float64)


def adam_step(params, grads, memory, scale):
    """Computes Keras' Adam from its formula."""
    memory["t"] += 1
    t, out = memory["t"], []
    for i, (w, g) in enumerate(zip(jax.tree.leaves(params), jax.tree.leaves(grads), strict=True)):
        w, g = np.asarray(w), np.asarray(g)
        m = memory["m"][i] = 0.9 * memory["m"][i] + 0.1 * g
        v = memory["v"][i] = 0.999 * memory["v"][i] + 0.001 * g**2
        rate = RATE * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        out.append(w - scale * rate * m / (np.sqrt(v) + 1e-7))
    return jax.tree.unflatten(jax.tree.structure(params), out)


def losses(params, x, y, key=None):
    """Returns the mean cross-entropy plus penalty, and the accuracy; dropout with a key."""
    rngs = None if key is None else {"dropout": key}
    logits = DOUBLE.apply({"params": params}, x, train=key is not None, rngs=rngs)
    nll = -jax.nn.log_softmax(logits)[jnp.arange(len(y)), y].mean()
    extra = sum((leaf**2).sum() for leaf in jax.tree.leaves(params))
    return nll + FACTOR * extra, (logits.argmax(1) == y).mean()


@functools.cache
def written_out(epochs, batch=8):
    """Trains as the paper and Keras do; keys are drawn as the loop draws them."""
    x, y = tiny.data("vectors")
    x = x.astype(np.float64)
    key = jax.random.key(0)
    key_state, key_order = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
    key_params, key_noise = jax.random.fold_in(key_state, 0), jax.random.fold_in(key_state, 1)
    params = DOUBLE.init({"params": key_params}, x[:1], train=False)["params"]
    memory = {"t": 0, "m": [0.0] * 4, "v": [0.0] * 4}
    gradient = jax.jit(jax.value_and_grad(losses, has_aux=True))
    evaluate = jax.jit(losses)
    scale, lowest, wait = 1.0, np.inf, 0
    curves, best = {name: [] for name in CURVES}, (-1.0, np.inf, 0, None)
    for e in range(epochs):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(key_order, e), len(TRAIN)))
        order = np.concatenate([order, order])[: -(-len(TRAIN) // batch) * batch]
        taken = []
        for i in range(0, len(order), batch):
            rows = TRAIN[order[i : i + batch]]
            noise = jax.random.fold_in(key_noise, memory["t"])
            found, grads = gradient(params, x[rows], y[rows], noise)
            taken.append([float(number) for number in found])
            params = adam_step(params, grads, memory, scale)
        loss, accuracy = map(float, evaluate(params, x[MONITOR], y[MONITOR]))
        if loss < lowest - 1e-4:
            lowest, wait = loss, 0
        else:
            wait += 1
        if wait >= PATIENCE:
            scale, wait = max(scale * 0.5, 0.5), 0
        if (-accuracy, loss) < (-best[0], best[1]):
            best = accuracy, loss, e + 1, params
        row = (*np.mean(taken, axis=0), loss, accuracy, RATE * scale)
        for name, number in zip(CURVES, row, strict=True):
            curves[name].append(number)
    return curves, best, params


@pytest.mark.parametrize("strategy", ["loop", "scan"])
def test_the_curve_is_that_of_a_training_written_out(strategy, x64):
    curves, best, last = written_out(9)
    program = tiny.program(model=DOUBLE, lr=RATE, patience=PATIENCE)
    task = tiny.task(program, dtype=np.float64, of="vectors")
    ((_, got),) = loop.fit(program, [task], epochs=9, every=4, factor=FACTOR, strategy=strategy)
    for name in CURVES:
        np.testing.assert_allclose(got.curves[name], curves[name], rtol=2e-6, err_msg=name)
    assert curves["rate"][-1] == RATE / 2 and len(set(curves["accuracy"])) > 2
    assert int(got.best.epoch) == best[2] < 9
    for tree, want in ((got.best.params, best[3]), (got.last.params, last)):
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), tree, want)
