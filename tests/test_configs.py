"""Every config loads, is locked, says how to run it; the real study's on its real events."""

import csv
import importlib
import pathlib

import nibabel as nib
import numpy as np
import pytest

from configs import common, ds000108, expA, expB
from emojax import sources
from emojax.experiments import experiment_a, experiment_b, folds
from emojax.features import across_subjects, masked

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAMES = sorted(
    p.stem for p in (ROOT / "configs").glob("*.py") if p.stem not in ("common", "__init__")
)
VARIANTS = [
    *(("expA", variant) for variant in ("demo", "authors", "null")),
    *(("expB", variant) for variant in ("demo", "authors", "null", "l2_sweep")),
    *((name, "null") for name in ("finger7t", "haxby_b", "audiovisual")),
]


@pytest.mark.parametrize(("name", "variant"), [(n, "") for n in NAMES] + VARIANTS)
def test_loads_locked_and_in_range(name, variant):
    module = importlib.import_module(f"configs.{name}")
    config = module.get_config(variant) if variant else module.get_config()
    assert config.is_locked
    assert config.to_dict().keys() == common.get_config(config.experiment).to_dict().keys()
    {"A": experiment_a, "B": experiment_b}[config.experiment].check(config)
    assert f"--config=configs/{name}.py" in module.__doc__


def test_published_numbers():
    config = expA.get_config()
    assert (config.voxels.keep, config.balance, config.train.batch_size) == (300, 200, 64)
    assert (config.train.lr, config.train.epochs) == (4.5e-3, 5000)
    assert (config.train.penalty, config.train.penalty_factor) == ("l2", 5e-2)
    plateau = config.train.plateau
    assert (plateau.factor, plateau.patience, plateau.min_lr) == (0.2, 50, 1e-5)
    authors = expA.get_config("authors").train
    assert (authors.penalty, authors.penalty_factor) == ("l1", 5e-3)


def test_published_numbers_of_experiment_b():
    config = expB.get_config()
    train, plateau = config.train, config.train.plateau
    assert (train.epochs, train.batch_size, train.lr) == (1250, 32, 5e-4)
    assert (train.penalty, train.penalty_factor, config.model.depth) == ("l2", 2e-4, 50)
    assert (plateau.factor, plateau.patience, plateau.min_lr) == (0.3, 30, 5e-10)
    authors = expB.get_config("authors").train
    assert (authors.lr, authors.shortcut_l2) == (1e-3, 1e-4)
    sweep = expB.get_config("l2_sweep")
    assert len(sweep.sweep) == 8 and (max(sweep.sweep), min(sweep.sweep)) == (0.0025, 0.0002)
    assert sweep.splits == "random"


@pytest.mark.parametrize("name", NAMES)
def test_unknown_variants_are_refused(name):
    with pytest.raises(ValueError, match="unknown variant 'x'"):
        importlib.import_module(f"configs.{name}").get_config("x")


def test_ds000108_on_simulated_bold(shared, tmp_path):
    """Five subjects' real events, volumes with a planted response: read, aligned, above chance."""
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
    data = masked.load(config, cohort)
    data = data._replace(inside={name: np.ones_like(v) for name, v in data.inside.items()})
    variant = folds.variants(config, 3)[0]
    fold = folds.leave_one_out(data.subjects, variant)[0]
    got = across_subjects.fold_features(data.subjects, fold, variant.settings)
    report = across_subjects.score_check(got, cohort.subject, variant.settings, "nested")
    assert set(report) == {"alignment"}  # a calibration, and declared
    x, y = np.concatenate(got.train_x), np.concatenate(got.train_y)
    means = np.stack([x[y == k].mean(0) for k in range(3)])
    predicted = ((got.test_x[:, None] - means) ** 2).sum(-1).argmin(1)
    recall = [(predicted == k)[got.test_y == k].mean() for k in range(3)]
    assert np.mean(recall) > 0.6
