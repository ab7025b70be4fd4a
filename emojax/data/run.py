"""One scanner run: all its volumes in order, read on demand."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Num

Rows = Sequence[int] | np.ndarray | slice
Step = Callable[["Run", Any], "Run"]  # (run, store) -> the run after a step of cleaning


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One scanner run: all its volumes in order, labelled or not."""

    subject: str
    name: str  # unique within the subject, e.g. "ses-1_run-02"
    frames: Num[
        np.ndarray, "t ..."
    ]  # [t, X, Y, Z] or [t, voxels]; often memory-mapped, stored units
    tr: float | None = None  # s between volumes; None if rows are not points in time
    affine: Float[np.ndarray, "4 4"] | None = None  # voxel -> mm
    slope: float = 1.0  # value = slope * stored + intercept
    intercept: float = 0.0
    motion: Float[np.ndarray, "t _"] | None = None  # realignment parameters
    hashes: Mapping[str, str] = dataclasses.field(default_factory=dict)  # source file -> sha256
    starts: Float[np.ndarray, " t"] | None = None  # s, for volumes at irregular times
    changes: tuple[str, ...] = ()  # recipes that the values of the files have been changed by
    confounds: pathlib.Path | None = None  # fMRIPrep's table, read only when needed
    uncleaned: "Run | None" = None  # the run before its `steps`; None if it was not cleaned
    steps: tuple[Step, ...] = ()  # steps of cleaning, in order, repeatable with other values

    @property
    def content(self) -> str:
        """The identity of the values, for the keys of arrays derived from them.

        It follows from the hashes of the files; only a run without files is read.
        """
        if self.hashes:
            return " ".join((*self.hashes.values(), *self.changes))
        scale = f"{self.frames.dtype} {self.frames.shape} {self.slope} {self.intercept}"
        return f"{hashlib.sha256(self.frames.tobytes()).hexdigest()} {scale}"

    @property
    def place(self) -> str:
        """The origin of the run for messages: its first file, or else subject and run."""
        return next(iter(self.hashes), f"subject {self.subject} run {self.name}")

    def read(self, frames: Rows, voxels: Any = ...) -> Float[np.ndarray, "k ..."]:
        """Reads some volumes as float32, in the units of the scan.

        Args:
          frames: indices of the volumes, or a slice.
          voxels: NumPy index into the remaining axes; `...` for all voxels.
        """
        values = np.asarray(self.frames[frames][:, *np.index_exp[voxels]], np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # values that are not finite: see later
            if self.slope != 1:
                values = values * np.float32(self.slope)
            return values if self.intercept == 0 else values + np.float32(self.intercept)

    def replace(self, frame: int, values: Float[np.ndarray, "..."]) -> "Run":
        """Returns the run, in memory, with new values of one volume.

        All other volumes keep their exact values and memory order: the frames become the float32
        values that `read` returns.

        Args:
          frame: index of the volume, below t.
          values: [X, Y, Z] or [voxels], in the units of the scan; stored as float32.

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
        """Returns the run with values that were derived from it, in the units of the scan.

        Args:
          frames: the values.
          recipe: description of the derivation, for keys of derived arrays.
          step: function that repeats the derivation with other values; without it, earlier steps
            cannot be repeated either.
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
