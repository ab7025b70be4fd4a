"""The ledger: reads write the record, and the record alone decides the class of protocol."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emojax.data.cohort import Prior
from emojax.provenance import PROTOCOLS, LeakageError, Ledger, Provenance, classify

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
    """Step -> rows of values, rows of labels, of the record that is shared by all scores."""
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
    ledger.values("voxels", TRAIN)  # later than the scopes, but for all scores
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


# classify


def saw(step="any", values=(), labels=()):
    return Provenance.of(step, N, values=np.array(values, int), labels=np.array(labels, int))


STRICT = saw("network", TRAIN, TRAIN)
CASES = {  # what one more step saw: values, labels; scored by run: class, volumes that count
    "nothing of the test subject": (TRAIN, TRAIN, "strict", 0),
    "values of another run": ([8], [], "calibrated", 0),
    "labels of another run": ([], [8, 9], "calibrated", 0),
    "values of a scored row": ([8, 10], [], "transductive", 1),
    "values of scored rows, labels of another run": ([10, 11], [8], "transductive", 2),
    "labels of a scored row": ([], [11], "leaky", 1),
    "everything": (range(N), range(N), "leaky", 2),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("step", ["any", "network", "alignment", "epoch choice", "cleaning"])
def test_the_rows_decide_and_never_the_name_of_the_step(case, step):
    values, labels, protocol, count = CASES[case]
    seen = STRICT | saw(step, values, labels)
    got = classify([(SECOND, seen)], subject=SUBJECT, unit=RUN)
    assert got == (protocol, {step: count} if count else {})


@quick
@given(some_rows, some_rows, some_rows.filter(len), st.permutations(["x", "y"]))
def test_renaming_steps_changes_nothing(values, labels, scored, names):
    one, other = names
    a = saw("x", values) | saw("y", [], labels)
    b = saw(one, values) | saw(other, [], labels)
    rename = {"x": one, "y": other}
    protocol, counts = classify([(scored, a)], subject=SUBJECT, unit=RUN)
    assert classify([(scored, b)], subject=SUBJECT, unit=RUN) == (
        protocol,
        {rename[step]: count for step, count in counts.items()},
    )


@quick
@given(some_rows, some_rows, some_rows.filter(len))
def test_classes_by_rows(values, labels, scored):
    """The definitions, written down once more."""
    protocol, _ = classify([(scored, saw("s", values, labels))], subject=SUBJECT, unit=RUN)
    values, labels, scored = (set(rows.tolist()) for rows in (values, labels, scored))
    runs, people = {RUN[row] for row in scored}, {SUBJECT[row] for row in scored}
    if any(RUN[row] in runs for row in labels):
        want = "leaky"
    elif values & scored:
        want = "transductive"
    elif any(SUBJECT[row] in people for row in values | labels):
        want = "calibrated"
    else:
        want = "strict"
    assert protocol == want


@quick
@given(some_rows, some_rows, some_rows, some_rows, some_rows.filter(len))
def test_more_reads_never_make_it_better(values, labels, more, more_labels, scored):
    less = saw("s", values, labels)
    classes = [
        classify([(scored, seen)], subject=SUBJECT, unit=RUN)[0]
        for seen in (less, less | saw("t", more, more_labels))
    ]
    assert PROTOCOLS.index(classes[0]) <= PROTOCOLS.index(classes[1])


def test_labels_of_the_unit_leak_and_without_a_unit_only_those_of_scored_rows():
    half, other = np.array([10]), saw("alignment", [], [11])
    assert classify([(half, other)], subject=SUBJECT, unit=RUN) == ("leaky", {"alignment": 1})
    assert classify([(half, other)], subject=SUBJECT) == ("calibrated", {})
    by_subject = saw("alignment", [], [8])
    got = classify([(half, by_subject)], subject=SUBJECT, unit=SUBJECT)
    assert got == ("leaky", {"alignment": 1})
    with pytest.raises(LeakageError) as error:
        classify([(half, by_subject)], subject=SUBJECT, unit=SUBJECT, claimed="calibrated")
    assert str(error.value) == (
        "the protocol claims to be calibrated, but step 'alignment' saw labels of 1 other volumes "
        "of their unit (first: row 8)"
    )


def test_every_set_of_scored_rows_counts_and_volumes_only_once():
    everything = saw("scaler", range(N))
    seen = [(FIRST, STRICT | everything), (SECOND, STRICT | everything)]
    assert classify(seen, subject=SUBJECT, unit=RUN) == ("transductive", {"scaler": 4})
    mixed = [(FIRST, STRICT), (SECOND, STRICT | saw("scaler", [10]))]
    assert classify(mixed, subject=SUBJECT, unit=RUN) == ("transductive", {"scaler": 1})


@pytest.mark.parametrize("claimed", PROTOCOLS)
def test_worse_than_claimed_is_refused_and_better_reported(claimed):
    for measured, (values, labels) in {
        "strict": (TRAIN, TRAIN),
        "calibrated": ([8], []),
        "transductive": ([10], []),
        "leaky": ([], [10]),
    }.items():
        seen = [(SECOND, saw("aligning", values, labels))]

        def judge(seen=seen):
            return classify(seen, subject=SUBJECT, unit=RUN, claimed=claimed, name="arm 1")

        if PROTOCOLS.index(measured) <= PROTOCOLS.index(claimed):
            assert judge()[0] == measured
            continue
        with pytest.raises(LeakageError) as error:
            judge()
        said = str(error.value)
        assert said.startswith(f"arm 1 claims to be {claimed}, but step 'aligning' saw ")
        assert "\n" not in said and said.endswith(f"(first: row {(values or labels)[0]})")


def test_every_step_that_breaks_the_claim_is_named_once():
    leaky = saw("voxels", [8, 9], [8, 9]) | saw("scaler", [8]) | saw("alignment", [10])
    with pytest.raises(LeakageError) as error:
        classify([(FIRST, leaky)], subject=SUBJECT, unit=RUN, claimed="strict", name="nested")
    assert str(error.value) == (
        "nested claims to be strict, but "
        "step 'alignment' saw 1 other volumes of the scored subject (first: row 10); "
        "step 'scaler' saw values of 1 scored volumes (first: row 8); "
        "step 'voxels' saw labels of 2 scored volumes (first: row 8)"
    )


def test_a_ledger_and_its_class_from_end_to_end():
    ledger = Ledger(COHORT)
    ledger.values("voxels", TRAIN)
    ledger.labels("voxels", TRAIN)
    for here, others in ((FIRST, SECOND), (SECOND, FIRST)):
        ledger.scoring(here).values("alignment", others)
    assert classify(ledger.seen(TEST), subject=SUBJECT, unit=SUBJECT) == ("calibrated", {})
    ledger.scoring(FIRST).values("alignment", FIRST)
    assert classify(ledger.seen(TEST), subject=SUBJECT) == ("transductive", {"alignment": 2})
