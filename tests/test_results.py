"""Tests from records of folds to metrics.json: one schema, one interval, names of the table."""

import dataclasses
import json

import hand_made
import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from emojax import splits, statistics
from emojax.errors import InputError
from emojax.report import figures, outcomes, results, tables, texts
from emojax.report.schema import Result
from emojax.scoring import scores

KINDS = ("left_out", "by_split", "sweep", "classical")


def same_scores(network, labels, probabilities):
    """Returns whether a network has these scores, ignoring entries of other kinds."""
    want = scores.scores(labels, probabilities)
    return {name: network[name] for name in want} == want


def arm_of(metrics, name):
    return next(arm for arm in metrics["arms"] if arm["name"] == name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_metrics_are_the_schema_and_plain(kind):
    result, cohort, found = hand_made.finished(kind)
    metrics = result.metrics
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert metrics["schema"] == 2 and metrics["config"] == hand_made.CONFIG
    assert metrics["inputs"] == cohort.hashes and metrics["chance"] == pytest.approx(1 / 3)
    known = {"experiment", "command", "device", "versions", "seconds", "classes", "audit"}
    assert known | {"permutation", "crossed", "within_subject", "design"} <= metrics.keys()
    assert metrics["audit"] == hand_made.audited(found)
    assert [arm["name"] for arm in metrics["arms"]] == [r.arm.name for r in found]
    for arm, r in zip(metrics["arms"], found, strict=True):
        assert arm["protocol"] == r.protocol and arm["claimed"] == r.arm.protocol
        assert arm["strict"] == (r.protocol != "leaky") and arm["p_chance"] is None
        assert {"regime", "split", "on_noise", "summary", "seen"} <= arm.keys()
        for scored, fold in zip(arm["folds"], r.folds, strict=True):
            assert scored["test"] == fold.fold.name and scored["rows"] == len(fold.fold.test)
            assert scored["sizes"] == [len(rows) for rows in fold.fold[1:]]
            assert scored["leaks"] == fold.leaks
            for name, classical in fold.baselines.items():
                entry = scored["baselines"][name]
                assert entry["converged"] and entry["peak_bytes"] == classical.peak_bytes
                hits = np.mean(classical.predicted == cohort.labels[fold.fold.test])
                assert entry["accuracy"] == pytest.approx(hits, abs=1e-6)


def test_network_is_scored_at_the_epoch_of_its_arm():
    result, cohort, found = hand_made.finished("left_out")
    nested, last = (arm_of(result.metrics, name) for name in ("nested", "last"))
    fold = found[0].folds[2]
    labels = cohort.labels[fold.fold.test]
    outcome = fold.outcomes[0]
    assert same_scores(nested["folds"][2]["network"], labels, outcome["best"])
    assert same_scores(last["folds"][2]["network"], labels, outcome["last"])
    assert [f["epoch"] for f in nested["folds"]] == [3] * 4
    assert [f["epoch"] for f in last["folds"]] == [4] * 4 == [f["epochs"] for f in last["folds"]]
    assert nested["folds"][2]["last"] == last["folds"][2]["network"]["balanced_accuracy"]
    monitored = nested["folds"][0]["monitored"]
    assert monitored["loss"] == pytest.approx(0.4) and monitored["accuracy"] == pytest.approx(0.8)


def test_published_test_rows_are_drawn_as_the_fold_says():
    result, _, _ = hand_made.finished("left_out")
    twice, once = (arm_of(result.metrics, n) for n in ("paper", "paper, test volumes once"))
    for a, b in zip(twice["folds"], once["folds"], strict=True):
        assert np.array_equal(a["network"]["confusion"], 2 * np.array(b["network"]["confusion"]))


def test_left_out_units_have_students_interval():
    result, _, _ = hand_made.finished("left_out")
    for arm in result.metrics["arms"]:
        for name in ("balanced_accuracy", "accuracy", "loss"):
            values = np.array([fold["network"][name] for fold in arm["folds"]])
            want = statistics.mean_interval(values)
            found = arm["summary"]["network"][name]
            limits = [float(want.low), float(want.high)]
            if name != "loss":
                limits = [max(limits[0], 0), min(limits[1], 1)]
            assert found["ci95"] == pytest.approx(limits) and found["mean"] == values.mean()
            assert found["sd"] == pytest.approx(values.std(ddof=1))
    head = result.metrics["arms"][0]
    test = head["summary"]["baselines"]["LDA"]["network_minus_it"]
    ours, theirs = (
        [fold["network"]["balanced_accuracy"] for fold in head["folds"]],
        [fold["baselines"]["LDA"]["balanced_accuracy"] for fold in head["folds"]],
    )
    assert test.items() >= scores.paired_difference(ours, theirs).items()


def test_splits_have_the_interval_over_their_groups():
    result, cohort, found = hand_made.finished("by_split")
    for arm, r in zip(result.metrics["arms"], found, strict=True):
        many = r.arm.instances
        rows = np.concatenate([fold.fold.test for fold in r.folds for _ in range(many)])
        predicted = [o["best"].argmax(1) for fold in r.folds for o in fold.outcomes]
        groups = splits.SPLITS[r.arm.split].groups(cohort)
        want = statistics.clustered_interval(
            cohort.labels[rows], np.concatenate(predicted), groups[rows], 3
        )
        summary = arm["summary"]["network"]
        limits = [float(want.low), float(want.high)]
        assert summary["balanced_accuracy"]["ci95"] == pytest.approx(limits)
        assert all(v["ci95"] is None for k, v in summary.items() if k != "balanced_accuracy")
        each = [i for fold in arm["folds"] for i in (fold["instances"] or [fold["network"]])]
        mean = np.mean([row["balanced_accuracy"] for row in each])
        assert summary["balanced_accuracy"]["mean"] == pytest.approx(mean)
        assert arm["unit"] == splits.SPLITS[r.arm.split].unit
        theirs = arm["summary"]["baselines"]["1-NN"]
        predicted = np.concatenate([fold.baselines["1-NN"].predicted for fold in r.folds])
        rows = np.concatenate([fold.fold.test for fold in r.folds])
        want = statistics.clustered_interval(cohort.labels[rows], predicted, groups[rows], 3)
        assert theirs["balanced_accuracy"]["ci95"] == pytest.approx(
            [float(want.low), float(want.high)]
        )
        assert theirs["network_minus_it"].keys() == {"difference", "ci95", "p", "p_holm"}


def test_several_instances_have_scores_each_and_their_mean():
    result, _, _ = hand_made.finished("by_split")
    fold = arm_of(result.metrics, "by_run")["folds"][1]
    assert len(fold["instances"]) == 2 and fold["epoch"] is None
    for name in ("accuracy", "auc_macro", "loss"):
        mean = np.mean([row[name] for row in fold["instances"]])
        assert fold["network"][name] == pytest.approx(mean)
    assert np.sum(fold["network"]["confusion"]) == 2 * fold["rows"]
    assert {"epoch", "epochs", "last"} <= fold["instances"][0].keys()
    assert arm_of(result.metrics, "by_run on noise")["folds"][0]["instances"] == []


def test_a_single_fold_has_no_interval():
    _, cohort, found = hand_made.finished("left_out")
    single = [r._replace(folds=r.folds[:1]) for r in found]
    metrics = results.summarise("A", hand_made.CONFIG, cohort, single)
    arm = metrics["arms"][0]
    assert arm["summary"]["network"]["balanced_accuracy"]["ci95"] is None
    assert "95 %" not in texts.headline(metrics).split(";")[0]
    result = results.build(metrics, cohort, single, extras=hand_made.EXTRAS)
    assert np.isnan(result.summary["low"][0])
    assert tables.make(metrics)[0].rows[0][2] == ""


def test_sweep_scores_only_the_arm_that_monitoring_chose(tmp_path):
    result, cohort, found = hand_made.finished("sweep")
    metrics = result.metrics
    assert metrics["chosen_arm"] == "L2 0.01" and metrics["chosen"] == 1e-2
    first, second = metrics["arms"]
    assert first["folds"][0]["network"] is None and first["summary"]["network"] is None
    assert first["folds"][0]["monitored"]["accuracy"] < second["folds"][0]["monitored"]["accuracy"]
    assert [row["factor"] for row in metrics["sweep"]] == [1e-4, 1e-2]
    best = max(metrics["sweep"], key=lambda row: (row["accuracy"], -row["loss"]))
    assert metrics["chosen"] == best["factor"] and metrics["split"] == "by_subject"
    test = found[1].folds[0].fold.test
    best = found[1].folds[0].outcomes[0]["best"]
    assert same_scores(metrics["test"], cohort.labels[test], best)
    assert metrics["test"] == second["folds"][0]["network"]
    assert "L2 0.01 has the best validation accuracy" in texts.headline(metrics)
    assert result.summary["arm"].tolist() == ["L2 0.01"]
    assert set(result.predictions["arm"]) == {"L2 0.01"} and len(result.predictions) == len(test)
    result.save(tmp_path)
    assert (tmp_path / "figures" / "sweep.png").stat().st_size > 10_000


def test_ties_of_a_sweep_are_broken_by_the_loss():
    _, _, found = hand_made.finished("sweep")
    outcome = found[0].folds[0].outcomes[0]
    lower = outcome | {"loss": outcome["loss"] / 2}
    pair = [
        r._replace(folds=(r.folds[0]._replace(outcomes=(o,)),))
        for r, o in zip(found, (outcome, lower), strict=True)
    ]
    assert results.choose(pair) == "L2 0.01" and results.choose(pair[::-1]) == "L2 0.01"
    assert results.choose([]) == ""


def test_a_factor_that_diverged_is_never_chosen():
    _, cohort, found = hand_made.finished("sweep")
    outcome = found[1].folds[0].outcomes[0]
    numbers = {name: values for name, values in outcome.items() if values.dtype == np.float32}
    broken = outcome | {name: np.full_like(values, np.nan) for name, values in numbers.items()}
    folds = (found[1].folds[0]._replace(outcomes=(broken,)),)
    pair = [found[0], found[1]._replace(folds=folds)]
    assert results.choose(pair) == results.choose(pair[::-1]) == "L2 0.0001"
    metrics = results.summarise("B", hand_made.CONFIG, cohort, pair)
    assert metrics["sweep"][1]["loss"] is None
    assert tables.make(metrics)[0].rows[1][2:] == ["diverged"] * 4 + [""]
    assert results.build(metrics, cohort, pair).figures.keys() == {"sweep", "reliability"}


def test_without_a_network_everything_but_the_network_is_there(tmp_path):
    result, _, found = hand_made.finished("classical")
    metrics = result.metrics
    for arm in metrics["arms"]:
        assert arm["summary"]["network"] is None
        assert all(fold["network"] is None and fold["epoch"] is None for fold in arm["folds"])
        assert arm["summary"]["baselines"]["1-NN"]["network_minus_it"] is None
    assert "splits" not in metrics and "folds" not in metrics
    assert texts.headline(metrics).startswith("Balanced accuracy of 1-NN, by what is new")
    figures = {"accuracy", "confusion", "roc", "reliability"}
    assert set(result.figures) == figures and not result.curves
    assert len(result.summary) == 9 and set(result.summary["classifier"]) == {"1-NN", "RF"}
    result.save(tmp_path)
    assert "by_subject: RF" in (tmp_path / "report.html").read_text()
    alone = [r._replace(arm=dataclasses.replace(r.arm, split="")) for r in found[:1]]
    _, cohort, _ = hand_made.finished("classical")
    plain = results.summarise("C", {"seed": 0}, cohort, alone)
    assert texts.headline(plain).startswith("by_subject: 1-NN: balanced accuracy")
    assert texts.title(plain) == "Experiment C" and texts.title(metrics).endswith("synthetic")
    assert results.build(plain, cohort, alone).predictions["predicted"].notna().all()


def test_a_row_has_one_name_everywhere():
    result, _, _ = hand_made.finished("left_out")
    metrics = result.metrics
    names = [row.name for row in tables.rows(metrics)]
    arms = [arm["name"] for arm in metrics["arms"]]
    assert names == [*arms[:-1], "LDA", "nuisance only (logistic)", "noise floor"]
    by_title = {table.title: table for table in tables.make(metrics)}
    assert list(by_title["Balanced accuracy in each fold"].header[1:]) == names
    assert {row[0] for row in by_title["Trainings"].rows} <= set(arms)
    assert {row[0] for row in by_title["Who saw what"].rows} <= set(arms)
    assert [row[0] for row in by_title["Audit"].rows] == arms
    drawn = [t.get_text() for t in result.figures["accuracy"].axes[0].get_yticklabels()]
    assert {name.removesuffix(" (leaky)") for name in drawn} <= set(names)
    assert "paper (leaky)" in drawn and "nested" in drawn and "leaky voxels" not in drawn
    steps = [t.get_text() for t in result.figures["leaks"].axes[0].get_yticklabels()]
    assert [step.split("\n")[0] for step in steps] == [name for name, _ in texts.LADDER]
    assert set(result.curves) == {n for n in arms if n not in ("last", "paper, test volumes once")}
    assert set(metrics["provenance"]) == set(result.curves)


def test_classical_classifiers_of_several_arms_are_told_by_their_arm():
    result, _, _ = hand_made.finished("by_split")
    names = [row.name for row in tables.rows(result.metrics)]
    assert names[:5] == [
        "by_subject",
        "by_subject: 1-NN",
        "by_subject: RF",
        "by_subject on noise",
        "by_subject on noise: 1-NN",
    ]
    assert names[-1] == "random on noise: 1-NN" and len(set(names)) == len(names) == 15
    panels = result.figures["accuracy"].axes
    assert [axes.get_title() for axes in panels] == ["by_subject", "by_run", "random (leaky)"]
    assert [t.get_text() for t in panels[0].get_yticklabels()] == ["ResNet-50", "1-NN", "RF"]
    headline = texts.headline(result.metrics)
    assert "random (leaky) 0." in headline and "over subjects or runs" in headline


def test_who_saw_what_tells_scored_volumes_from_other_runs():
    result, _, _ = hand_made.finished("left_out")
    table = next(t for t in tables.make(result.metrics) if t.title == "Who saw what")
    said = {(row[0], row[1]): row[2:] for row in table.rows}
    other = "calibrated: values of 24 volumes of other runs of the test subjects"
    assert said["nested", "alignment"] == ["24", "0", other]
    assert said["nested", "voxels"] == ["96", "96", "nothing"]
    assert said["paper", "voxels"][2].startswith("LEAK: values and labels of 24 scored volumes, ")
    assert said["leaky voxels", "alignment"][2].startswith("transductive: values of 24 scored")
    row = arm_of(result.metrics, "nested")["seen"][0]
    assert row["subjects"] == ["01"] and row["of_other_runs"] == {"values": 24, "labels": 0}


def test_who_saw_what_of_a_random_split():
    result, cohort, found = hand_made.finished("by_split")
    arm = arm_of(result.metrics, "random")
    network = next(row for row in arm["seen"] if row["step"] == "network")
    scored, record = found[2].folds[0].seen[0]
    near = np.isin(cohort.run_index, cohort.run_index[scored])
    near[scored] = False
    assert network["of_scored_runs"]["labels"] == (record.steps["network"].labels & near).sum() > 0
    assert tables.kind(arm, network) == "LEAK" and "of the scored runs" in texts.whom(network)
    calibrated = arm_of(result.metrics, "by_run")
    row = next(row for row in calibrated["seen"] if row["step"] == "network")
    assert tables.kind(calibrated, row) == "calibrated"


def test_schema_1_of_an_experiment_that_leaves_one_out():
    metrics = hand_made.finished("left_out")[0].metrics
    assert len(metrics["folds"]) == 4
    names = {arm["name"] for arm in metrics["arms"]}
    for i, fold in enumerate(metrics["folds"]):
        assert fold["test_subject"] == f"0{i + 1}" and fold["protocols"].keys() == names
        assert fold["baselines"].keys() == {"LDA", "nuisance only (logistic)"}
        nested = fold["protocols"]["nested"]
        assert np.sum(nested["confusion"]) == 48 and nested["epoch"] == 3
        assert {"accuracy", "balanced_accuracy", "auc_macro", "loss"} <= nested.keys()
    assert metrics["summary"].keys() == names - {"noise floor"}
    assert metrics["summary"]["nested"] == metrics["arms"][0]["summary"]["network"]
    assert metrics["null_floor"] == metrics["arms"][-1]["summary"]["network"]
    assert metrics["baselines"]["LDA"]["nested_minus_it"]["p"] <= 1
    closed = metrics["leaks"]
    assert closed[0]["protocol"] == "paper" and closed[-1]["protocol"] == "nested"
    total = sum(row["change"] for row in closed[1:])
    assert total == pytest.approx(closed[-1]["mean"] - closed[0]["mean"])
    assert metrics["regime"] == "independent_runs" and closed[0]["change"] is None
    assert metrics["isc"]["before"] == pytest.approx([0.1, 0.11, 0.12, 0.13])
    assert {"hashes", "subjects", "runs"} <= metrics["data"].keys()
    assert {"step", "values", "labels"} <= metrics["provenance"]["nested"][0].keys()


def test_schema_1_of_an_experiment_with_splits():
    metrics = hand_made.finished("by_split")[0].metrics
    assert metrics["headline_split"] == "by_subject"
    assert [*metrics["splits"]] == ["by_subject", "by_run", "random"]
    for kind, found in metrics["splits"].items():
        assert found["group"] == splits.SPLITS[kind].unit and len(found["folds"]) == 2
        mean = found["summary"]["balanced_accuracy"]["mean"]
        assert found["ci95_groups"][0] <= mean <= found["ci95_groups"][1]
        groups = set()
        for fold in found["folds"]:
            assert len(fold["instances"]) == 2 and len(fold["volumes"]) == 3
            assert fold["rounding"] == 0.001 and bool(fold["leaks"]) == (kind == "random")
            for row in fold["instances"]:
                assert 1 <= row["epoch"] <= row["epochs"] == 4
                assert np.sum(row["confusion"]) == fold["volumes"][2]
            groups |= set(fold["test_groups"])
        assert len(found["by_group"]) == len(groups)
        floor = found["null_floor"]
        assert len(floor["folds"][0]["instances"]) == 1 and floor["baselines"].keys() == {"1-NN"}
        assert found["baselines"].keys() == {"1-NN", "RF"}
        assert found["baselines"]["RF"]["peak_bytes"] == 2 * 10**8
        keys = found["baselines"]["RF"]["network_minus_it"].keys()
    assert keys == {"difference", "ci95", "p", "p_holm"}


def test_the_ladder_needs_the_published_procedure():
    _, cohort, found = hand_made.finished("left_out")
    some = [r for r in found if r.arm.name in ("nested", "paper")]
    metrics = results.summarise("A", hand_made.CONFIG, cohort, some)
    assert [row["protocol"] for row in metrics["leaks"]] == ["paper", "nested"]
    assert metrics["leaks"][1]["closed"].startswith("voxels, alignment, epoch and learning")
    own = [r for r in found if r.arm.name != "leaky voxels"]
    metrics = results.summarise("A", hand_made.CONFIG, cohort, own)
    assert metrics["leaks"][-1]["closed"] == "alignment without the scored runs"
    assert results.summarise("A", hand_made.CONFIG, cohort, found[:1])["leaks"] == []


def test_predictions_have_a_row_per_scored_volume():
    result, cohort, found = hand_made.finished("left_out")
    rows = result.predictions
    assert len(rows) == len(cohort.labels)
    assert len(set(zip(rows["subject"], rows["run"], rows["frame"], strict=True))) == len(rows)
    names = ("LDA", "nuisance only (logistic)", "paper", "paper-test volumes once", "nested-none")
    assert {"fold", "time", "label", *(f"{name} predicted" for name in names)} <= set(rows)
    assert (rows["predicted"] == rows["nested predicted"]).all()
    assert "noise floor predicted" not in rows
    for fold in result.metrics["arms"][0]["folds"]:
        mine = rows[rows["fold"] == fold["test"]]
        assert (mine["nested predicted"] == mine["label"]).mean() == pytest.approx(
            fold["network"]["accuracy"], abs=1e-6
        )
    total = sum(rows[f"nested p_{name}"] for name in cohort.classes)
    assert np.allclose(total, 1, atol=1e-5)
    paper = found[2].folds[1].outcomes[0]["best"].argmax(1)
    want = np.array(cohort.classes)[paper]
    assert (rows[rows["fold"] == "02"]["paper predicted"].to_numpy() == want).all()


def test_predictions_of_splits_have_a_row_per_instance():
    result, _, _ = hand_made.finished("by_split")
    rows = result.predictions
    for kind, found in result.metrics["splits"].items():
        for i in range(2):
            mine = rows[(rows["split"] == kind) & (rows["values"] == "real")]
            mine = mine[mine["instance"] == i]
            assert len(mine) == sum(fold["volumes"][2] for fold in found["folds"])
            hits = [fold["instances"][i]["accuracy"] for fold in found["folds"]]
            by_fold = (mine["predicted"] == mine["label"]).groupby(mine["fold"]).mean()
            assert by_fold.tolist() == pytest.approx(hits, abs=1e-6)
    noise = rows[rows["values"] == "noise"]
    assert set(noise["instance"]) == {0} and set(noise["RF predicted"]) == {""}
    assert {"subject", "run", "frame", "time", "p_rest"} <= set(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_run_is_read_again(kind, tmp_path):
    result, _, _ = hand_made.finished(kind)
    result.save(tmp_path)
    again = Result.load(tmp_path)
    assert again.metrics == result.metrics
    pd.testing.assert_frame_equal(again.summary, result.summary)
    pd.testing.assert_frame_equal(again.folds, result.folds)
    assert list(again.predictions) == list(result.predictions)
    for name in ("subject", "run", "label", "predicted", "fold"):
        assert again.predictions[name].tolist() == result.predictions[name].tolist()
    assert again._repr_html_() == result._repr_html_() and repr(again) == repr(result)
    with pytest.raises(InputError, match="without figures"):
        again.save(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_what_is_no_finished_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no metrics\.json"):
        Result.load(tmp_path)
    path = tmp_path / "metrics.json"
    path.write_text('{"schema": 2, ')
    with pytest.raises(InputError, match="damaged JSON"):
        Result.load(tmp_path)
    path.write_text('{"summary": {}}')
    with pytest.raises(InputError, match="another version"):
        Result.load(tmp_path)


def test_data_frames_of_a_notebook():
    result, _, _ = hand_made.finished("left_out")
    head = result.summary.iloc[0]
    score = result.metrics["arms"][0]["summary"]["network"]["balanced_accuracy"]
    assert (head["arm"], head["classifier"], head["protocol"]) == (
        "nested",
        "network",
        "calibrated",
    )
    assert [head["mean"], head["sd"]] == [score["mean"], score["sd"]]
    assert [head["low"], head["high"]] == score["ci95"]
    assert {"accuracy", "auc_macro", "loss", "nll", "p"} <= set(result.summary)
    assert len(result.folds) == 8 * 4 + 2 * 4
    mean = result.folds.groupby(["arm", "classifier"])["balanced_accuracy"].mean()
    assert mean["nested", "LDA"] == pytest.approx(result.summary["mean"][7])
    html = result._repr_html_()
    assert "<table>" in html and "Experiment A" in html and "nested, none" in html


def test_chosen_voxels_are_counted_on_the_grid(tmp_path):
    result, _, _ = hand_made.finished("left_out")
    result.save(tmp_path)
    image = nib.load(tmp_path / "chosen_voxels.nii.gz")
    counts = np.asarray(image.dataobj).ravel()
    assert (
        counts.sum() == 4 * 30 and counts.max() == 4 and counts[0] == 1 and counts[33:].sum() == 0
    )
    assert np.array_equal(image.affine, hand_made.EXTRAS["affine"])
    assert {"voxels", "correlation"} <= set(result.figures)
    _, _, found = hand_made.finished("left_out")
    assert figures.maps(found[0], {}) == {}


def test_correlations_that_are_not_known_are_not_drawn():
    _, cohort, found = hand_made.finished("left_out")
    folds = tuple(f._replace(notes={"isc": (np.nan, np.nan)}) for f in found[0].folds)
    some = [found[0]._replace(folds=folds)]
    metrics = results.summarise("A", hand_made.CONFIG, cohort, some)
    assert metrics["isc"]["before"] == [None] * 4
    drawn = results.build(metrics, cohort, some, extras=hand_made.EXTRAS).figures
    assert "correlation" not in drawn and "voxels" not in drawn


def test_curves_say_who_was_monitored():
    cohort = hand_made.make_cohort()
    nested, published = (
        splits.leave_one_out(cohort.subject, monitor_test=flag)[0] for flag in (False, True)
    )
    assert outcomes.monitored(cohort, nested) == "monitored: other subjects"
    assert outcomes.monitored(cohort, published) == "monitored: the scored volumes"
    runs = splits.Fold("1", *(np.flatnonzero(cohort.run_index == i) for i in range(3)))
    assert outcomes.monitored(cohort, runs) == "monitored: other runs"
    near = splits.Fold("1", *(np.arange(i, 24, 3) for i in range(3)))
    assert outcomes.monitored(cohort, near) == "monitored: other volumes of these runs"


def test_a_network_that_diverged_ends_in_one_line():
    _, cohort, found = hand_made.finished("left_out")
    fold = found[0].folds[1]
    broken = fold.outcomes[0] | {"best": np.full_like(fold.outcomes[0]["best"], np.nan)}
    folds = (found[0].folds[0], fold._replace(outcomes=(broken,)))
    with pytest.raises(InputError, match="nested, fold 02: found a network that diverged"):
        results.summarise("A", hand_made.CONFIG, cohort, [found[0]._replace(folds=folds)])


def test_a_network_that_diverged_after_its_best_epoch_is_scored():
    _, cohort, found = hand_made.finished("left_out")
    fold = found[0].folds[1]
    broken = fold.outcomes[0] | {"last": np.full_like(fold.outcomes[0]["last"], np.nan)}
    folds = (found[0].folds[0], fold._replace(outcomes=(broken,)))
    metrics = results.summarise("A", hand_made.CONFIG, cohort, [found[0]._replace(folds=folds)])
    assert metrics["arms"][0]["folds"][1]["last"] is None
    trainings = next(t for t in tables.make(metrics) if t.title == "Trainings")
    assert trainings.rows[1][-1] == "diverged"


def test_a_run_on_noise_alone_has_a_headline():
    _, cohort, found = hand_made.finished("left_out")
    noise = [found[-1]]
    metrics = results.summarise("A", hand_made.CONFIG | {"null": True}, cohort, noise)
    assert texts.title(metrics) == "Experiment A: noise"
    assert texts.headline(metrics).startswith("noise floor: balanced accuracy 0.")
    assert results.build(metrics, cohort, noise).figures
