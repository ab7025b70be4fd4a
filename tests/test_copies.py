"""Equal content is found whatever the type, scale, place or length of the copy."""

import time

import numpy as np
import pytest

from emojax.data import copies, grid
from emojax.data.run import Run
from emojax.errors import InputError

GRID = (10, 9, 8)


def make_run(subject, name, seed, length=20, shape=GRID, **changes):
    frames = np.random.default_rng(seed).normal(1000, 30, (length, *shape)).astype(np.float32)
    return Run(subject, name, **({"frames": frames, "tr": 2.0, "affine": np.eye(4)} | changes))


STUDY = [make_run(s, r, [i, j]) for i, s in enumerate("abcd") for j, r in enumerate(("1", "2"))]
FRAMES = STUDY[2].frames
SCALED = {"frames": np.round((FRAMES - 1000) / 0.01).astype(np.int32), "slope": 0.01}


def as_integers(frames):
    """Returns values as a file of 16-bit integers has them, over their whole range."""
    low, high = float(frames.min()), float(frames.max())
    slope = (high - low) / 65535
    stored = np.round((frames.astype(np.float64) - low) / slope - 32768).astype(np.int16)
    return {"frames": stored, "slope": slope, "intercept": low + 32768 * slope}


FLIP = grid.Turn((0, 1, 2), (True, False, False))


@pytest.mark.parametrize(
    "copy",
    [
        {"frames": FRAMES},
        as_integers(FRAMES),
        {"frames": FRAMES.astype(np.float64)},
        {"frames": FRAMES[5:]},
        {"frames": FRAMES[:3]},
        {"frames": np.concatenate([make_run("x", "1", 99).frames, FRAMES[7:9]])},
        {"frames": (FRAMES.astype(np.float64) - 7) / 3, "slope": 3.0, "intercept": 7.0},
        {"frames": FLIP.apply(FLIP.apply(FRAMES, 1).copy(), 1)},
    ],
    ids=[
        "as it is",
        "16-bit",
        "float64",
        "trimmed",
        "begun",
        "pasted",
        "another scale",
        "turned back",
    ],
)
def test_a_copy_is_refused_by_the_names_of_both(copy):
    run = Run("e", "1", tr=2.0, affine=np.eye(4), **copy)
    with pytest.raises(
        InputError, match=r"subject e run 1: found the same values as subject b run"
    ):
        copies.check([*STUDY, run])
    with pytest.raises(InputError, match="each scan once: remove one"):
        copies.check([run, *STUDY])


def test_integers_with_a_scale_are_the_floats_that_they_stand_for():
    ints = Run("e", "1", tr=2.0, intercept=1000.0, **SCALED)
    floats = Run("f", "1", (SCALED["frames"] * 0.01 + 1000).astype(np.float32), 2.0)
    with pytest.raises(InputError, match="the same values"):
        copies.check([ints, *STUDY, floats])


def test_what_is_only_alike_is_accepted():
    near = FRAMES + np.random.default_rng(1).normal(0, 0.1, FRAMES.shape).astype(np.float32)
    other_grid = make_run("f", "1", 5, shape=(9, 10, 8))
    copies.check([*STUDY, Run("e", "1", near, 2.0), other_grid])


def test_volumes_of_one_value_are_no_copies():
    blank = [make_run(s, "1", i) for i, s in enumerate("xyz")]
    for run in blank:
        run.frames[:3] = 0
        run.frames[3] = np.nan
    copies.check(blank)


def test_few_values_may_be_equal_by_chance():
    rows = [np.random.default_rng(i).integers(0, 3, (20, 3)) for i in range(4)]
    runs = [Run(s, "1", x) for s, x in zip("abcd", rows, strict=True)]
    copies.check(runs)
    with pytest.raises(InputError, match="subject e run 1"):
        copies.check([*runs, Run("e", "1", rows[1][4:])])


def test_a_thousand_runs_are_quick():
    runs = [make_run(str(i), "1", i, length=12, shape=(6, 6, 5)) for i in range(1000)]
    copies.check(runs)
    again = Run("again", "1", runs[500].frames[3:9], 2.0, np.eye(4))
    with pytest.raises(InputError, match=r"subject again run 1: found .* subject 500 run 1"):
        copies.check([*runs, again])


def test_maps_of_a_region_and_betas_of_both_signs():
    """Zeros where the sample is taken, and values whose range is twice the largest."""
    region = np.zeros((10, 9, 8))
    region[:3, :2, :2] = 1
    maps = [np.random.default_rng(i).normal(size=(6, 10, 9, 8)) * region for i in range(5)]
    betas = [np.random.default_rng(i).normal(size=(6, 10, 9, 8)) for i in range(5)]
    for values in (maps, betas):
        runs = [Run(str(i), "maps", x.astype(np.float32)) for i, x in enumerate(values)]
        copies.check(runs)
        with pytest.raises(InputError, match="subject again run maps: found the same values"):
            copies.check([*runs, Run("again", "maps", **as_integers(values[2][3:5]))])


def test_one_bright_scan_or_voxel_hides_nothing_and_costs_nothing():
    runs = [make_run(str(i), "1", i, length=60) for i in range(30)]
    bright = make_run("bright", "1", 77)
    bright.frames[:] *= 1000
    artefact = make_run("artefact", "1", 78)
    artefact.frames[:, 5, 4, 4] = 1e7
    started = time.process_time()
    copies.check([*runs, bright, artefact])
    assert time.process_time() - started < 2  # 22 s where all had one tolerance
    again = Run("again", "1", artefact.frames[3:9].copy())
    with pytest.raises(InputError, match="subject again run 1"):
        copies.check([*runs, bright, artefact, again])
    copies.check([artefact, Run("other", "1", np.where(artefact.frames > 1e6, 1e7, bright.frames))])
