"""The paper's cohort, simulated: the same design and size, made of a key instead of people.

What is realistic, with the figures that set it:

* Design: 20 s blocks at TR 2 s, pictures alternating with rest. A: 11 subjects, 2 runs of 200
  volumes, 50 % rest, 25 % neutral, 25 % negative. B: 22 subjects, 39 runs, 1524 neutral and 1524
  negative volumes. How long the runs of the other 11 subjects were is not published: here 80 to 134
  volumes, which give that sum. Events start at 15 s, so that with a lag of 5 s blocks fall on
  whole volumes.
* Responses: 35 dimensions that all subjects share (Haxby et al., Neuron 72, 2011), each subject
  mixing them by an orthogonal matrix of its own; changes of 1 to 3 % of the mean in the most active
  voxels. A block and every picture have responses of their own, and subjects fluctuate by
  themselves in the same dimensions.
* What people have in the same places (`shared`): a smooth map of negative minus neutral, rms 0.27 %
  of the mean, over the whole brain. With it, contrast maps of two subjects have a mean cosine of
  .18 where the image is bright (6 subjects, 6 seeds: .14 to .25; without it -.01 to .03). That
  is the figure of contrast maps of 100 people, faces minus shapes, voxel by voxel. Its shape is a
  choice: a random field that is correlated over 12 mm.
* Haemodynamics: the canonical response of SPM (Friston et al., NeuroImage 7, 1998).
* Noise: median temporal SNR of about 50 in the brain, drift included (50 at 3 T: Murphy et al.,
  NeuroImage 34, 2007; noise at 3 T and 3 mm is largely physiological and so goes with the signal:
  Triantafyllou et al., NeuroImage 26, 2005). AR(1) with coefficients of 0.35 +- 0.08 that vary
  smoothly in space (that they vary with tissue: Woolrich et al., NeuroImage 14, 2001; the figure is
  a choice). Slow drift, networks, a global pulse. What realignment leaves of movement shows at
  edges; in 1 % of volumes a jerk darkens the volume (Power et al., NeuroImage 59, 2012). Magnitudes
  are Rician, air is dark.

What is not: brains are ellipsoids without folds, so that noise and topography do not follow a
cortex; haemodynamics are linear and the same in all places, subjects and sessions, without
habituation; regions and their strengths are round guesses; no respiration or heartbeat of its own
frequency, no slice timing, no distortion; patients and controls do not differ.

Classes differ by their means alone, as far as is known of people: no data set that was tried has
anything for a non-linear decoder. `nonlinear` tests that a pipeline would see it. At 1, blocks of a
class evoke one of two opposed patterns in turn, so that the means of classes are equal; rest stays
apart. It is 0 wherever accuracies are quoted.

The strength of signal 1 was set, not measured on people: leaving one subject out of A, a logistic
regression on 300 voxels has a balanced accuracy of 0.48 on voxels as they are and 0.78 after
hyperalignment by the other run, and of 0.37 and 0.34 without a response (chance 0.33; seed 0, full
size, shared 0). A figure from this cohort says that a pipeline works, never how well emotions are
decoded.
"""

import functools
import hashlib
import json
import pathlib

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
VERSION = 1  # of the values: a change of the simulation counts it up


def load(data) -> Cohort:
    """Returns the cohort of `config.data.synthetic`, in the store of `config.data`.

    Args:
      data: the config's `data`.

    Raises:
      InputError: a setting is out of range, or names subjects or runs that there are not.
    """
    return simulate(
        settings(data),
        Store(default(data)),
        tables.timing(data),
        subjects=split_list(data.subjects),
        runs=split_list(data.runs),
        progress=data.progress,
    )


def settings(data) -> Settings:
    """Returns the checked settings of `config.data.synthetic`."""
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
    """Simulates a cohort into a store, or opens what is there; memory holds one run at a time.

    Args:
      settings: what is simulated, e.g. Settings(subjects=6, grid=(32, 32, 22)).
      store: where the volumes go, int16.
      timing: how blocks become labels.
      subjects, runs: names of those to simulate, e.g. ("01", "02"); () is all.
      progress: draw a bar.

    Raises:
      InputError: a setting is out of range, or names subjects or runs that there are not.
    """
    settings = design.check(settings)
    wanted = design.chosen(design.scans(settings), subjects, runs)
    bar = rich.progress.track(wanted, "simulating runs", transient=True, disable=not progress)
    made = [_run(settings, scan, store) for scan in bar]
    labelled = [labels(settings, scan, timing) for scan in wanted]
    return cohort.build(made, design.CLASSES[settings.design], labelled)


def labels(settings: Settings, scan: Scan, timing: tables.Timing = PAPER) -> Int[np.ndarray, " t"]:
    """Returns the class of each volume of a run, -1 where it has none."""
    classes = design.CLASSES[settings.design]
    labelling = Labelling(
        classes,
        {kind: classes.index(kind) for kind in design.KINDS},
        baseline=classes.index("rest") if "rest" in classes else -1,
    )
    place, blocks = pathlib.Path(_place(scan)), design.blocks(settings, scan)
    events = tables.from_columns(place, *zip(*blocks, strict=True))
    return assign(events, labelling, timing, windows.regular(scan.volumes, pictures.TR)).labels


def events(data, subject: str, run: str) -> list[Event]:
    """Returns the true blocks of a run of the cohort of `load`, in order; rest has no event.

    Args:
      data: the config's `data`, as for `load`.
      subject, run: names as in the cohort.

    Raises:
      InputError: there is no such run.
    """
    checked = settings(data)
    (scan,) = design.chosen(design.scans(checked), (subject,), (run,))
    return design.blocks(checked, scan)


def planted(data, subject: str) -> Float[np.ndarray, "X Y Z classes"]:
    """Returns where a subject's classes differ: the response that each evokes on average.

    It is what a block would reach if it lasted, less the mean over classes; scanner units, 0
    outside of the brain and where nothing is planted.

    Args:
      data: the config's `data`, as for `load`.
      subject: name as in the cohort.

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
    """Returns the name that a run has in messages and hashes, in place of a file's."""
    subject, run = scan.names
    return f"synthetic sub-{subject} {run}"


@functools.lru_cache(maxsize=1)  # the runs of a subject follow each other
def _subject(seed: int, grid: tuple[int, int, int], number: int):
    """Returns the voxels near the brain [v], and a subject's constants and `alike` map there."""
    where, keys = simulation.near_brain(grid), design.keys(seed)
    key, size = jax.random.fold_in(keys["subjects"], number), np.divide(simulation.FIELD, grid)
    places = simulation.places(grid)[where]
    subject = simulation.subject(key, keys["maps"], places, size)
    return where, subject, simulation.alike(key, keys["maps"], places)


def _values(settings: Settings) -> list:
    """Returns the settings that a run's values depend on; those at 0 that came later are absent."""
    *first, nonlinear, shared = settings._replace(subjects=0, volumes=0)
    return [*first, nonlinear, shared] if nonlinear or shared else first


def _run(settings: Settings, scan: Scan, store: Store) -> Run:
    """Returns one run, computed into the store unless it is there."""
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
