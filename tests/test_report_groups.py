"""Scores by group of people, and networks that learned nothing: in numbers, words and tables."""

import dataclasses
import io

import hand_made
import numpy as np
import pytest
import rich.console

from emojax import metrics as scores
from emojax import statistics
from emojax.report import console, outcomes, page, results, tables, texts

GROUPS = {"01": "MDD", "02": "control", "03": "MDD", "04": "control", "05": "MDD", "06": "control"}


def grouped(make, groups=GROUPS, **options):
    """Returns the result of an experiment on people of two groups."""
    cohort, found = make(**options)
    cohort = dataclasses.replace(
        cohort, groups={name: groups[name] for name in cohort.subjects if name in groups}
    )
    metrics = results.summarise("A", hand_made.CONFIG, cohort, found)
    return results.build(metrics, cohort, found, extras=hand_made.EXTRAS), cohort, found


def with_networks(found, change, arms=None):
    """Returns the arms, with other predictions of their networks."""
    out = []
    for result in found:
        folds = []
        for i, fold in enumerate(result.folds):
            changed = tuple(outcome | change(outcome, i) for outcome in fold.outcomes)
            keep = arms is not None and result.arm.name not in arms
            folds.append(fold if keep else fold._replace(outcomes=changed))
        out.append(result._replace(folds=tuple(folds)))
    return out


def same_everywhere(outcome, fold):
    values = np.tile(np.float32([0.3, 0.5, 0.2]), (len(outcome["best"]), 1)) + 1e-8 * fold
    return {"best": values, "last": values}


def printed(result):
    out = rich.console.Console(width=100, file=io.StringIO())
    console.print_table(result, out)
    return " ".join(out.file.getvalue().split())


# Groups


def test_left_out_subjects_have_students_interval_by_group():
    result, cohort, found = grouped(hand_made.left_out)
    groups = result.metrics["groups"]
    assert list(groups) == ["MDD", "control"]
    head = found[0]
    for group, entry in groups.items():
        folds = [f for f in head.folds if cohort.groups[f.fold.name] == group]
        assert (entry["subjects"], entry["tested"]) == (2, len(folds)) == (2, 2)
        for score, predicted in (
            (entry["network"], [f.outcomes[0]["best"].argmax(1) for f in folds]),
            (entry["baselines"]["LDA"], [f.baselines["LDA"].predicted for f in folds]),
        ):
            values = [
                float(scores.balanced_accuracy(cohort.labels[f.fold.test], called, 3))
                for f, called in zip(folds, predicted, strict=True)
            ]
            want = statistics.mean_interval(np.array(values))
            limits = [max(float(want.low), 0), min(float(want.high), 1)]
            assert score["balanced_accuracy"]["mean"] == pytest.approx(np.mean(values))
            assert score["balanced_accuracy"]["ci95"] == pytest.approx(limits)
    both = [entry["network"]["balanced_accuracy"]["mean"] for entry in groups.values()]
    whole = result.metrics["arms"][0]["summary"]["network"]["balanced_accuracy"]["mean"]
    assert np.mean(both) == pytest.approx(whole)


def test_splits_have_the_interval_over_the_groups_subjects():
    result, cohort, found = grouped(hand_made.by_split)
    head = found[0]
    rows = np.concatenate([f.fold.test for _ in range(2) for f in head.folds])
    predicted = np.concatenate(
        [f.outcomes[j]["best"].argmax(1) for j in range(2) for f in head.folds]
    )
    for group, entry in result.metrics["groups"].items():
        here = np.array([cohort.groups[name] == group for name in cohort.subject[rows]])
        if not here.any():
            assert entry["network"] is None and entry["tested"] == 0
            continue
        want = statistics.clustered_interval(
            cohort.labels[rows[here]], predicted[here], cohort.subject[rows[here]], 3
        )
        score = entry["network"]["balanced_accuracy"]
        assert score["mean"] == pytest.approx(float(want.estimate))
        assert score["ci95"] == pytest.approx([float(want.low), float(want.high)])
        assert entry["baselines"].keys() == {"1-NN", "RF"}


def test_groups_are_in_the_table_the_page_and_on_the_terminal():
    result, _, _ = grouped(hand_made.left_out)
    table = next(t for t in tables.make(result.metrics) if t.title == "By group: nested")
    score = result.metrics["groups"]["MDD"]["network"]["balanced_accuracy"]
    assert [row[:2] for row in table.rows[:2]] == [["nested", "MDD"], ["nested", "control"]]
    assert table.rows[0][2:4] == ["2 of 2", f"{score['mean']:.3f}"]
    for text in (printed(result), page.render(result.metrics, {}, {})):
        assert "By group: nested" in text and "2 of 2" in text and "control" in text


def test_one_person_of_a_group_has_no_interval_and_some_may_have_no_group():
    result, _, _ = grouped(hand_made.left_out, {"01": "MDD", "02": "control", "03": "control"})
    groups = result.metrics["groups"]
    assert list(groups) == ["", "MDD", "control"]
    assert groups["MDD"]["network"]["balanced_accuracy"]["ci95"] is None
    assert "no group" in {row[1] for row in tables.groups(result.metrics).rows}


@pytest.mark.parametrize("kind", ["left_out", "by_split", "sweep", "classical"])
def test_without_groups_there_is_no_table(kind):
    metrics = hand_made.finished(kind)[0].metrics
    assert metrics["groups"] == {} and not tables.groups(metrics).rows


def test_classical_classifiers_have_groups_without_a_network():
    result, _, _ = grouped(hand_made.by_split, network=False)
    entries = result.metrics["groups"].values()
    assert all(entry["network"] is None for entry in entries)
    assert any(entry["baselines"]["1-NN"] for entry in entries)
    assert tables.groups(result.metrics).rows


# Networks that learned nothing


def learned(found, cohort, config=hand_made.CONFIG):
    """Returns a result, and the reason of its headline."""
    metrics = results.summarise("A", config, cohort, found)
    head = metrics["chosen_arm"] or metrics["arms"][0]["name"]
    arm = next(arm for arm in metrics["arms"] if arm["name"] == head)
    return results.build(metrics, cohort, found), arm["learned_nothing"]


@pytest.mark.parametrize("make", [hand_made.left_out, hand_made.by_split, hand_made.sweep])
def test_constant_probabilities_make_the_headline(make):
    cohort, found = make()
    result, why = learned(with_networks(found, same_everywhere), cohort)
    assert why == "constant output (the same probabilities for all volumes of a fold)"
    for text in (texts.headline(result.metrics), printed(result), repr(result)):
        assert f"the network learned nothing: {why}; lower train.penalty_factor or" in text
    assert "the network learned nothing" in page.render(result.metrics, {}, {})


def test_one_class_for_everything_makes_the_headline():
    cohort, found = hand_made.left_out()

    def change(outcome, fold):
        drawn = np.random.default_rng(fold).random((len(outcome["best"]), 3)).astype(np.float32)
        drawn[:, 1] += 2
        return {"best": drawn / drawn.sum(1, keepdims=True)}

    config = hand_made.CONFIG | {"train": {"penalty_factor": 0.05, "lr": 0.0045}}
    result, why = learned(with_networks(found, change, ["nested", "last"]), cohort, config)
    assert why == "constant output (class neutral for every volume)"
    said = "lower train.penalty_factor (now 0.05) or train.lr (now 0.0045)."
    assert said in texts.headline(result.metrics)


def test_a_network_that_died_on_the_way_is_seen_at_the_last_epoch():
    cohort, found = hand_made.left_out()
    dead = with_networks(found, lambda o, i: {"last": same_everywhere(o, i)["last"]}, ["nested"])
    _, why = learned(dead, cohort)
    assert why.startswith("constant output at the last epoch")


def test_arms_that_share_the_fault_are_named():
    cohort, found = hand_made.left_out()
    result, _ = learned(with_networks(found, same_everywhere, ["nested", "paper"]), cohort)
    assert "The same holds for paper." in texts.headline(result.metrics)


@pytest.mark.parametrize("kind", ["left_out", "by_split", "sweep", "classical"])
def test_a_network_that_learned_says_nothing(kind):
    result = hand_made.finished(kind)[0]
    assert all(arm["learned_nothing"] is None for arm in result.metrics["arms"])
    assert "learned nothing" not in texts.headline(result.metrics)


def test_one_dead_fold_is_no_dead_network():
    cohort, found = hand_made.left_out()

    def change(outcome, fold):
        return same_everywhere(outcome, fold) if fold == 1 else {}

    assert learned(with_networks(found, change), cohort)[1] is None


def test_volumes_of_one_class_may_all_be_called_that():
    cohort, found = hand_made.left_out()
    cohort = cohort.with_labels(np.zeros_like(cohort.labels))
    dead = with_networks(found, same_everywhere)
    assert outcomes.learned_nothing(cohort, dead[0]) is None
