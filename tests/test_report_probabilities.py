"""Probabilities in metrics.json, report, terminal and predictions.csv."""

import csv
import dataclasses
import functools
import io

import hand_made
import numpy as np
import pandas as pd
import pytest
import rich.console

from emojax import metrics as measures
from emojax import splits
from emojax.report import console, page, probabilities, results
from emojax.report.schema import Result
from emojax.scoring import scores
from emojax.scoring.baselines import Fitted


def monitored(cohort, found):
    """Adds what the networks say of their monitored rows."""
    arms = []
    for r in found:
        folds = []
        for fold in r.folds:
            rows = np.unique(fold.fold.monitor)
            said = {"monitored_rows": rows}
            for i, pick in enumerate(("best", "last")):
                said[f"monitored_{pick}"] = hand_made.probabilities(cohort, rows, 0.5, 40 + i)
            outcomes = tuple(outcome | said for outcome in fold.outcomes)
            folds.append(fold._replace(outcomes=outcomes))
        arms.append(r._replace(folds=tuple(folds)))
    return arms


def summarised(cohort, found, **config):
    return results.summarise("A", hand_made.CONFIG | config, cohort, found, seconds={})


@functools.cache
def made(kind):
    cohort, found = getattr(hand_made, kind)()
    found = monitored(cohort, found)
    metrics = summarised(cohort, found)
    return results.build(metrics, cohort, found, extras=hand_made.EXTRAS), cohort, found


def arm_of(metrics, name):
    return next(arm for arm in metrics["arms"] if arm["name"] == name)


def test_a_temperature_is_fitted_to_monitored_rows_alone():
    result, cohort, found = made("left_out")
    for name, pick, number in (("nested", "best", 0), ("last", "last", 1)):
        for scored, fold in zip(
            arm_of(result.metrics, name)["folds"], found[number].folds, strict=True
        ):
            outcome, labels = fold.outcomes[0], cohort.labels[fold.fold.test]
            rows = outcome["monitored_rows"]
            assert not np.isin(rows, fold.fold.test).any()
            want = scores.fit_temperature(cohort.labels[rows], outcome[f"monitored_{pick}"])
            got, given = scored["network"], outcome[pick]
            before = scores.of_probabilities(labels, given)
            assert got["uncalibrated"] == before | {"temperature": want}
            alone = scores.scores(labels, scores.with_temperature(given, want))
            assert {k: got[k] for k in alone} == alone | {"loss": before["nll"]}


def test_what_counts_classes_is_as_without_temperatures():
    result, cohort, found = made("left_out")
    other = summarised(cohort, found, temperature=False)
    for arm, plain in zip(result.metrics["arms"], other["arms"], strict=True):
        assert not any(fold["network"]["uncalibrated"] for fold in plain["folds"])
        ours, theirs = (a["summary"]["network"] for a in (arm, plain))
        assert "uncalibrated" not in theirs
        for name in ("accuracy", "balanced_accuracy", "f1_macro", "block_accuracy", "loss"):
            assert ours[name] == theirs[name], name
        before = ours.get("uncalibrated", ours)
        assert {n: before[n] for n in ("nll", "brier", "ece")} == {
            n: theirs[n] for n in ("nll", "brier", "ece")
        }
        assert theirs["nll"] == theirs["loss"]
    assert "temperature=False" in other["probabilities"]["temperature"]
    assert other["probabilities"]["uncalibrated"] is None


def test_leaky_arms_have_no_temperature_and_the_report_says_why():
    metrics = made("left_out")[0].metrics
    for arm in metrics["arms"]:
        has = [fold["network"]["uncalibrated"] is not None for fold in arm["folds"]]
        assert has == [arm["strict"]] * 4
        assert ("uncalibrated" in arm["summary"]["network"]) == arm["strict"]
    said = metrics["probabilities"]["temperature"]
    assert "(other subjects)" in said and "declared leaky" in said and "(paper; " in said
    _, cohort, found = made("left_out")
    alone = summarised(cohort, found[2:3])["probabilities"]
    assert "paper is declared leaky: its monitored volumes may be" in alone["temperature"]


def test_missing_or_broken_predictions_of_monitored_rows_give_no_temperature():
    _, cohort, found = made("left_out")
    fold = found[0].folds[0]
    nans = np.full_like(fold.outcomes[0]["monitored_best"], np.nan)
    broken = fold._replace(outcomes=(fold.outcomes[0] | {"monitored_best": nans},))
    metrics = summarised(cohort, [found[0]._replace(folds=(broken, *found[0].folds[1:]))])
    arm = metrics["arms"][0]
    assert arm["folds"][0]["network"]["uncalibrated"] is None
    assert "uncalibrated" not in arm["summary"]["network"]
    assert arm["folds"][1]["network"]["uncalibrated"] and "missing" in str(metrics["probabilities"])
    _, found = hand_made.left_out()
    assert "are missing" in summarised(cohort, found)["probabilities"]["temperature"]


def test_base_rates_are_those_of_the_training_rows():
    result, cohort, found = made("left_out")
    labels = cohort.labels[found[0].folds[1].fold.train]
    rates = np.bincount(labels, minlength=3) / len(labels)
    test = cohort.labels[found[0].folds[1].fold.test]
    want = -np.log(rates[test]).mean()
    fold = result.metrics["arms"][0]["folds"][1]
    assert fold["network"]["base_rate_nll"] == pytest.approx(want)
    assert fold["baselines"]["LDA"]["base_rate_nll"] == pytest.approx(want)
    assert result.metrics["arms"][0]["summary"]["network"]["base_rate_nll"]["ci95"]


def test_blocks_are_those_of_the_labels():
    result, cohort, found = made("left_out")
    fold = found[0].folds[2]
    rows, p = fold.fold.test, fold.outcomes[0]["best"]
    blocks, right = splits.blocks(cohort)[rows], []
    for block in np.unique(blocks):
        here = blocks == block
        right.append(np.log(p[here]).sum(0).argmax() == cohort.labels[rows][here][0])
    assert len(right) == 12  # four volumes each
    head = result.metrics["arms"][0]
    assert head["folds"][2]["network"]["block_accuracy"] == pytest.approx(np.mean(right))
    values = [f["network"]["block_accuracy"] for f in head["folds"]]
    assert head["summary"]["network"]["block_accuracy"]["mean"] == pytest.approx(np.mean(values))


def test_rows_without_time_have_no_blocks():
    _, cohort, found = made("left_out")
    runs = tuple(dataclasses.replace(run, tr=None) for run in cohort.runs)
    metrics = summarised(dataclasses.replace(cohort, runs=runs), found)
    assert metrics["arms"][0]["folds"][0]["network"]["block_accuracy"] is None
    assert "block_accuracy" not in metrics["arms"][0]["summary"]["network"]
    table = probabilities.table(metrics)
    assert "accuracy of blocks" not in table.header and "NLL" in table.header


def test_several_instances_have_a_temperature_each():
    result, _, _ = made("by_split")
    fold = arm_of(result.metrics, "by_run")["folds"][0]
    own = [row["uncalibrated"]["nll"] for row in fold["instances"]]
    mean = fold["network"]["uncalibrated"]["nll"]
    assert own[0] != own[1] and mean == pytest.approx(np.mean(own))
    assert arm_of(result.metrics, "random")["folds"][0]["network"]["uncalibrated"] is None
    noise = arm_of(result.metrics, "by_run on noise")["summary"]["network"]["uncalibrated"]
    assert noise.keys() == {"temperature", "nll", "brier", "ece"}
    assert {"uncalibrated_nll", "uncalibrated_ece"} <= set(result.summary)


def said(result, found, number=0, name="predicted"):
    """Returns labels and probabilities of an arm, all folds one after the other, as by hand."""
    arm, folds = result.metrics["arms"][number], found[number].folds
    pairs = zip(probabilities.temperatures(arm), folds, strict=True)
    return np.concatenate(
        [scores.with_temperature(f.outcomes[0][found[number].arm.pick], t) for (t,), f in pairs]
    )


def test_reliability_of_all_scored_volumes():
    result, cohort, found = made("left_out")
    section = result.metrics["probabilities"]
    given = np.concatenate([fold.outcomes[0]["best"] for fold in found[0].folds])
    labels = np.concatenate([cohort.labels[fold.fold.test] for fold in found[0].folds])
    for p, got in ((said(result, found), section), (given, section["uncalibrated"])):
        want = measures.reliability(labels, p)
        assert got["reliability"]["count"] == want.count.tolist()
        assert sum(got["reliability"]["count"]) == 192
        np.testing.assert_array_equal(np.array(got["reliability"]["accuracy"], float), want[2])
        assert got["pooled"] == scores.of_probabilities(labels, p)


@pytest.mark.parametrize("kind", ["left_out", "by_split"])
def test_the_error_of_a_summary_is_that_of_all_volumes(kind):
    result, cohort, found = made(kind)
    for arm, r in zip(result.metrics["arms"], found, strict=True):
        labels = np.concatenate([cohort.labels[fold.fold.test] for fold in r.folds])
        for name, entry in arm["summary"]["baselines"].items():
            p = np.concatenate([fold.baselines[name].probabilities for fold in r.folds])
            assert entry["ece"]["mean"] == float(measures.ece(labels, p))
            assert entry["ece"]["ci95"] is None
            values = [fold["baselines"][name]["ece"] for fold in arm["folds"]]
            assert entry["ece"]["sd"] == pytest.approx(np.std(values, ddof=1))
    head = result.metrics["arms"][0]["summary"]["network"]
    pooled = result.metrics["probabilities"]
    assert head["ece"]["mean"] == pooled["pooled"]["ece"]
    assert head["uncalibrated"]["ece"]["mean"] == pooled["uncalibrated"]["pooled"]["ece"]


def test_small_folds_do_not_make_probabilities_look_worse():
    """Probabilities that are right have an error near 0 in all volumes, whatever the folds."""
    rng = np.random.default_rng(0)
    cohort, found = hand_made.left_out(hand_made.make_cohort(subjects=12))
    (arm, _, folds), labels = found[0], cohort.labels.copy()
    outcomes = [rng.dirichlet(np.ones(3), len(fold.fold.test)) for fold in folds]
    for fold, p in zip(folds, outcomes, strict=True):
        labels[fold.fold.test] = (p.cumsum(1) > rng.random((len(p), 1))).argmax(1)
    cohort = cohort.with_labels(labels.astype(np.int32))
    new = [
        f._replace(outcomes=({**f.outcomes[0], "best": p.astype(np.float32)},), baselines={})
        for f, p in zip(folds, outcomes, strict=True)
    ]
    scored = summarised(cohort, [found[0]._replace(folds=tuple(new))])["arms"][0]
    error = scored["summary"]["network"]["ece"]["mean"]
    of_folds = np.mean([fold["network"]["ece"] for fold in scored["folds"]])
    assert error < 0.06 < 0.12 < of_folds and arm.name == "nested"


@pytest.mark.parametrize("kind", ["left_out", "by_split"])
def test_predictions_have_the_probabilities_of_every_row(kind, tmp_path):
    result, cohort, found = made(kind)
    result.save(tmp_path)
    text = (tmp_path / "predictions.csv").read_text()
    rows = pd.DataFrame(csv.DictReader(io.StringIO(text)))
    assert not any({",", ":"} & set(name) for name in rows) and "nan" not in text.lower()
    first = ["subject", "run", "frame", "time", "label", "predicted"]
    start = list(rows).index("subject")
    named = [f"p_{name}" for name in cohort.classes]
    assert list(rows)[start : start + 9] == [*first, *named]
    arm = result.metrics["arms"][0]
    for i, fold in enumerate(arm["folds"]):
        mine = rows[rows["fold"] == fold["test"]]
        networks = fold["instances"] or [fold["network"]]
        for number, network in enumerate(networks):
            if kind == "by_split":
                mine = rows[rows["fold"] == fold["test"]]
                mine = mine[(mine["arm"] == arm["name"]) & (mine["instance"] == str(number))]
            labels = np.array([cohort.classes.index(name) for name in mine["label"]])
            p = mine[named].to_numpy(float)
            for name in ("nll", "brier", "ece"):
                got = float(getattr(measures, name)(labels, p.astype(np.float32)))
                assert got == pytest.approx(network[name], rel=1e-3, abs=1e-4)
            assert (np.array(cohort.classes)[p.argmax(1)] == mine["predicted"]).all()
            for name, fitted in found[0].folds[i].baselines.items():
                own = mine[[f"{name} {column}" for column in named]].to_numpy(float)
                np.testing.assert_allclose(own, fitted.probabilities, rtol=1e-5)
                want = np.array(cohort.classes)[fitted.predicted]
                assert (mine[f"{name} predicted"] == want).all()
    if kind == "left_out":
        assert (rows["nested predicted"] == rows["predicted"]).all()
        assert (rows["nested p_rest"] == rows["p_rest"]).all()
        assert "nested-none p_rest" in rows and "noise floor predicted" not in rows
    again = Result.load(tmp_path)
    pd.testing.assert_frame_equal(
        again.predictions, result.predictions, check_dtype=False, rtol=1e-5
    )
    before = (tmp_path / "predictions.csv").read_bytes()
    result.save(tmp_path)
    assert (tmp_path / "predictions.csv").read_bytes() == before


def test_a_classifier_without_probabilities_has_empty_cells(tmp_path):
    cohort, found = hand_made.left_out()
    folds = []
    for fold in found[0].folds:
        predicted = np.zeros(len(fold.fold.test), np.int32)
        certain = np.eye(3, dtype=np.float32)[predicted]
        fitted = Fitted(predicted, certain, True, None)
        folds.append(fold._replace(baselines={"my.nets:one": fitted, "my.nets,one": fitted}))
    found = [found[0]._replace(folds=tuple(folds))]
    metrics = summarised(cohort, found)
    results.build(metrics, cohort, found, extras=hand_made.EXTRAS).save(tmp_path)
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("my.nets-one", "my.nets-one-2"):
        assert {row[f"{name} p_rest"] for row in rows} == {""}
        assert {row[f"{name} predicted"] for row in rows} == {"rest"}
    loaded = Result.load(tmp_path).predictions
    assert loaded["my.nets-one p_rest"].isna().all() and loaded["nested p_rest"].notna().all()


def test_names_of_classes_break_no_header(tmp_path):
    names = ("a,b", "a:b", "7")
    cohort, found = hand_made.left_out(hand_made.make_cohort(classes=names))
    metrics = summarised(cohort, found)
    result = results.build(metrics, cohort, found, extras=hand_made.EXTRAS)
    assert list(result.predictions)[7:10] == ["p_a-b", "p_a-b-2", "p_7"]
    result.save(tmp_path)
    loaded = Result.load(tmp_path).predictions
    for name in ("label", "predicted", "LDA predicted"):
        assert set(loaded[name]) <= set(names)
    assert loaded["LDA p_7"].dtype == float


def test_the_report_has_a_section():
    result, _, _ = made("left_out")
    table = probabilities.table(result.metrics)
    lines = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    summary = result.metrics["arms"][0]["summary"]["network"]
    low, high = summary["nll"]["ci95"]
    before = summary["uncalibrated"]
    assert lines["nested"]["NLL"] == f"{summary['nll']['mean']:.3f}" and "paper" in lines
    assert lines["nested"]["95 % interval"] == f"{low:.3f} - {high:.3f}"
    assert lines["nested"]["temperature"] == f"{before['temperature']['mean']:.2f}"
    assert lines["nested, without temperature"]["NLL"] == f"{before['nll']['mean']:.3f}"
    assert lines["class base rates"]["NLL"] == f"{summary['base_rate_nll']['mean']:.3f}"
    assert "paper, without temperature" not in lines and "noise floor" not in lines
    assert lines["LDA"]["accuracy of blocks"] and "borders are taken from the labels" in table.note
    image = {"reliability": b"png", "accuracy": b"png"}
    text = page.render(result.metrics, image, result.captions)
    assert text.count('id="reliability"') == 1 == text.count(">Probabilities</h2>")
    assert text.index('id="reliability"') < text.index(">Figures</h2>")
    assert result.metrics["probabilities"]["temperature"] in text
    axes = result.figures["reliability"].axes
    assert [len(axes[0].lines), len(axes[1].patches)] == [3, 2]
    assert "diagonal" in result.captions["reliability"]


def test_the_terminal_compares_with_base_rates_in_a_line():
    result, _, _ = made("left_out")
    out = rich.console.Console(width=200, file=io.StringIO())
    console.print_table(result, out)
    (line,) = [x for x in out.file.getvalue().splitlines() if x.startswith("Probabilities: NLL")]
    summary = result.metrics["arms"][0]["summary"]["network"]
    assert line.startswith(f"Probabilities: NLL {summary['nll']['mean']:.3f} with a temperature")
    assert f"({summary['uncalibrated']['nll']['mean']:.3f} without)" in line
    assert line.endswith(f"class base rates alone: NLL {summary['base_rate_nll']['mean']:.3f}.")


def test_data_frames_have_scores_without_temperatures():
    result, _, _ = made("left_out")
    assert {"uncalibrated_nll", "base_rate_nll", "block_accuracy"} <= set(result.summary)
    mine = result.folds[(result.folds["arm"] == "nested") & (result.folds["fold"] == "02")]
    fold = result.metrics["arms"][0]["folds"][1]["network"]["uncalibrated"]
    assert mine["uncalibrated_temperature"].iloc[0] == fold["temperature"]


def test_without_a_network_or_in_a_sweep():
    result, _, _ = hand_made.finished("classical")
    found = result.metrics["probabilities"]
    assert found["classifier"] == "1-NN" and "classical classifiers" in found["temperature"]
    assert probabilities.line(result.metrics).startswith("Probabilities: NLL ")
    cohort, arms = hand_made.sweep()
    arms = monitored(cohort, arms)
    metrics = summarised(cohort, arms)
    assert metrics["probabilities"]["arm"] == metrics["chosen_arm"]
    assert metrics["test"]["uncalibrated"] is None  # no monitored rows
    result = results.build(metrics, cohort, arms)
    assert set(result.predictions["arm"]) == {metrics["chosen_arm"]}


def test_an_older_result_has_no_section():
    old = dict(made("left_out")[0].metrics)
    del old["probabilities"]
    assert probabilities.section(old) is None and probabilities.line(old) == ""
    assert ">Probabilities</h2>" not in page.render(old, {}, {})
