"""Interrupted trainings: stored state belongs to a fold, whichever strategy ran its epochs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_training as tiny
from tiny_training import MONITOR, STEPS, TRAIN, Dropped, Memory, Small, same, trained

from emojax import stops
from emojax.errors import InputError
from emojax.training import epoch, loop
from emojax.training.checkpoint import Workdir
from emojax.training.trial import CURVES


@pytest.fixture(scope="module", autouse=True)
def quick():
    with tiny.quick_compile():
        yield


def test_a_resumed_training_ends_the_same():
    reference, store, lines = trained(tiny.program()), Memory(), []
    same(trained(tiny.program(), store=store), reference)
    assert store.saved == [("a", 2 * STEPS)]
    again = trained(tiny.program(), store=store, log=lambda *line: lines.append(line))
    same(again, reference, rtol=1e-6)
    assert [(number, bool(metrics)) for _, number, metrics in lines] == [
        (2, False),
        (3, True),
        (4, True),
    ]


def three(program, kind):
    return [tiny.task(program, f"fold {i}", seed=i, of=kind) for i in range(3)]


def run(program, work, tasks, strategy, *, epochs=6, every=2, log=lambda *line: None):
    """Fits and keeps the unfinished folds, as the experiments do."""
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


def newest(folder):
    return max(int(path.name) for path in folder.iterdir() if path.is_dir())


NETWORKS = {"vectors": Dropped(), "volumes": Small()}
CHOSEN = {"best_by": "nll", "draws": "classes", "warmup": 2, "epoch_zero": True}


@pytest.fixture(scope="module", params=["vectors", "volumes", "vectors, balanced draws"])
def folds(request, tmp_path_factory):
    """Returns the program and tasks of three folds, and their results without interruption."""
    kind, _, balanced = request.param.partition(", ")
    options = CHOSEN if balanced else {}
    program = tiny.program(model=NETWORKS[kind], lr=2e-3, patience=2, **options)
    tasks = three(program, kind)
    work = Workdir(tmp_path_factory.mktemp("whole"), {})
    return program, tasks, run(program, work, tasks, "loop")


@pytest.mark.parametrize(("first", "second"), [("loop", "scan"), ("scan", "loop")])
def test_a_run_goes_on_with_the_other_strategy(folds, tmp_path, first, second):
    """A run resumes with one fold finished, one at epoch 2, and one not begun."""
    program, tasks, want = folds
    work = Workdir(tmp_path, {})
    run(program, work, tasks[:1], first)
    with pytest.raises(KeyboardInterrupt):
        run(program, work, tasks[1:2], first, log=tiny.stop_at("fold 1", 3))
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
            def save(self, name, steps, tree):
                if (name, steps) == ("fold 2", 4 * STEPS):
                    raise KeyboardInterrupt
                super().save(name, steps, tree)

        with pytest.raises(KeyboardInterrupt):
            run(program, Killed(tmp_path, {}), tasks, first)
    else:
        for i, number in ((0, 5), (1, 5), (2, 3)):
            with pytest.raises(KeyboardInterrupt):
                run(program, work, tasks[i : i + 1], first, log=tiny.stop_at(f"fold {i}", number))
    begun = {path.name: newest(path) for path in tmp_path.glob("training/*")}
    assert begun == {"fold-0": 4 * STEPS, "fold-1": 4 * STEPS, "fold-2": 2 * STEPS}
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
    """The pace need not divide the number of epochs and may change when a run resumes."""
    program, tasks, want = folds
    work, store = Workdir(tmp_path, {}), Memory()
    work.load, work.save = store.load, store.save
    log = tiny.stop_at("fold 1", min(pace + 1, 6))
    with pytest.raises(KeyboardInterrupt):
        run(program, work, tasks[:2], strategy, every=pace, log=log)
    got = run(program, work, tasks[:2], strategy, every=later)
    close(got, {name: want[name] for name in got})
    assert [steps // STEPS for name, steps in store.saved if name == "fold 1"] == saved


class Signal:
    """A signal that comes once a number of steps have been taken."""

    def __init__(self, monkeypatch, after):
        step = epoch.step

        def counted(*args):
            self.count += 1
            return step(*args)

        self.count, self.after = 0, after
        monkeypatch.setattr(epoch, "step", counted)
        monkeypatch.setattr(stops, "asked", lambda: "SIGTERM" if self.count >= after else "")


@pytest.mark.parametrize("second", ["loop", "scan"])
@pytest.mark.parametrize("after", [1, STEPS - 1, STEPS, 2 * STEPS, 3 * STEPS + 2])
def test_a_signal_between_two_steps_loses_no_step(folds, tmp_path, monkeypatch, after, second):
    program, tasks, want = folds
    work = Workdir(tmp_path, {})
    with monkeypatch.context() as patch:
        Signal(patch, after)
        with pytest.raises(stops.Stopped) as stop:
            run(program, work, tasks[:1], "loop", every=2)
    assert stop.value.code == 143
    assert newest(tmp_path / "training" / "fold-0") == after
    lines, taken = [], Signal(monkeypatch, 1000)
    got = run(program, work, tasks[:1], second, log=lambda *line: lines.append(line))
    close(got, {"fold 0": want["fold 0"]})
    assert [number for _, number, metrics in lines if metrics] == list(range(after // STEPS + 1, 7))
    if second == "loop":  # no step is taken twice
        assert taken.count == 6 * STEPS - after


def test_a_signal_is_heard_behind_a_dispatch_of_scan(folds, tmp_path, monkeypatch):
    program, tasks, want = folds
    work = Workdir(tmp_path, {})
    with monkeypatch.context() as patch:
        patch.setattr(stops, "asked", lambda: "SIGINT")
        with pytest.raises(stops.Stopped) as stop:
            run(program, work, tasks, "scan", every=4)
    assert stop.value.code == 130
    assert {newest(path) for path in (tmp_path / "training").iterdir()} == {4 * STEPS}
    close(run(program, work, tasks, "scan", every=4), want)


@pytest.mark.parametrize("strategy", ["loop", "scan"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_loss_that_is_no_number_ends_the_run_in_one_line(tmp_path, kind, strategy):
    """The run ends at once and keeps nothing of this training, which would never recover."""
    program = tiny.program(model=NETWORKS[kind], lr=1e30)
    work, epochs = Workdir(tmp_path, {}), []
    options = {"epochs": 6, "every": 1, "strategy": strategy}
    log = lambda *line: epochs.append(line)  # noqa: E731
    said = r"training fold 0: found a loss of (inf|nan) .*in epoch [12] at rate 1e\+30"
    with pytest.raises(InputError, match=said) as found:
        list(loop.fit(program, three(program, kind)[:1], store=work, log=log, **options))
    assert "\n" not in str(found.value) and len(epochs) <= 1
    assert not list(tmp_path.rglob("*.npz")) and not (tmp_path / "training" / "fold-0").exists()


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
    begun = begun.replace(epoch=jnp.int32(2), state=begun.state.replace(step=jnp.int32(2 * STEPS)))
    store.save("begun", 2 * STEPS, {"trial": begun, "curves": curves, "taken": {}})
    together = ["fold 0", "fold 1", "fold 2"]
    assert groups(program, tasks, store=store) == [
        ["begun"],
        ["fewer", "fewer too"],
        together,
        ["monitored"],
        ["short"],
    ]
    # Each fold stops at its own epoch; devices share a batch of one fold.
    alone = [[name] for name in together]
    assert groups(program, tasks[:3], stop=(1e-9, 3)) == alone
    assert groups(tiny.program(8, Dropped()), tasks[:3]) == alone
