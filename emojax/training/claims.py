"""Claims in a workdir: records of which process works on which piece of a run."""

import pathlib
import shutil

from emojax.locks import Held, Lock, holder


class Claims:
    """A folder with a lock for every piece that a process is working on."""

    def __init__(self, folder: pathlib.Path):
        """Args: the folder, created on first use."""
        self.folder = folder
        self._own: dict[str, Lock] = {}

    def take(self, name: str, file: str) -> Lock | None:
        """Claims a piece until the lock is released; returns None if a running process has it.

        Args:
          name: name of the piece.
          file: the name in the form of a file name.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            self._own[name] = Lock(self.folder / f"{file}.lock")
        except (Held, FileNotFoundError):  # FileNotFoundError: the run has just ended
            return None
        return self._own[name]

    def check(self, name: str) -> None:
        """Checks that no other process has taken over a piece.

        Raises:
          InputError: another process has, e.g. while this machine was suspended.
        """
        if name in self._own:
            self._own[name].check()

    def refuse_any(self) -> None:
        """Checks that no running process is working on a piece.

        Raises:
          Held: a process is.
        """
        if self.is_held:
            expected = "none with --restart (wait until they have ended)"
            raise Held(self.folder, "processes at work on pieces of the run", expected)

    @property
    def is_held(self) -> bool:
        """True if any running process is working on a piece."""
        return any(holder(path) for path in self.folder.glob("*.lock"))

    def remove(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
