"""The 3D ResNet-50 in other libraries, in their fastest settings and others.

A peer is a function without arguments. It returns `forward(count)` and `train(count)`, which make
calls on `count` volumes, and the multiplications of one volume in billions, or None.

`torch` has the layers of emojax's network, one by one. `monai` is MONAI's ResNet-50 with
conv1_t_stride=2, so that its stem halves every axis as emojax's does; its strides are in the 3x3x3
convolutions, emojax's in the 1x1x1 before them. `keras` is the published architecture in Keras.
"channels last" is torch.channels_last_3d; "compiled" adds torch.compile, in the forward pass with
frozen weights. A step is forward, backward and Adam, without penalty.
"""

import functools

GRID, CLASSES, RATE = (64, 64, 44), 2, 5e-4
BLOCKS = (3, 4, 6, 3)


def volumes(count):
    """Returns noise [count, x, y, z] in float32, and labels [count]."""
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, *GRID), dtype="float32")
    return x, (np.arange(count) % CLASSES).astype("int32")


def torch_network(classes=CLASSES):
    """Returns the pre-activated ResNet-50 of emojax, layer by layer, as a torch module."""
    from torch import nn  # pyright: ignore[reportMissingImports] a peer

    class Block(nn.Module):
        def __init__(self, features, width, stride, first):
            super().__init__()
            self.before = nn.Identity() if first else norm_relu(features)
            self.inside = nn.Sequential(
                nn.Conv3d(features, width, 1, stride),
                norm_relu(width),
                nn.Conv3d(width, width, 3, padding=1),
                norm_relu(width),
                nn.Conv3d(width, 4 * width, 1),
            )
            changes = stride > 1 or features != 4 * width
            self.shortcut = nn.Conv3d(features, 4 * width, 1, stride) if changes else nn.Identity()

        def forward(self, x):
            return self.shortcut(x) + self.inside(self.before(x))

    def norm_relu(features):
        return nn.Sequential(nn.BatchNorm3d(features, eps=1e-3, momentum=0.01), nn.ReLU())

    layers = [nn.Conv3d(1, 64, 7, 2, 3), norm_relu(64), nn.MaxPool3d(3, 2, 1)]
    features = 64
    for stage, blocks in enumerate(BLOCKS):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            layers.append(Block(features, 64 * 2**stage, stride, stage == block == 0))
            features = 256 * 2**stage
    layers += [norm_relu(features), nn.AdaptiveAvgPool3d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(features, classes))


def monai_network(classes=CLASSES):
    """Returns MONAI's ResNet-50."""
    from monai.networks.nets import resnet50  # pyright: ignore[reportMissingImports] a peer

    return resnet50(spatial_dims=3, n_input_channels=1, num_classes=classes, conv1_t_stride=2)


def run_torch(make, last, compiled):
    """Returns a torch module as a peer on the CPU; see the docstring of this file."""
    import torch  # pyright: ignore[reportMissingImports] a peer
    from torch.utils.flop_counter import FlopCounterMode  # pyright: ignore[reportMissingImports] a peer

    layout = torch.channels_last_3d if last else torch.contiguous_format
    model = make().to(memory_format=layout)
    adam = torch.optim.Adam(model.parameters(), RATE, eps=1e-7)
    quick = torch.compile(model, dynamic=False) if compiled else model

    def inputs(count):
        x, y = map(torch.from_numpy, volumes(count))
        return x[:, None].to(memory_format=layout), y.long()

    def choose(training):
        if model.training != training:
            model.train(training)
            torch._inductor.config.freezing = compiled and not training  # weights are constants

    def forward(count):
        x = inputs(count)[0]

        def call():
            choose(training=False)
            with torch.no_grad():
                quick(x)

        return call

    def train(count):
        x, y = inputs(count)

        def step():
            choose(training=True)
            adam.zero_grad()
            torch.nn.functional.cross_entropy(quick(x), y).backward()
            adam.step()

        return step

    choose(training=False)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(inputs(1)[0])
    return forward, train, counter.get_total_flops() / 2e9


def run_keras(jit):
    """Returns the network in Keras 3 as a peer, with the backend in KERAS_BACKEND."""
    import keras  # pyright: ignore[reportMissingImports] a peer
    from keras import layers as k  # pyright: ignore[reportMissingImports] a peer

    def norm_relu(x):
        return k.ReLU()(k.BatchNormalization(epsilon=1e-3)(x))

    inputs = k.Input((*GRID, 1))
    x = norm_relu(k.Conv3D(64, 7, 2, "same")(inputs))
    x = k.MaxPooling3D(3, 2, "same")(x)
    for stage, blocks in enumerate(BLOCKS):
        width = 64 * 2**stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            y = x if stage == block == 0 else norm_relu(x)
            y = k.Conv3D(width, 1, stride)(y)
            y = k.Conv3D(width, 3, 1, "same")(norm_relu(y))
            y = k.Conv3D(4 * width, 1)(norm_relu(y))
            x = k.Add()([k.Conv3D(4 * width, 1, stride)(x) if not block else x, y])
    x = k.GlobalAveragePooling3D()(norm_relu(x))
    model = keras.Model(inputs, k.Dense(CLASSES, activation="softmax")(x))
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(RATE), loss, jit_compile=jit)

    def forward(count):
        x = volumes(count)[0][..., None]
        return lambda: model.predict_on_batch(x)

    def train(count):
        x, y = volumes(count)
        return lambda: model.train_on_batch(x[..., None], y)

    return forward, train, None


PEERS = {
    "torch": functools.partial(run_torch, torch_network, False, False),
    "torch, channels last": functools.partial(run_torch, torch_network, True, False),
    "torch, compiled": functools.partial(run_torch, torch_network, True, True),
    "monai": functools.partial(run_torch, monai_network, False, False),
    "monai, channels last": functools.partial(run_torch, monai_network, True, False),
    "monai, compiled": functools.partial(run_torch, monai_network, True, True),
    "keras 3, tensorflow": functools.partial(run_keras, False),
    "keras 3, tensorflow, XLA": functools.partial(run_keras, True),
    "keras 3, jax": functools.partial(run_keras, True),
}
