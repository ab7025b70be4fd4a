"""Records what Keras 2 computes: the published 3D ResNets in a small size.

    TF_USE_LEGACY_KERAS=1 PYTHONPATH=KERAS_RESNET3D_CHECKOUT python tests/data/make_keras2.py

The networks are built by the authors' own code, keras-resnet3d at commit f554b1e. Writes
resnet3d.npz and resnet3d.h5, from seeds. All is computed in double precision, which
TensorFlow's pooling lacks: `MaxPool` and `AveragePool` replace it.
"""

import json
import pathlib
import re

import numpy as np
import tensorflow as tf
import tensorflow.compat.v1 as tf1
import tf_keras
from resnet3d import resnet3d as published  # switches TensorFlow to graphs
from tensorflow.compat.v1 import keras

HERE = pathlib.Path(__file__).parent
WIDTH, REGULARISATION = 4, 2e-4
# Block, blocks of each stage, volume. The file of weights holds the second network of the process,
# whose layers do not start at number 0.
NETWORKS = {
    "basic": ("basic_block", (1, 2, 1), (16, 13, 10)),
    "bottleneck": ("bottleneck", (2, 1), (12, 11, 9)),
}
DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class AveragePool(keras.layers.Layer):
    """Average pooling over the whole volume."""

    def __init__(self, pool_size, strides):
        super().__init__()
        self.pool_size = tuple(pool_size)

    def call(self, x):
        """Takes the mean of a volume, which the window must cover."""
        assert tuple(x.shape[1:4]) == self.pool_size
        return tf.reduce_mean(x, axis=(1, 2, 3), keepdims=True)


class MaxPool(keras.layers.Layer):
    """Max pooling with window 3, stride 2 and padding "same"."""

    def __init__(self, pool_size, strides, padding):
        super().__init__()
        assert (pool_size, strides, padding) == ((3, 3, 3), (2, 2, 2), "same")

    def call(self, x):
        """Takes the maximum along one axis after the other."""
        for axis in (1, 2, 3):
            size = int(x.shape[axis])
            count = -(-size // 2)
            total = max((count - 1) * 2 + 3 - size, 0)
            pads = [(0, 0)] * 5
            pads[axis] = (total // 2, total - total // 2 + 1)
            x = tf.pad(x, pads, constant_values=-np.inf)
            parts = []
            for start in range(3):
                where = [slice(None)] * 5
                where[axis] = slice(start, start + 2 * count - 1, 2)
                parts.append(x[tuple(where)])
            x = tf.maximum(tf.maximum(parts[0], parts[1]), parts[2])
        return x


def build(block: str, repetitions: tuple[int, ...], volume: tuple[int, int, int]):
    """Builds a published network with `WIDTH` channels in the stem instead of 64."""
    stem, narrow = published._conv_bn_relu3D, getattr(published, block)
    published.MaxPooling3D, published.AveragePooling3D = MaxPool, AveragePool
    published._conv_bn_relu3D = lambda **options: stem(**(options | {"filters": WIDTH}))
    try:
        return published.Resnet3DBuilder.build(
            (*volume, 1),
            2,
            lambda filters, **options: narrow(filters=filters * WIDTH // 64, **options),
            repetitions,
            REGULARISATION,
        )
    finally:
        published._conv_bn_relu3D = stem


def list_layers(block: str, repetitions: tuple[int, ...], width: int = 64) -> dict[str, list[str]]:
    """Lists the paths of all layers of a kind, in order of creation."""
    convs, norms, channels = ["stem/conv"], ["stem/bn"], width
    for stage, count in enumerate(repetitions):
        own = width * 2**stage * (4 if block == "bottleneck" else 1)
        for i in range(count):
            path = f"stage{stage + 1}/block{i + 1}"
            inner = 3 if block == "bottleneck" else 2
            norms += [f"{path}/bn{j + 1}" for j in range(stage == i == 0, inner)]
            convs += [f"{path}/conv{j + 1}" for j in range(inner)]
            if own != channels or (stage and i == 0):
                convs.append(f"{path}/shortcut")
            channels = own
    return {"conv3d": convs, "batch_normalization": [*norms, "final/bn"], "dense": ["head/dense"]}


def name_layers(model, paths: dict[str, list[str]]) -> dict[str, object]:
    """Returns {path: layer} of all layers with weights."""
    named = {}
    for kind, listed in paths.items():
        numbers = {}  # number -> layer of this kind: "conv3d" is number 0, "conv3d_7" number 7
        for layer in model.layers:
            if found := re.fullmatch(rf"{kind}(?:_(\d+))?", layer.name):
                numbers[int(found[1] or 0)] = layer
        named |= dict(zip(listed, (numbers[i] for i in sorted(numbers)), strict=True))
    assert sum(len(layer.weights) for layer in named.values()) == len(model.weights)
    return named


def list_kinds(layer) -> tuple[str, ...]:
    """Names the weights of a layer, in the order in which Keras holds them."""
    norm = ("gamma", "beta", "moving_mean", "moving_variance")
    return norm if len(layer.weights) == len(norm) else ("kernel", "bias")


def read_weights(layers: dict[str, object]) -> dict[str, np.ndarray]:
    """Returns {"stem/conv/kernel": array, ...}."""
    found = {}
    for path, layer in layers.items():
        weights = zip(list_kinds(layer), layer.get_weights(), strict=True)
        found |= {f"{path}/{kind}": weight for kind, weight in weights}
    return found


def draw_weights(layers: dict[str, object], rng: np.random.Generator) -> None:
    """Fills a network with weights that single precision holds exactly."""
    for layer in layers.values():
        drawn = []
        for kind, old in zip(list_kinds(layer), layer.get_weights(), strict=True):
            z = rng.normal(size=old.shape)
            if kind == "kernel":
                new = 0.8 * (2 / np.prod(old.shape[:-1])) ** 0.5 * z
            else:
                new = (kind in ("gamma", "moving_variance")) + 0.1 * np.abs(z)
            drawn.append(new.astype(np.float32))
        layer.set_weights(drawn)


def record_network(name: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns weights, outputs, and a training batch with losses, gradients and statistics."""
    block, repetitions, volume = NETWORKS[name]
    model = build(block, repetitions, volume)
    layers = name_layers(model, list_layers(block, repetitions, WIDTH))
    draw_weights(layers, rng)
    if name == "bottleneck":
        model.save_weights(HERE / "resnet3d.h5")
    logits, features = model.output.op.inputs[0], model.layers[-2].output
    x = rng.normal(size=(3, *volume)).astype(np.float32).astype(float)
    found = {f"weights/{path}": w.astype(np.float32) for path, w in read_weights(layers).items()}
    run = keras.backend.function([model.input], [logits, features])
    found["x"] = x
    found["logits"], found["features"] = run([x[..., None]])

    batch = rng.normal(size=(4, *volume)).astype(np.float32).astype(float)
    labels = np.array([0, 1, 1, 0])
    one_hot = tf1.placeholder("float64", (None, 2))
    nll = tf.reduce_mean(keras.losses.categorical_crossentropy(one_hot, model.output))
    penalty = tf.add_n(model.losses)
    gradients = keras.backend.gradients(nll + penalty, model.trainable_weights)
    step = keras.backend.function(
        [model.input, one_hot, keras.backend.learning_phase()],
        [logits, nll, penalty, *gradients],
        updates=model.updates,
    )
    made = step([batch[..., None], np.eye(2)[labels], 1])
    found |= dict(zip(("train/logits", "train/nll", "train/penalty"), made[:3], strict=True))
    paths = {
        id(weight): f"{path}/{kind}"
        for path, layer in layers.items()
        for kind, weight in zip(list_kinds(layer), layer.weights, strict=True)
    }
    for weight, gradient in zip(model.trainable_weights, made[3:], strict=True):
        found[f"grad/{paths[id(weight)]}"] = gradient
    after = read_weights(layers)
    found |= {f"after/{path}": w for path, w in after.items() if "moving" in path}
    found |= {"train/x": batch, "train/labels": labels}
    return {f"{name}/{key}": np.asarray(value) for key, value in found.items()}


def list_shapes(depth: int) -> dict[str, list[int]]:
    """Returns {path: shape} of all weights of a published network, at its own size."""
    block = "basic_block" if depth < 50 else "bottleneck"
    model = getattr(published.Resnet3DBuilder, f"build_resnet_{depth}")((64, 64, 44, 1), 2)
    layers = name_layers(model, list_layers(block, DEPTHS[depth]))
    return {
        f"{path}/{kind}": weight.shape.as_list()
        for path, layer in layers.items()
        for kind, weight in zip(list_kinds(layer), layer.weights, strict=True)
    }


def resnet3d() -> None:
    """Writes both small networks, and the shapes of all weights of the published ones."""
    arrays, index = {}, {}
    rng = np.random.default_rng(4001)
    for name, (block, repetitions, volume) in NETWORKS.items():
        arrays |= record_network(name, rng)
        index[name] = {"block": block, "blocks": repetitions, "volume": volume, "width": WIDTH}
    index |= {f"resnet{depth}": list_shapes(depth) for depth in DEPTHS}
    save("resnet3d", index, arrays)


def save(name: str, index, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays and their index, with the versions that made them."""
    versions = {"tf_keras": tf_keras.__version__, "tensorflow": tf.__version__}
    found = json.dumps({"versions": versions | {"numpy": np.__version__}, "runs": index})
    np.savez_compressed(HERE / f"{name}.npz", index=found, **arrays)


if __name__ == "__main__":
    keras.backend.set_floatx("float64")
    resnet3d()
