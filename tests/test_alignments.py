"""Ways of aligning subjects side by side: rows, tests, audit, and what the page says of them."""

import dataclasses

import numpy as np
import pytest
from small_studies import make_cohort, make_values, read

from emojax.data.cohort import Prior
from emojax.errors import InputError
from emojax.experiments import alignments, analyses, experiment_a, settings
from emojax.report import alignments as words
from emojax.report import permutations

A = experiment_a.EXPERIMENT
NAMES = "none,group,independent_runs"


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """Fits classical classifiers in this process."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(*make_values(), tr=2.0)


@pytest.fixture
def small(config):
    """Returns settings of Experiment A for small vectors."""
    config.voxels.keep, config.balance, config.headline = 10, 6, "network"
    config.update({"protocols": "nested", "baselines": "", "alignments": NAMES})
    config.update({"permutations": 3, "permute": "logistic"})
    config.align.regimes, config.noise.draws = "none", 2
    return config


def compare(config, cohort):
    ticks = []
    view, arm = read(cohort), experiment_a.arms(config, cohort)[0]
    found = alignments.analyse(A, config, view, arm, [], ticks.append)
    return found, ticks


def test_each_way_has_a_row_with_its_tests_and_its_audit(small, cohort):
    found, ticks = compare(small, cohort)
    rows = found["rows"]
    assert found["classifier"] == "logistic" and ",".join(rows) == NAMES
    assert len(ticks) == analyses._steps("alignments", small, 0) == 3 * 3 + 2
    for name, row in rows.items():
        assert row["mean"] == pytest.approx(np.mean(row["folds"]), abs=1e-6)
        assert row["ci95"][0] < row["mean"] < row["ci95"][1] or row["ci95"][1] == 1
        assert row["null"]["draws"] == 3 and 0.25 <= row["p"] <= 1
        assert len(row["floor"]["draws"]) == 2 and row["floor"]["audited"]
        assert row["audited"] and (row["minus_first"] is None) == (name == "none")
    assert rows["group"]["protocol"] == "strict"
    assert rows["independent_runs"]["protocol"] == "calibrated"
    gain = rows["group"]["minus_first"]["difference"]
    assert gain == pytest.approx(rows["group"]["mean"] - rows["none"]["mean"], abs=1e-6)


def test_a_row_is_what_a_run_with_this_regime_scores(small, cohort):
    """The table uses the same classifier as the main table."""
    small.update({"permutations": 0, "null_floor": False, "audit": False})
    rows = compare(small, cohort)[0]["rows"]
    small.align.regimes = "independent_runs"
    own, _ = compare(small, cohort)
    assert own["rows"] == rows
    row = rows["independent_runs"]
    assert row["null"] is None and row["p"] is None and row["floor"] is None


def test_rows_say_what_was_seen_before_the_data_were_read(small, cohort):
    """Maps that were centred by all of a person's are transductive, whatever aligns them."""
    small.update({"permutations": 0, "null_floor": False, "audit": False})
    centred = dataclasses.replace(cohort, prior=(Prior("centring"),))
    rows = compare(small, centred)[0]["rows"]
    assert {row["protocol"] for row in rows.values()} == {"transductive"}


def test_nothing_is_compared_where_nothing_is_asked(small, cohort):
    small.alignments = ""
    assert compare(small, cohort) == (None, [])


@pytest.mark.parametrize("name", ["hyper", "group:ridge", "piecewise:", "none,none"])
def test_an_unknown_way_is_refused_before_data_is_read(small, name):
    small.alignments = name
    with pytest.raises(InputError, match="alignments"):
        settings.check(small)


def test_a_network_cannot_be_the_classifier(small):
    small.permute = "network"
    with pytest.raises(InputError, match="a classical classifier"):
        alignments.check(small)


def test_the_page_says_which_way_differs(small, cohort):
    small.permutations = 3
    found, _ = compare(small, cohort)
    metrics = {"alignments": found, "chance": 1 / 3, "notes": [], "arms": []}
    permutations.complete(metrics)
    said, table = words.section(metrics).values()
    assert "group minus none: " in said and said.count("(Holm)") == 2
    assert [row[0] for row in table.rows] == NAMES.split(
        ","
    ) and "Every row was audited" in table.note
    assert {len(row) for row in table.rows} == {len(table.header)}
    tests = [row["minus_first"] for row in found["rows"].values() if row["minus_first"]]
    assert all(test["p_holm"] >= test["p"] for test in tests)
    assert words.section({"alignments": None}) is None


def test_the_page_counts_parcels():
    one = {"parcels": 50, "parcels of one voxel": 2, "voxels": 200, "background": 0}
    two = one | {"parcels of one voxel": 4, "without signal": 1}
    folds = [{"parcels": one | {"without signal": 0}}, {"parcels": two}]
    found = {"rows": {"none": {"parcels": []}, "piecewise": {"parcels": [two]}}}
    metrics = {"arms": [{"name": "nested", "folds": folds}], "alignments": found}
    first, second = words.parcels(metrics)
    assert first == (
        "nested: aligned in 50 parcels per fold (2 to 4 of one voxel); of 200 voxels, 0 belong to "
        "no parcel and 0 to 1 to parcels without signal; these were left unaligned."
    )
    assert second.startswith("piecewise: aligned in 50 parcels per fold (4 of one voxel)")
    assert words.parcels({"arms": [{"name": "bag", "folds": [{}]}]}) == []
