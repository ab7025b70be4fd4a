"""Records what Keras 3 on TensorFlow computes: convolutions, pooling, the 1D CNN, a callback.

    python tests/data/make_keras3.py

Writes convolution.npz, cnn1d.npz, cnn1d_keras3.h5 and plateau.npz, from seeds. All is computed in
double precision except max pools, which TensorFlow has in single precision only, and the rates of
the callback, which Keras keeps in single precision by default.
"""

import json
import pathlib

import keras
import numpy as np
import tensorflow as tf

HERE = pathlib.Path(__file__).parent
# Volume, channels in and out, window, stride, padding: odd and even axes, the ResNets' windows.
CONVOLUTIONS = [
    ((12, 11, 9), 1, 3, 7, 2, "same"),
    ((8, 7, 6), 3, 4, 3, 1, "same"),
    ((8, 7, 6), 3, 4, 3, 2, "same"),
    ((8, 7, 6), 3, 4, 3, 1, "valid"),
    ((7, 6, 5), 4, 3, 1, 1, "same"),
    ((7, 6, 5), 4, 3, 1, 2, "same"),
    ((7, 6, 5), 4, 3, 1, 2, "valid"),
    ((1, 1, 1), 5, 4, 3, 2, "same"),
]
POOLS = [(8, 7, 6), (1, 2, 3)]  # volumes, pooled with window 3 and stride 2
# The 1D CNN: voxels, filters, window, hidden layers, classes, penalty, rate.
VOXELS, FILTERS, WINDOW, DENSE, CLASSES, PENALTY, RATE = 20, (5, 4, 3), 4, (8, 6), 3, 5e-3, 1e-3
LAYERS = [f"conv{i + 1}" for i in range(len(FILTERS))]
LAYERS += [f"dense{i + 1}" for i in range(len(DENSE) + 1)]
NAMES = [f"{layer}/{kind}" for layer in LAYERS for kind in ("kernel", "bias")]


def save(name: str, index: list, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays and their index, with the versions that made them."""
    versions = {"keras": keras.__version__, "tensorflow": tf.__version__, "numpy": np.__version__}
    found = json.dumps({"versions": versions, "runs": index})
    np.savez_compressed(HERE / f"{name}.npz", index=found, **arrays)


def record_layer(layer: keras.Layer, x: np.ndarray) -> dict[str, np.ndarray]:
    """Returns what a layer makes of x, and the gradients of sum(cos(0, 1, ...) * output)."""
    given = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(given)
        y = layer(given)
        weights = np.cos(np.arange(np.prod(y.shape))).reshape(y.shape).astype(x.dtype)
        total = tf.reduce_sum(weights * y)
    gradients = tape.gradient(total, [given, *layer.trainable_variables])
    names = ["x", *(v.name for v in layer.trainable_variables)]
    out = {f"d_{name}": np.asarray(g) for name, g in zip(names, gradients, strict=True)}
    return {"y": np.asarray(y), **out}


def convolution() -> None:
    """Writes convolutions and max pools with their gradients."""
    rng = np.random.default_rng(3001)
    index, arrays = [], {}
    for i, (size, inside, outside, window, stride, padding) in enumerate(CONVOLUTIONS):
        x = rng.normal(size=(1, *size, inside))
        kernel = rng.normal(size=(window,) * 3 + (inside, outside)) / (window**3 * inside) ** 0.5
        layer = keras.layers.Conv3D(outside, window, stride, padding, use_bias=False)
        layer.build(x.shape)
        layer.set_weights([kernel])
        found = {"x": x, "kernel": kernel, **record_layer(layer, x)}
        arrays |= {f"conv{i}/{name}": array for name, array in found.items()}
        index.append({"key": f"conv{i}", "stride": stride, "padding": padding.upper()})
    for i, size in enumerate(POOLS):
        x = rng.normal(size=(1, *size, 3)).astype(np.float32)
        layer = keras.layers.MaxPooling3D(3, 2, "same", dtype="float32")
        found = {"x": x, **record_layer(layer, x)}
        arrays |= {f"pool{i}/{name}": array for name, array in found.items()}
        index.append({"key": f"pool{i}"})
    save("convolution", index, arrays)


def make_cnn1d() -> keras.Model:
    """Returns the network of Experiment A with its L1 penalty, in a small size."""
    x = inputs = keras.Input((VOXELS, 1))
    for width in FILTERS:
        x = keras.layers.Conv1D(width, WINDOW)(x)
    x = features = keras.layers.Flatten()(x)
    penalty = keras.regularizers.L1(PENALTY)
    for width in DENSE:
        x = keras.layers.Dense(
            width, activation="relu", kernel_regularizer=penalty, bias_regularizer=penalty
        )(x)
    logits = keras.layers.Dense(CLASSES)(x)
    return keras.Model(inputs, [features, logits, keras.layers.Softmax()(logits)])


def draw_weights(model: keras.Model, rng: np.random.Generator) -> None:
    """Fills a network with weights that single precision holds exactly."""
    for variable in model.trainable_variables:
        sd = (2 / np.prod(variable.shape[:-1])) ** 0.5 if variable.name == "kernel" else 0.1
        variable.assign(rng.normal(0, sd, variable.shape).astype(np.float32))


def read_variables(model: keras.Model) -> dict[str, np.ndarray]:
    """Returns {"conv1/kernel": array, ...}."""
    return dict(zip(NAMES, map(np.asarray, model.trainable_variables), strict=True))


def record_step(model: keras.Model, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns a batch, its losses and gradients, and the weights after one step of Adam."""
    x = rng.normal(size=(4, VOXELS)).astype(np.float32).astype(float)
    labels = np.array([0, 1, 2, 1])
    adam = keras.optimizers.Adam(RATE)
    with tf.GradientTape() as tape:
        probabilities = model(x[..., None], training=True)[-1]
        nll = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
        nll = tf.reduce_mean(nll)
        total = nll + tf.add_n(model.losses)
    gradients = tape.gradient(total, model.trainable_variables)
    out = {"train/x": x, "train/labels": labels, "train/nll": nll, "train/total": total}
    out |= {f"grad/{name}": gradient for name, gradient in zip(NAMES, gradients, strict=True)}
    adam.apply(gradients, model.trainable_variables)
    out |= {f"after/{path}": array for path, array in read_variables(model).items()}
    settings = (adam.learning_rate, adam.beta_1, adam.beta_2, adam.epsilon)
    out["train/adam"] = [float(value) for value in settings]
    return {key: np.asarray(value) for key, value in out.items()}


def cnn1d() -> None:
    """Writes outputs and a training step of the 1D CNN, and its weights as a .h5 file."""
    rng = np.random.default_rng(3002)
    model = make_cnn1d()
    draw_weights(model, rng)
    x = rng.normal(size=(5, VOXELS)).astype(np.float32).astype(float)
    features, logits, probabilities = model.predict(x[..., None], verbose=0)
    # The convolutions are one linear map: its kernel is the response to impulses.
    span = len(FILTERS) * (WINDOW - 1) + 1
    impulses = np.vstack([np.zeros(span), np.eye(span)])[..., None]
    for layer in model.layers[1 : len(FILTERS) + 1]:
        impulses = layer(impulses)
    impulses = np.asarray(impulses)[:, 0]
    arrays = {f"params/{path}": array for path, array in read_variables(model).items()}
    arrays |= {"x": x, "features": features, "logits": logits, "probabilities": probabilities}
    arrays |= {"composed/kernel": impulses[1:] - impulses[0], "composed/bias": impulses[0]}
    model.save(HERE / "cnn1d_keras3.h5", include_optimizer=False)
    save("cnn1d", [], arrays | record_step(model, rng))


CONFIGS = [
    {"factor": 0.3, "patience": 3, "min_delta": 1e-4, "cooldown": 0, "min_lr": 1e-5, "lr0": 5e-4},
    {"factor": 0.3, "patience": 3, "min_delta": 1e-4, "cooldown": 2, "min_lr": 1e-5, "lr0": 5e-4},
    {"factor": 0.3, "patience": 0, "min_delta": 1e-4, "cooldown": 0, "min_lr": 1e-5, "lr0": 5e-4},
    {"factor": 0.7, "patience": 1, "min_delta": 1e-3, "cooldown": 0, "min_lr": 0.0, "lr0": 1e-2},
    {"factor": 0.3, "patience": 3, "min_delta": 0.0, "cooldown": 1, "min_lr": 0.0, "lr0": 1e-3},
]
# The schedules of Experiment A and B, on a loss that never falls.
SCHEDULES = [
    {
        "factor": 0.2,
        "patience": 50,
        "min_delta": 1e-4,
        "cooldown": 0,
        "min_lr": 1e-5,
        "lr0": 4.5e-3,
    },
    {"factor": 0.3, "patience": 30, "min_delta": 1e-4, "cooldown": 0, "min_lr": 5e-10, "lr0": 1e-3},
]


def list_losses() -> dict[str, list[float | None]]:
    """Returns validation losses by epoch; None: an epoch without one."""
    rng = np.random.default_rng(3003)
    nan, inf = float("nan"), float("inf")
    return {
        "improving": [1 - 0.05 * i for i in range(12)],
        "constant": [1.0] * 24,
        "steps_of_min_delta": [1 - 1e-4 * i for i in range(12)],
        "improvement_on_last_patience_epoch": [1, 1, 1, 0.9, 0.9, 0.9, 0.8, 0.8, 0.8, 0.8, 0.8],
        "improves_during_cooldown": [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.4, 0.4, 0.4, 0.4],
        "nan_in_the_middle": [1, 0.9, nan, nan, nan, 0.8, 0.8, nan, 0.7],
        "inf_in_the_middle": [1, inf, inf, 0.9, 0.9, inf, 0.9, 0.9],
        "missing": [1, None, 1, 1, None, 1, 1, 1, 0.5],
        "negative": [-1, -1.00005, -1.0002, -1.0002, -1.0002, -2, -2, -2, -2, -2],
        "noisy_decay": (np.exp(-np.arange(40) / 10) + 0.1 * rng.random(40)).tolist(),
        "worse_for_ever": [1 + 0.1 * i for i in range(30)],
    }


def replay(config: dict[str, float], losses: list[float | None]) -> dict[str, list]:
    """Shows the callback one loss after another and returns its state after each epoch."""
    options = dict(config)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(options.pop("lr0")), "mse")
    callback = keras.callbacks.ReduceLROnPlateau(**options)
    callback.set_model(model)
    callback.on_train_begin()
    state = {"lr_after": [], "wait": [], "cooldown_counter": [], "best": []}
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {} if loss is None else {"val_loss": loss})
        state["lr_after"].append(float(model.optimizer.learning_rate))
        for name in ("wait", "cooldown_counter", "best"):
            state[name].append(getattr(callback, name))
    return state


def plateau() -> None:
    """Writes the callback's state after each epoch of every sequence under every config."""
    asked = [(name, c, losses) for c in CONFIGS for name, losses in list_losses().items()]
    asked += [("schedule", c, [1.0] * 400) for c in SCHEDULES]
    runs = [
        {"sequence": name, "config": c, "val_loss": losses, **replay(c, losses)}
        for name, c, losses in asked
    ]
    save("plateau", runs, {})


if __name__ == "__main__":
    keras.config.set_floatx("float64")
    convolution()
    cnn1d()
    keras.config.set_floatx("float32")
    plateau()
