"""The plan of a run, from one training step measured on this machine."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from emojax import models
from emojax.errors import InputError
from emojax.experiments import fits, programs
from emojax.experiments.base import Experiment
from emojax.models import onednn
from emojax.records import Arm
from emojax.report import console as consoles
from emojax.training import cost, feeds


def make_plan(
    console: Console,
    experiment: Experiment,
    config: Any,
    cohort: Any,
    arms: Sequence[Arm],
    made: Mapping[str, Any],
    members: int = 1,
) -> fits.Plan | None:
    """Measures a training step and prints memory, number of steps and time.

    Batches of volumes are split across all devices; with vectors, each device trains its own folds.

    Raises:
      InputError: a step does not fit into the device's memory.
    """
    folds = [data for arm in arms for _, data in fits.trainings(arm, made[arm.name])]
    arms = [arm for arm in arms if not arm.decoder]
    if experiment.program is None or not folds:
        return None
    train, program = config.train, experiment.program(config, len(cohort.classes))
    shape = folds[0].read(folds[0].monitor[:1]).shape[1:]
    network = models.find(config.model.name)
    models.check_module(config.model.name, program.model, shape, len(cohort.classes))
    measured, limit = cost.measure_step(program, shape), cost.memory_limit()
    if measured.bytes > limit:
        raise InputError(
            f"memory of {jax.devices()[0].device_kind}",
            f"{limit / 1e9:.1f} GB",
            f"{measured.bytes / 1e9:.1f} GB (less with train.batch_size, model.remat=True or "
            "model.dtype=bfloat16)",
        )
    size = len(cohort.labels) * math.prod(shape) * (4 if train.feed_dtype == "float32" else 2)
    streamed = train.feed == "stream"
    if train.feed == "auto":
        streamed = size + measured.bytes > train.memory_share * limit
    sizes = [len(rows) for data in folds for rows in data.train]
    epochs = max(programs.epochs_of(train, size) for size in sizes)
    steps = epochs * sum(math.ceil(size / train.batch_size) for size in sizes)
    devices = accelerators() if network.input == "vector" else []
    lanes = tuple(program._replace(mesh=feeds.data_mesh([device])) for device in devices)
    total = steps * measured.seconds / (max(len(lanes), 1) * members)
    where = "streamed from disk" if streamed else "resident on the device"
    console.print(
        f"plan: {len(sizes)} trainings ({', '.join(arm.name for arm in arms)}) of up to "
        f"{epochs} epochs, {steps:,} steps of {measured.seconds * 1e3:.0f} ms "
        f"on {max(len(lanes), program.mesh.size)} x {jax.devices()[0].device_kind}"
        f"{f' in each of {members} processes' if members > 1 else ''}: up to "
        f"{consoles.duration(total)}; {measured.parameters / 1e6:.1f} M parameters, "
        f"{measured.bytes / 1e9:.2f} GB for a step, inputs {where} ({size / 1e9:.2f} GB)"
        f"{f'; {_arithmetic(program.model)}' if network.input == 'volume' else ''}",
        markup=False,
    )
    console.print(stops(train, epochs), markup=False)
    if total > 3600 and jax.default_backend() == "cpu":
        console.print("      that is long for this machine; the variant :demo takes minutes")
    return fits.Plan(
        program,
        train,
        streamed,
        network.input == "vector",
        epochs,
        train.checkpoint_epochs,
        programs.strategy_of(config, streamed),
        lanes,
    )


def _arithmetic(model: Any) -> str:
    """Returns the dtype of a network of volumes and the implementation of its convolutions."""
    dtype = jnp.dtype(getattr(model, "dtype", jnp.float32)).name
    return f"{dtype}, 3D convolutions by {onednn.path()}"


def stops(train: Any, epochs: int) -> str:
    """Returns a sentence on when training stops and how often its state is saved.

    Args:
      train: section `train` of the config.
      epochs: maximum number of epochs.
    """
    early, plateau = "", train.plateau
    if train.early_stop:
        early = f", or after {plateau.patience} epochs at rate {plateau.min_lr:g} without a new "
        early += "minimum of the monitored loss"
    kept = f"an interrupted run resumes from its state, saved every {train.checkpoint_epochs}"
    return f"stops: after {epochs} epochs{early}; {kept} epochs and at a signal"


def accelerators() -> list[jax.Device]:  # pyright: ignore[reportInvalidTypeForm]  # jax's own
    """Returns the devices of this process that can train at the same time; none on a CPU.

    The several CPU devices that jax can be told to create share the same cores.
    """
    devices = jax.local_devices()
    return [] if jax.default_backend() == "cpu" or len(devices) == 1 else devices
