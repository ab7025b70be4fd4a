"""The importer on ResNet files as tf.keras writes them."""

import importlib.util
import json

import goldens
import h5py
import jax.numpy as jnp
import numpy as np
import pytest

from emojax.models.keras_import import import_resnet3d
from emojax.models.resnet3d import ResNet3D

MODEL = ResNet3D(2, blocks=(1, 1, 1, 1), bottleneck=True)
VOLUME = (16, 16, 12)
GOLDEN = goldens.load("resnet3d")


@pytest.fixture
def recipe(shared):
    spec = importlib.util.spec_from_file_location("recipe", shared("golden/keras/recipe.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def layout(shared):
    return json.loads(shared("golden/keras/h5_layout_resnet3d.json").read_text())


def write(path, recipe, layout, names):
    """Writes the file of small_bottleneck, its layers under `names`, in the file's own order."""
    weights = recipe.weights("small_bottleneck")
    listed = next(e["attrs"] for e in layout["layout"] if e["name"] == "/")["layer_names"]
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in names]
        for old, new in zip(listed, names, strict=True):
            group = file.create_group(new)
            tensors = [k for k in layout["keras_name_to_path"] if k.split("/")[0] == old]
            own = [f"{new}/{k.split('/')[1]}" for k in tensors]
            group.attrs["weight_names"] = [name.encode() for name in own]
            for tensor, name in zip(tensors, own, strict=True):
                group[name] = weights[layout["keras_name_to_path"][tensor]]
    return path


def test_a_file_of_tf_keras_gives_its_logits():
    """Layers of the file start at conv3d_11: its network was the second of its process."""
    run, z = goldens.index(GOLDEN)["bottleneck"], goldens.below(GOLDEN, "bottleneck")
    model = ResNet3D(2, tuple(run["blocks"]), bottleneck=True, width=run["width"])
    variables, report = import_resnet3d(goldens.DATA / "resnet3d.h5", model, run["volume"])
    assert report[0].source == "conv3d_11/kernel" and report[0].path == "params/stem/conv/kernel"
    assert len(report) == len(goldens.below(z, "weights"))
    got = model.apply(variables, z["x"].astype(np.float32))
    np.testing.assert_allclose(got, z["logits"], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("second", [False, True], ids=["first model", "second of its process"])
def test_logits_are_those_of_keras(recipe, layout, shared, tmp_path, second):
    first = next(e["attrs"] for e in layout["layout"] if e["name"] == "/")["layer_names"]
    names = layout["layer_names_second_model"] if second else first
    path = write(tmp_path / "small.h5", recipe, layout, names)
    variables, report = import_resnet3d(path, MODEL, VOLUME)
    golden = np.load(shared("golden/keras/resnet3d_golden.npz"))
    x = jnp.asarray(recipe.resnet_inputs((*VOLUME, 1)), jnp.float32)
    got = MODEL.apply(variables, x)
    np.testing.assert_allclose(got, golden["small_bottleneck/logits_f64"], atol=1e-5)
    paths = {tensor.path for tensor in report}
    assert len(paths) == len(report) == len(layout["keras_name_to_path"])
    assert "params/stage2/block1/shortcut/kernel" in paths


def test_refuses_another_depth_or_number_of_classes(recipe, layout, tmp_path):
    names = next(e["attrs"] for e in layout["layout"] if e["name"] == "/")["layer_names"]
    path = write(tmp_path / "small.h5", recipe, layout, names)
    with pytest.raises(ValueError, match=r"small.h5: want layers .* got .*17 conv3d"):
        import_resnet3d(path, ResNet3D(2, blocks=(1, 1, 1, 2), bottleneck=True), VOLUME)
    with pytest.raises(ValueError, match=r"small.h5: .*head/dense"):
        import_resnet3d(path, MODEL.clone(num_classes=3), VOLUME)
