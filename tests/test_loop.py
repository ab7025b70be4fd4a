"""The training loop: one curve however epochs run, rows are fed, or a run is interrupted."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_training as tiny
from tiny_training import MONITOR, TEST, TRAIN, Dropped, Memory, Small, same, trained

from configs import expA
from emojax.experiments import programs
from emojax.models import resnet3d
from emojax.training import epoch, feeds, loop
from emojax.training.checkpoint import Workdir
from emojax.training.trial import CURVES


@pytest.fixture(scope="module", autouse=True)
def quick_compile():
    """For every fixture and test alike: other optimisations round otherwise."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def stop_at(name, number):
    """Returns a log that a user's Ctrl-C interrupts once an epoch of a training is done."""

    def log(task, epoch, metrics):
        if (task, epoch) == (name, number) and metrics:
            raise KeyboardInterrupt

    return log


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
    """Batch norm sees the whole batch: float64, so that Adam does not magnify rounding."""
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
    """The monitored loss is the mean over all volumes, though the last batch is filled up."""
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


def test_rows_may_occur_several_times_and_be_few():
    """A bootstrap of three rows, monitored by one: every batch is filled up."""
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
        trained(program, epochs=9, every=1, stop=stop, store=store, log=stop_at("a", int(done) - 1))
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
    """Keras' Adam by its formula."""
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


def test_a_resumed_training_ends_the_same(reference):
    store, lines = Memory(), []
    same(trained(tiny.program(), store=store), reference)
    assert store.saved == [("a", 2)]
    again = trained(tiny.program(), store=store, log=lambda *line: lines.append(line))
    same(again, reference, rtol=1e-6)
    assert [(number, bool(metrics)) for _, number, metrics in lines] == [
        (2, False),
        (3, True),
        (4, True),
    ]


# What is stored belongs to a fold, whichever way its epochs ran.


def three(program, kind):
    return [tiny.task(program, f"fold {i}", seed=i, of=kind) for i in range(3)]


def run(program, work, tasks, strategy, *, epochs=6, every=2, log=lambda *line: None):
    """Fits what is not finished, and keeps it, as the experiments do."""
    kept = {task.name: work.load_finished(task.name) for task in tasks}
    todo = [task for task in tasks if kept[task.name] is None]
    options = {"epochs": epochs, "every": every, "factor": 1e-3, "strategy": strategy}
    for task, found in loop.fit(program, todo, store=work, log=log, **options):
        work.save_finished(task.name, tiny.outcome(program, task, found))
    return {task.name: work.load_finished(task.name) for task in tasks}


def close(got, want):
    """Asserts that folds agree within 1e-5: curves, epochs, predictions and weights."""
    assert got.keys() == want.keys()
    for name in want:
        assert got[name].keys() == want[name].keys() and len(want[name]) > 12
        same(got[name], want[name], rtol=1e-5, atol=1e-5, names=want[name])


NETWORKS = {"vectors": Dropped(), "volumes": Small()}


@pytest.fixture(scope="module", params=["vectors", "volumes"])
def folds(request, tmp_path_factory):
    """The program and tasks of three folds, and what they give without interruption."""
    program = tiny.program(model=NETWORKS[request.param], lr=2e-3, patience=2)
    tasks = three(program, request.param)
    work = Workdir(tmp_path_factory.mktemp("whole"), {})
    return program, tasks, run(program, work, tasks, "loop")


@pytest.mark.parametrize(("first", "second"), [("loop", "scan"), ("scan", "loop")])
def test_a_run_goes_on_with_the_other_strategy(folds, tmp_path, first, second):
    """One fold is finished, one is at epoch 2, and one has not begun."""
    program, tasks, want = folds
    work = Workdir(tmp_path, {})
    run(program, work, tasks[:1], first)
    with pytest.raises(KeyboardInterrupt):
        run(program, work, tasks[1:2], first, log=stop_at("fold 1", 3))
    assert work.load_finished("fold 0") and not work.load_finished("fold 1")
    assert [path.name for path in (tmp_path / "training").iterdir()] == ["fold-1"]
    lines = []
    close(run(program, work, tasks, second, log=lambda *line: lines.append(line[:2])), want)
    assert lines.count(("fold 1", 2)) == 1  # told, not trained again
    assert sorted(set(lines)) == sorted(
        [("fold 1", i) for i in range(2, 7)] + [("fold 2", i) for i in range(1, 7)]
    )
    assert not list((tmp_path / "training").iterdir())


@pytest.mark.parametrize(("first", "second"), [("loop", "scan"), ("scan", "loop")])
def test_folds_side_by_side_go_on_in_a_loop(folds, tmp_path, first, second):
    """All three are interrupted, the last one before its checkpoint of epoch 4 was written."""
    program, tasks, want = folds
    work = Workdir(tmp_path, {})
    if first == "scan":

        class Killed(Workdir):
            def save(self, name, epoch, tree):
                if (name, epoch) == ("fold 2", 4):
                    raise KeyboardInterrupt
                super().save(name, epoch, tree)

        with pytest.raises(KeyboardInterrupt):
            run(program, Killed(tmp_path, {}), tasks, first)
    else:
        for i, number in ((0, 5), (1, 5), (2, 3)):
            with pytest.raises(KeyboardInterrupt):
                run(program, work, tasks[i : i + 1], first, log=stop_at(f"fold {i}", number))
    begun = {path.parent.name: path.name for path in tmp_path.glob("training/*/[0-9]*")}
    assert begun == {"fold-0": "4", "fold-1": "4", "fold-2": "2"}
    lines = []
    close(run(program, work, tasks, second, log=lambda *line: lines.append(line)), want)
    fitted = [(name, number) for name, number, metrics in lines if metrics]
    assert sorted(fitted) == [
        *(("fold 0", i) for i in (5, 6)),
        *(("fold 1", i) for i in (5, 6)),
        *(("fold 2", i) for i in (3, 4, 5, 6)),
    ]


@pytest.mark.parametrize("folds", ["vectors"], indirect=True)
@pytest.mark.parametrize("strategy", ["loop", "scan"])
@pytest.mark.parametrize(
    ("pace", "later", "saved"), [(4, 4, [4]), (3, 2, [3, 4]), (2, 4, [2, 4]), (9, 9, [])]
)
def test_checkpoints_of_any_pace(folds, tmp_path, strategy, pace, later, saved):
    """The pace need not divide the epochs, and may change with a resumption."""
    program, tasks, want = folds
    work, store = Workdir(tmp_path, {}), Memory()
    work.load, work.save = store.load, store.save
    log = stop_at("fold 1", min(pace + 1, 6))
    with pytest.raises(KeyboardInterrupt):
        run(program, work, tasks[:2], strategy, every=pace, log=log)
    got = run(program, work, tasks[:2], strategy, every=later)
    close(got, {name: want[name] for name in got})
    assert [number for name, number in store.saved if name == "fold 1"] == saved


def test_folds_of_one_shape_go_side_by_side(monkeypatch):
    """Shapes, types and epochs of checkpoints decide; every fold is trained once."""

    def groups(program, tasks, **options):
        found = []

        def train(program, strategy, group, **rest):
            found.append([opened.task.name for opened in group])
            return iter(())

        monkeypatch.setattr(loop, "_train", train)
        assert not list(loop.fit(program, tasks, epochs=4, every=2, strategy="scan", **options))
        return sorted(map(sorted, found))

    program, few = tiny.program(model=Dropped(), lr=2e-3, patience=2), TRAIN[:20]
    tasks = [
        *three(program, "vectors"),
        tiny.task(program, "fewer", of="vectors", train=few),
        tiny.task(program, "fewer too", of="vectors", train=few + 1, seed=3),
        tiny.task(program, "monitored", of="vectors", monitor=MONITOR[:5]),
        tiny.task(program, "short", of="vectors", dtype=jnp.bfloat16),
        tiny.task(program, "begun", of="vectors"),
    ]
    store, begun = Memory(), epoch.begin(program, jax.random.key(0), tasks[0].feed().example)
    curves = {name: np.zeros(4, np.float32) for name in CURVES}
    store.save("begun", 2, {"trial": begun, "curves": curves})
    together = ["fold 0", "fold 1", "fold 2"]
    assert groups(program, tasks, store=store) == [
        ["begun"],
        ["fewer", "fewer too"],
        together,
        ["monitored"],
        ["short"],
    ]
    # Each fold stops at an epoch of its own; devices share a batch of one fold.
    alone = [[name] for name in together]
    assert groups(program, tasks[:3], stop=(1e-9, 3)) == alone
    assert groups(tiny.program(8, Dropped()), tasks[:3]) == alone


# Compilation.


def test_a_step_compiles_once_for_all_epochs_and_factors():
    """The state keeps its types from the first step on, and a penalty's weight is traced."""
    program, before = tiny.program(lr=0.011), compiled_functions()
    weak = trained(program, factor=0.0)
    counts = compiled_functions()
    assert {name: counts[name] - before[name] for name in counts} == dict.fromkeys(counts, 1) | {
        "run_scanned": 0
    }
    strong = trained(program, factor=1.0)
    assert compiled_functions() == counts
    assert strong["loss"][0] > weak["loss"][0] + 1


def small_config():
    config = expA.get_config("demo")
    config.model.update(filters=(4, 3), window=3, dense=(8,), dropout=(0.1, 0.2))
    config.train.update(batch_size=8, lr=0.01)
    return config


def test_equal_settings_are_one_program_and_compile_once():
    """The network of Experiment A, with dropout and a penalty: folds side by side as in a loop."""
    program = programs.make_program(small_config(), 2)
    again = programs.make_program(small_config(), 2)
    assert again is program
    assert programs.make_program(small_config(), 3) is not program
    other = small_config()
    other.train.lr = 0.02
    assert programs.make_program(other, 2) is not program
    found = {}
    for strategy in ("loop", "scan"):
        for made, seeds in ((program, (0, 1)), (again, (2, 3))):
            counts = compiled_functions()
            tasks = [tiny.task(made, str(seed), seed=seed, of="vectors") for seed in seeds]
            options = {"epochs": 3, "every": 3, "factor": 1e-4, "strategy": strategy}
            for task, got in loop.fit(made, tasks, **options):
                found[strategy, task.name] = tiny.outcome(made, task, got)
        assert compiled_functions() == counts
    for name in "0123":
        got, want = found["scan", name], found["loop", name]
        same(got, want, rtol=2e-3, atol=1e-4, names=CURVES)
        same(got, want, rtol=2e-2, atol=1e-3, names=[n for n in want if n.startswith("weights")])


def compiled_functions():
    jitted = ("step", "_measure", "_close", "_order", "_predict", "run_scanned")
    return {name: getattr(epoch, name)._cache_size() for name in jitted}


def test_programs_are_kept_in_bounds():
    limit = programs._program.cache_info().maxsize
    for seed in range(limit + 3):
        config = small_config()
        config.train.lr = 0.01 + 1e-4 * seed
        programs.make_program(config, 2)
    assert programs._program.cache_info().currsize == limit
