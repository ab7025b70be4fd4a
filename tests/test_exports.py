"""Every row of a result table that can be a decoder, against the predictions of the report."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from configs import expA, expB
from emojax import decoder, experiments, fusion, online, sources
from emojax.data import cohort as cohorts
from emojax.data.run import Run
from emojax.decoder import card, guards
from emojax.errors import InputError
from emojax.experiments.exports import facts as export_facts
from emojax.experiments.exports import rows
from emojax.experiments.exports.command import export
from emojax.report import predictions

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compile")]
LINEAR = ("bag", "logistic", "SVM-linear", "LDA", "LDA-shrinkage", "MLP", "MLP-modern")


def small(config, **data):
    """Returns the config of a run that takes seconds."""
    off = {"null_floor": False, "permutations": 0, "audit": False, "crossed": "", "design": False}
    config.update(off)
    config.data.progress = False
    config.data.synthetic.update({"subjects": 4, "grid": (16, 16, 12), "volumes": 40})
    config.data.update(data)
    config.train.epochs = 1
    return config


def config_a(variant="demo", **changes):
    config = small(expA.get_config(variant))
    config.within_subject, config.protocols = False, "nested"
    config.voxels.keep, config.balance = 30, 10
    config.baselines = "SVM-linear,LDA,LDA-shrinkage,MLP,MLP-modern,1-NN"
    if variant == "demo":
        config.model.update({"filters": (2,), "window": 3, "dense": (4,)})
    config.update(changes)
    return config


@pytest.fixture(scope="module")
def run_a(tmp_path_factory):
    config, folder = config_a(), tmp_path_factory.mktemp("a") / "run"
    experiments.run(config, folder)
    return config, folder


def replayed(config, folder, bundle, classifier="", cohort=None, **who):
    """Exports a row; returns the decoder and its largest difference to predictions.csv."""
    export(config, folder, bundle=bundle, classifier=classifier, cohort=cohort, **who)
    made = decoder.load(bundle)
    metrics = json.loads((folder / "metrics.json").read_text())
    row = rows.choose(metrics, classifier, 0)
    table = predictions.read(folder / "predictions.csv", metrics["classes"])
    found = rows.reported(metrics, table, row)
    cohort = sources.load(config.data) if cohort is None else cohort
    at = {
        key: i for i, key in enumerate(zip(cohort.subject, cohort.run, cohort.frame, strict=True))
    }
    folds = found["fold"].tolist()
    mine = found[found["fold"] == (made.facts.left_out if made.facts.subject else folds[0])]
    if made.facts.subject:
        mine = mine[mine["run"] == mine["run"].iloc[-1]]
    where = [at[key] for key in zip(mine["subject"], mine["run"], mine["frame"], strict=True)]
    values = np.stack([volume_of(cohort, i) for i in where]).reshape(-1, *made.facts.grid)
    p = jax.jit(fusion.fuse(made))(values)
    return made, np.abs(p - rows.probabilities(mine, metrics["classes"])).max()


def volume_of(cohort, row):
    run = cohort.runs[cohort.run_index[row]]
    return run.read(cohort.frame[row : row + 1])[0]


def study_of(run):
    return sources.load(run[0].data)


def run_of(cohort, subject, name):
    (run,) = (r for r in cohort.runs if (r.subject, r.name) == (subject, name))
    return run.read(slice(None))


@pytest.mark.parametrize("name", [*LINEAR, "nested"])
def test_a_row_has_the_probabilities_of_the_report(run_a, tmp_path, name):
    made, off = replayed(*run_a, tmp_path / "decoder", name)
    assert off < 1e-5
    facts = made.facts
    assert (facts.subject, facts.left_out, facts.reference_of) == ("01", "01", "01")
    assert facts.trained_on == ("02", "03", "04")
    assert [limit[0] for limit in facts.limits][:2] == ["correlation", "gain"]
    assert dict(facts.scores).keys() == {"balanced_accuracy", "nll", "ece", card.LOW, card.HIGH}
    assert facts.protocol == "calibrated"
    assert sum(count for *_, count in facts.reliability) == 4 * 2 * 40  # volumes
    (own, *_) = made.calibration["members"]
    assert set(own["label"].tolist()) <= {-1, 0, 1, 2}


@pytest.mark.parametrize("name", ["1-NN", "nuisance only (logistic)"])
def test_what_does_not_fold_is_refused(run_a, tmp_path, name):
    with pytest.raises(InputError, match="expected one that folds into a decoder: linear"):
        export(*run_a, bundle=tmp_path / "decoder", classifier=name)
    with pytest.raises(InputError, match=r"found 'QDA'; expected one of nested, bag"):
        export(*run_a, bundle=tmp_path / "decoder", classifier="QDA")


@pytest.mark.parametrize("name", ["", "LDA", "network"])
def test_everybody_trains_for_a_new_person(run_a, tmp_path, name):
    export(*run_a, bundle=tmp_path / "decoder", classifier=name, refit=True)
    facts = decoder.load(tmp_path / "decoder").facts
    assert facts.trained_on == ("01", "02", "03", "04")
    assert (facts.subject, facts.left_out, facts.reference_of) == ("", "", "")
    assert facts.alignment  # its own map comes by `calibrate`
    made, volumes = decoder.load(tmp_path / "decoder"), run_of(study_of(run_a), "01", "run-01")
    for call in (lambda: decoder.decode(made, volumes[0]), lambda: online.init(made)):
        with pytest.raises(InputError, match=r"not calibrated yet; .* --by=time or --by=class"):
            call()
    now = decoder.calibrate(made, volumes, "new", "run-01")
    assert np.isfinite(decoder.decode(now, volumes[0])).all()
    with pytest.raises(InputError, match="--subject; expected neither: all subjects train"):
        export(*run_a, "01", bundle=tmp_path / "decoder", refit=True)


def test_members_with_several_networks(tmp_path):
    config = config_a("modern", headline="network", instances=2, baselines="")
    config.train.least_steps = 3
    config.model.dense = (6,)
    experiments.run(config, tmp_path / "run")
    made, off = replayed(config, tmp_path / "run", tmp_path / "decoder")
    assert (made.network, made.facts.kind) == ("residual", "mean of 6 linear + MLP networks")
    assert off < 1e-5
    assert len({float(own["temperature"]) for own in made.weights["members"]}) == 3


@pytest.mark.parametrize(
    ("regimes", "match", "units"),
    [
        ("independent_runs", "class", "subject"),
        ("group", "class", "subject"),
        ("none", "time", "run"),
    ],
)
def test_regimes_and_units(tmp_path, regimes, match, units):
    config = config_a(baselines="", units=units)
    config.align.update({"regimes": regimes, "match": match})
    experiments.run(config, tmp_path / "run")
    made, off = replayed(config, tmp_path / "run", tmp_path / "decoder", run="")
    assert off < 1e-5
    assert bool(made.facts.alignment) == (regimes == "independent_runs")


def test_volumes_of_experiment_b(tmp_path):
    config = small(expB.get_config("demo"), online="gain+cumulative")
    config.baselines, config.splits, config.folds, config.pad = "LDA-shrinkage,RF", "by_run", 1, 18
    config.model.depth, config.model.width = 18, 2
    config.floor_baselines = ""
    experiments.run(config, tmp_path / "run")
    for name in ("", "LDA-shrinkage"):
        made, off = replayed(config, tmp_path / "run", tmp_path / f"decoder{name}", name)
        assert off < 1e-5
        assert made.facts.online == "gain+cumulative"
        assert made.facts.grid == (16, 16, 12)
    with pytest.raises(InputError, match="found 'RF'"):
        export(config, tmp_path / "run", bundle=tmp_path / "decoder", classifier="RF")


@pytest.fixture(scope="module")
def run_centred(tmp_path_factory):
    """Trains a run without alignment, in which each person's voxels are centred."""
    config, folder = config_a(baselines="logistic"), tmp_path_factory.mktemp("c") / "run"
    config.align.regimes, config.voxels.classical = "none", "all"
    experiments.run(config, folder)
    return config, folder


def test_every_voxel_and_a_mean_of_each(run_centred, tmp_path):
    made, off = replayed(*run_centred, tmp_path / "decoder", "logistic")
    assert off < 1e-5
    assert len(made.weights["voxels"]) > 500 and made.calibration is None
    with pytest.raises(InputError, match=r"found voxels\.centre with every voxel"):
        export(*run_centred, bundle=tmp_path / "all", classifier="logistic", refit=True)
    volumes = run_of(study_of(run_centred), "01", "run-01")
    with pytest.raises(InputError, match=r"expected one with calibration\.npz"):
        decoder.calibrate(made, volumes, "new", by="none")


def test_a_calibration_renews_the_mean_of_each_voxel(run_centred, tmp_path):
    cohort = study_of(run_centred)
    first, second = (run_of(cohort, "01", name) for name in ("run-01", "run-02"))
    wanted, off = replayed(*run_centred, tmp_path / "second")
    assert off < 1e-5
    other = decoder.load(export(*run_centred, "01", "run-01", tmp_path / "first"))
    made = decoder.calibrate(other, first, "01", by="none")
    p = [np.stack([decoder.decode(own, x) for x in second]) for own in (wanted, made, other)]
    np.testing.assert_allclose(p[1], p[0], atol=1e-5)
    assert np.abs(p[2] - p[0]).max() > 1e-3
    assert ("centring", 40, 0) in made.facts.provenance

    everybodys = decoder.load(export(*run_centred, bundle=tmp_path / "all", refit=True))
    assert ("centring", 0, 0) in everybodys.facts.provenance
    with pytest.raises(InputError, match=r"not calibrated yet; .* --by=none"):
        online.replay(everybodys, second)
    new = decoder.calibrate(everybodys, first, "new", by="none")
    shifted = decoder.calibrate(everybodys, first + 50, "new", by="none")
    found = [decoder.decode(new, second[0]), decoder.decode(shifted, second[0] + 50)]
    np.testing.assert_allclose(*found, atol=1e-4)


def test_own_voxels_of_images_of_other_shapes(tmp_path):
    config = config_a(baselines="LDA-shrinkage")
    config.voxels.own, config.align.match = True, "class"
    whole = sources.load(config.data)
    ends = dict(zip(whole.subjects, (16, 15, 14, 16), strict=True))
    runs = [
        dataclasses.replace(run, frames=run.frames[:, : ends[run.subject]], hashes={})
        for run in whole.runs
    ]
    labels = [whole.labels[whole.run_index == i] for i in range(len(runs))]
    cohort = cohorts.build(runs, whole.classes, labels)
    experiments.run(config, tmp_path / "run", cohort)
    for name in ("", "LDA-shrinkage"):
        who = {"subject": "03", "run": "run-02"}
        export(
            config,
            tmp_path / "run",
            bundle=tmp_path / f"b{name}",
            classifier=name,
            cohort=cohort,
            **who,
        )
        made = decoder.load(tmp_path / f"b{name}")
        assert made.facts.grid == (14, 16, 12) and made.facts.reference_of == "03"


def test_volumes_that_training_left_out_are_no_part_of_the_reference():
    rng = np.random.default_rng(0)
    mask = np.ones((6, 6, 4), bool)
    image = 800 + 100 * rng.normal(size=mask.shape)
    x = (image + rng.normal(size=(30, *mask.shape))).astype(np.float32)
    x[:3] *= 1.6  # before the steady state
    facts = decoder.Facts(("a", "b"), mask.shape, 800.0, 100.0, drop_first=3)
    plain = decoder.Decoder({}, mask, None, None, "linear", facts)
    run = Run("01", "run-01", x, tr=2.0)
    made = export_facts.with_reference(plain, [[run]], "01")
    reference, limits = guards.measured([x[3:]], mask)
    np.testing.assert_array_equal(made.reference, reference)
    assert made.facts.limits == limits and made.facts.reference_of == "01"
