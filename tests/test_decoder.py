"""The bundle: saved and loaded whole, without the package, and all that it refuses."""

import hashlib
import json
import pathlib

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest
import strangers

from emojax import alignment, anova, decoder, files, fusion, hyperalignment, procrustes
from emojax.data import grid
from emojax.decoder import commands, program, schema
from emojax.errors import InputError
from emojax.models import cnn1d, resnet3d

pytestmark = pytest.mark.usefixtures("quick_compile")
GRID, KEEP = (8, 7, 6), 60
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
NET = cnn1d.CNN1D(3, filters=(6, 6), window=5, dense=(24, 8))


@pytest.fixture(scope="module")
def made():
    """Returns five subjects after the steps of Experiment A, and a decoder of the last one."""
    rng = np.random.default_rng(0)
    mask = np.zeros(GRID, bool)
    mask[1:7, 1:6, 1:5] = True
    source = rng.normal(size=(2, 36, 20))
    y = np.tile(np.repeat(np.arange(3), 6), 4)
    run, frame = np.repeat([0, 1], 36), np.tile(np.arange(36), 2)
    source += 2 * rng.normal(size=(3, 20))[y[:36]]
    subjects = np.zeros((5, 72, mask.sum()), np.float32)
    for i in range(5):
        own = rng.normal(size=(20, mask.sum()))
        values = 500 + 10 * (source @ own + 3 * rng.normal(size=(2, 36, mask.sum())))
        subjects[i] = values.reshape(72, -1)
    train, test = subjects[:3], subjects[4]
    scores = anova.f_scores(train.reshape(-1, mask.sum()), np.tile(y, 3), num_classes=3)
    voxels = np.asarray(anova.select_top(scores, KEEP))
    model = hyperalignment.fit(train[:, :, voxels])
    aligned = hyperalignment.transform(model.mappings, train[:, :, voxels]).reshape(-1, KEEP)
    mean, sd = np.asarray(aligned.mean(0)), np.asarray(aligned.std(0))

    def align(scored):  # by the other run
        rows = np.flatnonzero(run != scored)
        return alignment.independent_runs(model, test[rows][:, voxels], rows)

    parts = [procrustes.transform(align(k), test[run == k][:, voxels]) for k in (0, 1)]
    test_x = (np.concatenate(parts) - mean) / sd
    params = NET.init(jax.random.key(1), test_x[:1])["params"]
    facts = decoder.Facts(("a", "b", "c"), GRID, 500.0, 60.0, 2.0, "s4", ("as scanned",))
    bundle = decoder.from_cnn1d(
        facts,
        params,
        mask=mask,
        voxels=voxels,
        mean=mean,
        sd=sd,
        mapping=align(1),
        template=model.template,
        run=run,
        frame=frame,
        affine=AFFINE,
    )
    volumes = np.zeros((2, 36, *GRID), np.float32)
    volumes[:, :, mask] = test.reshape(2, 36, -1)
    want = np.asarray(jax.nn.softmax(NET.apply({"params": params}, test_x)))
    return bundle, volumes, want


@pytest.fixture
def saved(made, tmp_path):
    decoder.save(made[0], tmp_path / "bundle")
    return tmp_path / "bundle"


def test_a_run_volume_by_volume_gives_the_offline_predictions(made, saved):
    bundle, volumes, want = made
    for d in (bundle, decoder.load(saved)):
        got = np.stack([decoder.decode(d, v, AFFINE) for v in volumes[1]])
        np.testing.assert_allclose(got, want[36:], atol=1e-5)
        np.testing.assert_array_equal(got.argmax(1), want[36:].argmax(1))


def test_fuse_is_a_pure_function_of_volumes(made):
    bundle, volumes, want = made
    f = fusion.fuse(bundle)
    np.testing.assert_allclose(jax.jit(f)(volumes[1]), want[36:], atol=1e-5)
    np.testing.assert_allclose(jax.vmap(f)(volumes[1, :3]), want[36:39], atol=1e-5)


def test_calibration_gives_another_run_without_labels(made):
    bundle, volumes, want = made
    again = decoder.calibrate(bundle, volumes[1], "s9", 1)
    assert again.facts.subject == "s9"
    got = np.stack([decoder.decode(again, v) for v in volumes[0]])
    np.testing.assert_allclose(got, want[:36], atol=1e-4)
    with pytest.raises(InputError, match="20 volumes; expected 24 or more, of a whole run"):
        decoder.calibrate(bundle, volumes[1][:20], "s9", 1)
    with pytest.raises(InputError, match=r"35 volumes; expected 36 or more \(was the run cut sho"):
        decoder.calibrate(bundle, volumes[1][:35], "s9", 1)
    with pytest.raises(InputError, match=r"run: found 7; expected one of \[0, 1\]"):
        decoder.calibrate(bundle, volumes[1], "s9", 7)


def test_runs_are_called_by_their_names(made, saved, tmp_path):
    bundle, volumes, _ = made
    named = bundle.replace(facts=bundle.facts._replace(runs=("run-01", "run-02")))
    decoder.save(named, tmp_path / "named")
    named = decoder.load(tmp_path / "named")
    assert named.facts.runs == ("run-01", "run-02") and decoder.load(saved).facts.runs == ()
    want = decoder.calibrate(bundle, volumes[1], "s9", 1)
    for given, run in ((named, "run-02"), (named, 1), (bundle, "1")):
        got = decoder.calibrate(given, volumes[1], "s9", run)
        jax.tree.map(np.testing.assert_array_equal, got.weights, want.weights)
    for run in ("run-03", "1"):  # a number could mean the first or the second
        with pytest.raises(InputError, match=f"run: found '{run}'; expected one of run-01, run-02"):
            decoder.calibrate(named, volumes[1], "s9", run)
    with pytest.raises(InputError, match=r"run: found 'run-01'; expected one of \[0, 1\]"):
        decoder.calibrate(bundle, volumes[1], "s9", "run-01")


def test_bundles_of_the_first_format_have_neither_centre_nor_temperature(made, saved, capsys):
    """Their weights take values as scanned, without centring."""
    layers, centre = made[0].weights["layers"], np.float64(made[0].weights["centre"])
    (kernel, bias), *rest = layers
    first = {"layers": [(kernel, np.float32(bias - centre @ np.float64(kernel))), *rest]}
    first["voxels"] = made[0].weights["voxels"]
    np.savez(saved / "weights.npz", **files.flatten(first))
    context = {"mask": made[0].mask, "affine": AFFINE, "calibration": made[0].calibration}
    np.savez(saved / "context.npz", **files.flatten(context))
    path = saved / "manifest.json"
    stated = json.loads(path.read_text())
    known = ("classes", "grid", "level", "spread", "tr", "subject", "preprocessing", "provenance")
    manifest = {
        "format": 1,
        "network": stated["network"],
        "facts": {name: stated["facts"][name] for name in known},
        "jax": "0.10.0",
        "sha256": {
            name: hashlib.sha256((saved / name).read_bytes()).hexdigest()
            for name in ("weights.npz", "context.npz", "program.bin")
        },
    }
    path.write_text(json.dumps(manifest))
    loaded = decoder.load(saved)
    said = capsys.readouterr().err
    assert "format 1, which has no id, no reference image" in said and said.count("\n") == 1
    assert decoder.load(saved).id == "" and not capsys.readouterr().err  # said once
    got = np.stack([decoder.decode(loaded, v, AFFINE) for v in made[1][1]])
    np.testing.assert_allclose(got, made[2][36:], atol=1e-4)
    decoder.calibrate(loaded, made[1][1], "s9", 1)


def test_facts_and_context_come_back(made, saved):
    loaded = decoder.load(saved)
    assert loaded.facts == made[0].facts and loaded.network == "cnn1d"
    np.testing.assert_array_equal(loaded.mask, made[0].mask)
    np.testing.assert_array_equal(loaded.affine, AFFINE)
    assert jax.tree.structure(loaded.calibration) == jax.tree.structure(made[0].calibration)
    decoder.save(loaded, saved)  # over itself
    assert decoder.load(saved).facts == loaded.facts


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v[:-1], r"shape \(7, 7, 6\); expected \(8, 7, 6\)"),
        (lambda v: np.where(v == v.max(), np.nan, v), "1 voxels of the mask that are not finite"),
        (lambda v: 100 * v, "inside the mask; expected"),
        (lambda v: (v - v.mean()) / v.std(), "inside the mask; expected"),
    ],
    ids=["shape", "nan", "scale", "z-scored"],
)
def test_volumes_that_are_not_like_those_of_training(made, change, said):
    with pytest.raises(InputError, match=said):
        decoder.decode(made[0], change(made[1][1, 0]))


def test_another_affine(made):
    decoder.decode(made[0], made[1][1, 0], AFFINE + 1e-5)
    moved = AFFINE.copy()
    moved[0, 3] += 0.5 * AFFINE[0, 0]
    with pytest.raises(InputError, match=r"another affine \(off by up to 0.5 voxels\)"):
        decoder.decode(made[0], made[1][1, 0], moved)


FLIPPED = grid.Turn((2, 0, 1), (True, False, True))


def test_axes_in_another_order_are_turned(made, saved, tmp_path):
    bundle, volumes, want = made
    shape = volumes.shape[2:]
    other, affine = FLIPPED.apply(volumes[1], 1), grid.turned(AFFINE, shape, FLIPPED)
    assert other.shape[1:] != shape
    np.testing.assert_allclose(decoder.decode(bundle, other[0], affine), want[36], atol=1e-5)
    with pytest.raises(InputError, match="shape"):
        decoder.verify(bundle, other[0], affine)
    path = tmp_path / "other.nii"
    nib.save(nib.Nifti1Image(np.moveaxis(other, 0, -1), affine), path)
    np.testing.assert_allclose(decoder.decode_file(bundle, path), want[36:], atol=1e-5)
    commands.calibrate(str(saved), str(path), str(tmp_path / "cal"), "s9", "1")
    again, same = (
        decoder.load(tmp_path / "cal" / "decoder"),
        decoder.calibrate(bundle, volumes[1], "s9", 1),
    )
    np.testing.assert_array_equal(again.reference, same.reference)
    for got, expected in zip(*(jax.tree.leaves(d.weights) for d in (again, same)), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("sub-02_task-emo_bold.nii", True),
        ("sub-02/func/scan.nii", True),
        ("sub-s4_task-emo_bold.nii", False),
        ("sub-02/sub-s4_bold.nii", False),
        ("scan.nii", False),
        ("mysub-02.nii", False),
    ],
)
def test_an_image_of_another_person_is_refused(made, saved, image, tmp_path, name, refused):
    assert made[0].facts.subject == "s4"
    path = tmp_path / "scans" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(image.read_bytes())
    new = str(tmp_path / "new")
    if refused:
        with pytest.raises(InputError, match=r"an image of subject 02; .* s4, .*--any_subject"):
            commands.decode(str(saved), str(path), new)
        assert not (tmp_path / "new").exists()
    assert commands.decode(str(saved), str(path), new, any_subject=refused).exists()


@pytest.mark.parametrize("name", decoder.FILES)
def test_changed_or_missing_files(saved, name):
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=f"{name}: found content that was changed"):
        decoder.load(saved)
    (saved / name).unlink()
    with pytest.raises(InputError, match=f"{name}: found no such file"):
        decoder.load(saved)


def test_other_formats_and_half_a_manifest(saved, tmp_path):
    with pytest.raises(InputError, match=r"no manifest\.json"):
        decoder.load(tmp_path / "nothing")
    path = saved / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(InputError, match="a decoder of format 99; expected format 2"):
        decoder.load(saved)
    other = manifest | {"network": "alexnet"}
    path.write_text(schema.write({k: v for k, v in other.items() if k != "id"}))
    with pytest.raises(InputError, match=r"model.name: found 'alexnet'; expected one of cnn1d"):
        decoder.load(saved)
    path.write_text(path.read_text()[:100])
    with pytest.raises(InputError, match="a damaged manifest"):
        decoder.load(saved)


def test_saving_never_overwrites_something_else_nor_leaves_half(made, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="something that is not a decoder"):
        decoder.save(made[0], tmp_path / "mine")
    monkeypatch.setattr(program, "export", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        decoder.save(made[0], tmp_path / "half")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("call", [0, 1])
def test_a_save_that_is_stopped_leaves_the_old_bundle(made, saved, monkeypatch, error, call):
    """It may stop while writing (any error), at the first rename, or between the two renames."""
    newer = made[0].replace(facts=made[0].facts._replace(subject="newer"))
    monkeypatch.setattr(program, "export", lambda *a: (b"program", {}))
    replace, calls = files.os.replace, []

    def stopped(*args):
        calls.append(args)
        if len(calls) == call + 1:
            raise error("stopped")
        replace(*args)

    monkeypatch.setattr(files.os, "replace", stopped)
    with pytest.raises(error):
        decoder.save(newer, saved)
    assert decoder.load(saved).facts.subject == "s4"
    decoder.save(newer, saved)
    assert decoder.load(saved).facts.subject == "newer"
    assert [p.name for p in saved.parent.iterdir()] == ["bundle"]


def test_a_save_that_fails_to_write_leaves_the_old_bundle(made, saved, monkeypatch):
    monkeypatch.setattr(program, "export", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        decoder.save(made[0], saved)
    assert decoder.load(saved).facts.subject == "s4"
    assert [p.name for p in saved.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_files(made, tmp_path, suffix):
    bundle, volumes, want = made
    path = tmp_path / f"run{suffix}"
    nib.save(nib.Nifti1Image(np.moveaxis(volumes[1], 0, -1), AFFINE), path)
    np.testing.assert_allclose(decoder.decode_file(bundle, path), want[36:], atol=1e-5)
    nib.save(nib.Nifti1Image(volumes[1, 0], AFFINE), path)
    np.testing.assert_allclose(decoder.decode_file(bundle, path), want[36:37], atol=1e-5)
    pathlib.Path(path).write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="no readable image"):
        decoder.decode_file(bundle, path)
    with pytest.raises(InputError, match="no such file"):
        decoder.decode_file(bundle, tmp_path / "other.nii")


@pytest.fixture
def images(made, tmp_path):
    """Writes two runs as files."""
    paths = [tmp_path / "run.nii", tmp_path / "run2.nii"]
    for path, volumes in zip(paths, made[1], strict=True):
        nib.save(nib.Nifti1Image(np.moveaxis(volumes, 0, -1), AFFINE), path)
    return paths


@pytest.fixture
def image(images):
    return images[1]


COLUMNS = "volume,predicted,p_a,p_b,p_c,status,marks,gain,offset,correlation"
COLUMNS += ",x_mm,y_mm,z_mm,x_deg,y_deg,z_deg,fd_mm"


def test_commands_write_predictions_and_a_calibrated_decoder(made, saved, images, tmp_path):
    table = commands.decode(str(saved), str(images[1]), str(tmp_path / "new"))
    assert table == tmp_path / "new" / "predictions.csv"
    lines = table.read_text().splitlines()
    assert lines[0] == COLUMNS and len(lines) == 37
    cells = np.array([line.split(",") for line in lines[1:]])
    np.testing.assert_allclose(cells[:, 2:5].astype(float), made[2][36:], atol=1e-5)
    assert (cells[:, 5] == "ok").all() and (cells[:, 6:] == "").all()  # there is no reference
    for run, number in (("", 0), ("1", 1)):
        folder = commands.calibrate(
            str(saved), str(images[number]), str(tmp_path / f"cal{number}"), "s9", run
        )
        want = decoder.calibrate(made[0], made[1][number], "s9", number)
        pairs = map(jax.tree.leaves, (decoder.load(folder).weights, want.weights))
        for got, expected in zip(*pairs, strict=True):
            np.testing.assert_array_equal(got, expected)
    table = commands.decode(str(folder), str(images[1]), str(tmp_path / "same"), correct="none")
    cells = np.array([line.split(",") for line in table.read_text().splitlines()[1:]])
    plain = np.stack([decoder.decode(want, volume) for volume in made[1][1]])
    np.testing.assert_allclose(cells[:, 2:5].astype(float), plain, atol=1e-5)
    assert (cells[:, 7:10] != "").all()  # measured, not corrected


@pytest.mark.parametrize("name", commands.RUN_FILES)
def test_commands_never_write_into_the_workdir_of_a_run(saved, image, tmp_path, name):
    for kept in (name, "predictions.csv"):
        (tmp_path / kept).write_text("of the run")
    with pytest.raises(InputError, match="found the results of a run; expected another --workdir"):
        commands.decode(str(saved), str(image), str(tmp_path))
    with pytest.raises(InputError, match="found the results of a run; expected another --workdir"):
        commands.calibrate(str(saved), str(image), str(tmp_path), "s9", "")
    assert (tmp_path / "predictions.csv").read_text() == "of the run"
    assert not (tmp_path / "decoder").exists()


def test_a_calibration_run_on_another_grid(made, saved, image, tmp_path):
    off = nib.Nifti1Image(nib.load(image).get_fdata(dtype=np.float32), AFFINE + np.eye(4))
    nib.save(off, tmp_path / "off.nii")
    with pytest.raises(
        InputError, match=r"off.nii: found volumes of .* another affine .*resample the run"
    ):
        commands.calibrate(str(saved), str(tmp_path / "off.nii"), str(tmp_path / "cal"), "s9", "")
    assert not (tmp_path / "cal").exists()


def test_one_bad_volume_of_a_run_stops_it(made, tmp_path):
    volumes = made[1][1].copy()
    volumes[3] *= 100
    nib.save(nib.Nifti1Image(np.moveaxis(volumes, 0, -1), AFFINE), tmp_path / "run.nii")
    with pytest.raises(InputError, match=r"run.nii, volume 3: found sd"):
        decoder.decode_file(made[0], tmp_path / "run.nii")


@pytest.mark.slow
def test_resnet_bundle(tmp_path):
    rng = np.random.default_rng(0)
    grid = (12, 10, 9)
    model = resnet3d.ResNet3D(2, (1, 1), True, width=4)
    x = (800 + 50 * rng.normal(size=(2, *grid))).astype(np.float32)
    variables = model.init(jax.random.key(0), x)
    sd = np.full(grid, 50, np.float32)
    sd[0] = np.inf  # nothing ever varied there
    mean = np.full(grid, 800, np.float32)
    facts = decoder.Facts(("a", "b"), grid, 800.0, 50.0)
    bundle = decoder.from_resnet3d(
        facts, variables["params"], variables["batch_stats"], mean=mean, sd=sd
    )
    decoder.save(bundle, tmp_path / "bundle")
    x[:, 0] = np.nan
    want = jax.nn.softmax(model.apply(variables, np.nan_to_num((x - mean) / sd)))
    loaded = decoder.load(tmp_path / "bundle")
    got = np.stack([decoder.decode(loaded, v) for v in x])
    np.testing.assert_allclose(got, want, atol=1e-4)
    np.testing.assert_allclose(fusion.fuse(loaded)(jnp.asarray(x)), want, atol=1e-4)


def test_a_network_of_somebody_else_becomes_a_decoder(made, tmp_path):
    bundle, volumes, _ = made
    kept = bundle.calibration
    model = strangers.LINEAR.make(None, 3)
    x = volumes[1][:, np.asarray(bundle.mask)][:, :KEEP]
    params = model.init(jax.random.key(0), x, train=False)["params"]
    options = {"mask": bundle.mask, "voxels": np.arange(KEEP), "mean": kept["mean"] + 500}
    options |= {"sd": 10 * kept["sd"], "network": "strangers:LINEAR"}
    linear = decoder.from_cnn1d(bundle.facts, params, **options)
    decoder.save(linear, tmp_path / "bundle")
    scaled = (x - options["mean"]) / options["sd"]
    want = jax.nn.softmax(model.apply({"params": params}, scaled, train=False))
    got = np.stack([decoder.decode(decoder.load(tmp_path / "bundle"), v) for v in volumes[1]])
    np.testing.assert_allclose(got, want, atol=1e-4)
    with pytest.raises(ValueError, match="can be folded for inference; got 'strangers:MLP'"):
        decoder.from_cnn1d(bundle.facts, params, **options | {"network": "strangers:MLP"})


def test_constructors_check_shapes(made):
    rows = {"template": np.zeros((2, KEEP)), "run": np.array([0, 2]), "frame": np.array([0, 1])}
    kept = made[0].calibration
    with pytest.raises(ValueError, match=r"want run < 2, as facts.runs; got 2"):
        decoder.from_cnn1d(
            made[0].facts._replace(runs=("run-01", "run-02")), kept["params"], mask=made[0].mask,
            voxels=np.arange(KEEP), mean=kept["mean"], sd=kept["sd"], **rows,
        )  # fmt: skip
    with pytest.raises(ValueError, match=r"want a mask of \(8, 7, 6\)"):
        decoder.from_cnn1d(
            made[0].facts, {}, mask=np.ones((2, 2, 2), bool), voxels=np.arange(3),
            mean=np.zeros(3), sd=np.ones(3),
        )  # fmt: skip
    with pytest.raises(ValueError, match="want mean of shape"):
        decoder.from_resnet3d(made[0].facts, {}, {}, mean=np.zeros(3), sd=np.float32(1))


def test_options_of_a_calibration_are_those_of_a_fit():
    """`calibrate` rebuilds the common space and finds the same map as the fit."""
    rng = np.random.default_rng(0)
    model = hyperalignment.fit(rng.normal(size=(3, 30, 10)).astype(np.float32))
    rows = rng.normal(size=(20, 10)).astype(np.float32)
    want = alignment.independent_runs(model, rows, np.arange(20))
    space = hyperalignment.from_template(model.template)
    got = alignment.independent_runs(space, rows, np.arange(20))
    np.testing.assert_allclose(
        procrustes.transform(got, rows), procrustes.transform(want, rows), atol=1e-5
    )


def test_a_calibration_has_the_options_of_the_fit(made, tmp_path):
    bundle, volumes, _ = made
    kept = bundle.calibration
    options = hyperalignment.fit(np.ones((2, 3, 2)) * np.arange(3)[:, None], scaling=False).options
    arrays = {name: kept[name] for name in ("mean", "sd", "template", "run", "frame")}
    other = decoder.from_cnn1d(
        bundle.facts, kept["params"], mask=bundle.mask, voxels=np.arange(KEEP), options=options,
        **arrays,
    )  # fmt: skip
    decoder.save(other, tmp_path / "bundle")
    loaded = decoder.load(tmp_path / "bundle")
    assert loaded.facts == other.facts and dict(loaded.facts.alignment)["scaling"] is False
    decoders = (loaded, other, other.replace(facts=bundle.facts))
    first = [decoder.calibrate(d, volumes[1], "s9", 1).weights["layers"][0][0] for d in decoders]
    np.testing.assert_array_equal(first[0], first[1])
    assert np.abs(first[0] - first[2]).max() > 1e-6


def with_tr(values, affine, path, tr):
    """Returns a run whose header has a TR."""
    saved = nib.Nifti1Image(values, affine)
    saved.header.set_xyzt_units("mm", "sec")
    saved.header["pixdim"][4] = tr
    nib.save(saved, path)
    return str(path)


def test_a_calibration_run_of_another_tr(made, image, tmp_path):
    timed = made[0].replace(facts=made[0].facts._replace(tr=2.0))
    folder = str(decoder.save(timed, tmp_path / "timed") or tmp_path / "timed")
    values = nib.load(image).get_fdata(dtype=np.float32)
    good = with_tr(values, AFFINE, tmp_path / "two.nii", 2.0)
    commands.calibrate(folder, good, str(tmp_path / "cal2"), "s9", "1")
    other = with_tr(values, AFFINE, tmp_path / "three.nii", 3.0)
    with pytest.raises(InputError, match=r"three.nii: found TR 3 s; expected 2 s as in training"):
        commands.calibrate(folder, other, str(tmp_path / "cal3"), "s9", "")
    assert not (tmp_path / "cal3").exists()
