"""Maps of the headline on small cohorts whose informative voxels are known, and their section."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from emojax import models
from emojax.data import cohort as cohorts
from emojax.data.run import Run
from emojax.experiments import experiment_a, experiment_b, patterns
from emojax.models import resnet3d
from emojax.provenance import Ledger
from emojax.report import page
from emojax.report import patterns as section

NAMES, CLASSES = ("a", "b", "c", "d"), ("rest", "neutral", "negative")
GRID, PER_RUN, KEEP = (6, 5, 4), 30, 40
AFFINE = np.diag([3.0, 3, 3, 1])
AFFINE[:3, 3] = -7.5, -6, -4.5


def planted():
    """Returns the voxels with a response, on the right side."""
    out = np.zeros(GRID, bool)
    out[4:, 1:4, 1:3] = True
    return out


def make(affine=AFFINE, mixed=False, size=3.0, grid=GRID):
    """Returns a cohort of volumes; `mixed` rotates the response differently in every subject."""
    rng = np.random.default_rng(0)
    where = np.zeros(grid, bool)
    where[tuple(slice(n) for n in GRID)] = planted()
    y = np.concatenate([rng.permutation(PER_RUN) % 3 for _ in range(2)])
    response = size * rng.normal(size=(3, where.sum()))
    runs, labels = [], []
    for name in NAMES:
        turn = (
            np.linalg.qr(rng.normal(size=(where.sum(),) * 2))[0] if mixed else np.eye(where.sum())
        )
        values = 100 + rng.normal(size=(2 * PER_RUN, *grid))
        values[:, where] += response[y] @ turn
        for i in range(2):
            part = slice(i * PER_RUN, (i + 1) * PER_RUN)
            frames = values[part].astype(np.float32)
            runs.append(Run(name, f"run-{i + 1}", frames, tr=2.0, affine=affine))
            labels.append(y[part])
    masks = dict.fromkeys(NAMES, np.ones(grid, bool))
    return cohorts.build(runs, CLASSES, labels, masks)


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """Fits classical classifiers in this process."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")


@pytest.fixture
def small(config):
    config.update({"protocols": "nested", "baselines": "", "maps": True, "balance": 10})
    config.voxels.keep, config.align.regimes = KEEP, "independent_runs"
    return config


def analyse(config, cohort, experiment=experiment_a.EXPERIMENT, arm=None, **options):
    view = experiment.view(config, cohort)
    arm = experiment.arms(config, cohort)[0] if arm is None else arm(config, cohort)
    folds = experiment.folds(config, view, arm)
    made = [experiment.features(config, Ledger(view), f, arm, i) for i, f in enumerate(folds)]
    return patterns.analyse(experiment, config, view, arm, made, **options)


def sizes(found, kind="pattern", suffix=""):
    """Returns the maps of all classes together, [X, Y, Z]."""
    volumes = [found["volumes"][section.file_name(kind, name, suffix)] for name in CLASSES]
    return np.sqrt(np.mean(np.square(volumes), axis=0))


def share_of_planted(values):
    """Returns the share of planted voxels among the largest values, as many as were planted."""
    strongest = np.argsort(-values.ravel())[: planted().sum()]
    return planted().ravel()[strongest].mean()


@pytest.mark.slow
@pytest.mark.parametrize("regime", ["independent_runs", "group", "none"])
def test_the_bag_has_its_pattern_where_the_response_is(small, regime):
    small.align.regimes = regime
    ticks = []
    found = analyse(small, make(mixed=regime == "independent_runs"), tick=ticks.append)
    assert ticks == [1] * 4 and found["folds"] == 4 and found["units"] == "mm"
    own = found["kinds"]["pattern"]
    assert own["seeds"] == patterns.SEEDS and planted().sum() <= own["voxels"] <= 120
    assert [*own["classes"]] == [*CLASSES] and len(found["volumes"]) == 9
    assert share_of_planted(sizes(found)) == 1
    for entry in own["classes"].values():
        assert entry["stability"] > max(0.5, entry["random"])
        assert entry["always"] >= 1 and 0 <= entry["random"] <= 1
        for row in entry["clusters"][: regime != "independent_runs"]:
            assert row["side"] == "R" and row["peak"][0] > 3 and row["mm3"] == 27 * row["voxels"]
    if regime != "independent_runs":  # there every subject has its own topography
        assert own["classes"]["rest"]["clusters"]
    json.dumps({**found, "volumes": None}, allow_nan=False)


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_parcels_have_their_own_way_back(small, after):
    small.align.regimes, small.align.parcels, small.voxels.after = "piecewise", "ward:4", after
    found = analyse(small, make(mixed=True))
    assert (found["kinds"]["pattern"]["voxels"] == 120) == after
    assert share_of_planted(sizes(found)) > 0.8


def test_one_logistic_regression_of_every_voxel(small):
    small.headline, small.baselines, small.voxels.classical = "network", "logistic", "all"
    small.align.regimes = "none"

    def arm(config, cohort):
        first = experiment_a.arms(config, cohort)[0]
        return dataclasses.replace(first, decoder="logistic", baselines=("logistic",))

    found = analyse(small, make(), arm=arm)
    assert found["kinds"]["pattern"]["voxels"] == 120
    assert share_of_planted(sizes(found)) == 1


def test_what_has_no_map_says_why(small):
    small.maps = False
    assert analyse(small, make()) is None
    small.maps, small.voxels.own = True, True
    assert "voxels.own=True" in analyse(small, make())[section.LEFT_OUT]
    small.voxels.own, small.headline = False, "network"
    small.model.filters, small.model.window, small.model.dense = (4,), 5, (8,)
    assert "no kept network" in analyse(small, make())[section.LEFT_OUT]


@pytest.mark.parametrize("regime", ["independent_runs", "none"])
def test_networks_have_saliency_and_pattern(small, regime, quick_compile):
    small.headline, small.align.regimes = "network", regime
    small.model.filters, small.model.window, small.model.dense = (4,), 5, (8,)
    net = models.find("cnn1d").make(small.model, 3)
    params = net.init(jax.random.key(0), np.zeros((1, KEEP)), train=False)["params"]
    asked = []

    def load(name):
        asked.append(name)
        return {"params": params}

    found = analyse(small, make(), load=load)
    assert asked == [f"nested {i}" for i in range(4)]
    assert [*found["kinds"]] == ["saliency", "pattern"]
    assert found["kinds"]["saliency"]["seeds"] == 2 and len(found["volumes"]) == 18
    for kind in found["kinds"]:
        assert np.isfinite(sizes(found, kind)).all() and sizes(found, kind).any()
        assert not np.array_equal(sizes(found, kind), sizes(found, kind, "_random"))
    assert share_of_planted(sizes(found)) > 0.8  # any output goes with the large response


@pytest.mark.slow
def test_networks_of_whole_volumes_have_maps_of_one_fold(config):
    from configs import common

    config = common.get_config("B").copy_and_resolve_references()
    config.unlock()
    config.update({"maps": True, "splits": "by_subject", "baselines": "", "null_floor": False})
    config.data.progress = False
    config.model.depth, config.model.width, config.pad = 18, 4, 9
    cohort = make()
    net = models.find("resnet3d").make(config.model, 3)
    made = net.init(jax.random.key(0), np.zeros((1, 9, 9, 9)), train=False)
    found = analyse(config, cohort, experiment_b.EXPERIMENT, load=lambda name: dict(made))
    assert found["folds"] == 1 and [*found["kinds"]] == ["saliency", "pattern"]
    for kind, own in found["kinds"].items():
        assert own["voxels"] == 120 and own["classes"]["rest"]["stability"] is None
        assert sizes(found, kind).shape == GRID and sizes(found, kind).any()
    assert resnet3d.MINIMUM == 9


@pytest.fixture(scope="module")
def shown():
    """Returns numbers and volumes as an analysis returns them."""
    rng = np.random.default_rng(1)
    row = {"peak": [9.0, -3.0, 3.0], "side": "R", "voxels": 4, "mm3": 108.0, "value": -2.5}
    entry = {"stability": 0.81, "random": 0.11, "random_size": 0.2}
    entry |= {"always": 3, "clusters": [row]}
    own = {"seeds": 8, "voxels": 40, "classes": {"rest": entry, "fear": entry | {"random": 0.7}}}
    volumes = {
        section.file_name("pattern", name, suffix): rng.normal(size=GRID) * (rng.random(GRID) > 0.5)
        for name in own["classes"]
        for suffix in ("", section.RANDOM)
    }
    return {"folds": 4, "units": "mm", "kinds": {"pattern": own}}, volumes


@pytest.mark.parametrize("affine", [AFFINE, None])
def test_a_figure_of_each_class(shown, affine):
    found, volumes = shown
    extras = {"volumes": volumes, "affine": affine, "mean": np.ones(GRID)}
    drawn = section.draw({"maps": found}, extras)
    assert [*drawn] == ["pattern_rest", "pattern_fear"]
    figure, caption = drawn["pattern_fear"]
    assert isinstance(figure, Figure) and "random weights" in caption
    assert ("left and right" in caption) == (affine is None)
    assert len(page.png(figure)) > 10_000
    said = {text.get_text() for text in figure.texts}
    assert {"pattern", "random weights"} <= said
    assert any("do not define left and right" in text for text in said) == (affine is None)
    if affine is not None:
        lettered = [t.get_text() for a in figure.axes for t in a.texts]
        assert "L" in lettered and "R" in lettered


def test_the_section_has_numbers_clusters_and_what_they_mean(shown):
    found, _ = shown
    made = section.section({"maps": found})
    assert made["figures"] == ["pattern_rest", "pattern_fear"]
    numbers, places = made["tables"]
    assert numbers.rows[0] == ["pattern, rest", "0.81", "0.11", "0.20", "3 of 40"]
    assert places.rows[0] == ["rest", "9", "-3", "3", "R", "4", "108", "-2.5"]
    said = " ".join(made["said"])
    assert "Haufe" in said and "fear closely resembles that of random weights" in said
    assert "rest looks" not in said
    array = section.section({"maps": found | {"units": None}})
    assert array["tables"][1].header[1] == "axis 1" and "array indices" in array["tables"][1].note


def test_no_maps_no_section():
    assert section.section({}) is None and section.section({"maps": None}) is None
    left = section.section({"maps": {section.LEFT_OUT: "maps: found x, expected y"}})
    assert left["said"] == ["No map: maps: found x, expected y."] and not left["tables"]
    assert section.draw({"maps": {section.LEFT_OUT: "x"}}, {}) == {}
