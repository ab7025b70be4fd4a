"""`emojax.bench` agrees with scikit-learn and with `statistics`."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold, KFold, LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import emojax
from emojax import side_by_side, statistics
from emojax.errors import InputError
from emojax.provenance import LeakageError

FEW = ("logistic", "LDA-shrinkage", "1-NN")
NAMES = np.array(["calm", "fear", "joy, or so"])


def rows(n=90, v=20, strength=1.2, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = rng.normal(50, 3, (n, v))
    x[:, :3] += 3 * strength * np.eye(3)[y]
    return x, NAMES[y], np.repeat([f"run-{i}" for i in range(6)], n // 6)


def test_the_table_is_that_of_its_parts(tmp_path):
    x, y, groups = rows()
    decoders = {
        "LDA": LinearDiscriminantAnalysis(),
        "mine": make_pipeline(
            StandardScaler(), LogisticRegression(C=1e-2, class_weight="balanced")
        ),
        "logistic": "logistic",
    }
    table = emojax.bench(x, y, groups, decoders=decoders, workdir=tmp_path / "out")
    assert table.index.tolist() == [*decoders] and (table["folds"] == 6).all()
    folds = {}
    for name in ("LDA", "mine"):
        predicted = cross_val_predict(
            decoders[name], x.astype(np.float32), y, groups=groups, cv=LeaveOneGroupOut()
        )
        folds[name] = np.array(
            [
                balanced_accuracy_score(y[g == groups], predicted[g == groups])
                for g in np.unique(groups)
            ]
        )
        mean, half = folds[name].mean(), stats.t.ppf(0.975, 5) * stats.sem(folds[name])
        want = [mean, folds[name].std(ddof=1), mean - half, mean + half]
        got = table.loc[name, ["balanced_accuracy", "sd", "low", "high"]]
        np.testing.assert_allclose(got.to_numpy(float), want, rtol=1e-5)
    assert table.loc["mine", "balanced_accuracy"] == table.loc["logistic", "balanced_accuracy"]
    test = statistics.paired_test(emojax_key(), folds["mine"], folds["LDA"])
    assert table.loc["mine", "p"] == pytest.approx(float(test.p))
    assert np.isnan(table.loc["LDA", "p"]) and (table["seconds"] > 0).all()

    stored = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert len(stored) == 3 * len(x)
    assert [*stored.columns[:6]] == ["decoder", "fold", "row", "group", "label", "predicted"]
    lda = stored[stored["decoder"] == "LDA"].sort_values("row")
    assert (lda["label"].to_numpy() == y).all() and (lda["group"].to_numpy() == groups).all()
    np.testing.assert_allclose(lda[[f"p_{name}" for name in NAMES]].sum(axis=1), 1, atol=1e-4)
    again = pd.read_csv(tmp_path / "out" / "bench.csv", index_col="decoder")
    np.testing.assert_allclose(again["balanced_accuracy"], table["balanced_accuracy"], rtol=1e-5)


def emojax_key():
    import jax

    return jax.random.key(0)


def test_every_decoder_that_applies():
    x, y, groups = rows(n=54, strength=2)
    table = emojax.bench(x, y, groups, splitter=GroupKFold(2))
    assert set(table.index) >= {"logistic", "LDA", "SVM-linear", "RF", "MLP", "bag"}
    assert "CNN1D" not in table.index
    assert "CNN1D was left out: it needs 55 voxels; X has 20" in table.attrs["notes"]
    assert table.attrs["chance"] == pytest.approx(1 / 3)
    assert table.loc["logistic", "balanced_accuracy"] > 0.6


@pytest.mark.slow
def test_the_network_is_one_of_them():
    x, y, groups = rows(n=120, v=60)
    x += 3 * np.random.default_rng(1).normal(size=(3, 60))[np.unique(y, return_inverse=True)[1]]
    pair = ["logistic", "CNN1D"]
    table = emojax.bench(x, y, groups, decoders=pair, splitter=GroupKFold(2))
    assert table.loc["CNN1D", "balanced_accuracy"] > 0.5


def test_voxels_are_chosen_by_training_rows():
    rng = np.random.default_rng(0)
    x, groups = rng.normal(size=(60, 2000)), np.arange(60) // 10
    y = rng.permutation(60) % 2
    table = emojax.bench(x, y, groups, decoders="logistic", keep=20)
    assert abs(table.loc["logistic", "balanced_accuracy"] - 0.5) < 0.2  # .8 by all rows


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_processes():
    x, y, groups = rows()
    one = emojax.bench(x, y, groups, decoders=FEW)
    two = emojax.bench(x, y, groups, decoders=FEW, workers=2)
    pd.testing.assert_frame_equal(one.drop(columns="seconds"), two.drop(columns="seconds"))


def test_groups_that_straddle_are_refused_and_copies_are_said():
    x, y, groups = rows()
    line = r"bench: fold 1 has rows of group run-0 on both sides .and of 5 other groups.; want"
    with pytest.raises(LeakageError, match=line):
        emojax.bench(x, y, groups, splitter=KFold(3, shuffle=True, random_state=0))
    x[:3] = x[-3:]
    with pytest.warns(
        UserWarning, match="3 of 90 rows are copies of another row; fold 1: 3 scored"
    ):
        table = emojax.bench(x, y, groups, decoders="1-NN")
    assert table.attrs["notes"][1:] == (
        "fold 1: 3 scored rows equal a training row",
        "fold 6: 3 scored rows equal a training row",
    )


def test_lists_and_data_frames():
    x, y, groups = rows(n=54)
    frame = emojax.bench(pd.DataFrame(x), pd.Series(y), pd.Categorical(groups), decoders="1-NN")
    same = emojax.bench(x.tolist(), y.tolist(), groups.tolist(), decoders="1-NN")
    assert frame["balanced_accuracy"].equals(same["balanced_accuracy"])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"X": np.ones(5)}, r"bench: X: found shape \(5,\); expected rows of numbers"),
        ({"X": np.full((90, 20), np.nan)}, "bench: X: found NaN or infinite values in 90 rows"),
        ({"y": np.zeros(3)}, r"bench: y: found shape \(3,\); expected 90 values"),
        ({"y": np.zeros(90)}, r"bench: y: found one class, .*0.0.*; expected two or more"),
        ({"y": np.linspace(0, 1, 90)}, "bench: y: found the number 0.0112"),
        ({"groups": np.zeros(90)}, "bench: splitter: found .*; expected folds of these groups"),
        (
            {"decoders": ["logistc"]},
            r"bench: decoders: found 'logistc' .did you mean 'logistic'..; expected .*CNN1D, or",
        ),
        ({"decoders": ["CNN1d"]}, "found 'CNN1d' .did you mean 'CNN1D'"),
        (
            {"y": [None, *NAMES[np.arange(89) % 3]]},
            "bench: y: found 1 missing values .first: row 0.",
        ),
        (
            {"y": np.where(np.arange(90) > 3, np.arange(90) % 2, np.nan)},
            "bench: y: found 4 missing",
        ),
        (
            {"groups": [*"aab" * 29, "c", "b", None]},
            "bench: groups: found 1 missing values .*row 89",
        ),
        (
            {"X": np.full((90, 20), 1e300)},
            "found values beyond float32 in 90 rows; expected values",
        ),
        ({"X": np.ones((0, 20)), "y": [], "groups": []}, r"bench: X: found shape \(0, 20\); exp"),
        ({"splitter": []}, "bench: splitter: found no folds; expected one or more"),
        ({"splitter": "x"}, "bench: splitter: found Expected `cv` as an integer"),
        ({"splitter": [1, 2]}, "bench: splitter: found cannot unpack"),
        ({"splitter": [(range(60), [])]}, "bench: fold 1: found no rows to score; expected one or"),
        (
            {"splitter": [([1.5], [2])]},
            r"fold 1: found float64 of shape \(1,\); expected numbers of",
        ),
        ({"splitter": [(range(60), [90])]}, "fold 1: found the row 90; expected rows from 0 to 89"),
        ({"workers": -1}, r"bench: workers: found -1; expected a whole number in \[1, "),
        ({"keep": 0}, r"bench: keep: found 0; expected a whole number in \[1, "),
        ({"seed": -1}, r"bench: seed: found -1; expected a whole number in \[0, "),
        ({"decoders": []}, "bench: decoders: found none; expected one or more"),
        ({"decoders": ["CNN1D"]}, "bench: decoder 'CNN1D': found it needs 55 voxels; X has 20"),
        ({"decoders": ["nuisance only (logistic)"]}, "found it needs motion and time, not rows"),
    ],
)
def test_messages(change, message):
    x, y, groups = rows()
    given = {"X": x, "y": y, "groups": groups} | change
    with pytest.raises(InputError, match=message):
        emojax.bench(given.pop("X"), given.pop("y"), given.pop("groups"), **given)


def test_folds_that_are_masks():
    x, y, groups = rows(n=54)
    masks = [(groups != "run-0", groups == "run-0")]
    numbers = [tuple(np.flatnonzero(mask) for mask in masks[0])]
    one = emojax.bench(x, y, groups, decoders="1-NN", splitter=masks)
    two = emojax.bench(x, y, groups, decoders="1-NN", splitter=numbers)
    assert one["balanced_accuracy"].equals(two["balanced_accuracy"]) and one["folds"].item() == 1


def test_classes_that_few_groups_have():
    x, y, groups = rows()
    y = np.where(groups == "run-0", "joy", np.where(y == "calm", "calm", "fear"))
    with pytest.raises(InputError, match="bench: fold 1: found no training row of class 'joy'"):
        emojax.bench(x, y, groups)
    y[-3:] = "joy"
    with pytest.raises(InputError, match="decoder 'bag': found only one training group of fold 6"):
        emojax.bench(x, y, groups, decoders=["bag"])


def test_a_workdir_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        InputError, match=r"bench: workdir .*file: found File exists; expected a fold"
    ):
        emojax.bench(*rows(n=54), decoders="1-NN", workdir=tmp_path / "file")


def test_the_function_can_be_named_from_the_package():
    assert emojax.bench is side_by_side.bench and "bench" in dir(emojax)
