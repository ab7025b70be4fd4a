"""Loggers get the content of metrics.jsonl, and their failures do not stop the training."""

import importlib.metadata
import json
import pathlib
import re
import struct
import sys
import threading
import time

import numpy as np
import pytest
from small_studies import make_cohort, make_values

from emojax import experiments, tracking
from emojax.configs import common
from emojax.errors import InputError
from emojax.experiments import settings
from emojax.report import console as consoles
from emojax.training import checkpoint

ROOT = pathlib.Path(__file__).resolve().parents[1]
FIRST = ("nested", "01", 1, {"loss": 1.5, "accuracy": 0.25})
EPOCHS = [FIRST, ("nested", "02", 1, {"loss": 1.25, "accuracy": 0.5})]
FAULTY = """
class Make:
    def __init__(self, run):
        raise OSError("no space")


class Log(Make):
    def __init__(self, run):
        pass

    def log(self, *epoch):
        raise ValueError("two\\nlines")

    def close(self, finished):
        raise RuntimeError("closed")


class Close(Log):
    def log(self, *epoch):
        pass


class Exit(Close):
    def close(self, finished):
        raise SystemExit("bye")


class Hang(Close):
    def close(self, finished):
        import threading
        threading.Event().wait()


NUMBER = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Makes modules of a user's own, which are forgotten after the test."""

    def make(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return make


def follow(names, folder, epochs=EPOCHS, config=None):
    with tracking.opened(names, folder, config or {}) as track:
        for epoch in epochs:
            track(*epoch)


def documented():
    """Returns the logger that docs/install.md shows."""
    text = (ROOT / "docs" / "install.md").read_text()
    return re.search(r"```python\n(import json\n.*?)```", text, re.DOTALL)[1]


def test_the_documented_logger_works(module, tmp_path, capsys):
    code = documented()
    assert len(code.split("class ")[1].splitlines()) <= 10
    module("mylogs", code)
    more = [("nested", "01", i, {"accuracy": value}) for i, value in ((2, 0.75), (3, 0.5))]
    follow("mylogs:Best", tmp_path / "run", [*EPOCHS, *more])
    path = tmp_path / "run" / "tracking" / "mylogs-Best" / "best.json"
    assert json.loads(path.read_text()) == {"nested 01": 0.75, "nested 02": 0.5}
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Make", "OSError: no space"),
        ("Log", "ValueError: two lines"),
        ("Close", "RuntimeError: closed"),
        ("Exit", "SystemExit: bye"),
        ("Hang", "it did not end within 0.1 s"),
    ],
)
def test_a_logger_that_fails_is_one_line(module, tmp_path, capsys, monkeypatch, name, why):
    monkeypatch.setattr(tracking, "PATIENCE", 0.1 if name == "Hang" else 10.0)
    module("faulty", FAULTY)
    follow(f"faulty:{name}", tmp_path, EPOCHS * 5)
    out, err = capsys.readouterr()
    line = f"train.loggers: faulty:{name} no longer follows the run ({why}); training continues\n"
    assert (out, err) == ("", line)


def test_a_logger_that_is_named_twice_is_made_once(module, tmp_path, capsys):
    module(
        "twice", "class Made:\n    def __init__(self, run):\n        print('made')\n        1 / 0\n"
    )
    follow("twice:Made, twice:Made", tmp_path, EPOCHS)
    out, err = capsys.readouterr()
    assert out == "made\n" and err.count("\n") == 1


def test_one_that_fails_does_not_disturb_another(module, tmp_path):
    module("mylogs", documented())
    module("faulty", FAULTY)
    follow("faulty:Log,mylogs:Best,faulty:Make", tmp_path)
    assert (tmp_path / "tracking" / "mylogs-Best" / "best.json").exists()


def test_a_slow_logger_does_not_hold_up_the_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tracking, "MOST", 3)
    monkeypatch.setattr(tracking, "PATIENCE", 0.1)
    begun, free = threading.Event(), threading.Event()

    class Slow:
        def __init__(self, run):
            begun.set()
            free.wait()

    registry = {"slow": Slow}
    monkeypatch.setattr(tracking, "loggers", lambda: registry)
    start = time.perf_counter()
    with tracking.opened("slow", tmp_path, {}) as track:
        begun.wait()
        for _ in range(1000):
            track(*EPOCHS[0])
    assert time.perf_counter() - start < 5
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "no longer follows the run (it is 3 epochs behind)" in err
    free.set()


def test_an_exception_of_the_training_passes_and_is_told(tmp_path, monkeypatch):
    ends = []

    class Ends:
        def __init__(self, run):
            pass

        def close(self, finished):
            ends.append(finished)

    monkeypatch.setattr(tracking, "loggers", lambda: {"ends": Ends})
    with pytest.raises(KeyboardInterrupt), tracking.opened("ends", tmp_path, {}):
        raise KeyboardInterrupt
    with tracking.opened("ends", tmp_path, {}):
        pass
    assert ends == [False, True]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            "tensorbord",
            "found 'tensorbord'; expected one of tensorboard, mlflow, or 'package.mo",
        ),
        ("nosuch.module:Logger", "found 'nosuch.module:Logger' (no module 'nosuch'); expected an"),
        ("faulty:Nothing", "(module 'faulty' has no attribute 'Nothing')"),
        ("faulty:NUMBER", "found 'faulty:NUMBER', an object of the class int; expected a class or"),
        ("faulty:Log,faulty:Log", "expected names separated by commas, each once"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_trained(module, names, said):
    module("faulty", FAULTY)
    config = common.get_config()
    config.train.loggers = names
    with pytest.raises(InputError, match=r"train\.loggers: found") as refused:
        settings.check(config)
    assert said in str(refused.value)


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    for name, package in tracking.PACKAGES.items():
        with pytest.raises(InputError) as refused:
            tracking.check(name)
        assert str(refused.value) == (
            f"train.loggers: found {name!r} without the package {package}; "
            "expected the package (pip install 'emojax[tracking]')"
        )


def test_other_packages_offer_loggers_by_entry_points(module, tmp_path, monkeypatch):
    module("mylogs", documented())
    point = importlib.metadata.EntryPoint("best", "mylogs:Best", tracking.GROUP)
    found = {tracking.GROUP: (point,)}
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: found[group])
    tracking.check("best")
    follow("best", tmp_path)
    assert (tmp_path / "tracking" / "best" / "best.json").exists()


def events(folder):
    """Reads event files: (step, tag, value), by the format of TFRecord files."""
    from tensorboardX.proto import event_pb2

    out = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
            out += [(event.step, each.tag, each.simple_value) for each in event.summary.value]
            at += 12 + length + 4
        assert at == len(data)
    return out


def test_tensorboard_files_hold_the_curves_of_a_resumed_run(tmp_path, capsys):
    pytest.importorskip("tensorboardX")
    again = [("nested", "01", 2, {"loss": 1.0}), ("paper", "01", 1, {"rate": 0.5})]
    follow("tensorboard", tmp_path)
    follow("tensorboard", tmp_path, again)
    folder = tmp_path / "tracking" / "tensorboard"
    assert sorted(events(folder / "nested")) == [
        (1, "accuracy/01", 0.25),
        (1, "accuracy/02", 0.5),
        (1, "loss/01", 1.5),
        (1, "loss/02", 1.25),
        (2, "loss/01", 1.0),
    ]
    assert events(folder / "paper") == [(1, "rate/01", 0.5)]
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_mlflow_goes_on_with_the_run_that_it_began(tmp_path, monkeypatch, capsys):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    config = common.get_config().to_dict()
    epochs = [("nested, none", "01 (2)", 1, {"loss": 1.5})]
    with pytest.raises(KeyboardInterrupt), tracking.opened("mlflow", tmp_path / "run", config) as t:
        t(*epochs[0])
        raise KeyboardInterrupt
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")

    def found():
        place = client.get_experiment_by_name("emojax").experiment_id
        (only,) = client.search_runs([place])
        return only

    assert (found().info.status, found().info.run_name) == ("KILLED", "run")
    follow("mlflow", tmp_path / "run", [("nested, none", "01 (2)", 2, {"loss": 1.25})], config)
    assert found().info.status == "FINISHED"
    assert found().data.params["train.lr"] == "0.0045" and len(found().data.params) > 130
    (key,) = found().data.metrics
    assert key == "nested none/01 2/loss"
    history = client.get_metric_history(found().info.run_id, key)
    assert [(point.step, point.value) for point in history] == [(1, 1.5), (2, 1.25)]
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", "run"}
    assert capsys.readouterr().err == ""


def test_the_config_of_a_workdir_is_the_same_with_other_loggers(tmp_path):
    config = common.get_config().to_dict()
    with checkpoint.open_workdir(tmp_path / "run", config) as work:
        work.save_finished("a", {"x": np.zeros(1)})
        assert "loggers" not in work.plain_config["train"]
    config["train"]["loggers"] = "tensorboard"
    with checkpoint.open_workdir(tmp_path / "run", config) as work:
        assert work.load_finished("a") is not None
    (tmp_path / "run" / "tracking").mkdir()
    with checkpoint.open_workdir(tmp_path / "run", config, restart=True):
        assert not (tmp_path / "run" / "tracking").exists()


LINES = """
import json


class Lines:
    def __init__(self, run):
        self.path = run.folder / "lines.jsonl"
        (run.folder / "config.json").write_text(json.dumps(run.config))

    def log(self, training, fold, epoch, metrics):
        line = {"training": training, "fold": fold, "epoch": epoch} | metrics
        with open(self.path, "a") as file:
            file.write(json.dumps(line) + "\\n")

    def close(self, finished):
        pass
"""


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_with_a_logger(module, tmp_path, monkeypatch, quick_compile):
    """Its lines are those of metrics.jsonl, and nothing of it enters the result."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    module("lines", LINES)
    config = common.get_config()
    config.update({"permutations": 0, "within_subject": False, "crossed": "", "design": False})
    config.update({"maps": False, "null_floor": False, "audit": False, "baselines": ""})
    config.update({"headline": "network", "protocols": "nested", "leaks": False, "balance": 8})
    config.update({"floor_baselines": "", "temperature": False})
    config.align.regimes, config.voxels.keep = "none", 30
    config.model.update({"filters": (2,), "window": 3, "dense": (4,)})
    config.train.update({"epochs": 2, "checkpoint_epochs": 1})
    config.data.update({"progress": False, "store": str(tmp_path / "store")})
    cohort, work = make_cohort(*make_values(), tr=2.0), tmp_path / "run"
    with monkeypatch.context() as patch:
        taken, epoch = [], consoles.TrainingLog.epoch

        def stopping(self, *line):
            epoch(self, *line)
            taken.append(line)
            if len(taken) == 3:
                raise KeyboardInterrupt

        patch.setattr(consoles.TrainingLog, "epoch", stopping)
        with pytest.raises(KeyboardInterrupt):
            experiments.run(config, work, cohort=cohort)
    config.train.loggers = "lines:Lines"
    result = experiments.run(config, work, cohort=cohort)
    lines = (work / "metrics.jsonl").read_text().splitlines()
    folder = work / "tracking" / "lines-Lines"
    ours = [json.loads(line) for line in (folder / "lines.jsonl").read_text().splitlines()]
    assert len(lines) > len(ours) > 5
    for line, own in zip(lines[-len(ours) :], ours, strict=True):
        assert json.loads(line) == pytest.approx(own)
    assert json.loads((folder / "config.json").read_text()) == result.metrics["config"]
    assert "loggers" not in json.dumps(result.metrics)
