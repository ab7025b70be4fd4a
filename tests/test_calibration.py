"""Calibration: which parts are renewed, and which runs are refused."""

import json

import nibabel
import numpy as np
import pytest

from emojax import decoder
from emojax.decoder import calibration, commands, fit_quality, localizer
from emojax.errors import InputError

pytestmark = pytest.mark.usefixtures("quick_compile")
GRID, FRAMES, DIMENSIONS, LEVEL = (6, 5, 4), 120, 12, 800.0
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
VOXELS = np.arange(0, 120, 3)


def course(rng, design):
    """Returns the responses that all brains share in a run, [t, dimensions], and the classes."""
    labels, t = np.zeros(FRAMES, int), 4
    while t < FRAMES:
        length, pause = (10, 10) if design == "periodic" else rng.integers(4, 12, 2)
        labels[t : t + length] = rng.integers(1, 3)
        t += length + pause
    means = np.zeros((3, DIMENSIONS))
    means[1, :3], means[2, 3:6] = 2, 2
    own = rng.normal(size=(FRAMES, DIMENSIONS))
    own = np.apply_along_axis(np.convolve, 0, own, np.ones(4) / 2, "same")
    return means[labels] + own * (labels > 0)[:, None], labels


def person(rng, courses):
    """Returns the runs of a person, [t, X, Y, Z] each: an own topography, an own image, noise."""
    mixing, image = rng.normal(size=(DIMENSIONS, 120)), LEVEL + 100 * rng.normal(size=120)
    drift = np.linspace(0, 20, FRAMES)[:, None]
    runs = [
        image + 8 * one @ mixing + drift + 20 * rng.normal(size=(FRAMES, 120)) for one in courses
    ]
    return [run.reshape(FRAMES, *GRID).astype(np.float32) for run in runs]


def make(design="periodic", members=1, seed=0):
    rng = np.random.default_rng(seed)
    courses, labels = zip(*(course(rng, design) for _ in range(2)), strict=True)
    template = np.concatenate(courses) @ rng.normal(size=(DIMENSIONS, len(VOXELS)))
    template = template + 2 * rng.normal(size=template.shape)
    facts = decoder.Facts(
        ("rest", "a", "b"),
        GRID,
        LEVEL,
        100.0,
        2.0,
        "old",
        ("labels 5 s behind events",),
        (("alignment", 1800, 0), ("scaler", 900, 0)),
        ("run-01", "run-02"),
    )
    one = decoder.Member(
        VOXELS,
        template.mean(0),
        template.std(0),
        rng.normal(size=(len(VOXELS), 3)),
        np.zeros(3),
        template=template,
        run=np.repeat([0, 1], FRAMES),
        frame=np.tile(np.arange(FRAMES), 2),
    )
    bundle = decoder.from_linear(facts, [one] * members, mask=np.ones(GRID, bool), affine=AFFINE)
    return bundle, person(rng, courses), labels


def wrong(run, other):
    rng = np.random.default_rng(1)
    image, sd = run.mean(0), run.std(0)
    return {
        "late by 3": (np.roll(run, -3, 0), "fits best [234] volumes later .*is its start cut off"),
        "late by 10": (np.roll(run, -10, 0), "fits best (9|10|11) volumes later"),
        "early": (np.roll(run, 5, 0), "fits best [456] volumes earlier"),
        "reversed": (run[::-1], "found a run that fits"),
        "shuffled": (rng.permutation(run), "found a run that fits"),
        "noise": ((image + sd * rng.normal(size=run.shape)).astype("f"), "found a run that fits"),
        "wrong run": (other, "found a run that fits"),
        "constant": (np.repeat(run[:1], len(run), 0), "the same as the one before"),
        "cut": (run[:100], "100 volumes; expected 120 or more"),
        "short": (run[:10], "10 volumes; expected 24 or more"),
        "grid": (run[:, :-1], r"volumes of \(5, 5, 4\)"),
    }


@pytest.mark.parametrize("design", ["periodic", "jittered"])
@pytest.mark.parametrize("seed", range(3))
def test_right_runs_pass_and_wrong_ones_are_refused(design, seed):
    bundle, (first, second), _ = make(design, seed=seed)
    for name, run in (("run-01", first), ("run-02", second), ("run-01", 1.1 * first)):
        made = decoder.calibrate(bundle, run, "new", name, AFFINE, tr=2.0)
        fit = dict(made.facts.fit)
        assert abs(fit["lag"]) <= 1 and fit["p"] <= 0.05 and "lag -12" in fit
        assert fit["correlation"] > fit["null mean"] + 2 * fit["null sd"]
    for what, (run, said) in wrong(first, second).items():
        with pytest.raises(InputError, match=said) as error:
            decoder.calibrate(bundle, run, "new", "run-01", AFFINE if what != "grid" else None)
        assert "\n" not in str(error.value), what


def test_scans_of_another_kind_are_refused():
    bundle, (run, _), _ = make()
    moved = AFFINE.copy()
    moved[:3, 3] = 50
    with pytest.raises(InputError, match="another affine"):
        decoder.calibrate(bundle, run, "new", 0, moved)
    with pytest.raises(InputError, match=r"TR 1\.5 s; expected 2 s"):
        decoder.calibrate(bundle, run, "new", 0, AFFINE, tr=1.5)
    with pytest.raises(InputError, match="by: found 'day'; expected one of time, class, none"):
        decoder.calibrate(bundle, run, "new", by="day")


def test_nothing_of_the_old_subject_stays():
    bundle, (run, _), _ = make(members=2)
    made = decoder.calibrate(
        bundle.replace(id="ab" * 32), 1.1 * run, "new", inputs=[("run.nii", "0" * 64)]
    )
    facts = made.facts
    assert (facts.subject, facts.reference_of, facts.parent) == ("new", "new", "ab" * 32)
    assert facts.provenance == (("scaler", 900, 0), ("alignment", FRAMES, 0))
    assert facts.inputs == (("run.nii", "0" * 64),) and made.id == ""
    assert facts.level == pytest.approx(1.1 * run.mean(), rel=1e-5)
    np.testing.assert_allclose(made.reference, 1.1 * run.mean(0), rtol=1e-5)
    assert {"correlation", "gain"} <= {name for name, *_ in facts.limits}


def test_noise_passes_as_seldom_as_the_null_says():
    rng = np.random.default_rng(0)
    run, frame = np.zeros(FRAMES, int), np.arange(FRAMES)
    smooth = np.ones(4) / 2
    template, *noises = np.apply_along_axis(
        np.convolve, 1, rng.normal(size=(61, FRAMES, 20)), smooth, "same"
    )
    found = [
        fit_quality.by_time([fit_quality.Rows(noise, template, run, frame)], 0).p
        for noise in noises
    ]
    assert 0.3 < np.mean(found) < 0.7 and np.mean(np.array(found) <= 0.05) <= 0.12


def test_classes_of_a_localizer():
    bundle, _, known = make()
    with pytest.raises(InputError, match="template without labels"):
        decoder.calibrate(bundle, make()[1][0], "new", by="class", labels=known[0])
    for own in bundle.calibration["members"]:
        own["label"] = np.concatenate(known)
    rng = np.random.default_rng(9)
    own, labels = course(rng, "jittered")  # other times than those of training
    (run,) = person(rng, [own])
    made = decoder.calibrate(bundle, run, "new", by="class", labels=labels)
    assert dict(made.facts.fit)["p"] <= 0.02
    assert made.facts.provenance[-1] == ("alignment", FRAMES, FRAMES)
    with pytest.raises(InputError, match="fit no better than by chance"):
        decoder.calibrate(bundle, rng.permutation(run), "new", by="class", labels=labels)
    with pytest.raises(InputError, match="0 volumes of class b"):
        decoder.calibrate(bundle, run, "new", by="class", labels=np.minimum(labels, 1))
    with pytest.raises(InputError, match="labels of 0 volumes"):
        decoder.calibrate(bundle, run, "new", by="class")


def test_without_alignment_weights_stay():
    bundle, (run, other), _ = make()
    with pytest.raises(InputError, match="aligned to old"):
        decoder.calibrate(bundle, run, "new", by="none")
    again = decoder.calibrate(bundle, 1.2 * run, "old", by="none")  # a new session
    np.testing.assert_array_equal(again.weights["kernel"], bundle.weights["kernel"])
    assert (again.facts.reference_of, again.facts.fit) == ("old", ())
    stranger = person(np.random.default_rng(5), [np.zeros((FRAMES, DIMENSIONS))])[0]
    with pytest.raises(InputError, match="unlike the reference image of old"):
        decoder.calibrate(again, stranger, "old", by="none")
    decoder.calibrate(again, other, "old", by="none")


def test_the_command(tmp_path, capsys):
    bundle, (run, _), _ = make()
    decoder.save(bundle, tmp_path / "bundle")
    for name in ("sub-new_bold.nii.gz", "sub-other_bold.nii.gz"):
        image = nibabel.Nifti1Image(np.moveaxis(run, 0, -1), AFFINE)
        image.header.set_zooms((3, 3, 3, 2))
        image.header.set_xyzt_units("mm", "sec")
        nibabel.save(image, tmp_path / name)
    path = tmp_path / "sub-new_bold.nii.gz"

    def calibrate(image, workdir, **more):
        words = str(tmp_path / "bundle"), str(image), str(tmp_path / workdir), "new"
        return commands.calibrate(*words, more.pop("run", ""), **more)

    made = decoder.load(calibrate(path, "W"))
    assert "correlation" in capsys.readouterr().err
    ((name, digest),) = made.facts.inputs
    assert name == path.name and len(digest) == 64 and made.facts.parent
    assert dict(json.loads((tmp_path / "W" / "calibrate.json").read_text())["fit"])["p"] < 0.02
    for image, more, said in (
        (path, {"run": "run-02"}, "found a run that fits"),
        (tmp_path / "sub-other_bold.nii.gz", {}, "an image of subject other"),
        (path, {"by": "class"}, "sub-new_events.tsv: found no such file"),
    ):
        with pytest.raises(InputError, match=said):
            calibrate(image, "V", **more)
        assert not (tmp_path / "V" / "decoder").exists()


def test_labels_of_a_table(tmp_path):
    facts, path = make()[0].facts, tmp_path / "events.tsv"
    path.write_text("onset\tduration\ttrial_type\n5\t10\ta\n25\t10\tb\n")
    labels = localizer.read_labels(path, facts, 20, 2.0)
    np.testing.assert_array_equal(labels[5:10], 1)
    np.testing.assert_array_equal(labels[15:20], 2)
    np.testing.assert_array_equal(labels[:5], 0)
    path.write_text("onset\tduration\ttrial_type\n5\t10\tx\n25\t10\ty\n")
    with pytest.raises(InputError, match="values x, y; expected classes rest, a, b"):
        localizer.read_labels(path, facts, 20, 2.0)
    mapped = localizer.read_labels(path, facts, 20, 2.0, "a=x;rest=;b=y")
    np.testing.assert_array_equal(mapped, labels)
    with pytest.raises(InputError, match="label_map: found classes a, b"):
        localizer.read_labels(path, facts, 20, 2.0, "a=x;b=y")


def test_ways_are_listed():
    assert calibration.WAYS == ("time", "class", "none")
