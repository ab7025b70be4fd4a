"""The bundle: saved and loaded whole, without the package, and all that it refuses."""

import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest

from emojax import alignment, decoder, fusion, hyperalignment, procrustes
from emojax.errors import InputError
from emojax.features import across_subjects
from emojax.models import cnn1d, resnet3d

pytestmark = pytest.mark.usefixtures("quick_compile")
GRID, KEEP = (8, 7, 6), 60
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
NET = cnn1d.CNN1D(3, filters=(6, 6), window=5, dense=(24, 8))


@pytest.fixture(scope="module")
def made():
    """Five subjects through the fold of the offline pipeline, and the decoder of the last."""
    rng = np.random.default_rng(0)
    mask = np.zeros(GRID, bool)
    mask[1:7, 1:6, 1:5] = True
    people, source = {}, rng.normal(size=(2, 36, 20))
    y = np.tile(np.repeat(np.arange(3), 6), 4)
    source += 2 * rng.normal(size=(3, 20))[y[:36]]
    volumes = {}
    for i in range(5):
        own = rng.normal(size=(20, mask.sum()))
        values = 500 + 10 * (source @ own + 3 * rng.normal(size=(2, 36, mask.sum())))
        volumes[f"s{i}"] = np.zeros((2, 36, *GRID), np.float32)
        volumes[f"s{i}"][:, :, mask] = values
        x = values.reshape(72, -1).astype(np.float32)
        rows = np.arange(72) + 72 * i
        people[f"s{i}"] = across_subjects.Subject(x, y, np.repeat([0, 1], 36), rows)
    settings = across_subjects.Settings(KEEP, 3, "independent_runs")
    fold = across_subjects.Fold(("s0", "s1", "s2"), "s3", "s4")
    offline = across_subjects.fold_features(people, fold, settings)
    params = NET.init(jax.random.key(1), offline.test_x[:1])["params"]
    model, _ = offline.space
    rows = np.arange(36)
    mapping = alignment.independent_runs(
        model, people["s4"].x[:36][:, offline.voxels], rows
    )  # by run 0, to decode run 1
    facts = decoder.Facts(("a", "b", "c"), GRID, 500.0, 60.0, 2.0, "s4", ("as scanned",))
    bundle = decoder.from_cnn1d(
        facts,
        params,
        mask=mask,
        voxels=offline.voxels,
        mean=offline.scaler[0],
        sd=offline.scaler[1],
        mapping=mapping,
        template=model.template,
        run=people["s0"].run,
        frame=np.tile(np.arange(36), 2),
        affine=AFFINE,
    )
    want = np.asarray(jax.nn.softmax(NET.apply({"params": params}, offline.test_x)))
    return bundle, volumes["s4"], want


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
    with pytest.raises(InputError, match="20 volumes; expected 36 or more"):
        decoder.calibrate(bundle, volumes[1][:20], "s9", 1)
    with pytest.raises(InputError, match=r"run: found 7; expected one of \[0, 1\]"):
        decoder.calibrate(bundle, volumes[1], "s9", 7)


def test_facts_and_context_come_back(made, saved):
    loaded = decoder.load(saved)
    assert loaded.facts == made[0].facts and loaded.network == "cnn1d"
    np.testing.assert_array_equal(loaded.mask, made[0].mask)
    np.testing.assert_array_equal(loaded.affine, AFFINE)
    assert jax.tree.structure(loaded.calibration) == jax.tree.structure(made[0].calibration)
    decoder.save(loaded, saved)  # over itself
    assert decoder.load(saved).facts == loaded.facts


def test_runs_without_the_package(made, saved, tmp_path):
    """The portable form in a process that can import jax and NumPy, and not emojax."""
    np.save(tmp_path / "x.npy", made[1][1, 0])
    script = (
        "import sys, pathlib; sys.modules['emojax'] = None\n"
        "import jax, numpy as np; from jax import export\n"
        "d = pathlib.Path(sys.argv[1])\n"
        "program = export.deserialize((d / 'program.bin').read_bytes())\n"
        "weights = np.load(d / 'weights.npz')\n"
        "p = program.call([weights[k] for k in weights], np.load(sys.argv[2]))\n"
        "print(*np.asarray(p).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, saved, tmp_path / "x.npy"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose([float(v) for v in done.stdout.split()], made[2][36], atol=1e-5)


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
    with pytest.raises(InputError, match=r"another affine \(off by 0.5\)"):
        decoder.decode(made[0], made[1][1, 0], AFFINE + 0.5)


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
    with pytest.raises(InputError, match="a decoder of format 99; expected format 1"):
        decoder.load(saved)
    path.write_text(path.read_text()[:100])
    with pytest.raises(InputError, match="damaged"):
        decoder.load(saved)


def test_saving_never_overwrites_something_else_nor_leaves_half(made, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="something that is no decoder"):
        decoder.save(made[0], tmp_path / "mine")
    monkeypatch.setattr(decoder, "_exported", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        decoder.save(made[0], tmp_path / "half")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


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


def test_one_bad_volume_of_a_run_stops_it(made, tmp_path):
    volumes = made[1][1].copy()
    volumes[3] *= 100
    nib.save(nib.Nifti1Image(np.moveaxis(volumes, 0, -1), AFFINE), tmp_path / "run.nii")
    with pytest.raises(InputError, match=r"run.nii, volume 3: found sd"):
        decoder.decode_file(made[0], tmp_path / "run.nii")


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


def test_constructors_check_shapes(made):
    with pytest.raises(ValueError, match=r"want a mask of \(8, 7, 6\)"):
        decoder.from_cnn1d(
            made[0].facts, {}, mask=np.ones((2, 2, 2), bool), voxels=np.arange(3),
            mean=np.zeros(3), sd=np.ones(3),
        )  # fmt: skip
    with pytest.raises(ValueError, match="want mean of shape"):
        decoder.from_resnet3d(made[0].facts, {}, {}, mean=np.zeros(3), sd=np.float32(1))


def test_options_of_a_calibration_are_those_of_a_fit():
    """`calibrate` rebuilds the common space: with the same map as the fitted one."""
    rng = np.random.default_rng(0)
    model = hyperalignment.fit(rng.normal(size=(3, 30, 10)).astype(np.float32))
    rows = rng.normal(size=(20, 10)).astype(np.float32)
    want = alignment.independent_runs(model, rows, np.arange(20))
    got = alignment.independent_runs(decoder.build._model(model.template), rows, np.arange(20))
    np.testing.assert_allclose(
        procrustes.transform(got, rows), procrustes.transform(want, rows), atol=1e-5
    )
