"""Provenance: the laws of `|`, planted leaks, declared exceptions and messages."""

import copy
import json
import pickle

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emojax.provenance import LEAKY_PROTOCOLS, LeakageError, Provenance, check_scoring, table

N = 12
SUBJECT = np.repeat([0, 1, 2], 4)  # each with two runs of two volumes
TRAIN, TEST = np.arange(8), np.arange(8, 12)

quick = settings(derandomize=True, deadline=None, max_examples=50)
rows = st.none() | st.sets(st.integers(0, N - 1)).map(lambda s: np.array(sorted(s), int))
provenances = st.lists(
    st.builds(Provenance.of, st.sampled_from("abc"), st.just(N), rows, rows), max_size=3
).map(lambda many: sum_up(*many))


def sum_up(*many):
    total = Provenance.empty(N)
    for one in many:
        total |= one
    return total


def fit_voxels(x, y, chosen):
    """Imitates a fitted step: records the rows that it has seen."""
    score = np.abs(x[chosen][y[chosen] == 1].mean(0) - x[chosen][y[chosen] == 0].mean(0))
    return score.argmax(), Provenance.of("anova", len(x), values=chosen, labels=chosen)


def fit(chosen):
    rng = np.random.default_rng(0)
    return fit_voxels(rng.normal(size=(N, 5)), np.arange(N) % 2, chosen)[1]


# Provenance


@quick
@given(provenances, provenances, provenances)
def test_laws_of_or(a, b, c):
    assert a | b == b | a
    assert (a | b) | c == a | (b | c)
    assert a | a == a
    assert a | Provenance.empty(N) == a
    assert hash(a | b) == hash(b | a)
    np.testing.assert_array_equal((a | b).values, a.values | b.values)
    np.testing.assert_array_equal((a | b).labels, a.labels | b.labels)
    np.testing.assert_array_equal(a.seen, a.values | a.labels)


def test_masks_and_indices_say_the_same():
    mask = np.isin(np.arange(N), [1, 5])
    want = Provenance.of("scaler", N, values=mask)
    for given_rows in (np.array([5, 1, 5]), [1, 5], jnp.array([1, 5]), jnp.array(mask)):
        assert Provenance.of("scaler", N, values=given_rows) == want
    np.testing.assert_array_equal(want.values, mask)
    assert not want.labels.any()


def test_equality_sees_step_kind_volume_and_cohort():
    one = Provenance.of("scaler", N, values=[1])
    assert one != Provenance.of("anova", N, values=[1])
    assert one != Provenance.of("scaler", N, labels=[1])
    assert one != Provenance.of("scaler", N, values=[2])
    assert one != Provenance.of("scaler", N + 1, values=[1])
    assert one != Provenance.empty(N)
    assert one != "scaler"


def test_keeps_steps_apart_by_name():
    both = Provenance.of("scaler", N, values=[3]) | Provenance.of(
        "anova", N, values=[1], labels=[1]
    )
    both |= Provenance.of("scaler", N, values=[4])
    assert both.num_volumes == N
    assert list(both.steps) == ["anova", "scaler"]
    assert np.flatnonzero(both.steps["scaler"].values).tolist() == [3, 4]
    assert not both.steps["scaler"].labels.any()
    assert np.flatnonzero(both.values).tolist() == [1, 3, 4]


def test_cannot_be_changed():
    mask = np.zeros(N, bool)
    one = Provenance.of("scaler", N, values=mask)
    mask[:] = True  # the caller's mask was copied
    assert not one.seen.any()
    one.steps.clear()  # so was the dict
    assert list(one.steps) == ["scaler"]
    for vector in (one.values, one.labels, one.seen, one.steps["scaler"].values):
        with pytest.raises(ValueError, match="read-only"):
            vector[0] = True
    with pytest.raises(AttributeError):
        one.num_volumes = 3


def test_survives_copy_and_pickle():
    one = fit(TRAIN)
    assert copy.deepcopy(one) == one == pickle.loads(pickle.dumps(one))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Provenance.of("a", 3) | Provenance.of("a", 4), "got 3 and 4 volumes"),
        (lambda: Provenance.of("", 3), "want a name for the step; got ''"),
        (lambda: Provenance.of("a", 3, values=[3]), r"values in \[0, 3\); got values from 3 to 3"),
        (lambda: Provenance.of("a", 3, labels=[-1, 0]), r"labels in \[0, 3\); .* from -1 to 0"),
        (lambda: Provenance.of("a", 3, values=[True]), r"mask of values \[3\].* got shape \(1,\)"),
        (lambda: Provenance.of("a", 3, values=[0.5]), r"1-d int indices; got float64\[1\]"),
        (lambda: Provenance.of("a", 3, values=[[0]]), r"1-d int indices; got int64\[1, 1\]"),
        (
            lambda: check_scoring(Provenance.empty(3), []),
            "at least one scored volume; got none of 3",
        ),
        (lambda: check_scoring(Provenance.empty(3), [3]), r"scored in \[0, 3\)"),
        (
            lambda: check_scoring(Provenance.empty(3), [0], subject=np.zeros(2)),
            r"want subject \[3\], one per volume; got shape \(2,\)",
        ),
        (
            lambda: check_scoring(Provenance.empty(3), [0], allow={"a": "labels"}),
            r"allow\['a'\] in \('transductive', 'calibration'\); got 'labels'",
        ),
        (lambda: table(Provenance.empty(3), np.zeros(2)), r"want subject \[3\]"),
    ],
)
def test_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_or_refuses_other_types():
    with pytest.raises(TypeError):
        Provenance.empty(3) | np.zeros(3, bool)


# check_scoring


@quick
@given(provenances, rows.filter(lambda r: r is not None and r.size > 0))
def test_strict_refuses_exactly_what_was_seen(provenance, scored):
    leaks = provenance.seen[scored].any()
    report = check_scoring(provenance, scored, protocol="paper")
    assert bool(report) == leaks
    for step, seen in provenance.steps.items():
        assert report.get(step, 0) == (seen.values | seen.labels)[scored].sum()
    if leaks:
        with pytest.raises(LeakageError):
            check_scoring(provenance, scored)
    else:
        assert check_scoring(provenance, scored) == {}


def test_a_planted_leak_is_refused_by_name():
    clean = fit(TRAIN) | Provenance.of("scaler", N, values=TRAIN)
    assert check_scoring(clean, TEST, subject=SUBJECT) == {}
    leaky = clean | fit(np.arange(N))
    with pytest.raises(LeakageError) as error:
        check_scoring(leaky, TEST)
    assert str(error.value) == (
        "protocol 'strict' refuses to score 4 volumes: step 'anova' saw "
        "the values of 4 scored volumes (first 8) and the labels of 4 scored volumes (first 8)"
    )
    assert check_scoring(leaky, TEST, protocol="paper") == {"anova": 4}


def test_every_leaking_step_is_named():
    leaky = Provenance.of("scaler", N, values=[9, 10]) | Provenance.of("epoch", N, labels=[11])
    with pytest.raises(
        LeakageError, match=r"'epoch' saw the labels of 1 .*\(first 11\); step 'sca"
    ):
        check_scoring(leaky, TEST)
    assert check_scoring(leaky, TEST, protocol="paper") == {"epoch": 1, "scaler": 2}


@pytest.mark.parametrize("protocol", ["strict", "nested", "last", "Paper", ""])
def test_only_leaky_protocols_are_lenient(protocol):
    assert frozenset({"paper"}) == LEAKY_PROTOCOLS
    with pytest.raises(LeakageError, match=f"protocol '{protocol}' refuses"):
        check_scoring(fit(np.arange(N)), TEST, protocol=protocol)


def test_transductive_steps_see_values_but_never_labels():
    allow = {"alignment": "transductive", "unused": "calibration"}
    aligned = fit(TRAIN) | Provenance.of("alignment", N, values=np.arange(N), labels=TRAIN)
    with pytest.raises(LeakageError, match="'alignment' saw the values of 4 scored"):
        check_scoring(aligned, TEST, subject=SUBJECT)
    assert check_scoring(aligned, TEST, subject=SUBJECT, allow=allow) == {"alignment": 4}
    peeking = aligned | Provenance.of("alignment", N, labels=[9])
    with pytest.raises(LeakageError) as error:
        check_scoring(peeking, TEST, subject=SUBJECT, allow=allow)
    assert "'alignment' saw the labels of 1 scored volumes (first 9)" in str(error.value)
    assert "values" not in str(error.value)  # those were declared
    other_step = aligned | Provenance.of("scaler", N, values=[8])
    with pytest.raises(LeakageError, match="step 'scaler' saw the values of 1 scored"):
        check_scoring(other_step, TEST, subject=SUBJECT, allow=allow)


def test_labels_of_a_scored_subject_are_refused_unless_it_calibrates():
    other_run, scored_run = np.array([8, 9]), np.array([10, 11])
    aligned = Provenance.of("alignment", N, values=np.arange(10), labels=np.arange(10))
    assert check_scoring(aligned, scored_run) == {}  # new volumes of a known subject
    with pytest.raises(LeakageError) as error:
        check_scoring(aligned, scored_run, subject=SUBJECT)
    assert str(error.value).endswith(
        "step 'alignment' saw the labels of 2 other volumes of their subjects (first 8)"
    )
    allow = {"alignment": "calibration"}
    got = check_scoring(aligned, scored_run, subject=SUBJECT, allow=allow)
    assert got == {"alignment": 2}
    with pytest.raises(LeakageError, match="the values of 1 scored volumes"):
        check_scoring(
            aligned | Provenance.of("alignment", N, values=[10]),
            scored_run,
            subject=SUBJECT,
            allow=allow,
        )
    # Values alone of the other run are fair: an alignment on independent runs.
    fair = Provenance.of("alignment", N, values=other_run)
    assert check_scoring(fair, scored_run, subject=SUBJECT.astype(str)) == {}


def test_transductive_lifts_no_calibration_and_the_reverse():
    labels_of_other_run = Provenance.of("alignment", N, labels=[8])
    with pytest.raises(LeakageError, match="other volumes of their subjects"):
        check_scoring(
            labels_of_other_run, [11], subject=SUBJECT, allow={"alignment": "transductive"}
        )
    scored_values = Provenance.of("alignment", N, values=[11])
    with pytest.raises(LeakageError, match="values of 1 scored"):
        check_scoring(scored_values, [11], allow={"alignment": "calibration"})


# table


def test_table_is_plain_data():
    both = fit(TRAIN) | Provenance.of("alignment", N, values=np.arange(N))
    got = table(both, SUBJECT)
    assert got == [
        {"step": "alignment", "values": 12, "labels": 0, "subjects": [0, 1, 2]},
        {"step": "anova", "values": 8, "labels": 8, "subjects": [0, 1]},
    ]
    assert json.loads(json.dumps(got)) == got
    assert table(both)[1] == {"step": "anova", "values": 8, "labels": 8, "subjects": None}
    assert table(Provenance.empty(N), SUBJECT) == []
