"""Random phases: the preserved and destroyed properties of a run, and repeated cleaning."""

import dataclasses
import os

import numpy as np
import pytest

from emojax.data import belonging, cleaning, phases, roi, smoothing
from emojax.data.cohort import build
from emojax.data.run import Run
from emojax.data.store import Store

SEED = [1, 2]
SHAPE = (5, 4, 3)


def values(volumes, seed=0):
    """Returns drifting voxels with a common component, around 800 units."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(volumes, *SHAPE)).cumsum(0)
    common = rng.normal(size=(volumes, 1, 1, 1)) * rng.normal(size=SHAPE)
    return (800 + 20 * own + 60 * common).astype(np.float32)


def cohort(frames, **changes):
    run = Run("01", "run-1", frames, tr=2.0, affine=np.diag([2.0, 2, 2, 1]), hashes={"a": "b"})
    labels = np.arange(len(frames)) // 5 % 2
    return build([dataclasses.replace(run, **changes)], ("x", "y"), [labels])


def flat(run):
    return run.read(slice(None)).reshape(len(run.frames), -1).astype(np.float64)


def made(frames, store, seed=SEED, **changes):
    return phases.randomised(cohort(frames, **changes).runs[0], store, seed)


@pytest.mark.parametrize("volumes", [4, 5, 40, 41, 97])
def test_mean_spectrum_and_covariance_stay_and_values_do_not(tmp_path, volumes):
    x = values(volumes)
    e = flat(made(x, Store(tmp_path).scratch()))
    x = x.reshape(volumes, -1).astype(np.float64)
    np.testing.assert_allclose(e.mean(0), x.mean(0), rtol=1e-6)
    covariance = np.cov(x.T)
    np.testing.assert_allclose(np.cov(e.T), covariance, atol=1e-5 * covariance.max())
    before, after = (np.fft.rfft(v - v.mean(0), axis=0) for v in (x, e))
    np.testing.assert_allclose(abs(after), abs(before), atol=1e-5 * abs(before).max())
    assert abs(e - x).std() > 0.3 * x.std(0).mean()
    turned = after[1:] * before[1:].conj()  # by an angle that all voxels share
    angle = np.angle(turned.sum(1, keepdims=True))
    assert abs(turned * np.exp(-1j * angle) - abs(turned)).max() < 1e-3 * abs(turned).max()
    assert len(np.unique(angle.round(3))) == len(angle)


@pytest.mark.parametrize("volumes", [20, 21])
def test_phases_are_uniform_and_the_fastest_frequency_has_a_sign(volumes):
    drawn = np.array([phases.draw([0, i], volumes) for i in range(400)])
    np.testing.assert_allclose(abs(drawn), 1, rtol=1e-6)
    assert (drawn[:, 0] == 1).all()
    assert abs(drawn[:, 1:].mean(0)).max() < 0.2
    if volumes % 2 == 0:
        assert abs(drawn[:, -1].imag).max() < 1e-6
    else:
        assert abs(drawn[:, -1].imag).mean() > 0.5


def test_the_same_seed_gives_the_same_bits_and_another_one_others(tmp_path):
    x = values(30)
    first = made(x, Store(tmp_path)).frames
    np.testing.assert_array_equal(made(x, Store(tmp_path / "new")).frames, first)
    np.testing.assert_array_equal(made(x, Store(tmp_path).scratch()).frames, first)
    assert abs(made(x, Store(tmp_path), [1, 3]).frames - first).max() > 1


def test_blocks_of_voxels_share_their_phases(tmp_path, monkeypatch):
    x = values(30)
    whole = made(x, Store(tmp_path).scratch()).frames
    monkeypatch.setattr(phases, "BLOCK", 100)
    np.testing.assert_allclose(made(x, Store(tmp_path).scratch()).frames, whole, atol=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_and_does_not_spread(tmp_path, value):
    whole = values(30)
    holes, rng = whole.copy(), np.random.default_rng(2)
    missing = rng.random(SHAPE) < 0.2
    holes[:, missing] = value
    place = tuple(np.argwhere(~missing)[0])
    holes[7][place] = value  # in one volume only
    new = made(holes, Store(tmp_path).scratch()).frames
    np.testing.assert_array_equal(np.isfinite(new), np.isfinite(holes))
    np.testing.assert_array_equal(new[~np.isfinite(holes)], holes[~np.isfinite(holes)])
    others = ~missing
    others[place] = False
    full = made(whole, Store(tmp_path).scratch()).frames
    np.testing.assert_allclose(new[:, others], full[:, others], rtol=1e-5)


def test_whole_numbers_become_values_in_units_of_the_scan(tmp_path):
    x = np.full((20, *SHAPE), 7, np.int16)
    x[:, 0] = values(20)[:, 0]
    run = made(x, Store(tmp_path), slope=2.0, intercept=3.0)
    assert run.frames.dtype == np.float32 and (run.slope, run.intercept) == (1, 0)
    np.testing.assert_array_equal(run.frames[:, 1:], 17)
    np.testing.assert_allclose(run.frames.mean(0), 2.0 * x.mean(0) + 3, rtol=1e-5)


def test_each_seed_and_content_has_its_own_entry(tmp_path):
    def entries(frames=None, seed=SEED, **changes):
        made(values(10) if frames is None else frames, Store(tmp_path), seed, **changes)
        return len(list(tmp_path.glob("*.npy")))

    assert entries() == 1
    assert entries() == 1
    assert entries(seed=[1, 3]) == 2
    assert entries(name="run-2") == 3  # another run of the same file
    assert entries(hashes={"a": "c"}) == 4
    assert entries(hashes={}) == 5
    assert entries(hashes={}, slope=2.0) == 6


def cleaned(frames, store, **settings):
    fwhm = settings.pop("smooth_mm", 0)
    return cleaning.apply(smoothing.apply(cohort(frames), store, fwhm), store, **settings)


@pytest.mark.parametrize(
    "settings",
    [{"detrend": 2}, {"zscore": True, "high_pass_hz": 0.02}, {"smooth_mm": 4, "detrend": 1}],
)
def test_cleaning_is_done_again_after_phases(tmp_path, settings):
    store, x = Store(tmp_path), values(60)
    own = cleaned(x, store, **settings).runs[0]
    files = sorted(os.listdir(tmp_path))
    again = phases.randomised(own, store.scratch(), SEED)
    assert sorted(os.listdir(tmp_path)) == files  # nothing of it is kept
    raw = phases.randomised(cohort(x).runs[0], Store(tmp_path / "raw"), SEED)
    want = cleaned(raw.frames, Store(tmp_path / "want"), **settings).runs[0]
    np.testing.assert_allclose(again.frames, want.frames, atol=1e-2)
    assert abs(again.frames - own.frames).max() > 0.1
    if settings.get("detrend"):
        time = np.linspace(-1, 1, 60)
        assert abs(time @ (flat(again) - flat(again).mean(0))).max() < 0.05
    kept = phases.randomised(own, Store(tmp_path / "kept"), SEED)
    np.testing.assert_array_equal(kept.frames, again.frames)
    assert len(list((tmp_path / "kept").glob("*.npy"))) == 1
    assert kept.steps == () and kept.uncleaned is None


def test_a_region_is_cut_again(tmp_path):
    mask = np.zeros(SHAPE, bool)
    mask[:3] = True
    store = Store(tmp_path)
    own = cleaned(values(30), store, centre=True).with_masks({"01": mask})
    whole = phases.randomised(own.runs[0], store.scratch(), SEED)
    cut = phases.randomised(roi.cut(own).runs[0], store.scratch(), SEED)
    np.testing.assert_array_equal(cut.frames[:, mask], whole.frames[:, mask])
    assert (cut.frames[:, ~mask] == 0).all()


def test_a_turned_run_is_turned_again(tmp_path):
    store, x = Store(tmp_path), values(30)
    first = cleaned(x, store, detrend=1).runs[0]
    other = dataclasses.replace(first, subject="02", hashes={"c": "d"})
    flipped = dataclasses.replace(
        other,
        frames=other.frames[:, ::-1],
        affine=np.array([[-2.0, 0, 0, 8], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]),
        uncleaned=dataclasses.replace(other.uncleaned, frames=other.uncleaned.frames[:, ::-1]),
    )
    turned, _, _ = belonging.turn_runs([first, flipped], {})
    assert turned[1].changes[-1].startswith("turned")
    a, b = (phases.randomised(run, store.scratch(), SEED) for run in turned)
    np.testing.assert_allclose(b.frames, a.frames, atol=1e-2)


def test_scratch_gives_its_space_back(tmp_path):
    scratch = Store(tmp_path).scratch()
    run = made(values(20), scratch)
    assert [p.name for p in tmp_path.iterdir()] == ["paths"]
    assert not run.frames.flags.writeable
    with pytest.raises(ZeroDivisionError):
        scratch.derived("", (4, 4), np.float32, lambda out: 1 / 0)
    assert [p.name for p in tmp_path.iterdir()] == ["paths"]
