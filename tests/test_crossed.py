"""New subjects and new levels: what generalises, cells of the design, refusals."""

import numpy as np
import pytest
from small_studies import read

from emojax.data import cohort as cohorts
from emojax.data.run import Run
from emojax.errors import InputError
from emojax.experiments import crossed, experiment_a, held_out
from emojax.report import designs

NAMES = tuple("abcdef")
LEVELS = ("x", "y", "z")
VOXELS = 60


def make_cohort(cell=0.0, main=0.0, people=NAMES, factors=None):
    """Returns nine maps a person: a pattern for each class, and one for each cell of the design."""
    rng = np.random.default_rng(1)
    y, level = np.divmod(np.arange(9), 3)
    mains, cells = rng.normal(size=(3, VOXELS)), rng.normal(size=(9, VOXELS))
    runs = [
        Run(name, "maps", (main * mains[y] + cell * cells + rng.normal(size=(9, VOXELS))))
        for name in people
    ]
    factors = factors or {"label": [f"c{k}" for k in y], "prime": [LEVELS[k] for k in level]}
    return cohorts.build(
        runs,
        ("c0", "c1", "c2"),
        [y] * len(people),
        factors={name: [np.array(values)] * len(people) for name, values in factors.items()},
    )


@pytest.fixture
def small(config):
    """Returns settings of a study of maps."""
    config.update({"protocols": "nested", "baselines": "logistic", "permutations": 39})
    config.update({"null_floor": False, "balance": 3, "headline": "network"})
    config.voxels.update({"keep": 20, "classical": "all"})
    config.crossed = "all"
    config.align.update({"regimes": "none", "match": "class"})
    config.data.label_column = "label"
    config.model.update({"filters": (8,), "window": 3, "dense": (8,)})
    return config


def generalises(found):
    """Returns whether the report says that any column generalises."""
    said = designs.sentences({"crossed": found, "chance": 1 / 3})
    assert len(said) == sum(map(len, found.values()))
    return any("it generalises" in text for text in said)


def analyse(config, cohort):
    view = read(cohort)
    arm, *_ = experiment_a.arms(config, cohort)
    return crossed.analyse(experiment_a.EXPERIMENT, config, view, arm, ())


@pytest.mark.parametrize("classical", ["all", "keep"])
def test_a_pattern_of_the_label_generalises(small, classical):
    small.voxels.classical = classical
    found = analyse(small, make_cohort(main=1.0))
    assert [*found] == ["prime"] and generalises(found)
    for entry in found["prime"].values():
        assert entry["mean"] > 0.8 and entry["p"] == 1 / 40
        assert abs(entry["null"]["mean"] - 1 / 3) < 0.1 and entry["null"]["draws"] == 39
        low, high = entry["ci95"]
        assert low <= entry["mean"] <= high
        assert entry["leaving_subjects_out"]["mean"] > 0.8
        assert entry["permuted"] == "rows within subjects, and within levels"


@pytest.mark.parametrize("classical", ["all", "keep"])
def test_a_pattern_of_the_cell_does_not(small, classical):
    small.voxels.classical = classical
    small.permutations = 19
    found = analyse(small, make_cohort(cell=1.0))
    assert not generalises(found)  # 0.6 and more on new people with known primes
    for entry in found["prime"].values():
        assert entry["leaving_subjects_out"]["mean"] > 0.6
        assert entry["mean"] < 0.5 and entry["p"] > 0.05


def test_the_columns_are_chosen_by_the_key(small):
    cohort = make_cohort(main=1.0)
    small.permutations = 0
    small.crossed = "prime"
    entry = analyse(small, cohort)["prime"]["logistic"]
    assert entry["null"] is None and entry["p"] is None is None
    small.crossed = ""
    assert analyse(small, cohort) is None
    small.crossed = "all"
    assert analyse(small, make_cohort(factors={"label": ["c"] * 9})) is None


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("one", "one level, k"),
        ("file", "a different level in every row|to train on"),
        ("code", "no row of c0 to train on for a x 0: the cell is empty"),
    ],
)
def test_a_column_that_cannot_be_crossed_is_left_out_or_refused(small, column, said):
    values = {"one": ["k"] * 9, "file": list("123456789"), "code": [str(k // 3) for k in range(9)]}
    cohort = make_cohort(factors={"label": ["c"] * 9, column: values[column]})
    small.permutations = 0
    found = analyse(small, cohort)[column]
    if column != "file":  # nine stimuli, each of one class: the others train
        assert [*found] == ["left out"]
        assert said in found["left out"]
        small.crossed = column
        with pytest.raises(InputError, match=rf"crossed={column}: found {said}; expected"):
            crossed.check(small, cohort)
    small.crossed = "no"
    with pytest.raises(InputError, match=rf"crossed: found 'no'; expected .*\({column}\)"):
        crossed.check(small, cohort)


def test_training_rows_share_neither_and_the_headline_sees_a_part(small):
    small.voxels.classical = "keep"
    cohort = make_cohort(main=1.0)
    view = read(cohort)
    arm, *_ = experiment_a.arms(small, cohort)
    source = held_out.HeldOut(experiment_a.EXPERIMENT, small, view, arm)
    fold = crossed.folds_of(cohort, cohort.factors["prime"])[0]
    train, (x, x_test) = source.inputs(fold, 0)
    assert set(cohort.subject[train]) == set("cdef")  # b is held back, as in the headline
    assert set(cohort.factors["prime"][train]) == {"y", "z"} and len(x) == len(train)
    changed = cohort.replace_row(int(fold.test[0]), np.full(VOXELS, 7.0, np.float32))
    other = held_out.HeldOut(experiment_a.EXPERIMENT, small, read(changed), arm).inputs(fold, 0)
    np.testing.assert_array_equal(other[1][0], x)
    assert not np.array_equal(other[1][1][0], x_test[0])
    unseen = np.flatnonzero((cohort.subject != "a") & (cohort.factors["prime"] == "x"))[0]
    changed = cohort.replace_row(int(unseen), np.full(VOXELS, 7.0, np.float32))
    other = held_out.HeldOut(experiment_a.EXPERIMENT, small, read(changed), arm).inputs(fold, 0)
    np.testing.assert_array_equal(other[1][0], x)
    np.testing.assert_array_equal(other[1][1], x_test)
    small.headline = "bag"  # which does not prevent the others
    arm, *_ = experiment_a.arms(small, cohort)
    source = held_out.HeldOut(experiment_a.EXPERIMENT, small, view, arm)
    train, (x, _) = source.inputs(fold, 0)
    assert set(cohort.subject[train]) == set("bcdef") and len(x) == len(train)


def test_balanced_accuracy_of_each_subject():
    right = np.array([[1, 0, 1, 1], [0, 0, 1, 0]], bool)
    labels = np.array([[0, 0, 1, 2], [1, 1, 1, 1]])
    got = held_out.by_subject(right, labels, ["a", "a", "a", "b"])
    np.testing.assert_allclose(got, [[0.75, 1.0], [1 / 3, 0.0]])


@pytest.mark.slow
def test_real_emotion_maps(shared, tmp_path):
    from configs import emotion_maps
    from emojax import sources

    config = emotion_maps.get_config()
    config.data.root = str(shared("data/emotion-maps"))
    config.data.store = str(tmp_path / "store")
    config.permutations, config.crossed = 0, "all"
    cohort = sources.load(config.data)
    view = experiment_a.view(config, cohort)
    arm = experiment_a.arms(config, cohort)[0]
    found = crossed.analyse(experiment_a.EXPERIMENT, config, view, arm, ())
    entry = found["priming"]["SVM-linear hard"]
    assert abs(entry["mean"] - 0.341) < 0.03
    assert abs(entry["leaving_subjects_out"]["mean"] - 0.478) < 0.03
