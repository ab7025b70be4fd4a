"""Rows matched by run and class; what each regime may see of the scored subject; real fingers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_hyperalignment import cohort
from test_procrustes import close

from emojax import alignment, hyperalignment, procrustes
from emojax.errors import InputError
from emojax.provenance import PROTOCOLS


def design(runs=3, classes=4, repeats=2, v=5, seed=0):
    """Returns data, runs and labels of one subject, with rows in random order."""
    rng = np.random.default_rng(seed)
    run, label = (a.ravel() for a in np.indices((runs, classes, repeats))[:2])
    order = rng.permutation(run.size)
    x = rng.normal(100, 5, (run.size, v))
    return x[order], run[order] + 1, label[order]


def trained(noise=0.3, **options):
    """Returns a fit to four subjects, their data [4, 30, 8], and a fifth subject."""
    data = cohort(s=5, noise=noise)
    return hyperalignment.fit(data[:4], **options), data[:4], data[4]


def cell_means(subject, cells):
    x, run, label = subject
    return np.stack([x[(run == r) & (label == c)].mean(0) for r, c in cells])


def test_match_rows_averages_cells_in_ascending_order(x64):
    subjects = [
        design(runs=3, repeats=2, v=5),
        design(runs=4, repeats=1, v=7, seed=1),  # another design, length and width
        design(runs=3, repeats=3, v=6, seed=2),
    ]
    means, cells = alignment.match_rows(*zip(*subjects, strict=True))
    np.testing.assert_array_equal(cells, [(r, c) for r in (1, 2, 3) for c in range(4)])
    for got, subject in zip(means, subjects, strict=True):
        np.testing.assert_allclose(got, cell_means(subject, cells), rtol=1e-12)


def test_match_rows_reorders_designs_without_repeats():
    """A cell with a single row has that row as its average."""
    subjects = [design(repeats=1, seed=s) for s in range(2)]
    means, _ = alignment.match_rows(*zip(*subjects, strict=True))
    for got, (x, run, label) in zip(means, subjects, strict=True):
        np.testing.assert_array_equal(got, x[np.lexsort((label, run))].astype(np.float32))


def test_match_rows_drops_cells_that_a_subject_lacks(x64):
    x, run, label = design()
    there = ~((run == 2) & (label == 1))
    subjects = [design(seed=1), (x[there], run[there], label[there])]
    means, cells = alignment.match_rows(*zip(*subjects, strict=True))
    assert (2, 1) not in set(map(tuple, cells.tolist()))
    assert cells.shape == (11, 2) and [len(m) for m in means] == [11, 11]
    for got, subject in zip(means, subjects, strict=True):
        np.testing.assert_allclose(got, cell_means(subject, cells), rtol=1e-12)


def test_match_rows_is_traceable_in_the_data():
    x, run, label = (jnp.asarray(a) for a in design())

    def averages(x):
        return alignment.match_rows([x], [run], [label])[0][0]

    np.testing.assert_allclose(jax.jit(averages)(x), averages(x), rtol=1e-6)
    grad = jax.grad(lambda x: averages(x).sum())(x)
    np.testing.assert_allclose(grad, 0.5)  # two rows to a cell


def test_every_regime_has_a_function_of_its_name():
    assert tuple(alignment.REGIMES) == (
        *("group", "independent_runs", "transductive", "none"),
        "piecewise",
    )
    assert "group" in alignment.REGIMES and "groups" not in alignment.REGIMES
    assert all(callable(getattr(alignment, name)) for name in alignment.REGIMES)


def test_regimes_say_what_they_see_and_claim():
    regimes = dict(alignment.REGIMES)
    assert {name: r.protocol for name, r in regimes.items()} == {
        "group": "strict",
        "independent_runs": "calibrated",
        "transductive": "transductive",
        "none": "strict",
        "piecewise": "calibrated",
    }
    assert all(r.protocol in PROTOCOLS for r in regimes.values())
    assert [name for name, r in regimes.items() if not r.needs_template] == ["none"]
    own = ["independent_runs", "transductive", "piecewise"]
    assert [n for n, r in regimes.items() if r.own_map] == own
    for regime in regimes.values():
        assert regime.text.endswith(".") and "\n" not in regime.text
    for name in ("independent_runs", "transductive"):
        assert "labels" in regimes[name].text and "align.match=class" in regimes[name].text


def test_unknown_regimes_are_named_in_one_line():
    with pytest.raises(InputError, match=r"align\.regimes.*'grup'.*one of group, independent_runs"):
        alignment.REGIMES["grup"]
    with pytest.raises(InputError, match=r"align\.regimes.*nowhere"):
        alignment.REGIMES["nowhere.at_all:regime"]


@pytest.mark.parametrize("options", [{}, {"scaling": False}, {"demean": False}])
def test_group_is_one_rotation_of_all_training_rows(options, x64):
    model, data, new = trained(**options)
    got = alignment.group(model, data)
    assert got.rotation.shape == (8, 8) and got.scale.shape == ()
    source, target = data.reshape(-1, 8), np.tile(model.template, (4, 1))
    if options.get("demean", True):
        np.testing.assert_allclose(got.source_mean, source.mean(0), rtol=1e-12)
        source, target = source - source.mean(0), target - target.mean(0)
    u, s, vt = np.linalg.svd(source.T @ target)
    np.testing.assert_allclose(got.rotation, u @ vt, atol=1e-10)
    want = s.sum() / (source**2).sum() if options.get("scaling", True) else 1
    np.testing.assert_allclose(got.scale, want, rtol=1e-10)
    assert procrustes.transform(got, new).shape == new.shape


@pytest.mark.parametrize("method", ["svd", "polar"])
def test_group_keeps_to_the_options_of_the_fit(method, x64):
    rows = np.random.default_rng(0).normal(size=(30, 8))
    mirrored = rows * np.array([-1] + [1] * 7)
    for reflection, sign in [(True, -1), (False, 1)]:
        model = hyperalignment.fit(rows[None], reflection=reflection, method=method)
        rotation = alignment.group(model, np.stack([mirrored] * 2)).rotation
        np.testing.assert_allclose(np.linalg.det(rotation), sign, rtol=1e-9)


def test_group_finds_the_rotation_that_all_subjects_share(x64):
    rows, turn = np.random.default_rng(0).normal(size=(30, 8)), np.eye(8)[[2, 0, 1, 5, 3, 4, 7, 6]]
    model = hyperalignment.fit(np.stack([rows @ turn] * 4), zscore_common=False)
    got = alignment.group(model, np.stack([rows] * 4))
    np.testing.assert_allclose(got.rotation, turn, atol=1e-10)


@pytest.mark.parametrize("options", [{"zscore_all": True}, {"alpha": 0.5}, {"output_dim": 3}])
def test_group_refuses_models_with_more_than_a_rotation(options):
    data = cohort(s=1)
    model = hyperalignment.fit(data, **options)
    with pytest.raises(ValueError, match="without zscore_all, alpha < 1 or output_dim for one rot"):
        alignment.group(model, data)


def test_group_says_what_shape_it_wants():
    data = cohort(s=1)
    model = hyperalignment.fit(data)
    for bad in (data[:, :29], data[0]):
        with pytest.raises(ValueError, match=r"training \[s, 30, 8\] as the template; got \("):
            alignment.group(model, bad)


def test_independent_runs_recovers_a_new_subject_from_half_its_rows(x64):
    """Without noise, rows that the map has not seen land where the training subjects' rows do."""
    model, _, new = trained(noise=0.0, zscore_common=False)
    rows = np.arange(0, 30, 2)
    fitted = alignment.independent_runs(model, new[rows], rows)
    close(procrustes.transform(fitted, new), model.template, 1e-8)


def test_independent_runs_never_sees_the_scored_rows(x64):
    """The map from matched rows of the other runs is the same, bit by bit, whatever is scored."""
    subjects = [design(classes=10, repeats=1, v=8, seed=s) for s in range(5)]
    means, cells = alignment.match_rows(*zip(*subjects[:4], strict=True))
    model = hyperalignment.fit(means)
    x, run, label = subjects[4]

    def fitted(x, scored):
        other = run != scored
        (rows,), found = alignment.match_rows([x[other]], [run[other]], [label[other]])
        where = [cells.tolist().index(cell) for cell in found.tolist()]
        return alignment.independent_runs(model, rows, np.array(where))

    for scored in (1, 2, 3):
        spoilt = np.where((run == scored)[:, None], np.nan, x)
        same = jax.tree.map(np.array_equal, fitted(x, scored), fitted(spoilt, scored))
        assert all(jax.tree.leaves(same))
        spoilt = np.where((run == scored % 3 + 1)[:, None], 2 * x + 1, x)
        assert not np.allclose(fitted(x, scored).source_mean, fitted(spoilt, scored).source_mean)


def test_independent_runs_is_align_on_the_given_rows(x64):
    model, _, new = trained()
    rows = np.array([7, 3, 12, 20, 5, 6, 1, 0, 29])
    got = alignment.independent_runs(model, new[rows], rows)
    want = hyperalignment.align(model, new[None, rows], rows)[0]
    jax.tree.map(np.testing.assert_array_equal, got, want)
    by_hand = procrustes.fit(new[rows], model.template[rows])
    close(procrustes.transform(got, new), procrustes.transform(by_hand, new), 1e-10)


def test_transductive_is_align_on_all_rows(x64):
    model, data, new = trained()
    got = alignment.transductive(model, new)
    jax.tree.map(np.testing.assert_array_equal, got, hyperalignment.align(model, new[None])[0])
    by_hand = procrustes.fit(new, model.template)
    close(procrustes.transform(got, new), procrustes.transform(by_hand, new), 1e-10)
    again = alignment.transductive(model, data[2])  # a training subject gets its own map again
    jax.tree.map(lambda a, b: close(a, b, 1e-10), again, model.mappings[2])


def test_none_leaves_rows_as_they_are(dtype):
    x = np.random.default_rng(0).normal(1e3, 1, (5, 7)).astype(dtype)
    fitted = alignment.none(7, dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(fitted)} == {dtype}
    np.testing.assert_array_equal(procrustes.transform(fitted, x), x)
    np.testing.assert_array_equal(procrustes.inverse(fitted, x), x)


def test_regimes_under_jit_and_vmap_equal_a_loop(x64):
    model, data, _ = trained()
    rows = np.arange(0, 30, 2)
    close(
        jax.jit(alignment.group)(model, data).rotation, alignment.group(model, data).rotation, 1e-9
    )
    independent = jax.jit(
        jax.vmap(lambda x: alignment.independent_runs(model, x, rows)),
    )(data[:, ::2])
    transductive = jax.vmap(lambda x: alignment.transductive(model, x))(data)
    for i, x in enumerate(data):
        want = alignment.independent_runs(model, x[rows], rows)
        jax.tree.map(lambda a, b: close(a, b, 1e-9), independent[i], want)
        want = alignment.transductive(model, x)
        jax.tree.map(lambda a, b: close(a, b, 1e-9), transductive[i], want)


def test_maps_of_subjects_say_what_is_wrong(x64):
    model, _, new = trained()
    with pytest.raises(ValueError, match="want data with 10 rows, as the template; got 9"):
        alignment.independent_runs(model, new[:9], np.arange(10))
    with pytest.raises(ValueError, match=r"want rows in \[0, 30\); got 21 to 30"):
        alignment.independent_runs(model, new[:10], np.arange(21, 31))
    with pytest.raises(ValueError, match="want data with 30 rows, as the template; got 29"):
        alignment.transductive(model, new[:29])
    new[2, 3] = np.nan
    with pytest.raises(ValueError, match="want finite data"):
        alignment.transductive(model, new)


def test_match_rows_says_what_is_wrong():
    x, run, label = design()
    with pytest.raises(ValueError, match="same >= 1 subjects; got 2, 1, 1"):
        alignment.match_rows([x, x], [run], [label])
    with pytest.raises(ValueError, match="same >= 1 subjects; got 0, 0, 0"):
        alignment.match_rows([], [], [])
    with pytest.raises(
        ValueError,
        match=r"want data\[1\] \[t, v\], runs and labels \[t\]; got \(23, 5\), \(24,\), \(24,\)",
    ):
        alignment.match_rows([x, x[1:]], [run] * 2, [label] * 2)
    with pytest.raises(ValueError, match=r"want data\[0\] \[t, v\], .*; got \(24,\), \(24,\)"):
        alignment.match_rows([x[:, 0]], [run], [label])
    with pytest.raises(ValueError, match=r"no \(run, class\) cell occurs in all 2 subjects"):
        alignment.match_rows([x, x], [run, run + 10], [label] * 2)
    x[4, 2] = np.nan
    with pytest.raises(ValueError, match=r"want finite data\[0\]; got 1 NaN .* first at \(4, 2\)"):
        alignment.match_rows([x], [run], [label])


def test_columns_of_zeros_change_no_mapped_row(x64):
    """Subjects of unequal widths may be padded to one shape: it compiles once, not per subject."""
    known, new = cohort(s=2, n=8, widths=[14, 11])
    wide = np.pad(new, ((0, 0), (0, 3)))
    model = hyperalignment.fit(known[None])
    want = procrustes.transform(alignment.transductive(model, new), new)
    close(procrustes.transform(alignment.transductive(model, wide), wide), want, 1e-9)


def fingers(shared):
    """Returns seven subjects, padded: rows minus their run's mean, runs, fingers."""
    files = [np.load(shared(f"data/finger7t/sub-0{i}.npz")) for i in range(1, 8)]
    widest = max(z["x"].shape[1] for z in files)
    subjects = []
    for z in files:
        x, run = z["x"].astype(np.float32), z["run"]
        for r in np.unique(run):
            x[run == r] -= x[run == r].mean(0)
        subjects.append((np.pad(x, ((0, 0), (0, widest - x.shape[1]))), run, z["y"]))
    return subjects, min(z["x"].shape[1] for z in files)


def nearest_mean(x, y, new):
    """Classifies by the correlation with the training means of the classes: linear, no settings."""
    means = np.stack([x[y == c].mean(0) for c in np.unique(y)])
    means -= means.mean(1, keepdims=True)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return (np.asarray(new) @ means.T).argmax(1)


def leave_out(subjects, test):
    training = [s for i, s in enumerate(subjects) if i != test]
    return training, np.concatenate([y for _, _, y in training]), subjects[test]


@pytest.mark.slow
def test_fingers_of_a_new_subject_are_decoded_after_alignment_only(shared):
    """The scored run is never seen: the subject's map comes from its other runs."""
    subjects, narrowest = fingers(shared)
    unaligned, aligned = [], []
    for test in range(7):
        training, y, (x, run, label) = leave_out(subjects, test)
        raw = np.concatenate([x[:, :narrowest] for x, _, _ in training])
        unaligned.append((nearest_mean(raw, y, x[:, :narrowest]) == label).mean())
        means, cells = alignment.match_rows(*zip(*training, strict=True))
        model = hyperalignment.fit(means)
        maps = model.mappings
        moved = hyperalignment.transform(list(maps), [x for x, _, _ in training])
        common = np.concatenate(moved)
        hits = []
        for scored in np.unique(run):
            other = run != scored
            (rows,), found = alignment.match_rows([x[other]], [run[other]], [label[other]])
            where = {cell: i for i, cell in enumerate(map(tuple, cells.tolist()))}
            pairs = [(i, where[c]) for i, c in enumerate(map(tuple, found.tolist())) if c in where]
            keep, template_rows = np.array(pairs).T
            fitted = alignment.independent_runs(model, rows[keep], template_rows)
            predicted = nearest_mean(common, y, procrustes.transform(fitted, x[~other]))
            hits.extend(predicted == label[~other])
        aligned.append(np.mean(hits))
    assert np.mean(unaligned) < 0.35  # five fingers: chance is .2
    assert np.mean(aligned) >= 0.80
