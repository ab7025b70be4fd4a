"""Files of a simulated scanner on disk: written in parts or at once, logged, removed."""

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Sequence
from typing import BinaryIO

from emojax.online.simulate.faults import Action

PART = ".part"  # suffix of a file that is renamed when it is complete


class Disk:
    """A folder that actions are written to; leaving the context removes unfinished files."""

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        atomic: bool = False,
        keep: int | None = None,
        clean: bool = False,
    ):
        """Prepares to write.

        Args:
          folder: the folder.
          atomic: whether files get their names only when they are complete.
          keep: number of volumes whose files are kept; None keeps all.
          clean: whether all files are removed at the end.
        """
        self.folder, self._atomic, self._keep, self._clean = folder, atomic, keep, clean
        self._open: dict[pathlib.Path, BinaryIO] = {}  # files that are still growing
        self._begun: set[pathlib.Path] = set()
        self._written: dict[int, dict[pathlib.Path, None]] = {}  # paths of each volume

    def __enter__(self) -> "Disk":
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._open.values():
            with contextlib.suppress(OSError):  # the disk may be full
                file.close()
        for path in self._begun:
            path.unlink(missing_ok=True)
        for number in list(self._written) if self._clean else ():
            self._remove(number)

    def do(self, action: Action, names: Sequence[str], contents: Sequence[bytes]) -> None:
        """Writes an action's part of a volume.

        Args:
          action: see `faults.plan`.
          names: names of the volume's files.
          contents: complete content of each file.
        """
        paths = [self.folder / name for name in names]
        if action.part is None:
            for path, data in zip(paths, contents, strict=True):
                self._write(path, bytes(len(data)), 0, done=False, closes=True)
            return
        low, high = (int(share * sum(map(len, contents))) for share in action.part)
        for path, data in zip(paths, contents, strict=True):
            start, stop = max(low, 0), min(high, len(data))
            if start < stop:
                done = action.is_last or stop == len(data)
                self._write(path, data[start:stop], start, done, done or action.fault != "slow")
            low, high = low - len(data), high - len(data)
        if action.is_last:
            self._written.setdefault(action.volume, {}).update(dict.fromkeys(paths))
            self._forget(action.volume)

    def _write(self, path: pathlib.Path, data: bytes, start: int, done: bool, closes: bool) -> None:
        target = path.with_name(path.name + PART) if self._atomic else path
        file = self._open.pop(target, None)
        if file is None:
            mode = "r+b" if target in self._begun else "wb"
            self._begun.add(target)
            file = open(target, mode)  # noqa: SIM115 (a later part closes it)
        self._open[target] = file
        file.seek(start)
        file.write(data)
        file.flush()
        if closes:
            self._open.pop(target).close()
        if done:
            if self._atomic:
                os.replace(target, path)
            self._begun.discard(target)

    def _forget(self, newest: int) -> None:
        """Removes volumes that are no longer kept."""
        if self._keep is not None:
            for number in [n for n in self._written if n <= newest - self._keep]:
                self._remove(number)

    def _remove(self, number: int) -> None:
        for path in self._written.pop(number):
            path.unlink(missing_ok=True)


def line(action: Action, name: str, due: float) -> str:
    """Returns the log line of a volume, just after its last file was closed.

    Args:
      action: last action of the volume; a lost volume is logged without a file.
      name: name of its last file.
      due: scheduled time, s since 1970.
    """
    lost = action.fault == "lost"
    said = {"volume": action.volume, "file": None if lost else name}
    said |= {"closed": None if lost else time.time(), "due": due, "fault": action.fault}
    return json.dumps(said) + "\n"
