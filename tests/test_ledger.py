"""The ledger: reads write the record, each score has its own record, a closed one stays closed."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emojax.data.cohort import Prior
from emojax.provenance import LeakageError, Ledger, Provenance, classify

N = 12
SUBJECT = np.repeat(["a", "b", "c"], 4)  # each with two runs of two volumes
RUN = np.repeat(np.arange(6), 2)
TRAIN, TEST = np.arange(8), np.arange(8, 12)
FIRST, SECOND = np.array([8, 9]), np.array([10, 11])  # runs of the test subject

quick = settings(derandomize=True, deadline=None, max_examples=100)
some_rows = st.sets(st.integers(0, N - 1)).map(lambda s: np.array(sorted(s), int))
reads = st.lists(
    st.tuples(st.sampled_from(("voxels", "scaler", "network")), st.booleans(), some_rows),
    max_size=5,
)


def make_cohort(prior=()):
    return SimpleNamespace(
        labels=np.arange(N) % 3,
        volumes=np.arange(N * 4, dtype=np.float32).reshape(N, 4),
        nuisance=-np.arange(N * 2, dtype=np.float32).reshape(N, 2),
        subject=SUBJECT,
        run=np.tile([0, 0, 1, 1], 3),
        run_index=RUN,
        frame=np.tile([0, 1], 6),
        units=SUBJECT,
        union=None,
        inside={name: np.arange(4) != i for i, name in enumerate("abc")},
        prior=prior,
    )


COHORT = make_cohort()


def rows_of(mask):
    return np.flatnonzero(mask).tolist()


def record(ledger):
    """Returns {step: (rows of values, rows of labels)} of the record that all scores share."""
    steps = ledger.shared.steps.items()
    return {step: (rows_of(seen.values), rows_of(seen.labels)) for step, seen in steps}


# reads


def test_reads_return_arrays_and_write_the_record():
    ledger = Ledger(COHORT)
    assert ledger.cohort_size == N and ledger.shared == Provenance.empty(N)
    np.testing.assert_array_equal(ledger.values("scaler", TRAIN), COHORT.volumes[TRAIN])
    np.testing.assert_array_equal(ledger.labels("network", TRAIN), COHORT.labels[TRAIN])
    columns = np.array([3, 1])
    got = ledger.values("voxels", np.array([5, 2]), columns)
    np.testing.assert_array_equal(got, COHORT.volumes[[5, 2]][:, columns])
    assert record(ledger) == {
        "network": ([], TRAIN.tolist()),
        "scaler": (TRAIN.tolist(), []),
        "voxels": ([2, 5], []),
    }


@quick
@given(reads)
def test_the_record_is_the_union_of_the_reads(many):
    ledger, want = Ledger(COHORT), Provenance.empty(N)
    for step, is_label, rows in many:
        (ledger.labels if is_label else ledger.values)(step, rows)
        kind = "labels" if is_label else "values"
        want |= Provenance.of(step, N, **{kind: rows})
    assert ledger.shared == want
    assert [own for _, own in ledger.seen(TEST)] == [want]


def test_a_mask_was_made_from_all_values_of_its_unit():
    ledger = Ledger(COHORT)
    np.testing.assert_array_equal(ledger.mask("mask", "b"), COHORT.inside["b"])
    assert record(ledger) == {"mask": ([4, 5, 6, 7], [])}


def test_scored_values_are_read_beside_the_record():
    ledger = Ledger(COHORT)
    np.testing.assert_array_equal(ledger.scored(TEST), COHORT.volumes[TEST])
    got = ledger.scored(TEST, np.array([0]))
    np.testing.assert_array_equal(got, COHORT.volumes[TEST][:, :1])
    assert record(ledger) == {}


def test_a_reader_reads_what_was_granted_and_nothing_else():
    ledger = Ledger(COHORT)
    read = ledger.reader({"network": TRAIN[:4], "epoch choice": TRAIN[4:]})
    granted = {"network": ([0, 1, 2, 3], []), "epoch choice": ([4, 5, 6, 7], [])}
    assert record(ledger) == granted
    np.testing.assert_array_equal(read(np.array([7, 0, 0])), COHORT.volumes[[7, 0, 0]])
    assert record(ledger) == granted  # granting was the read
    with pytest.raises(LeakageError, match="steps network, epoch choice asked for row 9, which"):
        read(np.array([0, 9, 10]))


def test_the_scorings_reader_is_restricted_and_not_on_the_record():
    ledger = Ledger(COHORT)
    read = ledger.scored_reader(TEST)
    np.testing.assert_array_equal(read(TEST[::-1]), COHORT.volumes[TEST[::-1]])
    assert record(ledger) == {}
    with pytest.raises(LeakageError, match="the scoring asked for row 0, which was not granted"):
        read(np.array([11, 0]))


def test_the_design_is_open_but_values_and_labels_are_no_design():
    ledger = Ledger(COHORT)
    for name in ("units", "subject", "run", "run_index", "frame"):
        np.testing.assert_array_equal(ledger.design(name), getattr(COHORT, name))
    assert ledger.design("union") is None
    assert record(ledger) == {}
    for name in ("labels", "volumes", "nuisance", "inside", "cohort", "_cohort"):
        with pytest.raises(ValueError, match=f"want a vector of the design; got '{name}'"):
            ledger.design(name)


def test_other_values_of_the_rows_are_on_the_same_record():
    ledger = Ledger(COHORT)
    features = ledger.derive(COHORT.volumes * 2)
    np.testing.assert_array_equal(features.values("scaler", TRAIN), 2 * COHORT.volumes[TRAIN])
    np.testing.assert_array_equal(features.labels("network", FIRST), COHORT.labels[FIRST])
    nuisance = features.array("nuisance")
    np.testing.assert_array_equal(nuisance.values("baselines", FIRST), COHORT.nuisance[FIRST])
    features.keep("scaler", np.ones(2))
    nuisance.reader({"network": SECOND})
    assert record(ledger) == record(features) == record(nuisance)
    assert record(ledger)["network"] == ([10, 11], [8, 9])
    assert [step for step, _, _ in ledger.kept] == ["scaler"]
    with pytest.raises(LeakageError, match="row 3"):
        features.scored_reader(FIRST)(np.array([3]))


def test_labels_are_no_array_of_values():
    ledger = Ledger(COHORT)
    for name in ("labels", "inside", "prior"):
        with pytest.raises(LeakageError, match=f"array '{name}' is no array of values"):
            ledger.array(name)


def test_a_closed_record_takes_no_more_reads():
    ledger = Ledger(COHORT)
    part, other = ledger.scoring(FIRST), ledger.derive(COHORT.volumes * 2)
    read, read_test = ledger.reader({"network": TRAIN}), ledger.scored_reader(TEST)
    before = record(ledger)
    ledger.close()
    for one in (ledger, part, other):
        for ask in (
            lambda one=one: one.values("scaler", TRAIN),
            lambda one=one: one.labels("network", TRAIN),
            lambda one=one: one.mask("mask", "b"),
            lambda one=one: one.reader({"network": TRAIN}),
            lambda one=one: one.scored(TEST),
            lambda one=one: one.scored_reader(TEST),
        ):
            with pytest.raises(LeakageError, match="reads after the record was closed"):
                ask()
    assert record(ledger) == before
    np.testing.assert_array_equal(read(TRAIN), COHORT.volumes[TRAIN])  # granted before
    np.testing.assert_array_equal(read_test(TEST), COHORT.volumes[TEST])
    Ledger(COHORT).values("scaler", TRAIN)  # another record is open


def test_fits_are_kept_in_order_with_their_scope():
    ledger = Ledger(COHORT)
    ledger.keep("mask", 1)
    ledger.scoring(SECOND).keep("alignment", {"map": 2})
    assert ledger.kept == [("mask", None, 1), ("alignment", (10, 11), {"map": 2})]
    ledger.kept.clear()
    assert len(ledger.kept) == 2


# priors


def test_a_prior_saw_every_value_and_only_with_labels_every_label():
    ledger = Ledger(make_cohort((Prior("cleaning"), Prior("chosen vectors", labels=True))))
    everything = list(range(N))
    assert record(ledger) == {
        "cleaning": (everything, []),
        "chosen vectors": (everything, everything),
    }
    seen = ledger.seen(TEST)
    assert classify(seen, subject=SUBJECT) == ("leaky", {"cleaning": 4, "chosen vectors": 4})
    cleaned = Ledger(make_cohort((Prior("cleaning"),)))
    assert classify(cleaned.seen(TEST), subject=SUBJECT) == ("transductive", {"cleaning": 4})


def test_what_came_before_can_be_told_apart():
    ledger = Ledger(make_cohort((Prior("cleaning"),)))
    ledger.values("scaler", TRAIN)
    assert [*ledger.prior.steps] == ["cleaning"] and [*ledger.reads.steps] == ["scaler"]
    assert ledger.shared == ledger.prior | ledger.reads
    ((_, seen),) = ledger.seen(TEST, prior=False)
    assert seen == ledger.reads
    ((_, seen),) = ledger.seen(TEST)
    assert seen == ledger.shared


def test_a_cohort_without_priors_has_an_empty_record():
    bare = SimpleNamespace(labels=np.zeros(3, int), volumes=np.zeros((3, 1)))
    assert Ledger(bare).shared == Provenance.empty(3)


# scopes


def test_reads_for_some_scores_count_for_these_only():
    ledger = Ledger(COHORT)
    ledger.values("scaler", TRAIN)
    first = ledger.scoring(FIRST)
    first.values("alignment", SECOND)
    ledger.scoring(SECOND).values("alignment", FIRST)
    assert record(ledger) == {"scaler": (TRAIN.tolist(), [])}
    found = {tuple(rows.tolist()): seen.steps for rows, seen in ledger.seen(TEST)}
    assert found.keys() == {(8, 9), (10, 11)}
    assert rows_of(found[8, 9]["alignment"].values) == [10, 11]
    assert rows_of(found[10, 11]["alignment"].values) == [8, 9]
    assert all("scaler" in steps for steps in found.values())
    ledger.values("voxels", TRAIN)  # later than the scopes, yet for all scores
    assert all("voxels" in seen.steps for _, seen in ledger.seen(TEST))


def test_scored_rows_outside_of_every_scope_have_the_shared_record():
    ledger = Ledger(COHORT)
    ledger.values("scaler", TRAIN)
    ledger.scoring(SECOND).values("alignment", FIRST)
    found = {tuple(rows.tolist()): list(seen.steps) for rows, seen in ledger.seen(TEST)}
    assert found == {(10, 11): ["alignment", "scaler"], (8, 9): ["scaler"]}


scopes = st.lists(st.tuples(st.none() | some_rows, some_rows), max_size=5)


@quick
@given(scopes, some_rows.filter(len))
def test_the_scored_rows_are_partitioned_with_all_that_was_read_for_them(many, scored):
    """Scopes may overlap, and hold rows that are not scored."""
    ledger = Ledger(COHORT)
    for i, (scope, rows) in enumerate(many):
        (ledger if scope is None else ledger.scoring(scope)).values(f"step {i}", rows)
    found = ledger.seen(scored)
    assert sorted(np.concatenate([rows for rows, _ in found]).tolist()) == scored.tolist()
    for rows, seen in found:
        for row in rows.tolist():
            want = {
                f"step {i}" for i, (scope, _) in enumerate(many) if scope is None or row in scope
            }
            assert set(seen.steps) == want
