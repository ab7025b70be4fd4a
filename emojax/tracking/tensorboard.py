"""The logger `tensorboard`: event files with a run for each arm and a curve for each fold."""

import uuid
from collections.abc import Mapping

import tensorboardX

from emojax.tracking import Run


class TensorBoard:
    """Curves "loss/01", "accuracy/01" and so on for every arm, by epoch.

    A resumed run adds files to the same folders. Epochs that it repeats have the same values at the
    same steps of the curves.
    """

    def __init__(self, run: Run):
        self._folder = run.folder
        self._writers: dict[str, tensorboardX.SummaryWriter] = {}

    def log(self, training: str, fold: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Adds a point to the curves of a fold."""
        if training not in self._writers:
            folder = self._folder / training.replace("/", "-")
            own = f".{uuid.uuid4().hex[:8]}"  # file names alone differ only by whole seconds
            self._writers[training] = tensorboardX.SummaryWriter(
                str(folder), flush_secs=10, filename_suffix=own
            )
        for name, value in metrics.items():
            self._writers[training].add_scalar(f"{name}/{fold}", value, epoch)

    def close(self, finished: bool) -> None:
        """Writes pending points."""
        for writer in self._writers.values():
            writer.close()
