"""The simulated cohort: design, determinism, and properties of its signal and noise."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from emojax import masking, sources
from emojax.data.store import Store
from emojax.errors import InputError
from emojax.sources import synthetic
from emojax.sources import synthetic_design as design
from emojax.sources import synthetic_responses as pictures
from emojax.sources import synthetic_signals as simulation

SMALL = synthetic.Settings(subjects=2, volumes=60, grid=(20, 20, 14))
DEMO = synthetic.Settings(subjects=5, grid=(20, 20, 14))
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a store that all tests share; a run's key names everything that it depends on."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def make(folder):
    return lambda settings=SMALL, **changed: synthetic.simulate(
        settings._replace(**changed), Store(folder)
    )


@pytest.fixture
def bare(monkeypatch):
    """Returns responses without the parts that blocks and pictures add to those of their class."""
    monkeypatch.setattr(pictures, "BLOCKS", 0.0)
    monkeypatch.setattr(pictures, "PICTURES", 0.0)
    return pictures.responses.__wrapped__  # not compiled


@pytest.fixture
def data(folder):
    config = common.get_config()
    config.data.store = str(folder)
    config.data.progress = False
    config.data.synthetic.update({"subjects": 2, "volumes": 60, "grid": (20, 20, 14)})
    return config.data


def labels_of(settings):
    """Labels of every run of a design, and the runs, without simulating a volume."""
    scans = design.scans(settings)
    return [synthetic.labels(settings, scan) for scan in scans], scans


def test_design_a_is_the_papers():
    labels, scans = labels_of(synthetic.Settings())
    assert len({scan.subject for scan in scans}) == 11
    assert [scan.volumes for scan in scans] == 22 * [200]
    assert all(np.bincount(label).tolist() == [100, 50, 50] for label in labels)
    assert all((label == labels[0]).all() for label in labels[::2])  # synchronous over subjects
    assert (labels[0] != labels[1]).any()  # but not over runs


def test_design_b_is_the_papers():
    labels, scans = labels_of(synthetic.Settings(design="B"))
    runs = np.bincount([scan.subject for scan in scans])
    assert (len(runs), runs.sum(), set(runs.tolist())) == (22, 39, {1, 2, 3})
    labels = np.concatenate(labels)
    assert np.bincount(labels[labels >= 0]).tolist() == [1524, 1524]
    assert (labels == -1).sum() > 3000  # rest is scanned, and has no label
    assert len({scan.volumes for scan in scans}) > 2


def test_design_b_in_short_runs():
    labels, scans = labels_of(synthetic.Settings(design="B", volumes=50))
    assert {scan.volumes for scan in scans} == {50}
    labels = np.concatenate(labels)
    assert set(np.unique(labels).tolist()) == {-1, 0, 1}


def test_independent_orders_differ_and_keep_the_counts():
    labels, _ = labels_of(synthetic.Settings(order="independent"))
    assert len({label.tobytes() for label in labels}) > 15
    assert all(np.bincount(label).tolist() == [100, 50, 50] for label in labels)


def test_a_shorter_run_starts_as_a_longer_one():
    long, _ = labels_of(synthetic.Settings())
    short, _ = labels_of(synthetic.Settings(volumes=90))
    assert all((a[:90] == b).all() for a, b in zip(long, short, strict=True))


@pytest.mark.slow
def test_cohort(make):
    cohort = make()
    assert cohort.classes == ("rest", "neutral", "negative")
    assert cohort.shape == (20, 20, 14) and len(cohort.labels) == 240
    assert cohort.subjects == ("01", "02") and cohort.tr == 2.0
    run = cohort.runs[0]
    assert (run.name, run.frames.dtype, run.motion.shape) == ("run-01", np.int16, (60, 6))
    assert isinstance(run.frames, np.memmap) and len(cohort.hashes) == 4
    assert np.abs(np.linalg.det(run.affine)) == pytest.approx(192 * 192 * 132 / 5600)


def test_same_seed_same_values_and_a_second_start_computes_nothing(make, tmp_path, monkeypatch):
    first = make()
    again = synthetic.simulate(SMALL, Store(tmp_path))
    for a, b in zip(first.runs, again.runs, strict=True):
        np.testing.assert_array_equal(a.frames, b.frames)
    assert first.hashes == again.hashes
    monkeypatch.delattr(simulation, "series")
    np.testing.assert_array_equal(make().runs[0].motion, first.runs[0].motion)


@pytest.mark.parametrize(
    "changed",
    [{"seed": 1}, {"signal": 0.5}, {"null": True}, {"nonlinear": 0.5}, {"shared": 0.0}],
)
def test_what_changes_the_values(make, changed):
    a, b = make(), make(**changed)
    assert (a.runs[0].frames != b.runs[0].frames).any()
    assert set(a.hashes.values()).isdisjoint(b.hashes.values())


def test_a_subject_does_not_depend_on_how_many_there_are(make):
    np.testing.assert_array_equal(make(subjects=3).runs[0].frames, make().runs[0].frames)


def test_keys_at_0_leave_the_name_of_a_run_as_it_was_without_them(make):
    """Stores and workdir identities from before these keys stay valid."""
    settings = [0, "A", 0, 0, [20, 20, 14], 1.0, "shared", False]
    name = json.dumps(["synthetic", 1, *settings, 1, 1, 60])
    assert hashlib.sha256(name.encode()).hexdigest() in make(shared=0.0).hashes.values()
    name = json.dumps(["synthetic", 1, *settings, 0.0, 1.0, 1, 1, 60])
    assert hashlib.sha256(name.encode()).hexdigest() in make().hashes.values()


def test_null_differs_by_the_response_alone(make):
    """The noise is identical to the last digit without a response, and in the air."""
    cohort, null = make(shared=0.0), make(null=True)
    a, b = (np.asarray(c.runs[0].frames, int) for c in (cohort, null))
    places = simulation.places((20, 20, 14))
    strength = np.asarray(simulation.bumps(places, simulation.REGIONS)).reshape(20, 20, 14)
    silent, active = strength < 1e-6, strength > 0.5
    assert (a[:, silent] == b[:, silent]).mean() > 0.999
    assert (a[:, active] != b[:, active]).mean() > 0.5


@pytest.mark.parametrize("grid", [(16, 16, 12), (20, 20, 14)])
def test_the_mask_is_the_brain(grid):
    places = simulation.places(grid)
    where = simulation.near_brain(grid)
    size = np.divide(simulation.FIELD, grid)
    mean = np.full(len(places), 10.0)
    mean[where] += np.asarray(simulation.subject(KEY, KEY, places[where], size).mean)
    true = mean > 0.4 * simulation.TISSUE
    mask = masking.brain_mask(mean.reshape(grid)).ravel()
    dice = 2 * (mask & true).sum() / (mask.sum() + true.sum())
    assert dice > 0.9
    assert 600 < mean[mask].mean() < 900


def test_air_is_dark_and_no_voxel_constant(make):
    frames = make().runs[0].frames
    mask = masking.brain_mask(frames.mean(0))
    kept, counts = masking.usable_voxels(frames)
    assert kept.all() and counts.zero == 0
    assert frames[:, ~mask].mean() < 0.1 * frames[:, mask].mean()
    assert frames.min() >= 0 and frames.max() < 2500


def test_hrf_has_area_one_and_peaks_at_five_seconds():
    t = jnp.arange(0, 40, 0.01)
    response = pictures.hrf(t)
    assert float(response.sum()) * 0.01 == pytest.approx(1, abs=1e-3)
    assert float(t[response.argmax()]) == pytest.approx(5, abs=0.1)
    assert response.min() < 0


def test_fields_are_smooth_with_mean_0_and_sd_1():
    places = simulation.places((32, 32, 22))
    field = np.asarray(simulation.fields(KEY, places, jnp.full(40, 20.0))).reshape(40, 32, 32, 22)
    assert abs(field.mean()) < 0.05 and field.std() == pytest.approx(1, abs=0.05)
    beside = (field[:, 1:] * field[:, :-1]).mean() / (field**2).mean()
    assert beside == pytest.approx(np.exp(-(6.0**2) / (2 * 20.0**2)), abs=0.02)
    far = (field[:, 12:] * field[:, :-12]).mean() / (field**2).mean()
    assert abs(far) < 0.1


@pytest.mark.parametrize("shared", [0.0, 0.35, 1.0])
def test_mixing_is_orthogonal_and_nearer_to_the_identity_the_more_is_shared(shared):
    q = np.asarray(simulation.mixing(KEY, 35, shared))
    np.testing.assert_allclose(q @ q.T, np.eye(35), atol=1e-5)
    assert np.trace(q) / 35 == pytest.approx({0.0: 0, 0.35: 0.55, 1.0: 1}[shared], abs=0.15)


def test_noise_is_autoregressive_of_sd_1():
    memory = jnp.array([0.0, 0.2, 0.35, 0.6])
    x = np.asarray(simulation.autoregressive(KEY, memory, 20000))
    np.testing.assert_allclose(x.std(0), 1, atol=0.05)
    lag = (x[1:] * x[:-1]).mean(0) / (x**2).mean(0)
    np.testing.assert_allclose(lag, memory, atol=0.03)


@pytest.mark.slow
def test_noise_of_a_run_is_that_of_a_3t_scanner(make):
    """Median tSNR is 40 to 90; autocorrelation, with drift and task, exceeds that of the noise."""
    frames = np.asarray(make(DEMO, null=True).runs[0].frames, np.float32)
    mask = masking.brain_mask(frames.mean(0))
    tsnr = frames.mean(0)[mask] / frames.std(0)[mask]
    assert 40 < np.median(tsnr) < 90
    x = frames[:, mask] - frames[:, mask].mean(0)
    lag = (x[1:] * x[:-1]).sum(0) / (x**2).sum(0)
    assert 0.35 < np.median(lag) < 0.8


def test_responses_belong_to_pictures_not_to_places_in_the_run():
    kind, block = np.repeat([0, -1, 1], 8), np.repeat([0, -1, 0], 8)
    picture = np.tile(np.repeat([0, 1], 4), 3)
    stimuli = pictures.Stimuli(kind, block, picture)
    x = np.asarray(pictures.responses(KEY, KEY, stimuli))
    order = np.r_[16:24, 8:16, 0:8]
    y = pictures.responses(KEY, KEY, pictures.Stimuli(*(v[order] for v in stimuli)))
    np.testing.assert_array_equal(y, x[order])
    assert (x[8:16] == 0).all() and (x[0] == x[3]).all() and (x[3] != x[4]).any()


@pytest.mark.parametrize("nonlinear", [0.0, 0.4, 1.0])
def test_opposed_patterns_cancel_in_the_means_of_classes(bare, nonlinear):
    kind = np.r_[np.zeros(6, int), np.ones(6, int), -1]
    stimuli = pictures.Stimuli(kind, np.r_[0:6, 0:6, -1], np.zeros(13, int))
    x = np.asarray(bare(KEY, KEY, stimuli, nonlinear))
    means = x[kind == 0].mean(0), x[kind == 1].mean(0)
    whole = np.asarray(bare(KEY, KEY, stimuli))
    linear = whole[kind == 1].mean(0) - whole[kind == 0].mean(0)
    np.testing.assert_allclose(means[1] - means[0], (1 - nonlinear) * linear, atol=1e-5)
    for k in (0, 1):  # neighbours are opposed, every second block is the same
        own = x[kind == k] - means[k]
        np.testing.assert_allclose(own[1:], -own[:-1], atol=1e-5)
        length = np.linalg.norm(own, axis=1)
        np.testing.assert_allclose(length, nonlinear * pictures.OPPOSED, rtol=0.4, atol=1e-5)
    assert (x[-1] == 0).all()


def test_load_reads_the_config(data, make):
    cohort = sources.load(data)
    np.testing.assert_array_equal(cohort.labels, make().labels)
    data.subjects, data.runs = "2", "01"
    part = sources.load(data)
    assert [(run.subject, run.name) for run in part.runs] == [("02", "run-01")]
    np.testing.assert_array_equal(part.runs[0].frames, cohort.runs[2].frames)


def test_lag_and_dropped_volumes_apply(data):
    data.drop_first, data.hrf_delay_s = 4, 7.0
    cohort = sources.load(data)
    assert cohort.frame.min() == 4
    assert cohort.time[cohort.labels > 0].min() == 15 + 7


def test_events_are_the_true_blocks(data):
    blocks = synthetic.events(data, "01", "run-01")
    assert [block.onset for block in blocks] == [15, 55, 95]
    assert {block.duration for block in blocks} == {20}
    assert {block.trial_type for block in blocks[:2]} == {"neutral", "negative"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1),
        ("design", "C"),
        ("subjects", 1),
        ("subjects", 12),
        ("volumes", 10),
        ("grid", (64, 64)),
        ("grid", (8, 64, 44)),
        ("signal", -0.5),
        ("order", "random"),
        ("nonlinear", 1.5),
        ("nonlinear", float("nan")),
        ("shared", -1.0),
    ],
)
def test_settings_out_of_range(name, value, tmp_path):
    with pytest.raises(InputError, match=rf"data\.synthetic\.{name}: found .*; expected"):
        synthetic.simulate(SMALL._replace(**{name: value}), Store(tmp_path))


@pytest.mark.parametrize(("name", "value"), [("subjects", "09"), ("runs", "3")])
def test_filters_name_what_exists(data, name, value):
    data[name] = value
    with pytest.raises(InputError, match=rf"data\.{name}: found '{value}'; expected some of .*01"):
        sources.load(data)
