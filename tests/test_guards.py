"""Guards mark faulty volumes and leave clean ones alone."""

import numpy as np
import pytest
from scipy import ndimage

from emojax import decoder
from emojax.decoder import guards

GRID = (16, 18, 12)


def head(rng, level=800.0):
    """Returns a smooth head without symmetry, and its mask."""
    x = ndimage.gaussian_filter(rng.normal(size=GRID), 1.5)
    mask = np.zeros(GRID, bool)
    mask[2:-3, 2:-2, 1:-1] = True
    return ((level + 900 * x / x.std() / 4) * mask).astype(np.float32), mask


def runs(rng, image, count=2, length=20, drift=0.01):
    """Returns runs of an image with noise and a smooth drift that differs by run."""
    out = []
    for _ in range(count):
        field = ndimage.gaussian_filter(rng.normal(size=GRID), 3)
        field *= drift / field.std()
        t = np.linspace(-1, 1, length)[:, None, None, None]
        x = image * (1 + t * field) + rng.normal(size=(length, *GRID)) * 5
        out.append(x.astype(np.float32))
    return out


def bundle(reference, mask, limits=()):
    values = reference[mask]
    facts = decoder.Facts(
        ("a", "b"), GRID, float(values.mean()), float(values.std()), limits=limits, reference_of="x"
    )
    own = decoder.Member(
        np.arange(6), np.zeros(6), np.ones(6), np.zeros((6, 2)), np.zeros(2), mapping=None
    )
    return decoder.from_linear(facts, [own], mask=mask).replace(reference=reference)


@pytest.fixture(scope="module", params=[1, 3], ids=["one run", "three runs"])
def known(request):
    rng = np.random.default_rng(request.param)
    image, mask = head(rng)
    *calibration, later = runs(rng, image, request.param + 1)
    reference, limits = guards.measured(calibration, mask)
    return bundle(reference, mask, limits), later, rng


def reasons(made, volume, before=None):
    return decoder.verify(made, volume, before=before).reasons


def test_clean_volumes_of_another_run_are_not_marked(known):
    made, later, _ = known
    for before, volume in zip([None, *later], later, strict=False):
        assert reasons(made, volume, before) == ()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("flipped left to right", lambda v: v[::-1]),
        ("flipped front to back", lambda v: v[:, ::-1]),
        ("upside down", lambda v: v[:, :, ::-1]),
        ("moved by a voxel", lambda v: np.roll(v, 1, 0)),
        ("half zero", lambda v: v * (np.arange(16) < 8)[:, None, None]),
        ("not written yet", lambda v: v * (np.arange(12) < 6)),
        ("x 0.5", lambda v: v * 0.5),
        ("x 2", lambda v: v * 2),
        ("another person", lambda v: head(np.random.default_rng(9))[0]),
    ],
)
def test_what_is_wrong_is_marked(known, name, change):
    made, later, _ = known
    for volume in later[::5]:
        assert reasons(made, np.ascontiguousarray(change(volume)))


def test_reasons_are_words_with_numbers(known):
    made, later, _ = known
    volume = later[3]
    assert reasons(made, volume, volume) == ("the same as the volume before",)
    empty = np.where(np.arange(12) == 5, 0, volume)
    assert reasons(made, empty)[0] == "a slice without content (the first is 5)"
    empty = np.where(np.arange(12) >= 6, 7, volume)  # not zero, but constant
    assert reasons(made, empty)[0] == "5 slices without content (the first is 6)"
    gain = reasons(made, volume * 2)
    assert any(text.startswith("gain ") and "more than 1." in text for text in gain)
    assert any(text.startswith("level ") for text in gain)
    flipped = reasons(made, volume[::-1])
    assert flipped[0].startswith("correlation ") and "less than 0.9" in flipped[0]


def test_the_line_to_the_reference_is_found(known):
    made, later, _ = known
    clean = decoder.verify(made, later[0])
    assert abs(clean.gain - 1) < 0.05 and abs(clean.offset) < 40 and clean.correlation > 0.97
    moved = decoder.verify(made, later[0] * 1.1 + 60)
    assert moved.gain == pytest.approx(1.1 * clean.gain, rel=1e-4)
    assert moved.offset == pytest.approx(1.1 * clean.offset + 60, abs=0.05)
    assert moved.correlation == pytest.approx(clean.correlation, abs=1e-5)


def test_marks_are_those_of_numpy(known):
    made, later, _ = known
    inside, reference = later[4][made.mask].astype(float), made.reference[made.mask].astype(float)
    found = decoder.verify(made, later[4])
    slope, offset = np.polyfit(reference, inside, 1)
    assert found.correlation == pytest.approx(np.corrcoef(inside, reference)[0, 1], abs=1e-5)
    assert (found.gain, found.offset) == (
        pytest.approx(slope, abs=1e-5),
        pytest.approx(offset, abs=0.02),
    )


def test_without_a_reference_only_content_is_looked_at(known):
    made, later, _ = known
    plain = made.replace(reference=None)
    assert reasons(plain, later[0][::-1]) == ()
    assert np.isnan(decoder.verify(plain, later[0]).gain)
    assert reasons(plain, later[0], later[0]) == ("the same as the volume before",)
    assert reasons(plain, later[0] * (np.arange(12) < 6))


def test_runs_that_differ_widen_the_limits():
    rng = np.random.default_rng(5)
    image, mask = head(rng)
    calm = dict((n, a) for n, a, _ in guards.measured(runs(rng, image, 3, drift=0.002), mask)[1])
    wild = dict((n, a) for n, a, _ in guards.measured(runs(rng, image, 3, drift=0.03), mask)[1])
    assert wild["correlation"] < calm["correlation"] < 1


def test_groups_may_be_anything_that_is_read_twice():
    rng = np.random.default_rng(6)
    image, mask = head(rng)
    data = runs(rng, image, 2)
    once = guards.measured(data, mask)
    again = guards.measured([list(run) for run in data], mask)
    np.testing.assert_array_equal(once[0], again[0])
    assert once[1] == again[1]
    np.testing.assert_allclose(once[0], np.concatenate(data).mean(0), rtol=1e-4)


def test_values_without_a_level_have_no_limit_of_the_gain():
    rng = np.random.default_rng(7)
    mask = np.ones(GRID, bool)
    maps = ndimage.gaussian_filter(rng.normal(size=GRID), 1) + rng.normal(size=(9, *GRID)) * 0.01
    assert [name for name, *_ in guards.measured([maps], mask)[1]] == ["correlation"]


def test_too_few_volumes_say_so():
    with pytest.raises(ValueError, match="want two volumes or more as a reference; got 1"):
        guards.measured([np.ones((1, *GRID))], np.ones(GRID, bool))
