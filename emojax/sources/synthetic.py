"""A simulation of the paper's cohort, with the same design and size, generated from a random key.

Realistic parts, and the figures that set them:

* Design: 20 s blocks at TR 2 s, pictures alternating with rest. A: 11 subjects, 2 runs of 200
  volumes, 50 % rest, 25 % neutral, 25 % negative. B: 22 subjects, 39 runs, 1524 neutral and 1524
  negative volumes. The run lengths of the other 11 subjects are not published; here they are 80 to
  134 volumes, which give that sum. Events start at 15 s, so that with a lag of 5 s blocks fall on
  whole volumes.
* Responses: 35 dimensions shared by all subjects (Haxby et al., Neuron 72, 2011), which each
  subject mixes by its own orthogonal matrix; changes of 1 to 3 % of the mean in the most active
  voxels. Each block and each picture adds its own response, and each subject has spontaneous
  fluctuations in the same dimensions.
* Spatially shared response (`shared`): a smooth map of negative minus neutral, rms 0.27 % of the
  mean, over the whole brain. With it, contrast maps of two subjects have a mean cosine of .18 where
  the image is bright (6 subjects, 6 seeds: .14 to .25; without it -.01 to .03). This value is that
  of contrast maps of 100 people, faces minus shapes, voxel by voxel. The map's shape is a choice: a
  random field that is correlated over 12 mm.
* Haemodynamics: the canonical response of SPM (Friston et al., NeuroImage 7, 1998).
* Noise: median temporal SNR of about 50 in the brain, drift included (50 at 3 T: Murphy et al.,
  NeuroImage 34, 2007; noise at 3 T and 3 mm is largely physiological and so goes with the signal:
  Triantafyllou et al., NeuroImage 26, 2005). AR(1) with coefficients of 0.35 +- 0.08 that vary
  smoothly in space (Woolrich et al., NeuroImage 14, 2001, show that they vary with tissue; the
  value is a choice). Slow drift, networks, a global pulse. Residual motion after realignment shows
  at edges; in 1 % of volumes a jerk darkens the volume (Power et al., NeuroImage 59, 2012).
  Magnitudes are Rician, air is dark.

Unrealistic parts: brains are ellipsoids without folds, so noise and topography do not follow a
cortex; haemodynamics are linear and the same in all places, subjects and sessions, without
habituation; regions and their strengths are round guesses; there is no respiration or heartbeat
with its own frequency, no slice timing and no distortion; patients and controls do not differ.

Classes differ only by their means: in no real data set that was tried did a non-linear decoder find
anything more. `nonlinear` tests whether a pipeline would detect it. At 1, blocks of a class evoke
one of two opposed patterns in turn, so that the class means are equal; rest stays apart. It is 0
wherever accuracies are reported.

The strength of signal 1 was set, not measured on people: leaving one subject out of A, a logistic
regression on 300 voxels has a balanced accuracy of 0.48 on unaligned voxels and 0.78 after
hyperalignment by the other run, and of 0.37 and 0.34 without a response (chance 0.33; seed 0, full
size, shared 0). A score on this cohort shows that a pipeline works, never how well emotions are
decoded.
"""

import functools
import hashlib
import json
import pathlib
from typing import Any

import jax
import numpy as np
import rich.progress
from jaxtyping import Float, Int

from emojax.data import cohort, windows
from emojax.data import events as tables
from emojax.data.cohort import Cohort
from emojax.data.label_map import Labelling
from emojax.data.labels import assign
from emojax.data.run import Run
from emojax.data.store import Store, default
from emojax.files import split_list
from emojax.sources import synthetic_design as design
from emojax.sources import synthetic_responses as pictures
from emojax.sources import synthetic_signals as simulation
from emojax.sources.synthetic_design import Event, Scan, Settings

PAPER = tables.Timing()
VERSION = 1  # of the simulated values; incremented whenever they change


def load(data: Any) -> Cohort:
    """Returns the cohort of `config.data.synthetic`, in the store of `config.data`.

    Args:
      data: the config's `data`.

    Raises:
      InputError: a setting is out of range, or names subjects or runs that do not exist.
    """
    return simulate(
        settings(data),
        Store(default(data)),
        tables.timing(data),
        subjects=split_list(data.subjects),
        runs=split_list(data.runs),
        progress=data.progress,
    )


def settings(data: Any) -> Settings:
    """Returns the checked settings of `config.data.synthetic`.

    Args:
      data: the config's `data`.

    Raises:
      InputError: a setting is out of range.
    """
    values = data.synthetic
    return design.check(Settings(**{name: values[name] for name in Settings._fields}))


def simulate(
    settings: Settings,
    store: Store,
    timing: tables.Timing = PAPER,
    *,
    subjects: tuple[str, ...] = (),
    runs: tuple[str, ...] = (),
    progress: bool = False,
) -> Cohort:
    """Simulates a cohort into a store, or opens runs stored before; one run is in memory at a time.

    Args:
      settings: settings of the simulation, such as Settings(subjects=6, grid=(32, 32, 22)).
      store: store of the volumes, as int16.
      timing: rules by which blocks become labels.
      subjects: names of the subjects to simulate, such as ("01", "02"); all if empty.
      runs: names of the runs to simulate; all if empty.
      progress: whether to draw a progress bar.

    Raises:
      InputError: a setting is out of range, or names subjects or runs that do not exist.
    """
    settings = design.check(settings)
    wanted = design.chosen(design.scans(settings), subjects, runs)
    bar = rich.progress.track(wanted, "simulating runs", transient=True, disable=not progress)
    made = [_run(settings, scan, store) for scan in bar]
    labelled = [labels(settings, scan, timing) for scan in wanted]
    return cohort.build(made, design.CLASSES[settings.design], labelled)


def labels(settings: Settings, scan: Scan, timing: tables.Timing = PAPER) -> Int[np.ndarray, " t"]:
    """Returns the class of each volume of a run; -1 for no class.

    Args:
      settings: settings of the simulation.
      scan: the run.
      timing: rules by which blocks become labels.
    """
    classes = design.CLASSES[settings.design]
    labelling = Labelling(
        classes,
        {kind: classes.index(kind) for kind in design.KINDS},
        baseline=classes.index("rest") if "rest" in classes else -1,
    )
    place, blocks = pathlib.Path(_place(scan)), design.blocks(settings, scan)
    events = tables.from_columns(place, *zip(*blocks, strict=True))
    return assign(events, labelling, timing, windows.regular(scan.volumes, pictures.TR)).labels


def events(data: Any, subject: str, run: str) -> list[Event]:
    """Returns the true blocks of a run in the cohort of `load`, in order; rest has no events.

    Args:
      data: the config's `data`, as for `load`.
      subject: name of the subject, as in the cohort.
      run: name of the run, as in the cohort.

    Raises:
      InputError: there is no such run.
    """
    checked = settings(data)
    (scan,) = design.chosen(design.scans(checked), (subject,), (run,))
    return design.blocks(checked, scan)


def planted(data: Any, subject: str) -> Float[np.ndarray, "X Y Z classes"]:
    """Returns the true class maps of a subject: the mean response of each class.

    The response is that of an infinitely long block minus the mean over classes, in scanner units;
    it is 0 outside the brain and where nothing is planted.

    Args:
      data: the config's `data`, as for `load`.
      subject: name of the subject, as in the cohort.

    Raises:
      InputError: there is no such subject.
    """
    checked = settings(data)
    scan = design.chosen(design.scans(checked), (subject,), ())[0]
    where, own, alike = _subject(checked.seed, checked.grid, scan.subject)
    common, apart = pictures.directions(design.keys(checked.seed)["classes"])
    linear = 1 - checked.nonlinear
    signs = {"rest": (0, 0), "neutral": (1, -linear), "negative": (1, linear)}
    strength = 0.0 if checked.null else checked.signal
    change = [
        (of_all * common + of_class * apart) @ own.maps[: pictures.DIMENSIONS]
        + of_class / 2 * checked.shared * alike
        for of_all, of_class in (signs[name] for name in design.CLASSES[checked.design])
    ]
    values = strength * np.stack(change, 1) * np.asarray(own.mean)[:, None]
    out = np.zeros((int(np.prod(checked.grid)), values.shape[1]), np.float32)
    out[where] = values - values.mean(1, keepdims=True)
    return out.reshape(*checked.grid, -1)


def _place(scan: Scan) -> str:
    """Returns the name of a run in messages and hashes, where other sources name a file."""
    subject, run = scan.names
    return f"synthetic sub-{subject} {run}"


@functools.lru_cache(maxsize=1)  # the runs of a subject follow each other
def _subject(seed: int, grid: tuple[int, int, int], number: int):
    """Returns the voxels near the brain [v], and a subject's constants and shared map there."""
    where, keys = simulation.near_brain(grid), design.keys(seed)
    key, size = jax.random.fold_in(keys["subjects"], number), np.divide(simulation.FIELD, grid)
    places = simulation.places(grid)[where]
    subject = simulation.subject(key, keys["maps"], places, size)
    return where, subject, simulation.alike(key, keys["maps"], places)


def _values(settings: Settings) -> list:
    """Returns the settings that a run's values depend on.

    Settings added in later versions are omitted at 0, so that runs stored earlier stay valid.
    """
    *first, nonlinear, shared = settings._replace(subjects=0, volumes=0)
    return [*first, nonlinear, shared] if nonlinear or shared else first


def _run(settings: Settings, scan: Scan, store: Store) -> Run:
    """Returns one run, which is computed into the store unless it is there already."""
    keys, grid = design.keys(settings.seed), settings.grid
    names = ("motion", "courses", "noise", "air")
    key_runs = jax.random.fold_in(keys["runs"], scan.subject)
    key_run = jax.random.fold_in(key_runs, scan.run)
    own = dict(zip(names, jax.random.split(key_run, len(names)), strict=True))
    moves = simulation.motion(own["motion"], scan.volumes)

    def fill(out):
        where, subject, alike = _subject(settings.seed, grid, scan.subject)
        key_pictures = jax.random.fold_in(keys["pictures"], scan.run)
        stimuli = design.stimuli(design.blocks(settings, scan), scan.volumes)
        activity = pictures.responses(keys["classes"], key_pictures, stimuli, settings.nonlinear)
        strength = 0.0 if settings.null else settings.signal
        task = strength * pictures.haemodynamic(activity, scan.volumes)
        courses = simulation.courses(own["courses"], task, moves)
        linear = strength * settings.shared * (1 - settings.nonlinear)
        contrast = linear * pictures.haemodynamic(pictures.contrast(stimuli), scan.volumes)
        inside = np.asarray(
            simulation.series(own["noise"], subject, courses, contrast * alike if linear else None)
        )
        for t, values in enumerate(inside):
            volume = simulation.volume(own["air"], t, values, where, int(np.prod(grid)))
            out[t] = volume.reshape(grid)

    subject, run = scan.names
    key = json.dumps(["synthetic", VERSION, *_values(settings), *scan])
    frames = store.derived(key, (scan.volumes, *grid), np.int16, fill)
    return Run(
        subject,
        run,
        frames,
        tr=pictures.TR,
        affine=simulation.affine(grid),
        motion=np.asarray(moves),
        hashes={_place(scan): hashlib.sha256(key.encode()).hexdigest()},
    )
