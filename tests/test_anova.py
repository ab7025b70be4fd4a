"""F-scores against scikit-learn in float64; streaming, sharding, and the laws of any F test."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_selection import f_classif

from emojax import anova
from emojax._numerics import sums

CLASSES = 4
PATHS = {"streamed": np.asarray, "one shot": jnp.asarray}  # the type of x chooses the path
CONSTANTS = np.array([0.0, 0.1, 1e4 + 0.1])


def make_data(n=48, v=30, mean=0.0, sd=1.0, seed=0, dtype=np.float64):
    """Returns noise of mean 0.6 to 1.4 times `mean`; five voxels differ by class."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % CLASSES
    x = rng.normal(size=(n, v))
    x[:, :5] += y[:, None] * np.linspace(0.2, 1, 5)
    return (mean * np.linspace(0.6, 1.4, v) + sd * x).astype(dtype), y


def want_of(x, y):
    """Returns sklearn's F and p in double precision of x as it is, rounded to single or not."""
    x = np.asarray(x, np.float64)
    return f_classif(x - x[0], y)  # its sums of squares are those of uncentred data


def streamed(x, y, sizes, classes=CLASSES):
    """Returns the state after chunks of the given sizes."""
    state = anova.init(x.shape[1], classes, x.dtype)
    for end, size in zip(np.cumsum(sizes), sizes, strict=True):
        state = anova.update(state, x[end - size : end], y[end - size : end])
    return state


def fold_chunks(chunks, rng):
    """Merges states pairwise, in an order and a grouping drawn at random."""
    chunks = list(chunks)
    while len(chunks) > 1:
        a, b = rng.choice(len(chunks), 2, replace=False)
        merged = anova.merge(chunks[a], chunks[b])
        chunks = [c for i, c in enumerate(chunks) if i not in (a, b)] + [merged]
    return chunks[0]


def unstacked(states):
    """Returns the states along the leading axis of every leaf."""
    return [anova.AnovaState(*leaves) for leaves in zip(*states, strict=True)]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("n", [9, 48])
def test_matches_sklearn(path, n, dtype):
    x, y = make_data(n, dtype=dtype)
    f, p = want_of(x, y)
    got = anova.f_test(PATHS[path](x), y, CLASSES)
    rtol = 1e-10 if dtype == np.float64 else 2e-4
    assert got.f.dtype == got.p.dtype == dtype
    np.testing.assert_allclose(got.f, f, rtol=rtol)
    np.testing.assert_allclose(got.p, p, rtol=10 * rtol, atol=1e-15)
    np.testing.assert_allclose(got.p, scipy.stats.f.sf(f, 3, n - 4), rtol=10 * rtol, atol=1e-15)
    assert (got.df_between, got.df_within) == (3, n - 4)
    np.testing.assert_array_equal(anova.f_scores(PATHS[path](x), y, CLASSES), got.f)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("n", [48, 1200])
def test_float32_keeps_its_digits_in_scanner_units(path, n):
    x, y = make_data(n, mean=1e4, sd=50, dtype=np.float32)
    got = anova.f_scores(PATHS[path](x), y, CLASSES)
    np.testing.assert_allclose(got, want_of(x, y)[0], rtol=2e-4)


@pytest.mark.parametrize(("voxels", "parts"), [(30, 3), (31, 3), (6, 4), (6, 16)])
def test_parts_of_the_voxels_are_put_together(voxels, parts, dtype, monkeypatch):
    monkeypatch.setattr(anova, "PART_BYTES", 1)
    monkeypatch.setattr(anova, "cores", lambda: parts)  # the last may share voxels with another
    x, y = make_data(v=voxels, mean=1e3, dtype=dtype)
    f, p = want_of(x, y)
    got = anova.f_test(jnp.asarray(x), y, CLASSES)
    rtol = 1e-9 if dtype == np.float64 else 2e-4
    np.testing.assert_allclose(got.f, f, rtol=rtol)
    np.testing.assert_allclose(got.p, p, rtol=10 * rtol)
    np.testing.assert_array_equal(anova.f_scores(jnp.asarray(x), y, CLASSES), got.f)


def test_bits_do_not_depend_on_the_number_of_cores(monkeypatch):
    x, y = make_data(1203, 40, mean=1e4, sd=50, dtype=np.float32)
    x[:, 3] = y  # its sums are made a second time
    monkeypatch.setattr(anova, "CHUNK_BYTES", 1)
    monkeypatch.setattr(anova, "PART_BYTES", 1)
    found = {"host": [], "device": []}
    for cores in (1, 2, 5):
        monkeypatch.setattr(anova, "cores", lambda cores=cores: cores)
        monkeypatch.setattr("emojax._numerics.threads.cores", lambda cores=cores: cores)
        found["host"].append(anova.f_scores(x, y, CLASSES))
        found["device"].append(anova.f_scores(jnp.asarray(x), y, CLASSES))
    for one, two, five in found.values():
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, five)


def test_an_array_on_several_devices_is_one_program(monkeypatch):
    """Programs with collectives must not start from several threads."""
    monkeypatch.setattr(anova, "PART_BYTES", 1)
    monkeypatch.setattr(anova, "cores", lambda: 2)
    x, y = make_data(40, 16)
    mesh = jax.make_mesh((8,), ("voxels",))
    placed = jax.device_put(jnp.asarray(x), jax.NamedSharding(mesh, jax.P(None, "voxels")))
    want = anova.f_scores(jnp.asarray(x), y, CLASSES)
    monkeypatch.setattr(anova, "side_by_side", None)  # fails when it is called
    np.testing.assert_allclose(anova.f_scores(placed, y, CLASSES), want, rtol=1e-5)


def test_many_chunks_keep_digits(monkeypatch):
    monkeypatch.setattr(anova, "CHUNK_BYTES", 1)  # the fewest rows per chunk that it allows
    x, y = make_data(1203, mean=1e4, sd=50, dtype=np.float32)
    np.testing.assert_allclose(anova.f_scores(x, y, CLASSES), want_of(x, y)[0], rtol=2e-4)
    x, y = (a[np.argsort(y, kind="stable")] for a in (x, y))  # most chunks have one class
    np.testing.assert_allclose(anova.f_scores(x, y, CLASSES), want_of(x, y)[0], rtol=2e-4)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("n", [9, 48, 1200])
def test_a_spike_in_the_first_sample_costs_no_digits(path, n):
    x, y = make_data(n, mean=1e4, sd=50, dtype=np.float32)
    x[0] += 20 * 50  # the pivot starts from the first sample
    got = anova.f_scores(PATHS[path](x), y, CLASSES)
    np.testing.assert_allclose(got, want_of(x, y)[0], rtol=2e-4)


@pytest.mark.parametrize("path", PATHS)
def test_classes_far_apart_cost_no_digits(path):
    """Nearly all variance lies between classes: within = squares - means would cancel."""
    x, y = make_data(mean=1e4, sd=5, dtype=np.float32)
    x += (1000 * y[:, None]).astype(np.float32)
    got = anova.f_scores(PATHS[path](x), y, CLASSES)
    np.testing.assert_allclose(got, want_of(x, y)[0], rtol=2e-4)


def test_constant_voxels_have_exactly_zero_f(dtype, monkeypatch):
    monkeypatch.setattr(anova, "CHUNK_BYTES", 1)
    x, y = make_data(dtype=dtype)
    x[:, 2:5] = CONSTANTS
    chunks = [streamed(x[i : i + 4], y[i : i + 4], [4]) for i in range(0, 48, 4)]
    rng = np.random.default_rng(0)
    tests = [anova.f_test(make(x), y, CLASSES) for make in PATHS.values()]
    tests += [anova.finalize(fold_chunks(chunks, rng)) for _ in range(5)]
    for test in tests:
        np.testing.assert_array_equal(test.f[2:5], 0)
        np.testing.assert_array_equal(test.p[2:5], 1)
        assert (np.delete(test.f, [2, 3, 4]) > 0).all()


@pytest.mark.parametrize("path", PATHS)
def test_a_voxel_constant_in_every_class_comes_first(path, dtype):
    x, y = make_data(dtype=dtype)
    x[:, 9] = np.array([0.3, -1.7, 2.9, 0.3])[y]
    x[:, 11] = y  # integers: no rounding anywhere
    f, p = anova.f_test(PATHS[path](x), y, CLASSES)[:2]
    assert not np.isnan(f).any() and not np.isnan(p).any()
    assert (f[np.array([9, 11])] > 1e6).all()
    assert set(np.asarray(anova.select_top(f, 2))) == {9, 11}
    np.testing.assert_allclose(p[np.array([9, 11])], 0, atol=1e-30)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("path", PATHS)
def test_values_that_are_not_finite_are_named_and_never_chosen(path, bad):
    x, y = make_data(dtype=np.float32)
    want = anova.f_scores(x, y, CLASSES)
    x[[5, 7], 3] = bad
    message = r"want finite x; got 2 NaN or infinite values, first at \(5, 3\)"
    with pytest.raises(ValueError, match=message):
        anova.f_scores(PATHS[path](x), y, CLASSES)
    x[:, 4] = 0.1
    f = jax.jit(anova.f_scores, static_argnames="num_classes")(x, y, num_classes=CLASSES)
    assert np.isnan(f[3]) and f[4] == 0
    np.testing.assert_allclose(np.delete(f, [3, 4]), np.delete(want, [3, 4]), rtol=1e-4)
    assert not {3, 4} & set(np.asarray(anova.select_top(f, 28)))


@pytest.mark.parametrize("kind", ["int16", "uint8", "uint16", "int32", "bool"])
@pytest.mark.parametrize("path", PATHS)
def test_integers_do_not_overflow(path, kind):
    high = {"bool": 2, "int32": 60_000}.get(kind) or np.iinfo(kind).max
    x = np.random.default_rng(0).integers(0, high, (700, 9)).astype(kind)
    y = np.arange(700) % CLASSES
    got = anova.f_scores(PATHS[path](x), y, CLASSES)
    np.testing.assert_allclose(got, want_of(x, y)[0], rtol=2e-4)


def test_reads_a_memory_map(tmp_path, monkeypatch):
    monkeypatch.setattr(anova, "CHUNK_BYTES", 1)
    x, y = make_data(dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_array_equal(anova.f_scores(mapped, y, CLASSES), anova.f_scores(x, y, CLASSES))
    state = anova.update(anova.init(30, CLASSES), mapped, y)
    np.testing.assert_allclose(anova.finalize(state).f, want_of(x, y)[0], rtol=2e-4)


@pytest.mark.parametrize("sizes", [[48], [1] * 48, [33, 1, 14]])
def test_streaming_equals_one_shot(sizes, dtype):
    x, y = make_data(mean=1e4, sd=50, dtype=dtype)
    for order in (np.arange(48), np.argsort(y)):  # sorted: chunks lack classes
        got = anova.finalize(streamed(x[order], y[order], sizes))
        want = anova.f_test(jnp.asarray(x), y, CLASSES)
        rtol = 1e-10 if dtype == np.float64 else 2e-4
        for one, other in zip(got, want, strict=True):
            np.testing.assert_allclose(one, other, rtol=10 * rtol, atol=1e-15)
        np.testing.assert_allclose(got.f, want.f, rtol=rtol)


@functools.cache
def merge_case():
    """Returns twelve chunks of 4 samples sorted by class, so that each has one or two classes."""
    with jax.enable_x64(True):
        x, y = make_data(48, 8, mean=100, sd=5)
        order = np.argsort(y, kind="stable")
        order = np.roll(order, 2)
        x, y = x[order], y[order]
        x[:, 7] = 0.1
        chunks = [streamed(x[i : i + 4], y[i : i + 4], [4]) for i in range(0, 48, 4)]
        return x, y, chunks, anova.init(8, CLASSES)


@given(empties=st.integers(0, 3), seed=st.integers(0, 9999))
@settings(max_examples=40, derandomize=True, deadline=None)
def test_merge_in_any_order_and_grouping(empties, seed):
    x, y, chunks, empty = merge_case()
    f = np.append(want_of(x[:, :7], y)[0], 0)
    with jax.enable_x64(True):
        state = fold_chunks(chunks + [empty] * empties, np.random.default_rng(seed))
        np.testing.assert_array_equal(state.count, 12)
        got = anova.finalize(state)
        np.testing.assert_allclose(got.f, f, rtol=1e-10)
        assert (got.f[7], got.p[7]) == (0, 1)


@given(picks=st.lists(st.integers(0, 12), min_size=3, max_size=3))
@settings(max_examples=40, derandomize=True, deadline=None)
def test_merge_commutes_and_associates(picks):
    _, _, chunks, empty = merge_case()
    a, b, c = ([*chunks, empty][i] for i in picks)

    def agree(one, other):
        """Compares two states by their class means; the pivot depends on the order."""
        for state in (one, other):
            assert (np.asarray(state.mean)[np.asarray(state.count) == 0] == 0).all()
        seen = np.asarray(one.count) > 0
        np.testing.assert_array_equal(one.count, other.count)
        means = [np.asarray(s.mean + s.pivot)[seen] for s in (one, other)]
        np.testing.assert_allclose(*means, rtol=1e-12)
        np.testing.assert_allclose(one.within, other.within, rtol=1e-10, atol=1e-10)

    with jax.enable_x64(True):
        agree(anova.merge(a, b), anova.merge(b, a))
        left = anova.merge(anova.merge(a, b), c)
        agree(left, anova.merge(a, anova.merge(b, c)))


def test_an_empty_state_changes_nothing():
    _, _, chunks, empty = merge_case()
    with jax.enable_x64(True):
        for state in (anova.merge(empty, chunks[0]), anova.merge(chunks[0], empty)):
            jax.tree.map(np.testing.assert_array_equal, state, chunks[0])


def test_state_is_a_few_numbers_per_voxel():
    x, y = make_data(dtype=np.float32)
    state = anova.init(30, CLASSES)
    for one in (state, anova.update(state, x, y)):
        assert sum(leaf.size for leaf in one) == (CLASSES + 2) * 30 + CLASSES


def test_shards_merge_to_the_whole():
    """Rows over 8 devices, sorted by class, so that every device lacks classes."""
    n, v = 8 * 41, 12
    x, y = make_data(n, v, mean=1e4, sd=50, dtype=np.float32)
    x, y = (a[np.argsort(y, kind="stable")] for a in (x, y))
    x[:, 6] = 0.1
    mesh = jax.make_mesh((8,), ("rows",))
    placed = jax.device_put((x, y), jax.NamedSharding(mesh, jax.P("rows")))

    def shard_map(body):
        mapped = jax.shard_map(body, mesh=mesh, in_specs=jax.P("rows"), out_specs=jax.P("rows"))
        return jax.jit(mapped)(*placed)

    def own(x, y):
        return anova.update(anova.init(v, CLASSES), x, y)

    def everyones(x, y):
        gathered = jax.lax.all_gather(own(x, y), "rows")
        return anova.finalize(functools.reduce(anova.merge, unstacked(gathered))).f[None]

    want = want_of(np.delete(x, 6, 1), y)[0]
    on_devices = shard_map(everyones)
    assert on_devices.sharding.num_devices == 8
    on_devices = np.asarray(on_devices)
    for f in on_devices:  # every device knows the result
        assert f[6] == 0
        np.testing.assert_allclose(np.delete(f, 6), want, rtol=2e-4)
    states = jax.device_get(shard_map(lambda x, y: jax.tree.map(lambda a: a[None], own(x, y))))
    on_host = anova.finalize(functools.reduce(anova.merge, unstacked(states))).f
    np.testing.assert_allclose(on_host, on_devices[0], rtol=1e-5)
    one_shot = anova.f_scores(jnp.asarray(x), y, CLASSES)
    np.testing.assert_allclose(on_host, one_shot, rtol=2e-4)


@pytest.mark.parametrize("n", [5, 16, 100])
def test_sums_over_rows_keep_what_rounding_takes(n):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(1e6, 1, (n, 7)), jnp.float32)
    member = jnp.asarray(rng.integers(0, 2, (n, 1)), jnp.float32)

    def term(rows, members):
        return sum(r * m[0] for r, m in zip(rows, members, strict=True)), jnp.float32(len(rows))

    total, count = sums.sum_rows(term, x, member)
    want = (np.asarray(x, np.float64) * np.asarray(member)).sum(0)
    np.testing.assert_allclose(total, want, rtol=3e-7)
    assert count == n
    blocks = sums.sum_rows(term, x, member, every=2)[1]
    assert blocks == {5: 5, 16: 16, 100: 48}[n]  # of 6 whole blocks of 16 rows, every other one


def test_aligned_memory_starts_at_a_multiple_of_64_bytes():
    made = sums.allocate_aligned((3, 5), np.dtype(np.float32))
    assert made.shape == (3, 5) and made.dtype == np.float32
    assert made.ctypes.data % 64 == 0


def test_f_ignores_units_offset_order_and_names_of_classes(x64):
    x, y = make_data()
    want = anova.f_scores(x, y, CLASSES)
    order = np.random.default_rng(1).permutation(len(x))
    for same in [
        anova.f_scores(7 * x - 3, y, CLASSES),
        anova.f_scores(-x, y, CLASSES),
        anova.f_scores(x[order], y[order], CLASSES),
        anova.f_scores(x, np.array([2, 0, 3, 1])[y], CLASSES),
        anova.f_scores(x[:, ::-1], y, CLASSES)[::-1],
    ]:
        np.testing.assert_allclose(same, want, rtol=1e-10)


def test_two_classes_give_the_square_of_t(x64):
    x, y = make_data()
    t = scipy.stats.ttest_ind(x[y % 2 == 0], x[y % 2 == 1])
    got = anova.f_test(x, y % 2, 2)
    np.testing.assert_allclose(got.f, t.statistic**2, rtol=1e-10)
    np.testing.assert_allclose(got.p, t.pvalue, rtol=1e-9)


def test_jit_and_vmap_over_folds_equal_a_loop():
    x, y = zip(*(make_data(seed=s, dtype=np.float32) for s in range(3)), strict=True)
    y = [np.roll(labels, i) for i, labels in enumerate(y)]

    def score(x, y):
        return anova.f_test(x, y, CLASSES)

    def choose(x, y):
        return anova.select_top(score(x, y).f, 4)

    got = jax.jit(jax.vmap(score))(np.stack(x), np.stack(y))
    chosen = jax.jit(jax.vmap(choose))(np.stack(x), np.stack(y))
    assert chosen.shape == (3, 4)
    for i, fold in enumerate(zip(x, y, strict=True)):
        want = score(*fold)
        np.testing.assert_allclose(got.f[i], want.f, rtol=1e-4)
        np.testing.assert_allclose(got.p[i], want.p, rtol=1e-3, atol=1e-12)
        np.testing.assert_array_equal(chosen[i], choose(*fold))


@pytest.mark.slow
def test_gradient(x64):
    x, y = make_data(40, 6)
    y = y % 2
    x[:, 5] = 0.1
    weight, step = np.random.default_rng(1).normal(size=(2, *x.shape))
    step[:, 5] = 0  # a constant voxel is a kink: its gradient has to be finite, no more

    @jax.jit
    def score(x):
        f, p = anova.f_test(x, y, 2)[:2]
        return (weight[0] * f + weight[1] * p).sum()

    grad = jax.jit(jax.grad(score))(x)
    assert np.isfinite(grad).all()
    want = (score(x + 1e-5 * step) - score(x - 1e-5 * step)) / 2e-5
    np.testing.assert_allclose((grad * step).sum(), want, rtol=1e-6)


def test_select_top_is_descending_with_ties_by_index():
    f = np.array([3, np.nan, 5, 0, 5, 1, np.inf], np.float32)
    got = anova.select_top(f, 5)
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, [6, 2, 4, 0, 5])
    np.testing.assert_array_equal(anova.select_top(np.array([1, 3, 2]), 3), [1, 2, 0])
    np.testing.assert_array_equal(anova.select_top(np.ones(40), 40), np.arange(40))


def test_select_top_counts_valid_voxels():
    f = jnp.array([3, jnp.nan, 5, 0, 5, 1, jnp.inf])
    with pytest.raises(ValueError, match="want 6 voxels; got 5 with F > 0 among 7: the others are"):
        anova.select_top(f, 6)
    filled = jax.jit(anova.select_top, static_argnames="m")(f, m=7)
    np.testing.assert_array_equal(filled, [6, 2, 4, 0, 5, 7, 7])
    both = jax.vmap(lambda one: anova.select_top(one, 3))(jnp.stack([f, 0 * f]))
    np.testing.assert_array_equal(both, [[6, 2, 4], [7, 7, 7]])


@pytest.mark.parametrize("path", PATHS)
def test_f_scores_says_what_is_wrong(path):
    x, y = make_data(dtype=np.float32)
    x = PATHS[path](x)
    for function in (anova.f_scores, anova.f_test):
        with pytest.raises(
            ValueError, match=r"x \[n, v >= 1\] and y \[n\]; got \(48, 30\), \(47,\)"
        ):
            function(x, y[:-1], CLASSES)
        with pytest.raises(ValueError, match=r"got \(48,\), \(48,\)"):
            function(x[:, 0], y, CLASSES)
        for classes in (1, 48):
            message = f"want 2 <= num_classes < 48 samples; got {classes}"
            with pytest.raises(ValueError, match=message):
                function(x, y, classes)
        with pytest.raises(ValueError, match=r"want y in \[0, 3\); got values from 0 to 3"):
            function(x, y, 3)
        with pytest.raises(ValueError, match=r"want y in \[0, 4\); got values from -1 to 2"):
            function(x, y - 1, CLASSES)
        with pytest.raises(ValueError, match="want integer y; got dtype float64"):
            function(x, y.astype(np.float64), CLASSES)
        with pytest.raises(
            ValueError, match=r"samples of every class; got counts \[12 12 12 12  0"
        ):
            function(x, y, 5)


def test_streaming_says_what_is_wrong():
    x, y = make_data(dtype=np.float32)
    state = anova.init(30, CLASSES)
    for voxels, classes in [(0, 4), (30, 1)]:
        with pytest.raises(ValueError, match=f"voxels >= 1 and .* >= 2; got {voxels}, {classes}"):
            anova.init(voxels, classes)
    with pytest.raises(ValueError, match=r"want x \[n >= 1, 30\]; got \(48, 29\)"):
        anova.update(state, x[:, :-1], y)
    with pytest.raises(ValueError, match=r"want x \[n >= 1, 30\]; got \(0, 30\)"):
        anova.update(state, x[:0], y[:0])
    with pytest.raises(ValueError, match=r"x \[n, v >= 1\] and y \[n\]; got \(48, 30\), \(3,\)"):
        anova.update(state, x, y[:3])
    with pytest.raises(ValueError, match=r"want y in \[0, 4\); got values from 1 to 4"):
        anova.update(state, x, y + 1)
    message = r"one shape \[classes, voxels\]; got \(4, 30\), \(3, 30\)"
    with pytest.raises(ValueError, match=message):
        anova.merge(state, anova.init(30, 3))
    with pytest.raises(ValueError, match=r"more samples than classes; got counts \[0 0 0 0\]"):
        anova.finalize(state)
    with pytest.raises(ValueError, match=r"got counts \[1 1 1 1\]"):
        anova.finalize(anova.update(state, x[:4], y[:4]))


def test_select_top_says_what_is_wrong():
    f = np.ones(5, np.float32)
    for m in (0, 6):
        with pytest.raises(ValueError, match=rf"f \[v\] and 1 <= m <= v; got f \(5,\), m {m}"):
            anova.select_top(f, m)
    with pytest.raises(ValueError, match=r"got f \(1, 5\), m 2"):
        anova.select_top(f[None], 2)


def test_numpy_samples_inside_a_callers_jit(monkeypatch):
    """The streamed path reuses its buffers, which must not become constants of a trace."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(1e4, 50, (100, 30)).astype(np.float32), np.arange(100) % 3
    monkeypatch.setattr(anova, "CHUNK_BYTES", 16 * x[0].nbytes)
    want = f_classif(x.astype(np.float64), y)[0]
    for got in (
        jax.jit(lambda labels: anova.f_scores(x, labels, 3))(y),
        jax.jit(lambda one: one * anova.f_scores(x, y, 3))(1.0),
        jax.vmap(lambda labels: anova.f_scores(x, labels, 3))(y[None])[0],
    ):
        np.testing.assert_allclose(got, want, rtol=2e-4)


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_no_voxels_are_refused(kind):
    with pytest.raises(ValueError, match=r"v >= 1\] and y \[n\]; got \(6, 0\), \(6,\)"):
        anova.f_scores(kind(np.zeros((6, 0), np.float32)), np.arange(6) % 2, 2)
