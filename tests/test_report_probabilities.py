"""Probabilities in metrics.json, report, terminal and probabilities.csv."""

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
            got = scored["network"]["calibrated"]
            assert got == scores.calibrated(labels, outcome[pick], want)
            alone = scores.scores(labels, outcome[pick])
            assert {name: scored["network"][name] for name in alone} == alone


def test_other_numbers_are_as_without_temperatures():
    result, cohort, found = made("left_out")
    other = summarised(cohort, found, temperature=False)
    for arm, plain in zip(result.metrics["arms"], other["arms"], strict=True):
        assert not any(fold["network"]["calibrated"] for fold in plain["folds"])
        assert "calibrated" not in plain["summary"]["network"]
        rest = {k: v for k, v in arm["summary"]["network"].items() if k != "calibrated"}
        assert rest == plain["summary"]["network"]
    assert "temperature=False" in other["probabilities"]["temperature"]
    assert list(other["probabilities"]["reliability"]) == ["given"]


def test_leaky_arms_have_no_temperature_and_the_report_says_why():
    metrics = made("left_out")[0].metrics
    for arm in metrics["arms"]:
        has = [fold["network"]["calibrated"] is not None for fold in arm["folds"]]
        assert has == [arm["strict"]] * 4
        assert ("calibrated" in arm["summary"]["network"]) == arm["strict"]
    said = metrics["probabilities"]["temperature"]
    assert "(other subjects)" in said and "leaky by name" in said and "(paper; " in said
    _, cohort, found = made("left_out")
    alone = summarised(cohort, found[2:3])["probabilities"]
    assert "paper is leaky by name: its monitored volumes may be" in alone["temperature"]


def test_missing_or_broken_predictions_of_monitored_rows_give_no_temperature():
    _, cohort, found = made("left_out")
    fold = found[0].folds[0]
    nans = np.full_like(fold.outcomes[0]["monitored_best"], np.nan)
    broken = fold._replace(outcomes=(fold.outcomes[0] | {"monitored_best": nans},))
    metrics = summarised(cohort, [found[0]._replace(folds=(broken, *found[0].folds[1:]))])
    arm = metrics["arms"][0]
    assert arm["folds"][0]["network"]["calibrated"] is None and "calibrated" not in arm["summary"]
    assert arm["folds"][1]["network"]["calibrated"] and "missing" in str(metrics["probabilities"])
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
    assert len(right) == 12  # of four volumes each
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
    assert "of blocks" not in table.header and "NLL" in table.header


def test_several_instances_have_a_temperature_each():
    result, _, _ = made("by_split")
    fold = arm_of(result.metrics, "by_run")["folds"][0]
    own = [row["calibrated"]["nll"] for row in fold["instances"]]
    assert len(own) == 2 and fold["network"]["calibrated"]["nll"] == pytest.approx(np.mean(own))
    assert arm_of(result.metrics, "random")["folds"][0]["network"]["calibrated"] is None
    assert "calibrated" in arm_of(result.metrics, "by_run on noise")["summary"]["network"]


def test_reliability_of_all_scored_volumes():
    result, cohort, found = made("left_out")
    bins = result.metrics["probabilities"]["reliability"]
    p = np.concatenate([fold.outcomes[0]["best"] for fold in found[0].folds])
    labels = np.concatenate([cohort.labels[fold.fold.test] for fold in found[0].folds])
    want = measures.reliability(labels, p)
    assert bins["given"]["count"] == want.count.tolist() and sum(bins["given"]["count"]) == 192
    got = np.array(bins["given"]["accuracy"], float)
    np.testing.assert_array_equal(got, want.accuracy)
    assert sum(bins["calibrated"]["count"]) == 192 and bins["calibrated"] != bins["given"]
    pooled = result.metrics["probabilities"]["pooled"]
    alone = scores.scores(labels, p)
    assert pooled["given"] == {name: alone[name] for name in ("nll", "brier", "ece")}
    assert pooled["calibrated"].keys() == pooled["given"].keys()


@pytest.mark.parametrize("kind", ["left_out", "by_split"])
def test_a_row_per_scored_volume_and_method(kind, tmp_path):
    result, cohort, found = made(kind)
    result.save(tmp_path)
    text = (tmp_path / "probabilities.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    first = ["subject", "run", "frame", "time", "method", "label", "predicted"]
    assert list(rows[0])[:10] == [*first, "p_rest", "p_neutral", "p_negative"]
    methods = {
        "left_out": ["network", "network-calibrated", "LDA", "nuisance-only-logistic"],
        "by_split": [
            *("network-1", "network-calibrated-1", "network-2", "network-calibrated-2"),
            *("1-NN", "RF"),
        ],
    }[kind]
    scored = sum(len(fold.fold.test) for fold in found[0].folds)
    assert [*dict.fromkeys(row["method"] for row in rows)] == methods
    assert len(rows) == scored * len(methods) and "nan" not in text.lower()
    table = result.probabilities
    head = result.metrics["arms"][0]
    for fold in head["folds"]:
        mine = table[table["fold"] == fold["test"]]
        for method, network in (
            (methods[0], (fold["instances"] or [fold["network"]])[0]),
            (methods[1], (fold["instances"] or [fold["network"]])[0]["calibrated"]),
        ):
            one = mine[mine["method"] == method]
            p = one[["p_rest", "p_neutral", "p_negative"]].to_numpy()
            labels = np.array([cohort.classes.index(name) for name in one["label"]])
            assert float(measures.nll(labels, p)) == pytest.approx(network["nll"], rel=1e-5)
            assert (np.array(cohort.classes)[p.argmax(1)] == one["predicted"]).all()
    again = Result.load(tmp_path)
    pd.testing.assert_frame_equal(again.probabilities, table, check_dtype=False, rtol=1e-5)
    before = (tmp_path / "probabilities.csv").read_bytes()
    result.save(tmp_path)
    assert (tmp_path / "probabilities.csv").read_bytes() == before


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
    with (tmp_path / "probabilities.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["method"] != "network"]
    assert {row["method"] for row in rows} == {"my.nets-one", "my.nets-one-2"}
    assert {row["p_rest"] for row in rows} == {""} and {r["predicted"] for r in rows} == {"rest"}
    loaded = Result.load(tmp_path).probabilities
    assert loaded["p_rest"].isna().sum() == len(rows)


def test_names_of_classes_break_no_header(tmp_path):
    names = ("a,b", "c:d", "e")
    cohort, found = hand_made.left_out(hand_made.make_cohort(classes=names))
    metrics = summarised(cohort, found)
    result = results.build(metrics, cohort, found, extras=hand_made.EXTRAS)
    assert list(result.probabilities)[7:10] == ["p_a-b", "p_c-d", "p_e"]
    result.save(tmp_path)
    assert Result.load(tmp_path).probabilities["label"].tolist()[0] in names


def test_the_report_has_a_section():
    result, _, _ = made("left_out")
    table = probabilities.table(result.metrics)
    lines = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    summary = result.metrics["arms"][0]["summary"]["network"]
    low, high = summary["calibrated"]["nll"]["ci95"]
    scaled = lines["nested, with temperature"]
    assert scaled["NLL"] == f"{summary['calibrated']['nll']['mean']:.3f}"
    assert scaled["95 % interval"] == f"{low:.3f} - {high:.3f}"
    assert lines["nested"]["NLL"] == f"{summary['nll']['mean']:.3f}" and "paper" in lines
    assert lines["class base rates"]["NLL"] == f"{summary['base_rate_nll']['mean']:.3f}"
    assert "paper, with temperature" not in lines and "noise floor" not in lines
    assert lines["LDA"]["of blocks"] and "borders are taken from the labels" in table.note
    image = {"reliability": b"png", "accuracy": b"png"}
    text = page.render(result.metrics, image, result.captions)
    assert text.count('id="reliability"') == 1 == text.count("<h2>Probabilities</h2>")
    assert text.index('id="reliability"') < text.index("<h2>Figures</h2>")
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
    assert f"({summary['nll']['mean']:.3f} without)" in line
    assert line.endswith(f"class base rates: {summary['base_rate_nll']['mean']:.3f}.")


def test_data_frames_have_scores_with_a_temperature():
    result, _, _ = made("left_out")
    assert {"calibrated_nll", "base_rate_nll", "block_accuracy"} <= set(result.summary)
    mine = result.folds[(result.folds["arm"] == "nested") & (result.folds["fold"] == "02")]
    fold = result.metrics["arms"][0]["folds"][1]["network"]["calibrated"]
    assert mine["calibrated_temperature"].iloc[0] == fold["temperature"]


def test_without_a_network_or_in_a_sweep():
    result, _, _ = hand_made.finished("classical")
    found = result.metrics["probabilities"]
    assert found["classifier"] == "1-NN" and "classical classifiers" in found["temperature"]
    assert probabilities.line(result.metrics).startswith("Probabilities: NLL ")
    cohort, arms = hand_made.sweep()
    arms = monitored(cohort, arms)
    metrics = summarised(cohort, arms)
    assert metrics["probabilities"]["arm"] == metrics["chosen_arm"]
    assert metrics["test"]["calibrated"] is None  # no monitored rows
    result = results.build(metrics, cohort, arms)
    assert set(result.probabilities["method"]) == {"network"}


def test_an_older_result_has_no_section():
    old = dict(made("left_out")[0].metrics)
    del old["probabilities"]
    assert probabilities.section(old) is None and probabilities.line(old) == ""
    assert "<h2>Probabilities</h2>" not in page.render(old, {}, {})
