"""Every config loads, is locked, says how to run it; the real study's on its real events."""

import csv
import dataclasses
import importlib
import json
import pathlib

import nibabel as nib
import numpy as np
import pytest
from shipped import ALL, NAMES
from small_studies import nearest_mean

from configs import common, ds000108, expA, expB, study
from emojax import models, sources, splits
from emojax.experiments import EXPERIMENTS, experiment_a, settings
from emojax.features import across_subjects
from emojax.provenance import Ledger, classify

ROOT = pathlib.Path(__file__).resolve().parents[1]
OF_0_3_0 = json.loads(pathlib.Path(__file__).with_name("config_0_3_0.json").read_text())


def flat(config):
    """Returns {dotted key: value}, with lists for tuples."""

    def walk(node, at):
        for key, value in node.items():
            if isinstance(value, dict):
                yield from walk(value, f"{at}{key}.")
            else:
                yield at + key, list(value) if isinstance(value, tuple) else value

    return dict(walk(config.to_dict(), ""))


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_loads_locked_and_in_range(name, variant):
    module = importlib.import_module(f"configs.{name}")
    config = module.get_config(variant) if variant else module.get_config()
    assert config.is_locked
    assert config.to_dict().keys() == common.get_config(config.experiment).to_dict().keys()
    settings.check(config)
    EXPERIMENTS[config.experiment].check(config)
    assert f"--config=configs/{name}.py" in module.__doc__


def test_there_are_two_experiments():
    for experiment in ("C", "", "a"):
        with pytest.raises(ValueError, match=f"want experiment 'A' or 'B'; got {experiment!r}"):
            common.get_config(experiment)


def test_keys_are_typed_and_locked():
    config = common.get_config()
    with pytest.raises(AttributeError, match="Did you mean"):
        config.voxels.kepe = 5
    with pytest.raises(TypeError):
        config.train.epochs = 2.5


@pytest.mark.parametrize("experiment", ["A", "B"])
def test_every_key_of_0_3_0_is_still_one(experiment):
    keys = flat(common.get_config(experiment))
    assert not set(OF_0_3_0[f"keys of {experiment}"]) - keys.keys()


def test_demo030_is_the_demo_of_0_3_0_key_by_key():
    frozen = flat(expA.get_config("demo030"))
    assert {key: frozen[key] for key in OF_0_3_0["demo"]} == OF_0_3_0["demo"]
    new = {key: value for key, value in frozen.items() if key not in OF_0_3_0["demo"]}
    assert new == {  # constants in the code of 0.3.0, and keys without effect on numbers
        "align.alpha": 1.0,
        "align.method": "svd",
        "align.parcels": "ward:50",
        "align.piecewise": "procrustes",
        "align.reflection": True,
        "align.scaling": True,
        "align.weight": 0.5,
        "align.zscore_common": True,
        "alignments": "",
        "audit": True,
        "crossed": "",
        "design": False,
        "floor_baselines": "",
        "headline": "network",
        "inner": 3,
        "instances": 1,
        "maps": False,
        "members": 10,
        "network": True,
        "permutations": 0,
        "permute": "logistic",
        "searchlight.classifier": "lda",
        "searchlight.correction": "tfce",
        "searchlight.folds": "auto",
        "searchlight.least": 10,
        "searchlight.permutations": 199,
        "searchlight.radius_mm": 0.0,
        "temperature": True,
        "within_subject": False,
        "data.confounds": "",
        "data.entities": "",
        "data.event_duration_s": 0.0,
        "data.file_column": "file",
        "data.grid": "mm",
        "data.group": "",
        "data.high_pass_hz": 0.0,
        "data.images": "ra*",
        "data.mask": "",
        "data.online": "",
        "data.run_column": "",
        "data.scrub_fd_mm": 0.0,
        "data.smooth_mm": 0.0,
        "data.subject_column": "subject",
        "data.synthetic.nonlinear": 0.0,
        "data.synthetic.shared": 0.0,
        "data.table": "",
        "model.dense": [1024, 512, 256, 128, 64, 32, 16],
        "model.filters": [128, 128, 128, 64, 64, 64],
        "model.name": "cnn1d",
        "model.norm_layers": "all",
        "model.norm_momentum": 0.99,
        "model.window": 10,
        "noise.draws": 10,
        "noise.network_draws": 1,
        "sweep": "",
        "train.adam_b1": 0.9,
        "train.adam_b2": 0.999,
        "train.adam_eps": 1e-7,
        "train.best_by": "accuracy",
        "train.draws": "rows",
        "train.early_stop": False,
        "train.epoch_zero": False,
        "train.feed": "auto",
        "train.feed_dtype": "float32",
        "train.feed_rounding": 0.05,
        "train.least_steps": 0,
        "train.loggers": "",
        "train.members": False,
        "train.memory_share": 0.9,
        "train.shortcut_l2": -1.0,
        "train.warmup": 0,
        "voxels.after": False,
        "voxels.classical": "keep",
    }


def test_demo030_does_not_follow_the_demo(monkeypatch):
    before = expA.get_config("demo030").to_dict()
    monkeypatch.setitem(expA.VARIANTS, "demo", lambda config: config.update({"balance": 7}))
    assert expA.get_config("demo").balance == 7
    assert expA.get_config("demo030").to_dict() == before


def test_published_numbers():
    config = expA.get_config()
    assert (config.voxels.keep, config.balance, config.train.batch_size) == (300, 200, 64)
    assert (config.train.lr, config.train.epochs) == (4.5e-3, 5000)
    assert (config.train.penalty, config.train.penalty_factor) == ("l2", 5e-2)
    plateau = config.train.plateau
    assert (plateau.factor, plateau.patience, plateau.min_lr) == (0.2, 50, 1e-5)
    noise = expA.get_config("null")
    assert noise.null and not noise.null_floor and noise.model == config.model
    network = models.find("cnn1d").make(config.model, 3)
    assert network.normed == tuple(f"dense{i}" for i in range(1, 8))  # and the last gives logits
    assert network.conv_activation is None and network.norm_momentum == 0.9


def test_the_published_code_of_experiment_a():
    paper, code = expA.get_config(), expA.get_config("authors")
    assert (code.train.penalty, code.train.penalty_factor) == ("l1", 5e-3)
    network = models.find("cnn1d").make(code.model, 3)
    assert network.normed == () and network.conv_activation is None
    params = {"conv1": {"kernel": np.ones(2), "bias": np.ones(1)}}
    params |= {f"dense{i}": {"kernel": np.ones(10), "bias": np.ones(1)} for i in range(1, 9)}
    penalty = models.find("cnn1d").penalty(params, "l1", 5e-3)
    np.testing.assert_allclose(penalty, 5e-3 * 7 * 11)  # seven dense layers, not the last
    assert "paper" in code.protocols.split(",")  # the epoch and the rate follow the test subject
    same = ("lr", "epochs", "batch_size", "plateau", "adam", "adam_eps")
    assert all(code.train[name] == paper.train[name] for name in same)
    assert (code.balance, code.voxels.keep, code.voxels.centre) == (200, 300, False)


def test_published_numbers_of_experiment_b():
    config = expB.get_config()
    train, plateau = config.train, config.train.plateau
    assert (train.epochs, train.batch_size, train.lr) == (1250, 32, 5e-4)
    assert (train.penalty, train.penalty_factor, config.model.depth) == ("l2", 2e-4, 50)
    assert (plateau.factor, plateau.patience, plateau.min_lr) == (0.3, 30, 5e-10)
    authors = expB.get_config("authors")
    assert (authors.train.lr, authors.train.shortcut_l2) == (1e-3, 1e-4)
    assert (authors.splits, authors.model.head_features) == ("random", 0)  # no layer of 1000
    network = models.find("resnet3d").make(authors.model, 2)
    assert (network.momentum, network.head_features) == (0.99, None)
    sweep = expB.get_config("l2_sweep")
    assert len(sweep.sweep) == 8 and (max(sweep.sweep), min(sweep.sweep)) == (0.0025, 0.0002)
    assert sweep.splits == "random"


def test_the_config_for_ones_own_study_trains():
    """The paper's penalty and rate, which empty the network, are not used; any design matches."""
    a, b = study.get_config(), study.get_config("B")
    assert (a.train.lr, a.train.penalty_factor, a.train.early_stop) == (5e-4, 1e-3, True)
    assert a.align.match == "class" and "independent_runs" not in a.align.regimes  # of one run
    assert (b.experiment, b.model.depth, b.splits) == ("B", 18, "by_subject,by_run")
    assert a.data.source == b.data.source == "bids"
    assert a.train.epochs <= 200 and b.train.epochs <= 100 and b.train.early_stop
    for config in (a, b):
        plateau, cuts = config.train.plateau, 0
        rate = config.train.lr
        while rate > plateau.min_lr:
            rate, cuts = rate * plateau.factor, cuts + 1
        assert (cuts + 1) * plateau.patience < config.train.epochs  # so that it can stop early
    ours = ds000108.get_config()
    assert ours.train == a.train and ours.align.match == "class"
    assert ours.align.regimes.startswith("independent_runs")


@pytest.mark.parametrize("name", NAMES)
def test_unknown_variants_are_refused(name):
    with pytest.raises(ValueError, match="unknown variant 'x'"):
        importlib.import_module(f"configs.{name}").get_config("x")


@pytest.mark.slow
def test_ds000108_on_simulated_bold(shared, tmp_path, quick_compile):
    """Real events on volumes with a planted response are decoded above chance."""
    real = shared("data/bids-events/ds000108")
    root, rng = tmp_path / "ds000108", np.random.default_rng(0)
    patterns = {"Look_Neutral_Stim": rng.normal(size=64), "Look_Neg_Stim": rng.normal(size=64)}
    for subject in ("01", "02", "03", "04", "05"):
        for table in sorted((real / f"sub-{subject}" / "func").glob("*_events.tsv")):
            rows = list(csv.DictReader(table.open(), delimiter="\t"))
            length = int(float(rows[-1]["onset"]) // 2) + 12
            x = rng.normal(0, 1, (length, 64))
            for row in rows:
                if row["trial_type"] in patterns:
                    start = (float(row["onset"]) + 5) / 2
                    x[round(start) : round(start + 4)] += patterns[row["trial_type"]]
            volume = 100 + 10 * x.T.reshape(4, 4, 4, length)
            path = root / table.relative_to(real)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(table.read_bytes())
            bold = nib.Nifti1Image(volume.astype(np.float32), np.eye(4))
            nib.save(bold, str(path).replace("events.tsv", "bold.nii"))
    (root / "task-Emotionregulation_bold.json").write_text('{"RepetitionTime": 2.0}')
    config = ds000108.get_config()
    config.data.update({"root": str(root), "store": str(tmp_path / "store"), "progress": False})
    config.voxels.keep, config.mask.opening = 20, 0
    cohort = sources.load(config)
    assert cohort.classes == ("rest", "neutral", "negative") and len(cohort.runs) == 30
    view = experiment_a.view(config, cohort)
    view = dataclasses.replace(view, inside={n: np.ones_like(v) for n, v in view.inside.items()})
    arm, *_ = experiment_a.arms(config, cohort)
    fold, *_ = experiment_a.folds(config, view, arm)
    assert fold == splits.Fold("01", *fold[1:]) and arm.protocol == "calibrated"
    ledger = Ledger(view)
    got = across_subjects.fold_features(ledger, fold, arm.settings.settings)
    unit = experiment_a.units(config, view, arm)
    seen = ledger.seen(fold.test)
    found = classify(seen, subject=cohort.subject, unit=unit, claimed=arm.protocol)
    assert found == ("calibrated", {})  # labels of the test subject's other runs
    assert any(record.steps["alignment"].labels[fold.test].any() for _, record in seen)
    train, test = fold.train, fold.test
    predicted = nearest_mean(got.x[train], cohort.labels[train], got.x[test])
    recall = [(predicted == k)[cohort.labels[test] == k].mean() for k in range(3)]
    assert np.mean(recall) > 0.6
