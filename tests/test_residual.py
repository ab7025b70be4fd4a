"""The linear path at the start of a network, the part added to it, and the test for a gain."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.special import softmax

from configs import expA
from emojax import models
from emojax.experiments import experiment_a, fits, programs, skeleton
from emojax.models.residual import Path, Residual
from emojax.records import Arm, FoldData
from emojax.report import gains as sentences
from emojax.scoring import bag, gains, linear_path, scores
from emojax.splits import Fold

NETWORK = models.find("residual")
RNG = np.random.default_rng(0)
M, K = 12, 3  # features, classes
X = RNG.normal(size=(40, M)).astype(np.float32)
PATH = Path(RNG.normal(size=(M, K)), RNG.normal(size=K))
READ = PATH.beside(X.__getitem__)
ALL = np.arange(len(X))


def weights(module, scale=0.0):
    """Returns parameters as they are drawn, or all of them random."""
    params = module.init(jax.random.key(0), READ(ALL[:1]), train=False)["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda a: scale * rng.normal(size=a.shape), params) if scale else params


@pytest.mark.slow
def test_it_begins_as_its_linear_path():
    module = NETWORK.make(ConfigDict({"dense": (16, 8), "dropout": (0.2, 0.5)}), K)
    assert module == Residual(K, (16, 8), (0.2, 0.5))
    assert NETWORK.linear and not models.find("cnn1d").linear
    params = weights(module)
    assert [*params] == ["dense1", "dense2", "dense3"]
    assert params["dense1"]["kernel"].shape == (M, 16)
    for train in (False, True):  # dropout in front of a layer of zeros changes nothing
        rngs = {"dropout": jax.random.key(1)}
        got = module.apply({"params": params}, READ(ALL), train=train, rngs=rngs)
        np.testing.assert_array_equal(got, READ(ALL)[:, M:])
    models.check_module("residual", module, (M + K,), K)


def test_dropout_and_penalty_leave_the_linear_path_alone():
    module = Residual(K, (16,), (0.0, 0.999))
    params = weights(module, 0.3) | {"dense2": {"kernel": jnp.ones((16, K)), "bias": jnp.zeros(K)}}
    rngs = {"dropout": jax.random.key(1)}
    got = module.apply({"params": params}, READ(ALL), train=True, rngs=rngs)
    alone = np.isclose(got, READ(ALL)[:, M:], atol=1e-6).all(1)
    assert alone.mean() > 0.9  # all but a few hidden units are dropped
    want = 0.1 * sum((params[name]["kernel"] ** 2).sum() for name in params)
    assert float(NETWORK.penalty(params, "l2", 0.1)) == pytest.approx(float(want))


def test_logits_of_a_row_do_not_depend_on_the_rows_beside_it():
    assert READ(ALL).dtype == np.float32 and READ(ALL).shape == (40, M + K)
    np.testing.assert_allclose(READ(ALL)[:, M:], X @ PATH.kernel + PATH.bias, rtol=1e-5)
    for rows in (ALL[:1], ALL[3:7], ALL[::-1]):
        np.testing.assert_array_equal(READ(rows), READ(ALL)[rows])


def test_folded_it_answers_the_same_from_voxels():
    module = Residual(K, (16, 8))
    params, matrix, offset = weights(module, 0.4), RNG.normal(size=(20, M)), RNG.normal(size=M)
    voxels = RNG.normal(size=(7, 20)).astype(np.float32)
    features = PATH.beside(lambda rows: (voxels @ matrix + offset)[rows].astype(np.float32))
    want = module.apply({"params": params}, features(np.arange(7)))
    assert NETWORK.fold is not None and NETWORK.apply is not None and NETWORK.check_folded
    folded = NETWORK.fold(params, {}, *PATH.compose(matrix, offset))
    np.testing.assert_allclose(NETWORK.apply(folded, voxels), want, rtol=1e-4, atol=1e-4)
    NETWORK.check_folded(folded, 20, K)
    with pytest.raises(ValueError, match=r"want a map to 12 \+ 3 values; got \(20, 12\), \(12,\)"):
        NETWORK.fold(params, {}, matrix, offset)
    for bad in (
        {"layers": folded["layers"]},
        folded | {"linear": folded["layers"][0]},
        folded | {"layers": folded["layers"][:-1]},
    ):
        with pytest.raises(ValueError, match="want "):
            NETWORK.check_folded(bad, 20, K)


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"want x \[batch, voxels > 3\]; got \(2, 3\)"):
        Residual(K).init(jax.random.key(0), jnp.ones((2, 3)))
    for key, value in (("dense", ()), ("dense", (0,)), ("dropout", (0.5,)), ("dropout", (1.0, 0))):
        assert not NETWORK.rules[key].holds(value)
    config = expA.get_config("modern").model
    assert all(rule.holds(config[key]) for key, rule in NETWORK.rules.items())


# A study of vectors: five subjects, a class that a linear decoder can read, or one that it cannot.

SUBJECTS, ROWS = 4, 60


def study(nonlinear, seed=0):
    """Returns vectors [n, 8], classes, and subjects."""
    rng = np.random.default_rng(seed)
    subject = np.repeat(np.arange(SUBJECTS), ROWS)
    y = rng.integers(0, 2, subject.size)
    sign = rng.choice([-1, 1], subject.size)
    x = rng.normal(size=(subject.size, 8)) * 0.6
    x[:, 0] += np.where(nonlinear, sign, 2 * y - 1) * 1.0
    x[:, 1] += sign * (2 * y - 1) * nonlinear  # with the first one the class, alone nothing
    return x.astype(np.float32), y, subject


def one(x, y, subject, test, monitor, instances=3):
    """Returns a fold of these vectors, or one of its members."""
    fold = Fold(
        f"{test} without {monitor}",
        np.flatnonzero((subject != test) & (subject != monitor)),
        np.flatnonzero(subject == monitor),
        np.flatnonzero(subject == test),
    )
    labels = np.where(subject == test, -1, y).astype(np.int32)
    path = linear_path.fit(x.__getitem__, labels, fold)
    read = path.beside(x.__getitem__)
    keys = tuple(jax.random.key(j) for j in range(instances))
    return FoldData(fold, None, read, read, labels, (fold.train,) * instances, fold.monitor, keys)


def gain(nonlinear):
    config = expA.get_config("modern")
    config.model.dense, config.train.penalty_factor, config.train.lr = (32,), 1e-3, 5e-3
    config.train.strategy = "scan"
    x, y, subject = study(nonlinear)
    folds = []
    for test in range(SUBJECTS):
        others = [name for name in range(SUBJECTS) if name != test]
        made = tuple(one(x, y, subject, test, name) for name in others)
        folds.append(dataclasses.replace(made[0], members=made))
    train = config.train
    epochs = programs.epochs_of(train, 2 * ROWS)
    plan = fits.Plan(programs.make_program(config, 2), train, False, True, epochs, epochs, "scan")
    arm = Arm("nested", "strict", members=True)
    numbered = fits.trainings(arm, folds)
    networks = fits.fit_networks(plan, arm, numbered, store=fits.NoStore(), log=lambda *epoch: None)
    found = fits.joined(arm, folds, networks)
    tests = [data.fold.test for data in folds]
    linear = [gains.linear_path(data, 2) for data in folds]
    return gains.gain([y[rows] for rows in tests], linear, [found[i][0]["best"] for i in found])


@pytest.mark.slow
def test_what_no_linear_decoder_reads_is_a_gain():
    got = gain(True)
    assert got["difference"] > 0.2 and got["ci95"][0] > 0 and got["nll"]["ci95"][1] < 0
    assert got["counts"] and got["agreement"] < 0.8
    said = sentences.sentence({"arms": [{"name": "nested", "folds": [0] * 4, "gain": got}]})
    assert "So it adds to this linear path." in said


def test_where_a_linear_decoder_reads_all_nothing_is_added():
    got = gain(False)
    low, high = got["ci95"]
    assert low <= 0 <= high and abs(got["difference"]) < 0.02
    said = sentences.sentence({"arms": [{"name": "nested", "folds": [0] * 4, "gain": got}]})
    assert "no gain" in said or "adds nothing measurable" in said


# gains


def test_the_linear_path_of_a_fold_is_the_bag():
    x, y, subject = study(False)
    members = tuple(one(x, y, subject, 0, name) for name in (1, 2, 3))
    data = dataclasses.replace(members[0], members=members)
    monitored = np.array([-1, 0, 1, 2])[subject]
    stacked, rest = np.stack([x] * 3, axis=1), np.flatnonzero(subject)
    fitted = bag.Bag().fit(stacked[rest], y[rest], monitored[rest])
    want = fitted.predict_proba(stacked[data.fold.test])
    np.testing.assert_allclose(gains.linear_path(data, 2), want, rtol=1e-4)
    alone = softmax(members[1].read_test(data.fold.test)[:, -2:], axis=1)
    np.testing.assert_allclose(gains.linear_path(members[1], 2), alone)


def truth(folds=4, rows=100):
    rng = np.random.default_rng(0)
    labels = [rng.permutation(np.arange(rows) % 2) for _ in range(folds)]
    return labels, [np.eye(2)[y] * 0.8 + 0.1 for y in labels]


def turned(probabilities, count):
    """Exchanges the classes of the first rows."""
    out = probabilities.copy()
    out[:count] = out[:count, ::-1]
    return out


def test_gains_are_paired_over_folds():
    labels, right = truth()
    worse = [turned(p, n) for p, n in zip(right, (10, 20, 30, 20), strict=True)]
    got = gains.gain(labels, worse, right)
    each = [
        np.mean([(p.argmax(1) == y)[y == k].mean() for k in (0, 1)])
        for y, p in zip(labels, worse, strict=True)
    ]
    assert got["difference"] == pytest.approx(1 - np.mean(each))
    assert got["ci95"][0] > 0 and got["agreement"] == 0.8 and got["counts"] is True
    assert got["nll"]["difference"] < 0
    other = gains.gain(labels, right, worse)
    assert other["difference"] == pytest.approx(-got["difference"])
    single = gains.gain(labels[:1], worse[:1], right[:1])
    assert single["ci95"] is None and single["p"] is None


@pytest.mark.parametrize(
    ("differ", "counts", "said"),
    [
        ((1, 1, 1, 1), False, "This is no gain"),  # 99 %
        ((2, 1, 2, 2), True, "adds to this linear path"),
        ((-2, -2, -1, -2), True, "makes the linear path worse"),
        ((2, -2, 3, -3), True, "adds nothing measurable"),
    ],
)
def test_a_network_that_agrees_with_its_linear_path_gains_nothing(differ, counts, said):
    labels, right = truth()
    linear = [turned(p, max(n, 0)) for p, n in zip(right, differ, strict=True)]
    network = [turned(p, max(-n, 0)) for p, n in zip(right, differ, strict=True)]
    got = gains.gain(labels, linear, network)
    assert got["counts"] is counts
    arms = [{"name": "bag", "folds": [0] * 4}, {"name": "nested", "folds": [0] * 4, "gain": got}]
    text = sentences.sentence({"arms": arms})
    assert text.startswith("nested: the network adds ") and said in text
    assert text.count("nested") == 1


def test_cells():
    gain = {"difference": 0.001, "ci95": [-0.0021, 0.0041]}
    assert sentences.cell(gain) == "+.001 (-.002 .. +.004)"
    assert sentences.cell({"difference": -0.0001, "ci95": None}) == "+.000"
    assert sentences.cell({"difference": -1.25, "ci95": [-2.0, 0.0]}) == "-1.250 (-2.000 .. +.000)"
    assert sentences.cell(None) == "" == sentences.sentence({"arms": [{"name": "bag"}]})


# the simulated study


@pytest.mark.slow
@pytest.mark.parametrize("nonlinear", [0.0, 1.0])
def test_modern_gains_where_and_only_where_classes_are_not_linear(tmp_path, nonlinear):
    config = expA.get_config("modern")
    config.update({"null_floor": False, "audit": False, "members": 2, "instances": 2})
    config.permutations, config.within_subject, config.design = 0, False, False
    config.crossed = ""
    config.data.update({"store": str(tmp_path / "store"), "progress": False})
    config.data.synthetic.update({"nonlinear": nonlinear, "grid": (24, 24, 16)})
    config.voxels.keep = 100
    result = skeleton.run(experiment_a.EXPERIMENT, config, tmp_path / "run")
    assert result is not None
    arms = {arm["name"]: arm for arm in result.metrics["arms"]}
    got = arms["nested"]["gain"]
    low, high = got["ci95"]
    logistic = [fold["baselines"]["logistic"] for fold in arms["logistic n-1"]["folds"]]
    ours, theirs = (
        [row["balanced_accuracy"] for row in rows]
        for rows in ([fold["network"] for fold in arms["nested"]["folds"]], logistic)
    )
    over = scores.paired_difference(ours, theirs)
    if nonlinear:
        assert low > 0 and over["ci95"][0] > 0 and got["counts"]
    else:
        assert low <= 0 <= high and abs(got["difference"]) < 0.02
