"""Runs corrected as at the scanner: the twin in training, its prior, refusals."""

import dataclasses

import numpy as np
import pytest
from small_studies import PER_RUN, RUNS, make_values
from small_studies import make_cohort as make_vectors

from emojax import sources
from emojax.data import causal, cleaning, phases, roi, smoothing
from emojax.data.cohort import Prior, build
from emojax.data.run import Run
from emojax.data.store import Store
from emojax.errors import InputError
from emojax.experiments import EXPERIMENTS, skeleton
from emojax.online import correction
from emojax.provenance import Ledger, classify

T, SHAPE = 40, (4, 3, 5)
TEXTS = ("gain", "first:8", "ema:10", "gain+drift:1+motion+zscore")


def make_run(**changes):
    rng = np.random.default_rng(0)
    frames = 1500 + 30 * np.arange(T)[:, None, None, None] + rng.integers(0, 90, (T, *SHAPE))
    motion = rng.normal(size=(T, 6)).cumsum(0)
    run = Run("01", "run-1", frames.astype(np.int16), 2.0, 2 * np.eye(4), 0.5, 3.0, motion)
    return dataclasses.replace(run, **changes)


def make_cohort(**changes):
    return build([make_run(**changes)], ("a", "b"), [np.arange(T) // 4 % 2])


def at_the_scanner(text, run, skip=0):
    """Returns whole volumes, one after the other."""
    chosen = correction.parse(text)
    state, out = correction.init(chosen, run.frames.shape[1:]), []
    for t in range(skip, len(run.frames)):
        moved = run.motion[t] if chosen.needs_motion else None
        state, y = correction.step(chosen, state, run.read([t])[0], moved)
        out.append(np.asarray(y))
    return np.stack(out)


@pytest.mark.parametrize("text", TEXTS)
def test_training_volumes_are_those_of_the_scanner(tmp_path, monkeypatch, text):
    monkeypatch.setattr(causal, "BLOCK", 24)  # several blocks
    cohort, store = make_cohort(), Store(tmp_path)
    got = causal.apply(cohort, store, text)
    want = at_the_scanner(text, cohort.runs[0])
    np.testing.assert_allclose(got.volumes[:], want, atol=1e-5 * max(10, np.ptp(want)), rtol=1e-6)
    assert got.runs[0].content != cohort.runs[0].content
    causal.apply(cohort, store, text)
    assert len(list(tmp_path.glob("*.npy"))) == 1
    assert causal.apply(cohort, store, "") is cohort


def test_volumes_that_are_never_used_are_not_in_the_correction(tmp_path):
    cohort = make_cohort()
    got = causal.apply(cohort, Store(tmp_path), "gain+cumulative", skip=3).runs[0]
    want = at_the_scanner("gain+cumulative", cohort.runs[0], skip=3)
    np.testing.assert_allclose(got.frames[3:], want, atol=1e-3)
    np.testing.assert_array_equal(got.frames[:3], cohort.runs[0].read(slice(3)))
    short = causal.apply(cohort, Store(tmp_path), "cumulative", skip=T + 5).runs[0]
    np.testing.assert_array_equal(short.frames, cohort.runs[0].read(slice(None)))
    assert len(list(tmp_path.glob("*.npy"))) == 2


@pytest.mark.parametrize("text", TEXTS)
def test_a_volume_moves_itself_and_later_ones_only(tmp_path, text):
    cohort, store = make_cohort(hashes={"a": "b"}), Store(tmp_path)
    before = causal.apply(cohort, store, text).volumes[:]
    other = cohort.replace_row(20, 1.5 * cohort.volumes[20] + 7)
    after = causal.apply(other, store, text).volumes[:]
    moved = (after != before).any((1, 2, 3))
    assert not moved[:20].any() and moved[20]
    assert moved[21:].any() == (text not in ("gain", "first:8"))
    np.testing.assert_array_equal(causal.apply(cohort, store, text).volumes[:], before)


# its declared reads


def test_what_has_a_memory_is_declared(tmp_path):
    cohort, store = make_cohort(), Store(tmp_path)
    got = causal.apply(cohort, store, "ema:10+gain")
    assert got.prior == (Prior("online gain+ema:10"),) and not got.prior[0].labels
    note = "runs corrected causally, each volume by those before it (data.online=gain+ema:10)"
    assert got.notes == (note,)
    alone = causal.apply(cohort, store, "gain")
    assert alone.prior == () and alone.notes == (
        "each volume scaled to the same level (data.online=gain)",
    )


def test_the_class_of_protocol(tmp_path):
    vectors, test = make_vectors(*make_values(), tr=2.0), np.arange(RUNS * PER_RUN)

    def judge(text):
        cohort = causal.apply(vectors, Store(tmp_path), text)
        ledger = Ledger(cohort)
        ledger.values("scaler", np.setdiff1d(np.arange(len(cohort.labels)), test))
        seen = ledger.seen(test, prior=False)
        options = {"subject": cohort.subject, "claimed": "strict", "prior": ledger.prior}
        return classify(seen, **options)

    assert judge("gain") == ("strict", {})
    assert judge("ema:10") == ("transductive", {"online ema:10": len(test)})


def vectors(data):
    """Returns vectors, as a user's source does."""
    return make_vectors(*make_values(), tr=2.0)


@pytest.mark.slow
def test_the_audit_agrees(tmp_path, config, capsys):
    """Perturbing each fold and computing it again moves only what a corrected run would move."""
    config.data.update({"source": f"{__name__}:vectors", "online": "ema:10"})
    config.update({"protocols": "nested", "baselines": "", "leaks": False, "balance": 8})
    config.align.regimes, config.voxels.keep, config.voxels.centre = "none", 20, False
    config.headline, config.null_floor = "network", False
    config.model.update({"filters": (8,), "window": 3, "dense": (8,)})
    skeleton.run(EXPERIMENTS["A"], config, tmp_path / "run", until="plan")
    said = capsys.readouterr().out
    assert "applied before: online ema:10 (saw all volumes)" in " ".join(said.split())


# with other steps


def corrected(frames, store):
    cohort = make_cohort(frames=frames, slope=1.0, intercept=0.0)
    return causal.apply(smoothing.apply(cohort, store, 3.0), store, "gain+ema:10").runs[0]


def test_correction_is_done_again_after_random_phases(tmp_path):
    store, seed = Store(tmp_path), [1, 2]
    raw = make_run()
    own = corrected(raw.read(slice(None)), store)
    again = phases.randomised(own, store.scratch(), seed)
    randomised = phases.randomised(phases.uncleaned(own), store.scratch(), seed)
    want = corrected(randomised.frames, Store(tmp_path / "want"))
    np.testing.assert_allclose(again.frames, want.frames, atol=1e-2)
    assert abs(again.frames - own.frames).max() > 1


def test_is_reached_from_the_config(tmp_path, config):
    config.data.update({"source": f"{__name__}:own", "online": "ema:10", "drop_first": 2})
    got = sources.load(config)
    want = causal.apply(make_cohort(), Store(tmp_path / "other"), "ema:10", skip=2)
    np.testing.assert_array_equal(got.volumes[:], want.volumes[:])
    assert got.prior == (Prior("online ema:10"),)
    config.data.scrub_fd_mm = 1000.0  # takes labels, no values
    assert sources.load(config).prior == got.prior


def own(data):
    """Returns a cohort, as a user's source does."""
    return make_cohort()


def test_a_region_is_cut_again_from_corrected_noise(tmp_path):
    mask = np.zeros(SHAPE, bool)
    mask[:3] = True
    store = Store(tmp_path)
    own = causal.apply(make_cohort(), store, "ema:10").with_masks({"01": mask})
    cut = phases.randomised(roi.cut(own).runs[0], store.scratch(), [1, 2])
    whole = phases.randomised(own.runs[0], store.scratch(), [1, 2])
    np.testing.assert_array_equal(cut.frames[:, mask], whole.frames[:, mask])


# refusals


def test_runs_that_are_not_in_time(tmp_path):
    store = Store(tmp_path)
    off = r"expected runs with one TR for data.online \(or --config.data.online=''\)"
    for text in ("gain", "ema:30"):
        with pytest.raises(InputError, match=f"found rows that are not points in time; {off}"):
            causal.apply(make_cohort(tr=None), store, text)
    irregular = make_cohort(tr=None, starts=np.arange(T) ** 1.1)
    with pytest.raises(InputError, match=f"found irregular times; {off}"):
        causal.apply(irregular, store, "drift:1")
    assert causal.apply(irregular, store, "gain").prior == ()  # each volume alone
    assert len(list(tmp_path.glob("*.npy"))) == 1


def test_runs_without_motion_or_a_level(tmp_path):
    store = Store(tmp_path)
    for motion in (None, np.zeros((T, 3))):
        with pytest.raises(InputError, match=r"no realignment parameters.* data.online=motion"):
            causal.apply(make_cohort(motion=motion), store, "motion")
    frames = make_run().frames.copy()
    frames[7] = -6
    with pytest.raises(InputError, match=r"run-1, volume 7: found a level of .*--config.data.onl"):
        causal.apply(make_cohort(frames=frames, intercept=0.0), store, "gain+ema:30")
    assert not list(tmp_path.glob("*.npy"))


def test_cleaning_of_whole_runs_is_refused_beside_it(config):
    config.data.update({"source": f"{__name__}:own", "online": "ema:10", "centre": True})
    config.data.detrend = 2
    said = "^data.online: found 'ema:10' beside data.detrend=2, data.centre=True; expected one of"
    with pytest.raises(InputError, match=said):
        sources.load(config)


def test_an_unknown_correction_is_refused(config):
    config.data.update({"source": f"{__name__}:own", "online": "whiten"})
    with pytest.raises(InputError, match=r"^data.online: found 'whiten'; expected steps joined by"):
        sources.load(config)


# the twin of a cleaning


@pytest.mark.parametrize(
    ("keys", "want"),
    [
        ({}, ""),
        ({"smooth_mm": 5.0, "scrub_fd_mm": 0.5}, ""),
        ({"centre": True}, "cumulative"),
        ({"centre": True, "source": "maps"}, ""),
        ({"detrend": 2}, "drift:2"),
        ({"detrend": 9, "centre": True}, "drift:5"),
        ({"zscore": True, "centre": True}, "zscore"),
        ({"motion": True}, "motion"),
        ({"detrend": 1, "motion": True, "zscore": True}, "drift:1+motion+zscore"),
        ({"high_pass_hz": 0.01}, "ema:30"),
        ({"confounds": "wm_csf,motion24"}, "motion"),
        ({"confounds": "compcor,high_pass"}, ""),
    ],
)
def test_every_cleaning_has_a_twin_that_is_known(config, keys, want):
    config.data.update(keys)
    assert causal.twin(config.data) == want == correction.parse(want).text


def test_on_a_slow_drift_the_twin_is_nearly_as_good_as_the_whole_run(tmp_path):
    """Responses of blocks of 4 volumes, on a drift that is ten times as large."""
    whole = cleaning.apply(make_cohort(), Store(tmp_path), detrend=1, centre=True).volumes[:]
    causally = causal.apply(make_cohort(), Store(tmp_path), "drift:1").volumes[:]
    late = slice(T // 2, None)
    found = np.corrcoef(whole[late].ravel(), causally[late].ravel())[0, 1]
    assert found > 0.95
