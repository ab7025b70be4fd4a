"""Classes of protocol: the rows that were read decide, and never the name of a step."""

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


def make_cohort(prior=()):
    return SimpleNamespace(
        labels=np.arange(N) % 3, volumes=np.zeros((N, 4), np.float32), prior=prior
    )


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
    """The classes agree with a second implementation of their definitions."""
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


def test_values_that_were_seen_before_make_transductive_and_break_no_claim():
    for labels, protocol in ((False, "transductive"), (True, "leaky")):
        ledger = Ledger(make_cohort((Prior("before", labels),)))
        seen = ledger.seen(TEST, prior=False)
        judge = {"subject": SUBJECT, "prior": ledger.prior}
        assert classify(seen, **judge) == (protocol, {"before": 4})
    cleaned = Ledger(make_cohort((Prior("cleaning"),)))
    judge = {"subject": SUBJECT, "prior": cleaned.prior, "claimed": "strict", "name": "nested"}
    assert classify(cleaned.seen(TEST, prior=False), **judge)[0] == "transductive"
    cleaned.values("scaler", FIRST)
    with pytest.raises(LeakageError, match="but step 'scaler' saw values of 2 scored volumes"):
        classify(cleaned.seen(TEST, prior=False), **judge)
    chosen = Ledger(make_cohort((Prior("vectors", labels=True),)))
    with pytest.raises(LeakageError, match="step 'vectors' saw labels of 4 scored volumes before"):
        classify(chosen.seen(TEST, prior=False), **judge | {"prior": chosen.prior})


def test_a_ledger_and_its_class_from_end_to_end():
    ledger = Ledger(make_cohort())
    ledger.values("voxels", TRAIN)
    ledger.labels("voxels", TRAIN)
    for here, others in ((FIRST, SECOND), (SECOND, FIRST)):
        ledger.scoring(here).values("alignment", others)
    assert classify(ledger.seen(TEST), subject=SUBJECT, unit=SUBJECT) == ("calibrated", {})
    ledger.scoring(FIRST).values("alignment", FIRST)
    assert classify(ledger.seen(TEST), subject=SUBJECT) == ("transductive", {"alignment": 2})
