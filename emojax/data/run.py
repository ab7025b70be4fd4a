"""One scanner run: all its volumes in order, and how to read them."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Num

Rows = Sequence[int] | np.ndarray | slice
Step = Callable[["Run", Any], "Run"]  # (run, store) -> the run that a step of cleaning makes of it


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One scanner run: all its volumes in order, labelled or not."""

    subject: str
    name: str  # unique within the subject, e.g. "ses-1_run-02"
    frames: Num[
        np.ndarray, "t ..."
    ]  # [t, X, Y, Z] or [t, voxels]; often memory-mapped, stored units
    tr: float | None = None  # s between volumes; None where rows are not points in time
    affine: Float[np.ndarray, "4 4"] | None = None  # voxel -> mm
    slope: float = 1.0  # value = slope * stored + intercept
    intercept: float = 0.0
    motion: Float[np.ndarray, "t _"] | None = None  # realignment parameters
    hashes: Mapping[str, str] = dataclasses.field(default_factory=dict)  # source file -> sha256
    starts: Float[np.ndarray, " t"] | None = None  # s, of volumes that are not TR apart
    changes: tuple[str, ...] = ()  # recipes of values that are no longer those of the files
    confounds: pathlib.Path | None = None  # table of fMRIPrep; read only when asked for
    uncleaned: "Run | None" = None  # the run before its `steps`; None: it was not cleaned
    steps: tuple[Step, ...] = ()  # of cleaning, in order; they can be done again to other values

    @property
    def content(self) -> str:
        """Identity of the values, for the keys of arrays that are derived from them.

        It follows from the hashes of the files; only a run without any is read.
        """
        if self.hashes:
            return " ".join((*self.hashes.values(), *self.changes))
        scale = f"{self.frames.dtype} {self.frames.shape} {self.slope} {self.intercept}"
        return f"{hashlib.sha256(self.frames.tobytes()).hexdigest()} {scale}"

    @property
    def place(self) -> str:
        """Origin of the run for messages: its first file, else subject and run."""
        return next(iter(self.hashes), f"subject {self.subject} run {self.name}")

    def read(self, frames: Rows, voxels=...) -> Float[np.ndarray, "k ..."]:
        """Reads some volumes (and some voxels, an index), float32, in the units of the scan."""
        values = np.asarray(self.frames[frames][:, *np.index_exp[voxels]], np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused later
            if self.slope != 1:
                values = values * np.float32(self.slope)
            return values if self.intercept == 0 else values + np.float32(self.intercept)

    def replace(self, frame: int, values: Float[np.ndarray, "..."]) -> "Run":
        """Returns the same run, in memory, with other values of one volume.

        Every other volume reads as before, bit by bit and in the same memory order: the frames
        become the float32 values that `read` returns.

        Args:
          frame: the volume, of t.
          values: [X, Y, Z] or [voxels], in the units of the scan; kept as float32.

        Raises:
          ValueError: the values have another shape than the volume.
        """
        values = np.asarray(values, np.float32)
        if values.shape != self.frames.shape[1:]:
            raise ValueError(f"want values of shape {self.frames.shape[1:]}; got {values.shape}")
        frames = np.array(self.read(slice(None)), order="K")
        frames[frame] = values
        change = f"volume {frame} is {hashlib.sha256(values.tobytes()).hexdigest()}"
        return self.with_values(frames, change)

    def with_values(
        self, frames: Float[np.ndarray, "t ..."], recipe: str, step: Step | None = None
    ) -> "Run":
        """Returns the same run with values that were made from it, in the units of the scan.

        Args:
          frames: the values.
          recipe: their making in words, for keys of what is derived from them.
          step: makes them, and does so again of other values; without it, what was done to the run
            before cannot be done again either.
        """
        before, steps = (None, ()) if step is None else (self.uncleaned or self, self.steps)
        return dataclasses.replace(
            self,
            frames=frames,
            slope=1.0,
            intercept=0.0,
            changes=(*self.changes, recipe),
            uncleaned=before,
            steps=steps if step is None else (*steps, step),
        )
