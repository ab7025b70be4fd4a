"""The guard: leaks that people make with pipelines are caught, honest pipelines pass."""

import functools

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    LeaveOneGroupOut,
    ShuffleSplit,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.svm import SVR

from emojax.provenance import LeakageError
from emojax.sklearn import AnovaSelector, LeakGuard

rng = np.random.default_rng(0)
N, V = 60, 40
X = rng.normal(100, 5, (N, V)).astype(np.float32)  # noise: whatever decodes it leaks
Y = np.arange(N) // 3 % 2
RUNS = np.repeat([f"run-{i}" for i in range(5)], N // 5)
LEAVE = LeaveOneGroupOut()


def honest():
    return make_pipeline(StandardScaler(), SelectKBest(k=5), LogisticRegression())


def check(pipeline, X=X, y=Y, cv=LEAVE, groups=RUNS, **options):
    guard = LeakGuard(pipeline, **options)
    return cross_validate(
        guard, X, y, cv=cv, groups=groups, error_score="raise", return_estimator=True
    )


def refused(message, *args, **options):
    with pytest.raises(LeakageError, match=message):
        check(*args, **options)


# --- pipelines that do not leak


@pytest.mark.parametrize(
    "pipeline",
    [
        honest(),
        make_pipeline(MinMaxScaler(), AnovaSelector(5), KNeighborsClassifier(1)),
        make_pipeline(FunctionTransformer(np.log), RandomForestClassifier(5, random_state=0)),
        make_pipeline(FunctionTransformer(lambda x: x[:, :7]), LogisticRegression()),
        make_pipeline(ColumnTransformer([("a", StandardScaler(), [0, 1])]), LogisticRegression()),
        GridSearchCV(honest(), {"selectkbest__k": [3, 5]}, cv=2),
    ],
    ids=["scaler", "anova", "function", "region", "columns", "nested"],
)
def test_an_honest_pipeline_scores_what_it_scores_alone(pipeline):
    found = check(pipeline, rows=X)
    alone = cross_validate(pipeline, X, Y, cv=LEAVE, groups=RUNS)
    np.testing.assert_array_equal(found["test_score"], alone["test_score"])


def test_the_record_says_what_was_measured_and_what_was_not():
    guard = LeakGuard(honest(), rows=X, groups=RUNS)
    found = cross_validate(guard, X, Y, cv=LEAVE, groups=RUNS, return_estimator=True)
    audit = found["estimator"][0].audit_
    assert {"groups on both sides", "rows on both sides", "look-ups"} <= set(audit.measured)
    assert audit.not_measured == {"steps before the pipeline": "no raw= and prepare="}
    alone = cross_validate(LeakGuard(honest()), X, Y, cv=3, return_estimator=True)
    assert "groups on both sides" in alone["estimator"][0].audit_.not_measured


def test_a_guard_is_used_like_its_estimator():
    guard = LeakGuard(honest(), rows=X, groups=RUNS)
    search = GridSearchCV(guard, {"estimator__selectkbest__k": [2, 4]}, cv=LEAVE)
    search.fit(X, Y, groups=RUNS)
    assert search.classes_.tolist() == [0, 1] and search.n_features_in_ == V
    p = cross_val_predict(guard, X, Y, cv=LEAVE, groups=RUNS, method="predict_proba")
    assert p.shape == (N, 2)
    assert sklearn.base.is_classifier(guard) and not hasattr(guard, "transform")
    assert clone(guard).rows is X  # not copied
    train = cross_validate(guard, X, Y, cv=LEAVE, groups=RUNS, return_train_score=True)
    assert (train["train_score"] > 0.5).all()


def test_strings_data_frames_and_volumes():
    frame = pd.DataFrame(X, columns=[f"v{i}" for i in range(V)])
    names = np.array(["calm", "fear"])[Y]
    check(honest(), frame, pd.Series(names), rows=frame)
    check(honest(), X.tolist(), names.tolist())
    flat = FunctionTransformer(lambda x: x.reshape(len(x), -1))
    check(make_pipeline(flat, LogisticRegression()), X.reshape(N, 4, 5, 2))


# --- the split


def test_groups_that_are_split():
    guard = LeakGuard(honest(), rows=X, groups=RUNS)
    cv = KFold(5, shuffle=True, random_state=0)
    with pytest.raises(LeakageError, match=r"5 groups .run-0, run-1, run-2, ...\) with rows on bo"):
        cross_val_score(guard, X, Y, cv=cv, error_score="raise")


def test_groups_by_metadata_routing():
    with sklearn.config_context(enable_metadata_routing=True):
        guard = LeakGuard(honest()).set_fit_request(groups=True).set_score_request(groups=True)
        options = {"params": {"groups": RUNS}, "error_score": "raise"}
        cross_val_score(guard, X, Y, cv=LEAVE, **options)
        cv = KFold(5, shuffle=True, random_state=0)
        with pytest.raises(LeakageError, match="with rows on both sides"):
            cross_val_score(guard, X, Y, cv=cv, **options)


def test_neighbours_in_time_that_are_dealt_at_random():
    slow = np.cumsum(rng.normal(size=(N, V)), 0) + 0.1 * X
    y = np.arange(N) // 6 % 2
    guard = LeakGuard(honest(), rows=slow)
    cv = ShuffleSplit(3, random_state=0)
    with pytest.raises(LeakageError, match=r"have a neighbour in time that trains, and neighbours"):
        cross_val_score(guard, slow, y, cv=cv, error_score="raise")
    cross_val_score(LeakGuard(honest(), rows=X), X, Y, cv=cv, error_score="raise")  # no memory
    cross_val_score(guard, slow, y, cv=KFold(5), error_score="raise")  # whole stretches


@pytest.mark.parametrize(
    "change, kind",
    [
        (lambda x: x, "scored rows are training rows, too"),
        (lambda x: 3 * x + 7, "is a scaled or shifted copy of row"),
        (lambda x: -x, "is a scaled or shifted copy of row"),
        (lambda x: x[:, ::-1], "is a copy with its columns in another order of row"),
    ],
)
def test_rows_that_were_oversampled_before_the_split(change, kind):
    again = np.concatenate([X, change(X[:20])])
    y = np.concatenate([Y, Y[:20]])
    refused(kind, honest(), again, y, cv=KFold(4), groups=None)


def test_rows_that_were_made_up_before_the_split():
    made = np.concatenate([X, 0.5 * (X[:20] + X[20:40])])  # as SMOTE does
    y = np.concatenate([Y, Y[:20]])
    refused(
        "none of rows= .first: training row", honest(), made, y, cv=KFold(4), groups=None, rows=X
    )


# --- steps before the pipeline


@pytest.mark.parametrize(
    "scaler, said",
    [
        (StandardScaler(), "columns have mean 0 over training and scored rows together"),
        (StandardScaler(with_std=False), "columns have mean 0 over training and scored rows"),
        (MinMaxScaler(), "columns have one largest value over training and scored rows together"),
    ],
    ids=str,
)
def test_a_scaler_that_was_fitted_to_all_rows(scaler, said):
    refused(said, honest(), scaler.fit_transform(X))


def test_a_scaler_of_each_run_passes():
    each = [StandardScaler().fit_transform(X[run == RUNS]) for run in np.unique(RUNS)]
    check(honest(), np.concatenate(each))


def test_a_selector_before_the_pipeline_is_measured_by_what_made_the_rows():
    def select(raw, y):
        return SelectKBest(f_classif, k=5).fit_transform(raw, y)

    chosen = select(X, Y)
    check(LogisticRegression(), chosen)  # rows alone do not tell
    options = {"labels": Y, "raw": X, "prepare": select}
    refused(
        "the rows: 48 of 48 training rows change with the (values|labels) of scored rows: prepare",
        LogisticRegression(),
        chosen,
        **options,
    )
    refused(
        "48 of 48 training rows change with the values of scored rows",
        *(LogisticRegression(), StandardScaler().fit_transform(X) + 1e3),
        raw=X,
        prepare=lambda raw: StandardScaler().fit_transform(raw) + 1e3,
    )
    check(LogisticRegression(), np.log(X), raw=X, prepare=np.log)


# --- steps of the pipeline


def test_steps_that_were_fitted_before_the_split():
    selector = SelectKBest(k=5).fit(X, Y)
    line = "step 'frozenestimator.*: SelectKBest was fitted before the split"
    refused(line, make_pipeline(FrozenEstimator(selector), LogisticRegression()))
    refused("was fitted before", make_pipeline(FunctionTransformer(selector.transform), LAST))
    by_closure = FunctionTransformer(lambda x: selector.transform(x))
    refused("step 'functiontransformer.*was fitted before", make_pipeline(by_closure, LAST))
    part = FunctionTransformer(functools.partial(selector.transform))
    refused("was fitted before", make_pipeline(part, LAST))
    with_name = make_pipeline(FrozenEstimator(selector), LAST)
    found = check(with_name, allow=["frozenestimator"])
    assert "was fitted before" in found["estimator"][0].audit_.allowed[0]


LAST = NearestCentroid()


class ByGlobal(TransformerMixin, BaseEstimator):
    """Selects voxels by all rows, which it reaches by their global names."""

    def fit(self, X_train, y=None):
        self.chosen_ = f_classif(X, Y)[0].argsort()[-5:]
        return self

    def transform(self, X_some):
        return X_some[:, self.chosen_]


class ByAttribute(TransformerMixin, BaseEstimator):
    """Selects voxels by rows that it was given when it was made."""

    def __init__(self, everything=None, labels=None):
        self.everything, self.labels = everything, labels

    def fit(self, X_train, y=None):
        both = np.concatenate([X_train, self.everything])
        self.chosen_ = f_classif(both, np.r_[y, self.labels])[0].argsort()[-5:]
        return self

    def transform(self, X_some):
        return X_some[:, self.chosen_]


class Remembers(TransformerMixin, BaseEstimator):
    """A transformer whose class keeps the first thing that it learned."""

    seen = None

    def fit(self, X_train, y=None):
        if Remembers.seen is None:
            Remembers.seen = f_classif(X_train, y)[0].argsort()[-5:]
        self.chosen_ = Remembers.seen
        return self

    def transform(self, X_some):
        return X_some[:, self.chosen_]


class Accumulates(TransformerMixin, BaseEstimator):
    """Centres by the mean of all rows that it has ever met."""

    met = []  # noqa: RUF012

    def fit(self, X_train, y=None):
        Accumulates.met.append(X_train.mean(0))
        self.mean_ = np.mean(Accumulates.met, 0)
        return self

    def transform(self, X_some):
        return X_some - self.mean_


class Stale(TransformerMixin, BaseEstimator):
    """Has learned its voxels elsewhere, and calls them fitted."""

    def fit(self, X_train, y=None):
        self.chosen_ = np.array([3, 1, 4])
        return self

    def transform(self, X_some):
        return X_some[:, self.chosen_]


class LooksUp(BaseEstimator, sklearn.base.ClassifierMixin):
    """Knows the label of every row by its content."""

    def __init__(self, table=None):
        self.table = table

    def fit(self, X_train, y):
        self.classes_ = np.unique(y)
        self.mean_ = np.mean(X_train)
        return self

    def predict(self, X_some):
        return np.array([self.table.get(row.tobytes(), 0) for row in X_some])


class Hashed(LooksUp):
    """The same transformer with hashes instead of rows, which cannot be compared with rows."""

    def predict(self, X_some):
        return np.array([self.table.get(hash(row.tobytes()), 0) for row in X_some])


class CentresScored(TransformerMixin, BaseEstimator):
    """Centres whatever rows it is given by their own mean."""

    def fit(self, X_train, y=None):
        return self

    def transform(self, X_some):
        return X_some - X_some.mean(0)


def test_a_step_that_reaches_all_rows_by_name():
    step = make_pipeline(ByGlobal(), LAST)
    refused("chosen_ stays the same for other values", step)
    refused(
        "global X holds rows that are scored .the fold of 48 training and 12", step, refit=False
    )
    guard = LeakGuard(step, rows=X, groups=RUNS)  # known while it fits
    line = (
        "step 'byglobal.ByGlobal.fit.global X': global X holds rows .*the fold that scores run-0.;"
    )
    with pytest.raises(LeakageError, match=line):
        guard.fit(X[12:], Y[12:])
    assert not hasattr(guard, "estimator_")


def test_a_step_that_was_given_all_rows():
    step = ByAttribute(X + 0, Y)
    refused("step 'byattribute.everything': everything holds rows", make_pipeline(step, LAST))
    only_labels = make_pipeline(ByAttribute(rng.normal(size=(N, V)), Y), LAST)
    refused("labels holds the labels of training and scored rows", only_labels)


def test_a_step_that_remembers():
    Remembers.seen = None
    refused(
        "seen changes while it is fitted, and outlives the fold", make_pipeline(Remembers(), LAST)
    )
    Remembers.seen = np.arange(5)  # filled before the guard came
    refused("chosen_ stays the same for other values", make_pipeline(Remembers(), LAST))
    refused("met.* outlives the fold", make_pipeline(Accumulates(), LAST))

    def first(x, cache={}):  # noqa: B006
        return x - cache.setdefault("mean", x.mean(0))

    refused("changes while it is fitted", make_pipeline(FunctionTransformer(first), LAST))


def test_a_step_that_learned_elsewhere():
    refused("step 'stale': chosen_ stays the same for other values", make_pipeline(Stale(), LAST))
    check(make_pipeline(Stale(), LAST), allow=["stale"])


def test_a_step_that_depends_on_the_other_scored_rows():
    text = "step '{}': its output for a scored row depends on the rows that are scored with it"
    refused(text.format("centresscored"), make_pipeline(CentresScored(), LogisticRegression()))
    scale = FunctionTransformer(sklearn.preprocessing.scale)
    refused(text.format("functiontransformer"), make_pipeline(StandardScaler(), scale, LAST))


def test_a_look_up():
    refused(
        "holds rows that are scored", LooksUp({x.tobytes(): y for x, y in zip(X, Y, strict=True)})
    )
    hashed = {hash(x.tobytes()): y for x, y in zip(X, 1 - Y * 0, strict=True)}
    refused("of predictions change with the last bit of a scored row", Hashed(hashed))


def test_every_leak_decodes_noise_and_none_gets_a_score():
    """Without error_score="raise", scikit-learn turns a refusal into NaN or an error of its own."""
    step = make_pipeline(ByAttribute(X + 0, Y), LogisticRegression())
    alone = cross_val_score(step, X, Y, cv=LEAVE, groups=RUNS)
    assert alone.mean() > 0.5
    with pytest.warns(UserWarning, match="LeakageError"):
        found = cross_val_score(LeakGuard(step), X, Y, cv=LEAVE, groups=RUNS)
    assert np.isnan(found).all()
    with pytest.warns(UserWarning, match="LeakageError"):
        several = ["accuracy", "balanced_accuracy", "neg_log_loss"]  # none of them gets through
        both = cross_validate(LeakGuard(step), X, Y, cv=LEAVE, groups=RUNS, scoring=several)
    assert all(np.isnan(both[f"test_{name}"]).all() for name in several)
    with pytest.raises(ValueError, match="All the 5 fits failed"):  # rows= tells while it fits
        cross_val_score(LeakGuard(step, rows=X), X, Y, cv=LEAVE, groups=RUNS)


def test_a_guard_says_what_does_not_fit():
    cases = {
        "want rows= beside groups= or labels=": {"groups": RUNS},
        "want raw= and prepare= together": {"raw": X},
        r"want prepare\(raw\) to make the rows of X; it makes others": {
            "raw": X,
            "prepare": np.log,
        },
        "want groups of 60 rows; got 5": {"rows": X, "groups": RUNS[:5]},
        r"want prepare\(raw\) to be the rows": {"rows": X, "raw": X, "prepare": np.log},
        "want rows= that hold the rows of X, as `fit` gets them; got others": {"rows": X + 1},
    }
    for message, options in cases.items():
        with pytest.raises(ValueError, match=message):
            LeakGuard(honest(), **options).fit(X, Y)


def test_what_is_no_leak_is_not_refused(tmp_path):
    class Flat(TransformerMixin, BaseEstimator):
        def fit(self, X_train, y=None):
            self.is_fitted_, self.shape_ = True, X_train.shape[1:]
            return self

        def transform(self, X_some):
            return X_some * 2

    class Random(Flat):
        def fit(self, X_train, y=None):
            self.weights_ = np.random.default_rng().normal(size=X_train.shape[1])
            return self

    check(make_pipeline(Flat(), LAST))
    found = check(make_pipeline(Random(), LAST))["estimator"][0].audit_.not_measured
    assert found["fits that depend on their rows alone"].startswith("random is random: weights_")
    check(make_pipeline(StandardScaler(), LAST, memory=str(tmp_path)))
    iris, kind = load_iris(return_X_y=True)  # rows that are equal by chance
    cv = StratifiedKFold(3, shuffle=True, random_state=0)
    alone = cross_validate(LeakGuard(honest()), iris, kind, cv=cv, return_estimator=True)
    assert "by chance" in alone["estimator"][0].audit_.not_measured["rows on both sides"]
    best = np.array([3, 4, 5])
    region = make_pipeline(FunctionTransformer(lambda x: x[:, best]), LAST)
    said = check(region)["estimator"][0].audit_.not_measured["choices by numbers"]
    assert said == "functiontransformer.func.best may choose columns; nobody can tell by which rows"


# --- honest pipelines that were refused once


def guarded(pipeline, rows, y=Y, groups=RUNS, cv=LEAVE, **options):
    """Returns what was not measured where the guard knows all rows and their groups."""
    guard = LeakGuard(pipeline, rows=rows, groups=groups, **options)
    options = {"cv": cv, "groups": groups, "error_score": "raise", "return_estimator": True}
    return cross_validate(guard, rows, y, **options)["estimator"][0].audit_.not_measured


@pytest.mark.parametrize("regressor", [LinearRegression(), SVR()], ids=str)
def test_numbers_that_move_with_the_last_bit_are_no_look_up(regressor):
    y = X[:, 0] + rng.normal(size=N)
    assert "look-ups" not in guarded(regressor, X, y)


def test_numbers_that_are_looked_up():
    hashed = {hash(x.tobytes()): float(i) for i, x in enumerate(X)}
    refused("change with the last bit of a scored row", Hashed(hashed), y=np.arange(N) * 1.0)


@pytest.mark.parametrize("strategy", ["stratified", "uniform"])
def test_predictions_at_random_are_no_look_up(strategy):
    dummy = DummyClassifier(strategy=strategy)
    for _ in range(5):
        found = check(dummy, rows=X, groups=RUNS)["estimator"]
    said = [one.audit_.not_measured.get("look-ups") for one in found]
    assert set(said) <= {None, "DummyClassifier is random"} and any(said)


def test_a_classifier_that_holds_empty_arrays():
    assert "look-ups" not in guarded(HistGradientBoostingClassifier(max_iter=2), X)


@pytest.mark.parametrize(
    "rows",
    [
        rng.integers(0, 2, (N, 5)),
        np.round(X[:, :4] / 8),
        pd.DataFrame(rng.choice(["a", "b"], (N, 4)), columns=[*"wxyz"]).assign(n=np.arange(N) % 2),
        np.array([["calm", "red"], ["fear", "red"], ["fear", "blue"]], object)[np.arange(N) % 3],
    ],
    ids=["binary", "rounded", "frame", "objects"],
)
def test_rows_that_are_equal_by_chance_have_no_group(rows):
    found = guarded(DummyClassifier(), rows)
    assert "by chance" in found["rows on both sides"]
    said = found.get("groups of equal rows", found.get("groups on both sides"))
    assert "several groups" in said or said == "no group of these rows is known"


def test_blank_rows_belong_to_no_group():
    blank = X.copy()
    blank[::7] = 0
    found = guarded(honest(), blank)
    assert found["groups of equal rows"].startswith("7 of 48 rows occur in several groups")
    assert found["rows of one value"] == "2 scored rows equal training rows, as blank rows do"
    blank[8] = X[50]  # a copy is refused, even beside blank rows
    with pytest.raises(LeakageError, match="1 of 12 scored rows are training rows, too"):
        guarded(honest(), blank)


def test_rows_that_occur_twice_have_no_place_in_time():
    slow = np.cumsum(rng.normal(size=(N, V)), 0)
    twice = np.tile(slow[:6], (10, 1))
    cv = ShuffleSplit(2, random_state=0)
    with pytest.raises(LeakageError, match="scored rows are training rows, too"):
        check(honest(), twice, cv=cv, groups=None, rows=twice)
    found = guarded(honest(), twice, groups=None, cv=cv, allow=["the rows"])
    assert found["neighbours in time"] == "rows that occur several times have no place"


def test_training_rows_that_a_classifier_keeps_are_no_scored_rows():
    binary = rng.integers(0, 2, (N, 5)).astype(float)
    found = guarded(KNeighborsClassifier(), binary)
    assert "scored rows within reach of a step" not in found and "rows on both sides" in found


def test_steps_that_work_in_place():
    def halved(x):
        x /= 2
        return x

    given = X.copy()
    for first in (StandardScaler(copy=False), FunctionTransformer(halved)):
        found = check(make_pipeline(first, LogisticRegression()), given, rows=given, groups=RUNS)
        alone = cross_validate(
            make_pipeline(first, LogisticRegression()), X, Y, cv=LEAVE, groups=RUNS
        )
        np.testing.assert_array_equal(found["test_score"], alone["test_score"])
    guard = LeakGuard(make_pipeline(StandardScaler(copy=False), LAST)).fit(given, Y)
    np.testing.assert_array_equal(given, X)
    assert guard.audit_.measured


def test_what_is_fitted_but_says_nothing_of_the_rows():
    class Keeps(TransformerMixin, BaseEstimator):
        def fit(self, X_train, y=None):
            self.keep_, self.kernel_ = X_train.std(0) > 0, np.ones(3) / 3
            return self

        def transform(self, X_some):
            return X_some[:, self.keep_]

    check(make_pipeline(Keeps(), LAST))


# --- leaks that were missed, and messages


def test_float32_rounds_the_means_of_a_scaler_by_hand():
    large = rng.normal(12000, 100, (600, 50)).astype(np.float32)
    groups, y = np.arange(600) // 120, np.arange(600) % 2
    made = (large - large.mean(0)) / large.std(0)
    assert np.abs(made.mean(0, dtype=float)).max() > 1e-5
    said = "columns have mean 0 over training and scored rows together"
    refused(said, LAST, made, y, groups=groups)
    refused(said, LAST, PCA(20).fit_transform(large), y, groups=groups)
    each = [large[groups == g] for g in range(5)]
    check(LAST, np.concatenate([(x - x.mean(0)) / x.std(0) for x in each]), y, groups=groups)


@pytest.mark.parametrize("kind", ["apart", "alike", "of rank 3"])
def test_means_that_are_near_0_by_chance_are_no_scaler(kind):
    """Similar columns have small means together in some of a thousand folds."""
    from emojax.sklearn import findings

    for seed in range(200):
        draw = np.random.default_rng(seed)
        x = draw.normal(size=(60, 20))
        if kind == "alike":
            x = 0.3 * x + draw.normal(size=(60, 1))
        elif kind == "of rank 3":
            x = draw.normal(size=(60, 3)) @ draw.normal(size=(3, 20))
        for fold in range(5):
            train = x[np.arange(60) % 5 != fold]
            assert not [*findings.of_scaling(findings.Side(train, None, [], None), x)]


def test_prepare_keeps_the_container_of_raw():
    names = pd.DataFrame(X, columns=[f"v{i}" for i in range(V)])

    def first(raw):
        return raw.iloc[:, :10]

    check(LAST, first(names), raw=names, prepare=first)
    check(LAST, X[:, :10].astype(float), raw=X.tolist(), prepare=lambda raw: [r[:10] for r in raw])

    def centred(raw):
        return raw - raw.mean() + 1

    refused(
        "training rows change with the values", LAST, centred(names), raw=names, prepare=centred
    )


def test_groups_and_labels_that_are_missing():
    some = RUNS.astype(object)
    some[[3, 5]] = None
    line = r"want groups of all rows; 2 are missing .first: row 3."
    with pytest.raises(ValueError, match=line):
        LeakGuard(honest(), rows=X, groups=some).fit(X, Y)
    with pytest.raises(ValueError, match=line):
        LeakGuard(honest()).fit(X, Y, groups=some)
    with pytest.raises(ValueError, match="want labels of all rows; 2 are missing"):
        LeakGuard(honest(), rows=X, labels=some).fit(X, Y)


@pytest.mark.slow
def test_folds_in_two_processes():
    guard = LeakGuard(honest(), rows=X, groups=RUNS)
    ours = cross_val_score(guard, X, Y, cv=LEAVE, groups=RUNS, n_jobs=2)
    np.testing.assert_array_equal(ours, cross_val_score(guard, X, Y, cv=LEAVE, groups=RUNS))
    cv = StratifiedKFold(4, shuffle=True, random_state=0)
    with pytest.raises(LeakageError):
        cross_val_score(guard, X, Y, cv=cv, n_jobs=2, error_score="raise")
