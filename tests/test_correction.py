"""Causal correction against plain loops over the volumes so far, and what must not change."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emojax.data import causal_settings
from emojax.data.causal_settings import Correction, Regression, Running, parse
from emojax.online import correction

T, SHAPE = 60, (4, 3, 5)
TEXTS = (
    *("gain", "first:20", "cumulative", "ema:30", "zscore:20", "zscore", "drift:1", "drift:3"),
    *("motion", "drift:2+motion", "gain+ema:7", "gain+drift:1+motion+ema:20+zscore"),
)


def make(t=T, shape=SHAPE, level=800.0):
    """Returns a run as scanned: an eighth of the voxels dark, changes of .3 %, drift and motion."""
    rng = np.random.default_rng(0)
    time = np.linspace(0, 1, t).reshape(-1, *[1] * len(shape))
    motion = rng.normal(0, 0.02, (t, 6)).cumsum(0)
    motion[:, 3:] /= 50  # rad
    x = level * (1 + 0.2 * rng.random(shape)) * (1 + 0.05 * time)
    x = x + np.tensordot(motion, rng.normal(0, 10, (6, *shape)), 1)
    x = x + rng.normal(0, 0.003 * level, (t, *shape))
    x[:, np.arange(np.prod(shape)).reshape(shape) % 8 == 0] /= 100
    return x.astype(np.float32), motion.astype(np.float32)


def online(text, x, motion=None, **options):
    """Corrects one volume after the other."""
    chosen, out = parse(text), []
    state = correction.init(chosen, x.shape[1:], **options)
    for t, volume in enumerate(x):
        moved = motion[t] if chosen.needs_motion else None
        state, y = correction.step(chosen, state, volume, moved)
        out.append(np.asarray(y))
    assert int(state.seen) == len(x)
    return np.stack(out)


# the plain loops: for each volume, its correction from all volumes so far, in float64


def level(volume):
    return volume[volume > volume.mean() / 8].mean()


def offline(text, x, motion):
    x = x.astype(np.float64)
    scan = offline("gain", x, None) if text.startswith("gain+") else x
    for part in text.split("+"):
        if part == "motion" and "drift" in text:
            continue  # in one regression with it
        moved = motion if "motion" in text else None
        x = np.stack([last(part, x[: t + 1], moved, scan[t]) for t in range(len(x))])
    return x


def last(part, past, motion, scan):
    """Returns the newest volume after one step."""
    name, _, size = part.partition(":")
    if name == "gain":
        return past[-1] * 1000 / level(past[-1])
    if name == "first":
        return past[-1] - past[: int(size)].mean(0)
    if name == "cumulative":
        return past[-1] - past.mean(0)
    if name == "ema":
        return past[-1] - weighted(past, int(size))
    if name == "zscore":
        return scored(past, past[: int(size) if size else None], scan)
    return residual(past, int(size or 0), None if motion is None else motion[: len(past)])


def weighted(past, half):
    weights = 0.5 ** (np.arange(len(past))[::-1] / half)
    return np.tensordot(weights / weights.sum(), past, 1)


def scored(past, base, scan):
    sd = np.maximum(base.std(0), 1e-3 * abs(scan))
    return np.divide(past[-1] - base.mean(0), sd, out=np.zeros_like(sd), where=sd > 0)


def residual(past, degree, motion):
    design = np.vander(np.arange(len(past)) / 100, degree + 1)
    if motion is not None:
        design = np.column_stack([design, motion - motion[0]])
    y = past.reshape(len(past), -1)
    design = design.astype(np.float64)
    scale = np.maximum(np.linalg.norm(design, axis=0), 1e-300)
    fit = np.linalg.lstsq(design / scale, y, rcond=1e-7)[0]
    return (y[-1] - design[-1] / scale @ fit).reshape(past.shape[1:])


@pytest.mark.parametrize("text", TEXTS)
def test_is_the_replay_of_the_volumes_so_far(text):
    x, motion = make()
    got, want = online(text, x, motion), offline(text, x, motion)
    assert got.dtype == np.float32
    size = np.ptp(x, axis=0).max() if "zscore" not in text else abs(want).max()
    if "zscore" in text and "gain" in text:  # float32 at 1000, through an sd of at least 1
        size = 10
    np.testing.assert_allclose(got, want, atol=1e-5 * size, rtol=1e-6)


@pytest.mark.parametrize("text", TEXTS)
def test_the_past_does_not_depend_on_the_future(text):
    x, motion = make()
    before = online(text, x, motion)
    x[40:], motion[40:] = x[40:] * 1.3 + 50, motion[40:] + 1
    after = online(text, x, motion)
    np.testing.assert_array_equal(after[:40], before[:40])
    assert abs(after[40] - before[40]).max() > 1e-3 or text == "gain"


@pytest.mark.parametrize("text", TEXTS)
def test_replay_and_vmap_are_steps_one_by_one(text):
    x, motion = make()
    chosen = parse(text)
    moved = motion if chosen.needs_motion else None
    want = online(text, x, motion)
    atol = 1e-5 * max(1, abs(want).max())
    state, got = correction.replay(chosen, correction.init(chosen, SHAPE), x, moved)
    np.testing.assert_allclose(got, want, atol=atol)
    again, _ = correction.step(chosen, state, x[0], None if moved is None else moved[0])
    assert jax.tree.structure(again) == jax.tree.structure(state)
    both = np.stack([x, x[::-1]])
    motions = None if moved is None else np.stack([moved, moved[::-1]])
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), correction.init(chosen, SHAPE))
    _, got = jax.vmap(functools.partial(correction.replay, chosen))(states, both, motions)
    np.testing.assert_allclose(got[0], want, atol=atol)
    np.testing.assert_allclose(got[1], online(text, x[::-1], motion[::-1]), atol=atol)


@pytest.mark.parametrize("text", ["ema:30", "zscore", "drift:1+motion"])
def test_voxels_are_corrected_each_by_itself(text):
    x, motion = make()
    flat = x.reshape(T, -1)
    want = online(text, x, motion).reshape(T, -1)[:, 10:20]
    np.testing.assert_allclose(online(text, flat[:, 10:20], motion), want, atol=1e-3, rtol=1e-4)


def test_no_precision_is_lost_at_the_level_of_a_scanner():
    """A response of .3 % of 800 on a drift of 5 % stays precise for 1000 volumes."""
    x, motion = make(1000, (16,))
    got = online("drift:1+motion", x, motion)[-200:]
    want = np.stack(
        [residual(x[: t + 1].astype(np.float64), 1, motion[: t + 1]) for t in range(800, 1000)]
    )
    assert abs(got - want).max() < 1e-5 * np.ptp(x, axis=0).max()


# gain


def test_gain_brings_every_volume_to_its_level():
    x, _ = make()
    scans = x * np.linspace(0.5, 2, T, dtype=np.float32)[:, None, None, None]
    np.testing.assert_allclose(online("gain", scans), online("gain", x), rtol=1e-5)
    mask = x.mean(0) > 700
    got = online("gain", scans, mask=mask, level=correction.level_of(x[0], mask))
    np.testing.assert_allclose(got[:, mask].mean(1), x[0][mask].mean(), rtol=1e-6)


def test_level_is_exact_for_large_volumes_and_ignores_what_is_not_finite():
    rng = np.random.default_rng(1)
    x = rng.normal(800, 20, (64, 64, 44)).astype(np.float32)
    np.testing.assert_allclose(correction.level_of(x), x.mean(dtype=np.float64), rtol=1e-7)
    x[:32] = np.nan
    np.testing.assert_allclose(correction.level_of(x), np.nanmean(x, dtype=np.float64), rtol=1e-7)


@pytest.mark.parametrize("value", [0.0, -5.0, np.nan])
def test_a_volume_without_a_level_keeps_its_values(value):
    x = np.full(SHAPE, value, np.float32)
    np.testing.assert_array_equal(online("gain", x[None])[0], x)


# few volumes, and voxels that do not vary


def test_the_first_volumes():
    x, motion = make()
    for text in ("first:20", "cumulative", "ema:30", "zscore", "drift:1", "drift:2+motion"):
        assert (online(text, x[:1], motion) == 0).all()
    assert abs(online("drift:2+motion", x[:9], motion)).max() < 1e-2  # as many regressors
    assert abs(online("drift:2+motion", x, motion)[12:]).max() > 1
    two = online("zscore", x[:2])[1]
    assert abs(two).max() <= 1 + 1e-5
    ema, mean = online("ema:5000", x), online("cumulative", x)
    np.testing.assert_allclose(ema, mean, atol=0.5)  # not pulled towards the first volume


def test_constant_voxels_become_zero_and_rare_values_stay_small():
    x, _ = make()
    x[:, 1, 1, 1], x[:, 2, 2, 2] = 800, 0
    for text in ("zscore", "zscore:20", "ema:30+zscore"):
        got = online(text, x)
        assert np.isfinite(got).all()
        assert (got[:, 1, 1, 1] == 0).all() and (got[:, 2, 2, 2] == 0).all()
    x[30, 1, 1, 1] = 802.4  # never seen to vary: sd counts as a thousandth
    np.testing.assert_allclose(online("zscore:20", x)[30, 1, 1, 1], 2.4 / 0.8024, rtol=1e-4)


def test_regressors_that_others_explain_do_no_harm():
    x, motion = make()
    want = online("motion", x, motion)
    motion[:, 5] = 0
    lone = online("motion", x, motion)
    motion[:, 5] = motion[:, 0] - 3 * motion[:, 4]
    np.testing.assert_allclose(online("motion", x, motion), lone, atol=2e-2)
    assert abs(lone - want).max() > 0.1
    still = online("drift:1+motion", x, np.ones_like(motion))
    np.testing.assert_allclose(still, online("drift:1", x), atol=1e-4)


# a target


@pytest.mark.parametrize("text", ["cumulative", "gain+ema:30", "drift:1"])
def test_a_target_takes_the_place_of_the_baseline(text):
    x, motion = make()
    target = x.mean(0)
    got = online(text, x, motion, target=target)
    np.testing.assert_allclose(got, online(text, x, motion) + target, rtol=1e-6)


def test_refusals_of_init_and_step():
    for text in ("gain", "zscore"):
        with pytest.raises(ValueError, match=f"want a baseline that a target .*; got '{text}'"):
            correction.init(parse(text), SHAPE, target=np.zeros(SHAPE))
    with pytest.raises(ValueError, match=r"want a mask of shape \(4, 3, 5\); got \(2,\)"):
        correction.init(parse("gain"), SHAPE, mask=np.ones(2, bool))
    state = correction.init(parse("ema:30"), SHAPE)
    with pytest.raises(ValueError, match=r"want a volume of shape \(4, 3, 5\); got \(5,\)"):
        correction.step(parse("ema:30"), state, np.zeros(5))
    moving = parse("motion")
    with pytest.raises(ValueError, match="want 6 motion parameters; got None"):
        correction.step(moving, correction.init(moving, SHAPE), np.zeros(SHAPE))


# the text


def test_texts():
    assert parse("") == Correction("", False, ())
    assert parse("gain") == Correction("gain", True, ())
    got = parse("zscore:20+motion+ema:30+gain+drift:2")
    assert got.text == "gain+drift:2+motion+ema:30+zscore:20" and got.gain and got.needs_motion
    steps = (Regression(2, True), Running("ema", 30), Running("first", 20, divide=True))
    assert got.steps == steps
    assert parse("zscore").steps == (Running("cumulative", 0, divide=True),)
    assert not parse("drift:1").needs_motion and {parse("gain")} == {parse("gain")}


@pytest.mark.parametrize(
    "text",
    [
        *("gian", "gain+", "+gain", "gain ema:30", "GAIN", "ema", "ema:", "ema:0", "ema:-3"),
        *("ema:1.5", "ema:30s", "first", "first:007", "drift", "drift:0", "drift:9", "gain:2"),
        *("motion:6", "cumulative:3", "gain+gain", "ema:3+ema:4", "first:20+ema:30", "zscore:x"),
        *("ema:99999999", ",", "\0", "none", "ema:٣"),
    ],
)
def test_what_is_unknown_is_refused_in_one_line(text):
    with pytest.raises(ValueError, match=r"^want steps joined by \+: gain, .*; got ") as error:
        parse(text)
    assert "\n" not in str(error.value) and not causal_settings.is_known(text)


@pytest.mark.parametrize("value", [None, 3, True, ("gain",)])
def test_other_values_are_no_texts(value):
    assert not causal_settings.is_known(value)
