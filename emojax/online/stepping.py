"""Decoding of one volume after the other; the functions of `emojax.online`.

A scanner's gain drifts within a run and differs between runs, and heads move. A decoder that holds
a reference image of its subject (see `decoder.guards`) corrects each volume to it: in space by a
rigid motion, in intensity by a least-squares line. The result depends on nothing but the volume and
the reference. A decoder whose training volumes were corrected causally (`data.online`) applies the
same correction, which also uses the preceding volumes.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from emojax import models
from emojax.decoder import guards, personal
from emojax.decoder.build import Decoder
from emojax.decoder.decode import decode_inputs, inputs, onto_grid, verify
from emojax.decoder.guards import Line, Marks
from emojax.errors import InputError
from emojax.online import blur, correction, rigid
from emojax.online.correction import Correction
from emojax.online.correction import State as Memory

STEPS = ("motion", "level")
AUTO, NONE = "auto", "none"
LEAST_GAIN = 0.1  # with a smaller gain, the level of a volume is not corrected
STILL = 0.02, 0.05  # voxels; a smaller shift and rotation (at 50 mm) is not corrected
SPOTS = 4096  # voxels at which the level of a moved volume is measured


class Record(NamedTuple):
    """The outcome of one volume."""

    volume: int  # index of the step, from 0
    probabilities: Float[np.ndarray, " k"]
    decision: str  # class of the highest probability
    marks: Marks  # of the volume as scanned
    aligned: float  # correlation with the reference after the correction; NaN without a reference
    motion: Float[np.ndarray, " 6"]  # mm and degrees from the reference; NaN if not estimated
    displacement: float  # mm from the volume before (Power et al., NeuroImage 59, 2012)

    @property
    def status(self) -> str:
        """The status: "ok", or "marked" for a conspicuous volume."""
        return "marked" if self.marks.reasons else "ok"


class Registration(NamedTuple):
    """The reference, prepared for correcting volumes to it."""

    model: rigid.Model
    voxels: Int[np.ndarray, " v"] | None  # voxels of the network, then the spots; None for all
    spots: Int[np.ndarray, " s"]  # flat indices of the voxels at which the level is measured
    reference: Float[np.ndarray, " s"]  # values at the spots, scaled to mean 0 and norm 1
    errors: Float[np.ndarray, "3 n"]  # interpolation errors at the voxels, see `blur`
    level: float  # mean of the reference at the spots
    length: float  # norm of the centred reference at the spots
    reach: float  # largest number of voxels in 1 mm
    largest: float  # larger values are clipped, as splines would spread them


class State(NamedTuple):
    """The state carried from one volume to the next."""

    decoder: Decoder
    steps: tuple[str, ...]  # some of `STEPS`
    registration: Registration | None
    correction: Correction | None  # causal correction of the training volumes
    memory: Memory | None
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]  # a field of a tuple
    before: Float[np.ndarray, "X Y Z"] | None  # the last volume
    pose: rigid.Pose  # of the last volume that resembled the reference after the correction


def steps_of(decoder: Decoder, correct: str = AUTO) -> tuple[str, ...]:
    """Returns the steps that correct volumes to the reference.

    Args:
      decoder: see `decoder.load`.
      correct: "motion", "level", or both joined by "+"; "none" to decode volumes as scanned, as in
        the report; "auto" for all possible steps: both if the decoder has a reference of its own
        subject, but no level if the training volumes were scaled already (`data.online`).

    Raises:
      InputError: a step is unknown, or the decoder has no reference for it.
    """
    facts = decoder.facts
    limits = {name for name, *_ in facts.limits}
    possible = [] if decoder.affine is None else ["motion"]
    scaled = "gain" in facts.online.split("+")  # scaled once is enough
    possible += ["level"] if "gain" in limits and not scaled else []
    if decoder.reference is None or not facts.reference_of:
        possible = []
    if correct == NONE:
        return ()
    if correct == AUTO:
        return tuple(possible)
    asked = tuple(correct.split("+"))
    if not set(asked) <= set(STEPS) or len(set(asked)) < len(asked):
        raise InputError("correct", repr(correct), f"{AUTO}, {NONE}, or {'+'.join(STEPS)} or one")
    if not set(asked) <= set(possible):
        expected = f"{'+'.join(possible) or 'none'}, which this decoder has a reference for"
        raise InputError("correct", repr(correct), expected)
    return asked


def init(decoder: Decoder, correct: str = AUTO) -> State:
    """Returns the state before the first volume of a run.

    Args:
      decoder: see `decoder.load`.
      correct: see `steps_of`.

    Raises:
      InputError: as `steps_of`, or the decoder is not calibrated yet.
    """
    personal.check_calibrated(decoder)
    steps, chosen, memory = steps_of(decoder, correct), None, None
    if decoder.facts.online:
        chosen = correction.parse(decoder.facts.online)
        shape = inputs(decoder, np.zeros(decoder.facts.grid, np.float32)).shape
        memory = correction.init(chosen._replace(gain=False), shape)
    try:
        made = _register(decoder) if "motion" in steps else None
    except ValueError as error:
        expected = "--correct=level or none (correct= in Python)"
        raise InputError("reference", error, expected) from None
    return State(decoder, steps, made, chosen, memory, 0, None, rigid.Pose.still())


def _register(decoder: Decoder) -> Registration:
    reference, affine = np.asarray(decoder.reference), np.asarray(decoder.affine)
    model = rigid.init(reference, decoder.mask, affine)
    inside = np.flatnonzero(decoder.mask)
    spots = inside[:: -(-len(inside) // SPOTS)]
    voxels, errors = None, blur.at_half(reference).reshape(3, -1)
    if models.find(decoder.network).input == "vector":
        voxels = np.concatenate([np.asarray(decoder.weights["voxels"]), spots])
        errors = errors[:, voxels]
    values = reference.reshape(-1)[spots]
    own, level, length = guards.unit(values)
    reach = float(1 / np.linalg.norm(affine[:3, :3], axis=0).min())
    largest = 10 * float(np.nanmax(np.abs(values)))
    return Registration(model, voxels, spots, own, errors, level, length, reach, largest)


def step(
    state: State,
    volume: Float[np.ndarray, "X Y Z"] | Float[np.ndarray, " v"],
    affine: Float[np.ndarray, "4 4"] | None = None,
    where: str = "",
    motion: Float[np.ndarray, " 6"] | None = None,
) -> tuple[State, Record]:
    """Decodes the next volume.

    Args:
      state: state from `init` or the step before; it is not modified.
      volume: [X, Y, Z] in the units of the scanner, after the decoder's `facts.preprocessing`; or
        [v] for a decoder of vectors.
      affine: voxel -> mm of the volume; None is not checked.
      where: name of the volume, for messages.
      motion: realignment parameters, if the training volumes were corrected for them; None takes
        the estimated motion.

    Raises:
      InputError: the volume does not pass `decoder.verify`, or there are no motion parameters.
    """
    decoder, where = state.decoder, where or f"volume {state.count}"
    volume, affine = onto_grid(decoder, np.asarray(volume), affine)
    # A copy, since the caller may reuse the array. Volumes from files are in Fortran order.
    volume = np.array(volume, np.float32, order="C")
    marks = verify(decoder, volume, affine, where, state.before)
    placed = _onto_reference(state, volume, marks)
    x, marks = placed.x, placed.marks
    memory, left = state.memory, decoder.facts.drop_first if state.correction else 0
    if state.count < left:  # the correction begins after these volumes, as in training
        marks = marks._replace(
            reasons=(*marks.reasons, f"one of the first {left}, left in training")
        )
        probabilities, decision = np.full(len(decoder.facts.classes), np.nan), ""
    else:
        if state.correction is not None:
            if motion is None and state.registration is not None:
                motion = placed.motion
            memory, x = _as_in_training(state, volume, x, motion, where)
        probabilities = decode_inputs(decoder, x, where)
        decision = decoder.facts.classes[int(probabilities.argmax())]
    aligned, pose = placed.line.correlation, placed.pose
    if aligned < _least(decoder):  # such a volume must not influence the next
        pose, memory = state.pose, state.memory
    after = state._replace(memory=memory, count=state.count + 1, before=volume, pose=pose)
    more = aligned, placed.motion, placed.displacement
    return after, Record(state.count, probabilities, decision, marks, *more)


class _Placed(NamedTuple):
    """A volume after its correction to the reference."""

    x: Float[np.ndarray, "..."]  # input of the network
    marks: Marks
    line: Line  # before the level was corrected
    pose: rigid.Pose
    motion: Float[np.ndarray, " 6"]
    displacement: float


def _onto_reference(state: State, volume: Float[np.ndarray, "X Y Z"], marks: Marks) -> _Placed:
    """Corrects a volume to the reference by the steps of the state."""
    line = Line(marks.gain, marks.offset, marks.correlation)
    x, pose, own = inputs(state.decoder, volume), state.pose, state.registration
    motion, displacement = np.full(6, np.nan), float("nan")
    if own is not None:
        seen = volume.clip(-own.largest, own.largest)
        found = pose = rigid.estimate(own.model, seen, state.pose)
        motion = np.concatenate([found.shift, np.degrees(found.turn)])
        displacement = float(rigid.displacement(found, state.pose))
        if _has_moved(found, own.reach):
            back, after = _moved_back(own, seen, found)
            if after.correlation >= min(line.correlation, _least(state.decoder)):
                x, line = back, after
            else:
                marks = marks._replace(reasons=(*marks.reasons, "motion that was not found"))
                pose = state.pose
    if "level" in state.steps and line.gain > LEAST_GAIN:
        x = (x - np.float32(line.offset)) / np.float32(line.gain)
    return _Placed(x, marks, line, pose, motion, displacement)


def _least(decoder: Decoder) -> float:
    """Returns the limit of the correlation below which a volume does not resemble the reference."""
    return guards.prepare(decoder).limits.get("correlation", (-1.0, 1.0))[0]


def _has_moved(pose: rigid.Pose, reach: float) -> bool:
    sizes = np.linalg.norm(pose.shift), np.linalg.norm(pose.turn) * rigid.RADIUS
    return any(size * reach > least for size, least in zip(sizes, STILL, strict=True))


def _moved_back(
    own: Registration, volume: Float[np.ndarray, "X Y Z"], pose: rigid.Pose
) -> tuple[Float[np.ndarray, "..."], Line]:
    """Returns the network's input after undoing the motion of a volume, and its line."""
    read = np.arange(volume.size) if own.voxels is None else own.voxels
    x = np.asarray(rigid.resample(own.model, volume, pose, read))
    error = np.asarray(blur.between(own.errors, rigid.away(own.model, pose, read)))
    spots = own.spots if own.voxels is None else slice(-len(own.spots), None)
    x = x - np.float32(_line(own, x[spots]).gain) * error
    line = _line(own, x[spots])
    return (x.reshape(volume.shape) if own.voxels is None else x[: -len(own.spots)]), line


def _line(own: Registration, values: Float[np.ndarray, " s"]) -> Line:
    return guards.line(guards.inside(values), own.reference, own.level, own.length)


def _as_in_training(
    state: State,
    volume: Float[np.ndarray, "X Y Z"],
    x: Float[np.ndarray, "..."],
    motion: Float[np.ndarray, " 6"] | None,
    where: str,
) -> tuple[Memory, Float[np.ndarray, "..."]]:
    """Returns the memory and the network's input after the causal correction of training."""
    chosen = state.correction
    assert chosen is not None and state.memory is not None  # by `init`
    if chosen.needs_motion and (
        motion is None or np.shape(motion) != (6,) or not np.isfinite(motion).all()
    ):
        expected = f"six finite ones, as in training (data.online={chosen.text})"
        raise InputError(where, f"motion parameters {motion}", expected)
    if chosen.gain:
        x = x * np.asarray(correction.gain(volume))
    if not chosen.steps:
        return state.memory, x
    own = None if motion is None else jnp.asarray(motion, jnp.float32)
    memory, x = correction.step(chosen._replace(gain=False), state.memory, jnp.asarray(x), own)
    return memory, np.asarray(x)


def replay(
    decoder: Decoder,
    volumes: Iterable[Float[np.ndarray, "X Y Z"]],
    affine: Float[np.ndarray, "4 4"] | None = None,
    *,
    correct: str = AUTO,
    where: Sequence[str] | str = "",
) -> list[Record]:
    """Decodes the volumes of a run in order.

    Args:
      decoder: see `decoder.load`.
      volumes: volumes of one run, from its first.
      affine: voxel -> mm of the volumes; None is not checked.
      correct: see `steps_of`.
      where: name of the run, for messages.

    Raises:
      InputError: as `init` and `step`.
    """
    state, records = init(decoder, correct), []
    for volume in volumes:
        name = f"{where}, volume {state.count}" if where else ""
        state, record = step(state, volume, affine, name)
        records.append(record)
    return records
