"""Claims of a workdir: which process is at work on which piece of a run."""

import pathlib
import shutil

from emojax.locks import Held, Lock, holder


class Claims:
    """A folder with a lock for every piece that a process is at work on."""

    def __init__(self, folder: pathlib.Path):
        """Args: the folder, made on first use."""
        self.folder = folder
        self._own: dict[str, Lock] = {}

    def take(self, name: str, file: str) -> Lock | None:
        """Claims a piece until the lock is left; None where another living process has it.

        Args:
          name: of the piece.
          file: the name as that of a file.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            self._own[name] = Lock(self.folder / f"{file}.lock")
        except (Held, FileNotFoundError):  # the latter: the run has just ended
            return None
        return self._own[name]

    def check(self, name: str) -> None:
        """Refuses to store a piece that another process has taken over.

        Raises:
          InputError: it has, e.g. while this machine was suspended.
        """
        if name in self._own:
            self._own[name].check()

    def refuse_any(self) -> None:
        """Refuses pieces that living processes are at work on.

        Raises:
          Held: there is one.
        """
        if self.is_held:
            expected = "none with --restart (wait until they have ended)"
            raise Held(self.folder, "processes at work on pieces of the run", expected)

    @property
    def is_held(self) -> bool:
        """Whether any living process is at work on a piece."""
        return any(holder(path) for path in self.folder.glob("*.lock"))

    def remove(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
