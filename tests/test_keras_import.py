"""The importer on files of Keras 2.3.1 and Keras 3, and on files with one thing wrong each."""

import json
import shutil

import goldens
import h5py
import jax
import numpy as np
import pytest

from emojax.models import keras_file, keras_import
from emojax.models.cnn1d import CNN1D
from emojax.models.keras_import import assign, import_cnn1d, read_h5, split_name

MINI = "golden/keras/mini_cnn1d_full_model.h5"
LAYOUT = "golden/keras/h5_layout_cnn1d.json"
MODEL = CNN1D(filters=(4, 2), window=3, dense=(5,))
VOXELS = 12


@pytest.fixture(autouse=True)
def in_this_process(request, monkeypatch):
    """Reads files here, which takes no second each, except in the tests of a process apart."""
    if "apart" not in request.node.name:
        monkeypatch.setattr(keras_import, "_read_apart", keras_file.read)


@pytest.fixture
def mini(shared, tmp_path):
    """Returns a copy that tests may change."""
    return shutil.copyfile(shared(MINI), tmp_path / "mini.h5")


def weights_only(path, layers):
    """Writes {layer: {weight: array}} as Keras' save_weights does; `layers` is in order."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for name, weights in layers.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{weight}:0".encode() for weight in weights]
            for weight, array in weights.items():
                group[f"{name}/{weight}:0"] = array


def test_predictions_are_those_of_keras_3():
    z = goldens.load("cnn1d")
    model = CNN1D(filters=(5, 4, 3), window=4, dense=(8, 6))
    variables, report = import_cnn1d(goldens.DATA / "cnn1d_keras3.h5", model, 20)
    assert len(report) == 12 and report[0].path == "params/conv1/kernel"
    got = jax.nn.softmax(model.apply(variables, z["x"].astype(np.float32)))
    np.testing.assert_allclose(got, z["probabilities"], rtol=0, atol=5e-7)


def test_predictions_are_those_of_keras(shared):
    variables, _ = import_cnn1d(shared(MINI), MODEL, VOXELS)
    x = np.random.RandomState(940000).standard_normal((6, VOXELS)).astype(np.float32)
    got = jax.nn.softmax(MODEL.apply(variables, x))
    want = json.loads(shared(LAYOUT).read_text())["mini_predict_softmax"]
    np.testing.assert_allclose(got, want, rtol=0, atol=5e-7)


def test_the_report_lists_every_tensor(shared):
    report = import_cnn1d(shared(MINI), MODEL, VOXELS).report
    assert len(report) == 8
    assert ("conv1d_2/kernel", "params/conv2/kernel", (3, 4, 2)) in report
    assert ("dense_2/bias", "params/dense2/bias", (3,)) in report


def test_a_model_in_double_precision_gets_its_dtype(shared, x64):
    model = MODEL.clone(dtype=np.float64, param_dtype=np.float64)
    variables, _ = import_cnn1d(shared(MINI), model, VOXELS)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float64)}


def test_whole_model_and_weights_alone_read_the_same(shared, tmp_path):
    whole = read_h5(shared(MINI))
    weights_only(tmp_path / "weights.h5", dict(whole))
    alone = read_h5(tmp_path / "weights.h5")
    assert [name for name, _ in whole] == ["conv1d_1", "conv1d_2", "dense_1", "dense_2"]
    assert [name for name, _ in alone] == [name for name, _ in whole]
    jax.tree.map(np.testing.assert_array_equal, [w for _, w in alone], [w for _, w in whole])


def test_layers_come_in_order_of_creation_within_a_class(tmp_path):
    order = ["conv3d_9", "norm", "conv3d_11", "conv3d_10", "norm_1"]  # a shortcut stands first
    weights_only(tmp_path / "m.h5", {n: {"kernel": np.full(1, i)} for i, n in enumerate(order)})
    got = read_h5(tmp_path / "m.h5")
    assert [name for name, _ in got] == ["conv3d_9", "conv3d_10", "conv3d_11", "norm", "norm_1"]
    assert [int(weights["kernel"][0]) for _, weights in got] == [0, 3, 2, 1, 4]


def test_a_second_model_of_the_same_process_maps_alike(shared, tmp_path):
    renamed = {}
    for name, weights in read_h5(shared(MINI)):
        kind, number = split_name(name)
        renamed[f"{kind}_{number + 8}"] = weights
    weights_only(tmp_path / "second.h5", renamed)
    got = import_cnn1d(tmp_path / "second.h5", MODEL, VOXELS)
    want = import_cnn1d(shared(MINI), MODEL, VOXELS)
    jax.tree.map(np.testing.assert_array_equal, got.variables, want.variables)
    assert got.report[0].source == "conv1d_9/kernel"


def test_batch_norm_goes_to_parameters_and_statistics(tmp_path):
    norm = {"gamma": 2, "beta": 3, "moving_mean": 4, "moving_variance": 5}
    weights_only(
        tmp_path / "norm.h5",
        {"batch_normalization_7": {name: np.full(2, value) for name, value in norm.items()}},
    )
    shape = jax.ShapeDtypeStruct((2,), np.float32)
    expected = {
        "params": {"stem": {"bn": {"scale": shape, "bias": shape}}},
        "batch_stats": {"stem": {"bn": {"mean": shape, "var": shape}}},
    }
    got, report = assign(tmp_path / "norm.h5", {"batch_normalization": ["stem/bn"]}, expected)
    got = jax.tree.map(lambda leaf: float(leaf[0]), got)
    assert got["params"]["stem"]["bn"] == {"scale": 2, "bias": 3}
    assert got["batch_stats"]["stem"]["bn"] == {"mean": 4, "var": 5}
    assert report[2].path == "batch_stats/stem/bn/mean"


@pytest.mark.parametrize(
    ("where", "normed"), [("all", ("conv1", "conv2", "dense1")), ("dense", ("dense1",))]
)
def test_a_network_with_batch_norm_is_matched_in_whole(tmp_path, where, normed):
    model = MODEL.clone(batch_norm=True, norm_layers=where)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, VOXELS)))
    rng, layers, bn = np.random.default_rng(0), {}, 0
    for name in ("conv1", "conv2", "dense1", "dense2"):
        layer = {k: rng.normal(size=v.shape) for k, v in shapes["params"][name].items()}
        layers[name.replace("conv", "conv1d_").replace("dense", "dense_")] = layer
        if name in normed:
            names = ("gamma", "beta", "moving_mean", "moving_variance")
            width = layer["bias"].shape
            bn += 1
            layers[f"batch_normalization_{bn}"] = {k: rng.normal(size=width) for k in names}
    weights_only(tmp_path / "bn.h5", layers)
    got, report = import_cnn1d(tmp_path / "bn.h5", model, VOXELS)
    assert len(report) == 8 + 4 * len(normed)
    want = layers[f"batch_normalization_{bn}"]["moving_mean"].astype(np.float32)
    np.testing.assert_array_equal(got["batch_stats"]["dense1_bn"]["mean"], want)


def test_a_class_without_number_is_the_first():
    assert split_name("conv3d") == ("conv3d", 0)
    assert split_name("conv3d_17") == ("conv3d", 17)
    assert split_name("batch_normalization_3") == ("batch_normalization", 3)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            MODEL.clone(filters=(4, 2, 2)),
            "mini.h5: want layers 3 conv1d, 2 dense; got 2 conv1d, 2 d",
        ),
        (MODEL.clone(batch_norm=True), "want layers 3 batch_normalization, .* got 2 conv1d, 2"),
        (
            MODEL.clone(filters=(4, 3)),
            r"conv1d_2/kernel \(3, 4, 2\) for params/conv2/kernel \(3, 4, 3",
        ),
        (
            MODEL.clone(window=2),
            r"conv1d_1/kernel \(3, 1, 4\) for params/conv1/kernel \(2, 1, 4\); .*",
        ),
    ],
)
def test_refuses_a_file_of_another_network(mini, model, message):
    with pytest.raises(ValueError, match=message):
        import_cnn1d(mini, model, VOXELS)


def test_refuses_another_number_of_voxels(mini):
    with pytest.raises(
        ValueError, match=r"dense_1/kernel \(16, 5\) for params/dense1/kernel \(18, 5\)"
    ):
        import_cnn1d(mini, MODEL, VOXELS + 1)


def test_refuses_a_missing_and_a_strange_tensor(mini):
    with h5py.File(mini, "r+") as file:
        group = file["model_weights/dense_1"]
        group.move("dense_1/bias:0", "dense_1/scale:0")
        group.attrs["weight_names"] = [b"dense_1/kernel:0", b"dense_1/scale:0"]
    with pytest.raises(ValueError, match=r"no tensor for params/dense1/bias \(5,\); dense_1/scale"):
        import_cnn1d(mini, MODEL, VOXELS)


def test_refuses_a_tensor_that_is_listed_but_absent(mini):
    with h5py.File(mini, "r+") as file:
        del file["model_weights/dense_1/dense_1/bias:0"]
    with pytest.raises(ValueError, match=r"no 'bias:0' in .*dense_1/dense_1, which lists it"):
        import_cnn1d(mini, MODEL, VOXELS)


def test_refuses_what_is_no_keras_file(tmp_path):
    text = tmp_path / "text.h5"
    text.write_text("no")
    with pytest.raises(ValueError, match=r"text.h5: want an HDF5 file of Keras weights; got"):
        read_h5(text)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.create_group("volumes")
    with pytest.raises(
        ValueError, match=r"other.h5: want .* no attribute layer_names beside volumes"
    ):
        read_h5(tmp_path / "other.h5")
    with pytest.raises(FileNotFoundError):
        read_h5(tmp_path / "absent.h5")


def test_refuses_a_folder(tmp_path):
    with pytest.raises(ValueError, match=r"want an HDF5 file .*; got something that is not a file"):
        read_h5(tmp_path)


SMALL = {"conv1d_1": (3, 1, 4), "conv1d_2": (3, 4, 2), "dense_1": (16, 5), "dense_2": (5, 3)}
KERNEL = "dense_1/dense_1/kernel:0"


@pytest.fixture
def small(tmp_path):
    """Writes weights for `MODEL` that tests may change."""
    rng = np.random.default_rng(0)
    layers = {
        name: {"kernel": rng.normal(size=shape), "bias": np.zeros(shape[-1])}
        for name, shape in SMALL.items()
    }
    weights_only(tmp_path / "small.h5", layers)
    import_cnn1d(tmp_path / "small.h5", MODEL, VOXELS)
    return tmp_path / "small.h5"


def attribute(name, value, group="/"):
    return lambda file: file[group].attrs.__setitem__(name, value)


def replaced(name, make):
    def change(file):
        del file[name]
        make(file)

    return change


def put(name, value):
    return replaced(name, lambda file: file.__setitem__(name, value))


def other_file(file):
    with h5py.File(file.filename + ".other", "w") as other:
        other["x"] = np.zeros((16, 5))
    file[KERNEL] = h5py.ExternalLink(file.filename + ".other", "/x")


def external(file):
    file.create_dataset(KERNEL, (16, 5), "f8", external=[("/dev/zero", 0, 640)])


def virtual(file):
    layout = h5py.VirtualLayout((16, 5), "f8")
    layout[:] = h5py.VirtualSource(file.filename + ".other", "x", (16, 5))
    file.create_virtual_dataset(KERNEL, layout)


NAMES = [name.encode() for name in SMALL]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (attribute("layer_names", 7), "layer_names of / that is no list of texts"),
        (attribute("layer_names", "dense_1"), "layer_names of / that is no list of texts"),
        (attribute("layer_names", [1, 2]), "that is no list of texts"),
        (attribute("layer_names", [NAMES]), "that is no list of texts"),
        (attribute("layer_names", np.array([], "S1")), "want layers .* got none"),
        (attribute("layer_names", [b"\xff"]), "want an HDF5 file"),
        (attribute("layer_names", [b"../../x"]), "no '..' in /, which lists it"),
        (attribute("layer_names", [*NAMES, b"lstm_1"]), "no 'lstm_1' in /, which lists it"),
        (attribute("layer_names", [*NAMES, NAMES[0]]), "layer_names of / with one name twice"),
        (attribute("weight_names", 7, "dense_1"), "weight_names of /dense_1 that is no list"),
        (lambda f: f["dense_1"].attrs.pop("weight_names"), "no attribute weight_names of /dense_1"),
        (attribute("weight_names", [b"dense_1/x:0"], "dense_1"), "no 'x:0' in /dense_1/dense_1"),
        (
            attribute("weight_names", [b"dense_1/bias", b"dense_1/bias:0"], "dense_1"),
            "no 'bias' in /dense_1/dense_1",
        ),
        (replaced(KERNEL, lambda file: None), "no 'kernel:0' in /dense_1/dense_1, which lists it"),
        (put(KERNEL, np.zeros((3, 3))), r"dense_1/kernel \(3, 3\) for params/dense1/kernel"),
        (put(KERNEL, b"abc"), "kernel:0 of type"),
        (put(KERNEL, np.zeros((16, 5), complex)), "kernel:0 of type complex128"),
        (put(KERNEL, np.zeros((16, 5), "f4,f4")), "kernel:0 of type"),
        (put(KERNEL, np.full((16, 5), np.nan)), "finite values; got others in dense_1/kernel"),
        (put(KERNEL, np.full((16, 5), 1e300)), "finite values; got others in dense_1/kernel"),
        (replaced(KERNEL, lambda file: file.create_group(KERNEL)), "which is no dataset"),
        (put("dense_1", np.zeros(3)), "'dense_1', which is no group"),
        (put(KERNEL, h5py.ExternalLink("/nowhere", "/x")), "a link 'kernel:0' in /dense_1/dense_1"),
        (replaced(KERNEL, other_file), "a link 'kernel:0' in /dense_1/dense_1, and none is follow"),
        (put(KERNEL, h5py.SoftLink("/x")), "a link 'kernel:0'"),
        (put(KERNEL, h5py.SoftLink("/" + KERNEL)), "a link 'kernel:0'"),
        (put("dense_1", h5py.SoftLink("/dense_2")), "a link 'dense_1' in /"),
        (replaced(KERNEL, external), "which is in another file"),
        (replaced(KERNEL, virtual), "which is in another file"),
        (
            replaced(
                KERNEL, lambda f: f.create_dataset(KERNEL, (10**6, 10**6), "f4", chunks=(99, 99))
            ),
            "tensors of 4000000[0-9]* bytes, more than it can hold",
        ),
    ],
)
def test_a_file_with_one_thing_wrong(small, change, said):
    with h5py.File(small, "r+") as file:
        change(file)
    with pytest.raises(ValueError, match=said) as refused:
        import_cnn1d(small, MODEL, VOXELS)
    assert str(refused.value).startswith(f"{small}: want ") and "\n" not in str(refused.value)


@pytest.mark.parametrize("seed", range(8))
def test_random_damage_is_one_line_or_harmless(small, seed):
    rng = np.random.default_rng(seed)
    data = bytearray(small.read_bytes())
    for _ in range(4):
        start = int(rng.integers(len(data)))
        data[start : start + 8] = rng.bytes(8)
    small.write_bytes(data[: len(data) // 2] if seed == 0 else data)
    try:
        import_cnn1d(small, MODEL, VOXELS)
    except ValueError as error:
        assert str(error).startswith(f"{small}: want ") and "\n" not in str(error)


def test_compressed_weights_are_read(small):
    with h5py.File(small, "r+") as file:
        kernel = file[KERNEL][()]
        del file[KERNEL]
        file.create_dataset(KERNEL, data=kernel, compression="gzip")
    got = import_cnn1d(small, MODEL, VOXELS).variables["params"]["dense1"]["kernel"]
    np.testing.assert_array_equal(got, kernel.astype(np.float32))


def test_files_are_read_in_a_process_apart(small, tmp_path):
    got = read_h5(small)
    want = keras_file.read(small)
    assert [(name, [*weights]) for name, weights in got] == [(n, [*w]) for n, w in want]
    jax.tree.map(np.testing.assert_array_equal, [w for _, w in got], [w for _, w in want])
    (tmp_path / "a\nb.h5").write_text("no")
    with pytest.raises(ValueError, match="want an HDF5 file of Keras weights; got ") as refused:
        read_h5(tmp_path / "a\nb.h5")
    assert "signature" in str(refused.value)


@pytest.mark.parametrize(
    "script",
    [
        "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True: pass",
    ],
    ids=["crash", "loop"],
)
def test_a_process_apart_that_does_not_end_well(small, tmp_path, monkeypatch, script):
    (tmp_path / "script.py").write_text(script)
    monkeypatch.setattr(keras_import.keras_file, "__file__", str(tmp_path / "script.py"))
    with pytest.raises(ValueError, match="a damaged file, on which the HDF5 library fails"):
        read_h5(small)
