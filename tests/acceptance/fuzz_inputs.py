"""Sound inputs of every kind, small: the fuzzer spoils copies of them."""

import collections
import pathlib
import re

import h5py
import nibabel as nib
import numpy as np
import scipy.io
from fuzz_cases import cell

SHAPE = (16, 16, 12)
VOXELS, FRAMES = 60, 30  # a decoder's voxels, and the frames of each of its template's two runs
STEM = "sub-01/func/sub-01_task-emo_run-01"  # the first run of the BIDS study
LABEL_MAP = "--config.data.label_map=rest=;neutral=neutral;negative=negative"


def brain(shape=SHAPE):
    """Returns an ellipsoid."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return sum(a**2 for a in axes) < 0.8


def scan(rng, volumes=40, shape=SHAPE):
    """Returns the values of a run, int16 [X, Y, Z, t]."""
    x = brain(shape)[..., None] * (800 + 20 * rng.normal(size=(*shape, volumes)))
    return x.clip(0).astype(np.int16)


def nifti(x, tr=2.0, kind=nib.Nifti1Image):
    """Returns an image; its header has a TR in seconds if it is NIfTI."""
    made = kind(x, np.diag([12.0, 12, 11, 1]))
    if kind in (nib.Nifti1Image, nib.Nifti1Pair, nib.Nifti2Image):
        made.header.set_zooms((12, 12, 11, tr)[: x.ndim])
        made.header.set_xyzt_units("mm", "sec")
    return made


def events(run: int) -> str:
    """Returns an events.tsv of four blocks."""
    rows = ["onset\tduration\ttrial_type"]
    rows += [f"{4 + 18 * b}\t10\t{('neutral', 'negative')[(b + run) % 2]}" for b in range(4)]
    return "\n".join(rows) + "\n"


def make_bids(root, rng):
    """Writes four subjects with two runs each."""
    root.mkdir(parents=True)
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    (root / "task-emo_bold.json").write_text('{"RepetitionTime": 2.0, "TaskName": "emo"}')
    for s in (1, 2, 3, 4):
        folder = root / f"sub-{s:02}" / "func"
        folder.mkdir(parents=True)
        for r in (1, 2):
            stem = f"{folder}/sub-{s:02}_task-emo_run-{r:02}"
            nib.save(nifti(scan(rng)), f"{stem}_bold.nii.gz")
            pathlib.Path(f"{stem}_events.tsv").write_text(events(r))


def conditions(**change):
    """Returns SPM's condition file of two conditions."""
    return {
        "names": cell("neutral", "negative"),
        "onsets": cell([4.0, 40.0], [22.0, 60.0]),
        "durations": cell([10.0], [10.0]),
    } | change


def make_spm(root, rng):
    """Writes two subjects with one run each, and labels of every form."""
    for s in ("s1", "s2"):
        (root / s / "run1").mkdir(parents=True)
        nib.save(nifti(scan(rng)), root / s / "run1" / "raX.nii")
        np.savetxt(root / s / "run1" / "rp_aX.txt", rng.normal(size=(40, 6)))
        scipy.io.savemat(root / s / "run1" / "cond.mat", conditions())
    lines, onsets = ["subject,run,volume,label"], ["subject,run,name,onset,duration"]
    for s in ("s1", "s2"):
        lines += [f"{s},run1,{v},{('neutral', 'negative')[v // 5 % 2]}" for v in range(40)]
        onsets += [f"{s},run1,{('neutral', 'negative')[b % 2]},{4 + 18 * b},10" for b in range(4)]
    (root / "volumes.csv").write_text("\n".join(lines) + "\n")
    (root / "onsets.csv").write_text("\n".join(onsets) + "\n")


def lab_contents(rng, kind=np.float32):
    """Returns the variables of one of the lab's files."""
    volumes = [rng.normal(100, 1, SHAPE).astype(kind) for _ in range(9)]
    return {
        "I": cell(*volumes[:6]),
        "I_test": cell(*volumes[6:]),
        "labels": np.array([[0, 1, 2, 0, 1, 2]]),
        "labels_test": np.array([[0, 1, 2]]),
    }


def write_hdf5(path, contents):
    """Writes a .mat file of version 7.3: axes reversed, cells as references."""
    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")
        for name, value in contents.items():
            if value.dtype == object:
                data = file.create_dataset(name, value.shape[::-1], h5py.ref_dtype)
                data.attrs["MATLAB_class"] = np.bytes_("cell")
                for i, volume in enumerate(value.flat):
                    refs[f"{name}{i}"] = volume.T
                    refs[f"{name}{i}"].attrs["MATLAB_class"] = np.bytes_("single")
                    data[i, 0] = refs[f"{name}{i}"].ref
            else:
                file[name] = value.T.astype(float)
                file[name].attrs["MATLAB_class"] = np.bytes_("double")


def make_lab(root, rng):
    """Writes three runs of the lab's files: two of version 5, one of 7.3."""
    root.mkdir(parents=True)
    for s in ("E1", "E2"):
        scipy.io.savemat(root / f"{s}_run1_x.mat", lab_contents(rng))
    write_hdf5(root / "E3_run1_x.mat", lab_contents(rng))


def make_vectors(root, rng):
    """Writes the lab's aligned vectors of four subjects."""
    root.mkdir(parents=True)
    np.savetxt(root / "X_hyp_v2.csv", rng.normal(size=(1600, 4)), "%.3f", ",")
    np.savetxt(root / "Y_hyp_v2.csv", rng.integers(0, 3, 1600), "%d", ",")


def make_arrays(root, rng):
    """Writes four subjects' .npz files."""
    root.mkdir(parents=True)
    for s in ("s1", "s2", "s3", "s4"):
        arrays(root / f"{s}.npz", rng)


def arrays(path, rng=None, **change):
    """Writes one .npz file; a change of None leaves an array out."""
    rng, n = rng or np.random.default_rng(0), 24
    content = {
        "x": rng.normal(size=(n, 60)).astype(np.float32),
        "y": np.tile([0, 1, 2], n // 3),
        "run": np.repeat([1, 2], n // 2),
        "classes": np.array(["rest", "neutral", "negative"]),
    }
    content |= change
    np.savez(path, **{k: v for k, v in content.items() if v is not None})


def make_keras(root, rng, voxels=60):
    """Writes weights of Experiment A's network as Keras does."""
    import jax

    from emojax.models.cnn1d import CNN1D

    root.mkdir(parents=True)
    x = jax.ShapeDtypeStruct((1, voxels), np.float32)
    shapes = jax.eval_shape(CNN1D().init, jax.random.key(0), x)["params"]
    order = sorted(shapes, key=lambda n: (n[:4] != "conv", int(re.sub(r"\D", "", n))))
    with h5py.File(root / "weights.h5", "w") as file:
        names, numbers = [], collections.Counter()
        for name in order:
            kind = "conv1d" if name.startswith("conv") else "dense"
            numbers[kind] += 1
            layer = f"{kind}_{numbers[kind]}"
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/kernel:0".encode(), f"{layer}/bias:0".encode()]
            for weight in ("kernel", "bias"):
                shape = shapes[name][weight].shape
                group[f"{layer}/{weight}:0"] = rng.normal(size=shape).astype("f4")
            names.append(layer.encode())
        file.attrs["layer_names"] = names


def make_bundle(root, rng):
    """Writes a decoder of Experiment A with random weights, and two runs like its template's."""
    import jax

    from emojax import decoder
    from emojax.models.cnn1d import CNN1D

    root.mkdir(parents=True)
    params = CNN1D().init(jax.random.key(0), np.zeros((1, VOXELS), np.float32))["params"]
    patterns = rng.normal(size=(2, FRAMES, 4)) @ rng.normal(size=(4, VOXELS)) / 2
    facts = decoder.Facts(("rest", "neutral", "negative"), SHAPE, 800.0, 20.0, 2.0, "01")
    for folder, names in (("decoder", ()), ("named", ("run-01", "run-02"))):
        made = decoder.from_cnn1d(
            facts._replace(runs=names),
            params,
            mask=brain(),
            voxels=np.arange(VOXELS),
            mean=np.full(VOXELS, 800, np.float32),
            sd=np.full(VOXELS, 20, np.float32),
            template=patterns.reshape(-1, VOXELS).astype(np.float32),
            run=np.repeat([0, 1], FRAMES),
            frame=np.tile(np.arange(FRAMES), 2),
            affine=np.diag([12.0, 12, 11, 1]),
        )
        decoder.save(made, root / folder)
    inside = tuple(axis[:VOXELS] for axis in np.nonzero(brain()))
    for name, pattern in (("run.nii", 0), ("run.nii.gz", 0), ("run2.nii", 1)):
        values = scan(rng, FRAMES)
        values[inside] += (20 * patterns[pattern].T).astype(np.int16)
        nib.save(nifti(values), root / name)


MAKERS = {
    "bids": make_bids,
    "spm": make_spm,
    "lab": make_lab,
    "vectors": make_vectors,
    "arrays": make_arrays,
}
WITH_JAX = {"bundle": make_bundle, "keras": make_keras}  # made in their own process
