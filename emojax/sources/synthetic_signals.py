"""Pure functions for the images of `synthetic`: anatomy, topography, noise, and one run of EPI.

Positions are in mm of a template head, to which each subject's voxels are mapped by its own affine
transform, so that one set of smooth fields serves all subjects and grids. A run is

    value = mean * (1 + sum_r course_r(t) map_r(x) + noise(t, x))

with the courses and maps of task, networks, drift, motion and pulse concatenated in one product.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from emojax.sources.synthetic_responses import DIMENSIONS

FIELD = (192.0, 192.0, 132.0)  # mm, the scanned box
HEAD = (66.0, 82.0, 54.0)  # mm, half axes of the template brain
NETWORKS, DRIFTS = 10, 4  # numbers of maps
TISSUE, AIR = 800.0, 8.0  # scanner units: mean of the brain, scale of the noise outside

CHANGE = 0.010  # signal change, as fraction of the mean, of a latent response of length 1
OWN = 0.75  # length of the latent vectors of a subject's spontaneous fluctuations
AGREEMENT = 0.32  # agreement of subjects' topographies of these, from 0 (none) to 1
ALIKE, ALIKE_WIDTH = 0.0027, 12.0  # rms as fraction of the mean, and width in mm: see `alike`
NOISE, NETWORK, DRIFT, PULSE = 0.012, 0.004, 0.006, 0.004  # sd as fractions of the mean
RESIDUAL = 0.1  # fraction of head motion that realignment leaves in the images

# Regions that respond to pictures: x (both sides), y, z, radius in mm of the template, strength.
REGIONS = (
    (22.0, -60.0, 0.0, 18.0, 1.0),  # occipital
    (34.0, -45.0, -20.0, 12.0, 0.9),  # ventral temporal
    (26.0, -50.0, 26.0, 12.0, 0.7),  # parietal
    (22.0, -4.0, -20.0, 8.0, 0.6),  # amygdala
    (6.0, 45.0, 25.0, 12.0, 0.5),  # medial prefrontal
    (38.0, 15.0, 0.0, 10.0, 0.5),  # insula
)
DROPOUT = ((0.0, 55.0, -28.0, 16.0, 0.7), (46.0, -10.0, -30.0, 12.0, 0.6))


class Subject(NamedTuple):
    """The constants of a subject's runs, for the v voxels in and around the brain."""

    mean: Float[Array, " v"]  # scanner units
    maps: Float[Array, "r v"]  # map of each course, see `courses`
    noise: Float[Array, " v"]  # sd as fraction of the mean
    memory: Float[Array, " v"]  # AR(1) coefficient


def affine(grid: tuple[int, int, int]) -> Float[np.ndarray, "4 4"]:
    """Returns the affine voxel -> mm; the origin is the centre of the box.

    Args:
      grid: number of voxels along each axis.
    """
    size = np.divide(FIELD, grid)
    out = np.diag([*size, 1.0])
    out[:3, 3] = -size * (np.subtract(grid, 1)) / 2
    return out


def places(grid: tuple[int, int, int]) -> Float[np.ndarray, "n 3"]:
    """Returns the centres of all voxels in mm, in C order.

    Args:
      grid: number of voxels along each axis.
    """
    index = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), -1).reshape(-1, 3)
    to_mm = affine(grid)
    return (index @ to_mm[:3, :3] + to_mm[:3, 3]).astype(np.float32)


def near_brain(grid: tuple[int, int, int]) -> Int[np.ndarray, " v"]:
    """Returns the flat indices of voxels that can belong to the brain of any subject.

    Args:
      grid: number of voxels along each axis.
    """
    size = np.divide(FIELD, grid)
    reach = np.add(HEAD, 0.12 * np.array(HEAD) + size)
    return np.flatnonzero(((places(grid) / reach) ** 2).sum(1) <= 1)


def fields(
    key: Key[Array, ""], places: Float[Array, "v 3"], widths: Float[Array, " count"]
) -> Float[Array, "count v"]:
    """Draws random fields with mean 0, sd 1 and correlation exp(-d^2 / (2 width^2)) at d mm.

    Fields are sums of cosines with random waves (Rahimi and Recht, NeurIPS 2007). They have a value
    at any position and do not depend on the grid.

    Args:
      key: random key.
      places: positions in mm.
      widths: width of each field in mm.
    """
    waves, (key_wave, key_phase) = 32, jax.random.split(key)
    wave = jax.random.normal(key_wave, (len(widths), waves, 3)) / widths[:, None, None]
    phase = jax.random.uniform(key_phase, (len(widths), waves), maxval=2 * jnp.pi)

    def field(parts):
        wave, phase = parts
        return jnp.sqrt(2 / waves) * jnp.cos(places @ wave.T + phase).sum(1)

    return jax.lax.map(field, (wave, phase))


def bumps(places: Float[Array, "v 3"], spots: Sequence[tuple[float, ...]]) -> Float[Array, " v"]:
    """Returns the maximum over Gaussian spots and their mirror images.

    Args:
      places: positions in mm.
      spots: x, y, z, radius (mm) and height of each spot.
    """
    x, y, z, radius, height = jnp.array(spots).T[..., None]
    distance = (jnp.abs(places[:, 0]) - x) ** 2 + (places[:, 1] - y) ** 2 + (places[:, 2] - z) ** 2
    return (height * jnp.exp(-distance / (2 * radius**2))).max(0)


def mixing(key: Key[Array, ""], count: int, shared: float) -> Float[Array, "count count"]:
    """Draws a random orthogonal matrix, the nearest to sqrt(shared) I + sqrt(1 - shared) Q.

    Args:
      key: random key.
      count: size of the matrix.
      shared: weight of the identity, from 0 to 1; Q is a random orthogonal matrix.
    """
    random = jax.random.orthogonal(key, count)
    u, _, vt = jnp.linalg.svd(jnp.sqrt(shared) * jnp.eye(count) + jnp.sqrt(1 - shared) * random)
    return u @ vt


def _head(key):
    """Returns a subject's keys, and the half axes and centre of its head in mm."""
    names = ("size", "shift", "tissue", "mixing", "fields")
    keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))
    half = jnp.array(HEAD) * (1 + 0.03 * jax.random.normal(keys["size"], (3,)).clip(-2, 2))
    shift = 2.0 * jax.random.normal(keys["shift"], (3,)).clip(-2, 2)
    return keys, half, shift


@jax.jit
def alike(
    key: Key[Array, ""], key_maps: Key[Array, ""], places: Float[Array, "v 3"]
) -> Float[Array, " v"]:
    """Returns a subject's map of the response that all subjects share in template space.

    Args:
      key: random key of the subject.
      key_maps: random key of the maps that all subjects share.
      places: positions in mm of the voxels near the brain.

    Returns:
      Difference between negative and neutral pictures, as fraction of the mean.
    """
    _, half, shift = _head(key)
    template = (places - shift) / half * jnp.array(HEAD)
    return ALIKE * fields(jax.random.fold_in(key_maps, 1), template, jnp.array([ALIKE_WIDTH]))[0]


@jax.jit
def subject(
    key: Key[Array, ""],
    key_maps: Key[Array, ""],
    places: Float[Array, "v 3"],
    size: Float[Array, " 3"],
) -> Subject:
    """Draws one subject's anatomy and functional topography.

    Args:
      key: random key of the subject.
      key_maps: random key of the response maps that all subjects mix.
      places: positions in mm of the voxels near the brain.
      size: size of a voxel in mm.
    """
    keys, half, shift = _head(key)
    template = (places - shift) / half * jnp.array(HEAD)

    def image(places):  # mean EPI at one position; its gradient is used as well
        inside = (places - shift) / half
        at = inside * jnp.array(HEAD)
        depth = (1 - jnp.sqrt((inside**2).sum() + 1e-6)) * half.mean()  # mm; differentiable at 0
        ventricle = ((at - jnp.array([0.0, -5.0, 8.0])) / jnp.array([9.0, 22.0, 9.0])) ** 2
        bright = 1 + 0.4 * jax.nn.sigmoid(6 * (1 - ventricle.sum()))
        coil = 1.1 - 0.003 * depth  # surface coils are more sensitive at the rim
        lost = 1 - bumps(at[None], DROPOUT)[0]
        tissue = 1 + 0.08 * fields(keys["tissue"], at[None], jnp.array([9.0]))[0, 0]
        filled = jnp.clip(depth / size.mean() + 0.5, 0, 1)  # fraction of the voxel that is brain
        return TISSUE * filled * bright * coil * lost * tissue

    mean, slope = jax.vmap(jax.value_and_grad(image))(places)
    task = fields(key_maps, template, jnp.full(DIMENSIONS, 6.0))
    widths = jnp.array([10.0, 12.0, 20.0] + NETWORKS * [12.0] + DRIFTS * [40.0])
    noise, memory, pulse, *rest = fields(keys["fields"], template, widths)
    moved = jnp.concatenate([slope, jnp.cross(places, slope)], 1).T  # [6, v], units per mm and rad
    maps = [
        CHANGE * bumps(template, REGIONS) * (mixing(keys["mixing"], DIMENSIONS, AGREEMENT) @ task),
        NETWORK * jnp.stack(rest[:NETWORKS]),
        DRIFT * jnp.stack(rest[NETWORKS:]),
        PULSE * (1 + 0.3 * pulse[None]),
        -RESIDUAL * jnp.where(mean > 0, moved / jnp.maximum(mean, 0.2 * TISSUE), 0),
    ]
    return Subject(
        mean,
        jnp.concatenate(maps),
        noise=NOISE * (1 + 0.15 * noise).clip(0.5, 1.5),
        memory=(0.35 + 0.08 * memory).clip(0.1, 0.6),
    )


@partial(jax.jit, static_argnames="num_volumes")
def motion(key: Key[Array, ""], num_volumes: int) -> Float[Array, "t 6"]:
    """Draws realignment parameters (mm, then rad): a slow walk with a jerk in 1 % of volumes.

    Args:
      key: random key.
      num_volumes: number of volumes.
    """
    key_walk, key_when, key_jerk = jax.random.split(key, 3)
    unit = jnp.array([1, 1, 1, 0.02, 0.02, 0.02])
    walk = jnp.cumsum(0.015 * jax.random.normal(key_walk, (num_volumes, 6)), 0)
    when = jax.random.bernoulli(key_when, 0.01, (num_volumes, 1))
    jerk = when * 0.4 * jax.random.normal(key_jerk, (num_volumes, 6))
    return unit * (walk - walk[0] + jerk)


def autoregressive(
    key: Key[Array, ""], memory: Float[Array, " v"], num_volumes: int
) -> Float[Array, "t v"]:
    """Draws stationary AR(1) noise of sd 1.

    Args:
      key: random key.
      memory: AR(1) coefficient of each voxel.
      num_volumes: number of volumes.
    """
    draws = jax.random.normal(key, (num_volumes, *memory.shape))

    def step(last, draw):
        value = memory * last + jnp.sqrt(1 - memory**2) * draw
        return value, value

    _, rest = jax.lax.scan(step, draws[0], draws[1:])
    return jnp.concatenate([draws[:1], rest])


@jax.jit
def courses(
    key: Key[Array, ""], task: Float[Array, "t k"], moves: Float[Array, "t 6"]
) -> Float[Array, "t r"]:
    """Returns the time courses of a run, in the order of `Subject.maps`.

    Args:
      key: random key.
      task: response to the stimuli.
      moves: realignment parameters.
    """
    key_noise, key_drift = jax.random.split(key)
    memory = jnp.array(DIMENSIONS * [0.5] + NETWORKS * [0.7] + [0.5])
    noise = autoregressive(key_noise, memory, len(task))
    own, networks, pulse = jnp.split(noise, [DIMENSIONS, DIMENSIONS + NETWORKS], 1)
    time = jnp.linspace(-1, 1, len(task))
    legendre = jnp.stack([jnp.ones_like(time), time, 1.5 * time**2 - 0.5], 1)  # with an offset
    drift = legendre @ jax.random.normal(key_drift, (3, DRIFTS))
    jerks = jnp.abs(jnp.diff(moves[:, :3], axis=0, prepend=moves[:1, :3])).sum(1, keepdims=True)
    pulse -= jnp.where(jerks > 0.3, 4 * jerks, 0)  # a jerk darkens the whole volume
    return jnp.concatenate(
        [task + OWN * own / jnp.sqrt(DIMENSIONS), networks, drift, pulse, moves], axis=1
    )


@jax.jit
def series(
    key: Key[Array, ""],
    subject: Subject,
    courses: Float[Array, "t r"],
    alike: Float[Array, "t v"] | None = None,
) -> Float[Array, "t v"]:
    """Returns one run of the voxels near the brain, in scanner units.

    Args:
      key: random key.
      subject: constants of the subject.
      courses: time courses of the run.
      alike: additional signal, as fraction of the mean.
    """
    noise = subject.noise * autoregressive(key, subject.memory, len(courses))
    change = courses @ subject.maps if alike is None else courses @ subject.maps + alike
    return subject.mean * (1 + change + noise)


@partial(jax.jit, static_argnames="n")
def volume(
    key: Key[Array, ""], t: int, inside: Float[Array, " v"], where: Int[Array, " v"], n: int
) -> Int[Array, " n"]:
    """Returns volume t with air around the brain, as int16.

    Air is Rayleigh noise in 256 steps, so that one random word serves four voxels.

    Args:
      key: random key.
      t: index of the volume.
      inside: values of the voxels near the brain.
      where: flat indices of these voxels.
      n: number of voxels in the volume.
    """
    bits = jax.lax.bitcast_convert_type(
        jax.random.bits(jax.random.fold_in(key, t), (-(-n // 4),)), jnp.uint8
    )
    steps = AIR * jnp.sqrt(-2 * jnp.log((jnp.arange(256) + 0.5) / 256))
    air = steps[bits.reshape(-1)[:n].astype(jnp.int32)]
    values = air.at[where].set(jnp.hypot(inside, air[where]))
    return jnp.round(values).clip(0, 32767).astype(jnp.int16)
