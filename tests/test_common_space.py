"""The common space: rows find their place in the template, and each unit its way in."""

import numpy as np
import pytest
from small_studies import NAMES, PER_RUN, ROWS, make_cohort, make_values, read

from emojax import hyperalignment, procrustes, splits
from emojax.features import common_space
from emojax.features.across_subjects import Settings
from emojax.provenance import Ledger

pytestmark = pytest.mark.usefixtures("quick_compile")

VALUES, Y = make_values()
VIEW = read(make_cohort(VALUES, Y))
FOLD, *_ = splits.leave_one_out(VIEW.units)
COLUMNS = np.arange(8)
SETTINGS = Settings(8, 3, "independent_runs")


def fit(ledger, settings=SETTINGS, everybody=False):
    team = common_space.team_of(ledger, FOLD)
    chosen = {name: VIEW.volumes[team.rows[name]][:, COLUMNS] for name in team.train}
    return team, chosen, common_space.fit(ledger, team, chosen, settings, everybody)


def test_a_team_is_the_units_of_a_fold():
    team = common_space.team_of(Ledger(VIEW), FOLD)
    assert (team.train, team.monitor, team.test) == (("c", "d", "e"), "b", "a")
    assert sorted(team.rows) == list(NAMES)
    for name, rows in team.rows.items():
        np.testing.assert_array_equal(rows, VIEW.rows(name))


def test_units_of_the_template_have_a_map_of_their_own():
    _, chosen, space = fit(Ledger(VIEW))
    assert space.everyones is None and list(space.maps) == ["c", "d", "e"]
    assert space.keys.tolist() == [[*divmod(row, PER_RUN)] for row in range(ROWS)]
    before, after = (
        np.mean([np.corrcoef(a[:, 0], b[:, 0])[0, 1] for a in x for b in x if a is not b])
        for x in (
            list(chosen.values()),
            [common_space.transform(space.maps[name], x) for name, x in chosen.items()],
        )
    )
    assert after > before + 0.3


def test_the_group_has_one_map_unless_everybody_is_in_the_template():
    group = SETTINGS._replace(regime="group")
    _, _, space = fit(Ledger(VIEW), group)
    assert all(mapping is space.everyones for mapping in space.maps.values())
    _, _, leaky = fit(Ledger(VIEW), group, everybody=True)
    assert leaky.everyones is None
    assert leaky.maps["c"] is not leaky.maps["d"]


def test_rows_matched_by_class_are_means_of_each_run_and_class():
    ledger = Ledger(VIEW)
    _, chosen, space = fit(ledger, SETTINGS._replace(match="class"))
    assert space.keys.tolist() == [[run, k] for run in range(2) for k in range(3)]
    assert space.model.template.shape == (6, 8)
    labels = ledger.shared.steps["alignment"].labels
    np.testing.assert_array_equal(np.flatnonzero(labels), FOLD.train)
    rows, _ = common_space._match(
        ledger, common_space.team_of(ledger, FOLD), chosen, SETTINGS._replace(match="class")
    )
    want = chosen["c"][:PER_RUN][Y[:PER_RUN] == 1].mean(0)
    np.testing.assert_allclose(rows[0][1], want, rtol=1e-5)


def test_a_run_finds_its_rows_in_the_template_by_run_and_place():
    keys = np.array([[0, 4], [0, 5], [1, 4], [1, 6]])
    own = np.array([[1, 4], [0, 4], [1, 6], [1, 5], [2, 4]])
    assert common_space._places(own, keys).tolist() == [2, 0, 3, -1, -1]


def test_the_map_of_a_run_depends_on_the_other_runs_only():
    ledger = Ledger(VIEW)
    team, _, space = fit(ledger)
    mine = VIEW.rows("a")
    others = mine[VIEW.run[mine] == 0]
    part = ledger.scoring(mine[VIEW.run[mine] == 1])
    mapping = common_space.own_map(part, team, others, COLUMNS, space, SETTINGS)
    found = next(seen for rows, seen in part.seen(FOLD.test) if mine[-1] in rows)
    values = found.steps["alignment"].values
    np.testing.assert_array_equal(np.flatnonzero(values), others)
    want = hyperalignment.align(space.model, VIEW.volumes[others][:, COLUMNS][None], np.arange(24))
    x = VIEW.volumes[mine][:, COLUMNS]
    np.testing.assert_array_equal(
        common_space.transform(mapping, x), procrustes.transform(want[0], x)
    )


def test_maps_means_and_nothing_are_applied():
    x = np.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(common_space.transform(None, x), x)
    np.testing.assert_array_equal(common_space.transform(x.mean(0), x), x - x.mean(0))
