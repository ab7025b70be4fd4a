"""3D ResNet-50 on 64 x 64 x 44 volumes beside its peers: forward and training step.

    pip install -r requirements.txt -r requirements-bench.txt
    python -m benchmarks.resnet3d            # about 6 minutes on 2 cores
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python -m benchmarks.resnet3d    # all in huge pages

`monai` is MONAI's ResNet-50 (conv1_t_stride=2, so that its stem halves every axis as ours does; it
has its strides in the 3x3x3 convolutions, ours in the 1x1x1 before them: `gmac` has the
multiplications of each per volume). `keras 3` is the published architecture in Keras, layer by
layer as ours. A step is forward, backward and Adam, without penalty. On a GPU `emojax` computes in
bfloat16 as the experiment does, also at batch 256, and the peers run only if asked for. Medians
after two warm-up calls, each tool in a process of its own, in turns: trust the ratios.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from benchmarks.record import accelerator, keep

GRID, CLASSES, RATE = (64, 64, 44), 2, 5e-4
BLOCKS = (3, 4, 6, 3)


def volumes(count):
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, *GRID), dtype="float32")
    return x, (np.arange(count) % CLASSES).astype("int32")


def emojax(short):
    import jax
    import jax.numpy as jnp

    from emojax import plateau
    from emojax.models import resnet3d
    from emojax.training import epoch, feeds, optimizer, trial

    model = resnet3d.resnet50(CLASSES, dtype=jnp.bfloat16 if short else jnp.float32)
    rule = plateau.reduce_on_plateau(base_lr=RATE)
    weights = jax.jit(lambda x: model.init(jax.random.key(0), x))(jnp.zeros((1, *GRID)))
    predict = jax.jit(lambda weights, x: model.apply(weights, x))

    def forward(count):
        x = jnp.asarray(volumes(count)[0], model.dtype)
        return lambda: predict(weights, x).block_until_ready()

    def train(count):
        program = epoch.Program(
            model, optimizer.adam(RATE), rule, lambda p, f: f, count, feeds.data_mesh()
        )
        begin = jax.jit(trial.begin, static_argnums=(1, 2, 3))
        state = begin(jax.random.key(0), model, program.tx, rule, jnp.zeros((1, *GRID)))
        held = [feeds.replicate(state, program.mesh)]
        x, y = map(jnp.asarray, volumes(count))

        def step():
            held[0], metrics = epoch.step(program, held[0], x, y, jnp.float32(0))
            jax.block_until_ready((held[0].state.params, metrics))

        return step

    flops = predict.lower(weights, jnp.zeros((1, *GRID))).compile().cost_analysis()["flops"]
    return forward, train, flops / 2e9


def monai(short):
    import torch
    from monai.networks.nets import resnet50
    from torch.utils.flop_counter import FlopCounterMode

    model = resnet50(spatial_dims=3, n_input_channels=1, num_classes=CLASSES, conv1_t_stride=2)
    adam = torch.optim.Adam(model.parameters(), RATE, eps=1e-7)

    def forward(count):
        x = torch.from_numpy(volumes(count)[0])[:, None]

        def call():
            model.eval()
            with torch.inference_mode():
                model(x)

        return call

    def train(count):
        x, y = map(torch.from_numpy, volumes(count))
        x, y = x[:, None], y.long()

        def step():
            model.train()
            adam.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            adam.step()

        return step

    counter = FlopCounterMode(display=False)
    with counter:
        forward(1)()
    return forward, train, counter.get_total_flops() / 2e9


def keras(short):
    import keras
    from keras import layers as k

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
    model.compile(keras.optimizers.Adam(RATE), "sparse_categorical_crossentropy")

    def forward(count):
        x = volumes(count)[0][..., None]
        return lambda: model.predict_on_batch(x)

    def train(count):
        x, y = volumes(count)
        return lambda: model.train_on_batch(x[..., None], y)

    return forward, train, None


TOOLS = {"emojax": emojax, "monai": monai, "keras 3": keras}


def work(tool, short, forwards, step):
    forward, train, gmac = TOOLS[tool](short)
    out = {"gmac": gmac}
    calls = {f"forward_{n}_ms": forward(n) for n in forwards} | {f"step_{step}_ms": train(step)}
    for name, call in calls.items():
        for _ in range(2):
            call()
        times = []
        for _ in range(9):
            start = time.perf_counter()
            call()
            times.append(1e3 * (time.perf_counter() - start))
        out[name] = statistics.median(times)
    print(json.dumps(out))


def measure(tool, flags):
    """Measures a tool in a process of its own; None where it is not installed."""
    command = [sys.executable, "-m", "benchmarks.resnet3d", f"--worker={tool}", *flags]
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        print(f"{tool}: {done.stderr.strip().splitlines()[-1]}")
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tools", default="", help="some of emojax,monai,keras 3, comma-separated")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    platform = os.environ.get("EMOJAX_BENCH_PLATFORM") or accelerator()[0]
    os.environ["EMOJAX_BENCH_PLATFORM"] = platform
    gpu = platform != "cpu"
    if args.worker:
        forwards, step = ((1, 8, 256), 32) if gpu else ((1, 8), 4)
        return work(args.worker, gpu, forwards, step)
    wanted = args.tools.split(",") if args.tools else (["emojax"] if gpu else [*TOOLS])
    rounds = {tool: [] for tool in wanted}
    for _ in range(args.rounds):
        for tool in wanted:
            rounds[tool].append(measure(tool, []))
    results = []
    for tool, found in rounds.items():
        if None in found:
            continue
        row = {"tool": tool, "rounds": found, "gmac": found[0]["gmac"]}
        for name in (n for n in found[0] if n != "gmac"):
            row[name] = statistics.median(r[name] for r in found)
            ours = rounds["emojax"]
            ratios = [theirs[name] / own[name] for theirs, own in zip(found, ours, strict=True)]
            row[f"{name}_over_emojax"] = statistics.median(ratios)
        results.append(row)
        print({k: round(v, 2) for k, v in row.items() if isinstance(v, float)} | {"tool": tool})
    pages = ", huge pages" if "hugetlb=1" in os.environ.get("GLIBC_TUNABLES", "") else ""
    keep(f"resnet3d_{platform}", "resnet3d" + pages, results)


if __name__ == "__main__":
    main()
