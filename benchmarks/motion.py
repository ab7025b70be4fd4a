"""Accuracy and time of estimating rigid motion to a reference, beside python-rtspm.

    python benchmarks/motion.py                    # about a minute on 2 cores
    pip install python-rtspm                       # the peer (GPL-3; emojax never imports it)

A brain-like phantom of 64 x 64 x 44 voxels of 3 mm is moved by splines of order 5 (not the
estimator's own) by at most 2 mm and 2 degrees, with 2 % noise; the reference is the mean of 20
unmoved volumes. `estimate` starts at the reference's own pose, `estimate, warm` within 0.2 mm and
0.2 degrees of the true one, as from the volume before. Errors are the distance of the shifts in mm
and the angle between the rotations in degrees. The peer has SPM's settings for real time: 5 mm
smoothing, every 4 mm. `unmoved` has the poses found where nothing has moved. There, the simulated
demo (run-02 against the mean of run-01, 6 mm voxels) has drift, networks and a tenth of a head's
usual movement.
"""

import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from benchmarks.record import keep, make_parser
from emojax.online import rigid

GRID, SIZES = (64, 64, 44), (3.0, 3.0, 3.0)
HEAD = (66.0, 82.0, 54.0)  # mm, half axes
NOISE = 0.02  # sd, as a share of the brain's mean
FINE = 2  # subvoxels along each edge, for partial volumes


def phantom(shape, sizes, half=HEAD, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Returns a brain-like image with folds, ventricles, dropout and coils, and its mask."""
    rng = np.random.default_rng(seed)
    axes = [
        (np.arange(n * FINE) - (n * FINE - 1) / 2) * s / FINE
        for n, s in zip(shape, sizes, strict=True)
    ]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    u, v, w = (a / h for a, h in zip((x, y, z), half, strict=True))

    def field(width, waves=24):
        out = np.zeros_like(x)
        for *k, phase in np.c_[rng.normal(size=(waves, 3)) / width, rng.uniform(0, 6.3, waves)]:
            out += np.cos(k[0] * x + k[1] * y + k[2] * z + phase)
        return out * np.sqrt(2 / waves)

    def step(distance, width):
        return 1 / (1 + np.exp(-np.clip(distance / width, -50, 50)))

    depth = (1 - np.sqrt(u**2 + v**2 + w**2) * (1 + 0.03 * field(15))) * np.mean(half)  # mm
    white = step(depth - 9 + 5 * field(5), 1.0)  # its border with grey matter is folded
    ventricles = step(1 - (u / 0.14) ** 2 - (v / 0.27) ** 2 - ((w - 0.15) / 0.17) ** 2, 0.17)
    tissue = 800 * (1 - 0.18 * white) * (1 + 0.35 * step(2.5 - depth, 0.7)) * (1 + 0.4 * ventricles)
    front = u**2 + (v - 0.67) ** 2 + (w + 0.52) ** 2
    side = (abs(u) - 0.7) ** 2 + (v + 0.12) ** 2 + (w + 0.56) ** 2
    lost = 0.7 * np.exp(-front / 0.1) + 0.5 * np.exp(-side / 0.06)
    image = step(depth, 0.5) * tissue * (1 - lost) * (1.1 - 0.003 * depth) * (1 + 0.04 * field(9))
    parts = [p for n in shape for p in (n, FINE)]
    image = image.reshape(parts).mean((1, 3, 5))
    return image, np.asarray(ndimage.binary_fill_holes(image > 200))


def move(image, affine, shift, turn, order=5):
    """Returns the image of a head that has moved by x -> R x + shift, mm, about the middle."""
    linear, middle = affine[:3, :3], (np.array(image.shape) - 1) / 2
    back = np.linalg.inv(linear) @ Rotation.from_rotvec(turn).as_matrix().T
    matrix = back @ linear
    offset = middle - matrix @ middle - back @ np.asarray(shift)
    return ndimage.affine_transform(image, matrix, offset, order=order, mode="nearest")


def errors(pose, shift, turn):
    """Returns the distance of the shifts in mm and the angle between the rotations in degrees."""
    found, true = (Rotation.from_rotvec(np.asarray(t, float)) for t in (pose.turn, turn))
    off = np.linalg.norm(np.asarray(pose.shift, float) - shift)
    return off, np.rad2deg((found.inv() * true).magnitude())


def drawn(rng, most):
    """Returns a vector [3] of random direction and a length up to `most`."""
    direction = rng.normal(size=3)
    return most * rng.uniform() ** (1 / 3) * direction / np.linalg.norm(direction)


def timed(call):
    """Returns the ms and the result of a call."""
    start = time.perf_counter()
    found = jax.block_until_ready(call())
    return 1e3 * (time.perf_counter() - start), found


def summary(name, times, off=()):
    """Returns the row of one tool: ms of its calls, and errors of its estimates."""
    row = {"tool": name, "calls": len(times)}
    row |= dict(zip(("p50", "p99"), np.percentile(times, (50, 99)), strict=True))
    if len(off):
        for part, column in zip(("mm", "degrees"), np.transpose(off), strict=True):
            row |= {f"{part}_median": np.median(column), f"{part}_max": column.max()}
    return {key: own if isinstance(own, str | int) else float(own) for key, own in row.items()}


def ours(model, volumes, voxels):
    """Returns rows of estimates and of resampling; calls of each kind take turns."""
    rng, still, kept = np.random.default_rng(1), rigid.Pose.still(), {}
    for volume, shift, turn in [volumes[0], *volumes]:  # the first call compiles
        near = still._replace(
            shift=jnp.asarray(shift + drawn(rng, 0.2), jnp.float32),
            turn=jnp.asarray(turn + np.deg2rad(drawn(rng, 0.2)), jnp.float32),
        )
        for name, start in (("estimate", still), ("estimate, warm", near)):
            ms, pose = timed(lambda v=volume, p=start: rigid.estimate(model, v, p))
            kept.setdefault(name, []).append((ms, errors(pose, shift, turn)))
        for name, own in ((f"resample {len(voxels)} voxels", voxels), ("resample all", None)):
            ms, _ = timed(lambda v=volume, p=pose, o=own: rigid.resample(model, v, p, o))
            kept.setdefault(name, []).append((ms, ()))
    rows = []
    for name, found in kept.items():
        times, off = zip(*found[1:], strict=True)
        rows.append(summary(f"emojax {name}", times, off if off[0] else ()))
    return rows


def peer(reference, volumes):
    """Returns the row of python-rtspm's `spm_realign_rt`, none if it is not installed."""
    try:
        from rtspm import spm_realign_rt  # pyright: ignore[reportMissingImports] a peer
    except ImportError as error:
        print(f"left out: {error}")
        return []
    affine = np.diag((*SIZES, 1.0))  # its voxels count from 1
    affine[:3, 3] = -np.array(SIZES) * (np.array(GRID) + 1) / 2
    flags = {"quality": 0.9, "fwhm": 5, "sep": 4, "rtm": 0, "interp": 4, "lkp": np.arange(6)}
    flags["wrap"] = np.zeros((3, 1))

    def image(values):
        return {"mat": affine.copy(), "dim": np.array(GRID), "Vol": np.array(values, order="F")}

    base, shared, times, off = image(reference), (None,) * 6, [], []
    for i, (volume, shift, turn) in enumerate([volumes[0], *volumes]):  # the first sets it up
        pair = [base, image(volume.astype(float))]
        ms, found = timed(lambda p=pair, s=shared, i=i: spm_realign_rt(p, flags, i, 0, *s))
        pair, shared = found[0], found[1:7]
        motion = affine @ np.linalg.inv(pair[1]["mat"])
        turned = Rotation.from_matrix(motion[:3, :3]).as_rotvec()
        pose = rigid.Pose.still()._replace(shift=motion[:3, 3], turn=turned)
        times.append(ms)
        off.append(errors(pose, shift, turn))
    return [summary("python-rtspm spm_realign_rt", times[1:], off[1:])]


def unmoved(name, model, volumes, size):
    """Returns the row of distances from 0 of the poses found for unmoved volumes."""
    found = [rigid.estimate(model, volume) for volume in volumes]
    far = {
        "mm": np.linalg.norm([pose.shift for pose in found], axis=1),
        "degrees": np.rad2deg(np.linalg.norm([pose.turn for pose in found], axis=1)),
        "displacement_mm": np.array([rigid.displacement(pose) for pose in found]),
    }
    far["displacement_voxels"] = far["displacement_mm"] / size
    quantiles = {"p50": 50, "p95": 95, "max": 100}
    return {"volumes": name} | {
        key: {q: float(np.percentile(own, p)) for q, p in quantiles.items()}
        for key, own in far.items()
    }


def demo():
    """Returns the row of unmoved volumes, of the simulated demo's first subject."""
    from configs import expA
    from emojax import masking, sources

    config = expA.get_config("demo030")
    config.data.update({"progress": False, "subjects": "01"})
    first, second = (np.asarray(run.frames, np.float32) for run in sources.load(config.data).runs)
    reference = first.mean(0)
    model = rigid.init(reference, masking.brain_mask(reference, **config.mask), np.full(3, 6.0))
    return unmoved("demo030 sub-01 run-02", model, second, 6.0)


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--volumes", type=int, default=200)
    parser.add_argument("--peer_volumes", type=int, default=30)
    args = parser.parse_args()
    load = os.getloadavg()[0]
    image, mask = phantom(GRID, SIZES)
    affine, rng = np.diag((*SIZES, 1.0)), np.random.default_rng(0)
    sd = NOISE * image[mask].mean()

    def noisy(values, scale=1.0):
        return (values + rng.normal(0, scale * sd, GRID)).astype(np.float32)

    reference = noisy(image, 20**-0.5)
    volumes = []
    for _ in range(args.volumes):
        shift, turn = drawn(rng, 2.0), np.deg2rad(drawn(rng, 2.0))
        volumes.append((noisy(move(image, affine, shift, turn)), shift, turn))
    model = rigid.init(reference, mask, affine)
    voxels = np.sort(rng.choice(np.flatnonzero(mask), 300, replace=False))
    rows = ours(model, volumes, voxels) + peer(reference, volumes[: args.peer_volumes])
    still = [unmoved("phantom, 2 % noise", model, [noisy(image) for _ in range(100)], 3.0), demo()]
    found = {"rows": rows, "unmoved": still, "load_average": [load, os.getloadavg()[0]]}
    keep(f"motion_{jax.default_backend()}", "motion", found)
    for row in rows + still + [found["load_average"]]:
        print(row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
