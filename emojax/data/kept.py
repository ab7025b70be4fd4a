"""Files that are made once, whole under their names, and verified before they are used again."""

import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from emojax import files
from emojax.data import hashes, sealed, unfinished
from emojax.errors import InputError, say


class Folder:
    """A folder of such files, each beside its record: <name>.<type> and <name>.json."""

    def __init__(self, path: pathlib.Path):
        """Args: the folder; `open` makes it."""
        self.path = path
        self._verified: set[pathlib.Path] = set()  # files whose hash was right
        self._swept = False

    def open(self) -> None:
        """Makes the folder; the first time, removes what killed processes have left in it.

        Raises:
          InputError: it cannot be made.
        """
        try:
            (self.path / "paths").mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: a path with a NUL
            found = f"a folder that cannot be made ({files.cause(error)})"
            raise InputError(self.path, found, "one that can be written (data.store)") from None
        if not self._swept:
            unfinished.sweep(self.path)
            self._swept = True

    def once(
        self,
        name: str,
        file: pathlib.Path | None,
        layout: Mapping[str, Any],
        make: Callable[[], dict[str, Any]],
    ) -> dict[str, Any]:
        """Returns the record of what is made once: the one that is there, or a new one.

        Args:
          name: hash that names what is made.
          file: the file that the record is about, or None.
          layout: what the record must say.
          make: makes the file, and returns what the record says beside name and layout; of a file,
            its "bytes" and its hash as "content".
        """
        record, wanted = self.path / f"{name}.json", {"name": name, **layout}
        facts, fault = None, None
        try:
            facts = self._verified_record(record, file, wanted)
        except sealed.Damaged as error:
            fault = error
        if facts is None:
            facts = wanted | make()
            self.remember(record, facts, lasting=file is not None)
            self._verified.add(file)
        if fault:
            say(f"{fault}; it was made again")
        if file is not None:
            with contextlib.suppress(OSError):  # the folder may be read-only
                os.utime(file)  # notes the use
        return facts

    def remember(self, record: pathlib.Path, facts: dict[str, Any], lasting: bool = False) -> None:
        """Writes a record, where that is possible: without it, a later run does the work again.

        Args:
          record: its path.
          facts: its content.
          lasting: whether to wait until the disk has it.
        """
        with contextlib.suppress(InputError), self.writing(record):
            with self.partial(record) as partial:
                sealed.write(partial, facts)
                if lasting:
                    files.sync(partial)
            if lasting:
                files.sync(record.parent)

    @contextlib.contextmanager
    def partial(self, path: pathlib.Path) -> Iterator[pathlib.Path]:
        """Yields a name beside `path`; renamed to it at the end, removed on any failure.

        Raises:
          InputError: the file cannot be renamed.
        """
        partial = unfinished.beside(path)
        try:
            yield partial
            with self.writing(path):
                os.replace(partial, path)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    @contextlib.contextmanager
    def writing(self, path: pathlib.Path) -> Iterator[None]:
        """Turns an error of the operating system, such as a full disk, into one line.

        Raises:
          InputError: the block could not write.
        """
        try:
            yield
        except OSError as error:
            found = f"a folder in which {path.name} cannot be written ({files.cause(error)})"
            raise InputError(self.path, found, "one with room for it (data.store)") from None

    def reserve(self, size: int, path: pathlib.Path) -> None:
        """Refuses to begin what the disk has no room for.

        Args:
          size: bytes.
          path: the file that they are made of, for the message.

        Raises:
          InputError: fewer bytes are free.
        """
        free = shutil.disk_usage(self.path).free
        if size > free:
            expected = f"{size:,} for what is made of {path} (data.store)"
            raise InputError(self.path, f"{free:,} bytes free on its disk", expected)

    def _verified_record(self, record, file, wanted) -> dict[str, Any] | None:
        """Returns a record, whose file has been verified, or None where there is none.

        Raises:
          Damaged: the record or the file is not what was written.
        """
        facts = sealed.read(record)
        if facts is None:
            return None
        if not wanted.items() <= facts.items():
            raise sealed.Damaged(f"{record} is about something else")
        if file is None:
            return facts
        try:
            size = hashes.stamp(file)["size"]
            if size != facts.get("bytes"):
                raise sealed.Damaged(f"{file} has {size:,} bytes, which is not its length")
            if file not in self._verified and hashes.sha256(file) != facts["content"]:
                raise sealed.Damaged(f"{file} has other content than was written")
        except InputError as error:
            raise sealed.Damaged(str(error)) from None
        self._verified.add(file)
        return facts


def allocate(path: pathlib.Path) -> None:
    """Takes the disk space of a file that is to be mapped: a full disk would end the process later.

    Raises:
      OSError: there is not enough.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with open(path, "r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, os.path.getsize(path))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise  # others: a file system that does not know how
