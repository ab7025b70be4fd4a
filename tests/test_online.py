"""One volume after the other: corrected, checked, decoded, and nothing but the past."""

import numpy as np
import pytest
from scipy import ndimage
from tiny_decoder import AFFINE, CLASSES, made

from emojax import decoder, online
from emojax.data import causal_settings
from emojax.errors import InputError
from emojax.online import correction


def accuracy(records, labels):
    return np.mean(
        [CLASSES.index(own.decision) == y for own, y in zip(records, labels, strict=True)]
    )


def probabilities(records):
    return np.stack([own.probabilities for own in records])


MADE, LATER, LABELS = made()
CLEAN = online.replay(MADE, LATER, AFFINE)


def test_without_correction_it_is_decode():
    found = online.replay(MADE, LATER, AFFINE, correct="none")
    expected = np.stack([decoder.decode(MADE, volume, AFFINE) for volume in LATER])
    np.testing.assert_array_equal(probabilities(found), expected)
    assert np.isnan(found[0].motion).all() and np.isnan(found[0].displacement)
    assert accuracy(found, LABELS) > 0.9


def test_a_clean_run_stays_what_it_is():
    assert accuracy(CLEAN, LABELS) > 0.9
    assert {own.status for own in CLEAN} == {"ok"}
    assert [own.volume for own in CLEAN] == list(range(len(LATER)))
    assert all(own.decision == CLASSES[int(own.probabilities.argmax())] for own in CLEAN)


@pytest.mark.parametrize("change", ["gain", "drift", "offset", "mid-run"])
def test_what_a_scanner_does_to_the_level_moves_nothing(change):
    t = np.arange(len(LATER))[:, None, None, None] / len(LATER)
    x = {
        "gain": LATER * 1.1,
        "drift": LATER * (1 + 0.05 * t),
        "offset": LATER + 40,
        "mid-run": LATER * np.where(t < 0.5, 1, 1.05),
    }[change].astype(np.float32)
    raw = online.replay(MADE, x, AFFINE, correct="none")
    assert np.abs(probabilities(raw) - probabilities(CLEAN)).max() > 0.03
    found = online.replay(MADE, x, AFFINE, correct="level")
    level = online.replay(MADE, LATER, AFFINE, correct="level")
    np.testing.assert_allclose(probabilities(found), probabilities(level), atol=2e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_head_that_moved_is_moved_back(axis):
    shift = np.eye(3)[axis] * 0.5
    x = np.stack([ndimage.shift(v, shift, order=5, mode="nearest") for v in LATER]) * 1.05
    found = online.replay(MADE, x.astype(np.float32), AFFINE)
    assert accuracy(found, LABELS) >= accuracy(CLEAN, LABELS) - 0.1
    motion = np.median([own.motion for own in found], axis=0)
    np.testing.assert_allclose(motion[:3], shift * 4, atol=0.15)
    np.testing.assert_allclose(motion[3:], 0, atol=0.3)
    assert found[0].displacement == pytest.approx(2, abs=0.6)
    assert found[1].displacement < 0.5


def test_steps_are_pure_and_depend_on_nothing_later():
    first = online.init(MADE)
    one, record = online.step(first, LATER[0], AFFINE)
    again, same = online.step(first, LATER[0], AFFINE)
    assert first.count == 0 and first.before is None and one.count == again.count == 1
    np.testing.assert_array_equal(record.probabilities, same.probabilities)
    changed = LATER.copy()
    changed[10:] *= 1.07
    found = online.replay(MADE, changed, AFFINE)
    np.testing.assert_array_equal(probabilities(found)[:10], probabilities(CLEAN)[:10])


def test_a_frozen_scanner_is_marked_and_the_run_goes_on():
    x = LATER.copy()
    x[5] = x[4]
    found = online.replay(MADE, x, AFFINE)
    assert [own.volume for own in found if own.status == "marked"] == [5]
    assert found[5].marks.reasons == ("the same as the volume before",)


def test_a_marked_volume_does_not_move_the_start_of_the_next():
    x = LATER.copy()
    x[5] = x[5][::-1]
    found = online.replay(MADE, x, AFFINE)
    assert found[5].status == "marked"
    np.testing.assert_allclose(found[6].probabilities, CLEAN[6].probabilities, atol=0.05)


@pytest.mark.parametrize("text", ["gain", "gain+cumulative", "ema:6", "gain+drift:1"])
def test_what_training_did_is_done_to_every_volume(text):
    own, later, _ = made(online_text=text)
    chosen = causal_settings.parse(text)
    later = later[:12]
    found = online.replay(own, later, AFFINE, correct="none")
    x = (
        later * np.stack([correction.gain(v) for v in later])[:, None, None, None]
        if chosen.gain
        else later
    )
    x = np.asarray(x).reshape(len(x), -1)[:, np.asarray(own.weights["voxels"])]
    voxels = chosen._replace(gain=False)
    if chosen.steps:
        x = correction.replay(voxels, correction.init(voxels, x.shape[1:]), x)[1]
    expected = [decoder.decode_inputs(own, np.asarray(row)) for row in x]
    np.testing.assert_allclose(probabilities(found), expected, atol=1e-5)


def test_motion_regressors_are_given_or_estimated():
    own, later, _ = made(online_text="motion")
    state = online.init(own, "none")
    with pytest.raises(InputError, match="motion parameters None; expected six finite ones, as in"):
        online.step(state, later[0], AFFINE)
    state, record = online.step(state, later[0], AFFINE, motion=np.zeros(6))
    assert np.isfinite(record.probabilities).all()
    given, estimated = online.init(own), online.init(own)
    for volume in later[:10]:
        estimated, found = online.step(estimated, volume, AFFINE)
        given, known = online.step(given, volume, AFFINE, motion=found.motion)
        np.testing.assert_array_equal(found.probabilities, known.probabilities)


def test_auto_corrects_what_can_be_corrected():
    assert online.steps_of(MADE) == ("motion", "level")
    assert online.steps_of(MADE, "none") == ()
    assert online.steps_of(made(reference=False)[0]) == ()
    assert online.steps_of(made(online_text="gain+ema:9")[0]) == ("motion",)
    assert online.steps_of(made(affine=None)[0]) == ("level",)
    others = MADE.replace(facts=MADE.facts._replace(reference_of=""))
    assert online.steps_of(others) == ()
    maps = MADE.replace(facts=MADE.facts._replace(limits=(("correlation", 0.5, 1.0),)))
    assert online.steps_of(maps) == ("motion",)


def test_steps_that_are_not_possible_say_so():
    with pytest.raises(InputError, match="'drift'; expected auto, none, or motion"):
        online.init(MADE, "drift")
    with pytest.raises(InputError, match="'level'; expected none, which this decoder has"):
        online.init(made(reference=False)[0], "level")
    with pytest.raises(InputError, match="another affine"):
        online.step(online.init(MADE), LATER[0], np.diag([4.0, 4, 5, 1]))
    with pytest.raises(InputError, match="RUN, volume 1: found 1 voxels of the mask that are not"):
        bad = LATER[:2].copy()
        bad[1][10, 10, 7] = np.nan
        online.replay(MADE, bad, AFFINE, where="RUN")


def test_volumes_that_training_left_out_are_left_out():
    own, later, _ = made(online_text="gain+cumulative")
    rest = online.replay(own, later[3:12], AFFINE, correct="none")
    own = own.replace(facts=own.facts._replace(drop_first=3))
    found = online.replay(own, later[:12], AFFINE, correct="none")
    assert [one.decision for one in found[:3]] == [""] * 3
    assert all(one.marks.reasons == ("one of the first 3, left in training",) for one in found[:3])
    np.testing.assert_array_equal(probabilities(found)[3:], probabilities(rest))


def test_a_buffer_that_is_used_again_is_no_repeated_volume():
    state, buffer = online.init(MADE), np.empty_like(LATER[0])
    for volume in LATER[:4]:
        buffer[:] = volume
        state, record = online.step(state, buffer, AFFINE)
        assert record.status == "ok"


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16])
def test_a_frozen_scanner_is_marked_in_every_type(dtype):
    x = (LATER[:3] * 1.0000001234).astype(dtype)
    x[2] = x[1]
    assert [one.status for one in online.replay(MADE, x, AFFINE)] == ["ok", "ok", "marked"]


def test_motion_that_is_not_found_is_said_and_not_used():
    x = LATER[:6].copy()
    x[3, 2, 10, 7] = 3e5  # outside of the mask
    found = online.replay(MADE, x, AFFINE)
    np.testing.assert_allclose(found[3].probabilities, CLEAN[3].probabilities, atol=0.1)
    np.testing.assert_allclose(found[4].probabilities, CLEAN[4].probabilities, atol=0.1)


def test_what_training_scaled_is_not_scaled_twice():
    own, later, _ = made(online_text="gain")
    with pytest.raises(InputError, match="'level'; expected motion, which this decoder has"):
        online.init(own, "level")
    with pytest.raises(InputError, match="a decoder of corrected volumes"):
        decoder.decode(own, later[0], AFFINE)


def test_a_marked_volume_does_not_enter_the_memory():
    own, later, _ = made(online_text="cumulative")
    bad = later[:8].copy()
    bad[3] = bad[3][::-1] * 1.8
    without = np.delete(later[:8], 3, axis=0)
    found = probabilities(online.replay(own, bad, AFFINE, correct="none"))
    expected = probabilities(online.replay(own, without, AFFINE, correct="none"))
    np.testing.assert_array_equal(np.delete(found, 3, axis=0), expected)


def test_a_reference_may_be_anything_outside_of_the_mask():
    reference = MADE.reference.copy()
    reference[:, 0] = np.nan
    x = np.stack([ndimage.shift(v, (0.5, 0, 0), order=5, mode="nearest") for v in LATER[:4]])
    found = online.replay(MADE.replace(reference=reference), x, AFFINE)
    assert np.isfinite(probabilities(found)).all()
