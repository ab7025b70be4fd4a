"""The report's p values: the headline against chance, and Holm's correction of each family."""

import copy
import dataclasses
import io

import hand_made
import numpy as np
import pytest
import rich.console

from emojax import statistics
from emojax.records import ArmResult
from emojax.report import console, page, permutations, results, tables

FOUND = {
    "arm": "nested",
    "classifier": "LDA",
    "p": 0.02,
    "observed": 0.71,
    "null": np.linspace(0.25, 0.4, 99).tolist(),
    "scheme": "blocks within runs, one order for all subjects",
    "blocks": 12,
    "least_p": 0.01,
}


def result_of(**changes):
    """Returns the result of an experiment whose headline was tested."""
    result, cohort, found = hand_made.finished("left_out")
    metrics = copy.deepcopy(result.metrics) | {"permutation": FOUND | changes}
    return results.build(metrics, cohort, found, extras=hand_made.EXTRAS)


def cell(table, row, column):
    (line,) = (line for line in table.rows if line[0] == row)
    return line[table.header.index(column)]


def test_the_headline_has_its_p_in_metrics_table_and_figure():
    result = result_of()
    assert result.metrics["arms"][0]["p_chance"] == 0.02
    assert [arm["p_chance"] for arm in result.metrics["arms"][1:]] == [None] * 7
    table = tables.main(result.metrics)
    assert cell(table, "LDA", "p (chance)") == "0.020"  # its row, not that of the network
    assert cell(table, "nested", "p (chance)") == "" == cell(table, "paper", "p (chance)")
    assert "p (chance): permutation test" in table.note
    assert "p = 0.020" in result.captions["permutation"] and "permutation" in result.figures
    bars = result.figures["permutation"].axes[0].patches
    assert sum(bar.get_height() for bar in bars) == 99


def test_the_page_has_a_section_and_its_figure_once(tmp_path):
    result = result_of()
    images = {name: b"png" for name in result.figures}
    text = page.render(result.metrics, images, result.captions)
    assert ">Permutation test</h2>" in text and text.count('id="permutation"') == 1
    assert text.index("Permutation test<") < text.index(">Figures</h2>")
    assert "balanced accuracy 0.710, mean of the null 0.325" in text
    untested, _, _ = hand_made.finished("left_out")
    assert ">Permutation test</h2>" not in page.render(untested.metrics, {}, {})
    assert "permutation" not in untested.figures and permutations.line(untested.metrics) == ""
    assert "p (chance)" not in tables.main(untested.metrics).header
    result.save(tmp_path)
    assert (tmp_path / "figures" / "permutation.png").stat().st_size > 1000


def test_a_sentence_says_what_p_cannot_say():
    assert "No smaller p" not in permutations.line(result_of().metrics)
    least = permutations.line(result_of(p=0.01).metrics)
    assert least.endswith("No smaller p is possible with 99 permutations.")
    locked = permutations.line(result_of(null=np.linspace(0.4, 0.5, 99).tolist()).metrics)
    assert "above chance (0.333)" in locked
    assert permutations.number(0.00012) == "0.0001" and permutations.number(0.25) == "0.250"


def with_a_bag():
    """Returns a result whose headline is a bag, with the logistic row that shares its features."""
    cohort, found = hand_made.left_out(skills={"bag": 2.0, "logistic": 1.8})
    network = found[0]._replace(folds=tuple(f._replace(baselines={}) for f in found[0].folds))
    rows = []
    for name, decoder, shares in (("bag", "bag", ""), ("logistic n-1", "logistic", "bag")):
        arm = dataclasses.replace(found[0].arm, name=name, decoder=decoder, shares=shares)
        folds = [
            f._replace(outcomes=(), baselines={decoder: f.baselines[decoder]})
            for f in found[0].folds
        ]
        rows.append(ArmResult(arm, found[0].protocol, tuple(folds)))
    return cohort, [*rows, network]


@pytest.mark.parametrize(
    ("classifier", "row"), [("logistic", "logistic n-1"), ("bag", "bag"), ("RF", None)]
)
def test_p_stands_in_the_row_of_the_classifier_that_was_permuted(classifier, row):
    cohort, found = with_a_bag()
    metrics = results.summarise("A", hand_made.CONFIG, cohort, found)
    metrics["permutation"] = FOUND | {"arm": "bag", "classifier": classifier}
    result = results.build(metrics, cohort, found, extras=hand_made.EXTRAS)
    have = {arm["name"]: arm["p_chance"] for arm in metrics["arms"]}
    assert have == {"bag": None, "logistic n-1": None, "nested": None} | (
        {row: 0.02} if row else {}
    )
    said = permutations.line(result.metrics)
    assert said.startswith(f"Permutation test of {row or 'bag: RF'}: p = 0.020")
    assert ("uses the features of bag" in said) == (row == "logistic n-1")
    if row:
        table = tables.main(result.metrics)
        assert {line[0] for line in table.rows if line[table.header.index("p (chance)")]} == {row}


def test_few_orders_and_none_are_said():
    few = permutations.line(result_of(null=[0.3] * 5, all=True, least_p=1 / 6).metrics)
    assert few.endswith("These are all permutations, so p cannot be below 0.167.")
    result, cohort, found = hand_made.finished("left_out")
    metrics = copy.deepcopy(result.metrics) | {"permutation": {"left out": "no other order"}}
    metrics["notes"] = ["before"]
    built = results.build(metrics, cohort, found, extras=hand_made.EXTRAS)
    said = "The headline was not tested against chance: no other order."
    assert built.metrics["notes"] == ["before", said] and built.metrics["permutation"] is None
    assert said in page.render(built.metrics, {}, {})


def test_the_console_says_both():
    out = rich.console.Console(width=200, file=io.StringIO())
    console.print_table(result_of(), out)
    text = out.file.getvalue()
    assert "Permutation test of nested: LDA: p = 0.020" in text.replace("\n", " ")
    holm = "p corrected for 2 tests (Holm): LDA 1.000, nuisance only (logistic) 0.250."
    assert holm in text


@pytest.mark.parametrize("kind", ["left_out", "by_split"])
def test_every_p_of_the_table_is_corrected_in_one_family(kind):
    result, _, _ = hand_made.finished(kind)
    entries = [e for arm in result.metrics["arms"] for e in arm["summary"]["baselines"].values()]
    tests = [entry["network_minus_it"] for entry in entries]
    want = statistics.holm(np.array([test["p"] for test in tests]))
    np.testing.assert_allclose([test["p_holm"] for test in tests], want)
    table = tables.main(result.metrics)
    column = [row[table.header.index("p (Holm)")] for row in table.rows]
    assert sorted(filter(None, column)) == sorted(f"{p:.3f}" for p in want)
    assert f"corrected for the {len(tests)} tests" in table.note


def test_families_without_tests():
    result, _, _ = hand_made.finished("classical")
    table = tables.main(result.metrics)
    assert "p (Holm)" not in table.header and "Holm" not in table.note
    family = [{"p": 0.04}, None, {"p": None}, {"p": 0.01}]
    permutations.correct(family)
    assert family == [
        {"p": 0.04, "p_holm": 0.04},
        None,
        {"p": None, "p_holm": None},
        {"p": 0.01, "p_holm": 0.02},
    ]
    permutations.correct([])


def test_analyses_are_families_of_their_own():
    result, _, _ = hand_made.finished("left_out")
    crossed = {
        "stimulus": {"SVM": {"p": 0.01}, "logistic": {"p": 0.03}},
        "run": {"left out": "one run"},
        "study": {"SVM": {"p": None}},
    }
    rivals = {"LDA": {"minus_cross_subject": {"p": 0.2}}, "logistic": {"minus_cross_subject": None}}
    metrics = copy.deepcopy(result.metrics) | {"crossed": crossed, "within_subject": rivals}
    permutations.complete(metrics)
    assert crossed["stimulus"] == {
        "SVM": {"p": 0.01, "p_holm": 0.02},
        "logistic": {"p": 0.03, "p_holm": 0.03},
    }
    assert crossed["study"]["SVM"]["p_holm"] is None and crossed["run"] == {"left out": "one run"}
    assert rivals["LDA"]["minus_cross_subject"] == {"p": 0.2, "p_holm": 0.2}


def test_results_of_before_have_no_corrected_p():
    result, _, _ = hand_made.finished("left_out")
    old = copy.deepcopy(result.metrics)
    for arm in old["arms"]:
        for entry in arm["summary"]["baselines"].values():
            del entry["network_minus_it"]["p_holm"]
    text = dataclasses.replace(result, metrics=old)._repr_html_()
    assert "p (Holm)" not in text.split("</table>")[0]
